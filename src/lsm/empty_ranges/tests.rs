//! Zones against a history that is asked again for every key and number.

use super::*;
use crate::testing::Random;

/// Which of some keys exist, after each operation in commit order.
struct History {
    keys: Vec<Vec<u8>>,
    states: Vec<Vec<bool>>,
}

impl History {
    fn of(keys: Vec<Vec<u8>>) -> Self {
        Self {
            states: vec![vec![false; keys.len()]],
            keys,
        }
    }

    fn last(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    /// True if a read at `seq` sees key `at`.
    fn sees(&self, at: usize, seq: u64) -> bool {
        self.states[seq as usize][at]
    }

    fn apply(&mut self, zones: &DeadZones, op: Op<'_>) {
        let mut state = self.states[self.last() as usize].clone();
        for (key, exists) in self.keys.iter().zip(&mut state) {
            let key = &key[..];
            match op {
                Op::Put { key: put, .. } if put == key => *exists = true,
                Op::Delete { key: gone } if gone == key => *exists = false,
                Op::DeleteRange { start, end }
                    if start <= key && end.is_none_or(|end| key < end) =>
                {
                    *exists = false;
                }
                _ => {}
            }
        }
        self.states.push(state);
        let seq = SeqNo(self.last());
        zones.note(&mut zones.recorder(), &SequencedOp { seq, op });
    }
}

fn keys() -> Vec<Vec<u8>> {
    (0..24_u8)
        .flat_map(|key| [vec![key], vec![key, 0], vec![key, 9]])
        .collect()
}

/// What a scan at `seq` from key `at` on, which is dead, would tell.
fn dead_from(history: &History, at: usize, seq: u64) -> Option<Vec<u8>> {
    let mut from = at..history.keys.len();
    let live = from.find(|at| history.sees(*at, seq))?;
    Some(history.keys[live].clone())
}

fn check(history: &History, zones: &DeadZones, oldest: u64, context: &str) {
    for seq in oldest..=history.last() {
        for (at, key) in history.keys.iter().enumerate() {
            if let Some(zone) = zones.find(key, SeqNo(seq)) {
                assert!(zone.contains(key), "{context}");
                assert!(
                    !history.sees(at, seq),
                    "{context}: a read at {seq} of {} sees {key:?} in {zone:?}",
                    history.last(),
                );
            }
        }
    }
    let list = zones.zones.load();
    assert!(list.len() <= MAX_ZONES);
    for pair in list.windows(2) {
        let end = pair[0].end.as_ref();
        assert!(end.is_some_and(|end| *end < pair[1].start), "{context}: D2");
    }
}

#[test]
fn no_read_misses_anything_in_a_zone() {
    let keys = keys();
    let (mut learnt, mut used) = (0, 0);
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let mut history = History::of(keys.clone());
        let zones = DeadZones::new(SeqNo::ZERO);
        let range_deletes = random.below(3);
        for step in 0..120 {
            let at = random.below(keys.len() as u64) as usize;
            let key = &keys[at];
            match random.below(12) {
                0..4 => history.apply(&zones, Op::Put { key, value: b"v" }),
                4..8 => history.apply(&zones, Op::Delete { key }),
                8 if range_deletes == 0 => {
                    let end = &keys[random.below(keys.len() as u64) as usize];
                    let end = (random.below(6) > 0).then_some(&end[..]);
                    history.apply(&zones, Op::DeleteRange { start: key, end });
                }
                // A scan of now, or one that was slow and read at an older number.
                _ => {
                    let age = random.below(3) * random.below(4);
                    let seq = history.last().saturating_sub(age);
                    if history.sees(at, seq) {
                        continue;
                    }
                    let end = dead_from(&history, at, seq);
                    let before = zones.zones.load_full();
                    zones.learn(key.clone(), end, SeqNo(seq));
                    learnt += u32::from(before != zones.zones.load_full());
                    used += u32::from(zones.find(key, SeqNo(history.last())).is_some());
                }
            }
            let oldest = history.last().saturating_sub(8);
            check(
                &history,
                &zones,
                oldest,
                &format!("seed {seed} step {step}"),
            );
        }
    }
    assert!(learnt > 300 && used > 300, "{learnt} {used}");
}

