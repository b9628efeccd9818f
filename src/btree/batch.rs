//! From the operations of a commit to the tree: [`Tree::prepare`] and [`Tree::apply`].
//!
//! A lone operation uses the finger that `prepare` has left ([`super::write::finger`]). Those of a
//! batch are applied in key order, so that neighbours find each other's leaf at hand, and in it
//! what the processor has just had in its cache; the order within a batch shows to no reader. All
//! of them get the number of the last one, which is when they are published: a leaf's last change
//! must not seem older than it is.

use std::sync::atomic::Ordering;

use crossbeam_epoch::Guard;

use super::memory::node::{
    Body, ChildRef, MemInner, MemLeaf, Room, is_jumbo, needs_base, put_cost, room_in_page,
};
use super::node::Link;
use super::node::inner::Inner;
use super::node::leaf::{Leaf, LeafFacts};
use super::node::packs::PackedLeaf;
use super::read::ahead::Referrer;
use super::read::many::{CheckedAgain, KEYS_TOGETHER, Way};
use super::read::rising::RisingKeys;
use super::read::shared::{FoundLeaf, InBase, ReadFor, SharedTree};
use super::state::Tree;
use super::write::editor::Editor;
use super::write::leaf::LeafOp;
use super::write::state::WriterState;
use crate::engine::{FoldedMerges, in_key_order, touch, with_folded};
use crate::error::Result;
use crate::format::coding::Malformed;
use crate::types::{Op, SeqNo, SequencedOp};
use crate::util::mutants::mutated;
use crate::values::ValueRef;

/// Operations of a batch that are applied under one pin. A longer one would hold up the reclaiming
/// of memory.
const OPS_UNDER_A_PIN: usize = 128;

/// Of a batch of so many operations, pages are asked for while so many others are prepared.
const KEYS_AHEAD: usize = 2048;

/// Earlier operations of a batch on the leaf of the one that is prepared.
#[derive(Debug, Clone, Copy, Default)]
struct Earlier {
    leaf: Option<LeafId>,
    /// Of puts, at most.
    bytes: usize,
    deletes: usize,
    /// The page below was checked again.
    is_checked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeafId {
    InMemory(*const MemLeaf),
    InFile(Link),
}

impl Earlier {
    /// The next operation is on this leaf.
    #[inline]
    fn come_to(&mut self, leaf: LeafId) {
        if self.leaf != Some(leaf) {
            *self = Self {
                leaf: Some(leaf),
                ..Self::default()
            };
        }
    }

