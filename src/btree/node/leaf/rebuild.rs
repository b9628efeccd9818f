//! Making new leaf images from old ones: split, merge, other fences.

use super::{Leaf, LeafValue, RECORD_HEADER_LEN, Stored, spare_slots};
use crate::btree::node::header::{
    CAPACITY_AT, COUNT_AT, Fences, HEAP_LIVE_AT, HEAP_START_AT, KIND_LEAF, SLOT_LEN, last_seq,
    page_id, put_size, put_u16, put_u32, set_last_seq, set_page_id, unit_size,
};
use crate::btree::node::key_parts::KeyParts;
use crate::btree::node::{Cut, Rebuilt, choose_cut};
use crate::types::SeqNo;
use crate::util::key_prefix::shortest_separator;

/// The entry that did not fit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending<'a> {
    /// The slot where it goes, or that of the entry it replaces.
    pub(crate) at: usize,
    /// True if it replaces the entry at `at`, which has the same key.
    pub(crate) replaces: bool,
    /// Its key, inside the fences.
    pub(crate) key: &'a [u8],
    /// Its value.
    pub(crate) value: LeafValue<'a>,
}

/// An entry on its way from one image to another.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    key: KeyParts<'a>,
    value: LeafValue<'a>,
}

impl Entry<'_> {
    /// Bytes in a node with a prefix of `prefix_len` bytes, slot included.
    fn weight(&self, prefix_len: usize) -> usize {
        SLOT_LEN + RECORD_HEADER_LEN + self.key.len() - prefix_len + self.value.stored_len()
    }
}

/// An empty leaf between two fences: one unit, or as many as the fences need.
pub(crate) fn new(lower: &[u8], upper: Option<&[u8]>, page_size: usize) -> Box<[u8]> {
    build(Fences { lower, upper }, &[], SeqNo::ZERO, page_size)
}

/// A leaf of entries in the order of their keys, which lie between the fences, in as many units as
/// they need.
pub(crate) fn of_entries<'a>(
    lower: &[u8],
    upper: Option<&[u8]>,
    entries: impl Iterator<Item = (&'a [u8], LeafValue<'a>)>,
    page_size: usize,
) -> Box<[u8]> {
    let entry = |(key, value)| Entry {
        key: KeyParts::whole(key),
        value,
    };
    let entries: Vec<_> = entries.map(entry).collect();
    build(Fences { lower, upper }, &entries, SeqNo::ZERO, page_size)
}

/// Bytes that [`of_entries`] needs for `count` entries, whose keys and values as they are stored
/// have `entry_bytes` together.
pub(crate) fn bytes_of(
    lower: &[u8],
    upper: Option<&[u8]>,
    count: usize,
    entry_bytes: usize,
) -> usize {
    let fences = Fences { lower, upper };
    let each = SLOT_LEN + RECORD_HEADER_LEN;
    fences.heads_offset() + entry_bytes + count * each - count * fences.prefix_len()
}

/// Rebuilds a leaf that was [`Full`](crate::btree::node::Full), with the pending entry put in.
///
/// Gives two nodes, or one larger one as long as a page holds it or when there is nothing to be
/// gained by cutting. A cut for an insert at the end leaves the left node as it was, so that keys
/// that arrive in order fill their pages.
pub(crate) fn split(image: &[u8], pending: Pending<'_>, page_size: usize) -> Rebuilt {
    let leaf = Leaf::from_image(image);
    let prefix = leaf.prefix();
    let seq = last_seq(image);
    let upper = leaf.frame().upper();
    let fences = Fences {
        lower: leaf.lower_fence(),
        upper: upper.as_deref(),
    };

    let mut entries = entries_of(leaf);
    let entry = Entry {
        key: KeyParts::new(prefix, &pending.key[prefix.len()..]),
        value: pending.value,
    };
    if pending.replaces {
        entries[pending.at] = entry;
    } else {
        entries.insert(pending.at, entry);
    }
    let weights: Vec<usize> = entries.iter().map(|e| e.weight(prefix.len())).collect();

    let sum: usize = weights.iter().sum();
    let fits = fences.heads_offset() + sum <= page_size;
    // Where the fences are what fills the node, two nodes would be as full as one.
    let by_fences = sum <= page_size / 2;
    if fits || entries.len() < 2 || by_fences {
        return Rebuilt::One(build(fences, &entries, seq, page_size));
    }
    let separator_at = |cut: usize| {
        let low = entries[cut - 1].key.suffix();
        shortest_separator(low, entries[cut].key.suffix())
    };
    let wanted = if !pending.replaces && pending.at + 1 == entries.len() {
        Cut::Last
    } else if !pending.replaces && pending.at == 0 && fences.lower.is_empty() {
        Cut::First
    } else {
        Cut::Middle
    };
    let cut = choose_cut(
        wanted,
        &weights,
        0,
        page_size,
        1..entries.len(),
        |cut| prefix.len() + separator_at(cut).len(),
        |separator_len| fences.cut_offsets(prefix.len(), separator_len),
    );
    let separator = [prefix, separator_at(cut)].concat();
    let (low, high) = fences.cut_at(&separator);
    let left = build(low, &entries[..cut], seq, page_size);
    let right = build(high, &entries[cut..], seq, page_size);
    Rebuilt::Two {
        left,
        separator,
        right,
    }
}

