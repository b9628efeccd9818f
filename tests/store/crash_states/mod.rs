//! The power fails at every change of the file system, in every way that the disk may take it.
//!
//! Small workloads ([`workloads`]) run on the simulated disk, a third of them with memory maps:
//! then a store into the log is a change like a write. Before each change that the store makes to
//! the file system, the states that a power loss may leave at this moment are made
//! ([`SimFs::crash_states`]). Each distinct one is opened, which recovers it, and must then be
//! right:
//!
//! - what it holds is the state after a prefix of the commits (I3), each whole (I2), with every
//!   acknowledged `Sync` commit (I1) and nothing that was deleted (I4); [`oracle`] knows these
//!   states;
//! - `verify` finds nothing, and the store takes and keeps new commits (I6);
//! - there are no files that nothing needs (I7);
//! - recovered again, it is the same (I5): at some images the recovery itself is cut off by power
//!   losses, again in every way at every change, and at some of those the recovery from that, too.
//!
//! At some moments the process is killed instead, which loses nothing of what is visible, but
//! leaves it at the mercy of the disk. The next process recovers that, works on, and the power
//! fails all the while. And some syncs fail just before the process ends: the page cache then shows
//! the next one what the disk does not have, and will not get from another sync.
//!
//! A failure names the moment and the state, and the command that repeats it alone.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hedgerow::fs::{CrashPolicy, CrashState, Fs, OpenMode, Operation, SimFs};
use hedgerow::{Db, Durability, EngineKind, Figure, InspectDetail, ManualClock};
use support::random::{Random, Source};
use support::rig::{effort, figure, from_env, report};
use support::sizes::{Sizes, Variant, keyspace_options};

use oracle::{Bounds, Found, Truth, read_all};
use workloads::Workload;
pub(crate) use world::STORE;
use world::{World, options};

mod faults;
mod oracle;
mod workloads;
mod world;

/// How often, in images, the recovery is cut off, at the first and at the second level.
const INSIDE_EVERY: [u64; 2] = [120, 150];
/// Up to how many states all are taken, for even and odd seeds: all of six changes, or all of
/// eight.
const EXHAUSTIVE_MAX: [u64; 2] = [64, 256];
/// How often, in moments, the process is killed.
const KILL_EVERY: u64 = 32;
/// How often, in syncs of files and of directories, the sync fails and the process ends.
const FAILED_SYNC_EVERY: u64 = 16;
/// How often, in images, everything is flushed and compacted after the recovery, and compared once
/// more.
const THOROUGH_EVERY: u64 = 16;

/// Figures of all cases.
#[derive(Debug, Default)]
struct Counts {
    moments: AtomicU64,
    states: AtomicU64,
    images: AtomicU64,
    kills: AtomicU64,
    failed_syncs: AtomicU64,
    /// Images with packs in a B-tree, as far as was looked.
    with_packs: AtomicU64,
    /// By how many crashes there were before.
    inside: [AtomicU64; 2],
}

fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// A workload on an engine, with a seed for all choices.
#[derive(Clone)]
struct Case {
    workload: Workload,
    variant: Variant,
    seed: u64,
    /// Look at this moment and this state of it only.
    only: (Option<u64>, Option<u64>),
}

/// What the hook shares with the runner.
struct Examiner {
    case: Case,
    truth: Arc<Mutex<Truth>>,
    clock: ManualClock,
    counts: Arc<Counts>,
    inner: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    moment: u64,
    /// What the images that were recovered held.
    seen: HashMap<u64, Found>,
    failure: Option<String>,
}

/// A state taken while a recovery was running.
struct Taken {
    state: CrashState,
    when: String,
    /// The store had been opened by then.
    is_after: bool,
}

/// What is right for a state that is opened.
#[derive(Clone, Copy)]
struct Right {
    now: Bounds,
    /// For crashes during the recovery, if they may lose what it finds.
    inside: Option<Bounds>,
}

