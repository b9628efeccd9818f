//! Values that are stored once, apart from their keys.
//!
//! A put whose value reaches the keyspace's threshold is logged like any other. Its engine is given
//! a *reference* to where the value lies in the log, and keeps that in the place of the value. A
//! segment of the log that the log no longer needs, but some reference does, leaves the log as a
//! *value file*. So a value is written to storage once, by the commit. docs/values.md says why it
//! is done so and what else was considered.
//!
//! ```text
//!           append               retire, held              the last hold ends
//!   N.log --------> N.log, live ------------> N.val, dead or alive ----------> (removed)
//!                        |
//!                        +--- retire, not held ---> recycled by the log
//! ```
//!
//! # Invariants
//!
//! - **VF1** A file that a reference leads to is *held* ([`FileHold`]) by what has the reference: a
//!   memtable, an open table, a B-tree. A reader holds those, so it can read every reference that
//!   it finds. One that reads a value by and by ([`OpenValue`]) holds the file itself.
//! - **VF2** New holds begin while another one lasts, or with a record of the log that an engine
//!   has not persisted: the log keeps the segment of such a record. So a file that left the log and
//!   is not held will never be held again, and may be removed. A file that a value was streamed
//!   into never was in the log: it is held until its commit is applied, and recovery removes none
//!   before it has replayed the log.
//! - **VF3** A file leaves the log, or is removed, with one change of one directory. What a power
//!   loss makes of it, the file is there under one of its names as long as any table or page on the
//!   disk refers to it: those go durably before their hold does.
//! - **VF4** The bytes of a value never change while its file is held; a value is durable before a
//!   table or a checkpoint is that refers to it, by law E3.
//!
//! A value that is *streamed* is in a file of its own, which is made beside the log and has the
//! number of no segment ([`FileKind::Streamed`]).
//!
//! How many bytes of a file are alive is counted nowhere. Each table says what it refers to, as
//! does each B-tree's file, and the sum over those of the moment is the answer; it counts what was
//! overwritten until compaction removes it.
//!
//! Thread safety: everything here may be used from any thread.

mod file;
mod open_value;
mod read_ahead;
mod reference;
mod registry;

pub(crate) use file::{FileHold, PartOfValue, Postponed};
pub(crate) use open_value::OpenValue;
pub(crate) use read_ahead::{ReadAhead, Scout, Way};
pub(crate) use reference::{Digest, EncodedRef, GrowingDigest, MAX_REF_LEN_BYTES, ValueRef};
pub(crate) use registry::{FileKind, StoredValues, ValueFileFacts, ValueFiles};

/// Shortest value that can be stored apart: a reference takes about as much.
pub(crate) const MIN_VALUE_THRESHOLD_BYTES: u32 = 16;
