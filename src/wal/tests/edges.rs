//! What the log takes and gives back, whose files it touches, and where its numbers end.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DIR, config, files, open, recover, recover_knowing, small_log};
use crate::error::{Error, Result};
use crate::fs::{
    Fault, FaultFs, FaultPlan, Fs, FsLock, LockGuard, LockMode, OpKind, OpenMode, SimFs,
};
use crate::types::SeqNo;
use crate::wal::Writer;

/// The file of another store, which came to lie under the name of the next segment, was replaced:
/// after a change of the working directory, or when two processes had the store open.
#[test]
fn a_segment_takes_the_place_of_no_file_that_is_there() {
    for name in ["0000000000000002.log", "0000000000000003.tmp"] {
        let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
        let (mut writer, log) = open(&fs, DIR.as_ref(), config(512));
        let path = Path::new(DIR).join(name);
        let foreign = fs.open(&path, OpenMode::CreateNew).unwrap();
        foreign.write_all_at(b"theirs", 0).unwrap();
        writer.append(SeqNo(1), SeqNo(1), &[&[1; 300]], 0).unwrap();

        let Err(Error::Io { source, .. }) = log.prepare() else {
            panic!("{name} was replaced");
        };
        assert_eq!(source.kind(), ErrorKind::AlreadyExists);
        assert_eq!(files(&*fs).len(), 2, "nothing is left of the attempt");
        let mut bytes = [0; 6];
        let file = fs.open(&path, OpenMode::Read).unwrap();
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"theirs");
        // Further numbers are free.
        assert!(log.prepare().unwrap());
    }
}

#[derive(Debug)]
struct LostLock;

impl FsLock for LostLock {
    fn check(&self) -> Result<()> {
        let path = "LOCK".into();
        Err(Error::LockLost { path })
    }
}

#[test]
fn no_segment_is_made_or_deleted_without_the_lock() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let (mut recovery, _, last) = recover(&fs, DIR.as_ref()).unwrap();
    let lock: Arc<dyn FsLock> = Arc::new(LostLock);
    recovery.guard_by(LockGuard::by(&lock));
    let opened = recovery.into_log(config(512), last);
    assert!(matches!(opened, Err(Error::LockLost { .. })), "{opened:?}");

    let (mut recovery, _, last) = recover(&fs, DIR.as_ref()).unwrap();
    let lock: Arc<dyn FsLock> = Arc::from(fs.lock("/LOCK".as_ref(), LockMode::Exclusive).unwrap());
    recovery.guard_by(LockGuard::by(&lock));
    let (mut writer, log) = recovery.into_log(config(512), last).unwrap();
    for n in 1..=2 {
        writer.append(SeqNo(n), SeqNo(n), &[&[1; 300]], 0).unwrap();
    }
    let before = files(&*fs);
    drop(lock);
    assert!(matches!(log.prepare(), Err(Error::Closed)));
    let append = writer.append(SeqNo(3), SeqNo(3), &[&[1; 300]], 0);
    assert!(matches!(append, Err(Error::Closed)));
    assert_eq!(log.appended_seq(), SeqNo(2));
    // Nor is one deleted: another process may need it.
    assert!(matches!(log.retire(Some(SeqNo(3))), Err(Error::Closed)));
    assert!(matches!(log.free_stock(true), Err(Error::Closed)));
    assert_eq!(files(&*fs), before);
}

/// Whatever makes a segment fails, nothing of it stays, and syncing and retiring go on.
#[test]
fn a_segment_that_cannot_be_made_stops_nothing_else_and_leaves_nothing() {
    let every = [
        OpKind::Create,
        OpKind::Write,
        OpKind::Sync,
        OpKind::SyncDir,
        OpKind::Rename,
        OpKind::Open,
    ];
    for kind in every {
        for nth in 0..2 {
            let disk = FaultFs::new(Arc::new(SimFs::new()));
            let fs: Arc<dyn Fs> = Arc::new(disk.clone());
            let (mut writer, log) = open(&fs, DIR.as_ref(), config(512));
            for n in 1..=3 {
                writer.append(SeqNo(n), SeqNo(n), &[&[1; 300]], 0).unwrap();
            }
            let names = fs.read_dir(DIR.as_ref()).unwrap();
            disk.plan(FaultPlan::once(&[kind], nth, Fault::Full));
            let prepared = log.prepare();
            if disk.fired() == 0 {
                continue;
            }
            assert!(prepared.is_err(), "{kind:?} {nth}");
            assert_eq!(fs.read_dir(DIR.as_ref()).unwrap(), names, "{kind:?} {nth}");

            let full = FaultPlan::once(&OpKind::TAKING_SPACE, 0, Fault::Full)
                .and_then_all(&OpKind::TAKING_SPACE);
            disk.plan(full);
            assert!(log.prepare().is_err());
            assert_eq!(log.sync().unwrap(), SeqNo(3));
            log.retire(Some(SeqNo(3))).unwrap();
            assert_eq!(fs.read_dir(DIR.as_ref()).unwrap().len(), 2);
            disk.heal();
            writer.append(SeqNo(4), SeqNo(4), &[&[1; 300]], 0).unwrap();
        }
    }
}

