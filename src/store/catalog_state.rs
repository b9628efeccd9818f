//! The catalogue of an open store: with every change, and as its file has it.

use super::catalog::Catalog;
use super::catalog_change::CatalogChange;
use crate::types::SeqNo;

/// The catalogue with every change that is logged, and what of it is in the file.
#[derive(Debug)]
pub(crate) struct CatalogState {
    current: Catalog,
    stored: Catalog,
    /// It is known that the file survives a power loss.
    is_durable: bool,
    oldest_unstored: Option<SeqNo>,
}

impl CatalogState {
    /// What recovery found in the file, and what the log made of it; `oldest_unstored` is the first
    /// change that is in the log only. `is_durable` if something proves that the file is.
    pub(super) fn new(
        stored: Catalog,
        current: Catalog,
        oldest_unstored: Option<SeqNo>,
        is_durable: bool,
    ) -> Self {
        Self {
            current,
            stored,
            is_durable,
            oldest_unstored,
        }
    }

    /// With every change that is logged.
    pub(super) fn current(&self) -> &Catalog {
        &self.current
    }

    /// As it is in the file, or was before a replacement that failed.
    pub(super) fn stored(&self) -> &Catalog {
        &self.stored
    }

    /// The first change that the log must keep.
    pub(super) fn oldest_unstored(&self) -> Option<SeqNo> {
        self.oldest_unstored
    }

    /// True if the file as it [is](Self::stored) survives a power loss.
    pub(super) fn is_durable(&self) -> bool {
        self.is_durable
    }

    /// The file has these keyspaces now, durably.
    pub(super) fn note_stored(&mut self, stored: Catalog) {
        self.stored = stored;
        self.is_durable = true;
        self.oldest_unstored = None;
    }

    /// `change` was committed under that number.
    pub(super) fn note(&mut self, change: &CatalogChange, seq: SeqNo) {
        let applied = change.apply_to(&mut self.current, seq);
        applied.expect("it was checked before it was logged");
        self.oldest_unstored.get_or_insert(seq);
    }
}
