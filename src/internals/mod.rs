//! The decoders and the parts of the store, for the fuzz targets (fuzz/) and the benches of the
//! parts (benches/).
//!
//! Behind the feature `internals`, and without any promise: what is here changes whenever the
//! inside does. What is here hands its arguments through and decides nothing.

mod batch;
mod large_batches;
pub mod lsm;
pub mod page;
mod primitives;
pub mod table;
pub mod wal;

/// Batches as the log has them, the catalogue, and the WAL manifest.
pub use batch::{
    Op, catalog_change_round_trip, catalog_round_trip, decode_batch, encode_batch,
    wal_manifest_round_trip,
};
/// What a large batch is.
pub use large_batches::stage_batches_of;
/// Checksums, keys and framed records.
pub use primitives::{
    RecordsEnd, append_record, checksum, common_prefix_len, frame_header, head32, head64,
    prefix_end, read_records, seed_of, shortest_separator,
};
