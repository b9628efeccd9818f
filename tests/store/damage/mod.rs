//! Damaged and foreign files. Whatever happens to the bytes of a closed store, reading gives the
//! right data or an error: never wrong data, never a panic. What reading trips over, `verify`
//! reports.

mod bits;
mod older_pages;
mod stale;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hedgerow::fs::{Fs, SimFs, StdFs};
use hedgerow::{Db, Durability, EngineKind, Error, Keyspace, KeyspaceOptions};
use support::image::Image;
use support::random::{Random, Source};
use support::repair;
use support::rig::{Place, Rig, Sizes, from_env, report};
use support::sizes::{single_threaded, tiny};

type State = [BTreeMap<Vec<u8>, Vec<u8>>; 2];

/// A closed store, and every state that a prefix of its commits has.
struct Sample {
    image: Image,
    /// The state after each commit; the last one is what an intact store holds.
    states: Vec<State>,
}

/// What a sample is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Files of every kind, part of the data only in the log.
    Mixed,
    /// A long manifest.
    ManyFlushes,
    /// A long catalogue.
    ManyKeyspaces,
    /// A log whose first segments have been deleted.
    ShortLog,
    /// An LSM tree whose values lie in segments that have left the log.
    ValueFiles,
}

/// A store of both engines with files of every kind, part of its data only in the log.
fn sample(seed: u64) -> Sample {
    shaped(seed, Shape::Mixed)
}

/// A store for a sample, and a keyspace of each engine. Every commit is synced, and thereby witness
/// that the one before it was durable.
fn sample_rig() -> (Rig, [Keyspace; 2]) {
    let mut rig = Rig::new(Place::Memory, Sizes::Tiny).with(|options| {
        options
            .background_threads(0)
            .background_sync_ms(0)
            .durability(Durability::Sync)
    });
    let keyspaces = EngineKind::ALL.map(|engine| rig.keyspace(engine.name(), engine));
    (rig, keyspaces)
}

/// The sample that a store, closed by this, has become.
fn sample_of(mut rig: Rig, keyspaces: [Keyspace; 2], states: Vec<State>) -> Sample {
    rig.db().sync().unwrap();
    drop(keyspaces);
    rig.abandon();
    let image = Image::of(&**rig.fs(), rig.path());
    Sample { image, states }
}

fn shaped(seed: u64, shape: Shape) -> Sample {
    let (mut rig, keyspaces) = sample_rig();
    if shape == Shape::ValueFiles {
        for engine in EngineKind::ALL {
            let options = KeyspaceOptions::new(engine).value_threshold_bytes(16);
            rig.db().keyspace_with(engine.name(), options).unwrap();
        }
    }
    if shape == Shape::ManyKeyspaces {
        for n in 0..9 {
            let name = format!("{n}{}", "name".repeat(60));
            rig.keyspace(&name, EngineKind::ALL[n % 2]);
        }
    }
    let mut random = Random::new(seed);
    let mut state = State::default();
    let mut states = vec![state.clone()];
    for n in 0..260u32 {
        let at = random.below(2) as usize;
        let key = (random.below(200) as u32).to_be_bytes().to_vec();
        if random.one_in(8) {
            keyspaces[at].delete(&key).unwrap();
            state[at].remove(&key);
        } else if random.one_in(40) {
            let mut end = key.clone();
            end[3] = end[3].saturating_add(9);
            keyspaces[at].delete_range(&key[..]..&end[..]).unwrap();
            state[at].retain(|at, _| !(key <= *at && *at < end));
        } else {
            let len = if random.one_in(40) {
                2500
            } else {
                random.below(120) as usize
            };
            let value = random.bytes(len);
            keyspaces[at].put(&key, &value).unwrap();
            state[at].insert(key, value);
        }
        states.push(state.clone());
        if n % 100 == 99 {
            rig.db().flush().unwrap();
            keyspaces[0].compact().unwrap();
        }
        if shape == Shape::ManyFlushes && n > 100 && n % 5 == 0 {
            keyspaces[0].flush().unwrap();
        }
        if shape == Shape::ShortLog && n < 230 {
            fill_log(&mut rig, &keyspaces[n as usize % 2]);
        }
        if shape == Shape::ValueFiles && n % 20 == 0 && n < 230 {
            fill_log(&mut rig, &keyspaces[1]);
        }
        if n == 230 {
            rig.db().flush().unwrap();
        }
    }
    if shape == Shape::ShortLog {
        let first = rig.path().join("wal/0000000000000001.log");
        assert!(!rig.fs().exists(&first).unwrap(), "segments were deleted");
    }
    sample_of(rig, keyspaces, states)
}

