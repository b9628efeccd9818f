//! Opening a table: the footer and the sections before it are read and checked (LT6).

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::TableMeta;
use super::aligned::AlignedBytes;
use super::block::Damage;
use super::filter;
use super::footer::{
    FOOTER_LEN_BYTES, FRAME_LEN_BYTES, Footer, FooterDamage, Frame, Properties, VERSION,
    decode_tombstones, filter_at, table_seed, tag,
};
use super::index::{self, Index};
use super::reader::{Asked, READ_AROUND_BYTES, Table, TableContext, no_bits};
use crate::error::{Error, Result};
use crate::fs;
use crate::fs::{Advice, OpenMode};
use crate::lsm::tombstones::TombstoneIndex;
use crate::options::{Compression, ZSTD_FEATURE};

/// More than a table of any length holds. Sums of them fit into 64 bits.
const ENTRIES_MAX: u64 = 1 << 48;

impl Table {
    /// Opens the file `path` and checks that it is the table that `meta` describes.
    pub(crate) fn open(ctx: &TableContext, path: &Path, meta: &TableMeta) -> Result<Self> {
        let id = meta.id;
        let file = ctx.fs.open(path, OpenMode::Read)?;
        let len = file.len()?;
        let corruption = |at: u64, what: &str| Error::corruption(path, at, what);
        if len != meta.size_bytes {
            let expected = meta.size_bytes;
            let what = format!("the file has {len} bytes instead of {expected}");
            return Err(Error::corruption(path, len.min(expected), what));
        }
        let Some(footer_at) = len.checked_sub(FOOTER_LEN_BYTES as u64) else {
            return Err(corruption(0, "the file is too short for a table"));
        };
        let seed = table_seed(ctx.seed, id);
        let mut footer = [0; FOOTER_LEN_BYTES];
        file.read_exact_at(&mut footer, footer_at)?;
        let footer = match Footer::decode(&footer, seed, footer_at) {
            Ok(footer) if footer.id == id => footer,
            Ok(_) => {
                return Err(corruption(
                    footer_at,
                    "the footer names another file number",
                ));
            }
            Err(FooterDamage::Damaged(what)) => return Err(corruption(footer_at, what)),
            Err(FooterDamage::Version(found)) => {
                return Err(Error::UnsupportedFormat {
                    file: path.to_path_buf(),
                    found,
                    supported: VERSION,
                });
            }
        };
        let map = if ctx.use_mmap {
            fs::map(&*file, len)?
        } else {
            None
        };
        let tail = match &map {
            Some(map) => {
                // Lookups touch scattered blocks; without this advice each would read neighbouring
                // blocks that it does not need. What is read instead is decided for each block: see
                // `read_around`. The tail is needed now.
                let tail_at = footer.blocks_end as usize;
                map.advise(Advice::Random, 0, map.len());
                map.advise(Advice::WillNeed, tail_at, map.len() - tail_at);
                None
            }
            None => {
                let tail_len = (len - footer.blocks_end) as usize;
                let mut tail = AlignedBytes::zeroed(tail_len, filter_lines_at(&footer));
                file.read_exact_at(tail.bytes_mut(), footer.blocks_end)?;
                Some(tail)
            }
        };
        let mut table = Self {
            file: ctx.open_files.file(&ctx.fs, path, OpenMode::Read),
            map,
            cache: Arc::clone(&ctx.cache),
            blocks_read: Arc::clone(&ctx.blocks_read),
            file_tag: ctx.cache.new_file_tag(),
            seed,
            footer,
            properties: Properties::unread(id),
            tail,
            filter: 0..0,
            filter_probes: 0,
            index: 0..0,
            index_layout: index::Layout::default(),
            stored_tombstones: 0..0,
            tombstones: Arc::default(),
            verified: Box::default(),
            checked: Box::default(),
            loaded_at: None,
            asked: None,
        };
        table.read_sections(footer_at)?;
        if table.map.is_some() {
            let pieces = footer.blocks_end.div_ceil(READ_AROUND_BYTES);
            table.asked = Some(Box::new(Asked {
                tree_bytes: Arc::clone(&ctx.tree_bytes),
                blocks: no_bits(table.blocks().into()),
                pieces: no_bits(pieces),
            }));
        }
        let found = &table.properties.meta;
        if found.is_unnumbered() && !meta.is_unnumbered() {
            table.set_number(meta.largest_seq);
        }
        if table.properties.meta != *meta {
            let what = "the properties differ from the manifest";
            return Err(table.corruption(footer.properties_at, what));
        }
        Ok(table)
    }

