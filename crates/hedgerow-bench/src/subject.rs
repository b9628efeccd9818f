//! What is compared: a store, or a variant of one.

use std::fmt;
use std::str::FromStr;

use hedgerow::{EngineKind, MemtableKind};

use crate::error::Error;

/// One of those that are compared: its names, and what a reader must know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Its name for programs, in lines and files: `lsm-skiplist`.
    pub name: &'static str,
    /// Its name for people, as the head of a column: `LSM tree (skip list)`.
    pub title: &'static str,
    /// Which release it is: `fjall 3.1.13`.
    pub version: &'static str,
    /// In what it promises less than the others, if it does.
    pub weaker_in: Option<&'static str>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// An engine of hedgerow, with the options that make it a thing of its own to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// The LSM tree with its default memtable.
    Lsm,
    /// The LSM tree whose memtables are skip lists.
    LsmSkipList,
    /// The B-tree.
    BTree,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Lsm, Self::LsmSkipList, Self::BTree];
    /// The two engines as they are by default.
    pub const ENGINES: [Self; 2] = [Self::Lsm, Self::BTree];

    /// Its engine.
    pub fn engine(self) -> EngineKind {
        match self {
            Self::Lsm | Self::LsmSkipList => EngineKind::Lsm,
            Self::BTree => EngineKind::BTree,
        }
    }

    /// The memtables of an LSM tree.
    pub fn memtable(self) -> MemtableKind {
        match self {
            Self::LsmSkipList => MemtableKind::SkipList,
            Self::Lsm | Self::BTree => MemtableKind::BTree,
        }
    }

    /// What it is called.
    pub fn subject(self) -> Subject {
        let (name, title) = match self {
            Self::Lsm => ("lsm", "LSM tree"),
            Self::LsmSkipList => ("lsm-skiplist", "LSM tree (skip list)"),
            Self::BTree => ("btree", "B-tree"),
        };
        Subject {
            name,
            title,
            version: concat!("hedgerow ", env!("CARGO_PKG_VERSION")),
            weaker_in: None,
        }
    }
}

impl From<EngineKind> for Variant {
    fn from(engine: EngineKind) -> Self {
        match engine {
            EngineKind::Lsm => Self::Lsm,
            EngineKind::BTree => Self::BTree,
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.subject().fmt(f)
    }
}

impl FromStr for Variant {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter();
        let mut named = known.filter(|variant| variant.subject().name == name);
        named.next().ok_or_else(|| {
            let names = Self::ALL.map(|variant| variant.subject().name);
            Error::usage(format!("{name:?} is none of {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_found_by_their_names() {
        for variant in Variant::ALL {
            assert_eq!(variant.to_string().parse::<Variant>().unwrap(), variant);
        }
        let error = "hash".parse::<Variant>().unwrap_err().to_string();
        assert!(error.contains("lsm, lsm-skiplist, btree"), "{error}");
        assert_eq!(Variant::ENGINES.map(Variant::engine), EngineKind::ALL);
    }
}
