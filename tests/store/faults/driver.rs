//! A store on a faulty disk, and beside it what the store must hold.
//!
//! The [`Driver`] does what a workload says, notes what was acknowledged, and compares whatever it
//! reads. What a workload asks for may fail at any time; the driver decides whether it was allowed
//! to, and goes on. Here is what it knows, and which errors it lets pass; [`opening`], [`writing`]
//! and [`reading`] are what it can be asked for, [`history`] what was committed, [`dropped`] what a
//! failed sync may have made unreadable, [`judge`] what must be left of it in the end.

mod dropped;
mod history;
mod judge;
mod opening;
mod reading;
mod writing;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hedgerow::fs::{Fault, FaultFs, FaultPlan, OpKind, SimFs};
use hedgerow::{Db, EngineKind, Error, Keyspace, ManualClock, MemtableKind, Options, Result};
use support::filter::DropMarked;
use support::sizes::{Variant, single_threaded};

use dropped::Apart;
use history::{Commit, Incarnation, Map, State, Times, apply};
pub use history::{Edit, key_of};

const ROOT: &str = "/store";

/// One operation of the file system that fails, in one way.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    pub kind: OpKind,
    pub nth: u64,
    pub fault: Fault,
    /// What fails from then on as well.
    pub lasting: &'static [OpKind],
}

impl Position {
    fn plan(&self) -> FaultPlan {
        FaultPlan::once(&[self.kind], self.nth, self.fault).and_then_all(self.lasting)
    }

    /// True if what a sync was to keep may be gone.
    fn loses_synced(&self) -> bool {
        self.kind == OpKind::Sync && matches!(self.fault, Fault::SyncDropped | Fault::SyncLost)
    }

    /// True if a sync that fails takes what it was to keep out of sight at once.
    fn drops_at_once(&self) -> bool {
        self.kind == OpKind::Sync && self.fault == Fault::SyncDropped
    }

    /// True if the store may turn read-only: a sync can fail, or the read of a page that a B-tree
    /// needs to apply a commit that is already logged.
    fn may_end_writing(&self) -> bool {
        let kinds = self.lasting.iter().chain([&self.kind]);
        kinds
            .copied()
            .any(|kind| matches!(kind, OpKind::Sync | OpKind::SyncDir | OpKind::Read))
    }
}

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Present,
    /// Making or dropping it failed.
    Unknown,
    Gone,
}

struct Slot {
    of: Incarnation,
    engine: EngineKind,
    presence: Presence,
    handle: Option<Keyspace>,
}

pub struct Driver {
    /// The engine of the keyspace `main`.
    pub engine: EngineKind,
    memtable: MemtableKind,
    options: Options,
    fs: FaultFs,
    mem: SimFs,
    position: Option<Position>,
    db: Option<Db>,
    slots: BTreeMap<&'static str, Slot>,
    incarnations: usize,
    acknowledged: Vec<Commit>,
    /// So many of them are durable.
    durable: usize,
    /// Commits that failed after the last acknowledged one: any one of them may be there after
    /// reopening.
    doubtful: Vec<Commit>,
    live: State,
    /// What the store holds is not known until the end: opening it again failed.
    lost_sight: bool,
    /// What checkpoints or a whole keyspace may answer with until the store is reopened.
    stuck: RefCell<Vec<String>>,
    /// A call met the fault more than once: errors that stay may not have been seen.
    several_failed: Cell<bool>,
    /// Values that were stored apart from their keys since the store was opened.
    apart: Vec<Apart>,
    /// A sync that fails takes what it was to keep out of sight at once.
    drops_at_once: bool,
    changes: u64,
    clock: ManualClock,
    times: Times,
    /// Keyspaces are made with a filter.
    has_filter: bool,
}

