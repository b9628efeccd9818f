//! Walking over a page and the changes to it as over one sequence of entries.
//!
//! Nothing is merged in advance: a scan of ten entries looks at ten entries, not at the whole leaf.
//! A step compares the entry of the page and the change that are next, as a merge of two sorted
//! lists does. As long as their heads tell the two apart, neither record is looked at; and where
//! they do not, both records are looked at that the scan comes to next in any case. A search of the
//! page for the place of each change, as it was done before, cost a scan more than the entries.

use std::cmp::Ordering;

use super::delta::Delta;
use crate::btree::node::leaf::Leaf;

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// In this slot of the page.
    Slot(usize),
    /// It is this change.
    Change(usize),
}

/// Entry `slot` of the page beside change `change`, in key order.
#[inline]
fn compare(page: Leaf<'_>, slot: usize, delta: &Delta, change: usize) -> Ordering {
    let heads = page.head(slot).cmp(&delta.head32(change));
    heads.then_with(|| page.key_suffix(slot).cmp(delta.key_suffix(change)))
}

/// A gap between two entries, and whether the walker stands on the one after it.
///
/// Invariant: entries of the page before `slot` and changes before `change` lie before the gap, all
/// others behind it. An entry of the page and the change that replaces it lie on the same side.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    slot: usize,
    change: usize,
    on_change: bool,
    /// The change on which it stands replaces the entry of the page after the gap.
    replaces: bool,
    /// Changes that it stood on or passed.
    steps: u64,
}

impl Walk {
    /// The gap behind `slot` entries of the page and `change` changes: the place of one key in
    /// both.
    pub(crate) fn at(slot: usize, change: usize) -> Self {
        Self {
            slot,
            change,
            ..Self::default()
        }
    }

    /// Changes that the walk came to: what the merging has cost.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Stands on the entry after the gap; false if there is none.
    #[inline]
    pub(crate) fn forward(&mut self, page: Leaf<'_>, delta: &Delta) -> bool {
        loop {
            if self.change == delta.len() {
                self.on_change = false;
                return self.slot < page.len();
            }
            let order = if self.slot < page.len() {
                compare(page, self.slot, delta, self.change)
            } else {
                Ordering::Greater
            };
            self.on_change = order != Ordering::Less;
            if !self.on_change {
                return true;
            }
            self.replaces = order == Ordering::Equal;
            self.steps += 1;
            if delta.get(self.change).1.is_some() {
                return true;
            }
            self.pass();
        }
    }

    /// Goes behind the entry on which it stands.
    #[inline]
    pub(crate) fn pass(&mut self) {
        if self.on_change {
            self.change += 1;
            self.slot += usize::from(self.replaces);
        } else {
            self.slot += 1;
        }
    }

    /// Stands on the entry before the gap; false if there is none.
    #[inline]
    pub(crate) fn backward(&mut self, page: Leaf<'_>, delta: &Delta) -> bool {
        loop {
            let order = match (self.slot.checked_sub(1), self.change.checked_sub(1)) {
                (None, None) => {
                    self.on_change = false;
                    return false;
                }
                (Some(_), None) => Ordering::Greater,
                (None, Some(_)) => Ordering::Less,
                (Some(slot), Some(change)) => compare(page, slot, delta, change),
            };
            self.on_change = order != Ordering::Greater;
            if !self.on_change {
                self.slot -= 1;
                return true;
            }
            self.replaces = order == Ordering::Equal;
            self.slot -= usize::from(self.replaces);
            self.change -= 1;
            self.steps += 1;
            if delta.get(self.change).1.is_some() {
                return true;
            }
        }
    }

    /// Where the entry is on which it stands.
    #[inline]
    pub(crate) fn standing(&self) -> Standing {
        if self.on_change {
            Standing::Change(self.change)
        } else {
            Standing::Slot(self.slot)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::btree::node::leaf::{LeafMut, LeafValue, Stored, new};
    use crate::format::checksum::mix64;

    /// What a walk stands on.
    fn entry(walk: &Walk, page: Leaf<'_>, delta: &Delta) -> (Vec<u8>, Vec<u8>) {
        match walk.standing() {
            Standing::Slot(slot) => {
                let mut key = Vec::new();
                page.write_key(slot, &mut key);
                match page.value(slot) {
                    LeafValue::Inline(value) => (key, value.to_vec()),
                    LeafValue::Overflow { .. } | LeafValue::Apart(_) => {
                        unreachable!("none was put")
                    }
                }
            }
            Standing::Change(change) => {
                let (key, value) = delta.get(change);
                (key.to_vec(), value.expect("not a delete").bytes().to_vec())
            }
        }
    }

    #[test]
    fn every_walk_agrees_with_a_merged_map() {
        for seed in 0..200_u64 {
            let mut number = seed << 32;
            let mut random = |limit: u64| {
                number += 1;
                mix64(number) % limit
            };
            let mut image = new(b"", None, 4096);
            let mut merged = BTreeMap::new();
            let in_page = random(20);
            let mut page = LeafMut::from_image(&mut image);
            for _ in 0..in_page {
                let key = vec![b'k', random(24) as u8];
                if let Err(slot) = page.as_leaf().search(&key) {
                    page.insert(slot, &key, LeafValue::Inline(b"page")).unwrap();
                    merged.insert(key, b"page".to_vec());
                }
            }
            let page = Leaf::from_image(&image);
            let mut delta = Delta::new(page.prefix().len());
            let in_delta = random(20);
            for _ in 0..in_delta {
                let key = vec![b'k', random(24) as u8];
                let value: Option<&[u8]> = (random(3) > 0).then_some(b"change");
                delta.set(delta.search(&key), &key, value.map(Stored::Inline));
                match value {
                    Some(value) => merged.insert(key, value.to_vec()),
                    None => merged.remove(&key),
                };
            }
            let entries: Vec<_> = merged.into_iter().collect();

            // Walks that turn at random, from every place where a seek can lead.
            for start in 0..=25 {
                let key = vec![b'k', start];
                let (Ok(slot) | Err(slot)) = page.search(&key);
                let (Ok(change) | Err(change)) = delta.search(&key);
                let mut walk = Walk::at(slot, change);
                let mut gap = entries.partition_point(|(other, _)| *other < key);
                for _ in 0..60 {
                    if random(5) < 3 {
                        let stands = walk.forward(page, &delta);
                        assert_eq!(stands, gap < entries.len(), "seed {seed}");
                        if stands {
                            assert_eq!(entry(&walk, page, &delta), entries[gap], "seed {seed}");
                            walk.pass();
                            gap += 1;
                        }
                    } else {
                        let stands = walk.backward(page, &delta);
                        assert_eq!(stands, gap > 0, "seed {seed}");
                        if stands {
                            gap -= 1;
                            assert_eq!(entry(&walk, page, &delta), entries[gap], "seed {seed}");
                        }
                    }
                }
            }
        }
    }
}
