//! The log against an oracle, under crashes, failures and flipped bits.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::segment::{
    Activation, HEADER_LEN_BYTES, Header, RECORD_HEADER_LEN_BYTES, encode_header,
    encode_record_header, segment_seed,
};
use super::{Log, Recovery, WalConfig, Writer};
use crate::error::{Error, Result};
use crate::fs::{Fault, FaultFs, FaultPlan, Fs, OpKind, OpenMode, SimFs, StdFs};
use crate::testing::Random;
use crate::types::SeqNo;

mod cut;
mod edges;
mod going_on;
mod reading;
mod sparse;

const STORE: u64 = 0x5EED;
const DIR: &str = "/wal";

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    first: SeqNo,
    last: SeqNo,
    payload: Vec<u8>,
}

/// What the log should hold, kept outside the file system.
#[derive(Debug, Default)]
struct Oracle {
    entries: Vec<Entry>,
    /// Last number that must survive a power loss.
    durable: SeqNo,
    /// Numbers below need not be there.
    needed: SeqNo,
}

impl Oracle {
    fn last(&self) -> SeqNo {
        self.entries.last().map_or(SeqNo::ZERO, |entry| entry.last)
    }

    /// Compares a recovered log and forgets what it lost.
    fn check(&mut self, found: &[Entry], last: SeqNo, least: SeqNo, context: &str) {
        assert!(last >= least, "{context}: {last} recovered, {least} synced");
        assert!(last <= self.last(), "{context}: recovered from nowhere");
        self.entries.retain(|entry| entry.first <= last);
        assert_eq!(self.last(), last, "{context}: a record was split");
        let held = &self.entries[self.entries.len() - found.len()..];
        assert_eq!(found, held, "{context}");
        if last >= self.needed {
            let first = found.first().map_or(last.next(), |entry| entry.first);
            assert!(
                first <= self.needed.max(SeqNo(1)),
                "{context}: {first} is too late"
            );
        }
    }
}

fn recover(fs: &Arc<dyn Fs>, dir: &Path) -> Result<(Recovery, Vec<Entry>, SeqNo)> {
    recover_knowing(fs, dir, SeqNo::ZERO)
}

/// As [`recover`], where others know that the log was durable up to `durable`.
fn recover_knowing(
    fs: &Arc<dyn Fs>,
    dir: &Path,
    durable: SeqNo,
) -> Result<(Recovery, Vec<Entry>, SeqNo)> {
    let mut recovery = Recovery::open(Arc::clone(fs), dir, STORE)?;
    let mut found = Vec::new();
    let last = recovery.replay(SeqNo::ZERO, durable, &mut |records| {
        found.extend(records.iter().map(|record| Entry {
            first: record.first,
            last: record.last,
            payload: record.payload.to_vec(),
        }));
        Ok(())
    })?;
    Ok((recovery, found, last))
}

fn config(segment_bytes: u64) -> WalConfig {
    WalConfig {
        segment_bytes,
        use_mmap: true,
    }
}

fn open(fs: &Arc<dyn Fs>, dir: &Path, config: WalConfig) -> (Writer, Arc<Log>) {
    let (recovery, _, last) = recover(fs, dir).unwrap();
    recovery.into_log(config, last).unwrap()
}

