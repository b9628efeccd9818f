//! Recording: from the operations of a store to the buffers of its lanes.
//!
//! A full buffer goes through a bounded queue to the [writer thread](super::writer), which also
//! empties the lanes from time to time. Nothing but a lane is locked on the path of an operation.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::RecordingStats;
use super::format::{self, BLOCK_TARGET_BYTES, Coder, EVENT_TARGET_BYTES, Header};
use super::lanes::{Buffer, LANES, Message, Shared, lane_of_thread};
use super::writer::Writer;
use crate::engine::EngineStats;
use crate::error::{Error, Result};
use crate::format::coding::put_varint;
use crate::fs::{Fs, OpenMode};
use crate::options::{Durability, EngineKind, Recording};
use crate::types::{KeyspaceId, Op};

/// Records the operations of one open store.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(super) shared: Arc<Shared>,
    queue: SyncSender<Message>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Recorder {
    /// Creates the file, which must not exist, and starts the writer thread.
    pub(crate) fn start(fs: &Arc<dyn Fs>, recording: &Recording) -> Result<Arc<Self>> {
        let (path, options) = (&recording.path, &recording.options);
        let started_unix_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as u64);
        let id = RandomState::new().build_hasher().finish();
        let header = Header::new(options, id, started_unix_us);
        let file = fs
            .open(path, OpenMode::CreateNew)
            .map_err(|error| refuse_existing(path, error))?;
        file.write_all_at(&header.encode(), 0)?;
        let shared = Arc::new(Shared {
            started: Instant::now(),
            sampling: options.sampling,
            coder: Coder::new(options),
            lanes: Default::default(),
            declarations: Mutex::default(),
            spare: Mutex::default(),
            stopped: AtomicBool::new(false),
            why_stopped: Mutex::default(),
            events: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            file_bytes: AtomicU64::new(format::HEADER_LEN_BYTES as u64),
        });
        let blocks = (options.buffer_bytes as usize / BLOCK_TARGET_BYTES).max(LANES);
        let (queue, incoming) = sync_channel(blocks);
        let writer = Writer {
            shared: Arc::clone(&shared),
            file,
            seed: header.seed(),
            offset: format::HEADER_LEN_BYTES as u64,
            limit: options.limit_bytes,
            queue_blocks: blocks,
            ended: false,
            watermark_us: 0,
            frame: Vec::new(),
            payload: Vec::new(),
            compressed: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("hedgerow-trace".to_owned())
            .spawn(move || writer.run(&incoming))
            .map_err(|e| Error::io("start a thread for", path, e))?;
        Ok(Arc::new(Self {
            shared,
            queue,
            writer: Mutex::new(Some(thread)),
        }))
    }

    /// Names a keyspace, before the first event on it.
    pub(crate) fn declare(
        &self,
        keyspace: KeyspaceId,
        name: &str,
        engine: EngineKind,
        stats: &EngineStats,
    ) {
        let mut payload = Vec::new();
        format::encode_keyspace(
            &mut payload,
            keyspace.0,
            engine,
            stats.entries_estimate,
            stats.disk_bytes,
            name,
        );
        self.shared.declarations.lock().push_back(payload);
    }

    /// A commit of one operation begins.
    pub(crate) fn write_one(&self, keyspace: KeyspaceId, op: &Op<'_>, durability: Durability) {
        if self.shared.samples_op(op) {
            self.event(format::WRITE | durable(durability), |out, coder| {
                coder.change(out, keyspace.0, op);
            });
        }
    }

    /// A commit of a put begins, whose value of `len_bytes` is in a file.
    pub(crate) fn write_streamed(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        len_bytes: usize,
        durability: Durability,
    ) {
        if self.shared.samples_op(&Op::Put { key, value: &[] }) {
            self.event(format::WRITE | durable(durability), |out, coder| {
                coder.put_without_content(out, keyspace.0, key, len_bytes);
            });
        }
    }

    /// A commit of a batch begins.
    pub(crate) fn write_batch<'a>(
        &self,
        ops: impl Iterator<Item = (KeyspaceId, Op<'a>)>,
        durability: Durability,
    ) {
        let sampled = ops.filter(|(_, op)| self.shared.samples_op(op));
        let tag = format::WRITE | format::BATCH | durable(durability);
        self.list(tag, None, sampled, |out, coder, (keyspace, op)| {
            coder.change(out, keyspace.0, &op);
        });
    }

    /// A snapshot was taken, of one keyspace or of all.
    pub(crate) fn snapshot(&self, keyspace: Option<KeyspaceId>) {
        self.plain(format::SNAPSHOT, keyspace);
    }

    /// A flush of one keyspace or of all was asked for.
    pub(crate) fn flush(&self, keyspace: Option<KeyspaceId>) {
        self.plain(format::FLUSH, keyspace);
    }

    /// A compaction of one keyspace or of all was asked for.
    pub(crate) fn compact(&self, keyspace: Option<KeyspaceId>) {
        self.plain(format::COMPACT, keyspace);
    }

    /// A sync of the log was asked for.
    pub(crate) fn sync(&self) {
        self.event(format::SYNC, |_, _| {});
    }

    fn plain(&self, kind: u8, keyspace: Option<KeyspaceId>) {
        let tag = kind | keyspace.map_or(0, |_| format::ONE_KEYSPACE);
        self.event(tag, |out, _| {
            if let Some(keyspace) = keyspace {
                put_varint(out, u64::from(keyspace.0));
            }
        });
    }

    /// Appends an event with the body that `encode` writes.
    pub(super) fn event(&self, tag: u8, encode: impl FnOnce(&mut Vec<u8>, &Coder)) {
        let shared = &*self.shared;
        let lane = lane_of_thread();
        let mut buffer = shared.lanes[lane].0.lock();
        // Read under the lock, so that times do not fall within a lane (TR4).
        let now_us = shared.now_us();
        if !self.takes(&mut buffer, now_us) {
            return;
        }
        buffer.begin(tag, now_us);
        encode(&mut buffer.bytes, &shared.coder);
        if buffer.bytes.len() >= BLOCK_TARGET_BYTES {
            self.hand_over(lane, &mut buffer);
        }
    }

    /// Appends an event with a list in it, cut into several where it is long; none if the list is
    /// empty.
    pub(super) fn list<T>(
        &self,
        tag: u8,
        keyspace: Option<u32>,
        items: impl Iterator<Item = T>,
        encode: impl Fn(&mut Vec<u8>, &Coder, T),
    ) {
        let mut items = items.peekable();
        if items.peek().is_none() {
            return;
        }
        let shared = &*self.shared;
        let lane = lane_of_thread();
        let mut buffer = shared.lanes[lane].0.lock();
        let now_us = shared.now_us();
        if !self.takes(&mut buffer, now_us) {
            return;
        }
        loop {
            buffer.begin(tag, now_us);
            if let Some(keyspace) = keyspace {
                put_varint(&mut buffer.bytes, u64::from(keyspace));
            }
            let start = buffer.bytes.len();
            while buffer.bytes.len() - start < EVENT_TARGET_BYTES {
                let Some(item) = items.next() else { break };
                encode(&mut buffer.bytes, &shared.coder, item);
            }
            let more = items.peek().is_some();
            buffer.bytes.push(match more {
                true => format::LIST_CONTINUED,
                false => format::LIST_END,
            });
            if buffer.bytes.len() >= BLOCK_TARGET_BYTES {
                self.hand_over(lane, &mut buffer);
            }
            if !more {
                return;
            }
        }
    }

    /// False if events at this moment are not recorded.
    fn takes(&self, buffer: &mut Buffer, now_us: u64) -> bool {
        if self.shared.stopped.load(Ordering::Relaxed) {
            buffer.dropped += 1;
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.shared.samples_time(now_us)
    }

    /// Gives a buffer to the writer thread; drops its events if that is behind (TR1).
    fn hand_over(&self, lane: usize, buffer: &mut Buffer) {
        let shared = &*self.shared;
        let empty = shared.spare.try_lock().and_then(|mut spare| spare.pop());
        let empty = empty.unwrap_or_else(|| Vec::with_capacity(BLOCK_TARGET_BYTES + 4096));
        let block = buffer.take(lane, empty);
        let events = block.heading.events;
        let dropped_before = block.heading.dropped;
        // Before the writer has it, which may take them off again.
        shared.events.fetch_add(events, Ordering::Relaxed);
        match self.queue.try_send(Message::Block(block)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                shared.events.fetch_sub(events, Ordering::Relaxed);
                // The next block of the lane says how many are missing before it.
                buffer.dropped = dropped_before + events;
                shared.dropped.fetch_add(events, Ordering::Relaxed);
            }
        }
    }

    /// Writes what is there, ends the trace, and waits for that. The second call does nothing.
    pub(crate) fn finish(&self) {
        if let Some(thread) = self.writer.lock().take() {
            // Fails only if the thread is gone.
            let _ = self.queue.send(Message::Finish);
            // A panic in the thread has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }

    /// Keeps the writer thread from writing blocks, as a slow disk would.
    #[cfg(test)]
    pub(super) fn hold_writer(
        &self,
    ) -> parking_lot::MutexGuard<'_, std::collections::VecDeque<Vec<u8>>> {
        self.shared.declarations.lock()
    }

    pub(crate) fn stats(&self) -> RecordingStats {
        let shared = &*self.shared;
        let waiting = shared.lanes.iter().map(|lane| lane.0.lock().events);
        let waiting = waiting.sum::<u64>();
        RecordingStats {
            events: shared.events.load(Ordering::Relaxed) + waiting,
            dropped: shared.dropped.load(Ordering::Relaxed),
            file_bytes: shared.file_bytes.load(Ordering::Relaxed),
            stopped: shared.why_stopped.lock().clone(),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.finish();
    }
}

fn durable(durability: Durability) -> u8 {
    match durability {
        Durability::Sync => format::DURABLE,
        Durability::Buffered => 0,
    }
}

/// Says what to do when the file is there, as it is when a program that records starts again.
fn refuse_existing(path: &Path, error: Error) -> Error {
    match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
            Error::invalid(format!(
                "the trace {} exists already, and a recording replaces no other: name another \
                 file, or remove this one",
                path.display()
            ))
        }
        error => error,
    }
}

/// Says where a recording goes wrong before anything is opened.
pub(crate) fn check_path(path: &Path, store: &Path) -> Result<()> {
    if path.starts_with(store) {
        return Err(Error::invalid(format!(
            "the trace {} lies in the directory of the store",
            path.display()
        )));
    }
    Ok(())
}
