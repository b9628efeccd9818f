//! What compactions remember: the one in the background that has not ended, and how the last ones
//! went.

use crate::types::SeqNo;

/// A compaction that made the file no smaller is followed by another only after so many
/// checkpoints, times two for each more of them in a row.
const BACK_OFF: u64 = 2;
const BACK_OFF_STEPS_MAX: u32 = 7;

/// Passes of one compaction, at most; each at least halves what lies too far back, unless views
/// hold it.
const ROUNDS_MAX: usize = 8;

/// What compactions remember.
#[derive(Debug, Default)]
pub(crate) struct Compactor {
    /// One in the background that is under way.
    pub(super) pass: Option<Pass>,
    /// Passes of the current compaction that have ended, those that gained something, and the last
    /// ones in a row that did not.
    rounds: usize,
    gains: usize,
    idle: usize,
    /// Compactions in the background, in a row, that made the file no smaller.
    fruitless: u32,
    /// One in the background has failed, of what may be over when it is tried again, and none has
    /// ended since.
    pub(super) has_failed: bool,
    /// Last operation when one in the background was last considered.
    pub(super) considered: Option<SeqNo>,
}

impl Compactor {
    /// A pass has ended; true if there should be another. What one pass moves makes space for the
    /// next one, so one without gain may be followed by one with it.
    pub(super) fn goes_on(&mut self, gain: Gain) -> bool {
        self.rounds += 1;
        match gain {
            Gain::Complete => return false,
            Gain::Some => {
                self.gains += 1;
                self.idle = 0;
            }
            Gain::None => self.idle += 1,
        }
        self.idle < 2 && self.rounds < ROUNDS_MAX
    }

    /// The pass has written all leaves whole, which is a gain whatever became of the file.
    pub(super) fn note_settled(&mut self) {
        self.gains += 1;
    }

    /// The compaction in the background has ended, at checkpoint `generation`. Returns after which
    /// checkpoint the next one is due.
    pub(super) fn ended(&mut self, generation: u64) -> u64 {
        self.fruitless = if self.gains > 0 {
            0
        } else {
            self.fruitless + 1
        };
        self.forget();
        self.has_failed = false;
        generation + self.back_off()
    }

    /// It has failed, and is to begin again.
    pub(super) fn interrupted(&mut self) {
        self.forget();
        self.has_failed = true;
    }

    /// It has failed and would again. Returns the same as when it has ended.
    pub(super) fn failed(&mut self, generation: u64) -> u64 {
        self.fruitless += 1;
        self.forget();
        generation + self.back_off()
    }

    fn forget(&mut self) {
        self.pass = None;
        (self.rounds, self.gains, self.idle) = (0, 0, 0);
    }

    fn back_off(&self) -> u64 {
        match self.fruitless {
            0 => 0,
            steps => BACK_OFF << (steps - 1).min(BACK_OFF_STEPS_MAX),
        }
    }
}

/// What a pass has gained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gain {
    /// All that there is to gain.
    Complete,
    Some,
    None,
}

/// One way through the tree.
#[derive(Debug)]
pub(super) struct Pass {
    /// Nodes and values at this page or behind it are moved.
    pub(super) limit: u64,
    /// Pages of the file when it began.
    pub(super) file_units: u64,
    /// Where the next branch begins.
    pub(super) next: Vec<u8>,
    pub(super) packing: Packing,
    /// All leaves with packs are written whole.
    pub(super) settles: bool,
    pub(super) moved: bool,
}

/// When the leaves of a branch are filled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// When that saves a tenth of them.
    Tight,
    /// When that saves half of them: leaves that are filled to the last byte are split by the next
    /// puts.
    Loose,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gains_nothing_is_tried_less_and_less_often() {
        let mut compactor = Compactor::default();
        let mut waits = Vec::new();
        for _ in 0..10 {
            assert!(compactor.goes_on(Gain::None));
            assert!(!compactor.goes_on(Gain::None));
            waits.push(compactor.ended(100) - 100);
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]);
        assert!(compactor.goes_on(Gain::Some) && compactor.goes_on(Gain::None));
        assert!(!compactor.goes_on(Gain::Complete));
        assert_eq!(compactor.ended(100), 100);
        assert_eq!(compactor.failed(100), 102);
        assert_eq!(compactor.failed(100), 104);
    }
}
