//! What a commit passes before it takes any lock: back-pressure of its keyspace and of the log.

use std::time::Instant;

use super::health::FIRST_PAUSE;
use super::keyspaces::OpenKeyspace;
use super::shared::Shared;
use crate::engine::{EngineHost, Pressure, Work};
use crate::error::Result;

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
            if self.options.background_threads > 0
                && let Some(error) = keyspace.failing_now()
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