/// Two neighbours as one node; `None` if that needs more than a page, and more than the larger of
/// them.
pub(crate) fn merge(left: &[u8], right: &[u8], page_size: usize) -> Option<Box<[u8]>> {
    let (low, high) = (Leaf::from_image(left), Leaf::from_image(right));
    debug_assert_eq!(low.frame().upper().as_deref(), Some(high.lower_fence()));
    let upper = high.frame().upper();
    let fences = Fences {
        lower: low.lower_fence(),
        upper: upper.as_deref(),
    };
    // Between wider fences the prefix is shorter and every suffix longer.
    let prefix_len = fences.prefix_len();
    let moved = |leaf: Leaf<'_>| {
        let longer = leaf.prefix().len() - prefix_len;
        leaf.frame().heap_live() + (SLOT_LEN + longer) * leaf.len()
    };
    let bytes = fences.heads_offset() + moved(low) + moved(high);
    let most = left.len().max(right.len()).max(page_size);
    if bytes > most {
        return None;
    }
    let mut entries = entries_of(low);
    entries.extend(entries_of(high));
    let seq = last_seq(left).max(last_seq(right));
    Some(build(fences, &entries, seq, page_size))
}

/// Two neighbours, of a page each, with as many entries in the left one as go into a page: one node
/// if all do. `None` if the left one would get no more than it has.
pub(crate) fn pour(left: &[u8], right: &[u8], page_size: usize) -> Option<Rebuilt> {
    let (low, high) = (Leaf::from_image(left), Leaf::from_image(right));
    let upper = high.frame().upper();
    let fences = Fences {
        lower: low.lower_fence(),
        upper: upper.as_deref(),
    };
    let seq = last_seq(left).max(last_seq(right));
    let mut entries = entries_of(low);
    entries.extend(entries_of(high));
    let bytes = |fences: &Fences<'_>, entries: &[Entry<'_>]| {
        let prefix_len = fences.prefix_len();
        let weights = entries.iter().map(|entry| entry.weight(prefix_len));
        fences.heads_offset() + weights.sum::<usize>()
    };
    if bytes(&fences, &entries) <= page_size {
        return Some(Rebuilt::One(build(fences, &entries, seq, page_size)));
    }
    // From the most entries down, which the longest prefix allows: that of the left one. The prefix
    // of the two, and so the weights, depend on the cut.
    let mut most = low.frame().heads_at();
    let longest = low.prefix().len();
    let fit = entries.iter().take_while(|entry| {
        // Keys of the right one may be shorter than that prefix.
        most += entry.weight(longest.min(entry.key.len()));
        most <= page_size
    });
    let most = fit.count().min(entries.len() - 1);
    for cut in (low.len() + 1..=most).rev() {
        let (before, after) = (entries[cut - 1].key.to_vec(), entries[cut].key.to_vec());
        let separator = shortest_separator(&before, &after).to_vec();
        let (low, high) = fences.cut_at(&separator);
        if bytes(&low, &entries[..cut]) > page_size {
            continue;
        }
        if bytes(&high, &entries[cut..]) > page_size {
            return None;
        }
        return Some(Rebuilt::Two {
            left: build(low, &entries[..cut], seq, page_size),
            right: build(high, &entries[cut..], seq, page_size),
            separator,
        });
    }
    None
}

