//! Keys, values and ranges that are small to draw and to print, and changes made of them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;

use hedgerow::{Batch, Keyspace, Kv, SeqNo, WriteBatch};

use crate::random::{Random, Source};

/// What a keyspace holds.
pub(super) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// One of [`KEYS`] keys by its number, so that operations are small to draw and to print.
pub type KeyNumber = u16;

/// How many keys there are. Few enough that operations meet.
pub const KEYS: u64 = 1024;

/// The bytes of a key: short ones, long shared prefixes, zeros, 0xFF, the empty one, and a few
/// that are longer than a page.
pub fn key(number: KeyNumber) -> Vec<u8> {
    let (class, n) = (number % 8, (number / 8) as u8);
    match (class, n) {
        (7, 0) => Vec::new(),
        (7, 1) => vec![b'L'; 700],
        (7, 2) => vec![b'L'; 3000],
        (7, 3) => vec![b'L'; 65_535],
        (7, n) => [&vec![0xFF; usize::from(n % 12)][..], &[n]].concat(),
        (6, n) => [&vec![0; usize::from(n % 10)][..], &[n]].concat(),
        (5, n) => [
            &b"a prefix that is shared by quite a few of the keys/"[..],
            &[n],
        ]
        .concat(),
        (class, n) => vec![b'a' + class as u8, n],
    }
}

/// A value by its length and what it is filled with.
#[derive(Debug, Clone, Copy)]
pub struct Filling {
    len: u32,
    seed: u32,
}

impl Filling {
    pub(super) fn draw(source: &mut impl Source) -> Self {
        let len = match source.weighted(&[60, 30, 6, 2, 1]) {
            0 => source.below(16),
            1 => source.below(120),
            2 => 240 + source.below(40),
            3 => 900 + source.below(1400),
            _ => source.below(9000),
        };
        Self {
            len: len as u32,
            seed: source.below(1 << 16) as u32,
        }
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        Random::new(self.seed.into()).bytes(self.len as usize)
    }

    /// Another one of that length.
    fn varied(self, number: KeyNumber) -> Self {
        let seed = self.seed ^ u32::from(number) << 16;
        Self { seed, ..self }
    }
}

/// Bounds between numbered keys.
#[derive(Debug, Clone, Copy)]
pub struct Bounds(Bound<KeyNumber>, Bound<KeyNumber>);

impl Bounds {
    fn draw_one(source: &mut impl Source, number: u64) -> Bound<KeyNumber> {
        let number = (number % KEYS) as KeyNumber;
        match source.weighted(&[10, 4, 1]) {
            0 => Bound::Included(number),
            1 => Bound::Excluded(number),
            _ => Bound::Unbounded,
        }
    }

    pub(super) fn draw(source: &mut impl Source) -> Self {
        let low = source.below(KEYS);
        let high = source.below(KEYS);
        Self(Self::draw_one(source, low), Self::draw_one(source, high))
    }

    /// Mostly a short stretch within one class of keys.
    fn draw_narrow(source: &mut impl Source) -> Self {
        if source.one_in(24) {
            return Self::draw(source);
        }
        let low = source.below(KEYS);
        let high = low + 8 * source.below(16);
        Self(
            Bound::Included((low % KEYS) as KeyNumber),
            Bound::Excluded((high % KEYS) as KeyNumber),
        )
    }

    pub(super) fn keys(self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        (self.0.map(key), self.1.map(key))
    }
}

/// A change of one keyspace.
#[derive(Debug, Clone, Copy)]
pub enum Edit {
    /// Sets a key.
    Put(KeyNumber, Filling),
    /// Removes a key.
    Delete(KeyNumber),
    /// Appends to the value of a key. Not drawn: see `Op::with_merges`.
    Merge(KeyNumber, Filling),
    /// Removes all keys between bounds.
    DeleteRange(Bounds),
}

impl Edit {
    /// Removes everything.
    pub(super) const DELETE_ALL: Self =
        Self::DeleteRange(Bounds(Bound::Unbounded, Bound::Unbounded));

    pub(super) fn draw(source: &mut impl Source) -> Self {
        let number = source.below(KEYS) as KeyNumber;
        match source.weighted(&[30, 9, 1]) {
            0 => Self::Put(number, Filling::draw(source)),
            1 => Self::Delete(number),
            _ if source.one_in(40) => Self::DELETE_ALL,
            _ => Self::DeleteRange(Bounds::draw_narrow(source)),
        }
    }

