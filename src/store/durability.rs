//! Up to where commits are durable, and waiting for more.

use std::task::{Poll, Waker};

use super::shared::Shared;
use crate::error::{Error, Result};
use crate::types::SeqNo;
use crate::util::mutants::mutated;

impl Shared {
    /// Every commit up to here survives a power loss.
    pub(crate) fn durable_seq(&self) -> SeqNo {
        match self.coordinator.log() {
            Some(log) => log.synced_seq(),
            // What a read-only store has read of the log may be in the memory of the system only,
            // after a kill.
            None if mutated!("what-was-read-taken-for-durable") => {
                self.snapshot_tracker.published()
            }
            None => self.coordinator.recovered(),
        }
    }

    /// True if the commit `seq` is durable; an error if it was never made, or can no longer become
    /// durable.
    fn is_durable(&self, seq: SeqNo) -> Result<bool> {
        if seq <= self.durable_seq() {
            return Ok(true);
        }
        self.check_open()?;
        let Some(log) = self.coordinator.log() else {
            return Err(match seq > self.snapshot_tracker.published() {
                true => never_made(seq),
                false => Error::ReadOnly,
            });
        };
        if seq > log.appended_seq() {
            return Err(never_made(seq));
        }
        self.coordinator.check_writable()?;
        Ok(false)
    }

    /// Syncs the log on this thread if it is not durable up to `seq`.
    pub(crate) fn wait_durable(&self, seq: SeqNo) -> Result<()> {
        if seq <= self.durable_seq() {
            return Ok(());
        }
        let _pass = self.enter()?;
        match self.is_durable(seq)? {
            true => Ok(()),
            false => self.coordinator.sync_log(),
        }
    }

    /// Whether the log is durable up to `seq`. If not, `waker` is woken when that has changed.
    pub(crate) fn poll_durable(&self, seq: SeqNo, waker: &Waker) -> Poll<Result<()>> {
        match self.is_durable(seq) {
            Ok(true) => return Poll::Ready(Ok(())),
            Ok(false) => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        if self.options.background_threads == 0 {
            let _pass = match self.enter() {
                Ok(pass) => pass,
                Err(error) => return Poll::Ready(Err(error)),
            };
            // There is no other thread to do it.
            return Poll::Ready(self.coordinator.sync_log());
        }
        if self.coordinator.request_durable(seq, waker).is_err() {
            // The system gives no thread that would wake it.
            return Poll::Ready(self.wait_durable(seq));
        }
        // What happened before the request wakes no waker.
        match self.is_durable(seq) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

fn never_made(seq: SeqNo) -> Error {
    Error::invalid(format!("no commit has the sequence number {seq}"))
}