/// The leaf with `changes` made, which have keys inside its fences and ascend: a new value each, or
/// none for a delete. In as many units as it needs; keeps sequence number and page id.
pub(crate) fn merged<'a>(
    image: &'a [u8],
    changes: impl Iterator<Item = (&'a [u8], Option<Stored<'a>>)>,
    page_size: usize,
) -> Box<[u8]> {
    let leaf = Leaf::from_image(image);
    let prefix = leaf.prefix();
    let mut entries = Vec::with_capacity(leaf.len() + changes.size_hint().0);
    let entry = |i: usize| Entry {
        key: KeyParts::new(prefix, leaf.key_suffix(i)),
        value: leaf.value(i),
    };
    let mut slot = 0;
    for (key, value) in changes {
        let (to, replaces) = match leaf.search(key) {
            Ok(to) => (to, true),
            Err(to) => (to, false),
        };
        entries.extend((slot..to).map(entry));
        slot = to.max(slot) + usize::from(replaces);
        entries.extend(value.map(|value| Entry {
            key: KeyParts::new(prefix, &key[prefix.len()..]),
            value: value.into(),
        }));
    }
    entries.extend((slot..leaf.len()).map(entry));
    let upper = leaf.frame().upper();
    let fences = Fences {
        lower: leaf.lower_fence(),
        upper: upper.as_deref(),
    };
    let mut merged = build(fences, &entries, last_seq(image), page_size);
    set_page_id(&mut merged, page_id(image));
    merged
}

/// The same entries between other fences, in as many units as they need; every key must be
/// inside. Keeps sequence number and page id.
///
/// With the current fences this compacts a node, and shrinks a jumbo that has become sparse.
pub(crate) fn with_fences(
    image: &[u8],
    lower: &[u8],
    upper: Option<&[u8]>,
    page_size: usize,
) -> Box<[u8]> {
    let entries = entries_of(Leaf::from_image(image));
    let fences = Fences { lower, upper };
    let mut rebuilt = build(fences, &entries, last_seq(image), page_size);
    set_page_id(&mut rebuilt, page_id(image));
    rebuilt
}

/// The leaf with as few units as its entries need; `None` if it has no more.
pub(crate) fn trimmed(image: &[u8], page_size: usize) -> Option<Box<[u8]>> {
    let leaf = Leaf::from_image(image);
    let needed = leaf.live_bytes().next_multiple_of(unit_size(page_size));
    if needed >= image.len() {
        return None;
    }
    let upper = leaf.frame().upper();
    let (lower, upper) = (leaf.lower_fence(), upper.as_deref());
    Some(with_fences(image, lower, upper, page_size))
}

fn entries_of(leaf: Leaf<'_>) -> Vec<Entry<'_>> {
    let mut entries = Vec::with_capacity(leaf.len() + 1);
    entries.extend((0..leaf.len()).map(|i| Entry {
        key: KeyParts::new(leaf.prefix(), leaf.key_suffix(i)),
        value: leaf.value(i),
    }));
    entries
}

/// An image of as many units as `entries` need.
fn build(fences: Fences<'_>, entries: &[Entry<'_>], seq: SeqNo, page_size: usize) -> Box<[u8]> {
    let prefix_len = fences.prefix_len();
    let heads_at = fences.heads_offset();
    let weight: usize = entries.iter().map(|entry| entry.weight(prefix_len)).sum();
    let bytes = heads_at + weight;
    let unit = unit_size(page_size);
    let units = bytes.div_ceil(unit);
    let mut image = vec![0; units * unit].into_boxed_slice();
    fences.write(&mut image, KIND_LEAF, 0, units);
    set_last_seq(&mut image, seq);

    let count = entries.len();
    let capacity = count + ((image.len() - bytes) / SLOT_LEN).min(spare_slots(count));
    let slots_at = heads_at + 4 * capacity;
    let live = weight - SLOT_LEN * count;
    let mut at = image.len() - live;
    put_size(&mut image, COUNT_AT, count);
    put_size(&mut image, CAPACITY_AT, capacity);
    put_size(&mut image, HEAP_START_AT, at);
    put_size(&mut image, HEAP_LIVE_AT, live);
    for (i, entry) in entries.iter().enumerate() {
        let suffix = entry.key.skip(prefix_len);
        let len = u16::try_from(suffix.len()).expect("keys have at most 65,535 bytes");
        put_u32(&mut image, heads_at + 4 * i, suffix.head());
        put_size(&mut image, slots_at + 4 * i, at);
        put_u16(&mut image, at, len);
        let key_at = at + RECORD_HEADER_LEN;
        suffix.copy_to(&mut image[key_at..key_at + suffix.len()]);
        entry.value.write(&mut image, at, suffix.len());
        at = key_at + suffix.len() + entry.value.stored_len();
    }
    image
}
