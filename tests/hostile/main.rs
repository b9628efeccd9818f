//! Hostile files: bytes that somebody wrote on purpose, with every checksum right.
//!
//! Checksums are no tamper protection, so decoders must take whatever they are given: opening, reading,
//! scanning, verifying and maintaining such a store may fail, and must not panic, hang, or take memory
//! without bound. A store must not need more than [`LIMIT_BYTES`] for files of a few hundred kilobytes, neither in
//! one allocation nor in all; and a scan gives keys in order and comes to an end.
//!
//! A binary of its own, because it counts every allocation of its process; so it runs one test at a time.

mod alloc;
mod forge;
#[allow(dead_code)]
#[path = "../store/image.rs"]
mod image;
#[allow(dead_code)]
#[path = "../store/random.rs"]
mod random;
mod repair;
#[allow(dead_code)]
#[path = "../store/rig.rs"]
mod rig;
#[allow(dead_code)]
#[path = "../store/sizes.rs"]
mod sizes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use hedgerow::fs::{FaultFs, Fs, OpKind, SimFs, StdFs};
use hedgerow::{Compression, Db, Durability, EngineKind, Kv, KvRead, Options, Scan};

use alloc::{Taken, measure};
use forge::{Block, Table, Value, body, inner, leaf, manifest_of};
use image::Image;
use random::{Random, Source};
use repair::Owner;
use rig::{effort, figure};
use sizes::{Sizes, keyspace_options, tiny};

/// What a store may take for hostile files.
const LIMIT_BYTES: usize = 64 << 20;
/// More keys than any of the hostile stores can hold.
const KEYS_MAX: usize = 400_000;
/// More reads than any use of one of the small stores needs.
const READS_MAX: u64 = 300_000;

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn options(fs: Arc<dyn Fs>) -> Options {
    tiny(Options::new())
        .fs(fs)
        .background_threads(0)
        .background_sync_ms(0)
        .durability(Durability::Buffered)
}

/// A small store with files of every kind: both engines, blocks compressed and not.
fn template() -> &'static Image {
    static TEMPLATE: OnceLock<Image> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let fs = SimFs::new();
        let db = options(Arc::new(fs.clone())).open("/store").unwrap();
        let mut random = Random::new(30);
        for (name, engine) in [
            ("lsm", EngineKind::Lsm),
            ("btree", EngineKind::BTree),
            ("plain", EngineKind::Lsm),
        ] {
            let mut options = keyspace_options(engine, Sizes::Tiny);
            if name == "plain" {
                options = options.compression(Compression::None);
            }
            let keyspace = db.keyspace_with(name, options).unwrap();
            for n in 0..110u32 {
                let len = random.below(60) as usize;
                keyspace
                    .put((n % 90).to_be_bytes(), random.bytes(len))
                    .unwrap();
                if n == 95 {
                    keyspace.put(b"long", random.bytes(2500)).unwrap();
                    keyspace
                        .delete_range(10u32.to_be_bytes()..20u32.to_be_bytes())
                        .unwrap();
                    keyspace.flush().unwrap();
                }
            }
        }
        db.sync().unwrap();
        drop(db);
        Image::of(&fs, Path::new("/store"))
    })
}

/// Reads a scan to its end. Keys must move in the direction of travel.
fn walk(scan: Scan, backward: bool) {
    let mut last: Option<Vec<u8>> = None;
    let mut scan = scan;
    for count in 0.. {
        assert!(count < KEYS_MAX, "a scan does not end");
        let item = if backward {
            scan.next_back()
        } else {
            scan.next()
        };
        let Some(Ok((key, _))) = item else { return };
        if let Some(last) = &last {
            let moved = if backward {
                &key[..] < &last[..]
            } else {
                &key[..] > &last[..]
            };
            assert!(moved, "a scan gives keys out of order");
        }
        last = Some(key.to_vec());
    }
}

/// Reads, verifies, writes and maintains whatever opens.
fn use_everything(fs: &Arc<dyn Fs>, root: &Path) {
    for read_only in [true, false] {
        let Ok(db) = options(Arc::clone(fs)).read_only(read_only).open(root) else {
            continue;
        };
        for info in db.keyspaces() {
            let Ok(Some(keyspace)) = db.existing_keyspace(&info.name) else {
                continue;
            };
            walk(keyspace.iter(), false);
            walk(keyspace.iter(), true);
            walk(keyspace.range(30u32.to_be_bytes()..), true);
            for n in (0..120u32).step_by(11) {
                let _ = keyspace.get(n.to_be_bytes());
            }
            let _ = keyspace.get(b"long");
            let _ = keyspace.stats();
        }
        let _ = db.verify();
        if read_only {
            continue;
        }
        maintain(&db);
        let _ = db.close();
    }
}

