//! The meta pages: where the tree of the last checkpoint is.
//!
//! Units 0 and 1 of the file each hold one, normally the same. A checkpoint replaces page 0,
//! syncs, then page 1, and syncs; so one of them is whole at every moment, and damage to either
//! one later loses nothing (docs/format.md, "B-tree: page file").
//!
//! A common design alternates between the two pages. Then damage to the newer one would silently
//! bring back the tree before the last checkpoint, whose log may be gone and whose pages may have
//! been reused.

use std::path::Path;

use crate::btree::node::{Link, unit_size};
use crate::error::{Error, Result};
use crate::format::checksum::{checksum, seed_of};
use crate::format::coding::{get_u32, get_u64};
use crate::types::{KeyspaceId, PageId, SeqNo};
use crate::util::mutants::mutated;

/// First eight bytes of a B-tree file.
pub(crate) const MAGIC: [u8; 8] = *b"HDGBTREE";
/// Version of the format of the page file and its nodes.
pub(crate) const VERSION: u32 = 6;
/// Bytes of a meta page that mean something. Less than a sector, so a write of them is not torn
/// by devices that write whole sectors.
pub(crate) const META_BYTES: usize = 144;
/// Units taken by meta pages at the start of the file.
pub(crate) const META_UNITS: u64 = 2;

/// [`Meta::adds_up`].
const FLAG_ADDS_UP: u32 = 1;

/// No file comes to this: a checkpoint a nanosecond would take three centuries.
const GENERATION_MAX: u64 = u64::MAX / 2;

/// One consistent state of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    /// What nodes are cut to.
    pub(crate) page_size: u32,
    /// Bytes of the pieces in which the file is numbered and given out.
    pub(crate) unit: u32,
    /// Number of the checkpoint, from 1.
    pub(crate) generation: u64,
    pub(crate) root: Link,
    /// Levels of nodes: 1 for a lone leaf.
    pub(crate) height: u32,
    pub(crate) persisted_seq: SeqNo,
    /// Units in use or on the freelist; what the file has beyond them is nothing.
    pub(crate) file_units: u64,
    /// First unit of the freelist's extent; 0 when it has no bytes.
    pub(crate) freelist: PageId,
    /// Bytes of the freelist.
    pub(crate) freelist_bytes: u64,
    pub(crate) freelist_checksum: u32,
    /// Entries of all leaves, and what their parents say that packs add to them: an estimate, as
    /// long as one of those is.
    pub(crate) entries: u64,
    /// Units in extents of overflow values.
    pub(crate) overflow_units: u64,
    /// First unit of the table of value files; 0 if it is empty.
    pub(crate) value_table: PageId,
    /// Files in it.
    pub(crate) value_files: u64,
    /// 0 if it is empty, too.
    pub(crate) value_table_checksum: u32,
    /// `entries`, `overflow_units` and the table of value files are what the nodes of the tree add
    /// up to. Not so if a part of it was cut off that could not be read.
    pub(crate) adds_up: bool,
}

fn seed(store_id: u64, keyspace: KeyspaceId) -> u64 {
    seed_of(&[store_id, u64::from(keyspace.0), u64::from_le_bytes(MAGIC)])
}

