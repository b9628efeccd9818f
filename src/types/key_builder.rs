//! Keys of several parts, in an order that is that of the parts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// Stands for a zero byte inside a string.
const ESCAPED_ZERO: [u8; 2] = [0, 0xFF];
/// Ends a string: below every byte that may follow in a longer one.
const END: [u8; 2] = [0, 1];

/// Builds a key out of parts such that keys compare like the tuples of their parts.
///
/// Keys are byte strings and compare byte by byte, so `10` as text comes before `9`, and a number
/// in little-endian order is in no useful order at all. Here integers are stored in big-endian
/// order, signed ones with their sign bit turned over, floats by the order of
/// [`f64::total_cmp`], strings with an end that no string can contain (zero bytes inside are
/// escaped, as CockroachDB does in its keys), and times as seconds and nanoseconds. Equal tuples
/// give equal bytes.
///
/// A prefix of the parts is a prefix of the key, so all keys that begin with the same parts are
/// found with [`KvRead::prefix`](crate::KvRead::prefix). The kinds of the parts are not stored:
/// [`KeyReader`] reads them in the order in which they were written.
///
/// ```
/// use hedgerow::{KeyBuilder, KeyReader, Model};
///
/// let kv = Model::new();
/// for (user, number) in [("ada", 10), ("ada", 9), ("adam", 1)] {
///     kv.put(KeyBuilder::new().str(user).u64(number), "order")?;
/// }
/// let of_ada = KeyBuilder::new().str("ada");
/// let keys: Vec<_> = kv.prefix(of_ada).collect::<Result<_, _>>()?;
/// assert_eq!(keys.len(), 2);
///
/// let mut parts = KeyReader::new(&keys[0].0);
/// assert_eq!((parts.str()?, parts.u64()?), ("ada".to_owned(), 9));
/// parts.finish()?;
///
/// let key = KeyBuilder::new().u16(7).u128(1 << 100).i32(-5).bool(true).into_vec();
/// let mut parts = KeyReader::new(&key);
/// assert_eq!((parts.u16()?, parts.u128()?), (7, 1 << 100));
/// assert_eq!((parts.i32()?, parts.bool()?), (-5, true));
///
/// let key = KeyBuilder::new().u8(7).u32(1 << 30).i64(-5).f64(-0.5);
/// let mut parts = KeyReader::new(key.as_ref());
/// assert_eq!((parts.u8()?, parts.u32()?), (7, 1 << 30));
/// assert_eq!((parts.i64()?, parts.f64()?), (-5, -0.5));
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyBuilder {
    bytes: Vec<u8>,
}

impl AsRef<[u8]> for KeyBuilder {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl KeyBuilder {
    /// A key without parts.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Adds an integer of eight bits.
    #[must_use]
    pub fn u8(self, part: u8) -> Self {
        self.with(&[part])
    }

    /// Adds an integer of sixteen bits.
    #[must_use]
    pub fn u16(self, part: u16) -> Self {
        self.with(&part.to_be_bytes())
    }

    /// Adds an integer of 32 bits.
    #[must_use]
    pub fn u32(self, part: u32) -> Self {
        self.with(&part.to_be_bytes())
    }

    /// Adds an integer of 64 bits.
    #[must_use]
    pub fn u64(self, part: u64) -> Self {
        self.with(&part.to_be_bytes())
    }

    /// Adds an integer of 128 bits; a UUID, say.
    #[must_use]
    pub fn u128(self, part: u128) -> Self {
        self.with(&part.to_be_bytes())
    }

    /// Adds a signed integer of 32 bits.
    #[must_use]
    pub fn i32(self, part: i32) -> Self {
        self.u32(part as u32 ^ 1 << 31)
    }

    /// Adds a signed integer of 64 bits.
    #[must_use]
    pub fn i64(self, part: i64) -> Self {
        self.u64(part as u64 ^ 1 << 63)
    }

    /// Adds a float, in the order of [`f64::total_cmp`].
    #[must_use]
    pub fn f64(self, part: f64) -> Self {
        let bits = part.to_bits();
        // Negative ones fall as their bits rise.
        let turned = if bits >> 63 == 1 {
            !bits
        } else {
            bits | 1 << 63
        };
        self.u64(turned)
    }

    /// Adds a truth value: false before true.
    #[must_use]
    pub fn bool(self, part: bool) -> Self {
        self.u8(part.into())
    }

    /// Adds a string.
    #[must_use]
    pub fn str(self, part: &str) -> Self {
        self.bytes(part.as_bytes())
    }

    /// Adds a string of bytes.
    #[must_use]
    pub fn bytes(mut self, part: &[u8]) -> Self {
        for byte in part {
            match byte {
                0 => self.bytes.extend_from_slice(&ESCAPED_ZERO),
                byte => self.bytes.push(*byte),
            }
        }
        self.with(&END)
    }

    /// Adds a time, to the nanosecond; times before 1970 come first.
    #[must_use]
    pub fn time(self, part: SystemTime) -> Self {
        let nanoseconds = match part.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_nanos() as i128,
            Err(before) => -(before.duration().as_nanos() as i128),
        };
        let seconds = nanoseconds.div_euclid(1_000_000_000) as i64;
        let rest = nanoseconds.rem_euclid(1_000_000_000) as u32;
        self.i64(seconds).u32(rest)
    }

    /// The key.
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads the parts of a key that a [`KeyBuilder`] made, in the same order. Each method fails with
/// [`Error::InvalidArgument`] if the key does not go on like that.
#[derive(Debug, Clone)]
pub struct KeyReader<'a> {
    rest: &'a [u8],
}