/// A record that fills most of a log segment, and leaves nothing behind.
fn fill_log(rig: &mut Rig, keyspace: &Keyspace) {
    keyspace.put(b"filler", vec![0; 30_000]).unwrap();
    keyspace.delete(b"filler").unwrap();
    rig.db().wait_idle().unwrap();
}

/// What became of a damaged store.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It opened, and everything was right.
    Right,
    /// It did not open, and this file was named.
    Refused(PathBuf),
    /// It opened, and a read reported an error.
    Reported,
}

/// Reads everything in every way and compares.
fn examine(db: &Db, sample: &Sample) -> Result<Fate, String> {
    let mut found = State::default();
    let mut failed = false;
    for (engine, map) in EngineKind::ALL.iter().zip(&mut found) {
        let keyspace = match db.existing_keyspace(engine.name()) {
            Ok(Some(keyspace)) => keyspace,
            Ok(None) => return Err(format!("keyspace {engine} is missing without an error")),
            Err(error) => return Ok(Fate::Refused(blamed(&error))),
        };
        let mut forward = Vec::new();
        for item in keyspace.iter() {
            match item {
                Ok((key, value)) => forward.push((key.to_vec(), value.to_vec())),
                Err(_) => failed = true,
            }
        }
        let mut backward = Vec::new();
        for item in keyspace.iter().rev() {
            match item {
                Ok((key, value)) => backward.push((key.to_vec(), value.to_vec())),
                Err(_) => failed = true,
            }
        }
        backward.reverse();
        if !failed && forward != backward {
            return Err(format!("{engine}: the scans differ"));
        }
        // What a scan saw before it failed, and every lookup, must be right as well.
        for (key, value) in forward.iter().chain(&backward) {
            if !is_some_value(sample, *engine, key, value) {
                return Err(format!(
                    "{engine}: a scan yields a value that was never put"
                ));
            }
        }
        for n in 0..200u32 {
            match keyspace.get(n.to_be_bytes()) {
                Err(_) => failed = true,
                Ok(Some(value)) => {
                    if !is_some_value(sample, *engine, &n.to_be_bytes(), &value) {
                        return Err(format!("{engine}: get yields a value that was never put"));
                    }
                }
                Ok(None) => {}
            }
        }
        *map = forward.into_iter().collect();
        if !failed {
            for n in 0..200u32 {
                let got = keyspace
                    .get(n.to_be_bytes())
                    .map_err(|error| error.to_string())?;
                if got.as_deref() != map.get(&n.to_be_bytes()[..]).map(Vec::as_slice) {
                    return Err(format!("{engine}: get and scan differ at {n}"));
                }
            }
        }
    }
    if failed {
        return Ok(Fate::Reported);
    }
    match sample.states.iter().rev().position(|state| *state == found) {
        Some(0) => Ok(Fate::Right),
        Some(fewer) => Err(format!("{fewer} commits are missing")),
        None => Err("the store holds what it never held".into()),
    }
}

/// The file that an error names.
fn blamed(error: &Error) -> PathBuf {
    match error {
        Error::Corruption { file, .. } | Error::UnsupportedFormat { file, .. } => file.clone(),
        _ => PathBuf::new(),
    }
}

fn is_some_value(sample: &Sample, engine: EngineKind, key: &[u8], value: &[u8]) -> bool {
    let at = EngineKind::ALL
        .iter()
        .position(|other| *other == engine)
        .expect("an engine");
    sample
        .states
        .iter()
        .any(|state| state[at].get(key).is_some_and(|other| other == value))
}

