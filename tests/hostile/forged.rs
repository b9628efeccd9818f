//! Tables, manifests and trees made by hand, each with one thing wrong.

use std::path::Path;
use std::sync::Arc;

use hedgerow::fs::SimFs;
use support::forge::manifest::manifest_of;
use support::forge::table::{Block, Table, add_tombstone, block_body};
use support::forge::tree::{Group, Held, PAGE, Value, inner, leaf, pack, tree, with_packs};
use support::image::Image;
use support::repair::{self, Owner};

use super::{alone, options, suffer, template};

pub(super) fn owner_of(keyspace: u64) -> Owner {
    Owner {
        store: repair::store_id(&template().files[Path::new("CATALOG")]).unwrap(),
        keyspace,
    }
}

/// The template with other files in the directory of the first keyspace, an LSM tree.
pub(super) fn with_tables(tables: &[(u8, Table)]) -> Image {
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
pub(super) fn with_tree(bytes: Vec<u8>) -> Image {
    let mut image = template().clone();
    image.files.insert("ks-00000002/tree.hdb".into(), bytes);
    image
}

pub(super) fn key(n: u32) -> Vec<u8> {
    n.to_be_bytes().to_vec()
}

pub(super) fn entries(
    keys: impl IntoIterator<Item = u32>,
    seq: u64,
) -> Vec<(Vec<u8>, u64, Vec<u8>)> {
    keys.into_iter()
        .map(|n| (key(n), seq, vec![7; 20]))
        .collect()
}

pub(super) fn plain(separator: u32, entries: &[(Vec<u8>, u64, Vec<u8>)]) -> Block {
    Block {
        separator: key(separator),
        tag: 0,
        bytes: block_body(entries),
    }
}

pub(super) fn table(blocks: Vec<Block>, smallest: u32, largest: u32, entries: u64) -> Table {
    Table {
        blocks,
        smallest: key(smallest),
        largest: Some(key(largest)),
        seqs: (1, 40),
        entries,
        ..Table::default()
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
    let image = with_tree(tree(
        owner,
        50,
        2,
        2,
        &[root, leaves[0].clone(), leaves[1].clone()],
    ));
    let (found, failed) = count(&image, "btree");
    assert!(found >= 2 && !failed, "{found}");
    on_both_paths("forged without tricks", &image);
    let image = with_tree(with_two_packs());
    let (found, failed) = count(&image, "btree");
    // One of the two entries was deleted, and two were put.
    assert!(found >= 3 && !failed, "{found}");
    on_both_paths("forged with packs", &image);
}

/// A tree whose two leaves have changes in an old pack and a recent one.
fn with_two_packs() -> Vec<u8> {
    tree(owner_of(2), 50, 2, 2, &two_packs(&HELD, &group()))
}

/// What the packs of [`two_packs`] hold for its leaves.
const HELD: [Held; 2] = [(0b11, 0, 1, 60, 60), (0b10, 0, 0, 0, 20)];

/// The packs of [`two_packs`].
fn group() -> Group {
    Group {
        first: 0,
        old: vec![(5, 0)],
        recent: vec![6],
        area: (6, 3, 1),
    }
}

/// The pages of a tree with two leaves and two packs, from number 2 on, as its root describes them.
fn two_packs(held: &[Held], group: &Group) -> Vec<Vec<u8>> {
    let root = inner(1, 2, (b"", None), &[key(50)], &[3, 4]);
    let put = |n: u32| (key(n), Some(vec![3; 9]));
    vec![
        with_packs(root, held, std::slice::from_ref(group)),
        leaf(
            3,
            (b"", Some(&key(50))),
            &[(key(5), Value::Here(vec![1; 9]))],
        ),
        leaf(4, (&key(50), None), &[(key(60), Value::Here(vec![2; 9]))]),
        pack(5, (b"", None), &[put(4), (key(5), None)]),
        pack(6, (b"", None), &[put(6), put(60)]),
        vec![0; PAGE],
        vec![0; PAGE],
    ]
}

/// Packs that are somewhere else, or something else, or hold something else than is said.
#[test]
fn packs_that_are_not_what_they_should_be() {
    type Change = fn(&mut Group);
    let _alone = alone();
    let whole = group();
    let mut stories: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
    for (story, held) in [
        ("entries", [(0b11, 0, i16::MIN, 0, 60), HELD[1]]),
        ("more entries", [(0b11, 0, i16::MAX, 0, 60), HELD[1]]),
        ("growth", [(0b11, 0, 1, i16::MIN, u16::MAX), HELD[1]]),
        ("more growth", [(0b11, 0, 1, i16::MAX, 0), HELD[1]]),
        (
            "an estimate of fewer",
            [(0b11, 1, i16::MIN, 60, 60), HELD[1]],
        ),
        (
            "an estimate of more",
            [(0b11, 1, i16::MAX, 60, 60), HELD[1]],
        ),
        ("no estimate either", [(0b11, 2, 1, 60, 60), HELD[1]]),
        ("a mask of all", [(0xFF, 0, 1, 60, 60), HELD[1]]),
        (
            "an old pack that is not there",
            [HELD[0], (0b101, 0, 0, 0, 9)],
        ),
    ] {
        stories.push((story.into(), two_packs(&held, &whole)));
    }
    let changed = |change: Change| {
        let mut group = group();
        change(&mut group);
        two_packs(&HELD, &group)
    };
    let groups: [(&str, Change); 12] = [
        ("an area over the meta pages", |group| {
            group.area = (0, 24, 0)
        }),
        ("no recent pack in the area", |group| {
            group.recent.clear();
            group.area = (0, 24, 0);
        }),
        ("an area outside the file", |group| {
            group.recent.clear();
            group.area = (1 << 39, 24, 0);
        }),
        ("an area at the end of numbers", |group| {
            group.recent.clear();
            group.area = (u64::MAX, u16::MAX, 1);
        }),
        ("an area over the leaves", |group| group.area = (3, 4, 1)),
        ("packs outside the file", |group| {
            group.old = vec![(1 << 39, 0)]
        }),
        ("a meta page as a pack", |group| group.old = vec![(0, 0)]),
        ("a leaf as a pack", |group| group.old = vec![(3, 0)]),
        ("the parent as a pack", |group| group.recent = vec![2]),
        ("an empty page as a pack", |group| group.recent = vec![7]),
        ("one pack eight times", |group| {
            group.old = vec![(5, 0)];
            group.recent = vec![5; 7];
        }),
        ("a group that begins later", |group| group.first = 1),
    ];
    for (story, change) in groups {
        stories.push((story.into(), changed(change)));
    }
    let mut narrow = two_packs(&HELD, &whole);
    narrow[3] = pack(5, (b"", Some(&key(5))), &[(key(4), Some(vec![3; 9]))]);
    stories.push(("a pack that ends within a leaf".into(), narrow));
    let mut long = two_packs(&HELD, &whole);
    long[1] = leaf(
        3,
        (b"", Some(&key(50))),
        &[(key(5), Value::Here(vec![1; 800]))],
    );
    long[4] = pack(6, (b"", None), &[(key(6), Some(vec![3; 800]))]);
    stories.push(("changes that do not fit".into(), long));
    let mut outside = two_packs(&HELD, &whole);
    outside[1] = leaf(3, (b"", Some(&key(50))), &[(key(5), Value::There(7, 1000))]);
    stories.push(("packs over values outside".into(), outside));
    let mut child = two_packs(&HELD, &whole);
    let root = inner(1, 2, (b"", None), &[key(50)], &[5, 6]);
    child[0] = with_packs(root, &HELD, &[group()]);
    stories.push(("packs as leaves".into(), child));
    for (story, pages) in &stories {
        let bytes = tree(owner_of(2), 50, 2, 2, pages);
        on_both_paths(story, &with_tree(bytes));
    }
    // Seven levels whose nodes have one child twenty times, and at the bottom the same packs.
    let separators: Vec<_> = (1..20u32).map(key).collect();
    let mut pages: Vec<_> = (0..8u8)
        .map(|n| {
            let (page, below) = (u64::from(n) + 2, u64::from(n) + 3);
            inner(8 - n, page, (b"", None), &separators, &[below; 20])
        })
        .collect();
    let group = Group {
        first: 0,
        old: vec![(11, 0)],
        recent: vec![12],
        area: (12, 3, 1),
    };
    let bottom = pages.pop().expect("eight nodes");
    pages.push(with_packs(bottom, &[(0b11, 0, 1, 60, 60); 20], &[group]));
    pages.push(leaf(10, (b"", None), &[]));
    for page in [11, 12] {
        pages.push(pack(page, (b"", None), &[(key(4), Some(vec![3; 9]))]));
    }
    pages.extend(vec![vec![0; PAGE]; 2]);
    let bytes = tree(owner_of(2), 50, 9, 2, &pages);
    on_both_paths("two packs a billion times", &with_tree(bytes));
}

/// A fuzzer's table: the blocks hold other keys than their separators say, and a scan backwards,
/// which steps over a key and seeks it again, was sent round for over eighty seconds.
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
        on_both_paths(&story, &with_packed(bomb(claimed, stored)));
    }
}