    /// Checks and decodes the sections before the footer.
    fn read_sections(&mut self, footer_at: u64) -> Result<()> {
        let footer = self.footer;
        let (frame, range) = self.section(footer.properties_at..footer_at)?;
        self.properties = Properties::decode(self.tail(&range))
            .and_then(|properties| expect_plain(frame).map(|()| properties))
            .map_err(|what| self.corruption(footer.properties_at, what))?;
        let meta = &self.properties.meta;
        let what = if meta.entries > ENTRIES_MAX {
            "it has more entries than any table"
        } else if meta.deletes > meta.entries || meta.older_versions > meta.entries {
            "it has more deletes or older versions than entries"
        } else {
            ""
        };
        if !what.is_empty() {
            return Err(self.corruption(footer.properties_at, what));
        }

        let (frame, range) = self.section(footer.tombstones_at..footer.properties_at)?;
        let tombstones = decode_tombstones(self.tail(&range))
            .and_then(|tombstones| expect_plain(frame).map(|()| tombstones))
            .map_err(|what| self.corruption(footer.tombstones_at, what))?;
        let range_tombstones = tombstones.len() as u64;
        self.tombstones = Arc::new(TombstoneIndex::new(tombstones));
        self.stored_tombstones = range;

        let (frame, range) = self.section(footer.index_at..footer.tombstones_at)?;
        let min_block_len = FRAME_LEN_BYTES as u64;
        self.index_layout = Index::parse(self.tail(&range), footer.blocks_end, min_block_len)
            .and_then(|index| expect_plain(frame).map(|()| index.layout()))
            .map_err(|what| self.corruption(footer.index_at, what))?;
        self.index = range;

        let filter_at = filter_at(footer.blocks_end);
        let (frame, range) = self.section(filter_at..footer.index_at)?;
        let lines_fit = (range.end - range.start) % filter::LINE_LEN_BYTES as u64 == 0;
        match frame.tag {
            tag::NO_FILTER if range.is_empty() && frame.parameter == 0 => {}
            tag::BLOCKED_BLOOM
                if lines_fit && (1..=filter::MAX_PROBES).contains(&frame.parameter) =>
            {
                self.filter = range;
                self.filter_probes = frame.parameter;
            }
            _ => return Err(self.corruption(filter_at, "the filter is malformed")),
        }

        let form = self.properties.form;
        let is_compressed = self.properties.compressed_blocks > 0;
        if is_compressed && !form.compression.is_available() {
            return Err(Error::UnsupportedFeature {
                file: self.path().to_path_buf(),
                what: ZSTD_FEATURE.to_owned(),
            });
        }
        let has_filter = !self.filter.is_empty();
        let wants_filter = form.filter_bits_per_key > 0 && self.properties.meta.entries > 0;
        let blocks = self.index_layout.blocks;
        if self.properties.blocks != u64::from(blocks)
            || self.properties.compressed_blocks > u64::from(blocks)
            || (is_compressed && form.compression == Compression::None)
            || has_filter != wants_filter
            || self.properties.meta.id != footer.id
            || self.properties.meta.is_unnumbered() != footer.is_unnumbered
            || self.properties.meta.size_bytes != footer_at + FOOTER_LEN_BYTES as u64
            || self.properties.meta.range_tombstones != range_tombstones
        {
            let what = "the properties disagree with the rest of the table";
            return Err(self.corruption(footer.properties_at, what));
        }
        if self.map.is_some() {
            self.verified = no_bits(blocks.into());
        }
        if self.map.is_none() || self.properties.compressed_blocks > 0 {
            self.checked = no_bits(blocks.into());
        }
        Ok(())
    }

    /// Checks the frame of the section at `range`; returns it and where its bytes are.
    fn section(&self, range: Range<u64>) -> Result<(Frame, Range<u64>)> {
        let frame = Frame::verify(self.tail(&range), self.seed, range.start)
            .map_err(|what| self.corruption(range.start, what))?;
        Ok((frame, range.start + FRAME_LEN_BYTES as u64..range.end))
    }
}

/// A section of which there is one kind.
fn expect_plain(frame: Frame) -> Result<(), Damage> {
    if frame.tag == tag::PLAIN && frame.parameter == 0 {
        Ok(())
    } else {
        Err("the section is of an unknown kind")
    }
}

/// Where the lines of the filter start, from the end of the blocks.
fn filter_lines_at(footer: &Footer) -> usize {
    (filter_at(footer.blocks_end) - footer.blocks_end) as usize + FRAME_LEN_BYTES
}
