//! Segments that were cut when the log was closed, or after a kill.

use super::*;
use crate::wal::segment::{CUT_NOTE_AT, CUT_NOTE_LEN_BYTES};

const FULL_LEN_BYTES: u64 = 64 << 10;
/// What stays free behind the records.
const FREE_LEN_BYTES: u64 = FULL_LEN_BYTES / 4;
/// Of a record of this file.
const RECORD_LEN_BYTES: u64 = (RECORD_HEADER_LEN_BYTES as u64 + 90).next_multiple_of(8);

fn append(writer: &mut Writer, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        let payload = [n as u8; 90];
        writer.append(SeqNo(n), SeqNo(n), &[&payload], 0).unwrap();
    }
}

fn begin(fs: &Arc<dyn Fs>) -> (Writer, Arc<Log>) {
    let (mut writer, log) = open(fs, DIR.as_ref(), config(FULL_LEN_BYTES));
    append(&mut writer, 1..=8);
    log.sync().unwrap();
    (writer, log)
}

/// A log with eight records, closed and cut.
fn cut_log() -> (SimFs, Vec<Entry>) {
    let mem = SimFs::new();
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    let (mut writer, _log) = begin(&fs);
    writer.cut().unwrap();
    let (_, found, _) = recover(&fs, DIR.as_ref()).unwrap();
    assert_eq!(found.len(), 8);
    (mem, found)
}

fn only_file(fs: &dyn Fs) -> Arc<dyn crate::fs::File> {
    let paths = files(fs);
    assert_eq!(paths.len(), 1);
    fs.open(&paths[0], OpenMode::ReadWrite).unwrap()
}

/// Length of a segment that was cut behind so many records.
fn len_behind(records: u64) -> u64 {
    HEADER_LEN_BYTES as u64 + records * RECORD_LEN_BYTES + FREE_LEN_BYTES
}

/// Opens the log of a store that knows it to be durable up to number 8.
fn go_on_closed(fs: &Arc<dyn Fs>, full_len_bytes: u64) -> Result<(Writer, Arc<Log>)> {
    let (recovery, _, last) = recover_knowing(fs, DIR.as_ref(), SeqNo(8))?;
    assert_eq!(last, SeqNo(8));
    recovery.into_log(config(full_len_bytes), last)
}

fn assert_has(fs: SimFs, records: u64, whole: &[Entry]) {
    let fs: Arc<dyn Fs> = Arc::new(fs);
    let (_, found, last) = recover(&fs, DIR.as_ref()).unwrap();
    assert_eq!((found.len() as u64, last), (records, SeqNo(records)));
    assert_eq!(found[..whole.len()], *whole);
}

/// A closed log kept the whole of its last segment, however little was in it.
#[test]
fn a_closed_log_gives_back_what_is_free_in_its_segment() {
    let (mem, whole) = cut_log();
    assert_eq!(only_file(&mem).len().unwrap(), len_behind(8));
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    let (mut writer, log) = go_on_closed(&fs, FULL_LEN_BYTES).unwrap();
    assert_eq!(log.stats().disk_bytes, len_behind(8));
    append(&mut writer, 9..=40);
    log.sync().unwrap();
    // Once only, though there would be something to gain: it is gone on in as it is.
    writer.cut().unwrap();
    assert_eq!(only_file(&mem).len().unwrap(), len_behind(8));
    assert_has(mem.crash(), 40, &whole);
    // It ends where its file does.
    append(&mut writer, 41..=300);
    log.sync().unwrap();
    assert_eq!(files(&mem).len(), 2);
    assert_has(mem.crash(), 300, &whole);
}

/// A killed log did so, too, and the next opening began another one behind it.
#[test]
fn a_killed_log_gives_back_what_is_free_in_its_segment() {
    let mem = SimFs::new();
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    let (mut writer, _log) = begin(&fs);
    append(&mut writer, 9..=9);
    let killed = mem.killed();
    let fs: Arc<dyn Fs> = Arc::new(killed.clone());
    let (recovery, found, last) = recover(&fs, DIR.as_ref()).unwrap();
    let (mut writer, log) = go_on(recovery, config(FULL_LEN_BYTES), last).unwrap();
    assert_eq!(only_file(&killed).len().unwrap(), len_behind(9));
    assert_eq!(log.stats().disk_bytes, len_behind(9));
    append(&mut writer, 10..=20);
    assert_has(killed, 20, &found);
}

/// Power may fail while a segment is cut, in either of the two ways to that.
#[test]
fn a_power_loss_at_any_moment_of_a_cut_leaves_the_log() {
    let lengths = Arc::new(std::sync::Mutex::new(Vec::new()));
    let look = |lengths: &std::sync::Mutex<Vec<u64>>, image: SimFs| {
        lengths
            .lock()
            .unwrap()
            .push(only_file(&image).len().unwrap());
        assert_has(image, 8, &[]);
    };
    let watched = |act: &dyn Fn(&Arc<dyn Fs>, &mut Writer)| {
        let mem = SimFs::new();
        let fs: Arc<dyn Fs> = Arc::new(mem.clone());
        let (mut writer, _log) = begin(&fs);
        let seen = Arc::clone(&lengths);
        mem.on_change(move |before, _| {
            (0..100).for_each(|seed| look(&seen, before.crash_keeping(seed)));
        });
        act(&fs, &mut writer);
        mem.clear_hook();
        (0..100).for_each(|seed| look(&lengths, mem.crash_keeping(seed)));
        assert_eq!(only_file(&mem).len().unwrap(), len_behind(8));
        let mut seen = std::mem::take(&mut *lengths.lock().unwrap());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [len_behind(8), FULL_LEN_BYTES]);
    };
    watched(&|_, writer| writer.cut().unwrap());
    watched(&|fs, _| drop(go_on_closed(fs, FULL_LEN_BYTES).unwrap()));
}

