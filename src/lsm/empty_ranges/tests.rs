//! Ranges against a history that is asked again for every key and number.

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

    fn apply(&mut self, ranges: &EmptyRanges, op: Op<'_>) {
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
        ranges.note(&mut ranges.recorder(), &SequencedOp::new(seq, op));
    }
}

fn keys() -> Vec<Vec<u8>> {
    (0..24_u8)
        .flat_map(|key| [vec![key], vec![key, 0], vec![key, 9]])
        .collect()
}

/// What a scan at `seq` from key `at` on, which is deleted, would record.
fn dead_from(history: &History, at: usize, seq: u64) -> Option<Vec<u8>> {
    let mut from = at..history.keys.len();
    let live = from.find(|at| history.sees(*at, seq))?;
    Some(history.keys[live].clone())
}

fn check(history: &History, ranges: &EmptyRanges, oldest: u64, context: &str) {
    for seq in oldest..=history.last() {
        for (at, key) in history.keys.iter().enumerate() {
            if let Some(range) = ranges.find(key, SeqNo(seq), 0) {
                assert!(range.contains(key), "{context}");
                assert!(
                    !history.sees(at, seq),
                    "{context}: a read at {seq} of {} sees {key:?} in {range:?}",
                    history.last(),
                );
            }
        }
    }
    let list = ranges.list();
    let bytes: usize = list.iter().map(|range| range.memory_bytes()).sum();
    assert_eq!(ranges.recorder().bytes, bytes, "{context}: D4");
    for pair in list.windows(2) {
        let end = pair[0].end.as_ref();
        assert!(end.is_some_and(|end| *end < pair[1].start), "{context}: D2");
    }
}

#[test]
fn no_read_misses_anything_in_a_range() {
    let keys = keys();
    let (mut recorded, mut used) = (0, 0);
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let mut history = History::of(keys.clone());
        let ranges = EmptyRanges::new(SeqNo::ZERO);
        let range_deletes = random.below(3);
        for step in 0..120 {
            let at = random.below(keys.len() as u64) as usize;
            let key = &keys[at];
            match random.below(12) {
                0..4 => history.apply(&ranges, Op::Put { key, value: b"v" }),
                4..8 => history.apply(&ranges, Op::Delete { key }),
                8 if range_deletes == 0 => {
                    let end = &keys[random.below(keys.len() as u64) as usize];
                    let end = (random.below(6) > 0).then_some(&end[..]);
                    history.apply(&ranges, Op::DeleteRange { start: key, end });
                }
                // A scan of now, or one that was slow and read at an older number.
                _ => {
                    let age = random.below(3) * random.below(4);
                    let seq = history.last().saturating_sub(age);
                    if history.sees(at, seq) {
                        continue;
                    }
                    let end = dead_from(&history, at, seq);
                    let before = ranges.list();
                    ranges.record(key.clone(), end, SeqNo(seq), 0);
                    recorded += u32::from(before != ranges.list());
                    used += u32::from(ranges.find(key, SeqNo(history.last()), 0).is_some());
                }
            }
            let oldest = history.last().saturating_sub(8);
            check(
                &history,
                &ranges,
                oldest,
                &format!("seed {seed} step {step}"),
            );
        }
    }
    assert!(recorded > 300 && used > 300, "{recorded} {used}");
}

#[test]
fn a_put_between_the_number_and_the_telling_is_not_forgotten() {
    let ranges = EmptyRanges::new(SeqNo::ZERO);
    let mut history = History::of(Vec::new());
    history.apply(
        &ranges,
        Op::Put {
            key: b"m",
            value: b"",
        },
    );
    history.apply(&ranges, Op::Delete { key: b"m" });
    history.apply(
        &ranges,
        Op::Put {
            key: b"x",
            value: b"",
        },
    );
    // The first scan read at 2; it only begins the watch, at 3.
    ranges.record(b"a".to_vec(), None, SeqNo(2), 0);
    assert_eq!(ranges.find(b"m", SeqNo(3), 0), None);
    // The second reads at 3, and is overtaken by a put before it records.
    history.apply(
        &ranges,
        Op::Put {
            key: b"p",
            value: b"",
        },
    );
    ranges.record(b"a".to_vec(), Some(b"x".to_vec()), SeqNo(3), 0);
    assert_eq!(ranges.find(b"m", SeqNo(4), 0), None);
    // A third records the same, though the watch now begins at 4.
    ranges.record(b"a".to_vec(), Some(b"x".to_vec()), SeqNo(3), 0);
    assert_eq!(ranges.find(b"m", SeqNo(4), 0), None);
    // A fourth reads at 4, up to the put; the next put is behind the range.
    history.apply(
        &ranges,
        Op::Put {
            key: b"q",
            value: b"",
        },
    );
    ranges.record(b"a".to_vec(), Some(b"p".to_vec()), SeqNo(4), 0);
    let range = ranges.find(b"m", SeqNo(5), 0).expect("known");
    assert_eq!(range.end.as_deref(), Some(&b"p"[..]));
    assert_eq!(ranges.find(b"m", SeqNo(3), 0), None, "an older snapshot");
    assert_eq!(ranges.find(b"p", SeqNo(5), 0), None);
}

