//! Real kills: a child process writes and says what was acknowledged, SIGKILL ends it at a random
//! moment, and the store is opened and compared with what a faultless run would hold.
//!
//! The child is this very test binary, told by an environment variable. Its writes follow from a
//! seed, so the parent needs to hear only how many there were. Every thread of it writes keys of
//! its own, in batches over both engines or one, and in single puts; each commit also counts the
//! thread's commits: the count found afterwards says which prefix of that thread's commits
//! survived.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hedgerow::{Db, Durability, EngineKind, Keyspace, MemtableKind, Options};
use support::random::{Random, Source};
use support::rig::{Sizes, effort, figure, from_env, keyspace_options_with, report, tiny};

/// Kills of each kind in the ordinary run.
const KILLS: u64 = 8;
const THREADS: u64 = 4;
/// A child lives this long after its first commit, at most.
const LIFE_US_MAX: u64 = 60_000;
const CHILD: &str = "HEDGEROW_TEST_KILL_CHILD";

/// Commits of either durability, with and without memory maps.
#[test]
fn of_processes_under_load() {
    let kills = from_env("HEDGEROW_CASES").unwrap_or(KILLS * effort());
    for durability in [Durability::Sync, Durability::Buffered] {
        for maps in [true, false] {
            kill_many(kills, durability, maps);
        }
    }
    figure("real kills", 4 * kills);
}

fn options(durability: Durability, maps: bool) -> Options {
    tiny(Options::new())
        .durability(durability)
        .mmap_log(maps)
        .mmap_reads(maps)
}

/// Without maps memtables are skip lists.
fn keyspaces(db: &Db, maps: bool) -> [Keyspace; 2] {
    let memtable = match maps {
        true => MemtableKind::BTree,
        false => MemtableKind::SkipList,
    };
    EngineKind::ALL.map(|engine| {
        let options = keyspace_options_with(engine, Sizes::Tiny, memtable);
        db.keyspace_with(engine.name(), options).unwrap()
    })
}

fn counter(thread: u64) -> Vec<u8> {
    format!("count {thread}").into_bytes()
}

/// To which of the two keyspaces commit `n` of a thread goes.
fn goes_to(thread: u64, n: u64) -> [bool; 2] {
    match (thread + n) % 5 {
        0 | 1 => [true, true],
        2 => [true, false],
        3 => [false, true],
        _ => [n.is_multiple_of(2), !n.is_multiple_of(2)],
    }
}

/// What commit `n` of a thread does to each keyspace that it goes to: a put, or a delete where
/// there is no value.
fn commit(thread: u64, n: u64) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut random = Random::new(thread << 32 | n);
    let mut edits = vec![(counter(thread), Some(n.to_le_bytes().to_vec()))];
    if (thread + n) % 5 == 4 {
        // Nothing but the count: a single put.
        return edits;
    }
    for _ in 0..1 + random.below(6) {
        let key = format!("{thread} {:03}", random.below(400)).into_bytes();
        let value = (!random.one_in(4)).then(|| {
            let len = random.below(300) as usize;
            random.bytes(len)
        });
        edits.push((key, value));
    }
    edits
}

