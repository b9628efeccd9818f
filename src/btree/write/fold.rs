//! Merges: a B-tree folds them when they are applied.
//!
//! An LSM tree keeps operands, since to look a value up would cost it more than all the rest of a
//! write. Here a write goes to the leaf that has the value anyway, `prepare` has brought that into
//! memory, and what the leaf has from then on is a plain value: no read, scan, checkpoint or pack
//! knows of merges. Kept operands would save the look at a leaf that is only on the disk; but they
//! would have every reader of the key pay for it until the leaf is written.

use crate::btree::read::shared::SharedTree;
use crate::error::Result;
use crate::types::{Op, SeqNo, SequencedOp};

/// A put that stands for a merge.
#[derive(Debug)]
pub(crate) struct FoldedOp<'a> {
    seq: SeqNo,
    key: &'a [u8],
    value: Vec<u8>,
}

impl FoldedOp<'_> {
    /// The put.
    pub(crate) fn as_put(&self) -> SequencedOp<'_> {
        let (key, value) = (self.key, &self.value[..]);
        SequencedOp::new(self.seq, Op::Put { key, value })
    }
}

impl SharedTree {
    /// The put that `op` comes to if it is a merge. With the writer's mutex held: everything before
    /// it is applied, and nothing after it.
    #[inline]
    pub(crate) fn folded<'a>(&self, op: &SequencedOp<'a>) -> Result<Option<FoldedOp<'a>>> {
        match op.op {
            Op::Merge { key, operand } => self.fold(op.seq, key, operand).map(Some),
            _ => Ok(None),
        }
    }

    #[cold]
    fn fold<'a>(&self, seq: SeqNo, key: &'a [u8], operand: &[u8]) -> Result<FoldedOp<'a>> {
        let base = self.take(|copy| match self.lookup(key, Some(SeqNo::MAX), copy)? {
            Ok(found) => Ok(found),
            Err(_) => unreachable!("nothing is above the highest number"),
        })?;
        let value = self.resolver.fold(key, base.as_deref(), &[operand]);
        Ok(FoldedOp { seq, key, value })
    }
}
