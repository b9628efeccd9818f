//! Options of one keyspace.
//!
//! [`KeyspaceOptions`] is what a caller asks for: an option that was not set asks for nothing.
//! [`KeyspaceSettings`] is what an engine works with: a value for every option that concerns it.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::setters::optional_setters;
use super::{Compression, EngineKind, MemtableKind};
use crate::error::{Error, Result};
use crate::types::MAX_VALUE_LEN_BYTES;
use crate::values::MIN_VALUE_THRESHOLD_BYTES;

/// See [`KeyspaceOptions::value_threshold_bytes`].
const DEFAULT_VALUE_THRESHOLD_BYTES: u32 = 1024;
/// About one false positive in a hundred.
const DEFAULT_FILTER_BITS_PER_KEY: u32 = 10;
/// Names of operators and filters.
const MAX_RULE_NAME_LEN_BYTES: usize = 255;
/// Far less than one false positive in ten thousand: more bits buy nothing that can be noticed.
const MAX_FILTER_BITS_PER_KEY: u32 = 40;

/// What a keyspace is made with, and what is to be changed in one that exists.
///
/// Every option is **fixed** or **changeable**. A fixed one is decided when the keyspace is
/// created; to ask for another value later is an error that names both. A changeable one may be
/// given another value by any later [`Db::keyspace_with`](crate::Db::keyspace_with): it is stored
/// with the keyspace and applies at once to everything that is written from then on; what is
/// there stays as it is until it is rewritten. An option that is not set here asks for nothing: a
/// new keyspace takes the default, an existing one keeps what it has.
///
/// | option | engine | |
/// | --- | --- | --- |
/// | `engine` | | fixed |
/// | `write_buffer_bytes`, `value_threshold_bytes` | both | changeable |
/// | `memtable`, `table_size_bytes` | LSM | changeable |
/// | `compression`, `last_level_compression` | LSM | changeable |
/// | `filter_bits_per_key`, `last_level_filter_bits_per_key` | LSM | changeable |
/// | `block_size_bytes` | LSM | fixed |
/// | `page_size_bytes` | B-tree | fixed |
/// | `merge_operator`, `expiry` | both | fixed |
/// | `default_ttl`, `compaction_filter` | both | changeable |
///
/// To set an option of the other engine is an error. The values in use are in
/// [`Keyspace::options`](crate::Keyspace::options) and in [`KeyspaceStats`](crate::KeyspaceStats).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use hedgerow::{Compression, Db, EngineKind, KeyspaceOptions};
///
/// let db = Db::open(dir.path().join("my.db"))?;
/// let made = KeyspaceOptions::new(EngineKind::Lsm).block_size_bytes(8 << 10);
/// db.keyspace_with("events", made)?;
///
/// let changed = KeyspaceOptions::new(EngineKind::Lsm).compression(Compression::None);
/// let events = db.keyspace_with("events", changed)?;
/// assert_eq!(events.options().compression, Some(Compression::None));
/// assert_eq!(events.options().block_size_bytes, Some(8 << 10));
///
/// let other = KeyspaceOptions::new(EngineKind::Lsm).block_size_bytes(4 << 10);
/// assert!(db.keyspace_with("events", other).is_err());
/// # Ok::<(), hedgerow::Error>(())
/// ```
///
/// All of them:
///
/// ```
/// use hedgerow::{Compression, EngineKind, KeyspaceOptions, MemtableKind};
///
/// let lsm = KeyspaceOptions::new(EngineKind::Lsm)
///     .write_buffer_bytes(16 << 20)
///     .memtable(MemtableKind::SkipList)
///     .block_size_bytes(8 << 10)
///     .table_size_bytes(32 << 20)
///     .compression(Compression::Lz4)
///     .last_level_compression(Compression::Lz4)
///     .filter_bits_per_key(12)
///     .last_level_filter_bits_per_key(8)
///     .value_threshold_bytes(4 << 10);
/// let btree = KeyspaceOptions::new(EngineKind::BTree)
///     .write_buffer_bytes(16 << 20)
///     .page_size_bytes(4 << 10);
/// assert!(lsm.engine != btree.engine);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyspaceOptions {
    /// The engine. Fixed.
    pub engine: EngineKind,
    /// Budget of this keyspace's memtables or dirty pages, in bytes; 16 KiB to 1 TiB. Changeable.
    /// A keyspace for which it was never set follows
    /// [`Options::write_buffer_bytes`](crate::Options::write_buffer_bytes) of each open.
    pub write_buffer_bytes: Option<u64>,
    /// LSM: the index of memtables. Changeable, from the next memtable on. Default:
    /// [`MemtableKind::BTree`].
    pub memtable: Option<MemtableKind>,
    /// LSM: target size of a block before compression, in bytes; 256 to 65,536. Fixed. Default:
    /// 4096.
    pub block_size_bytes: Option<u32>,
    /// LSM: target size of a table, in bytes; 16 KiB to 4 GiB. Changeable. Default: 64 MiB.
    pub table_size_bytes: Option<u64>,
    /// LSM: compression of blocks. Changeable, for tables that are written from then on; one that
    /// would only have moved to another level is written again then. Level 0 is not compressed:
    /// what is there is rewritten soon, and read most. What overlaps nothing, as keys do that rise,
    /// stays as it is flushed, and is compressed then. Default: [`Compression::Lz4`].
    pub compression: Option<Compression>,
    /// LSM: compression of blocks in the last level, which has about nine tenths of a tree of many
    /// levels, and all of one with few. Changeable, as `compression`. Default: as `compression`.
    ///
    /// `Lz4` above and `Zstd` here is fast where data is rewritten and read most, and dense where
    /// most of it lies.
    pub last_level_compression: Option<Compression>,
    /// LSM: bits in the filters of tables for each key, 0 to 40: 10 let about one lookup in a
    /// hundred look into a table that does not have its key. 0 for no filters. Changeable, as
    /// `compression`. Default: 10.
    pub filter_bits_per_key: Option<u32>,
    /// LSM: as `filter_bits_per_key`, of tables in the last level. With 0 nine tenths of the
    /// filters are saved where lookups find their keys: such a lookup has to look into a table of
    /// the last level anyway, unless it finds the key above. Default: as `filter_bits_per_key`.
    pub last_level_filter_bits_per_key: Option<u32>,
    /// A value of so many bytes or more is stored once, in the log, and the tree has a reference to
    /// it; 0 for never, else 16 to 256 MiB. Changeable, for values that are written
    /// from then on. If a sync of the log fails, values of that length that were written since the
    /// last sync which did not may be unreadable until the store is opened again: a read is an
    /// error then, as of damage, that names the segment of the log. Default: 1,024.
    pub value_threshold_bytes: Option<u32>,
    /// B-tree: size of a page, in bytes; a power of two, 1024 to 65,536. Fixed. Default: 16,384.
    pub page_size_bytes: Option<u32>,
    /// The name of the operator of [`Kv::merge`](crate::Kv::merge): `"add-i64"`, `"append"`,
    /// `"max-bytes"`, `"set-union"`, or one that is
    /// [registered](crate::Options::merge_operator) with every opening of the store: without it the
    /// store is refused by name. Values of the keyspace are not stored apart from their keys.
    /// Fixed. Default: none, and merges are refused.
    pub merge_operator: Option<String>,
    /// Values may expire: each takes eight bytes more, for the time at which it does, so the
    /// longest is eight bytes shorter. They are not stored apart from their keys. Fixed. Default:
    /// false, and puts that say when they expire are refused.
    pub expiry: Option<bool>,
    /// How long after its commit a value expires that is put without a time of its own; a
    /// millisecond or more, zero for never. Of a [bulk load](crate::BulkLoad), after its put. Only
    /// with `expiry`. Changeable, for values that are written from then on. Default: zero.
    pub default_ttl: Option<Duration>,
    /// The name of a [`CompactionFilter`](crate::CompactionFilter) that is
    /// [registered](crate::Options::compaction_filter) with every opening of the store: without it
    /// the store is refused by name. Empty for none. Changeable, but fixed where there is a
    /// `merge_operator`. Default: none.
    pub compaction_filter: Option<String>,
}

