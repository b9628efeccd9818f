//! The time by which values expire.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::stamp::NEVER;

/// A clock, for the expiry of values ([`Options::clock`](crate::Options::clock)).
///
/// A store takes the highest time that it was ever told since it was opened: within one opening
/// what has expired stays so, whatever the clock does. Nothing else depends on it: the order of
/// commits is that of sequence numbers.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Now. Called by every read of a keyspace whose values may expire, so it must be cheap.
    fn now(&self) -> SystemTime;
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that stands still until it is told to go on, for tests. Clones are the same clock.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use std::time::Duration;
/// use hedgerow::{EngineKind, KeyspaceOptions, ManualClock, Options};
///
/// let clock = ManualClock::new();
/// let db = Options::new().clock(clock.clone()).open(dir.path().join("my.db"))?;
/// let options = KeyspaceOptions::new(EngineKind::Lsm).expiry(true);
/// let sessions = db.keyspace_with("sessions", options)?;
/// sessions.put_with_ttl("ada", "token", Duration::from_secs(60))?;
/// clock.advance(Duration::from_secs(59));
/// assert!(sessions.contains_key("ada")?);
/// clock.advance(Duration::from_secs(1));
/// assert!(!sessions.contains_key("ada")?);
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    ms: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that stands at the beginning of 1970.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has the clock go on by `time`, in whole milliseconds.
    pub fn advance(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let add = |now: u64| Some(now.saturating_add(ms));
        let _ = self
            .ms
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        let since = Duration::from_millis(self.ms.load(Ordering::SeqCst));
        UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
    }
}

/// Milliseconds since 1970; zero before.
pub(crate) fn to_unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time of so many milliseconds since 1970; `None` of what never comes.
pub(crate) fn from_unix_ms(ms: u64) -> Option<SystemTime> {
    if ms == NEVER {
        return None;
    }
    UNIX_EPOCH.checked_add(Duration::from_millis(ms))
}

/// The clock of a store: never goes back while the store is open.
#[derive(Debug)]
pub(crate) struct StoreClock {
    clock: Arc<dyn Clock>,
    latest_ms: AtomicU64,
}

impl StoreClock {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            latest_ms: AtomicU64::new(0),
        }
    }

    /// Milliseconds since 1970.
    #[inline]
    pub(crate) fn now_ms(&self) -> u64 {
        // What never expires does not at the end of time.
        let now = to_unix_ms(self.clock.now()).min(NEVER - 1);
        // Written once for each millisecond at most.
        if now > self.latest_ms.load(Ordering::Relaxed) {
            self.latest_ms.fetch_max(now, Ordering::Relaxed).max(now)
        } else {
            self.latest_ms.load(Ordering::Relaxed)
        }
    }
}

impl Default for StoreClock {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}
