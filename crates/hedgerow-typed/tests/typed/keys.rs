//! Keys: golden bytes, order, and what is no key.

use std::cmp::{Ordering, Reverse};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hedgerow::KeyBuilder;
use hedgerow_typed::{
    AsKey, AsPrefix, Delimited, Fields, Key, RawKey, StartsWith, key_bytes, key_of_bytes,
    key_struct,
};
use support::random::{Random, Source};

const SEEDS: u64 = 40;

fn golden<K: Key + PartialEq + Debug>(key: K, bytes: &[u8]) {
    assert_eq!(key_bytes::<K, _>(&key), bytes, "{key:?}");
    assert_eq!(key_of_bytes::<K>(bytes).unwrap(), key);
}

#[test]
fn bytes_are_those_of_the_format() {
    golden(0x12_u8, b"\x12");
    golden(0x1234_u16, b"\x12\x34");
    golden(1_u32, b"\0\0\0\x01");
    golden(u64::MAX - 1, b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFE");
    golden(1_u128 << 127, b"\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    golden(-1_i8, b"\x7F");
    golden(0_i16, b"\x80\0");
    golden(i32::MIN, b"\0\0\0\0");
    golden(5_i64, b"\x80\0\0\0\0\0\0\x05");
    golden(
        -1_i128,
        b"\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
    );
    golden(1.5_f32, b"\xBF\xC0\0\0");
    golden(-1.5_f64, b"\x40\x07\xFF\xFF\xFF\xFF\xFF\xFF");
    golden(true, b"\x01");
    golden('h', b"\0\0\0h");
    golden("a\0b".to_owned(), b"a\0\xFFb\0\x01");
    golden(b"\xFF\0".to_vec(), b"\xFF\0\xFF\0\x01");
    golden(*b"a\0b", b"a\0b");
    golden(None::<u8>, b"\0");
    golden(Some("a".to_owned()), b"\x01a\0\x01");
    golden(Reverse("a".to_owned()), b"\x9E\xFF\xFE");
    golden((), b"");
    golden((1_u8, "a".to_owned(), -1_i8), b"\x01a\0\x01\x7F");
    golden(RawKey(b"a\0".to_vec()), b"a\0");
    golden(UNIX_EPOCH, b"\x80\0\0\0\0\0\0\0\0\0\0\0");
    golden(
        UNIX_EPOCH - Duration::from_nanos(1),
        b"\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x3B\x9A\xC9\xFF",
    );
    golden(Duration::new(1, 2), b"\0\0\0\0\0\0\0\x01\0\0\0\x02");
    golden(IpAddr::V4(Ipv4Addr::LOCALHOST), b"\x04\x7F\0\0\x01");
    golden(Ipv6Addr::LOCALHOST, b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01");
}

#[test]
fn bytes_are_those_of_the_key_builder() {
    let built = KeyBuilder::new()
        .u8(1)
        .i32(-7)
        .f64(-0.5)
        .str("a\0b")
        .bool(true)
        .time(UNIX_EPOCH - Duration::from_millis(1500))
        .into_vec();
    type K = (u8, i32, f64, String, bool, SystemTime);
    let time = UNIX_EPOCH - Duration::from_millis(1500);
    assert_eq!(key_bytes::<K, _>((1, -7, -0.5, "a\0b", true, time)), built);
}

/// Checks order, decoding and delimiters of all pairs of `keys`.
fn check<K: Delimited + Debug>(keys: &[K], compare: impl Fn(&K, &K) -> Ordering) {
    let bytes: Vec<Vec<u8>> = keys.iter().map(|key| key_bytes::<K, _>(key)).collect();
    for (a, a_bytes) in keys.iter().zip(&bytes) {
        let back = key_of_bytes::<K>(a_bytes).unwrap();
        assert_eq!(
            compare(a, &back),
            Ordering::Equal,
            "{a:?} came back as {back:?}"
        );
        for (b, b_bytes) in keys.iter().zip(&bytes) {
            let order = compare(a, b);
            assert_eq!(a_bytes.cmp(b_bytes), order, "{a:?} and {b:?}");
            if order != Ordering::Equal {
                assert!(!b_bytes.starts_with(a_bytes), "{a:?} begins {b:?}");
            }
        }
    }
    // Bytes that are a key are those of that key; others are an error, not a panic.
    for bytes in &bytes {
        for cut in 0..bytes.len() {
            assert_canonical::<K>(&bytes[..cut]);
        }
        assert_canonical::<K>(&[bytes.as_slice(), &[0]].concat());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_canonical::<K>(&flipped);
            }
        }
    }
}

fn assert_canonical<K: Key>(bytes: &[u8]) {
    match key_of_bytes::<K>(bytes) {
        Ok(key) => assert_eq!(key_bytes::<K, _>(&key), bytes),
        Err(error) => assert!(error.at() <= bytes.len() && !error.to_string().is_empty()),
    }
}

/// Keys of each seed, checked against `Ord`; tuples with what precedes and follows them, too.
fn ordered<K: Delimited + Ord + Clone + Debug>(make: impl Fn(&mut Random) -> K) {
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let keys: Vec<K> = (0..24).map(|_| make(&mut random)).collect();
        check(&keys, Ord::cmp);
        let mut reversed: Vec<_> = keys.iter().cloned().map(Reverse).collect();
        check(&reversed, Ord::cmp);
        reversed.truncate(12);
        let optional: Vec<_> = reversed.into_iter().map(Some).chain([None]).collect();
        check(&optional, Ord::cmp);
        let tuples: Vec<(K, u8, K)> = (0..24)
            .map(|_| {
                // Equal parts are frequent.
                let [a, b] = [(); 2].map(|()| random.pick(&keys[..4]).clone());
                (a, random.below(2) as u8, b)
            })
            .collect();
        check(&tuples, Ord::cmp);
    }
}