    /// Those of a batch. Some remove everything in the end, so that ranges are all that is left.
    pub(super) fn draw_batch(source: &mut impl Source) -> Vec<Self> {
        let most = if source.one_in(4) { 40 } else { 12 };
        let mut edits: Vec<_> = (0..source.below(most))
            .map(|_| Self::draw(source))
            .collect();
        if source.one_in(40) {
            edits.push(Self::DELETE_ALL);
        }
        edits
    }

    /// A merge in the place of some short puts.
    pub(super) fn with_merges(self) -> Self {
        match self {
            Self::Put(number, filling) if filling.len < 120 && filling.seed.is_multiple_of(2) => {
                Self::Merge(number, filling)
            }
            edit => edit,
        }
    }

    /// Key and value of a put.
    pub(super) fn entry(self) -> Option<(Vec<u8>, Vec<u8>)> {
        match self {
            Self::Put(number, filling) => Some((key(number), filling.bytes())),
            _ => None,
        }
    }

    pub(super) fn apply(self, kv: &impl Kv) -> hedgerow::Result<SeqNo> {
        match self {
            Self::Put(number, filling) => kv.put(key(number), filling.bytes()),
            Self::Delete(number) => kv.delete(key(number)),
            Self::Merge(number, filling) => kv.merge(key(number), filling.bytes()),
            Self::DeleteRange(bounds) => kv.delete_range(bounds.keys()),
        }
    }

    pub(super) fn add_to(self, batch: &mut Batch) {
        match self {
            Self::Put(number, filling) => batch.put(key(number), filling.bytes()),
            Self::Delete(number) => batch.delete(key(number)),
            Self::Merge(number, filling) => batch.merge(key(number), filling.bytes()),
            Self::DeleteRange(bounds) => batch.delete_range(bounds.keys()),
        }
    }

    pub(super) fn add_to_store_batch(self, batch: &mut WriteBatch, keyspace: &Keyspace) {
        match self {
            Self::Put(number, filling) => batch.put(keyspace, key(number), filling.bytes()),
            Self::Delete(number) => batch.delete(keyspace, key(number)),
            Self::Merge(number, filling) => batch.merge(keyspace, key(number), filling.bytes()),
            Self::DeleteRange(bounds) => batch.delete_range(keyspace, bounds.keys()),
        }
    }

    /// Changes the map, and says by how much its digest changes: the sum of [`digest_of`] its
    /// entries.
    pub(super) fn apply_to_map(self, map: &mut Map) -> u64 {
        match self {
            Self::Put(number, filling) => set(map, key(number), Some(filling.bytes())),
            Self::Delete(number) => set(map, key(number), None),
            Self::Merge(number, filling) => {
                let key = key(number);
                let mut value = map.get(&key).cloned().unwrap_or_default();
                value.extend(filling.bytes());
                set(map, key, Some(value))
            }
            Self::DeleteRange(bounds) => {
                let (low, high) = bounds.keys();
                let mut change = 0_u64;
                map.retain(|key, value| {
                    let above = match &low {
                        Bound::Included(low) => key >= low,
                        Bound::Excluded(low) => key > low,
                        Bound::Unbounded => true,
                    };
                    let below = match &high {
                        Bound::Included(high) => key <= high,
                        Bound::Excluded(high) => key < high,
                        Bound::Unbounded => true,
                    };
                    let stays = !(above && below);
                    if !stays {
                        change = change.wrapping_sub(digest_of(key, value));
                    }
                    stays
                });
                change
            }
        }
    }
}

/// Sets or removes a key, and says by how much the digest changes.
pub(super) fn set(map: &mut Map, key: Vec<u8>, value: Option<Vec<u8>>) -> u64 {
    let new = value.as_ref().map_or(0, |value| digest_of(&key, value));
    let old = match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(&key),
    };
    new.wrapping_sub(old.map_or(0, |old| digest_of(&key, &old)))
}

fn digest_of(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}

/// True if bounds are the wrong way round or have no room between them.
pub(super) fn is_inverted(bounds: &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> bool {
    match bounds {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Included(high) | Bound::Excluded(high),
        ) => low >= high,
        _ => false,
    }
}

/// The entries of a bulk load: up to so many keys from one on, in order.
pub(super) fn entries_of_load(first: KeyNumber, count: u16, filling: Filling) -> Vec<Edit> {
    let numbers = (0..count).map(|n| (first + n) % KEYS as KeyNumber);
    let by_key: BTreeMap<_, _> = numbers.map(|number| (key(number), number)).collect();
    let put = |number| Edit::Put(number, filling.varied(number));
    by_key.into_values().map(put).collect()
}