    fn add(&mut self, tree: &SharedTree, op: &Op<'_>) {
        match op {
            Op::Put { key, value } => self.bytes += put_cost(key, tree.stored_len(key, value)),
            Op::Merge { key, operand } => self.bytes += put_cost(key, operand.len()),
            Op::Delete { .. } => self.deletes += 1,
            Op::DeleteRange { .. } => {}
        }
    }
}

/// What is known of the pages below a batch while it is prepared.
#[derive(Default)]
struct Below {
    inner: CheckedAgain,
    /// Of operations on leaves that need not be looked at.
    taken: Earlier,
    /// Of the others.
    found: Earlier,
}

impl Tree {
    /// As [`crate::engine::Engine::prepare`].
    pub(super) fn prepare(&self, ops: &[SequencedOp<'_>]) -> Result<()> {
        match ops {
            [one] => match one.op.key() {
                Some(key) => self.prepare_one(key, &one.op),
                None => self.shared.prepare_range(&one.op),
            },
            _ => self.shared.prepare_batch(ops),
        }
    }

    /// Leaves the thread's finger at the leaf for `key`.
    fn prepare_one(&self, key: &[u8], op: &Op<'_>) -> Result<()> {
        let guard = crossbeam_epoch::pin();
        let shared = &*self.shared;
        // Before the descent (BF1), and after the pin: it keeps the page below a leaf that is in
        // the tree now.
        let structure = shared.structure.load(Ordering::Acquire);
        if let Some(finger) = self.fingers.of_thread()
            && let Some(leaf) = finger.leaf_for(key, structure)
        {
            return shared.prepare_leaf(leaf, key, op, &mut Earlier::default(), &guard);
        }
        let mut child = shared.root.load(&guard);
        let (mut level, mut parent) = (None, None);
        while let ChildRef::Inner(inner) = child {
            let inner = inner.get();
            let node = inner.node();
            let i = node.find_child(key);
            level = node.level().checked_sub(1);
            parent = Some((inner, i));
            child = inner.slots[i].load(&guard);
        }
        match child {
            ChildRef::Leaf(leaf) => {
                shared.prepare_leaf(&leaf, key, op, &mut Earlier::default(), &guard)?;
                if let Some(mut finger) = self.fingers.of_thread() {
                    finger.point_to(leaf, structure, key, parent);
                }
                Ok(())
            }
            _ => {
                if level == Some(0)
                    && let ChildRef::Disk(link) = child
                {
                    let packed = parent.and_then(|(inner, i)| inner.packed(i, link));
                    let leaf = packed.unwrap_or_else(|| PackedLeaf::alone(link));
                    if shared.can_take(op, &leaf, parent, 0, &guard) {
                        return Ok(());
                    }
                    shared.load_packed(&leaf, &guard)?;
                    let earlier = &mut Earlier::default();
                    return shared.check_to_change(op, key, &leaf, 0, earlier, &guard);
                }
                // The change will load inner nodes, unless there is nothing to delete.
                let read_for = match op {
                    _ if !shared.pager.is_mapped(&guard) => ReadFor::Use,
                    Op::Delete { .. } if !shared.holds(child, None, level, key, &guard)? => {
                        ReadFor::Use
                    }
                    _ => ReadFor::Rewrite,
                };
                let find = |node: Inner<'_>| node.find_child(key);
                let (leaf, _) = shared.descend(child, level, find, read_for, &guard)?;
                shared.load_found(op, key, &leaf, 0, &mut Earlier::default(), &guard)
            }
        }
    }

    /// As [`crate::engine::Engine::apply`], or of operations that `are_published`. If `order` is
    /// given, it is what [`in_key_order`] gives, and they are puts and deletes.
    pub(super) fn apply(
        &self,
        ops: &[SequencedOp<'_>],
        order: Option<&[u32]>,
        are_published: bool,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (ops.first(), ops.last()) else {
            return Ok(());
        };
        let folded = self.fold_merges(ops).inspect_err(|error| {
            let _ = self.shared.apply_failed.set(error.clone());
        })?;
        let ops = &*with_folded(ops, folded.as_ref());
        let mut writer = self.writer.lock();
        if let Some(error) = self.shared.apply_failed.get() {
            return Err(error.clone());
        }
        debug_assert!(writer.applied < first.seq, "E1: numbers rise");
        // Before the change, so that no log segment that it needs is deleted.
        if self.oldest_unpersisted.load(Ordering::Relaxed) == 0 {
            self.oldest_unpersisted
                .store(first.seq.0, Ordering::Release);
        }
        writer.first_since_checkpoint.get_or_insert(first.seq);
        if are_published && !mutated!("large-batch-hides-the-tree-before-it") {
            self.keep_view_before(&mut writer, None);
        }
        self.hand_over_view(&mut writer, first.seq);
        self.begin_change(&mut writer);
        let applied = self.hold_files(&mut writer, ops).and_then(|()| match ops {
            [one] => self.apply_one(&mut writer, one),
            _ => match order {
                Some(order) => self.apply_run(&mut writer, ops, order, last.seq),
                None => self.apply_batch(&mut writer, ops, last.seq),
            },
        });
        if let Err(error) = applied {
            // It will never be published.
            self.forget_view_before_batch(true);
            let _ = self.shared.apply_failed.set(error.clone());
            return Err(error);
        }
        writer.applied = last.seq;
        self.dirty_bytes
            .store(writer.dirty_bytes, Ordering::Relaxed);
        let has_deferred_tree = self.shared.take_deferred_tree();
        drop(writer);
        if has_deferred_tree && !mutated!("replaced-tree-stays-with-its-thread") {
            crossbeam_epoch::pin().flush();
        }
        if are_published {
            self.forget_view_before_batch(true);
        }
        self.wake_if_due();
        Ok(())
    }

    /// What the merges among `ops` come to, if there are any.
    fn fold_merges<'a>(&self, ops: &[SequencedOp<'a>]) -> Result<Option<FoldedMerges<'a>>> {
        let shared = &*self.shared;
        let is_merge = |op: &SequencedOp<'_>| matches!(op.op, Op::Merge { .. });
        if shared.resolver.operator().is_none() || !ops.iter().any(is_merge) {
            return Ok(None);
        }
        let lookup = |key: &[u8]| {
            shared.take(|copy| match shared.lookup(key, Some(SeqNo::MAX), copy)? {
                Ok(found) => Ok(found),
                Err(_) => unreachable!("nothing is above the highest number"),
            })
        };
        FoldedMerges::of(ops, &shared.resolver, lookup).map(Some)
    }

