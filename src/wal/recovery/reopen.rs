//! From reading to writing: what recovery makes durable, and where the log goes on.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use super::{Found, Recovery};
use crate::error::{Error, Result};
use crate::fs::{File, OpenMode};
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use crate::wal::cut::{free_max_bytes, note_cut};
use crate::wal::log::{Inheritance, Log, Resumed};
use crate::wal::segment::{
    ActivationState, HEADER_LEN_BYTES, RECORD_HEADER_LEN_BYTES, align, claimed_record,
    segment_path, temporary_path,
};
use crate::wal::segment_chain::LiveSegment;
use crate::wal::segment_factory::write_zeros;
use crate::wal::writer::Writer;
use crate::wal::{WalConfig, discard_file};

impl Recovery {
    /// Begins writing after `last`, which is what [`replay`](Self::replay) returned, or more if an
    /// engine holds more than the log does: then nothing in the log counts any longer. In a new
    /// segment (WL5), unless the last one will do (WL7); old ones stay until they are retired.
    pub(crate) fn into_log(mut self, config: WalConfig, last: SeqNo) -> Result<(Writer, Arc<Log>)> {
        let found = self.last.expect("replay comes first");
        assert!(last >= found, "recovered records are not cut off");
        self.sync_found()?;
        let previous = match self.chain.last() {
            Some(newest) if last == found => newest.number,
            _ => 0,
        };
        let resumed = self.resumable(config, last);
        // A new segment brings the names of the others to the disk, with its own.
        let resumed = resumed.filter(|_| self.sync_names().is_ok());
        let resumed = match resumed {
            Some(resumed) => self.claim(resumed)?,
            None => None,
        };
        let mut live = self.inherited(last);
        if resumed.is_some() {
            live.pop_back();
        }
        let mut blanks = self.blanks;
        let usable = blanks
            .iter()
            .position(|blank| blank.len_bytes == config.segment_len() && !blank.is_sparse);
        let spare = usable.map(|at| blanks.swap_remove(at).path);
        let (log, active) = Log::start(
            Arc::clone(&self.fs),
            &self.dir,
            self.store_id,
            config,
            Inheritance {
                live,
                spare,
                next_number: self.number_max + 1,
                last,
                previous,
                resumed,
                guard: self.guard,
                values: self.values,
            },
        )?;
        // Only now that a higher number is durable, or that they took no record, may files be
        // removed (WL2).
        let unused = blanks.iter().map(|blank| &blank.path);
        let mut discarded = false;
        for path in self.temporaries.iter().chain(unused) {
            discard_file(&*self.fs, path)?;
            discarded = true;
        }
        if discarded && !mutated!("files-discarded-at-open-not-synced") {
            // With them goes what a failed sync of an earlier process has left behind: the next
            // segment that is deleted is not to be gone before one that was deleted then (WL3).
            self.fs.sync_dir(&self.dir)?;
        }
        let at = resumed.map_or(HEADER_LEN_BYTES as u64, |resumed| resumed.end_bytes);
        Ok((Writer::new(Arc::clone(&log), active, at, last), log))
    }

    /// The newest segment, if the log may go on in it (WL7).
    fn resumable(&self, config: WalConfig, last: SeqNo) -> Option<Resumed> {
        let is_known_durable = self.durable >= last || mutated!("log-goes-on-behind-a-torn-tail");
        // An activation that was lost leaves records behind that only its number tells apart.
        let is_newest = self
            .blanks
            .iter()
            .all(|blank| blank.state == ActivationState::Blank);
        let newest = self.newest_with_end(config, last);
        newest.filter(|_| is_known_durable && is_newest)
    }

    /// True if all that keeps the log from going on in its newest segment is that nothing says that
    /// it is durable up to `last`: see [`note_durable`](Self::note_durable).
    pub(crate) fn lacks_witness(&self, config: WalConfig, last: SeqNo) -> bool {
        // A segment that was never used by its looks may have lost its activation.
        self.durable < last
            && self.blanks.is_empty()
            && self.newest_with_end(config, last).is_some()
    }