fn number(random: &mut Random) -> u128 {
    let edges = [
        0,
        1,
        0x7F,
        0x80,
        0xFF,
        0x100,
        u128::MAX,
        1 << 127,
        (1 << 127) - 1,
    ];
    let bits = u128::from(random.bits()) << 64 | u128::from(random.bits());
    match random.below(3) {
        0 => *random.pick(&edges),
        1 => bits,
        _ => bits >> random.below(128),
    }
}

fn text(random: &mut Random) -> String {
    let letters = ['\0', '\u{1}', 'a', 'b', '\u{e9}', '\u{10FFFF}', '\u{FF}'];
    let len = random.below(6);
    (0..len).map(|_| *random.pick(&letters)).collect()
}

fn bytes(random: &mut Random) -> Vec<u8> {
    let len = random.below(6);
    (0..len)
        .map(|_| *random.pick(&[0, 1, 0xFE, 0xFF, 7]))
        .collect()
}

fn float(random: &mut Random) -> f64 {
    let edges = [
        0.0,
        -0.0,
        f64::NAN,
        -f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MIN_POSITIVE / 2.0,
        -1.5,
        f64::MAX,
    ];
    match random.one_in(2) {
        true => *random.pick(&edges),
        false => f64::from_bits(random.bits()),
    }
}

fn time(random: &mut Random) -> SystemTime {
    let distance = Duration::new(random.below(3), random.below(1_000_000_000) as u32);
    let coarse = Duration::from_secs(random.below(1 << 33));
    match random.below(4) {
        0 => UNIX_EPOCH - distance,
        1 => UNIX_EPOCH + distance,
        2 => UNIX_EPOCH - coarse,
        _ => UNIX_EPOCH + coarse,
    }
}

