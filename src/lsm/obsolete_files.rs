//! Names of an LSM keyspace's files, and the removal of those that nothing needs.
//!
//! A table file outlives its place in the current version, because older views may still read it.
//! When the last holder drops its handle, the file's number goes to the [`Reaper`], and
//! background work removes the file: unlinking a large file can take long, and the last holder may be
//! a reader. A file that cannot be removed stays, and goes with the next open's orphans.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::engine::EngineHost;
use crate::fs::Fs;
use crate::types::FileId;

/// Name of the file that names the manifest.
pub(crate) const CURRENT: &str = "CURRENT";

const TABLE_PREFIX: &str = "TABLE-";
const MANIFEST_PREFIX: &str = "MANIFEST-";

/// What a file name of ours stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileName {
    /// A table.
    Table(FileId),
    /// A manifest.
    Manifest(u64),
    /// The pointer to the manifest.
    Current,
    /// A pointer that was being written.
    CurrentTemporary,
}

/// Name of a table.
pub(crate) fn table_name(id: FileId) -> String {
    format!("{TABLE_PREFIX}{:016x}", id.0)
}

/// Name of a manifest.
pub(crate) fn manifest_name(number: u64) -> String {
    format!("{MANIFEST_PREFIX}{number:016x}")
}

/// Recognises exactly the names that this module makes.
pub(crate) fn parse_name(name: &str) -> Option<FileName> {
    let number = |prefix: &str| {
        let digits = name.strip_prefix(prefix)?;
        let number = u64::from_str_radix(digits, 16).ok()?;
        (format!("{number:016x}") == digits).then_some(number)
    };
    match name {
        CURRENT => Some(FileName::Current),
        "CURRENT.tmp" => Some(FileName::CurrentTemporary),
        _ => number(TABLE_PREFIX)
            .map(|id| FileName::Table(FileId(id)))
            .or_else(|| number(MANIFEST_PREFIX).map(FileName::Manifest)),
    }
}

/// Removes table files once nothing reads them.
#[derive(Debug)]
pub(crate) struct Reaper {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    host: Arc<dyn EngineHost>,
    doomed: Mutex<Vec<FileId>>,
    waiting: AtomicUsize,
}

impl Reaper {
    /// A reaper of files in `dir`.
    pub(crate) fn new(fs: Arc<dyn Fs>, dir: &Path, host: Arc<dyn EngineHost>) -> Self {
        Self {
            fs,
            dir: dir.to_path_buf(),
            host,
            doomed: Mutex::new(Vec::new()),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Notes that nothing reads table `id` any more. Called where its last handle is dropped, which
    /// may be a reader's thread, hence without I/O.
    pub(crate) fn doom(&self, id: FileId) {
        self.doomed.lock().push(id);
        self.waiting.fetch_add(1, Ordering::Release);
        self.host.wake();
    }

    /// True if there are files to remove.
    pub(crate) fn is_due(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Removes what is doomed. A failure is not an error: the file is an orphan then, and the
    /// next open tries again.
    pub(crate) fn reap(&self) {
        let doomed = std::mem::take(&mut *self.doomed.lock());
        self.waiting.fetch_sub(doomed.len(), Ordering::Release);
        for id in doomed {
            let _ = self.fs.remove_file(&self.dir.join(table_name(id)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_ours() {
        assert_eq!(
            parse_name(&table_name(FileId(255))),
            Some(FileName::Table(FileId(255)))
        );
        assert_eq!(parse_name(&manifest_name(1)), Some(FileName::Manifest(1)));
        assert_eq!(parse_name("CURRENT"), Some(FileName::Current));
        for foreign in [
            "",
            "TABLE-",
            "TABLE-1",
            "TABLE-00000000000000FF",
            "TABLE-+0000000000000ff",
            "x",
        ] {
            assert_eq!(parse_name(foreign), None, "{foreign}");
        }
    }
}