impl Examiner {
    /// A number that follows from the case and `salt`.
    fn dice(&self, salt: &[u64]) -> u64 {
        let name = self.case.workload.0.bytes().map(u64::from);
        let engine = self.case.variant.engine as u64;
        name.chain([engine])
            .chain(salt.iter().copied())
            .fold(self.case.seed, |dice, salt| Random::new(dice ^ salt).bits())
    }

    /// Whether the files of this case are mapped, log and data.
    fn has_maps(&self) -> bool {
        self.dice(&[]).is_multiple_of(3)
    }

    /// The moment before a change of the workload.
    fn moment(&self, fs: &SimFs, operation: &Operation<'_>) {
        let mut inner = self.inner.lock().expect("panics are caught");
        let moment = inner.moment;
        inner.moment += 1;
        if inner.failure.is_some() || self.case.only.0.is_some_and(|only| only != moment) {
            return;
        }
        // A record is several stores: one in three is looked at.
        if operation.op == "store" && !self.dice(&[moment, u64::MAX - 1]).is_multiple_of(3) {
            return;
        }
        let what = format!("{} {}", operation.op, operation.path.display());
        let examined = self
            .examine(fs, moment, &mut inner)
            .and_then(|()| self.examine_kills(fs, moment, operation, &mut inner));
        if let Err(story) = examined {
            inner.failure = Some(format!("before change {moment} ({what}): {story}"));
        }
    }

    fn examine(&self, fs: &SimFs, moment: u64, inner: &mut Progress) -> Result<(), String> {
        let bounds = self.truth.lock().expect("no panic").after_power_loss();
        let policy = CrashPolicy::new()
            .exhaustive_max(EXHAUSTIVE_MAX[self.case.seed as usize % 2])
            .each_max(12)
            .random(8)
            .seed(self.dice(&[moment]));
        let states = fs.crash_states(&policy);
        count(&self.counts.moments, 1);
        count(&self.counts.states, states.len());
        for number in 0..states.len() {
            if self.case.only.1.is_some_and(|only| only != number as u64) {
                continue;
            }
            let state = states.state(number);
            let right = Right {
                now: bounds,
                inside: None,
            };
            let dice = self.dice(&[moment, number as u64]);
            self.recover_once(&state, right, 0, dice, inner)
                .map_err(|story| {
                    let fates = states.describe(number);
                    format!(
                        "{story}\nstate {number} of {} {fates}\n{}",
                        states.len(),
                        self.command(moment, Some(number))
                    )
                })?;
        }
        Ok(())
    }

    /// The process is killed at this moment, or its sync fails and it ends.
    fn examine_kills(
        &self,
        fs: &SimFs,
        moment: u64,
        operation: &Operation<'_>,
        inner: &mut Progress,
    ) -> Result<(), String> {
        if self.case.only.1.is_some() {
            return Ok(());
        }
        let truth = self.truth.lock().expect("no panic");
        let right = Right {
            now: truth.after_kill(),
            inside: Some(truth.after_power_loss()),
        };
        drop(truth);
        let mut dice = Random::new(self.dice(&[moment, u64::MAX]));
        if dice.one_in(KILL_EVERY) {
            count(&self.counts.kills, 1);
            self.recover(&fs.killed(), right, 0, dice.bits(), true, inner)
                .map_err(|story| format!("killed: {story}\n{}", self.command(moment, None)))?;
        }
        let is_sync = ["sync", "sync directory"].contains(&operation.op);
        if is_sync && dice.one_in(FAILED_SYNC_EVERY) {
            let killed = fs.killed();
            let synced = if operation.op == "sync" {
                let file = killed.open(operation.path, OpenMode::ReadWrite);
                let file = file.map_err(|e| e.to_string())?;
                killed.fail_once_after(0, std::io::ErrorKind::Other);
                file.sync_data()
            } else {
                killed.fail_once_after(0, std::io::ErrorKind::Other);
                killed.sync_dir(operation.path)
            };
            assert!(synced.is_err(), "as planned");
            count(&self.counts.failed_syncs, 1);
            self.recover(&killed, right, 0, dice.bits(), true, inner)
                .map_err(|story| {
                    let command = self.command(moment, None);
                    format!("this sync failed and the process ended: {story}\n{command}")
                })?;
        }
        Ok(())
    }