    /// Holds the value files that `ops` refer to, which are applied after that (BH3).
    fn hold_files(&self, writer: &mut WriterState, ops: &[SequencedOp<'_>]) -> Result<()> {
        let mut last = None;
        for reference in ops.iter().filter_map(|op| op.value_ref) {
            let file = match ValueRef::decode(reference) {
                Ok(value) => value.file,
                Err(Malformed) => unreachable!("the store makes references"),
            };
            if last.replace(file) != Some(file) && writer.value_files.insert(file) {
                self.shared.held_files.hold(file)?;
            }
        }
        Ok(())
    }

    fn apply_one(&self, writer: &mut WriterState, op: &SequencedOp<'_>) -> Result<()> {
        let guard = crossbeam_epoch::pin();
        let mut editor = Editor::new(&self.shared, writer, &guard, op.seq);
        let structure = self.shared.structure.load(Ordering::Relaxed);
        if let Some((key, change)) = LeafOp::of(op, self.shared.page_size())
            && let Some(finger) = self.fingers.of_thread()
            && let Some(leaf) = finger.leaf_for(key, structure)
            && editor.edit_only_leaf(leaf, key, change)?
        {
            return Ok(());
        }
        editor.apply(op)
    }

    /// Applies a batch, whose last operation has number `seq`.
    fn apply_batch(
        &self,
        writer: &mut WriterState,
        ops: &[SequencedOp<'_>],
        seq: SeqNo,
    ) -> Result<()> {
        // Range deletes stay where they are.
        runs(ops).try_for_each(|run| self.apply_run(writer, run, &in_key_order(run), seq))
    }

    /// Applies operations of a batch in this order, which is that of their keys.
    fn apply_run(
        &self,
        writer: &mut WriterState,
        run: &[SequencedOp<'_>],
        order: &[u32],
        seq: SeqNo,
    ) -> Result<()> {
        for some in order.chunks(OPS_UNDER_A_PIN) {
            let guard = crossbeam_epoch::pin();
            let mut editor = Editor::new(&self.shared, writer, &guard, seq);
            touch(run, some);
            editor.apply_in_order(some.iter().map(|i| &run[*i as usize]))?;
        }
        Ok(())
    }
}

/// Operations on keys that follow one another, and range deletes one by one.
fn runs<'a, 'o>(ops: &'a [SequencedOp<'o>]) -> impl Iterator<Item = &'a [SequencedOp<'o>]> {
    ops.chunk_by(|a, b| a.op.key().is_some() && b.op.key().is_some())
}

impl SharedTree {
    /// Reads into memory what a change of `key` in a leaf of the current tree needs of the page
    /// below it.
    fn prepare_leaf(
        &self,
        leaf: &MemLeaf,
        key: &[u8],
        op: &Op<'_>,
        earlier: &mut Earlier,
        guard: &Guard,
    ) -> Result<()> {
        earlier.come_to(LeafId::InMemory(leaf));
        if earlier.is_checked {
            return Ok(());
        }
        let (more_bytes, more_deletes) = (earlier.bytes, earlier.deletes);
        // Of a put for which space is scarce: what the changes have for it.
        let mut scarce = None;
        let mut is_written_anew = false;
        // Only if the page has the key.
        let mut is_anew_if_there = false;
        let below = {
            let state = leaf.read();
            let Body::Changes(changes) = &state.body else {
                return Ok(());
            };
            let room_if_short = |len: usize| {
                let (entry, page_size) = ((key, len), self.page_size());
                let is_short = changes.is_short_of(entry, more_bytes, page_size);
                is_short.then(|| (len, changes.room_for(entry, more_bytes, page_size)))
            };
            let needs_base = match op {
                Op::Put { value, .. } => {
                    let len = self.stored_len(key, value);
                    earlier.bytes += put_cost(key, len);
                    scarce = room_if_short(len);
                    scarce.is_some()
                }
                // It looks at what is there, and puts what is seldom longer than both together.
                Op::Merge { operand, .. } => {
                    let held = changes.delta.search(key).ok();
                    let held = held.and_then(|i| Some(changes.delta.get(i).1?.len()));
                    scarce = room_if_short(operand.len() + held.unwrap_or(operand.len()));
                    true
                }
                Op::Delete { .. } | Op::DeleteRange { .. } => {
                    earlier.deletes += 1;
                    let is_among_changes = changes.delta.search(key).is_ok();
                    if changes.has_many_deletes_with(more_deletes) {
                        let may_be_deeper = changes.base_in_file(guard).is_none();
                        is_written_anew = is_among_changes || may_be_deeper;
                        is_anew_if_there = !is_written_anew;
                    }
                    is_written_anew || is_anew_if_there || !is_among_changes
                }
            };
            if !needs_base {
                return Ok(());
            }
            changes.leaf_below(guard)
        };
        let Some(below) = below else { return Ok(()) };
        self.load_packed(&below, guard)?;
        if !self.pager.is_mapped(guard) {
            return Ok(());
        }
        if let Some((len, room)) = scarce {
            is_written_anew = !self.has_room(room, key, len, &below, guard)?;
        }
        if is_anew_if_there {
            is_written_anew = self.look_in_packed(&below, key, guard)?.is_some();
        }
        if is_written_anew {
            self.check_again(&below, guard)?;
            earlier.is_checked = true;
        }
        Ok(())
    }

