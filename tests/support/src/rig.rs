//! Stores to test with: a place, options, and a keyspace, that can be opened again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hedgerow::fs::{Fs, SimFs, StdFs};
use hedgerow::{Db, Durability, EngineKind, Keyspace, MemtableKind, Options};
use tempfile::TempDir;

pub use crate::sizes::{Sizes, Variant, keyspace_options, keyspace_options_with, tiny};

/// Where a store lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A temporary directory of the operating system.
    Disk,
    /// The crashable file system in memory.
    Memory,
}

/// A place, the options to open it with, and the store while it is open.
#[derive(Debug)]
pub struct Rig {
    fs: Arc<dyn Fs>,
    mem: Option<SimFs>,
    path: PathBuf,
    /// Options of the opens to come.
    pub options: Options,
    /// How large things are.
    pub sizes: Sizes,
    /// What the memtables of LSM trees are.
    pub memtable: MemtableKind,
    db: Option<Db>,
    _dir: Option<TempDir>,
}

impl Rig {
    /// A store that does not exist yet.
    pub fn new(place: Place, sizes: Sizes) -> Self {
        let (fs, mem, path, dir): (Arc<dyn Fs>, _, _, _) = match place {
            Place::Disk => {
                let dir = tempfile::tempdir().expect("a temporary directory");
                let path = dir.path().join("store");
                (Arc::new(StdFs::new()), None, path, Some(dir))
            }
            Place::Memory => {
                let mem = SimFs::new();
                (
                    Arc::new(mem.clone()),
                    Some(mem),
                    PathBuf::from("/store"),
                    None,
                )
            }
        };
        let mut options = Options::new()
            .durability(Durability::Buffered)
            .fs(Arc::clone(&fs));
        if sizes == Sizes::Tiny {
            options = tiny(options);
        }
        Self {
            fs,
            mem,
            path,
            options,
            sizes,
            memtable: MemtableKind::default(),
            db: None,
            _dir: dir,
        }
    }

    /// Changes the options of the opens to come.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(Options) -> Options) -> Self {
        self.options = change(self.options);
        self
    }

    /// Sets what the memtables of LSM trees are.
    #[must_use]
    pub fn with_memtable(mut self, memtable: MemtableKind) -> Self {
        self.memtable = memtable;
        self
    }

    /// The directory of the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file system it lives in.
    pub fn fs(&self) -> &Arc<dyn Fs> {
        &self.fs
    }

    /// The file system in memory. Panics for a store on disk.
    pub fn mem(&self) -> &SimFs {
        self.mem.as_ref().expect("a store in memory")
    }

    /// The open store; opens it if it is not.
    pub fn db(&mut self) -> &Db {
        self.db.get_or_insert_with(|| {
            self.options
                .clone()
                .open(&self.path)
                .expect("the store opens")
        })
    }

    /// The keyspace `name`, made with this rig's sizes if it does not exist.
    pub fn keyspace(&mut self, name: &str, engine: EngineKind) -> Keyspace {
        let options = keyspace_options_with(engine, self.sizes, self.memtable);
        self.db()
            .keyspace_with(name, options)
            .expect("the keyspace opens")
    }

    /// Closes the store properly.
    pub fn close(&mut self) {
        if let Some(db) = self.db.take() {
            db.close().expect("the store closes");
        }
    }

    /// Drops the store without closing it. Clones of it must be gone.
    pub fn abandon(&mut self) {
        self.db = None;
    }
}

/// Prints a line even when the test passes: what a run covered belongs into its output.
pub fn report(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    // Unlike `println!`, the handle is not captured by the test harness.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// How much the long suites do: `HEDGEROW_EFFORT`, 1 by default. `.ci/figures` runs them with 10,
/// at which the promised figures of docs/testing.md are reached; `.ci/soak` with more.
pub fn effort() -> u64 {
    from_env("HEDGEROW_EFFORT").unwrap_or(1).max(1)
}

/// Prints a figure of a suite on a line of its own, `figure NAME = VALUE`, for `.ci/figures` to
/// gather and to hold against what is promised.
pub fn figure(name: &str, value: u64) {
    report(format_args!("figure {name} = {value}"));
}

/// A number from the environment.
pub fn from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(parsed.unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}
