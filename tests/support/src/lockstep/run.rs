//! The store, its models, and the comparison of the two.

use std::path::PathBuf;

use hedgerow::fs::{CrashPolicy, SimFs};
use hedgerow::{
    Batch, Compression, Db, Durability, EngineKind, Keyspace, KeyspaceOptions, MemtableKind, Model,
    ModelSnapshot, Options, Scan, Snapshot,
};

use super::op::{Edit, KEYS, KeyNumber, Map, Move, Op, Target, key};
use crate::random::Source;

/// The compressions that there are in each build.
const COMPRESSIONS: [Compression; 2] = [Compression::Lz4, Compression::None];

/// Draws how the tables of the last level are written, where that is not as the others are.
fn draw_last_level(source: &mut impl Source, lsm: KeyspaceOptions) -> KeyspaceOptions {
    let zstd = *source.pick(&[1, 3, 7]);
    let zstd = Compression::Zstd { level: zstd };
    let lsm = match source.one_in(2) {
        true if zstd.is_available() => lsm.last_level_compression(zstd),
        true => lsm.last_level_compression(*source.pick(&COMPRESSIONS)),
        false => lsm,
    };
    let mut bits = || *source.pick(&[10, 10, 0, 3]);
    lsm.filter_bits_per_key(bits())
        .last_level_filter_bits_per_key(bits())
}

/// Where and how a run happens. Everything in it follows from the source it is drawn from.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Options of the store.
    pub options: Options,
    /// Options of the two keyspaces, in the order of [`EngineKind::ALL`].
    pub keyspaces: [KeyspaceOptions; 2],
    /// Where the store is.
    pub path: PathBuf,
    /// The file system, if it is one that can crash.
    pub mem: Option<SimFs>,
    /// Some of the puts are merges.
    pub merges: bool,
}

impl Setting {
    /// Draws the sizes; the place is the caller's.
    pub fn draw(source: &mut impl Source, path: PathBuf, mem: Option<SimFs>) -> Self {
        let mut options = Options::new()
            .log_segment_bytes(*source.pick(&[64 << 10, 256 << 10]))
            .log_limit_bytes(*source.pick(&[128 << 10, 1 << 20]))
            .cache_bytes(*source.pick(&[0, 16 << 10, 1 << 20]))
            .mmap_reads(source.one_in(2))
            .mmap_log(source.one_in(2))
            .background_threads(*source.pick(&[0, 0, 1, 2]))
            .background_sync_ms(*source.pick(&[0, 1, 1000]))
            .durability(if source.one_in(4) {
                Durability::Sync
            } else {
                Durability::Buffered
            });
        if let Some(mem) = &mem {
            options = options.fs(std::sync::Arc::new(mem.clone()));
        }
        let keyspaces = EngineKind::ALL.map(|engine| {
            let options = KeyspaceOptions::new(engine).write_buffer_bytes(*source.pick(&[
                16 << 10,
                16 << 10,
                64 << 10,
            ]));
            match engine {
                EngineKind::Lsm => options
                    .block_size_bytes(*source.pick(&[256, 512, 4096]))
                    .table_size_bytes(*source.pick(&[16 << 10, 64 << 10]))
                    .compression(*source.pick(&COMPRESSIONS))
                    .memtable(*source.pick(&[MemtableKind::BTree, MemtableKind::SkipList])),
                EngineKind::BTree => {
                    options.page_size_bytes(*source.pick(&[1024, 1024, 2048, 4096]))
                }
            }
        });
        let [lsm, btree] = keyspaces;
        let lsm = draw_last_level(source, lsm);
        let mut threshold = || *source.pick(&[0, 16, 40, 200]);
        let thresholds = [threshold(), threshold()];
        let merges = source.one_in(3);
        let apart = |options: KeyspaceOptions, threshold| match merges {
            true => options.merge_operator("append"),
            false => options.value_threshold_bytes(threshold),
        };
        let keyspaces = [apart(lsm, thresholds[0]), apart(btree, thresholds[1])];
        Self {
            options,
            keyspaces,
            path,
            mem,
            merges,
        }
    }

    /// Empty models of the keyspaces.
    fn models(&self) -> [Model; 2] {
        let model = |options| Model::with_options(&self.options, options);
        let [first, second] = &self.keyspaces;
        [first, second].map(|options| model(options).expect("the options of a keyspace"))
    }

