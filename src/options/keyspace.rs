//! Options of one keyspace.

use super::setters::setters;
use super::{Compression, EngineKind};
use crate::error::{Error, Result};

/// How a keyspace is made. The engine and sizes of pages and blocks are fixed when it is
/// created and kept in the store; the rest may change with each open.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyspaceOptions {
    /// The engine.
    pub engine: EngineKind,
    /// Budget of this keyspace's memtables or dirty pages, in bytes; 0 takes
    /// [`Options::write_buffer_bytes`]. Not stored: each open decides.
    pub write_buffer_bytes: u64,
    /// LSM: target size of a block before compression, in bytes; 256 to 65,536.
    /// Default: 4096.
    pub block_size_bytes: u32,
    /// LSM: target size of a table, in bytes; at least 16 KiB. Default: 64 MiB.
    pub table_size_bytes: u64,
    /// LSM: compression of blocks. Default: [`Compression::Lz4`].
    pub compression: Compression,
    /// B-tree: size of a page, in bytes; a power of two, 1024 to 65,536. Default: 16,384.
    pub page_size_bytes: u32,
}

impl KeyspaceOptions {
    /// The defaults of an engine.
    pub fn new(engine: EngineKind) -> Self {
        Self {
            engine,
            write_buffer_bytes: 0,
            block_size_bytes: 4096,
            table_size_bytes: 64 << 20,
            compression: Compression::Lz4,
            page_size_bytes: 16 << 10,
        }
    }

    setters! {
        /// Sets the budget of memtables or dirty pages.
        write_buffer_bytes: u64,
        /// Sets the block size of an LSM keyspace.
        block_size_bytes: u32,
        /// Sets the table size of an LSM keyspace.
        table_size_bytes: u64,
        /// Sets the compression of an LSM keyspace.
        compression: Compression,
        /// Sets the page size of a B-tree keyspace.
        page_size_bytes: u32,
    }

    /// Refuses impossible values.
    pub(crate) fn check(&self) -> Result<()> {
        if !(256..=65_536).contains(&self.block_size_bytes) {
            return Err(Error::invalid("block_size_bytes must be 256 to 65,536"));
        }
        if self.table_size_bytes < 16 << 10 || self.table_size_bytes > 4 << 30 {
            return Err(Error::invalid("table_size_bytes must be 16 KiB to 4 GiB"));
        }
        if !self.page_size_bytes.is_power_of_two()
            || !(1024..=65_536).contains(&self.page_size_bytes)
        {
            return Err(Error::invalid(
                "page_size_bytes must be a power of two from 1024 to 65,536",
            ));
        }
        Ok(())
    }
}
