//! Checking everything that the readers of a table rely on.

use std::borrow::Cow;
use std::ops::Range;

use super::TableForm;
use super::block::{Block, Damage, UNKNOWN_KIND};
use super::compression::unpack;
use super::filter::filter_hash;
use super::footer::{FOOTER_LEN_BYTES, FRAME_LEN_BYTES, Footer, Frame, filter_at, tag};
use super::meta::Summary;
use super::reader::Table;
use crate::engine::{Problem, VerifyReport};
use crate::error::Result;
use crate::lsm::entry::{Entry, split_word};
use crate::options::Compression;

impl Table {
    /// Reads everything from the file or map, past the cache, and checks it; see the invariants in
    /// the module docs. Damage is reported in the list, `Err` is I/O trouble.
    pub(crate) fn verify(&self) -> Result<VerifyReport> {
        self.check_all(&mut |range| self.read_stored(range))
    }

    /// Checks everything, in the bytes that `read` finds at a range of the file.
    pub(super) fn check_all<'a>(&'a self, read: &mut Read<'_, 'a>) -> Result<VerifyReport> {
        let mut walk = Walk {
            table: self,
            report: VerifyReport {
                files: 1,
                ..VerifyReport::default()
            },
            summary: Summary::new(self.properties().meta.says_when_it_expires()),
            last: None,
            compressed_blocks: 0,
        };
        walk.check_sections(read)?;
        for no in 0..self.blocks() {
            let range = self.block_range(no);
            let stored = read(&range)?;
            if let Err(what) = walk.check_block(no, &stored) {
                walk.problem(range.start, what);
            }
            walk.report.blocks += 1;
        }
        walk.check_totals();
        Ok(walk.report)
    }
}

/// True if a block of such a table may have this tag in its frame.
fn may_have(form: TableForm, tag: u8) -> bool {
    match tag {
        tag::PLAIN => true,
        // Also in a table with zstd: see [`Packer`](super::compression::Packer).
        tag::LZ4 => form.compression != Compression::None,
        tag::ZSTD => matches!(form.compression, Compression::Zstd { .. }),
        _ => false,
    }
}

/// Bytes of the file as they are stored.
pub(super) type Read<'r, 'a> = dyn FnMut(&Range<u64>) -> Result<Cow<'a, [u8]>> + 'r;

struct Walk<'a> {
    table: &'a Table,
    report: VerifyReport,
    summary: Summary,
    /// Key and word of the last entry seen.
    last: Option<(Vec<u8>, u64)>,
    compressed_blocks: u64,
}

impl<'a> Walk<'a> {
    fn problem(&mut self, at: u64, what: Damage) {
        self.report
            .problem(Problem::at(self.table.path(), at, what));
    }

    /// The parts behind the blocks, read again: they were checked when the table was opened, but
    /// the file may have been damaged since.
    fn check_sections(&mut self, read: &mut Read<'_, 'a>) -> Result<()> {
        let footer = *self.table.footer();
        let footer_at = self.table.meta().size_bytes - FOOTER_LEN_BYTES as u64;
        let filter_at = filter_at(footer.blocks_end);
        let padding = read(&(footer.blocks_end..filter_at))?;
        if padding.iter().any(|byte| *byte != 0) {
            self.problem(footer.blocks_end, "the padding is not zero");
        }
        for range in [
            filter_at..footer.index_at,
            footer.index_at..footer.tombstones_at,
            footer.tombstones_at..footer.properties_at,
            footer.properties_at..footer_at,
        ] {
            let stored = read(&range)?;
            if let Err(what) = Frame::verify(&stored, self.table.seed(), range.start) {
                self.problem(range.start, what);
            }
        }
        let end = footer_at + FOOTER_LEN_BYTES as u64;
        let stored = read(&(footer_at..end))?;
        let decoded = stored
            .first_chunk()
            .map(|bytes| Footer::decode(bytes, self.table.seed(), footer_at));
        if decoded != Some(Ok(footer)) {
            self.problem(footer_at, "the footer has changed");
        }
        if let Err(what) = self.table.index().check() {
            self.problem(footer.index_at, what);
        }
        Ok(())
    }

    fn check_block(&mut self, no: u32, stored: &[u8]) -> Result<(), Damage> {
        let at = self.table.block_range(no).start;
        let frame = Frame::verify(stored, self.table.seed(), at)?;
        self.compressed_blocks += u64::from(frame.tag != tag::PLAIN);
        if !may_have(self.table.properties().form, frame.tag) {
            return Err("the block is compressed in another way than its table");
        }
        let unpacked = unpack(frame, stored)?;
        let block = Block::parse(&unpacked[FRAME_LEN_BYTES..])?;
        block.check()?;
        let mut key = block.prefix().to_vec();
        let mut previous: &[u8] = &[];
        for i in 0..block.count() {
            let record = block.record(i)?;
            key.truncate(block.prefix().len());
            key.extend_from_slice(record.suffix);
            let (seq, kind) = split_word(record.word).ok_or(UNKNOWN_KIND)?;
            let entry = Entry {
                key: &key,
                seq,
                kind,
                value: record.value,
            };
            if i == 0 {
                self.check_separator(no, &entry)?;
            }
            if !self.table.may_contain(filter_hash(&key)) {
                return Err("the filter does not contain a key of the table");
            }
            let begins_key = match (i, &self.last) {
                (0, last) => last.as_ref().is_none_or(|(last, _)| *last != key),
                _ => previous != record.suffix,
            };
            previous = record.suffix;
            self.summary.add_entry(&entry, begins_key);
            self.report.entries += 1;
            if i + 1 == block.count() {
                self.last = Some((key.clone(), record.word));
            }
        }
        Ok(())
    }

    /// The separator of block `no` lies after the last entry before the block, and not after
    /// the block's first.
    fn check_separator(&self, no: u32, first: &Entry<'_>) -> Result<(), Damage> {
        let (separator, word) = self.table.index().separator(no);
        if first.cmp_internal(&separator, word).is_lt() {
            return Err("the block begins before its separator");
        }
        match &self.last {
            Some((key, last_word))
                if key
                    .cmp(&separator)
                    .then((word >> 8).cmp(&(last_word >> 8)))
                    .is_ge() =>
            {
                Err("the previous block extends past the separator")
            }
            _ => Ok(()),
        }
    }

    /// What was seen is what the properties say.
    fn check_totals(&mut self) {
        let footer = self.table.footer();
        let tombstones = self.table.stored_tombstones().unwrap_or_default();
        if !tombstones.is_sorted_by(|a, b| (&a.start, b.seq) <= (&b.start, a.seq)) {
            self.problem(footer.tombstones_at, "range tombstones are out of order");
        }
        let mut summary = std::mem::take(&mut self.summary);
        for tombstone in &tombstones {
            summary.add_tombstone(tombstone);
        }
        if let Some((key, _)) = &self.last {
            summary.end_entries(key);
        }
        let meta = self.table.meta();
        let mut found = summary.finish(meta.id, meta.size_bytes);
        if let Some(seq) = self.table.loaded_at
            && found.is_unnumbered()
        {
            found = found.with_seq(seq);
        }
        if found != *meta || self.compressed_blocks != self.table.properties().compressed_blocks {
            let what = "the properties differ from what the table holds";
            self.problem(footer.properties_at, what);
        }
    }
}
