//! Verification of the store's own files.

use std::sync::Arc;

use super::catalog::{CATALOG_FILE, Catalog};
use super::catalog_state::CatalogState;
use super::shared::Shared;
use super::wal_manifest::{WAL_MANIFEST_FILE, WalManifest};
use crate::engine::{Problem, VerifyReport};
use crate::error::Result;
use crate::fs::{File, OpenMode};
use crate::wal;

impl Shared {
    /// Compares catalogue and WAL manifest with what is on the disk, and looks at the value files.
    pub(crate) fn verify_own_files(&self, report: &mut VerifyReport) -> Result<()> {
        let fs = &*self.options.fs;
        let mut judge = |same: Result<bool>, name: &str| {
            report.files += 1;
            match same {
                Ok(true) => {}
                Ok(false) => {
                    let what = "the file is not the one in use";
                    report.problem(Problem::in_file(&self.dir.join(name), what));
                }
                Err(error) if error.is_corruption() => report.problem(error),
                Err(error) => return Err(error),
            }
            Ok(())
        };
        // What is read beside a change may differ. Only if it does are changes kept away, and it is
        // read again.
        let fits = |found: &Catalog, catalog: &CatalogState| {
            // A replacement that reported an error may have worked, and is true as well (C3).
            let newer = catalog.stored().seq.next()..=catalog.current().seq;
            found == catalog.stored() || newer.contains(&found.seq)
        };
        let load = || Catalog::load(fs, &self.dir);
        let mut same = load().map(|it| it.is_some_and(|it| fits(&it, &self.catalog.lock())));
        if !matches!(same, Ok(true)) {
            let catalog = self.catalog.lock();
            same = load().map(|it| it.is_some_and(|it| fits(&it, &catalog)));
        }
        judge(same, CATALOG_FILE)?;

        // Likewise (H1).
        let fits =
            |found: &WalManifest, held: &WalManifest| found == held || found.first > held.first;
        let load = || WalManifest::load(fs, &self.dir, self.store_id);
        let mut same = load().map(|it| fits(&it, &self.wal_manifest.lock().content));
        if !matches!(same, Ok(true)) {
            let open = self.wal_manifest.lock();
            same = load().map(|it| fits(&it, &open.content));
        }
        judge(same, WAL_MANIFEST_FILE)?;
        self.verify_value_headers(report)
    }

    /// Reads the headers of the files that have left the log. The values in them are verified with
    /// the tables that refer to them.
    fn verify_value_headers(&self, report: &mut VerifyReport) -> Result<()> {
        for file in self.values.facts() {
            if !file.has_left_log {
                continue;
            }
            let Ok(hold) = self.values.hold(file.number) else {
                // It went meanwhile.
                continue;
            };
            let path = self.values.path(&hold);
            report.files += 1;
            let opened = self.options.fs.open(&path, OpenMode::Read);
            let check =
                |opened: Arc<dyn File>| wal::check_value_file(&*opened, self.store_id, file.number);
            match opened.and_then(check) {
                Err(error) if error.is_corruption() || error.is_not_found() => {
                    report.problem(Problem::in_file(&path, format!("{error:#}")));
                }
                kind => drop(kind?),
            }
        }
        Ok(())
    }
}
