//! From the operations of a commit to the tree: [`Tree::prepare`] and [`Tree::apply`].
//!
//! A lone operation uses the finger that `prepare` has left ([`super::write::finger`]). Those of a
//! batch are applied in key order, so that neighbours find each other's leaf at hand, and in it
//! what the processor has just had in its cache; the order within a batch shows to no reader. All
//! of them get the number of the last one, which is when they are published: a leaf's last change
//! must not seem older than it is.

use std::sync::atomic::Ordering;

use crossbeam_epoch::Guard;

use super::memory::node::{Body, ChildRef, MemInner, MemLeaf, needs_base};
use super::node::inner::Inner;
use super::node::packs::PackedLeaf;
use super::read::ahead::Referrer;
use super::read::many::{KEYS_TOGETHER, Way};
use super::read::rising::RisingKeys;
use super::read::shared::{FoundLeaf, SharedTree};
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
            return shared.prepare_leaf(leaf, key, op, &guard);
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
                shared.prepare_leaf(&leaf, key, op, &guard)?;
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
                    if shared.can_take(op, &leaf, parent, &guard) {
                        return Ok(());
                    }
                    return shared.load_packed(&leaf, &guard);
                }
                let find = |node: Inner<'_>| node.find_child(key);
                let (leaf, _) = shared.descend(child, level, find, &guard)?;
                shared.load_found(&leaf, &guard)
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
    fn prepare_leaf(&self, leaf: &MemLeaf, key: &[u8], op: &Op<'_>, guard: &Guard) -> Result<()> {
        let below = {
            let state = leaf.read();
            let Body::Changes(changes) = &state.body else {
                return Ok(());
            };
            let needs_base = match op {
                Op::Put { value, .. } => {
                    changes.is_short_of(key, self.stored_len(key, value), self.page_size())
                }
                // It looks at what is there, and puts.
                Op::Merge { .. } => true,
                Op::Delete { .. } | Op::DeleteRange { .. } => {
                    changes.has_many_deletes() || changes.delta.search(key).is_err()
                }
            };
            if !needs_base {
                return Ok(());
            }
            changes.base_in_file(guard)
        };
        below.map_or(Ok(()), |leaf| self.load_packed(&leaf, guard))
    }

    /// True if enough is known of `leaf`, a child of `parent`, for `op` to be done without a look
    /// at it.
    fn can_take(
        &self,
        op: &Op<'_>,
        leaf: &PackedLeaf,
        parent: Option<(&MemInner, usize)>,
        guard: &Guard,
    ) -> bool {
        let (Op::Put { key, value }, Some((inner, i))) = (op, parent) else {
            return false;
        };
        let (lower, upper) = inner.child_fences(i);
        let fences = (&*lower, upper.as_deref());
        let facts = self.pager.known_leaf(leaf.page.page(), fences, guard);
        let entry = (*key, self.stored_len(key, value));
        facts.is_some_and(|facts| !needs_base(leaf, &facts, entry, self.page_size()))
    }

    /// Finding a leaf on disk reads and checks every page on the way.
    fn prepare_range(&self, op: &Op<'_>) -> Result<()> {
        let Op::DeleteRange { start, end } = *op else {
            return Ok(());
        };
        for key in [Some(start), end].into_iter().flatten() {
            let guard = crossbeam_epoch::pin();
            self.find_leaf(self.root.load(&guard), key, &guard)?;
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
            self.prepare_in_order(places.iter().map(|i| &run[*i as usize].op))?;
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
            !self.can_take(op(n), leaf, Some(referrer), &guard)
        };
        self.ask_for_branch(keys, is_needed, &guard)
    }

    /// The same for a few operations that are sorted by their keys.
    fn prepare_in_order<'a>(&self, ops: impl Iterator<Item = &'a Op<'a>>) -> Result<()> {
        let guard = crossbeam_epoch::pin();
        let mut way = RisingKeys::default();
        let (mut keys, mut disk) = (Vec::new(), Vec::new());
        for op in ops {
            let Some(key) = op.key() else { continue };
            match way.next(self, key, &guard) {
                (ChildRef::Leaf(leaf), _) => self.prepare_leaf(&leaf, key, op, &guard)?,
                (child, level) => {
                    let packed = way.packed(child);
                    if let (ChildRef::Disk(link), Some(0)) = (child, level) {
                        let leaf = packed.unwrap_or_else(|| PackedLeaf::alone(link));
                        if self.can_take(op, &leaf, way.parent(), &guard) {
                            continue;
                        }
                    }
                    keys.push(key);
                    disk.push(packed.map_or(Way::To(child, level), Way::to_packed));
                }
            }
        }
        let (leaves, _) = self.go_down(disk, &keys, true, &guard)?;
        leaves
            .iter()
            .try_for_each(|leaf| self.load_found(leaf, &guard))
    }

    /// Reads into memory what of `leaf` is in the file.
    fn load_found(&self, leaf: &FoundLeaf<'_>, guard: &Guard) -> Result<()> {
        match leaf {
            FoundLeaf::Page(image) => self.pager.touch_whole(image, guard),
            FoundLeaf::Packed(leaf) => self.load_packed(leaf, guard)?,
            FoundLeaf::Memory(_) => {}
        }
        Ok(())
    }
}