/// Random appends, syncs, preparation and retirement. Stops early when the log has failed.
fn live(random: &mut Random, writer: &mut Writer, log: &Log, oracle: &mut Oracle, max_len: u64) {
    for _ in 0..random.below(60) {
        match random.below(12) {
            0..7 => {
                let first = oracle.last().next();
                let last = first.plus(random.below(3));
                let len = match random.below(25) {
                    0 => max_len * 2,
                    1..5 => 0,
                    _ => random.below(200),
                };
                let payload = random.bytes(len as usize);
                let cut = random.below(len + 1) as usize;
                let parts = [&payload[..cut], &[], &payload[cut..]];
                // Most of it is values at times: then segments are sparse.
                let value_bytes = if first.0 % 64 < 32 { len } else { 0 };
                if writer.append(first, last, &parts, value_bytes).is_ok() {
                    oracle.entries.push(Entry {
                        first,
                        last,
                        payload,
                    });
                }
                assert_eq!(log.appended_seq(), oracle.last());
            }
            7..9 => {
                if let Ok(synced) = log.sync() {
                    assert_eq!(synced, oracle.last());
                    oracle.durable = synced;
                }
            }
            9 => match random.below(4) {
                0 => drop(log.free_stock(random.below(2) == 0)),
                1 => drop(log.prepare_small().and_then(|()| writer.shorten())),
                _ => drop(log.prepare()),
            },
            10 => {
                // Engines never run ahead of the log (E3).
                let needed = SeqNo(random.below(oracle.durable.0 + 2));
                let before = log.oldest_seq();
                if log.retire(Some(needed)).is_ok() {
                    assert!(
                        log.oldest_seq() <= needed.max(before),
                        "no segment that is needed was deleted"
                    );
                }
                oracle.needed = oracle.needed.max(needed);
            }
            _ => {
                if random.below(4) == 0
                    && let Ok(synced) = log.sync()
                {
                    oracle.durable = synced;
                    oracle.needed = oracle.needed.max(synced.next());
                    let _ = log.retire(None);
                }
            }
        }
        assert!(log.synced_seq() >= oracle.durable || log.check_not_failed().is_err());
    }
}

/// Begins writing as a store does after a kill: what was found is known to be durable once it is.
fn go_on(mut recovery: Recovery, config: WalConfig, last: SeqNo) -> Result<(Writer, Arc<Log>)> {
    if recovery.lacks_witness(config, last) {
        recovery.make_durable()?;
        recovery.note_durable(last);
    }
    recovery.into_log(config, last)
}

#[test]
fn power_losses_leave_a_prefix_with_everything_synced() {
    let dir = Path::new(DIR);
    for seed in 0..6000 {
        let mut random = Random(seed);
        let mut mem = match seed % 2 {
            0 => SimFs::new(),
            _ => SimFs::with_maps(),
        };
        let mut oracle = Oracle::default();
        // What the next recovery must find at least.
        let mut least = SeqNo::ZERO;
        for life in 0..4 {
            let context = format!("seed {seed}, life {life}");
            let fs: Arc<dyn Fs> = Arc::new(mem.clone());
            // What the engines and the WAL manifest may have been told.
            let known = SeqNo(random.below(2) * oracle.durable.0);
            let (recovery, found, last) =
                recover_knowing(&fs, dir, known).unwrap_or_else(|e| panic!("{context}: {e}"));
            oracle.check(&found, last, least, &context);
            let config = config(512 + random.below(8) * 256);
            let goes_on = random.below(2) == 0;
            let begin = |recovery: Recovery| match goes_on {
                true => go_on(recovery, config, last),
                false => recovery.into_log(config, last),
            };
            if random.below(3) == 0 {
                // A crash inside recovery, at any depth. Bytes of a sync that failed on the way
                // stay readable and are never written by the system again.
                mem.fail_after(random.below(24), ErrorKind::Other);
                if let Ok((mut writer, log)) = begin(recovery) {
                    oracle.durable = last;
                    live(&mut random, &mut writer, &log, &mut oracle, 2048);
                }
                mem.heal();
            } else {
                let (mut writer, log) = begin(recovery).unwrap();
                oracle.durable = last;
                if random.below(3) == 0 {
                    mem.fail_once_after(random.below(60), ErrorKind::StorageFull);
                }
                live(&mut random, &mut writer, &log, &mut oracle, 2048);
                mem.heal();
                let stats = log.stats();
                assert!(stats.appends <= oracle.entries.len() as u64);
            }
            least = oracle.durable;
            mem = match random.below(4) {
                0 => mem.crash(),
                1 => {
                    // The end of the process only. What was appended is there, though not durable
                    // before the next opening has made it so.
                    least = oracle.last();
                    mem
                }
                _ => mem.crash_keeping(random.next()),
            };
        }
    }
}

