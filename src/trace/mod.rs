//! Workload traces: what was asked of a store, recorded as it happens and read back later.
//!
//! A store opened with [`Options::record_to`](crate::Options::record_to) writes a trace: every
//! operation with its keyspace, key, sizes and time. `hedgerow replay` runs a trace on either
//! engine, `hedgerow advise` says which one fits; docs/trace.md is the guide, docs/format.md
//! ("Workload trace") has the bytes.
//!
//! ```text
//! keyspace, snapshot, store ──Hook──▶ lane buffers ──bounded queue──▶ writer thread ──▶ file
//!                             (a lock per lane, memory only)          (compresses, writes)
//!
//! file ──▶ Reader ──▶ Event, Event, ...   in the order of time
//! ```
//!
//! # Invariants
//!
//! - **TR1** Recording never waits: the lock of a lane is held for encoding a few bytes, never over
//!   I/O. What the writer thread cannot keep up with is dropped, counted, and the count is in the
//!   trace.
//! - **TR2** A store without recording pays one branch on an `Option` for each operation.
//! - **TR3** A failing disk, or a trace that reached its limit, ends the trace and nothing else.
//! - **TR4** Times do not fall within a lane. A watermark in the file says that everything older
//!   than it stands before it, so a reader restores the order of time with bounded memory.
//! - **TR5** A write is stamped when it begins, one with a condition when it is logged, a read when
//!   it has ended: a read that saw what another thread wrote stands behind it in the trace.
//! - **TR6** A trace is not the store's: nothing in the store depends on it, and it is synced only
//!   at the end.
//!
//! Lacking on purpose: latencies (a replay measures its own), contents of values (unless asked
//! for), operations that were refused or failed, each try of an `update` that met another commit
//! among them; but a write without a condition is recorded when it begins (TR5), so one that fails
//! while it is logged is in the trace.

mod event;
mod format;
mod hook;
mod lanes;
mod reader;
mod recorder;
#[cfg(test)]
mod tests;
mod writer;

pub use crate::options::{KeyMode, Recording, Sampling, TraceOptions, ValueMode};
pub use event::{Change, Event, Key, Lookup, Op};
pub(crate) use hook::Hook;
pub use reader::{Reader, TraceEnd, TraceKeyspace};
pub(crate) use recorder::{Recorder, check_path};

/// Figures about a recording, now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordingStats {
    /// Events taken so far, those on their way to the file included. Sampling leaves out what it
    /// leaves out before this count.
    pub events: u64,
    /// Events that were lost because the writer thread could not keep up, or came after the end.
    pub dropped: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Why recording ended before the store was closed.
    pub stopped: Option<String>,
}
