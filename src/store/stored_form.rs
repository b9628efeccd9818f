//! Commits in the form in which their keyspaces store them ([`StoredForm`]).

use std::sync::Arc;

use super::commit::Change;
use super::keyspaces::OpenKeyspace;
use crate::error::Result;
use crate::kv::{Batch, StoredForm};
use crate::resolve::MergesUnderWay;

/// `change` as it is logged, and what is to live until it is applied.
#[inline]
pub(super) fn stored_form(mut change: Change<'_>) -> Result<(Change<'_>, Vec<MergesUnderWay>)> {
    match &mut change {
        Change::One { keyspace, op } => {
            keyspace.with_stored_form(|form| form.check(op))?;
            if keyspace.resolver.expires() {
                let mut batch = Batch::new();
                batch.push(op);
                let mut parts = vec![(Arc::clone(keyspace), batch)];
                let under_way = parts_in_stored_form(&mut parts)?;
                return Ok((Change::Many(parts), under_way));
            }
            Ok((change, Vec::new()))
        }
        // Where values are kept beside their keys, none is streamed.
        Change::Streamed { .. } => Ok((change, Vec::new())),
        Change::Many(parts) => {
            let under_way = parts_in_stored_form(parts)?;
            Ok((change, under_way))
        }
    }
}

/// The same of the parts of a commit.
pub(super) fn parts_in_stored_form(
    parts: &mut [(Arc<OpenKeyspace>, Batch)],
) -> Result<Vec<MergesUnderWay>> {
    let mut under_way = Vec::new();
    for (keyspace, batch) in parts {
        let resolver = &keyspace.resolver;
        let now_ms = || match batch.has_merges() {
            true => {
                let merges = resolver.begin_merges();
                let at_ms = merges.at_ms();
                under_way.push(merges);
                at_ms
            }
            false => resolver.now_ms(),
        };
        if let Some(stored) = keyspace.with_stored_form(|form| form.of_batch(batch, now_ms))? {
            *batch = stored;
        }
    }
    Ok(under_way)
}

impl OpenKeyspace {
    /// Calls `f` with how the keyspace stores what is written to it.
    #[inline]
    pub(crate) fn with_stored_form<R>(&self, f: impl FnOnce(&StoredForm<'_>) -> R) -> R {
        f(&StoredForm {
            resolver: &self.resolver,
            name: &|| self.name().to_string(),
        })
    }
}