/// An opening goes on in a segment whose name an earlier process has failed to sync. Another sync
/// of the directory writes nothing then, and a power loss took the segment with all that was
/// appended to it since.
#[test]
fn a_log_goes_on_in_no_segment_whose_name_may_be_lost() {
    let dir = Path::new(DIR);
    for stays_broken in [false, true] {
        let mut has_opened = false;
        for n in 0..40 {
            let disk = SimFs::new();
            disk.create_dir_all(dir).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            let fs: Arc<dyn Fs> = Arc::new(disk.clone());
            match stays_broken {
                true => disk.fail_after(n, ErrorKind::Other),
                false => disk.fail_once_after(n, ErrorKind::Other),
            }
            let opened = recover(&fs, dir).and_then(|(recovery, _, last)| {
                let (_, log) = recovery.into_log(config(2048), last)?;
                log.prepare()
            });
            has_opened = opened.is_ok();
            disk.heal();
            let (mut writer, log) = open(&fs, dir, config(2048));
            writer.append(SeqNo(1), SeqNo(1), &[b"kept"], 0).unwrap();
            log.sync().unwrap();
            let lost: Arc<dyn Fs> = Arc::new(disk.crash());
            let (_, found, last) = recover(&lost, dir).unwrap();
            assert_eq!(last, SeqNo(1), "change {n}, from then on: {stays_broken}");
            assert_eq!(found.len(), 1);
        }
        assert!(has_opened, "there were more changes to fail");
    }
}

/// Each attempt to make a segment counted as one that was made, so the next one asked for four
/// times the space: a store on a full disk wanted ever more of it, up to the full length of a
/// segment, before it went on.
#[test]
fn a_segment_that_found_no_space_asks_for_no_more_the_next_time() {
    let disk = FaultFs::new(Arc::new(SimFs::new()));
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let (mut writer, log) = open(&fs, DIR.as_ref(), config(64 << 20));
    let small = log.stats().disk_bytes;
    let payload = vec![1; small as usize * 3 / 4];
    writer.append(SeqNo(1), SeqNo(1), &[&payload], 0).unwrap();
    for attempt in 0..4 {
        let full = FaultPlan::once(&[OpKind::Write], 0, Fault::Full).and_then_all(&[OpKind::Write]);
        disk.plan(full);
        assert!(log.prepare().is_err(), "attempt {attempt}");
        assert!(writer.append(SeqNo(2), SeqNo(2), &[&payload], 0).is_err());
        assert_eq!(log.stats().disk_bytes, small);
    }
    disk.heal();
    assert!(log.prepare().unwrap());
    assert_eq!(log.stats().disk_bytes, 2 * small);
    writer.append(SeqNo(2), SeqNo(2), &[&payload], 0).unwrap();
    // From there on they grow again.
    assert!(log.prepare().unwrap());
    assert!(log.stats().disk_bytes > 3 * small);
}

/// A file of full length that waits for reuse was passed over while segments were short, after each
/// opening: the store asked a full disk for space that it had.
#[test]
fn a_file_that_waits_for_reuse_is_taken_first() {
    const FULL_LEN_BYTES: u64 = 8 << 20;
    let disk = FaultFs::new(Arc::new(SimFs::new()));
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let (mut writer, log) = open(&fs, DIR.as_ref(), config(FULL_LEN_BYTES));
    let payload = vec![1; 700 << 10];
    for n in 1..=25 {
        writer.append(SeqNo(n), SeqNo(n), &[&payload], 0).unwrap();
        log.prepare().unwrap();
    }
    log.sync().unwrap();
    // The last one prepared has full length, and stays unused.
    let names = fs.read_dir(DIR.as_ref()).unwrap();
    let path = Path::new(DIR).join(names.last().unwrap());
    let last = fs.open(&path, OpenMode::Read).unwrap();
    assert_eq!(last.len().unwrap(), FULL_LEN_BYTES);
    drop((writer, log));

    disk.plan(FaultPlan::once(&[OpKind::Create], 0, Fault::Full));
    let (recovery, _, last) = recover(&fs, DIR.as_ref()).unwrap();
    recovery.into_log(config(FULL_LEN_BYTES), last).unwrap();
}

