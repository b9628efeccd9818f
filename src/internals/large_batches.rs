//! What a large batch is.

use crate::options::Options;

/// `options` with which batches of `ops` operations, or more, are staged: they are visible before
/// their engines have them.
#[must_use]
pub fn stage_batches_of(ops: usize, options: Options) -> Options {
    Options {
        large_batch_ops: ops,
        ..options
    }
}
