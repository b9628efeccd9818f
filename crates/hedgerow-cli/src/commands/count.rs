//! `count`: how many records there are, exactly.

use clap::Args;
use hedgerow::{KeyBounds, KvRead};
use serde_json::json;

use super::scan::RangeArgs;
use crate::failure::Result;
use crate::output::{Output, spinner};
use crate::store::{Access, KeyspaceArg, StoreArg, existing, open};

/// Count the records of a keyspace, or in a range of keys
///
/// Exact, whatever of them is in files, in memory or in the log: every key is visited, so it takes
/// as long as a scan.
#[derive(Debug, Args)]
pub struct Count {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    #[command(flatten)]
    range: RangeArgs,
    /// Bounds are given in hexadecimal
    #[arg(long)]
    hex: bool,
}

impl Count {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let bounds = self.range.bounds(self.hex)?;
        let db = open(&self.store, Access::Read)?;
        let keyspace = existing(&db, &self.keyspace)?;
        let progress = spinner(out.json, "counting");
        let counted = records_in(&keyspace, bounds);
        progress.finish_and_clear();
        let records = counted?;
        out.either(
            &json!({ "keyspace": keyspace.name(), "records": records }),
            records.to_string(),
        )
    }
}

/// The number of records with keys in `bounds`, by visiting all of them.
pub fn records_in(kv: &impl KvRead, bounds: impl KeyBounds) -> hedgerow::Result<u64> {
    let mut scan = kv.range(bounds);
    let mut records = 0;
    while scan.next_with(|_, _| ())?.is_some() {
        records += 1;
    }
    Ok(records)
}
