//! Windows into the inside: the decoders and the parts of the store, for the fuzz targets
//! (fuzz/) and the benches of the parts (benches/).
//!
//! Behind the feature `internals`, and without any promise: what is here changes whenever the
//! inside does. A window is a function or a type that hands its arguments through; it decides
//! nothing. Those that look into private rooms stand there, in files named `window.rs`.

mod ground;
mod ops;

/// Checksums, keys and framed records.
pub use ground::{
    RecordsEnd, append_record, checksum, common_prefix_len, frame_header, head32, head64,
    prefix_end, read_records, seed_of, shortest_separator,
};
/// Batches as the log has them, the catalogue, and the horizon.
pub use ops::{Op, catalog_round_trip, decode_batch, encode_batch, horizon_round_trip};

/// The memtable's indexes, merged cursors, and the manifest.
pub mod lsm {
    pub use crate::lsm::window::{Cursor, Entry, Memtable, edit_round_trip, merge};
}

/// The parts of a table.
pub mod table {
    pub use crate::lsm::table::window::{
        Block, BlockBuilder, FilterBuilder, decompress, filter_hash, filter_may_contain,
        index_check, meta_len_bytes,
    };
}

/// Nodes of the B-tree.
pub mod page {
    pub use crate::btree::window::{
        Leaf, LeafMut, LeafSplit, PageValue, check, inner_build, inner_find_child, new_leaf, seal,
        split_leaf, validate, walk,
    };
}

/// The log.
pub mod wal {
    pub use crate::wal::window::{Record, Syncer, Writer, encode_record, record_at, recover};
}