    /// The newest segment, if the log ends in it, at `last`. Much of it may be free, if it can be
    /// cut.
    fn newest_with_end(&self, config: WalConfig, last: SeqNo) -> Option<Resumed> {
        let segment = self.chain.last()?;
        let end_bytes = self.open_end?.at as u64;
        let kept_bytes = align(end_bytes as usize) as u64 + free_max_bytes(config.segment_len());
        let len_bytes = match segment.is_cut {
            true => segment.len_bytes,
            false => segment.len_bytes.min(kept_bytes),
        };
        (self.last == Some(last) && len_bytes <= config.segment_len()).then(|| Resumed {
            number: segment.number,
            len_bytes,
            is_sparse: segment.is_sparse,
            first: segment.first().min(last.next()),
            end_bytes,
        })
    }

    /// Others know from now on that the log was durable up to `last`, its last number, after
    /// [`make_durable`](Self::make_durable) has made it so.
    pub(crate) fn note_durable(&mut self, last: SeqNo) {
        debug_assert!(self.is_durable && self.last == Some(last));
        self.durable = last;
    }

    /// Makes the newest segment one to go on in, as `resumed` says, or returns `None` if an I/O
    /// error prevents that: a new segment will do then. Whatever was changed, it holds the records
    /// that were found, and no other.
    fn claim(&mut self, resumed: Resumed) -> Result<Option<Resumed>> {
        match self.try_to_claim(&resumed) {
            Err(Error::Io { .. }) if !mutated!("segment-that-cannot-be-claimed-ends-opening") => {
                Ok(None)
            }
            claimed => claimed.map(|()| Some(resumed)),
        }
    }

    /// Writes the activation of the segment again, and zeros behind its records, durably: the one
    /// may be in memory only, after a kill, and the others may have no space on the disk. Between
    /// the two it is cut, if that is wanted.
    fn try_to_claim(&mut self, resumed: &Resumed) -> Result<()> {
        let path = segment_path(&self.dir, resumed.number);
        let file = self.fs.open(&path, OpenMode::ReadWrite)?;
        let (end, len_bytes) = (resumed.end_bytes, resumed.len_bytes);
        if self.open_end.is_some_and(|open_end| !open_end.is_clean) {
            // What was torn loses its header first: of the rest, any part may become zero before
            // the others, and what was not found must not become whole by that.
            let header_end = len_bytes.min(end + RECORD_HEADER_LEN_BYTES as u64);
            write_zeros(&*file, end..header_end)?;
            mutated!("torn-record-cleared-at-once", Ok(()), file.sync_data())?;
        }
        rewrite(&*file, 0, HEADER_LEN_BYTES)?;
        self.cut_to(&*file, len_bytes)?;
        if mutated!("torn-tail-stays") {
            rewrite(&*file, end as usize, len_bytes as usize)?;
        } else {
            write_zeros(&*file, end..len_bytes)?;
        }
        file.sync_data()
    }

    /// Cuts the newest segment, whose file it is, to `len_bytes`, which hold all of its records.
    fn cut_to(&mut self, file: &dyn File, len_bytes: u64) -> Result<()> {
        let newest = self.chain.last_mut().expect("it is to be gone on in");
        if len_bytes == newest.len_bytes {
            return Ok(());
        }
        note_cut(file, self.store_id, newest.number, len_bytes)?;
        newest.len_bytes = len_bytes;
        if let Some(values) = &self.values {
            values.note_len(newest.number, len_bytes);
        }
        file.set_len(len_bytes)
    }

    /// Makes what replay found durable: engines rely on it that persist something before there is a
    /// new segment.
    pub(crate) fn make_durable(&mut self) -> Result<()> {
        self.sync_found()?;
        self.sync_names()
    }

    /// Makes what replay found durable, as the new segment is going to say, but for names that an
    /// earlier process has failed to sync. Does so once only.
    fn sync_found(&mut self) -> Result<()> {
        if self.is_durable {
            return Ok(());
        }
        if self.has_no_files() && !mutated!("empty-log-directory-taken-for-durable") {
            // An earlier process may have failed to sync its name, which another sync would not
            // bring to the disk: so it is made anew. Not with foreign files in it.
            let _ = self.fs.remove_dir(&self.dir);
        }
        self.fs.create_dir_all(&self.dir)?;
        if let Some(parent) = self.dir.parent() {
            // Even if the directory was there: the process that created it may have ended before
            // this.
            self.fs.sync_dir(parent)?;
        }
        if !mutated!("recovered-tail-not-synced") {
            self.sync_records()?;
        }
        self.fs.sync_dir(&self.dir)?;
        self.is_durable = true;
        Ok(())
    }

