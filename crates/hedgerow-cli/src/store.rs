//! Opening stores and finding keyspaces, with the caution a command line needs.
//!
//! A command that reads opens the store read-only and never creates anything, so a misspelt path
//! or name is an error and changes nothing. Only `load` and `put` create.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use hedgerow::{Db, Durability, EngineKind, Keyspace, KeyspaceInfo, Options};

use crate::failure::{Failure, Result};

/// The keyspace that `load` and `put` create when none is named.
const DEFAULT_KEYSPACE: &str = "default";

/// Size of the log's segments. A command is soon over, and segments are prepared in whole: with the
/// default, made for programs that run on, a single `put` would leave 128 MiB of log behind.
const LOG_SEGMENT_BYTES: u64 = 4 << 20;

/// Which store.
#[derive(Debug, Clone, Args)]
pub struct StoreArg {
    /// Directory of the store
    #[arg(value_name = "DB")]
    pub path: PathBuf,
}

/// Which keyspace of a store.
#[derive(Debug, Clone, Args)]
pub struct KeyspaceArg {
    /// Keyspace [default: the only one of the store, or `default`]
    #[arg(long, short = 'k', value_name = "NAME")]
    pub keyspace: Option<String>,
}

/// [`EngineKind`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineArg {
    /// Log-structured merge tree
    Lsm,
    /// B-tree
    Btree,
}

impl From<EngineArg> for EngineKind {
    fn from(arg: EngineArg) -> Self {
        match arg {
            EngineArg::Lsm => Self::Lsm,
            EngineArg::Btree => Self::BTree,
        }
    }
}

/// [`Durability`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DurabilityArg {
    /// Each commit survives a power loss
    Sync,
    /// Each commit survives the end of the process
    Buffered,
}

impl DurabilityArg {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Buffered => "buffered",
        }
    }
}

impl From<DurabilityArg> for Durability {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Sync => Self::Sync,
            DurabilityArg::Buffered => Self::Buffered,
        }
    }
}

/// What a command is about to do to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Change it; it must exist.
    Write,
    /// Change it, or create it.
    Create,
}

/// Opens a store.
pub fn open(store: &StoreArg, access: Access) -> Result<Db> {
    open_reporting(store, access)?
        .map_err(|error| Failure::from(error).context(format!("opening {}", store.path.display())))
}

/// Opens a store and hands damage to the caller as the inner error, rather than failing.
pub fn open_reporting(store: &StoreArg, access: Access) -> Result<hedgerow::Result<Db>> {
    let path: &Path = &store.path;
    if access != Access::Create && !path.is_dir() {
        let what = if path.exists() {
            "is not a directory"
        } else {
            "does not exist"
        };
        return Err(Failure::error(format!(
            "no store at {}: it {what}",
            path.display()
        )));
    }
    let opened = Options::new()
        .create_if_missing(access == Access::Create)
        .read_only(access == Access::Read)
        .log_segment_bytes(LOG_SEGMENT_BYTES)
        .open(path);
    match opened {
        Err(error) if !error.is_corruption() => {
            Err(Failure::from(error).context(format!("opening {}", path.display())))
        }
        opened => Ok(opened),
    }
}

/// The keyspace meant by the command line, which must exist.
pub fn existing(db: &Db, arg: &KeyspaceArg) -> Result<Keyspace> {
    match find(db, arg)? {
        Ok(keyspace) => Ok(keyspace),
        Err(name) => Err(missing(db, &name)),
    }
}

/// The keyspace meant by the command line, created if need be, with `engine` or the LSM tree.
///
/// An engine that is named must be the one that an existing keyspace has.
pub fn existing_or_new(db: &Db, arg: &KeyspaceArg, engine: Option<EngineArg>) -> Result<Keyspace> {
    let engine = engine.map(EngineKind::from);
    match find(db, arg)? {
        Ok(keyspace) => match engine {
            Some(engine) if engine != keyspace.engine() => Err(Failure::usage(format!(
                "keyspace {:?} exists with engine {}, not {engine}",
                keyspace.name(),
                keyspace.engine()
            ))),
            _ => Ok(keyspace),
        },
        Err(name) => Ok(db.keyspace(&name, engine.unwrap_or(EngineKind::Lsm))?),
    }
}

/// The keyspace meant by the command line, or the name under which there is none.
fn find(db: &Db, arg: &KeyspaceArg) -> Result<Result<Keyspace, String>> {
    let name = match (&arg.keyspace, db.keyspaces().as_slice()) {
        (Some(name), _) => name.clone(),
        (None, [KeyspaceInfo { name, .. }]) => name.clone(),
        (None, _) => DEFAULT_KEYSPACE.to_owned(),
    };
    Ok(db.existing_keyspace(&name)?.ok_or(name))
}

/// Says which keyspaces there are instead.
pub fn missing(db: &Db, name: &str) -> Failure {
    let mut names = db
        .keyspaces()
        .iter()
        .map(|keyspace| keyspace.name.clone())
        .collect::<Vec<_>>();
    let more = names.len().saturating_sub(10);
    names.truncate(10);
    let what = match (names.is_empty(), more) {
        (true, _) => "the store has none".to_owned(),
        (false, 0) => format!("the store has {}", names.join(", ")),
        (false, more) => format!("the store has {} and {more} more", names.join(", ")),
    };
    Failure::error(format!("there is no keyspace {name:?}: {what}"))
}