impl<'a> KeyReader<'a> {
    /// Reads `key` from its beginning.
    pub fn new(key: &'a [u8]) -> Self {
        Self { rest: key }
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN]> {
        let Some((part, rest)) = self.rest.split_first_chunk() else {
            return Err(Error::invalid("the key ends in the middle of a part"));
        };
        self.rest = rest;
        Ok(*part)
    }

    /// As [`KeyBuilder::u8`].
    pub fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// As [`KeyBuilder::u16`].
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// As [`KeyBuilder::u32`].
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// As [`KeyBuilder::u64`].
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// As [`KeyBuilder::u128`].
    pub fn u128(&mut self) -> Result<u128> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    /// As [`KeyBuilder::i32`].
    pub fn i32(&mut self) -> Result<i32> {
        Ok((self.u32()? ^ 1 << 31) as i32)
    }

    /// As [`KeyBuilder::i64`].
    pub fn i64(&mut self) -> Result<i64> {
        Ok((self.u64()? ^ 1 << 63) as i64)
    }

    /// As [`KeyBuilder::f64`].
    pub fn f64(&mut self) -> Result<f64> {
        let turned = self.u64()?;
        let bits = match turned >> 63 {
            1 => turned & !(1 << 63),
            _ => !turned,
        };
        Ok(f64::from_bits(bits))
    }

    /// As [`KeyBuilder::bool`].
    pub fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::invalid(format!("{other} is no truth value"))),
        }
    }

    /// As [`KeyBuilder::str`].
    pub fn str(&mut self) -> Result<String> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes).map_err(|_| Error::invalid("a part of the key is not UTF-8"))
    }

    /// As [`KeyBuilder::bytes`].
    pub fn bytes(&mut self) -> Result<Vec<u8>> {
        let mut part = Vec::new();
        loop {
            match self.u8()? {
                0 => match [0, self.u8()?] {
                    END => return Ok(part),
                    ESCAPED_ZERO => part.push(0),
                    _ => return Err(Error::invalid("a part of the key is not a string")),
                },
                byte => part.push(byte),
            }
        }
    }

    /// As [`KeyBuilder::time`].
    pub fn time(&mut self) -> Result<SystemTime> {
        let (seconds, rest) = (self.i64()?, self.u32()?);
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let time = match seconds < 0 {
            true => UNIX_EPOCH.checked_sub(whole),
            false => UNIX_EPOCH.checked_add(whole),
        };
        time.filter(|_| rest < 1_000_000_000)
            .and_then(|time| time.checked_add(Duration::from_nanos(rest.into())))
            .ok_or_else(|| Error::invalid("a part of the key is not a time"))
    }

    /// Checks that there are no more parts.
    pub fn finish(self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            rest => Err(Error::invalid(format!("the key has {rest} more bytes"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts that keys rise with the parts, which are given in rising order.
    fn rises<T: Copy>(parts: &[T], build: impl Fn(KeyBuilder, T) -> KeyBuilder) {
        // What follows a part must not disturb the order.
        for (low, high) in [(0, u64::MAX), (u64::MAX, 0)] {
            for pair in parts.windows(2) {
                let [a, b] = [(pair[0], high), (pair[1], low)]
                    .map(|(part, next)| build(KeyBuilder::new(), part).u64(next).into_vec());
                assert!(a < b, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn keys_compare_like_their_parts() {
        rises(&[0, 1, 9, 10, 255, 256, u64::MAX], KeyBuilder::u64);
        rises(&[i64::MIN, -256, -1, 0, 1, 255, i64::MAX], KeyBuilder::i64);
        rises(&[i32::MIN, -1, 0, 1, i32::MAX], KeyBuilder::i32);
        let floats = [
            f64::NEG_INFINITY,
            -1.5,
            -0.0,
            0.0,
            1e-300,
            1.5,
            f64::INFINITY,
        ];
        rises(&floats, KeyBuilder::f64);
        let strings = [
            "", "\0", "\0\0", "\0a", "\u{1}", "a", "a\0", "a\0\u{1}", "aa", "b",
        ];
        rises(&strings, KeyBuilder::str);
        let second = |n: i64| match n < 0 {
            true => UNIX_EPOCH - Duration::from_millis(n.unsigned_abs()),
            false => UNIX_EPOCH + Duration::from_millis(n.unsigned_abs()),
        };
        let times = [-2000, -1500, -1, 0, 1, 1500].map(second);
        rises(&times, KeyBuilder::time);
    }

    #[test]
    fn parts_come_back() {
        let before = UNIX_EPOCH - Duration::from_nanos(1_500_000_001);
        let key = KeyBuilder::new()
            .u8(1)
            .u16(2)
            .u32(3)
            .u128(4)
            .i32(-5)
            .i64(i64::MIN)
            .f64(-0.25)
            .bool(true)
            .bytes(b"\0\xFF\0")
            .str("h\u{e9}")
            .time(before)
            .into_vec();
        let read = |key: &[u8]| -> Result<()> {
            let mut parts = KeyReader::new(key);
            assert_eq!((parts.u8()?, parts.u16()?, parts.u32()?), (1, 2, 3));
            assert_eq!((parts.u128()?, parts.i32()?), (4, -5));
            assert_eq!(parts.i64()?, i64::MIN);
            assert!(parts.f64()?.total_cmp(&-0.25).is_eq() && parts.bool()?);
            assert_eq!(parts.bytes()?, b"\0\xFF\0");
            assert_eq!(parts.str()?, "h\u{e9}");
            assert_eq!(parts.time()?, before);
            parts.finish()
        };
        read(&key).unwrap();
        for cut in 0..key.len() {
            assert!(read(&key[..cut]).is_err());
        }
        assert!(read(&[&key[..], &[0]].concat()).is_err());
    }
}
