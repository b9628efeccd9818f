//! [`KvRead`]: reading from an ordered map of byte strings.

use std::ops::{Bound, Range, RangeBounds};

use super::iter::{Keys, Values};
use super::range_size::{self, RangeSize};
use super::scan::Scan;
use super::value_reader::ValueReader;
use crate::engine::Piece;
use crate::error::{Error, Result};
use crate::types::{KeyBounds, KeyRange, Value};

/// The bytes from the first to behind the last that `bounds` name.
pub(crate) fn part_of_value(bounds: &impl RangeBounds<usize>) -> Range<usize> {
    let start = match bounds.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match bounds.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => usize::MAX,
    };
    start..end
}

/// What `read` makes of the value that `get` finds, and the value's length. `get` calls what it is
/// given at most once: a closure that can be called once is enough.
#[inline]
pub(crate) fn read_once<R>(
    read: impl FnOnce(&[u8]) -> R,
    get: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<bool>,
) -> Result<Option<(R, usize)>> {
    let mut read = Some(read);
    let mut found = None;
    get(&mut |value| {
        if let Some(read) = read.take() {
            found = Some((read(value), value.len()));
        }
    })?;
    Ok(found)
}

/// What the provided methods of [`KvRead`] need beyond its required ones. It also seals the trait:
/// methods can be added to it without breaking implementations elsewhere, since there are none.
pub trait Readable {
    /// The range in pieces, at least so many if it has so many, for estimates.
    #[doc(hidden)]
    fn pieces(&self, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>>;
}

/// Reading from an ordered map of byte strings.
///
/// Implemented by a [`Keyspace`](crate::Keyspace) of either engine, by a
/// [`KeyspaceSnapshot`](crate::KeyspaceSnapshot), and by the in-memory [`Model`](crate::Model); all
/// have the same methods without the trait, which is for generic code. It cannot be implemented
/// elsewhere.
///
/// An absent key is `Ok(None)`, never an error. Each call reads one moment; two calls may read
/// two. A snapshot always reads the same one.
///
/// ```
/// use hedgerow::Model;
/// let kv = Model::new();
/// kv.put("ada", "1815")?;
/// kv.put("bob", "1970")?;
///
/// assert_eq!(kv.get("ada")?.unwrap(), "1815");
/// assert_eq!(kv.get_with("ada", |value| value.len())?, Some(4));
/// assert_eq!(kv.get_range("ada", 2..)?.unwrap(), "15");
/// assert_eq!(kv.get_range("ada", 3..9)?.unwrap(), "5");
/// assert_eq!(kv.reader("ada")?.unwrap().len(), 4);
/// assert!(kv.contains_key("bob")?);
/// assert_eq!(kv.multi_get(&["bob", "eve"])?, [Some("1970".into()), None]);
///
/// for entry in kv.range("a".."b") {
///     let (key, value) = entry?;
///     assert!(key == "ada" && value == "1815");
/// }
/// assert_eq!(kv.prefix("b").try_count()?, 1);
/// assert_eq!(kv.iter().rev().next().unwrap()?.0, "bob");
/// let keys: Vec<_> = kv.keys().collect::<Result<_, _>>()?;
/// let values: Vec<_> = kv.values().collect::<Result<_, _>>()?;
/// assert!(keys == ["ada", "bob"] && values == ["1815", "1970"]);
///
/// assert_eq!(kv.first()?.unwrap().0, "ada");
/// assert_eq!(kv.last()?.unwrap().0, "bob");
/// assert!(kv.len()? == 2 && !kv.is_empty()?);
///
/// let size = kv.size_of_range(..)?;
/// assert!(size.entries > 0 && size.bytes > 0);
/// let split = kv.split_points(.., 2)?;
/// assert!(split.len() <= 1);
/// # Ok::<(), hedgerow::Error>(())
/// ```
pub trait KvRead: Readable {
    /// The value of `key`.
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>>;

