//! Walking a table.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::block::{Block, Layout, UNKNOWN_KIND};
use super::reader::{BlockBytes, Table};
use crate::error::Result;
use crate::lsm::entry::{Entry, EntryCursor, EntryKind, seek_word, split_word};
use crate::lsm::offset_value::{Difference, Direction, NOWHERE, code, code_over};
use crate::types::SeqNo;
use crate::util::key_prefix::common_prefix_len;
use crate::util::mutants::mutated;

/// How far a cursor that walks in one direction reads ahead.
const READ_AHEAD_BYTES: u64 = 256 << 10;
/// Blocks that a cursor walks before it counts as walking: a short scan reads nothing ahead.
const WALKING_AFTER_BLOCKS: u32 = 2;

/// What a cursor walks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A read: blocks enter the cache and are counted as read.
    Read,
    /// The entries are written into another table, with new checksums. So every block is read from
    /// the file into memory of the cursor's own and checked there, whatever was checked before: a
    /// map may show other bytes by now, and would show others again after the check.
    Rewrite,
}

/// A position in a table. Keeps the table open.
pub(crate) struct TableCursor {
    table: Arc<Table>,
    purpose: Purpose,
    /// The block that the cursor is in, kept for the next seek even when it stands nowhere.
    loaded: Option<Loaded>,
    /// True if the cursor stands on entry `at` of the loaded block.
    valid: bool,
    at: u32,
    /// The key: the prefix of the loaded block, then the suffix of the entry. One buffer for
    /// the cursor's life.
    key: Vec<u8>,
    /// The key that the cursor stood on before its last step into another block, or to the end.
    left: Vec<u8>,
    seq: SeqNo,
    kind: EntryKind,
    /// Where the value is in the body.
    value: Range<usize>,
    ahead: ReadAhead,
}

/// Where a seek goes.
pub(crate) enum Approach {
    /// To the start of the table.
    BeforeAll,
    /// To this block.
    Block(u32, Looked),
}

/// Whether a block was looked for.
pub(crate) enum Looked {
    /// Not yet: it may be the one that is loaded.
    NotYet,
    Found(BlockBytes),
    Missing,
}

/// A loaded block.
struct Loaded {
    no: u32,
    bytes: BlockBytes,
    layout: Layout,
    prefix_len: usize,
}

/// What has been read, or asked for, before it is needed.
#[derive(Default)]
struct ReadAhead {
    /// Blocks entered one after the other, forward.
    forward: u32,
    /// Blocks entered one after the other, backward.
    backward: u32,
    /// What was last announced to the operating system, if the file is mapped.
    advised: Range<u64>,
    /// Stored bytes from `buffer_at` on, where they are not read through a map.
    buffer: Vec<u8>,
    buffer_at: u64,
    /// How often the operating system was asked for something.
    #[cfg(test)]
    asked: u64,
}

impl ReadAhead {
    /// Takes note of a move from one block to another.
    fn moved(&mut self, from: Option<u32>, to: u32) {
        self.forward = match from {
            Some(from) if from.checked_add(1) == Some(to) => self.forward + 1,
            _ => 0,
        };
        self.backward = match from {
            Some(from) if from.checked_sub(1) == Some(to) => self.backward + 1,
            _ => 0,
        };
    }

    /// True if the cursor has walked in one direction for a while.
    fn is_walking(&self) -> bool {
        self.forward.max(self.backward) >= WALKING_AFTER_BLOCKS
    }

    /// `len` bytes in the direction of the walk, or fewer where the blocks end, but all of `block`.
    fn window(&self, block: &Range<u64>, len: u64, blocks_end: u64) -> Range<u64> {
        if self.backward == 0 {
            block.start..(block.start + len).min(blocks_end).max(block.end)
        } else {
            block.end.saturating_sub(len).min(block.start)..block.end
        }
    }

    /// The stored bytes of the block at `range`, of which more is read with it, from the file.
    fn read(&mut self, table: &Table, range: &Range<u64>) -> Result<&[u8]> {
        let buffered = self.buffer_at..self.buffer_at + self.buffer.len() as u64;
        if !covers(&buffered, range) {
            let window = self.window(range, READ_AHEAD_BYTES, table.footer().blocks_end);
            // Nothing, if the read fails.
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.resize((window.end - window.start) as usize, 0);
            table.read_file(&mut buffer, window.start)?;
            (self.buffer, self.buffer_at) = (buffer, window.start);
        }
        let from = (range.start - self.buffer_at) as usize;
        Ok(&self.buffer[from..from + (range.end - range.start) as usize])
    }
}

