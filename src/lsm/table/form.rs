//! How a table is written: what depends on the level that it is for.

use super::filter::MAX_PROBES;
use crate::format::coding::{Malformed, Reader, put_varint};
use crate::options::Compression;

/// More bits of filter for each key than any options ask for.
const MAX_FILTER_BITS_PER_KEY: u32 = 2 * MAX_PROBES as u32;

/// How a table is written: what depends on the level that it is for. A table says what it was
/// written with, so that it can be told whether it may move to another level as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableForm {
    /// Compression of blocks, which those have that it makes shorter.
    pub(crate) compression: Compression,
    /// Size of the filter; 0 for none, 10 for about 1 % false positives.
    pub(crate) filter_bits_per_key: u32,
}

impl TableForm {
    /// The form in which nothing is compressed.
    pub(crate) fn uncompressed(self) -> Self {
        Self {
            compression: Compression::None,
            ..self
        }
    }

    /// Appends the form as it stands in a table's properties.
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.compression.code());
        put_varint(out, self.filter_bits_per_key.into());
    }

    /// Reads what [`TableForm::encode`] wrote.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let code = [reader.u8()?, reader.u8()?];
        let bits = reader.varint()?;
        if bits > MAX_FILTER_BITS_PER_KEY.into() {
            return Err(Malformed);
        }
        Ok(Self {
            compression: Compression::from_code(code).ok_or(Malformed)?,
            filter_bits_per_key: bits as u32,
        })
    }
}
