//! Keys and values that can be checked, and what a thread knows of its records.

use hedgerow::{Keyspace, Value};

use crate::distribution::fnv1a64;
use crate::error::{Error, Result};
use crate::rng::{Rng, mix64};

/// Version and checksum.
const FRAME_BYTES: usize = 4 + 8;

/// The key of a record.
pub(super) fn key_of(record: u64) -> [u8; 8] {
    record.to_be_bytes()
}

/// Makes the value of a version of a record: of half to one and a half times `mean_bytes`, half of
/// it compressible.
pub(super) fn write_value(record: u64, version: u32, mean_bytes: usize, value: &mut Vec<u8>) {
    let mut rng = Rng::new(mix64(record ^ u64::from(version) << 40));
    let len = FRAME_BYTES + mean_bytes / 2 + rng.below(mean_bytes as u64 + 1) as usize;
    value.clear();
    value.extend_from_slice(&version.to_le_bytes());
    while value.len() + 8 < len {
        let word = rng.next_u64();
        value.extend_from_slice(&word.to_le_bytes());
        value.extend_from_slice(&[word as u8; 8]);
    }
    value.truncate(len - 8);
    let checksum = fnv1a64(value) ^ mix64(record);
    value.extend_from_slice(&checksum.to_le_bytes());
}

/// The version that a value of a record says it has, if its checksum is right.
pub(super) fn version_of(record: u64, value: &[u8]) -> Option<u32> {
    let (body, checksum) = value.split_last_chunk::<8>()?;
    let version = body.first_chunk::<4>()?;
    let is_right = fnv1a64(body) ^ mix64(record) == u64::from_le_bytes(*checksum);
    is_right.then(|| u32::from_le_bytes(*version))
}

/// The record of an entry, whose value must be one of its own.
pub(super) fn check_entry(key: &[u8], value: &[u8]) -> Result<(u64, u32)> {
    let record = key
        .first_chunk::<8>()
        .map(|bytes| u64::from_be_bytes(*bytes));
    let found = record.and_then(|record| Some((record, version_of(record, value)?)));
    found.ok_or_else(|| {
        let key = key.escape_ascii();
        Error::wrong(format!(
            "the value of key {key} is none that was written there"
        ))
    })
}

/// The records of one thread: every `stride`-th from `first` on, with the version of each and
/// whether it is there.
#[derive(Debug)]
pub(super) struct Own {
    first: u64,
    stride: u64,
    states: Vec<State>,
    mean_bytes: usize,
    value: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    version: u32,
    is_there: bool,
}

impl Own {
    /// Those of thread `first` of `stride`, of `records` in all. None is there.
    pub(super) fn new(first: u64, stride: u64, records: u64, mean_bytes: usize) -> Self {
        let count = (records.saturating_sub(first)).div_ceil(stride);
        Self {
            first,
            stride,
            states: vec![State::default(); count as usize],
            mean_bytes,
            value: Vec::new(),
        }
    }

    /// How many it has, there or not.
    pub(super) fn len(&self) -> u64 {
        self.states.len() as u64
    }

    /// How many are there.
    pub(super) fn present(&self) -> u64 {
        self.states.iter().filter(|state| state.is_there).count() as u64
    }

    /// The number of its `n`-th record.
    pub(super) fn record(&self, n: u64) -> u64 {
        self.first + n * self.stride
    }

    /// Writes the next version of the `n`-th.
    pub(super) fn put(&mut self, keyspace: &Keyspace, n: u64) -> Result<()> {
        let record = self.record(n);
        let state = &mut self.states[n as usize];
        let version = state.version.wrapping_add(1);
        write_value(record, version, self.mean_bytes, &mut self.value);
        keyspace.put(key_of(record), &self.value)?;
        *state = State {
            version,
            is_there: true,
        };
        Ok(())
    }

    /// Removes the `n`-th.
    pub(super) fn delete(&mut self, keyspace: &Keyspace, n: u64) -> Result<()> {
        keyspace.delete(key_of(self.record(n)))?;
        self.states[n as usize].is_there = false;
        Ok(())
    }

    /// The records with numbers in this range were removed.
    pub(super) fn removed(&mut self, records: std::ops::Range<u64>) {
        for (n, state) in (0..).zip(&mut self.states) {
            if records.contains(&(self.first + n * self.stride)) {
                state.is_there = false;
            }
        }
    }

    /// Whether the `n`-th is there.
    pub(super) fn is_there(&self, n: u64) -> bool {
        self.states[n as usize].is_there
    }

    /// Reads the `n`-th, which must be as this thread left it.
    pub(super) fn check(&self, keyspace: &Keyspace, n: u64) -> Result<()> {
        let found = keyspace.get(key_of(self.record(n)))?;
        self.check_found(n, found.as_ref())
    }

    pub(super) fn check_found(&self, n: u64, found: Option<&Value>) -> Result<()> {
        let (record, state) = (self.record(n), self.states[n as usize]);
        let version = found.map(|value| version_of(record, value));
        let expected = state.is_there.then_some(Some(state.version));
        match version == expected {
            true => Ok(()),
            false => Err(Error::wrong(format!(
                "record {record} has version {version:?}, and {expected:?} was written"
            ))),
        }
    }

    /// Whether the record is its own, and then which.
    pub(super) fn place_of(&self, record: u64) -> Option<u64> {
        let after = record.checked_sub(self.first)?;
        let n = after / self.stride;
        (after.is_multiple_of(self.stride) && n < self.len()).then_some(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_its_version_and_belongs_to_its_record() {
        let mut value = Vec::new();
        for version in [1, 7, u32::MAX] {
            write_value(5, version, 100, &mut value);
            assert!((62..=162).contains(&value.len()), "{}", value.len());
            assert_eq!(version_of(5, &value), Some(version));
            assert_eq!(version_of(6, &value), None);
            value[9] ^= 1;
            assert_eq!(version_of(5, &value), None);
        }
        assert_eq!(version_of(5, &[]), None);
    }

    #[test]
    fn records_are_dealt_out_to_threads() {
        let own: Vec<_> = (0..3).map(|first| Own::new(first, 3, 10, 8)).collect();
        assert_eq!(own.iter().map(Own::len).sum::<u64>(), 10);
        for record in 0..10 {
            let owners = own
                .iter()
                .filter_map(|own| Some(own.record(own.place_of(record)?)));
            assert_eq!(owners.collect::<Vec<_>>(), [record]);
        }
        assert!(own.iter().all(|own| own.place_of(10).is_none()));
    }
}
