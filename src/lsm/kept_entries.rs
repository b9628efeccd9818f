//! The walk of a flush or a compaction over its inputs: the one place that decides which entries
//! are passed on, and what becomes of them.

use super::entry::{Entry, EntryCursor};
use super::merge::MergeCursor;
use super::resolution::Resolution;
use super::retention::{Boundaries, Retention};
use super::tombstones::TombstoneIndex;
use crate::error::Result;
use crate::resolve::{Judged, Resolver};
use crate::values::ValueFiles;

/// Entries between two looks whether the store is being closed: fewer than a block has.
const ENTRIES_BETWEEN_LOOKS: u64 = 32;

/// By what entries are judged.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) resolver: &'a Resolver,
    pub(crate) values: &'a ValueFiles,
    pub(crate) boundaries: &'a Boundaries,
    pub(crate) judged: &'a Judged,
}

/// Entries of the inputs that are passed on.
pub(crate) struct KeptEntries<'a> {
    merge: MergeCursor,
    rules: Rules<'a>,
    /// Range tombstones among the inputs.
    tombstones: &'a TombstoneIndex,
}

impl<'a> KeptEntries<'a> {
    pub(crate) fn new(
        merge: MergeCursor,
        rules: Rules<'a>,
        tombstones: &'a TombstoneIndex,
    ) -> Self {
        Self {
            merge,
            rules,
            tombstones,
        }
    }

    /// Calls `write` with each entry, in order, and with true for the first one of its key that is
    /// passed on. `is_bottom` says that nothing older than the inputs is stored about a key;
    /// `go_on` is asked from time to time.
    pub(crate) fn for_each(
        &mut self,
        is_bottom: impl Fn(&[u8]) -> bool,
        go_on: impl Fn() -> Result<()>,
        write: impl FnMut(&Entry<'_>, bool) -> Result<()>,
    ) -> Result<()> {
        self.merge.seek_first()?;
        match self.rules.resolver.is_plain() {
            true => self.one_by_one(is_bottom, go_on, write),
            false => self.key_by_key(is_bottom, go_on, write),
        }
    }

    fn one_by_one(
        &mut self,
        is_bottom: impl Fn(&[u8]) -> bool,
        go_on: impl Fn() -> Result<()>,
        mut write: impl FnMut(&Entry<'_>, bool) -> Result<()>,
    ) -> Result<()> {
        let mut retention = Retention::new(self.rules.boundaries, self.tombstones);
        // A version of the current key has been written.
        let mut written_key = false;
        let mut entries = 0u64;
        while self.merge.is_valid() {
            if entries.is_multiple_of(ENTRIES_BETWEEN_LOOKS) {
                go_on()?;
            }
            let begins_key = entries == 0 || !self.merge.repeats_key();
            entries += 1;
            let entry = self.merge.entry();
            written_key &= !begins_key;
            if retention.keeps(&entry, begins_key, &is_bottom) {
                write(&entry, !written_key)?;
                written_key = true;
            }
            self.merge.next()?;
        }
        Ok(())
    }

    fn key_by_key(
        &mut self,
        is_bottom: impl Fn(&[u8]) -> bool,
        go_on: impl Fn() -> Result<()>,
        mut write: impl FnMut(&Entry<'_>, bool) -> Result<()>,
    ) -> Result<()> {
        let Rules {
            resolver,
            values,
            boundaries,
            judged,
        } = self.rules;
        let mut resolution = Resolution::new(resolver, values, boundaries, self.tombstones, judged);
        let mut entries = 0u64;
        while self.merge.is_valid() {
            resolution.begin(self.merge.key());
            loop {
                if entries.is_multiple_of(ENTRIES_BETWEEN_LOOKS) {
                    go_on()?;
                }
                entries += 1;
                resolution.take(&self.merge.entry());
                self.merge.next()?;
                if !self.merge.is_valid() || !self.merge.repeats_key() {
                    break;
                }
            }
            resolution.resolve(&is_bottom)?;
            let mut begins_key = true;
            for version in resolution.kept() {
                write(&version.entry(resolution.key()), begins_key)?;
                begins_key = false;
            }
        }
        Ok(())
    }
}
