//! Inherent methods that are those of the traits, so that code which is not generic needs no trait
//! in scope.

/// The methods of [`KvRead`](crate::KvRead) as inherent ones of a type.
macro_rules! inherent_reads {
    ($type:ty) => {
        /// Reading: as in [`KvRead`](crate::KvRead), where there are examples.
        impl $type {
            /// The value of `key`. See [`KvRead::get`](crate::KvRead::get).
            #[inline]
            pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
                KvRead::get(self, key)
            }

            /// Calls `read` with the value of `key`, without copying it where the engine can lend
            /// it. See [`KvRead::get_with`](crate::KvRead::get_with).
            #[inline]
            pub fn get_with<R>(
                &self,
                key: impl AsRef<[u8]>,
                read: impl FnOnce(&[u8]) -> R,
            ) -> Result<Option<R>> {
                KvRead::get_with(self, key, read)
            }

            /// The bytes `part` of the value of `key`. See
            /// [`KvRead::get_range`](crate::KvRead::get_range).
            pub fn get_range(
                &self,
                key: impl AsRef<[u8]>,
                part: impl std::ops::RangeBounds<usize>,
            ) -> Result<Option<Value>> {
                KvRead::get_range(self, key, part)
            }

            /// The value of `key`, to be read by and by. See
            /// [`KvRead::reader`](crate::KvRead::reader).
            pub fn reader(&self, key: impl AsRef<[u8]>) -> Result<Option<$crate::kv::ValueReader>> {
                KvRead::reader(self, key)
            }

            /// True if `key` has a value. See
            /// [`KvRead::contains_key`](crate::KvRead::contains_key).
            #[inline]
            pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
                KvRead::contains_key(self, key)
            }

            /// The values of several keys, all from one moment. See
            /// [`KvRead::multi_get`](crate::KvRead::multi_get).
            pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
                KvRead::multi_get(self, keys)
            }

            /// The entries with keys in `bounds`, in key order. See
            /// [`KvRead::range`](crate::KvRead::range).
            pub fn range(&self, bounds: impl KeyBounds) -> Scan {
                KvRead::range(self, bounds)
            }

            /// The entries whose keys start with `prefix`, in key order. See
            /// [`KvRead::prefix`](crate::KvRead::prefix).
            pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
                KvRead::prefix(self, prefix)
            }

            /// All entries in key order. See [`KvRead::iter`](crate::KvRead::iter).
            pub fn iter(&self) -> Scan {
                KvRead::iter(self)
            }

            /// All keys in order. See [`KvRead::keys`](crate::KvRead::keys).
            pub fn keys(&self) -> $crate::kv::Keys {
                KvRead::keys(self)
            }

            /// All values in the order of their keys. See
            /// [`KvRead::values`](crate::KvRead::values).
            pub fn values(&self) -> $crate::kv::Values {
                KvRead::values(self)
            }

            /// The entry with the lowest key. See [`KvRead::first`](crate::KvRead::first).
            pub fn first(&self) -> Result<Option<(Value, Value)>> {
                KvRead::first(self)
            }

            /// The entry with the highest key. See [`KvRead::last`](crate::KvRead::last).
            pub fn last(&self) -> Result<Option<(Value, Value)>> {
                KvRead::last(self)
            }

            /// Number of entries, exactly, by a walk over all keys. See
            /// [`KvRead::len`](crate::KvRead::len).
            pub fn len(&self) -> Result<u64> {
                KvRead::len(self)
            }

            /// True if there are no entries. See [`KvRead::is_empty`](crate::KvRead::is_empty).
            pub fn is_empty(&self) -> Result<bool> {
                KvRead::is_empty(self)
            }

            /// About how much there is in `bounds`. See
            /// [`KvRead::size_of_range`](crate::KvRead::size_of_range).
            pub fn size_of_range(&self, bounds: impl KeyBounds) -> Result<$crate::kv::RangeSize> {
                KvRead::size_of_range(self, bounds)
            }

            /// Keys that divide `bounds` into `parts` of about the same size. See
            /// [`KvRead::split_points`](crate::KvRead::split_points).
            pub fn split_points(&self, bounds: impl KeyBounds, parts: usize) -> Result<Vec<Value>> {
                KvRead::split_points(self, bounds, parts)
            }
        }

        impl IntoIterator for &$type {
            type Item = Result<(Value, Value)>;
            type IntoIter = Scan;

            /// All entries in key order, as of now.
            fn into_iter(self) -> Scan {
                KvRead::iter(self)
            }
        }
    };
}