    /// Checks `leaf` again, which is in the file, if a change of `key` will write it anew whole, so
    /// that damage is an error before the commit is in the log. Puts of `before` bytes come before
    /// it, and what is `earlier`.
    fn check_to_change(
        &self,
        op: &Op<'_>,
        key: &[u8],
        leaf: &PackedLeaf,
        before: usize,
        earlier: &mut Earlier,
        guard: &Guard,
    ) -> Result<()> {
        earlier.come_to(LeafId::InFile(leaf.page));
        if earlier.is_checked || !self.pager.is_mapped(guard) {
            return Ok(());
        }
        let page = leaf.page.page();
        let image = self.disk_node(leaf.page, Some(0), guard)?;
        let is_loaded_whole =
            is_jumbo(&image, self.page_size()) || !self.pager.has_all_values(&image, page, guard);
        let more_bytes = before + earlier.bytes;
        let lacks_room = |len: usize| {
            let facts = LeafFacts::of(&image);
            let room = room_in_page(leaf, &facts, (key, len), more_bytes, self.page_size());
            self.has_room(room, key, len, leaf, guard).map(|has| !has)
        };
        let is_written_anew = match op {
            Op::Delete { .. } if is_loaded_whole => Leaf::from_image(&image).search(key).is_ok(),
            _ if is_loaded_whole => true,
            Op::Put { value, .. } => lacks_room(self.stored_len(key, value))?,
            Op::Merge { operand, .. } => {
                let old = self.look_in_packed(leaf, key, guard)?;
                let old = old.and_then(InBase::inline_len);
                lacks_room(operand.len() + old.unwrap_or(0))?
            }
            Op::Delete { .. } => earlier.deletes * 2 >= LeafFacts::of(&image).entries,
            Op::DeleteRange { .. } => false,
        };
        earlier.add(self, op);
        if is_written_anew {
            self.check_again(leaf, guard)?;
            earlier.is_checked = true;
        }
        Ok(())
    }

    /// True if there is room for a value of `len` bytes, stored under `key` in `leaf`, among the
    /// changes to it.
    fn has_room(
        &self,
        room: Room,
        key: &[u8],
        len: usize,
        leaf: &PackedLeaf,
        guard: &Guard,
    ) -> Result<bool> {
        Ok(match room {
            Room::Enough => true,
            Room::None => false,
            Room::InPlace => self
                .look_in_packed(leaf, key, guard)?
                .and_then(InBase::inline_len)
                .is_some_and(|old| len <= old),
        })
    }

    /// True if enough is known of `leaf`, a child of `parent`, for `op` to be done without a look
    /// at it.
    fn can_take(
        &self,
        op: &Op<'_>,
        leaf: &PackedLeaf,
        parent: Option<(&MemInner, usize)>,
        more_bytes: usize,
        guard: &Guard,
    ) -> bool {
        let (Op::Put { key, value }, Some((inner, i))) = (op, parent) else {
            return false;
        };
        let (lower, upper) = inner.child_fences(i);
        let fences = (&*lower, upper.as_deref());
        let facts = self.pager.known_leaf(leaf.page.page(), fences, guard);
        let entry = (*key, self.stored_len(key, value));
        facts.is_some_and(|facts| !needs_base(leaf, &facts, entry, more_bytes, self.page_size()))
    }

    /// Finding a leaf on disk reads and checks every page on the way.
    fn prepare_range(&self, op: &Op<'_>) -> Result<()> {
        let Op::DeleteRange { start, end } = *op else {
            return Ok(());
        };
        for key in [Some(start), end].into_iter().flatten() {
            let guard = crossbeam_epoch::pin();
            let find = |node: Inner<'_>| node.find_child(key);
            let root = self.root.load(&guard);
            let (leaf, _) = self.descend(root, None, find, ReadFor::Rewrite, &guard)?;
            // What sticks out of the range will be written anew.
            let below = match leaf {
                FoundLeaf::Page(_) => None,
                FoundLeaf::Packed(leaf) => Some(leaf),
                FoundLeaf::Memory(leaf) => match &leaf.read().body {
                    Body::Changes(changes) => changes.leaf_below(&guard),
                    Body::Whole { .. } | Body::Packed(_) => None,
                },
            };
            if let Some(below) = below {
                self.check_again(&below, &guard)?;
            }
        }
        Ok(())
    }

