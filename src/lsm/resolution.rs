//! Which entries a flush or a compaction passes on where values may be merged, expire or be
//! filtered.
//!
//! [`super::retention`] decides entry by entry; here all versions of a key are looked at together.
//! The numbers at which reads may happen are the same: the boundaries, and every number above the
//! last one. What a read at such a number sees of the key is one *outcome*: of the versions in one
//! stripe the newest, folded with all that is below it among the inputs.
//!
//! # Invariants
//!
//! - **LO1** An outcome that stays a merge reaches down through all of the inputs: its `since` is
//!   below every version of the key in them, or the versions that it goes over are passed on as
//!   they are, or as outcomes of the same numbers. So LG2 of [`super::fold`] holds, and no outcome
//!   depends on what another stripe loses.
//! - **LO2** A value that has expired, or that the filter drops, becomes a delete, which hides what
//!   is older as the value did, and goes where a delete goes.

use super::entry::{Entry, EntryKind, merge_value};
use super::fold::Merged;
use super::retention::Boundaries;
use super::tombstones::TombstoneIndex;
use crate::error::Result;
use crate::resolve::{Fate, Judged, Resolver};
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use crate::values::ValueFiles;

/// An entry of the key that is being looked at.
#[derive(Debug)]
pub(super) struct Version {
    seq: SeqNo,
    kind: EntryKind,
    value: Vec<u8>,
}

impl Version {
    fn of(entry: &Entry<'_>) -> Self {
        Self {
            seq: entry.seq,
            kind: entry.kind,
            value: entry.value.to_vec(),
        }
    }

    /// The entry, of `key`.
    pub(super) fn entry<'a>(&'a self, key: &'a [u8]) -> Entry<'a> {
        Entry {
            key,
            seq: self.seq,
            kind: self.kind,
            value: &self.value,
        }
    }
}

/// What a read sees of the key, as far as it is known.
#[derive(Debug)]
struct Outcome {
    /// The newest version that the read sees.
    newest: Version,
    /// The boundary that ends its stripe; `None` above the last one.
    stripe: Option<SeqNo>,
    /// The versions that are merged into one another, newest first; empty if `newest` is no merge.
    chain: Vec<(Version, Merged)>,
    /// What the chain goes over, if that was found: a value, or nothing.
    base: Option<Option<Vec<u8>>>,
    /// What the chain goes over is passed on by itself.
    stands: bool,
}

impl Outcome {
    /// True if it wants to know what was at or below the number.
    fn wants(&self, seq: SeqNo) -> bool {
        self.base.is_none()
            && self
                .chain
                .last()
                .is_some_and(|(_, merged)| seq <= merged.since)
    }

    /// What is below the chain is only known elsewhere.
    fn is_open(&self) -> bool {
        self.base.is_none() && !self.chain.is_empty()
    }
}

/// Resolves one key after the other.
pub(super) struct Resolution<'a> {
    resolver: &'a Resolver,
    values: &'a ValueFiles,
    boundaries: &'a Boundaries,
    tombstones: &'a TombstoneIndex,
    key: Vec<u8>,
    outcomes: Vec<Outcome>,
    /// Those of them that want to know what is below.
    open: Vec<usize>,
    /// Stripe of the newest version that was met last.
    stripe: Option<SeqNo>,
    judged: &'a Judged,
    kept: Vec<Version>,
}

impl<'a> Resolution<'a> {
    /// For entries of inputs whose range tombstones are `tombstones`.
    pub(super) fn new(
        resolver: &'a Resolver,
        values: &'a ValueFiles,
        boundaries: &'a Boundaries,
        tombstones: &'a TombstoneIndex,
        judged: &'a Judged,
    ) -> Self {
        Self {
            resolver,
            values,
            boundaries,
            tombstones,
            key: Vec::new(),
            outcomes: Vec::new(),
            open: Vec::new(),
            stripe: None,
            judged,
            kept: Vec::new(),
        }
    }

    /// The key that [`Resolution::begin`] was given.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The next entries are of `key`.
    pub(super) fn begin(&mut self, key: &[u8]) {
        self.key.clear();
        self.key.extend_from_slice(key);
        self.outcomes.clear();
        self.open.clear();
        self.stripe = None;
        self.kept.clear();
    }

    /// A range tombstone hides what is older than `seq` from reads at `at`.
    fn is_hidden(&self, seq: SeqNo, at: SeqNo) -> bool {
        !self.tombstones.is_empty()
            && self
                .tombstones
                .newest_covering(&self.key, at)
                .is_some_and(|covering| covering > seq)
    }

