//! Little-endian integers, varints and a bounds-checked reader over bytes.
//!
//! Everything that decodes bytes from disk goes through [`Reader`]: it never
//! panics and never reads past its end.

/// Longest encoding of a `u64` varint, in bytes.
pub(crate) const MAX_VARINT_LEN_BYTES: usize = 10;

/// Appends `value` in LEB128: seven bits a byte, low bits first.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut buf = [0; MAX_VARINT_LEN_BYTES];
    let len = encode_varint(&mut buf, value);
    out.extend_from_slice(&buf[..len]);
}

/// Writes `value` in LEB128 at the start of `out` and returns its length.
pub(crate) fn encode_varint(out: &mut [u8; MAX_VARINT_LEN_BYTES], mut value: u64) -> usize {
    let mut len = 0;
    while value >= 0x80 {
        out[len] = (value as u8) | 0x80;
        value >>= 7;
        len += 1;
    }
    out[len] = value as u8;
    len + 1
}

/// Length of `value` in LEB128, in bytes.
pub(crate) const fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a length-prefixed byte string.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The bytes ended early or an integer was malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads encoded values from the front of a byte slice.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes consumed so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Bytes not consumed yet.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// True when everything has been consumed.
    pub(crate) fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        if len > self.remaining() {
            return Err(Malformed);
        }
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    /// The next byte.
    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    /// The next little-endian `u32`.
    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(get_u32(self.take(4)?, 0))
    }

    /// The next little-endian `u64`.
    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(get_u64(self.take(8)?, 0))
    }

    /// The next varint. Overlong encodings are malformed.
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
                return Err(Malformed);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// The next varint, as a length that must not exceed `limit`.
    pub(crate) fn len(&mut self, limit: usize) -> Result<usize, Malformed> {
        match usize::try_from(self.varint()?) {
            Ok(len) if len <= limit => Ok(len),
            _ => Err(Malformed),
        }
    }

    /// The next length-prefixed byte string.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.len(self.remaining())?;
        self.take(len)
    }
}

/// The little-endian `u16` at `at`. Panics when out of bounds.
pub(crate) fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

/// The little-endian `u32` at `at`. Panics when out of bounds.
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The little-endian `u64` at `at`. Panics when out of bounds.
pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_length() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value));
                let mut reader = Reader::new(&out);
                assert_eq!(reader.varint(), Ok(value));
                assert!(reader.is_empty());
                assert_eq!(Reader::new(&out[..out.len() - 1]).varint(), Err(Malformed));
            }
        }
    }

    #[test]
    fn malformed_varints_are_refused() {
        assert_eq!(Reader::new(&[0x80, 0x00]).varint(), Err(Malformed));
        assert_eq!(Reader::new(&[0xFF; 11]).varint(), Err(Malformed));
        let mut too_big = [0xFF; 10];
        too_big[9] = 2;
        assert_eq!(Reader::new(&too_big).varint(), Err(Malformed));
    }
}
