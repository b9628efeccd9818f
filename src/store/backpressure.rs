//! Back-pressure: slowing writers down before there is nothing left to do but stop them.
//!
//! Under [`Pressure::Slow`] writers of a keyspace share a token bucket whose rate falls smoothly
//! with the pressure. A writer takes the time slot after the previous writer's and waits for it
//! to begin, so the delay is proportional to the bytes written and there is no stop-and-go. When
//! the pressure has gone, so have the slots that were taken: no writer waits for a debt that is
//! paid.
//! Under [`Pressure::Stop`] writers wait for background work to report progress; that work
//! needs no further write.
//!
//! Called before any lock is taken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::engine::Pressure;

/// Shorter waits are saved up: the operating system cannot sleep for less.
const MIN_WAIT: Duration = Duration::from_micros(200);

/// The token bucket of one keyspace.
#[derive(Debug)]
pub(crate) struct Throttle {
    origin: Instant,
    /// When the next time slot begins, in nanoseconds after `origin`.
    next_slot_ns: AtomicU64,
}

/// How long writers of a store waited, added up.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    slowed_ns: AtomicU64,
    stopped_ns: AtomicU64,
}

impl Throttle {
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            next_slot_ns: AtomicU64::new(0),
        }
    }

    /// The pressure has gone: slots that were taken ahead are free again.
    #[inline]
    pub(crate) fn release(&self) {
        if self.next_slot_ns.load(Ordering::Relaxed) != 0 {
            self.next_slot_ns.store(0, Ordering::Relaxed);
        }
    }

    /// What is left of a wait when the pressure falls from `before` to `now`.
    pub(crate) fn rescale(&self, left: Duration, before: f64, now: f64) -> Duration {
        let next = self.next_slot_ns.load(Ordering::Relaxed);
        let factor = Pressure::rate(before) / Pressure::rate(now);
        let now_ns = self.origin.elapsed().as_nanos() as u64;
        let ahead = (next.saturating_sub(now_ns) as f64 * factor) as u64;
        // Best effort: a slot that is taken at this very moment may be forgotten.
        let _ = self.next_slot_ns.compare_exchange(
            next,
            now_ns.saturating_add(ahead),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        left.mul_f64(factor)
    }

    /// Takes a time slot for `bytes` under `pressure` (0 to 1) and returns how long to wait.
    pub(crate) fn delay(&self, pressure: f64, bytes: u64) -> Option<Duration> {
        let now = self.origin.elapsed().as_nanos() as u64;
        self.delay_at(now, pressure, bytes)
    }

    fn delay_at(&self, now_ns: u64, pressure: f64, bytes: u64) -> Option<Duration> {
        let cost_ns = (bytes + Pressure::OP_COST_BYTES) as f64 / Pressure::rate(pressure) * 1e9;
        let mut slot = 0;
        let _ = self
            .next_slot_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                slot = next.max(now_ns);
                Some(slot.saturating_add(cost_ns as u64))
            });
        let wait = Duration::from_nanos(slot - now_ns);
        (wait >= MIN_WAIT).then_some(wait)
    }
}

impl Waits {
    /// Adds to the figures.
    pub(crate) fn note(&self, pressure: Pressure, waited: Duration) {
        let counter = match pressure {
            Pressure::Stop => &self.stopped_ns,
            _ => &self.slowed_ns,
        };
        counter.fetch_add(waited.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Time that writers were slowed and stopped so far, in milliseconds.
    pub(crate) fn waited_ms(&self) -> (u64, u64) {
        let ms = |counter: &AtomicU64| counter.load(Ordering::Relaxed) / 1_000_000;
        (ms(&self.slowed_ns), ms(&self.stopped_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_falls_smoothly() {
        assert!((Pressure::rate(0.0) - Pressure::RATE_AT_ZERO).abs() < 1.0);
        assert!((Pressure::rate(1.0) - Pressure::RATE_AT_ONE).abs() < 1.0);
        let rates: Vec<_> = (0..=10)
            .map(|step| Pressure::rate(f64::from(step) / 10.0))
            .collect();
        assert!(rates.windows(2).all(|pair| pair[0] > pair[1]));
        for (rate, step) in rates.iter().zip(0..) {
            let pressure = Pressure::for_rate(*rate);
            assert!((pressure - f64::from(step) / 10.0).abs() < 1e-9);
        }
        assert_eq!(Pressure::for_rate(1.0), 1.0);
        assert_eq!(Pressure::for_rate(1e12), 0.0);
    }

    #[test]
    fn waits_add_up_to_the_rate() {
        let throttle = Throttle::new();
        let mut now_ns = 0;
        let mut bytes = 0;
        while now_ns < 1_000_000_000 {
            bytes += 936 + Pressure::OP_COST_BYTES;
            if let Some(wait) = throttle.delay_at(now_ns, 1.0, 936) {
                now_ns += wait.as_nanos() as u64;
            }
        }
        let expected = Pressure::RATE_AT_ONE as u64;
        assert!(
            (expected * 9 / 10..expected * 11 / 10).contains(&bytes),
            "{bytes}"
        );
    }

    #[test]
    fn slots_are_free_again_when_the_pressure_has_gone() {
        let throttle = Throttle::new();
        // A debt of many seconds.
        throttle.delay_at(0, 1.0, 64 << 20);
        assert!(throttle.delay_at(0, 1.0, 2).unwrap() > Duration::from_secs(30));
        throttle.release();
        assert_eq!(throttle.delay_at(0, 1.0, 2), None);
    }

    #[test]
    fn waits_are_shorter_when_the_pressure_falls() {
        let throttle = Throttle::new();
        throttle.delay_at(0, 1.0, 64 << 20);
        let left = throttle.rescale(Duration::from_secs(32), 1.0, 0.5);
        let expected = 32.0 * Pressure::rate(1.0) / Pressure::rate(0.5);
        assert!((left.as_secs_f64() - expected).abs() < 0.01, "{left:?}");
        assert!(throttle.delay(0.5, 2).unwrap() < Duration::from_secs(4));
    }
}
