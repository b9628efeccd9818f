//! Reading a table: lookups, and the blocks behind them.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::TableMeta;
use super::aligned::AlignedBytes;
use super::block::{Block, Damage, UNKNOWN_KIND};
use super::compression::unpack;
use super::filter::{self, LINE_LEN_BYTES};
use super::footer::{FRAME_LEN_BYTES, Footer, Frame, Properties, decode_tombstones, tag};
use super::index::{self, Index};
use super::meta::UNNUMBERED;
use crate::cache::{BlockCache, BlockKey, CachedBlock};
use crate::error::{Error, Result};
use crate::fs::{Advice, Fs, LazyFile, Mapping, OpenFiles};
use crate::lsm::entry::{Entry, RangeTombstone, seek_word, split_word};
use crate::lsm::tombstones::TombstoneIndex;
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use crate::util::prefetch::prefetch;
use crate::util::sharded::ShardedCounter;

/// Longer blocks, which hold one large value each, do not enter the cache: a few of them would
/// push everything else out.
const MAX_CACHED_LEN_BYTES: usize = 4 << 20;

/// Of a tree that may stay in memory as a whole, this much around a block is read with it: what the
/// kernel reads around a page fault by default.
pub(crate) const READ_AROUND_BYTES: u64 = 128 << 10;

/// Of a block, what a lookup reads first: its header and the heads of its keys.
const PREFETCHED_BYTES: usize = 256;

/// A page of memory, or a part of one where they are larger.
const PAGE_BYTES: u64 = 4 << 10;

/// What every table of a keyspace is opened with.
#[derive(Debug, Clone)]
pub(crate) struct TableContext {
    /// The file system.
    pub(crate) fs: Arc<dyn Fs>,
    /// Which of the files are open.
    pub(crate) open_files: Arc<OpenFiles>,
    /// Where decompressed blocks are kept, and all blocks of files that are not mapped.
    pub(crate) cache: Arc<BlockCache>,
    /// Map files where the file system can.
    pub(crate) use_mmap: bool,
    /// Names store and keyspace; the same number that the builder was given.
    pub(crate) seed: u64,
    /// Counts the blocks that lookups and scans touch, wherever they find them.
    pub(crate) blocks_read: Arc<ShardedCounter>,
    /// Bytes of all tables of the tree, kept up to date by the engine.
    pub(crate) tree_bytes: Arc<AtomicU64>,
}

/// An open table. Immutable; shared between threads.
#[derive(Debug)]
pub(crate) struct Table {
    /// A map needs no open file.
    pub(super) file: LazyFile,
    /// The whole file, if it is mapped.
    pub(super) map: Option<Mapping>,
    pub(super) cache: Arc<BlockCache>,
    pub(super) blocks_read: Arc<ShardedCounter>,
    pub(super) file_tag: u64,
    pub(super) seed: u64,
    pub(super) footer: Footer,
    pub(super) properties: Properties,
    /// Everything from the end of the blocks, if the file is not mapped.
    pub(super) tail: Option<AlignedBytes>,
    /// Where the lines of the filter are; empty if there is no filter.
    pub(super) filter: Range<u64>,
    pub(super) filter_probes: u8,
    pub(super) index: Range<u64>,
    pub(super) index_layout: index::Layout,
    /// Where the range tombstones are stored.
    pub(super) stored_tombstones: Range<u64>,
    pub(super) tombstones: Arc<TombstoneIndex>,
    /// A bit for each block that is uncompressed in the map and has passed its checksum.
    pub(super) verified: Box<[AtomicU64]>,
    /// A bit for each other block whose structure was checked after its checksum had matched: what
    /// has the same checksum later is the same block.
    pub(super) checked: Box<[AtomicU64]>,
    /// The number of every entry of a table that a bulk load wrote, which has none in it (LT8).
    pub(super) loaded_at: Option<SeqNo>,
    /// Of a mapped file.
    pub(super) asked: Option<Box<Asked>>,
}

/// What storage has been asked for.
#[derive(Debug)]
pub(super) struct Asked {
    /// See [`TableContext::tree_bytes`].
    pub(super) tree_bytes: Arc<AtomicU64>,
    /// A bit for each block.
    pub(super) blocks: Box<[AtomicU64]>,
    /// A bit for each piece of [`READ_AROUND_BYTES`].
    pub(super) pieces: Box<[AtomicU64]>,
}