/// A second note would be written into a file that depends on the first.
#[test]
fn a_segment_is_cut_once() {
    let (mem, whole) = cut_log();
    mem.on_change(move |before, _| {
        (0..100).for_each(|seed| assert_has(before.crash_keeping(seed), 8, &whole));
    });
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    // Segments are shorter now, and less of them may be free.
    let (mut writer, _log) = go_on_closed(&fs, FULL_LEN_BYTES / 2).unwrap();
    assert_eq!(only_file(&mem).len().unwrap(), len_behind(8));
    writer.cut().unwrap();
    assert_eq!(only_file(&mem).len().unwrap(), len_behind(8));
}

/// The length of a segment was fixed, so a file that had lost its end was noticed; one that the
/// store has cut is no exception.
#[test]
fn every_other_length_of_a_segment_that_was_cut_is_damage() {
    let (mem, _) = cut_log();
    let len = only_file(&mem).len().unwrap();
    for other in (0..len).step_by(7).chain([len - 1, len + 1, len + 100]) {
        let image = mem.killed();
        only_file(&image).set_len(other).unwrap();
        let fs: Arc<dyn Fs> = Arc::new(image);
        let refused = recover(&fs, DIR.as_ref()).unwrap_err();
        assert!(refused.is_corruption(), "{other}: {refused}");
    }
    for bit in 8 * CUT_NOTE_AT..8 * (CUT_NOTE_AT + CUT_NOTE_LEN_BYTES) {
        let image = mem.killed();
        flip(&*only_file(&image), bit);
        let fs: Arc<dyn Fs> = Arc::new(image);
        let refused = recover(&fs, DIR.as_ref()).unwrap_err();
        assert!(refused.is_corruption(), "bit {bit}: {refused}");
    }
}

/// Nothing is cut when its note cannot be made durable, and nothing is lost by that.
#[test]
fn a_note_that_is_not_durable_cuts_nothing() {
    let mem = SimFs::new();
    let disk = FaultFs::new(Arc::new(mem.clone()));
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let (mut writer, _log) = begin(&fs);
    disk.plan(FaultPlan::once(&[OpKind::Sync], 0, Fault::SyncLost));
    assert!(writer.cut().is_err());
    assert_eq!(only_file(&*fs).len().unwrap(), FULL_LEN_BYTES);
    assert_has(mem.crash(), 8, &[]);
    // As an opening does that follows.
    drop(go_on_closed(&fs, FULL_LEN_BYTES).unwrap());
    assert_eq!(only_file(&*fs).len().unwrap(), len_behind(8));
    assert_has(mem.crash(), 8, &[]);
}

/// An I/O error in the free end of the last segment kept a store from opening, where another
/// segment does.
#[test]
fn an_error_in_the_last_segment_begins_another_one() {
    let (mem, whole) = cut_log();
    let mut fired = 0;
    for kind in [OpKind::Write, OpKind::Sync, OpKind::SetLen] {
        for (nth, is_cut) in (0..4).flat_map(|nth| [(nth, false), (nth, true)]) {
            let image = match is_cut {
                true => mem.killed(),
                false => {
                    let image = SimFs::new();
                    begin(&(Arc::new(image.clone()) as Arc<dyn Fs>));
                    image.killed()
                }
            };
            let disk = FaultFs::new(Arc::new(image.clone()));
            let fs: Arc<dyn Fs> = Arc::new(disk.clone());
            let (recovery, _, last) = recover_knowing(&fs, DIR.as_ref(), SeqNo(8)).unwrap();
            disk.plan(FaultPlan::once(&[kind], nth, Fault::Io));
            let opened = recovery.into_log(config(FULL_LEN_BYTES), last);
            let (mut writer, log) = opened.unwrap_or_else(|e| panic!("{kind:?} {nth}: {e}"));
            if disk.fired() == 0 {
                continue;
            }
            fired += 1;
            assert_eq!(files(&image).len(), 2, "{kind:?} {nth}");
            append(&mut writer, 9..=12);
            log.sync().unwrap();
            assert_has(image.crash(), 12, &whole);
        }
    }
    assert!(fired >= 6, "{fired}");
}

#[test]
fn golden_bytes_of_a_cut_note() {
    let (mem, _) = cut_log();
    let mut note = [0; CUT_NOTE_LEN_BYTES];
    let file = only_file(&mem);
    file.read_exact_at(&mut note, CUT_NOTE_AT as u64).unwrap();
    let mut golden = CUT_NOTE_SUM.to_le_bytes().to_vec();
    golden.extend_from_slice(&0_u32.to_le_bytes());
    for word in [len_behind(8), 0, 0] {
        golden.extend_from_slice(&word.to_le_bytes());
    }
    assert_eq!(note[..], golden[..]);
}

// Computed by an independent program from docs/format.md.
const CUT_NOTE_SUM: u32 = 0x02DF_E93F;
