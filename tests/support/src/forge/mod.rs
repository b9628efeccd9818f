//! Files made by hand, byte by byte, that no store would write.
//!
//! Written from docs/format.md, not from the code that reads them, so that a test or a fuzz target
//! can put anything into any place and still get past the frames.

pub mod manifest;
pub mod table;
pub mod tree;

/// Appends a number of seven bits a byte, low ones first.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a string of bytes behind its length.
fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends 1 and a string of bytes, or 0.
fn optional(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            bytes(out, value);
        }
    }
}

/// The first `N` bytes of a key as a little-endian number that orders like the key.
fn head<const N: usize>(key: &[u8]) -> [u8; N] {
    let mut head = [0; N];
    let len = key.len().min(N);
    head[..len].copy_from_slice(&key[..len]);
    head.reverse();
    head
}