    fn command(&self, moment: u64, state: Option<usize>) -> String {
        let Case {
            workload,
            variant,
            seed,
            ..
        } = &self.case;
        let variant = variant.name();
        let state = state.map_or(String::new(), |state| format!(" HEDGEROW_STATE={state}"));
        format!(
            "repeat with: HEDGEROW_WORKLOAD={} HEDGEROW_ENGINE={variant} HEDGEROW_SEED={seed:#x} \
             HEDGEROW_MOMENT={moment}{state} cargo test --test store crash_states",
            workload.0
        )
    }

    /// Recovers an image, unless an equal one was: then only compares what that one held.
    fn recover_once(
        &self,
        state: &CrashState,
        right: Right,
        level: usize,
        dice: u64,
        inner: &mut Progress,
    ) -> Result<(), String> {
        if let Some(found) = inner.seen.get(&state.hash) {
            let truth = self.truth.lock().expect("no panic");
            if truth.place(found, right.now).is_some() {
                return Ok(());
            }
        }
        match level {
            0 => count(&self.counts.images, 1),
            level => count(&self.counts.inside[level - 1], 1),
        }
        let found = self.recover(&state.fs, right, level, dice, false, inner)?;
        inner.seen.insert(state.hash, found);
        Ok(())
    }

    /// Opens a store that crashed, and says what it holds if everything is right.
    fn recover(
        &self,
        fs: &SimFs,
        right: Right,
        level: usize,
        dice: u64,
        is_killed: bool,
        inner: &mut Progress,
    ) -> Result<Found, String> {
        let mut dice = Random::new(dice);
        let is_cut_off = is_killed || (level < 2 && dice.one_in(INSIDE_EVERY[level]));
        let taker = is_cut_off.then(|| Taker::start(fs, dice.bits()));
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let taker = taker.as_ref();
            self.open_and_check(fs, right, &mut dice, is_killed, taker)
        }));
        let (found, placed) = outcome.unwrap_or_else(|panic| Err(told(&*panic)))?;
        for taken in taker.map_or(Vec::new(), Taker::taken) {
            let now = match right.inside {
                Some(bounds) if !taken.is_after => bounds,
                _ => placed,
            };
            let right = Right { now, inside: None };
            let next = (level + 1).min(2);
            let dice = dice.bits();
            self.recover_once(&taken.state, right, next, dice, inner)
                .map_err(|story| format!("a crash inside a recovery, {}: {story}", taken.when))?;
        }
        Ok(found)
    }

    fn open_and_check(
        &self,
        fs: &SimFs,
        right: Right,
        dice: &mut Random,
        is_killed: bool,
        taker: Option<&Taker>,
    ) -> Result<(Found, Bounds), String> {
        let db = options(fs)
            .clock(self.clock.clone())
            .open(STORE)
            .map_err(|e| failed("the recovery fails", e))?;
        if let Some(taker) = taker {
            taker.opened(fs);
        }
        let found = read_all(&db, dice.one_in(4)).map_err(|e| failed("reading fails", e))?;
        let truth = self.truth.lock().expect("no panic");
        let placed = truth
            .place(&found, right.now)
            .ok_or_else(|| truth.explain(&db, right.now))?;
        drop(truth);
        check_files(fs, &db)?;
        verify(&db)?;
        if self.case.workload.0 == "few_changes_in_many_leaves"
            && self.case.variant.engine == EngineKind::BTree
            && let Ok(Some(keyspace)) = db.existing_keyspace("a")
        {
            let has_packs = workloads::packs_of(&keyspace) > 0;
            count(&self.counts.with_packs, usize::from(has_packs));
        }
        if is_killed {
            while db
                .run_background_once()
                .map_err(|e| failed("background work fails", e))?
            {}
            let flushed = if dice.one_in(2) { db.flush() } else { Ok(()) };
            flushed.map_err(|e| failed("a flush fails", e))?;
        }
        if let Some(taker) = taker {
            taker.stop(fs);
        }
        write_on(&db).map_err(|e| failed("the store is not writable", e))?;
        if dice.one_in(THOROUGH_EVERY) {
            self.work_on(fs, db, dice.one_in(2))?;
        }
        Ok((found, placed))
    }

    /// What a recovered store holds survives the next power loss, also after all work was done.
    fn work_on(&self, fs: &SimFs, db: Db, compacts: bool) -> Result<(), String> {
        let mut before = read_all(&db, false).map_err(|e| failed("reading fails", e))?;
        if compacts {
            db.flush().map_err(|e| failed("a flush fails", e))?;
            db.compact().map_err(|e| failed("a compaction fails", e))?;
            while db
                .run_background_once()
                .map_err(|e| failed("background work fails", e))?
            {}
            verify(&db)?;
            if self.case.workload.0 == "filtered" {
                // What was compacted is without what the filter drops.
                before = read_all(&db, false).map_err(|e| failed("reading fails", e))?;
            }
        }
        let image = fs.crash();
        drop(db);
        let db = options(&image)
            .clock(self.clock.clone())
            .open(STORE)
            .map_err(|e| failed("the second recovery fails", e))?;
        let after = read_all(&db, false).map_err(|e| failed("reading fails", e))?;
        if before != after {
            return Err("what was written after the recovery is lost to a power loss".into());
        }
        check_files(&image, &db)?;
        verify(&db)?;
        Ok(())
    }
}

