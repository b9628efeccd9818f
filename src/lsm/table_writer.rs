//! Writing the tables that a flush or a compaction makes.
//!
//! [`Outputs`] takes the entries that are kept, in order, and cuts them into tables. The cuts
//! divide the key space into *partitions*: a table's range tombstones are clipped to its partition,
//! so the extents of the tables are disjoint (LV2), and all versions of a key are in one table
//! (LV4). Files that were begun are removed if the work is given up.

use std::path::PathBuf;
use std::sync::Arc;

use super::entry::{Entry, RangeTombstone};
use super::obsolete_files::table_name;
use super::table::{TableBuilder, TableMeta, TableOptions};
use crate::error::Result;
use crate::fs::Fs;
use crate::types::FileId;

/// Where and how tables are written.
pub(crate) struct OutputContext<'a> {
    pub(crate) fs: &'a Arc<dyn Fs>,
    pub(crate) dir: PathBuf,
    pub(crate) seed: u64,
    pub(crate) options: TableOptions,
    /// Takes a new file number.
    pub(crate) next_id: &'a dyn Fn() -> Result<FileId>,
}

/// Tables in the making.
pub(crate) struct Outputs<'a> {
    ctx: OutputContext<'a>,
    /// All range tombstones to pass on, by start.
    tombstones: Vec<RangeTombstone>,
    open: Option<(TableBuilder, FileId)>,
    /// Where the partition of the open table begins; `None` at the first.
    partition_start: Option<Vec<u8>>,
    done: Vec<TableMeta>,
    /// All files created, to be removed if this is dropped unfinished.
    created: Vec<FileId>,
}

impl<'a> Outputs<'a> {
    /// Nothing written yet. `tombstones` are distributed over the tables.
    pub(crate) fn new(ctx: OutputContext<'a>, tombstones: Vec<RangeTombstone>) -> Self {
        Self {
            ctx,
            tombstones,
            open: None,
            partition_start: None,
            done: Vec::new(),
            created: Vec::new(),
        }
    }

    fn builder(&mut self) -> Result<&mut TableBuilder> {
        if self.open.is_none() {
            let id = (self.ctx.next_id)()?;
            let path = self.ctx.dir.join(table_name(id));
            self.created.push(id);
            let ctx = &self.ctx;
            let builder = TableBuilder::create(ctx.fs, &path, id, ctx.seed, ctx.options)?;
            self.open = Some((builder, id));
        }
        Ok(&mut self.open.as_mut().expect("made above").0)
    }

    /// Appends an entry, in internal order.
    #[inline]
    pub(crate) fn add(&mut self, entry: &Entry<'_>) -> Result<()> {
        match &mut self.open {
            Some((builder, _)) => builder.add(entry),
            None => self.builder()?.add(entry),
        }
    }

    /// Length of the open table, if it were finished now.
    #[inline]
    pub(crate) fn open_bytes(&self) -> u64 {
        self.open
            .as_ref()
            .map_or(0, |(builder, _)| builder.size_estimate_bytes())
    }

    /// Ends the open table: its partition ends before `at`, the key of the entry that comes next.
    pub(crate) fn cut(&mut self, at: &[u8]) -> Result<()> {
        self.close(Some(at))?;
        self.partition_start = Some(at.to_vec());
        Ok(())
    }

    /// Ends the last table and returns all. The files are synced, the directory is
    /// not.
    pub(crate) fn finish(mut self) -> Result<Vec<TableMeta>> {
        self.close(None)?;
        self.created.clear();
        Ok(std::mem::take(&mut self.done))
    }

    fn close(&mut self, end: Option<&[u8]>) -> Result<()> {
        let start = self.partition_start.take();
        let clipped: Vec<_> = self
            .tombstones
            .iter()
            .filter_map(|t| clip(t, start.as_deref(), end))
            .collect();
        if !clipped.is_empty() {
            let builder = self.builder()?;
            for tombstone in &clipped {
                builder.add_range_tombstone(tombstone);
            }
        }
        if let Some((builder, _)) = self.open.take() {
            self.done.push(builder.finish()?);
        }
        Ok(())
    }
}

impl Drop for Outputs<'_> {
    fn drop(&mut self) {
        self.open = None;
        for id in &self.created {
            // What stays is an orphan that the next open removes.
            let _ = self.ctx.fs.remove_file(&self.ctx.dir.join(table_name(*id)));
        }
    }
}

/// The part of a tombstone in `[start, end)`, if there is any.
fn clip(t: &RangeTombstone, start: Option<&[u8]>, end: Option<&[u8]>) -> Option<RangeTombstone> {
    let clipped_start = start.map_or(&*t.start, |start| start.max(&t.start));
    let clipped_end = match (t.end.as_deref(), end) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    if clipped_end.is_some_and(|end| end <= clipped_start) {
        return None;
    }
    Some(RangeTombstone {
        start: clipped_start.to_vec(),
        end: clipped_end.map(<[u8]>::to_vec),
        seq: t.seq,
    })
}
