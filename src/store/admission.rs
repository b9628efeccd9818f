//! What a commit passes before it takes any lock: back-pressure of its keyspace.

use std::time::Instant;

use super::background::RETRY_AFTER_ERROR;
use super::keyspaces::OpenKeyspace;
use super::shared::Shared;
use crate::engine::{EngineHost, Pressure, Work};
use crate::error::Result;

impl Shared {
    /// Waits, without any lock, as long as the keyspace's background work asks for.
    pub(super) fn make_room(&self, keyspace: &OpenKeyspace, bytes: u64) -> Result<()> {
        match keyspace.engine.pressure() {
            Pressure::None => Ok(()),
            Pressure::Slow(pressure) => {
                if let Some(wait) = self.throttle.delay(pressure, bytes) {
                    std::thread::sleep(wait);
                    self.throttle.note(Pressure::Slow(pressure), wait);
                }
                Ok(())
            }
            Pressure::Stop => self.wait_for_room(keyspace),
        }
    }

    #[cold]
    fn wait_for_room(&self, keyspace: &OpenKeyspace) -> Result<()> {
        let began = Instant::now();
        let outcome = loop {
            let seen = self.coordinator.progress_count();
            if keyspace.engine.pressure() != Pressure::Stop {
                break Ok(());
            }
            if let Err(error) = self
                .check_open()
                .and_then(|()| self.coordinator.check_writable())
            {
                break Err(error);
            }
            if let Some(error) = self.coordinator.background_error() {
                break Err(error);
            }
            if self.options.background_threads == 0 {
                match self.run_engines_once(&[Work::Flush, Work::Compact]) {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                }
            } else {
                self.coordinator.wake();
                self.coordinator.wait_for_progress(seen, RETRY_AFTER_ERROR);
            }
        };
        self.throttle.note(Pressure::Stop, began.elapsed());
        outcome
    }
}
