//! Reading the value of one key.
//!
//! A value is found under an epoch pin, and perhaps under the lock of its leaf. Commits wait for
//! the lock, and the reclaiming of memory for the pin. So nothing but copying happens there. What
//! user code gets to see is the copy, or a large value that is kept by other means ([`Found`]).

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_epoch::Guard;

use super::many::{KEYS_TOGETHER, warm};
use super::pack_cost::LOOKUP_NS;
use super::shared::{FoundLeaf, PagesKept, ReadFor, SharedTree};
use super::view::View;
use crate::btree::memory::node::{
    Body, ChildRef, LargeValue, LeafState, find_large, pending_number,
};
use crate::btree::node::Link;
use crate::btree::node::inner::Inner;
use crate::btree::node::leaf::{Leaf, LeafValue, Stored};
use crate::btree::node::packs::PackedLeaf;
use crate::error::Result;
use crate::types::{PageId, SeqNo, Value};
use crate::util::mutants::mutated;
use crate::values::OpenValue;

/// A value in an extent of pages of its own.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) page: PageId,
    len: u32,
    checksum: u32,
}

/// Values of a leaf that lie far back in the file.
pub(crate) struct ExtentsBeyond<'t> {
    pub(crate) extents: Vec<Extent>,
    /// Key of the last one, if there are more.
    pub(crate) more_after: Option<Vec<u8>>,
    _kept: PagesKept<'t>,
}