fn maintain(db: &Db) {
    for info in db.keyspaces() {
        let Ok(Some(keyspace)) = db.existing_keyspace(&info.name) else {
            continue;
        };
        for n in (0..120u32).step_by(17) {
            let _ = keyspace.put(n.to_be_bytes(), b"new");
        }
        let _ = keyspace.delete_range(30u32.to_be_bytes()..70u32.to_be_bytes());
        let _ = keyspace.flush();
        let _ = keyspace.compact();
        walk(keyspace.iter(), false);
        let _ = keyspace.delete_range(..);
        let _ = keyspace.flush();
    }
    for _ in 0..100 {
        if !matches!(db.run_background_once(), Ok(true)) {
            break;
        }
    }
}

/// Puts the image on a file system in memory (or a real one, which is mapped) and uses it.
#[track_caller]
fn suffer(story: &str, image: &Image, mapped: bool) -> Taken {
    let dir = mapped.then(|| tempfile::tempdir().unwrap());
    let (inner, root): (Arc<dyn Fs>, PathBuf) = match &dir {
        Some(dir) => (Arc::new(StdFs::new()), dir.path().join("store")),
        None => (Arc::new(SimFs::new()), "/store".into()),
    };
    image.write(&*inner, &root);
    let counting = FaultFs::new(inner);
    let fs: Arc<dyn Fs> = Arc::new(counting.clone());
    let (outcome, taken) =
        measure(|| catch_unwind(AssertUnwindSafe(|| use_everything(&fs, &root))));
    if let Err(panic) = outcome {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        panic!("{story}: {}", text.unwrap_or_default());
    }
    assert!(
        taken.largest <= LIMIT_BYTES && taken.peak <= LIMIT_BYTES,
        "{story}: {taken:?}"
    );
    let reads = counting.count(OpKind::Read);
    assert!(reads < READS_MAX, "{story}: {reads} reads");
    taken
}

/// Changes one place of a file: a field of one to eight bytes to an extreme or arbitrary value, or a few bytes copied from
/// elsewhere in the file.
fn mutate(bytes: &mut [u8], random: &mut Random) -> String {
    // The log is mostly empty.
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(1, |last| last + 1);
    let at = random.below(used as u64) as usize;
    let len = (*random.pick(&[1, 1, 2, 4, 4, 8])).min(bytes.len() - at);
    let how = random.below(8);
    let field = &mut bytes[at..at + len];
    match how {
        0 | 1 => field.fill(0xFF),
        2 => field.fill(0),
        3 => {
            field.fill(0xFF);
            field[len - 1] = 0x7F;
        }
        4 => {
            field.fill(0);
            field[0] = 1;
        }
        5 => field[0] = field[0].wrapping_add(1),
        6 => {
            let new = random.bytes(len);
            field.copy_from_slice(&new);
        }
        _ => {
            let from = random.below((used - len.min(used)) as u64 + 1) as usize;
            bytes.copy_within(from..(from + len).min(used), at.min(bytes.len() - len));
        }
    }
    format!("{len} bytes at {at}, way {how}")
}

#[test]
fn fields_at_their_extremes() {
    let _alone = alone();
    let template = template();
    let store = repair::store_id(&template.files[Path::new("CATALOG")]);
    let mut random = Random::new(rig::from_env("HEDGEROW_SEED").unwrap_or(71));
    let mut worst = Taken::default();
    let mut mutants = 0;
    for (path, _) in template.data_files() {
        for n in 0..150 * effort() {
            let mut image = template.clone();
            let bytes = image.files.get_mut(path).expect("a file");
            let mut story = format!("{}:", path.display());
            for _ in 0..1 + random.below(3) {
                story = format!("{story} {};", mutate(bytes, &mut random));
            }
            repair::repair(path, bytes, store);
            let taken = suffer(&story, &image, n % 16 == 15);
            worst.peak = worst.peak.max(taken.peak);
            worst.largest = worst.largest.max(taken.largest);
            mutants += 1;
        }
    }
    figure("hostile files", mutants);
    figure("hostile peak bytes", worst.peak as u64);
    figure("hostile largest allocation bytes", worst.largest as u64);
}