#[test]
fn a_range_delete_is_known_at_once_and_a_put_cuts_it() {
    let ranges = EmptyRanges::new(SeqNo::ZERO);
    let mut history = History::of(Vec::new());
    let range = Op::DeleteRange {
        start: b"b",
        end: Some(b"y"),
    };
    history.apply(&ranges, range);
    let range = ranges.find(b"c", SeqNo(1), 0).expect("known");
    assert_eq!(
        (&range.start[..], range.end.as_deref()),
        (&b"b"[..], Some(&b"y"[..]))
    );
    assert_eq!(
        ranges.find(b"c", SeqNo::ZERO, 0),
        None,
        "it was there before"
    );
    history.apply(
        &ranges,
        Op::Put {
            key: b"m",
            value: b"",
        },
    );
    let below = ranges.find(b"c", SeqNo(2), 0).expect("known");
    assert_eq!(below.end.as_deref(), Some(&b"m"[..]));
    assert_eq!(ranges.find(b"m", SeqNo(2), 0), None);
    let above = ranges.find(b"n", SeqNo(2), 0).expect("known");
    assert_eq!(
        (&above.start[..], above.end.as_deref()),
        (&b"m\0"[..], Some(&b"y"[..]))
    );
}

#[test]
fn ranges_take_bounded_memory_and_a_watch_ends() {
    let ranges = EmptyRanges::new(SeqNo::ZERO);
    let mut history = History::of(Vec::new());
    for n in 0..10_000_u32 {
        let start = [&n.to_be_bytes()[..], &[0; 100]].concat();
        let end = [&n.to_be_bytes()[..], &[5; 100]].concat();
        let end = Some(&end[..]);
        history.apply(&ranges, Op::DeleteRange { start: &start, end });
        assert!(
            ranges.find(&start, SeqNo::MAX, 0).is_some(),
            "the newest stay"
        );
    }
    let bytes = ranges.recorder().bytes;
    assert!(bytes <= MAX_BYTES && bytes > MAX_BYTES * 3 / 4, "{bytes}");
    assert!(ranges.list().len() > 1000);
    // One that is larger than all may be.
    let end = vec![255; 2 * MAX_BYTES];
    let too_large = Op::DeleteRange {
        start: &[250],
        end: Some(&end),
    };
    history.apply(&ranges, too_large);
    assert!(ranges.recorder().bytes <= MAX_BYTES);
    ranges.record(vec![200], None, SeqNo::MAX, 0);
    assert!(ranges.recorder().watch.is_some());
    for _ in 0..=WATCH_PUTS {
        let op = Op::Put {
            key: &[150],
            value: b"",
        };
        let mut recorder = ranges.recorder();
        ranges.note(&mut recorder, &SequencedOp::new(SeqNo(1000), op));
    }
    assert!(ranges.recorder().watch.is_none());
}

/// A caller that clears a keyspace and fills it again would pay for a cut at every put.
#[test]
fn a_range_that_is_filled_again_is_removed() {
    let ranges = EmptyRanges::new(SeqNo::ZERO);
    let mut history = History::of(Vec::new());
    history.apply(
        &ranges,
        Op::DeleteRange {
            start: b"",
            end: None,
        },
    );
    for number in 0..1000_u32 {
        let key = &number.to_be_bytes();
        history.apply(&ranges, Op::Put { key, value: b"" });
        let is_known = ranges.find(b"z", SeqNo::MAX, 0).is_some();
        assert_eq!(is_known, number < MAX_CUTS, "{number}");
    }
    assert!(ranges.list().len() <= MAX_CUTS as usize + 1);
}

/// A batch is published, and a scan walks over keys that it has put and that are not applied yet.
#[test]
fn scans_beside_operations_that_were_published_before_record_nothing() {
    let ranges = EmptyRanges::default();
    let put = |seq| {
        let (key, value) = (&b"m"[..], &b""[..]);
        let op = SequencedOp::new(SeqNo(seq), Op::Put { key, value });
        ranges.note(&mut ranges.recorder(), &op);
    };
    let record = |seq| ranges.record(b"a".to_vec(), Some(b"z".to_vec()), SeqNo(seq), 0);
    put(10);
    ranges.distrust(&mut ranges.recorder(), SeqNo(12));
    for seq in [10, 12] {
        record(seq);
        assert_eq!(ranges.find(b"m", SeqNo(20), 0), None);
    }
    record(13);
    assert!(ranges.find(b"m", SeqNo(20), 0).is_some());
}
