//! What is written anew is checked again first: damage gets no new checksum.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Bench, OwnedOp};
use crate::btree::BTreeEngine;
use crate::btree::bulk_load::HasTree;
use crate::btree::file::new_file::FILE_NAME;
use crate::btree::node::Link;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::fs::{File, OpenMode, StdFs};
use crate::types::{SeqNo, SequencedOp};

const PAGE_SIZE: u32 = 4096;

fn key(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// What is in the value of a key and nowhere else.
fn mark(number: u32) -> Vec<u8> {
    format!("<value {number:08}>").into_bytes()
}

fn value(number: u32, len: usize) -> Vec<u8> {
    let mut value = mark(number);
    value.resize(len, b'.');
    value
}

fn put(number: u32, len: usize) -> OwnedOp {
    OwnedOp::Put(key(number), value(number, len))
}

/// A tree on the disk.
struct Damaged {
    _scratch: tempfile::TempDir,
    bench: Bench,
    engine: Arc<BTreeEngine>,
    /// Bytes that are not what they were.
    flipped: Vec<u64>,
}

impl Damaged {
    fn new(use_mmap: bool) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("ks");
        let mut bench = Bench::new(Arc::new(StdFs::new()), &dir, PAGE_SIZE, use_mmap);
        bench.options = bench.options.clone().value_threshold_bytes(0);
        let context = bench.context_on(&bench.fs, use_mmap);
        let engine = BTreeEngine::with_no_file(context).unwrap();
        bench.engine = Arc::clone(&engine) as _;
        Self {
            _scratch: scratch,
            bench,
            engine,
            flipped: Vec::new(),
        }
    }

    fn fill(&mut self, numbers: impl IntoIterator<Item = u32>, len: usize) {
        let ops = numbers.into_iter().map(|number| put(number, len));
        self.bench.apply(ops.collect());
        self.bench.engine.flush().unwrap();
    }

    /// A commit, which damage makes fail before it is in the log, or not at all.
    fn commit(&mut self, ops: Vec<OwnedOp>) -> Result<()> {
        let seqs = self.bench.seq + 1..;
        let sequenced: Vec<_> = ops
            .iter()
            .zip(seqs)
            .map(|(op, seq)| SequencedOp::new(SeqNo(seq), op.borrow()))
            .collect();
        self.engine.prepare(&sequenced)?;
        self.bench.apply(ops);
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.bench.dir.join(FILE_NAME)
    }

    fn file(&self) -> Arc<dyn File> {
        self.bench
            .fs
            .open(&self.path(), OpenMode::ReadWrite)
            .unwrap()
    }

    fn flip(&mut self, places: Vec<u64>) {
        let file = self.file();
        for at in &places {
            let mut byte = [0];
            file.read_exact_at(&mut byte, *at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], *at).unwrap();
        }
        self.flipped = places;
    }

    /// Damages the value of a key, wherever it is in the file.
    fn damage(&mut self, number: u32) {
        let file = self.file();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let mark = mark(number);
        let found = bytes.windows(mark.len()).enumerate();
        let places = found.filter(|(_, window)| *window == mark);
        let places: Vec<u64> = places.map(|(at, _)| at as u64 + 8).collect();
        assert!(!places.is_empty(), "the value is in the file");
        self.flip(places);
    }

    /// Damages the root.
    fn damage_root(&mut self) {
        let tree = self.engine.tree();
        let root = Link::from_bits(tree.disk_root.load(Ordering::Acquire));
        let at = tree.shared.pager.offset(root.page());
        self.flip(vec![at + 200]);
    }

    fn mend(&mut self) {
        let places = std::mem::take(&mut self.flipped);
        self.flip(places);
        self.flipped.clear();
    }
}

/// Reads everything, damages something, and tries what writes it anew. That must fail, unless what
/// is written is what was read before the damage; when it is mended it must not.
fn check(
    fill: impl Fn(&mut Damaged),
    damage: impl Fn(&mut Damaged),
    rewrite: impl Fn(&mut Damaged) -> Result<()>,
) {
    for use_mmap in [true, false] {
        check_with(use_mmap, &fill, &damage, &rewrite);
    }
}

fn check_with(
    use_mmap: bool,
    fill: impl Fn(&mut Damaged),
    damage: impl Fn(&mut Damaged),
    rewrite: impl Fn(&mut Damaged) -> Result<()>,
) {
    let mut tree = Damaged::new(use_mmap);
    fill(&mut tree);
    tree.bench.check_all();
    damage(&mut tree);
    match rewrite(&mut tree) {
        Err(Error::Corruption { file, .. }) => {
            assert_eq!(file, tree.path());
            tree.mend();
            rewrite(&mut tree).unwrap();
        }
        Ok(()) if !use_mmap => {}
        other => panic!("{other:?}"),
    }
    tree.bench.check_all();
    tree.bench.verify();
}

/// Mapped pages were verified once and then trusted: a checkpoint merged changes with a leaf that
/// had changed on the disk since, and gave the result a checksum that matched.
#[test]
fn damage_gets_no_new_checksum_from_a_checkpoint() {
    // A leaf that is the root, and one of many.
    for (count, changed) in [(20, 19..20), (2000, 1000..1012)] {
        check(
            |tree| tree.fill(0..count, 100),
            |tree| tree.damage(if count == 20 { 7 } else { 1005 }),
            |tree| {
                let others = changed.clone().filter(|number| *number != 1005);
                // As long as they were, so that they go among the changes.
                let ops = others.map(|number| OwnedOp::Put(key(number), vec![1; 100]));
                tree.commit(ops.collect())?;
                tree.engine.flush()
            },
        );
    }
}

