//! Replay: the log's records become operations of the engines that lack them, through the same
//! [`Engine::apply`] that commits use.
//!
//! # Windows
//!
//! Records are taken many at a time, in *windows*: an engine gets all of its operations of a window
//! in one call, and may go through them in the order that suits it. One thread decodes windows and
//! puts them in the order of their keys, so that the next one is at hand when one has been applied.
//! Another one [prepares](Engine::prepare) them, so that pages of a cold disk are on their way
//! before they are needed. Either is ahead by a window or two. Where pages are waited for, nothing
//! is prepared ahead: a window is applied while it is prepared, in the same order, as fast as its
//! pages come. A log of a single small window, the usual case, needs no thread. A bulk load is a
//! window of its own.
//!
//! # Memory
//!
//! A log may hold more than the write buffers. Engines then persist what they hold whenever a
//! writer would have to wait for that ([`Pressure::Stop`]), as they do in normal work. Law E3 wants
//! the log to be durable before, and an engine must not keep what turns out to be damaged further
//! on. The log has been read to its end before, for changes of the keyspaces; so such a log is made
//! durable first. A store that is opened for reading persists nothing: its replay takes as
//! much memory as the log holds.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;

use super::catalog_change::CatalogChange;
use super::commit_values::{CommitValues, PlacedValues};
use super::coordinator::Coordinator;
use super::keyspaces::{Keyspaces, OpenKeyspace};
use super::load_record::LoggedLoad;
use super::streamed_put::LoggedStreamedPut;
use crate::engine::{Engine, Pressure, SnapshotTracker, Work, in_key_order};
use crate::error::{Error, Result};
use crate::kv::decode_payload;
use crate::types::{KeyspaceId, Op, SeqNo, SequencedOp};
use crate::util::mutants::mutated;
use crate::values::ValueFiles;
use crate::wal::{self, LogRecord};

/// Operations of a window. Many, since those of one window that fall into the same leaf share the
/// way there, and what is read of it; their payloads are in memory anyway.
const WINDOW_OPS: u64 = 128 << 10;

/// Bytes of a window's payloads, at most.
const WINDOW_BYTES: u64 = 16 << 20;

/// The part of the smallest write buffer that a window may take: it may be exceeded by that.
const WINDOWS_IN_BUFFER: u64 = 8;

/// Smaller windows are not worth a thread.
const AHEAD_FROM_BYTES: u64 = 128 << 10;

/// Operations of a share whose order is worth finding out ahead.
const ORDERED_FROM_OPS: usize = 64;

/// So many windows may wait for being applied, and as many for being prepared.
const WINDOWS_AHEAD: usize = 1;

/// What replay works on.
pub(super) struct Replay<'a> {
    pub(super) log_dir: &'a Path,
    /// Those that there are at the end of the log.
    pub(super) keyspaces: &'a Keyspaces,
    /// The last change of the keyspaces that the catalogue's file has.
    pub(super) stored: SeqNo,
    /// Number of the next keyspace that is made.
    pub(super) next_id: u32,
    pub(super) snapshot_tracker: &'a SnapshotTracker,
    pub(super) coordinator: &'a Coordinator,
    pub(super) values: &'a ValueFiles,
    pub(super) read_only: bool,
}

/// How replay goes on.
struct Pace {
    window_bytes: u64,
    /// The log is durable, so engines may persist.
    may_flush: bool,
}

/// The operations of some records, decoded.
struct Window<'a> {
    last: SeqNo,
    shares: Vec<Share<'a>>,
    /// References to the values that are stored apart.
    values: PlacedValues,
    /// A bulk load, which is alone in its window.
    load: Option<ReplayedLoad<'a>>,
}

/// A bulk load that the engine lacks.
struct ReplayedLoad<'a> {
    keyspace: Arc<OpenKeyspace>,
    content: &'a [u8],
    first: SeqNo,
    last: SeqNo,
}

/// Those of one keyspace.
struct Share<'a> {
    keyspace: Arc<OpenKeyspace>,
    ops: Vec<SequencedOp<'a>>,
    /// That of their keys, if they are many and all are puts and deletes. It is found out by a
    /// thread that has time for it.
    order: Option<Vec<u32>>,
}

