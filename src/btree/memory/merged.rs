//! Walking over a page and the changes to it as over one sequence of entries.
//!
//! Nothing is merged in advance: a scan of ten entries looks at ten entries, not at the whole leaf.
//! What a step needs to know is where in the page the next change belongs. As long as the heads of
//! their keys tell the two apart, neither record is looked at; then the place is searched once, and
//! entries of the page up to there are passed without comparing keys.

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

/// Where a change belongs in the page.
#[derive(Debug, Clone, Copy)]
struct Place {
    slot: usize,
    /// The page has an entry of the same key there, which the change replaces.
    replaces: bool,
}

impl Place {
    fn of(key: &[u8], page: Leaf<'_>) -> Self {
        match page.search(key) {
            Ok(slot) => Self {
                slot,
                replaces: true,
            },
            Err(slot) => Self {
                slot,
                replaces: false,
            },
        }
    }

    /// The slot after the change and what it replaces.
    fn end(self) -> usize {
        self.slot + usize::from(self.replaces)
    }
}

/// A gap between two entries, and whether the walker stands on the one after it.
///
/// Invariant: entries of the page before `slot` and changes before `change` lie before the gap, all
/// others behind it. `ahead` and `behind`, where known, are the places of `change` and of the
/// change before it.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    slot: usize,
    change: usize,
    ahead: Option<Place>,
    behind: Option<Place>,
    on_change: bool,
}

impl Walk {
    /// The gap behind `slot` entries of the page and `change` changes.
    pub(crate) fn at(slot: usize, change: usize) -> Self {
        Self {
            slot,
            change,
            ..Self::default()
        }
    }

    /// Stands on the entry after the gap; false if there is none.
    #[inline]
    pub(crate) fn forward(&mut self, page: Leaf<'_>, delta: &Delta) -> bool {
        loop {
            if self.change == delta.len() {
                self.on_change = false;
                return self.slot < page.len();
            }
            let place = match self.ahead {
                Some(place) => place,
                None => {
                    if self.slot < page.len() && page.head(self.slot) < delta.head32(self.change) {
                        self.on_change = false;
                        return true;
                    }
                    *self.ahead.insert(Place::of(delta.get(self.change).0, page))
                }
            };
            if self.slot < place.slot {
                self.on_change = false;
                return true;
            }
            self.on_change = true;
            if delta.get(self.change).1.is_some() {
                return true;
            }
            self.pass();
        }
    }

    /// Goes behind the entry on which it stands.
    #[inline]
    pub(crate) fn pass(&mut self) {
        if !self.on_change {
            self.slot += 1;
            return;
        }
        self.behind = self.ahead.take();
        if let Some(place) = self.behind {
            self.slot = place.end();
        }
        self.change += 1;
    }

    /// Stands on the entry before the gap; false if there is none.
    #[inline]
    pub(crate) fn backward(&mut self, page: Leaf<'_>, delta: &Delta) -> bool {
        loop {
            if self.change == 0 {
                self.on_change = false;
                let Some(slot) = self.slot.checked_sub(1) else {
                    return false;
                };
                self.slot = slot;
                return true;
            }
            let place = match self.behind {
                Some(place) => place,
                None => {
                    if let Some(slot) = self.slot.checked_sub(1)
                        && page.head(slot) > delta.head32(self.change - 1)
                    {
                        self.on_change = false;
                        self.slot = slot;
                        return true;
                    }
                    *self
                        .behind
                        .insert(Place::of(delta.get(self.change - 1).0, page))
                }
            };
            if self.slot > place.end() {
                self.on_change = false;
                self.slot -= 1;
                return true;
            }
            self.ahead = self.behind.take();
            self.change -= 1;
            self.slot = place.slot;
            self.on_change = true;
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
    use crate::btree::node::leaf::{LeafMut, LeafValue, new};
    use crate::format::checksum::mix64;

    /// What a walk stands on.
    fn entry(walk: &Walk, page: Leaf<'_>, delta: &Delta) -> (Vec<u8>, Vec<u8>) {
        match walk.standing() {
            Standing::Slot(slot) => {
                let mut key = Vec::new();
                page.write_key(slot, &mut key);
                match page.value(slot) {
                    LeafValue::Inline(value) => (key, value.to_vec()),
                    LeafValue::Overflow { .. } => unreachable!("none was put"),
                }
            }
            Standing::Change(change) => {
                let (key, value) = delta.get(change);
                (key.to_vec(), value.expect("not a delete").to_vec())
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
                delta.set(delta.search(&key), &key, value);
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
