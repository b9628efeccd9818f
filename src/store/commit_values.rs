//! The values of a commit that are stored apart from their keys.
//!
//! Their checksums are computed before the log is locked. When the record is in the log it is known
//! where they lie, and the engines are given references.

use std::ops::Range;

use crate::kv::{Batch, STAMP_LEN_BYTES};
use crate::types::{Op, SeqNo, SequencedOp};
use crate::util::mutants::mutated;
use crate::values::{Digest, ValueFiles};
use crate::wal::PayloadPlace;

/// Values of a commit that is not logged yet.
#[derive(Debug, Default)]
pub(super) struct CommitValues {
    values: Vec<Unplaced>,
    bytes: u64,
    stamped: Vec<Stamped>,
}

#[derive(Debug)]
struct Unplaced {
    /// Which operation of the commit it belongs to.
    op: u64,
    /// Where it begins in the payload.
    at: u64,
    digest: Digest,
}

/// A value that has the number of the commit in it, which was not known when it was noted.
#[derive(Debug)]
struct Stamped {
    /// Which of the values.
    value: usize,
    /// Which batch of the commit it is in, and where in its encoding.
    part: usize,
    range: Range<usize>,
    /// Where the number is in the value.
    at: usize,
}

impl CommitValues {
    /// Notes a value of operation `op` of the commit, which begins at `at` in its payload.
    pub(super) fn add(&mut self, files: &ValueFiles, op: u64, at: u64, value: &[u8]) {
        self.bytes += value.len() as u64;
        self.values.push(Unplaced {
            op,
            at,
            digest: files.digest(value),
        });
    }

    /// Notes those of `batch`, number `part` of the commit, which `is_apart` says of, by their
    /// length. The batch's first operation is number `first_op` of the commit, and begins at `at`
    /// in its payload.
    pub(super) fn add_batch(
        &mut self,
        files: &ValueFiles,
        (part, batch): (usize, &Batch),
        first_op: u64,
        at: u64,
        is_apart: impl Fn(usize) -> bool,
    ) {
        let mut stamps = batch.stamps().iter().peekable();
        for (number, (op, end)) in (first_op..).zip(batch.iter_with_ends()) {
            let stamp = stamps.next_if(|at| **at < end);
            if let Op::Put { value, .. } = op
                && is_apart(value.len())
            {
                let range = end - value.len()..end;
                if let Some(stamp) = stamp
                    && range.contains(stamp)
                {
                    self.stamped.push(Stamped {
                        value: self.values.len(),
                        part,
                        at: stamp - range.start,
                        range: range.clone(),
                    });
                }
                self.add(files, number, at + range.start as u64, value);
            }
        }
    }

    /// The number of the commit has been put into its batches, `parts`.
    pub(super) fn renew_stamped<'a>(
        &mut self,
        files: &ValueFiles,
        parts: impl Fn(usize) -> &'a Batch,
    ) {
        if mutated!("stamped-value-keeps-its-checksum") {
            return;
        }
        for stamped in &self.stamped {
            let value = &parts(stamped.part).encoded()[stamped.range.clone()];
            let digest = &mut self.values[stamped.value].digest;
            files.renew(digest, value, stamped.at..stamped.at + STAMP_LEN_BYTES);
        }
    }

    /// Bytes of the values.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The references of a commit whose first operation is `first`, now that its payload is at
    /// `place`.
    pub(super) fn place(&self, first: SeqNo, place: PayloadPlace) -> PlacedValues {
        let mut placed = PlacedValues::default();
        placed.add(self, first, place);
        placed
    }
}

/// References to the values of a commit, or of several that follow one another.
#[derive(Debug, Default)]
pub(super) struct PlacedValues {
    /// Sequence number of the operation, and where its reference is; rising.
    refs: Vec<(SeqNo, Range<usize>)>,
    bytes: Vec<u8>,
}

impl PlacedValues {
    /// Adds those of another commit, which is later.
    pub(super) fn add(&mut self, values: &CommitValues, first: SeqNo, place: PayloadPlace) {
        for value in &values.values {
            let offset = place.offset + value.at + u64::from(mutated!("value-placed-one-byte-off"));
            let encoded = value.digest.place(place.segment, offset);
            self.push(first.plus(value.op), encoded.as_bytes());
        }
    }

    /// Adds one, of a later operation.
    pub(super) fn push(&mut self, seq: SeqNo, reference: &[u8]) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(reference);
        self.refs.push((seq, from..self.bytes.len()));
    }

    /// The reference of an operation, if it has one.
    #[inline]
    pub(super) fn of(&self, seq: SeqNo) -> Option<&[u8]> {
        if self.refs.is_empty() {
            return None;
        }
        let at = self.refs.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        Some(&self.bytes[self.refs[at].1.clone()])
    }

    /// `ops` with their references.
    pub(super) fn with_refs<'a>(&'a self, ops: &[SequencedOp<'a>]) -> Vec<SequencedOp<'a>> {
        let with_ref = |op: &SequencedOp<'a>| SequencedOp {
            value_ref: self.of(op.seq),
            ..*op
        };
        ops.iter().map(with_ref).collect()
    }

    /// True if there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.refs.is_empty()
    }
}
