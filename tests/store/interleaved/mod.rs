//! Several writers, readers and background threads at once, and the power fails at any moment.
//!
//! A store with background threads lives on the simulated disk, with memory maps or without, with a
//! few keyspaces or with hundreds. [`actors`] use it at once: they write, read, flush, compact,
//! verify, make and drop keyspaces, and one closes the store while the others go on. Every call of
//! the file system is a place where a thread stands still until the [`scheduler`] lets it go on, so
//! that any of them may stop there for long while the others get far: in the middle of a flush, of
//! a checkpoint, of a compaction, of deleting the log, of a commit that holds its lock.
//!
//! Before changes of the file system, wherever the other threads stand just then, states are taken
//! that a power loss or a kill may leave. When all have ended, the order of commits is known
//! ([`history`]), and each image is recovered and held against it: a prefix of the order, with
//! everything that was acknowledged as durable before the image was taken and nothing that began
//! after; each batch whole; keyspaces there that were made and gone that were dropped. What the
//! readers saw is held against the same order. Scans that were left behind outlive the handles and
//! the store: the directory stays locked for as long, and they read what they began with.
//!
//! A store lives through several eras: the next one begins with what the closed store left, or with
//! one of the images.
//!
//! What a seed repeats: the options, what each actor does, who is picked of those that wait for
//! their turn, which states of a moment are taken. What it does not: where threads meet at locks of
//! the store or sleep until there is work, time decides who goes on; so a failure also keeps the
//! image that failed, and tells the last steps before it.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hedgerow::fs::{CrashPolicy, Fs as _, OpenMode, Operation, SimFs, StdFs};
use hedgerow::{Db, EngineKind, Options};
use support::image::Image;
use support::random::{Random, Source};
use support::rig::{effort, figure, from_env, report};
use support::sizes::{Sizes, keyspace_options, single_threaded, tiny};

use crate::crash_states::{STORE, check_files, verify, write_on};

use actors::{Part, Read, Stage, play};
use history::{Between, Contents, Found, History, Order, digest_of_scan, digests_of};
use scheduler::{Pausing, Scheduler};

mod actors;
mod held;
mod history;
mod scheduler;

/// Cases of the ordinary run, and for each unit of effort of a long one.
const CASES: u64 = 24;
const CASES_PER_EFFORT: u64 = 130;
/// One in so many cases has many keyspaces, in the ordinary run and in a long one.
const MANY_EVERY: [u64; 2] = [24, 400];
/// So many of them.
const MANY: [u64; 2] = [150, 1000];
const ERAS: usize = 3;
/// Cases about closing, in the ordinary run and for each unit of effort, and eras of each.
const CLOSING_CASES: u64 = 10;
const CLOSING_CASES_PER_EFFORT: u64 = 210;
const CLOSING_ERAS: usize = 10;
/// Images of an era, and of one with many keyspaces.
const IMAGES: [usize; 2] = [60, 6];

/// Figures of all cases.
#[derive(Default)]
struct Counts {
    moments: AtomicU64,
    images: AtomicU64,
    kills: AtomicU64,
    commits: AtomicU64,
    reads: AtomicU64,
    left: AtomicU64,
    closings: AtomicU64,
    most_keyspaces: AtomicU64,
}

fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// A file system as a crash left it, and what is right for it.
struct Taken {
    fs: SimFs,
    between: Between,
    is_kill: bool,
    step: usize,
}

/// Takes images at the changes of an era.
struct Taker {
    history: Arc<History>,
    scheduler: Arc<Scheduler>,
    inner: Mutex<Inner>,
}

