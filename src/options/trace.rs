//! Options of a trace: what a store that records its operations keeps of them.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// How keys are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KeyMode {
    /// Their bytes, so that a replay is faithful.
    #[default]
    Contents,
    /// A hash and the length. The hash is keyed with a secret that is not kept, so keys cannot be
    /// guessed from it; equal keys have equal hashes within a trace. The order of keys is lost:
    /// scans replay from a random place and take as many entries as they took.
    Hashed,
}

/// How values are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ValueMode {
    /// Their length only.
    #[default]
    Sizes,
    /// The bytes of values that are put, up to 64 KiB each; longer ones by their length.
    Contents,
}

/// Which operations are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Sampling {
    /// All of them.
    #[default]
    All,
    /// All operations on one key of `one_in`, chosen by a hash of the key: a sampled key keeps its
    /// whole history. A scan counts as an operation on the key it starts from. Range deletes are
    /// always recorded, since they are part of every key's history.
    Keys {
        /// One key of this many; 1 records all.
        one_in: u32,
    },
    /// All operations in the first `record_ms` of every `every_ms` milliseconds.
    Windows {
        /// Length of a window.
        record_ms: u64,
        /// From the start of a window to the start of the next.
        every_ms: u64,
    },
}

/// How a trace is recorded. `TraceOptions::default()` records everything but the contents of
/// values, up to 1 GiB.
///
/// ```
/// use hedgerow::Options;
/// use hedgerow::trace::{KeyMode, Sampling, TraceOptions, ValueMode};
///
/// let private_and_small = TraceOptions::new()
///     .keys(KeyMode::Hashed)
///     .values(ValueMode::Sizes)
///     .sampling(Sampling::Windows { record_ms: 1000, every_ms: 60_000 })
///     .limit_bytes(64 << 20)
///     .buffer_bytes(4 << 20);
/// let options = Options::new().record_to("my.trace", private_and_small);
/// # drop(options);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceOptions {
    /// How keys are recorded. Default: [`KeyMode::Contents`].
    pub keys: KeyMode,
    /// How values are recorded. Default: [`ValueMode::Sizes`].
    pub values: ValueMode,
    /// Which operations are recorded. Default: [`Sampling::All`].
    pub sampling: Sampling,
    /// The trace ends when its file would grow beyond this, in bytes. Default: 1 GiB.
    pub limit_bytes: u64,
    /// Memory for events on their way to the file, in bytes; what does not fit is dropped and
    /// counted. Default: 16 MiB.
    pub buffer_bytes: u64,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self {
            keys: KeyMode::Contents,
            values: ValueMode::Sizes,
            sampling: Sampling::All,
            limit_bytes: 1 << 30,
            buffer_bytes: 16 << 20,
        }
    }
}

impl TraceOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how keys are recorded.
    #[must_use]
    pub fn keys(mut self, keys: KeyMode) -> Self {
        self.keys = keys;
        self
    }

    /// Sets how values are recorded.
    #[must_use]
    pub fn values(mut self, values: ValueMode) -> Self {
        self.values = values;
        self
    }

    /// Sets which operations are recorded.
    #[must_use]
    pub fn sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// Sets the largest size of the file.
    #[must_use]
    pub fn limit_bytes(mut self, limit_bytes: u64) -> Self {
        self.limit_bytes = limit_bytes;
        self
    }

    /// Sets the memory for events on their way to the file.
    #[must_use]
    pub fn buffer_bytes(mut self, buffer_bytes: u64) -> Self {
        self.buffer_bytes = buffer_bytes;
        self
    }

    /// Refuses impossible values.
    pub(crate) fn check(&self) -> Result<()> {
        match self.sampling {
            Sampling::Keys { one_in: 0 } => {
                return Err(Error::invalid("sampling takes one key of at least 1"));
            }
            Sampling::Windows {
                record_ms,
                every_ms,
            } if record_ms == 0 || every_ms < record_ms => {
                return Err(Error::invalid(
                    "a sampling window must be longer than 0 ms and no longer than its period",
                ));
            }
            _ => {}
        }
        if self.limit_bytes < 4096 {
            return Err(Error::invalid(
                "a trace's limit_bytes must be at least 4096",
            ));
        }
        if self.buffer_bytes < 1 << 20 {
            return Err(Error::invalid(
                "a trace's buffer_bytes must be at least 1 MiB",
            ));
        }
        Ok(())
    }
}

/// Where to record, and how: what [`Options::record_to`](crate::Options::record_to) keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The file, which must not exist yet.
    pub path: PathBuf,
    /// How.
    pub options: TraceOptions,
}