fn failed(what: &str, error: hedgerow::Error) -> String {
    format!("{what}: {error}")
}

/// Takes the states at every change of a recovery.
struct Taker {
    states: Arc<Mutex<Vec<Taken>>>,
    is_open: Arc<AtomicBool>,
    seed: u64,
}

impl Taker {
    fn start(fs: &SimFs, seed: u64) -> Self {
        let taker = Self {
            states: Arc::default(),
            is_open: Arc::default(),
            seed,
        };
        let states = Arc::clone(&taker.states);
        let is_open = Arc::clone(&taker.is_open);
        let known = Mutex::new(HashSet::new());
        fs.on_change(move |fs, operation| {
            let is_after = is_open.load(Ordering::Relaxed);
            let (op, path) = (operation.op, operation.path.display());
            let when = format!("before its change {} ({op} {path})", operation.number);
            let mut known = known.lock().expect("no panic");
            let taken = take(fs, seed ^ operation.number, is_after, when)
                // A state is the same state again, unless more is promised about it.
                .filter(|taken| known.insert((taken.state.hash, is_after)));
            states.lock().expect("no panic").extend(taken);
        });
        taker
    }

    /// The store is open: what it shows from now on cannot be lost.
    fn opened(&self, fs: &SimFs) {
        self.is_open.store(true, Ordering::Relaxed);
        let taken = take(fs, self.seed, true, "when the store was open".into());
        self.states.lock().expect("no panic").extend(taken);
    }

    fn stop(&self, fs: &SimFs) {
        fs.clear_hook();
    }

    fn taken(self) -> Vec<Taken> {
        std::mem::take(&mut *self.states.lock().expect("no panic"))
    }
}

fn take(fs: &SimFs, seed: u64, is_after: bool, when: String) -> impl Iterator<Item = Taken> {
    let policy = CrashPolicy::new()
        .exhaustive_max(16)
        .each_max(4)
        .random(4)
        .seed(seed);
    let states = fs.crash_states(&policy);
    (0..states.len()).map(move |number| Taken {
        state: states.state(number),
        when: format!("{when}, state {}", states.describe(number)),
        is_after,
    })
}