    /// Opens will be on this file system from now on.
    fn boot(&mut self, mem: SimFs) {
        self.options.fs = std::sync::Arc::new(mem.clone());
        self.mem = Some(mem);
    }
}

/// What a run covered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Coverage {
    /// Operations performed.
    pub operations: u64,
    /// Commits acknowledged.
    pub commits: u64,
    /// Power losses, without those during a recovery.
    pub crashes: u64,
    /// Kills of the process.
    pub kills: u64,
    /// Recoveries that failed, and lost power.
    pub interrupted_recoveries: u64,
    /// Times that the store was opened again without a crash.
    pub reopens: u64,
    /// Snapshots that were compared.
    pub snapshot_reads: u64,
    /// Calls of `verify`.
    pub verifications: u64,
}

impl Coverage {
    /// Adds what another run covered.
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.commits += other.commits;
        self.crashes += other.crashes;
        self.kills += other.kills;
        self.interrupted_recoveries += other.interrupted_recoveries;
        self.reopens += other.reopens;
        self.snapshot_reads += other.snapshot_reads;
        self.verifications += other.verifications;
    }
}

/// How a run ends early: what differed.
pub type Outcome<T = ()> = Result<T, String>;

type Commit = Vec<(Target, Edit)>;

/// A store and its models.
#[derive(Debug)]
pub struct Run {
    setting: Setting,
    open: Option<Open>,
    models: [Model; 2],
    /// The commits since `durable`, oldest first.
    history: Vec<Commit>,
    /// The state that a crash cannot take any more.
    durable: [Map; 2],
    /// What was covered so far.
    pub coverage: Coverage,
}

#[derive(Debug)]
struct Open {
    db: Db,
    keyspaces: [Keyspace; 2],
    snapshots: Vec<(Snapshot, [ModelSnapshot; 2])>,
}

const NAMES: [&str; 2] = ["of lsm", "of btree"];
/// Their names while they are made again.
const IN_THE_MAKING: [&str; 2] = ["of lsm, new", "of btree, new"];

/// An error of the store, as the reason why a run ends.
fn failed<T>(what: &str, result: hedgerow::Result<T>) -> Outcome<T> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn agree<T: PartialEq + std::fmt::Debug>(
    what: impl FnOnce() -> String,
    found: &T,
    expected: &T,
) -> Outcome {
    if found == expected {
        return Ok(());
    }
    let mut found = format!("{found:?}");
    let mut expected = format!("{expected:?}");
    for text in [&mut found, &mut expected] {
        if text.len() > 2000 {
            *text = format!(
                "{} ... ({} bytes)",
                String::from_utf8_lossy(&text.as_bytes()[..2000]),
                text.len()
            );
        }
    }
    Err(format!(
        "{}\n  found    {found}\n  expected {expected}",
        what()
    ))
}

impl Run {
    /// Opens a new store.
    pub fn start(setting: Setting) -> Outcome<Self> {
        let mut run = Self {
            models: setting.models(),
            setting,
            open: None,
            history: Vec::new(),
            durable: Default::default(),
            coverage: Coverage::default(),
        };
        run.open()?;
        Ok(run)
    }

    fn open(&mut self) -> Outcome {
        let db = failed(
            "open",
            self.setting.options.clone().open(&self.setting.path),
        )?;
        let [first, second] = &self.setting.keyspaces;
        let keyspaces = [
            failed("keyspace", db.keyspace_with(NAMES[0], first.clone()))?,
            failed("keyspace", db.keyspace_with(NAMES[1], second.clone()))?,
        ];
        self.open = Some(Open {
            db,
            keyspaces,
            snapshots: Vec::new(),
        });
        Ok(())
    }

    fn parts(&mut self) -> (&mut Open, &[Model; 2]) {
        (
            self.open.as_mut().expect("open between steps"),
            &self.models,
        )
    }

    /// A commit was acknowledged.
    fn committed(&mut self, commit: Commit, durability: Durability) {
        self.coverage.commits += 1;
        if self.setting.mem.is_some() {
            self.history.push(commit);
            if durability == Durability::Sync {
                self.all_durable();
            }
        }
    }

    /// Everything committed so far survives any crash.
    fn all_durable(&mut self) {
        for commit in std::mem::take(&mut self.history) {
            apply_to_maps(&mut self.durable, &commit);
        }
    }

