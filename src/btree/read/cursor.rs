//! The cursor over a view.
//!
//! It takes no lock that another thread waits for: it keeps a frozen leaf locked for reading while
//! it stands in it, and the writer copies frozen leaves.
//!
//! It remembers no path. From a leaf it goes to its neighbour by going down from the root again,
//! along the fence between the two, under a pin: that touches no counts of inner nodes, which all
//! scans share, and makes a short scan no more than a descent and a walk over slots.

mod key_buffer;
mod leaf;

use std::ops::Range;
use std::sync::Arc;

use self::key_buffer::KeyBuffer;
use self::leaf::{CursorLeaf, Source, kept_base, packed_source};
use super::point::Found;
use super::shared::{FoundLeaf, ReadFor};
use super::view::View;
use crate::btree::memory::merged::Standing;
use crate::btree::memory::node::{Body, find_large, pending_number};
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::{Leaf, LeafValue, Stored};
use crate::engine::{Cursor, Entry, Piece, ReadView, entry_pieces};
use crate::error::{Error, Result};
use crate::types::{KeyRange, PageId, Value, is_from};
use crate::values::{OpenValue, PartOfValue, ReadAhead, Scout, Way};

impl Drop for TreeCursor {
    fn drop(&mut self) {
        self.leave();
    }
}

impl ReadView for View {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.tree().lend(read, |copy| self.lookup(key, copy))
    }

    fn get_value(&self, key: &[u8]) -> Result<Option<Value>> {
        self.tree().take(|copy| self.lookup(key, copy))
    }

    fn contains(&self, key: &[u8]) -> Result<bool> {
        let found = self.lookup(key, &mut |_| ())?;
        Ok(!matches!(found, Found::Nothing))
    }

    fn get_part(&self, key: &[u8], part: Range<usize>) -> Result<Option<Value>> {
        self.tree().take_part(part, |copy| self.lookup(key, copy))
    }

    fn open_value(&self, key: &[u8]) -> Result<Option<OpenValue>> {
        self.tree().take_open(|copy| self.lookup(key, copy))
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        self.lookup_many(keys)
    }

    fn pieces(self: Arc<Self>, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        match self.subtree_pieces(range, at_least)? {
            Some(pieces) => Ok(pieces),
            None => entry_pieces(self, range),
        }
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        Box::new(TreeCursor::new(self))
    }
}

/// A position in a view.
pub(crate) struct TreeCursor {
    /// `None` when the cursor stands nowhere.
    leaf: Option<CursorLeaf>,
    /// Of the entry.
    key: KeyBuffer,
    /// A large value that was asked for.
    value: Vec<u8>,
    /// A value that is stored apart, and was asked for, with the reference to it.
    apart: Option<(Vec<u8>, PartOfValue)>,
    ahead: Option<Box<ReadAhead<TreeCursor>>>,
    way: Way,
    /// The fence over which the cursor last went to another leaf.
    border: Vec<u8>,
    read_for: ReadFor,
    /// Dropped last: as long as it lives, the writer copies the leaf.
    view: Arc<View>,
}

impl TreeCursor {
    /// A cursor that stands nowhere.
    pub(crate) fn new(view: Arc<View>) -> Self {
        Self {
            leaf: None,
            key: KeyBuffer::new(),
            value: Vec::new(),
            apart: None,
            ahead: None,
            way: Way::Forward,
            border: Vec::new(),
            read_for: ReadFor::Use,
            view,
        }
    }

    /// A cursor whose entries are written anew (BP5 in [`crate::btree::file::pager`]).
    pub(crate) fn to_rewrite(view: Arc<View>) -> Self {
        let mut cursor = Self::new(view);
        cursor.read_for = ReadFor::Rewrite;
        cursor
    }

    /// Stands nowhere from now on.
    fn leave(&mut self) {
        if let Some(leaf) = self.leaf.take()
            && leaf.walk.steps() > 0
            && !matches!(
                leaf.source,
                Source::Packed {
                    is_changed: false,
                    ..
                }
            )
        {
            self.view.count_merge_steps(leaf.walk.steps());
        }
    }

