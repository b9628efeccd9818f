//! Read-ahead of values that are stored apart, for scans.
//!
//! What is next in the order of keys may lie anywhere in the value files. A scan that waits for the
//! device at each value waits for one after the other, where the device could work at many. So a
//! scan that comes to a value which may not be in memory sends a *scout* ahead: a second cursor
//! over the same view, which looks at references only, and asks for what they lead to. How far it
//! goes ahead grows with the scan, so a short one asks for little that it does not come to.
//!
//! As long as values are in memory ([`Residency`](crate::util::residency::Residency)) there is no
//! scout.

use crate::error::Result;
use crate::values::ValueFiles;

/// Entries that a scout goes ahead at first, and at most.
const FIRST_ENTRIES: usize = 8;
const MOST_ENTRIES: usize = 128;
/// Bytes that it asks for at once, at most, but for one value.
const MOST_BYTES: u64 = 4 << 20;

/// The way of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Forward,
    Backward,
}

/// A cursor that can be sent ahead.
pub(crate) trait Scout {
    /// Stands on the entry of `key`, which is there.
    fn go_to(&mut self, key: &[u8]) -> Result<()>;

    /// Goes on by an entry. False if there is none, or none that the scan comes to.
    fn step(&mut self, way: Way) -> Result<bool>;

    /// The reference of the entry, if its value is stored apart.
    fn reference(&self) -> Option<&[u8]>;
}

/// A scout, and how far it is ahead.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    scout: S,
    way: Way,
    /// Entries between the scan and the scout.
    ahead: usize,
    /// How far it is to be ahead.
    wanted: usize,
    /// The scan has passed the scout.
    is_passed: bool,
    /// There is nothing further on, or it cannot be read, which the scan will find out.
    is_over: bool,
}

impl<S: Scout> ReadAhead<S> {
    /// The scan stands on the entry of `key`, whose value may not be in memory: sends the scout on,
    /// which `make` makes if there is none.
    pub(crate) fn send(
        slot: &mut Option<Box<Self>>,
        key: &[u8],
        way: Way,
        values: &ValueFiles,
        make: impl FnOnce() -> S,
    ) {
        if slot.as_ref().is_some_and(|ahead| ahead.way != way) {
            *slot = None;
        }
        let ahead = slot.get_or_insert_with(|| {
            Box::new(Self {
                scout: make(),
                way,
                ahead: 0,
                wanted: FIRST_ENTRIES / 2,
                is_passed: true,
                is_over: false,
            })
        });
        // Whatever it meets, the scan will meet.
        if !ahead.is_over && ahead.go_on(key, values).is_err() {
            ahead.is_over = true;
        }
    }

    fn go_on(&mut self, key: &[u8], values: &ValueFiles) -> Result<()> {
        if self.is_passed {
            self.scout.go_to(key)?;
            (self.is_passed, self.ahead) = (false, 0);
        }
        if self.ahead > self.wanted / 2 {
            return Ok(());
        }
        self.wanted = (2 * self.wanted).min(MOST_ENTRIES);
        let mut bytes = 0;
        while self.ahead < self.wanted && bytes < MOST_BYTES {
            if !self.scout.step(self.way)? {
                self.is_over = true;
                break;
            }
            self.ahead += 1;
            if let Some(reference) = self.scout.reference() {
                bytes += values.ask_for(reference)?;
            }
        }
        Ok(())
    }

    /// The scan went on by an entry.
    #[inline]
    pub(crate) fn passed(&mut self) {
        match self.ahead.checked_sub(1) {
            Some(ahead) => self.ahead = ahead,
            None => self.is_passed = true,
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::testing::no_values;

    /// Counts up or down, and notes how often it was placed.
    #[derive(Debug, Default)]
    struct Counter {
        at: u8,
        places: usize,
        fails_at: Option<u8>,
    }

    impl Scout for Counter {
        fn go_to(&mut self, key: &[u8]) -> Result<()> {
            self.at = key[0];
            self.places += 1;
            Ok(())
        }

        fn step(&mut self, way: Way) -> Result<bool> {
            if self.fails_at == Some(self.at) {
                return Err(Error::invalid("damaged"));
            }
            let next = match way {
                Way::Forward => self.at.checked_add(1).filter(|at| *at < 200),
                Way::Backward => self.at.checked_sub(1),
            };
            self.at = next.unwrap_or(self.at);
            Ok(next.is_some())
        }

        fn reference(&self) -> Option<&[u8]> {
            None
        }
    }

    fn send(slot: &mut Option<Box<ReadAhead<Counter>>>, at: u8, way: Way, make: Counter) -> u8 {
        let values = no_values(&(std::sync::Arc::new(crate::fs::SimFs::new()) as _));
        ReadAhead::send(slot, &[at], way, &values, || make);
        slot.as_ref().unwrap().scout.at
    }

    #[test]
    fn a_scout_goes_further_ahead_the_longer_a_scan_is() {
        let mut slot = None;
        let mut least = 0;
        for at in 0..199 {
            let reached = send(&mut slot, at, Way::Forward, Counter::default());
            let ahead = reached - at;
            assert!(ahead as usize <= MOST_ENTRIES && (ahead >= least.min(199 - at)));
            least = match at {
                0 => FIRST_ENTRIES as u8 / 2,
                n => least.max((n / 4).min(MOST_ENTRIES as u8 / 2)),
            };
            slot.as_mut().unwrap().passed();
        }
        assert_eq!(slot.as_ref().unwrap().scout.places, 1);
    }

    #[test]
    fn a_scan_that_turned_or_went_past_its_scout_has_it_placed_anew() {
        let mut slot = None;
        assert_eq!(send(&mut slot, 50, Way::Forward, Counter::default()), 58);
        // Values were in memory for a while.
        (0..20).for_each(|_| slot.as_mut().unwrap().passed());
        assert_eq!(send(&mut slot, 70, Way::Forward, Counter::default()), 86);
        assert_eq!(slot.as_ref().unwrap().scout.places, 2);
        assert_eq!(send(&mut slot, 70, Way::Backward, Counter::default()), 62);
        assert_eq!(send(&mut slot, 3, Way::Forward, Counter::default()), 11);
    }

    #[test]
    fn a_scout_that_meets_an_error_or_the_end_goes_no_further() {
        let damaged = || Counter {
            fails_at: Some(4),
            ..Counter::default()
        };
        let mut slot = None;
        assert_eq!(send(&mut slot, 0, Way::Forward, damaged()), 4);
        assert_eq!(send(&mut slot, 0, Way::Forward, damaged()), 4);
        let mut slot = None;
        assert_eq!(send(&mut slot, 197, Way::Forward, Counter::default()), 199);
        assert!(slot.unwrap().is_over);
    }
}
