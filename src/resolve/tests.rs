use super::*;
use crate::testing::Random;

fn stamped(value: &str, expires_at_ms: u64) -> Vec<u8> {
    Stamp { expires_at_ms }.put_behind(value.as_bytes().to_vec())
}

fn operand(operand: &str, written_at_ms: u64, expires_at_ms: u64) -> Vec<u8> {
    let stamp = OperandStamp {
        written_at_ms,
        expires_at_ms,
    };
    stamp.put_behind(operand.as_bytes().to_vec())
}

fn appending(expires: bool) -> Resolver {
    Resolver::new(Some(Arc::new(Append)), None, expires, 0, Arc::default())
}

/// A value is what it is at the time of each merge, however the merges are folded.
#[test]
fn a_fold_does_not_depend_on_how_it_is_divided() {
    let resolver = appending(true);
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let mut now = 0;
        let mut operands = Vec::new();
        for n in 0..1 + random.below(6) {
            now += random.below(10);
            operands.push(operand(&n.to_string(), now, now + 1 + random.below(15)));
        }
        let base = (random.below(3) > 0).then(|| stamped("b", random.below(20)));
        let all: Vec<&[u8]> = operands.iter().map(Vec::as_slice).collect();
        let at_once = resolver.fold(b"k", base.as_deref(), &all);
        let mut one_by_one = base.clone();
        for operand in &all {
            one_by_one = Some(resolver.fold(b"k", one_by_one.as_deref(), &[operand]));
        }
        assert_eq!(Some(at_once), one_by_one, "seed {seed}");
    }
}

#[test]
fn a_merge_into_an_expired_value_begins_anew() {
    let resolver = appending(true);
    let merge = |base: &[u8], operand: &[u8]| resolver.fold(b"k", Some(base), &[operand]);
    let base = stamped("old", 100);
    assert_eq!(
        merge(&base, &operand("+", 99, 900)),
        stamped("old+", 100),
        "it keeps its time"
    );
    assert_eq!(merge(&base, &operand("+", 100, 900)), stamped("+", 900));
}

#[test]
fn combined_operands_do_what_the_single_ones_do() {
    let operators: [Arc<dyn MergeOperator>; 4] = std::array::from_fn(|at| READY[at]());
    for operator in operators {
        let resolver = Resolver::new(Some(Arc::clone(&operator)), None, false, 0, Arc::default());
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut bytes = || match operator.name() {
                "add-i64" => random.below(u64::MAX).to_le_bytes().to_vec(),
                "set-union" => {
                    let elements = (0..random.below(5)).map(|_| vec![random.below(9) as u8]);
                    SetUnion::encode(elements.collect::<Vec<_>>())
                }
                _ => vec![random.below(256) as u8; random.index(5)],
            };
            let (base, operands) = (bytes(), [bytes(), bytes(), bytes()]);
            for bytes in operands.iter().chain([&base]) {
                assert_eq!(operator.check_operand(b"k", bytes), Ok(()));
                assert_eq!(operator.check_value(b"k", bytes), Ok(()));
            }
            let [a, b, c] = operands.each_ref().map(Vec::as_slice);
            for base in [None, Some(&*base)] {
                let expected = resolver.fold(b"k", base, &[a, b, c]);
                assert_eq!(operator.check_value(b"k", &expected), Ok(()));
                let ab = resolver.combine(b"k", &[a, b]).unwrap();
                let abc = resolver.combine(b"k", &[&ab, c]).unwrap();
                assert_eq!(resolver.fold(b"k", base, &[&abc]), expected);
                assert_eq!(resolver.fold(b"k", base, &[&ab, c]), expected);
            }
        }
    }
}

#[test]
fn bytes_that_make_no_sense_are_refused_and_do_no_harm() {
    for make in READY {
        let operator = make();
        for bytes in [
            &b""[..],
            b"x",
            &[0xFF; 8],
            &[0xFF; 9],
            &[2, b'b', b'b', 1, b'a'],
        ] {
            let _ = operator.check_operand(b"k", bytes);
            let _ = operator.check_value(b"k", bytes);
            let _ = operator.merge(b"k", Some(bytes), &[bytes, b""]);
        }
        let refuses = |bytes: &[u8]| operator.check_operand(b"k", bytes).is_err();
        let is_strict = matches!(operator.name(), "add-i64" | "set-union");
        assert_eq!(refuses(&[2, b'b', b'b', 1, b'a']), is_strict);
    }
    // Too short for a stamp: what only a hostile file has.
    let resolver = appending(true);
    assert_eq!(resolver.visible(b"short", 7), Some(&b"short"[..]));
    assert_eq!(
        resolver.fold(b"k", Some(b"a"), &[b"b"]),
        stamped("ab", NEVER)
    );
}

#[test]
fn what_has_expired_is_dropped_when_every_read_takes_it_for_expired() {
    let resolver = Resolver::new(None, None, true, 0, Arc::default());
    let fate = |expired_by_ms| {
        let moment = Moment {
            expired_by_ms,
            filter: None,
        };
        resolver.fate(b"k", &stamped("v", 50), moment)
    };
    assert_eq!((fate(49), fate(50)), (Fate::Keep, Fate::Expire));
    assert_eq!(resolver.visible(&stamped("v", 50), 49), Some(&b"v"[..]));
    assert_eq!(resolver.visible(&stamped("v", 50), 50), None);
}

#[test]
fn the_clock_of_a_store_does_not_go_back() {
    #[derive(Debug)]
    struct Jumping(AtomicU64);
    impl Clock for Jumping {
        fn now(&self) -> std::time::SystemTime {
            let ms = [500, 100, 700][self.0.fetch_add(1, Ordering::Relaxed) as usize];
            std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms)
        }
    }
    let clock = StoreClock::new(Arc::new(Jumping(AtomicU64::new(0))));
    assert_eq!([0; 3].map(|_| clock.now_ms()), [500, 500, 700]);
}