/// The repairs are right: a file that nobody changed is still itself.
#[test]
fn a_repair_of_an_intact_file_changes_nothing() {
    let store = repair::store_id(&template().files[Path::new("CATALOG")]);
    for (path, bytes) in template().data_files() {
        let mut repaired = bytes.clone();
        repair::repair(path, &mut repaired, store);
        assert!(repaired == *bytes, "{}", path.display());
        if repaired.len() > 130 {
            // And one that was changed reads differently, not as damaged by its checksum.
            assert!(!path.ends_with("LOCK"));
        }
    }
}

fn owner_of(keyspace: u64) -> Owner {
    Owner {
        store: repair::store_id(&template().files[Path::new("CATALOG")]),
        keyspace,
    }
}

/// The template with other files in the directory of the first keyspace, an LSM tree.
fn with_tables(tables: &[(u8, Table)]) -> Image {
    let owner = owner_of(1);
    let mut image = template().clone();
    let dir = Path::new("ks-00000001");
    image.files.retain(|path, _| !path.starts_with(dir));
    let mut metas = Vec::new();
    for (n, (level, table)) in tables.iter().enumerate() {
        let number = n as u64 + 2;
        let (bytes, meta) = table.file(owner, number);
        image
            .files
            .insert(dir.join(format!("TABLE-{number:016x}")), bytes);
        metas.push((*level, meta));
    }
    for (name, bytes) in manifest_of(owner, 50, &metas) {
        image.files.insert(dir.join(name), bytes);
    }
    image
}

/// The template with another tree in the second keyspace.
fn with_tree(bytes: Vec<u8>) -> Image {
    let mut image = template().clone();
    image.files.insert("ks-00000002/tree.hdb".into(), bytes);
    image
}

fn key(n: u32) -> Vec<u8> {
    n.to_be_bytes().to_vec()
}

fn entries(keys: impl IntoIterator<Item = u32>, seq: u64) -> Vec<(Vec<u8>, u64, Vec<u8>)> {
    keys.into_iter()
        .map(|n| (key(n), seq, vec![7; 20]))
        .collect()
}

fn plain(separator: u32, entries: &[(Vec<u8>, u64, Vec<u8>)]) -> Block {
    Block {
        separator: key(separator),
        tag: 0,
        bytes: body(entries),
    }
}

fn table(blocks: Vec<Block>, smallest: u32, largest: u32, entries: u64) -> Table {
    Table {
        blocks,
        smallest: key(smallest),
        largest: key(largest),
        seqs: (1, 40),
        entries,
        tombstones: vec![0],
        range_tombstones: 0,
    }
}

fn on_both_paths(story: &str, image: &Image) {
    for mapped in [false, true] {
        suffer(story, image, mapped);
    }
}

/// How many entries the first keyspace gives, forward, and whether that ended in an error.
fn count(image: &Image, name: &str) -> (usize, bool) {
    let fs = SimFs::new();
    image.write(&fs, Path::new("/store"));
    let db = options(Arc::new(fs)).open("/store").unwrap();
    let keyspace = db.existing_keyspace(name).unwrap().unwrap();
    let items: Vec<_> = keyspace.iter().collect();
    let failed = items.iter().any(Result::is_err);
    (items.iter().filter(|item| item.is_ok()).count(), failed)
}

/// The forger is right: tables and trees without tricks can be read.
#[test]
fn forged_files_without_tricks_are_read() {
    let _alone = alone();
    let blocks = (0..4)
        .map(|b| plain(b * 10, &entries(b * 10..b * 10 + 10, 5)))
        .collect();
    let image = with_tables(&[(1, table(blocks, 0, 39, 40))]);
    let (found, failed) = count(&image, "lsm");
    assert!(found >= 40 && !failed, "{found}");
    let owner = owner_of(2);
    let leaves = [
        leaf(
            3,
            (b"", Some(&key(50))),
            &[(key(5), Value::Here(vec![1; 9]))],
        ),
        leaf(4, (&key(50), None), &[(key(60), Value::Here(vec![2; 9]))]),
    ];
    // An upper fence shares its prefix with the lower one only where that is not empty.
    let root = inner(1, 2, (b"", None), &[key(50)], &[3, 4]);
    let image = with_tree(forge::tree(
        owner,
        50,
        2,
        2,
        &[root, leaves[0].clone(), leaves[1].clone()],
    ));
    let (found, failed) = count(&image, "btree");
    assert!(found >= 2 && !failed, "{found}");
    on_both_paths("forged without tricks", &image);
}