    /// The pages that a batch needs, several at a time.
    fn prepare_batch(&self, ops: &[SequencedOp<'_>]) -> Result<()> {
        for run in runs(ops) {
            if let [one] = run
                && one.op.key().is_none()
            {
                self.prepare_range(&one.op)?;
                continue;
            }
            self.prepare_run(run, &in_key_order(run))?;
        }
        Ok(())
    }

    /// The pages that operations on keys need, which are in this order of their keys.
    pub(super) fn prepare_run(&self, run: &[SequencedOp<'_>], order: &[u32]) -> Result<()> {
        let mut asked = 0;
        let mut below = Below::default();
        for (n, places) in order.chunks(KEYS_TOGETHER).enumerate() {
            touch(run, places);
            let at = n * KEYS_TOGETHER;
            asked = asked.max(at);
            while order.len() >= KEYS_AHEAD
                && asked < order.len().min(at + KEYS_AHEAD)
                && self.pager.may_lack_nodes()
            {
                asked += self.ask_ahead(run, &order[asked..])?;
            }
            let ops = places.iter().map(|i| &run[*i as usize].op);
            self.prepare_in_order(ops, &mut below)?;
        }
        Ok(())
    }

    /// Asks for the pages that the first of the operations at `places`, which are sorted by their
    /// keys, will need; returns of how many.
    fn ask_ahead(&self, ops: &[SequencedOp<'_>], places: &[u32]) -> Result<usize> {
        let guard = crossbeam_epoch::pin();
        let op = |n: usize| &ops[places[n] as usize].op;
        let keys = (0..places.len()).map(|n| op(n).key().unwrap_or_default());
        let is_needed = |n: usize, leaf: &PackedLeaf, referrer: Referrer<'_>| {
            !self.can_take(op(n), leaf, Some(referrer), 0, &guard)
        };
        self.ask_for_branch(keys, is_needed, &guard)
    }

    /// The same for a few operations that are sorted by their keys.
    fn prepare_in_order<'a>(
        &self,
        ops: impl Iterator<Item = &'a Op<'a>>,
        below: &mut Below,
    ) -> Result<()> {
        let guard = crossbeam_epoch::pin();
        let mut way = RisingKeys::default();
        let (mut keys, mut disk, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for op in ops {
            let Some(key) = op.key() else { continue };
            match way.next(self, key, &guard) {
                (ChildRef::Leaf(leaf), _) => {
                    self.prepare_leaf(&leaf, key, op, &mut below.found, &guard)?;
                }
                (child, level) => {
                    let packed = way.packed(child);
                    let mut before = 0;
                    if let (ChildRef::Disk(link), Some(0)) = (child, level) {
                        let leaf = packed.unwrap_or_else(|| PackedLeaf::alone(link));
                        below.taken.come_to(LeafId::InFile(link));
                        before = below.taken.bytes;
                        if self.can_take(op, &leaf, way.parent(), before, &guard) {
                            below.taken.add(self, op);
                            continue;
                        }
                    }
                    keys.push(key);
                    changes.push((op, before));
                    disk.push(packed.map_or(Way::To(child, level), Way::to_packed));
                }
            }
        }
        let (leaves, _) = self.go_down(disk, &keys, Some(&mut below.inner), &guard)?;
        let mut changes = changes.into_iter().zip(keys).zip(&leaves);
        changes.try_for_each(|(((op, before), key), leaf)| {
            self.load_found(op, key, leaf, before, &mut below.found, &guard)
        })
    }

    /// Reads into memory what of `leaf`, the one for `key`, is in the file.
    fn load_found(
        &self,
        op: &Op<'_>,
        key: &[u8],
        leaf: &FoundLeaf<'_>,
        before: usize,
        earlier: &mut Earlier,
        guard: &Guard,
    ) -> Result<()> {
        match leaf {
            FoundLeaf::Page(image) => {
                self.pager.touch_whole(image, guard);
                let leaf = PackedLeaf::alone(Link::to(image));
                self.check_to_change(op, key, &leaf, before, earlier, guard)
            }
            FoundLeaf::Packed(leaf) => {
                self.load_packed(leaf, guard)?;
                self.check_to_change(op, key, leaf, before, earlier, guard)
            }
            FoundLeaf::Memory(_) => Ok(()),
        }
    }
}
