//! Making, dropping and renaming keyspaces, and changing their options.
//!
//! Each is checked and logged with the catalogue locked, so one comes after the other. Lookups take
//! no part in that: they never wait for a change that is on its way.

use std::sync::Arc;

use super::catalog::{CatalogEntry, check_name};
use super::catalog_change::CatalogChange;
use super::catalog_state::CatalogState;
use super::engines::make_keyspace;
use super::keyspaces::{KeyspaceChange, OpenKeyspace};
use super::shared::Shared;
use crate::engine::EngineHost;
use crate::error::{Error, Result};
use crate::options::{Durability, KeyspaceOptions};
use crate::types::{MAX_KEYSPACES, SeqNo};
use crate::util::mutants::mutated;

impl Shared {
    /// The keyspace `name` with what `options` sets of its changeable options; made with them if
    /// there is none.
    pub(crate) fn keyspace_with(
        &self,
        name: &str,
        options: &KeyspaceOptions,
    ) -> Result<Arc<OpenKeyspace>> {
        check_name(name)?;
        options.check()?;
        if let Some(open) = self.keyspaces.by_name(name)
            && changed_options(&open, options)?.is_none()
        {
            return Ok(open);
        }
        let mut catalog = self.catalog.lock();
        if let Some(open) = self.keyspaces.by_name(name) {
            self.change_options(&mut catalog, &open, options)?;
            return Ok(open);
        }
        self.takes_writes()?;
        self.coordinator.check_writable()?;
        if catalog.current().entries().len() >= MAX_KEYSPACES {
            return Err(Error::invalid(format!(
                "a store has at most {MAX_KEYSPACES} keyspaces"
            )));
        }
        let id = catalog.current().new_id()?;
        let options = options.clone().with_defaults();
        options.check_together()?;
        let entry = CatalogEntry::new(id, name, options);
        entry.check_len()?;
        let made = Arc::new(make_keyspace(self, &entry)?);
        // Before anything can be recorded of it. Should the commit fail, its number goes to the
        // next keyspace, and a trace is told of that.
        self.declare(&made);
        let change = CatalogChange::Create(entry);
        let effect = KeyspaceChange::Add(Arc::clone(&made));
        self.commit_change(&mut catalog, &change, effect, self.options.durability)?;
        Ok(made)
    }

    /// Drops the keyspace `name`, durably.
    pub(crate) fn drop_keyspace(&self, name: &str) -> Result<()> {
        self.coordinator.check_writable()?;
        let mut catalog = self.catalog.lock();
        let open = self.existing(name)?;
        // C2, and every commit before this one is durable, too.
        let durability = mutated!(
            "drop-overtakes-earlier-commits",
            Durability::Buffered,
            Durability::Sync
        );
        let change = CatalogChange::Drop(open.id);
        let effect = KeyspaceChange::Remove(open.id);
        self.commit_change(&mut catalog, &change, effect, durability)?;
        drop(catalog);
        // Writers that wait for its background work look up.
        self.coordinator.progressed();
        Ok(())
    }

    /// Gives the keyspace `old` the name `new`, which none has.
    pub(crate) fn rename_keyspace(&self, old: &str, new: &str) -> Result<()> {
        check_name(new)?;
        self.coordinator.check_writable()?;
        let mut catalog = self.catalog.lock();
        let open = self.existing(old)?;
        if old == new {
            return Ok(());
        }
        if self.keyspaces.by_name(new).is_some() {
            return Err(Error::invalid(format!(
                "keyspace {old:?} cannot be renamed: there is a keyspace {new:?} already"
            )));
        }
        let change = CatalogChange::Rename(open.id, new.to_owned());
        let effect = KeyspaceChange::Rename(open.id, new.to_owned());
        self.commit_change(&mut catalog, &change, effect, self.options.durability)?;
        self.declare(&open);
        Ok(())
    }

    /// Gives the open keyspace what `asked` sets and may be changed, durably, and then at once.
    fn change_options(
        &self,
        catalog: &mut CatalogState,
        open: &OpenKeyspace,
        asked: &KeyspaceOptions,
    ) -> Result<()> {
        let Some(changed) = changed_options(open, asked)? else {
            return Ok(());
        };
        self.takes_writes()?;
        self.coordinator.check_writable()?;
        let filter = self
            .options
            .filter_of(&open.name(), changed.compaction_filter.as_deref())?;
        let mut entry = catalog.current().entry(open.id).cloned();
        let entry = entry.as_mut().expect("an open keyspace is listed");
        entry.options = changed.clone();
        entry.check_len()?;
        let change = CatalogChange::Options(entry.clone());
        let effect = KeyspaceChange::Options(open.id, changed, filter);
        self.commit_change(catalog, &change, effect, Durability::Sync)?;
        // Another budget may make work due, or let waiting writers go on.
        self.coordinator.progressed();
        Ok(())
    }

    fn existing(&self, name: &str) -> Result<Arc<OpenKeyspace>> {
        self.keyspaces
            .by_name(name)
            .ok_or_else(|| Error::NoSuchKeyspace {
                name: name.to_owned(),
            })
    }

    /// Logs and applies a change that was checked. The catalogue stays locked until it is
    /// published, so no look at both misses it (see [`Shared::oldest_needed`]).
    fn commit_change(
        &self,
        catalog: &mut CatalogState,
        change: &CatalogChange,
        effect: KeyspaceChange,
        durability: Durability,
    ) -> Result<SeqNo> {
        let pipeline = self.takes_writes()?;
        let seq = pipeline.commit_keyspaces(&change.encode(), effect, durability)?;
        catalog.note(change, seq);
        self.after_commit();
        Ok(seq)
    }

    fn declare(&self, keyspace: &OpenKeyspace) {
        if let Some(recorder) = &self.recorder {
            keyspace.declare_to(recorder);
        }
    }
}

/// The options of an open keyspace with what `asked` sets, if that is anything new; an error if one
/// of them is fixed.
fn changed_options(
    open: &OpenKeyspace,
    asked: &KeyspaceOptions,
) -> Result<Option<KeyspaceOptions>> {
    let current = open.options.stored();
    let changed = current.changed_by(asked, &open.name())?;
    Ok((changed != current).then_some(changed))
}