/// `count` bits, none of them set.
pub(super) fn no_bits(count: u64) -> Box<[AtomicU64]> {
    (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect()
}

#[inline]
fn is_set(bits: &[AtomicU64], at: u32) -> bool {
    let word = bits.get(at as usize / 64);
    word.is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (at % 64) != 0)
}

fn set(bits: &[AtomicU64], at: u32) {
    // A damaged table may have blocks of another kind than it says.
    if let Some(word) = bits.get(at as usize / 64) {
        word.fetch_or(1 << (at % 64), Ordering::Relaxed);
    }
}

/// Sets a bit; true if it was not set.
fn first_time(bits: &[AtomicU64], at: u64) -> bool {
    let (word, bit) = (&bits[(at / 64) as usize], 1 << (at % 64));
    word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
}

/// The bytes of a block with its frame, uncompressed, verified.
#[derive(Debug, Clone)]
pub(crate) enum BlockBytes {
    /// Where in the map.
    Mapped(Range<usize>),
    Shared(CachedBlock),
}

impl Table {
    /// Bytes behind the blocks.
    #[inline]
    pub(super) fn tail(&self, range: &Range<u64>) -> &[u8] {
        match (&self.map, &self.tail) {
            (Some(map), _) => map.range(range.start as usize..range.end as usize),
            (None, Some(tail)) => {
                let from = self.footer.blocks_end;
                &tail.bytes()[(range.start - from) as usize..(range.end - from) as usize]
            }
            (None, None) => unreachable!("a table is mapped or holds its tail"),
        }
    }