/// Opens the damaged image, reads everything, verifies. `Err` says which law was broken.
fn suffer(sample: &Sample, image: &Image, fs: Arc<dyn Fs>, root: &Path) -> Result<Fate, String> {
    image.write(&*fs, root);
    let options = single_threaded(fs);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let db = match options.open(root) {
            Ok(db) => db,
            Err(error @ (Error::Corruption { .. } | Error::UnsupportedFormat { .. })) => {
                return Ok(Fate::Refused(blamed(&error)));
            }
            // Without a catalogue it is no store, but somebody's files.
            Err(Error::InvalidArgument { .. })
                if !image.files.contains_key(Path::new("CATALOG")) =>
            {
                return Ok(Fate::Refused("CATALOG".into()));
            }
            Err(error) => return Err(format!("damage is called {error}")),
        };
        let fate = examine(&db, sample)?;
        let verified = db.verify();
        if fate == Fate::Reported && verified.is_ok_and(|report| report.is_clean()) {
            return Err("reading failed, yet verify finds nothing wrong".to_owned());
        }
        Ok(fate)
    }));
    outcome.unwrap_or_else(|_| Err("panic".to_owned()))
}

/// Counts of fates over a sweep.
#[derive(Debug, Default)]
struct Tally {
    right: u32,
    refused: u32,
    reported: u32,
}

impl Tally {
    fn count(&mut self, fate: &Fate) {
        match fate {
            Fate::Right => self.right += 1,
            Fate::Refused(_) => self.refused += 1,
            Fate::Reported => self.reported += 1,
        }
    }
}

/// Applies `damage` to a copy of the sample and judges what follows.
#[track_caller]
fn sweep_one(
    sample: &Sample,
    tally: &mut Tally,
    story: &str,
    damage: impl FnOnce(&mut Image),
) -> Fate {
    let mut image = sample.image.clone();
    damage(&mut image);
    let fate = suffer(sample, &image, Arc::new(SimFs::new()), Path::new("/store"))
        .unwrap_or_else(|law| panic!("{story}: {law}"));
    tally.count(&fate);
    fate
}

fn is_log(path: &Path) -> bool {
    path.starts_with("wal")
}

fn is_value_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "val")
}

fn positions(random: &mut Random, len: usize, count: u64) -> Vec<usize> {
    let mut all: Vec<usize> = (0..len.min(96)).collect();
    all.extend((0..count).map(|_| random.below(len as u64) as usize));
    all.extend(len.saturating_sub(24)..len);
    all
}

/// Damage of one kind, done to copies of a sample.
struct Sweep {
    name: &'static str,
    sample: Sample,
    tally: Tally,
}

impl Sweep {
    fn new(name: &'static str, seed: u64) -> Self {
        Self::of(name, sample(seed))
    }

    fn of(name: &'static str, sample: Sample) -> Self {
        Self {
            name,
            sample,
            tally: Tally::default(),
        }
    }

    /// The files with data, and their lengths.
    fn files(&self) -> Vec<(PathBuf, usize)> {
        let files = self.sample.image.data_files();
        files
            .map(|(path, bytes)| (path.clone(), bytes.len()))
            .collect()
    }

    /// Applies `damage` to a copy and judges what follows.
    #[track_caller]
    fn one(&mut self, story: &str, damage: impl FnOnce(&mut Image)) {
        sweep_one(&self.sample, &mut self.tally, story, damage);
    }

    fn report(&self) {
        report(format_args!("{}: {:?}", self.name, self.tally));
    }
}

/// The bytes of a file of an image.
fn bytes_of<'a>(image: &'a mut Image, path: &Path) -> &'a mut Vec<u8> {
    image.files.get_mut(path).expect("a file")
}

#[test]
fn an_intact_copy_is_right() {
    let sample = sample(40);
    let mut tally = Tally::default();
    assert_eq!(
        sweep_one(&sample, &mut tally, "intact", |_| ()),
        Fate::Right
    );
    // The sample is worth damaging: both engines, the log, the catalogue.
    assert!(
        sample.image.data_files().count() >= 5,
        "{:?}",
        sample.image.files.keys()
    );
    assert!(sample.image.data_files().any(|(path, _)| is_log(path)));
}

