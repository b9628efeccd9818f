//! Accounts as keys and values, which every read and the end of a run can check.
//!
//! ```text
//! key:   "account" and nine digits                                     16 bytes
//! value: balance, i64 | writes, u64 | check, u64 | filler
//! ```
//!
//! Numbers are little-endian. `writes` counts how often the account was written, `check` is made
//! from its number, and so is the filler, half of which compresses.

use hedgerow_bench::{Error, Result, Rng, mix64};

/// What an account has at first.
pub const BALANCE_AT_FIRST: i64 = 1_000;
/// Bytes of a key.
pub const KEY_LEN_BYTES: usize = 16;
/// Bytes of a value before its filler: a value has as many at least.
pub const HEAD_LEN_BYTES: usize = 24;

/// The key of account `number`.
pub fn key(number: u64) -> [u8; KEY_LEN_BYTES] {
    let mut key = *b"account000000000";
    let mut rest = number;
    for digit in key.iter_mut().rev().take(9) {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// An account as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    value: Vec<u8>,
}

impl Account {
    /// Account `number` at first, in a value of `len` bytes.
    pub fn new(number: u64, len: usize) -> Self {
        assert!(len >= HEAD_LEN_BYTES);
        let mut value = vec![0; len];
        value[..8].copy_from_slice(&BALANCE_AT_FIRST.to_le_bytes());
        value[16..24].copy_from_slice(&mix64(number).to_le_bytes());
        let random = HEAD_LEN_BYTES + (len - HEAD_LEN_BYTES) / 2;
        Rng::new(number).fill(&mut value[HEAD_LEN_BYTES..random]);
        Self { value }
    }

    /// Takes over what was read as account `number`, in the memory that is there already.
    ///
    /// An error if it is not well formed, or of another account.
    pub fn read(&mut self, number: u64, value: &[u8], len: usize) -> Result<()> {
        if value.len() != len || value[16..24] != mix64(number).to_le_bytes() {
            return Err(Error::wrong(format!(
                "account {number} has a value of {} bytes that is not its own",
                value.len()
            )));
        }
        self.value.clear();
        self.value.extend_from_slice(value);
        Ok(())
    }

    /// An error if the filler is not what it was at first.
    pub fn check_filler(&self, number: u64) -> Result<()> {
        let first = Self::new(number, self.value.len());
        if self.value[HEAD_LEN_BYTES..] == first.value[HEAD_LEN_BYTES..] {
            return Ok(());
        }
        Err(Error::wrong(format!("account {number} has a torn value")))
    }

    /// Its bytes.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// What it has.
    pub fn balance(&self) -> i64 {
        i64::from_le_bytes(self.word(0))
    }

    /// How often it was written.
    pub fn writes(&self) -> u64 {
        u64::from_le_bytes(self.word(8))
    }

    /// Adds `amount` to its balance, and a write to its count.
    pub fn change(&mut self, amount: i64) {
        let (balance, writes) = (self.balance() + amount, self.writes() + 1);
        self.value[..8].copy_from_slice(&balance.to_le_bytes());
        self.value[8..16].copy_from_slice(&writes.to_le_bytes());
    }

    fn word(&self, at: usize) -> [u8; 8] {
        self.value[at..at + 8].try_into().expect("eight bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_short_and_torn_values_are_noticed() {
        assert_eq!(&key(0), b"account000000000");
        assert_eq!(&key(123_456_789), b"account123456789");
        let mut account = Account::new(7, 100);
        account.change(-30);
        let value = account.value().to_vec();
        let mut read = Account::default();
        read.read(7, &value, 100).unwrap();
        assert_eq!((read.balance(), read.writes()), (970, 1));
        read.check_filler(7).unwrap();
        assert!(read.read(8, &value, 100).is_err());
        assert!(read.read(7, &value[..99], 100).is_err());
        assert!(read.read(7, &[], 100).is_err());
        let mut torn = value;
        torn[40] ^= 1;
        read.read(7, &torn, 100).unwrap();
        assert!(read.check_filler(7).is_err());
    }
}
