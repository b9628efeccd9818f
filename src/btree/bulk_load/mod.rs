//! Sorted loads: a tree of full leaves that is built beside the tree, and takes its place.
//!
//! A [`TreeLoad`] builds a tree of its entries in pages that are reserved ([`builder`]). If the
//! tree is empty when the load is finished, that is the tree from then on. Otherwise a third one is
//! built out of the tree and the load, in the order of keys, and takes the place of the tree:
//! whatever was in it, and in what packs and memory, the result is full leaves. This costs reading
//! and writing all of the tree; to put leaves between those that are there would spare what lies
//! outside of the load's range, and is not done yet. The merge is made before commits are kept
//! away, from a view; it is only made again behind the load gate if something was committed since.
//!
//! # Why a crash at any moment is harmless
//!
//! - **BL1** Pages of a load are reserved: no meta page reaches them, and the freelist has them or
//!   they lie behind the file's end. So whatever a crash leaves of a load is free space.
//! - **BL2** Before the record is logged there is a checkpoint, with which everything that was
//!   applied is in the file's tree, the pages of the load are durable, and the file is long enough
//!   for them. No commit is applied after that. So recovery finds the tree that the load replaces,
//!   with nothing in memory, and the pages of the load among the free ones, before any checkpoint
//!   can use them.
//! - **BL3** Applying a load replaces the reference to the root, and notes the old tree as cut off;
//!   the next checkpoint has the pages in its tree and frees those of the old one. Until then
//!   the load is the oldest unpersisted operation, and the log keeps its record.
//!
//! # Who sees it when
//!
//! The pages of a load carry no number, and are visible as those of the file's tree are: when
//! [`disk_seq`](crate::btree::read::shared::SharedTree::disk_seq) is published, which is that of
//! the load from before its root appears. Until then readers see the tree before it, as beside a
//! large batch.

mod builder;

use std::cmp::Ordering as KeyOrder;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::file::freespace::Run;
use super::memory::node::{Child, ChildRef};
use super::node::Link;
use super::read::cursor::TreeCursor;
use super::read::view::View;
use super::state::Tree;
use crate::engine::{CommitLoad, Cursor, EngineLoad, LoadRecord};
use crate::error::{Error, Result};
use crate::format::coding::{Malformed, Reader, put_varint};
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use builder::{BuiltTree, TreeBuilder, give_back};

/// What owns a tree.
pub(super) trait HasTree: Send + Sync {
    fn tree(&self) -> &Tree;
}

#[derive(Clone)]
struct Owner(Arc<dyn HasTree>);

impl AsRef<Tree> for Owner {
    fn as_ref(&self) -> &Tree {
        self.0.tree()
    }
}

/// A load that is under way.
pub(super) struct TreeLoad {
    owner: Owner,
    /// Until it is closed.
    builder: Option<TreeBuilder<Owner>>,
    /// The tree of the load.
    own: Option<BuiltTree>,
    /// The tree of everything, and the last operation in it.
    merged: Option<(SeqNo, BuiltTree)>,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl fmt::Debug for TreeLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeLoad")
            .field("own", &self.own)
            .field("merged", &self.merged)
            .finish_non_exhaustive()
    }
}

/// More than any file holds.
const ENTRIES_MAX: u64 = 1 << 56;

/// Entries between two looks whether the store is being closed.
const ENTRIES_BETWEEN_LOOKS: u64 = 1024;

impl TreeLoad {
    pub(super) fn begin(engine: Arc<dyn HasTree>) -> Result<Self> {
        let owner = Owner(engine);
        let tree = owner.as_ref();
        if tree.read_only {
            return Err(Error::ReadOnly);
        }
        if !tree.shared.pager.has_file() {
            tree.checkpoint_locked(&mut tree.checkpointer.lock(), true)?;
        }
        Ok(Self {
            builder: Some(TreeBuilder::new(owner.clone())?),
            owner,
            own: None,
            merged: None,
            first: Vec::new(),
            last: Vec::new(),
        })
    }