    /// Performs one operation and compares. `Err` says what differed.
    pub fn step(&mut self, op: &Op) -> Outcome {
        let merged = self.setting.merges.then(|| op.with_merges());
        let op = merged.as_ref().unwrap_or(op);
        self.coverage.operations += 1;
        let default_durability = self.setting.options.durability;
        let open = self.open.as_mut().expect("open between steps");
        let models = &self.models;
        match op {
            Op::Edit(target, edit) => {
                failed("edit", edit.apply(&open.keyspaces[*target]))?;
                failed("edit of the model", edit.apply(&models[*target]))?;
                // A range delete of an inverted range is no commit, and syncs nothing.
                let mut batch = Batch::new();
                edit.add_to(&mut batch);
                if !batch.is_empty() {
                    self.committed(vec![(*target, *edit)], default_durability);
                }
            }
            Op::Batch(target, edits, durability) => {
                let mut batch = Batch::new();
                edits.iter().for_each(|edit| edit.add_to(&mut batch));
                let counts = !batch.is_empty();
                failed(
                    "batch",
                    open.keyspaces[*target].write_with(batch.clone(), *durability),
                )?;
                failed(
                    "batch of the model",
                    models[*target].write_with(batch, *durability),
                )?;
                // An empty commit need not sync anything.
                if counts {
                    let commit = edits.iter().map(|edit| (*target, *edit)).collect();
                    self.committed(commit, *durability);
                }
            }
            Op::CrossBatch(edits, durability) => {
                let mut batch = open.db.batch();
                for (target, edit) in edits {
                    edit.add_to_store_batch(&mut batch, &open.keyspaces[*target]);
                    failed("edit of the model", edit.apply(&models[*target]))?;
                }
                // Inverted range deletes add nothing; a batch of those only may sync nothing.
                let counts = !batch.is_empty();
                failed("batch over both", open.db.write(batch, *durability))?;
                if counts {
                    self.committed(edits.clone(), *durability);
                }
            }
            Op::Get(target, number) => {
                let (keyspace, model) = (&open.keyspaces[*target], &models[*target]);
                let found = failed("get", keyspace.get(key(*number)))?;
                let expected = failed("get", model.get(key(*number)))?;
                agree(|| format!("get of {:?}", key(*number)), &found, &expected)?;
                let found = failed("contains", keyspace.contains_key(key(*number)))?;
                agree(|| "contains".into(), &found, &expected.is_some())?;
            }
            Op::MultiGet(target, numbers) => {
                let keys: Vec<_> = numbers.iter().map(|number| key(*number)).collect();
                let found = failed("multi_get", open.keyspaces[*target].multi_get(&keys))?;
                let expected = failed("multi_get", models[*target].multi_get(&keys))?;
                agree(|| "multi_get".into(), &found, &expected)?;
            }
            Op::Scan(target, bounds, moves) => {
                let found = open.keyspaces[*target].range(bounds.keys());
                let expected = models[*target].range(bounds.keys());
                walk_together(found, expected, moves)?;
            }
            Op::Prefix(target, number, cut) => {
                let mut prefix = key(*number);
                prefix.truncate(prefix.len().saturating_sub(usize::from(*cut)).max(1));
                let moves = [Move::Front(20), Move::Back(20)];
                let found = open.keyspaces[*target].prefix(&prefix);
                walk_together(found, models[*target].prefix(&prefix), &moves)?;
            }
            Op::TakeSnapshot => {
                if open.snapshots.len() >= 4 {
                    open.snapshots.remove(0);
                }
                let models = [models[0].snapshot(), models[1].snapshot()];
                open.snapshots.push((open.db.snapshot(), models));
            }
            Op::ReadSnapshot(which, target, bounds) => {
                if let Some((snapshot, models)) = pick(&open.snapshots, *which) {
                    let found = snapshot.range(&open.keyspaces[*target], bounds.keys());
                    let expected = models[*target].range(bounds.keys());
                    walk_together(found, expected, &[Move::Front(30), Move::Back(30)])?;
                    for number in (0..KEYS as KeyNumber).step_by(97) {
                        let found = snapshot.get(&open.keyspaces[*target], key(number));
                        let expected = failed("get", models[*target].get(key(number)))?;
                        let found = failed("get in a snapshot", found)?;
                        agree(|| format!("snapshot: {number}"), &found, &expected)?;
                    }
                    self.coverage.snapshot_reads += 1;
                }
            }
            Op::DropSnapshot(which) => {
                if !open.snapshots.is_empty() {
                    let at = which % open.snapshots.len();
                    open.snapshots.swap_remove(at);
                }
            }
            Op::Flush(target) => {
                failed("flush", open.keyspaces[*target].flush())?;
            }
            Op::FlushAll => {
                failed("flush", open.db.flush())?;
                self.all_durable();
            }
            Op::Sync => {
                failed("sync", open.db.sync())?;
                self.all_durable();
            }
            Op::Compact(target) => {
                failed("compact", open.keyspaces[*target].compact())?;
                self.compare_all()?;
            }
            Op::Background(steps) => {
                for _ in 0..*steps {
                    if !failed("background work", open.db.run_background_once())? {
                        break;
                    }
                }
            }
            Op::Verify => {
                let report = failed("verify", open.db.verify())?;
                agree(|| "verify".into(), &report.problems, &Vec::new())?;
                self.coverage.verifications += 1;
            }
            Op::CompareAll => self.compare_all()?,
            Op::Recreate(target) => {
                failed("sync", open.db.sync())?;
                open.snapshots.clear();
                failed("drop", open.db.drop_keyspace(NAMES[*target]))?;
                let options = self.setting.keyspaces[*target].clone();
                // A crash may have left one of this name.
                let name = IN_THE_MAKING[*target];
                let keyspace = failed("recreate", open.db.keyspace_with(name, options))?;
                let renamed = open.db.rename_keyspace(name, NAMES[*target]);
                failed("rename", renamed)?;
                open.keyspaces[*target] = keyspace;
                failed("clear", models[*target].delete_range(..))?;
                self.committed(vec![(*target, Edit::DELETE_ALL)], Durability::Sync);
            }
            Op::Reopen => {
                let open = self.open.take().expect("open between steps");
                failed("close", open.db.close())?;
                drop(open);
                self.all_durable();
                self.reopened()?;
            }
            Op::Abandon => {
                self.open = None;
                self.reopened()?;
            }
            Op::Crash(recoveries) => self.crash(SimFs::crash, recoveries)?,
            Op::CrashKeeping(seed, recoveries) => {
                self.crash(|fs| fs.crash_keeping(*seed), recoveries)?;
            }
            Op::CrashState(seed, recoveries) => {
                let policy = CrashPolicy::new().seed(*seed);
                let state = |fs: &SimFs| {
                    let states = fs.crash_states(&policy);
                    states.state(*seed as usize % states.len()).fs
                };
                self.crash(state, recoveries)?;
            }
            Op::Kill => self.kill()?,
        }
        Ok(())
    }