struct Inner {
    random: Random,
    one_in: u64,
    max: usize,
    known: HashSet<u64>,
    taken: Vec<Taken>,
    steps: Vec<(String, &'static str, PathBuf)>,
}

impl Taker {
    fn moment(&self, fs: &SimFs, operation: &Operation<'_>) {
        self.scheduler.pause();
        let mut inner = self.inner.lock().expect("no panic");
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("actor").to_owned();
        let step = (name, operation.op, operation.path.to_path_buf());
        inner.steps.push(step);
        let one_in = inner.one_in;
        if inner.taken.len() >= inner.max || !inner.random.one_in(one_in) {
            return;
        }
        let step = inner.steps.len();
        if inner.random.one_in(8) {
            let before = self.history.mark_visible();
            let fs = fs.killed();
            let between = Between(before, self.history.mark_visible());
            inner.taken.push(Taken {
                fs,
                between,
                is_kill: true,
                step,
            });
            return;
        }
        let policy = CrashPolicy::new()
            .exhaustive_max(12)
            .each_max(3)
            .random(4)
            .seed(inner.random.bits());
        let before = self.history.mark_durable();
        let states = fs.crash_states(&policy);
        let between = Between(before, self.history.mark_durable());
        for _ in 0..3 {
            let number = inner.random.below(states.len() as u64) as usize;
            let state = states.state(number);
            if inner.known.insert(state.hash) {
                let fs = state.fs;
                inner.taken.push(Taken {
                    fs,
                    between,
                    is_kill: false,
                    step,
                });
            }
        }
    }
}

fn draw_options(random: &mut Random) -> Options {
    let mut options = tiny(Options::new())
        .background_threads(*random.pick(&[1, 2, 2, 3]))
        .background_sync_ms(*random.pick(&[0, 1, 1000]))
        .cache_bytes(*random.pick(&[0, 16 << 10, 1 << 20]))
        .mmap_reads(!random.one_in(3))
        .mmap_log(!random.one_in(3));
    if random.one_in(2) {
        options = options.log_limit_bytes(128 << 10);
    }
    options
}

struct Case {
    seed: u64,
    /// So many keyspaces, if many.
    many: Option<u64>,
    /// Of which the closing is what matters: many short eras without images.
    is_closing: bool,
    counts: Arc<Counts>,
}

impl Case {
    fn run(&self) -> Result<(), String> {
        let mut random = Random::new(self.seed);
        let has_maps = random.one_in(2);
        let mut fs = if has_maps {
            SimFs::with_maps()
        } else {
            SimFs::new()
        };
        let count = self.many.unwrap_or_else(|| 2 + random.below(3));
        let mut contents = Contents::new();
        let options = draw_options(&mut random).fs(Arc::new(fs.clone()));
        let db = options.open(STORE).map_err(|e| format!("open: {e}"))?;
        for n in 0..count {
            let engine = EngineKind::ALL[n as usize % 2];
            let name = format!("stays {n}");
            db.keyspace_with(&name, keyspace_options(engine, Sizes::Tiny))
                .map_err(|e| format!("keyspace {n}: {e}"))?;
            contents.insert(name, BTreeMap::new());
        }
        db.close().map_err(|e| format!("close: {e}"))?;
        drop(db);
        self.counts
            .most_keyspaces
            .fetch_max(count, Ordering::Relaxed);
        for era in 0..if self.is_closing { CLOSING_ERAS } else { ERAS } {
            let seed = random.bits();
            (fs, contents) = self
                .era(era, fs, contents, seed)
                .map_err(|story| format!("in era {era}: {story}"))?;
        }
        Ok(())
    }