pub(crate) fn verify(db: &Db) -> Result<(), String> {
    let report = db.verify().map_err(|e| format!("verify fails: {e}"))?;
    match report.is_clean() {
        true => Ok(()),
        false => Err(format!("verify (I6): {:#?}", report.problems)),
    }
}

/// Commits to every keyspace, or to a new one if there is none.
pub(crate) fn write_on(db: &Db) -> hedgerow::Result<()> {
    if db.keyspaces().is_empty() {
        for engine in EngineKind::ALL {
            db.keyspace_with(engine.name(), keyspace_options(engine, Sizes::Tiny))?;
        }
    }
    let mut batch = db.batch();
    let names: Vec<_> = db.keyspaces().into_iter().map(|info| info.name).collect();
    for name in &names {
        let keyspace = db.existing_keyspace(name)?.expect("it is listed");
        batch.put(&keyspace, "written after", name);
    }
    db.write(batch, Durability::Sync)?;
    for name in &names {
        let keyspace = db.existing_keyspace(name)?.expect("it is listed");
        let value = keyspace.get("written after")?;
        assert_eq!(
            value.as_deref(),
            Some(name.as_bytes()),
            "a commit is visible"
        );
    }
    Ok(())
}

/// The store has opened: every file in it is one that it needs (I7).
pub(crate) fn check_files(fs: &SimFs, db: &Db) -> Result<(), String> {
    let list = |dir: &Path| fs.read_dir(dir).map_err(|e| e.to_string());
    let root = Path::new(STORE);
    let mut needed: HashSet<String> = ["CATALOG", "WAL-MANIFEST", "LOCK", "wal"]
        .map(String::from)
        .into();
    for info in db.keyspaces() {
        let dir = format!("ks-{:08}", info.id);
        // A keyspace that has persisted nothing has no files.
        let has_dir = fs.exists(&root.join(&dir)).map_err(|e| e.to_string())?;
        let names = match has_dir {
            true => list(&root.join(&dir))?,
            false => Vec::new(),
        };
        needed.insert(dir.clone());
        let is_right = match info.engine {
            _ if names.is_empty() => true,
            EngineKind::BTree => names == ["tree.hdb"],
            EngineKind::Lsm => {
                let keyspace = db
                    .existing_keyspace(&info.name)
                    .map_err(|e| e.to_string())?;
                let tables = keyspace.expect("it is listed").stats().files as usize;
                let of = |kind: &str| names.iter().filter(|name| name.starts_with(kind)).count();
                of("TABLE-") == tables && of("MANIFEST-") == 1 && names.len() == tables + 2
            }
        };
        if !is_right {
            return Err(format!("files that nothing needs (I7) in {dir}: {names:?}"));
        }
    }
    let orphans: Vec<_> = list(root)?
        .into_iter()
        .filter(|name| !needed.contains(name))
        .collect();
    let log = list(&root.join("wal"))?;
    let (values, log): (Vec<_>, Vec<_>) = log.into_iter().partition(|it| it.ends_with(".val"));
    let inside = db
        .inspect(InspectDetail::Levels)
        .map_err(|e| e.to_string())?;
    let referred = |name: &String| {
        let parts = inside.parts.iter().flat_map(|part| &part.parts);
        parts.clone().any(|part| {
            let has = |figure: &(&str, Figure)| figure == &("referred_bytes", Figure::Number(0));
            part.kind == "value_file" && part.name == *name && !part.figures.iter().any(has)
        })
    };
    if !values.iter().all(referred) {
        return Err(format!(
            "value files that nothing refers to (I7): {values:?}"
        ));
    }
    if !orphans.is_empty() || log.iter().any(|name| !name.ends_with(".log")) {
        return Err(format!(
            "files that nothing needs (I7): {orphans:?}, log {log:?}"
        ));
    }
    Ok(())
}

fn told(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    format!("panic: {text}")
}