/// A table of one compressed block.
fn with_packed(block: Block) -> Image {
    let table = Table {
        form: [block.tag, u8::from(block.tag == 2), 0],
        ..table(vec![block], 0, 9, 10)
    };
    with_tables(&[(1, table)])
}

/// A frame of zstd by hand: `blocks` blocks of 128 KiB, each a run of one byte, which take four
/// bytes apiece; `content` is the length that it states, if it does.
fn runs_of_zstd(blocks: usize, content: Option<u64>) -> Vec<u8> {
    let mut out = 0xFD2F_B528_u32.to_le_bytes().to_vec();
    match content {
        // A single segment, with eight bytes for the length.
        Some(len) => {
            out.push(0b1110_0000);
            out.extend_from_slice(&len.to_le_bytes());
        }
        // A window of 128 KiB.
        None => out.extend_from_slice(&[0, 7 << 3]),
    }
    const RUN: u32 = 1;
    for n in 0..blocks {
        let header = (128 << 10) << 3 | RUN << 1 | u32::from(n + 1 == blocks);
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.push(7);
    }
    out
}

/// Frames of zstd that are much shorter than what they hold, or claim to be.
#[test]
fn decompression_bombs_of_zstd() {
    let _alone = alone();
    const RUN: u64 = 128 << 10;
    let bomb = |claimed: u32, content: Option<u64>, blocks: usize, padding: usize| {
        let mut bytes = claimed.to_le_bytes().to_vec();
        bytes.extend_from_slice(&runs_of_zstd(blocks, content));
        bytes.resize(bytes.len() + padding, 0);
        Block {
            separator: key(0),
            tag: 2,
            bytes,
        }
    };
    for (claimed, content, blocks, padding) in [
        // As long as it says, 32,768 times as long as it is.
        (16 << 20, Some(128 * RUN), 128, 0),
        (u32::MAX, Some(u64::from(u32::MAX)), 8, 0),
        (u32::MAX, Some(u64::MAX), 8, 1 << 20),
        // Bytes behind the frame make the length plausible, and are not another frame.
        (16 << 20, Some(128 * RUN), 128, 1 << 20),
        // The block says less, more, or the frame says nothing.
        (100, Some(128 * RUN), 128, 0),
        (131_072, Some(100), 1, 1 << 10),
        (131_072, Some(1 << 60), 1, 1 << 10),
        (131_072, None, 1, 1 << 10),
        (131_072, Some(RUN), 2, 1 << 10),
        // No frame at all.
        (100, None, 0, 0),
    ] {
        let story = format!("{blocks} runs that claim to be {claimed}, or {content:?}");
        let image = with_packed(bomb(claimed, content, blocks, padding));
        on_both_paths(&story, &image);
        assert!(count(&image, "lsm").1, "{story}: nothing was noticed");
    }
}