    /// Opens the store and has it used until it is closed, or until all have done their share.
    /// Returns where the next era begins.
    fn era(
        &self,
        era: usize,
        fs: SimFs,
        contents: Contents,
        seed: u64,
    ) -> Result<(SimFs, Contents), String> {
        let mut random = Random::new(seed);
        let scheduler = Scheduler::new(random.bits());
        let history = Arc::new(History::new(contents.clone()));
        let taker = Arc::new(Taker {
            history: Arc::clone(&history),
            scheduler: Arc::clone(&scheduler),
            inner: Mutex::new(Inner {
                random: Random::new(random.bits()),
                one_in: if self.many.is_some() { 60 } else { 10 },
                max: match self.is_closing {
                    true => 0,
                    false => IMAGES[usize::from(self.many.is_some())],
                },
                known: HashSet::new(),
                taken: Vec::new(),
                steps: Vec::new(),
            }),
        });
        let pausing = Pausing {
            fs: fs.clone(),
            scheduler: Arc::clone(&scheduler),
        };
        let options = draw_options(&mut random).fs(Arc::new(pausing));
        let hook = Arc::clone(&taker);
        fs.on_change(move |fs, operation| hook.moment(fs, operation));
        let used = self.use_store(era, &options, &history, &scheduler, &mut random);
        // Breaks the circle of owners, too.
        scheduler.end();
        fs.clear_hook();
        let Ok(taker) = Arc::try_unwrap(taker) else {
            return Err("a thread of the store runs on".into());
        };
        drop(taker.history);
        let inner = taker.inner.into_inner().expect("no panic");
        let reads = used.map_err(|story| format!("{story}{}", told_steps(&inner.steps)))?;
        let Ok(history) = Arc::try_unwrap(history) else {
            return Err("an actor runs on".into());
        };
        let end = Between(history.mark_visible(), history.mark_visible());
        let order = history.complete();
        count(&self.counts.moments, inner.steps.len());
        count(&self.counts.commits, order.len());
        count(&self.counts.reads, reads.len());
        for read in &reads {
            let checked = match read {
                Read::One(name, digest, between) => order.check_one(name, *digest, between),
                Read::Several(found, between) => order.check_part(found, between),
            };
            checked.map_err(|story| format!("a read is wrong: {story}"))?;
        }
        let mut next = None;
        let chosen = random.below(2 * inner.taken.len() as u64 + 1) as usize;
        for (at, taken) in inner.taken.iter().enumerate() {
            let untouched = taken.fs.killed();
            let found = self
                .recover(&taken.fs, &order, &taken.between, &mut random)
                .map_err(|story| self.keep(&untouched, taken, &inner.steps, &story))?;
            if at == chosen {
                next = Some((untouched, found));
            }
            let counter = if taken.is_kill {
                &self.counts.kills
            } else {
                &self.counts.images
            };
            count(counter, 1);
        }
        let place = match next {
            Some(image) => image,
            None => {
                let fs = fs.killed();
                let found = self.recover(&fs.killed(), &order, &end, &mut random)?;
                (fs, found)
            }
        };
        let (fs, (found, after)) = place;
        // What a killed process left is in the cache only, in part. A power loss before the next
        // opening has made it durable could take that back, and the next era knows no older state.
        sync_all(&fs, Path::new("/")).map_err(|e| format!("syncing what a kill left: {e}"))?;
        Ok((fs, order.contents(after, &found)))
    }

    /// Who uses the store.
    fn parts(&self, random: &mut Random) -> Vec<Part> {
        let mut parts = vec![Part::Writer, Part::Writer, Part::Tidier];
        let others = [Part::Maker, Part::Tidier, Part::Writer, Part::Reader];
        parts.push(*random.pick(&others));
        if self.is_closing {
            parts.push(Part::Reopener);
            return parts;
        }
        parts.extend([Part::Writer, Part::Reader]);
        if random.one_in(2) {
            parts.push(Part::Maker);
        }
        if !random.one_in(4) {
            parts.push(Part::Closer);
        }
        parts
    }

