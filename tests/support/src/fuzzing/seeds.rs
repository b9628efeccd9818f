//! Makes the seed corpora: small valid inputs of every kind, so that a fuzzer begins behind the
//! first checks. `cargo test --test store write_seeds -- --ignored` writes
//! them to fuzz/corpus, after a format or the encoding of an input has changed.

use std::path::Path;
use std::sync::Arc;

use hedgerow::fs::{Fs, SimFs};
use hedgerow::internals::lsm::Entry;
use hedgerow::internals::table::BlockBuilder;
use hedgerow::internals::{Op, append_record, encode_batch, page, wal};
use hedgerow::trace::{TraceOptions, ValueMode};
use hedgerow::{Durability, EngineKind};

use super::stores::{self, PAGE, STORE};
use super::{Flags, Recording, files, pages};
use crate::forge::table::zstd_frame;
use crate::image::Image;
use crate::lockstep::{self, Op as LockstepOp, Setting};
use crate::random::{Random, Source};
use crate::repair::u64_at;

/// Seeds of a target: name and input.
type Seeds = Vec<(String, Vec<u8>)>;

/// All seeds, by target.
pub fn all() -> Vec<(&'static str, Seeds)> {
    vec![
        ("log_record", log_record()),
        ("batch", batch()),
        ("block", block()),
        ("index", index()),
        ("filter", filter()),
        ("decompress", decompress()),
        ("btree_page", btree_page()),
        ("key_order", random(31, &[40, 200, 900])),
        ("catalog", catalog()),
        ("manifest", manifest()),
        ("table_file", table_file()),
        ("tree_file", tree_file()),
        ("log_recovery", log_recovery()),
        ("trace", trace()),
        (
            "hostile_dir",
            random(32, &[1, 9, 17, 25, 33, 60, 90, 120, 200, 240, 300, 400]),
        ),
        ("operations", operations()),
        ("crashes", random(33, &[30, 200, 600, 1200, 2000])),
    ]
}

fn named(name: &str, flags: u8, bytes: &[u8]) -> (String, Vec<u8>) {
    (format!("seed-{name}"), [&[flags], bytes].concat())
}

/// The same bytes as they are, and with repairs that change nothing.
fn raw_and_repaired(bytes: &[u8]) -> Seeds {
    vec![named("raw", 0, bytes), named("repaired", 1, bytes)]
}

/// Catalogues, then WAL manifests: one that the keyspaces fulfil, and one that they do not.
fn catalog() -> Seeds {
    let mut seeds = raw_and_repaired(stores::file(stores::small(), "CATALOG"));
    for (name, persisted) in [
        ("wal-manifest", stores::SMALL_OPS / 2),
        ("wal-manifest-above", 1000),
    ] {
        let mut bytes = b"hdgrWALM\x01\0\0\0".to_vec();
        bytes.extend_from_slice(&STORE.to_le_bytes());
        // The log goes back to the first operation, and its end has no witness.
        bytes.extend_from_slice(&1u64.to_le_bytes());
        bytes.extend_from_slice(&0u64.to_le_bytes());
        bytes.extend_from_slice(&1u32.to_le_bytes());
        bytes.extend_from_slice(&files::LSM.to_le_bytes());
        bytes.extend_from_slice(&persisted.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        seeds.push(named(name, Flags::OTHER | Flags::REPAIRED, &bytes));
    }
    seeds
}

/// Random bytes of these lengths.
fn random(seed: u64, lens: &[usize]) -> Seeds {
    let mut random = Random::new(seed);
    lens.iter()
        .map(|len| {
            let bytes = (0..*len).map(|_| random.below(256) as u8).collect();
            (format!("seed-random-{len}"), bytes)
        })
        .collect()
}

/// Batches, loads, writes in one step and reads, with crashes between: what random bytes have
/// little of.
fn operations() -> Seeds {
    let seed = |seed| {
        let mut source = Recording::new(seed);
        Setting::draw(&mut source, "/store".into(), None);
        let mut input = std::mem::take(&mut source.bytes);
        let mut edits = 0;
        while input.len() < 6000 {
            let op = lockstep::draw(&mut source);
            let bytes = std::mem::take(&mut source.bytes);
            let is_edit = matches!(op, LockstepOp::Edit(..));
            edits += u32::from(is_edit);
            if !is_edit || edits.is_multiple_of(8) {
                input.extend_from_slice(&bytes);
            }
        }
        (format!("seed-few-edits-{seed}"), input)
    };
    (1..4).map(seed).collect()
}

fn payload() -> Vec<u8> {
    encode_batch(&[
        (
            1,
            Op::Put {
                key: b"key",
                value: &[7; 40],
            },
        ),
        (1, Op::Delete { key: b"k" }),
        (
            1,
            Op::Merge {
                key: b"key",
                operand: &[1; 8],
            },
        ),
        (
            1,
            Op::DeleteRange {
                start: b"a",
                end: Some(b"b"),
            },
        ),
        (
            300,
            Op::Put {
                key: b"",
                value: b"",
            },
        ),
        (
            300,
            Op::DeleteRange {
                start: b"x",
                end: None,
            },
        ),
    ])
}

fn log_record() -> Seeds {
    let mut growing = Vec::new();
    for payload in [&b"first"[..], b"\0", &[9; 70]] {
        let offset = 100 + growing.len() as u64;
        append_record(&mut growing, 77, offset, payload);
    }
    let mut segment = Vec::new();
    for n in 0..3u64 {
        let at = segment.len() as u64;
        segment.extend(wal::encode_record(
            77,
            at,
            2 * n + 1,
            2 * n + 2,
            2 * n,
            &payload(),
        ));
        segment.resize(segment.len().next_multiple_of(8), 0xEE);
    }
    vec![
        named("growing", 0, &growing),
        named("growing-repaired", 1, &growing),
        named("segment", 2, &segment),
        named("segment-repaired", 3, &segment),
    ]
}

fn batch() -> Seeds {
    let whole = payload();
    let (put, _) = whole.split_at(48);
    vec![
        ("seed-all-kinds".into(), whole.clone()),
        ("seed-one-put".into(), put.to_vec()),
        ("seed-empty".into(), Vec::new()),
        // Changes of the keyspaces (docs/format.md).
        (
            "seed-made".into(),
            b"\x10\x02\0\0\0\x01a\x0b\x70\x00\x81\x01\x01\x83\x04\0\x04\0\0".to_vec(),
        ),
        ("seed-dropped".into(), b"\x11\xac\x02".to_vec()),
        ("seed-renamed".into(), b"\x12\x02\x02bc".to_vec()),
        (
            "seed-options".into(),
            b"\x13\x02\0\0\0\x01a\x0d\x01\x08\0\0\x10\0\0\0\0\0\x81\x01\0".to_vec(),
        ),
    ]
}

fn block_body() -> Vec<u8> {
    let mut builder = BlockBuilder::default();
    for n in 0..12u8 {
        let key = [b"key/".as_slice(), &[n / 2]].concat();
        let value = [n; 9];
        builder.add(Entry {
            key: &key,
            seq: u64::from(100 - n),
            value: (n % 5 != 0).then_some(&value[..usize::from(n % 9)]),
        });
    }
    let mut body = Vec::new();
    builder.encode(&mut body);
    body
}

fn block() -> Seeds {
    let mut seeds = random(34, &[50, 300]);
    for (_, bytes) in &mut seeds {
        bytes[0] = 2;
    }
    seeds.push(named("body", 0, &block_body()));
    seeds
}

/// The table of the small store, which has a filter, range tombstones, and several blocks.
fn small_table() -> &'static [u8] {
    stores::file(stores::small(), "TABLE-")
}

