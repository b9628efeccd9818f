//! Places that hold a reference to a node and can be changed under the eyes of readers.
//!
//! A [`Slot`] is one word: a link to a page, or a pointer that owns one count of an `Arc`'d node.
//! Readers load it under an epoch pin and follow it without touching the count; the one writer
//! replaces it, and the count that the old word owned is given back only when every reader that
//! was pinned then has gone.
//!
//! # Invariants
//!
//! - **S1** A word with tag `LEAF` or `INNER` is an `Arc::into_raw` pointer of that type and owns
//!   one strong count. Both types are aligned to at least four bytes ([`Slot::new`] refuses others
//!   at compile time), so the tag bits are free.
//! - **S2** A count that a slot owned is given back either by [`Slot::store`], after all pins that
//!   existed at the moment of the exchange have ended, or when the slot itself is dropped.
//! - **S3** A reader that holds a pin reached the slot through the root or through a node that is
//!   kept alive by S2 or by a count of its own, so the slot outlives its reference; hence what it
//!   loads lives at least as long as the pin.
//!
//! [`EpochArc`] is the same for a single type without tags.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crossbeam_epoch::Guard;

use crate::btree::node::Link;
use crate::types::PageId;

const LEAF: u64 = 0;
const DISK: u64 = 1;
const INNER: u64 = 2;
const TAGS: u64 = 3;
const TAG_BITS: u32 = 2;

/// A link beside its tag. Page numbers that leave no space for the tag, which only damage can
/// cause, become the first one that is outside every file.
fn word_of(link: Link) -> u64 {
    let page = link.page().0.min(Link::UNITS_MAX);
    Link::new(PageId(page << TAG_BITS), link.fingerprint()).bits() | DISK
}

#[inline]
fn link_in(word: u64) -> Link {
    let link = Link::from_bits(word);
    Link::new(PageId(link.page().0 >> TAG_BITS), link.fingerprint())
}

#[inline]
fn pointer_in<T>(word: u64) -> *const T {
    (word & !TAGS) as usize as *const T
}

/// A node, owned: a leaf `L` or an inner node `I` in memory, or a page of the file.
pub(crate) enum Child<L, I> {
    Leaf(Arc<L>),
    Inner(Arc<I>),
    Disk(Link),
}

impl<L, I> Clone for Child<L, I> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(leaf) => Self::Leaf(Arc::clone(leaf)),
            Self::Inner(inner) => Self::Inner(Arc::clone(inner)),
            Self::Disk(link) => Self::Disk(*link),
        }
    }
}

impl<L, I> fmt::Debug for Child<L, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf(_) => f.write_str("Leaf"),
            Self::Inner(_) => f.write_str("Inner"),
            Self::Disk(link) => write!(f, "Disk({})", link.page().0),
        }
    }
}

impl<L, I> Child<L, I> {
    /// The same, lent.
    pub(crate) fn as_ref(&self) -> ChildRef<'_, L, I> {
        match self {
            Self::Leaf(leaf) => ChildRef::Leaf(NodeRef::of(leaf)),
            Self::Inner(inner) => ChildRef::Inner(NodeRef::of(inner)),
            Self::Disk(link) => ChildRef::Disk(*link),
        }
    }

    fn into_word(self) -> u64 {
        match self {
            Self::Leaf(leaf) => Arc::into_raw(leaf) as usize as u64 | LEAF,
            Self::Inner(inner) => Arc::into_raw(inner) as usize as u64 | INNER,
            Self::Disk(link) => word_of(link),
        }
    }

    /// # Safety
    ///
    /// `word` came from [`Child::into_word`], and the count that it owns passes to the result.
    unsafe fn from_word(word: u64) -> Self {
        match word & TAGS {
            // SAFETY: by S1 and the caller's promise.
            LEAF => Self::Leaf(unsafe { Arc::from_raw(pointer_in(word)) }),
            // SAFETY: by S1 and the caller's promise.
            INNER => Self::Inner(unsafe { Arc::from_raw(pointer_in(word)) }),
            _ => Self::Disk(link_in(word)),
        }
    }
}