#[test]
fn numbers_are_in_order() {
    ordered(|random| number(random) as u8);
    ordered(|random| number(random) as u16);
    ordered(|random| number(random) as u32);
    ordered(|random| number(random) as u64);
    ordered(number);
    ordered(|random| number(random) as i8);
    ordered(|random| number(random) as i16);
    ordered(|random| number(random) as i32);
    ordered(|random| number(random) as i64);
    ordered(|random| number(random) as i128);
    ordered(|random| random.one_in(2));
    ordered(|random| *random.pick(&['\0', 'a', '\u{D7FF}', '\u{E000}', char::MAX]));
}

#[test]
fn floats_are_in_total_order() {
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let doubles: Vec<f64> = (0..40).map(|_| float(&mut random)).collect();
        check(&doubles, f64::total_cmp);
        let singles: Vec<f32> = doubles.iter().map(|double| *double as f32).collect();
        check(&singles, f32::total_cmp);
    }
    assert!(key_bytes::<f64, _>(-0.0) < key_bytes::<f64, _>(0.0));
}

#[test]
fn strings_are_in_order() {
    ordered(text);
    ordered(bytes);
    ordered(|random| [random.below(2) as u8, 0, random.below(256) as u8]);
    ordered(|random| (text(random), bytes(random)));
    ordered(|random| {
        (
            number(random) as i16,
            text(random),
            random.one_in(2),
            number(random) as u8,
        )
    });
}

#[test]
fn times_and_addresses_are_in_order() {
    ordered(time);
    ordered(|random| Duration::new(random.below(3), random.below(1_000_000_000) as u32));
    let v4 = |random: &mut Random| Ipv4Addr::from(number(random) as u32);
    let v6 = |random: &mut Random| Ipv6Addr::from(number(random));
    ordered(v4);
    ordered(v6);
    ordered(|random| match random.one_in(2) {
        true => IpAddr::V4(v4(random)),
        false => IpAddr::V6(v6(random)),
    });
}

