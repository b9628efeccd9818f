//! Many keys at once.
//!
//! A lookup waits for memory several times, and each wait is for an address that the one before
//! has brought: a line of the filter, the index, the cache, the heads of a block, the record.
//! Lookups of different keys do not depend on each other. So a group of keys takes each of these
//! steps together, and while the processor waits for one of them it goes on with the others.
//! Storage is asked for all blocks of a group before one is waited for.

use super::entry::{Entry, EntryKind};
use super::fold::Merged;
use super::lookup::{get_from_memtable, lend_if_live};
use super::superversion::Superversion;
use super::table::{BlockBytes, filter_hash};
use super::table_handle::TableHandle;
use crate::error::Result;
use crate::types::{SeqNo, Value};

/// Keys that are looked up together: about as many as there can be loads under way, and as few as
/// may keep a block each.
const KEYS_TOGETHER: usize = 32;

/// What was found.
struct Answers {
    values: Vec<Option<Value>>,
    /// Values that are stored apart, with references to them: they are read at the end.
    apart: Vec<(usize, Vec<u8>)>,
    /// Keys whose newest entry is a merge: they are folded at the end.
    merged: Vec<(usize, Merged)>,
}

impl Answers {
    /// Takes the entry of the key at `at`.
    fn take(&mut self, at: usize, entry: &Entry<'_>) {
        match entry.kind {
            EntryKind::PutRef => self.apart.push((at, entry.value.to_vec())),
            EntryKind::Merge => self.merged.push((at, Merged::of(entry))),
            _ => self.values[at] = Some(Value::copy_from(entry.value)),
        }
    }
}

/// A key that was not found so far.
struct Lookup<'a> {
    /// Which of the keys it is.
    at: usize,
    key: &'a [u8],
    hash: u64,
}

/// A lookup in a table that may know of the key.
struct InTable<'a> {
    /// Which of the lookups it is.
    lookup: usize,
    table: &'a TableHandle,
    /// The block that the key belongs to, if there is one.
    block: Option<u32>,
    bytes: Option<BlockBytes>,
}

impl Superversion {
    /// The values of `keys` as of `seq`, in their order.
    pub(crate) fn multi_get(&self, keys: &[&[u8]], seq: SeqNo) -> Result<Vec<Option<Value>>> {
        let mut answers = Answers {
            values: keys.iter().map(|_| None).collect(),
            apart: Vec::new(),
            merged: Vec::new(),
        };
        let mut lookups: Vec<Lookup<'_>> = (0..keys.len())
            .map(|at| Lookup {
                at,
                key: keys[at],
                hash: filter_hash(keys[at]),
            })
            .collect();
        // In key order neighbours are in the same block.
        lookups.sort_unstable_by_key(|lookup| lookup.key);
        while !lookups.is_empty() {
            let group = lookups.split_off(lookups.len().saturating_sub(KEYS_TOGETHER));
            self.get_group(group, seq, &mut answers)?;
        }
        let Answers {
            mut values,
            apart,
            merged,
        } = answers;
        for (at, reference) in apart {
            values[at] = Some(Value::copy_from(&self.values.get(&reference)?));
        }
        for (at, merged) in merged {
            values[at] = Some(Value::from(self.fold(keys[at], &merged)?));
        }
        Ok(values)
    }

    /// Finds the values of a group of keys. One source after the other answers what it can, from
    /// the newest on, as in [`Superversion::get`].
    fn get_group(
        &self,
        mut open: Vec<Lookup<'_>>,
        seq: SeqNo,
        answers: &mut Answers,
    ) -> Result<()> {
        for memtable in self.memtables() {
            for lookup in &open {
                memtable.prefetch_filter(lookup.hash);
            }
            open.retain(|lookup| {
                let mut visit = |entry: &Entry<'_>| answers.take(lookup.at, entry);
                get_from_memtable(memtable, lookup.key, lookup.hash, seq, &mut visit).is_none()
            });
        }
        for table in self.version.level(0).tables().iter() {
            let meta = table.meta();
            if meta.smallest_seq <= seq {
                let in_table = |key: &[u8]| meta.contains_key(key).then_some(&**table);
                get_from_run(&mut open, in_table, seq, answers)?;
            }
        }
        for level in &self.version.levels()[1..] {
            let in_table = |key: &[u8]| level.find(key).map(|table| &**table);
            get_from_run(&mut open, in_table, seq, answers)?;
        }
        Ok(())
    }
}

/// Takes from `open` what a sorted run knows of, and puts what it has into `answers`. `table_of`
/// says in which table of the run a key is if it is in one.
fn get_from_run<'a>(
    open: &mut Vec<Lookup<'_>>,
    table_of: impl Fn(&[u8]) -> Option<&'a TableHandle>,
    seq: SeqNo,
    answers: &mut Answers,
) -> Result<()> {
    let mut found: Vec<InTable<'a>> = Vec::with_capacity(open.len());
    for (lookup, Lookup { key, hash, .. }) in open.iter().enumerate() {
        if let Some(table) = table_of(key) {
            table.table().prefetch_filter(*hash);
            found.push(InTable {
                lookup,
                table,
                block: None,
                bytes: None,
            });
        }
    }
    found.retain(|found| found.table.may_know_of(open[found.lookup].hash));
    locate(&mut found, open, seq);
    load(&mut found)?;
    let mut is_known = vec![false; open.len()];
    for InTable {
        lookup,
        table,
        block,
        bytes,
    } in found
    {
        let Lookup { at, key, .. } = open[lookup];
        let cover = table.tombstones().newest_covering(key, seq);
        let mut is_live = false;
        let is_found = match (block, bytes) {
            (Some(block), Some(bytes)) => {
                table.table().get_in(block, bytes, key, seq, &mut |entry| {
                    is_live = lend_if_live(entry, cover, &mut |entry| answers.take(at, entry));
                })?
            }
            _ => false,
        };
        is_known[lookup] = is_found || cover.is_some();
    }
    let mut is_known = is_known.into_iter();
    open.retain(|_| !is_known.next().expect("one for each"));
    Ok(())
}

/// Finds out which blocks the keys belong to.
fn locate(found: &mut [InTable<'_>], open: &[Lookup<'_>], seq: SeqNo) {
    for found in found {
        found.block = found.table.table().locate(open[found.lookup].key, seq);
    }
}

/// True if the key at `at` belongs to the same block as the one before it.
fn is_in_block_of_last(found: &[InTable<'_>], at: usize) -> bool {
    let last = at.checked_sub(1).map(|last| &found[last]);
    last.is_some_and(|last| {
        last.block == found[at].block && std::ptr::eq(last.table, found[at].table)
    })
}

/// Gets hold of the blocks.
fn load(found: &mut [InTable<'_>]) -> Result<()> {
    for at in 0..found.len() {
        let InTable { table, block, .. } = found[at];
        let Some(block) = block else { continue };
        table.table().count_read();
        found[at].bytes = match is_in_block_of_last(found, at) {
            true => found[at - 1].bytes.clone(),
            false => table.table().loaded(block),
        };
        match &found[at].bytes {
            Some(bytes) => table.table().prefetch_block(bytes),
            None => table.table().will_need_block(block),
        }
    }
    for at in 0..found.len() {
        if let (Some(block), None) = (found[at].block, &found[at].bytes) {
            // There may be no cache that keeps it for its neighbours.
            let bytes = match is_in_block_of_last(found, at) {
                true => found[at - 1].bytes.clone(),
                false => None,
            };
            found[at].bytes = Some(match bytes {
                Some(bytes) => bytes,
                None => found[at].table.table().load_missing(block)?,
            });
        }
    }
    Ok(())
}