impl Share<'_> {
    /// Finds out the order of the keys.
    fn put_in_order(&mut self) {
        let is_of_key = |op: &SequencedOp<'_>| matches!(op.op, Op::Put { .. } | Op::Delete { .. });
        if self.ops.len() >= ORDERED_FROM_OPS && self.ops.iter().all(is_of_key) {
            self.order = Some(in_key_order(&self.ops));
        }
    }

    fn prepare(&self) -> Result<()> {
        match &self.order {
            Some(order) => self.keyspace.engine.prepare_ordered(&self.ops, order),
            None => self.keyspace.engine.prepare(&self.ops),
        }
    }

    /// Applies the operations, or the same with references.
    fn apply(&self, ops: &[SequencedOp<'_>]) -> Result<()> {
        match &self.order {
            Some(order) => self.keyspace.engine.apply_ordered(ops, order),
            None => self.keyspace.engine.apply(ops),
        }
    }
}

impl Replay<'_> {
    /// Feeds the log's records to the engines that lack them; returns the last sequence number. The
    /// log must reach `end`; when it was read to its end before, `found` was the last one.
    pub(super) fn run(
        &self,
        recovery: &mut wal::Recovery,
        found: SeqNo,
        end: SeqNo,
    ) -> Result<SeqNo> {
        let all = self.keyspaces.all();
        let persisted = |keyspace: &Arc<OpenKeyspace>| keyspace.engine.persisted_seq();
        // With the changes that the catalogue lacks: what is read is made durable.
        let from = all
            .iter()
            .map(persisted)
            .fold(self.stored, SeqNo::min)
            .next();
        // Engines persist nothing that the log does not hold durably (law E3).
        let reached = all.iter().map(persisted).max().unwrap_or(SeqNo::ZERO);
        let end = reached.max(end);
        let buffers = all.iter().map(|k| k.options.write_buffer_bytes());
        let smallest_buffer = buffers.min().unwrap_or(u64::MAX);
        let mut pace = Pace {
            window_bytes: (smallest_buffer / WINDOWS_IN_BUFFER).min(WINDOW_BYTES),
            may_flush: false,
        };
        if recovery.bytes_from(from) > smallest_buffer && !self.read_only {
            if found < end {
                // It says what is damaged.
                recovery.replay(from, end, &mut |_| Ok(()))?;
            }
            recovery.make_durable()?;
            self.coordinator.note_recovered(found);
            pace.may_flush = true;
        }
        let last = recovery.replay(from, end, &mut |records| self.visit(records, &mut pace))?;
        if self.read_only {
            self.coordinator.note_recovered(recovery.proven());
        }
        Ok(last)
    }

    /// Takes the records of a segment, window by window.
    fn visit(&self, records: &[LogRecord<'_>], pace: &mut Pace) -> Result<()> {
        let bytes = bytes_of(records);
        if bytes.min(pace.window_bytes) < AHEAD_FROM_BYTES {
            return self.visit_alone(records, pace);
        }
        let (decoded, to_apply) = mpsc::sync_channel(WINDOWS_AHEAD);
        let (announced, to_prepare) = mpsc::sync_channel::<Arc<Window<'_>>>(WINDOWS_AHEAD);
        thread::scope(|scope| {
            let prepare = |window: Arc<Window<'_>>| Self::prepare(&window);
            let prepare_all = move || to_prepare.into_iter().try_for_each(prepare);
            let window_bytes = pace.window_bytes;
            let decode_all = move || {
                for window in windows_of(records, window_bytes) {
                    let window = Arc::new(self.decode(window)?);
                    let is_wanted = decoded.send(Arc::clone(&window)).is_ok();
                    if !is_wanted || announced.send(window).is_err() {
                        // One before could not be applied, or prepared.
                        break;
                    }
                }
                Ok(())
            };
            let Ok(preparer) = thread::Builder::new().spawn_scoped(scope, prepare_all) else {
                return self.visit_alone(records, pace);
            };
            let Ok(decoder) = thread::Builder::new().spawn_scoped(scope, decode_all) else {
                return self.visit_alone(records, pace);
            };
            let applied = to_apply.iter().try_for_each(|it| self.apply(&it, pace));
            drop(to_apply);
            let prepared = preparer.join().unwrap_or_else(|panic| resume_unwind(panic));
            let decoded = decoder.join().unwrap_or_else(|panic| resume_unwind(panic));
            applied.and(prepared).and(decoded)
        })
    }

    /// The same on this thread, where there is little to do, or the system gives no other thread.
    fn visit_alone(&self, records: &[LogRecord<'_>], pace: &mut Pace) -> Result<()> {
        windows_of(records, pace.window_bytes).try_for_each(|window| {
            let window = self.decode(window)?;
            Self::prepare(&window)?;
            self.apply(&window, pace)
        })
    }

    /// Has the engines load what applying a window will touch.
    fn prepare(window: &Window<'_>) -> Result<()> {
        window.shares.iter().try_for_each(Share::prepare)
    }

    /// Decodes records.
    fn decode<'a>(&self, records: &[LogRecord<'a>]) -> Result<Window<'a>> {
        let mut window = Window {
            last: SeqNo::ZERO,
            shares: Vec::new(),
            values: PlacedValues::default(),
            load: None,
        };
        let mut share_of = HashMap::new();
        for record in records {
            self.decode_record(record, &mut window, &mut share_of)?;
        }
        for share in &mut window.shares {
            let persisted = share.keyspace.engine.persisted_seq();
            let persisted = mutated!("replay-skips-one-operation", persisted.next(), persisted);
            share.ops.retain(|op| op.seq > persisted);
            share.put_in_order();
        }
        Ok(window)
    }

    /// Adds the operations of `record` to `window`.
    fn decode_record<'a>(
        &self,
        record: &LogRecord<'a>,
        window: &mut Window<'a>,
        share_of: &mut HashMap<KeyspaceId, Option<usize>>,
    ) -> Result<()> {
        window.last = record.last;
        if CatalogChange::is_change(record.payload) {
            // It was replayed before.
            return Ok(());
        }
        if LoggedLoad::is_load(record.payload) {
            window.load = self.load(record)?;
            return Ok(());
        }
        if LoggedStreamedPut::is_one(record.payload) {
            return self.streamed(record, window, share_of);
        }
        let mut seq = record.first;
        let mut values = CommitValues::default();
        let decoded = decode_payload(record.payload, |id, op, end| {
            let share = match share_of.get(&id) {
                Some(_) if seq > record.first && mutated!("batch-recovered-in-part") => None,
                Some(share) => *share,
                None => {
                    let share = self.share(id, record, window)?;
                    share_of.insert(id, share);
                    share
                }
            };
            if let Some(share) = share {
                let share = &mut window.shares[share];
                if matches!(op, Op::Merge { .. }) && share.keyspace.resolver.operator().is_none() {
                    return self.malformed(record, "a merge where there is no operator");
                }
                share.ops.push(SequencedOp::new(seq, op));
                if let Op::Put { value, .. } = op
                    && share.keyspace.options.stores_apart(value.len())
                {
                    let at = (end - value.len()) as u64;
                    values.add(self.values, seq.0 - record.first.0, at, value);
                }
            }
            seq = seq.next();
            Ok(())
        })?;
        if let Err(at) = decoded {
            return self.malformed(record, &format!("malformed at byte {at} of the payload"));
        }
        window.values.add(&values, record.first, record.place);
        if seq.prev() != record.last {
            let (last, end) = (record.last, seq.prev());
            return self.malformed(
                record,
                &format!("it should end with operation {last}, not {end}"),
            );
        }
        Ok(())
    }

    /// Adds a put whose value was streamed to `window`.
    fn streamed<'a>(
        &self,
        record: &LogRecord<'a>,
        window: &mut Window<'a>,
        share_of: &mut HashMap<KeyspaceId, Option<usize>>,
    ) -> Result<()> {
        let Ok(put) = LoggedStreamedPut::decode(record.payload) else {
            return self.malformed(record, "a malformed put of a streamed value");
        };
        if record.first != record.last {
            return self.malformed(record, "a put of a streamed value has one number");
        }
        let share = match share_of.get(&put.keyspace) {
            Some(share) => *share,
            None => {
                let share = self.share(put.keyspace, record, window)?;
                share_of.insert(put.keyspace, share);
                share
            }
        };
        let Some(share) = share else {
            return Ok(());
        };
        let share = &mut window.shares[share];
        let engine = &share.keyspace.engine;
        if !engine.keeps_reference(put.key, put.reference.len()) {
            return self.malformed(record, "the reference to a streamed value is too long");
        }
        let op = Op::Put {
            key: put.key,
            value: &[],
        };
        share.ops.push(SequencedOp {
            value_ref: Some(put.reference),
            ..SequencedOp::new(record.first, op)
        });
        window.values.push(record.first, put.reference);
        self.values
            .note_streamed(put.reference, put.keyspace, record.first);
        Ok(())
    }

    /// The load in `record`, unless its engine has it.
    fn load<'a>(&self, record: &LogRecord<'a>) -> Result<Option<ReplayedLoad<'a>>> {
        let Ok(load) = LoggedLoad::decode(record.payload) else {
            return self.malformed(record, "a malformed bulk load");
        };
        let keyspace = self.keyspace(load.keyspace, record)?;
        let lacks = |keyspace: &Arc<OpenKeyspace>| keyspace.engine.persisted_seq() < record.last;
        Ok(keyspace.filter(lacks).map(|keyspace| ReplayedLoad {
            keyspace,
            content: load.content,
            first: record.first,
            last: record.last,
        }))
    }

    /// Keyspace `id`; `None` if that is dropped by the end of the log (C1).
    fn keyspace(
        &self,
        id: KeyspaceId,
        record: &LogRecord<'_>,
    ) -> Result<Option<Arc<OpenKeyspace>>> {
        let keyspace = self.keyspaces.by_id(id);
        if keyspace.is_none() && id.0 >= self.next_id {
            return self.malformed(record, &format!("keyspace {id} never existed"));
        }
        Ok(keyspace)
    }

    /// Index of a new share of keyspace `id`; `None` if that is dropped by the end of the log.
    fn share(
        &self,
        id: KeyspaceId,
        record: &LogRecord<'_>,
        window: &mut Window<'_>,
    ) -> Result<Option<usize>> {
        let Some(keyspace) = self.keyspace(id, record)? else {
            return Ok(None);
        };
        window.shares.push(Share {
            keyspace,
            ops: Vec::new(),
            order: None,
        });
        Ok(Some(window.shares.len() - 1))
    }

    fn malformed<T>(&self, record: &LogRecord<'_>, what: &str) -> Result<T> {
        let message = format!("the record of operation {}: {what}", record.first);
        Err(Error::corruption(self.log_dir, 0, message))
    }

    fn apply(&self, window: &Window<'_>, pace: &mut Pace) -> Result<()> {
        for share in window.shares.iter().filter(|share| !share.ops.is_empty()) {
            match window.values.is_empty() {
                true => share.apply(&share.ops)?,
                false => share.apply(&window.values.with_refs(&share.ops))?,
            }
        }
        if let Some(load) = &window.load
            && !mutated!("load-not-replayed")
        {
            let engine = &load.keyspace.engine;
            engine.apply_load(load.content, load.first, load.last)?;
        }
        self.snapshot_tracker.publish(window.last);
        if let Some(load) = &window.load {
            load.keyspace.engine.published();
        }
        for share in &window.shares {
            if pace.may_flush && persist(&*share.keyspace.engine).is_err() {
                // A full disk, say. The log has everything, and background work will try again:
                // no reason not to open the store.
                pace.may_flush = false;
            }
        }
        Ok(())
    }
}

