//! Checking a whole tree: tables, the version, and the manifest against both and the directory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::entry::{EntryCursor, EntryKind};
use super::manifest::{Identity, Manifest};
use super::obsolete_files::{FileName, parse_name};
use super::open::identity;
use super::state::{LsmEngine, contents_of};
use super::table::{Purpose, TableMeta};
use super::table_handle::TableHandle;
use crate::engine::{Engine, Problem, VerifyReport};
use crate::error::Result;
use crate::values::StoredValues;

impl LsmEngine {
    /// Reads every file of the tree and reports what is wrong; `Err` is I/O trouble.
    pub(super) fn verify_all(&self) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        let superversion = self.superversion();
        // In this order: a load is noted before its tables are in a version, and persisted before
        // that is forgotten.
        let load = self.applied_load.lock().as_ref().map(|load| load.last);
        let persisted = self.persisted_seq();
        let newest = load.map_or(persisted, |last| last.max(persisted));
        for (_, table) in superversion.version.tables() {
            report.merge(table.table().verify()?);
            let mut stored = self.ctx.values.stored(false);
            self.check_values(table, &mut stored, &mut report, &mut |_| Ok(true))?;
            if table.meta().largest_seq > newest {
                let what =
                    format!("an entry has a sequence number above persisted_seq {persisted}");
                report.problem(Problem::in_file(table.table().path(), what));
            }
        }
        for problem in superversion.version.problems() {
            report.problem(problem);
        }
        self.verify_manifest(&mut report)?;
        Ok(report)
    }

    /// Reads the values that the entries of `table` refer to. `goes_on` is told of the bytes of
    /// each.
    pub(super) fn check_values(
        &self,
        table: &TableHandle,
        stored: &mut StoredValues<'_>,
        report: &mut VerifyReport,
        goes_on: &mut dyn FnMut(u64) -> Result<bool>,
    ) -> Result<()> {
        if table.meta().value_files.is_empty() {
            return Ok(());
        }
        let mut cursor = table.table().cursor(Purpose::Rewrite);
        let mut moved = cursor.seek_first();
        // What is wrong with the table itself was reported.
        while moved.is_ok() && cursor.is_valid() {
            let entry = cursor.entry();
            if entry.kind == EntryKind::PutRef {
                match stored.check(entry.value) {
                    Ok(bytes) if !goes_on(bytes)? => break,
                    Ok(_) => {}
                    Err(error) => report.problem(error),
                }
            }
            moved = cursor.next();
        }
        Ok(())
    }

    /// Compares the manifest on disk with the version in memory, and the directory with both.
    pub(super) fn verify_manifest(&self, report: &mut VerifyReport) -> Result<()> {
        if !self.manifest.lock().is_written() {
            // There is nothing on disk (LF8).
            return Ok(());
        }
        // An edit beside the reading is a difference too. Only if there is one are edits kept away,
        // and it is read again.
        let mut beside_edits = VerifyReport::default();
        let looked = self.look_at_manifest(&mut beside_edits);
        if looked.is_ok() && beside_edits.is_clean() {
            report.files += beside_edits.files;
            return Ok(());
        }
        let _edits_wait = self.manifest.lock();
        self.look_at_manifest(report)
    }

    fn look_at_manifest(&self, report: &mut VerifyReport) -> Result<()> {
        let fs = Arc::clone(&self.ctx.fs);
        let version = Arc::clone(&self.current.load().version);
        let identity = Identity {
            block_size_bytes: self.block_size_bytes,
            ..identity(&self.ctx)
        };
        report.files += 1;
        let mut stored = match Manifest::open(
            fs,
            &self.ctx.dir,
            identity,
            self.ctx.persisted_watermark,
            true,
        ) {
            Ok((_, stored)) => stored,
            Err(error) if error.is_corruption() => {
                report.problem(error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut expected = contents_of(&version, self.persisted_seq(), stored.next_file);
        if let Some(load) = &*self.applied_load.lock() {
            // It is in the log.
            let is_loaded = |meta: &TableMeta| load.tables.iter().any(|(_, of)| of.id == meta.id);
            for metas in &mut expected.levels {
                metas.retain(|meta| !is_loaded(meta));
            }
        }
        for levels in [&mut stored.levels, &mut expected.levels] {
            levels
                .iter_mut()
                .for_each(|metas| metas.sort_by_key(|meta| meta.id));
        }
        if stored != expected {
            let what = "the manifest lists other tables than are open";
            report.problem(Problem::in_file(&self.ctx.dir, what));
        }
        // In this order: a file that is listed took its number before the next number is read.
        let names = self.ctx.fs.read_dir(&self.ctx.dir)?;
        let next_file = self.next_file.load(Ordering::SeqCst);
        for name in names {
            // Tables that older views hold, or that are being written, have lower numbers.
            if matches!(parse_name(&name), Some(FileName::Table(id)) if id.0 >= next_file) {
                let path = self.ctx.dir.join(&name);
                let what = "unexpected table: its file number was never allocated";
                report.problem(Problem::in_file(&path, what));
            }
        }
        Ok(())
    }
}
