//! Sorted runs: tables with disjoint extents, in key order.

use std::sync::Arc;

use super::table_handle::TableHandle;
use crate::util::key_prefix::{common_prefix_len, head64};

/// Tables in key order, and what finds one of them. Those of level 0 are only kept here, and not
/// searched: they are in the order of their age.
#[derive(Debug, Default)]
pub(crate) struct SortedRun {
    tables: Vec<Arc<TableHandle>>,
    /// Length of what all smallest keys begin with.
    prefix_len: usize,
    /// Heads of the rests of the smallest keys, side by side: a search touches no table but the
    /// first and the one it finds.
    heads: Vec<u64>,
}

impl SortedRun {
    /// The run of `tables`.
    pub(crate) fn new(tables: Vec<Arc<TableHandle>>) -> Self {
        let starts: Vec<&[u8]> = tables
            .iter()
            .map(|table| &table.meta().smallest_key[..])
            .collect();
        let (prefix_len, heads) = heads_of(&starts);
        Self {
            prefix_len,
            heads,
            tables,
        }
    }

    /// The tables.
    #[inline]
    pub(crate) fn tables(&self) -> &[Arc<TableHandle>] {
        &self.tables
    }

    /// Number of tables whose smallest key is at or below `key`.
    #[inline]
    fn starts_up_to(&self, key: &[u8]) -> usize {
        let start = |at: usize| &self.tables[at].meta().smallest_key[..];
        starts_up_to(key, self.prefix_len, &self.heads, start)
    }

    /// The table whose extent holds `key`.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<&Arc<TableHandle>> {
        let table = &self.tables[self.starts_up_to(key).checked_sub(1)?];
        (!table.meta().is_before(key)).then_some(table)
    }

    /// Number of the first table that does not end before `key`, which may begin after it; the
    /// number of tables if there is none.
    #[inline]
    pub(crate) fn first_not_before(&self, key: &[u8]) -> usize {
        match self.starts_up_to(key) {
            up_to @ 1.. if !self.tables[up_to - 1].meta().is_before(key) => up_to - 1,
            up_to => up_to,
        }
    }

    /// Number of the last table that begins before `key`, if there is one.
    #[inline]
    pub(crate) fn last_before(&self, key: &[u8]) -> Option<usize> {
        let up_to = self.starts_up_to(key).checked_sub(1)?;
        match self.tables[up_to].meta().smallest_key.as_slice() == key {
            true => up_to.checked_sub(1),
            false => Some(up_to),
        }
    }
}

/// Length of what all of `starts` begin with, and the heads of their rests. Those of level 0, which
/// is not searched, are in no order.
fn heads_of(starts: &[&[u8]]) -> (usize, Vec<u64>) {
    let shared = starts
        .iter()
        .map(|start| common_prefix_len(starts[0], start));
    let prefix_len = shared.min().unwrap_or(0);
    let heads = starts.iter().map(|start| head64(&start[prefix_len..]));
    (prefix_len, heads.collect())
}

/// How many of some rising starts are at or below `key`. Compares with a start, besides the first,
/// only where heads are equal, and with few of those.
#[inline]
fn starts_up_to<'a>(
    key: &[u8],
    prefix_len: usize,
    heads: &[u64],
    start: impl Fn(usize) -> &'a [u8],
) -> usize {
    let mut rest = key;
    if prefix_len > 0 {
        let prefix = &start(0)[..prefix_len];
        match key.strip_prefix(prefix) {
            Some(found) => rest = found,
            None if key < prefix => return 0,
            None => return heads.len(),
        }
    }
    let head = head64(rest);
    let low = heads.partition_point(|other| *other < head);
    let equal = heads[low..].partition_point(|other| *other == head);
    // Equal heads decide nothing.
    let (mut low, mut high) = (low, low + equal);
    while low < high {
        let middle = low + (high - low) / 2;
        if start(middle) <= key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::testing::Random;

    /// Starts with equal heads were compared one after the other: a get among 5,078 tables whose
    /// keys begin with the same eight bytes took 8.5 us instead of 1.6.
    #[test]
    fn tables_with_equal_heads_are_found_with_few_comparisons() {
        let mut random = Random::new(1);
        for shape in 0..4 {
            let mut key = |_| {
                let number = random.below(1 << 40).to_be_bytes();
                match shape {
                    0 => number.to_vec(),
                    1 => [&b"tenants/"[..], &number].concat(),
                    // One of them is elsewhere.
                    2 if random.one_in(5000) => b"x".to_vec(),
                    2 => [&b"tenants/"[..], &number].concat(),
                    _ => [&number[6..], &b"........."[..random.index(9)]].concat(),
                }
            };
            let mut starts: Vec<_> = (0..5078).map(&mut key).collect();
            starts.sort_unstable();
            starts.dedup();
            let starts: Vec<&[u8]> = starts.iter().map(Vec::as_slice).collect();
            let (prefix_len, heads) = heads_of(&starts);
            let outside = [&b""[..], b"tenant", b"tenants/", b"tenants0", b"\xFF\xFF"];
            let inside: Vec<_> = (0..2000).map(&mut key).collect();
            for key in outside.into_iter().chain(inside.iter().map(Vec::as_slice)) {
                let compared = Cell::new(0);
                let start = |at: usize| {
                    compared.set(compared.get() + 1);
                    starts[at]
                };
                let found = starts_up_to(key, prefix_len, &heads, start);
                assert_eq!(
                    found,
                    starts.partition_point(|start| *start <= key),
                    "{key:?}"
                );
                assert!(compared.get() <= 14, "{} comparisons", compared.get());
            }
        }
    }
}
