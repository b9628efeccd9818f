//! What an operation does to one leaf.

use std::sync::Arc;

use super::editor::{EditOutcome, Editor, external};
use crate::btree::memory::node::{
    Body, Changes, LargeValue, LargeValues, LeafState, MemLeaf, changes_bytes_max, is_large,
    large_values_of, pending_number, pending_ref,
};
use crate::btree::node;
use crate::btree::node::leaf::{Leaf, LeafMut, LeafValue, Pending, Stored};
use crate::btree::node::{Rebuilt, leaf};
use crate::btree::read::shared::InBase;
use crate::error::Result;
use crate::types::{Op, PageId, SequencedOp};
use crate::util::mutants::mutated;

/// What to do to a leaf.
#[derive(Clone, Copy)]
pub(crate) enum LeafOp<'a> {
    Put(Stored<'a>),
    Delete {
        /// The key is known to be there.
        is_there: bool,
    },
    /// Nothing; report if it is underfull.
    Touch,
    /// Nothing, but these overflow values are to be written anew; report if it is sparse.
    Move(&'a MovedValues),
    /// Nothing here: the parent fills the leaf from its neighbour.
    Fill,
}

/// Overflow values of a leaf that are to be written anew. They are read before the writer's mutex
/// is taken, and their pages are kept until the leaf refers to them no more.
#[derive(Default)]
pub(crate) struct MovedValues(pub(crate) Vec<(PageId, Arc<LargeValue>)>);

impl<'a> LeafOp<'a> {
    /// The key that `op` is about, if it is about one, and what it does to a leaf of a tree with
    /// pages of that size.
    pub(crate) fn of(op: &SequencedOp<'a>, page_size: usize) -> Option<(&'a [u8], Self)> {
        match op.op {
            Op::Put { key, value } => {
                // A reference that does not go into a leaf would save little.
                let apart = op.value_ref.map(Stored::Apart);
                let apart = apart.filter(|apart| !is_large(key, apart.len(), page_size));
                Some((key, Self::Put(apart.unwrap_or(Stored::Inline(value)))))
            }
            Op::Delete { key } => {
                let is_there = mutated!("delete-does-not-look-first");
                Some((key, Self::Delete { is_there }))
            }
            // A merge has become a put by then.
            Op::DeleteRange { .. } | Op::Merge { .. } => None,
        }
    }
}

impl Editor<'_, '_> {
    /// Does `op` to a leaf of the current generation.
    pub(super) fn edit_leaf(
        &mut self,
        state: &mut LeafState,
        key: &[u8],
        op: LeafOp<'_>,
    ) -> Result<EditOutcome> {
        if self.edit_in_place(state, key, op)? {
            return Ok(EditOutcome::Done);
        }
        self.make_whole(state)?;
        match op {
            LeafOp::Put(value) => Ok(self.put_whole(state, key, value)),
            LeafOp::Delete { .. } => Ok(self.delete_whole(state, key)),
            LeafOp::Touch => Ok(self.underfull(state)),
            LeafOp::Move(values) => Ok(self.move_values(state, values)),
            LeafOp::Fill => Ok(EditOutcome::Done),
        }
    }

    /// Does `op` to `leaf`, which covers the key, if the leaf is of the current generation and
    /// nothing else takes part in the change. False, and nothing is done, otherwise.
    pub(crate) fn edit_only_leaf(
        &mut self,
        leaf: &MemLeaf,
        key: &[u8],
        op: LeafOp<'_>,
    ) -> Result<bool> {
        let edit = |editor: &mut Self, state: &mut LeafState| editor.edit_in_place(state, key, op);
        self.with_current_leaf(leaf, edit).unwrap_or(Ok(false))
    }

    /// Does `op` to a leaf of the current generation if it takes no more than that: no value
    /// outside, and no split or merge. False, and nothing is done, otherwise.
    fn edit_in_place(&mut self, state: &mut LeafState, key: &[u8], op: LeafOp<'_>) -> Result<bool> {
        let is_done = match &mut state.body {
            Body::Changes(changes) => {
                let before = changes.delta.size_bytes();
                let is_recorded = match op {
                    LeafOp::Touch | LeafOp::Fill => return Ok(true),
                    LeafOp::Move(_) => false,
                    LeafOp::Put(value) if self.is_large(key, value) => false,
                    LeafOp::Put(value) => {
                        let place = changes.delta.search(key);
                        self.record(changes, place, key, Some(value))?
                    }
                    LeafOp::Delete { is_there } => {
                        let place = changes.delta.search(key);
                        let is_there = is_there || self.is_in_changed(changes, place, key)?;
                        if !is_there {
                            return Ok(true);
                        }
                        // With many deletes the leaf may have become underfull: find out.
                        !changes.has_many_deletes() && self.record(changes, place, key, None)?
                    }
                };
                if is_recorded {
                    let after = changes.delta.size_bytes();
                    self.writer.dirty_bytes += after as u64;
                    self.writer.dirty_bytes -= (before as u64).min(self.writer.dirty_bytes);
                }
                is_recorded
            }
            Body::Whole { image, .. } => {
                let leaf = Leaf::from_image(image);
                let place = leaf.search(key);
                let old = place.ok().map(|slot| leaf.value(slot));
                let is_outside = old.is_some_and(|old| external(old).is_some());
                match (op, place) {
                    (LeafOp::Put(value), place) if !is_outside && !self.is_large(key, value) => {
                        let value = LeafValue::from(value);
                        let mut leaf = LeafMut::from_image(image);
                        let done = match place {
                            Ok(slot) => leaf.set_value(slot, value),
                            Err(slot) => leaf.insert(slot, key, value),
                        };
                        done.is_ok()
                    }
                    (LeafOp::Delete { .. }, Err(_)) => return Ok(true),
                    (LeafOp::Delete { .. }, Ok(slot)) if !is_outside => {
                        let stays_full = leaf.live_bytes() - leaf.entry_bytes(slot)
                            >= self.underfull_bytes()
                            && image.len() <= self.page_size();
                        if stays_full {
                            LeafMut::from_image(image).remove(slot);
                        }
                        stays_full
                    }
                    _ => false,
                }
            }
            Body::Packed(_) => unreachable!("it stands in no tree"),
        };
        if is_done {
            state.last_seq = self.seq;
        }
        Ok(is_done)
    }

    /// Records a change at `place`, which is the key's among the changes; false if it does not fit.
    fn record(
        &self,
        changes: &mut Changes,
        place: std::result::Result<usize, usize>,
        key: &[u8],
        value: Option<Stored<'_>>,
    ) -> Result<bool> {
        let (tree, guard) = (self.tree, self.guard);
        let limit_bytes = changes_bytes_max(self.page_size());
        changes.try_set(place, key, value, limit_bytes, guard, |base| {
            let found = tree.look_in_base(base, key, guard)?;
            Ok(found.and_then(InBase::inline_len))
        })
    }

    /// True if `key`, whose place among the changes is `place`, has a value in the changed leaf.
    fn is_in_changed(
        &self,
        changes: &Changes,
        place: std::result::Result<usize, usize>,
        key: &[u8],
    ) -> Result<bool> {
        if let Ok(i) = place {
            return Ok(changes.delta.get(i).1.is_some());
        }
        let base = changes.base(self.guard);
        let found = self.tree.look_in_base(base, key, self.guard)?;
        Ok(found.is_some())
    }

    fn is_large(&self, key: &[u8], value: Stored<'_>) -> bool {
        is_large(key, value.len(), self.page_size())
    }

    fn put_whole(&mut self, state: &mut LeafState, key: &[u8], value: Stored<'_>) -> EditOutcome {
        let size_before = state.size_bytes();
        let seq = self.seq;
        let (is_large, page_size) = (self.is_large(key, value), self.page_size());
        let Body::Whole { image, large } = &mut state.body else {
            unreachable!("made whole by the caller")
        };
        let mut added = None;
        let reference = if is_large {
            let number = self.writer.next_large;
            self.writer.next_large += 1;
            added = Some((number, Arc::new(LargeValue::new(value.bytes().to_vec()))));
            pending_ref(number, value.len())
        } else {
            LeafValue::from(value)
        };
        let leaf = Leaf::from_image(image);
        let place = leaf.search(key);
        let old = place.ok().map(|slot| external(leaf.value(slot)));
        let mut editable = LeafMut::from_image(image);
        let done = match place {
            Ok(slot) => editable.set_value(slot, reference),
            Err(slot) => editable.insert(slot, key, reference),
        };
        if let Some(Some(old)) = old {
            self.release(old, large);
        }
        let (at, replaces) = match place {
            Ok(at) => (at, true),
            Err(at) => (at, false),
        };
        let pending = Pending {
            at,
            replaces,
            key,
            value: reference,
        };
        let rebuilt = match done {
            Ok(()) => None,
            Err(node::Full) => Some(leaf::split(image, pending, page_size)),
        };
        match rebuilt {
            Some(Rebuilt::Two {
                left,
                separator,
                right,
            }) => {
                // The old leaf stays as it is (BW2).
                let mut all = large.clone();
                all.extend(added);
                let generation = self.writer.generation;
                let mut child = |image: Box<[u8]>| {
                    let large = large_values_of(&image, &all);
                    let state = LeafState::whole(generation, seq, image, large);
                    self.writer.add_dirty(state.size_bytes());
                    state.into_child()
                };
                let (left, right) = (child(left), child(right));
                self.writer.sub_dirty(generation, size_before);
                return EditOutcome::Split {
                    left,
                    separator,
                    right,
                };
            }
            Some(Rebuilt::One(rebuilt)) => *image = rebuilt,
            None => {}
        }
        large.extend(added);
        if let Some(Some((page, _))) = old {
            forget(large, page);
        }
        state.last_seq = seq;
        let size_after = state.size_bytes();
        if size_after != size_before {
            self.writer.add_dirty(size_after);
            self.writer.sub_dirty(state.generation, size_before);
        }
        EditOutcome::Done
    }

    fn delete_whole(&mut self, state: &mut LeafState, key: &[u8]) -> EditOutcome {
        let Body::Whole { image, .. } = &state.body else {
            unreachable!("made whole by the caller")
        };
        match Leaf::from_image(image).search(key) {
            Ok(slot) => self.remove_slots(state, slot..slot + 1),
            Err(_) => EditOutcome::Done,
        }
    }

    /// Removes entries from a whole leaf.
    pub(super) fn remove_slots(
        &mut self,
        state: &mut LeafState,
        slots: std::ops::Range<usize>,
    ) -> EditOutcome {
        if slots.is_empty() {
            return self.underfull(state);
        }
        let size_before = state.size_bytes();
        let page_size = self.page_size();
        let Body::Whole { image, large } = &mut state.body else {
            unreachable!("made whole by the caller")
        };
        let leaf = Leaf::from_image(image);
        let outside: Vec<_> = slots
            .clone()
            .filter_map(|slot| external(leaf.value(slot)))
            .collect();
        for value in outside {
            self.release(value, large);
            forget(large, value.0);
        }
        LeafMut::from_image(image).remove_range(slots);
        let leaf = Leaf::from_image(image);
        if image.len() > page_size && leaf.live_bytes() * 2 < image.len() {
            let mut upper = Vec::new();
            let bounded = leaf.write_upper_fence(&mut upper);
            let upper = bounded.then_some(&*upper);
            let smaller = leaf::with_fences(image, leaf.lower_fence(), upper, page_size);
            *image = smaller;
        }
        state.last_seq = self.seq;
        let size_after = state.size_bytes();
        self.writer.add_dirty(size_after);
        self.writer.sub_dirty(state.generation, size_before);
        self.underfull(state)
    }

    /// Turns those of `values` that the leaf still has into pending ones.
    fn move_values(&mut self, state: &mut LeafState, values: &MovedValues) -> EditOutcome {
        let Body::Whole { image, large } = &mut state.body else {
            unreachable!("made whole by the caller")
        };
        for slot in 0..Leaf::from_image(image).len() {
            let Some((page, len)) = external(Leaf::from_image(image).value(slot)) else {
                continue;
            };
            let Some((_, value)) = values.0.iter().find(|(from, _)| *from == page) else {
                continue;
            };
            self.release((page, len), large);
            let number = self.writer.next_large;
            self.writer.next_large += 1;
            self.writer.add_dirty(value.bytes.len());
            large.push((number, Arc::clone(value)));
            LeafMut::from_image(image)
                .set_value(slot, pending_ref(number, len as usize))
                .expect("a reference takes the place of a reference");
        }
        if Leaf::from_image(image).live_bytes() < self.page_size() / 3 {
            return EditOutcome::Underfull;
        }
        EditOutcome::Done
    }
}

/// Takes a pending value off a leaf's list.
fn forget(large: &mut LargeValues, page: PageId) {
    if let Some(number) = pending_number(page) {
        large.retain(|entry| entry.0 != number);
    }
}