/// A fuzzer's table: the blocks hold other keys than their separators say, and a scan backwards, which steps over a key and
/// seeks it again, was sent round for over eighty seconds.
#[test]
fn a_backward_scan_over_blocks_out_of_order_ends() {
    let _alone = alone();
    let run = |from: u32, len: u32| entries((from..from + len).rev(), 5);
    let stories: Vec<(&str, Vec<Block>)> = vec![
        ("entries fall within a block", vec![plain(0, &run(0, 2000))]),
        (
            "all blocks hold the same keys",
            (0..50)
                .map(|b| plain(b * 10, &entries(0..600, 5)))
                .collect(),
        ),
        (
            "blocks fall",
            (0..50)
                .map(|b| plain(b, &entries((50 - b) * 20..(50 - b) * 20 + 20, 5)))
                .collect(),
        ),
        (
            "separators fall",
            (0..50)
                .map(|b| {
                    plain(
                        (50 - b) * 20,
                        &entries((50 - b) * 20..(50 - b) * 20 + 20, 5),
                    )
                })
                .collect(),
        ),
        (
            "separators repeat",
            (0..50)
                .map(|b| plain(0, &entries(b * 20..b * 20 + 20, 5)))
                .collect(),
        ),
        ("one key many times", vec![plain(0, &entries([7; 4000], 5))]),
        (
            "numbers above the table's",
            vec![plain(0, &entries(0..3000, 1 << 50))],
        ),
        (
            "numbers above what is persisted",
            vec![plain(0, &entries(0..3000, 300))],
        ),
        (
            "heads of other keys",
            vec![{
                let mut block = plain(0, &entries(0..500, 5));
                block.bytes[16..16 + 2000].reverse();
                block
            }],
        ),
    ];
    for (story, blocks) in stories {
        let entries = 3000;
        let image = with_tables(&[(1, table(blocks, 0, 100_000, entries))]);
        on_both_paths(story, &image);
        let (_, failed) = count(&image, "lsm");
        assert!(failed, "{story}: nothing was noticed");
    }
}

#[test]
fn tables_that_hold_more_than_their_extent() {
    let _alone = alone();
    let tables: Vec<_> = (0..20u32)
        .map(|n| {
            (
                1,
                table(vec![plain(0, &entries(0..400, 5))], n * 10, n * 10 + 9, 400),
            )
        })
        .collect();
    let image = with_tables(&tables);
    on_both_paths("tables beyond their extent", &image);
    assert!(count(&image, "lsm").1, "nothing was noticed");
}

#[test]
fn decompression_bombs() {
    let _alone = alone();
    // A run of one byte: a token, a match of distance 1, and a length of many 255s.
    let bomb = |claimed: u32, stored: usize| {
        let mut bytes = claimed.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0x1F, 1, 1, 0]);
        bytes.resize(stored, 0xFF);
        bytes.extend_from_slice(&[0, 0x50, 1, 1, 1, 1, 1]);
        Block {
            separator: key(0),
            tag: 1,
            bytes,
        }
    };
    for (claimed, stored) in [
        (u32::MAX, 100),
        (256 << 20, 100),
        (256 << 20, 2 << 20),
        (31 << 20, 200 << 10),
        (60 << 20, 300 << 10),
    ] {
        let story = format!("{stored} bytes that claim to be {claimed}");
        let image = with_tables(&[(1, table(vec![bomb(claimed, stored)], 0, 9, 10))]);
        on_both_paths(&story, &image);
    }
}

#[test]
fn very_many_range_tombstones() {
    let _alone = alone();
    let mut tombstones = Vec::new();
    let number = 100_000;
    forge::varint(&mut tombstones, number);
    for n in 0..number as u32 {
        tombstones.push(9);
        tombstones.push(4);
        tombstones.extend_from_slice(&n.to_be_bytes());
        tombstones.push(0);
    }
    let table = Table {
        tombstones,
        range_tombstones: number,
        ..table(vec![plain(0, &entries(0..10, 5))], 0, 9, 10)
    };
    suffer(
        "very many range tombstones",
        &with_tables(&[(1, table)]),
        false,
    );
}

