//! An ordered map in memory that keeps the same contract as a keyspace.
//!
//! It is the oracle of the tests, and handy in the tests of code that is generic over
//! [`Kv`]. A copy-on-write `BTreeMap`: a snapshot shares the map, and the next write
//! copies it, so taking many snapshots of a large model is slow.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
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
use crate::util::mutants::mutated;

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
    /// What was written behind the beginning of the oldest watch, in order.
    written: VecDeque<(SeqNo, KeyRange)>,
    /// How many watches that have not ended began at each number.
    watches: BTreeMap<SeqNo, usize>,
    /// All transactions that there have been.
    transactions_begun: u64,
}

/// While it lives, the model remembers what is written.
#[derive(Debug)]
pub struct ModelWatch {
    pub(super) model: Model,
    since: SeqNo,
}

impl Drop for ModelWatch {
    fn drop(&mut self) {
        self.model.state.write().end_watch(self.since);
    }
}

/// A snapshot of a [`Model`].
#[derive(Debug, Clone)]
pub struct ModelSnapshot {
    pub(super) map: Arc<Map>,
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

    /// A watch from the number on that `state`, which is that of this model, has.
    pub(super) fn watch_from(&self, state: &mut State) -> ModelWatch {
        *state.watches.entry(state.seq).or_default() += 1;
        ModelWatch {
            model: self.clone(),
            since: state.seq,
        }
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
    /// The number of another transaction.
    pub(super) fn number_transaction(&mut self) -> u64 {
        self.transactions_begun += 1;
        self.transactions_begun
    }

    fn end_watch(&mut self, since: SeqNo) {
        if let Entry::Occupied(mut watches) = self.watches.entry(since) {
            *watches.get_mut() -= 1;
            if *watches.get() == 0 {
                watches.remove();
            }
        }
        let oldest = self.watches.keys().next().copied();
        let oldest = mutated!("model-forgets-what-an-older-watch-needs", None, oldest);
        let is_needed = |seq: SeqNo| oldest.is_some_and(|oldest| seq > oldest);
        while self
            .written
            .front()
            .is_some_and(|(seq, _)| !is_needed(*seq))
        {
            self.written.pop_front();
        }
    }

    /// What was written above `since`, where a watch began that has not ended.
    pub(super) fn written_since(&self, since: SeqNo) -> impl DoubleEndedIterator<Item = &KeyRange> {
        let newer = self.written.partition_point(|(seq, _)| *seq <= since);
        self.written.range(newer..).map(|(_, range)| range)
    }

    /// Applies a batch in the form in which it is stored.
    pub(super) fn commit(&mut self, mut batch: Batch, resolver: &Resolver) -> SeqNo {
        batch.stamp(self.seq.plus(batch.len() as u64));
        let map = Arc::make_mut(&mut self.map);
        for op in batch.iter() {
            self.seq = self.seq.next();
            if !self.watches.is_empty() {
                self.written.push_back((self.seq, range_of(&op)));
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

impl Watching for ModelWatch {
    fn since(&self) -> SeqNo {
        self.since
    }
}

impl Atomic for Model {
    type Watch<'a> = ModelWatch;

    fn watch(&self) -> Result<ModelWatch> {
        Ok(self.watch_from(&mut self.state.write()))
    }

    /// What was read may be newer than the watch, so that equal values say nothing: a key that was
    /// put and read since, and deleted by another, is absent as it was when the watch began.
    fn commit_if_unchanged(
        &self,
        watch: &ModelWatch,
        reads: KeySet,
        batch: Batch,
    ) -> Result<Committed> {
        let stored = self.stored(&batch)?;
        let mut state = self.state.write();
        let is_met = |written: &KeyRange| {
            let is_read = reads.overlaps(&written.start, written.end.as_deref());
            let is_there = || state.map.contains_key(&written.start);
            is_read && (!mutated!("model-lets-a-key-come-and-go") || is_there())
        };
        if state.written_since(watch.since).any(is_met) {
            return Ok(Committed::Conflict);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Deletes "key" on the condition that it was not written since `watch`.
    fn delete_if_unchanged(model: &Model, watch: &<Model as Atomic>::Watch<'_>) -> Committed {
        let mut batch = Batch::new();
        batch.delete("key");
        let reads = KeySet::of(&KeyRange::one(b"key"));
        model.commit_if_unchanged(watch, reads, batch).unwrap()
    }

    /// A pop reads behind its watch. Two threads read an entry that was put in between, one of
    /// them removed it, and the other found the map as it had been at its watch: both got it.
    #[test]
    fn an_entry_that_comes_and_goes_during_a_watch_is_a_conflict() {
        let model = Model::new();
        let watch = model.watch().unwrap();
        model.put("key", "value").unwrap();
        assert_eq!(model.pop_first().unwrap().unwrap().0, "key");
        assert_eq!(delete_if_unchanged(&model, &watch), Committed::Conflict);
    }

    /// The same with a value: another one was there, and was read, in between.
    #[test]
    fn a_value_that_is_put_again_during_a_watch_is_a_conflict() {
        let model = Model::new();
        model.put("key", "value").unwrap();
        let watch = model.watch().unwrap();
        model.put("key", "another").unwrap();
        model.put("key", "value").unwrap();
        assert_eq!(delete_if_unchanged(&model, &watch), Committed::Conflict);
        assert_eq!(model.get("key").unwrap().unwrap(), "value");
    }

    #[test]
    fn a_watch_that_ends_takes_nothing_from_an_older_one() {
        let model = Model::new();
        let older = model.watch().unwrap();
        model.put("key", "value").unwrap();
        let newer = model.watch().unwrap();
        assert_eq!(newer.since(), older.since().next());
        drop(newer);
        assert_eq!(delete_if_unchanged(&model, &older), Committed::Conflict);
        // A write that no watch needs is not kept.
        let newer = model.watch().unwrap();
        drop(older);
        assert!(model.state.read().written.is_empty());
        model.put("key", "another").unwrap();
        assert_eq!(model.state.read().written.len(), 1);
        drop(newer);
        assert!(model.state.read().written.is_empty());
    }
}