impl KeyspaceOptions {
    /// Asks for an engine and for nothing else.
    pub fn new(engine: EngineKind) -> Self {
        Self {
            engine,
            write_buffer_bytes: None,
            memtable: None,
            block_size_bytes: None,
            table_size_bytes: None,
            compression: None,
            last_level_compression: None,
            filter_bits_per_key: None,
            last_level_filter_bits_per_key: None,
            value_threshold_bytes: None,
            page_size_bytes: None,
            merge_operator: None,
            expiry: None,
            default_ttl: None,
            compaction_filter: None,
        }
    }

    optional_setters! {
        /// Sets the budget of memtables or dirty pages.
        write_buffer_bytes: u64,
        /// Sets the memtable index of an LSM keyspace.
        memtable: MemtableKind,
        /// Sets the block size of an LSM keyspace.
        block_size_bytes: u32,
        /// Sets the table size of an LSM keyspace.
        table_size_bytes: u64,
        /// Sets the compression of an LSM keyspace.
        compression: Compression,
        /// Sets the compression of the last level of an LSM keyspace.
        last_level_compression: Compression,
        /// Sets the size of the filters of an LSM keyspace.
        filter_bits_per_key: u32,
        /// Sets the size of the filters of the last level of an LSM keyspace.
        last_level_filter_bits_per_key: u32,
        /// Sets from which length on values are stored apart from their keys.
        value_threshold_bytes: u32,
        /// Sets the page size of a B-tree keyspace.
        page_size_bytes: u32,
        /// Sets whether values may expire.
        expiry: bool,
        /// Sets when values expire that are put without a time of their own.
        default_ttl: Duration,
    }