/// What was found under a key. It needs neither lock nor pin.
pub(crate) enum Found<'t> {
    Nothing,
    /// The value was in the leaf and has been copied.
    Copied,
    /// A large value in memory.
    Large(Arc<LargeValue>),
    /// A value in the file, and what keeps its pages.
    Extent(Extent, Kept<'t>),
    /// A reference to a value that is stored apart, and what keeps its file.
    Apart(Box<[u8]>, Kept<'t>),
}

/// What keeps the pages of a value, or its file.
pub(crate) enum Kept<'t> {
    /// The view in which it was found, which the caller has.
    ByCaller,
    Pages(#[expect(dead_code, reason = "held until it is dropped")] PagesKept<'t>),
    View(#[expect(dead_code, reason = "held until it is dropped")] Arc<View>),
}

/// Where the value of a key is.
enum Place {
    Found(Found<'static>),
    /// In this page, if anywhere.
    InPage(Link),
    /// In the packs of this page or in the page, if anywhere.
    InPacked(PackedLeaf),
}

/// Copies the value of `key` if the leaf has it in memory, or says where to look.
#[inline]
fn find_in_state(
    state: &LeafState,
    key: &[u8],
    copy: &mut dyn FnMut(&[u8]),
    guard: &Guard,
) -> Place {
    match &state.body {
        Body::Whole { image, large } => {
            let leaf = Leaf::from_image(image);
            let Ok(slot) = leaf.search(key) else {
                return Place::Found(Found::Nothing);
            };
            let value = leaf.value(slot);
            if let LeafValue::Overflow { page, .. } = value
                && let Some(number) = pending_number(page)
            {
                let value = find_large(large, number).expect("beside its reference");
                return Place::Found(Found::Large(Arc::clone(value)));
            }
            Place::Found(copy_inline(value, copy))
        }
        Body::Changes(changes) => match changes.delta.search(key) {
            Ok(i) => Place::Found(match changes.delta.get(i).1 {
                Some(value) => found(value, copy),
                None => Found::Nothing,
            }),
            Err(_) => match changes.base(guard) {
                ChildRef::Disk(link) => Place::InPage(link),
                ChildRef::Leaf(frozen) => find_in_state(&frozen.read(), key, copy, guard),
                ChildRef::Inner(_) => Place::Found(Found::Nothing),
            },
        },
        Body::Packed(leaf) => Place::InPacked(*leaf),
    }
}

#[inline]
fn found(value: Stored<'_>, copy: &mut dyn FnMut(&[u8])) -> Found<'static> {
    match value {
        Stored::Inline(bytes) => {
            copy(bytes);
            Found::Copied
        }
        Stored::Apart(reference) => Found::Apart(reference.into(), Kept::ByCaller),
    }
}

#[inline]
fn copy_inline(value: LeafValue<'_>, copy: &mut dyn FnMut(&[u8])) -> Found<'static> {
    match value {
        LeafValue::Inline(bytes) => {
            copy(bytes);
            Found::Copied
        }
        LeafValue::Apart(reference) => found(Stored::Apart(reference), copy),
        LeafValue::Overflow {
            page,
            len,
            checksum,
        } => Found::Extent(
            Extent {
                page,
                len,
                checksum,
            },
            Kept::ByCaller,
        ),
    }
}

/// Copies the value of `key` in a leaf of the file. `first` is where to begin, if that is known
/// ([`warm`]).
#[inline]
fn find_in_page(
    image: &[u8],
    key: &[u8],
    first: Option<usize>,
    copy: &mut dyn FnMut(&[u8]),
) -> Found<'static> {
    let leaf = Leaf::from_image(image);
    let place = match first {
        Some(first) => leaf.search_from(first, key),
        None => leaf.search(key),
    };
    match place {
        Ok(slot) => copy_inline(leaf.value(slot), copy),
        Err(_) => Found::Nothing,
    }
}

impl SharedTree {
    /// Finds the value of `key` in the current tree, as of `published` or later. An inner error if
    /// the answer may not be seen yet: try again after [`SharedTree::wait_published`] of the
    /// number. `copy` runs under the leaf's lock and a pin; it copies and does nothing else.
    #[inline]
    pub(crate) fn lookup(
        &self,
        key: &[u8],
        published: Option<SeqNo>,
        copy: &mut dyn FnMut(&[u8]),
    ) -> Result<Result<Found<'_>, SeqNo>> {
        let guard = crossbeam_epoch::pin();
        // Before the root: what is reached from there is in this tree of the file or a later one.
        let oldest = self.disk_generation.load(Ordering::Acquire);
        let (leaf, pages) = self.find_leaf(self.root.load(&guard), key, &guard)?;
        self.pager.count_read(pages);
        self.look_into(&leaf, (key, None), published, oldest, copy, &guard)
    }

    /// The same in the leaf for `key`, to which a descent has led that began after the file's tree
    /// of generation `oldest` was there.
    #[inline]
    fn look_into<'t>(
        &'t self,
        leaf: &FoundLeaf<'_>,
        (key, first): (&[u8], Option<usize>),
        published: Option<SeqNo>,
        oldest: u64,
        copy: &mut dyn FnMut(&[u8]),
        guard: &Guard,
    ) -> Result<Result<Found<'t>, SeqNo>> {
        let found = match leaf {
            FoundLeaf::Memory(leaf) => {
                let state = leaf.read();
                let seen = published.unwrap_or_else(|| self.published());
                if state.last_seq > seen {
                    return Ok(Err(state.last_seq));
                }
                let place = find_in_state(&state, key, copy, guard);
                // What follows may take I/O, which the writer must not wait for.
                drop(state);
                self.follow(place, key, copy, guard)?
            }
            in_file => {
                // After the reference was loaded: `disk_seq` was stored before the reference.
                let disk_seq = SeqNo(self.disk_seq.load(Ordering::Acquire));
                let seen = published.unwrap_or_else(|| self.published());
                if disk_seq > seen {
                    return Ok(Err(disk_seq));
                }
                match in_file {
                    FoundLeaf::Packed(leaf) => {
                        let packs = leaf.packs.as_slice().len() as u64;
                        self.pay_for_packs(LOOKUP_NS * packs);
                        self.follow(Place::InPacked(*leaf), key, copy, guard)?
                    }
                    FoundLeaf::Page(image) => find_in_page(image, key, first, copy),
                    FoundLeaf::Memory(_) => unreachable!("looked at before"),
                }
            }
        };
        Ok(Ok(match found {
            Found::Extent(extent, _) => Found::Extent(extent, Kept::Pages(self.keep_since(oldest))),
            Found::Apart(reference, _) => {
                Found::Apart(reference, Kept::Pages(self.keep_since(oldest)))
            }
            found => found,
        }))
    }

    /// Copies the value of `key` in the leaf for it, which is part of a view, or says where it is.
    #[inline]
    fn look_into_frozen(
        &self,
        leaf: &FoundLeaf<'_>,
        (key, first): (&[u8], Option<usize>),
        copy: &mut dyn FnMut(&[u8]),
        guard: &Guard,
    ) -> Result<Found<'static>> {
        match leaf {
            FoundLeaf::Memory(leaf) => {
                let place = find_in_state(&leaf.read(), key, copy, guard);
                self.follow(place, key, copy, guard)
            }
            FoundLeaf::Packed(leaf) => self.follow(Place::InPacked(*leaf), key, copy, guard),
            FoundLeaf::Page(image) => Ok(find_in_page(image, key, first, copy)),
        }
    }

    /// Looks into the page to which `place` leads, if it is not the end.
    #[inline]
    fn follow(
        &self,
        place: Place,
        key: &[u8],
        copy: &mut dyn FnMut(&[u8]),
        guard: &Guard,
    ) -> Result<Found<'static>> {
        match place {
            Place::Found(found) => Ok(found),
            Place::InPacked(leaf) => {
                let (change, packs) = self.newest_in_packs(&leaf, key, guard)?;
                self.pager.count_read(packs);
                match change {
                    Some(change) => Ok(match change.value() {
                        Some(value) => found(value, copy),
                        None => Found::Nothing,
                    }),
                    None => self.follow(Place::InPage(leaf.page), key, copy, guard),
                }
            }
            Place::InPage(link) => {
                let image = self.disk_node(link, Some(0), guard)?;
                self.pager.count_read(1);
                Ok(find_in_page(&image, key, None, copy))
            }
        }
    }

    /// Calls `read` with the value in an extent that is kept.
    pub(crate) fn read_extent(&self, extent: Extent, read: &mut dyn FnMut(&[u8])) -> Result<()> {
        let Extent {
            page,
            len,
            checksum,
        } = extent;
        self.pager.overflow(page, len, checksum, read)
    }

    /// The value in an extent that is kept, to be written to another place.
    pub(crate) fn extent_to_rewrite(&self, extent: Extent) -> Result<Vec<u8>> {
        let Extent {
            page,
            len,
            checksum,
        } = extent;
        self.pager.overflow_to_rewrite(page, len, checksum)
    }

    /// Calls `read` with what `find` found or copied, or returns false. No lock is held and no
    /// pin when it is called: user code may take its time, and come back.
    pub(crate) fn lend<'t>(
        &self,
        read: &mut dyn FnMut(&[u8]),
        find: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<Found<'t>>,
    ) -> Result<bool> {
        thread_local! {
            /// The copy. Taken while it is in use, so a nested read has one of its own.
            static COPY: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        if mutated!("closure-called-under-the-leaf-lock") {
            return Ok(!matches!(find(read)?, Found::Nothing));
        }
        // Not there while the thread ends.
        let mut copied = COPY.try_with(Cell::take).unwrap_or_default();
        let found = find(&mut |bytes| {
            copied.clear();
            copied.extend_from_slice(bytes);
        })?;
        let is_found = !matches!(found, Found::Nothing);
        match found {
            Found::Nothing => {}
            Found::Copied => read(&copied),
            Found::Large(value) => read(&value.bytes),
            Found::Extent(extent, _kept) => self.read_extent(extent, read)?,
            Found::Apart(reference, _kept) => read(&self.held_files.values().get(&reference)?),
        }
        let _ = COPY.try_with(|copy| copy.set(copied));
        Ok(is_found)
    }

    /// The value that `find` found or copied.
    #[inline]
    pub(crate) fn take<'t>(
        &self,
        find: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<Found<'t>>,
    ) -> Result<Option<Value>> {
        let mut value = None;
        let found = find(&mut |bytes: &[u8]| value = Some(Value::copy_from(bytes)))?;
        self.finish(found, value)
    }

    /// `part` of the value that `find` finds or copies.
    pub(crate) fn take_part<'t>(
        &self,
        part: Range<usize>,
        find: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<Found<'t>>,
    ) -> Result<Option<Value>> {
        let mut value = None;
        let mut copy = |bytes: &[u8]| value = Some(Value::copy_part(bytes, &part));
        match find(&mut copy)? {
            Found::Nothing | Found::Copied => {}
            Found::Large(large) => copy(&large.bytes),
            Found::Extent(extent, _kept) => self.read_extent(extent, &mut copy)?,
            Found::Apart(reference, _kept) => {
                let found = self
                    .held_files
                    .values()
                    .get_part(&reference, part.clone())?;
                return Ok(Some(Value::copy_from(&found)));
            }
        }
        Ok(value)
    }

    /// The value that `find` finds or copies, to be read by and by.
    pub(crate) fn take_open<'t>(
        &self,
        find: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<Found<'t>>,
    ) -> Result<Option<OpenValue>> {
        let mut value = None;
        match find(&mut |bytes: &[u8]| value = Some(Value::copy_from(bytes)))? {
            // VF1: what keeps the file holds it until this does.
            Found::Apart(reference, _kept) => {
                let held = self.held_files.values().hold_value(&reference)?;
                Ok(Some(OpenValue::Apart(held)))
            }
            found => Ok(self.finish(found, value)?.map(OpenValue::Whole)),
        }
    }

    /// The value that was found: `copied`, if it was copied. Neither lock nor pin is held.
    #[inline]
    fn finish(&self, found: Found<'_>, mut copied: Option<Value>) -> Result<Option<Value>> {
        let mut copy = |bytes: &[u8]| copied = Some(Value::copy_from(bytes));
        match found {
            Found::Nothing | Found::Copied => {}
            Found::Large(large) => copy(&large.bytes),
            Found::Extent(extent, _kept) => self.read_extent(extent, &mut copy)?,
            Found::Apart(reference, _kept) => copy(&self.held_files.values().get(&reference)?),
        }
        Ok(copied)
    }

    /// The values of `keys` as of `moment`, which is published, are put behind `values`. An inner
    /// error if one of them cannot be told: its leaf was changed later, by the operation of that
    /// number.
    pub(crate) fn lookup_many(
        &self,
        keys: &[&[u8]],
        moment: SeqNo,
        values: &mut Vec<Option<Value>>,
    ) -> Result<Result<(), SeqNo>> {
        for keys in keys.chunks(KEYS_TOGETHER) {
            let before = values.len();
            let mut outside = Vec::new();
            let guard = crossbeam_epoch::pin();
            let oldest = self.disk_generation.load(Ordering::Acquire);
            let root = self.root.load(&guard);
            let (leaves, pages) = self.find_leaves(root, keys, &guard)?;
            self.pager.count_read(pages);
            let firsts = warm(&leaves, keys);
            for ((leaf, key), first) in leaves.iter().zip(keys).zip(firsts) {
                let mut value = None;
                let mut copy = |bytes: &[u8]| value = Some(Value::copy_from(bytes));
                let key = (*key, first);
                match self.look_into(leaf, key, Some(moment), oldest, &mut copy, &guard)? {
                    Ok(Found::Nothing | Found::Copied) => {}
                    Ok(found) => outside.push((values.len(), found)),
                    Err(seq) => return Ok(Err(seq)),
                }
                values.push(value);
            }
            debug_assert_eq!(values.len() - before, keys.len());
            drop(leaves);
            drop(guard);
            for (at, found) in outside {
                values[at] = self.finish(found, None)?;
            }
        }
        Ok(Ok(()))
    }

    /// The values of the leaf for `key` in the current tree, with keys after `after`, that lie in
    /// the file at page `limit` or behind it: as many as `budget` bytes take, and one at least.
    pub(crate) fn extents_beyond(
        &self,
        key: &[u8],
        after: Option<&[u8]>,
        limit: u64,
        budget: u64,
    ) -> Result<ExtentsBeyond<'_>> {
        let guard = crossbeam_epoch::pin();
        let oldest = self.disk_generation.load(Ordering::Acquire);
        let (leaf, _) = self.find_leaf(self.root.load(&guard), key, &guard)?;
        let (mut extents, mut more_after) = (Vec::new(), None);
        let mut gather = |image: &[u8]| {
            let leaf = Leaf::from_image(image);
            let first = after.map_or(0, |after| match leaf.search(after) {
                Ok(slot) => slot + 1,
                Err(slot) => slot,
            });
            let (mut bytes, mut last) = (0, 0);
            for i in first..leaf.len() {
                let LeafValue::Overflow {
                    page,
                    len,
                    checksum,
                } = leaf.value(i)
                else {
                    continue;
                };
                if page.0 < limit || pending_number(page).is_some() {
                    continue;
                }
                if bytes >= budget && !extents.is_empty() {
                    more_after = Some([leaf.prefix(), leaf.key_suffix(last)].concat());
                    break;
                }
                bytes += u64::from(len);
                last = i;
                extents.push(Extent {
                    page,
                    len,
                    checksum,
                });
            }
        };
        match leaf {
            FoundLeaf::Page(image) => gather(&image),
            // As below.
            FoundLeaf::Packed(leaf) => drop(self.packed_image(&leaf, &guard)?),
            FoundLeaf::Memory(leaf) => match &leaf.read().body {
                Body::Whole { image, .. } => gather(image),
                // Their page has no overflow values. It is touched, so that it is in memory when
                // the changes are merged with it.
                Body::Changes(changes) => {
                    drop(self.base_image(changes, ReadFor::Rewrite, &guard)?);
                }
                Body::Packed(_) => {}
            },
        }
        Ok(ExtentsBeyond {
            extents,
            more_after,
            _kept: self.keep_since(oldest),
        })
    }

    /// True if `key` has a value in the subtree `child`, which is at `level` (if that is known), or
    /// in its packs, published or not.
    pub(crate) fn holds<'g>(
        &'g self,
        child: ChildRef<'g>,
        packed: Option<PackedLeaf>,
        level: Option<u8>,
        key: &[u8],
        guard: &'g Guard,
    ) -> Result<bool> {
        let leaf = match packed {
            Some(leaf) => FoundLeaf::Packed(leaf),
            None => {
                let find = |node: Inner<'_>| node.find_child(key);
                self.descend(child, level, find, ReadFor::Use, guard)?.0
            }
        };
        let mut copy = |_: &[u8]| ();
        let found = match leaf {
            FoundLeaf::Page(image) => find_in_page(&image, key, None, &mut copy),
            FoundLeaf::Packed(leaf) => self.follow(Place::InPacked(leaf), key, &mut copy, guard)?,
            FoundLeaf::Memory(leaf) => {
                let place = find_in_state(&leaf.read(), key, &mut copy, guard);
                self.follow(place, key, &mut copy, guard)?
            }
        };
        Ok(!matches!(found, Found::Nothing))
    }
}

