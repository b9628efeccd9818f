//! Blocks, pages and files from another place or time: every one is intact by itself.

use std::path::PathBuf;

use support::rig::{effort, figure};

use super::*;

/// What a B-tree's pages are long in the samples.
pub const PAGE: usize = 1024;

pub fn trees(sample: &Sample) -> Vec<PathBuf> {
    let files = sample.image.data_files();
    files
        .filter(|(path, _)| path.ends_with("tree.hdb"))
        .map(|(path, _)| path.clone())
        .collect()
}

/// Chunks of `len` bytes of one file change places.
fn swap_chunks(sample: &Sample, tally: &mut Tally, path: &Path, len: usize) -> u64 {
    let count = sample.image.files[path].len() / len;
    let mut random = Random::new(7);
    let mut tried = 0;
    for one in 0..count {
        for other in one + 1..count {
            if effort() < 10 && !random.one_in(1 + (count * count / 160) as u64) {
                continue;
            }
            let story = format!(
                "chunks {one} and {other} of {len} bytes of {} swapped",
                path.display()
            );
            sweep_one(sample, tally, &story, |image| {
                let bytes = image.files.get_mut(path).expect("a file");
                let (front, back) = bytes.split_at_mut(other * len);
                front[one * len..(one + 1) * len].swap_with_slice(&mut back[..len]);
            });
            tried += 1;
        }
    }
    tried
}

#[test]
fn pages_of_a_tree_swapped() {
    let sample = sample(63);
    let mut tally = Tally::default();
    let mut tried = 0;
    for path in trees(&sample) {
        tried += swap_chunks(&sample, &mut tally, &path, PAGE);
    }
    figure("swapped pages", tried);
    report(format_args!("swapped pages: {tally:?}"));
}

/// Sectors of tables, manifests and log segments change places.
#[test]
fn sectors_swapped() {
    let sample = sample(64);
    let mut tally = Tally::default();
    let mut tried = 0;
    let paths: Vec<_> = sample
        .image
        .data_files()
        .map(|(path, _)| path.clone())
        .collect();
    for path in paths {
        if is_log(&path) {
            // Most of a segment is zeros.
            let mut sample = Sample {
                image: sample.image.clone(),
                states: sample.states.clone(),
            };
            let used = sample.image.files[&path]
                .iter()
                .rposition(|byte| *byte != 0)
                .unwrap_or(0);
            let keep = (used + 1).next_multiple_of(512);
            let mut tail =
                sample.image.files[&path][keep.min(sample.image.files[&path].len())..].to_vec();
            let file = sample.image.files.get_mut(&path).expect("a file");
            file.truncate(keep);
            let chunks = keep / 512;
            let mut random = Random::new(9);
            for _ in 0..40 * effort() {
                let one = random.below(chunks as u64) as usize;
                let other = random.below(chunks as u64) as usize;
                if one == other {
                    continue;
                }
                let story = format!("sectors {one} and {other} of {} swapped", path.display());
                sweep_one(&sample, &mut tally, &story, |image| {
                    let bytes = image.files.get_mut(&path).expect("a file");
                    for at in 0..512 {
                        bytes.swap(one * 512 + at, other * 512 + at);
                    }
                    bytes.append(&mut tail.clone());
                });
                tried += 1;
            }
            tail.clear();
            continue;
        }
        if path.ends_with("tree.hdb") {
            continue;
        }
        tried += swap_chunks(&sample, &mut tally, &path, 512);
    }
    figure("swapped sectors", tried);
    report(format_args!("swapped sectors: {tally:?}"));
}

/// A store at two moments: files that are there at both, and differ. With `is_short` the log has
/// deleted most of what happened in between.
fn two_moments(is_short: bool) -> (Sample, Image) {
    let (mut rig, keyspaces) = sample_rig();
    let mut state = State::default();
    let mut states = vec![state.clone()];
    let mut random = Random::new(65);
    let mut earlier = None;
    for n in 0..240u32 {
        let at = n as usize % 2;
        let key = (random.below(120) as u32).to_be_bytes().to_vec();
        let value = random.bytes(90);
        keyspaces[at].put(&key, &value).unwrap();
        state[at].insert(key, value);
        states.push(state.clone());
        if is_short && n < 220 {
            fill_log(&mut rig, &keyspaces[at]);
        }
        if n % 40 == 39 {
            rig.db().flush().unwrap();
        }
        if n == 120 {
            earlier = Some(Image::of(&**rig.fs(), rig.path()));
        }
    }
    (
        sample_of(rig, keyspaces, states),
        earlier.expect("the middle"),
    )
}

