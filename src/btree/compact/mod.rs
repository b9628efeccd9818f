//! Making the file small: nodes and values at its end move into free places in front, sparse
//! leaves are joined, and the free end is cut off.
//!
//! Moving is nothing special: a leaf that is loaded into memory is written by the next checkpoint,
//! to the lowest free place. So compaction touches leaves in portions of the write buffer, and runs
//! checkpoints. It goes on while that makes the file smaller. Views keep old pages, so the
//! file becomes no smaller than they allow.
//!
//! A leaf that is moved is written whole. So a pass that moves all leaves with packs leaves none
//! behind: [`Tree::compact`] does, and one in the background when reads have paid enough for packs
//! ([`super::read::pack_cost`]).
//!
//! # Who waits for it
//!
//! A *pass* goes through the tree once, a branch at a time: the leaves below one inner node. It
//! looks at a branch in the file's tree of that moment, whose pages it keeps like a view does,
//! and remembers the key at which the next branch begins. Between branches it holds nothing, and it
//! never holds the checkpoint lock while it looks. So flushes go on, and a pass in the background
//! stops for commits and goes on later where it was. What it moves, it reads before it takes the
//! writer's mutex.

pub(super) mod compactor;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::memory::node::LargeValue;
use super::node;
use super::node::inner::Inner;
use super::node::leaf::{Leaf, LeafValue};
use super::node::{Link, NodeKind};
use super::read::pack_cost::Due;
use super::state::Tree;
use super::write::editor::Editor;
use super::write::leaf::MovedValues;
use crate::error::{Error, Result};
use crate::types::PageId;
use crate::util::mutants::mutated;
use compactor::{Compactor, Gain, Packing, Pass};

/// A pass that saves a smaller part of the file than one of so many has gained nothing: the file
/// grows and shrinks by a few pages anyway.
const SAVED_PART: u64 = 32;

/// Values are moved at once that take one of so many parts of the write buffer, or a single one:
/// writers are slowed when changes take one and a half of it.
const MOVED_PART: u64 = 4;

/// What is to be done.
enum Task {
    /// To the leaf for a key.
    Move(Vec<u8>),
    /// To the leaves from one key up to another.
    Fill(Vec<u8>, Option<Vec<u8>>),
}

/// A branch that was looked at.
struct Branch {
    tasks: Vec<Task>,
    /// Where the next one begins, if there is one.
    next: Option<Vec<u8>>,
}

