//! Writing a table.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::{BlockBuilder, MAX_PACKED_LEN_BYTES};
use super::compression::Packer;
use super::filter::{FilterBuilder, filter_hash};
use super::footer::{
    FOOTER_LEN_BYTES, FRAME_LEN_BYTES, Footer, Frame, Properties, encode_tombstones, filter_at,
    table_seed, tag,
};
use super::index::IndexBuilder;
use super::meta::Summary;
use super::{TableForm, TableMeta};
use crate::error::{Error, Result};
use crate::fs::{File, Fs, OpenMode};
use crate::lsm::entry::{Entry, RangeTombstone};
use crate::options::Compression;
use crate::types::{FileId, MAX_KEY_LEN_BYTES, MAX_VALUE_LEN_BYTES};
use crate::util::mutants::mutated;

/// Bytes are handed to the file in runs of at least this length: a write call costs about as
/// much as encoding a block.
const WRITE_LEN_BYTES: usize = 256 << 10;
/// Buffers that a huge entry has made larger than this are given back.
const KEEP_BUFFER_BYTES: usize = 1 << 20;

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableOptions {
    /// Target size of a block before compression.
    pub(crate) block_size_bytes: u32,
    /// Compression and filter.
    pub(crate) form: TableForm,
    /// Values end with the time at which they expire.
    pub(crate) values_expire: bool,
}

/// Writes one table from entries in internal order.
///
/// After an error the builder is of no use. Dropping an unfinished one leaves a
/// file that is not a table, for the caller to remove.
pub(crate) struct TableBuilder {
    // Constant.
    file: Arc<dyn File>,
    path: PathBuf,
    id: FileId,
    seed: u64,
    options: TableOptions,
    // The entries so far.
    block: BlockBuilder,
    index: IndexBuilder,
    filter: FilterBuilder,
    tombstones: Vec<RangeTombstone>,
    tombstone_bytes: usize,
    summary: Summary,
    compressed_blocks: u64,
    /// Key and word of the last entry.
    last: Option<(Vec<u8>, u64)>,
    /// Key and word of the first entry of `block`.
    block_first: (Vec<u8>, u64),
    /// Key of the last entry before `block`.
    before_block: Option<Vec<u8>>,
    // The file so far: `written_bytes` of it, then `pending`.
    written_bytes: u64,
    pending: Vec<u8>,
    /// A block's body before compression.
    body: Vec<u8>,
    packer: Packer,
}

impl fmt::Debug for TableBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableBuilder")
            .field("path", &self.path)
            .field("options", &self.options)
            .field("entries", &self.summary.entries())
            .finish_non_exhaustive()
    }
}

impl TableBuilder {
    /// Creates the file `path`, which must not exist. `seed` names store and keyspace, as
    /// [`TableContext::seed`](super::TableContext::seed) does; the file's `id` is mixed in here.
    pub(crate) fn create(
        fs: &Arc<dyn Fs>,
        path: &Path,
        id: FileId,
        seed: u64,
        options: TableOptions,
    ) -> Result<Self> {
        Ok(Self {
            file: fs.open(path, OpenMode::CreateNew)?,
            path: path.to_path_buf(),
            id,
            seed: table_seed(seed, id),
            options,
            block: BlockBuilder::default(),
            index: IndexBuilder::default(),
            filter: FilterBuilder::default(),
            tombstones: Vec::new(),
            tombstone_bytes: 0,
            summary: Summary::new(options.values_expire),
            compressed_blocks: 0,
            last: None,
            block_first: (Vec::new(), 0),
            before_block: None,
            written_bytes: 0,
            pending: Vec::with_capacity(WRITE_LEN_BYTES * 5 / 4),
            body: Vec::new(),
            packer: Packer::new(options.form.compression),
        })
    }

