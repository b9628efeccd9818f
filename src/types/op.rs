//! Operations: what a commit consists of.

use super::SeqNo;

/// One operation, borrowed from a batch or a log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    /// Sets `key` to `value`.
    Put { key: &'a [u8], value: &'a [u8] },
    /// Removes `key`.
    Delete { key: &'a [u8] },
    /// Has the keyspace's operator make a value of `operand` and what `key` has.
    Merge { key: &'a [u8], operand: &'a [u8] },
    /// Removes every key in `[start, end)`, or from `start` on. May be empty.
    DeleteRange {
        start: &'a [u8],
        end: Option<&'a [u8]>,
    },
}

impl<'a> Op<'a> {
    /// The key that is put, deleted or merged; `None` for a range.
    #[inline]
    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        match *self {
            Op::Put { key, .. } | Op::Delete { key } | Op::Merge { key, .. } => Some(key),
            Op::DeleteRange { .. } => None,
        }
    }
}

/// An operation and its place in commit order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SequencedOp<'a> {
    pub(crate) seq: SeqNo,
    pub(crate) op: Op<'a>,
    /// A reference to where the value of a put lies in the log. An engine may keep it in the place
    /// of the value.
    pub(crate) value_ref: Option<&'a [u8]>,
}

impl<'a> SequencedOp<'a> {
    /// An operation whose value is to be kept beside its key.
    pub(crate) fn new(seq: SeqNo, op: Op<'a>) -> Self {
        Self {
            seq,
            op,
            value_ref: None,
        }
    }
}