#[test]
fn both_ways_of_appending_work_on_real_files() {
    for use_mmap in [true, false] {
        for seed in 0..6 {
            let context = format!("seed {seed}, mapped {use_mmap}");
            let home = tempfile::tempdir().unwrap();
            let dir = home.path().join("wal");
            let fs: Arc<dyn Fs> = Arc::new(StdFs::new());
            let mut random = Random(seed);
            let mut oracle = Oracle::default();
            for _ in 0..5 {
                let (recovery, found, last) = recover(&fs, &dir).unwrap();
                oracle.check(&found, last, oracle.last(), &context);
                let config = WalConfig {
                    segment_bytes: 4096,
                    use_mmap,
                };
                let (mut writer, log) = recovery.into_log(config, last).unwrap();
                live(&mut random, &mut writer, &log, &mut oracle, 8192);
            }
        }
    }
}

#[test]
fn threads_that_sync_share_the_work_and_cover_what_they_saw() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let (mut writer, log) = open(&fs, DIR.as_ref(), config(4096));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while log.synced_seq() < SeqNo(2000) {
                    let seen = log.appended_seq();
                    assert!(log.sync().unwrap() >= seen);
                    let _ = log.prepare().unwrap();
                    log.retire(Some(seen)).unwrap();
                }
            });
        }
        for n in 1..=2000 {
            writer.append(SeqNo(n), SeqNo(n), &[&[7; 100]], 0).unwrap();
        }
    });
    let (_, found, last) = recover(&fs, DIR.as_ref()).unwrap();
    assert_eq!(last, SeqNo(2000));
    assert_eq!(found.last().map(|entry| entry.last), Some(last));
}

/// A log of several segments in which everything is synced, record by record.
fn small_log(records: u64) -> (SimFs, Vec<Entry>) {
    let mem = SimFs::new();
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    let (mut writer, log) = open(&fs, DIR.as_ref(), config(512));
    for n in 1..=records {
        log.prepare().unwrap();
        let payload = vec![n as u8; 90];
        writer.append(SeqNo(n), SeqNo(n), &[&payload], 0).unwrap();
        log.sync().unwrap();
    }
    log.prepare().unwrap();
    let (_, found, _) = recover(&fs, DIR.as_ref()).unwrap();
    assert_eq!(found.len() as u64, records);
    (mem.crash(), found)
}

fn files(fs: &dyn Fs) -> Vec<PathBuf> {
    let names = fs.read_dir(DIR.as_ref()).unwrap();
    names.iter().map(|n| Path::new(DIR).join(n)).collect()
}

/// Damages every file of `mem` in every way of `ways`, and checks that recovery either fails or
/// finds a prefix with `least` records at least.
fn sweep(
    mem: &SimFs,
    whole: &[Entry],
    least: usize,
    ways: impl Fn(usize) -> usize,
    damage: impl Fn(&dyn crate::fs::File, usize),
) -> (usize, usize) {
    let (mut detected, mut harmless) = (0, 0);
    for path in files(mem) {
        let len = mem.open(&path, OpenMode::Read).unwrap().len().unwrap() as usize;
        for way in 0..ways(len) {
            let image = mem.crash();
            let file = image.open(&path, OpenMode::ReadWrite).unwrap();
            damage(&*file, way);
            let fs: Arc<dyn Fs> = Arc::new(image);
            match recover(&fs, DIR.as_ref()) {
                Err(Error::Corruption { .. } | Error::UnsupportedFormat { .. }) => detected += 1,
                Err(e) => panic!("{} way {way}: {e}", path.display()),
                Ok((_, found, _)) => {
                    assert!(
                        found.len() >= least && whole.starts_with(&found),
                        "{} way {way}: {} records",
                        path.display(),
                        found.len()
                    );
                    harmless += 1;
                }
            }
        }
    }
    (detected, harmless)
}

fn flip(file: &dyn crate::fs::File, bit: usize) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit as u64 / 8).unwrap();
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit as u64 / 8).unwrap();
}

