//! What a value may do besides being there: be merged with operands, expire, be filtered.
//!
//! All three come down to one question, which is asked where versions of a key meet: what does the
//! key have, given what was stored and the time? A keyspace has one [`Resolver`], which answers
//! it, and both engines ask it at one place each: an LSM tree where flushes, compactions and reads
//! fold the versions of a key ([`crate::lsm`]), a B-tree where an operation is applied to a leaf.
//!
//! # Stored values
//!
//! In a keyspace whose values may expire each value is stored with a [stamp](Stamp) behind it: when
//! it expires. It is put there before the value is logged, and taken off by the views through
//! which it is read; log and engines see plain bytes. An operand of a merge has the time of its
//! commit as well, since what it is merged into may have expired by then.
//!
//! # Rules
//!
//! - **X1** What a fold gives depends on the base and the operands only, in their order, and not on
//!   how often or when it is folded: an operator is a pure function, and whether a base had expired
//!   is decided by the time at which the operand was committed.
//! - **X2** An expired value is dropped only when every read that is registered, and every later
//!   one, takes it for expired.
//! - **X3** A filter decides only about what no live snapshot sees.
//! - **X4** What a merge goes into does not expire while the merge waits to be folded: where values
//!   expire, a merge is folded when it is applied ([`Resolver::folds_at_once`]), by both engines.
//! - **X5** Nor is it dropped while the merge may be folded once more, when the log is replayed, or
//!   has its time and is not applied yet: [`Resolver::expired_by_ms`] is no later than the times of
//!   such merges.
//! - **X6** What a filter decides about the base of a merge has a place in the order of commits:
//!   where there is an operator, sweeps ask the filter, on both engines, and log what it decides
//!   (`store::sweep`). A compaction's decision is in no log, and a merge that is replayed
//!   would go into what it has left.
//! - **X7** One job asks one filter, which it took before it looked for snapshots. Reads that begin
//!   later keep the tables as they are, if any job may be filtering
//!   ([`Resolver::compactions_filter`]).

mod clock;
mod compaction_filter;
mod merge_operator;
mod ready_operators;
mod stamp;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use clock::{Clock, ManualClock, SystemClock};
pub(crate) use clock::{StoreClock, from_unix_ms, to_unix_ms};
pub use compaction_filter::{CompactionFilter, Verdict};
pub use merge_operator::MergeOperator;
pub(crate) use ready_operators::READY;
pub use ready_operators::{AddI64, Append, MaxBytes, SetUnion};
pub(crate) use stamp::{NEVER, OperandStamp, Stamp};

use self::stamp::STAMP_BYTES;
use crate::types::MAX_VALUE_LEN_BYTES;
use crate::util::mutants::mutated;

/// What the values of one keyspace may do.
pub(crate) struct Resolver {
    operator: Option<Arc<dyn MergeOperator>>,
    /// Locked for moments.
    filter: RwLock<Option<Arc<dyn CompactionFilter>>>,
    /// See [`Resolver::filtering`]. Never waited for by one who would write.
    filtering: RwLock<()>,
    /// There was a filter at some time since the store was opened.
    has_filtered: AtomicBool,
    /// Values are stored with a stamp.
    expires: bool,
    /// For puts that name no time; 0 for none.
    default_ttl_ms: AtomicU64,
    clock: Arc<StoreClock>,
    /// The log has been replayed.
    is_recovered: AtomicBool,
    /// Times of merges that are being committed, and how many.
    merging: Mutex<BTreeMap<u64, usize>>,
    /// Entries that background work dropped, since they had expired.
    pub(crate) expired: AtomicU64,
    /// Entries that the filter has dropped or replaced.
    pub(crate) filtered: AtomicU64,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("operator", &self.operator.as_ref().map(|it| it.name()))
            .field("filter", &self.filter().map(|it| it.name().to_owned()))
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new(None, None, false, 0, Arc::default())
    }
}

/// When background work looks at an entry, and who may judge it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment<'a> {
    /// What has expired by this time is seen by no read (X2).
    pub(crate) expired_by_ms: u64,
    /// The filter, if it may judge the entry (X3).
    pub(crate) filter: Option<&'a Arc<dyn CompactionFilter>>,
}

/// What becomes of a stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Keep,
    /// It goes, since it has expired.
    Expire,
    /// It goes, as the filter says.
    Drop,
    /// It is this from now on, as stored.
    Replace(Vec<u8>),
}

impl Resolver {
    pub(crate) fn new(
        operator: Option<Arc<dyn MergeOperator>>,
        filter: Option<Arc<dyn CompactionFilter>>,
        expires: bool,
        default_ttl_ms: u64,
        clock: Arc<StoreClock>,
    ) -> Self {
        Self {
            operator,
            has_filtered: AtomicBool::new(filter.is_some()),
            filter: RwLock::new(filter),
            filtering: RwLock::new(()),
            expires,
            default_ttl_ms: AtomicU64::new(default_ttl_ms),
            clock,
            is_recovered: AtomicBool::new(false),
            merging: Mutex::default(),
            expired: AtomicU64::new(0),
            filtered: AtomicU64::new(0),
        }
    }