fn index() -> Seeds {
    let table = small_table();
    let footer = table.len() - 64;
    let at = |n: usize| u64_at(table, footer + 8 * n).expect("a footer") as usize;
    let blocks_end = (at(1) as u16).to_be_bytes();
    let index = &table[at(2) + 8..at(3)];
    let input = [&b"\x02k\x05"[..], &blocks_end, index].concat();
    vec![("seed-small".into(), input)]
}

fn filter() -> Seeds {
    vec![
        named("lines", 0, &[&[6, 3][..], b"key", &[0x55; 128]].concat()),
        named(
            "keys",
            2,
            b"\x09\x03key\x00\x05other\x10sixteen bytes ok\x14twenty bytes of a key",
        ),
    ]
}

fn decompress() -> Seeds {
    let body = block_body().repeat(4);
    let packed = lz4_flex::block::compress(&body);
    let payload = [&(body.len() as u32).to_le_bytes()[..], &packed].concat();
    let input = |how: u8, bytes: &[u8]| [&[how], bytes].concat();
    let body_len = (body.len() as u32).to_le_bytes();
    vec![
        named("packed", 0, &input(0, &payload)),
        named("plain", 2, &input(0, &body)),
        named(
            "zstd",
            0,
            &input(1, &[&body_len[..], &zstd_frame(&body)].concat()),
        ),
        named("plain-zstd", 2, &input(5, &body)),
    ]
}

/// The pages of the small store's B-tree.
fn small_tree() -> Vec<&'static [u8]> {
    stores::file(stores::small(), "tree.hdb")
        .chunks(PAGE)
        .collect()
}

fn btree_page() -> Seeds {
    let changes: Vec<u8> = (0..120u8).map(|n| n.wrapping_mul(37)).collect();
    let mut seeds = vec![named("new", 2, &changes)];
    let separators: Vec<_> = (1..20u8).map(|n| [b's', n]).collect();
    let separators: Vec<_> = separators.iter().map(|key| &key[..]).collect();
    let inner = page::inner_build(&separators, PAGE);
    seeds.push(named(
        "inner",
        1,
        &[&pages::pack(&inner)[..], b"\x02s\x05"].concat(),
    ));
    let with_packs = page::inner_with_packs(&separators, PAGE);
    let numbered = separators.iter().enumerate();
    let changes_in_pack: Vec<_> = numbered
        .map(|(n, key)| (*key, (n % 3 != 0).then_some(&b"value"[..])))
        .collect();
    let pack = page::pack_build((b"s", Some(b"t")), &changes_in_pack, PAGE);
    let [leaf_apart, pack_apart] = page::with_reference(b"s\x05", PAGE);
    let images = [
        ("inner-with-packs", &with_packs),
        ("pack", &pack),
        ("leaf-with-reference", &leaf_apart),
        ("pack-with-reference", &pack_apart),
    ];
    for (name, image) in images {
        let input = [&pages::pack(image)[..], b"\x02s\x05"].concat();
        seeds.push(named(name, 1, &input));
    }
    for (n, image) in small_tree().iter().enumerate().skip(2) {
        if matches!(image[4], 1..=3) {
            let input = [&pages::pack(image)[..], b"\x02k\x05", &changes].concat();
            seeds.push(named(&format!("page-{n}"), 1, &input));
        }
    }
    seeds
}

