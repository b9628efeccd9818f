//! An ordered map in memory that keeps the same contract as a keyspace.
//!
//! It is the oracle of the tests, and handy in the tests of code that is generic over
//! [`Kv`]. A copy-on-write `BTreeMap`: a snapshot shares the map, and the next write
//! copies it, so taking many snapshots of a large model is slow.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;

use super::atomic::{Atomic, Committed, Watching};
use super::batch::Batch;
use super::inherent::{inherent_reads, inherent_writes};
use super::read::{KvRead, Readable};
use super::scan::Scan;
use super::stored_form::StoredForm;
use super::write::Kv;
use crate::engine::{Cursor, EngineStats, Piece, ReadView, UnexpiredView, entry_pieces};
use crate::error::Result;
use crate::options::{Durability, KeyspaceOptions, Options};
use crate::resolve::{Resolver, StoreClock, from_unix_ms};
use crate::types::{KeyBounds, KeyRange, KeySet, Op, SeqNo, Value};

pub(super) type Map = BTreeMap<Vec<u8>, Value>;

/// What a model is called in errors.
const NAME: &str = "model";

/// An in-memory [`Kv`]. Clones share their contents.
///
/// ```
/// use hedgerow::{Kv, KvRead, Model};
/// let kv = Model::new();
/// kv.put(b"ada", b"1815")?;
/// assert_eq!(kv.get(b"ada")?.unwrap(), b"1815");
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub(super) state: Arc<RwLock<State>>,
    pub(super) resolver: Arc<Resolver>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) map: Arc<Map>,
    /// Operations so far.
    pub(super) seq: SeqNo,
    /// What was written while there was a transaction, in order.
    written: Vec<(SeqNo, KeyRange)>,
    /// Transactions that have not ended.
    transactions: usize,
    /// All that there have been.
    transactions_begun: u64,
}

/// A snapshot of a [`Model`].
#[derive(Debug, Clone)]
pub struct ModelSnapshot {
    pub(super) map: Arc<Map>,
    pub(super) seq: SeqNo,
    pub(super) resolver: Arc<Resolver>,
    /// By what time values have expired, in milliseconds since 1970.
    pub(super) now_ms: u64,
}

impl Model {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty map with what `keyspace` says of merges and expiry: with the operators and the
    /// clock of `store`. The rest of both concerns engines, of which a model has none; it never
    /// asks a filter.
    ///
    /// ```
    /// use hedgerow::{AddI64, EngineKind, KeyspaceOptions, Model, Options};
    ///
    /// let counters = KeyspaceOptions::new(EngineKind::Lsm).merge_operator("add-i64");
    /// let kv = Model::with_options(&Options::new(), &counters)?;
    /// kv.merge("ada", 2i64.to_le_bytes())?;
    /// kv.merge("ada", 3i64.to_le_bytes())?;
    /// assert_eq!(AddI64::decode(&kv.get("ada")?.unwrap()), 5);
    /// # Ok::<(), hedgerow::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) as of
    /// [`Db::keyspace_with`](crate::Db::keyspace_with).
    pub fn with_options(store: &Options, keyspace: &KeyspaceOptions) -> Result<Self> {
        keyspace.check()?;
        let options = keyspace.clone().with_defaults();
        options.check_together()?;
        let resolver = Resolver::new(
            store.operator_of(NAME, options.merge_operator.as_deref())?,
            None,
            options.expiry == Some(true),
            options.default_ttl_ms(),
            Arc::new(StoreClock::new(Arc::clone(&store.clock))),
        );
        Ok(Self {
            resolver: Arc::new(resolver),
            ..Self::default()
        })
    }

    /// Applies a batch, or says why the model cannot.
    fn commit(&self, batch: Batch) -> Result<SeqNo> {
        let stored = self.stored(&batch)?.unwrap_or(batch);
        Ok(self.state.write().commit(stored, &self.resolver))
    }

    /// What is applied in the place of `batch`, if that is something else.
    pub(super) fn stored(&self, batch: &Batch) -> Result<Option<Batch>> {
        let form = StoredForm {
            resolver: &self.resolver,
            name: &|| NAME.to_owned(),
        };
        form.of_batch(batch, || self.resolver.now_ms())
    }

    fn commit_one(&self, op: &Op<'_>) -> Result<SeqNo> {
        let mut batch = Batch::new();
        batch.push(op);
        self.commit(batch)
    }
}

impl State {
    /// Another transaction; returns its number.
    pub(super) fn begin_transaction(&mut self) -> u64 {
        self.transactions += 1;
        self.transactions_begun += 1;
        self.transactions_begun
    }

    pub(super) fn end_transaction(&mut self) {
        self.transactions -= 1;
        if self.transactions == 0 {
            self.written.clear();
        }
    }