    /// Merges the load with the tree as it is, unless that was done or the tree is empty.
    fn merge(&mut self) -> Result<()> {
        let owner = self.owner.clone();
        let tree = owner.as_ref();
        let view = tree.latest_view();
        view.check_usable()?;
        let seq = view.seq();
        if self.merged.as_ref().is_some_and(|(upto, _)| *upto == seq)
            || mutated!("commits-beside-a-merge-lost", self.merged.is_some(), false)
        {
            return Ok(());
        }
        self.give_back_merged();
        let mut old = TreeCursor::to_rewrite(view);
        old.seek_first()?;
        if !old.is_valid() {
            return Ok(());
        }
        let own = self.own.as_ref().expect("it was closed");
        {
            let checkpointer = tree.checkpointer.lock();
            tree.shared.pager.grow(checkpointer.free().file_units)?;
        }
        let view = Arc::new(View::of_pages(&tree.shared, own.root));
        let mut new = TreeCursor::to_rewrite(view);
        new.seek_first()?;
        let mut builder = TreeBuilder::new(self.owner.clone())?;
        while old.is_valid() || new.is_valid() {
            if builder.entries().is_multiple_of(ENTRIES_BETWEEN_LOOKS) {
                tree.host.check_running()?;
            }
            let order = match (old.is_valid(), new.is_valid()) {
                (true, true) => old.key().cmp(new.key()),
                (true, false) => KeyOrder::Less,
                (false, _) => KeyOrder::Greater,
            };
            let from = match order {
                KeyOrder::Less => &mut old,
                KeyOrder::Equal | KeyOrder::Greater => &mut new,
            };
            let (key, value) = from.entry()?;
            builder.add(key, value)?;
            from.next()?;
            if order == KeyOrder::Equal {
                old.next()?;
            }
        }
        self.merged = Some((seq, builder.finish()?));
        Ok(())
    }

    fn give_back_merged(&mut self) {
        if let Some((_, merged)) = self.merged.take() {
            give_back(self.owner.as_ref(), &merged.runs);
        }
    }
}

impl EngineLoad for TreeLoad {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let builder = self.builder.as_mut().expect("it is not closed");
        if builder.entries() == 0 {
            self.first = key.to_vec();
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        builder.add(key, value)
    }

    fn close(&mut self) -> Result<()> {
        let builder = self.builder.take().expect("closed once");
        self.own = Some(builder.finish()?);
        self.merge()?;
        // Syncs what was written. A sync that fails may lose what a checkpoint wrote, so it has to
        // be one of a checkpoint.
        let tree = self.owner.as_ref();
        tree.checkpoint_locked(&mut tree.checkpointer.lock(), true)
            .map(drop)
    }

    fn finish(mut self: Box<Self>, commit: &mut CommitLoad<'_>) -> Result<SeqNo> {
        self.merge()?;
        let owner = self.owner.clone();
        let tree = owner.as_ref();
        // Moving leaves changes the tree in memory.
        let _still = tree.compactor.lock();
        let mut checkpointer = tree.checkpointer.lock();
        // BL2.
        tree.checkpoint_locked(&mut checkpointer, true)?;
        let built = match &mut self.merged {
            Some((_, merged)) => merged,
            None => self.own.as_mut().expect("it was closed"),
        };
        let content = built.encode();
        // Those of a record that may be logged stay reserved.
        let runs = std::mem::take(&mut built.runs);
        let record = LoadRecord {
            content: &content,
            numbers: 1,
            first: &self.first,
            last: &self.last,
        };
        tree.is_finishing_load.store(true, Ordering::Release);
        let committed = commit(&record);
        tree.is_finishing_load.store(false, Ordering::Release);
        match &committed {
            Ok(_) => runs
                .iter()
                .for_each(|run| checkpointer.free_mut().attach(run.start)),
            Err(failed) if failed.may_be_logged => {}
            Err(_) => built.runs = runs,
        }
        drop(checkpointer);
        tree.host.wake();
        committed.map_err(|failed| failed.error)
    }
}

impl Drop for TreeLoad {
    fn drop(&mut self) {
        self.give_back_merged();
        if let Some(own) = &self.own {
            give_back(self.owner.as_ref(), &own.runs);
        }
    }
}

