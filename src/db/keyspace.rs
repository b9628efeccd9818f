//! A keyspace: [`Kv`] over one engine of a store.

use std::io::Read;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::SystemTime;

use super::bulk_load::BulkLoad;
use super::keyspace_snapshot::KeyspaceSnapshot;
use super::pinned_views::PinnedViews;
use super::value_writer::ValueWriter;
use crate::engine::{EngineHost, EngineStats, InspectDetail, Inspection, Piece, VerifyReport};
use crate::error::Result;
use crate::kv::{
    Atomic, Batch, Committed, Kv, KvRead, Readable, Scan, ValueReader, Watching, check_op,
    inherent_reads, inherent_writes, part_of_value, read_once,
};
use crate::options::{Durability, EngineKind, KeyspaceOptions};
use crate::resolve::from_unix_ms;
use crate::store::{Change, Condition, OpenKeyspace, Outcome, Store, Watch};
use crate::trace::Hook;
use crate::types::{KeyBounds, KeyRange, KeySet, Op, SeqNo, Value};
use crate::util::gate::{Pass, Stay};

/// An ordered map of byte strings in a store, on the engine that it was created with.
///
/// A handle is cheap to clone and may be used from any thread; it keeps the store open. Made by
/// [`Db::keyspace`](crate::Db::keyspace); the methods are those of the traits [`KvRead`]
/// and [`Kv`].
#[derive(Debug, Clone)]
pub struct Keyspace {
    // Dropped before the store: its files may go with it, if the keyspace was dropped.
    open: Arc<OpenKeyspace>,
    store: Arc<Store>,
    durability: Durability,
}

impl Keyspace {
    pub(crate) fn new(store: Arc<Store>, open: Arc<OpenKeyspace>) -> Self {
        let durability = store.shared.options.durability;
        Self {
            open,
            store,
            durability,
        }
    }

    /// Its name at this moment: [`Db::rename_keyspace`](crate::Db::rename_keyspace) changes it
    /// for all handles.
    pub fn name(&self) -> String {
        self.open.name().to_string()
    }

    /// Its number; never used twice within a store.
    pub fn id(&self) -> u32 {
        self.open.id.0
    }

    /// Its engine.
    pub fn engine(&self) -> EngineKind {
        self.open.options.engine()
    }

    /// Its options as they are in use now: a value for each that concerns its engine, `None` for
    /// those of the other one. They change with [`Db::keyspace_with`](crate::Db::keyspace_with).
    pub fn options(&self) -> KeyspaceOptions {
        self.open.options.effective()
    }

    /// A handle whose writes, batches included, commit with `durability`.
    #[must_use]
    pub fn with_durability(&self, durability: Durability) -> Self {
        Self {
            durability,
            ..self.clone()
        }
    }

    /// Brings the files into their best shape, on the calling thread: an LSM is merged into its
    /// bottom level, a B-tree gives free pages back to the file system.
    ///
    /// The file of a B-tree then has at most 1.2 times the bytes of the entries in leaves. A value
    /// that is longer than a quarter of a page is outside of its leaf, unless two such entries go
    /// into a page, and takes whole units of 4 KiB (of a page, if that is smaller). Values in files
    /// of their own ([`value_threshold_bytes`][apart]) are left to background work, which keeps
    /// those files within [`Options::value_space_amplification`](crate::Options) and two segments.
    ///
    /// # Errors
    ///
    /// [`Error::Corruption`](crate::Error) also if something was damaged since it was read: what is
    /// written anew is checked again.
    ///
    /// [apart]: crate::KeyspaceOptions#structfield.value_threshold_bytes
    pub fn compact(&self) -> Result<()> {
        let _pass = self.enter_to_write()?;
        if let Some(recorder) = &self.store.shared.recorder {
            recorder.compact(Some(self.open.id));
        }
        self.store.shared.compact(&self.open)?;
        self.store.shared.coordinator.progressed();
        Ok(())
    }

    /// Begins a load of entries in the order of their keys, which is several times as fast as
    /// batches of puts. [`BulkLoad`] says what it promises.
    pub fn bulk_load(&self) -> Result<BulkLoad> {
        let _pass = self.enter_to_write()?;
        self.store.shared.coordinator.check_writable()?;
        let stay = self.stay()?;
        let load = Arc::clone(&self.open.engine).begin_load()?;
        Ok(BulkLoad::new(&self.store, &self.open, load, stay))
    }