    /// What was written above `since`, during a transaction that began then.
    pub(super) fn written_since(&self, since: SeqNo) -> impl DoubleEndedIterator<Item = &KeyRange> {
        let newer = self.written.partition_point(|(seq, _)| *seq <= since);
        self.written[newer..].iter().map(|(_, range)| range)
    }

    /// Applies a batch in the form in which it is stored.
    pub(super) fn commit(&mut self, mut batch: Batch, resolver: &Resolver) -> SeqNo {
        batch.stamp(self.seq.plus(batch.len() as u64));
        let map = Arc::make_mut(&mut self.map);
        for op in batch.iter() {
            self.seq = self.seq.next();
            if self.transactions > 0 {
                self.written.push((self.seq, range_of(&op)));
            }
            apply_op(map, &op, resolver);
        }
        self.seq
    }
}

/// The keys that an operation writes.
pub(super) fn range_of(op: &Op<'_>) -> KeyRange {
    match *op {
        Op::Put { key, .. } | Op::Delete { key } | Op::Merge { key, .. } => KeyRange::one(key),
        Op::DeleteRange { start, end } => KeyRange {
            start: start.to_vec(),
            end: end.map(<[u8]>::to_vec),
        },
    }
}

/// What an operation does to a map.
pub(super) fn apply_op(map: &mut Map, op: &Op<'_>, resolver: &Resolver) {
    match *op {
        Op::Put { key, value } => {
            map.insert(key.to_vec(), Value::copy_from(value));
        }
        Op::Delete { key } => {
            map.remove(key);
        }
        Op::Merge { key, operand } => {
            let base = map.get(key).map(|value| &**value);
            let folded = resolver.fold(key, base, &[operand]);
            map.insert(key.to_vec(), folded.into());
        }
        Op::DeleteRange { start, end } => {
            if end.is_some_and(|end| end <= start) {
                return;
            }
            let end = end.map_or(Bound::Unbounded, Bound::Excluded);
            let covered: Vec<_> = map
                .range::<[u8], _>((Bound::Included(start), end))
                .map(|(key, _)| key.clone())
                .collect();
            for key in covered {
                map.remove(&key);
            }
        }
    }
}

inherent_reads!(Model);
inherent_writes!(Model);
inherent_reads!(ModelSnapshot);

impl Readable for ModelSnapshot {
    fn pieces(&self, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        self.view().pieces(range, at_least)
    }
}

impl Readable for Model {
    fn pieces(&self, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        self.snapshot().pieces(range, at_least)
    }
}

impl Watching for ModelSnapshot {
    fn since(&self) -> SeqNo {
        self.seq
    }
}

/// A watch is a snapshot: what it has in the range is compared with what is there.
impl Atomic for Model {
    type Watch<'a> = ModelSnapshot;

    fn watch(&self) -> Result<ModelSnapshot> {
        Ok(self.snapshot())
    }

    fn commit_if_unchanged(
        &self,
        watch: &ModelSnapshot,
        reads: KeySet,
        batch: Batch,
    ) -> Result<Committed> {
        let stored = self.stored(&batch)?;
        let mut state = self.state.write();
        for range in reads.ranges() {
            let start = Bound::Included(range.start.as_slice());
            let end = range.end.as_deref();
            let end = end.map_or(Bound::Unbounded, Bound::Excluded);
            let now = state.map.range::<[u8], _>((start, end));
            if !now.eq(watch.map.range::<[u8], _>((start, end))) {
                return Ok(Committed::Conflict);
            }
        }
        let batch = stored.unwrap_or(batch);
        Ok(Committed::At(state.commit(batch, &self.resolver)))
    }
}

impl KvRead for ModelSnapshot {
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        Ok(self.visible(key.as_ref()).map(Value::copy_from))
    }

    fn get_with<R>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        Ok(self.visible(key.as_ref()).map(read))
    }

    fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    fn range(&self, bounds: impl KeyBounds) -> Scan {
        self.scan(KeyRange::new(&bounds))
    }

    fn prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        self.scan(KeyRange::prefix(prefix.as_ref()))
    }
}

impl ModelSnapshot {
    pub(super) fn visible(&self, key: &[u8]) -> Option<&[u8]> {
        self.resolver.visible(self.map.get(key)?, self.now_ms)
    }

    fn scan(&self, range: KeyRange) -> Scan {
        Scan::new(Ok(self.view()), range)
    }

    pub(super) fn view(&self) -> Arc<dyn ReadView> {
        let view = Arc::new(MapView(Arc::clone(&self.map)));
        match self.resolver.expires() {
            true => Arc::new(UnexpiredView::new(
                view,
                Arc::clone(&self.resolver),
                self.now_ms,
            )),
            false => view,
        }
    }
}

