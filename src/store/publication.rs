//! Commits become visible in the order of their numbers, though commits of different keyspaces are
//! applied side by side.
//!
//! A commit that was applied before the one in front of it leaves word of that. The thread that
//! makes the one in front visible does the same for all behind it that were applied; so a thread
//! that sleeps holds up no other. The thread of a commit waits until it is visible. What it waits
//! for is on a processor as a rule, and has little to do; so the wait begins with a short spin.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::SnapshotTracker;
use crate::error::{Error, Result};
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use crate::util::patience::Patience;
use crate::util::sync::{Condvar, Mutex};

/// Longest sleep; it only bounds the harm of a store that fails.
const SLEEP: Duration = Duration::from_millis(50);

/// Makes the commits of one store visible.
#[derive(Debug)]
pub(super) struct Publisher {
    snapshot_tracker: Arc<SnapshotTracker>,
    state: Mutex<State>,
    condvar: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// First and last operation of commits that were applied, and wait for one in front of them.
    /// Few: each has a thread, and is soon followed by its last predecessor.
    applied: Vec<(SeqNo, SeqNo)>,
    sleepers: usize,
    /// Commits and operations since the store was opened.
    commits: u64,
    ops: u64,
}

impl State {
    /// The last operation that is visible when all up to `seq` are.
    fn visible_after(&mut self, mut seq: SeqNo) -> SeqNo {
        let follows = |seq: SeqNo| move |(first, _): &(SeqNo, SeqNo)| *first == seq.next();
        while let Some(at) = self.applied.iter().position(follows(seq)) {
            seq = self.applied.swap_remove(at).1;
        }
        seq
    }
}

impl Publisher {
    pub(super) fn new(snapshot_tracker: Arc<SnapshotTracker>) -> Self {
        Self {
            snapshot_tracker,
            state: Mutex::default(),
            condvar: Condvar::default(),
        }
    }

    /// Everything up to here is visible.
    pub(super) fn published(&self) -> SeqNo {
        self.snapshot_tracker.published()
    }

    /// How many commits and operations were applied since the store was opened. A change of the
    /// keyspaces counts as neither.
    pub(super) fn commits_and_ops(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.commits, state.ops)
    }

    /// A commit of `ops` operations, from `first` to `last`, was applied, and becomes visible as
    /// soon as all before it are.
    pub(super) fn applied(&self, first: SeqNo, last: SeqNo, ops: u64) {
        let mut state = self.state.lock();
        state.commits += u64::from(ops > 0);
        state.ops += ops;
        if self.published() < first.prev() && !mutated!("published-out-of-order") {
            state.applied.push((first, last));
            return;
        }
        let last = state.visible_after(last);
        debug_assert!(self.published() < last, "P1: in the order of their numbers");
        self.snapshot_tracker.publish(last);
        let sleepers = state.sleepers;
        drop(state);
        if sleepers > 0 {
            self.condvar.notify_all();
        }
    }

    /// Has those look up who wait: the store has failed.
    pub(super) fn announce_failure(&self) {
        // Taking the lock orders this announcement after the sleeper's last look.
        drop(self.state.lock());
        self.condvar.notify_all();
    }

    /// Waits until `seq` is visible. An error if it will never be.
    #[inline]
    pub(super) fn wait_for(&self, seq: SeqNo) -> Result<()> {
        match self.published() >= seq {
            true => Ok(()),
            false => self.wait(seq, None, &|| self.check_not_abandoned()),
        }
    }

    /// Waits until `seq` is visible or never will be, or `limit` has passed.
    pub(super) fn wait_briefly(&self, seq: SeqNo, limit: Duration) {
        let _ = self.wait(seq, Some(limit), &|| self.check_not_abandoned());
    }

    /// Waits until `seq` is visible, or `check` gives an error.
    pub(super) fn wait_unless(&self, seq: SeqNo, check: &dyn Fn() -> Result<()>) -> Result<()> {
        self.wait(seq, None, check)
    }

    /// An error if a commit was applied in part.
    pub(super) fn check_not_abandoned(&self) -> Result<()> {
        self.snapshot_tracker
            .abandoned()
            .map_or(Ok(()), |error| Err(Error::clone(error)))
    }

    #[cold]
    fn wait(
        &self,
        seq: SeqNo,
        limit: Option<Duration>,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let mut patience = Patience::default();
        while patience.wait() {
            if self.published() >= seq {
                return Ok(());
            }
        }
        // Time does not pass where interleavings are tested.
        let limit = limit.filter(|_| !cfg!(shuttle));
        let until = limit.map(|limit| Instant::now() + limit);
        let mut state = self.state.lock();
        state.sleepers += 1;
        let outcome = loop {
            if self.published() >= seq {
                break Ok(());
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break Ok(());
            }
            if let Err(error) = check() {
                break Err(error);
            }
            self.condvar
                .wait_for(&mut state, left.map_or(SLEEP, |left| left.min(SLEEP)));
        };
        state.sleepers -= 1;
        outcome
    }
}
