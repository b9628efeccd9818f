//! Which segments of the log are still needed, and when they are released.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::keyspaces::OpenKeyspace;
use super::shared::Shared;
use super::wal_manifest::{OpenWalManifest, WalManifest};
use crate::engine::{Engine, EngineHost, Work};
use crate::error::Result;
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use crate::wal::LogAges;

/// A log that nothing was written to for so long gives back what it does not need.
const SHRINK_AFTER: Duration = Duration::from_secs(10);

/// The first sequence numbers that recovery would need from the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needed {
    /// For operations.
    by_engines: SeqNo,
    /// For changes of the keyspaces.
    by_catalog: SeqNo,
}

impl Needed {
    fn by_any(self) -> SeqNo {
        self.by_engines.min(self.by_catalog)
    }
}

impl Shared {
    /// Flushes the keyspaces that need the oldest segment, if the log is too long, or all of them
    /// once nothing was written for long, several at a time. One thread does so, others go on with
    /// other work.
    pub(super) fn flush_for_log_limit(&self) -> Result<bool> {
        let Some(_alone) = self.flushing_debtors.try_lock() else {
            return Ok(false);
        };
        let debtors = self.debtors_of_log();
        let flush = |engine: &dyn Engine| engine.flush().map(|()| true);
        let (has_flushed, failed) = (AtomicBool::new(false), Mutex::new(None));
        self.flush_side_by_side(&debtors, |keyspace| {
            match self.run_job(keyspace, Work::Flush, flush) {
                Ok(flushed) => {
                    has_flushed.fetch_or(flushed, Ordering::Relaxed);
                }
                // The others are flushed all the same.
                Err(error) => *failed.lock() = Some(error),
            }
            self.coordinator.check_running()
        })?;
        if has_flushed.into_inner() {
            self.coordinator.progressed();
            return Ok(true);
        }
        failed.into_inner().map_or(Ok(false), Err)
    }

    /// Has writers wait if the log is half as long again as it may be, until flushes have made it
    /// shorter. Not if a flush that it waits for fails: then it grows, and
    /// [`DbStats::background_error`](crate::DbStats) says why.
    pub(super) fn watch_log_length(&self) {
        let Some(log) = self.coordinator.log() else {
            return;
        };
        let limit = self.options.log_limit_bytes;
        let is_too_long = self.options.background_threads > 0
            && log.live_bytes() > limit.saturating_add(limit / 2)
            && !mutated!("log-limit-without-back-pressure")
            && self
                .log_limit_debtor()
                .is_some_and(|keyspace| !keyspace.health(Work::Flush).has_just_failed());
        self.coordinator.note_log_length(is_too_long);
    }

    /// The keyspace that needs the oldest segment, if the log is too long and flushing it would
    /// let a segment go.
    pub(super) fn log_limit_debtor(&self) -> Option<Arc<OpenKeyspace>> {
        let log = self.coordinator.log()?;
        if log.live_bytes() <= self.options.log_limit_bytes {
            return None;
        }
        let all = self.keyspaces.all();
        let (seq, keyspace) = all
            .iter()
            .filter_map(|keyspace| Some((keyspace.engine.oldest_unpersisted()?, keyspace)))
            .min_by_key(|(seq, _)| *seq)?;
        log.would_retire_after(seq).then(|| Arc::clone(keyspace))
    }

    /// The keyspaces that are to be flushed for the sake of the log.
    pub(super) fn debtors_of_log(&self) -> Vec<Arc<OpenKeyspace>> {
        let debtors = self.log_limit_debtors();
        match debtors.is_empty() {
            true => self.idle_log_debtors(),
            false => debtors,
        }
    }

    /// All keyspaces that need the oldest segment, if the log is too long and flushing them would
    /// let it go.
    fn log_limit_debtors(&self) -> Vec<Arc<OpenKeyspace>> {
        let (Some(log), Some(first)) = (self.coordinator.log(), self.log_limit_debtor()) else {
            return Vec::new();
        };
        if mutated!("debtors-of-the-log-flushed-one-by-one") {
            return vec![first];
        }
        let needs = |keyspace: &OpenKeyspace| {
            let oldest = keyspace.engine.oldest_unpersisted()?;
            Some(log.first_after_retiring(oldest))
        };
        let Some(segment) = needs(&first) else {
            return Vec::new();
        };
        let mut debtors = self.keyspaces.all().as_ref().clone();
        debtors.retain(|keyspace| needs(keyspace).is_some_and(|needed| needed <= segment));
        debtors
    }

    /// The keyspaces that need the log, if nothing was written for long and it takes more space
    /// than it has to.
    fn idle_log_debtors(&self) -> Vec<Arc<OpenKeyspace>> {
        let is_idle = self.log_is_idle.load(Ordering::Relaxed);
        let is_long = is_idle && self.coordinator.log().is_some_and(|log| log.is_long());
        if !is_long || mutated!("idle-log-kept-for-a-memtable") {
            return Vec::new();
        }
        let mut debtors = self.keyspaces.all().as_ref().clone();
        debtors.retain(|keyspace| keyspace.engine.oldest_unpersisted().is_some());
        debtors
    }