#[test]
fn a_put_between_the_number_and_the_telling_is_not_forgotten() {
    let zones = DeadZones::new(SeqNo::ZERO);
    let mut history = History::of(Vec::new());
    history.apply(
        &zones,
        Op::Put {
            key: b"m",
            value: b"",
        },
    );
    history.apply(&zones, Op::Delete { key: b"m" });
    history.apply(
        &zones,
        Op::Put {
            key: b"x",
            value: b"",
        },
    );
    // The first scan read at 2; it only begins the watch, at 3.
    zones.learn(b"a".to_vec(), None, SeqNo(2));
    assert_eq!(zones.find(b"m", SeqNo(3)), None);
    // The second reads at 3, and is overtaken by a put before it tells.
    history.apply(
        &zones,
        Op::Put {
            key: b"p",
            value: b"",
        },
    );
    zones.learn(b"a".to_vec(), Some(b"x".to_vec()), SeqNo(3));
    assert_eq!(zones.find(b"m", SeqNo(4)), None);
    // A third tells the same, though the watch now begins at 4.
    zones.learn(b"a".to_vec(), Some(b"x".to_vec()), SeqNo(3));
    assert_eq!(zones.find(b"m", SeqNo(4)), None);
    // A fourth reads at 4, up to the put; the next put is behind the zone.
    history.apply(
        &zones,
        Op::Put {
            key: b"q",
            value: b"",
        },
    );
    zones.learn(b"a".to_vec(), Some(b"p".to_vec()), SeqNo(4));
    let zone = zones.find(b"m", SeqNo(5)).expect("known");
    assert_eq!(zone.end.as_deref(), Some(&b"p"[..]));
    assert_eq!(zones.find(b"m", SeqNo(3)), None, "an older snapshot");
    assert_eq!(zones.find(b"p", SeqNo(5)), None);
}

#[test]
fn a_range_delete_is_known_at_once_and_a_put_cuts_it() {
    let zones = DeadZones::new(SeqNo::ZERO);
    let mut history = History::of(Vec::new());
    let range = Op::DeleteRange {
        start: b"b",
        end: Some(b"y"),
    };
    history.apply(&zones, range);
    let zone = zones.find(b"c", SeqNo(1)).expect("known");
    assert_eq!(
        (&zone.start[..], zone.end.as_deref()),
        (&b"b"[..], Some(&b"y"[..]))
    );
    assert_eq!(zones.find(b"c", SeqNo::ZERO), None, "it was there before");
    history.apply(
        &zones,
        Op::Put {
            key: b"m",
            value: b"",
        },
    );
    let below = zones.find(b"c", SeqNo(2)).expect("known");
    assert_eq!(below.end.as_deref(), Some(&b"m"[..]));
    assert_eq!(zones.find(b"m", SeqNo(2)), None);
    let above = zones.find(b"n", SeqNo(2)).expect("known");
    assert_eq!(
        (&above.start[..], above.end.as_deref()),
        (&b"m\0"[..], Some(&b"y"[..]))
    );
}

#[test]
fn there_are_few_zones_and_a_watch_ends() {
    let zones = DeadZones::new(SeqNo::ZERO);
    let mut history = History::of(Vec::new());
    for n in 0..100_u8 {
        let (start, end) = ([n, 0], [n, 5]);
        let end = Some(&end[..]);
        history.apply(&zones, Op::DeleteRange { start: &start, end });
    }
    assert_eq!(zones.zones.load().len(), MAX_ZONES);
    assert!(
        zones.find(&[99, 1], SeqNo::MAX).is_some(),
        "the newest stay"
    );
    zones.learn(vec![200], None, SeqNo::MAX);
    assert!(zones.recorder().watch.is_some());
    for _ in 0..=WATCH_PUTS {
        let op = Op::Put {
            key: &[150],
            value: b"",
        };
        let mut recorder = zones.recorder();
        zones.note(
            &mut recorder,
            &SequencedOp {
                seq: SeqNo(1000),
                op,
            },
        );
    }
    assert!(zones.recorder().watch.is_none());
}

/// Who clears a keyspace and fills it again would pay for a cut at every put.
#[test]
fn a_zone_that_is_filled_again_is_forgotten() {
    let zones = DeadZones::new(SeqNo::ZERO);
    let mut history = History::of(Vec::new());
    history.apply(
        &zones,
        Op::DeleteRange {
            start: b"",
            end: None,
        },
    );
    for number in 0..1000_u32 {
        let key = &number.to_be_bytes();
        history.apply(&zones, Op::Put { key, value: b"" });
        let is_known = zones.find(b"z", SeqNo::MAX).is_some();
        assert_eq!(is_known, number < MAX_CUTS, "{number}");
    }
    assert!(!zones.any.load(Ordering::Relaxed) || zones.zones.load().len() <= MAX_ZONES);
}
