//! Names of an LSM keyspace's files, and the removal of those that nothing needs.
//!
//! A table file outlives its place in the current version, because older views may still read it.
//! When the last handle is dropped, the table is put into the queue of [`ObsoleteFiles`], and
//! background work ends its map and removes the file: either can take long with a large file, and
//! the thread that drops the last handle may be a reader. A file that cannot be removed is an
//! orphan, which the next open removes.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::table::Table;
use crate::engine::{EngineContext, EngineHost, Keep};
use crate::fs::Fs;
use crate::types::FileId;
use crate::util::mutants::mutated;

/// Name of the file that names the manifest.
pub(crate) const CURRENT: &str = "CURRENT";
/// Its name while it is written.
const CURRENT_TEMPORARY: &str = "CURRENT.tmp";

const TABLE_PREFIX: &str = "TABLE-";
const MANIFEST_PREFIX: &str = "MANIFEST-";

/// What a file name of an LSM keyspace stands for.
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

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(id) => f.write_str(&table_name(*id)),
            Self::Manifest(number) => f.write_str(&manifest_name(*number)),
            Self::Current => f.write_str(CURRENT),
            Self::CurrentTemporary => f.write_str(CURRENT_TEMPORARY),
        }
    }
}

/// Name of a table.
pub(crate) fn table_name(id: FileId) -> String {
    format!("{TABLE_PREFIX}{:016x}", id.0)
}

/// Name of a manifest.
pub(crate) fn manifest_name(number: u64) -> String {
    format!("{MANIFEST_PREFIX}{number:016x}")
}

/// Parses exactly the names that this module makes.
pub(crate) fn parse_name(name: &str) -> Option<FileName> {
    let number = |prefix: &str| {
        let digits = name.strip_prefix(prefix)?;
        let number = u64::from_str_radix(digits, 16).ok()?;
        (format!("{number:016x}") == digits).then_some(number)
    };
    match name {
        CURRENT => Some(FileName::Current),
        CURRENT_TEMPORARY => Some(FileName::CurrentTemporary),
        _ => number(TABLE_PREFIX)
            .map(|id| FileName::Table(FileId(id)))
            .or_else(|| number(MANIFEST_PREFIX).map(FileName::Manifest)),
    }
}

/// True for the names that an LSM tree gives its files.
pub(crate) fn is_own_file(name: &str) -> bool {
    parse_name(name).is_some()
}

/// What is to be removed: a file, and the table that was open on it, if one was.
#[derive(Debug)]
struct Obsolete {
    id: FileId,
    table: Option<Arc<Table>>,
}

/// Removes table files once nothing reads them.
#[derive(Debug)]
pub(crate) struct ObsoleteFiles {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    host: Arc<dyn EngineHost>,
    /// Tables are opened when they are read: their files stay as long as their handles.
    _keep: Arc<dyn Keep>,
    queue: Mutex<Vec<Obsolete>>,
    waiting: AtomicUsize,
}

impl ObsoleteFiles {
    /// For the files of a tree; none is obsolete yet.
    pub(crate) fn new(ctx: &EngineContext) -> Self {
        Self {
            fs: Arc::clone(&ctx.fs),
            dir: ctx.dir.clone(),
            host: Arc::clone(&ctx.host),
            _keep: Arc::clone(&ctx.keep),
            queue: Mutex::new(Vec::new()),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Notes that nothing reads `table` any more. Called where its last handle is dropped, which
    /// may be in a reader's thread, hence without I/O.
    pub(crate) fn enqueue(&self, table: Arc<Table>) {
        let id = table.meta().id;
        self.push(
            id,
            mutated!("table-unmapped-by-a-reader", None, Some(table)),
        );
    }

    /// As [`ObsoleteFiles::enqueue`], of a table that is not open.
    pub(crate) fn enqueue_file(&self, id: FileId) {
        self.push(id, None);
    }

    fn push(&self, id: FileId, table: Option<Arc<Table>>) {
        self.queue.lock().push(Obsolete { id, table });
        self.waiting.fetch_add(1, Ordering::Release);
        self.host.wake();
    }

    /// True if there are files to remove.
    pub(crate) fn is_due(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Removes the files in the queue. A failure is not an error:
    /// the file is an orphan then, and the next open tries again.
    pub(crate) fn remove_all(&self) {
        let queue = std::mem::take(&mut *self.queue.lock());
        self.waiting.fetch_sub(queue.len(), Ordering::Release);
        for Obsolete { id, table } in queue {
            drop(table);
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