    /// Has the actors use the store, then drops it.
    fn use_store(
        &self,
        era: usize,
        options: &Options,
        history: &Arc<History>,
        scheduler: &Arc<Scheduler>,
        random: &mut Random,
    ) -> Result<Vec<Read>, String> {
        let db = options
            .clone()
            .open(STORE)
            .map_err(|e| format!("open: {e}"))?;
        let mut keyspaces = Vec::new();
        for info in db.keyspaces() {
            let opened = db
                .existing_keyspace(&info.name)
                .map_err(|e| e.to_string())?;
            keyspaces.push(opened.expect("it is listed"));
        }
        let stage = Stage {
            db: db.clone(),
            options: options.clone(),
            history: Arc::clone(history),
            scheduler: Arc::clone(scheduler),
            keyspaces,
            passing: Mutex::default(),
            reads: Mutex::default(),
            left: Mutex::default(),
            playing: AtomicU64::new(0),
            closings: AtomicU64::new(0),
            era,
        };
        let parts = self.parts(random);
        let failures = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for (number, part) in parts.iter().enumerate() {
                let (stage, failures) = (&stage, &failures);
                let seed = random.bits();
                let thread = std::thread::Builder::new().name(format!("{part:?} {number}"));
                let body = move || {
                    let played =
                        catch_unwind(AssertUnwindSafe(|| play(stage, *part, number, seed)));
                    let story = match played {
                        Ok(Ok(())) => return,
                        Ok(Err(error)) => format!("{part:?} {number}: {error:#}"),
                        Err(panic) => format!("{part:?} {number}: {}", told(&*panic)),
                    };
                    stage.scheduler.leave();
                    failures.lock().expect("no panic").push(story);
                };
                thread.spawn_scoped(scope, body).expect("a thread");
            }
        });
        let failures = failures.into_inner().expect("no panic");
        if !failures.is_empty() {
            return Err(failures.join("\n"));
        }
        let Stage {
            reads,
            left,
            closings,
            ..
        } = stage;
        let closings = closings.into_inner();
        self.counts.closings.fetch_add(closings, Ordering::Relaxed);
        let mut reads = reads.into_inner().expect("no panic");
        let left = left.into_inner().expect("no panic");
        // Closed, or dropped: that closes it as well.
        if random.one_in(2) {
            db.close().map_err(|e| format!("close: {e}"))?;
        }
        drop(db);
        if !left.is_empty() {
            let opened = options.clone().open(STORE);
            let is_locked = opened.is_err_and(|error| error.is_locked());
            if !is_locked {
                return Err("a scan lives and the directory is not locked".into());
            }
        }
        count(&self.counts.left, left.len());
        for (name, between, scan) in left {
            let digest = digest_of_scan(scan).map_err(|e| format!("a scan left behind: {e}"))?;
            reads.push(Read::One(name, digest, between));
        }
        Ok(reads)
    }

    /// Opens a store that crashed, and says what it holds and after how many commits that was.
    fn recover(
        &self,
        fs: &SimFs,
        order: &Order,
        between: &Between,
        random: &mut Random,
    ) -> Result<(Found, usize), String> {
        let mut recovered = || -> Result<(Found, usize), String> {
            let options = || single_threaded(Arc::new(fs.clone())).log_limit_bytes(128 << 10);
            let db = options()
                .open(STORE)
                .map_err(|e| format!("the recovery fails: {e:#}"))?;
            let read = |db: &Db| digests_of(db).map_err(|e| format!("reading fails: {e:#}"));
            let found = read(&db)?;
            let after = order
                .check(&found, between)
                .map_err(|story| format!("{story}{}", order.explain(&db, &found, between)))?;
            check_files(fs, &db)?;
            verify(&db)?;
            if random.one_in(8) {
                write_on(&db).map_err(|e| format!("the store is not writable: {e:#}"))?;
                let before = read(&db)?;
                let image = fs.crash();
                drop(db);
                let again = single_threaded(Arc::new(image));
                let again = again
                    .open(STORE)
                    .map_err(|e| format!("the second recovery: {e:#}"))?;
                if read(&again)? != before {
                    return Err("what was written after the recovery is lost".into());
                }
            }
            Ok((found, after))
        };
        catch_unwind(AssertUnwindSafe(&mut recovered)).unwrap_or_else(|panic| Err(told(&*panic)))
    }

    /// Keeps an image that failed, and tells where.
    fn keep(
        &self,
        image: &SimFs,
        taken: &Taken,
        steps: &[(String, &'static str, PathBuf)],
        story: &str,
    ) -> String {
        let dir = std::env::temp_dir().join(format!("hedgerow-image-{:x}", self.seed));
        let _ = std::fs::remove_dir_all(&dir);
        Image::of(image, Path::new(STORE)).write(&StdFs::new(), &dir);
        let how = if taken.is_kill {
            "a kill"
        } else {
            "a power loss"
        };
        let steps = told_steps(&steps[..taken.step]);
        format!(
            "{how}: {story}{steps}\nthe image is kept in {}",
            dir.display()
        )
    }
}

fn told_steps(steps: &[(String, &'static str, PathBuf)]) -> String {
    let last = &steps[steps.len().saturating_sub(40)..];
    let lines = last
        .iter()
        .map(|(thread, op, path)| format!("\n    {thread}: {op} {}", path.display()));
    format!("\n  the last steps before:{}", lines.collect::<String>())
}

fn told(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("no message"))
}

/// A case waits more than it works: for threads that wait for one another.
const CASES_AT_ONCE: usize = 8;

/// Runs cases, several at once, until one fails.
fn run_cases(usual: [u64; 2], case_of: impl Fn(u64) -> Case + Sync) -> u64 {
    let first = from_env("HEDGEROW_SEED").unwrap_or(0x17_1EA5);
    let usual = match effort() {
        1 => usual[0],
        effort => effort * usual[1],
    };
    let cases = from_env("HEDGEROW_CASES").unwrap_or(usual);
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..CASES_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let case = next.fetch_add(1, Ordering::Relaxed);
                    if case >= cases || !failures.lock().expect("no panic").is_empty() {
                        return;
                    }
                    let seed = first.wrapping_add(case);
                    if let Err(story) = case_of(seed).run() {
                        let story = format!(
                            "seed {seed:#x}, {story}\n\nrepeat with: HEDGEROW_SEED={seed:#x} \
                             HEDGEROW_CASES=1 cargo test --test store interleaved"
                        );
                        failures.lock().expect("no panic").push(story);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    cases
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[test]
fn every_state_beside_running_threads_is_recovered() {
    let is_long = usize::from(effort() > 1);
    let counts = Arc::new(Counts::default());
    let cases = run_cases([CASES, CASES_PER_EFFORT], |seed| Case {
        seed,
        many: seed
            .is_multiple_of(MANY_EVERY[is_long])
            .then_some(MANY[is_long]),
        is_closing: false,
        counts: Arc::clone(&counts),
    });
    report(format_args!(
        "interleaved: {cases} cases, {} changes of the file system, {} commits, {} reads, of which \
         {} scans outlived the store, {} kills",
        read(&counts.moments),
        read(&counts.commits),
        read(&counts.reads),
        read(&counts.left),
        read(&counts.kills),
    ));
    figure("crash images with threads", read(&counts.images));
    figure("closings beside running calls", read(&counts.closings));
    figure("keyspaces in one store", read(&counts.most_keyspaces));
}

/// A store is closed in the middle of everything, and opened again while the calls of others still
/// find out: nothing that was acknowledged before or after is lost.
#[test]
fn a_store_that_is_closed_and_opened_beside_running_calls_loses_nothing() {
    let counts = Arc::new(Counts::default());
    run_cases([CLOSING_CASES, CLOSING_CASES_PER_EFFORT], |seed| Case {
        seed,
        many: None,
        is_closing: true,
        counts: Arc::clone(&counts),
    });
    figure("closings beside running calls", read(&counts.closings));
}

/// Makes everything in `dir` durable.
fn sync_all(fs: &SimFs, dir: &Path) -> hedgerow::Result<()> {
    for name in fs.read_dir(dir)? {
        let path = dir.join(name);
        // Only a directory can be listed.
        if fs.read_dir(&path).is_ok() {
            sync_all(fs, &path)?;
        } else {
            fs.open(&path, OpenMode::ReadWrite)?.sync_data()?;
        }
    }
    fs.sync_dir(dir)
}
