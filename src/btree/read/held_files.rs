//! The value files that a tree holds.
//!
//! A tree may refer to values in every file that the table of its file counts
//! ([`crate::btree::file::value_table`]), and in those that operations brought which no checkpoint
//! has written. All of them are held, together: for the tree as a whole, not for each node.
//!
//! # Invariants
//!
//! - **BH3** A file is held before an operation that refers to it changes the tree, while the log
//!   still needs the operation (VF2).
//! - **BH4** A file leaves the tree at the end of the first checkpoint after which neither the
//!   table nor an operation since the freeze refers to it. The meta pages are durable by then, so
//!   no tree on the disk does either (VF3).
//! - **BH5** A file that left with checkpoint *g* is held until no reader is left that may look at
//!   an older tree: as a page is kept that *g* freed ([`super::readers`]).
//!
//! Thread safety: locked for moments, by the writer when an operation brings another file than the
//! one before, by checkpoints, and by readers that end while files wait for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::Result;
use crate::util::mutants::mutated;
use crate::values::{FileHold, ValueFiles};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct HeldFiles {
    values: Arc<ValueFiles>,
    held: Mutex<Held>,
    /// Some have left the tree.
    has_left: AtomicBool,
}

#[derive(Debug, Default)]
struct Held {
    /// By number.
    current: BTreeMap<u64, FileHold>,
    /// Those that left the tree, and the checkpoint with which they did.
    left: Vec<(u64, FileHold)>,
}

impl HeldFiles {
    pub(crate) fn new(values: Arc<ValueFiles>) -> Self {
        Self {
            values,
            held: Mutex::default(),
            has_left: AtomicBool::new(false),
        }
    }

    /// Where values are read from.
    pub(crate) fn values(&self) -> &ValueFiles {
        &self.values
    }

    /// Holds file `number` for the tree.
    pub(crate) fn hold(&self, number: u64) -> Result<()> {
        let mut held = self.held.lock();
        if !held.current.contains_key(&number) && !mutated!("tree-holds-no-value-files") {
            let hold = self.values.hold(number)?;
            held.current.insert(number, hold);
        }
        Ok(())
    }

    /// The files of which `is_needed` is false have left the tree with checkpoint `generation`.
    pub(crate) fn leave(&self, generation: u64, is_needed: impl Fn(u64) -> bool) {
        let mut held = self.held.lock();
        let current = std::mem::take(&mut held.current);
        for (number, hold) in current {
            if is_needed(number) {
                held.current.insert(number, hold);
            } else {
                held.left.push((generation, hold));
                self.has_left.store(true, Ordering::Release);
            }
        }
    }

    /// A mistake, for the tests to find: files leave, and nothing waits for it.
    pub(crate) fn leave_now(&self, is_needed: impl Fn(u64) -> bool) {
        self.held
            .lock()
            .current
            .retain(|number, _| is_needed(*number));
    }

    /// True if files that left the tree are held for readers.
    #[inline]
    pub(crate) fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Acquire)
    }

    /// Releases files that have left the tree with a checkpoint of which `is_over` is true.
    pub(crate) fn release(&self, is_over: impl Fn(u64) -> bool) {
        let mut held = self.held.lock();
        held.left.retain(|(generation, _)| !is_over(*generation));
        self.has_left
            .store(!held.left.is_empty(), Ordering::Release);
    }
}