    /// True if values are what they are: engines have nothing to ask.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.operator.is_none() && !self.judges()
    }

    /// The operator, if merges are allowed.
    #[inline]
    pub(crate) fn operator(&self) -> Option<&Arc<dyn MergeOperator>> {
        self.operator.as_ref()
    }

    /// True if a filter judges entries.
    pub(crate) fn has_filter(&self) -> bool {
        self.filter.read().is_some()
    }

    /// The filter of this moment, if there is one.
    pub(crate) fn filter(&self) -> Option<Arc<dyn CompactionFilter>> {
        self.filter.read().clone()
    }

    /// Held by a compaction from before it takes the filter until what came out is a part of the
    /// tree: nothing that it judges is written again meanwhile by [others](Self::without_filter).
    pub(crate) fn filtering(&self) -> RwLockReadGuard<'_, ()> {
        self.filtering.read_recursive()
    }

    /// Keeps compactions from asking a filter as long as the result lives; `None` if one does so.
    pub(crate) fn without_filter(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        self.filtering.try_write()
    }

    /// The same for a compaction of an LSM tree (X6).
    pub(crate) fn filter_of_compactions(&self) -> Option<Arc<dyn CompactionFilter>> {
        let is_logged = self.operator.is_some() && !mutated!("filtered-under-a-logged-merge");
        self.filter().filter(|_| !is_logged)
    }

    /// True if a compaction has something to decide about values that stay as they are.
    pub(crate) fn compactions_judge(&self) -> bool {
        self.expires || self.filter_of_compactions().is_some()
    }

    /// True if a compaction may be asking a filter, or one that began earlier: the filter may have
    /// been taken away since.
    pub(crate) fn compactions_filter(&self) -> bool {
        self.operator.is_none() && self.has_filtered.load(Ordering::Acquire)
    }

    /// True if values are not stored apart from their keys, for what is done to them there.
    pub(crate) fn keeps_values(&self) -> bool {
        self.operator.is_some() || self.expires
    }

    /// True if values are stored with a stamp.
    #[inline]
    pub(crate) fn expires(&self) -> bool {
        self.expires
    }

    /// True if background work has something to decide about values that stay as they are.
    #[inline]
    pub(crate) fn judges(&self) -> bool {
        self.expires || self.has_filter()
    }

    /// True if merges are folded when they are applied (X4).
    #[inline]
    pub(crate) fn folds_at_once(&self) -> bool {
        self.operator.is_some() && self.expires && !mutated!("expired-value-dropped-under-a-merge")
    }

    /// For puts that name no time; `None` if they never expire.
    pub(crate) fn default_ttl_ms(&self) -> Option<u64> {
        match self.default_ttl_ms.load(Ordering::Relaxed) {
            0 => None,
            ttl => Some(ttl),
        }
    }

    /// There may be a filter from now on.
    pub(crate) fn announce_filter(&self, is_one: bool) {
        self.has_filtered.fetch_or(is_one, Ordering::AcqRel);
    }

    /// Takes what may change.
    pub(crate) fn change(&self, default_ttl_ms: u64, filter: Option<Arc<dyn CompactionFilter>>) {
        self.default_ttl_ms.store(default_ttl_ms, Ordering::Relaxed);
        self.announce_filter(filter.is_some());
        *self.filter.write() = filter;
    }

    /// Milliseconds since 1970; never falls while the store is open.
    #[inline]
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Merges that are about to be committed take their time: X5.
    pub(crate) fn begin_merges(self: &Arc<Self>) -> MergesUnderWay {
        let mut merging = self.merging.lock();
        let at_ms = self.now_ms();
        *merging.entry(at_ms).or_insert(0) += 1;
        MergesUnderWay {
            resolver: Arc::clone(self),
            at_ms,
        }
    }

    /// The log has been replayed, or there is none: what has expired may be dropped.
    pub(crate) fn recovered(&self) {
        self.is_recovered.store(true, Ordering::Release);
    }

    /// What has expired by this time may be dropped, as far as snapshots, for which `time_ms` is
    /// the lowest time, and merges under way are concerned.
    pub(crate) fn expired_by_ms(&self, time_ms: u64) -> u64 {
        if !self.is_recovered.load(Ordering::Acquire) {
            return 0;
        }
        let oldest = self.merging.lock().keys().next().copied();
        time_ms.min(oldest.unwrap_or(NEVER))
    }

    /// The value behind `stored`, unless it has expired at `now_ms`.
    #[inline]
    pub(crate) fn visible<'a>(&self, stored: &'a [u8], now_ms: u64) -> Option<&'a [u8]> {
        if !self.expires {
            return Some(stored);
        }
        let (value, stamp) = Stamp::split(stored);
        (!stamp.is_expired(now_ms) || mutated!("expired-value-shows")).then_some(value)
    }

    /// The value that `operands`, oldest first, make of `base`: all as stored.
    ///
    /// Only in a keyspace with an operator.
    pub(crate) fn fold(&self, key: &[u8], base: Option<&[u8]>, operands: &[&[u8]]) -> Vec<u8> {
        let Some(operator) = &self.operator else {
            // Only a hostile file has merges then.
            return base.unwrap_or_default().to_vec();
        };
        if !self.expires {
            return limited(operator.merge(key, base, operands), MAX_VALUE_LEN_BYTES);
        }
        let split = base.map(Stamp::split);
        let mut value = split.map(|(value, _)| value);
        let mut expires = split.map_or(0, |(_, stamp)| stamp.expires_at_ms);
        // The operands since what they are merged into was not there, or had expired.
        let mut alive = Vec::with_capacity(operands.len());
        for operand in operands {
            let (operand, stamp) = OperandStamp::split(operand);
            let is_gone = (value.is_none() && alive.is_empty())
                || expires <= stamp.written_at_ms && !mutated!("merged-into-an-expired-value");
            if is_gone {
                value = None;
                alive.clear();
                expires = stamp.expires_at_ms;
            }
            alive.push(operand);
        }
        let merged = operator.merge(key, value, &alive);
        let merged = limited(merged, self.max_value_len_bytes());
        let expires_at_ms = expires;
        Stamp { expires_at_ms }.put_behind(merged)
    }

    /// One operand that does what `operands`, oldest first, do; `None` if there is none. All as
    /// stored.
    pub(crate) fn combine(&self, key: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
        // What the first is merged into may have expired before the second.
        if self.expires {
            return None;
        }
        let combined = self.operator.as_ref()?.combine(key, operands)?;
        (combined.len() <= MAX_VALUE_LEN_BYTES - 64).then_some(combined)
    }

    /// What becomes of a value that background work comes to.
    pub(crate) fn fate(&self, key: &[u8], stored: &[u8], moment: Moment<'_>) -> Fate {
        let (value, stamp) = match self.expires {
            true => Stamp::split(stored),
            false => (stored, Stamp::NEVER),
        };
        if stamp.is_expired(moment.expired_by_ms) {
            return Fate::Expire;
        }
        let Some(filter) = moment.filter else {
            return Fate::Keep;
        };
        match filter.judge(key, value) {
            Verdict::Keep => Fate::Keep,
            Verdict::Drop => Fate::Drop,
            Verdict::Replace(new) => {
                let new = limited(new, self.max_value_len_bytes());
                match new == value {
                    true => Fate::Keep,
                    false if self.expires => Fate::Replace(stamp.put_behind(new)),
                    false => Fate::Replace(new),
                }
            }
        }
    }

    /// So many entries that had expired are gone, and so many are as the filter said.
    pub(crate) fn count(&self, expired: u64, filtered: u64) {
        self.expired.fetch_add(expired, Ordering::Relaxed);
        self.filtered.fetch_add(filtered, Ordering::Relaxed);
    }

    /// The longest value, without its stamp.
    pub(crate) fn max_value_len_bytes(&self) -> usize {
        match self.expires {
            true => MAX_VALUE_LEN_BYTES - STAMP_BYTES,
            false => MAX_VALUE_LEN_BYTES,
        }
    }

    /// When `stored` expires.
    pub(crate) fn expires_at_ms(&self, stored: &[u8]) -> u64 {
        match self.expires {
            true => Stamp::split(stored).1.expires_at_ms,
            false => NEVER,
        }
    }
}

