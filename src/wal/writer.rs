//! The appending end of the log.

use std::sync::Arc;

use super::cut::note_cut;
use super::log::Log;
use super::segment::{
    ACTIVATION_AT, Activation, HEADER_LEN_BYTES, RECORD_HEADER_LEN_BYTES, align, can_hold,
    encode_activation, encode_record_header, segment_seed,
};
use super::segment_factory::ReadySegment;
use crate::error::{Error, Result};
use crate::fs::fork::Owner;
use crate::types::SeqNo;
use crate::util::mutants::mutated;

/// Where a record's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PayloadPlace {
    /// Number of the segment.
    pub(crate) segment: u64,
    /// Offset in its file.
    pub(crate) offset: u64,
}

/// Appends records. There is one; the commit lock owns it.
#[derive(Debug)]
pub(crate) struct Writer {
    log: Arc<Log>,
    active: ReadySegment,
    /// Seed of the active segment's checksums.
    seed: u64,
    /// Where the next record goes.
    at: u64,
    /// Last sequence number appended.
    last: SeqNo,
    /// Up to where the log was durable when the last record was appended, and how many bytes of
    /// records were appended since that changed.
    synced: SeqNo,
    unsynced_bytes: u64,
    /// The activation of a next segment failed, and may be there all the same: then it cuts off
    /// all that is appended here. So nothing is, and the next append activates another segment,
    /// which overrules that one.
    is_left: bool,
    /// The process that may write; in a child the map would still lead to the parent's log.
    owner: Owner,
}

impl Writer {
    /// Writes into `active`, which is activated and holds no record from `at` on.
    pub(super) fn new(log: Arc<Log>, active: ReadySegment, at: u64, last: SeqNo) -> Self {
        Self {
            seed: segment_seed(log.store_id(), active.number),
            synced: log.synced_seq(),
            log,
            active,
            at,
            last,
            unsynced_bytes: 0,
            is_left: false,
            owner: Owner::this_process(),
        }
    }

    /// Appends one record, whose payload is `parts` joined, and returns where that is. `first` must
    /// follow the last record appended. `value_bytes` of the payload are values that engines will
    /// refer to. On error nothing counts as appended: the numbers are free, and the next append
    /// overwrites the place.
    pub(crate) fn append(
        &mut self,
        first: SeqNo,
        last: SeqNo,
        parts: &[&[u8]],
        value_bytes: u64,
    ) -> Result<PayloadPlace> {
        let record_len = self.make_room(first, last, parts)?;
        let synced = self.log.synced_seq();
        if synced != self.synced {
            (self.synced, self.unsynced_bytes) = (synced, 0);
        }
        let header = encode_record_header(self.seed, self.at, first, last, synced, parts);
        self.active
            .sink
            .write(self.at, &header, parts, self.unsynced_bytes)?;
        self.unsynced_bytes += record_len;
        let place = PayloadPlace {
            segment: self.active.number,
            offset: self.at + RECORD_HEADER_LEN_BYTES as u64,
        };
        self.at = align((self.at + record_len) as usize) as u64;
        self.last = last;
        self.log.note_append(last, record_len, self.at, value_bytes);
        Ok(place)
    }

    /// Has room for the record that [`append`](Self::append) is to write next, and returns its
    /// length. Writes nothing of the record; on error there is none.
    pub(crate) fn make_room(&mut self, first: SeqNo, last: SeqNo, parts: &[&[u8]]) -> Result<u64> {
        assert!(
            first == self.last.next() && first <= last,
            "records follow each other without gaps"
        );
        if !mutated!("forked-child-appends") {
            self.owner.check()?;
        }
        self.log.check_not_failed()?;
        if !can_hold(first, last) {
            return Err(Error::invalid(format!(
                "the store has used up the numbers of its operations: {last} is too high"
            )));
        }
        let payload_len: usize = parts.iter().map(|part| part.len()).sum();
        if payload_len > u32::MAX as usize - RECORD_HEADER_LEN_BYTES {
            return Err(Error::invalid(format!(
                "a log record of {payload_len} bytes exceeds 4 GiB"
            )));
        }
        let record_len = (RECORD_HEADER_LEN_BYTES + payload_len) as u64;
        if self.is_left || self.at + record_len > self.active.len_bytes {
            self.switch(first, record_len)?;
        }
        Ok(record_len)
    }

    /// Goes on in a small segment if the active one is long, so that a log of which nothing is
    /// needed can be [retired](Log::retire) but for that. Returns whether it does.
    pub(crate) fn shorten(&mut self) -> Result<bool> {
        self.owner.check()?;
        self.log.check_not_failed()?;
        if !self.log.is_active_long() {
            return Ok(false);
        }
        self.log.prepare_small()?;
        self.switch(self.last.next(), 0)?;
        Ok(true)
    }

    /// Cuts the active segment if much of it is free: the log is being closed, and everything in it
    /// is durable. Nothing is appended afterwards.
    pub(crate) fn cut(&mut self) -> Result<()> {
        self.owner.check()?;
        self.log.check_not_failed()?;
        let len_bytes = self.log.kept_len(self.at);
        if len_bytes >= self.active.len_bytes {
            return Ok(());
        }
        self.log.check_lock()?;
        let (file, number) = (Arc::clone(&self.active.file), self.active.number);
        if note_cut(&*file, self.log.store_id(), number, len_bytes)? {
            // Nothing is read from behind that any more.
            self.active.len_bytes = len_bytes;
            self.log.note_cut(number, len_bytes);
            file.set_len(len_bytes)?;
        }
        Ok(())
    }

    /// Makes a prepared segment the active one. Nothing is waited for, least of all a sync
    /// of the old segment: `Log::sync` covers both, in order. But there is an end to how many
    /// segments may wait for one.
    fn switch(&mut self, first: SeqNo, record_len: u64) -> Result<()> {
        self.log.bound_unsynced()?;
        let mut next = self.log.take_ready(HEADER_LEN_BYTES as u64 + record_len)?;
        let activation = Activation {
            first,
            previous: self.active.number,
            synced: self.log.synced_seq(),
        };
        let bytes = encode_activation(self.log.store_id(), next.number, &activation);
        if let Err(e) = next.sink.write_bytes(ACTIVATION_AT as u64, &bytes) {
            // What arrived names no record, and the
            // next try with a higher number overrules it.
            self.is_left = true;
            self.log.discard(next);
            return Err(e);
        }
        self.seed = segment_seed(self.log.store_id(), next.number);
        self.at = HEADER_LEN_BYTES as u64;
        self.is_left = false;
        let old = std::mem::replace(&mut self.active, next);
        self.log.note_switch(&self.active, first, old);
        Ok(())
    }
}