    /// Deletes the segments that no keyspace needs, once a WAL manifest says so (H2).
    pub(super) fn retire_log(&self) -> Result<()> {
        let Some(log) = self.coordinator.log() else {
            return Ok(());
        };
        let needed = self.oldest_needed();
        // Not for nothing: only if a segment could go without those changes of keyspaces.
        let stored = match log.first_after_retiring(needed.by_engines) {
            first if needed.by_catalog < first => self.store_catalog(),
            _ => Ok(()),
        };
        let mut wal_manifest = self.wal_manifest.lock();
        let needed = self.oldest_needed().by_any();
        let first = log.first_after_retiring(needed);
        let is_new = first > wal_manifest.content.first;
        // By H6 the one that was read is no reason to delete anything.
        if is_new || first > log.oldest_seq() && !wal_manifest.is_durable() {
            let (catalog, next_id) = self.durable_catalog()?;
            // Taken after `needed`: what a keyspace has persisted only rises.
            let watermark =
                |keyspace: &Arc<OpenKeyspace>| (keyspace.id, keyspace.engine.persisted_seq());
            let all = self.keyspaces.all();
            // The log keeps everything of those that the catalogue does not list yet (H5).
            let listed = all.iter().filter(|keyspace| keyspace.id.0 < next_id);
            let new = WalManifest {
                first,
                end: log.synced_seq(),
                catalog,
                watermarks: listed.map(watermark).collect(),
            };
            if mutated!("log-deleted-before-its-wal-manifest") {
                log.retire(Some(first))?;
            }
            if !mutated!("wal-manifest-not-written") {
                self.store_wal_manifest(&new)?;
            }
            *wal_manifest = OpenWalManifest::written(new);
        }
        // Not `needed`: segments that began meanwhile are not in the WAL manifest.
        let beyond = mutated!("more-deleted-than-the-wal-manifest-says");
        log.retire(Some(if beyond { needed } else { first }))?;
        stored
    }

    /// The last change of keyspaces that the catalogue's file has, and the next number that it
    /// would give; both survive a power loss.
    fn durable_catalog(&self) -> Result<(SeqNo, u32)> {
        if !self.catalog.lock().is_durable() {
            self.store_catalog()?;
        }
        let catalog = self.catalog.lock();
        let stored = catalog.stored();
        Ok((stored.seq, stored.next_id()))
    }

    fn store_wal_manifest(&self, new: &WalManifest) -> Result<()> {
        new.store(
            &*self.options.fs,
            &self.dir,
            self.store_id,
            &self.lock_guard,
        )
    }

    /// Gives back what the log does not need while nothing is written: all but a small segment if
    /// every keyspace has persisted everything, else what was made or kept in advance. The next
    /// segments are made anew, from small ones to long ones.
    pub(super) fn shrink_log(&self, closing: bool) -> Result<()> {
        let (Some(log), Some(pipeline)) = (self.coordinator.log(), &self.pipeline) else {
            return Ok(());
        };
        if !log.is_long() {
            return Ok(());
        }
        let stored = self.store_catalog();
        let is_needed = self.oldest_needed().by_any() <= log.appended_seq();
        if !is_needed && pipeline.shorten_log()? {
            self.retire_log()?;
        }
        // A segment that is needed may be half full, and then the next one is wanted at once.
        log.free_stock(closing || !is_needed)?;
        stored
    }

    /// As [`shrink_log`](Self::shrink_log), once nothing was written for long. Keyspaces that still
    /// need the log are flushed then.
    pub(super) fn shrink_idle_log(&self, ages: LogAges) -> Result<()> {
        let is_idle = ages.idle >= SHRINK_AFTER;
        self.log_is_idle.store(is_idle, Ordering::Relaxed);
        if !is_idle {
            return Ok(());
        }
        self.shrink_log(false)?;
        if !self.idle_log_debtors().is_empty() {
            self.coordinator.wake();
        }
        Ok(())
    }

    /// Says how far the log is durable, so that damage of its last records can be told from a torn
    /// tail. The store is being closed.
    pub(super) fn note_end(&self) -> Result<()> {
        let Some(log) = self.coordinator.log() else {
            return Ok(());
        };
        // The next opening need not look for its changes in the log then.
        let stored = self.store_catalog();
        let mut wal_manifest = self.wal_manifest.lock();
        let end = log.synced_seq();
        let (catalog, _) = self.durable_catalog()?;
        let found = &wal_manifest.content;
        if end > found.end || catalog > found.catalog {
            let new = WalManifest {
                end,
                catalog,
                ..found.clone()
            };
            self.store_wal_manifest(&new)?;
            *wal_manifest = OpenWalManifest::written(new);
        }
        stored
    }

