//! Which pages of the file are free, and since when.
//!
//! A page freed by checkpoint `g` is *held* until no reader can reach it: no view that may look at
//! a tree of which the page was part ([`crate::btree::read::readers`]), and no point reader that
//! was under way when `g` was published. (No meta page on disk refers to it then: a checkpoint ends
//! with both meta pages replaced.) Across a reopen nothing is held.
//!
//! A bulk load writes beside checkpoints, to pages that are *reserved*. They are as free as before
//! for the file, and no checkpoint takes them. When the load was made a part of the tree in memory,
//! they are *attached*, and the next checkpoint has them in its tree.
//!
//! A checkpoint notes what it changes ([`FreeSpace::begin`]), and takes it back if it fails. It
//! makes no copy: there may be as many runs as leaves, and most checkpoints touch a few.

use std::collections::{BTreeMap, BTreeSet};

/// Consecutive pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// Runs that one checkpoint wrote and one checkpoint freed.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Clone))]
struct Held {
    birth: u64,
    freed_by: u64,
    runs: Vec<Run>,
}

/// Free pages of a file.
#[derive(Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct FreeSpace {
    /// Pages before this one are meta, in use or free; the file has none from here on.
    pub(crate) file_units: u64,
    /// Reusable runs by first page, not touching each other.
    ready: BTreeMap<u64, u64>,
    /// The first pages of the same runs by length. There are never many lengths: runs of `n`
    /// different ones have at least `n * n / 2` pages.
    by_len: BTreeMap<u64, BTreeSet<u64>>,
    ready_units: u64,
    /// Freed by a checkpoint and not yet reusable, oldest first.
    held: Vec<Held>,
    /// The same runs by first page.
    held_by_start: BTreeMap<u64, u64>,
    held_units: u64,
    /// Written to by bulk loads, by first page. The file's tree does not have them, so they are in
    /// the freelist: a crash leaves them free.
    reserved: BTreeMap<u64, Reserved>,
    /// Of a checkpoint that is under way.
    changes: Option<Changes>,
}

/// A run that is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reserved {
    len: u64,
    /// The next checkpoint has it in its tree.
    is_attached: bool,
}

/// What a checkpoint has changed, and what was before it.
#[derive(Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Clone))]
struct Changes {
    /// Reusable runs that came or went, in time.
    ready: Vec<(Came, Run)>,
    /// What was attached, and is not reserved any more.
    released: Vec<(u64, Reserved)>,
    file_units: u64,
    held_groups: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    In,
    Out,
}

impl FreeSpace {
    /// No free pages in a file of `file_units`.
    pub(crate) fn new(file_units: u64) -> Self {
        Self {
            file_units,
            ..Self::default()
        }
    }

    /// A checkpoint begins: what it changes is noted until [`FreeSpace::keep_changes`] or
    /// [`FreeSpace::take_back_changes`].
    pub(crate) fn begin(&mut self) {
        debug_assert!(self.changes.is_none(), "one at a time");
        self.changes = Some(Changes {
            file_units: self.file_units,
            held_groups: self.held.len(),
            ..Changes::default()
        });
    }

    /// The checkpoint has succeeded.
    pub(crate) fn keep_changes(&mut self) {
        self.changes = None;
    }

    /// The checkpoint has failed: everything is as it was when it began.
    pub(crate) fn take_back_changes(&mut self) {
        let Some(changes) = self.changes.take() else {
            return;
        };
        for (came, run) in changes.ready.into_iter().rev() {
            match came {
                Came::In => self.remove_ready(run.start, run.len),
                Came::Out => self.insert_ready(run.start, run.len),
            }
        }
        for group in self.held.drain(changes.held_groups..) {
            for run in group.runs {
                self.held_units -= run.len;
                self.held_by_start.remove(&run.start);
            }
        }
        self.reserved.extend(changes.released);
        self.file_units = changes.file_units;
    }

    /// Pages that are free, reusable or held.
    pub(crate) fn free_units(&self) -> u64 {
        self.ready_units + self.held_units
    }

    /// Takes `len` consecutive pages from the lowest run that has them, or from the file's end. Low
    /// pages first keeps the end of the file free, so it can be cut.
    pub(crate) fn allocate(&mut self, len: u64) -> u64 {
        let lowest = |starts: &BTreeSet<u64>| starts.first().copied();
        let found = self.by_len.range(len..);
        if let Some((start, run_len)) = found
            .filter_map(|(run_len, starts)| Some((lowest(starts)?, *run_len)))
            .min()
        {
            self.remove_ready(start, run_len);
            if run_len > len {
                self.insert_ready(start + len, run_len - len);
            }
            return start;
        }
        // A free run at the end is extended.
        let start = match self.ready.last_key_value() {
            Some((start, run_len)) if start + run_len == self.file_units => {
                let (start, run_len) = (*start, *run_len);
                self.remove_ready(start, run_len);
                start
            }
            _ => self.file_units,
        };
        self.file_units = start + len;
        start
    }