impl Meta {
    /// The bytes of a meta page, without the zeros up to the page's end.
    pub(crate) fn encode(&self, store_id: u64, keyspace: KeyspaceId) -> [u8; META_BYTES] {
        let mut out = Vec::with_capacity(META_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.page_size.to_le_bytes());
        out.extend_from_slice(&store_id.to_le_bytes());
        out.extend_from_slice(&keyspace.0.to_le_bytes());
        let flags = if self.adds_up { FLAG_ADDS_UP } else { 0 };
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.persisted_seq.0.to_le_bytes());
        out.extend_from_slice(&self.root.bits().to_le_bytes());
        out.extend_from_slice(&self.height.to_le_bytes());
        out.extend_from_slice(&self.freelist_checksum.to_le_bytes());
        out.extend_from_slice(&self.file_units.to_le_bytes());
        out.extend_from_slice(&self.freelist.0.to_le_bytes());
        out.extend_from_slice(&self.freelist_bytes.to_le_bytes());
        out.extend_from_slice(&self.entries.to_le_bytes());
        out.extend_from_slice(&self.overflow_units.to_le_bytes());
        out.extend_from_slice(&self.unit.to_le_bytes());
        out.extend_from_slice(&self.value_table_checksum.to_le_bytes());
        out.extend_from_slice(&self.value_table.0.to_le_bytes());
        out.extend_from_slice(&self.value_files.to_le_bytes());
        // Twelve bytes for later versions, zero in this one.
        out.extend_from_slice(&[0; 12]);
        let sum = checksum(seed(store_id, keyspace), &out);
        out.extend_from_slice(&sum.to_le_bytes());
        out.try_into().expect("the fields add up to META_BYTES")
    }

    /// Reads the meta page at byte `offset` of `file`.
    pub(crate) fn decode(
        bytes: &[u8; META_BYTES],
        store_id: u64,
        keyspace: KeyspaceId,
        file: &Path,
        offset: u64,
    ) -> Result<Self> {
        let damaged = |what: &str| Error::corruption(file, offset, what);
        if bytes[..8] != MAGIC {
            return Err(damaged("the magic number of a B-tree file is missing"));
        }
        let body = META_BYTES - 4;
        let is_intact = checksum(seed(store_id, keyspace), &bytes[..body]) == get_u32(bytes, body);
        if !is_intact && !mutated!("meta-checksum-ignored") {
            return Err(damaged(
                "the checksum of the meta page does not match (or it is of another store)",
            ));
        }
        let version = get_u32(bytes, 8);
        Error::check_version(file, version, VERSION)?;
        let meta = Self {
            page_size: get_u32(bytes, 12),
            unit: get_u32(bytes, 104),
            generation: get_u64(bytes, 32),
            persisted_seq: SeqNo(get_u64(bytes, 40)),
            root: Link::from_bits(get_u64(bytes, 48)),
            height: get_u32(bytes, 56),
            freelist_checksum: get_u32(bytes, 60),
            file_units: get_u64(bytes, 64),
            freelist: PageId(get_u64(bytes, 72)),
            freelist_bytes: get_u64(bytes, 80),
            entries: get_u64(bytes, 88),
            overflow_units: get_u64(bytes, 96),
            value_table_checksum: get_u32(bytes, 108),
            value_table: PageId(get_u64(bytes, 112)),
            value_files: get_u64(bytes, 120),
            adds_up: get_u32(bytes, 28) & FLAG_ADDS_UP != 0,
        };
        if get_u64(bytes, 16) != store_id || get_u32(bytes, 24) != keyspace.0 {
            return Err(damaged("the meta page is of another store or keyspace"));
        }
        let in_file = |page: PageId| (META_UNITS..meta.file_units).contains(&page.0);
        if !in_file(meta.root.page())
            || meta.file_units > Link::UNITS_MAX
            || meta.unit as usize != unit_size(meta.page_size as usize)
            || meta.height == 0
            || meta.generation > GENERATION_MAX
            || meta.overflow_units > meta.file_units
            || (meta.freelist_bytes > 0 && !in_file(meta.freelist))
            || (meta.value_files > 0 && !in_file(meta.value_table))
            || meta.persisted_seq > SeqNo::MAX
        {
            return Err(damaged("the meta page contradicts itself"));
        }
        Ok(meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Meta {
        Meta {
            page_size: 16_384,
            unit: 4096,
            generation: 7,
            root: Link::new(PageId(9), 0x0A_0B0C),
            height: 2,
            persisted_seq: SeqNo(1234),
            file_units: 40,
            freelist: PageId(12),
            freelist_bytes: 3,
            freelist_checksum: 0xDEAD_BEEF,
            entries: 77,
            overflow_units: 5,
            value_table: PageId(14),
            value_files: 2,
            value_table_checksum: 0xCAFE_F00D,
            adds_up: true,
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = example().encode(0x0102_0304_0506_0708, KeyspaceId(3));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "4844474254524545", // magic
                "06000000",         // version
                "00400000",         // page size
                "0807060504030201", // store id
                "03000000",         // keyspace
                "01000000",         // flags
                "0700000000000000", // generation
                "d204000000000000", // persisted sequence number
                "09000000000c0b0a", // root
                "02000000",         // height
                "efbeadde",         // checksum of the freelist
                "2800000000000000", // pages
                "0c00000000000000", // freelist
                "0300000000000000", // its bytes
                "4d00000000000000", // entries
                "0500000000000000", // overflow pages
                "00100000",         // unit
                "0df0feca",         // checksum of the table of value files
                "0e00000000000000", // the table
                "0200000000000000", // files in it
                "000000000000000000000000",
                "5de41e0a", // checksum
            )
        );
    }

    /// Version 1 had no fingerprints, and version 2 no units: their pages would look like damage.
    /// What packs add to a leaf was exact in version 3. All values were in the file in version 4.
    /// The freelist had sixteen bytes for each run in version 5.
    #[test]
    fn other_versions_are_refused_by_name() {
        for found in [1, 2, 3, 4, 5, 7_u32] {
            let mut bytes = example().encode(1, KeyspaceId(2));
            bytes[8..12].copy_from_slice(&found.to_le_bytes());
            let sum = checksum(seed(1, KeyspaceId(2)), &bytes[..META_BYTES - 4]);
            bytes[META_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
            let decoded = Meta::decode(&bytes, 1, KeyspaceId(2), Path::new("tree.hdb"), 0);
            match decoded {
                Err(Error::UnsupportedFormat {
                    found: version,
                    supported: 6,
                    ..
                }) => {
                    assert_eq!(version, found);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let path = Path::new("tree.hdb");
        let good = example().encode(1, KeyspaceId(2));
        let decode = |bytes: &[u8; META_BYTES], store, keyspace| {
            Meta::decode(bytes, store, KeyspaceId(keyspace), path, 0)
        };
        assert_eq!(decode(&good, 1, 2).unwrap(), example());
        assert!(decode(&good, 2, 2).is_err());
        assert!(decode(&good, 1, 3).is_err());
        for bit in 0..META_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad, 1, 2).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn impossible_numbers_are_refused() {
        let path = Path::new("tree.hdb");
        let bad = [
            Meta {
                generation: u64::MAX,
                ..example()
            },
            Meta {
                overflow_units: example().file_units + 1,
                ..example()
            },
        ];
        for meta in bad {
            let bytes = meta.encode(1, KeyspaceId(2));
            let refused = Meta::decode(&bytes, 1, KeyspaceId(2), path, 0);
            assert!(refused.unwrap_err().is_corruption(), "{meta:?}");
        }
    }
}