/// Not a test by itself: the child's part, when the environment says so.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else {
        return;
    };
    let mut words = task.splitn(3, ' ');
    let durability = match words.next() {
        Some("sync") => Durability::Sync,
        _ => Durability::Buffered,
    };
    let maps = words.next() == Some("maps");
    let db = options(durability, maps)
        .open(words.next().expect("a path"))
        .unwrap();
    let keyspaces = keyspaces(&db, maps);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (db, keyspaces) = (&db, &keyspaces);
            scope.spawn(move || {
                for n in commits_found(keyspaces, thread) + 1.. {
                    let mut batch = db.batch();
                    let edits = commit(thread, n);
                    let of_commit = keyspaces.iter().zip(goes_to(thread, n));
                    for (keyspace, _) in of_commit.filter(|(_, goes)| *goes) {
                        if let [(key, Some(value))] = &edits[..] {
                            keyspace.put(key, value).unwrap();
                            continue;
                        }
                        for (key, value) in &edits {
                            match value {
                                Some(value) => batch.put(keyspace, key, value),
                                None => batch.delete(keyspace, key),
                            }
                        }
                    }
                    if !batch.is_empty() {
                        db.write(batch, durability).unwrap();
                    }
                    // One write to the pipe, so that a line arrives whole or not at all.
                    let line = format!("acknowledged {thread} {n}\n");
                    if std::io::stderr().write_all(line.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// How many commits of a thread are there: its last one went to one keyspace or both.
fn commits_found(keyspaces: &[Keyspace; 2], thread: u64) -> u64 {
    let count = |keyspace: &Keyspace| {
        let found = keyspace.get(counter(thread)).unwrap();
        found.map_or(0, |n| u64::from_le_bytes(n[..].try_into().unwrap()))
    };
    count(&keyspaces[0]).max(count(&keyspaces[1]))
}

fn kill_many(kills: u64, durability: Durability, maps: bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let seed = from_env("HEDGEROW_SEED").unwrap_or_else(|| {
        std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(1, |time| time.as_nanos() as u64)
    });
    let mut random = Random::new(seed);
    let mut expected: [BTreeMap<Vec<u8>, Vec<u8>>; 2] = Default::default();
    let mut counts = [0; THREADS as usize];
    let mut commits = 0;
    for kill in 0..kills {
        let delay = Duration::from_micros(random.below(LIFE_US_MAX));
        let acknowledged = run_and_kill(&path, durability, maps, delay);
        let db = options(durability, maps)
            .open(&path)
            .unwrap_or_else(|error| {
                panic!("kill {kill} (HEDGEROW_SEED={seed}): the store does not open: {error}")
            });
        let keyspaces = keyspaces(&db, maps);
        for thread in 0..THREADS as usize {
            let found = commits_found(&keyspaces, thread as u64);
            let least = acknowledged[thread].max(counts[thread]);
            assert!(
                found >= least,
                "kill {kill} (HEDGEROW_SEED={seed}): {least} commits of thread {thread} were \
                 acknowledged, {found} are there"
            );
            for n in counts[thread] + 1..=found {
                commits += 1;
                let of_commit = expected.iter_mut().zip(goes_to(thread as u64, n));
                for (expected, _) in of_commit.filter(|(_, goes)| *goes) {
                    for (key, value) in commit(thread as u64, n) {
                        match value {
                            Some(value) => drop(expected.insert(key, value)),
                            None => drop(expected.remove(&key)),
                        }
                    }
                }
            }
            counts[thread] = found;
        }
        for (keyspace, expected) in keyspaces.iter().zip(&expected) {
            let found: BTreeMap<_, _> = keyspace
                .iter()
                .map(|item| {
                    item.map(|(key, value)| (key.to_vec(), value.to_vec()))
                        .unwrap()
                })
                .collect();
            assert!(
                found == *expected,
                "kill {kill} (HEDGEROW_SEED={seed}): keyspace {} is not what the commits make",
                keyspace.name()
            );
        }
        let report = db.verify().unwrap();
        assert!(report.is_clean(), "kill {kill}: {:#?}", report.problems);
        if random.one_in(3) {
            // Otherwise the next child recovers what this one left.
            db.close().unwrap();
        }
    }
    report(format_args!(
        "kills: {kills} kills, {commits} commits, {durability:?}, maps: {maps}"
    ));
}

/// Starts the child, kills it `delay` after its first acknowledged commit, and returns how many
/// commits of each thread were acknowledged.
fn run_and_kill(
    path: &Path,
    durability: Durability,
    maps: bool,
    delay: Duration,
) -> [u64; THREADS as usize] {
    let durability = if durability == Durability::Sync {
        "sync"
    } else {
        "buffered"
    };
    let maps = if maps { "maps" } else { "writes" };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{durability} {maps} {}", path.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut acknowledged = [0; THREADS as usize];
    let mut other = String::new();
    let mut take = |line: &str| {
        let mut words = line.split(' ');
        if words.next() == Some("acknowledged") {
            let mut number = || words.next()?.trim_end().parse::<u64>().ok();
            if let (Some(thread), Some(n)) = (number(), number()) {
                acknowledged[thread as usize] = n;
                return true;
            }
        }
        other.push_str(line);
        false
    };
    // The first commit shows that opening and recovery are over.
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line).unwrap() == 0 {
            let status = child.wait().unwrap();
            panic!("the child ended by itself ({status}):\n{other}");
        }
        if take(&line) {
            break;
        }
    }
    let killer = std::thread::spawn(move || {
        std::thread::sleep(delay);
        // SIGKILL on Unix: nothing of the child runs any more.
        child.kill().unwrap();
        child.wait().unwrap()
    });
    // The pipe keeps what was written before the kill; it ends when the child does.
    loop {
        line.clear();
        if lines.read_line(&mut line).unwrap() == 0 {
            break;
        }
        if line.ends_with('\n') {
            take(&line);
        }
    }
    let status = killer.join().unwrap();
    assert!(!status.success(), "the child ended by itself:\n{other}");
    assert!(!other.contains("panicked"), "the child failed:\n{other}");
    acknowledged
}
