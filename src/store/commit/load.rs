//! Commits of bulk loads, and what keeps other commits from their keyspaces meanwhile.

use std::sync::Arc;

use super::{Pipeline, Sequencer};
use crate::engine::{LoadFailed, LoadRecord};
use crate::error::{Error, Result};
use crate::store::apply::{Effect, Load};
use crate::store::keyspaces::OpenKeyspace;
use crate::store::load_record::LoggedLoad;
use crate::types::{KeyRange, MAX_BATCH_LEN_BYTES, SeqNo};
use crate::util::mutants::mutated;
use crate::util::sync::MutexGuard;

/// Keeps commits to a keyspace away. See [`Pipeline::hold`].
pub(crate) struct HeldKeyspace<'a>(&'a OpenKeyspace);

impl Drop for HeldKeyspace<'_> {
    fn drop(&mut self) {
        self.0.keyspace_gate.open();
    }
}

impl Pipeline {
    /// Commits a bulk load, durably. The caller [holds](Pipeline::hold) the keyspace.
    pub(crate) fn commit_load(
        &self,
        keyspace: &Arc<OpenKeyspace>,
        record: &LoadRecord<'_>,
    ) -> Result<SeqNo, LoadFailed> {
        let nothing_logged = |error| LoadFailed {
            error,
            may_be_logged: false,
        };
        let heading = LoggedLoad::heading(keyspace.id);
        if heading.len() + record.content.len() > MAX_BATCH_LEN_BYTES {
            return Err(nothing_logged(Error::invalid(format!(
                "the record of a bulk load is longer than {MAX_BATCH_LEN_BYTES} bytes"
            ))));
        }
        let range = KeyRange::new(&(record.first..=record.last));
        let content = record.content.to_vec();
        let mut log = self.log.lock();
        self.coordinator.check_writable().map_err(nothing_logged)?;
        let parts: &[&[u8]] = &[&heading, record.content];
        // What fails on a full disk, and is tried again.
        log.make_room(record.numbers, parts)
            .map_err(nothing_logged)?;
        let maybe_logged = |error| LoadFailed {
            error,
            may_be_logged: !mutated!("load-that-may-be-logged-removed"),
        };
        let (first, _) = log.append(record.numbers, parts, 0).map_err(maybe_logged)?;
        let load = Load {
            keyspace: Arc::clone(keyspace),
            content,
            last: SeqNo(first.0 + record.numbers - 1),
            range,
        };
        let last = load.last;
        if log.conflicts.is_active() && !mutated!("load-is-no-conflict") {
            log.conflicts.note(keyspace.id, &load.as_op(), last);
        }
        self.join_queue(log, Effect::Load(load), first, last)
            .map_err(maybe_logged)
    }

    /// Keeps commits to `keyspace` away as long as the result lives; those that were logged are
    /// visible by then. An error if the keyspace has been dropped.
    pub(crate) fn hold<'a>(&self, keyspace: &'a OpenKeyspace) -> Result<HeldKeyspace<'a>> {
        loop {
            let log = self.log.lock();
            if keyspace.keyspace_gate.close() {
                let upto = log.next.prev();
                drop(log);
                let held = HeldKeyspace(keyspace);
                let check = || self.coordinator.check_writable();
                self.applier.publisher.wait_unless(upto, &check)?;
                // It may have been dropped while this waited.
                keyspace.check_alive()?;
                return Ok(held);
            }
            drop(log);
            keyspace.keyspace_gate.wait();
        }
    }

    /// Locks the log for a commit to `keyspaces` whose engines were prepared. If one of them is
    /// held, it waits until that is over, and has them prepared anew.
    pub(super) fn lock_log<'a>(
        &self,
        keyspaces: impl Iterator<Item = &'a Arc<OpenKeyspace>> + Clone,
        prepare: impl Fn() -> Result<()>,
    ) -> Result<MutexGuard<'_, Sequencer>> {
        #[cfg(all(test, not(shuttle)))]
        crate::testing::just_before_a_commit_is_ordered();
        loop {
            let log = self.log.lock();
            let mut all = keyspaces.clone();
            let Some(held) = all.find(|keyspace| keyspace.keyspace_gate.is_closed()) else {
                // They may have been dropped while this waited.
                keyspaces.clone().try_for_each(|it| it.check_alive())?;
                return Ok(log);
            };
            if mutated!("commit-beside-the-end-of-a-load") {
                return Ok(log);
            }
            drop(log);
            held.keyspace_gate.wait();
            prepare()?;
        }
    }
}
