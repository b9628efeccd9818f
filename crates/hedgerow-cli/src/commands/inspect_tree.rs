//! `inspect`: what a store looks like inside.

use clap::Args;
use hedgerow::{Figure, InspectDetail, Inspection};
use serde_json::{Map, Value, json};

use crate::bytes;
use crate::failure::Result;
use crate::output::Output;
use crate::store::{Access, KeyspaceArg, StoreArg, missing, open};

/// Show what a store looks like inside: log, manifests, levels, tables, pages
///
/// Of an LSM tree: memtables, levels, tables, blocks and the manifest. Of a B-tree: the meta page,
/// levels, pages, changes that lie over them, and free space. Memory is what opening the store read
/// from the log.
#[derive(Debug, Args)]
pub struct Inspect {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// Every table, every page, and the records of the log's segments
    #[arg(long, visible_alias = "pages")]
    tables: bool,
    /// Every block of the tables, and every change over a page, too
    #[arg(long, visible_alias = "changes")]
    blocks: bool,
}

impl Inspect {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let db = open(&self.store, Access::Read)?;
        let detail = match (self.blocks, self.tables) {
            (true, _) => InspectDetail::Blocks,
            (false, true) => InspectDetail::Tables,
            (false, false) => InspectDetail::Levels,
        };
        // Without `-k`, everything: this is no question about one keyspace.
        let inspection = match &self.keyspace.keyspace {
            Some(name) => db
                .existing_keyspace(name)?
                .ok_or_else(|| missing(&db, name))?
                .inspect(detail)?,
            None => db.inspect(detail)?,
        };
        out.either(&to_json(&inspection), inspection.to_string())
    }
}

fn to_json(part: &Inspection) -> Value {
    let figures = part.figures.iter().map(|(name, figure)| {
        let value = match figure {
            Figure::Number(number) => json!(number),
            Figure::Text(text) => json!(text),
            Figure::Key(key) => bytes::to_json(key),
            other => json!(other.to_string()),
        };
        ((*name).to_owned(), value)
    });
    let figures: Map<String, Value> = figures.collect();
    let parts: Vec<Value> = part.parts.iter().map(to_json).collect();
    json!({ "kind": part.kind, "name": part.name, "figures": figures, "parts": parts })
}