    /// Calls `read` with the value of `key`, without copying it where the engine can lend it.
    /// No lock is held meanwhile: `read` may take its time, and call the store.
    fn get_with<R>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>>;

    /// The bytes `part` of the value of `key`, as far as the value has them: empty if it is shorter
    /// than where they begin. Of a value that is stored apart from its key, the chunks of 64 KiB
    /// (more, of values above 4 MiB) that the part touches are read and checked, and no others.
    fn get_range(
        &self,
        key: impl AsRef<[u8]>,
        part: impl RangeBounds<usize>,
    ) -> Result<Option<Value>> {
        let part = part_of_value(&part);
        self.get_with(key, |value| Value::copy_part(value, &part))
    }

    /// The value of `key`, to be read by and by: one version of it, whatever happens to the key
    /// meanwhile. [`ValueReader`] says what it promises.
    fn reader(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueReader>> {
        Ok(self.get(key)?.map(ValueReader::of))
    }

    /// True if `key` has a value.
    fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get_with(key, |_| ())?.is_some())
    }

    /// The values of several keys, in the order given, all from one moment. Faster than as many
    /// calls of [`KvRead::get`].
    fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>>;

    /// The entries with keys in `bounds`, in key order, as of now: writes made later do not
    /// appear. An error while starting is the iterator's first item.
    fn range(&self, bounds: impl KeyBounds) -> Scan;

    /// The entries whose keys start with `prefix`, in key order, as of now.
    fn prefix(&self, prefix: impl AsRef<[u8]>) -> Scan;

    /// All entries in key order, as of now.
    fn iter(&self) -> Scan {
        self.range(..)
    }

    /// All keys in order, as of now, without reading values that are stored apart from their keys.
    fn keys(&self) -> Keys {
        Keys(self.iter())
    }

    /// All values in the order of their keys, as of now.
    fn values(&self) -> Values {
        Values(self.iter())
    }

    /// The entry with the lowest key.
    fn first(&self) -> Result<Option<(Value, Value)>> {
        self.iter().next().transpose()
    }

    /// The entry with the highest key.
    fn last(&self) -> Result<Option<(Value, Value)>> {
        self.iter().next_back().transpose()
    }

    /// Number of entries, exactly. Walks over all keys, since neither engine keeps a count: the
    /// cost is that of a scan. [`KvRead::size_of_range`] estimates at next to no cost.
    fn len(&self) -> Result<u64> {
        self.iter().try_count()
    }

    /// True if there are no entries. Looks at one entry at most.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.keys().next().transpose()?.is_none())
    }

    /// About how many entries and bytes of keys and values there are in `bounds`, as they are
    /// stored: compressed, and with what was overwritten but not yet removed. Reads indexes, not
    /// entries, except for those still in memory.
    ///
    /// The error is that of the pieces at the two ends, some hundredths of a long range; a range
    /// of a few kilobytes may be counted as nothing or as a whole block.
    fn size_of_range(&self, bounds: impl KeyBounds) -> Result<RangeSize> {
        let pieces = self.pieces(&KeyRange::new(&bounds), range_size::PIECES)?;
        Ok(RangeSize::of(&pieces))
    }

    /// Up to `parts - 1` keys that divide the entries in `bounds` into `parts` of about the same
    /// number of bytes, in rising order; each is the first key of a part. Fewer where there is too
    /// little to divide. For dividing work among threads.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if `parts` is 0 or above 65,536.
    fn split_points(&self, bounds: impl KeyBounds, parts: usize) -> Result<Vec<Value>> {
        if parts == 0 || parts > 1 << 16 {
            return Err(Error::invalid(format!(
                "a range is divided into 1 to 65536 parts, not {parts}"
            )));
        }
        let range = KeyRange::new(&bounds);
        let pieces = self.pieces(&range, range_size::PIECES.max(parts * 4))?;
        Ok(range_size::split(&range, &pieces, parts))
    }
}