    /// Takes pages as [`FreeSpace::allocate`] does, for a bulk load.
    pub(crate) fn reserve(&mut self, len: u64) -> u64 {
        let start = self.allocate(len);
        let reserved = Reserved {
            len,
            is_attached: false,
        };
        self.reserved.insert(start, reserved);
        start
    }

    /// First page and length of what is reserved.
    #[cfg(test)]
    pub(crate) fn reserved_runs(&self) -> Vec<(u64, u64)> {
        let runs = self.reserved.iter();
        runs.map(|(start, reserved)| (*start, reserved.len))
            .collect()
    }

    /// Keeps the first `used` pages of what was reserved at `start`, and makes the rest reusable.
    pub(crate) fn end_reservation(&mut self, start: u64, used: u64) {
        let Some(reserved) = self.reserved.get_mut(&start) else {
            return;
        };
        let rest = Run {
            start: start + used,
            len: reserved.len - used,
        };
        reserved.len = used;
        if used == 0 {
            self.reserved.remove(&start);
        }
        self.give(rest);
    }

    /// What was reserved at `start` belongs to the tree in memory now.
    pub(crate) fn attach(&mut self, start: u64) {
        if let Some(reserved) = self.reserved.get_mut(&start) {
            reserved.is_attached = true;
        }
    }

    /// Reserves a run that is free, and attaches it. False if it is not.
    pub(crate) fn attach_free(&mut self, run: Run) -> bool {
        let before = self.ready.range(..=run.start).next_back();
        let Some((start, len)) = before.map(|(start, len)| (*start, *len)) else {
            return false;
        };
        let (free_end, Some(end)) = (start + len, run.start.checked_add(run.len)) else {
            return false;
        };
        if end > free_end || run.len == 0 {
            return false;
        }
        self.remove_ready(start, len);
        for (start, end) in [(start, run.start), (end, free_end)] {
            if start < end {
                self.insert_ready(start, end - start);
            }
        }
        let reserved = Reserved {
            len: run.len,
            is_attached: true,
        };
        self.reserved.insert(run.start, reserved);
        true
    }

    /// What is attached is in the tree that is written now.
    pub(crate) fn release_attached(&mut self) {
        let changes = &mut self.changes;
        self.reserved.retain(|start, reserved| {
            if let (true, Some(changes)) = (reserved.is_attached, &mut *changes) {
                changes.released.push((*start, *reserved));
            }
            !reserved.is_attached
        });
    }

    /// Pages before `end` that are reserved.
    pub(crate) fn reserved_units(&self, end: u64) -> u64 {
        let before = self.reserved.range(..end);
        before
            .map(|(start, reserved)| reserved.len.min(end - start))
            .sum()
    }

    fn insert_ready(&mut self, start: u64, len: u64) {
        if let Some(changes) = &mut self.changes {
            changes.ready.push((Came::In, Run { start, len }));
        }
        self.ready.insert(start, len);
        self.by_len.entry(len).or_default().insert(start);
        self.ready_units += len;
    }

    fn remove_ready(&mut self, start: u64, len: u64) {
        if let Some(changes) = &mut self.changes {
            changes.ready.push((Came::Out, Run { start, len }));
        }
        self.ready.remove(&start);
        if let Some(starts) = self.by_len.get_mut(&len) {
            starts.remove(&start);
            if starts.is_empty() {
                self.by_len.remove(&len);
            }
        }
        self.ready_units -= len;
    }

    /// Makes a run reusable at once. False if part of it is free already, which only damage
    /// causes.
    pub(crate) fn give(&mut self, run: Run) -> bool {
        if run.len == 0 {
            return true;
        }
        let (mut start, mut len) = (run.start, run.len);
        let Some(end) = start.checked_add(len).filter(|end| *end <= self.file_units) else {
            return false;
        };
        if let Some((before, before_len)) = self.ready.range(..end).next_back() {
            let (before, before_len) = (*before, *before_len);
            let before_end = before + before_len;
            if before_end > start {
                return false;
            }
            if before_end == start {
                self.remove_ready(before, before_len);
                start = before;
                len += before_len;
            }
        }
        if let Some(after_len) = self.ready.get(&end).copied() {
            self.remove_ready(end, after_len);
            len += after_len;
        }
        self.insert_ready(start, len);
        true
    }

