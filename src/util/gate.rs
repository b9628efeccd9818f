//! A gate: calls that are inside are counted, and closing it waits for them.
//!
//! Calls that end by themselves are *inside*: closing waits for them. What lives as long as a user
//! likes, a scan or a closure of the user's, *stays*: closing does not wait for it, but what the
//! gate keeps is dropped only when the last of these has left as well.
//!
//! Going in and out costs two uncontended atomic additions, in a shard of the calling thread.
//!
//! Invariants:
//! - GT1: after [`Gate::close`] no call goes in. A call that went in before is seen by everything
//!   that waits: both sides write their own word before they read the other's, sequentially
//!   consistent.
//! - GT2: what [`Gate::keep`] was given is dropped once the gate is closed and no call is inside or
//!   stays, by the call that leaves last.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::sharded::{SHARDS, shard_of_thread};
use super::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use super::sync::{Condvar, Mutex};

/// What a gate keeps until it is closed and empty.
type Kept = Box<dyn Any + Send>;

/// Longest sleep of a closing thread; leaving wakes it, so this only bounds the harm of a lost
/// wake-up.
const CLOSING_WAIT: Duration = Duration::from_millis(50);

/// Counts calls that are inside.
#[derive(Debug)]
pub(crate) struct Gate {
    shards: [Arc<Shard>; SHARDS],
    state: Arc<State>,
}

/// The part of some threads, in cache lines of its own.
#[repr(align(128))]
#[derive(Debug)]
struct Shard {
    inside: AtomicU64,
    staying: AtomicU64,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    closed: AtomicBool,
    shards: OnceLock<[Weak<Shard>; SHARDS]>,
    kept: Mutex<Option<Kept>>,
    a_call_left: Condvar,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// A call is inside; dropping it leaves.
#[derive(Debug)]
#[must_use = "dropping it leaves"]
pub(crate) struct Pass<'a>(&'a Shard);

/// A scan, a snapshot or a closure stays for as long as this lives.
#[derive(Debug)]
#[must_use = "dropping it leaves"]
pub(crate) struct Stay(Arc<Shard>);

impl Gate {
    /// An open gate.
    pub(crate) fn new() -> Self {
        let state = Arc::new(State::default());
        let shards = std::array::from_fn(|_| {
            Arc::new(Shard {
                inside: AtomicU64::new(0),
                staying: AtomicU64::new(0),
                state: Arc::clone(&state),
            })
        });
        let _ = state.shards.set(shards.each_ref().map(Arc::downgrade));
        Self { shards, state }
    }

    /// True once it is closed.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.state.closed.load(Ordering::Relaxed)
    }

    /// Goes in; `None` if the gate is closed.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Pass<'_>> {
        let shard = &*self.shards[shard_of_thread()];
        shard.inside.fetch_add(1, Ordering::SeqCst);
        let pass = Pass(shard);
        (!self.state.closed.load(Ordering::SeqCst)).then_some(pass)
    }

    /// Goes in to stay; `None` if the gate is closed.
    #[inline]
    pub(crate) fn stay(&self) -> Option<Stay> {
        let shard = &self.shards[shard_of_thread()];
        shard.staying.fetch_add(1, Ordering::SeqCst);
        let stay = Stay(Arc::clone(shard));
        (!self.state.closed.load(Ordering::SeqCst)).then_some(stay)
    }

    /// Lets no call in from now on (GT1).
    pub(crate) fn close(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
    }

    /// Waits until no call is inside. For a closed gate.
    pub(crate) fn wait_until_empty(&self) {
        let mut kept = self.state.kept.lock();
        while self.state.sum(|shard| &shard.inside) > 0 {
            self.state.a_call_left.wait_for(&mut kept, CLOSING_WAIT);
        }
    }

    /// Keeps `what` until the gate is closed and every call has left (GT2).
    pub(crate) fn keep(&self, what: Kept) {
        *self.state.kept.lock() = Some(what);
        if self.state.closed.load(Ordering::SeqCst) {
            self.state.drop_kept();
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.close();
        self.state.drop_kept();
    }
}

impl State {
    fn sum(&self, count: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        let shards = self.shards.get().into_iter().flatten();
        // A shard that is gone has no call in it.
        let shards = shards.filter_map(Weak::upgrade);
        shards
            .map(|shard| count(&shard).load(Ordering::SeqCst))
            .sum()
    }

    /// A call has left a closed gate.
    #[cold]
    fn left(&self) {
        self.drop_kept();
        // Taking the lock orders this after the last look of a thread that waits.
        drop(self.kept.lock());
        self.a_call_left.notify_all();
    }

    /// Drops what is kept, if no call needs it (GT2).
    fn drop_kept(&self) {
        let mut kept = self.kept.lock();
        let all = self.sum(|shard| &shard.inside) + self.sum(|shard| &shard.staying);
        let unneeded = if all == 0 { kept.take() } else { None };
        drop(kept);
        drop(unneeded);
    }
}

impl Drop for Pass<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
        if self.0.state.closed.load(Ordering::SeqCst) {
            self.0.state.left();
        }
    }
}

impl Drop for Stay {
    #[inline]
    fn drop(&mut self) {
        self.0.staying.fetch_sub(1, Ordering::SeqCst);
        if self.0.state.closed.load(Ordering::SeqCst) {
            self.0.state.left();
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    /// Something to keep, and whether it still exists.
    fn token() -> (Kept, Weak<()>) {
        let token = Arc::new(());
        let weak = Arc::downgrade(&token);
        (Box::new(token), weak)
    }

    #[test]
    fn no_call_goes_in_after_it_was_closed() {
        let gate = Gate::new();
        assert!(gate.enter().is_some() && gate.stay().is_some() && !gate.is_closed());
        gate.close();
        assert!(gate.enter().is_none() && gate.stay().is_none() && gate.is_closed());
        gate.wait_until_empty();
    }

    #[test]
    fn what_it_keeps_goes_with_the_last_that_leaves() {
        let gate = Gate::new();
        let (kept, weak) = token();
        gate.keep(kept);
        let (first, second) = (gate.stay().unwrap(), gate.stay().unwrap());
        gate.close();
        gate.wait_until_empty();
        drop(first);
        assert!(weak.upgrade().is_some(), "one still stays");
        drop(second);
        assert!(weak.upgrade().is_none());
        let (kept, weak) = token();
        gate.keep(kept);
        assert!(weak.upgrade().is_none(), "there is no call to wait for");
    }

    #[test]
    fn what_stays_may_outlive_the_gate() {
        let gate = Gate::new();
        let (kept, weak) = token();
        gate.keep(kept);
        let stay = gate.stay().unwrap();
        drop(gate);
        assert!(weak.upgrade().is_some());
        // Elsewhere, and in another shard than it came in by.
        std::thread::spawn(move || drop(stay)).join().unwrap();
        assert!(weak.upgrade().is_none());
    }

    #[test]
    fn closing_waits_for_calls_inside() {
        let gate = Gate::new();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (entered, wait) = std::sync::mpsc::channel();
            scope.spawn({
                let (gate, done) = (&gate, &done);
                move || {
                    let pass = gate.enter().unwrap();
                    entered.send(()).unwrap();
                    // Work that goes on while the other thread closes.
                    while !gate.is_closed() {
                        std::thread::yield_now();
                    }
                    done.store(true, Ordering::SeqCst);
                    drop(pass);
                }
            });
            wait.recv().unwrap();
            gate.close();
            gate.wait_until_empty();
            assert!(done.load(Ordering::SeqCst));
        });
    }
}
