//! Changing the options of a keyspace that exists.

use super::catalog::Catalog;
use super::keyspaces::OpenKeyspace;
use super::shared::Shared;
use crate::engine::EngineHost;
use crate::error::Result;
use crate::options::KeyspaceOptions;

/// Whether `asked` sets an option to another value than the open keyspace has; an error if that
/// option is fixed.
pub(crate) fn changes_options(open: &OpenKeyspace, asked: &KeyspaceOptions) -> Result<bool> {
    let current = open.options.stored();
    Ok(current.changed_by(asked, &open.name)? != current)
}

/// Gives the open keyspace what `asked` sets and may be changed, durably, and then at once.
pub(crate) fn change_options(
    shared: &Shared,
    catalog: &mut Catalog,
    open: &OpenKeyspace,
    asked: &KeyspaceOptions,
) -> Result<()> {
    let current = open.options.stored();
    let changed = current.changed_by(asked, &open.name)?;
    if changed == current {
        return Ok(());
    }
    shared.takes_writes()?;
    shared.coordinator.check_writable()?;
    let mut listed = catalog.clone();
    for entry in listed
        .entries
        .iter_mut()
        .filter(|entry| entry.id == open.id)
    {
        entry.options = changed.clone();
    }
    catalog.replace(listed, &*shared.options.fs, &shared.dir, |error| {
        shared.coordinator.fail(error);
    })?;
    open.options.change(changed);
    // Another budget may make work due, or let waiting writers go on.
    shared.coordinator.progressed();
    Ok(())
}
