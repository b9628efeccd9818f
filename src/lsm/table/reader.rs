//! Reading a table.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::block::{Block, Damage, MAX_PACKED_LEN_BYTES};
use super::footer::{
    FOOTER_LEN_BYTES, FRAME_LEN_BYTES, Footer, FooterDamage, Frame, Properties, VERSION,
    decode_tombstones, filter_at, table_seed, tag,
};
use super::index::Index;
use super::{TableCursor, TableMeta, filter, index, verify};
use crate::cache::{BlockCache, BlockKey, CachedBlock};
use crate::engine::VerifyReport;
use crate::error::{Error, Result};
use crate::format::coding::get_u32;
use crate::fs;
use crate::fs::{Advice, File, Fs, Mapping, OpenMode};
use crate::lsm::entry::{Entry, RangeTombstone, seek_word, split_word};
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use crate::util::sharded::ShardedCounter;

/// Longer blocks, which hold one large value each, do not enter the cache: a few of them would
/// push everything else out.
const MAX_CACHED_LEN_BYTES: usize = 4 << 20;

/// Of a tree that may stay in memory as a whole, this much around a block is read with it: what the kernel
/// reads around a page fault by default.
pub(crate) const READ_AROUND_BYTES: u64 = 128 << 10;

/// A page of memory, or a part of one where they are larger.
const PAGE_BYTES: u64 = 4 << 10;

/// What every table of a keyspace is opened with.
#[derive(Debug, Clone)]
pub(crate) struct TableContext {
    /// The file system.
    pub(crate) fs: Arc<dyn Fs>,
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
    file: Arc<dyn File>,
    /// The whole file, if it is mapped.
    map: Option<Mapping>,
    cache: Arc<BlockCache>,
    blocks_read: Arc<ShardedCounter>,
    file_tag: u64,
    seed: u64,
    footer: Footer,
    properties: Properties,
    /// Everything from the end of the blocks, if the file is not mapped.
    tail: Option<AlignedBytes>,
    /// Where the lines of the filter are; empty if there is no filter.
    filter: Range<u64>,
    filter_probes: u8,
    index: Range<u64>,
    index_layout: index::Layout,
    tombstones: Vec<RangeTombstone>,
    /// A bit for each block that is uncompressed in the map and has passed its checksum.
    verified: Box<[AtomicU64]>,
    /// Of a mapped file.
    asked: Option<Box<Asked>>,
}

/// What storage has been asked for.
#[derive(Debug)]
struct Asked {
    /// See [`TableContext::tree_bytes`].
    tree_bytes: Arc<AtomicU64>,
    /// A bit for each block.
    blocks: Box<[AtomicU64]>,
    /// A bit for each piece of [`READ_AROUND_BYTES`].
    pieces: Box<[AtomicU64]>,
}