    /// Sets the operator of merges.
    #[must_use]
    pub fn merge_operator(mut self, name: impl Into<String>) -> Self {
        self.merge_operator = Some(name.into());
        self
    }

    /// Sets the filter that looks at entries in background work; an empty name for none.
    #[must_use]
    pub fn compaction_filter(mut self, name: impl Into<String>) -> Self {
        self.compaction_filter = Some(name.into());
        self
    }

    /// The time to live of puts without one of their own, in milliseconds; 0 for none.
    pub(crate) fn default_ttl_ms(&self) -> u64 {
        let ttl = self.default_ttl.unwrap_or_default().as_millis();
        u64::try_from(ttl).unwrap_or(u64::MAX)
    }

    /// Values are kept beside their keys, for what is done to them there.
    fn keeps_values(&self) -> bool {
        self.merge_operator.is_some() || self.expiry == Some(true)
    }

    /// Refuses options that contradict one another. These are all that the keyspace has.
    pub(crate) fn check_together(&self) -> Result<()> {
        if self.default_ttl_ms() > 0 && self.expiry != Some(true) {
            return Err(Error::invalid(
                "default_ttl is set for a keyspace that was made without expiry",
            ));
        }
        if self.keeps_values() && self.value_threshold_bytes.unwrap_or_default() > 0 {
            return Err(Error::invalid(
                "value_threshold_bytes is set for a keyspace with a merge operator or expiry, \
                 whose values are not stored apart from their keys",
            ));
        }
        Ok(())
    }