#[test]
fn very_many_range_tombstones() {
    let _alone = alone();
    let mut tombstones = Vec::new();
    let number = 100_000;
    for n in 0..number as u32 {
        add_tombstone(&mut tombstones, 9, &key(n), None);
    }
    let table = Table {
        largest: None,
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

/// What is wrong, up to where the tree is said to be persisted, and its tables: level and meta.
type Story = (&'static str, u64, Vec<(u8, Vec<u8>)>);

#[test]
fn absurd_manifests() {
    let _alone = alone();
    let owner = owner_of(1);
    let (_, meta) = table(vec![plain(0, &entries(0..10, 5))], 0, 9, 10).file(owner, 2);
    let mut huge = meta.clone();
    huge[8..16].fill(0xFF);
    let stories: [Story; 6] = [
        ("a table that is not there", 50, vec![(1, meta.clone())]),
        ("a table of all bytes there are", 50, vec![(0, huge)]),
        (
            "the same table ten thousand times",
            50,
            vec![(1, meta.clone()); 10_000],
        ),
        ("a level that is none", 50, vec![(7, meta.clone())]),
        ("persisted forever", u64::MAX >> 8, vec![]),
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

/// A circle of references is closed by fingerprints that fit, so it is what the levels say that
/// ends a descent.
#[test]
fn a_circle_of_right_fingerprints_ends_at_a_wrong_level() {
    let separators: Vec<_> = (1..20u32).map(key).collect();
    let circle = [
        inner(2, 2, (b"", None), &separators, &[3; 20]),
        inner(1, 3, (b"", None), &separators, &[2; 20]),
    ];
    let itself = [inner(1, 2, (b"", None), &separators, &[2; 20])];
    for (height, pages) in [(3, &circle[..]), (2, &itself)] {
        let image = with_tree(tree(owner_of(2), 50, height, 2, pages));
        let fs = SimFs::new();
        image.write(&fs, Path::new("/store"));
        // Replaying the log is the first descent.
        let error = options(Arc::new(fs)).open("/store").unwrap_err();
        assert!(error.to_string().contains("level"), "{error}");
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
            tree(owner, 50, 9, 2, &pages),
        ));
    }
    let cycle = [
        inner(2, 2, (b"", None), &separators, &[3; 20]),
        inner(1, 3, (b"", None), &separators, &[2; 20]),
    ];
    stories.push(("a cycle".into(), tree(owner, 50, 3, 2, &cycle)));
    let itself = [inner(1, 2, (b"", None), &separators, &[2; 20])];
    stories.push(("a node in itself".into(), tree(owner, 50, 2, 2, &itself)));
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
    stories.push(("as deep as can be".into(), tree(owner, 50, 256, 2, &chain)));
    let outside = [leaf(
        2,
        (b"", None),
        &[(key(3), Value::There(1 << 40, 5000))],
    )];
    stories.push((
        "a value outside the file".into(),
        tree(owner, 50, 1, 2, &outside),
    ));
    let long = [leaf(
        2,
        (b"", None),
        &[(key(3), Value::There(2, u32::MAX >> 1))],
    )];
    stories.push((
        "a value of two gigabytes".into(),
        tree(owner, 50, 1, 2, &long),
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
        tree(owner, 50, 2, 2, &neighbours),
    ));
    for (story, bytes) in stories {
        on_both_paths(&story, &with_tree(bytes));
    }
}