    /// Compares everything a last time.
    pub fn finish(mut self) -> Outcome<Coverage> {
        self.step(&Op::CompareAll)?;
        self.step(&Op::Verify)?;
        self.step(&Op::Reopen)?;
        self.step(&Op::Verify)?;
        Ok(self.coverage)
    }

    fn reopened(&mut self) -> Outcome {
        self.coverage.reopens += 1;
        self.open()?;
        self.compare_all()
    }

    /// Everything in both keyspaces.
    fn contents(&mut self) -> Outcome<[Map; 2]> {
        let (open, _) = self.parts();
        let mut found = [Map::new(), Map::new()];
        for (keyspace, map) in open.keyspaces.iter().zip(&mut found) {
            for item in keyspace.iter() {
                let (key, value) = failed("read after a crash", item)?;
                map.insert(key.to_vec(), value.to_vec());
            }
        }
        Ok(found)
    }

    fn compare_all(&mut self) -> Outcome {
        let (open, models) = self.parts();
        for (keyspace, model) in open.keyspaces.iter().zip(models) {
            let moves = [Move::Front(u8::MAX); 5];
            walk_together(keyspace.iter(), model.iter(), &moves)?;
        }
        Ok(())
    }

    /// Kills the process. Everything acknowledged is there for the next one, and once that has
    /// opened the store, a power loss cannot take it either.
    fn kill(&mut self) -> Outcome {
        let Some(mem) = &self.setting.mem else {
            return Ok(());
        };
        let image = mem.killed();
        self.open = None;
        self.coverage.kills += 1;
        self.setting.boot(image.clone());
        self.open()?;
        self.compare_all()?;
        let again = image.crash();
        self.open = None;
        self.setting.boot(again);
        self.all_durable();
        self.reopened()
    }

