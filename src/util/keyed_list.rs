//! Lists whose entries are found by a key.
//!
//! Batches, transactions and snapshots keep something for each keyspace that they use, in the order
//! of first use. Most use one to four, and the same one again: then nothing beats a look at the few
//! entries, from the last one back. With hundreds that look is taken for each of them, which makes
//! it as many times longer again. So a list of more than [`FEW`] entries has an index beside it.
//!
//! The index is an ordered map: an empty one costs nothing, which lists that stay short pay for.

use std::collections::BTreeMap;
use std::fmt;

/// Up to so many entries are looked through.
const FEW: usize = 16;

/// Entries in the order in which they were added, no key twice.
#[derive(Clone)]
pub(crate) struct KeyedList<K, V> {
    entries: Vec<(K, V)>,
    /// Where the entry of each key is, if there are more than [`FEW`]; otherwise empty.
    index: BTreeMap<K, usize>,
}

impl<K, V> Default for KeyedList<K, V> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            index: BTreeMap::new(),
        }
    }
}

/// Shows the values, as a list of them would.
impl<K, V: fmt::Debug> fmt::Debug for KeyedList<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.values()).finish()
    }
}

impl<K: Copy + Ord, V> KeyedList<K, V> {
    /// The place of the entry with `key`.
    #[inline]
    fn place(&self, key: K) -> Option<usize> {
        let is_it = |(other, _): &(K, V)| {
            #[cfg(test)]
            crate::testing::note_comparison();
            *other == key
        };
        if self.index.is_empty() {
            return self.entries.iter().rposition(is_it);
        }
        match self.entries.last() {
            Some(last) if is_it(last) => Some(self.entries.len() - 1),
            _ => self.indexed(key),
        }
    }

    #[cold]
    fn indexed(&self, key: K) -> Option<usize> {
        #[cfg(test)]
        crate::testing::note_comparison();
        self.index.get(&key).copied()
    }

    /// The value of `key`.
    #[inline]
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        self.place(key).map(|at| &self.entries[at].1)
    }

    /// The place of the value of `key`, which is added if there is none.
    #[inline]
    pub(crate) fn place_or_add(&mut self, key: K, value: impl FnOnce() -> V) -> usize {
        match self.place(key) {
            Some(at) => at,
            None => {
                self.add(key, value());
                self.entries.len() - 1
            }
        }
    }

    /// The value at a place.
    #[inline]
    pub(crate) fn at_mut(&mut self, place: usize) -> &mut V {
        &mut self.entries[place].1
    }

    /// Adds the value of a key that has none.
    pub(crate) fn add(&mut self, key: K, value: V) {
        let at = self.entries.len();
        self.entries.push((key, value));
        if at == FEW {
            self.build_index();
        } else if at > FEW {
            let before = self.index.insert(key, at);
            debug_assert!(before.is_none(), "no key twice");
        }
    }

    fn build_index(&mut self) {
        let places = self.entries.iter().enumerate();
        self.index = places.map(|(at, (key, _))| (*key, at)).collect();
        debug_assert_eq!(self.index.len(), self.entries.len(), "no key twice");
    }
}

impl<K, V> KeyedList<K, V> {
    /// The values, in their order.
    pub(crate) fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// The entries, in their order.
    pub(crate) fn into_entries(self) -> Vec<(K, V)> {
        self.entries
    }
}

impl<K: Copy + Ord, V> FromIterator<(K, V)> for KeyedList<K, V> {
    /// The list of entries none of which has the key of another.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut list = Self {
            entries: entries.into_iter().collect(),
            index: BTreeMap::new(),
        };
        // At once: that is cheaper than to add one after the other.
        if list.entries.len() > FEW {
            list.build_index();
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;
    use std::collections::HashMap;

    use super::*;
    use crate::testing::{Random, comparisons_of, note_comparison};

    /// A list found an entry by a look at half of them: to use each of 1,000 took 500,000 looks.
    #[test]
    fn each_of_many_entries_is_found_with_few_comparisons() {
        /// A key that counts what the index compares, too.
        #[derive(Clone, Copy, PartialEq, Eq)]
        struct Key(u32);

        impl PartialOrd for Key {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for Key {
            fn cmp(&self, other: &Self) -> Ordering {
                note_comparison();
                self.0.cmp(&other.0)
            }
        }

        let mut random = Random::new(1);
        let mut list = KeyedList::default();
        let mut keys = Vec::new();
        while keys.len() < 1000 {
            let key = Key(random.next() as u32);
            let added = keys.len();
            // A B-tree of 1,000 has up to three levels with up to eleven keys in each node.
            let compared = comparisons_of(|| {
                list.place_or_add(key, || added);
            });
            assert!(compared <= 100, "{compared} comparisons to add {added}");
            keys.push(key);
        }
        for (at, key) in keys.iter().enumerate() {
            let compared = comparisons_of(|| assert_eq!(list.get(*key), Some(&at)));
            assert!((1..=40).contains(&compared), "{compared} comparisons");
            let again = comparisons_of(|| assert_eq!(list.get(keys[999]), Some(&999)));
            assert_eq!(again, 1, "the last one is looked at first");
        }
    }

    #[test]
    fn agrees_with_a_map_and_keeps_the_order() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut list = KeyedList::default();
            let mut map = HashMap::new();
            let mut order = Vec::new();
            for n in 0..random.below(60) {
                let key = random.below(40);
                assert_eq!(list.get(key), map.get(&key), "seed {seed}");
                let at = list.place_or_add(key, || 0);
                *list.at_mut(at) += n;
                if !map.contains_key(&key) {
                    order.push(key);
                }
                *map.entry(key).or_insert(0) += n;
                assert_eq!(order[at], key, "seed {seed}");
                assert_eq!(list.index.is_empty(), order.len() <= FEW);
            }
            let copied: KeyedList<_, _> = list.clone().into_entries().into_iter().collect();
            for other in 0..40 {
                assert_eq!(copied.get(other), map.get(&other), "seed {seed}");
            }
            let expected: Vec<_> = order.iter().map(|key| (*key, map[key])).collect();
            assert!(list.values().eq(expected.iter().map(|(_, value)| value)));
            assert_eq!(list.into_entries(), expected, "seed {seed}");
        }
    }

    #[test]
    fn shows_its_values() {
        let list: KeyedList<_, _> = [(7, "a"), (3, "b")].into_iter().collect();
        assert_eq!(format!("{list:?}"), r#"["a", "b"]"#);
    }
}