    /// Appends an entry, which must come after the last one in internal order; a
    /// [`Corruption`](crate::Error::Corruption) error otherwise, since only a damaged input of a
    /// compaction can bring that about.
    pub(crate) fn add(&mut self, entry: &Entry<'_>) -> Result<()> {
        debug_assert!(entry.key.len() <= MAX_KEY_LEN_BYTES);
        debug_assert!(entry.value.len() <= MAX_VALUE_LEN_BYTES);
        let word = entry.word();
        if let Some((last_key, last_word)) = &self.last
            && (entry.cmp_internal(last_key, *last_word).is_le()
                || (entry.seq.0 == last_word >> 8 && entry.key == last_key))
        {
            let what = "entries to be written are out of order";
            return Err(Error::corruption(&self.path, self.position(), what));
        }
        // The block is closed before `last` moves on, because that is the block's last entry.
        if !self.block.is_empty()
            && self.block.len_estimate_with(entry) > self.options.block_size_bytes as usize
        {
            self.finish_block()?;
        }
        let new_key = match &mut self.last {
            None => {
                self.last = Some((entry.key.to_vec(), word));
                true
            }
            Some((last_key, last_word)) => {
                *last_word = word;
                let new_key = last_key != entry.key;
                if new_key {
                    last_key.clear();
                    last_key.extend_from_slice(entry.key);
                }
                new_key
            }
        };
        if new_key && self.options.form.filter_bits_per_key > 0 {
            self.filter.add(filter_hash(entry.key));
        }
        if self.block.is_empty() {
            self.block_first.0.clear();
            self.block_first.0.extend_from_slice(entry.key);
            self.block_first.1 = word;
        }
        self.block.add(entry);
        self.summary.add_entry(entry, new_key);
        Ok(())
    }

    /// Adds a range tombstone. In any order, before, between or after entries. One that
    /// covers nothing is left out.
    pub(crate) fn add_range_tombstone(&mut self, tombstone: &RangeTombstone) {
        let end = tombstone.end.as_deref();
        if end.is_some_and(|end| end <= tombstone.start.as_slice()) {
            return;
        }
        self.tombstone_bytes += tombstone.start.len() + end.map_or(0, <[u8]>::len) + 12;
        self.summary.add_tombstone(tombstone);
        self.tombstones.push(tombstone.clone());
    }

    /// About how long the file would be if it were finished now.
    pub(crate) fn size_estimate_bytes(&self) -> u64 {
        self.position()
            + self.block.len_estimate() as u64
            + self.filter.len_bytes(self.options.form.filter_bits_per_key)
            + (self.index.len_estimate() + self.tombstone_bytes + FOOTER_LEN_BYTES) as u64
    }

    /// True if nothing has been added.
    pub(crate) fn is_empty(&self) -> bool {
        self.summary.is_empty()
    }

