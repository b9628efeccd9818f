//! The records that a store holds, from one workload to the next.

use crate::data::{Keys, Values};
use crate::error::Result;
use crate::workload::Params;

/// Which records are in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// None.
    Empty,
    /// All with numbers below [`DataSet::records`].
    All,
    /// Nobody knows which: reads may miss.
    Some,
}

/// The records that one store holds, from one workload to the next.
#[derive(Debug)]
pub struct DataSet {
    pub(super) params: Params,
    pub(super) keys: Keys,
    pub(super) values: Values,
    /// Records are numbered below this.
    pub(super) records: u64,
    pub(super) presence: Presence,
}

impl DataSet {
    /// The data set of a store that is still empty.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`](crate::Error::Usage) if `params` are impossible.
    pub fn new(params: &Params) -> Result<Self> {
        params.check()?;
        let most = params.records.saturating_mul(2);
        Ok(Self {
            keys: Keys::new(params.key_shape, params.key_len_bytes, most)?,
            values: Values::new(params.values, params.compressed_fraction, params.seed)?,
            records: params.records,
            presence: Presence::Empty,
            params: params.clone(),
        })
    }

    /// The data set of a store that an earlier run has filled.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`](crate::Error::Usage) if `params` are impossible.
    pub fn filled(params: &Params) -> Result<Self> {
        Ok(Self {
            presence: Presence::All,
            ..Self::new(params)?
        })
    }

    /// The figures that it was made with.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// How many records were ever written.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How keys are made.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// How values are made.
    pub fn values(&self) -> &Values {
        &self.values
    }
}