impl Tree {
    /// As [`crate::engine::Engine::compact`].
    pub(super) fn compact(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        let mut compactor = self.compactor.lock();
        *compactor = Compactor::default();
        self.checkpoint()?;
        loop {
            let mut pass = self.begin_pass(Packing::Tight, true);
            while !self.compact_branch(&mut pass, &|| false)? {
                // To the end of a load, for which commits wait.
                MutexGuard::bump(&mut compactor);
            }
            let gain = self.end_pass(&pass)?;
            self.shared.pack_cost.settle();
            if !compactor.goes_on(gain) {
                break;
            }
        }
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// A unit of compaction in the background: a branch of the tree. Gives way to commits, unless
    /// so much is free (`always`) that it is worth their while. Returns whether anything was done,
    /// and after which checkpoint the next compaction is due, if this one has ended.
    pub(super) fn compact_some(&self, always: bool) -> (Result<bool>, Option<u64>) {
        let Some(mut compactor) = self.compactor.try_lock() else {
            return (Ok(false), None);
        };
        let applied = self.applied();
        let is_quiet = compactor.considered.replace(applied) == Some(applied);
        // A full buffer stops writers, which does not make the tree a quiet one.
        let must_give_way = || self.flush_is_due() || !always && self.applied() != applied;
        if !(is_quiet || always) || must_give_way() {
            return (Ok(false), None);
        }
        let generation = || self.shared.disk_generation.load(Ordering::Acquire);
        match self.compact_one_branch(&mut compactor, &must_give_way) {
            Ok(false) => (Ok(true), None),
            Ok(true) => {
                self.counters.compactions.fetch_add(1, Ordering::Relaxed);
                (Ok(true), Some(compactor.ended(generation())))
            }
            // What is damaged is met again each time, after all that was written before it.
            Err(error) if error.is_corruption() || mutated!("failed-compaction-is-due-no-more") => {
                let next_after = compactor.failed(generation());
                (Err(error), Some(next_after))
            }
            // It stays due, and the store tries it again after pauses.
            Err(error) => {
                compactor.interrupted();
                (Err(error), None)
            }
        }
    }

    /// True if a compaction in the background has failed and none has ended since.
    pub(super) fn compaction_owes(&self) -> bool {
        let compactor = self.compactor.try_lock();
        compactor.is_none_or(|compactor| compactor.has_failed)
    }

    /// True if that was the last branch of the last round.
    fn compact_one_branch(
        &self,
        compactor: &mut Compactor,
        must_give_way: &dyn Fn() -> bool,
    ) -> Result<bool> {
        let mut pass = match compactor.pass.take() {
            Some(pass) => pass,
            None => {
                self.checkpoint_to_compact(false)?;
                self.begin_pass(Packing::Loose, self.shared.pack_cost.due() > Due::No)
            }
        };
        if !self.compact_branch(&mut pass, must_give_way)? {
            compactor.pass = Some(pass);
            return Ok(false);
        }
        let gain = self.end_pass(&pass)?;
        if pass.settles {
            self.shared.pack_cost.settle();
            compactor.note_settled();
        }
        Ok(!compactor.goes_on(gain))
    }

    fn begin_pass(&self, packing: Packing, settles: bool) -> Pass {
        let checkpointer = self.checkpointer.lock();
        let file_units = checkpointer.meta().file_units;
        Pass {
            // Hostile pages may have been freed many times over.
            limit: file_units.saturating_sub(checkpointer.free_units()),
            file_units,
            next: Vec::new(),
            packing,
            settles,
            moved: false,
        }
    }

    /// Cuts the file.
    fn end_pass(&self, pass: &Pass) -> Result<Gain> {
        // What a checkpoint frees is reusable in the next one, and cut off in the one after.
        for _ in 0..2 {
            self.checkpoint_to_compact(true)?;
        }
        self.counters.sparse_leaves.store(0, Ordering::Relaxed);
        let checkpointer = self.checkpointer.lock();
        let file_units = checkpointer.meta().file_units;
        // A bulk load may be writing to pages behind the file's tree.
        self.shared.pager.shrink(checkpointer.free().file_units)?;
        let live = file_units.saturating_sub(checkpointer.free_units());
        let has_ended = !pass.moved || file_units == live;
        // Leaves that were joined may lie behind the places that they left free.
        let saved = pass.file_units.saturating_sub(file_units) + pass.limit.saturating_sub(live);
        Ok(match saved {
            _ if has_ended => Gain::Complete,
            0 => Gain::None,
            saved if saved * SAVED_PART < pass.file_units => Gain::None,
            _ => Gain::Some,
        })
    }

    /// A checkpoint that counts as compaction.
    fn checkpoint_to_compact(&self, force: bool) -> Result<()> {
        let mut checkpointer = self.checkpointer.lock();
        let bytes = &self.counters.checkpoint_bytes;
        let before = bytes.load(Ordering::Relaxed);
        self.checkpoint_locked(&mut checkpointer, force)?;
        let written = bytes.load(Ordering::Relaxed) - before;
        self.counters
            .compaction_bytes
            .fetch_add(written, Ordering::Relaxed);
        Ok(())
    }

    /// Does what is to be done in the next branch of the pass, with a checkpoint whenever that
    /// fills the write buffer. True if it was the last one; false also if it had to give way. Gives
    /// up when the store is being closed.
    fn compact_branch(&self, pass: &mut Pass, must_give_way: &dyn Fn() -> bool) -> Result<bool> {
        let branch = self.look_at_branch(pass)?;
        for task in &branch.tasks {
            self.host.check_running()?;
            if must_give_way() {
                return Ok(false);
            }
            pass.moved = true;
            match task {
                Task::Move(key) => {
                    // As often as it has more values than are moved at once.
                    let mut more = self.move_leaf(key, None, pass.limit)?;
                    while let Some(after) = more {
                        self.checkpoint_if_full()?;
                        more = self.move_leaf(&after, Some(&after), pass.limit)?;
                    }
                }
                Task::Fill(from, to) => {
                    if !self.fill_leaves(from, to.as_deref(), must_give_way)? {
                        return Ok(false);
                    }
                }
            }
            self.checkpoint_if_full()?;
        }
        match branch.next {
            Some(next) => {
                pass.next = next;
                Ok(false)
            }
            None => Ok(true),
        }
    }

    /// Untouched leaves count little as changes in memory, and a page each in the file.
    fn checkpoint_if_full(&self) -> Result<()> {
        if self.flush_is_due() {
            self.checkpoint_to_compact(true)?;
        }
        Ok(())
    }

    /// What is to be done in the branch at `pass.next`: leaves are moved that lie, or have a parent
    /// or a value that lies, at page `pass.limit` or behind it, and those that are less than a
    /// third full, to be joined with others; or all are filled up, if that saves enough of them.
    fn look_at_branch(&self, pass: &Pass) -> Result<Branch> {
        let (_kept, root) = self.keep_file_tree();
        // A pin for each node: memory should be reclaimed meanwhile.
        let read = |link: Link, level: Option<u8>| {
            let image = self
                .shared
                .pager
                .owned_node(link, &crossbeam_epoch::pin())?;
            self.shared.check_level(&image, link.page(), level)?;
            Ok::<_, Error>(image)
        };
        let is_far = |link: Link, image: &[u8]| {
            link.page().0 + u64::from(node::unit_count(image)) > pass.limit
        };
        let mut branch = Branch {
            tasks: Vec::new(),
            next: None,
        };
        let (mut link, mut level, mut parent_is_far) = (root, None, false);
        loop {
            let image = read(link, level)?;
            let far = parent_is_far || is_far(link, &image);
            if node::kind(&image) == Some(NodeKind::Leaf) {
                // The root.
                let leaf = Leaf::from_image(&image);
                if far || has_value_beyond(leaf, pass.limit) {
                    branch.tasks.push(Task::Move(Vec::new()));
                }
                return Ok(branch);
            }
            let inner = Inner::from_image(&image);
            level = inner.level().checked_sub(1);
            if inner.level() > 1 {
                let i = inner.find_child(&pass.next);
                // Moving one child moves the parent.
                (link, parent_is_far) = (inner.child(i), far && i == 0);
                continue;
            }
            let mut upper = Vec::new();
            branch.next = inner.write_upper_fence(&mut upper).then_some(upper);
            if branch.next.as_ref().is_some_and(|next| *next <= pass.next) {
                let what = "the node ends before a key that leads to it";
                return Err(self.shared.pager.damaged(link.page(), what));
            }
            let mut bytes = 0;
            let mut lower = Vec::new();
            let packs = inner.packs().map(|packs| packs.decode());
            let is_behind =
                |(page, units): (PageId, u64)| page.0.saturating_add(units) > pass.limit;
            for i in 0..inner.child_count() {
                let link = inner.child(i);
                let image = read(link, level)?;
                let leaf = Leaf::from_image(&image);
                let mut live_bytes = leaf.live_bytes();
                // A leaf that is written whole needs no packs, which go with the last of their
                // leaves.
                let mut leaves_its_packs = false;
                if let (Some(packs), Some(packed)) = (&packs, inner.packed(i)) {
                    live_bytes = live_bytes.saturating_add_signed(packed.held.growth.into());
                    let group = &packs.groups[packs.group_of(i)];
                    leaves_its_packs = pass.settles || group.extents().any(is_behind);
                }
                bytes += live_bytes;
                let is_sparse = live_bytes < self.shared.page_size() / 3;
                if far && i == 0
                    || leaves_its_packs
                    || is_far(link, &image)
                    || is_sparse
                    || has_value_beyond(leaf, pass.limit)
                {
                    inner.write_child_lower(i, &mut lower);
                    branch.tasks.push(Task::Move(lower.clone()));
                }
            }
            if self.saves_enough(pass.packing, bytes, inner.child_count()) {
                branch.tasks = vec![Task::Fill(pass.next.clone(), branch.next.clone())];
            }
            return Ok(branch);
        }
    }

    /// True if `leaves` leaves with `bytes` in all are many more than need be.
    fn saves_enough(&self, packing: Packing, bytes: usize, leaves: usize) -> bool {
        let needed = bytes.div_ceil(self.shared.page_size() * 31 / 32);
        match packing {
            Packing::Tight => needed * 10 < leaves * 9,
            Packing::Loose => needed * 2 < leaves,
        }
    }

    /// Sees to it that the next checkpoint writes the leaf for `key` to another place, and those of
    /// its overflow values, with keys after `after`, that are at page `limit` or behind it. If they
    /// are more than is moved at once, returns the key of the last one that was moved.
    fn move_leaf(&self, key: &[u8], after: Option<&[u8]>, limit: u64) -> Result<Option<Vec<u8>>> {
        // The values are read before the writer's mutex is taken. They count as changes until they
        // are written, and come on top of a buffer that may be almost full.
        let moved_at_once = self.settings.write_buffer_bytes() / MOVED_PART;
        let budget = mutated!(
            "moved-values-take-a-whole-buffer",
            MOVED_PART * moved_at_once,
            moved_at_once
        );
        let beyond = self.shared.extents_beyond(key, after, limit, budget)?;
        let mut values = MovedValues::default();
        for extent in &beyond.extents {
            let value = self.shared.extent_to_rewrite(*extent)?;
            let value = Arc::new(LargeValue::new(value));
            values.0.push((extent.page, value));
        }
        self.edit_to_compact(|editor| editor.move_leaf(key, &values))?;
        Ok(beyond.more_after)
    }

    /// Fills the leaves from `from` up to `to` with entries of those after them. False if it gave
    /// way.
    fn fill_leaves(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        must_give_way: &dyn Fn() -> bool,
    ) -> Result<bool> {
        let mut key = from.to_vec();
        while to.is_none_or(|to| key.as_slice() < to) {
            self.host.check_running()?;
            if must_give_way() {
                return Ok(false);
            }
            let Some(next) = self.edit_to_compact(|editor| editor.fill_leaf(&key))? else {
                break;
            };
            key = next;
            self.checkpoint_if_full()?;
        }
        Ok(true)
    }

    /// A change of the tree that changes no entry.
    fn edit_to_compact<R>(&self, edit: impl FnOnce(&mut Editor<'_, '_>) -> Result<R>) -> Result<R> {
        let mut writer = self.writer.lock();
        if let Some(error) = self.shared.apply_failed.get() {
            return Err(error.clone());
        }
        self.begin_change(&mut writer);
        let guard = crossbeam_epoch::pin();
        let seq = writer.applied;
        let result = edit(&mut Editor::new(&self.shared, &mut writer, &guard, seq));
        self.dirty_bytes
            .store(writer.dirty_bytes, Ordering::Relaxed);
        result
    }
}

fn has_value_beyond(leaf: Leaf<'_>, limit: u64) -> bool {
    (0..leaf.len())
        .any(|i| matches!(leaf.value(i), LeafValue::Overflow { page, .. } if page.0 >= limit))
}
