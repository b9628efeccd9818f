//! Keys and values of a benchmark, made from a record's number.
//!
//! A value can be checked without being remembered: its first bytes are a tag computed from the
//! key and from the value's length (`tag`). A store that returns another key's value, a torn one
//! or none is found out at the cost of a few nanoseconds per read.

use std::fmt;
use std::str::FromStr;

use hedgerow::{MAX_KEY_LEN_BYTES, MAX_VALUE_LEN_BYTES};

use crate::error::{Error, Result};
use crate::rng::{Rng, mix64};

/// Random bytes that values are cut from, like db_bench's generator.
const POOL_BYTES: usize = 1 << 20;
/// Compressibility holds for pieces of this length, so for every block of a store as well.
const PIECE_BYTES: usize = 100;
const TAG_BYTES: usize = 8;

/// What keys look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyShape {
    /// The record's number in decimal, padded with zeros at the left: `0000000000001234`.
    Decimal,
    /// The record's number as eight bytes, big-endian, then zero bytes: `u64` ids.
    Binary,
    /// A scrambled number, as hashes and UUIDs are: keys share no prefix, and number order is not
    /// key order.
    Hashed,
    /// The letters of a long path, the same for all keys, then the number in decimal.
    Prefixed,
}

impl KeyShape {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Decimal, Self::Binary, Self::Hashed, Self::Prefixed];

    /// Its name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decimal => "decimal",
            Self::Binary => "binary",
            Self::Hashed => "hashed",
            Self::Prefixed => "prefixed",
        }
    }

    /// The number of digits or bytes that tell keys apart.
    const fn number_bytes(self) -> usize {
        match self {
            Self::Decimal => 8,
            Self::Binary | Self::Hashed => 8,
            Self::Prefixed => 24,
        }
    }
}

impl fmt::Display for KeyShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for KeyShape {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|known| known.name() == name);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::usage(format!("unknown key shape {name:?}: use one of {known}"))
        })
    }
}

/// How keys are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    shape: KeyShape,
    len_bytes: usize,
}

impl Keys {
    /// Keys of `len_bytes` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if keys of that length and shape cannot number `records` records.
    pub fn new(shape: KeyShape, len_bytes: usize, records: u64) -> Result<Self> {
        let least = shape.number_bytes();
        if len_bytes < least || len_bytes > MAX_KEY_LEN_BYTES {
            return Err(Error::usage(format!(
                "{shape} keys must have {least} to {MAX_KEY_LEN_BYTES} bytes, not {len_bytes}"
            )));
        }
        let digits = len_bytes.min(16) as u32;
        if shape == KeyShape::Decimal && records >= 10u64.pow(digits) {
            return Err(Error::usage(format!(
                "{records} records do not fit in decimal keys of {len_bytes} bytes"
            )));
        }
        Ok(Self { shape, len_bytes })
    }

    /// Length of every key, in bytes.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// What keys look like.
    pub fn shape(&self) -> KeyShape {
        self.shape
    }

    /// A buffer for [`Keys::write`].
    pub fn buffer(&self) -> Vec<u8> {
        let filler = match self.shape {
            KeyShape::Decimal => b'0',
            KeyShape::Binary | KeyShape::Hashed => 0,
            KeyShape::Prefixed => b'/',
        };
        let mut key = vec![filler; self.len_bytes];
        if self.shape == KeyShape::Prefixed {
            let path = b"tenants/example/collections/documents/revisions/";
            let free = self.len_bytes - 16;
            for (byte, letter) in key[..free].iter_mut().zip(path.iter().cycle()) {
                *byte = *letter;
            }
        }
        key
    }

    /// Writes the key of `record` into `key`, which [`Keys::buffer`] made.
    #[inline]
    pub fn write(&self, record: u64, key: &mut [u8]) {
        match self.shape {
            KeyShape::Decimal | KeyShape::Prefixed => {
                let digits = key.len().min(16);
                let start = key.len() - digits;
                write_decimal(record, &mut key[start..]);
            }
            KeyShape::Binary => key[..8].copy_from_slice(&record.to_be_bytes()),
            KeyShape::Hashed => {
                // Mixing is a bijection, so keys stay distinct whatever follows.
                let mut word = mix64(record);
                for chunk in key.chunks_mut(8) {
                    chunk.copy_from_slice(&word.to_be_bytes()[..chunk.len()]);
                    word = mix64(word);
                }
            }
        }
    }

    /// Makes a key that no record has, right behind that of `record`: one byte longer.
    #[inline]
    pub fn write_missing(&self, record: u64, key: &mut Vec<u8>) {
        key.truncate(self.len_bytes);
        self.write(record, key);
        key.push(0xff);
    }
}