    /// Cuts the log's last segment if much of it is free. The store is being closed.
    pub(super) fn cut_log(&self) -> Result<()> {
        match &self.pipeline {
            Some(pipeline) => pipeline.cut_log(),
            None => Ok(()),
        }
    }

    /// The first sequence number that recovery would need from the log.
    pub(super) fn oldest_needed(&self) -> Needed {
        // Published is read first: what is at or below it has been applied, so the engines
        // know whether they need it; what is above it is needed in any case. And it is read with
        // the catalogue locked, so that a change of keyspaces below it is noted there.
        let (published, by_catalog) = {
            let catalog = self.catalog.lock();
            let published = self.snapshot_tracker.published();
            (published, catalog.oldest_unstored())
        };
        let after = published.next();
        let by_catalog = mutated!("catalogue-needs-no-log", None, by_catalog).unwrap_or(after);
        if mutated!("log-segment-unlinked-early") {
            return Needed {
                by_engines: after,
                by_catalog: after,
            };
        }
        let all = self.keyspaces.all();
        let by_engines = all
            .iter()
            .filter_map(|keyspace| keyspace.oldest_unpersisted())
            .fold(after, SeqNo::min);
        Needed {
            by_engines,
            by_catalog,
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fs::SimFs;
    use crate::options::{Durability, EngineKind, KeyspaceOptions, Options};
    use crate::store::Change;
    use crate::testing::Woken;
    use crate::types::Op;

    /// A memtable of a few megabytes kept two long segments for as long as nothing was written.
    #[test]
    fn an_idle_log_is_not_kept_for_what_is_in_memory() {
        for engine in EngineKind::ALL {
            let options = Options::new()
                .fs(Arc::new(SimFs::new()))
                .background_threads(0)
                .log_segment_bytes(8 << 20);
            let store = crate::store::open(Path::new("/store"), options).unwrap();
            let shared = &store.shared;
            let keyspace = shared
                .keyspace_with("a", &KeyspaceOptions::new(engine))
                .unwrap();
            for number in 0..10_000_u32 {
                let (key, value) = (number.to_be_bytes(), [7; 300]);
                let (key, value) = (&key[..], &value[..]);
                let put = Change::One {
                    keyspace: &keyspace,
                    op: Op::Put { key, value },
                };
                shared.commit(put, Durability::Buffered).unwrap();
            }
            while shared.run_background_once().unwrap() {}
            let log = shared.coordinator.log().unwrap();
            assert!(log.is_long() && keyspace.engine.oldest_unpersisted().is_some());
            let look_after = |idle| {
                let unsynced = Duration::ZERO;
                shared.shrink_idle_log(LogAges { unsynced, idle }).unwrap();
            };
            look_after(SHRINK_AFTER / 2);
            assert!(!shared.run_engines_once(&[Work::Flush]).unwrap());
            look_after(SHRINK_AFTER);
            assert!(shared.run_engines_once(&[Work::Flush]).unwrap());
            assert_eq!(keyspace.engine.oldest_unpersisted(), None);
            look_after(SHRINK_AFTER);
            assert!(!log.is_long(), "{engine}: {:?}", log.stats());
            assert!(!shared.run_engines_once(&[Work::Flush]).unwrap());
        }
    }

    /// What was synced so that a segment could go was told to none of those that waited for it.
    #[test]
    fn a_sync_for_the_sake_of_retention_wakes_those_that_asked_for_one() {
        let options = Options::new()
            .fs(Arc::new(SimFs::new()))
            .background_threads(0)
            .log_segment_bytes(64 << 10);
        let store = crate::store::open(Path::new("/store"), options).unwrap();
        let shared = &store.shared;
        let keyspace = shared
            .keyspace_with("a", &KeyspaceOptions::new(EngineKind::Lsm))
            .unwrap();
        let put = |len: usize| {
            let value = vec![7; len];
            let put = Change::One {
                keyspace: &keyspace,
                op: Op::Put {
                    key: b"key",
                    value: &value,
                },
            };
            shared.commit(put, Durability::Buffered).unwrap()
        };
        put(2000);
        keyspace.engine.flush().unwrap();
        // Does not fit behind that: it begins the second segment, and is not durable.
        let seq = put(63 << 10);
        let log = shared.coordinator.log().unwrap();
        assert!(log.switches() == 1 && log.synced_seq() < seq);
        // While the thread of the log is past its look at requests.
        let woken = Arc::new(Woken::default());
        let waker = std::task::Waker::from(Arc::clone(&woken));
        shared.coordinator.request_durable(seq, &waker).unwrap();
        shared.retire_log().unwrap();
        assert!(log.synced_seq() >= seq, "the next segment was anchored");
        assert!(!woken.is_woken(), "with locks held");
        shared.run_log_once().unwrap();
        woken.wait();
    }
}