#[test]
fn raw_keys_are_in_order() {
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let keys: Vec<(u8, RawKey)> = (0..24)
            .map(|_| (random.below(2) as u8, RawKey(bytes(&mut random))))
            .collect();
        for a in &keys {
            let a_bytes = key_bytes::<(u8, RawKey), _>(a);
            assert_eq!(key_of_bytes::<(u8, RawKey)>(&a_bytes).as_ref(), Ok(a));
            for b in &keys {
                let order = a_bytes.cmp(&key_bytes::<(u8, RawKey), _>(b));
                assert_eq!(order, a.cmp(b), "{a:?} {b:?}");
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    country: String,
    height: i32,
    capital: Option<bool>,
}
key_struct!(Place { country: String, height: i32, capital: Option<bool> });

#[test]
fn structs_are_in_order() {
    ordered(|random| Place {
        country: text(random),
        height: number(random) as i32,
        capital: *random.pick(&[None, Some(true), Some(false)]),
    });
}

fn prefix<K>(prefix: impl AsPrefix<K>) -> Vec<u8> {
    let mut bytes = Vec::new();
    prefix.encode_prefix(&mut bytes);
    bytes
}

#[test]
fn the_first_parts_are_a_prefix() {
    type K = (String, u16, Vec<u8>);
    let key = key_bytes::<K, _>(("ada", 7, b"xy"));
    for prefix in [
        prefix::<K>(("ada",)),
        prefix::<K>((StartsWith("ad"),)),
        prefix::<K>(("ada", 7)),
        prefix::<K>(("ada", 7, StartsWith(b"x"))),
    ] {
        assert!(key.starts_with(&prefix) && key != prefix);
    }
    assert!(!key.starts_with(&prefix::<K>(("ad",))));
    let place = Place {
        country: "de".into(),
        height: -3,
        capital: None,
    };
    let key = key_bytes::<Place, _>(&place);
    assert!(key.starts_with(&prefix::<Place>(Fields(("de", -3)))));
    assert!(key.starts_with(&prefix::<Place>(Fields((StartsWith("d"),)))));
    assert_eq!(key, prefix::<Place>(&place));
}

#[test]
fn what_stands_for_a_key_has_its_bytes() {
    fn same<K: Key>(key: &K, other: impl AsKey<K>) {
        assert_eq!(key_bytes::<K, _>(key), key_bytes::<K, _>(other));
    }
    same(&"a\0".to_owned(), "a\0");
    same(&"a".to_owned(), std::borrow::Cow::Borrowed("a"));
    same(&b"a\0".to_vec(), b"a\0");
    same(&b"a\0".to_vec(), &b"a\0"[..]);
    same(&Some("a".to_owned()), Some("a"));
    same(&Reverse("a".to_owned()), Reverse("a"));
    same(&("a".to_owned(), 7_u64), ("a", &7));
    same(&RawKey(b"ab".to_vec()), "ab");
}

#[test]
fn any_bytes_are_a_key_or_an_error() {
    for seed in 0..2000 {
        let mut random = Random::new(seed);
        let len = random.below(20) as usize;
        let mut bytes = random.bytes(len);
        for byte in &mut bytes {
            if random.one_in(2) {
                *byte = *random.pick(&[0, 1, 4, 6, 0xFE, 0xFF]);
            }
        }
        assert_canonical::<(String, bool)>(&bytes);
        assert_canonical::<(Option<Vec<u8>>, u16)>(&bytes);
        assert_canonical::<Reverse<(String, Option<char>)>>(&bytes);
        assert_canonical::<(SystemTime, Duration)>(&bytes);
        assert_canonical::<IpAddr>(&bytes);
        assert_canonical::<Place>(&bytes);
        assert_canonical::<(f32, RawKey)>(&bytes);
    }
}

#[cfg(feature = "uuid")]
#[test]
fn uuids() {
    golden(
        uuid::Uuid::from_u128(1),
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01",
    );
    ordered(|random| uuid::Uuid::from_u128(number(random)));
}

#[cfg(feature = "time")]
#[test]
fn times_of_time() {
    use time::{Date, UtcDateTime};
    golden(UtcDateTime::UNIX_EPOCH, b"\x80\0\0\0\0\0\0\0\0\0\0\0");
    golden(Date::from_julian_day(0).unwrap(), b"\x80\0\0\0");
    ordered(|random| {
        let seconds = random.below(1 << 34) as i64 - (1 << 33);
        let nanosecond = random.below(1_000_000_000) as u32;
        let time = UtcDateTime::from_unix_timestamp(*random.pick(&[seconds, 0, -1])).unwrap();
        time.replace_nanosecond(nanosecond).unwrap()
    });
    ordered(|random| Date::from_julian_day(random.below(4_000_000) as i32 - 1_000_000).unwrap());
    let offset =
        time::OffsetDateTime::UNIX_EPOCH.to_offset(time::UtcOffset::from_hms(2, 0, 0).unwrap());
    assert_eq!(
        key_bytes::<UtcDateTime, _>(offset),
        key_bytes::<UtcDateTime, _>(UtcDateTime::UNIX_EPOCH)
    );
}

#[cfg(feature = "chrono")]
#[test]
fn times_of_chrono() {
    use chrono::{DateTime, NaiveDate, Utc};
    golden(DateTime::UNIX_EPOCH, b"\x80\0\0\0\0\0\0\0\0\0\0\0");
    golden(NaiveDate::from_ymd_opt(1, 1, 1).unwrap(), b"\x80\0\0\x01");
    ordered(|random| {
        let seconds = random.below(1 << 34) as i64 - (1 << 33);
        // Some are within a leap second.
        let nanoseconds = random.below(if seconds % 60 == 59 { 2 } else { 1 } * 1_000_000_000);
        DateTime::<Utc>::from_timestamp(seconds, nanoseconds as u32).unwrap_or_default()
    });
    ordered(|random| {
        let day = random.below(4_000_000) as i32 - 2_000_000;
        NaiveDate::from_num_days_from_ce_opt(day).unwrap()
    });
}
