//! Reading in every way: right, or an error, never wrong.

use hedgerow::{Keyspace, Scan};

use support::filter::is_marked;

use super::{Driver, Map, State, key_of};

/// A snapshot and what it shows.
pub struct Held {
    snapshot: hedgerow::Snapshot,
    shown: Vec<(Keyspace, Map)>,
}

/// A scan that was begun and what it has still to give.
pub struct Begun {
    scan: Scan,
    rest: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Driver {
    pub fn hold_snapshot(&mut self) -> Option<Held> {
        let db = self.db.as_ref()?;
        let shown = self
            .slots
            .values()
            .filter_map(|slot| Some((slot.handle.clone()?, self.live[slot.of].clone())))
            .collect();
        Some(Held {
            snapshot: db.snapshot(),
            shown,
        })
    }

    pub fn check_snapshot(&self, held: Option<&Held>) {
        let Some(held) = held else { return };
        for (keyspace, shown) in &held.shown {
            self.check_scan(held.snapshot.iter(keyspace), shown, false);
            self.check_scan(held.snapshot.iter(keyspace), shown, true);
            for (key, value) in shown {
                let read = || held.snapshot.get(keyspace, key);
                let found = self.attempt_read("a lookup", Some(&value[..]), read);
                if let Some(found) = found {
                    assert_eq!(found.as_deref(), Some(&value[..]), "a snapshot changed");
                }
            }
        }
    }

    /// Begins a scan of `main` and reads `count` entries.
    pub fn begin_scan(&mut self, count: usize) -> Option<Begun> {
        let (handle, of) = self.handle("main")?;
        let rest = self.live[of].clone().into_iter().collect();
        let mut begun = Begun {
            scan: handle.iter(),
            rest,
        };
        self.go_on(&mut begun, count).then_some(begun)
    }

    /// Reads up to `count` entries more; false if the scan failed.
    pub fn go_on(&self, begun: &mut Begun, count: usize) -> bool {
        for _ in 0..count {
            let wanted = begun.rest.first().map(|(_, value)| &value[..]);
            let next = || begun.scan.next().transpose();
            let Some(item) = self.attempt_read("a scan", wanted, next) else {
                assert!(begun.scan.next().is_none(), "a scan that failed goes on");
                assert!(
                    begun.scan.next_back().is_none(),
                    "a scan that failed goes on"
                );
                return false;
            };
            let item = item.map(|(key, value)| (key.to_vec(), value.to_vec()));
            let wanted = (!begun.rest.is_empty()).then(|| begun.rest.remove(0));
            assert_eq!(item, wanted, "a scan went wrong");
        }
        true
    }

    fn check_scan(&self, mut scan: Scan, expected: &Map, backward: bool) {
        let mut wanted: Vec<_> = expected.iter().collect();
        if backward {
            wanted.reverse();
        }
        let mut wanted = wanted.into_iter();
        while let Some((mut key, mut value)) = wanted.next() {
            // Behind one that a filter may have dropped it may be any of the next ones.
            let next = wanted.clone().map(|(_, value)| &value[..]);
            let next = next.filter(|_| self.may_be_filtered(value));
            let values = std::iter::once(&value[..]).chain(next);
            let item = self.attempt_read("a scan", values, || {
                if backward {
                    scan.next_back().transpose()
                } else {
                    scan.next().transpose()
                }
            });
            let Some(item) = item else {
                assert!(scan.next().is_none(), "a scan that failed goes on");
                assert!(scan.next_back().is_none(), "a scan that failed goes on");
                return;
            };
            while self.may_be_filtered(value) && item.as_ref().is_none_or(|it| it.0 != **key) {
                match wanted.next() {
                    Some(next) => (key, value) = next,
                    None if item.is_none() => return,
                    None => break,
                }
            }
            let (found_key, found) = item.expect("a scan ended early without an error");
            assert_eq!(&found_key[..], &key[..], "a scan found another key");
            assert_eq!(&found[..], &value[..], "a scan found another value");
        }
        if let Some(end) = self.attempt("a scan", true, || scan.next().transpose()) {
            assert_eq!(end, None, "a scan found more than there is");
        }
    }

    /// Reads everything in every way: right, or an error, never wrong.
    pub fn check(&self) {
        for slot in self.slots.values() {
            let Some(keyspace) = &slot.handle else {
                continue;
            };
            let expected = &self.live[slot.of];
            self.check_scan(keyspace.iter(), expected, false);
            self.check_scan(keyspace.iter(), expected, true);
            let absent = [b"".to_vec(), key_of(77_777), b"zz".to_vec()];
            for key in expected.keys().chain(&absent) {
                let wanted = expected.get(key).map(Vec::as_slice);
                if let Some(found) = self.attempt_read("a lookup", wanted, || keyspace.get(key)) {
                    self.expect_found(found.as_deref(), wanted, "a lookup");
                }
            }
        }
    }

    /// A lookup gave what it had to, or nothing if a filter may have dropped that.
    #[track_caller]
    pub(super) fn expect_found(&self, found: Option<&[u8]>, wanted: Option<&[u8]>, what: &str) {
        let may_be_gone = wanted.is_some_and(|value| self.may_be_filtered(value));
        if found.is_some() || !may_be_gone {
            assert_eq!(found, wanted, "after {what} another value is there");
        }
    }

    /// Entries that have left keyspaces because they expired or a filter said so, since the store
    /// was opened.
    pub fn left_entries(&self) -> u64 {
        let handles = self.slots.values().filter_map(|slot| slot.handle.as_ref());
        let stats = handles.map(Keyspace::stats);
        stats
            .map(|stats| stats.expired_entries + stats.filtered_entries)
            .sum()
    }

    /// True for a value that a filter may have dropped.
    fn may_be_filtered(&self, value: &[u8]) -> bool {
        self.has_filter && is_marked(value)
    }

    /// Takes out of a map what is not in `found` and may have been dropped by a filter.
    pub(super) fn drop_filtered(&self, map: &mut Map, found: &Map) {
        map.retain(|key, value| found.contains_key(key) || !self.may_be_filtered(value));
    }

    /// Everything in all keyspaces that are there; `None` if a read failed.
    pub(super) fn read_all(&self) -> Option<State> {
        let mut state = vec![Map::new(); self.incarnations];
        for slot in self.slots.values() {
            let Some(keyspace) = &slot.handle else {
                continue;
            };
            for item in keyspace.iter() {
                let (key, value) = self.attempt("a scan", true, || item)?;
                state[slot.of].insert(key.to_vec(), value.to_vec());
            }
        }
        Some(state)
    }
}
