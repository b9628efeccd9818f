//! Opening stores and finding keyspaces, with the caution a command line needs.
//!
//! A command that reads opens the store read-only and never creates anything, so a misspelt path
//! or name is an error and changes nothing. Only `load` and `put` create. A command that writes
//! takes the keyspace it names, or `default`, and no other.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use hedgerow::{Db, Durability, EngineKind, Keyspace, KeyspaceInfo, Options};

use crate::failure::{Failure, Result};

/// The keyspace of commands that name none.
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
    /// Keyspace [default: `default`; to read, also the only one of the store]
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
    open_reporting(store, access)?.map_err(|error| opening(store, error))
}

/// Opens a store to change it; `None` if there is none yet.
pub fn open_if_there(store: &StoreArg) -> Result<Option<Db>> {
    match options(Access::Write).open(&store.path) {
        Ok(db) => Ok(Some(db)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(opening(store, error)),
    }
}

fn options(access: Access) -> Options {
    Options::new()
        .create_if_missing(access == Access::Create)
        .read_only(access == Access::Read)
        .log_segment_bytes(LOG_SEGMENT_BYTES)
}

fn opening(store: &StoreArg, error: hedgerow::Error) -> Failure {
    Failure::from(error).context(format!("opening {}", store.path.display()))
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
    match options(access).open(path) {
        Err(error) if !error.is_corruption() => Err(opening(store, error)),
        opened => Ok(opened),
    }
}

/// The keyspace to read, which must exist: the one named, `default`, or the only one there is.
pub fn existing(db: &Db, arg: &KeyspaceArg) -> Result<Keyspace> {
    let name = match (&arg.keyspace, db.keyspaces().as_slice()) {
        (Some(name), _) => name.clone(),
        (None, [KeyspaceInfo { name, .. }]) => name.clone(),
        (None, _) => DEFAULT_KEYSPACE.to_owned(),
    };
    db.existing_keyspace(&name)?
        .ok_or_else(|| missing(db, &name))
}

/// The keyspace to change, which must exist. Unless it is named it is `default`: a write never
/// picks a keyspace because there is no other.
pub fn existing_to_write(db: &Db, arg: &KeyspaceArg) -> Result<Keyspace> {
    find_to_write(db, arg, None)?.map_err(|name| missing(db, &name))
}

/// The keyspace to change, as [`existing_to_write`], created if need be.
pub fn existing_or_new(db: &Db, arg: &KeyspaceArg, engine: Option<EngineArg>) -> Result<Keyspace> {
    match find_to_write(db, arg, engine)? {
        Ok(keyspace) => Ok(keyspace),
        Err(name) => create(db, &name, engine),
    }
}

/// A new keyspace, with `engine` or the LSM tree.
pub fn create(db: &Db, name: &str, engine: Option<EngineArg>) -> Result<Keyspace> {
    let engine = engine.map_or(EngineKind::Lsm, EngineKind::from);
    Ok(db.keyspace(name, engine)?)
}

/// The keyspace to change, or the name under which there is none and one may be created.
///
/// An engine that is named must be the one that an existing keyspace has.
pub fn find_to_write(
    db: &Db,
    arg: &KeyspaceArg,
    engine: Option<EngineArg>,
) -> Result<Result<Keyspace, String>> {
    let name = arg.keyspace.as_deref().unwrap_or(DEFAULT_KEYSPACE);
    let engine = engine.map(EngineKind::from);
    match db.existing_keyspace(name)? {
        Some(keyspace) => match engine {
            Some(engine) if engine != keyspace.engine() => Err(Failure::usage(format!(
                "keyspace {name:?} exists with engine {}, not {engine}",
                keyspace.engine()
            ))),
            _ => Ok(Ok(keyspace)),
        },
        None if arg.keyspace.is_none() && !db.keyspaces().is_empty() => {
            Err(Failure::usage(format!(
                "which keyspace? {}; name it, or a new one, with -k",
                holdings(db)
            )))
        }
        None => Ok(Err(name.to_owned())),
    }
}

/// Says which keyspaces there are instead.
pub fn missing(db: &Db, name: &str) -> Failure {
    Failure::error(format!("there is no keyspace {name:?}: {}", holdings(db)))
}

/// Which keyspaces a store has.
fn holdings(db: &Db) -> String {
    let mut names = db
        .keyspaces()
        .iter()
        .map(|keyspace| keyspace.name.clone())
        .collect::<Vec<_>>();
    let more = names.len().saturating_sub(10);
    names.truncate(10);
    match (names.is_empty(), more) {
        (true, _) => "the store has none".to_owned(),
        (false, 0) => format!("the store has {}", names.join(", ")),
        (false, more) => format!("the store has {} and {more} more", names.join(", ")),
    }
}
