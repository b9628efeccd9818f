//! The scrub of a tree: every table read from storage again, one after the other, at the pace that
//! the caller sets.
//!
//! Only the table that is being read is held, so that the files of others go when they are not
//! needed any more. What is written meanwhile was checked when it was written, and is read by the
//! next pass.

use std::sync::Arc;

use super::state::LsmEngine;
use super::table_handle::TableHandle;
use crate::engine::{Problem, VerifyReport};
use crate::error::{Error, Result};
use crate::util::mutants::mutated;

impl LsmEngine {
    /// As [`crate::engine::Engine::scrub`].
    pub(super) fn scrub_all(
        &self,
        pace: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        let tables: Vec<_> = {
            let superversion = self.superversion();
            let tables = superversion.version.tables();
            tables.map(|(_, table)| Arc::downgrade(table)).collect()
        };
        for table in tables {
            if let Some(table) = table.upgrade() {
                self.scrub_table(&table, &mut report, pace)?;
            }
        }
        self.verify_manifest(&mut report)?;
        Ok(report)
    }

    fn scrub_table(
        &self,
        handle: &TableHandle,
        report: &mut VerifyReport,
        outer_pace: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let table = handle.table();
        // Why the reading ended early, if not for an error of reading.
        let mut ended = None;
        let mut pace = |bytes: u64| {
            let goes_on = match outer_pace(bytes) {
                // Its file waits for the last who reads it.
                Ok(()) if handle.is_obsolete() => Err(Error::Closed),
                paced => paced,
            };
            if let Err(error) = &goes_on {
                ended = Some((error.clone(), handle.is_obsolete()));
            }
            goes_on
        };
        let scrubbed = match mutated!("scrub-trusts-the-map") {
            true => table.verify(),
            false => table.scrub(&*self.ctx.fs, &mut pace),
        };
        match (scrubbed, ended) {
            (_, Some((_, true))) => {}
            (_, Some((error, false))) => return Err(error),
            (Ok(part), None) => {
                report.merge(part);
                let mut stored = self.ctx.values.stored(true);
                let mut goes_on = |bytes: u64| outer_pace(bytes).map(|()| !handle.is_obsolete());
                self.check_values(handle, &mut stored, report, &mut goes_on)?;
            }
            (Err(error), None) => {
                report.files += 1;
                let what = format!("{error:#}");
                report.problem(Problem::in_file(table.path(), what));
            }
        }
        Ok(())
    }
}