impl Tree {
    /// As [`crate::engine::Engine::apply_load`]. At runtime the thread that finishes the load has
    /// the free space locked.
    pub(super) fn apply_load(&self, content: &[u8], first: SeqNo, last: SeqNo) -> Result<()> {
        let bad = |what: &str| {
            let what = format!("the bulk load of operation {first}: {what}");
            Error::corruption(self.shared.pager.path(), 0, what)
        };
        let built =
            BuiltTree::decode(content).map_err(|Malformed| bad("its record is malformed"))?;
        if first != last {
            return Err(bad("it has more than one number"));
        }
        let is_replayed = !self.is_finishing_load.load(Ordering::Acquire);
        let mut checkpointer = is_replayed.then(|| self.checkpointer.lock());
        if let Some(checkpointer) = &mut checkpointer {
            let persisted = checkpointer.meta().persisted_seq;
            for run in &built.runs {
                if !checkpointer.free_mut().attach_free(*run) {
                    return Err(bad("a page of it is not free"));
                }
            }
            if self.applied() != persisted {
                return Err(bad(
                    "operations before it should be in the file and are not",
                ));
            }
        }
        let mut writer = self.writer.lock();
        if let Some(error) = self.shared.apply_failed.get() {
            return Err(error.clone());
        }
        let guard = crossbeam_epoch::pin();
        let ChildRef::Disk(old) = self.shared.root.load(&guard) else {
            return Err(bad("the tree before it is not in the file"));
        };
        if self.oldest_unpersisted.load(Ordering::Relaxed) == 0 {
            self.oldest_unpersisted.store(first.0, Ordering::Release);
        }
        writer.first_since_checkpoint.get_or_insert(first);
        self.keep_view_before(&mut writer, Some(first));
        self.hand_over_view(&mut writer, first);
        self.begin_change(&mut writer);
        let level = self
            .counters
            .height
            .load(Ordering::Relaxed)
            .saturating_sub(1) as u8;
        let frees = &mut writer.pending_frees;
        mutated!(
            "tree-before-a-load-not-freed",
            (),
            frees.dropped.push((old, level))
        );
        frees.removed_entries -= built.entries as i64;
        frees.loaded_overflow_units += built.overflow_units;
        // First, so that a reader that sees the root sees this (E4).
        self.shared.disk_seq.store(first.0, Ordering::Release);
        self.shared
            .store(&self.shared.root, Child::Disk(built.root), &guard);
        writer.applied = first;
        self.has_load.store(true, Ordering::Relaxed);
        self.counters
            .entries
            .store(built.entries, Ordering::Relaxed);
        self.counters
            .height
            .store(u64::from(built.level) + 1, Ordering::Relaxed);
        Ok(())
    }
}

impl BuiltTree {
    /// What the log has of it (docs/format.md, "Bulk load").
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.root.bits().to_le_bytes());
        out.push(self.level);
        put_varint(&mut out, self.entries);
        put_varint(&mut out, self.overflow_units);
        for run in &self.runs {
            put_varint(&mut out, run.start);
            put_varint(&mut out, run.len);
        }
        out
    }

    fn decode(content: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(content);
        let mut built = Self {
            root: Link::from_bits(reader.u64()?),
            level: reader.u8()?,
            entries: reader.varint()?,
            overflow_units: reader.varint()?,
            runs: Vec::new(),
        };
        while !reader.is_empty() {
            built.runs.push(Run {
                start: reader.varint()?,
                len: reader.varint()?,
            });
        }
        let page = built.root.page().0;
        let is_inside = |run: &Run| run.start <= page && page - run.start < run.len;
        let is_possible = built.entries < ENTRIES_MAX && built.overflow_units < Link::UNITS_MAX;
        match is_possible && built.runs.iter().any(is_inside) {
            true => Ok(built),
            false => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PageId;

    #[test]
    fn golden_bytes() {
        let built = BuiltTree {
            root: Link::new(PageId(9), 0x0A_0B0C),
            level: 2,
            entries: 300,
            overflow_units: 5,
            runs: vec![Run { start: 4, len: 1 }, Run { start: 8, len: 200 }],
        };
        let content = built.encode();
        assert_eq!(
            content,
            b"\x09\0\0\0\0\x0c\x0b\x0a\x02\xac\x02\x05\x04\x01\x08\xc8\x01"
        );
        assert_eq!(BuiltTree::decode(&content), Ok(built.clone()));
        for len in 0..content.len() {
            let decoded = BuiltTree::decode(&content[..len]);
            assert_ne!(decoded, Ok(built.clone()));
        }
        // The root lies in none of the runs.
        let elsewhere = BuiltTree {
            root: Link::new(PageId(7), 1),
            ..built
        };
        assert!(BuiltTree::decode(&elsewhere.encode()).is_err());
    }
}
