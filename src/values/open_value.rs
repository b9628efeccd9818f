//! A value that was found, to be read by and by.

use super::file::{FileHold, PartOfValue};
use super::reference::ValueRef;
use crate::error::{Error, Result};
use crate::format::coding::Malformed;
use crate::types::Value;

/// A value that was found, whatever happens to its key from now on.
#[derive(Debug)]
pub(crate) enum OpenValue {
    /// It was kept beside its key, or in pages of its own.
    Whole(Value),
    /// It lies in a value file.
    Apart(HeldValue),
}

/// A value in a file that is held.
#[derive(Debug)]
pub(crate) struct HeldValue {
    reference: Box<[u8]>,
    hold: FileHold,
}

impl HeldValue {
    /// What `reference` leads to, which is known to be well-formed. `hold` is of its file.
    pub(super) fn new(reference: &[u8], hold: FileHold) -> Self {
        Self {
            reference: reference.into(),
            hold,
        }
    }

    fn reference(&self) -> Result<ValueRef<'_>> {
        ValueRef::decode(&self.reference).map_err(|Malformed| {
            let what = "a reference to a value is malformed";
            Error::corruption(&self.hold.file().path(), 0, what)
        })
    }

    /// The chunk of the value that byte `at` is in, which the value has, checked; and where in the
    /// value it begins.
    pub(crate) fn chunk_at(&self, at: usize) -> Result<(usize, PartOfValue)> {
        let reference = self.reference()?;
        let chunk_len = reference.chunk_len();
        let from = at / chunk_len * chunk_len;
        let chunk = self
            .hold
            .file()
            .value(&reference, from..from + chunk_len, || ())?;
        Ok((from, chunk))
    }
}

impl OpenValue {
    /// Length of the value.
    pub(crate) fn len_bytes(&self) -> Result<usize> {
        match self {
            Self::Whole(value) => Ok(value.len()),
            Self::Apart(held) => Ok(held.reference()?.len_bytes),
        }
    }
}