/// A node in memory that some `Arc` keeps alive for `'g`.
///
/// The pointer is the `Arc`'s own, not one made from a reference to its content: that one could
/// not be used to reach the counts, which lie beside the content.
pub(crate) struct NodeRef<'g, T>(*const T, PhantomData<&'g T>);

impl<T> Clone for NodeRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for NodeRef<'_, T> {}

impl<'g, T> NodeRef<'g, T> {
    fn of(owner: &'g Arc<T>) -> Self {
        Self(Arc::as_ptr(owner), PhantomData)
    }

    /// # Safety
    ///
    /// `pointer` came from [`Arc::into_raw`], and a count of that `Arc` lasts for `'g`.
    #[inline]
    unsafe fn from_raw(pointer: *const T) -> Self {
        Self(pointer, PhantomData)
    }

    /// The node, for as long as it is known to live.
    #[inline]
    pub(crate) fn get(self) -> &'g T {
        // SAFETY: a `NodeRef` is only made from a borrowed `Arc`, or by `from_raw`, whose caller
        // promises the same: the content lives for `'g`, and is only changed by interior means.
        unsafe { &*self.0 }
    }

    /// A count of one's own.
    pub(crate) fn to_arc(self) -> Arc<T> {
        // SAFETY: the pointer is an `Arc`'s: by S1 for slots, from a borrowed `Arc` in
        // `Child::as_ref`. The count is at least one while `'g` lasts.
        unsafe {
            Arc::increment_strong_count(self.0);
            Arc::from_raw(self.0)
        }
    }
}

impl<T> Deref for NodeRef<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.get()
    }
}

/// A node, lent for the time of a pin.
pub(crate) enum ChildRef<'g, L, I> {
    Leaf(NodeRef<'g, L>),
    Inner(NodeRef<'g, I>),
    Disk(Link),
}

impl<L, I> Clone for ChildRef<'_, L, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L, I> Copy for ChildRef<'_, L, I> {}

impl<L, I> ChildRef<'_, L, I> {
    /// Address of a node in memory: its identity for as long as it lives.
    pub(crate) fn address(&self) -> Option<usize> {
        match self {
            Self::Leaf(leaf) => Some(std::ptr::from_ref(leaf.get()) as usize),
            Self::Inner(inner) => Some(std::ptr::from_ref(inner.get()) as usize),
            Self::Disk(_) => None,
        }
    }

    /// A reference that needs no pin.
    pub(crate) fn to_owned(self) -> Child<L, I> {
        match self {
            Self::Leaf(leaf) => Child::Leaf(leaf.to_arc()),
            Self::Inner(inner) => Child::Inner(inner.to_arc()),
            Self::Disk(link) => Child::Disk(link),
        }
    }
}

/// A place that holds a reference to a node: a leaf `L`, an inner node `I` or a page.
///
/// As a [`Child`] it owns what it refers to, and can be sent and shared between threads if that
/// can.
pub(crate) struct Slot<L, I>(AtomicU64, PhantomData<(Arc<L>, Arc<I>)>);

impl<L: Send + Sync + 'static, I: Send + Sync + 'static> Slot<L, I> {
    pub(crate) fn new(child: Child<L, I>) -> Self {
        const {
            assert!(align_of::<L>() > TAGS as usize, "S1");
            assert!(align_of::<I>() > TAGS as usize, "S1");
        }
        Self(AtomicU64::new(child.into_word()), PhantomData)
    }

    /// What the slot holds now, for as long as `guard` is pinned.
    #[inline]
    pub(crate) fn load<'g>(&'g self, _guard: &'g Guard) -> ChildRef<'g, L, I> {
        let word = self.0.load(Ordering::Acquire);
        match word & TAGS {
            // SAFETY: by S1 the word points to a live leaf, and by S2 and S3 it lives as long as
            // the pin.
            LEAF => ChildRef::Leaf(unsafe { NodeRef::from_raw(pointer_in(word)) }),
            INNER => {
                // SAFETY: the same for an inner node.
                ChildRef::Inner(unsafe { NodeRef::from_raw(pointer_in(word)) })
            }
            _ => ChildRef::Disk(link_in(word)),
        }
    }