    /// Begins a value that is written by and by, and put under `key` when it is finished.
    /// [`ValueWriter`] says what it promises; [`put_from`](Kv::put_from) does the same with all
    /// that can be read from somewhere.
    pub fn writer(&self, key: impl AsRef<[u8]>) -> Result<ValueWriter> {
        let _pass = self.enter_to_write()?;
        let stay = self.stay()?;
        ValueWriter::begin(&self.store, &self.open, stay, key.as_ref(), self.durability)
    }

    /// Reads everything in the keyspace and checks every structural invariant. An `Err` is trouble
    /// with reading; damage is reported in the list.
    pub fn verify(&self) -> Result<VerifyReport> {
        let _stay = self.stay()?;
        self.open.engine.verify()
    }

    /// What is inside. Of an LSM tree: memtables, levels with their tables and blocks, and the
    /// manifest. Of a B-tree: the meta page, levels with their pages and the changes in memory that
    /// lie over them, and free space. See [`Db::inspect`](crate::Db::inspect).
    pub fn inspect(&self, detail: InspectDetail) -> Result<Inspection> {
        let _stay = self.stay()?;
        self.open.inspect(detail)
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(crate) fn open(&self) -> &Arc<OpenKeyspace> {
        &self.open
    }

    /// For a call that ends by itself.
    #[inline]
    fn enter(&self) -> Result<Pass<'_>> {
        let pass = self.store.shared.enter()?;
        self.open.check_alive()?;
        Ok(pass)
    }

    /// For a call that ends by itself and writes.
    fn enter_to_write(&self) -> Result<Pass<'_>> {
        let pass = self.enter()?;
        self.store.shared.takes_writes()?;
        Ok(pass)
    }

    /// For what takes as long as the data, or the user, likes.
    #[inline]
    fn stay(&self) -> Result<Stay> {
        let stay = self.store.shared.stay()?;
        self.open.check_alive()?;
        Ok(stay)
    }

    /// What reads are recorded with, if they are.
    #[inline]
    fn hook(&self) -> Option<Hook<'_>> {
        let recorder = self.store.shared.recorder.as_ref()?;
        Some(recorder.hook(self.open.id, false))
    }

    fn commit_one(&self, op: Op<'_>) -> Result<SeqNo> {
        check_op(&op)?;
        self.store.shared.commit(
            Change::One {
                keyspace: &self.open,
                op,
            },
            self.durability,
        )
    }

    fn scan(&self, range: KeyRange) -> Scan {
        let observer = self.hook().and_then(|hook| hook.scan(&range));
        let stay = match self.stay() {
            Ok(stay) => stay,
            Err(error) => return Scan::new(Err(error), range),
        };
        Scan::new(self.open.view(), range)
            .observed_by(observer)
            .owned_by(self.store.shared.owner)
            .staying(stay)
    }
}

inherent_reads!(Keyspace);
inherent_writes!(Keyspace);

impl Readable for Keyspace {
    fn pieces(&self, range: &KeyRange, at_least: usize) -> Result<Vec<Piece>> {
        let _stay = self.stay()?;
        self.open.view()?.pieces(range, at_least)
    }
}

impl Watching for Watch<'_> {
    fn since(&self) -> SeqNo {
        Watch::since(self)
    }
}

impl Atomic for Keyspace {
    type Watch<'a> = Watch<'a>;

    fn watch(&self) -> Result<Watch<'_>> {
        let _pass = self.enter()?;
        Ok(self.store.shared.takes_writes()?.watch())
    }

    fn commit_if_unchanged(
        &self,
        watch: &Watch<'_>,
        reads: KeySet,
        batch: Batch,
    ) -> Result<Committed> {
        let condition = Condition {
            since: watch.since(),
            reads: &[(self.open.id, reads)],
            is_unseen: false,
        };
        let parts = vec![(Arc::clone(&self.open), batch)];
        let shared = &self.store.shared;
        Ok(
            match shared.commit_if(parts, self.durability, &condition)? {
                Outcome::Committed(seq) => Committed::At(seq),
                Outcome::Conflict(_) => Committed::Conflict,
            },
        )
    }
}

