//! When the catalogue's file is written.
//!
//! The records of the log are what counts; the file is a checkpoint of them, so that the log need
//! not keep them. It is written when the log could become shorter without them, when nothing was
//! written for long, and when the store is closed: one file for any number of changes.

use super::shared::Shared;
use crate::engine::EngineHost;
use crate::error::Result;
use crate::util::mutants::mutated;

impl Shared {
    /// Writes the catalogue's file, if changes are in the log only, or it may not be durable.
    pub(super) fn store_catalog(&self) -> Result<()> {
        let mut catalog = self.catalog.lock();
        if catalog.oldest_unstored().is_none() && catalog.is_durable() {
            return Ok(());
        }
        // C3: a power loss must not keep a change here and lose what was committed before it.
        mutated!(
            "catalogue-stored-before-its-log-is-durable",
            (),
            self.coordinator.make_durable(catalog.current().seq)?
        );
        let current = catalog.current().clone();
        current.store(&*self.options.fs, &self.dir, &self.lock_guard)?;
        catalog.note_stored(current);
        Ok(())
    }
}
