//! The writer thread: takes blocks from the queue and the lanes and writes them to the file.
//!
//! Every [`TICK`] it takes what lies in the lanes and then writes a watermark (TR4): it notes the
//! time, empties every lane, empties the queue, and writes it all; whatever is appended to a lane
//! after it was emptied is younger than that time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::format::{self, BLOCK_TARGET_BYTES};
use super::lanes::{Block, LANES, Message, Shared};
use crate::format::coding::put_varint;
use crate::format::framing::{FRAME_HEADER_LEN_BYTES, append_record};
use crate::fs::File;

/// How often events that lie in the lanes go to the file.
const TICK: Duration = Duration::from_millis(100);
/// Space for the last frame, which says why the trace ended.
const END_RESERVE_BYTES: u64 = 256;

/// The thread that owns the file.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) file: Arc<dyn File>,
    pub(super) seed: u64,
    /// Where the next frame goes.
    pub(super) offset: u64,
    pub(super) limit: u64,
    /// Capacity of the queue.
    pub(super) queue_blocks: usize,
    /// Nothing more is written.
    pub(super) ended: bool,
    /// The last watermark written.
    pub(super) watermark_us: u64,
    pub(super) frame: Vec<u8>,
    pub(super) payload: Vec<u8>,
    pub(super) compressed: Vec<u8>,
}

impl Writer {
    pub(super) fn run(mut self, incoming: &Receiver<Message>) {
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

    /// Writes everything that was recorded before this moment, and says so (TR4). True if the
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
            self.stop(Some("the trace reached its size limit".to_owned()));
            self.end(format::END_LIMIT);
        }
    }

    /// Writes the payload as a frame; false if the trace has ended, or ends here because the file
    /// cannot be written: with its last whole frame (TR3).
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
