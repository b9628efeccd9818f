//! Where the sweeps of a keyspace are.

use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use crate::resolve::NEVER;
use crate::store::health::Health;
use crate::types::SeqNo;

/// Times of which a walk remembers when values expire.
const MAX_SAMPLES: usize = 1024;
/// A walk is worth it when one in so many values has expired.
const WORTH_ONE_IN: usize = 8;

/// Where the sweeps of one keyspace are.
#[derive(Debug, Default)]
pub(in crate::store) struct Sweep {
    /// When a walk is due, in milliseconds since 1970 by the store's clock; 0 if that was not
    /// decided.
    pub(super) due_ms: AtomicU64,
    /// When the last walk ended, and what was committed when it began.
    pub(super) ended_ms: AtomicU64,
    pub(super) ended_seq: AtomicU64,
    /// The walk that is under way. Locked by the thread that does a step, over I/O.
    pub(super) walk: Mutex<Option<Walk>>,
    pub(in crate::store) health: Health,
}

impl Sweep {
    /// True while a thread does a step, or walks through the whole keyspace.
    pub(in crate::store) fn is_under_way(&self) -> bool {
        self.walk.is_locked()
    }
}

/// A walk through a keyspace.
#[derive(Debug)]
pub(super) struct Walk {
    /// Where it goes on.
    pub(super) next: Vec<u8>,
    /// What was committed when it began.
    pub(super) since: SeqNo,
    pub(super) conflicts: u32,
    pub(super) samples: Samples,
}

/// When some of the values expire that a walk has seen: every `step`th.
#[derive(Debug)]
pub(super) struct Samples {
    times_ms: Vec<u64>,
    step: u64,
    seen: u64,
}

impl Samples {
    pub(super) fn new() -> Self {
        Self {
            times_ms: Vec::new(),
            step: 1,
            seen: 0,
        }
    }

    pub(super) fn add(&mut self, expires_at_ms: u64) {
        if self.seen.is_multiple_of(self.step) {
            self.times_ms.push(expires_at_ms);
            if self.times_ms.len() >= MAX_SAMPLES {
                let mut at = 0;
                self.times_ms.retain(|_| {
                    at += 1;
                    at % 2 == 1
                });
                self.step *= 2;
            }
        }
        self.seen += 1;
    }

    /// When so many have expired that another walk is worth it.
    pub(super) fn worth_from_ms(mut self) -> u64 {
        let at = self.times_ms.len() / WORTH_ONE_IN;
        if self.times_ms.is_empty() {
            return NEVER;
        }
        *self.times_ms.select_nth_unstable(at).1
    }
}
