//! `dump`: a whole keyspace as text, of which `load --dumped` reads keys and values back exactly.
//! When values expire is not part of it.

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::bytes::{Notation, escape_into};
use crate::failure::Result;
use crate::output::Output;
use crate::store::{Access, KeyspaceArg, StoreArg, existing, open};

/// How a dump is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DumpFormat {
    /// Key, tab, value; escaped: \\ \t \n \r \xNN
    Tsv,
    /// {"key": ..., "value": ...}; what is not UTF-8 is {"hex": "..."}
    Jsonl,
}

/// Print every record of a keyspace, for `load --dumped`
///
/// Prints one consistent state, whatever is written meanwhile. Needs no more memory for a large
/// keyspace than for a small one.
#[derive(Debug, Args)]
pub struct Dump {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// How to write it [default: tsv, or jsonl with --json]
    #[arg(long, value_enum)]
    format: Option<DumpFormat>,
}

impl Dump {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let db = open(&self.store, Access::Read)?;
        let keyspace = existing(&db, &self.keyspace)?;
        let default = if out.json {
            DumpFormat::Jsonl
        } else {
            DumpFormat::Tsv
        };
        let format = self.format.unwrap_or(default);
        let mut scan = keyspace.iter();
        let mut line = String::new();
        while let Some(printed) = scan.next_with(|key, value| match format {
            DumpFormat::Tsv => {
                line.clear();
                escape_into(&mut line, key);
                line.push('\t');
                escape_into(&mut line, value);
                out.line(&line)
            }
            DumpFormat::Jsonl => {
                let text = Notation::Text;
                out.value(&json!({"key": text.json(key), "value": text.json(value)}))
            }
        })? {
            printed?;
        }
        Ok(())
    }
}
