use std::ops::Bound;

use super::*;
use crate::fs::{Fault, FaultFs, FaultPlan, OpKind, SimFs};

const IDENTITY: Identity = Identity {
    store_id: 0x1122_3344_5566_7788,
    keyspace: KeyspaceId(5),
    block_size_bytes: 4096,
};

fn meta(id: u64) -> TableMeta {
    TableMeta {
        id: FileId(id),
        size_bytes: 1000,
        smallest_key: b"a".to_vec(),
        largest_key: Bound::Included(b"b".to_vec()),
        smallest_seq: SeqNo(1),
        largest_seq: SeqNo(9),
        entries: 9,
        deletes: 1,
        range_tombstones: 0,
        older_versions: 1,
        raw_key_bytes: 9,
        raw_value_bytes: 90,
        value_files: vec![(3, 40), (300, 50)],
        expires_by_ms: 1_700_000_000_000,
        half_expired_ms: 1_600_000_000_000,
    }
}

fn dir() -> PathBuf {
    PathBuf::from("/lsm")
}

fn open(fs: &SimFs) -> Result<(Manifest, Contents)> {
    Manifest::open(Arc::new(fs.clone()), &dir(), IDENTITY, SeqNo::ZERO, false)
}

/// Makes a manifest of `edits` edits, each of which adds table `n` and removes table `n - 2`.
fn grown(edits: u64) -> (SimFs, Manifest, Vec<Contents>) {
    let fs = SimFs::new();
    fs.create_dir_all(&dir()).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let mut manifest = Manifest::unwritten(Arc::new(fs.clone()), &dir(), IDENTITY);
    let empty = Contents::default();
    manifest.append(&Edit::snapshot(&empty), || empty).unwrap();
    let mut states = vec![Contents::default()];
    for n in 1..=edits {
        let edit = Edit {
            persisted_seq: Some(SeqNo(10 * n)),
            next_file: Some(FileId(n + 1)),
            removed: if n > 2 {
                vec![(0, FileId(n - 2))]
            } else {
                Vec::new()
            },
            added: vec![(0, meta(n))],
        };
        let mut contents = states.last().unwrap().clone();
        contents.apply(edit.clone()).unwrap();
        manifest.append(&edit, || contents.clone()).unwrap();
        states.push(contents);
    }
    (fs, manifest, states)
}

fn bytes_of(fs: &SimFs, name: &str) -> Vec<u8> {
    let file = fs.open(&dir().join(name), OpenMode::Read).unwrap();
    read_all(&*file, MAX_LEN_BYTES).unwrap()
}

fn replace(fs: &SimFs, name: &str, bytes: &[u8]) {
    replace_file(fs, &dir(), name, bytes).unwrap();
}

#[test]
fn edits_come_back() {
    let (fs, _, states) = grown(5);
    assert_eq!(open(&fs).unwrap().1, states[5]);
    // An edit is durable when `append` returns.
    assert_eq!(open(&fs.crash()).unwrap().1, states[5]);
}