/// Segments whose records are known to be durable were synced again, however many they were.
#[test]
fn opening_syncs_only_what_nothing_proves_to_be_durable() {
    let disk = FaultFs::new(Arc::new(SimFs::new()));
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let (mut writer, log) = open(&fs, DIR.as_ref(), config(512));
    for n in 1..=40 {
        writer.append(SeqNo(n), SeqNo(n), &[&[7; 300]], 0).unwrap();
    }
    log.sync().unwrap();
    writer
        .append(SeqNo(41), SeqNo(41), &[&[7; 300]], 0)
        .unwrap();
    drop((writer, log));
    let before = disk.count(OpKind::Sync);
    let (recovery, _, last) = recover_knowing(&fs, DIR.as_ref(), SeqNo(40)).unwrap();
    recovery.into_log(config(512), last).unwrap();
    // The last segment with a record, and the new one.
    assert_eq!(disk.count(OpKind::Sync) - before, 2);
}

/// A log of which nothing was needed kept its segments of full length.
#[test]
fn a_log_that_nothing_is_needed_of_shrinks_to_a_small_segment() {
    const FULL_LEN_BYTES: u64 = 8 << 20;
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let (mut writer, log) = open(&fs, DIR.as_ref(), config(FULL_LEN_BYTES));
    let mut last = SeqNo::ZERO;
    for _ in 0..40 {
        last = last.next();
        writer.append(last, last, &[&[1; 700 << 10]], 0).unwrap();
        log.prepare().unwrap();
    }
    log.retire(Some(last)).unwrap();
    assert!(log.is_long() && log.stats().disk_bytes >= 2 * FULL_LEN_BYTES);
    let on_disk = || {
        let len = |path: &PathBuf| fs.open(path, OpenMode::Read).unwrap().len().unwrap();
        files(&*fs).iter().map(len).sum::<u64>()
    };

    // As long as the last record is needed: what was made in advance.
    log.free_stock(true).unwrap();
    assert_eq!(
        (on_disk(), log.stats().disk_bytes),
        (FULL_LEN_BYTES, FULL_LEN_BYTES)
    );

    log.prepare_small().unwrap();
    assert!(writer.shorten().unwrap());
    log.retire(Some(last.next())).unwrap();
    log.free_stock(true).unwrap();
    assert_eq!((on_disk(), log.stats().disk_bytes), (1 << 20, 1 << 20));
    assert!(!log.is_long() && !writer.shorten().unwrap());

    // It is used as any other, and segments grow again.
    for n in 1..=4 {
        let seq = last.plus(n);
        writer.append(seq, seq, &[&[1; 700 << 10]], 0).unwrap();
    }
    log.sync().unwrap();
    assert_eq!(log.stats().disk_bytes, 5 << 20);
    let (_, found, end) = recover(&fs, DIR.as_ref()).unwrap();
    assert_eq!((found.len(), end), (4, last.plus(4)));
}

/// The number after it was zero: a segment that recovery did not look for.
#[test]
fn files_with_the_highest_numbers_are_refused_by_name() {
    for name in [
        "ffffffffffffffff.log",
        "ffffffffffffffff.tmp",
        "4000000000000000.tmp",
        "ffffffffffffffff.val",
        "4000000000000000.val",
    ] {
        let (mem, _) = small_log(2);
        let fs: Arc<dyn Fs> = Arc::new(mem);
        let path = Path::new(DIR).join(name);
        fs.open(&path, OpenMode::CreateNew).unwrap();
        match recover(&fs, DIR.as_ref()) {
            Err(Error::Corruption { file, .. }) => assert_eq!(file, path),
            other => panic!("{name}: {other:?}"),
        }
        fs.remove_file(&path).unwrap();
        recover(&fs, DIR.as_ref()).unwrap();
    }
    // The highest that is taken leaves no number for the segment that opening makes.
    let (mem, _) = small_log(2);
    let fs: Arc<dyn Fs> = Arc::new(mem);
    for name in ["3fffffffffffffff.tmp", "3fffffffffffffff.val"] {
        let path = Path::new(DIR).join(name);
        fs.open(&path, OpenMode::CreateNew).unwrap();
        let before = files(&*fs);
        let (recovery, _, last) = recover(&fs, DIR.as_ref()).unwrap();
        let opened = recovery.into_log(config(512), last);
        assert!(opened.unwrap_err().is_corruption());
        assert_eq!(files(&*fs), before);
        fs.remove_file(&path).unwrap();
    }
}