#[test]
fn flipped_bits_in_every_file() {
    let mut sweep = Sweep::new("flipped bits", 41);
    let mut random = Random::new(from_env("HEDGEROW_SEED").unwrap_or(1));
    let count = 300 * from_env("HEDGEROW_CASES").unwrap_or(1);
    for (path, len) in sweep.files() {
        for at in positions(&mut random, len, count) {
            let bit = random.below(8);
            let story = format!("bit {bit} of byte {at} of {} flipped", path.display());
            sweep.one(&story, |image| {
                bytes_of(image, &path)[at] ^= 1 << bit;
            });
        }
    }
    sweep.report();
}

#[test]
fn truncated_files() {
    let mut sweep = Sweep::new("truncated files", 42);
    let mut random = Random::new(2);
    for (path, len) in sweep.files() {
        for to in positions(&mut random, len, 60) {
            let story = format!("{} cut to {to} of {len} bytes", path.display());
            sweep.one(&story, |image| {
                bytes_of(image, &path).truncate(to);
            });
        }
    }
    sweep.report();
}

#[test]
fn zeroed_and_garbled_sectors() {
    let mut sweep = Sweep::new("zeroed and garbled sectors", 43);
    let mut random = Random::new(3);
    for (path, len) in sweep.files() {
        let sectors = len.div_ceil(512);
        for _ in 0..sectors.min(80) {
            let sector = random.below(sectors as u64) as usize;
            let garble = random.one_in(2);
            let story = format!(
                "sector {sector} of {} {}",
                path.display(),
                if garble { "garbled" } else { "zeroed" }
            );
            let junk = random.bytes(512);
            sweep.one(&story, |image| {
                let end = (sector * 512 + 512).min(len);
                let bytes = &mut bytes_of(image, &path)[sector * 512..end];
                for (at, byte) in bytes.iter_mut().enumerate() {
                    *byte = if garble { junk[at] } else { 0 };
                }
            });
        }
    }
    sweep.report();
}

#[test]
fn missing_and_empty_files() {
    for shape in [Shape::Mixed, Shape::ShortLog, Shape::ValueFiles] {
        take_files(Sweep::of("missing and empty files", shaped(44, shape)));
    }
}

/// Files of values that have left the log: bits, lengths, sectors, other files in their place.
#[test]
fn value_files_in_every_way() {
    let mut sweep = Sweep::of("value files", shaped(63, Shape::ValueFiles));
    let mut random = Random::new(from_env("HEDGEROW_SEED").unwrap_or(6));
    let files = sweep.files();
    let values: Vec<_> = files
        .iter()
        .filter(|(path, _)| is_value_file(path))
        .collect();
    assert!(values.len() >= 2, "{files:?}");
    let cases = from_env("HEDGEROW_CASES").unwrap_or(1);
    for (path, len) in values.into_iter().take(2) {
        for _ in 0..90 * cases {
            let at = match random.one_in(4) {
                true => random.below(128),
                false => random.below(*len as u64),
            } as usize;
            let bit = random.below(8);
            let story = format!("bit {bit} of byte {at} of {} flipped", path.display());
            sweep.one(&story, |image| bytes_of(image, path)[at] ^= 1 << bit);
            let story = format!("{} cut to {at} of {len} bytes", path.display());
            sweep.one(&story, |image| bytes_of(image, path).truncate(at));
        }
        for sector in (0..len.div_ceil(512)).step_by(3) {
            let story = format!("sector {sector} of {} zeroed", path.display());
            sweep.one(&story, |image| {
                let bytes = &mut bytes_of(image, path)[sector * 512..];
                bytes.iter_mut().take(512).for_each(|byte| *byte = 0);
            });
        }
        for (other, _) in files.iter().filter(|(other, _)| is_log(other)) {
            let story = format!("{} in the place of {}", other.display(), path.display());
            sweep.one(&story, |image| {
                let bytes = image.files[other].clone();
                image.files.insert(path.clone(), bytes);
            });
        }
        let story = format!("{} under its old name", path.display());
        sweep.one(&story, |image| {
            let bytes = image.files.remove(path).expect("a file");
            image.files.insert(path.with_extension("log"), bytes);
        });
    }
    assert!(sweep.tally.reported > 0);
    sweep.report();
}