/// The methods of [`Kv`](crate::Kv) as inherent ones of a type.
macro_rules! inherent_writes {
    ($type:ty) => {
        /// Writing: as in [`Kv`](crate::Kv), where there are examples.
        impl $type {
            /// Sets `key` to `value`. See [`Kv::put`](crate::Kv::put).
            #[doc(alias = "insert")]
            #[inline]
            pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<SeqNo> {
                Kv::put(self, key, value)
            }

            /// Sets `key` to all that `source` gives. See [`Kv::put_from`](crate::Kv::put_from).
            pub fn put_from(
                &self,
                key: impl AsRef<[u8]>,
                source: impl std::io::Read,
            ) -> Result<SeqNo> {
                Kv::put_from(self, key, source)
            }

            /// Removes `key`, which may be absent. See [`Kv::delete`](crate::Kv::delete).
            #[inline]
            pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<SeqNo> {
                Kv::delete(self, key)
            }

            /// Sets `key` to `value`, which expires `ttl` after the commit. See
            /// [`Kv::put_with_ttl`](crate::Kv::put_with_ttl).
            pub fn put_with_ttl(
                &self,
                key: impl AsRef<[u8]>,
                value: impl AsRef<[u8]>,
                ttl: std::time::Duration,
            ) -> Result<SeqNo> {
                Kv::put_with_ttl(self, key, value, ttl)
            }

            /// Sets `key` to `value`, which expires at `time`. See
            /// [`Kv::put_until`](crate::Kv::put_until).
            pub fn put_until(
                &self,
                key: impl AsRef<[u8]>,
                value: impl AsRef<[u8]>,
                time: std::time::SystemTime,
            ) -> Result<SeqNo> {
                Kv::put_until(self, key, value, time)
            }

            /// When the value of `key` expires; `None` if it never does, or there is none. See
            /// [`Kv::expires_at`](crate::Kv::expires_at).
            pub fn expires_at(
                &self,
                key: impl AsRef<[u8]>,
            ) -> Result<Option<std::time::SystemTime>> {
                Kv::expires_at(self, key)
            }

            /// Merges `operand` into the value of `key`, without reading it. See
            /// [`Kv::merge`](crate::Kv::merge).
            pub fn merge(&self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<SeqNo> {
                Kv::merge(self, key, operand)
            }

            /// Removes every key in `bounds`. See [`Kv::delete_range`](crate::Kv::delete_range).
            pub fn delete_range(&self, bounds: impl KeyBounds) -> Result<SeqNo> {
                Kv::delete_range(self, bounds)
            }

            /// Commits all operations of `batch`, or none. See [`Kv::write`](crate::Kv::write).
            pub fn write(&self, batch: Batch) -> Result<SeqNo> {
                Kv::write(self, batch)
            }

            /// Commits all operations of `batch`, or none, with the durability named. See
            /// [`Kv::write_with`](crate::Kv::write_with).
            pub fn write_with(&self, batch: Batch, durability: Durability) -> Result<SeqNo> {
                Kv::write_with(self, batch, durability)
            }

            /// An immutable view of everything committed so far. See
            /// [`Kv::snapshot`](crate::Kv::snapshot).
            pub fn snapshot(&self) -> <Self as Kv>::Snapshot {
                Kv::snapshot(self)
            }

            /// Brings everything committed so far into the engine's own files, durably. See
            /// [`Kv::flush`](crate::Kv::flush).
            pub fn flush(&self) -> Result<()> {
                Kv::flush(self)
            }

            /// Figures about the keyspace, now. See [`Kv::stats`](crate::Kv::stats).
            pub fn stats(&self) -> EngineStats {
                Kv::stats(self)
            }

            /// Removes every key. See [`Kv::clear`](crate::Kv::clear).
            pub fn clear(&self) -> Result<SeqNo> {
                Kv::clear(self)
            }

            /// Replaces the value of `key` by what `f` makes of it, in one step. See
            /// [`Kv::update`](crate::Kv::update).
            pub fn update<V: AsRef<[u8]>>(
                &self,
                key: impl AsRef<[u8]>,
                f: impl FnMut(Option<&[u8]>) -> Option<V>,
            ) -> Result<$crate::kv::Update> {
                Kv::update(self, key, f)
            }

            /// Sets `key` to `new` if its value is `expected`, in one step. See
            /// [`Kv::compare_and_swap`](crate::Kv::compare_and_swap).
            pub fn compare_and_swap(
                &self,
                key: impl AsRef<[u8]>,
                expected: Option<impl AsRef<[u8]>>,
                new: Option<impl AsRef<[u8]>>,
            ) -> Result<Result<SeqNo, $crate::kv::Mismatch>> {
                Kv::compare_and_swap(self, key, expected, new)
            }

            /// Sets `key` to `value` if it is absent, in one step. See
            /// [`Kv::put_if_absent`](crate::Kv::put_if_absent).
            pub fn put_if_absent(
                &self,
                key: impl AsRef<[u8]>,
                value: impl AsRef<[u8]>,
            ) -> Result<Result<SeqNo, $crate::kv::Mismatch>> {
                Kv::put_if_absent(self, key, value)
            }

            /// Removes `key` and returns the value that it had, in one step. See
            /// [`Kv::remove`](crate::Kv::remove).
            pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
                Kv::remove(self, key)
            }

            /// Removes the entry with the lowest key and returns it, in one step. See
            /// [`Kv::pop_first`](crate::Kv::pop_first).
            pub fn pop_first(&self) -> Result<Option<(Value, Value)>> {
                Kv::pop_first(self)
            }

            /// Removes the entry with the highest key and returns it, in one step. See
            /// [`Kv::pop_last`](crate::Kv::pop_last).
            pub fn pop_last(&self) -> Result<Option<(Value, Value)>> {
                Kv::pop_last(self)
            }

            /// Removes every entry for which `keep` returns false; returns how many. See
            /// [`Kv::retain`](crate::Kv::retain).
            pub fn retain(&self, keep: impl FnMut(&[u8], &[u8]) -> bool) -> Result<u64> {
                Kv::retain(self, keep)
            }
        }
    };
}

pub(crate) use {inherent_reads, inherent_writes};
