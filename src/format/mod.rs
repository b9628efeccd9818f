//! What every file format is made of: integers, checksums, framed records, envelopes.

pub(crate) mod checksum;
pub(crate) mod coding;
pub(crate) mod framing;
pub(crate) mod small_file;