    /// Refuses impossible values, and options of the other engine.
    pub(crate) fn check(&self) -> Result<()> {
        let is_lsm = self.engine == EngineKind::Lsm;
        let foreign = [
            ("memtable", self.memtable.is_some(), is_lsm),
            ("block_size_bytes", self.block_size_bytes.is_some(), is_lsm),
            ("table_size_bytes", self.table_size_bytes.is_some(), is_lsm),
            ("compression", self.compression.is_some(), is_lsm),
            (
                "last_level_compression",
                self.last_level_compression.is_some(),
                is_lsm,
            ),
            (
                "filter_bits_per_key",
                self.filter_bits_per_key.is_some(),
                is_lsm,
            ),
            (
                "last_level_filter_bits_per_key",
                self.last_level_filter_bits_per_key.is_some(),
                is_lsm,
            ),
            ("page_size_bytes", self.page_size_bytes.is_some(), !is_lsm),
        ];
        if let Some((name, ..)) = foreign.iter().find(|(_, is_set, fits)| *is_set && !fits) {
            return Err(Error::invalid(format!(
                "{name} is no option of a keyspace with engine {}",
                self.engine
            )));
        }
        let in_range = |value: Option<u64>, min: u64, max: u64| {
            value.is_none_or(|value| (min..=max).contains(&value))
        };
        if !in_range(self.write_buffer_bytes, 16 << 10, 1 << 40) {
            return Err(Error::invalid("write_buffer_bytes must be 16 KiB to 1 TiB"));
        }
        if !in_range(self.block_size_bytes.map(u64::from), 256, 65_536) {
            return Err(Error::invalid("block_size_bytes must be 256 to 65,536"));
        }
        if !in_range(self.table_size_bytes, 16 << 10, 4 << 30) {
            return Err(Error::invalid("table_size_bytes must be 16 KiB to 4 GiB"));
        }
        let threshold = self
            .value_threshold_bytes
            .filter(|threshold| *threshold > 0);
        let (lowest, highest) = (MIN_VALUE_THRESHOLD_BYTES, MAX_VALUE_LEN_BYTES as u64);
        if !in_range(threshold.map(u64::from), lowest.into(), highest) {
            return Err(Error::invalid(
                "value_threshold_bytes must be 0, or 16 to 256 MiB",
            ));
        }
        self.check_forms()?;
        self.check_names()?;
        let page_size = self.page_size_bytes;
        if !in_range(page_size.map(u64::from), 1024, 65_536)
            || page_size.is_some_and(|size| !size.is_power_of_two())
        {
            return Err(Error::invalid(
                "page_size_bytes must be a power of two from 1024 to 65,536",
            ));
        }
        Ok(())
    }

    /// Refuses names that no operator and no filter can have, and a time to live that is none.
    fn check_names(&self) -> Result<()> {
        let longest = MAX_RULE_NAME_LEN_BYTES;
        if let Some(name) = &self.merge_operator
            && (name.is_empty() || name.len() > longest)
        {
            return Err(Error::invalid(
                "the name of merge_operator must have 1 to 255 bytes",
            ));
        }
        if let Some(name) = &self.compaction_filter
            && name.len() > longest
        {
            return Err(Error::invalid(
                "the name of compaction_filter must have up to 255 bytes",
            ));
        }
        if self.default_ttl.is_some_and(|ttl| !ttl.is_zero()) && self.default_ttl_ms() == 0 {
            return Err(Error::invalid(
                "default_ttl must be zero, or a millisecond or more",
            ));
        }
        Ok(())
    }

    /// Refuses compressions and filters that there are not.
    fn check_forms(&self) -> Result<()> {
        let compressions = [
            ("compression", self.compression),
            ("last_level_compression", self.last_level_compression),
        ];
        for (name, compression) in compressions {
            compression.map_or(Ok(()), |compression| compression.check(name))?;
        }
        let filters = [
            ("filter_bits_per_key", self.filter_bits_per_key),
            (
                "last_level_filter_bits_per_key",
                self.last_level_filter_bits_per_key,
            ),
        ];
        for (name, bits) in filters {
            if bits.is_some_and(|bits| bits > MAX_FILTER_BITS_PER_KEY) {
                return Err(Error::invalid(format!("{name} must be 0 to 40")));
            }
        }
        Ok(())
    }