    /// Makes all of `runs` reusable at once.
    pub(crate) fn give_all(&mut self, runs: &mut Vec<Run>) {
        for run in runs.drain(..) {
            self.give(run);
        }
    }

    /// Records what checkpoint `freed_by` freed, each run with the checkpoint that wrote it.
    pub(crate) fn hold(&mut self, freed_by: u64, mut runs: Vec<(u64, Run)>) {
        self.held_units += runs.iter().map(|(_, run)| run.len).sum::<u64>();
        self.held_by_start
            .extend(runs.iter().map(|(_, run)| (run.start, run.len)));
        runs.sort_by_key(|(birth, _)| *birth);
        let groups = runs.chunk_by(|a, b| a.0 == b.0);
        self.held.extend(groups.map(|group| Held {
            birth: group[0].0,
            freed_by,
            runs: group.iter().map(|(_, run)| *run).collect(),
        }));
    }

    /// Leaves out of `runs` what cannot have been in use: what lies outside of the file's pages
    /// from `first` on, or meets what is free, held, reserved or in another of the runs. True if
    /// that is nothing. Only damaged pages name such runs; in a freelist they would contradict it.
    pub(crate) fn leave_out_impossible(&self, first: u64, runs: &mut Vec<Run>) -> bool {
        let before = runs.len();
        runs.sort_unstable_by_key(|run| (run.start, run.len));
        let mut end = first;
        runs.retain(|run| {
            let is_apart = run.len > 0 && run.start >= end;
            let run_end = run.start.checked_add(run.len);
            let is_inside = run_end.is_some_and(|end| end <= self.file_units);
            if is_apart && is_inside {
                end = run.start + run.len;
            }
            is_apart && is_inside
        });
        runs.retain(|run| !self.meets_any(*run));
        runs.len() == before
    }

    /// True if a part of `run` is free, held or reserved.
    fn meets_any(&self, run: Run) -> bool {
        let end = run.start + run.len;
        let meets = |last: Option<(u64, u64)>| last.is_some_and(|(at, len)| at + len > run.start);
        let last_of = |runs: &BTreeMap<u64, u64>| {
            let last = runs.range(..end).next_back();
            last.map(|(start, len)| (*start, *len))
        };
        let reserved = self.reserved.range(..end).next_back();
        meets(last_of(&self.ready))
            || meets(last_of(&self.held_by_start))
            || meets(reserved.map(|(start, reserved)| (*start, reserved.len)))
    }

    /// Makes reusable what `is_needed` does not name, of what was freed: it is asked for pairs of
    /// the checkpoint that wrote a page and that which freed it. Before [`FreeSpace::begin`]: what
    /// is not needed stays so, whatever becomes of the checkpoint.
    pub(crate) fn release(&mut self, is_needed: impl Fn(u64, u64) -> bool) {
        debug_assert!(self.changes.is_none(), "nothing is under way");
        let held = std::mem::take(&mut self.held);
        for group in held {
            if is_needed(group.birth, group.freed_by) {
                self.held.push(group);
                continue;
            }
            for run in group.runs {
                self.held_units -= run.len;
                self.held_by_start.remove(&run.start);
                // A run that is free already can only come from a damaged page; `verify` reports
                // it.
                self.give(run);
            }
        }
    }

    /// Gives up the free pages at the end of the file.
    pub(crate) fn trim(&mut self) {
        if let Some((start, len)) = self.ready.last_key_value()
            && start + len == self.file_units
        {
            let (start, len) = (*start, *len);
            self.remove_ready(start, len);
            self.file_units = start;
        }
    }

    /// Runs that can be reused at once, in order.
    pub(crate) fn ready_runs(&self) -> impl Iterator<Item = Run> {
        self.ready.iter().map(|(start, len)| Run {
            start: *start,
            len: *len,
        })
    }

    /// Runs that readers may still need, each with the checkpoint that freed it, oldest first.
    pub(crate) fn held_runs(&self) -> impl Iterator<Item = (u64, Run)> {
        let held = self.held.iter();
        held.flat_map(|group| group.runs.iter().map(|run| (group.freed_by, *run)))
    }