#[test]
fn golden_bytes() {
    let (fs, _, _) = grown(1);
    let current = bytes_of(&fs, CURRENT);
    assert_eq!(current[..20], *b"hgrwCURR\x04\0\0\0\x01\0\0\0\0\0\0\0");
    let bytes = bytes_of(&fs, &manifest_name(1));
    let mut expected = b"hgrwMANI\x04\0\0\0\x05\0\0\0\x88\x77\x66\x55\x44\x33\x22\x11".to_vec();
    expected.extend_from_slice(b"\x01\0\0\0\0\0\0\0\x00\x10\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(bytes[..44], expected);
    // The first edit, its acknowledgement, the second edit, and its acknowledgement.
    let records: Vec<&[u8]> = {
        let seed = record_seed(&IDENTITY, 1);
        let mut reader = RecordReader::new(&bytes[48..], seed, 48);
        std::iter::from_fn(|| match reader.step() {
            Step::Record { payload, .. } => Some(payload),
            _ => None,
        })
        .collect()
    };
    let mut edit = b"\x01\x0A\x02\x02\x03\x00".to_vec();
    edit.extend_from_slice(b"\x01\0\0\0\0\0\0\0\xE8\x03\0\0\0\0\0\0\x01a\x01\x01b");
    edit.extend_from_slice(b"\x01\x09\x09\x01\x00\x01\x09\x5A");
    edit.extend_from_slice(b"\x02\x03\x28\xAC\x02\x32");
    edit.extend_from_slice(b"\x81\xD0\x95\xFF\xBC\x31\x81\x80\xBA\xBB\xC8\x2E");
    assert_eq!(records, [b"\x01\x00\x02\x01", &b"\0"[..], &edit, b"\0"]);
    let sums = (get_u32(&current, 20), get_u32(&bytes, 44));
    assert_eq!(sums, (694_335_685, 195_495_658), "golden checksums");
}

#[test]
fn a_torn_tail_is_dropped_and_a_new_manifest_begins() {
    let (fs, manifest, states) = grown(3);
    let first = manifest.number();
    let name = manifest_name(first);
    let whole = bytes_of(&fs, &name);
    // The last edit without its acknowledgement, cut anywhere.
    for cut in (whole.len() - 60)..whole.len() {
        replace(&fs, &name, &whole[..cut]);
        let (mut manifest, contents) = open(&fs).unwrap();
        assert!(
            contents == states[3] || contents == states[2],
            "cut at {cut}"
        );
        let edit = Edit {
            persisted_seq: Some(SeqNo(1000)),
            ..Edit::default()
        };
        let mut after = contents;
        after.apply(edit.clone()).unwrap();
        manifest.append(&edit, || after.clone()).unwrap();
        assert_ne!(manifest.number(), first, "cut at {cut}");
        let (reopened, found) = open(&fs).unwrap();
        assert_eq!(found, after, "cut at {cut}");
        fs.remove_file(&dir().join(manifest_name(reopened.number())))
            .unwrap();
        replace(&fs, CURRENT, &encode_current(&IDENTITY, first));
    }
}

#[test]
fn every_flipped_bit_is_an_error_or_changes_nothing() {
    let (fs, manifest, states) = grown(3);
    let current = bytes_of(&fs, CURRENT);
    for name in [CURRENT.to_owned(), manifest_name(manifest.number())] {
        let whole = bytes_of(&fs, &name);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Opening may have begun another manifest.
            replace(&fs, CURRENT, &current);
            replace(&fs, &name, &flipped);
            match open(&fs) {
                Ok((_, contents)) => assert_eq!(contents, states[3], "{name} bit {bit}"),
                Err(Error::Corruption { .. } | Error::UnsupportedFormat { .. }) => {}
                Err(error) => panic!("{name} bit {bit}: {error}"),
            }
        }
        replace(&fs, &name, &whole);
    }
}

#[test]
fn a_manifest_of_another_store_or_keyspace_is_refused() {
    let (fs, ..) = grown(1);
    for identity in [
        Identity {
            store_id: 1,
            ..IDENTITY
        },
        Identity {
            keyspace: KeyspaceId(6),
            ..IDENTITY
        },
    ] {
        let opened = Manifest::open(Arc::new(fs.clone()), &dir(), identity, SeqNo::ZERO, false);
        assert!(opened.unwrap_err().is_corruption());
    }
}

#[test]
fn a_long_manifest_is_begun_anew() {
    let (fs, manifest, states) = grown(6000);
    assert!(manifest.number() > 1);
    assert!(manifest.len_bytes < 2 * REWRITE_LEN_BYTES);
    assert_eq!(open(&fs.crash()).unwrap().1, states[6000]);
    assert_eq!(fs.read_dir(&dir()).unwrap().len(), 2);
}

#[test]
fn edits_that_do_not_fit_are_damage() {
    let mut contents = Contents::default();
    let remove = Edit {
        removed: vec![(0, FileId(1))],
        ..Edit::default()
    };
    assert!(contents.apply(remove).is_err());
    let above = Edit {
        added: vec![(0, meta(1))],
        ..Edit::default()
    };
    assert!(contents.apply(above.clone()).is_err());
    let twice = Edit {
        next_file: Some(FileId(9)),
        added: vec![(0, meta(1)), (1, meta(1))],
        ..Edit::default()
    };
    assert!(Contents::default().apply(twice).is_err());
    assert_eq!(Edit::decode(b"\x03\x07"), Err(Malformed));
    assert_eq!(Edit::decode(b"\x09"), Err(Malformed));
}

/// Every attempt to begin a manifest on a full disk left a file, with as much as
/// could be written, until the next opening.
#[test]
fn a_manifest_that_finds_no_space_leaves_no_file() {
    let (sim, manifest, states) = grown(3);
    drop(manifest);
    let disk = FaultFs::new(Arc::new(sim.clone()));
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let (mut manifest, contents) =
        Manifest::open(fs, &dir(), IDENTITY, SeqNo::ZERO, false).unwrap();
    assert_eq!(contents, states[3]);
    let manifests = || {
        let names = sim.read_dir(&dir()).unwrap();
        let is_one = |name: &&String| name.starts_with("MANIFEST-");
        names.iter().filter(is_one).count()
    };
    let edit = Edit {
        persisted_seq: Some(SeqNo(50)),
        ..Edit::default()
    };
    let mut after = contents.clone();
    after.apply(edit.clone()).unwrap();
    for fault in [Fault::Full, Fault::Short] {
        // The write of the manifest, then that of CURRENT.
        for nth in 0..2 {
            for _ in 0..3 {
                let space = FaultPlan::once(&[OpKind::Write], nth, fault);
                disk.plan(space.and_then_all(&[OpKind::Write]));
                assert!(manifest.append(&edit, || after.clone()).is_err());
                assert_eq!(manifests(), 1, "{fault:?} at {nth}");
            }
        }
    }
    disk.heal();
    assert_eq!(open(&sim.crash()).unwrap().1, states[3]);
    manifest.append(&edit, || after.clone()).unwrap();
    assert_eq!(manifests(), 1);
    assert_eq!(open(&sim.crash()).unwrap().1, after);
}

