//! Finishing a bulk load: the place of the load in the order of commits.
//!
//! ```text
//!   close -> [load gate: flush -> log lock: sequence, append -> sync -> apply, publish]
//! ```
//!
//! What takes long, writing and syncing the entries and flushing what came before them, is done
//! before the gate is closed. Behind it there is the rest of a flush and an ordinary `Sync` commit.
//! Commits to other keyspaces wait for nothing but that commit.

use std::sync::Arc;

use super::keyspaces::OpenKeyspace;
use super::shared::Shared;
use crate::engine::{EngineHost, EngineLoad};
use crate::error::Result;
use crate::types::SeqNo;

impl Shared {
    /// Makes `load`, which has entries, a part of `keyspace`: durably, and at once. Returns the
    /// last of its numbers.
    pub(crate) fn finish_load(
        &self,
        keyspace: &Arc<OpenKeyspace>,
        mut load: Box<dyn EngineLoad>,
    ) -> Result<SeqNo> {
        let (pipeline, _pass) = self.enter_to_write()?;
        keyspace.check_alive()?;
        self.coordinator.check_writable()?;
        load.close()?;
        let held = pipeline.hold(keyspace)?;
        let finished = load.finish(&mut |record| pipeline.commit_load(keyspace, record));
        drop(held);
        let seq = finished?;
        self.after_commit();
        self.coordinator.wake();
        Ok(seq)
    }
}