/// Writes the low decimal digits of `number`, two at a time.
#[inline]
fn write_decimal(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The lengths of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueSize {
    /// The shortest, in bytes.
    pub min_bytes: usize,
    /// The longest, in bytes.
    pub max_bytes: usize,
}

impl ValueSize {
    /// All values have `bytes` bytes.
    pub const fn fixed(bytes: usize) -> Self {
        Self {
            min_bytes: bytes,
            max_bytes: bytes,
        }
    }

    /// The mean length, in bytes.
    pub fn mean_bytes(&self) -> f64 {
        (self.min_bytes + self.max_bytes) as f64 / 2.0
    }

    /// Refuses what no store could hold.
    pub fn check(&self) -> Result<()> {
        if self.min_bytes > self.max_bytes {
            return Err(Error::usage(format!("the value sizes {self} are inverted")));
        }
        if self.max_bytes > MAX_VALUE_LEN_BYTES {
            return Err(Error::usage(format!(
                "a value has at most {MAX_VALUE_LEN_BYTES} bytes, not {}",
                self.max_bytes
            )));
        }
        Ok(())
    }
}

impl fmt::Display for ValueSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min_bytes == self.max_bytes {
            write!(f, "{}", self.min_bytes)
        } else {
            write!(f, "{}-{}", self.min_bytes, self.max_bytes)
        }
    }
}

impl FromStr for ValueSize {
    type Err = Error;

    /// `"100"` or `"16-1024"`.
    fn from_str(text: &str) -> Result<Self> {
        let number = |part: &str| {
            part.trim().parse::<usize>().map_err(|_| {
                Error::usage(format!(
                    "{text:?} is not a value size: write 100 or 16-1024"
                ))
            })
        };
        let size = match text.split_once('-') {
            Some((min, max)) => Self {
                min_bytes: number(min)?,
                max_bytes: number(max)?,
            },
            None => Self::fixed(number(text)?),
        };
        size.check()?;
        Ok(size)
    }
}

/// Makes values. Threads share the pool, each with its own place in it.
#[derive(Debug, Clone)]
pub struct Values {
    size: ValueSize,
    /// Where in a piece its bytes begin to repeat.
    period: usize,
    pool: std::sync::Arc<[u8]>,
}

impl Values {
    /// Values of `size` that a good compressor brings to `compressed_fraction` of their length:
    /// 1.0 is random bytes, 0.5 is db_bench's default.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for impossible sizes and for a fraction outside 0 to 1.
    pub fn new(size: ValueSize, compressed_fraction: f64, seed: u64) -> Result<Self> {
        size.check()?;
        if !(0.0..=1.0).contains(&compressed_fraction) {
            return Err(Error::usage(format!(
                "values compress to a fraction from 0 to 1, not {compressed_fraction}"
            )));
        }
        let period = ((PIECE_BYTES as f64 * compressed_fraction) as usize).max(1);
        let mut rng = Rng::new(seed);
        // Long values are cut whole, so the pool has room for one behind every start.
        let mut pool = vec![0; (POOL_BYTES + size.max_bytes).next_multiple_of(PIECE_BYTES)];
        for piece in pool.chunks_exact_mut(PIECE_BYTES) {
            let (random, repeats) = piece.split_at_mut(period);
            rng.fill(random);
            for repeat in repeats.chunks_mut(period) {
                repeat.copy_from_slice(&random[..repeat.len()]);
            }
        }
        Ok(Self {
            size,
            period,
            pool: pool.into(),
        })
    }

    /// The lengths of values.
    pub fn size(&self) -> ValueSize {
        self.size
    }

    /// Makes a value for `key` in `value`: random bytes from the pool behind the tag.
    #[inline]
    pub fn write(&self, key: &[u8], rng: &mut Rng, value: &mut Vec<u8>) {
        let ValueSize {
            min_bytes,
            max_bytes,
        } = self.size;
        let spread = (max_bytes - min_bytes) as u64;
        let len = min_bytes
            + if spread == 0 {
                0
            } else {
                rng.below(spread + 1) as usize
            };
        let pieces = (POOL_BYTES / PIECE_BYTES) as u64;
        let start = rng.below(pieces) as usize * PIECE_BYTES;
        value.clear();
        value.extend_from_slice(&self.pool[start..start + len]);
        let tag = tag(key, len);
        let shown = len.min(TAG_BYTES);
        value[..shown].copy_from_slice(&tag[..shown]);
        // The tag is repeated where the piece repeats its beginning: the value compresses as well
        // as it did before.
        if self.period >= TAG_BYTES && len >= self.period + TAG_BYTES && self.period < PIECE_BYTES {
            let room = (PIECE_BYTES - self.period).min(TAG_BYTES);
            value[self.period..self.period + room].copy_from_slice(&tag[..room]);
        }
    }
}

