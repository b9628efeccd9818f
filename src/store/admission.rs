//! What a commit passes before it takes any lock: back-pressure of its keyspace and of the log.

use std::time::Instant;

use super::health::FIRST_PAUSE;
use super::keyspaces::OpenKeyspace;
use super::shared::Shared;
use crate::engine::{Engine, EngineHost, Pressure, Work};
use crate::error::Result;
use crate::util::mutants::mutated;

impl Shared {
    /// Waits, without any lock, as long as the background work of the keyspace asks for, or until
    /// the log is within its limit.
    #[inline]
    pub(super) fn make_room(&self, keyspace: &OpenKeyspace, bytes: u64) -> Result<()> {
        match self.pressure(keyspace) {
            Pressure::None => {
                keyspace.throttle.release();
                Ok(())
            }
            Pressure::Slow(pressure) => self.slow_down(keyspace, pressure, bytes),
            Pressure::Stop => self.wait_for_room(keyspace),
        }
    }

    /// That of the keyspace, or of the log if it is too long.
    #[inline]
    fn pressure(&self, keyspace: &OpenKeyspace) -> Pressure {
        match self.coordinator.log_is_too_long() {
            true => Pressure::Stop,
            false => keyspace.engine.pressure(),
        }
    }

    /// Waits for a time slot. The wait ends early when the pressure falls, and with an error when
    /// the keyspace is dropped or the store closes.
    #[cold]
    fn slow_down(&self, keyspace: &OpenKeyspace, pressure: f64, bytes: u64) -> Result<()> {
        if self.options.background_threads == 0 && !mutated!("writers-sleep-without-threads") {
            // Only this thread could do what it would wait for.
            return self.lend_a_hand(keyspace);
        }
        let Some(mut left) = keyspace.throttle.delay(pressure, bytes) else {
            return Ok(());
        };
        let mut pressure = pressure;
        let began = Instant::now();
        let outcome = loop {
            let seen = self.coordinator.progress_count();
            if let Err(error) = self.check_admission(keyspace) {
                break Err(error);
            }
            let now = match keyspace.engine.pressure() {
                Pressure::None => {
                    keyspace.throttle.release();
                    break Ok(());
                }
                Pressure::Slow(now) => now,
                Pressure::Stop => 1.0,
            };
            if now < pressure {
                left = keyspace.throttle.rescale(left, pressure, now);
            }
            pressure = now;
            let slice = Instant::now();
            self.coordinator.wait_for_progress(seen, left);
            left = left.saturating_sub(slice.elapsed());
            if left.is_zero() {
                break Ok(());
            }
        };
        self.waits.note(Pressure::Slow(pressure), began.elapsed());
        outcome
    }

    /// Does a unit of background work of the keyspace, if one is due. Its error is noted, and is
    /// that of the writer once there is no room.
    fn lend_a_hand(&self, keyspace: &OpenKeyspace) -> Result<()> {
        let _pass = self.enter()?;
        // What has just failed would fail again: a whole checkpoint, for each put.
        let may_run = |kind: Work| {
            keyspace.health(kind).pause().is_none()
                || mutated!("failing-job-repeated-by-each-writer")
        };
        let _ = match (may_run(Work::Flush), may_run(Work::Compact)) {
            (true, true) => self.run_engines_of(keyspace, &[Work::Flush, Work::Compact]),
            (true, false) => self.run_engines_of(keyspace, &[Work::Flush]),
            (false, true) => {
                let compact = |engine: &dyn Engine| engine.run_once(Work::Compact);
                self.run_job(keyspace, Work::Compact, compact)
            }
            (false, false) => Ok(false),
        };
        self.check_admission(keyspace)
    }

    #[cold]
    fn wait_for_room(&self, keyspace: &OpenKeyspace) -> Result<()> {
        let began = Instant::now();
        let outcome = loop {
            let seen = self.coordinator.progress_count();
            if self.pressure(keyspace) != Pressure::Stop {
                break Ok(());
            }
            if let Err(error) = self.check_admission(keyspace) {
                break Err(error);
            }
            // Of its own background work only: what fails elsewhere is nothing to this writer.
            // And of that only a flush makes room.
            if self.options.background_threads > 0
                && let Some(error) = keyspace.flush_failing_now()
            {
                break Err(error);
            }
            if self.options.background_threads == 0 {
                let pass = self.enter()?;
                let worked = self.run_engines_of(keyspace, &[Work::Flush, Work::Compact]);
                drop(pass);
                match worked {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                }
            } else {
                self.coordinator.wake();
                self.coordinator.wait_for_progress(seen, FIRST_PAUSE);
            }
        };
        self.waits.note(Pressure::Stop, began.elapsed());
        outcome
    }

    fn check_admission(&self, keyspace: &OpenKeyspace) -> Result<()> {
        self.check_open()?;
        self.coordinator.check_writable()?;
        keyspace.check_alive()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::error::Error;
    use crate::fs::SimFs;
    use crate::options::{Durability, EngineKind, KeyspaceOptions, Options};
    use crate::store::commit::Change;
    use crate::types::Op;

    /// It got that error at once, though flushes worked and the wait would have been short.
    #[test]
    fn a_compaction_that_fails_is_nothing_to_a_writer_that_waits_for_the_log() {
        let options = Options::new()
            .fs(Arc::new(SimFs::new()))
            .background_threads(1)
            .background_sync_ms(0);
        let store = crate::store::open(Path::new("/store"), options).unwrap();
        let shared = &store.shared;
        let asked = KeyspaceOptions::new(EngineKind::Lsm);
        let keyspace = shared.keyspace_with("a", &asked).unwrap();
        for _ in 0..10 {
            // Left alone for half a minute.
            let damage = Error::corruption(Path::new("t"), 7, "flipped");
            keyspace.health(Work::Compact).note::<()>(&Err(damage));
        }
        for _ in 0..100 {
            // The thread of the log ends it.
            shared.coordinator.note_log_length(true);
            shared.make_room(&keyspace, 1).unwrap();
        }
    }

    /// The log was over its limit, and each put flushed what has just failed.
    #[test]
    fn a_writer_does_not_repeat_a_failing_flush_for_the_log() {
        let options = Options::new()
            .fs(Arc::new(SimFs::new()))
            .background_threads(0)
            .log_segment_bytes(64 << 10)
            .log_limit_bytes(64 << 10);
        let store = crate::store::open(Path::new("/store"), options).unwrap();
        let shared = &store.shared;
        let asked = KeyspaceOptions::new(EngineKind::Lsm).value_threshold_bytes(0);
        let keyspace = shared.keyspace_with("a", &asked).unwrap();
        for n in 0..6_u8 {
            let change = Change::One {
                keyspace: &keyspace,
                op: Op::Put {
                    key: &[n],
                    value: &[7; 30_000],
                },
            };
            shared.commit(change, Durability::Buffered).unwrap();
        }
        assert!(shared.log_limit_debtor().is_some());
        for _ in 0..10 {
            // Left alone for half a minute.
            let damage = Error::corruption(Path::new("t"), 7, "flipped");
            keyspace.health(Work::Flush).note::<()>(&Err(damage));
        }
        shared.lend_a_hand(&keyspace).unwrap();
        assert!(keyspace.engine.oldest_unpersisted().is_some());
    }
}