    /// Replaces what the slot holds. Only the engine's one writer calls it. True if that was an
    /// inner node, which keeps all that is below it until the pins of now have ended.
    pub(crate) fn store(&self, child: Child<L, I>, guard: &Guard) -> bool {
        let old = self.0.swap(child.into_word(), Ordering::AcqRel);
        if old & TAGS != DISK {
            // SAFETY: the exchange took the old word out of the slot, so this closure is the only
            // owner of its count; it runs after every current pin has ended (S2). By the bounds of
            // this block nodes are `Send + Sync` and borrow nothing.
            unsafe { guard.defer_unchecked(move || drop(Child::<L, I>::from_word(old))) };
        }
        old & TAGS == INNER
    }
}

impl<L, I> Drop for Slot<L, I> {
    fn drop(&mut self) {
        // SAFETY: `&mut self`: no reader can load the word any more (S3), and its count is ours
        // (S1).
        drop(unsafe { Child::<L, I>::from_word(*self.0.get_mut()) });
    }
}

/// A replaceable `Arc` that readers load under a pin, at the price of one load.
pub(crate) struct EpochArc<T: Send + Sync + 'static>(AtomicPtr<T>);

impl<T: Send + Sync + 'static> EpochArc<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self(AtomicPtr::new(Arc::into_raw(value).cast_mut()))
    }

    #[inline]
    pub(crate) fn load<'g>(&'g self, _guard: &'g Guard) -> NodeRef<'g, T> {
        // SAFETY: the pointer came from `Arc::into_raw` and its count is given back only after
        // every pin that could have loaded it has ended (`store`), or with `self`.
        unsafe { NodeRef::from_raw(self.0.load(Ordering::Acquire)) }
    }

    pub(crate) fn store(&self, value: Arc<T>, guard: &Guard) {
        let old = self
            .0
            .swap(Arc::into_raw(value).cast_mut(), Ordering::AcqRel) as usize;
        // SAFETY: as in `Slot::store`.
        unsafe { guard.defer_unchecked(move || drop(Arc::from_raw(old as *const T))) };
    }
}

impl<T: Send + Sync + 'static> Drop for EpochArc<T> {
    fn drop(&mut self) {
        // SAFETY: `&mut self`: no reader can load the pointer any more, and its count is ours.
        drop(unsafe { Arc::from_raw(*self.0.get_mut()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_fit_and_damage_is_clamped() {
        let guard = crossbeam_epoch::pin();
        for bits in [0, 1, 77, Link::UNITS_MAX, 1 << 38, (1 << 40) - 1, u64::MAX] {
            for fingerprint in [0, 1, 0x80_0001, 0xFF_FFFF] {
                let link = Link::from_bits(bits & !(0xFF_FFFF << 40) | fingerprint << 40);
                let slot = Slot::<u32, u64>::new(Child::Disk(link));
                match slot.load(&guard) {
                    ChildRef::Disk(found) => {
                        assert_eq!(found.page().0, link.page().0.min(Link::UNITS_MAX));
                        assert_eq!(u64::from(found.fingerprint()), fingerprint);
                    }
                    _ => panic!("a page"),
                }
            }
        }
    }

    /// Found by Miri: the count was reached through a reference to the content, which does not
    /// extend to the count.
    #[test]
    fn a_count_is_taken_through_the_pointer_of_the_arc() {
        let guard = crossbeam_epoch::pin();
        let place = EpochArc::new(Arc::new([1_u64, 2]));
        let seen = place.load(&guard);
        let kept = [seen.to_arc(), seen.to_arc()];
        assert_eq!(Arc::strong_count(&kept[0]), 3);
        drop(place);
        assert_eq!((*kept[1], Arc::strong_count(&kept[1])), ([1, 2], 2));
    }

    #[test]
    fn a_replaced_value_lives_until_its_readers_are_gone() {
        let first = Arc::new(1_u32);
        let place = EpochArc::new(Arc::clone(&first));
        let guard = crossbeam_epoch::pin();
        let seen = place.load(&guard);
        place.store(Arc::new(2), &guard);
        assert_eq!((*seen, *place.load(&guard)), (1, 2));
        let kept = seen.to_arc();
        drop(guard);
        drop(place);
        assert_eq!(*kept, 1);
    }
}
