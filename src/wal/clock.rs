//! How long appends have waited for a sync, and how long there was none, without a look at the
//! clock for each.
//!
//! A thread looks now and then ([`Clock::look`]) and notes how far the log went. What was appended
//! between two looks is as old as the earlier one at most: so ages are upper bounds, wrong by the
//! time between two looks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::types::SeqNo;

/// More looks than this between two syncs are not told apart.
const LOOKS_MAX: usize = 64;

/// What one look found.
#[derive(Debug, Clone, Copy)]
struct Look {
    appended: SeqNo,
    /// The last moment at which this was found.
    at: Instant,
}

/// What is known of when things were appended.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Rising. The first one is the last that saw nothing that is unsynced now.
    looks: VecDeque<Look>,
    /// Since when a look has found the same.
    still_since: Option<Instant>,
}

/// Ages of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogAges {
    /// No append that is not synced is older. Zero if all are synced.
    pub(crate) unsynced: Duration,
    /// Nothing was appended for so long at least.
    pub(crate) idle: Duration,
}

impl Clock {
    /// Notes that the log goes up to `appended` and is durable up to `synced` at `now`.
    pub(super) fn look(&mut self, appended: SeqNo, synced: SeqNo, now: Instant) -> LogAges {
        match self.looks.back_mut() {
            Some(last) if last.appended == appended => last.at = now,
            _ => {
                if self.looks.len() == LOOKS_MAX {
                    // The oldest stays, since ages count from it.
                    self.looks.remove(1);
                }
                self.looks.push_back(Look { appended, at: now });
                self.still_since = Some(now);
            }
        }
        while self
            .looks
            .get(1)
            .is_some_and(|next| next.appended <= synced)
        {
            self.looks.pop_front();
        }
        let since = |earlier: Instant| now.saturating_duration_since(earlier);
        let first = self.looks.front().expect("one was just noted");
        // Before the first look of all, nothing is known.
        let unsynced = match appended > synced {
            true => since(first.at),
            false => Duration::ZERO,
        };
        let idle = self.still_since.map_or(Duration::ZERO, since);
        LogAges { unsynced, idle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at moments in milliseconds, and what they answer in milliseconds.
    fn answers(looks: &[(u64, u64, u64)]) -> Vec<(u128, u128)> {
        let mut clock = Clock::default();
        let start = Instant::now();
        let look = |(at, appended, synced): &(u64, u64, u64)| {
            let now = start + Duration::from_millis(*at);
            let ages = clock.look(SeqNo(*appended), SeqNo(*synced), now);
            (ages.unsynced.as_millis(), ages.idle.as_millis())
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn no_unsynced_append_is_older_than_the_answer() {
        let looks = [
            (0, 5, 5),
            // Appended at any time since.
            (250, 6, 5),
            (500, 6, 5),
            (750, 9, 5),
            // Number 6 was seen at 500 last, so what came after is no older.
            (900, 9, 6),
            (1000, 9, 9),
            (3000, 9, 9),
            (3100, 10, 9),
        ];
        let unsynced: Vec<u128> = answers(&looks).iter().map(|(age, _)| *age).collect();
        assert_eq!(unsynced, [0, 250, 500, 750, 400, 0, 0, 100]);
    }

    #[test]
    fn a_log_is_idle_from_the_look_that_saw_the_last_append() {
        let looks = [(0, 5, 5), (1000, 5, 5), (2000, 6, 5), (9000, 6, 6)];
        let idle: Vec<u128> = answers(&looks).iter().map(|(_, idle)| *idle).collect();
        assert_eq!(idle, [0, 1000, 0, 7000]);
    }

    #[test]
    fn however_many_looks_there_are_the_oldest_append_keeps_its_age() {
        let mut looks = vec![(0, 1, 1)];
        looks.extend((1..1000).map(|n| (n * 10, 1 + n, 1)));
        assert_eq!(answers(&looks).last().unwrap().0, 9990);
    }
}
