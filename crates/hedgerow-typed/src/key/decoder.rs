//! Reading keys: a place in their bytes, and what may be wrong with them.

use std::fmt;

/// Why bytes are no key of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyError {
    at: usize,
    what: String,
}

impl KeyError {
    /// Where in the key, in bytes from its beginning.
    pub fn at(&self) -> usize {
        self.at
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at byte {} of the key", self.what, self.at)
    }
}

impl std::error::Error for KeyError {}

/// Reads the bytes of a key from the front.
#[derive(Debug, Clone)]
pub struct KeyDecoder<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Turns bits over, within a `Reverse`.
    mask: u8,
}

impl<'a> KeyDecoder<'a> {
    /// Reads `bytes` from the beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            mask: 0,
        }
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    ///
    /// If there are fewer.
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], KeyError> {
        let Some(bytes) = self.bytes[self.at..].first_chunk::<N>() else {
            let left = self.bytes.len() - self.at;
            return Err(self.error(format!("{N} bytes are needed, {left} are left")));
        };
        self.at += N;
        Ok(bytes.map(|byte| byte ^ self.mask))
    }

    /// The next byte.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn byte(&mut self) -> Result<u8, KeyError> {
        self.take::<1>().map(|[byte]| byte)
    }

    /// All that is left.
    pub fn rest(&mut self) -> Vec<u8> {
        let rest = self.bytes[self.at..].iter().map(|byte| byte ^ self.mask);
        let rest = rest.collect();
        self.at = self.bytes.len();
        rest
    }

    /// Reads something every bit of which was turned over.
    pub fn reversed<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, KeyError>,
    ) -> Result<T, KeyError> {
        self.mask = !self.mask;
        let result = read(self);
        self.mask = !self.mask;
        result
    }

    /// An error at this place.
    pub fn error(&self, what: impl Into<String>) -> KeyError {
        KeyError {
            at: self.at,
            what: what.into(),
        }
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    ///
    /// If something is.
    pub fn finish(self) -> Result<(), KeyError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            more => Err(self.error(format!("the key has {more} more bytes than its type"))),
        }
    }
}