/// Has `engine` persist what it holds while that is more than it may hold.
fn persist(engine: &dyn Engine) -> Result<()> {
    let is_over = || engine.pressure() == Pressure::Stop;
    while mutated!("replay-ignores-write-buffers", false, is_over())
        && engine.run_once(Work::Flush)?
    {}
    Ok(())
}

/// Bytes of the payloads.
fn bytes_of(records: &[LogRecord<'_>]) -> u64 {
    let lens = records.iter().map(|record| record.payload.len());
    lens.sum::<usize>() as u64
}

/// `records` in pieces of some size.
fn windows_of<'r, 'a>(
    records: &'r [LogRecord<'a>],
    window_bytes: u64,
) -> impl Iterator<Item = &'r [LogRecord<'a>]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let (mut ops, mut bytes) = (0, 0);
        let mut has_load = false;
        let fits = |record: &&LogRecord<'_>| {
            let is_load = LoggedLoad::is_load(record.payload);
            let fits =
                ops < WINDOW_OPS && bytes <= window_bytes && !has_load && (ops == 0 || !is_load);
            has_load |= is_load;
            ops += record.last.0 - record.first.0 + 1;
            bytes += record.payload.len() as u64;
            fits
        };
        let (window, later) = rest.split_at(rest.iter().take_while(fits).count());
        rest = later;
        (!window.is_empty()).then_some(window)
    })
}