#[test]
fn every_flipped_bit_is_detected_or_harmless() {
    // The last record has no witness behind it, so it may count as torn; nothing else may.
    let (mem, whole) = small_log(8);
    sweep(&mem, &whole, whole.len() - 1, |len| len * 8, flip);
    // Opening the log again makes the new segment the witness.
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    drop(open(&fs, DIR.as_ref(), config(512)));
    let (detected, harmless) = sweep(&mem, &whole, whole.len(), |len| len * 8, flip);
    assert!(
        detected > 8 * 8 * 120,
        "{detected} detected, {harmless} harmless"
    );
}

#[test]
fn every_truncation_and_extension_is_detected() {
    let (mem, whole) = small_log(8);
    let (_, harmless) = sweep(
        &mem,
        &whole,
        8,
        |len| len,
        |file, len| {
            file.set_len(len as u64).unwrap();
        },
    );
    assert_eq!(harmless, 0);
    let (_, harmless) = sweep(
        &mem,
        &whole,
        8,
        |_| 1,
        |file, _| {
            file.set_len(file.len().unwrap() + 8).unwrap();
        },
    );
    assert_eq!(harmless, 0);
}

#[test]
fn missing_and_swapped_segments_are_damage() {
    let (mem, _) = small_log(12);
    let segments = files(&mem);
    assert!(segments.len() >= 4);
    // The last file is prepared and empty, the one before it active, the first one could have been
    // retired.
    for path in &segments[1..segments.len() - 2] {
        let image = mem.crash();
        image.remove_file(path).unwrap();
        let fs: Arc<dyn Fs> = Arc::new(image);
        let error = recover(&fs, DIR.as_ref()).unwrap_err();
        assert!(error.is_corruption(), "{error}");
    }
    let image = mem.crash();
    image.rename(&segments[1], &segments[2]).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(image);
    assert!(recover(&fs, DIR.as_ref()).unwrap_err().is_corruption());
}

#[test]
fn foreign_files_stay_and_other_versions_and_stores_are_refused() {
    let (mem, _) = small_log(3);
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    let foreign = [
        "notes.txt",
        "1.log",
        "00000000000000FF.log",
        "0000000000000000.log",
    ];
    for name in foreign {
        let path = Path::new(DIR).join(name);
        fs.open(&path, OpenMode::CreateNew).unwrap();
    }
    let half_made = Path::new(DIR).join("00000000000000aa.tmp");
    fs.open(&half_made, OpenMode::CreateNew).unwrap();
    drop(open(&fs, DIR.as_ref(), config(512)));
    let names = fs.read_dir(DIR.as_ref()).unwrap();
    assert!(
        foreign
            .iter()
            .all(|name| names.contains(&(*name).to_owned()))
    );
    assert!(!fs.exists(&half_made).unwrap());

    let other = Recovery::open(Arc::clone(&fs), DIR.as_ref(), STORE + 1);
    assert!(other.unwrap_err().is_corruption());
    let first = Path::new(DIR).join(&names[names.len() - 3]);
    let first = fs.open(&first, OpenMode::ReadWrite).unwrap();
    first.write_all_at(&[3], 8).unwrap();
    let flipped = recover(&fs, DIR.as_ref()).unwrap_err();
    assert!(flipped.is_corruption(), "{flipped}");
    // Of another build, which computes its checksum in another way.
    first.write_all_at(&[1, 0, 0, 0, 1, 2, 3, 4], 8).unwrap();
    assert!(matches!(
        recover(&fs, DIR.as_ref()),
        Err(Error::UnsupportedFormat { found: 1, .. })
    ));
}

#[test]
fn a_failed_sync_ends_all_writing() {
    let mem = SimFs::new();
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    let (mut writer, log) = open(&fs, DIR.as_ref(), config(4096));
    writer.append(SeqNo(1), SeqNo(1), &[b"kept"], 0).unwrap();
    log.sync().unwrap();
    writer.append(SeqNo(2), SeqNo(2), &[b"lost"], 0).unwrap();
    mem.fail_once_after(0, ErrorKind::Other);
    assert!(matches!(log.sync(), Err(Error::Io { .. })));
    assert!(matches!(log.sync(), Err(Error::WritesStopped { .. })));
    let append = writer.append(SeqNo(3), SeqNo(3), &[b"no"], 0);
    assert!(matches!(append, Err(Error::WritesStopped { .. })));
    assert_eq!(log.synced_seq(), SeqNo(1));
    let after: Arc<dyn Fs> = Arc::new(mem.crash());
    assert_eq!(recover(&after, DIR.as_ref()).unwrap().2, SeqNo(1));
}