    /// These options with the default for each that is not set and concerns the engine, apart
    /// from `write_buffer_bytes`, whose default is an option of the store, and from those of the
    /// last level, which follow the others.
    pub(crate) fn with_defaults(mut self) -> Self {
        match self.engine {
            EngineKind::Lsm => {
                self.memtable.get_or_insert_default();
                self.block_size_bytes.get_or_insert(4096);
                self.table_size_bytes.get_or_insert(64 << 20);
                self.compression.get_or_insert_default();
                self.filter_bits_per_key
                    .get_or_insert(DEFAULT_FILTER_BITS_PER_KEY);
            }
            EngineKind::BTree => {
                self.page_size_bytes.get_or_insert(16 << 10);
            }
        }
        let threshold_bytes = match self.keeps_values() {
            true => 0,
            false => DEFAULT_VALUE_THRESHOLD_BYTES,
        };
        self.value_threshold_bytes.get_or_insert(threshold_bytes);
        self.into_stored()
    }

    /// These options as they come back from the catalogue.
    fn into_stored(mut self) -> Self {
        let ttl_ms = self.default_ttl_ms();
        self.default_ttl = self.default_ttl.map(|_| Duration::from_millis(ttl_ms));
        self.expiry = self.expiry.filter(|is_on| *is_on);
        self
    }

    /// The options of keyspace `name`, which has these, once it is opened with `asked`. An error
    /// if that asks for another value of a fixed one.
    pub(crate) fn changed_by(&self, asked: &Self, name: &str) -> Result<Self> {
        fixed(name, "engine", Some(self.engine), Some(asked.engine))?;
        let (is, asked_for) = (self.block_size_bytes, asked.block_size_bytes);
        fixed(name, "block_size_bytes", is, asked_for)?;
        let (is, asked_for) = (self.page_size_bytes, asked.page_size_bytes);
        fixed(name, "page_size_bytes", is, asked_for)?;
        // In quotes, since one may have the name "none".
        let operator = |options: &Self| options.merge_operator.as_ref().map(|it| format!("{it:?}"));
        let is = operator(self).unwrap_or_else(|| "none".to_owned());
        fixed(name, "merge_operator", Some(is), operator(asked))?;
        let is = Some(self.expiry.unwrap_or_default());
        fixed(name, "expiry", is, asked.expiry)?;
        if self.merge_operator.is_some() {
            // Merges that wait to be folded must not be judged (X4 of `resolve`).
            let filter = self.compaction_filter.clone().unwrap_or_default();
            let asked_for = asked.compaction_filter.clone();
            fixed(name, "compaction_filter", Some(filter), asked_for)?;
        }
        let changed = Self {
            write_buffer_bytes: asked.write_buffer_bytes.or(self.write_buffer_bytes),
            memtable: asked.memtable.or(self.memtable),
            table_size_bytes: asked.table_size_bytes.or(self.table_size_bytes),
            compression: asked.compression.or(self.compression),
            last_level_compression: asked.last_level_compression.or(self.last_level_compression),
            filter_bits_per_key: asked.filter_bits_per_key.or(self.filter_bits_per_key),
            last_level_filter_bits_per_key: asked
                .last_level_filter_bits_per_key
                .or(self.last_level_filter_bits_per_key),
            value_threshold_bytes: asked.value_threshold_bytes.or(self.value_threshold_bytes),
            default_ttl: asked.default_ttl.or(self.default_ttl),
            compaction_filter: (asked.compaction_filter.clone())
                .or_else(|| self.compaction_filter.clone()),
            ..self.clone()
        };
        changed.check_together()?;
        Ok(changed.into_stored())
    }
}