    /// Crashes, interrupts recoveries, and finds out what is left.
    fn crash(&mut self, crash: impl FnOnce(&SimFs) -> SimFs, recoveries: &[u64]) -> Outcome {
        let Some(mem) = &self.setting.mem else {
            return Ok(());
        };
        // The power fails while the store is open; what it does from then on is lost on it.
        let mut image = crash(mem);
        self.open = None;
        self.coverage.crashes += 1;
        for after in recoveries {
            // The recovery is cut short by an error, and the power fails once more.
            image.fail_after(*after, std::io::ErrorKind::Other);
            self.setting.boot(image.clone());
            if self.open().is_err() {
                self.coverage.interrupted_recoveries += 1;
            }
            self.open = None;
            image = image.crash_keeping(*after);
        }
        self.setting.boot(image.clone());
        self.open()?;
        let found = self.contents()?;

        // What a recovered store has shown cannot be lost to the next power loss.
        let again = image.crash();
        self.open = None;
        self.setting.boot(again);
        self.open()?;
        if self.contents()? != found {
            return Err("what was there after a crash is not there after a second one".into());
        }
        let mut state = std::mem::take(&mut self.durable);
        let history = std::mem::take(&mut self.history);
        let mut commits = history.iter();
        while state != found {
            let Some(commit) = commits.next() else {
                return Err(not_a_prefix(&state, &found, history.len()));
            };
            apply_to_maps(&mut state, commit);
        }
        self.durable = state;
        self.models = self.setting.models();
        for (model, map) in self.models.iter().zip(&found) {
            let mut batch = Batch::new();
            for (key, value) in map {
                batch.put(key, value);
            }
            failed(
                "refill the model",
                model.write_with(batch, Durability::Sync),
            )?;
        }
        self.step(&Op::Verify)
    }
}

fn pick<T>(items: &[T], which: usize) -> Option<&T> {
    (!items.is_empty()).then(|| &items[which % items.len()])
}

/// Says how the state after a crash differs from the state after the last commit.
fn not_a_prefix(expected: &[Map; 2], found: &[Map; 2], undurable: usize) -> String {
    let mut text = format!(
        "after a crash the store is not the state after a prefix of the {undurable} commits \
         since the last durable one; differences from the state after all of them:"
    );
    for at in 0..2 {
        for (key, value) in &expected[at] {
            if found[at].get(key) != Some(value) {
                let state = if found[at].contains_key(key) {
                    "different"
                } else {
                    "missing"
                };
                text += &format!(
                    "\n  {}: {:?} is {state}",
                    NAMES[at],
                    &key[..key.len().min(60)]
                );
            }
        }
        for key in found[at]
            .keys()
            .filter(|key| !expected[at].contains_key(*key))
        {
            text += &format!(
                "\n  {}: {:?} is extra",
                NAMES[at],
                &key[..key.len().min(60)]
            );
        }
    }
    text.truncate(
        text.char_indices()
            .nth(4000)
            .map_or(text.len(), |(at, _)| at),
    );
    text
}

/// Moves two scans alike and compares what they yield.
fn walk_together(mut found: Scan, mut expected: Scan, moves: &[Move]) -> Outcome {
    for step in moves {
        match *step {
            Move::Front(count) => {
                for _ in 0..count {
                    let item = failed("scan", found.next().transpose())?;
                    let wanted = failed("scan of the model", expected.next().transpose())?;
                    agree(|| "next of a scan".into(), &item, &wanted)?;
                    if wanted.is_none() {
                        break;
                    }
                }
            }
            Move::Back(count) => {
                for _ in 0..count {
                    let item = failed("scan", found.next_back().transpose())?;
                    let wanted = failed("scan of the model", expected.next_back().transpose())?;
                    agree(|| "next_back of a scan".into(), &item, &wanted)?;
                    if wanted.is_none() {
                        break;
                    }
                }
            }
            Move::Keys(count) => {
                for _ in 0..count {
                    let item = failed("scan", found.next_key())?;
                    let wanted = failed("scan of the model", expected.next_key())?;
                    agree(|| "next_key of a scan".into(), &item, &wanted)?;
                    if wanted.is_none() {
                        break;
                    }
                }
            }
            Move::Seek(number) => {
                found.seek(key(number));
                expected.seek(key(number));
            }
        }
    }
    Ok(())
}

fn apply_to_maps(maps: &mut [Map; 2], commit: &Commit) {
    for (target, edit) in commit {
        edit.apply_to_map(&mut maps[*target]);
    }
}
