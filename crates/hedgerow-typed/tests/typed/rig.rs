//! What the tests share: stores in memory, and a type of rows with two indexes.

use std::path::Path;
use std::sync::Arc;

use hedgerow::fs::SimFs;
use hedgerow::{Db, Durability, EngineKind, Options};
use hedgerow_typed::{Index, Table, TableDefinition};
use serde::{Deserialize, Serialize};

pub const ENGINES: [EngineKind; 2] = [EngineKind::BTree, EngineKind::Lsm];

/// Opens the store of a simulated file system.
pub fn open(fs: &SimFs) -> Db {
    let options = Options::new()
        .durability(Durability::Buffered)
        .fs(Arc::new(fs.clone()));
    options.open(Path::new("/store")).unwrap()
}

/// An empty store.
pub fn store() -> Db {
    open(&SimFs::new())
}

/// A row with an optional unique number and any number of tags.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Item {
    pub number: Option<u16>,
    pub tags: Vec<u8>,
}

pub fn item(number: impl Into<Option<u16>>, tags: &[u8]) -> Item {
    Item {
        number: number.into(),
        tags: tags.to_vec(),
    }
}

pub type Id = (u8, String);
pub type Items = Table<Id, Item>;

/// The table of items with its indexes.
#[derive(Debug, Clone)]
pub struct Shop {
    pub by_number: Index<Id, Item, u16>,
    pub by_tag: Index<Id, Item, (u8, bool)>,
}

impl Shop {
    pub fn new() -> Self {
        Self {
            by_number: Index::unique("by number", |_: &Id, item: &Item| item.number),
            by_tag: Index::new("by tag", |id: &Id, item: &Item| {
                let is_even = id.0.is_multiple_of(2);
                let tags: Vec<_> = item.tags.iter().map(|tag| (*tag, is_even)).collect();
                tags
            }),
        }
    }

    pub fn plain(&self, engine: EngineKind) -> TableDefinition<Id, Item> {
        TableDefinition::new("items").engine(engine)
    }

    pub fn definition(&self, engine: EngineKind) -> TableDefinition<Id, Item> {
        self.plain(engine)
            .index(&self.by_number)
            .index(&self.by_tag)
    }

    pub fn open(&self, db: &Db, engine: EngineKind) -> Items {
        self.definition(engine).open(db).unwrap()
    }
}