    /// Goes down from the root to the leaf to which `choose` leads, to the gap before its first
    /// entry.
    fn descend(&mut self, choose: impl Fn(Inner<'_>) -> usize) -> Result<()> {
        self.leave();
        let (tree, map) = (self.view.tree(), self.view.map());
        let read_for = self.read_for;
        let guard = crossbeam_epoch::pin();
        let (found, pages) =
            tree.descend(self.view.root().as_ref(), None, choose, read_for, &guard)?;
        tree.pager.count_read(pages);
        let source = match found {
            FoundLeaf::Page(page) => Source::Page(tree.pager.keep(page, map, &guard)),
            FoundLeaf::Packed(leaf) => {
                self.view.count_packs(leaf.packs.as_slice().len() as u64);
                packed_source(tree, &leaf, None, map, read_for, &guard)?
            }
            FoundLeaf::Memory(leaf) => {
                let leaf = leaf.to_arc().read_arc();
                match &leaf.body {
                    Body::Whole { .. } => Source::Whole(leaf),
                    Body::Changes(changes) => match changes.base_in_file(&guard) {
                        Some(below) if !below.packs.is_empty() => packed_source(
                            tree,
                            &below,
                            Some(&changes.delta),
                            map,
                            read_for,
                            &guard,
                        )?,
                        _ => {
                            let base = kept_base(tree, changes, map, read_for, &guard)?;
                            Source::Merged { leaf, base }
                        }
                    },
                    Body::Packed(below) => packed_source(tree, below, None, map, read_for, &guard)?,
                }
            }
        };
        let leaf = CursorLeaf::new(source, map);
        self.key.set_prefix(leaf.image(map).prefix());
        self.leaf = Some(leaf);
        Ok(())
    }

    /// Goes to the leaf after the current one, if there is one.
    fn next_leaf(&mut self) -> Result<()> {
        let Some(leaf) = &self.leaf else {
            return Ok(());
        };
        let mut border = std::mem::take(&mut self.border);
        let image = leaf.image(self.view.map());
        let result = if image.write_upper_fence(&mut border) {
            self.descend(|node| node.find_child(&border))
                .and_then(|()| self.expect(|leaf| leaf.lower_fence() == border))
        } else {
            border.clear();
            border.extend_from_slice(image.lower_fence());
            self.descend(last_child)
                .and_then(|()| self.expect(|leaf| leaf.lower_fence() == border))
                .map(|()| self.leaf = None)
        };
        self.border = border;
        result
    }

    /// Goes to the end of the leaf before the current one, if there is one.
    fn previous_leaf(&mut self) -> Result<()> {
        let Some(leaf) = &self.leaf else {
            return Ok(());
        };
        let mut border = std::mem::take(&mut self.border);
        let image = leaf.image(self.view.map());
        border.clear();
        border.extend_from_slice(image.lower_fence());
        let result = if border.is_empty() {
            let bounded = image.write_upper_fence(&mut border);
            self.descend(|_| 0)
                .and_then(|()| {
                    self.expect(|leaf| leaf.has_upper_fence(bounded.then_some(&*border)))
                })
                .map(|()| self.leaf = None)
        } else {
            self.descend(|node| node.find_child_before(&border))
                .and_then(|()| self.expect(|leaf| leaf.has_upper_fence(Some(&border))))
        };
        self.border = border;
        if let Some(leaf) = &mut self.leaf {
            leaf.seek_end();
        }
        result
    }

    /// Neighbouring leaves meet at a fence, and a leaf without one is the first or the last. Each
    /// page is checked by itself only, and inner pages that all refer to the same few leaves would
    /// keep a scan going round forever, or end it early.
    fn expect(&self, meets: impl FnOnce(Leaf<'_>) -> bool) -> Result<()> {
        let Some(leaf) = &self.leaf else {
            return Ok(());
        };
        let image = leaf.image(self.view.map());
        if meets(image) {
            return Ok(());
        }
        let what = "the leaf does not begin or end where its neighbour does";
        Err(self.view.tree().pager.damaged(image.page_id(), what))
    }

    /// Stands on the first entry after the gap. Leaves may be empty.
    fn settle_forward(&mut self) -> Result<()> {
        while let Some(leaf) = &mut self.leaf {
            if leaf.stand_forward(self.view.map()) {
                self.load();
                break;
            }
            self.next_leaf()?;
        }
        Ok(())
    }

    /// Stands on the last entry before the gap.
    fn settle_backward(&mut self) -> Result<()> {
        while let Some(leaf) = &mut self.leaf {
            if leaf.stand_backward(self.view.map()) {
                self.load();
                break;
            }
            self.previous_leaf()?;
        }
        Ok(())
    }

    /// Finds the entry on which the cursor stands, and its key.
    #[inline(always)]
    fn load(&mut self) {
        let Some(leaf) = &mut self.leaf else { return };
        match leaf.standing() {
            Standing::Slot(slot) => {
                let image = leaf.image(self.view.map());
                let record = image.record(leaf.slots, slot);
                self.key.set_suffix_of(image, record);
                leaf.record = record;
            }
            Standing::Change(change) => {
                self.key.set_key(leaf.change(change).0);
            }
        }
    }

    /// Seeks with `go`. After an error the cursor stands nowhere.
    fn seek_with(&mut self, go: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.ahead = None;
        self.view.check_usable()?;
        let result = go(self);
        self.settled(result)
    }

    #[cold]
    fn leave_forward(&mut self) -> Result<()> {
        let result = self.settle_forward();
        self.settled(result)
    }

    #[cold]
    fn leave_backward(&mut self) -> Result<()> {
        let result = self.settle_backward();
        self.settled(result)
    }

    fn settled(&mut self, result: Result<()>) -> Result<()> {
        if result.is_err() {
            self.leaf = None;
        }
        result
    }
}

/// A value that is not in the leaf, perhaps read into `buffer`.
#[cold]
fn outside<'a>(
    view: &View,
    leaf: &'a CursorLeaf,
    buffer: &'a mut Vec<u8>,
    (page, len, checksum): (PageId, u32, u32),
    read_for: ReadFor,
) -> Result<&'a [u8]> {
    if let Source::Whole(state) = &leaf.source
        && let Body::Whole { large, .. } = &state.body
        && let Some(number) = pending_number(page)
    {
        let value = find_large(large, number).expect("beside its reference");
        return Ok(&value.bytes);
    }
    let pager = &view.tree().pager;
    match read_for {
        ReadFor::Use => pager.overflow(page, len, checksum, |bytes| {
            buffer.clear();
            buffer.extend_from_slice(bytes);
        })?,
        ReadFor::Rewrite => *buffer = pager.overflow_to_rewrite(page, len, checksum)?,
    }
    Ok(buffer)
}