/// One whole file as it was earlier. While the log holds what happened since, nothing is lost; when
/// those segments were deleted, the WAL manifest shows it.
#[test]
fn files_from_an_earlier_moment() {
    let mut tally = Tally::default();
    for is_short in [false, true] {
        let (sample, earlier) = two_moments(is_short);
        for (path, old) in earlier.data_files() {
            let Some(new) = sample.image.files.get(path).filter(|new| *new != old) else {
                continue;
            };
            assert!(!new.is_empty());
            let story = format!("{} from earlier", path.display());
            let fate = sweep_one(&sample, &mut tally, &story, |image| {
                image.files.insert(path.clone(), old.clone());
            });
            if is_short && path.ends_with("tree.hdb") {
                assert!(matches!(fate, Fate::Refused(file) if file.ends_with(path)));
            }
        }
    }
    report(format_args!("earlier files: {tally:?}"));
}

/// A manifest was cut back to an earlier edit, by a power loss with a disk that lied, or a copy
/// that ended early. Each of its records is intact, and the log had deleted what the lost edits
/// persisted: the store opened, and was an older one.
#[test]
fn a_manifest_cut_back_behind_what_the_log_deleted() {
    let sample = shaped(66, Shape::ShortLog);
    let manifests = sample.image.data_files();
    let (path, bytes) = manifests
        .filter(|(path, _)| path.to_string_lossy().contains("MANIFEST-"))
        .max_by_key(|(_, bytes)| bytes.len())
        .expect("a manifest");
    let mut refused = 0;
    for len in 0..bytes.len() {
        let mut image = sample.image.clone();
        image.files.get_mut(path).expect("a file").truncate(len);
        let fs = SimFs::new();
        image.write(&fs, Path::new("/store"));
        for read_only in [true, false] {
            let options = tiny(hedgerow::Options::new()).fs(Arc::new(fs.clone()));
            match options.read_only(read_only).open("/store") {
                Err(Error::Corruption {
                    file, offset, what, ..
                }) => {
                    if what.contains("was persisted") {
                        assert!(file.ends_with(path) && offset <= len as u64, "{what}");
                        refused += 1;
                        // Salvage of what is left finds it as it was.
                        assert!(Image::of(&fs, Path::new("/store")) == image, "cut to {len}");
                    }
                }
                Ok(_) => {}
                Err(error) => panic!("cut to {len}: {error}"),
            }
        }
    }
    assert!(
        refused > 20,
        "only {refused} cuts were refused for their age"
    );
}

/// The oldest segments of the log were missing: that looked as if they had been deleted, and the
/// commits in them were gone. Without its manifest a log whose segments were deleted is refused as
/// well.
#[test]
fn the_beginning_of_the_log_is_missing() {
    let mut rig = Rig::new(Place::Memory, Sizes::Tiny)
        .with(|options| options.background_threads(0).background_sync_ms(0));
    let keyspace = rig.keyspace("keyspace", EngineKind::Lsm);
    let put = |n: u8| {
        keyspace.put([n], vec![n; 40_000]).unwrap();
    };
    (0..4).for_each(put);
    keyspace.flush().unwrap();
    rig.db().wait_idle().unwrap();
    // More than the memtable takes is in the log all the same, since nothing flushes it.
    keyspace.put([4], [4; 40_000]).unwrap();
    keyspace.put([5], [5; 40_000]).unwrap();
    let image = Image::of(&**rig.fs(), rig.path());
    let segments: Vec<_> = image
        .files
        .keys()
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    assert!(segments.len() >= 2 && !segments[0].ends_with("0000000000000001.log"));
    for gone in [segments[0].as_path(), Path::new("WAL-MANIFEST")] {
        let mut image = image.clone();
        image.files.remove(gone).expect("a file");
        let fs = SimFs::new();
        image.write(&fs, Path::new("/store"));
        let options = tiny(hedgerow::Options::new()).fs(Arc::new(fs));
        match options.open("/store") {
            Err(Error::Corruption { file, .. }) => {
                let blamed = if is_log(gone) { Path::new("wal") } else { gone };
                assert!(file.ends_with(blamed), "{}", file.display());
            }
            other => panic!("{} is missing: {other:?}", gone.display()),
        }
    }
}

