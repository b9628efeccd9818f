//! `get`, `put` and `delete`.

use std::ffi::OsString;
use std::io::Read;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use clap::Args;
use hedgerow_bench::format::counted;
use serde_json::json;

use super::count::records_in;
use super::scan::{Bounds, RangeArgs, parse_hex, parse_key};
use crate::bytes::{Notation, hex};
use crate::failure::{Exit, Failure, Result};
use crate::output::Output;
use crate::store::{
    Access, EngineArg, KeyspaceArg, StoreArg, existing, existing_or_new, existing_to_write, open,
};

/// Print the value of a key
///
/// Prints the bytes of the value and an end of line. Exits with 3 if the key has no value.
#[derive(Debug, Args)]
pub struct Get {
    #[command(flatten)]
    store: StoreArg,
    /// Key, escaped as scan prints it
    key: OsString,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// The key is given and the value printed in hexadecimal
    #[arg(long)]
    hex: bool,
    /// Print the bytes of the value and nothing else
    #[arg(long, conflicts_with = "hex")]
    raw: bool,
}

impl Get {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let key = parse_key(&self.key, self.hex)?;
        let db = open(&self.store, Access::Read)?;
        let keyspace = existing(&db, &self.keyspace)?;
        let notation = Notation::new(self.hex);
        let Some(value) = keyspace.get(&key)? else {
            let what = format!("no such key: {}", notation.text(&key));
            return Err(Failure::new(Exit::NotFound, what));
        };
        if out.json {
            return out.value(&json!({
                "key": notation.json(&key),
                "value": notation.json(&value),
            }));
        }
        match notation {
            Notation::Hex => out.line(hex(&value)),
            Notation::Text => {
                out.bytes(&value)?;
                if self.raw { Ok(()) } else { out.line("") }
            }
        }
    }
}

/// Set a key to a value
///
/// Creates the store and the keyspace if they do not exist. The change survives a power loss
/// when the command has ended.
#[derive(Debug, Args)]
pub struct Put {
    #[command(flatten)]
    store: StoreArg,
    /// Key, escaped as scan prints it
    key: OsString,
    /// Value, taken as it is
    #[arg(required_unless_present = "file")]
    value: Option<OsString>,
    /// Read the value from a file; - is standard input
    #[arg(long, conflicts_with = "value")]
    file: Option<PathBuf>,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// Engine of a keyspace that does not exist yet [default: lsm]
    #[arg(long, value_enum)]
    engine: Option<EngineArg>,
    /// Key and value are given in hexadecimal (the contents of a file never are)
    #[arg(long)]
    hex: bool,
}

impl Put {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let key = parse_key(&self.key, self.hex)?;
        let value = match (&self.value, &self.file) {
            (Some(value), _) if self.hex => parse_hex(value)?,
            (Some(value), _) => value.as_encoded_bytes().to_vec(),
            (None, Some(path)) => read_value(path)?,
            (None, None) => unreachable!("clap requires one of them"),
        };
        let db = open(&self.store, Access::Create)?;
        let keyspace = existing_or_new(&db, &self.keyspace, self.engine)?;
        keyspace.put(&key, &value)?;
        db.close()?;
        if out.json {
            out.value(&json!({ "keyspace": keyspace.name(), "value_bytes": value.len() }))?;
        }
        Ok(())
    }
}

fn read_value(path: &Path) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    let input = crate::records::open(path)?;
    // One byte more than the limit tells a value at the limit from one beyond it.
    input
        .take(hedgerow::MAX_VALUE_LEN_BYTES as u64 + 1)
        .read_to_end(&mut value)
        .map_err(|source| Failure::io("reading", path, source))?;
    Ok(value)
}

/// Remove a key, or a range of keys
///
/// Says how much was removed; removing what is not there is not an error.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true)
    .args(["key", "from", "to", "prefix", "all"]))]
pub struct Delete {
    #[command(flatten)]
    store: StoreArg,
    /// Key, escaped as scan prints it
    #[arg(conflicts_with_all = ["from", "to", "prefix", "all"])]
    key: Option<OsString>,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    #[command(flatten)]
    range: RangeArgs,
    /// Every key of the keyspace
    #[arg(long, conflicts_with_all = ["from", "to", "prefix"])]
    all: bool,
    /// Keys are given in hexadecimal
    #[arg(long)]
    hex: bool,
}

impl Delete {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let key = self
            .key
            .as_ref()
            .map(|key| parse_key(key, self.hex))
            .transpose()?;
        let bounds = self.range.bounds(self.hex)?;
        if key.is_none() && !self.all && bounds == EVERYTHING {
            return Err(Failure::usage(
                "these bounds take in every key: if that is meant, say --all",
            ));
        }
        let db = open(&self.store, Access::Write)?;
        let keyspace = existing_to_write(&db, &self.keyspace)?;
        // Counted first; nobody else can write in between, because the store is locked.
        let deleted = match key {
            Some(key) => {
                let there = u64::from(keyspace.contains_key(&key)?);
                keyspace.delete(&key)?;
                there
            }
            None => {
                let records = records_in(&keyspace, bounds.clone())?;
                keyspace.delete_range(bounds)?;
                records
            }
        };
        db.close()?;
        out.either(
            &json!({ "keyspace": keyspace.name(), "deleted": deleted }),
            match deleted {
                0 => "nothing deleted: there was no such key".to_owned(),
                _ => format!("{} deleted", counted(deleted, "record")),
            },
        )
    }
}

/// The bounds of an empty prefix, or of `--from ""`.
const EVERYTHING: Bounds = (Bound::Included(Vec::new()), Bound::Unbounded);
