//! Taking events from the threads of a store to a file.
//!
//! A thread appends to the buffer of its lane. A full buffer goes through a bounded queue to the
//! writer thread, which also takes what lies in the lanes every [`TICK`] and then writes a
//! watermark (T4): it notes the time, empties every lane, empties the queue, and writes it all;
//! whatever is appended to a lane after it was emptied is younger than that time.
//!
//! Locks: a lane's lock covers one event, or the events of one batch, and no I/O. The writer
//! thread takes it for swapping a buffer. Nothing else is locked on the path of an operation.

use std::cell::Cell;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::format::{BLOCK_TARGET_BYTES, BlockHeading, Coder, EVENT_TARGET_BYTES, Header};
use super::{Recording, RecordingStats, Sampling, format};
use crate::engine::EngineStats;
use crate::error::{Error, Result};
use crate::format::coding::put_varint;
use crate::format::framing::{FRAME_HEADER_LEN_BYTES, append_record};
use crate::fs::{File, Fs, OpenMode};
use crate::kv::ScanObserver;
use crate::options::{Durability, EngineKind};
use crate::types::{KeyRange, KeyspaceId, Op, Value};

/// Buffers of the recorder. Threads take them in turn, so up to this many never meet.
const LANES: usize = 16;
/// How often events that lie in the lanes go to the file.
const TICK: Duration = Duration::from_millis(100);
/// Room for the last frame, which says why the trace ended.
const END_RESERVE_BYTES: u64 = 256;

/// Records the operations of one open store.
#[derive(Debug)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    queue: SyncSender<Message>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    sampling: Sampling,
    coder: Coder,
    lanes: [Lane; LANES],
    declarations: Mutex<VecDeque<Vec<u8>>>,
    /// Empty buffers for reuse.
    spare: Mutex<Vec<Vec<u8>>>,
    /// No more events are taken.
    stopped: AtomicBool,
    why_stopped: Mutex<Option<String>>,
    events: AtomicU64,
    dropped: AtomicU64,
    file_bytes: AtomicU64,
}

/// Lanes stand on cache lines of their own: threads write to neighbouring ones.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane(Mutex<Buffer>);

/// Events of one lane on their way to the writer thread.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    events: u64,
    base_us: u64,
    last_us: u64,
    /// Number of the next block, and events lost since the last one.
    number: u64,
    dropped: u64,
}

#[derive(Debug)]
enum Message {
    Block(Block),
    Finish,
}

#[derive(Debug)]
struct Block {
    heading: BlockHeading,
    bytes: Vec<u8>,
}

impl Buffer {
    /// Begins an event: its first byte and the time since the one before.
    fn begin(&mut self, tag: u8, now_us: u64) {
        if self.events == 0 {
            self.base_us = now_us;
            self.last_us = now_us;
        }
        self.events += 1;
        self.bytes.push(tag);
        put_varint(&mut self.bytes, now_us - self.last_us);
        self.last_us = now_us;
    }

    /// Takes what is there as a block and leaves `empty` in its place.
    fn take(&mut self, lane: usize, empty: Vec<u8>) -> Block {
        let heading = BlockHeading {
            lane: lane as u16,
            number: self.number,
            dropped: std::mem::take(&mut self.dropped),
            base_us: self.base_us,
            events: std::mem::take(&mut self.events),
        };
        self.number += 1;
        Block {
            heading,
            bytes: std::mem::replace(&mut self.bytes, empty),
        }
    }
}

thread_local! {
    /// The lane of this thread in every recorder; `u16::MAX` before its first event.
    static LANE: Cell<u16> = const { Cell::new(u16::MAX) };
}

/// The lane of the calling thread.
fn lane_of_thread() -> usize {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    LANE.with(|lane| {
        if lane.get() == u16::MAX {
            lane.set(NEXT.fetch_add(1, Ordering::Relaxed) % LANES as u16);
        }
        usize::from(lane.get())
    })
}

impl Shared {
    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    fn samples_key(&self, key: &[u8]) -> bool {
        match self.sampling {
            Sampling::Keys { one_in } => {
                format::sampling_hash(key).is_multiple_of(u64::from(one_in))
            }
            _ => true,
        }
    }