/// `count` bits, none of them set.
fn no_bits(count: u64) -> Box<[AtomicU64]> {
    (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect()
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
            Ok(_) => return Err(corruption(footer_at, "the file has another number")),
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
                // Lookups touch scattered blocks; without this advice each would read a
                // neighbourhood that nobody asked for. What is read instead is said for each
                // block: see `read_around`. The tail is needed now.
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
            file,
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
            tombstones: Vec::new(),
            verified: Box::default(),
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

        let (frame, range) = self.section(footer.tombstones_at..footer.properties_at)?;
        self.tombstones = decode_tombstones(self.tail(&range))
            .and_then(|tombstones| expect_plain(frame).map(|()| tombstones))
            .map_err(|what| self.corruption(footer.tombstones_at, what))?;

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

        let blocks = self.index_layout.blocks;
        if self.properties.blocks != u64::from(blocks)
            || self.properties.compressed_blocks > u64::from(blocks)
            || self.properties.meta.id != footer.id
            || self.properties.meta.size_bytes != footer_at + FOOTER_LEN_BYTES as u64
            || self.properties.meta.range_tombstones != self.tombstones.len() as u64
        {
            let what = "the properties disagree with the rest of the table";
            return Err(self.corruption(footer.properties_at, what));
        }
        if self.map.is_some() {
            self.verified = no_bits(blocks.into());
        }
        Ok(())
    }

    /// Checks the frame of the section at `range`; returns it and where its bytes are.
    fn section(&self, range: Range<u64>) -> Result<(Frame, Range<u64>)> {
        let frame = Frame::verify(self.tail(&range), self.seed, range.start)
            .map_err(|what| self.corruption(range.start, what))?;
        Ok((frame, range.start + FRAME_LEN_BYTES as u64..range.end))
    }

    /// Bytes behind the blocks.
    #[inline]
    fn tail(&self, range: &Range<u64>) -> &[u8] {
        match (&self.map, &self.tail) {
            (Some(map), _) => &map[range.start as usize..range.end as usize],
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
        let index = self.index();
        let word = seek_word(seq);
        let Some(mut no) = index.separators_up_to(key, word).checked_sub(1) else {
            return Ok(false);
        };
        loop {
            self.count_read();
            let bytes = match self.load(no, true) {
                Err(_) if mutated!("read-error-is-not-found") => return Ok(false),
                loaded => loaded?,
            };
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
                    seq,
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
        }
    }

    /// A cursor over the entries, standing nowhere. Blocks that it loads enter the cache, and are counted as
    /// read, only if `fill_cache`: readers want that, compactions do not.
    pub(crate) fn cursor(self: &Arc<Self>, fill_cache: bool) -> TableCursor {
        TableCursor::new(Arc::clone(self), fill_cache)
    }

    /// The range tombstones, by start, then newest first.
    pub(crate) fn range_tombstones(&self) -> &[RangeTombstone] {
        &self.tombstones
    }

    /// Bytes of memory that the open table holds outside the cache. What is mapped
    /// is not counted: the operating system may take it back.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        let tombstones: usize = self
            .tombstones
            .iter()
            .map(|tombstone| {
                size_of::<RangeTombstone>()
                    + tombstone.start.len()
                    + tombstone.end.as_ref().map_or(0, Vec::len)
            })
            .sum();
        let tail = self.tail.as_ref().map_or(0, |tail| tail.bytes().len());
        let asked = self.asked.as_ref();
        let asked = asked.map_or(0, |asked| asked.blocks.len() + asked.pieces.len());
        (size_of::<Self>() + tombstones + tail + (self.verified.len() + asked) * 8) as u64
    }

    /// Reads everything and checks it; see the invariants in the module docs. Damage is
    /// reported in the list, `Err` is I/O trouble.
    pub(crate) fn verify(&self) -> Result<VerifyReport> {
        verify::verify(self)
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
            (BlockBytes::Mapped(range), Some(map)) => &map[range.clone()],
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
    pub(crate) fn load(&self, no: u32, fill_cache: bool) -> Result<BlockBytes> {
        let range = self.block_range(no);
        if self.map.is_some() && self.is_verified(no) {
            return Ok(BlockBytes::Mapped(range.start as usize..range.end as usize));
        }
        if let Some(cached) = self.cached(&range) {
            return Ok(BlockBytes::Shared(cached));
        }
        if let Some(wanted) = self.read_around(no, &range) {
            self.will_need(wanted);
        }
        self.load_stored(no, range, fill_cache)
    }

    /// As [`Table::load`], for who has asked for the block's bytes [already](Table::will_need).
    pub(crate) fn load_asked_for(&self, no: u32, fill_cache: bool) -> Result<BlockBytes> {
        let range = self.block_range(no);
        if self.map.is_some() && self.is_verified(no) {
            return Ok(BlockBytes::Mapped(range.start as usize..range.end as usize));
        }
        if let Some(cached) = self.cached(&range) {
            return Ok(BlockBytes::Shared(cached));
        }
        self.load_stored(no, range, fill_cache)
    }

    fn load_stored(&self, no: u32, range: Range<u64>, fill_cache: bool) -> Result<BlockBytes> {
        let stored = self.read_stored(&range)?;
        self.admit(no, &range, &stored, fill_cache)
    }

    /// What to ask storage for before block `no` of a mapped file is read; `None` if page faults do as well.
    ///
    /// If the tree is no larger than the cache may be, it will be in memory soon, and is fetched in as few requests
    /// as possible. Otherwise only a block that lies on two pages of memory is asked for, as a whole, since it
    /// would cost two faults, one after the other. Each is asked for once: the question costs as much as
    /// half a lookup, and is mostly void when memory has what the cache has not.
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

    /// Verifies and decompresses the block `no` that is stored as `stored` at `range`.
    pub(crate) fn admit(
        &self,
        no: u32,
        range: &Range<u64>,
        stored: &[u8],
        fill_cache: bool,
    ) -> Result<BlockBytes> {
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
        self.check_block(no, &block[FRAME_LEN_BYTES..])
            .map_err(damaged)?;
        if fill_cache && block.len() <= MAX_CACHED_LEN_BYTES {
            self.cache.insert(self.block_key(range), Arc::clone(&block));
        }
        Ok(BlockBytes::Shared(block))
    }

    /// Checks what cursors rely on to get on, once, when the block is first touched: its entries are in order, lie
    /// between its separator and the next one and within the table's extent, and have no higher
    /// number than the table. A checksum only says that the bytes are what somebody wrote.
    fn check_block(&self, no: u32, body: &[u8]) -> Result<(), Damage> {
        let block = Block::parse(body)?;
        let meta = &self.properties.meta;
        if block.check()? > meta.largest_seq {
            return Err("an entry has a higher number than the table");
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
                return Err("the block reaches behind the next separator");
            }
        } else if meta.is_before(&key) {
            return Err("the block reaches behind the table's largest key");
        }
        Ok(())
    }

    /// Bytes of the file as they are stored.
    pub(crate) fn read_stored(&self, range: &Range<u64>) -> Result<Cow<'_, [u8]>> {
        match &self.map {
            Some(map) => Ok(Cow::Borrowed(
                &map[range.start as usize..range.end as usize],
            )),
            None => {
                // The range lies within the file, whose length was checked at open.
                let mut bytes = vec![0; (range.end - range.start) as usize];
                self.file.read_exact_at(&mut bytes, range.start)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// True if the file is mapped.
    #[inline]
    pub(crate) fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    /// Tells the operating system that `range` will be read soon, if the file is mapped.
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
        self.verified[no as usize / 64].load(Ordering::Relaxed) & 1 << (no % 64) != 0
    }

    fn set_verified(&self, no: u32) {
        self.verified[no as usize / 64].fetch_or(1 << (no % 64), Ordering::Relaxed);
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

/// What a record of an unknown kind is reported as.
pub(crate) const UNKNOWN_KIND: Damage = "an entry is of an unknown kind";

/// The uncompressed form of a stored block whose checksum was verified: a frame's length of
/// bytes without meaning, then the body.
pub(crate) fn unpack(frame: Frame, stored: &[u8]) -> Result<CachedBlock, Damage> {
    let payload = &stored[FRAME_LEN_BYTES..];
    match frame.tag {
        _ if frame.parameter != 0 => Err("the block has an unknown parameter"),
        tag::PLAIN => Ok(CachedBlock::from(stored)),
        tag::LZ4 => decompress(payload),
        _ => Err("the block has an unknown encoding"),
    }
}

/// Decompresses the bytes after the frame of a compressed block.
pub(crate) fn decompress(payload: &[u8]) -> Result<CachedBlock, Damage> {
    let Some((length, compressed)) = payload.split_first_chunk::<4>() else {
        return Err("the compressed block is too short");
    };
    let body_len = get_u32(length, 0) as usize;
    // A byte of LZ4 adds at most 255 bytes of output, so a larger length is a lie, and is not
    // trusted with an allocation.
    if body_len > MAX_PACKED_LEN_BYTES || body_len / 255 > compressed.len() {
        return Err("the compressed block states an impossible length");
    }
    let mut block: CachedBlock = std::iter::repeat_n(0, FRAME_LEN_BYTES + body_len).collect();
    let bytes = Arc::get_mut(&mut block).expect("nobody else has the new block");
    match lz4_flex::block::decompress_into(compressed, &mut bytes[FRAME_LEN_BYTES..]) {
        Ok(len) if len == body_len => Ok(block),
        _ => Err("the compressed block does not decompress"),
    }
}

/// Where the lines of the filter start, from the end of the blocks.
fn filter_lines_at(footer: &Footer) -> usize {
    (filter_at(footer.blocks_end) - footer.blocks_end) as usize + FRAME_LEN_BYTES
}

/// Bytes of which a chosen one is aligned to a cache line.
#[derive(Debug)]
struct AlignedBytes {
    bytes: Vec<u8>,
    from: usize,
    len: usize,
}

impl AlignedBytes {
    /// `len` zeros, aligned at the one with index `aligned`.
    fn zeroed(len: usize, aligned: usize) -> Self {
        let bytes = vec![0; len + filter::LINE_LEN_BYTES];
        let address = bytes.as_ptr() as usize + aligned;
        let from = address.next_multiple_of(filter::LINE_LEN_BYTES) - address;
        Self { bytes, from, len }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.from..self.from + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + self.len]
    }
}