#[test]
fn absurd_manifests() {
    let _alone = alone();
    let owner = owner_of(1);
    let (_, meta) = table(vec![plain(0, &entries(0..10, 5))], 0, 9, 10).file(owner, 2);
    let mut huge = meta.clone();
    huge[8..16].fill(0xFF);
    let stories: [(&str, u64, Vec<(u8, Vec<u8>)>); 6] = [
        ("a table that is not there", 50, vec![(1, meta.clone())]),
        ("a table of all bytes there are", 50, vec![(0, huge)]),
        (
            "the same table ten thousand times",
            50,
            vec![(1, meta.clone()); 10_000],
        ),
        ("a level that is none", 50, vec![(7, meta.clone())]),
        ("persisted for ever", u64::MAX >> 8, vec![]),
        ("persisted beyond all numbers", u64::MAX, vec![]),
    ];
    for (story, persisted, tables) in stories {
        let mut image = template().clone();
        let dir = Path::new("ks-00000001");
        image.files.retain(|path, _| !path.starts_with(dir));
        for (name, bytes) in manifest_of(owner, persisted, &tables) {
            image.files.insert(dir.join(name), bytes);
        }
        suffer(story, &image, false);
    }
}

#[test]
fn pages_that_refer_to_each_other() {
    let _alone = alone();
    let owner = owner_of(2);
    let separators: Vec<_> = (1..20u32).map(key).collect();
    let empty = |page| leaf(page, (b"", None), &[]);
    let full = |page| leaf(page, (b"", None), &[(key(3), Value::Here(vec![1; 30]))]);
    let mut stories = Vec::new();
    for (name, bottom) in [("empty", empty(10)), ("full", full(10))] {
        // Seven levels whose nodes have one child twenty times: more than a billion leaves.
        let mut pages: Vec<_> = (0..8u8)
            .map(|n| {
                let (page, below) = (u64::from(n) + 2, u64::from(n) + 3);
                inner(8 - n, page, (b"", None), &separators, &[below; 20])
            })
            .collect();
        pages.push(bottom);
        stories.push((
            format!("one {name} leaf a billion times"),
            forge::tree(owner, 50, 9, 2, &pages),
        ));
    }
    let cycle = [
        inner(2, 2, (b"", None), &separators, &[3; 20]),
        inner(1, 3, (b"", None), &separators, &[2; 20]),
    ];
    stories.push(("a cycle".into(), forge::tree(owner, 50, 3, 2, &cycle)));
    let itself = [inner(1, 2, (b"", None), &separators, &[2; 20])];
    stories.push((
        "a node in itself".into(),
        forge::tree(owner, 50, 2, 2, &itself),
    ));
    let mut chain: Vec<_> = (0..255u8)
        .map(|n| {
            inner(
                255 - n,
                u64::from(n) + 2,
                (b"", None),
                &[],
                &[u64::from(n) + 3],
            )
        })
        .collect();
    chain.push(full(257));
    stories.push((
        "as deep as can be".into(),
        forge::tree(owner, 50, 256, 2, &chain),
    ));
    let outside = [leaf(
        2,
        (b"", None),
        &[(key(3), Value::There(1 << 40, 5000))],
    )];
    stories.push((
        "a value outside the file".into(),
        forge::tree(owner, 50, 1, 2, &outside),
    ));
    let long = [leaf(
        2,
        (b"", None),
        &[(key(3), Value::There(2, u32::MAX >> 1))],
    )];
    stories.push((
        "a value of two gigabytes".into(),
        forge::tree(owner, 50, 1, 2, &long),
    ));
    let neighbours = [
        inner(1, 2, (b"", None), &[key(50)], &[4, 3]),
        leaf(
            3,
            (b"", Some(&key(50))),
            &[(key(5), Value::Here(vec![1; 9]))],
        ),
        leaf(4, (&key(50), None), &[(key(60), Value::Here(vec![2; 9]))]),
    ];
    stories.push((
        "children swapped".into(),
        forge::tree(owner, 50, 2, 2, &neighbours),
    ));
    for (story, bytes) in stories {
        on_both_paths(&story, &with_tree(bytes));
    }
}
