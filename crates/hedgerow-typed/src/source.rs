//! Where a table reads and writes: the store as it is, a snapshot, or a transaction.

use std::ops::{Bound, RangeBounds};

use hedgerow::{
    Db, Durability, Keyspace, KeyspaceSnapshot, RangeSize, Scan, Snapshot, Transaction,
    TransactionKeyspace, TransactionOptions, Value,
};

use crate::error::Result;

/// Bounds of keys, as bytes.
pub(crate) type ByteBounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

mod sealed {
    use hedgerow::{Db, Snapshot, Transaction};

    pub trait Sealed {}
    impl Sealed for Db {}
    impl Sealed for Snapshot {}
    impl Sealed for &Transaction {}
}

/// What a table reads: the store as it is ([`Db`]), a [`Snapshot`], or a transaction
/// (`&Transaction`). It cannot be implemented elsewhere.
pub trait Source: sealed::Sealed + Clone {
    #[doc(hidden)]
    fn reader<'a>(&'a self, keyspace: &'a Keyspace) -> Reader<'a>;

    /// A place to read several things of one moment.
    #[doc(hidden)]
    fn moment(&self) -> Moment<'_>;

    /// Whether two reads may see two moments.
    #[doc(hidden)]
    const CHANGES: bool;
}

/// What a table writes to: the store ([`Db`]), where each call is a transaction of its own that is
/// run again after a conflict, or a transaction (`&Transaction`). It cannot be implemented
/// elsewhere.
pub trait Sink: Source {
    #[doc(hidden)]
    fn transact<T>(
        &self,
        keyspaces: &[Keyspace],
        durability: Option<Durability>,
        run: impl FnMut(&Transaction) -> Result<T>,
    ) -> Result<T>;
}

impl Source for Db {
    fn reader<'a>(&'a self, keyspace: &'a Keyspace) -> Reader<'a> {
        Reader(Kind::Store(keyspace))
    }

    fn moment(&self) -> Moment<'_> {
        Moment::Snapshot(self.snapshot())
    }

    const CHANGES: bool = true;
}

impl Source for Snapshot {
    fn reader<'a>(&'a self, keyspace: &'a Keyspace) -> Reader<'a> {
        Reader(Kind::Snapshot(self.keyspace(keyspace)))
    }

    fn moment(&self) -> Moment<'_> {
        Moment::Snapshot(self.clone())
    }

    const CHANGES: bool = false;
}

impl Source for &Transaction {
    fn reader<'a>(&'a self, keyspace: &'a Keyspace) -> Reader<'a> {
        Reader(Kind::Transaction(self.keyspace(keyspace)))
    }

    fn moment(&self) -> Moment<'_> {
        Moment::Transaction(self)
    }

    const CHANGES: bool = false;
}

impl Sink for Db {
    fn transact<T>(
        &self,
        keyspaces: &[Keyspace],
        durability: Option<Durability>,
        run: impl FnMut(&Transaction) -> Result<T>,
    ) -> Result<T> {
        let mut options = TransactionOptions::new().keyspaces(keyspaces);
        if let Some(durability) = durability {
            options = options.durability(durability);
        }
        Ok(self.transact_with(options, run)?.value)
    }
}

impl Sink for &Transaction {
    fn transact<T>(
        &self,
        _: &[Keyspace],
        _: Option<Durability>,
        mut run: impl FnMut(&Transaction) -> Result<T>,
    ) -> Result<T> {
        run(self)
    }
}

/// One moment of the store.
#[doc(hidden)]
#[derive(Debug, Clone)]
pub enum Moment<'a> {
    Snapshot(Snapshot),
    Transaction(&'a Transaction),
}

impl Moment<'_> {
    pub(crate) fn reader<'a>(&'a self, keyspace: &'a Keyspace) -> Reader<'a> {
        match self {
            Self::Snapshot(snapshot) => Reader(Kind::Snapshot(snapshot.keyspace(keyspace))),
            Self::Transaction(tx) => Reader(Kind::Transaction(tx.keyspace(keyspace))),
        }
    }
}

/// A keyspace to read.
#[doc(hidden)]
#[derive(Debug)]
pub struct Reader<'a>(Kind<'a>);

#[derive(Debug)]
enum Kind<'a> {
    Store(&'a Keyspace),
    Snapshot(KeyspaceSnapshot),
    Transaction(TransactionKeyspace<'a>),
}

/// The same call on each kind.
macro_rules! each {
    ($reader:expr, $kv:ident => $call:expr) => {
        match &$reader.0 {
            Kind::Store($kv) => $call,
            Kind::Snapshot($kv) => $call,
            Kind::Transaction($kv) => $call,
        }
    };
}

impl Reader<'_> {
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        Ok(each!(self, kv => kv.get(key))?)
    }

    pub(crate) fn get_with<R>(
        &self,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        Ok(each!(self, kv => kv.get_with(key, read))?)
    }

    pub(crate) fn get_range(
        &self,
        key: &[u8],
        part: impl RangeBounds<usize>,
    ) -> Result<Option<Value>> {
        Ok(each!(self, kv => kv.get_range(key, part))?)
    }

    pub(crate) fn contains_key(&self, key: &[u8]) -> Result<bool> {
        Ok(each!(self, kv => kv.contains_key(key))?)
    }

    pub(crate) fn multi_get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Value>>> {
        Ok(each!(self, kv => kv.multi_get(keys))?)
    }

    pub(crate) fn range(&self, bounds: ByteBounds) -> Scan {
        each!(self, kv => kv.range(bounds))
    }

    pub(crate) fn prefix(&self, prefix: &[u8]) -> Scan {
        each!(self, kv => kv.prefix(prefix))
    }

    pub(crate) fn is_empty(&self) -> Result<bool> {
        Ok(each!(self, kv => kv.is_empty())?)
    }

    pub(crate) fn size_of_range(&self, bounds: ByteBounds) -> Result<RangeSize> {
        Ok(each!(self, kv => kv.size_of_range(bounds))?)
    }
}