    /// Makes the names of the segments durable. An earlier process may have failed to sync them;
    /// then they come to the disk with the next change of their directory only. Does so once.
    fn sync_names(&mut self) -> Result<()> {
        let are_proven = self.chain.iter().all(|segment| self.is_proven(segment));
        if self.are_names_durable || are_proven || mutated!("names-of-segments-taken-for-durable") {
            return Ok(());
        }
        // Zero is the number of no segment. The file may be there, after a power loss.
        let path = temporary_path(&self.dir, 0);
        discard_file(&*self.fs, &path)?;
        self.fs.open(&path, OpenMode::CreateNew)?;
        discard_file(&*self.fs, &path)?;
        self.fs.sync_dir(&self.dir)?;
        self.are_names_durable = true;
        Ok(())
    }

    /// True if there is no file of a log: none of its segments proves that the directory is there.
    fn has_no_files(&self) -> bool {
        self.chain.is_empty()
            && self.strays.is_empty()
            && self.blanks.is_empty()
            && self.temporaries.is_empty()
    }

    /// Syncs the records that replay found. After a kill they may exist in memory only; after a
    /// failed sync the operating system may even consider them clean and never write them. So what
    /// nothing proves to be durable is written again, unchanged, before it is synced.
    fn sync_records(&self) -> Result<()> {
        for (index, segment) in self.chain.iter().enumerate() {
            if mutated!("every-segment-taken-for-durable") || self.is_proven(segment) {
                continue;
            }
            let file = self.fs.open(&segment.path, OpenMode::ReadWrite)?;
            let replayed = self.replayed.iter().find(|(at, _)| *at == index);
            if let Some((_, end)) = replayed
                && let Some(start) = self.first_unproven(index, *end)?
                && !mutated!("recovered-tail-not-rewritten")
            {
                rewrite(&*file, 0, HEADER_LEN_BYTES)?;
                rewrite(&*file, start, *end)?;
            }
            file.sync_data()?;
        }
        Ok(())
    }

    /// Up to where records were durable, as something says.
    pub(crate) fn proven(&self) -> SeqNo {
        self.witnessed.max(self.durable)
    }

    /// True if the segment has records and all were durable, and with them its activation: the
    /// sync that made them so was one of the whole file.
    fn is_proven(&self, segment: &Found) -> bool {
        let last = segment.limit.prev().min(self.last.unwrap_or(SeqNo::ZERO));
        segment.first() <= last && last <= self.proven()
    }

    /// Where the first record of a segment begins that nothing proves to be durable.
    fn first_unproven(&self, index: usize, end: usize) -> Result<Option<usize>> {
        let segment = &self.chain[index];
        if segment.limit <= self.proven() {
            return Ok(None);
        }
        let bytes = match &self.kept {
            Some((kept, bytes)) if *kept == index => Cow::Borrowed(bytes),
            _ => Cow::Owned(self.read_segment(segment, Vec::new())?),
        };
        let mut at = HEADER_LEN_BYTES;
        while at < end
            && let Some(record) = claimed_record(&bytes, at)
            && record.last <= self.proven()
        {
            at = record.next_at;
        }
        Ok((at < end).then_some(at))
    }

    /// The old segments as the log will retire them. Strays come first: a segment of the
    /// chain must not be gone while something older than it is there (WL3).
    fn inherited(&self, last: SeqNo) -> VecDeque<LiveSegment> {
        let next = last.next();
        self.strays
            .iter()
            .map(|segment| (segment, SeqNo::ZERO))
            .chain(self.chain.iter().map(|s| (s, s.first().min(next))))
            .map(|(segment, first)| LiveSegment {
                number: segment.number,
                path: segment.path.clone(),
                len_bytes: segment.len_bytes,
                is_sparse: segment.is_sparse,
                first,
                is_anchored: true,
            })
            .collect()
    }
}

/// Writes the bytes from `start` to `end` again as they are.
fn rewrite(file: &dyn File, start: usize, end: usize) -> Result<()> {
    let mut buffer = vec![0; (end - start).min(64 << 10)];
    let (mut at, end) = (start as u64, end as u64);
    let end = end.min(file.len()?);
    while at < end {
        let len = (end - at).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..len], at)?;
        file.write_all_at(&buffer[..len], at)?;
        at += len as u64;
    }
    Ok(())
}