/// Refuses another value of a fixed option.
fn fixed<T: PartialEq + fmt::Display>(
    keyspace: &str,
    option: &str,
    is: Option<T>,
    asked: Option<T>,
) -> Result<()> {
    match (is, asked) {
        (Some(is), Some(asked)) if is != asked => Err(Error::invalid(format!(
            "keyspace {keyspace:?} has {option} {is}, which is fixed; {asked} was asked for"
        ))),
        _ => Ok(()),
    }
}

/// What the engine of one keyspace works with. Changeable options are read wherever they are
/// used, so a change applies from then on; nothing depends on two of them changing together.
#[derive(Debug)]
pub(crate) struct KeyspaceSettings {
    /// LSM: target size of a block before compression.
    pub(crate) block_size_bytes: u32,
    /// B-tree: size of a page.
    pub(crate) page_size_bytes: u32,
    write_buffer_bytes: AtomicU64,
    table_size_bytes: AtomicU64,
    /// LSM: compression and bits of filter above the last level, and there.
    forms: [TableFormSetting; 2],
    memtable: AtomicU8,
    value_threshold_bytes: AtomicU32,
}

impl KeyspaceSettings {
    /// The settings that `options` ask for, in a store whose budget for a keyspace without one
    /// of its own is `store_write_buffer_bytes`.
    pub(crate) fn new(options: &KeyspaceOptions, store_write_buffer_bytes: u64) -> Self {
        let settings = Self {
            block_size_bytes: options.block_size_bytes.unwrap_or_default(),
            page_size_bytes: options.page_size_bytes.unwrap_or_default(),
            write_buffer_bytes: AtomicU64::default(),
            table_size_bytes: AtomicU64::default(),
            forms: Default::default(),
            memtable: AtomicU8::default(),
            value_threshold_bytes: AtomicU32::default(),
        };
        settings.change(options, store_write_buffer_bytes);
        settings
    }

    /// Takes the changeable ones of `options`, which have their defaults.
    pub(crate) fn change(&self, options: &KeyspaceOptions, store_write_buffer_bytes: u64) {
        let write_buffer_bytes = options
            .write_buffer_bytes
            .unwrap_or(store_write_buffer_bytes);
        let table_size_bytes = options.table_size_bytes.unwrap_or_default();
        let memtable = options.memtable.unwrap_or_default().code();
        let relaxed = Ordering::Relaxed;
        self.write_buffer_bytes.store(write_buffer_bytes, relaxed);
        self.table_size_bytes.store(table_size_bytes, relaxed);
        let [upper, last] = &self.forms;
        upper.store(options.compression, options.filter_bits_per_key);
        last.store(
            options.last_level_compression.or(options.compression),
            options
                .last_level_filter_bits_per_key
                .or(options.filter_bits_per_key),
        );
        self.memtable.store(memtable, relaxed);
        let value_threshold_bytes = options.value_threshold_bytes.unwrap_or_default();
        self.value_threshold_bytes
            .store(value_threshold_bytes, relaxed);
    }

    /// True if a value of that length is stored apart from its key.
    #[inline]
    pub(crate) fn stores_apart(&self, value_len: usize) -> bool {
        let threshold_bytes = self.value_threshold_bytes.load(Ordering::Relaxed);
        threshold_bytes > 0 && value_len >= threshold_bytes as usize
    }

    /// Budget of memtables or dirty pages.
    #[inline]
    pub(crate) fn write_buffer_bytes(&self) -> u64 {
        self.write_buffer_bytes.load(Ordering::Relaxed)
    }

    /// LSM: target size of a table.
    pub(crate) fn table_size_bytes(&self) -> u64 {
        self.table_size_bytes.load(Ordering::Relaxed)
    }

    /// LSM: compression of blocks and bits of filter for a key, in the last level or above it.
    pub(crate) fn table_form(&self, is_last_level: bool) -> (Compression, u32) {
        let [upper, last] = &self.forms;
        match is_last_level {
            true => last.load(),
            false => upper.load(),
        }
    }