/// Every table was compared with all others when a manifest was opened. Where tables are is known
/// now, and must go on being right while they come, go and move.
#[test]
fn edits_find_the_tables_that_they_name() {
    let mut random = crate::testing::Random::new(1);
    let mut replay = Replay::default();
    let mut expected: Vec<(usize, u64)> = Vec::new();
    for id in 1..2000 {
        let mut edit = Edit {
            next_file: Some(FileId(id + 1)),
            ..Edit::default()
        };
        for _ in 0..random.below(3).min(expected.len() as u64) {
            let (level, gone) = expected.swap_remove(random.index(expected.len()));
            edit.removed.push((level, FileId(gone)));
            if random.one_in(2) {
                let to = random.index(LEVELS);
                edit.added.push((to, meta(gone)));
            }
        }
        edit.added.push((random.index(LEVELS), meta(id)));
        let added = edit.added.iter().map(|(level, meta)| (*level, meta.id.0));
        expected.extend(added);
        replay.apply(edit).unwrap();
    }
    let levels = replay.contents.levels.iter().enumerate();
    let mut found: Vec<_> = levels
        .flat_map(|(level, metas)| metas.iter().map(move |meta| (level, meta.id.0)))
        .collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let (level, id) = expected[0];
    for removed in [(level + 1, FileId(id)), (level, FileId(2000))] {
        let removed = vec![removed];
        let edit = Edit {
            removed,
            ..Edit::default()
        };
        assert!(replay.apply(edit).is_err());
    }
}

/// The search for an intact record behind a torn one gave up after so many bytes, and called the
/// manifest damaged: in an edit of many tables nearly every place claims a length that is possible.
#[test]
fn a_torn_edit_of_many_tables_is_dropped() {
    let (fs, mut manifest, states) = grown(3);
    let name = manifest_name(manifest.number());
    let before = bytes_of(&fs, &name).len();
    let edit = Edit {
        persisted_seq: Some(SeqNo(1000)),
        next_file: Some(FileId(4000)),
        removed: Vec::new(),
        added: (1000..3000).map(|id| (6, meta(id))).collect(),
    };
    let mut after = states[3].clone();
    after.apply(edit.clone()).unwrap();
    manifest
        .append(&edit, || unreachable!("the edit is appended"))
        .unwrap();
    let whole = bytes_of(&fs, &name);
    let end = whole.len() - FRAME_HEADER_LEN_BYTES - 1;
    let read = |bytes: &[u8]| {
        replace(&fs, &name, bytes);
        let fs: Arc<dyn Fs> = Arc::new(fs.clone());
        Manifest::open(fs, &dir(), IDENTITY, SeqNo::ZERO, true).map(|(_, contents)| contents)
    };
    assert_eq!(read(&whole).unwrap(), after);
    for cut in [before + 1, (before + end) / 2, end - 1] {
        assert_eq!(read(&whole[..cut]).unwrap(), states[3], "cut at {cut}");
    }
    let mut unwritten = whole[..end].to_vec();
    unwritten[before..before + 512].fill(0);
    let found = read(&unwritten).unwrap();
    assert_eq!(found, states[3], "its first sector was not written");
}

/// Edits were appended until the file was longer than what is read, and refused by the next open.
#[test]
fn a_manifest_never_grows_beyond_what_is_read() {
    let (fs, mut manifest, mut states) = grown(1);
    let mut contents = states.pop().unwrap();
    let mut append = |manifest: &mut Manifest, ids: std::ops::Range<u64>| {
        let edit = Edit {
            persisted_seq: None,
            next_file: Some(FileId(ids.end)),
            removed: Vec::new(),
            added: ids.map(|id| (6, meta(id))).collect(),
        };
        let mut after = contents.clone();
        after.apply(edit.clone()).unwrap();
        let appended = manifest.append(&edit, || after.clone());
        if appended.is_ok() {
            contents = after;
        }
        (appended, contents.clone())
    };
    let mut from = 1000;
    loop {
        let (appended, contents) = append(&mut manifest, from..from + 1000);
        assert_eq!(open(&fs).unwrap().1, contents);
        if let Err(refused) = appended {
            assert!(
                matches!(refused, Error::InvalidArgument { .. }),
                "{refused}"
            );
            break;
        }
        from += 1000;
    }
    assert!(from > 4000, "{from}");
}
