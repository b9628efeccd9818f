//! What a table is opened with.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use hedgerow::{Durability, EngineKind, KeyspaceOptions};

use crate::codec::{Codec, Postcard};
use crate::error::{Error, Result};
use crate::index::{Index, KeysOfRow};
use crate::key::{Delimited, Key, key_of_bytes};
use crate::migration::Migration;

/// What a table is: its name, the types of its keys and values, how these are stored, its version,
/// indexes, and how earlier versions become this one.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("my.db");
/// use hedgerow::{Db, Durability, EngineKind, KeyspaceOptions};
/// use hedgerow_typed::TableDefinition;
///
/// const YEARS: TableDefinition<String, u32> = TableDefinition::new("years");
///
/// let db = Db::open(&path)?;
/// YEARS.open(&db)?.put("ada", &1815)?;
///
/// // The same table, two years later: with the day, and with events.
/// let years = TableDefinition::<String, (u32, u16)>::new("years")
///     .version(2)
///     .migrate_from(YEARS, |name, year| Ok(Some((name, (year, 0)))))
///     .open(&db)?;
/// assert_eq!(years.get("ada")?, Some((1815, 0)));
/// assert!(YEARS.open(&db).is_err());
///
/// let events = TableDefinition::<u64, String>::named(format!("events of {}", 2026))
///     .keyspace_options(KeyspaceOptions::new(EngineKind::Lsm))
///     .durability(Durability::Buffered)
///     .open(&db)?;
/// # assert_eq!(events.len()?, 0);
/// let same = TableDefinition::<u64, String>::new("events of 2026").engine(EngineKind::Lsm);
/// assert_eq!(same.value_schema("postcard str").open(&db)?.len()?, 0);
/// # Ok::<(), hedgerow_typed::Error>(())
/// ```
pub struct TableDefinition<K, V: ?Sized, C = Postcard> {
    pub(crate) name: Cow<'static, str>,
    pub(crate) version: u32,
    pub(crate) options: Option<KeyspaceOptions>,
    pub(crate) value_schema: Option<Cow<'static, str>>,
    pub(crate) adopts: bool,
    pub(crate) indexes: Vec<IndexDefinition<K, V>>,
    pub(crate) without: Vec<Cow<'static, str>>,
    pub(crate) migrations: Vec<Migration>,
    pub(crate) durability: Option<Durability>,
    marker: PhantomData<fn() -> C>,
}

/// An index of a definition, whatever its keys.
pub(crate) struct IndexDefinition<K, V: ?Sized> {
    pub(crate) name: &'static str,
    pub(crate) is_unique: bool,
    pub(crate) key_schema: String,
    pub(crate) keys: Arc<KeysOfRow<K, V>>,
}

impl<K, V: ?Sized, C> fmt::Debug for TableDefinition<K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableDefinition")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl<K, V: ?Sized> TableDefinition<K, V> {
    /// A table of this name with values by serde ([`Postcard`]), at version 1.
    pub const fn new(name: &'static str) -> Self {
        Self::with_codec(name)
    }

    /// The same with a name that is made at run time.
    pub fn named(name: impl Into<String>) -> Self {
        let mut definition = Self::new("");
        definition.name = Cow::Owned(name.into());
        definition
    }
}

impl<K, V: ?Sized, C> TableDefinition<K, V, C> {
    /// A table of this name with values by the codec `C`, at version 1.
    pub const fn with_codec(name: &'static str) -> Self {
        Self {
            name: Cow::Borrowed(name),
            version: 1,
            options: None,
            value_schema: None,
            adopts: false,
            indexes: Vec::new(),
            without: Vec::new(),
            migrations: Vec::new(),
            durability: None,
            marker: PhantomData,
        }
    }
}

impl<K: Key, V: ?Sized, C: Codec<V>> TableDefinition<K, V, C> {
    /// The version of the table: the number to raise when its types or the meaning of its values
    /// change. 1 by default; 0 is refused.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// The engine of a table that is created: a B-tree by default. One that exists keeps its own
    /// until it is migrated.
    #[must_use]
    pub fn engine(self, engine: EngineKind) -> Self {
        self.keyspace_options(KeyspaceOptions::new(engine))
    }

