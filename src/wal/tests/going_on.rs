//! Openings that go on in the last segment.

use super::*;

/// Opens the log of a store that was closed, and so knows that it was durable up to its end.
fn open_closed(fs: &Arc<dyn Fs>, segment_bytes: u64) -> (Writer, Arc<Log>, SeqNo) {
    let (_, _, last) = recover(fs, DIR.as_ref()).unwrap();
    let (recovery, _, last) = recover_knowing(fs, DIR.as_ref(), last).unwrap();
    let (writer, log) = recovery.into_log(config(segment_bytes), last).unwrap();
    (writer, log, last)
}

/// Opens the log of a store that was killed, and says that it is durable once it is.
fn open_killed(fs: &Arc<dyn Fs>, segment_bytes: u64) -> Result<(Writer, Arc<Log>, SeqNo)> {
    let (recovery, _, last) = recover(fs, DIR.as_ref())?;
    let (writer, log) = go_on(recovery, config(segment_bytes), last)?;
    Ok((writer, log, last))
}

/// Each opening began a segment, and synced all older ones: 120 openings left 120 MiB.
#[test]
fn a_log_that_was_closed_goes_on_in_its_segment() {
    let disk = FaultFs::new(Arc::new(SimFs::new()));
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    for n in 1..=200 {
        let syncs = disk.count(OpKind::Sync);
        let (mut writer, log, last) = open_closed(&fs, 64 << 20);
        assert_eq!(last, SeqNo(n - 1));
        writer.append(SeqNo(n), SeqNo(n), &[&[7; 100]], 0).unwrap();
        log.sync().unwrap();
        assert_eq!(log.stats().disk_bytes, 1 << 20, "opening {n}");
        assert_eq!(files(&*fs).len(), 1);
        assert!(disk.count(OpKind::Sync) - syncs <= 2, "opening {n}");
    }
    // Without that knowledge a new one begins.
    drop(open(&fs, DIR.as_ref(), config(64 << 20)));
    assert_eq!(files(&*fs).len(), 2);
}

/// The end of a process is not a close, and each opening after one began a segment.
#[test]
fn a_log_that_was_killed_goes_on_in_its_segment() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    for n in 1..=200 {
        let (mut writer, log, last) = open_killed(&fs, 64 << 20).unwrap();
        assert_eq!(last, SeqNo(n - 1));
        writer.append(SeqNo(n), SeqNo(n), &[&[7; 100]], 0).unwrap();
        assert_eq!(log.stats().disk_bytes, 1 << 20, "opening {n}");
        assert_eq!(files(&*fs).len(), 1);
    }
}

/// Where segment 1 of [`torn_log`] holds its second and third record.
const SECOND_AT: u64 = HEADER_LEN_BYTES as u64 + RECORD_LEN_BYTES;
const THIRD_AT: u64 = SECOND_AT + RECORD_LEN_BYTES;
const RECORD_LEN_BYTES: u64 = 2048;

/// Three records that nothing has synced, of which the second is not whole: `wrong` overwrites a
/// part of it.
fn torn_log(wrong: impl FnOnce(&dyn crate::fs::File)) -> SimFs {
    let mem = SimFs::new();
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    let (mut writer, _log) = open(&fs, DIR.as_ref(), config(1 << 20));
    let payload = vec![0; RECORD_LEN_BYTES as usize - RECORD_HEADER_LEN_BYTES];
    for n in 1..=3 {
        writer.append(SeqNo(n), SeqNo(n), &[&payload], 0).unwrap();
    }
    let segment = fs.open(&files(&mem)[0], OpenMode::ReadWrite).unwrap();
    wrong(&*segment);
    segment.sync_data().unwrap();
    assert_eq!(recover(&fs, DIR.as_ref()).unwrap().2, SeqNo(1));
    mem.crash()
}

/// Behind a record of the same length as the one that was lost, the next one counted again.
#[test]
fn what_follows_a_torn_record_does_not_come_back() {
    let mem = torn_log(|segment| segment.write_all_at(&[1], SECOND_AT + 1000).unwrap());
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    let (mut writer, log, last) = open_killed(&fs, 1 << 20).unwrap();
    assert_eq!((last, files(&mem).len()), (SeqNo(1), 1));
    let payload = vec![2; RECORD_LEN_BYTES as usize - RECORD_HEADER_LEN_BYTES];
    writer.append(SeqNo(2), SeqNo(2), &[&payload], 0).unwrap();
    log.sync().unwrap();
    for fs in [mem.killed(), mem.crash()] {
        let fs: Arc<dyn Fs> = Arc::new(fs);
        let (_, found, last) = recover(&fs, DIR.as_ref()).unwrap();
        assert_eq!((found.len(), last), (2, SeqNo(2)));
        assert_eq!(found[1].payload, payload);
    }
    let mut third = [1; RECORD_HEADER_LEN_BYTES];
    let segment = fs.open(&files(&mem)[0], OpenMode::Read).unwrap();
    segment.read_exact_at(&mut third, THIRD_AT).unwrap();
    assert_eq!(third, [0; RECORD_HEADER_LEN_BYTES]);
}

/// A record of zeros, of which a sector had not arrived, was made whole by an opening that was cut
/// short while it wrote zeros there: a commit that was gone came back.
#[test]
fn an_opening_that_is_cut_short_makes_no_torn_record_whole() {
    let sector_at = (SECOND_AT + 1000) / 512 * 512;
    let mem = torn_log(|segment| segment.write_all_at(&[1; 512], sector_at).unwrap());
    let states = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&states);
    mem.on_change(move |before, _| {
        for seed in 0..20 {
            let fs: Arc<dyn Fs> = Arc::new(before.crash_keeping(seed));
            assert_eq!(recover(&fs, DIR.as_ref()).unwrap().2, SeqNo(1));
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    open_killed(&fs, 1 << 20).unwrap();
    assert!(states.load(Ordering::Relaxed) > 100);
}