    #[inline]
    pub(crate) fn index(&self) -> Index<'_> {
        Index::new(self.tail(&self.index), self.index_layout)
    }

    pub(crate) fn footer(&self) -> &Footer {
        &self.footer
    }

    pub(crate) fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Number of blocks.
    #[inline]
    pub(crate) fn blocks(&self) -> u32 {
        self.index_layout.blocks
    }

    /// Numbers a table of a bulk load (LT8), which no reader has yet.
    pub(crate) fn set_number(&mut self, seq: SeqNo) {
        self.loaded_at = Some(seq);
        self.properties.meta = self.properties.meta.with_seq(seq);
    }

    /// The number of an entry that has `stored` in it.
    #[inline]
    pub(super) fn seq_of(&self, stored: SeqNo) -> SeqNo {
        self.loaded_at.unwrap_or(stored)
    }

    /// What to look for in place of `word`. In a table of a bulk load, whose entries all have the
    /// same number, a read from before the load goes past each key.
    #[inline]
    pub(super) fn stored_word(&self, word: u64) -> u64 {
        match self.loaded_at {
            Some(seq) if word >> 8 < seq.0 && !mutated!("snapshot-sees-a-later-load") => 0,
            _ => word,
        }
    }

    /// What is known about the table.
    pub(crate) fn meta(&self) -> &TableMeta {
        &self.properties.meta
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// False if no entry has a key of that [`filter_hash`](super::filter_hash).
    #[inline]
    pub(crate) fn may_contain(&self, key_hash: u64) -> bool {
        self.filter.is_empty()
            || filter::may_contain(self.tail(&self.filter), self.filter_probes, key_hash)
    }

    /// Lends the newest entry of `key` with a sequence number of at most `seq` to `read` and
    /// returns true, or returns false. `key_hash` is the key's
    /// [`filter_hash`](super::filter_hash); the filter is asked first. Range tombstones
    /// are not considered.
    pub(crate) fn get(
        &self,
        key: &[u8],
        key_hash: u64,
        seq: SeqNo,
        read: &mut dyn FnMut(&Entry<'_>),
    ) -> Result<bool> {
        if !self.may_contain(key_hash) {
            return Ok(false);
        }
        let Some(no) = self.locate(key, seq) else {
            return Ok(false);
        };
        self.count_read();
        let bytes = match self.load(no) {
            Err(_) if mutated!("read-error-is-not-found") => return Ok(false),
            loaded => loaded?,
        };
        self.get_in(no, bytes, key, seq, read)
    }

    /// The block in which the newest entry of `key` with a sequence number of at most `seq` is, if
    /// there is one; or it is at the start of the next.
    #[inline]
    pub(crate) fn locate(&self, key: &[u8], seq: SeqNo) -> Option<u32> {
        let word = self.stored_word(seek_word(seq));
        let up_to = self.index().separators_up_to(key, word);
        up_to.checked_sub(1)
    }

    /// As [`Table::get`], of a key whose block was [located](Table::locate) and loaded.
    #[inline]
    pub(crate) fn get_in(
        &self,
        mut no: u32,
        mut bytes: BlockBytes,
        key: &[u8],
        seq: SeqNo,
        read: &mut dyn FnMut(&Entry<'_>),
    ) -> Result<bool> {
        let index = self.index();
        let word = self.stored_word(seek_word(seq));
        loop {
            let body = self.body(&bytes);
            let damaged = |what| self.corruption(index.block_at(no), what);
            let block = Block::parse(body).map_err(damaged)?;
            let at = block.lower_bound(key, word).map_err(damaged)?;
            if at < block.count() {
                let record = block.record(at).map_err(damaged)?;
                if key.strip_prefix(block.prefix()) != Some(record.suffix) {
                    return Ok(false);
                }
                let (seq, kind) = split_word(record.word).ok_or_else(|| damaged(UNKNOWN_KIND))?;
                read(&Entry {
                    key,
                    seq: self.seq_of(seq),
                    kind,
                    value: record.value,
                });
                return Ok(true);
            }
            // Older versions of the key are in the next block only if that begins with the key, and
            // then the separator is the whole key.
            no += 1;
            if no >= self.blocks() || !index.separator_is(no, key) {
                return Ok(false);
            }
            self.count_read();
            bytes = self.load(no)?;
        }
    }

    /// Asks for the memory that [`Table::may_contain`] reads.
    #[inline]
    pub(crate) fn prefetch_filter(&self, key_hash: u64) {
        if !self.filter.is_empty() {
            filter::prefetch(self.tail(&self.filter), key_hash);
        }
    }

    /// Asks for the memory that a lookup in a loaded block reads first.
    #[inline]
    pub(crate) fn prefetch_block(&self, bytes: &BlockBytes) {
        let body = self.body(bytes);
        for at in (0..body.len().min(PREFETCHED_BYTES)).step_by(LINE_LEN_BYTES) {
            prefetch(&raw const body[at]);
        }
    }

    /// The range tombstones; apart from the table, so that a scan can hold them.
    pub(crate) fn tombstones(&self) -> &Arc<TombstoneIndex> {
        &self.tombstones
    }

    /// The range tombstones as they are stored, by start, then newest first.
    pub(crate) fn stored_tombstones(&self) -> Result<Vec<RangeTombstone>> {
        decode_tombstones(self.tail(&self.stored_tombstones))
            .map_err(|what| self.corruption(self.footer.tombstones_at, what))
    }

    /// Bytes of memory that the open table holds outside the cache. What is mapped
    /// is not counted: the operating system may take it back.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        let tombstones = self.tombstones.memory_bytes();
        let tail = self.tail.as_ref().map_or(0, |tail| tail.bytes().len());
        let asked = self.asked.as_ref();
        let asked = asked.map_or(0, |asked| asked.blocks.len() + asked.pieces.len());
        (size_of::<Self>()
            + tombstones
            + tail
            + (self.verified.len() + self.checked.len() + asked) * 8) as u64
    }

    /// Damage of this file at byte `at`.
    #[cold]
    pub(crate) fn corruption(&self, at: u64, what: Damage) -> Error {
        Error::corruption(self.path(), at, what)
    }

    /// Where block `no` is in the file.
    #[inline]
    pub(crate) fn block_range(&self, no: u32) -> Range<u64> {
        let index = self.index();
        index.block_at(no)..index.block_at(no + 1)
    }

    /// The body of a loaded block.
    #[inline]
    pub(crate) fn body<'a>(&'a self, bytes: &'a BlockBytes) -> &'a [u8] {
        let framed = match (bytes, &self.map) {
            (BlockBytes::Mapped(range), Some(map)) => map.range(range.clone()),
            (BlockBytes::Mapped(_), None) => unreachable!("only a mapped table has mapped blocks"),
            (BlockBytes::Shared(bytes), _) => bytes,
        };
        &framed[FRAME_LEN_BYTES..]
    }

    /// Takes note that a reader touches a block.
    #[inline]
    pub(crate) fn count_read(&self) {
        self.blocks_read.add(1);
    }

    /// Finds block `no` in map, cache or file, and verifies it if that has not been done.
    #[inline]
    pub(crate) fn load(&self, no: u32) -> Result<BlockBytes> {
        if let Some(loaded) = self.loaded(no) {
            return Ok(loaded);
        }
        self.load_missing(no)
    }

    /// Block `no`, which was looked for and is not there.
    pub(crate) fn load_missing(&self, no: u32) -> Result<BlockBytes> {
        self.will_need_block(no);
        self.load_stored(no, self.block_range(no))
    }

    /// Asks storage for block `no`, and what is around it, if it is a mapped file's and was not
    /// asked for before.
    #[inline]
    pub(crate) fn will_need_block(&self, no: u32) {
        if let Some(wanted) = self.read_around(no, &self.block_range(no)) {
            self.will_need(wanted);
        }
    }

    /// Block `no`, if it was verified before and is there.
    #[inline]
    pub(crate) fn loaded(&self, no: u32) -> Option<BlockBytes> {
        let range = self.block_range(no);
        if self.map.is_some() && self.is_verified(no) {
            let range = range.start as usize..range.end as usize;
            return Some(BlockBytes::Mapped(range));
        }
        self.cached(&range).map(BlockBytes::Shared)
    }

    /// Reads block `no`, which is stored at `range`.
    pub(crate) fn load_stored(&self, no: u32, range: Range<u64>) -> Result<BlockBytes> {
        let stored = self.read_stored(&range)?;
        self.admit(no, &range, &stored)
    }

    /// What to ask storage for before block `no` of a mapped file is read; `None` if page faults do
    /// as well.
    ///
    /// If the tree is no larger than the cache may be, it will be in memory soon, and is fetched in
    /// as few requests as possible. Otherwise only a block that lies on two pages of memory is
    /// asked for, as a whole, since it would cost two faults, one after the other. Each is asked
    /// for once: the question costs as much as half a lookup, and is mostly void when memory has
    /// what the cache has not.
    pub(crate) fn read_around(&self, no: u32, block: &Range<u64>) -> Option<Range<u64>> {
        let asked = self.asked.as_ref()?;
        if asked.tree_bytes.load(Ordering::Relaxed) > self.cache.capacity_bytes() {
            let pages = block.start / PAGE_BYTES..block.end.div_ceil(PAGE_BYTES);
            let lies_on_two = pages.end - pages.start > 1;
            return (lies_on_two && first_time(&asked.blocks, no.into())).then(|| block.clone());
        }
        let piece = block.start / READ_AROUND_BYTES;
        first_time(&asked.pieces, piece).then(|| {
            let start = piece * READ_AROUND_BYTES;
            let end = (start + READ_AROUND_BYTES).min(self.footer.blocks_end);
            start..end.max(block.end)
        })
    }

    /// The block at `range`, if it is in the cache.
    #[inline]
    pub(crate) fn cached(&self, range: &Range<u64>) -> Option<CachedBlock> {
        // Blocks that lie in the map as they are never enter the cache.
        if self.map.is_some() && self.properties.compressed_blocks == 0 {
            return None;
        }
        self.cache.get(&self.block_key(range))
    }

    /// Verifies and decompresses the block `no` that is stored as `stored` at `range`, for readers:
    /// it may enter the cache, or be remembered as verified.
    pub(crate) fn admit(&self, no: u32, range: &Range<u64>, stored: &[u8]) -> Result<BlockBytes> {
        let damaged = |what| self.corruption(range.start, what);
        let frame = Frame::verify(stored, self.seed, range.start).map_err(damaged)?;
        if self.map.is_some() && frame.tag == tag::PLAIN {
            if frame.parameter != 0 {
                return Err(damaged("the block has an unknown parameter"));
            }
            self.check_block(no, &stored[FRAME_LEN_BYTES..])
                .map_err(damaged)?;
            self.set_verified(no);
            return Ok(BlockBytes::Mapped(range.start as usize..range.end as usize));
        }
        let block = unpack(frame, stored).map_err(damaged)?;
        if !is_set(&self.checked, no) {
            self.check_block(no, &block[FRAME_LEN_BYTES..])
                .map_err(damaged)?;
            set(&self.checked, no);
        }
        if block.len() <= MAX_CACHED_LEN_BYTES {
            self.cache.insert(self.block_key(range), Arc::clone(&block));
        }
        Ok(BlockBytes::Shared(block))
    }

    /// Verifies and decompresses the block `no` that is stored as `stored` at `range`, and leaves
    /// no trace of it.
    pub(crate) fn check_stored(
        &self,
        no: u32,
        range: &Range<u64>,
        stored: &[u8],
    ) -> Result<CachedBlock> {
        let damaged = |what| self.corruption(range.start, what);
        let frame = Frame::verify(stored, self.seed, range.start).map_err(damaged)?;
        let block = unpack(frame, stored).map_err(damaged)?;
        self.check_block(no, &block[FRAME_LEN_BYTES..])
            .map_err(damaged)?;
        Ok(block)
    }

    /// Checks what cursors rely on to get on, once, when the block is first touched: its entries
    /// are in order, lie between its separator and the next one and within the table's extent, and
    /// have no higher number than the table. A checksum only says that
    /// the bytes are what was written.
    fn check_block(&self, no: u32, body: &[u8]) -> Result<(), Damage> {
        let block = Block::parse(body)?;
        let meta = &self.properties.meta;
        let largest_seq = match self.loaded_at {
            Some(_) => UNNUMBERED,
            None => meta.largest_seq,
        };
        if block.check()? > largest_seq {
            return Err("an entry has a higher sequence number than the table");
        }
        let index = self.index();
        let mut key = block.prefix().to_vec();
        let first = block.record(0)?;
        key.extend_from_slice(first.suffix);
        if index.compare_separator(no, &key, first.word).is_gt() {
            return Err("the block begins before its separator");
        }
        if no == 0 && key < meta.smallest_key {
            return Err("the block begins before the table's smallest key");
        }
        let last = block.record(block.count() - 1)?;
        key.truncate(block.prefix().len());
        key.extend_from_slice(last.suffix);
        let next = no + 1;
        if next < self.blocks() {
            if index.compare_separator(next, &key, last.word).is_le() {
                return Err("the block extends past the next separator");
            }
        } else if meta.is_before(&key) {
            return Err("the block extends past the table's largest key");
        }
        Ok(())
    }

    /// Bytes of the file as they are stored.
    pub(crate) fn read_stored(&self, range: &Range<u64>) -> Result<Cow<'_, [u8]>> {
        match &self.map {
            Some(map) => Ok(Cow::Borrowed(
                map.range(range.start as usize..range.end as usize),
            )),
            None => {
                // The range lies within the file, whose length was checked at open.
                let mut bytes = vec![0; (range.end - range.start) as usize];
                self.read_file(&mut bytes, range.start)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Fills `bytes` from the file, at `at`, even if the file is mapped.
    pub(crate) fn read_file(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        self.file.read_exact_at(bytes, at)
    }

    /// True if the file is mapped.
    #[inline]
    pub(crate) fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    /// Advises the operating system that `range` will be read soon, if the file is mapped.
    pub(crate) fn will_need(&self, range: Range<u64>) {
        if let Some(map) = &self.map {
            let (start, end) = (range.start as usize, range.end as usize);
            map.advise(Advice::WillNeed, start, end - start);
        }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    fn block_key(&self, range: &Range<u64>) -> BlockKey {
        BlockKey {
            file_tag: self.file_tag,
            offset: range.start,
        }
    }

    /// Relaxed order suffices for these bits: the mapped bytes do not change, so a thread that sees
    /// the bit needs to see nothing else that another thread wrote.
    #[inline]
    fn is_verified(&self, no: u32) -> bool {
        is_set(&self.verified, no)
    }

    fn set_verified(&self, no: u32) {
        set(&self.verified, no);
    }
}