    fn samples_time(&self, now_us: u64) -> bool {
        match self.sampling {
            Sampling::Windows {
                record_ms,
                every_ms,
            } => (now_us / 1000) % every_ms < record_ms,
            _ => true,
        }
    }

    fn samples_op(&self, op: &Op<'_>) -> bool {
        match op {
            Op::Put { key, .. } | Op::Delete { key } => self.samples_key(key),
            // Part of every key's history.
            Op::DeleteRange { .. } => true,
        }
    }
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
        let file = fs.open(path, OpenMode::CreateNew)?;
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

    /// Hook for the reads of a keyspace.
    #[inline]
    pub(crate) fn hook(self: &Arc<Self>, keyspace: KeyspaceId, of_snapshot: bool) -> Hook<'_> {
        Hook {
            recorder: self,
            keyspace: keyspace.0,
            of_snapshot,
        }
    }

    /// A commit of one operation begins.
    pub(crate) fn write_one(&self, keyspace: KeyspaceId, op: &Op<'_>, durability: Durability) {
        if self.shared.samples_op(op) {
            self.event(format::WRITE | durable(durability), |out, coder| {
                coder.change(out, keyspace.0, op);
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
    fn event(&self, tag: u8, encode: impl FnOnce(&mut Vec<u8>, &Coder)) {
        let shared = &*self.shared;
        let lane = lane_of_thread();
        let mut buffer = shared.lanes[lane].0.lock();
        // Read under the lock, so that times do not fall within a lane (T4).
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
    fn list<T>(
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

    /// Gives a buffer to the writer thread; drops its events if that is behind (T1).
    fn hand_over(&self, lane: usize, buffer: &mut Buffer) {
        let shared = &*self.shared;
        let empty = shared.spare.try_lock().and_then(|mut spare| spare.pop());
        let empty = empty.unwrap_or_else(|| Vec::with_capacity(BLOCK_TARGET_BYTES + 4096));
        let block = buffer.take(lane, empty);
        let events = block.heading.events;
        let dropped_before = block.heading.dropped;
        match self.queue.try_send(Message::Block(block)) {
            Ok(()) => {
                shared.events.fetch_add(events, Ordering::Relaxed);
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
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
    pub(super) fn hold_writer(&self) -> parking_lot::MutexGuard<'_, VecDeque<Vec<u8>>> {
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

/// What a handle calls when it has read: a recorder and whom the reads concern.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook<'a> {
    recorder: &'a Arc<Recorder>,
    keyspace: u32,
    of_snapshot: bool,
}

impl Hook<'_> {
    fn tag(&self, kind: u8) -> u8 {
        kind | if self.of_snapshot {
            format::OF_SNAPSHOT
        } else {
            0
        }
    }

    /// A key was looked up for its value.
    pub(crate) fn get(&self, key: &[u8], value_len_bytes: Option<usize>) {
        if !self.recorder.shared.samples_key(key) {
            return;
        }
        let hit = value_len_bytes.map_or(0, |_| format::HIT);
        let tag = self.tag(format::GET) | hit;
        self.recorder.event(tag, |out, coder| {
            put_varint(out, u64::from(self.keyspace));
            coder.key(out, key);
            if let Some(len) = value_len_bytes {
                put_varint(out, len as u64);
            }
        });
    }

    /// A key was looked up without its value.
    pub(crate) fn contains(&self, key: &[u8], found: bool) {
        if !self.recorder.shared.samples_key(key) {
            return;
        }
        let hit = if found { format::HIT } else { 0 };
        let tag = self.tag(format::GET) | format::KEY_ONLY | hit;
        self.recorder.event(tag, |out, coder| {
            put_varint(out, u64::from(self.keyspace));
            coder.key(out, key);
        });
    }

    /// Several keys were looked up.
    pub(crate) fn multi_get(&self, keys: &[&[u8]], values: &[Option<Value>]) {
        let shared = &*self.recorder.shared;
        let lookups = keys.iter().zip(values);
        let sampled = lookups.filter(|(key, _)| shared.samples_key(key));
        let tag = self.tag(format::MULTI_GET);
        self.recorder
            .list(tag, Some(self.keyspace), sampled, |out, coder, item| {
                let (key, value) = item;
                coder.lookup(out, key, value.as_ref().map(|value| value.len()));
            });
    }

    /// A scan begins; it is recorded when the probe is dropped. `None` if it is not sampled.
    pub(crate) fn scan(&self, range: &KeyRange) -> Option<Box<dyn ScanObserver>> {
        let shared = &*self.recorder.shared;
        if !shared.samples_key(&range.start) {
            return None;
        }
        Some(Box::new(ScanProbe {
            recorder: Arc::clone(self.recorder),
            tag: self.tag(format::SCAN),
            keyspace: self.keyspace,
            range: range.clone(),
            opened_us: shared.now_us(),
            forward: 0,
            backward: 0,
            bytes: 0,
            seeks: 0,
        }))
    }
}

/// Counts what a scan takes, and records it when the scan is dropped.
#[derive(Debug)]
struct ScanProbe {
    recorder: Arc<Recorder>,
    tag: u8,
    keyspace: u32,
    range: KeyRange,
    opened_us: u64,
    forward: u64,
    backward: u64,
    bytes: u64,
    seeks: u64,
}

impl ScanObserver for ScanProbe {
    fn forward(&mut self, len_bytes: usize) {
        self.forward += 1;
        self.bytes += len_bytes as u64;
    }

    fn backward(&mut self, len_bytes: usize) {
        self.backward += 1;
        self.bytes += len_bytes as u64;
    }

    fn seek(&mut self) {
        self.seeks += 1;
    }
}

impl Drop for ScanProbe {
    fn drop(&mut self) {
        let end = self.range.end.as_deref();
        let tag = self.tag | end.map_or(0, |_| format::HAS_END);
        let open_us = self.recorder.shared.now_us() - self.opened_us;
        self.recorder.event(tag, |out, coder| {
            put_varint(out, u64::from(self.keyspace));
            coder.key(out, &self.range.start);
            if let Some(end) = end {
                coder.key(out, end);
            }
            for figure in [self.forward, self.backward, self.bytes, self.seeks, open_us] {
                put_varint(out, figure);
            }
        });
    }
}

/// The thread that owns the file.
struct Writer {
    shared: Arc<Shared>,
    file: Arc<dyn File>,
    seed: u64,
    /// Where the next frame goes.
    offset: u64,
    limit: u64,
    /// Capacity of the queue.
    queue_blocks: usize,
    /// Nothing more is written.
    ended: bool,
    /// The last watermark written.
    watermark_us: u64,
    frame: Vec<u8>,
    payload: Vec<u8>,
    compressed: Vec<u8>,
}

impl Writer {
    fn run(mut self, incoming: &Receiver<Message>) {
        let mut last_round = Instant::now();
        loop {
            let wait = TICK.saturating_sub(last_round.elapsed());
            let mut finish = match incoming.recv_timeout(wait) {
                Ok(Message::Block(block)) => {
                    self.block(block);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => true,
            };
            if !finish && last_round.elapsed() >= TICK {
                finish = self.round(incoming);
                last_round = Instant::now();
            }
            if finish {
                // Stopped first: nothing comes into a lane after the last round has emptied it.
                self.stop(None);
                self.round(incoming);
                self.end(format::END_CLOSED);
                let _ = self.file.sync_data();
                return;
            }
        }
    }

    /// Writes everything that was recorded before this moment, and says so (T4). True if the
    /// message to finish was among the blocks.
    fn round(&mut self, incoming: &Receiver<Message>) -> bool {
        let mut finish = false;
        let until_us = self.shared.now_us();
        let mut taken = Vec::new();
        for lane in 0..LANES {
            let mut buffer = self.shared.lanes[lane].0.lock();
            if buffer.events > 0 {
                let events = buffer.events;
                taken.push(buffer.take(lane, Vec::new()));
                self.shared.events.fetch_add(events, Ordering::Relaxed);
            }
        }
        // What was queued before the lanes were emptied; more may be coming all the time.
        for _ in 0..self.queue_blocks {
            match incoming.try_recv() {
                Ok(Message::Block(block)) => self.block(block),
                Ok(Message::Finish) => finish = true,
                Err(_) => break,
            }
        }
        for block in taken {
            self.block(block);
        }
        self.declarations();
        let grown = self.offset > self.shared.file_bytes.load(Ordering::Relaxed);
        if grown || self.watermark_us == 0 {
            self.payload.clear();
            self.payload.push(format::FRAME_WATERMARK);
            put_varint(&mut self.payload, until_us);
            self.write_payload(0);
            self.watermark_us = until_us;
            self.shared.file_bytes.store(self.offset, Ordering::Relaxed);
        }
        finish
    }

    fn block(&mut self, block: Block) {
        // Events on a keyspace come after its declaration was queued.
        self.declarations();
        self.payload.clear();
        block.heading.encode(&mut self.payload);
        self.payload.extend_from_slice(&block.bytes);
        self.compress();
        self.write_payload(block.heading.events);
        let mut bytes = block.bytes;
        bytes.clear();
        if bytes.capacity() >= BLOCK_TARGET_BYTES
            && let Some(mut spare) = self.shared.spare.try_lock()
            && spare.len() < LANES
        {
            spare.push(bytes);
        }
    }

    fn declarations(&mut self) {
        loop {
            let Some(next) = self.shared.declarations.lock().pop_front() else {
                return;
            };
            self.payload = next;
            self.write_payload(0);
        }
    }

    /// Replaces the payload by its compressed form where that is smaller.
    fn compress(&mut self) {
        let bound = lz4_flex::block::get_maximum_output_size(self.payload.len());
        self.compressed.clear();
        self.compressed.push(format::FRAME_COMPRESSED);
        let len = self.payload.len() as u32;
        self.compressed.extend_from_slice(&len.to_le_bytes());
        let at = self.compressed.len();
        self.compressed.resize(at + bound, 0);
        let packed = lz4_flex::block::compress_into(&self.payload, &mut self.compressed[at..]);
        if let Ok(len) = packed
            && at + len < self.payload.len()
        {
            self.compressed.truncate(at + len);
            std::mem::swap(&mut self.payload, &mut self.compressed);
        }
    }

    /// Appends the payload, with that many events in it, as a frame, unless the trace has ended.
    fn write_payload(&mut self, events: u64) {
        let frame_len = (self.payload.len() + FRAME_HEADER_LEN_BYTES) as u64;
        let fits = self.offset + frame_len + END_RESERVE_BYTES <= self.limit;
        if fits && self.append() {
            return;
        }
        self.shared.events.fetch_sub(events, Ordering::Relaxed);
        self.shared.dropped.fetch_add(events, Ordering::Relaxed);
        if !self.ended {
            self.stop(Some("it reached its limit".to_owned()));
            self.end(format::END_LIMIT);
        }
    }

    /// Writes the payload as a frame; false if the trace has ended, or ends here because the file
    /// cannot be written: with its last whole frame (T3).
    fn append(&mut self) -> bool {
        if self.ended {
            return false;
        }
        self.frame.clear();
        append_record(&mut self.frame, self.seed, self.offset, &self.payload);
        match self.file.write_all_at(&self.frame, self.offset) {
            Ok(()) => self.offset += self.frame.len() as u64,
            Err(error) => {
                self.ended = true;
                self.stop(Some(error.to_string()));
            }
        }
        !self.ended
    }

    fn stop(&self, why: Option<String>) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if why.is_some() {
            let mut known = self.shared.why_stopped.lock();
            *known = known.take().or(why);
        }
    }

    /// Writes the last frame: nothing is written after it.
    fn end(&mut self, reason: u8) {
        self.payload.clear();
        self.payload.push(format::FRAME_END);
        self.payload.push(reason);
        for figure in [
            self.shared.now_us(),
            self.shared.events.load(Ordering::Relaxed),
            self.shared.dropped.load(Ordering::Relaxed),
        ] {
            put_varint(&mut self.payload, figure);
        }
        self.append();
        self.ended = true;
        self.shared.file_bytes.store(self.offset, Ordering::Relaxed);
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