/// The last record of the log, which is followed by none that would bear witness, was damaged: it
/// looked like a write that a power loss had cut short, and an acknowledged commit was gone. A
/// store that was closed has another witness.
#[test]
fn the_end_of_the_log_after_closing() {
    let mut rig = Rig::new(Place::Memory, Sizes::Tiny)
        .with(|options| options.background_threads(0).background_sync_ms(0));
    let keyspace = rig.keyspace("keyspace", EngineKind::BTree);
    for n in 0..5u8 {
        keyspace.put([n], [n; 20]).unwrap();
    }
    let open = Image::of(&**rig.fs(), rig.path());
    drop(keyspace);
    rig.close();
    let closed = Image::of(&**rig.fs(), rig.path());
    let log = Path::new("wal/0000000000000001.log");
    let used = open.files[log].iter().rposition(|byte| *byte != 0);
    // All but the note that it is cut.
    let records = 128..used.expect("a record") + 1;
    assert_eq!(open.files[log][records.clone()], closed.files[log][records]);
    for (image, is_closed) in [(open, false), (closed, true)] {
        // The last byte of the last value, then the whole sector.
        for zeroed in [1, 512] {
            let mut image = image.clone();
            let end = used.expect("a record") + 1;
            image.files.get_mut(log).expect("a file")[end.saturating_sub(zeroed)..end].fill(0);
            let fs = SimFs::new();
            image.write(&fs, Path::new("/store"));
            let opened = tiny(hedgerow::Options::new())
                .fs(Arc::new(fs))
                .open("/store");
            match opened {
                Err(Error::Corruption { file, .. }) => assert!(file.ends_with(log)),
                Ok(db) => {
                    // After a crash nothing tells it from a torn write.
                    assert!(!is_closed, "{zeroed} bytes: the store opened");
                    let keyspace = db.existing_keyspace("keyspace").unwrap().expect("listed");
                    assert_eq!(keyspace.get([4]).unwrap(), None);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// With the WAL manifest gone as well, a log that lost its newest segment looked like a whole one
/// that was shorter, and acknowledged commits were gone without an error.
#[test]
fn the_end_of_the_log_and_the_wal_manifest_are_missing() {
    // Nothing is persisted, and the log has several segments.
    let mut rig = Rig::new(Place::Memory, Sizes::Default).with(|options| {
        let options = options.background_threads(0).background_sync_ms(0);
        options.log_segment_bytes(64 << 10)
    });
    let keyspace = rig.keyspace("keyspace", EngineKind::BTree);
    for n in 0..5u8 {
        keyspace.put([n], vec![n; 30_000]).unwrap();
    }
    drop(keyspace);
    rig.close();
    let closed = Image::of(&**rig.fs(), rig.path());
    let segments: Vec<_> = closed.files.keys().filter(|path| is_log(path)).collect();
    assert!(segments.len() >= 2, "{segments:?}");
    let manifest = Path::new("WAL-MANIFEST");
    for newest in [None, segments.last()] {
        let mut image = closed.clone();
        image.files.remove(manifest).expect("every store has one");
        if let Some(newest) = newest {
            image.files.remove(newest.as_path()).expect("a file");
        }
        for read_only in [true, false] {
            let fs = SimFs::new();
            image.write(&fs, Path::new("/store"));
            let options = hedgerow::Options::new().fs(Arc::new(fs));
            match options.read_only(read_only).open("/store") {
                Err(Error::Corruption { file, .. }) => assert!(file.ends_with(manifest)),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A keyspace that nobody writes to lags behind the log by whatever others do. That is no damage.
#[test]
fn an_idle_keyspace_is_not_called_old() {
    let mut rig = Rig::new(Place::Memory, Sizes::Tiny)
        .with(|options| options.background_threads(0).background_sync_ms(0));
    let [idle, busy] = ["idle", "busy"].map(|name| {
        EngineKind::ALL.map(|engine| rig.keyspace(&format!("{name}-{engine}"), engine))
    });
    for keyspace in idle.iter().chain(&busy) {
        keyspace.put("key", "value").unwrap();
        keyspace.flush().unwrap();
    }
    for _ in 0..20 {
        fill_log(&mut rig, &busy[1]);
        rig.db().flush().unwrap();
    }
    let first = rig.path().join("wal/0000000000000001.log");
    assert!(!rig.fs().exists(&first).unwrap(), "segments were deleted");
    drop((idle, busy));
    rig.abandon();
    assert_eq!(rig.db().verify().unwrap().problems, []);
}