impl KvRead for Keyspace {
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let _pass = self.enter()?;
        let key = key.as_ref();
        let value = self.open.get_value(key)?;
        if let Some(hook) = self.hook() {
            hook.get(key, value.as_ref().map(|value| value.len()));
        }
        Ok(value)
    }

    fn get_with<R>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        let _stay = self.stay()?;
        let key = key.as_ref();
        let found = read_once(read, |visit| self.open.get(key, visit))?;
        if let Some(hook) = self.hook() {
            hook.get(key, found.as_ref().map(|(_, len_bytes)| *len_bytes));
        }
        Ok(found.map(|(result, _)| result))
    }

    fn get_range(
        &self,
        key: impl AsRef<[u8]>,
        part: impl RangeBounds<usize>,
    ) -> Result<Option<Value>> {
        let _pass = self.enter()?;
        let key = key.as_ref();
        let found = self.open.get_part(key, part_of_value(&part))?;
        if let Some(hook) = self.hook() {
            // How long the whole value is was not asked.
            hook.contains(key, found.is_some());
        }
        Ok(found)
    }

    fn reader(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueReader>> {
        let stay = self.stay()?;
        let key = key.as_ref();
        let found = self.open.open_value(key)?;
        let reader = found
            .map(|value| ValueReader::new(value, self.store.shared.owner, Some(Arc::new(stay))))
            .transpose()?;
        if let Some(hook) = self.hook() {
            hook.get(key, reader.as_ref().map(|reader| reader.len() as usize));
        }
        Ok(reader)
    }

    fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let _pass = self.enter()?;
        let key = key.as_ref();
        let found = self.open.contains(key)?;
        if let Some(hook) = self.hook() {
            hook.contains(key, found);
        }
        Ok(found)
    }

    fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        let _pass = self.enter()?;
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let values = self.open.multi_get(&keys)?;
        if let Some(hook) = self.hook() {
            hook.multi_get(&keys, &values);
        }
        Ok(values)
    }

    fn range(&self, bounds: impl KeyBounds) -> Scan {
        self.scan(KeyRange::new(&bounds))
    }

    fn prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        self.scan(KeyRange::prefix(prefix.as_ref()))
    }
}

impl Kv for Keyspace {
    type Snapshot = KeyspaceSnapshot;

    fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<SeqNo> {
        self.commit_one(Op::Put {
            key: key.as_ref(),
            value: value.as_ref(),
        })
    }

    fn put_from(&self, key: impl AsRef<[u8]>, source: impl Read) -> Result<SeqNo> {
        let mut writer = self.writer(key)?;
        writer.take_all(source)?;
        writer.finish()
    }

    fn delete(&self, key: impl AsRef<[u8]>) -> Result<SeqNo> {
        self.commit_one(Op::Delete { key: key.as_ref() })
    }

    fn merge(&self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<SeqNo> {
        self.commit_one(Op::Merge {
            key: key.as_ref(),
            operand: operand.as_ref(),
        })
    }

    fn expires_at(&self, key: impl AsRef<[u8]>) -> Result<Option<SystemTime>> {
        let _pass = self.enter()?;
        Ok(self
            .open
            .expires_at_ms(key.as_ref())?
            .and_then(from_unix_ms))
    }

    fn delete_range(&self, bounds: impl KeyBounds) -> Result<SeqNo> {
        let range = KeyRange::new(&bounds);
        if range.is_empty() {
            // What came before is durable afterwards, as with any write of this handle.
            return self.write(Batch::new());
        }
        self.commit_one(Op::DeleteRange {
            start: &range.start,
            end: range.end.as_deref(),
        })
    }

    fn write(&self, batch: Batch) -> Result<SeqNo> {
        self.write_with(batch, self.durability)
    }

    fn write_with(&self, batch: Batch, durability: Durability) -> Result<SeqNo> {
        let parts = vec![(Arc::clone(&self.open), batch)];
        let shared = &self.store.shared;
        shared.commit(Change::Many(parts), durability)
    }

    fn snapshot(&self) -> KeyspaceSnapshot {
        if let Some(recorder) = &self.store.shared.recorder {
            recorder.snapshot(Some(self.open.id));
        }
        let views = PinnedViews::of_one(&self.store, &self.open);
        KeyspaceSnapshot::new(views, &self.store, &self.open)
    }

    fn flush(&self) -> Result<()> {
        let _pass = self.enter_to_write()?;
        if let Some(recorder) = &self.store.shared.recorder {
            recorder.flush(Some(self.open.id));
        }
        self.store.shared.flush(&self.open)?;
        self.store.shared.coordinator.progressed();
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        if let Ok(_pass) = self.store.shared.enter() {
            self.open.engine.refresh_stats();
        }
        self.open.engine.stats()
    }
}