fn take_files(mut sweep: Sweep) {
    for (path, _) in sweep.files() {
        let story = format!("{} removed", path.display());
        sweep.one(&story, |image| {
            image.files.remove(&path);
        });
        let story = format!("{} emptied", path.display());
        sweep.one(&story, |image| bytes_of(image, &path).clear());
    }
    sweep.report();
}

#[test]
fn files_of_another_store() {
    let mut sweep = Sweep::new("files of another store", 45);
    let theirs = sample(46);
    for (path, bytes) in theirs.image.data_files() {
        if !sweep.sample.image.files.contains_key(path) {
            continue;
        }
        let story = format!("{} of another store", path.display());
        sweep.one(&story, |image| {
            image.files.insert(path.clone(), bytes.clone());
        });
    }
    sweep.report();
}

#[test]
fn files_swapped_within_a_store() {
    let mut sweep = Sweep::new("swapped files", 47);
    let files = sweep.files();
    for (at, (one, _)) in files.iter().enumerate() {
        for (other, _) in &files[at + 1..] {
            let story = format!("{} and {} swapped", one.display(), other.display());
            sweep.one(&story, |image| {
                let first = image.files[one].clone();
                let second = std::mem::replace(bytes_of(image, other), first);
                image.files.insert(one.clone(), second);
            });
        }
    }
    sweep.report();
}

#[test]
fn bytes_behind_the_end() {
    let mut sweep = Sweep::new("bytes behind the end", 48);
    let mut random = Random::new(4);
    for (path, _) in sweep.files() {
        for len in [1, 512, 5000] {
            let junk = random.bytes(len);
            let story = format!("{len} bytes behind the end of {}", path.display());
            sweep.one(&story, |image| {
                bytes_of(image, &path).extend(&junk);
            });
        }
    }
    sweep.report();
}

/// The same through memory maps, which the file system in memory has not.
#[test]
fn flipped_bits_read_through_maps() {
    let mut sweep = Sweep::new("flipped bits read through maps", 49);
    let mut random = Random::new(5);
    let dir = tempfile::tempdir().unwrap();
    for (path, len) in sweep.files() {
        for number in 0..40 {
            let at = random.below(len as u64) as usize;
            let story = format!("byte {at} of {}", path.display());
            let mut image = sweep.sample.image.clone();
            bytes_of(&mut image, &path)[at] ^= 0x10;
            let root = dir.path().join(number.to_string());
            let fate = suffer(&sweep.sample, &image, Arc::new(StdFs::new()), &root)
                .unwrap_or_else(|law| panic!("{story}: {law}"));
            sweep.tally.count(&fate);
            std::fs::remove_dir_all(&root).unwrap();
        }
    }
    sweep.report();
}

/// A catalogue of a later version, intact by its own checksum, is not called damaged, and nothing
/// of the store is touched.
#[test]
fn a_store_of_a_later_format_is_told_from_a_damaged_one() {
    let sample = sample(50);
    let mut image = sample.image.clone();
    let catalogue = image
        .files
        .get_mut(Path::new("CATALOG"))
        .expect("a catalogue");
    catalogue[8..12].copy_from_slice(&6u32.to_le_bytes());
    repair::catalog(catalogue);
    let fs = SimFs::new();
    image.write(&fs, Path::new("/store"));
    let options = tiny(hedgerow::Options::new()).fs(Arc::new(fs.clone()));
    for read_only in [true, false] {
        match options.clone().read_only(read_only).open("/store") {
            Err(Error::UnsupportedFormat {
                file,
                found: 6,
                supported: 5,
                ..
            }) => {
                assert!(file.ends_with("CATALOG"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(
        Image::of(&fs, Path::new("/store")) == image,
        "a file was changed"
    );
}