    /// All runs that the file's tree does not have, in order: reusable, held or reserved.
    pub(crate) fn all_runs(&self) -> Vec<Run> {
        let reserved = self.reserved.iter().map(|(start, reserved)| Run {
            start: *start,
            len: reserved.len,
        });
        let held = self.held_runs().map(|(_, run)| run);
        let mut others: Vec<Run> = held.chain(reserved).collect();
        others.sort_unstable();
        let mut runs = Vec::with_capacity(self.ready.len() + others.len());
        let mut others = others.into_iter().peekable();
        for ready in self.ready_runs() {
            while let Some(other) = others.next_if(|other| *other < ready) {
                runs.push(other);
            }
            runs.push(ready);
        }
        runs.extend(others);
        runs.retain(|run| run.len > 0);
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btree::file::freelist;
    use crate::format::checksum::mix64;

    #[test]
    fn agrees_with_a_set_of_pages() {
        for seed in 0..10_u64 {
            let mut free = FreeSpace::new(2);
            let mut used: Vec<Run> = Vec::new();
            let mut held: BTreeSet<u64> = BTreeSet::new();
            for step in 0..600_u64 {
                let random = mix64(seed << 32 | step);
                if random % 5 < 3 {
                    let len = random >> 8 & 3;
                    let len = len + 1;
                    let start = free.allocate(len);
                    for run in &used {
                        assert!(start >= run.start + run.len || start + len <= run.start);
                    }
                    assert!((start..start + len).all(|page| !held.contains(&page)));
                    used.push(Run { start, len });
                } else if !used.is_empty() {
                    let run = used.swap_remove((random >> 16) as usize % used.len());
                    held.extend(run.start..run.start + run.len);
                    free.hold(step, vec![(0, run)]);
                    if random >> 40 & 1 == 0 {
                        free.release(|_, freed_by| freed_by > step);
                        held.clear();
                        free.trim();
                    }
                }
                let in_use: u64 = used.iter().map(|run| run.len).sum();
                assert_eq!(
                    in_use + free.free_units() + 2,
                    free.file_units,
                    "seed {seed}"
                );
                let runs = free.all_runs();
                assert_eq!(
                    runs.iter().map(|run| run.len).sum::<u64>(),
                    free.free_units()
                );
                let stored = freelist::encode(&runs);
                let read: Result<Vec<Run>, _> = freelist::decode(&stored).collect();
                assert_eq!(read.as_ref(), Ok(&runs));
            }
        }
    }

    /// A checkpoint, even of one key, copied all free runs first, and sorted them twice.
    #[test]
    fn a_checkpoint_that_fails_leaves_no_change() {
        for seed in 0..200_u64 {
            let random = |n: u64, below: u64| mix64(seed << 32 | n) % below;
            let mut free = FreeSpace::new(500);
            for n in 0..60 {
                let run = Run {
                    start: 2 + random(n, 490),
                    len: 1 + random(!n, 4),
                };
                match free.leave_out_impossible(2, &mut vec![run]) {
                    true if n % 3 > 0 => drop(free.give(run)),
                    true => free.hold(n, vec![(0, run)]),
                    false => {}
                }
            }
            let loads = [free.reserve(3), free.reserve(5)];
            free.attach(loads[1]);
            free.release(|_, freed_by| freed_by > 30);
            let before = free.clone();
            for is_kept in [false, true] {
                free.begin();
                let mut taken = Vec::new();
                for n in 100..120 {
                    let len = 1 + random(n, 5);
                    let start = free.allocate(len);
                    taken.push((0, Run { start, len }));
                }
                free.release_attached();
                free.hold(99, taken.split_off(10));
                free.give(taken.remove(0).1);
                free.trim();
                let after = free.clone();
                if is_kept {
                    free.keep_changes();
                    assert_eq!(free.changes, None);
                    assert_eq!(free.all_runs(), after.all_runs());
                    assert_eq!(free.file_units, after.file_units);
                } else {
                    free.take_back_changes();
                    assert_eq!(free, before, "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_have_been_in_use_is_left_out() {
        for seed in 0..300_u64 {
            let random = |n: u64, below: u64| mix64(seed << 32 | n) % below;
            let mut free = FreeSpace::new(100);
            let run_of = |n: u64| Run {
                start: random(2 * n, 103),
                len: random(2 * n + 1, 5),
            };
            for n in 0..8 {
                let run = run_of(n);
                match free.leave_out_impossible(2, &mut vec![run]) {
                    true if n % 2 == 0 => drop(free.give(run)),
                    true => free.hold(n, vec![(0, run)]),
                    false => {}
                }
            }
            free.reserve(1 + random(200, 4));
            let mut taken: BTreeSet<u64> = BTreeSet::new();
            for run in free.all_runs() {
                assert!((run.start..run.start + run.len).all(|page| taken.insert(page)));
            }
            let mut runs: Vec<Run> = (100..110).map(run_of).collect();
            runs.push(Run {
                start: u64::MAX - 1,
                len: 9,
            });
            let mut sorted = runs.clone();
            sorted.sort_unstable();
            let (mut wanted, mut end) = (Vec::new(), 2);
            for run in sorted {
                let Some(run_end) = run.start.checked_add(run.len) else {
                    continue;
                };
                if run.len == 0 || run.start < end || run_end > free.file_units {
                    continue;
                }
                end = run_end;
                if (run.start..run_end).all(|page| !taken.contains(&page)) {
                    wanted.push(run);
                }
            }
            assert!(!free.leave_out_impossible(2, &mut runs));
            assert_eq!(runs, wanted, "seed {seed}");
        }
    }

    /// The lowest run that is long enough, among many that are not.
    #[test]
    fn the_lowest_run_that_fits_is_taken() {
        for seed in 0..10_u64 {
            let mut free = FreeSpace::new(10_000);
            for start in (0..10_000).step_by(10) {
                let len = mix64(seed << 32 | start) % 9;
                assert!(free.give(Run { start, len }));
            }
            for step in 0..500_u64 {
                let len = mix64(!seed << 32 | step) % 8 + 1;
                let fitting = free.ready_runs().find(|run| run.len >= len);
                let wanted = fitting.map_or(free.file_units, |run| run.start);
                assert_eq!(free.allocate(len), wanted, "seed {seed}");
            }
        }
    }

    #[test]
    fn what_is_needed_stays_held() {
        let mut free = FreeSpace::new(20);
        let run = |start| Run { start, len: 1 };
        free.hold(5, vec![(1, run(3)), (4, run(7)), (1, run(9))]);
        free.hold(6, vec![(1, run(12))]);
        free.release(|birth, freed_by| birth < 4 && freed_by > 5);
        assert_eq!(free.held_runs().collect::<Vec<_>>(), [(6, run(12))]);
        free.hold(7, vec![(2, run(14)), (6, run(16))]);
        free.release(|birth, _| birth == 2);
        assert_eq!(free.held_runs().collect::<Vec<_>>(), [(7, run(14))]);
        assert_eq!(free.free_units(), 6);
    }

    #[test]
    fn reserved_pages_are_free_for_the_file_and_taken_by_no_other() {
        let run = |start, len| Run { start, len };
        let mut free = FreeSpace::new(10);
        assert!(free.give(run(4, 3)));
        let (low, high) = (free.reserve(2), free.reserve(8));
        assert_eq!((low, high, free.file_units), (4, 10, 18));
        assert_eq!(free.all_runs(), [run(4, 2), run(6, 1), run(10, 8)]);
        assert_eq!((free.all_runs().len(), free.free_units()), (3, 1));
        assert_eq!([5, 12, 18].map(|end| free.reserved_units(end)), [1, 4, 10]);
        assert_eq!(free.allocate(1), 6);
        assert_eq!(free.allocate(1), 18);
        free.trim();
        assert_eq!(free.file_units, 19);
        free.end_reservation(high, 3);
        free.end_reservation(low, 0);
        assert_eq!(free.all_runs(), [run(4, 2), run(10, 3), run(13, 5)]);
        free.attach(high);
        let mut written = free.clone();
        written.release_attached();
        assert_eq!(written.all_runs(), [run(4, 2), run(13, 5)]);
        // As recovery finds it.
        for refused in [
            run(3, 2),
            run(5, 2),
            run(13, 6),
            run(13, 0),
            run(u64::MAX, 2),
        ] {
            assert!(!written.attach_free(refused), "{refused:?}");
        }
        assert!(written.attach_free(run(14, 2)) && !written.attach_free(run(15, 1)));
        assert_eq!(
            written.all_runs(),
            [run(4, 2), run(13, 1), run(14, 2), run(16, 2)]
        );
        written.release_attached();
        assert_eq!(written.all_runs(), [run(4, 2), run(13, 1), run(16, 2)]);
    }

    #[test]
    fn overlapping_gifts_are_refused() {
        let mut free = FreeSpace::new(20);
        assert!(free.give(Run { start: 4, len: 4 }));
        assert!(!free.give(Run { start: 6, len: 1 }));
        assert!(!free.give(Run { start: 3, len: 2 }));
        assert!(!free.give(Run { start: 19, len: 2 }));
        assert!(!free.give(Run {
            start: 1,
            len: u64::MAX
        }));
        assert!(free.give(Run { start: 8, len: 1 }));
        assert_eq!(free.all_runs(), [Run { start: 4, len: 5 }]);
    }
}