fn manifest() -> Seeds {
    let image = stores::small();
    let (path, _) = files::manifest_of(image);
    let bytes = &image.files[&path];
    let mut seeds = raw_and_repaired(bytes);
    // The first edit, behind the header and its frame.
    let len = u32::from_le_bytes(bytes[52..56].try_into().expect("four bytes")) as usize;
    seeds.push(named("edit", 2, &bytes[56..56 + len]));
    seeds
}

fn table_file() -> Seeds {
    let table = small_table();
    let assembled: Vec<u8> = [
        0x20u8, 1, 9, 2, 0, 3, 8, 4, 5, 5, 0x4a, b'a', b'b', 7, 12, 9,
    ]
    .iter()
    .cycle()
    .take(300)
    .copied()
    .collect();
    // Two blocks in order, and a range tombstone behind them.
    let in_order = b"\0\x04\x42ab\x05\x08\x03\x01\x02\x01\x02\0\x02\x42cd\x02\x01\x07\x27c\x09de";
    vec![
        named("assembled", 4, &assembled),
        named("assembled-in-order", 4, in_order),
        named("assembled-deep", 6, in_order),
        named("repaired", 1, table),
        named("repaired-deep", 3, table),
        named("raw", 0, table),
    ]
}

fn tree_file() -> Seeds {
    let tree = small_tree();
    let rest: Vec<u8> = tree[2..]
        .iter()
        .flat_map(|page| pages::pack(page))
        .collect();
    let meta = pages::pack(tree[0]);
    let twice = pages::pack(tree[1]);
    vec![
        named("raw", 0, &[&meta[..], &rest].concat()),
        named("repaired", 1, &[&meta[..], &rest].concat()),
        named("two-metas", 3, &[&meta[..], &twice, &rest].concat()),
    ]
}

fn log_recovery() -> Seeds {
    let fs = SimFs::new();
    let shared: Arc<dyn Fs> = Arc::new(fs.clone());
    let dir = Path::new("/store/wal");
    fs.create_dir_all(dir).unwrap();
    let mut inputs = Vec::new();
    for round in 0..2u8 {
        let mut writer = wal::Writer::open(&shared, dir, STORE, 512, false).unwrap();
        for n in 0..4u8 {
            writer.append(3, &[round * 10 + n; 90]).unwrap();
            if n % 2 == 0 {
                writer.syncer().sync().unwrap();
            }
        }
        drop(writer);
        let mut input = Vec::new();
        for (path, bytes) in &Image::of(&fs, dir).files {
            if path.extension().is_some_and(|extension| extension == "log") {
                input.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
                input.extend_from_slice(bytes);
            }
        }
        inputs.push(input);
    }
    let mut cut = inputs[1].clone();
    // Behind the length of the first segment: its cut note.
    cut[2 + 96] = 1;
    vec![
        named("cut", 1, &cut),
        named("one-life", 0, &inputs[0]),
        named("one-life-repaired", 1, &inputs[0]),
        named("two-lives", 0, &inputs[1]),
        named("two-lives-repaired", 1, &inputs[1]),
    ]
}

fn trace() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, values) in [
        ("sizes", ValueMode::Sizes),
        ("contents", ValueMode::Contents),
    ] {
        let fs = SimFs::new();
        let options =
            stores::options(&fs, false).record_to("/trace", TraceOptions::new().values(values));
        let db = options.open(stores::PATH).unwrap();
        let keyspace = db.keyspace("data", EngineKind::Lsm).unwrap();
        for n in 0..20u8 {
            keyspace.put([b'k', n], [n; 12]).unwrap();
            keyspace.get([b'k', n / 2]).unwrap();
        }
        let mut batch = hedgerow::Batch::new();
        batch.put(b"a", b"b");
        batch.delete(b"k\x01");
        batch.delete_range("x"..);
        keyspace.write_with(batch, Durability::Sync).unwrap();
        keyspace.multi_get(&[b"a", b"z"]).unwrap();
        assert_eq!(db.snapshot().iter(&keyspace).take(5).count(), 5);
        keyspace.flush().unwrap();
        db.close().unwrap();
        drop((keyspace, db));
        let image = Image::of(&fs, Path::new("/"));
        let bytes = stores::file(&image, "trace");
        seeds.push(named(name, 0, bytes));
        seeds.push(named(&format!("{name}-repaired"), 1, bytes));
    }
    seeds
}