impl View {
    /// Finds the value of `key` in a view that nothing else need keep.
    pub(crate) fn lookup_in(
        self: Arc<Self>,
        key: &[u8],
        copy: &mut dyn FnMut(&[u8]),
    ) -> Result<Found<'static>> {
        Ok(match self.lookup(key, copy)? {
            Found::Extent(extent, _) => Found::Extent(extent, Kept::View(self)),
            Found::Apart(reference, _) => Found::Apart(reference, Kept::View(self)),
            found => found,
        })
    }

    /// Finds the value of `key`. `copy` runs under a pin; it copies and does nothing else.
    pub(crate) fn lookup(&self, key: &[u8], copy: &mut dyn FnMut(&[u8])) -> Result<Found<'static>> {
        self.check_usable()?;
        let tree = self.tree();
        let guard = crossbeam_epoch::pin();
        let (leaf, pages) = tree.find_leaf(self.root().as_ref(), key, &guard)?;
        tree.pager.count_read(pages);
        tree.look_into_frozen(&leaf, (key, None), copy, &guard)
    }

    /// The values of `keys`, in their order.
    pub(crate) fn lookup_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        self.check_usable()?;
        let tree = self.tree();
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_TOGETHER) {
            let guard = crossbeam_epoch::pin();
            let root = self.root().as_ref();
            let (leaves, pages) = tree.find_leaves(root, keys, &guard)?;
            tree.pager.count_read(pages);
            let firsts = warm(&leaves, keys);
            let mut outside = Vec::new();
            for ((leaf, key), first) in leaves.iter().zip(keys).zip(firsts) {
                let mut value = None;
                let mut copy = |bytes: &[u8]| value = Some(Value::copy_from(bytes));
                match tree.look_into_frozen(leaf, (*key, first), &mut copy, &guard)? {
                    Found::Nothing | Found::Copied => {}
                    found => outside.push((values.len(), found)),
                }
                values.push(value);
            }
            drop(leaves);
            drop(guard);
            for (at, found) in outside {
                values[at] = tree.finish(found, None)?;
            }
        }
        Ok(values)
    }
}