/// Runs a workload and examines every moment of it.
fn run_case(case: &Case, counts: &Arc<Counts>) -> Result<(), String> {
    let truth = Arc::new(Mutex::new(Truth::new()));
    let clock = ManualClock::new();
    let examiner = Arc::new(Examiner {
        case: case.clone(),
        truth: Arc::clone(&truth),
        clock: clock.clone(),
        counts: Arc::clone(counts),
        inner: Mutex::default(),
    });
    let attach = {
        let examiner = Arc::clone(&examiner);
        move |fs: &SimFs| {
            let examiner = Arc::clone(&examiner);
            fs.on_change(move |fs, operation| examiner.moment(fs, operation));
        }
    };
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let fs = match examiner.has_maps() {
            true => SimFs::with_maps(),
            false => SimFs::new(),
        };
        let attach = Box::new(attach);
        let mut world = World::new(fs, case.seed, case.variant, truth, clock, attach);
        case.workload.1(&mut world);
        let fs = world.fs.clone();
        world.finish();
        // The moment after the last change. Breaks the circle of owners, too.
        fs.clear_hook();
        let path = Path::new(STORE);
        let end = Operation {
            number: 0,
            op: "the end",
            path,
        };
        examiner.moment(&fs, &end);
    }));
    let failure = examiner
        .inner
        .lock()
        .expect("panics are caught")
        .failure
        .take();
    let story = match (failure, ended) {
        (Some(failure), _) => failure,
        (None, Ok(())) => return Ok(()),
        (None, Err(panic)) => told(&*panic),
    };
    let (name, engine, seed) = (case.workload.0, case.variant.name(), case.seed);
    Err(format!(
        "workload {name} on {engine}, seed {seed:#x}, {story}"
    ))
}

#[test]
fn every_state_that_a_power_loss_leaves_is_recovered() {
    let seed = from_env("HEDGEROW_SEED").unwrap_or(0xC4A4);
    let only = (from_env("HEDGEROW_MOMENT"), from_env("HEDGEROW_STATE"));
    let wanted =
        |name: &str, value: &str| std::env::var(name).map_or(true, |wanted| wanted == value);
    // As many as the promised images need.
    let rounds = match only.0 {
        Some(_) => 1,
        None => effort().div_ceil(2),
    };
    let mut cases = Vec::new();
    for round in 0..rounds {
        for workload in workloads::ALL {
            for variant in Variant::ALL {
                if wanted("HEDGEROW_WORKLOAD", workload.0)
                    && wanted("HEDGEROW_ENGINE", variant.name())
                {
                    let seed = seed.wrapping_add(round);
                    cases.push(Case {
                        workload: *workload,
                        variant,
                        seed,
                        only,
                    });
                }
            }
        }
    }
    assert!(!cases.is_empty(), "no such workload");
    let counts = Arc::new(Counts::default());
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(8) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    if let Err(story) = run_case(case, &counts) {
                        failures.lock().expect("no panic").push(story);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(
        failures.is_empty(),
        "{} of {} cases failed\n\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n\n")
    );
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let inside = counts.inside.each_ref().map(read);
    let with_packs = read(&counts.with_packs);
    let is_whole = ["MOMENT", "WORKLOAD", "ENGINE"]
        .iter()
        .all(|name| std::env::var(format!("HEDGEROW_{name}")).is_err());
    assert!(
        with_packs > 100 || !is_whole,
        "{with_packs} images with packs"
    );
    report(format_args!(
        "crash states: {} cases, {} moments, {} states, {} kills, {} failed syncs, {} crashes inside \
         a recovery, {} inside a recovery from that, {with_packs} images with packs",
        cases.len(),
        read(&counts.moments),
        read(&counts.states),
        read(&counts.kills),
        read(&counts.failed_syncs),
        inside[0],
        inside[1],
    ));
    figure("crash images", read(&counts.images));
    figure("crashes inside recovery", inside.iter().sum());
}