    /// LSM: the index of memtables.
    pub(crate) fn memtable(&self) -> MemtableKind {
        MemtableKind::from_code(self.memtable.load(Ordering::Relaxed)).unwrap_or_default()
    }
}

/// How tables are written that lie in some levels.
#[derive(Debug, Default)]
struct TableFormSetting {
    compression: AtomicU16,
    filter_bits_per_key: AtomicU8,
}

impl TableFormSetting {
    fn store(&self, compression: Option<Compression>, filter_bits_per_key: Option<u32>) {
        let code = compression.unwrap_or_default().code();
        self.compression
            .store(u16::from_le_bytes(code), Ordering::Relaxed);
        // At most 40.
        let bits = filter_bits_per_key.unwrap_or(DEFAULT_FILTER_BITS_PER_KEY) as u8;
        self.filter_bits_per_key.store(bits, Ordering::Relaxed);
    }

    fn load(&self) -> (Compression, u32) {
        let code = self.compression.load(Ordering::Relaxed).to_le_bytes();
        let bits = self.filter_bits_per_key.load(Ordering::Relaxed);
        let compression = Compression::from_code(code).unwrap_or_default();
        (compression, bits.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsm() -> KeyspaceOptions {
        KeyspaceOptions::new(EngineKind::Lsm)
    }

    fn btree() -> KeyspaceOptions {
        KeyspaceOptions::new(EngineKind::BTree)
    }

    #[track_caller]
    fn refused<T: fmt::Debug>(result: Result<T>, words: &[&str]) {
        match result {
            Err(Error::InvalidArgument { what }) => {
                assert!(words.iter().all(|word| what.contains(word)), "{what}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        for value in [0, 1, (16 << 10) - 1, (1 << 40) + 1, u64::MAX] {
            refused(lsm().write_buffer_bytes(value).check(), &["write_buffer"]);
            refused(btree().write_buffer_bytes(value).check(), &["write_buffer"]);
        }
        for value in [0, 255, 65_537, u32::MAX] {
            refused(lsm().block_size_bytes(value).check(), &["block_size_bytes"]);
        }
        for value in [0, (16 << 10) - 1, (4 << 30) + 1, u64::MAX] {
            refused(lsm().table_size_bytes(value).check(), &["table_size_bytes"]);
        }
        for value in [0, 512, 1023, 3000, 1 << 17, u32::MAX] {
            refused(btree().page_size_bytes(value).check(), &["page_size_bytes"]);
        }
        for value in [41, u32::MAX] {
            let options = lsm().filter_bits_per_key(value);
            refused(options.check(), &["filter_bits_per_key"]);
            let options = lsm().last_level_filter_bits_per_key(value);
            refused(options.check(), &["last_level_filter_bits_per_key"]);
        }
        for level in [0, 20] {
            let options = lsm().last_level_compression(Compression::Zstd { level });
            refused(options.check(), &["last_level_compression", "zstd"]);
        }
        for value in [1, 15, (256 << 20) + 1, u32::MAX] {
            let options = lsm().value_threshold_bytes(value);
            refused(options.check(), &["value_threshold_bytes"]);
        }
        let widest = [
            lsm().write_buffer_bytes(16 << 10).block_size_bytes(256),
            lsm().write_buffer_bytes(1 << 40).block_size_bytes(65_536),
            lsm().table_size_bytes(16 << 10),
            lsm().filter_bits_per_key(0),
            lsm().last_level_filter_bits_per_key(40),
            lsm().value_threshold_bytes(0),
            lsm().value_threshold_bytes(16),
            lsm().value_threshold_bytes(256 << 20),
            lsm().table_size_bytes(4 << 30),
            btree().page_size_bytes(1024),
            btree().page_size_bytes(65_536),
        ];
        for options in widest {
            options.check().unwrap();
        }
    }

    #[test]
    fn options_of_the_other_engine_are_refused_by_name() {
        refused(
            btree().memtable(MemtableKind::BTree).check(),
            &["memtable", "btree"],
        );
        refused(
            btree().block_size_bytes(4096).check(),
            &["block_size_bytes"],
        );
        refused(
            btree().table_size_bytes(1 << 20).check(),
            &["table_size_bytes"],
        );
        refused(
            btree().compression(Compression::None).check(),
            &["compression"],
        );
        refused(
            btree().last_level_compression(Compression::None).check(),
            &["last_level_compression"],
        );
        refused(
            btree().filter_bits_per_key(10).check(),
            &["filter_bits_per_key"],
        );
        refused(
            btree().last_level_filter_bits_per_key(0).check(),
            &["last_level_filter_bits_per_key"],
        );
        refused(
            lsm().page_size_bytes(4096).check(),
            &["page_size_bytes", "lsm"],
        );
    }

    #[test]
    fn a_fixed_option_keeps_its_value_and_a_changeable_one_takes_the_new() {
        let stored = lsm().block_size_bytes(512).with_defaults();
        assert_eq!(stored.changed_by(&lsm(), "k").unwrap(), stored);
        assert_eq!(stored.changed_by(&stored, "k").unwrap(), stored);
        let other = lsm().block_size_bytes(1024);
        refused(
            stored.changed_by(&other, "k"),
            &["\"k\"", "block_size_bytes", "512", "1024"],
        );
        refused(stored.changed_by(&btree(), "k"), &["engine lsm", "btree"]);
        let asked = lsm()
            .write_buffer_bytes(1 << 20)
            .memtable(MemtableKind::SkipList)
            .table_size_bytes(1 << 20)
            .compression(Compression::None)
            .last_level_compression(Compression::Lz4)
            .filter_bits_per_key(5)
            .last_level_filter_bits_per_key(0)
            .value_threshold_bytes(100);
        let changed = stored.changed_by(&asked, "k").unwrap();
        assert_eq!(changed, asked.clone().block_size_bytes(512));
        // What is not asked for stays.
        assert_eq!(changed.changed_by(&lsm(), "k").unwrap(), changed);

        let stored = btree().with_defaults();
        let other = btree().page_size_bytes(1024);
        refused(
            stored.changed_by(&other, "k"),
            &["page_size_bytes", "16384", "1024"],
        );
    }

    #[test]
    fn settings_follow_changes() {
        let options = lsm().with_defaults();
        let settings = KeyspaceSettings::new(&options, 1 << 20);
        assert_eq!(settings.write_buffer_bytes(), 1 << 20);
        for is_last_level in [false, true] {
            assert_eq!(settings.table_form(is_last_level), (Compression::Lz4, 10));
        }
        assert_eq!(settings.memtable(), MemtableKind::BTree);
        let asked = lsm()
            .write_buffer_bytes(1 << 16)
            .memtable(MemtableKind::SkipList);
        let changed = options
            .changed_by(&asked.compression(Compression::None), "k")
            .unwrap();
        settings.change(&changed, 1 << 20);
        assert_eq!(settings.write_buffer_bytes(), 1 << 16);
        assert_eq!(settings.table_size_bytes(), 64 << 20);
        // The last level follows, as long as it has nothing of its own.
        for is_last_level in [false, true] {
            assert_eq!(settings.table_form(is_last_level), (Compression::None, 10));
        }
        assert_eq!(settings.memtable(), MemtableKind::SkipList);
        let asked = lsm().last_level_compression(Compression::Lz4);
        let asked = asked.last_level_filter_bits_per_key(0);
        settings.change(&changed.changed_by(&asked, "k").unwrap(), 1 << 20);
        assert_eq!(settings.table_form(false), (Compression::None, 10));
        assert_eq!(settings.table_form(true), (Compression::Lz4, 0));
    }
}