    /// Takes the next version of the key, from the newest on.
    pub(super) fn take(&mut self, entry: &Entry<'_>) {
        let stripe = self.boundaries.stripe(entry.seq);
        let is_passed_on = match stripe {
            Some(stripe) => {
                self.stripe.replace(stripe) != Some(stripe) && !self.is_hidden(entry.seq, stripe)
            }
            None => true,
        };
        let mut open = std::mem::take(&mut self.open);
        open.retain(|at| {
            let outcome = &self.outcomes[*at];
            if outcome.wants(entry.seq) {
                let (_, last) = outcome.chain.last().expect("it wants more");
                let is_hidden = self.is_hidden(entry.seq, last.since);
                // Of those there may be many, and each would hold all that are older.
                let stands = outcome.stripe.is_none() && is_passed_on && !is_hidden;
                match stands && !mutated!("unpublished-merges-hold-all-older-ones") {
                    true => self.outcomes[*at].stands = true,
                    false => feed(&mut self.outcomes[*at], entry, is_hidden),
                }
            }
            self.outcomes[*at].is_open() && !self.outcomes[*at].stands
        });
        self.open = open;
        if !is_passed_on {
            return;
        }
        let newest = Version::of(entry);
        let mut chain = Vec::new();
        if entry.kind == EntryKind::Merge {
            chain.push((Version::of(entry), Merged::of(entry)));
        }
        if !chain.is_empty() {
            self.open.push(self.outcomes.len());
        }
        self.outcomes.push(Outcome {
            newest,
            stripe,
            chain,
            base: None,
            stands: false,
        });
    }

    /// The entries of the key that are passed on, newest first, once it is resolved.
    pub(super) fn kept(&self) -> &[Version] {
        &self.kept
    }

    /// Decides what is passed on of the key. `is_bottom` says that nothing older than the inputs is
    /// stored about it.
    pub(super) fn resolve(&mut self, is_bottom: impl FnOnce(&[u8]) -> bool) -> Result<()> {
        let is_bottom = is_bottom(&self.key);
        for mut outcome in std::mem::take(&mut self.outcomes) {
            if let Some((_, last)) = outcome.chain.last()
                && outcome.base.is_none()
                && !outcome.stands
                && (is_bottom || self.is_hidden(SeqNo::ZERO, last.since))
            {
                outcome.base = Some(None);
            }
            self.keep(outcome, is_bottom)?;
        }
        // What a chain needs may also be the outcome of an older stripe, which then stands for it:
        // see `keep`.
        self.kept
            .sort_by_key(|version| std::cmp::Reverse(version.seq));
        self.kept.dedup_by_key(|version| version.seq);
        Ok(())
    }

    fn keep(&mut self, outcome: Outcome, is_bottom: bool) -> Result<()> {
        if outcome.is_open() {
            self.keep_open(outcome);
            return Ok(());
        }
        let Outcome {
            mut newest,
            stripe,
            chain,
            base,
            ..
        } = outcome;
        if let Some(base) = base {
            let operands: Vec<&[u8]> = chain.iter().rev().map(|(_, it)| &*it.operand).collect();
            newest.value = self.resolver.fold(&self.key, base.as_deref(), &operands);
            newest.kind = EntryKind::Put;
        }
        // Above the last boundary reads may come to any number yet.
        if stripe.is_some() && newest.kind != EntryKind::Delete {
            self.judge(&mut newest)?;
        }
        let is_oldest = stripe == Some(self.boundaries.oldest());
        if newest.kind == EntryKind::Delete && is_oldest && is_bottom {
            return Ok(());
        }
        // In front of what a chain needs: of two versions of one number, the first stays.
        self.kept.push(newest);
        Ok(())
    }

    /// Keeps a chain whose base is elsewhere: as one merge, or as it is.
    fn keep_open(&mut self, outcome: Outcome) {
        let Outcome { newest, chain, .. } = outcome;
        let operands: Vec<&[u8]> = chain.iter().rev().map(|(_, it)| &*it.operand).collect();
        let combined = match &operands[..] {
            [_] => None,
            _ => self.resolver.combine(&self.key, &operands),
        };
        let (_, last) = chain.last().expect("it is open");
        match combined {
            Some(operand) => {
                let since = mutated!("combined-merge-reaches-too-far", SeqNo::ZERO, last.since);
                self.kept.push(Version {
                    value: merge_value(since, &operand),
                    ..newest
                });
            }
            None => self
                .kept
                .extend(chain.into_iter().map(|(version, _)| version)),
        }
    }

    /// Asks what becomes of a value.
    fn judge(&self, version: &mut Version) -> Result<()> {
        let moment = self.boundaries.moment(version.seq);
        let fate = match version.kind {
            EntryKind::PutRef if moment.filter.is_none() => Fate::Keep,
            EntryKind::PutRef => {
                let value = self.values.get(&version.value)?;
                self.resolver.fate(&self.key, &value, moment)
            }
            _ => self.resolver.fate(&self.key, &version.value, moment),
        };
        self.judged.note(&fate);
        match fate {
            Fate::Keep => {}
            Fate::Expire | Fate::Drop => {
                version.kind = EntryKind::Delete;
                version.value.clear();
            }
            Fate::Replace(value) => {
                version.kind = EntryKind::Put;
                version.value = value;
            }
        }
        Ok(())
    }
}

/// Tells an outcome of the version that it goes over.
fn feed(outcome: &mut Outcome, entry: &Entry<'_>, is_hidden: bool) {
    match entry.kind {
        _ if is_hidden => outcome.base = Some(None),
        EntryKind::Delete => outcome.base = Some(None),
        EntryKind::Put => outcome.base = Some(Some(entry.value.to_vec())),
        // In a keyspace with an operator no value is stored apart: only a hostile file has one.
        EntryKind::PutRef => outcome.base = Some(None),
        EntryKind::Merge => outcome.chain.push((Version::of(entry), Merged::of(entry))),
    }
}

#[cfg(test)]
mod tests;
