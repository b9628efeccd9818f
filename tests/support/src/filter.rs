//! A compaction filter for tests.

use hedgerow::{CompactionFilter, Verdict};

/// Its name.
pub const NAME: &str = "without marked ones";
/// What values begin with that it drops.
pub const MARKED: u8 = b'-';

/// Drops values that begin with [`MARKED`].
#[derive(Debug)]
pub struct DropMarked;

/// True for a value that the filter drops.
pub fn is_marked(value: &[u8]) -> bool {
    value.first() == Some(&MARKED)
}

impl CompactionFilter for DropMarked {
    fn name(&self) -> &str {
        NAME
    }

    fn judge(&self, _: &[u8], value: &[u8]) -> Verdict {
        match is_marked(value) {
            true => Verdict::Drop,
            false => Verdict::Keep,
        }
    }
}
