//! What every file format is made of: integers, checksums, framed records.

pub(crate) mod checksum;
pub(crate) mod coding;
pub(crate) mod framing;