#[test]
fn a_failed_append_leaves_its_place_and_its_numbers() {
    let mem = SimFs::new();
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    let (mut writer, log) = open(&fs, DIR.as_ref(), config(4096));
    mem.fail_once_after(0, ErrorKind::StorageFull);
    assert!(writer.append(SeqNo(1), SeqNo(5), &[b"refused"], 0).is_err());
    assert_eq!(log.appended_seq(), SeqNo::ZERO);
    writer.append(SeqNo(1), SeqNo(2), &[b"taken"], 0).unwrap();
    let (_, found, last) = recover(&fs, DIR.as_ref()).unwrap();
    assert_eq!((found.len(), last), (1, SeqNo(2)));
    assert_eq!(found[0].payload, b"taken");
}

#[test]
fn segments_are_recycled_and_an_oversized_record_gets_its_own() {
    let mem = SimFs::new();
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    let (mut writer, log) = open(&fs, DIR.as_ref(), config(1024));
    for n in 1..=100 {
        log.prepare().unwrap();
        let len = if n == 50 { 10_000 } else { 100 };
        let payload = vec![1; len];
        writer.append(SeqNo(n), SeqNo(n), &[&payload], 0).unwrap();
        log.retire(Some(SeqNo(n))).unwrap();
        assert!(files(&mem).len() <= 4, "record {n}");
    }
    let stats = log.stats();
    assert!(stats.segments_created <= 4, "{stats:?}");
    assert!(stats.segments_recycled > 10, "{stats:?}");
    assert_eq!(stats.segments_awaited, 1, "only the oversized one");
    assert!(log.oldest_seq() > SeqNo(90) && log.live_bytes() <= 2048);
    log.sync().unwrap();
    log.retire(None).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(mem.crash());
    assert_eq!(recover(&fs, DIR.as_ref()).unwrap().2, SeqNo(100));
}

#[test]
fn an_engine_that_is_ahead_of_the_log_starts_a_new_chain() {
    let (mem, _) = small_log(5);
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    let (recovery, _, last) = recover(&fs, DIR.as_ref()).unwrap();
    assert_eq!(last, SeqNo(5));
    let (mut writer, _log) = recovery.into_log(config(512), SeqNo(40)).unwrap();
    writer.append(SeqNo(41), SeqNo(41), &[b"next"], 0).unwrap();
    let (_, found, last) = recover(&fs, DIR.as_ref()).unwrap();
    assert_eq!((found.len(), last), (1, SeqNo(41)));
}

#[test]
fn replay_skips_whole_segments_below_the_start() {
    let (mem, whole) = small_log(12);
    let fs: Arc<dyn Fs> = Arc::new(mem);
    for from in 0..14 {
        let mut recovery = Recovery::open(Arc::clone(&fs), DIR.as_ref(), STORE).unwrap();
        let mut found = Vec::new();
        let last = recovery.replay(SeqNo(from), SeqNo::ZERO, &mut |records| {
            found.extend(records.iter().map(|record| record.first));
            Ok(())
        });
        assert_eq!(last.unwrap(), SeqNo(12));
        let wanted: Vec<SeqNo> = whole
            .iter()
            .map(|e| e.first)
            .filter(|s| s.0 >= from)
            .collect();
        assert_eq!(found, wanted);
    }
}