/// True if `outer` holds all of `inner`.
fn covers(outer: &Range<u64>, inner: &Range<u64>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

impl fmt::Debug for TableCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableCursor")
            .field("path", &self.table.path())
            .field("valid", &self.valid)
            .field("block", &self.loaded.as_ref().map(|loaded| loaded.no))
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Table {
    /// A cursor over the entries, standing nowhere.
    pub(crate) fn cursor(self: &Arc<Self>, purpose: Purpose) -> TableCursor {
        TableCursor::new(Arc::clone(self), purpose)
    }
}

impl TableCursor {
    fn new(table: Arc<Table>, purpose: Purpose) -> Self {
        Self {
            table,
            purpose,
            loaded: None,
            valid: false,
            at: 0,
            key: Vec::new(),
            left: Vec::new(),
            seq: SeqNo::ZERO,
            kind: EntryKind::Delete,
            value: 0..0,
            ahead: ReadAhead::default(),
        }
    }

    /// Loads block `no`, unless it is loaded, and returns its number of entries.
    fn enter(&mut self, no: u32) -> Result<u32> {
        match &self.loaded {
            Some(loaded) if loaded.no == no => Ok(loaded.layout.count),
            _ => self.enter_another(no, Looked::NotYet),
        }
    }

    /// Enters block `no`, which is not the loaded one.
    fn enter_another(&mut self, no: u32, looked: Looked) -> Result<u32> {
        self.ahead.moved(self.loaded.take().map(|from| from.no), no);
        let bytes = match self.purpose {
            Purpose::Rewrite => self.load_to_rewrite(no)?,
            Purpose::Read => {
                self.table.count_read();
                match looked {
                    Looked::Found(bytes) => bytes,
                    _ if self.ahead.is_walking() => self.load_ahead(no)?,
                    Looked::Missing => self.table.load_missing(no)?,
                    Looked::NotYet => self.table.load(no)?,
                }
            }
        };
        let body = self.table.body(&bytes);
        let layout = Layout::parse(body).map_err(|what| {
            self.table
                .corruption(self.table.block_range(no).start, what)
        })?;
        let prefix = Block::new(body, layout).prefix();
        let prefix_len = prefix.len();
        self.key.clear();
        self.key.extend_from_slice(prefix);
        self.loaded = Some(Loaded {
            no,
            bytes,
            layout,
            prefix_len,
        });
        Ok(layout.count)
    }

    /// Loads block `no` in the course of a walk, and has more read ahead.
    fn load_ahead(&mut self, no: u32) -> Result<BlockBytes> {
        let range = self.table.block_range(no);
        let blocks_end = self.table.footer().blocks_end;
        let ahead = &mut self.ahead;
        if self.table.is_mapped() {
            // Nothing is asked for because of what was in memory, for that costs more than the
            // rest.
            if let Some(here) = self.table.loaded(no) {
                return Ok(here);
            }
            // Ask again when half of what was asked for has been used.
            let soon = ahead.window(&range, READ_AHEAD_BYTES / 2, blocks_end);
            if !covers(&ahead.advised, &soon) {
                ahead.advised = ahead.window(&range, READ_AHEAD_BYTES, blocks_end);
                self.table.will_need(ahead.advised.clone());
                #[cfg(test)]
                {
                    ahead.asked += 1;
                }
            }
            return self.table.load_stored(no, range);
        }
        if let Some(cached) = self.table.cached(&range) {
            return Ok(BlockBytes::Shared(cached));
        }
        let stored = ahead.read(&self.table, &range)?;
        self.table.admit(no, &range, stored)
    }

    /// Loads block `no` as [`Purpose::Rewrite`] says.
    fn load_to_rewrite(&mut self, no: u32) -> Result<BlockBytes> {
        if mutated!("compaction-trusts-what-was-verified-once") {
            return self.table.load(no);
        }
        let range = self.table.block_range(no);
        let stored = self.ahead.read(&self.table, &range)?;
        let block = self.table.check_stored(no, &range, stored)?;
        Ok(BlockBytes::Shared(block))
    }

    /// Stands on entry `at` of the loaded block.
    #[inline]
    fn stand_on(&mut self, at: u32) -> Result<()> {
        self.stand_on_coded(at, Direction::Forward).map(drop)
    }

    /// Stands on entry `at` of the loaded block; returns the code of its key over the last one in
    /// the block, if the cursor stood on one.
    #[inline]
    fn stand_on_coded(&mut self, at: u32, direction: Direction) -> Result<u64> {
        let Some(loaded) = &self.loaded else {
            unreachable!("a block is loaded before the cursor stands in it");
        };
        let block = Block::new(self.table.body(&loaded.bytes), loaded.layout);
        let read = block.record(at).and_then(|record| {
            let (seq, kind) = split_word(record.word).ok_or(UNKNOWN_KIND)?;
            Ok((record, seq, kind))
        });
        let (record, seq, kind) = read.map_err(|what| {
            let offset = self.table.block_range(loaded.no).start;
            self.table.corruption(offset, what)
        })?;
        let (prefix_len, suffix) = (loaded.prefix_len, record.suffix);
        let last = &self.key[prefix_len..];
        let shared = common_prefix_len(suffix, last);
        let difference = Difference::behind(shared, suffix, last).after_prefix(prefix_len);
        self.key.truncate(prefix_len + shared);
        self.key.extend_from_slice(&suffix[shared..]);
        self.seq = self.table.seq_of(seq);
        self.kind = kind;
        self.value = record.value_at..record.value_at + record.value.len();
        self.at = at;
        self.valid = true;
        Ok(code(&self.key, difference, direction))
    }

    /// Goes to the entry beside this one; returns the code of its key over this one's, or
    /// [`NOWHERE`].
    #[inline]
    pub(crate) fn step(&mut self, direction: Direction) -> Result<u64> {
        debug_assert!(self.valid);
        let (no, count) = self.here();
        let at = match direction {
            Direction::Forward => Some(self.at + 1).filter(|at| *at < count),
            Direction::Backward => self.at.checked_sub(1),
        };
        self.valid = false;
        match at {
            Some(at) => self.stand_on_coded(at, direction),
            None => self.step_into_another_block(no, direction),
        }
    }

    fn step_into_another_block(&mut self, from: u32, direction: Direction) -> Result<u64> {
        self.left.clone_from(&self.key);
        match direction {
            Direction::Forward => self.stand_on_first_of(from + 1)?,
            Direction::Backward => self.stand_on_last_before(from)?,
        }
        Ok(match self.valid {
            true => code_over(&self.key, &self.left, direction),
            false => NOWHERE,
        })
    }

    /// The key that the cursor stood on before the step that led to the end.
    pub(crate) fn left(&self) -> &[u8] {
        &self.left
    }

    /// Stands on the first entry of block `no`, or nowhere if there is no such block.
    fn stand_on_first_of(&mut self, no: u32) -> Result<()> {
        if no < self.table.blocks() {
            self.enter(no)?;
            self.stand_on(0)?;
        }
        Ok(())
    }

    /// Stands on the last entry of the block before `no`, or nowhere if there is none.
    fn stand_on_last_before(&mut self, no: u32) -> Result<()> {
        if let Some(no) = no.checked_sub(1) {
            let count = self.enter(no)?;
            self.stand_on(count - 1)?;
        }
        Ok(())
    }

    /// Finds out which block `(key, word)` belongs to, and asks for it: memory, if the block is
    /// there, or else storage. The first part of a seek, after which the cursor stands nowhere.
    /// Waits for nothing else, so several cursors can wait together.
    pub(crate) fn approach(&mut self, key: &[u8], word: u64) -> Approach {
        self.valid = false;
        let word = self.table.stored_word(word);
        let up_to = self.table.index().separators_up_to(key, word);
        let Some(no) = up_to.checked_sub(1) else {
            return Approach::BeforeAll;
        };
        let is_loaded = self.loaded.as_ref().is_some_and(|loaded| loaded.no == no);
        if is_loaded || self.purpose == Purpose::Rewrite {
            return Approach::Block(no, Looked::NotYet);
        }
        let looked = match self.table.loaded(no) {
            Some(bytes) => {
                self.table.prefetch_block(&bytes);
                Looked::Found(bytes)
            }
            None => {
                self.table.will_need_block(no);
                Looked::Missing
            }
        };
        Approach::Block(no, looked)
    }

    /// The second part of a seek, to the first entry at or after `(key, seq)`; the first had
    /// [`seek_word`] of `seq`.
    pub(crate) fn arrive(&mut self, approach: Approach, key: &[u8], seq: SeqNo) -> Result<()> {
        let word = seek_word(seq);
        match self.find(approach, key, word)? {
            None => self.stand_on_first_of(0)?,
            Some((no, at)) if at == self.here().1 => self.stand_on_first_of(no + 1)?,
            Some((_, at)) => return self.stand_on(at),
        }
        self.expect(|entry| entry.cmp_internal(key, word).is_ge())
    }

    /// Enters the block that `(key, word)` belongs to and finds the first entry at or after it
    /// there: block and index, which is the block's count if there is none. `None` if the
    /// place is before all blocks.
    fn find(&mut self, approach: Approach, key: &[u8], word: u64) -> Result<Option<(u32, u32)>> {
        let no = match approach {
            Approach::BeforeAll => return Ok(None),
            Approach::Block(no, Looked::NotYet) => {
                self.enter(no)?;
                no
            }
            Approach::Block(no, looked) => {
                self.enter_another(no, looked)?;
                no
            }
        };
        let Some(loaded) = &self.loaded else {
            unreachable!("the block was just entered");
        };
        let block = Block::new(self.table.body(&loaded.bytes), loaded.layout);
        let word = self.table.stored_word(word);
        let at = block.lower_bound(key, word).map_err(|what| {
            self.table
                .corruption(self.table.block_range(no).start, what)
        })?;
        Ok(Some((no, at)))
    }

    /// Checks the entry that a search stands on after it left the block that the index had named.
    /// Within a block entries are known to be in order; that the separators are is only known where
    /// they were compared, and a search that ends on the wrong side of its key would make a scan go
    /// round in circles.
    fn expect(&mut self, is_right: impl FnOnce(&Entry<'_>) -> bool) -> Result<()> {
        if !self.valid || is_right(&self.entry()) {
            return Ok(());
        }
        self.valid = false;
        let what = "separators are out of order";
        Err(self.table.corruption(self.table.footer().index_at, what))
    }

    /// The loaded block, and its number of entries. Only on a valid cursor.
    #[inline]
    fn here(&self) -> (u32, u32) {
        let Some(loaded) = &self.loaded else {
            unreachable!("the cursor stands on an entry");
        };
        (loaded.no, loaded.layout.count)
    }
}

#[cfg(test)]
impl TableCursor {
    /// How often the walks of the cursor have asked the operating system for something.
    pub(super) fn asked(&self) -> u64 {
        self.ahead.asked
    }
}

impl EntryCursor for TableCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.valid = false;
        self.stand_on_first_of(0)
    }

    fn seek_last(&mut self) -> Result<()> {
        self.valid = false;
        self.stand_on_last_before(self.table.blocks())
    }

    fn seek(&mut self, key: &[u8], seq: SeqNo) -> Result<()> {
        let approach = self.approach(key, seek_word(seq));
        self.arrive(approach, key, seq)
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let approach = self.approach(key, u64::MAX);
        match self.find(approach, key, u64::MAX)? {
            None => return Ok(()),
            Some((no, 0)) => self.stand_on_last_before(no)?,
            Some((_, at)) => return self.stand_on(at - 1),
        }
        self.expect(|entry| entry.key < key)
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.step(Direction::Forward).map(drop)
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        self.step(Direction::Backward).map(drop)
    }

    #[inline]
    fn is_valid(&self) -> bool {
        self.valid
    }

    #[inline]
    fn entry(&self) -> Entry<'_> {
        debug_assert!(self.valid);
        let Some(loaded) = &self.loaded else {
            unreachable!("the cursor stands on an entry");
        };
        Entry {
            key: &self.key,
            seq: self.seq,
            kind: self.kind,
            value: &self.table.body(&loaded.bytes)[self.value.clone()],
        }
    }

    #[inline]
    fn key(&self) -> &[u8] {
        debug_assert!(self.valid);
        &self.key
    }
}