impl Driver {
    pub fn new(variant: Variant, position: Option<Position>) -> Self {
        let mem = SimFs::new();
        let fs = FaultFs::new(Arc::new(mem.clone()));
        // Nothing leaves the cache, or chance would decide what is read.
        let clock = ManualClock::new();
        let options = single_threaded(Arc::new(fs.clone()))
            .cache_bytes(8 << 20)
            .clock(clock.clone())
            .sweep_period(Duration::from_millis(10))
            .compaction_filter(DropMarked);
        if let Some(position) = &position {
            fs.plan(position.plan());
        }
        Self {
            engine: variant.engine,
            memtable: variant.memtable,
            options,
            fs,
            mem,
            position,
            db: None,
            slots: BTreeMap::new(),
            incarnations: 0,
            acknowledged: Vec::new(),
            durable: 0,
            doubtful: Vec::new(),
            live: State::new(),
            lost_sight: false,
            stuck: RefCell::default(),
            several_failed: Cell::default(),
            apart: Vec::new(),
            drops_at_once: position.is_some_and(|position| position.drops_at_once()),
            changes: 0,
            clock,
            times: Times::default(),
            has_filter: false,
        }
    }

    /// Changes the options of the opens to come.
    pub fn with(&mut self, change: impl FnOnce(Options) -> Options) {
        self.options = change(self.options.clone());
    }

    pub fn fired(&self) -> u64 {
        self.fs.fired()
    }

    pub fn counts(&self) -> Vec<(OpKind, u64)> {
        OpKind::ALL
            .iter()
            .map(|kind| (*kind, self.fs.count(*kind)))
            .collect()
    }

    /// True if an error is to be expected: the fault came during the call, or lasts.
    fn excused(&self, fired_before: u64, reading: bool) -> bool {
        let Some(position) = &self.position else {
            return false;
        };
        let lasts = self.fs.fired() > 0
            && position
                .lasting
                .iter()
                .any(|kind| !reading || !kind.is_change());
        self.fs.fired() > fired_before || lasts
    }

    /// True for an error that stays until the store is opened again.
    fn is_stuck(&self, error: &Error) -> bool {
        let is_known = self.stuck.borrow().contains(&format!("{error:#}"));
        is_known || self.several_failed.get() && ends_checkpoints(error)
    }

    /// Runs something that only a fault may make fail.
    #[track_caller]
    fn attempt<T>(&self, what: &str, reading: bool, act: impl FnOnce() -> Result<T>) -> Option<T> {
        let before = self.fs.fired();
        match act() {
            Ok(value) => Some(value),
            Err(error) => {
                let stopped = matches!(error, Error::WritesStopped { .. }) && !reading;
                let after_sync = stopped && self.position.is_some_and(|p| p.may_end_writing());
                let stuck = self.is_stuck(&error);
                assert!(
                    self.excused(before, reading) || after_sync || stuck,
                    "{what} failed without a reason: {error}"
                );
                self.expect_plain_words(&error);
                if ends_checkpoints(&error) {
                    self.stuck.borrow_mut().push(format!("{error:#}"));
                }
                None
            }
        }
    }

    /// Trouble with the disk is called that: not damage, not a missing key.
    #[track_caller]
    fn expect_plain_words(&self, error: &Error) {
        assert!(
            matches!(error, Error::Io { .. } | Error::WritesStopped { .. }),
            "an I/O error turned into {error:?}"
        );
    }
}

/// True if a B-tree checkpoint failed where nobody knows which tree a reopen would find. No later
/// one is tried then, until the store is reopened.
pub fn ends_checkpoints(error: &Error) -> bool {
    match error {
        Error::Io {
            op, path, offset, ..
        } if path.ends_with("tree.hdb") => {
            *op == "sync" || *op == "write" && offset.is_some_and(|at| at < 2048)
        }
        _ => false,
    }
}

/// True if a page could not be read that a B-tree needed to apply a commit. The commit was logged,
/// so the keyspace may answer with this until the store is reopened.
fn ends_applying(error: &Error) -> bool {
    matches!(error, Error::Io { op: "read", path, .. } if path.ends_with("tree.hdb"))
}

/// True if records of the log could not be synced, not a segment in the making.
fn is_log_sync(error: &Error) -> bool {
    matches!(error, Error::Io { op: "sync", path, .. } if path.extension().is_some_and(|e| e == "log"))
}