/// The value to which `reference` leads; `read` is the one that was read last. `in_doubt` is called
/// before it is read if it may not be in memory.
#[cold]
fn apart<'a>(
    view: &View,
    read: &'a mut Option<(Vec<u8>, PartOfValue)>,
    reference: &[u8],
    in_doubt: impl FnOnce(),
) -> Result<&'a [u8]> {
    // No two values have the same one.
    let kept = read.take().filter(|(last, _)| last == reference);
    let value = match kept {
        Some(kept) => kept,
        None => {
            let values = view.tree().held_files.values();
            let value = values.get_in_scan(reference, in_doubt)?;
            (reference.to_vec(), value)
        }
    };
    Ok(&read.insert(value).1)
}

fn last_child(node: Inner<'_>) -> usize {
    node.child_count() - 1
}

impl Cursor for TreeCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.way = Way::Forward;
        self.seek_with(|cursor| {
            cursor.descend(|_| 0)?;
            cursor.settle_forward()
        })
    }

    fn seek_last(&mut self) -> Result<()> {
        self.way = Way::Backward;
        self.seek_with(|cursor| {
            cursor.descend(last_child)?;
            if let Some(leaf) = &mut cursor.leaf {
                leaf.seek_end();
            }
            cursor.settle_backward()
        })
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.way = Way::Forward;
        self.seek_with(|cursor| {
            cursor.descend(|node| node.find_child(key))?;
            if let Some(leaf) = &mut cursor.leaf {
                leaf.seek(key, cursor.view.map());
            }
            cursor.settle_forward()
        })
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.way = Way::Backward;
        self.seek_with(|cursor| {
            cursor.descend(|node| node.find_child_before(key))?;
            if let Some(leaf) = &mut cursor.leaf {
                leaf.seek(key, cursor.view.map());
            }
            cursor.settle_backward()
        })
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if let Some(ahead) = &mut self.ahead {
            ahead.passed();
        }
        self.way = Way::Forward;
        if let Some(leaf) = &mut self.leaf {
            leaf.pass();
            if leaf.stand_forward(self.view.map()) {
                self.load();
                return Ok(());
            }
        }
        self.leave_forward()
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if let Some(ahead) = &mut self.ahead {
            ahead.passed();
        }
        self.way = Way::Backward;
        if let Some(leaf) = &mut self.leaf
            && leaf.stand_backward(self.view.map())
        {
            self.load();
            return Ok(());
        }
        self.leave_backward()
    }

    fn is_valid(&self) -> bool {
        self.leaf.is_some()
    }

    fn key(&self) -> &[u8] {
        self.key.key()
    }

    fn entry(&mut self) -> Result<Entry<'_>> {
        self.lend()
    }

    fn next_below(&mut self, end: Option<&[u8]>) -> Result<Option<Entry<'_>>> {
        self.next()?;
        if self.leaf.is_none() || end.is_some_and(|end| self.key.key() >= end) {
            return Ok(None);
        }
        self.lend().map(Some)
    }

    fn prev_from(&mut self, start: &[u8]) -> Result<Option<Entry<'_>>> {
        self.prev()?;
        if self.leaf.is_none() || !is_from(self.key.key(), start) {
            return Ok(None);
        }
        self.lend().map(Some)
    }
}