/// What one job of an LSM tree has judged. It counts once the job's edit is made: a job that fails
/// comes by the same entries again.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// Entries that are dropped, since they have expired.
    pub(crate) expired: Cell<u64>,
    /// Entries that the filter drops or replaces.
    filtered: Cell<u64>,
}

impl Judged {
    /// One more entry.
    pub(crate) fn note(&self, fate: &Fate) {
        let count = match fate {
            Fate::Keep => return,
            Fate::Expire => &self.expired,
            Fate::Drop | Fate::Replace(_) => &self.filtered,
        };
        count.set(count.get() + 1);
    }

    /// True if any was judged.
    pub(crate) fn has_any(&self) -> bool {
        self.expired.get() > 0 || self.filtered.get() > 0
    }

    /// All of it is so now.
    pub(crate) fn count_in(&self, resolver: &Resolver) {
        resolver.count(self.expired.get(), self.filtered.get());
    }
}

/// Merges that have their time and are not applied yet.
#[derive(Debug)]
pub(crate) struct MergesUnderWay {
    resolver: Arc<Resolver>,
    at_ms: u64,
}

impl MergesUnderWay {
    /// Their time, in milliseconds since 1970.
    pub(crate) fn at_ms(&self) -> u64 {
        self.at_ms
    }
}

impl Drop for MergesUnderWay {
    fn drop(&mut self) {
        let mut merging = self.resolver.merging.lock();
        if let Some(count) = merging.get_mut(&self.at_ms) {
            *count -= 1;
            if *count == 0 {
                merging.remove(&self.at_ms);
            }
        }
    }
}

/// What code of the user made, cut to the longest that a value can be.
fn limited(mut value: Vec<u8>, limit_bytes: usize) -> Vec<u8> {
    value.truncate(limit_bytes);
    value
}

#[cfg(test)]
mod tests;