    /// The options of the keyspace of a table that is created. Its indexes are on the same engine.
    /// A table whose rows expire or are filtered can have none.
    ///
    /// One that exists keeps its own. A migration makes a keyspace with these; what they leave open
    /// is taken over from the keyspace before, as far as it concerns the engine.
    #[must_use]
    pub fn keyspace_options(mut self, options: KeyspaceOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// The name by which the table knows the type of its values, in the place of
    /// [`Codec::schema`]: for a type that was renamed and is stored as before.
    #[must_use]
    pub fn value_schema(mut self, schema: impl Into<Cow<'static, str>>) -> Self {
        self.value_schema = Some(schema.into());
        self
    }

    /// Makes a table of a keyspace that has its name and entries already. These are taken to be
    /// rows of its types; [`Table::verify`](crate::Table::verify) reads them all.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
    /// use hedgerow::EngineKind;
    /// use hedgerow_typed::{Raw, RawKey, TableDefinition};
    ///
    /// db.keyspace("years", EngineKind::BTree)?.put("ada", "1815")?;
    /// let years = TableDefinition::<RawKey, str, Raw>::with_codec("years");
    /// assert!(years.open(&db).is_err());
    /// let years = years.adopt().open(&db)?;
    /// assert_eq!(years.get("ada")?.as_deref(), Some("1815"));
    /// # Ok::<(), hedgerow_typed::Error>(())
    /// ```
    #[must_use]
    pub fn adopt(mut self) -> Self {
        self.adopts = true;
        self
    }

    /// Adds an index. If the table does not have it yet, [`TableDefinition::open`] builds it.
    #[must_use]
    pub fn index<I: Delimited>(mut self, index: &Index<K, V, I>) -> Self {
        self.indexes.push(IndexDefinition {
            name: index.name(),
            is_unique: index.is_unique(),
            key_schema: I::schema(),
            keys: Arc::clone(index.keys()),
        });
        self
    }

    /// Drops the index of this name if the table has it. A table does not open without an index
    /// that it has unless this is said, since writing to it would make the index untrue.
    #[must_use]
    pub fn without_index(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.without.push(name.into());
        self
    }

    /// Says how a row of an earlier version becomes one of this version; `None` leaves it out. Add
    /// one for each earlier version there may be.
    ///
    /// `old` is the definition that the table had, of which name, indexes and options do not
    /// matter. The conversion must always give the same for the same row; it fails with
    /// [`Error::migration`](crate::Error::migration), and so does one that gives two rows the same
    /// key: the table stays as it is then. A row that expires becomes one that expires when it
    /// would have; one that does so meanwhile is left out.
    #[must_use]
    pub fn migrate_from<K0: Key, V0: ?Sized, C0: Codec<V0>>(
        mut self,
        old: TableDefinition<K0, V0, C0>,
        convert: impl Fn(K0, C0::Owned) -> Result<Option<(K, C::Owned)>> + Send + Sync + 'static,
    ) -> Self {
        let (key_schema, value_schema) = (K0::schema(), old.schema_of_values());
        let version = old.version;
        let name = self.name.clone().into_owned();
        let old_row = move |key: &[u8], value: &[u8]| {
            let old_key = key_of_bytes(key).map_err(|error| Error::of_key(&name, key, error))?;
            let old_value =
                C0::decode(value).map_err(|error| Error::of_value(&name, key, error))?;
            let Some((new_key, new_value)) = convert(old_key, old_value)? else {
                return Ok(None);
            };
            let mut key = Vec::new();
            new_key.encode(&mut key);
            let mut value = Vec::new();
            C::encode(new_value.borrow(), &mut value)
                .map_err(|error| Error::of_value(&name, &key, error))?;
            Ok(Some((key, value)))
        };
        self.migrations.push(Migration {
            version,
            key_schema,
            value_schema,
            convert: Box::new(old_row),
        });
        self
    }

    /// The durability of commits of the table, in the place of that of the store. Those of a
    /// transaction have that of the transaction.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    pub(crate) fn schema_of_values(&self) -> String {
        match &self.value_schema {
            Some(schema) => schema.clone().into_owned(),
            None => C::schema(),
        }
    }
}