#[test]
fn readers_find_the_damage_that_a_checkpoint_found() {
    let mut tree = Damaged::new(true);
    tree.fill(0..2000, 100);
    tree.bench.check_all();
    tree.damage(1005);
    assert!(tree.engine.get_value(&key(1005)).is_ok(), "it was checked");
    let others = (1000..1012).filter(|number| *number != 1005);
    let ops = others.map(|number| OwnedOp::Put(key(number), vec![1; 100]));
    tree.bench.apply(ops.collect());
    assert!(tree.engine.flush().unwrap_err().is_corruption());
    let found = tree.engine.get_value(&key(1005));
    assert!(found.unwrap_err().is_corruption());
}

#[test]
fn damage_gets_no_new_checksum_from_a_compaction() {
    check(
        |tree| {
            tree.fill(0..3000, 100);
            let most = OwnedOp::DeleteRange(key(0), Some(key(2500)));
            tree.bench.apply(vec![most]);
            tree.bench.engine.flush().unwrap();
        },
        |tree| tree.damage(2900),
        |tree| tree.engine.compact(),
    );
}

/// The same of packs, which a compaction merges with their leaves.
#[test]
fn damage_of_a_pack_gets_no_new_checksum() {
    check(
        |tree| {
            tree.fill(0..3000, 100);
            tree.fill((1000..1400).step_by(50), 90);
        },
        |tree| tree.damage(1000),
        |tree| tree.engine.compact(),
    );
}

/// The same of values outside of leaves.
#[test]
fn damage_of_a_moved_value_gets_no_new_checksum() {
    check(
        |tree| {
            tree.fill(0..20, 20_000);
            let most = OwnedOp::DeleteRange(key(0), Some(key(15)));
            tree.bench.apply(vec![most]);
            tree.bench.engine.flush().unwrap();
        },
        |tree| tree.damage(18),
        |tree| tree.engine.compact(),
    );
}

/// A leaf that a put or a delete makes whole in memory is written later, with a new checksum. The
/// commit fails before it is in the log: one that fails behind it stops the store.
#[test]
fn damage_below_a_change_that_makes_a_leaf_whole_is_found_before_the_commit() {
    let changes = [
        // A split.
        vec![put(1000, 900)],
        vec![put(1000, 900), put(1001, 900)],
        (1000..1030).map(|number| put(number, 30)).collect(),
        // Many deletes.
        (0..26)
            .filter(|n| *n != 7)
            .map(|n| OwnedOp::Delete(key(n)))
            .collect(),
        // A value that goes outside.
        vec![put(1000, 3000)],
        vec![put(1000, 3000), put(1001, 10)],
        vec![OwnedOp::DeleteRange(key(5), Some(key(6)))],
    ];
    for change in changes {
        for is_in_memory in [false, true] {
            check(
                |tree| tree.fill(0..28, 100),
                |tree| {
                    if is_in_memory {
                        tree.bench.put(&key(27), b"1");
                    }
                    tree.damage(7);
                },
                |tree| {
                    tree.commit(change.clone())?;
                    tree.engine.flush()
                },
            );
        }
    }
}

/// A leaf with values outside is loaded whole.
#[test]
fn damage_of_a_leaf_that_is_loaded_whole_is_found_before_the_commit() {
    for is_batch in [false, true] {
        check(
            |tree| {
                tree.fill(0..10, 100);
                tree.fill([20], 20_000);
            },
            |tree| tree.damage(7),
            |tree| {
                let mut ops = vec![put(8, 50)];
                ops.extend(is_batch.then(|| put(9, 50)));
                tree.commit(ops)?;
                tree.engine.flush()
            },
        );
    }
}

#[test]
fn damage_of_an_inner_node_is_found_before_the_commit() {
    for ops in [
        vec![put(5, 100)],
        vec![put(5, 100), put(6, 100)],
        vec![OwnedOp::Delete(key(5))],
        vec![OwnedOp::DeleteRange(key(5), Some(key(6)))],
    ] {
        check(
            |tree| tree.fill(0..3000, 100),
            Damaged::damage_root,
            |tree| {
                tree.commit(ops.clone())?;
                tree.engine.flush()
            },
        );
    }
}

/// A load into a tree that is not empty writes everything in it to other places.
#[test]
fn damage_gets_no_new_checksum_from_a_bulk_load() {
    for (number, len) in [(500, 100), (2000, 20_000)] {
        // What is in the cache is right, and what the load gives back changes nothing.
        check_with(
            true,
            |tree| {
                tree.fill(0..1000, 100);
                tree.fill([2000], 20_000);
            },
            |tree| {
                tree.damage(number);
                assert_eq!(tree.bench.map[&key(number)].len(), len);
            },
            |tree| {
                let mut load = Arc::clone(&tree.engine).begin_load()?;
                load.put(&key(5000), b"new")?;
                load.close()
            },
        );
    }
}