    /// Completes the file and syncs it. The directory is the caller's to sync. Refuses an
    /// empty table.
    pub(crate) fn finish(mut self) -> Result<TableMeta> {
        if self.is_empty() {
            return Err(Error::invalid("a table must hold something"));
        }
        if !self.block.is_empty() {
            self.finish_block()?;
        }
        let blocks_end = self.position();
        let padding = (filter_at(blocks_end) - blocks_end) as usize;
        self.pending.resize(self.pending.len() + padding, 0);

        let bits_per_key = self.options.form.filter_bits_per_key;
        let (lines, probes) = std::mem::take(&mut self.filter).finish(bits_per_key);
        let frame = if lines.is_empty() {
            Frame {
                tag: tag::NO_FILTER,
                parameter: 0,
            }
        } else {
            Frame {
                tag: tag::BLOCKED_BLOOM,
                parameter: probes,
            }
        };
        self.put_section(frame, &lines)?;
        drop(lines);

        let plain = Frame {
            tag: tag::PLAIN,
            parameter: 0,
        };
        let index_at = self.position();
        let Some(index) = self.index.encode(blocks_end) else {
            return Err(Error::invalid("the table is too large for its index"));
        };
        self.put_section(plain, &index)?;

        let tombstones_at = self.position();
        self.tombstones
            .sort_unstable_by(|a, b| (&a.start, b.seq).cmp(&(&b.start, a.seq)));
        let mut section = Vec::new();
        encode_tombstones(&self.tombstones, &mut section);
        self.put_section(plain, &section)?;

        let properties_at = self.position();
        let mut summary = std::mem::take(&mut self.summary);
        if let Some((last_key, _)) = &self.last {
            summary.end_entries(last_key);
        }
        let mut properties = Properties {
            meta: summary.finish(self.id, 0),
            blocks: self.index.blocks() as u64,
            compressed_blocks: self.compressed_blocks,
            form: self.options.form,
        };
        // The length of the file is stated in a field of fixed width, so that it can be filled
        // in once the length of the section is known.
        section.clear();
        properties.encode(&mut section);
        let footer_at = properties_at + (FRAME_LEN_BYTES + section.len()) as u64;
        properties.meta.size_bytes = footer_at + FOOTER_LEN_BYTES as u64;
        section.clear();
        properties.encode(&mut section);
        self.put_section(plain, &section)?;

        let is_unnumbered = properties.meta.is_unnumbered();
        let footer = Footer {
            id: self.id,
            blocks_end,
            index_at,
            tombstones_at,
            properties_at,
            is_unnumbered,
        };
        self.pending
            .extend_from_slice(&footer.encode(self.seed, footer_at));
        self.write_pending()?;
        if !mutated!("table-not-synced") {
            self.file.sync_data()?;
        }
        Ok(properties.meta)
    }

    /// Where the next byte will stand in the file.
    fn position(&self) -> u64 {
        self.written_bytes + self.pending.len() as u64
    }

    /// Frames and appends the block's entries. Only if there are some.
    fn finish_block(&mut self) -> Result<()> {
        let (first_key, first_word) = (&self.block_first.0, self.block_first.1);
        let position = self.position();
        self.index.add(
            position,
            self.before_block.as_deref(),
            first_key,
            first_word,
        );
        let (last_key, _) = self.last.as_ref().expect("the block has entries");
        let before = self.before_block.get_or_insert_default();
        before.clear();
        before.extend_from_slice(last_key);

        let frame_at = self.pending.len();
        self.pending.resize(frame_at + FRAME_LEN_BYTES, 0);
        // Half: what the length was estimated at may differ a little.
        let tag = if self.options.form.compression == Compression::None
            || self.block.len_estimate() > MAX_PACKED_LEN_BYTES / 2
        {
            self.block.encode(&mut self.pending);
            tag::PLAIN
        } else {
            self.body.clear();
            self.block.encode(&mut self.body);
            self.packer.pack(&self.body, &mut self.pending)
        };
        self.compressed_blocks += u64::from(tag != tag::PLAIN);
        let frame = Frame { tag, parameter: 0 };
        frame.seal(&mut self.pending[frame_at..], self.seed, position);
        self.block.clear();
        self.body.clear();
        self.body.shrink_to(KEEP_BUFFER_BYTES);
        self.write_if_long()
    }

    fn put_section(&mut self, frame: Frame, bytes: &[u8]) -> Result<()> {
        let position = self.position();
        let frame_at = self.pending.len();
        self.pending.resize(frame_at + FRAME_LEN_BYTES, 0);
        self.pending.extend_from_slice(bytes);
        frame.seal(&mut self.pending[frame_at..], self.seed, position);
        self.write_if_long()
    }

    fn write_if_long(&mut self) -> Result<()> {
        if self.pending.len() >= WRITE_LEN_BYTES {
            self.write_pending()?;
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<()> {
        let len = self.pending.len() as u64;
        self.file.write_all_at(&self.pending, self.written_bytes)?;
        self.file.start_writeback(self.written_bytes, len)?;
        self.written_bytes += len;
        self.pending.clear();
        self.pending.shrink_to(KEEP_BUFFER_BYTES);
        Ok(())
    }
}
