//! Which segments of the log are still needed, and when they are released.

use std::sync::Arc;

use super::keyspaces::OpenKeyspace;
use super::shared::Parts;
use super::wal_manifest::Horizon;
use crate::engine::Front;
use crate::error::Result;
use crate::types::SeqNo;
use crate::util::mutants::planted;

impl Parts {
    /// Flushes the keyspace that needs the oldest segment, if the log is too long.
    pub(super) fn flush_for_log_limit(&self) -> Result<bool> {
        let Some(keyspace) = self.log_limit_debtor() else {
            return Ok(false);
        };
        keyspace.engine.flush()?;
        self.hub.progressed();
        Ok(true)
    }

    /// The keyspace that needs the oldest segment, if the log is too long and flushing it would
    /// let a segment go.
    fn log_limit_debtor(&self) -> Option<Arc<OpenKeyspace>> {
        let log = self.hub.log()?;
        if log.live_bytes() <= self.options.log_limit_bytes {
            return None;
        }
        let all = self.registry.all();
        let (seq, keyspace) = all
            .iter()
            .filter_map(|keyspace| Some((keyspace.engine.oldest_unpersisted()?, keyspace)))
            .min_by_key(|(seq, _)| *seq)?;
        log.would_retire_after(seq).then(|| Arc::clone(keyspace))
    }

    /// Lets go of the segments that no keyspace needs, once a horizon says so (H2).
    pub(super) fn retire_log(&self) -> Result<()> {
        let Some(log) = self.hub.log() else {
            return Ok(());
        };
        let mut horizon = self.horizon.lock();
        let needed = self.oldest_needed();
        let first = log.first_after_retiring(needed);
        if first > horizon.first {
            // Taken after `needed`: what a keyspace has persisted only rises.
            let floor =
                |keyspace: &Arc<OpenKeyspace>| (keyspace.id, keyspace.engine.persisted_seq());
            let new = Horizon {
                first,
                end: log.synced_seq(),
                floors: self.registry.all().iter().map(floor).collect(),
            };
            if planted("log-let-go-before-its-horizon") {
                log.retire(Some(first))?;
            }
            if !planted("horizon-not-written") {
                new.store(&*self.options.fs, &self.dir, self.store_id)?;
            }
            *horizon = new;
        }
        // Not `needed`: segments that began meanwhile are not in the horizon.
        let beyond = planted("more-let-go-than-the-horizon-says");
        log.retire(Some(if beyond { needed } else { first }))
    }

    /// Says how far the log is durable, so that damage of its last records can be told from a torn tail. The store is
    /// being closed.
    pub(super) fn note_end(&self) -> Result<()> {
        let Some(log) = self.hub.log() else {
            return Ok(());
        };
        let mut horizon = self.horizon.lock();
        let end = log.synced_seq();
        if end > horizon.end {
            let new = Horizon {
                end,
                ..horizon.clone()
            };
            new.store(&*self.options.fs, &self.dir, self.store_id)?;
            *horizon = new;
        }
        Ok(())
    }

    /// The first sequence number that recovery would need from the log.
    fn oldest_needed(&self) -> SeqNo {
        // Published is read first: what is at or below it has been applied, so the engines
        // know whether they need it; what is above it is needed in any case.
        let published = self.visibility.published();
        if planted("log-segment-unlinked-early") {
            return published.next();
        }
        let all = self.registry.all();
        all.iter()
            .filter_map(|keyspace| keyspace.engine.oldest_unpersisted())
            .fold(published.next(), SeqNo::min)
    }
}