/// What the first bytes of a value of `len` bytes under `key` must be.
#[inline]
fn tag(key: &[u8], len: usize) -> [u8; TAG_BYTES] {
    let mut hash = len as u64;
    for chunk in key.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word))
            .wrapping_mul(0x9fb2_1c65_1e98_df25)
            .rotate_left(29);
    }
    mix64(hash).to_le_bytes()
}

/// True if `value` is one that [`Values::write`] made for `key`: its length and first bytes agree.
#[inline]
pub fn is_value_of(key: &[u8], value: &[u8]) -> bool {
    let shown = value.len().min(TAG_BYTES);
    value[..shown] == tag(key, value.len())[..shown]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_are_distinct_and_ordered_where_promised() {
        for shape in KeyShape::ALL {
            for len in [24, 33] {
                let keys = Keys::new(shape, len, 10_000).unwrap();
                let mut key = keys.buffer();
                let mut all = Vec::new();
                for record in 0..10_000 {
                    keys.write(record, &mut key);
                    assert_eq!(key.len(), len);
                    all.push(key.clone());
                }
                let ordered = all.is_sorted();
                assert_eq!(ordered, shape != KeyShape::Hashed, "{shape}");
                assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), 10_000);
            }
        }
    }

    #[test]
    fn keys_look_as_documented() {
        let show = |shape, len| {
            let keys = Keys::new(shape, len, 2000).unwrap();
            let mut key = keys.buffer();
            keys.write(1234, &mut key);
            key
        };
        assert_eq!(show(KeyShape::Decimal, 16), b"0000000000001234");
        assert_eq!(show(KeyShape::Decimal, 20), b"00000000000000001234");
        assert_eq!(show(KeyShape::Binary, 10), [0, 0, 0, 0, 0, 0, 4, 210, 0, 0]);
        assert_eq!(
            show(KeyShape::Prefixed, 32),
            b"tenants/example/0000000000001234"
        );
    }

    #[test]
    fn missing_keys_are_never_records() {
        for shape in KeyShape::ALL {
            let keys = Keys::new(shape, 24, 1000).unwrap();
            let mut key = keys.buffer();
            let present: BTreeSet<_> = (0..1000)
                .map(|record| {
                    keys.write(record, &mut key);
                    key.clone()
                })
                .collect();
            let mut missing = keys.buffer();
            for record in 0..1000 {
                keys.write_missing(record, &mut missing);
                assert!(!present.contains(&missing));
            }
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(Keys::new(KeyShape::Decimal, 4, 10).is_err());
        assert!(Keys::new(KeyShape::Decimal, 8, 100_000_000).is_err());
        assert!(Keys::new(KeyShape::Decimal, 8, 99_999_999).is_ok());
        assert!(Keys::new(KeyShape::Binary, 70_000, 1).is_err());
        assert!("9-3".parse::<ValueSize>().is_err());
        assert!("ten".parse::<ValueSize>().is_err());
        assert!(ValueSize::fixed((256 << 20) + 1).check().is_err());
        assert!(Values::new(ValueSize::fixed(1), 1.5, 0).is_err());
        assert_eq!("16-64".parse::<ValueSize>().unwrap().to_string(), "16-64");
    }

    #[test]
    fn values_know_their_key() {
        let mut rng = Rng::new(4);
        for fraction in [0.0, 0.05, 0.5, 0.97, 1.0] {
            let values = Values::new("0-300".parse().unwrap(), fraction, 1).unwrap();
            let mut value = Vec::new();
            for record in 0..2000u64 {
                let key = record.to_be_bytes();
                values.write(&key, &mut rng, &mut value);
                assert!(value.len() <= 300);
                assert!(is_value_of(&key, &value));
                if value.len() >= 8 {
                    assert!(!is_value_of(b"another key", &value));
                    assert!(!is_value_of(&key, &value[..value.len() - 1]));
                }
            }
        }
    }

    #[test]
    fn values_compress_to_the_fraction_asked_for() {
        for (len, fraction) in [
            (100, 0.5),
            (100, 1.0),
            (1000, 0.5),
            (1000, 0.2),
            (100_000, 0.5),
        ] {
            let values = Values::new(ValueSize::fixed(len), fraction, 1).unwrap();
            let mut rng = Rng::new(2);
            let (mut block, mut value) = (Vec::new(), Vec::new());
            for record in 0..200_000 / len as u64 {
                values.write(&record.to_be_bytes(), &mut rng, &mut value);
                block.extend_from_slice(&value);
            }
            let packed = lz4_flex::block::compress(&block).len() as f64 / block.len() as f64;
            assert!(
                (packed - fraction).abs() < 0.1,
                "{len} bytes: {packed} for {fraction}"
            );
        }
    }
}
