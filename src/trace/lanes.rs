//! What passes from the threads of a store to the writer thread: lanes, their buffers, the queue.
//!
//! A thread appends to the buffer of its lane. A lane's lock covers one event, or the events of one
//! batch, and no I/O; the writer thread takes it for swapping a buffer.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::format::{BlockHeading, Coder, sampling_hash};
use crate::format::coding::put_varint;
use crate::options::Sampling;
use crate::types::Op;

/// Buffers of the recorder. Threads take them in turn, so up to this many never meet.
pub(super) const LANES: usize = 16;

/// What the threads of the store and the writer thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) started: Instant,
    pub(super) sampling: Sampling,
    pub(super) coder: Coder,
    pub(super) lanes: [Lane; LANES],
    pub(super) declarations: Mutex<VecDeque<Vec<u8>>>,
    /// Empty buffers for reuse.
    pub(super) spare: Mutex<Vec<Vec<u8>>>,
    /// No more events are taken.
    pub(super) stopped: AtomicBool,
    pub(super) why_stopped: Mutex<Option<String>>,
    pub(super) events: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) file_bytes: AtomicU64,
}

/// Lanes stand on cache lines of their own: threads write to neighbouring ones.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Lane(pub(super) Mutex<Buffer>);

/// Events of one lane on their way to the writer thread.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    pub(super) events: u64,
    base_us: u64,
    last_us: u64,
    /// Number of the next block, and events lost since the last one.
    number: u64,
    pub(super) dropped: u64,
}

/// To the writer thread.
#[derive(Debug)]
pub(super) enum Message {
    Block(Block),
    Finish,
}

/// The events that one lane had.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) heading: BlockHeading,
    pub(super) bytes: Vec<u8>,
}

impl Buffer {
    /// Begins an event: its first byte and the time since the one before.
    pub(super) fn begin(&mut self, tag: u8, now_us: u64) {
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
    pub(super) fn take(&mut self, lane: usize, empty: Vec<u8>) -> Block {
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
pub(super) fn lane_of_thread() -> usize {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    LANE.with(|lane| {
        if lane.get() == u16::MAX {
            lane.set(NEXT.fetch_add(1, Ordering::Relaxed) % LANES as u16);
        }
        usize::from(lane.get())
    })
}

impl Shared {
    pub(super) fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    pub(super) fn samples_key(&self, key: &[u8]) -> bool {
        match self.sampling {
            Sampling::Keys { one_in } => sampling_hash(key).is_multiple_of(u64::from(one_in)),
            _ => true,
        }
    }

    pub(super) fn samples_time(&self, now_us: u64) -> bool {
        match self.sampling {
            Sampling::Windows {
                record_ms,
                every_ms,
            } => (now_us / 1000) % every_ms < record_ms,
            _ => true,
        }
    }

    pub(super) fn samples_op(&self, op: &Op<'_>) -> bool {
        match op {
            Op::Put { key, .. } | Op::Delete { key } | Op::Merge { key, .. } => {
                self.samples_key(key)
            }
            // Part of every key's history.
            Op::DeleteRange { .. } => true,
        }
    }
}