impl TreeCursor {
    /// As [`Cursor::entry`].
    #[inline(always)]
    fn lend(&mut self) -> Result<Entry<'_>> {
        let Some(leaf) = &self.leaf else {
            return Err(Error::invalid("the cursor stands nowhere"));
        };
        let key = self.key.key();
        let (view, ahead, way) = (&self.view, &mut self.ahead, self.way);
        let send = || {
            let values = view.tree().held_files.values();
            ReadAhead::send(ahead, key, way, values, || Self::new(Arc::clone(view)));
        };
        if let Standing::Change(change) = leaf.standing() {
            return match leaf.change(change).1 {
                Stored::Inline(bytes) => Ok((key, bytes)),
                Stored::Apart(reference) => {
                    Ok((key, apart(view, &mut self.apart, reference, send)?))
                }
            };
        }
        match leaf.image(view.map()).value_of(leaf.record) {
            LeafValue::Inline(bytes) => Ok((key, bytes)),
            LeafValue::Apart(reference) => {
                Ok((key, apart(view, &mut self.apart, reference, send)?))
            }
            LeafValue::Overflow {
                page,
                len,
                checksum,
            } => {
                let value = outside(
                    view,
                    leaf,
                    &mut self.value,
                    (page, len, checksum),
                    self.read_for,
                )?;
                Ok((key, value))
            }
        }
    }
}

impl Scout for TreeCursor {
    fn go_to(&mut self, key: &[u8]) -> Result<()> {
        self.seek(key)
    }

    fn step(&mut self, way: Way) -> Result<bool> {
        if self.leaf.is_some() {
            match way {
                Way::Forward => self.next()?,
                Way::Backward => self.prev()?,
            }
        }
        Ok(self.leaf.is_some())
    }

    fn reference(&self) -> Option<&[u8]> {
        let leaf = self.leaf.as_ref()?;
        if let Standing::Change(change) = leaf.standing() {
            return match leaf.change(change).1 {
                Stored::Apart(reference) => Some(reference),
                Stored::Inline(_) => None,
            };
        }
        match leaf.image(self.view.map()).value_of(leaf.record) {
            LeafValue::Apart(reference) => Some(reference),
            LeafValue::Inline(_) | LeafValue::Overflow { .. } => None,
        }
    }
}
