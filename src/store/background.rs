//! Background work, as plain functions, and the loop that a thread runs around them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::health::{Health, LogJobs};
use super::keyspaces::OpenKeyspace;
use super::shared::Shared;
use super::value_collection::ValueWork;
use crate::engine::{EngineHost, Work};
use crate::error::{Error, Result};
use crate::util::mutants::mutated;

/// Longest sleep of an idle thread. Work is announced; this only bounds the harm of a lost one.
const IDLE_WAIT: Duration = Duration::from_secs(5);

/// Shortest sleep of a thread that found nothing to do: what is due and cannot be done yet must not
/// take a processor.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// How long writes must have paused for what gives way to them.
const QUIET_WAIT: Duration = Duration::from_millis(200);

impl Shared {
    /// Does one unit of engine work of the first kind that is due; false if none is. An error is
    /// that of a job which failed now, if none did anything.
    pub(crate) fn run_engines_once(&self, kinds: &[Work]) -> Result<bool> {
        let _busy = Busy::begin(&self.busy);
        let mut failed = None;
        for kind in kinds {
            if *kind == Work::Compact {
                let turns = [
                    (
                        &self.values_are_next,
                        Self::run_values_once as fn(&Self) -> _,
                    ),
                    (&self.sweeps_are_next, Self::sweep_once),
                ];
                for (is_next, run) in turns {
                    if !is_next.swap(false, Ordering::Relaxed) {
                        continue;
                    }
                    match run(self) {
                        Ok(true) => return Ok(true),
                        Ok(false) => {}
                        Err(error) => failed = Some(error),
                    }
                }
            }
            if *kind == Work::Flush {
                match self.flush_for_log_limit() {
                    Ok(true) => return Ok(true),
                    Ok(false) => {}
                    Err(error) => failed = Some(error),
                }
            }
            let all = self.keyspaces.all();
            let begin = self.turns.next(*kind);
            for at in 0..all.len() {
                let keyspace = &all[(begin + at) % all.len()];
                match self.run_job(keyspace, *kind, |engine| engine.run_once(*kind)) {
                    Ok(true) => {
                        // Value files and sweeps have a turn in between.
                        if *kind == Work::Compact {
                            self.values_are_next.store(true, Ordering::Relaxed);
                            let is_next = !mutated!("sweeps-wait-for-all-compactions");
                            self.sweeps_are_next.store(is_next, Ordering::Relaxed);
                        }
                        return Ok(true);
                    }
                    Ok(false) => {}
                    Err(error) if mutated!("one-failing-job-stops-all-others") => {
                        return Err(error);
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if *kind == Work::Compact {
                match self.run_values_once() {
                    Ok(true) => return Ok(true),
                    Ok(false) => {}
                    Err(error) => failed = Some(error),
                }
                match self.sweep_once() {
                    Ok(true) => return Ok(true),
                    Ok(false) => {}
                    Err(error) => failed = Some(error),
                }
            }
        }
        failed.map_or(Ok(false), Err)
    }

    /// Does one unit of work of the first kind that is due in that keyspace, or that the limit of
    /// the log asks for anywhere.
    pub(super) fn run_engines_of(&self, keyspace: &OpenKeyspace, kinds: &[Work]) -> Result<bool> {
        let _busy = Busy::begin(&self.busy);
        match self.flush_for_log_limit() {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            // It is noted where it fails. What fails elsewhere is nothing to who waits here.
            Err(error) if mutated!("flush-that-fails-elsewhere-stops-a-writer") => {
                return Err(error);
            }
            Err(_) => self.coordinator.check_running()?,
        }
        for kind in kinds {
            if self.run_job(keyspace, *kind, |engine| engine.run_once(*kind))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Runs `job`, work of that kind, unless the keyspace was dropped or the job has failed a short
    /// while ago.
    pub(super) fn run_job(
        &self,
        keyspace: &OpenKeyspace,
        kind: Work,
        job: impl FnOnce(&dyn crate::engine::Engine) -> Result<bool>,
    ) -> Result<bool> {
        let health = keyspace.health(kind);
        if keyspace.check_alive().is_err() || self.leaves_alone(health) {
            return Ok(false);
        }
        self.coordinator.check_running()?;
        let outcome = job(&*keyspace.engine);
        match outcome {
            Ok(worked) if health.is_failing() && self.still_owes(keyspace, kind, worked) => {
                if worked {
                    health.note_other_work();
                }
            }
            _ => self.note(health, &outcome),
        }
        outcome
    }

    /// Whether an error of work of that kind, which has now returned `worked`, is to stay.
    fn still_owes(&self, keyspace: &OpenKeyspace, kind: Work, worked: bool) -> bool {
        if mutated!("nothing-to-do-ends-an-error") {
            return false;
        }
        // The log may want a flush that the engine does not.
        let is_owed_to_log = || {
            kind == Work::Flush
                && !worked
                && self
                    .debtors_of_log()
                    .iter()
                    .any(|debtor| debtor.id == keyspace.id)
        };
        keyspace.engine.still_owes(kind, worked) || is_owed_to_log()
    }

    /// Whether a job is to be left alone. Where no thread does background work, the caller
    /// decides when something is tried again.
    fn leaves_alone(&self, health: &Health) -> bool {
        self.pause_of(health).is_some()
    }

    /// How long a job is to be left alone.
    pub(super) fn pause_of(&self, health: &Health) -> Option<Duration> {
        health
            .pause()
            .filter(|_| self.options.background_threads > 0)
    }

    /// Notes how a job ended, and wakes threads that wait for it.
    pub(super) fn note<T>(&self, health: &Health, outcome: &Result<T>) {
        if health.note(outcome) {
            self.coordinator.note_progress();
        }
    }

    /// Does one unit of work on the log, where no threads do it. False if nothing was due.
    pub(crate) fn run_log_once(&self) -> Result<bool> {
        let synced = self.run_sync_once()?;
        match self.run_segments_once() {
            Ok(worked) => Ok(synced || worked),
            Err(_) if synced => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Syncs buffered commits that have waited long enough, or that a caller waits for. False if
    /// none have.
    pub(super) fn run_sync_once(&self) -> Result<bool> {
        let Some(log) = self.coordinator.log() else {
            return Ok(false);
        };
        if let Err(error) = self.coordinator.check_writable() {
            self.coordinator.wake_durable_waiters();
            return Err(error);
        }
        let unsynced = || log.synced_seq() < log.appended_seq();
        let mut worked = false;
        let asked = self.coordinator.take_sync_request();
        let is_due = asked || self.sync_is_due() || log.has_many_unsynced();
        if is_due && !mutated!("buffered-commits-are-never-synced") {
            self.last_background_sync_ms
                .store(self.now_ms(), Ordering::Relaxed);
            if unsynced() {
                let synced = self.coordinator.sync_log();
                self.note(&self.log_jobs.sync, &synced);
                synced?;
                worked = true;
            }
        }
        if asked && !mutated!("request-of-what-others-synced-unanswered") {
            self.coordinator.note_synced(log.synced_seq());
        }
        Ok(worked)
    }

    /// Lets old segments of the log go, and prepares the next one. False if nothing was due.
    pub(super) fn run_segments_once(&self) -> Result<bool> {
        let Some(log) = self.coordinator.log() else {
            return Ok(false);
        };
        self.coordinator.check_writable()?;
        let jobs = &self.log_jobs;
        let mut worked = false;
        // On a full disk these fail, and neither may keep the other from running.
        let mut failed = None;
        match self.run_retire() {
            Ok(retired) => worked |= retired,
            Err(error) => failed = Some(error),
        }
        self.watch_log_length();
        if !self.leaves_alone(&jobs.prepare) {
            let prepared = log.prepare();
            self.note(&jobs.prepare, &prepared);
            match prepared {
                Ok(prepared) => worked |= prepared,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) if !worked => Err(error),
            _ => Ok(worked),
        }
    }

    /// Deletes segments of the log and value files that nothing needs, unless that has failed a
    /// short while ago.
    fn run_retire(&self) -> Result<bool> {
        let health = &self.log_jobs.retire;
        let Some(log) = self
            .coordinator
            .log()
            .filter(|_| !self.leaves_alone(health))
        else {
            return Ok(false);
        };
        let mut worked = false;
        let retired = self.retire_log().and_then(|()| {
            worked = self.values.remove_unheld()?;
            self.shrink_idle_log(log.ages(Instant::now()))
        });
        self.note(health, &retired);
        // What has gone has gone.
        match retired {
            Err(error) if !worked => Err(error),
            _ => Ok(worked),
        }
    }

    fn now_ms(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64
    }

    /// Milliseconds until buffered commits are to be synced; `None` if they never are.
    fn sync_due_in_ms(&self) -> Option<u64> {
        if self.coordinator.check_writable().is_err() && !mutated!("sync-due-after-a-failure") {
            return None;
        }
        let interval_ms = self.options.background_sync_ms;
        let last_ms = self.last_background_sync_ms.load(Ordering::Relaxed);
        let due_ms = last_ms.saturating_add(interval_ms);
        (interval_ms > 0).then(|| due_ms.saturating_sub(self.now_ms()))
    }

    fn sync_is_due(&self) -> bool {
        self.sync_due_in_ms() == Some(0)
    }

    /// Does one unit of any background work; false if none is due.
    pub(crate) fn run_background_once(&self) -> Result<bool> {
        Ok(self.run_log_once()? || self.run_engines_once(&[Work::Flush, Work::Compact])?)
    }

    /// Returns when no background work is due or running; an error if some of it fails.
    pub(crate) fn wait_idle(&self) -> Result<()> {
        loop {
            let seen = self.coordinator.progress_count();
            self.coordinator.check_writable()?;
            if self.options.background_threads == 0 {
                let _pass = self.enter()?;
                // What has failed may wait for a second look at which all is as at the first.
                let has_worked = self.run_background_once()?
                    || self.keyspace_error().is_some() && self.run_background_once()?;
                if !has_worked {
                    self.retire_log()?;
                    while self.values.remove_unheld()? {}
                    return self.keyspace_error().map_or(Ok(()), Err);
                }
                continue;
            }
            // With a pass for each look, so that closing does not wait for what never ends.
            let pass = self.enter()?;
            if !self.has_due_work() && self.busy.load(Ordering::SeqCst) == 0 {
                // What engines have persisted since the thread of the log looked last.
                // A failure is noted.
                let _ = self.run_retire();
                let failed = self.keyspace_error().or_else(|| self.log_error());
                return failed.map_or(Ok(()), Err);
            }
            drop(pass);
            self.coordinator.wake();
            self.coordinator
                .wait_for_progress(seen, Duration::from_millis(10));
        }
    }

    /// Whether there is work for the engines, or on value files, that is not left alone because it
    /// fails.
    fn has_due_work(&self) -> bool {
        let debtor = self.log_limit_debtor();
        let is_due = |keyspace: &Arc<OpenKeyspace>| {
            let in_debt = debtor.as_ref().is_some_and(|it| it.id == keyspace.id);
            let wanted = [in_debt.then_some(Work::Flush), keyspace.engine.work_due()];
            // Only that is left alone, and nothing else that its keyspace wants.
            let is_paused = |kind| match mutated!("failing-job-hides-others-of-its-keyspace") {
                true => keyspace.failing_now().is_some(),
                false => keyspace.health(kind).pause().is_some(),
            };
            let may_run = wanted.into_iter().flatten().any(|kind| !is_paused(kind));
            may_run || self.sweep_is_due(keyspace)
        };
        if self.keyspaces.all().iter().any(is_due) {
            return true;
        }
        let has_value_work = match self.value_work() {
            None => false,
            // What keeps a keyspace from taking values again may last.
            Some(ValueWork::Collect(_, Some(postponed))) => {
                let keyspace = self.keyspaces.by_id(postponed.by);
                keyspace
                    .is_none_or(|keyspace| keyspace.error().or(keyspace.collect.error()).is_none())
            }
            Some(_) => true,
        };
        has_value_work && self.log_jobs.collect.pause().is_none()
    }

    /// The error of a job in a keyspace, if one fails.
    fn keyspace_error(&self) -> Option<Error> {
        let all = self.keyspaces.all();
        all.iter().find_map(|keyspace| {
            let of_engine = keyspace.error();
            of_engine
                .or_else(|| keyspace.collect.error())
                .or_else(|| keyspace.sweep_error())
        })
    }

    /// The error of a job on the log, if one fails.
    fn log_error(&self) -> Option<Error> {
        let LogJobs {
            sync,
            retire,
            prepare,
            collect,
        } = &self.log_jobs;
        let jobs = [sync, retire, prepare, collect];
        jobs.into_iter().find_map(Health::error)
    }

    /// What fails in the background, and where: the first job found. Else why the store takes no
    /// more writes, or what the scrub has found.
    pub(super) fn background_error(&self) -> Option<String> {
        let LogJobs {
            sync,
            retire,
            prepare,
            collect,
        } = &self.log_jobs;
        let of_log = [
            (sync, "syncing the log"),
            (retire, "deleting log segments"),
            (prepare, "preparing a log segment"),
            (collect, "collecting values"),
        ];
        let of_log = of_log.into_iter().find_map(|(health, what)| {
            let error = health.error()?;
            Some(format!("{what}: {error:#}"))
        });
        let of_jobs = of_log.or_else(|| {
            let all = self.keyspaces.all();
            all.iter().find_map(|keyspace| {
                let (kind, error) = keyspace.failing_job()?;
                let what = match kind {
                    Work::Flush => "flush",
                    Work::Compact => "compaction",
                };
                Some(format!(
                    "{what} of keyspace {:?}: {error:#}",
                    keyspace.name()
                ))
            })
        });
        let of_jobs = of_jobs.or_else(|| {
            let all = self.keyspaces.all();
            all.iter().find_map(|keyspace| {
                let error = keyspace.collect.error()?;
                Some(format!(
                    "collecting values of keyspace {:?}: {error:#}",
                    keyspace.name()
                ))
            })
        });
        let of_jobs = of_jobs.or_else(|| {
            let all = self.keyspaces.all();
            all.iter().find_map(|keyspace| {
                let error = keyspace.sweep_error()?;
                Some(format!(
                    "sweep of keyspace {:?}: {error:#}",
                    keyspace.name()
                ))
            })
        });
        of_jobs
            .or_else(|| Some(format!("{:#}", self.coordinator.check_writable().err()?)))
            .or_else(|| Some(format!("scrub: {}", self.scrub.problem()?)))
    }

    /// A thin loop around `step` until the store closes; it sleeps for `idle_wait` at most. A panic
    /// in it is a fault of this library: nothing can be built on what it leaves, so the store takes
    /// no more writes.
    pub(super) fn run_thread(
        &self,
        idle_wait: impl Fn(&Self) -> Duration,
        step: impl Fn(&Self) -> Result<bool>,
    ) {
        while self.coordinator.check_running().is_ok() {
            let seen = self.coordinator.work_count();
            match catch_unwind(AssertUnwindSafe(|| step(self))) {
                Ok(Ok(true)) => self.coordinator.progressed(),
                // A failed job is noted, and left alone for a while.
                Ok(Ok(false) | Err(_)) => {
                    let wait = idle_wait(self).max(SHORTEST_WAIT);
                    self.coordinator.wait_for_work(seen, wait);
                }
                Err(panic) => {
                    self.coordinator
                        .fail(&Error::panicked("background work", &*panic));
                    self.coordinator.wake_durable_waiters();
                    return;
                }
            }
        }
    }

    /// How long the thread that syncs sleeps when nothing is due.
    pub(super) fn sync_wait(&self) -> Duration {
        let sync = self.sync_due_in_ms().map(Duration::from_millis);
        sync.map_or(IDLE_WAIT, |sync| sync.min(IDLE_WAIT))
    }

    /// How long the thread of the log's segments sleeps when nothing is due.
    pub(super) fn segments_wait(&self) -> Duration {
        let LogJobs {
            retire, prepare, ..
        } = &self.log_jobs;
        [retire.pause(), prepare.pause()]
            .into_iter()
            .flatten()
            .fold(IDLE_WAIT, Duration::min)
    }

    /// How long a thread that works for the engines sleeps when nothing is due.
    pub(super) fn engines_wait(&self, kinds: &[Work]) -> Duration {
        let all = self.keyspaces.all();
        let pauses = all.iter().flat_map(|keyspace: &Arc<OpenKeyspace>| {
            let compacts = kinds.contains(&Work::Compact);
            // A compaction that is due was not begun: it waits for writes to pause.
            let waits = compacts && keyspace.engine.work_due() == Some(Work::Compact);
            // One that is under way is announced when it has ended.
            let may_sweep = compacts && !keyspace.sweep.is_under_way()
                || mutated!("sweep-keeps-all-threads-awake");
            let sweep = may_sweep.then(|| self.sweep_wait_ms(keyspace)).flatten();
            let sweep = sweep.map(Duration::from_millis);
            let pauses = kinds.iter().map(|kind| keyspace.health(*kind).pause());
            let collect = compacts.then(|| keyspace.collect.pause()).flatten();
            pauses
                .chain([waits.then_some(QUIET_WAIT), sweep, collect])
                .flatten()
        });
        pauses.fold(IDLE_WAIT, Duration::min)
    }
}

/// Counts a running unit of work.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn begin(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(counter)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fs::{Fault, FaultFs, FaultPlan, OpKind, SimFs};
    use crate::options::{Durability, EngineKind, KeyspaceOptions, Options};
    use crate::store::Change;
    use crate::types::Op;

    /// A sync stayed due that was never tried again.
    #[test]
    fn the_thread_of_a_log_that_takes_nothing_more_sleeps() {
        let options = Options::new()
            .fs(Arc::new(SimFs::new()))
            .background_threads(0)
            .background_sync_ms(1);
        let store = crate::store::open(Path::new("/store"), options).unwrap();
        let shared = &store.shared;
        shared.coordinator.fail(&Error::invalid("no"));
        std::thread::sleep(Duration::from_millis(5));
        assert!(shared.run_log_once().is_err());
        assert!(!shared.sync_wait().is_zero());
        assert!(!shared.segments_wait().is_zero());
    }

    /// A compaction that fails took a flush of the same keyspace off the list.
    #[test]
    fn a_failing_compaction_leaves_a_flush_due() {
        let options = Options::new()
            .fs(Arc::new(SimFs::new()))
            .background_threads(0);
        let store = crate::store::open(Path::new("/store"), options).unwrap();
        let shared = &store.shared;
        let asked = KeyspaceOptions::new(EngineKind::Lsm).write_buffer_bytes(16 << 10);
        let keyspace = shared.keyspace_with("a", &asked).unwrap();
        let value = [0; 1000];
        for n in 0..100_u8 {
            let op = Op::Put {
                key: &[n],
                value: &value,
            };
            let keyspace = &keyspace;
            let put = Change::One { keyspace, op };
            shared.commit(put, Durability::Buffered).unwrap();
            if keyspace.engine.work_due() == Some(Work::Flush) {
                break;
            }
        }
        let error = Error::io("read", Path::new("t"), std::io::Error::other("no"));
        keyspace
            .health(Work::Compact)
            .note::<()>(&Err(error.clone()));
        assert!(keyspace.failing_now().is_some() && shared.has_due_work());
        keyspace.health(Work::Flush).note::<()>(&Err(error));
        assert!(!shared.has_due_work(), "left alone for a while");
    }

    /// Where the caller decides when something is tried again, a job that fails is never left
    /// alone, and has its turn first every other time.
    #[test]
    fn a_flush_that_fails_keeps_no_other_from_its_turn() {
        for engine in EngineKind::ALL {
            let disk = FaultFs::new(Arc::new(SimFs::new()));
            let options = Options::new()
                .fs(Arc::new(disk.clone()))
                .background_threads(0);
            let store = crate::store::open(Path::new("/store"), options).unwrap();
            let shared = &store.shared;
            let asked = KeyspaceOptions::new(engine).write_buffer_bytes(16 << 10);
            let [sick, well] = ["sick", "well"].map(|name| {
                let made = shared.keyspace_with(name, &asked);
                made.unwrap()
            });
            let fill = |keyspace: &Arc<OpenKeyspace>| {
                for n in 0..100_u8 {
                    let op = Op::Put {
                        key: &[n],
                        value: &[0; 1000],
                    };
                    let put = Change::One { keyspace, op };
                    shared.commit(put, Durability::Buffered).unwrap();
                    if keyspace.engine.work_due() == Some(Work::Flush) {
                        return;
                    }
                }
                panic!("{engine}: no flush is due");
            };
            fill(&sick);
            let all = [OpKind::Write, OpKind::Create, OpKind::SetLen, OpKind::Sync];
            let plan = FaultPlan::once(&all, 0, Fault::Full).and_then_all(&all);
            disk.plan(plan.within(Path::new("/store/ks-00000001")));
            for turn in 0..4 {
                fill(&well);
                let worked = shared.run_engines_once(&[Work::Flush]);
                assert!(matches!(worked, Ok(true)), "{engine} {turn}: {worked:?}");
                assert_ne!(well.engine.work_due(), Some(Work::Flush), "{engine} {turn}");
            }
            assert!(shared.run_engines_once(&[Work::Flush]).is_err(), "{engine}");
        }
    }

    #[test]
    fn a_collection_that_is_wanted_no_more_fails_no_more() {
        let options = Options::new()
            .fs(Arc::new(SimFs::new()))
            .background_threads(0);
        let store = crate::store::open(Path::new("/store"), options).unwrap();
        let shared = &store.shared;
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = Error::io("write", Path::new("t"), full);
        shared.log_jobs.collect.note::<()>(&Err(error));
        assert!(shared.background_error().is_some());
        assert!(!shared.run_values_once().unwrap());
        assert_eq!(shared.background_error(), None);
        shared.wait_idle().unwrap();
    }
}