/// A segment leaves the log by a rename, which never leaves both names.
#[test]
fn a_value_file_beside_its_segment_is_refused_by_name() {
    let (mem, _) = small_log(2);
    let fs: Arc<dyn Fs> = Arc::new(mem);
    let path = Path::new(DIR).join("0000000000000001.val");
    fs.open(&path, OpenMode::CreateNew).unwrap();
    match recover(&fs, DIR.as_ref()) {
        Err(Error::Corruption { file, .. }) => assert_eq!(file, path),
        other => panic!("{other:?}"),
    }
    fs.remove_file(&path).unwrap();
    recover(&fs, DIR.as_ref()).unwrap();
}

/// A record that ended with the highest number was written and acknowledged, and not read again.
#[test]
fn what_is_appended_at_the_end_of_the_numbers_is_read_again() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let (recovery, _, _) = recover(&fs, DIR.as_ref()).unwrap();
    let near = SeqNo(SeqNo::MAX.0 - 3);
    let (mut writer, log) = recovery.into_log(config(512), near).unwrap();
    let next = near.next();
    for too_high in [SeqNo::MAX, SeqNo(u64::MAX)] {
        let refused = writer.append(next, too_high, &[b"lost"], 0);
        assert!(matches!(refused, Err(Error::InvalidArgument { .. })));
    }
    writer.append(next, next.next(), &[b"kept"], 0).unwrap();
    let refused = writer.append(SeqNo::MAX, SeqNo::MAX, &[b"lost"], 0);
    assert!(matches!(refused, Err(Error::InvalidArgument { .. })));
    assert_eq!(log.appended_seq(), next.next());
    let (_, found, last) = recover(&fs, DIR.as_ref()).unwrap();
    assert_eq!((found.len(), last), (1, next.next()));
    assert_eq!(found[0].payload, b"kept");
}

/// Appends `count` records of `len` bytes behind `last`.
fn append_behind(writer: &mut Writer, last: &mut SeqNo, count: u64, len: usize) {
    for _ in 0..count {
        *last = last.next();
        let payload = vec![last.0 as u8; len];
        writer.append(*last, *last, &[&payload], 0).unwrap();
    }
}

/// The log was not read by the scrub at all.
#[test]
fn the_scrub_reads_what_is_durable() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let (mut writer, log) = open(&fs, DIR.as_ref(), config(1024));
    let mut last = SeqNo::ZERO;
    // One is longer than what is read at once, and has a segment of its own.
    append_behind(&mut writer, &mut last, 20, 150);
    append_behind(&mut writer, &mut last, 1, 300 << 10);
    append_behind(&mut writer, &mut last, 20, 150);
    log.sync().unwrap();
    append_behind(&mut writer, &mut last, 3, 150);
    let mut read_bytes = 0;
    let problems = log.scrub(&mut |bytes| {
        read_bytes += bytes;
        Ok(())
    });
    assert!(problems.as_ref().unwrap().is_empty(), "{problems:?}");
    assert!(read_bytes >= (300 << 10) + 40 * 150, "{read_bytes}");
    let ended = log.scrub(&mut |_| Err(Error::Closed));
    assert!(matches!(ended, Err(Error::Closed)));

    let spans = log.chain().spans();
    for span in &spans[..spans.len() - 1] {
        let file = fs.open(&span.path, OpenMode::ReadWrite).unwrap();
        for at in [20, 90, 200] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[!byte[0]], at).unwrap();
            let problems = log.scrub(&mut |_| Ok(())).unwrap();
            assert_eq!(problems.len(), 1, "{problems:?}");
            let name = span.path.file_name().unwrap().to_str().unwrap();
            assert!(problems[0].is_corruption() && problems[0].to_string().contains(name));
            file.write_all_at(&byte, at).unwrap();
        }
    }
}

/// A segment was deleted while the scrub read it, and its file was the next one by then.
#[test]
fn the_scrub_blames_no_segment_that_went() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let (mut writer, log) = open(&fs, DIR.as_ref(), config(1 << 20));
    let mut last = SeqNo::ZERO;
    append_behind(&mut writer, &mut last, 20, 60_000);
    log.sync().unwrap();
    let mut pieces = 0;
    let problems = log.scrub(&mut |_| {
        pieces += 1;
        if pieces == 1 {
            append_behind(&mut writer, &mut last, 20, 60_000);
            log.sync()?;
            log.retire(Some(last))?;
            append_behind(&mut writer, &mut last, 40, 60_000);
            log.sync()?;
        }
        Ok(())
    });
    assert!(problems.as_ref().unwrap().is_empty(), "{problems:?}");
    assert!(log.stats().segments_recycled > 0 && pieces > 1, "{pieces}");
}
