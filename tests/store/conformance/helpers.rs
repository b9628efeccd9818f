//! What the cases share.

use std::collections::BTreeMap;

use hedgerow::{Error, Kv, Result, Scan, Value};

/// The oracle of the cases: a plain sorted map.
pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// An entry that left the store.
pub type Entry = (Vec<u8>, Vec<u8>);

fn owned(item: Result<(Value, Value)>) -> Entry {
    let (key, value) = item.expect("a readable entry");
    (key.to_vec(), value.to_vec())
}

/// What a scan yields from the front.
pub fn forward(scan: Scan) -> Vec<Entry> {
    scan.map(owned).collect()
}

/// What a scan yields from the back, turned round.
pub fn backward(scan: Scan) -> Vec<Entry> {
    let mut entries: Vec<_> = scan.rev().map(owned).collect();
    entries.reverse();
    entries
}

/// The keys of a scan, as text.
pub fn keys(scan: Scan) -> Vec<String> {
    scan.map(|item| String::from_utf8(owned(item).0).expect("a textual key"))
        .collect()
}

/// Everything in `kv`.
pub fn contents(kv: &impl Kv) -> Map {
    forward(kv.iter()).into_iter().collect()
}

/// Asserts that `kv` holds exactly `expected`, by scans both ways and by lookups.
pub fn assert_holds(kv: &impl Kv, expected: &Map) {
    let wanted: Vec<Entry> = expected.clone().into_iter().collect();
    assert_eq!(forward(kv.iter()), wanted, "forward scan");
    assert_eq!(backward(kv.iter()), wanted, "backward scan");
    for (key, value) in expected {
        assert_eq!(kv.get(key).unwrap().as_deref(), Some(value.as_slice()));
    }
}

/// Puts `entries` so that some are on disk, some in memory, and some in both with an older
/// value on disk.
pub fn load_mixed(kv: &impl Kv, entries: &Map) {
    for (at, (key, value)) in entries.iter().enumerate() {
        match at % 3 {
            0 => {
                kv.put(key, value).unwrap();
            }
            1 => {
                kv.put(key, b"old").unwrap();
            }
            _ => {}
        }
    }
    kv.flush().unwrap();
    for (at, (key, value)) in entries.iter().enumerate() {
        if at % 3 != 0 {
            kv.put(key, value).unwrap();
        }
    }
}

/// Keys that are awkward for heads, prefixes, separators and successors.
pub fn awkward_keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = [
        &b""[..],
        b"\0",
        b"\0\0",
        b"\0\x01",
        b"\x01",
        b"a",
        b"a\0",
        b"a\0\0",
        b"a\0b",
        b"aa",
        b"ab",
        b"abcd",
        b"abcd\0\0\0\0",
        b"abcd\0\0\0\0\0",
        b"abcdefgh",
        b"abcdefgh\0",
        b"abcdefghi",
        b"abcdefgi",
        b"b",
        b"\x7F\xFF",
        b"\x80",
        b"\xFE\xFF\xFF",
        b"\xFF",
        b"\xFF\0",
        b"\xFF\xFF",
        b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
        b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
    ]
    .iter()
    .map(|key| key.to_vec())
    .collect();
    let long = vec![b'p'; 300];
    for tail in ["", "\0", "a", "aa", "b"] {
        keys.push([&long[..], tail.as_bytes()].concat());
    }
    keys
}

/// A map of `keys` with a value that tells them apart.
pub fn with_values(keys: impl IntoIterator<Item = Vec<u8>>) -> Map {
    keys.into_iter()
        .enumerate()
        .map(|(at, key)| (key, format!("value {at}").into_bytes()))
        .collect()
}

/// Asserts that an operation was refused for its arguments.
#[track_caller]
pub fn assert_invalid<T: std::fmt::Debug>(result: Result<T>) {
    assert!(
        matches!(result, Err(Error::InvalidArgument { .. })),
        "expected InvalidArgument, got {result:?}"
    );
}
