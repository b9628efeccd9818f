//! What a block looks like.

use super::block::{Block, Damage};
use super::compression::unpack;
use super::footer::{FRAME_LEN_BYTES, Frame, tag};
use super::reader::Table;
use crate::engine::Inspection;
use crate::error::Result;

impl Table {
    /// Block `no` as it is stored, read past the cache. Damage is a figure of it.
    pub(crate) fn inspect_block(&self, no: u32) -> Result<Inspection> {
        let range = self.block_range(no);
        let part = Inspection::new("block", no)
            .number("offset", range.start)
            .number("bytes", range.end - range.start);
        let stored = self.read_stored(&range)?;
        Ok(match self.contents_of(&stored, range.start) {
            Err(damage) => part.text("damage", damage),
            Ok(contents) => part
                .number_if_any("unpacked_bytes", contents.unpacked_bytes)
                .number("entries", contents.entries)
                .key("first_key", &contents.first_key),
        })
    }

    fn contents_of(&self, stored: &[u8], at: u64) -> Result<Contents, Damage> {
        let frame = Frame::verify(stored, self.seed(), at)?;
        let unpacked = unpack(frame, stored)?;
        let block = Block::parse(&unpacked[FRAME_LEN_BYTES..])?;
        let mut first_key = block.prefix().to_vec();
        if block.count() > 0 {
            first_key.extend_from_slice(block.record(0)?.suffix);
        }
        let is_compressed = frame.tag != tag::PLAIN;
        Ok(Contents {
            unpacked_bytes: if is_compressed {
                unpacked.len() as u64
            } else {
                0
            },
            entries: block.count().into(),
            first_key,
        })
    }
}

struct Contents {
    /// Zero if the block is stored as it is.
    unpacked_bytes: u64,
    entries: u64,
    first_key: Vec<u8>,
}
