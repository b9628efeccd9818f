//! Zones against a history that is asked again for every key and number.

use super::super::test_util::Random;
use super::*;

/// Operations in commit order: what a put or a removal did to which keys.
#[derive(Default)]
struct History(Vec<Change>);

enum Change {
    Put(Vec<u8>),
    Removed(Vec<u8>, Option<Vec<u8>>),
}

impl History {
    fn last(&self) -> u64 {
        self.0.len() as u64
    }

    /// True if a read at `seq` sees `key`.
    fn sees(&self, key: &[u8], seq: u64) -> bool {
        let about_key = self.0[..seq as usize]
            .iter()
            .rev()
            .find_map(|change| match change {
                Change::Put(put) if put == key => Some(true),
                Change::Removed(start, end)
                    if **start <= *key && end.as_ref().is_none_or(|end| *key < **end) =>
                {
                    Some(false)
                }
                _ => None,
            });
        about_key.unwrap_or(false)
    }

    fn apply(&mut self, zones: &DeadZones, op: Op<'_>) {
        self.0.push(match op {
            Op::Put { key, .. } => Change::Put(key.to_vec()),
            Op::Delete { key } => Change::Removed(key.to_vec(), Some(after(key))),
            Op::DeleteRange { start, end } => {
                Change::Removed(start.to_vec(), end.map(<[u8]>::to_vec))
            }
        });
        let seq = SeqNo(self.last());
        zones.note(&mut zones.recorder(), &SequencedOp { seq, op });
    }
}

fn keys() -> Vec<Vec<u8>> {
    (0..24_u8)
        .flat_map(|key| [vec![key], vec![key, 0], vec![key, 9]])
        .collect()
}

/// What a scan at `seq` from `keys[at]` on, which is dead, would tell.
fn dead_from(history: &History, keys: &[Vec<u8>], at: usize, seq: u64) -> Option<Vec<u8>> {
    keys[at..]
        .iter()
        .find(|key| history.sees(key, seq))
        .cloned()
}

fn check(history: &History, zones: &DeadZones, oldest: u64, context: &str) {
    let keys = keys();
    for seq in oldest..=history.last() {
        for key in &keys {
            let Some(zone) = zones.find(key, SeqNo(seq)) else {
                continue;
            };
            assert!(zone.contains(key), "{context}");
            for other in keys.iter().filter(|other| zone.contains(other)) {
                assert!(
                    !history.sees(other, seq),
                    "{context}: a read at {seq} of {} sees {other:?} in {zone:?}",
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
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut history = History::default();
        let zones = DeadZones::new(SeqNo::ZERO);
        let range_deletes = random.below(3);
        for step in 0..120 {
            let key = &keys[random.below(keys.len() as u64) as usize];
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
                    let at = random.below(keys.len() as u64) as usize;
                    if history.sees(&keys[at], seq) {
                        continue;
                    }
                    let end = dead_from(&history, &keys, at, seq);
                    let before = zones.zones.load_full();
                    zones.learn(keys[at].clone(), end, SeqNo(seq));
                    learnt += u32::from(before != zones.zones.load_full());
                    used += u32::from(zones.find(&keys[at], SeqNo(history.last())).is_some());
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
    assert!(learnt > 1000 && used > 1000, "{learnt} {used}");
}

#[test]
fn a_put_between_the_number_and_the_telling_is_not_forgotten() {
    let zones = DeadZones::new(SeqNo::ZERO);
    let mut history = History::default();
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
    let mut history = History::default();
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
    let mut history = History::default();
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
