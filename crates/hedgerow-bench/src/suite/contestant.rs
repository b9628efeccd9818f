//! What the suite measures.

use crate::subject::{Subject, Variant};
use crate::targets::OpenTarget;
use crate::targets::hedgerow::HedgerowTarget;

/// A store that a process can measure: a column of the results, and how it is opened.
#[derive(Debug, Clone, Copy)]
pub struct Contestant {
    /// What it is called.
    pub subject: Subject,
    /// How it is opened.
    pub open: OpenTarget,
    /// Which variant of hedgerow it is, if it is one: some trade-off runs are of hedgerow alone.
    pub variant: Option<Variant>,
}

impl From<Variant> for Contestant {
    fn from(variant: Variant) -> Self {
        Self {
            subject: variant.subject(),
            open: match variant {
                Variant::Lsm => HedgerowTarget::open_lsm,
                Variant::LsmSkipList => HedgerowTarget::open_lsm_skiplist,
                Variant::BTree => HedgerowTarget::open_btree,
            },
            variant: Some(variant),
        }
    }
}