impl KvRead for Model {
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.snapshot().get(key)
    }

    fn get_with<R>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        self.snapshot().get_with(key, read)
    }

    fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        self.snapshot().multi_get(keys)
    }

    fn range(&self, bounds: impl KeyBounds) -> Scan {
        self.snapshot().range(bounds)
    }

    fn prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        self.snapshot().prefix(prefix)
    }
}

impl Kv for Model {
    type Snapshot = ModelSnapshot;

    fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<SeqNo> {
        let op = Op::Put {
            key: key.as_ref(),
            value: value.as_ref(),
        };
        self.commit_one(&op)
    }

    fn merge(&self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<SeqNo> {
        self.commit_one(&Op::Merge {
            key: key.as_ref(),
            operand: operand.as_ref(),
        })
    }

    fn expires_at(&self, key: impl AsRef<[u8]>) -> Result<Option<SystemTime>> {
        let snapshot = self.snapshot();
        let key = key.as_ref();
        let is_there = snapshot.visible(key).is_some();
        let stored = snapshot.map.get(key).filter(|_| is_there);
        let at = stored.map(|stored| self.resolver.expires_at_ms(stored));
        Ok(at.and_then(from_unix_ms))
    }

    fn delete(&self, key: impl AsRef<[u8]>) -> Result<SeqNo> {
        self.commit_one(&Op::Delete { key: key.as_ref() })
    }

    fn delete_range(&self, bounds: impl KeyBounds) -> Result<SeqNo> {
        let mut batch = Batch::new();
        batch.delete_range(bounds);
        self.commit(batch)
    }

    fn write(&self, batch: Batch) -> Result<SeqNo> {
        self.write_with(batch, Durability::Buffered)
    }

    fn write_with(&self, batch: Batch, _durability: Durability) -> Result<SeqNo> {
        self.commit(batch)
    }

    fn snapshot(&self) -> ModelSnapshot {
        let state = self.state.read();
        ModelSnapshot {
            map: Arc::clone(&state.map),
            seq: state.seq,
            now_ms: self.resolver.now_ms(),
            resolver: Arc::clone(&self.resolver),
        }
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        EngineStats {
            entries_estimate: self.state.read().map.len() as u64,
            ..EngineStats::default()
        }
    }
}

/// A [`ReadView`] of a map, so that the model's scans are the same type as the engines'.
#[derive(Debug)]
pub(super) struct MapView(pub(super) Arc<Map>);

impl ReadView for MapView {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.0.get(key);
        if let Some(value) = value {
            read(value);
        }
        Ok(value.is_some())
    }

    fn pieces(self: Arc<Self>, range: &KeyRange, _at_least: usize) -> Result<Vec<Piece>> {
        entry_pieces(self, range)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        Box::new(MapCursor::new(&self.0))
    }
}

/// Finds its place anew for each step: simple, and an oracle may be slow.
pub(super) struct MapCursor {
    map: Arc<Map>,
    at: Option<(Vec<u8>, Value)>,
}

impl MapCursor {
    pub(super) fn new(map: &Arc<Map>) -> Self {
        Self {
            map: Arc::clone(map),
            at: None,
        }
    }

    fn stand_on(&mut self, entry: Option<(Vec<u8>, Value)>) -> Result<()> {
        self.at = entry;
        Ok(())
    }
}

fn owned((key, value): (&Vec<u8>, &Value)) -> (Vec<u8>, Value) {
    (key.clone(), value.clone())
}

impl Cursor for MapCursor {
    fn seek_first(&mut self) -> Result<()> {
        let entry = self.map.first_key_value().map(owned);
        self.stand_on(entry)
    }

    fn seek_last(&mut self) -> Result<()> {
        let entry = self.map.last_key_value().map(owned);
        self.stand_on(entry)
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let from = (Bound::Included(key), Bound::Unbounded);
        let entry = self.map.range::<[u8], _>(from).next().map(owned);
        self.stand_on(entry)
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let to = (Bound::Unbounded, Bound::Excluded(key));
        let entry = self.map.range::<[u8], _>(to).next_back().map(owned);
        self.stand_on(entry)
    }

    fn next(&mut self) -> Result<()> {
        let from = (Bound::Excluded(self.key()), Bound::Unbounded);
        let entry = self.map.range::<[u8], _>(from).next().map(owned);
        self.stand_on(entry)
    }

    fn prev(&mut self) -> Result<()> {
        let to = (Bound::Unbounded, Bound::Excluded(self.key()));
        let entry = self.map.range::<[u8], _>(to).next_back().map(owned);
        self.stand_on(entry)
    }

    fn is_valid(&self) -> bool {
        self.at.is_some()
    }

    fn key(&self) -> &[u8] {
        &self.at.as_ref().expect("a valid cursor").0
    }

    fn entry(&mut self) -> Result<(&[u8], &[u8])> {
        let (key, value) = self.at.as_ref().expect("a valid cursor");
        Ok((key, value))
    }
}