/// Segments are read ahead, and into the memory of those that were visited, whatever their lengths.
#[test]
fn a_log_of_long_segments_is_replayed_as_often_as_wanted() {
    let mem = SimFs::new();
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    let mut records = 0;
    for mib in [2, 3, 1, 2, 4] {
        let (mut writer, log) = open(&fs, DIR.as_ref(), config(mib << 20));
        for _ in 0..4 * mib {
            records += 1;
            log.prepare().unwrap();
            let payload = vec![records as u8; 400 << 10];
            let seq = SeqNo(records);
            writer.append(seq, seq, &[&payload], 0).unwrap();
        }
        log.sync().unwrap();
    }
    let fs: Arc<dyn Fs> = Arc::new(mem.crash());
    let mut recovery = Recovery::open(fs, DIR.as_ref(), STORE).unwrap();
    for from in [0, records / 2, 0, records - 1, 0, 3 * records / 4, 0] {
        let mut expected = from.max(1);
        let last = recovery.replay(SeqNo(from), SeqNo(records), &mut |found| {
            for record in found.iter().filter(|record| record.first.0 >= from) {
                assert_eq!(record.first, SeqNo(expected));
                assert_eq!(record.payload, vec![expected as u8; 400 << 10]);
                expected += 1;
            }
            Ok(())
        });
        assert_eq!(last.unwrap(), SeqNo(records));
        assert_eq!(expected, records + 1, "from {from}");
    }
}

/// While the first of two long segments is visited, the other one cannot be read.
#[test]
fn a_segment_that_cannot_be_read_ahead_is_an_error() {
    let mem = SimFs::new();
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    let (mut writer, log) = open(&fs, DIR.as_ref(), config(2 << 20));
    for n in 1..=12 {
        log.prepare().unwrap();
        let payload = vec![n as u8; 400 << 10];
        writer.append(SeqNo(n), SeqNo(n), &[&payload], 0).unwrap();
    }
    log.sync().unwrap();
    let fault = FaultFs::new(Arc::new(mem.crash()));
    let fs: Arc<dyn Fs> = Arc::new(fault.clone());
    let mut recovery = Recovery::open(fs, DIR.as_ref(), STORE).unwrap();
    let second = files(&mem).into_iter().nth(1).unwrap();
    let kinds = [OpKind::Read];
    fault.plan(FaultPlan::once(&kinds, 0, Fault::Io).within(&second));
    let mut visited = 0;
    let mut replay = || {
        recovery.replay(SeqNo::ZERO, SeqNo(12), &mut |found| {
            visited += found.len();
            Ok(())
        })
    };
    assert!(replay().is_err());
    assert_eq!(replay().unwrap(), SeqNo(12));
    assert!(visited >= 12);
}

#[test]
fn golden_bytes() {
    let header = Header {
        number: 3,
        len_bytes: 4096,
        opened_active: true,
        is_sparse: false,
    };
    let activation = Activation {
        first: SeqNo(0x0102),
        previous: 2,
        synced: SeqNo(0x0101),
    };
    let mut bytes = encode_header(STORE, &header, Some(&activation)).to_vec();
    let record = encode_record_header(
        segment_seed(STORE, 3),
        HEADER_LEN_BYTES as u64,
        SeqNo(0x0102),
        SeqNo(0x0103),
        SeqNo(0x0101),
        &[b"hedge"],
    );
    bytes.extend_from_slice(&record);
    bytes.extend_from_slice(b"hedge");

    let mut golden = Vec::new();
    golden.extend_from_slice(b"HEDGELOG");
    golden.extend_from_slice(&2_u32.to_le_bytes());
    golden.extend_from_slice(&HEADER_SUM.to_le_bytes());
    for word in [0x5EED_u64, 3, 4096, 1, 0, 0] {
        golden.extend_from_slice(&word.to_le_bytes());
    }
    golden.extend_from_slice(&ACTIVATION_SUM.to_le_bytes());
    golden.extend_from_slice(&0_u32.to_le_bytes());
    for word in [0x0102_u64, 2, 0x0101, 0, 0, 0, 0] {
        golden.extend_from_slice(&word.to_le_bytes());
    }
    golden.extend_from_slice(&RECORD_SUM.to_le_bytes());
    golden.extend_from_slice(&29_u32.to_le_bytes());
    for word in [0x0102_u64, 0x0103, 0x0101] {
        golden.extend_from_slice(&word.to_le_bytes());
    }
    golden.extend_from_slice(b"hedge");
    assert_eq!(bytes, golden);
}

// Computed by an independent program from docs/format.md.
const HEADER_SUM: u32 = 0x8B1F_0507;
const ACTIVATION_SUM: u32 = 0x08CC_7563;
const RECORD_SUM: u32 = 0xFF6B_AD60;
