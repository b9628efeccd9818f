//! The file system in memory against the operating system's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{File, Fs, OpenMode, SimFs, StdFs, read_all, replace_file};
use crate::error::{Error, Result};
use crate::format::checksum::mix64;

/// What an operation answered, without what may differ between file systems.
fn answer<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(Error::Io { op, source, .. }) => format!("{op}: {:?}", source.kind()),
        Err(e) => format!("{e:?}"),
    }
}

#[test]
fn both_file_systems_answer_alike() {
    for seed in 0..20 {
        let home = tempfile::tempdir().unwrap();
        let sides: [(Box<dyn Fs>, PathBuf); 2] = [
            (Box::new(StdFs::new()), home.path().to_path_buf()),
            (Box::new(SimFs::new()), PathBuf::from("/")),
        ];
        let mut handles: [BTreeMap<u64, Arc<dyn File>>; 2] = Default::default();
        for step in 0..300 {
            let answers = [0, 1].map(|side| {
                let (fs, root) = &sides[side];
                // The same choices on both sides.
                let mut state = mix64(seed * 1_000 + step);
                let mut below = |n: u64| {
                    state = mix64(state.wrapping_add(0x9E37_79B9_7F4A_7C15));
                    state % n
                };
                let mut path = || {
                    let dir = ["", "d", "e"][below(3) as usize];
                    root.join(dir).join(["x", "y", "z"][below(3) as usize])
                };
                let (one, other) = (path(), path());
                let slot = below(4);
                let handles = &mut handles[side];
                match below(15) {
                    op @ 0..3 => {
                        let mode = if op == 0 {
                            OpenMode::ReadWrite
                        } else {
                            OpenMode::CreateNew
                        };
                        let file = fs.open(&one, mode);
                        answer(file.map(|file| {
                            handles.insert(slot, file);
                        }))
                    }
                    3 => answer(fs.rename(&one, &other)),
                    4 => answer(fs.remove_file(&one)),
                    5 => {
                        let dir = root.join(["d", "e"][below(2) as usize]);
                        match below(3) {
                            0 => answer(fs.create_dir_all(&dir)),
                            1 => answer(fs.sync_dir(&dir)),
                            _ => answer(fs.remove_dir(&dir)),
                        }
                    }
                    6 => answer(fs.exists(&one)),
                    7 => answer(fs.read_dir(root)),
                    14 => answer(fs.rename_new(&one, &other)),
                    op => match handles.get(&slot) {
                        None => String::new(),
                        Some(file) => match op {
                            8..11 => {
                                let bytes = vec![below(256) as u8; below(6000) as usize];
                                answer(file.write_all_at(&bytes, below(9000)))
                            }
                            11 => answer(file.set_len(below(12_000))),
                            12 => answer(file.sync_data()),
                            _ => answer(read_all(&**file, 1 << 20)),
                        },
                    },
                }
            });
            assert_eq!(answers[0], answers[1], "seed {seed}, step {step}");
        }
    }
}

/// Reads past the operating system's cache begin and end at borders of blocks.
#[test]
fn uncached_reads_find_what_is_in_the_file() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("file");
    let bytes: Vec<u8> = (0..10_000_u32).map(|at| (at / 7) as u8).collect();
    let fs = StdFs::new();
    let file = fs.open(&path, OpenMode::CreateNew).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let file = fs.open_uncached(&path).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
    let places = [
        0..0,
        0..1,
        0..10_000,
        4095..4097,
        4096..8192,
        9999..10_000,
        8191..10_000,
    ];
    for place in places {
        let mut read = vec![0; place.len()];
        file.read_exact_at(&mut read, place.start as u64).unwrap();
        assert!(read == bytes[place.clone()], "{place:?}");
    }
    for at in [9999, 10_000, 20_000] {
        assert!(file.read_exact_at(&mut [0; 2], at).is_err(), "{at}");
    }
    assert!(fs.open_uncached(&scratch.path().join("none")).is_err());
}

#[test]
fn what_was_just_written_is_in_memory() {
    let home = tempfile::tempdir().unwrap();
    let fs = StdFs::new();
    let file = fs
        .open(&home.path().join("f"), OpenMode::CreateNew)
        .unwrap();
    file.write_all_at(&[7; 8192], 0).unwrap();
    if cfg!(target_os = "linux") {
        // Not all file systems can tell.
        assert_ne!(file.is_in_memory(4096), Some(false));
    }
    assert_eq!(file.is_in_memory(1 << 20), None);
}

/// Places that cannot be are no error, nor is a file of which nothing may be written.
#[test]
fn beginning_to_write_changes_nothing_of_a_file() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("f");
    let fs = StdFs::new();
    let file = fs.open(&path, OpenMode::CreateNew).unwrap();
    file.write_all_at(&[7; 8192], 0).unwrap();
    for file in [file, fs.open(&path, OpenMode::Read).unwrap()] {
        for (offset, len) in [(0, 8192), (4096, u64::MAX), (u64::MAX, 1), (1 << 40, 0)] {
            file.start_writeback(offset, len).unwrap();
        }
        assert_eq!(file.len().unwrap(), 8192);
        let mut bytes = [0; 8192];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [7; 8192]);
    }
}

#[test]
fn a_replaced_file_outlasts_a_power_loss_and_is_never_in_between() {
    let dir = Path::new("/store");
    let content = |fs: &SimFs| {
        let file = fs.open(&dir.join("name"), OpenMode::Read).unwrap();
        read_all(&*file, 64).unwrap()
    };
    let fs = SimFs::new();
    fs.create_dir_all(dir).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    replace_file(&fs, dir, "name", b"the old one").unwrap();
    assert_eq!(content(&fs.crash()), b"the old one");
    let changes = Arc::new(AtomicU64::new(0));
    fs.on_change({
        let changes = Arc::clone(&changes);
        move |fs, _| {
            let change = changes.fetch_add(1, Ordering::Relaxed);
            for seed in 0..16 {
                let found = content(&fs.crash_keeping(seed));
                let is_whole = found == b"the old one" || found == b"the new one";
                assert!(is_whole, "before change {change}, seed {seed}: {found:?}");
            }
        }
    });
    replace_file(&fs, dir, "name", b"the new one").unwrap();
    // The temporary file is made, written and synced, and it is renamed durably.
    assert_eq!(changes.load(Ordering::Relaxed), 5);
    assert_eq!(content(&fs.crash()), b"the new one");
}
