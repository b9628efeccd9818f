//! A tree of full nodes, from entries in the order of their keys.
//!
//! Leaves are filled to the page. A leaf is built when the key behind it is known, since its fences
//! decide what the prefix of its keys is; inner nodes above it grow at the same time, one open node
//! on each level. Memory is two leaves, the open nodes, and what is gathered for the next write.
//!
//! Pages are reserved in large runs ([`FreeSpace`](crate::btree::file::freespace::FreeSpace)), so
//! neighbours lie beside each other, and no checkpoint is waited for but now and then.

use std::sync::Arc;

use crate::btree::checkpoint::checkpointer::Checkpointer;
use crate::btree::file::freespace::Run;
use crate::btree::memory::node::is_large;
use crate::btree::node::leaf::LeafValue;
use crate::btree::node::{self, Link, inner, leaf};
use crate::btree::read::shared::SharedTree;
use crate::btree::state::Tree;
use crate::error::{Error, Result};
use crate::format::checksum::checksum;
use crate::fs::File;
use crate::types::PageId;
use crate::util::key_prefix::shortest_separator;
use crate::util::mutants::mutated;

/// What is reserved at once.
const RESERVED_BYTES: usize = 4 << 20;
/// What is written at once.
const WRITE_BYTES: usize = 1 << 20;
/// A node with fewer children grows beyond a page instead: long separators would leave the tree
/// without branching.
const MIN_CHILDREN: usize = 8;
/// Bytes of an inner node's header, at most.
const INNER_HEADER_BYTES: usize = 128;

/// A tree that was built, in pages that are reserved and that nothing refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BuiltTree {
    pub(super) root: Link,
    /// Of the root; 0 for a lone leaf.
    pub(super) level: u8,
    pub(super) entries: u64,
    pub(super) overflow_units: u64,
    /// Where its pages are.
    pub(super) runs: Vec<Run>,
}

/// A value as its leaf will have it.
#[derive(Debug, Clone, Copy)]
enum Held {
    /// In the bytes, at this place.
    Inline { at: usize, len: usize },
    Overflow {
        page: PageId,
        len: u32,
        checksum: u32,
    },
}

/// An entry of the leaf that is being filled.
#[derive(Debug, Clone, Copy)]
struct Slot {
    key_at: usize,
    key_len: usize,
    value: Held,
    /// Key and value as they are stored.
    bytes: usize,
}

/// The inner node that is being filled on a level.
#[derive(Debug, Default)]
struct OpenNode {
    lower: Vec<u8>,
    separators: Vec<Vec<u8>>,
    children: Vec<Link>,
    bytes: usize,
}

/// Builds a tree. Dropping it gives its pages back.
pub(super) struct TreeBuilder<T: AsRef<Tree>> {
    tree: T,
    file: Arc<dyn File>,
    runs: Vec<Run>,
    /// Units of the last run that are used.
    used: u64,
    /// Bytes for the file from `buffer_at` on.
    buffer: Vec<u8>,
    buffer_at: u64,
    /// Keys and values of `slots`.
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    slots_bytes: usize,
    /// Lower fence of the leaf that is being filled.
    lower: Vec<u8>,
    /// From level 1.
    open: Vec<OpenNode>,
    entries: u64,
    overflow_units: u64,
}

impl<T: AsRef<Tree>> TreeBuilder<T> {
    pub(super) fn new(tree: T) -> Result<Self> {
        let file = tree.as_ref().shared.pager.file()?;
        Ok(Self {
            tree,
            file,
            runs: Vec::new(),
            used: 0,
            buffer: Vec::new(),
            buffer_at: 0,
            bytes: Vec::new(),
            slots: Vec::new(),
            slots_bytes: 0,
            lower: Vec::new(),
            open: Vec::new(),
            entries: 0,
            overflow_units: 0,
        })
    }

    fn shared(&self) -> &SharedTree {
        &self.tree.as_ref().shared
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Adds an entry, whose key comes after the last one's.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let page_size = self.shared().page_size();
        let key_at = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let (value, stored_len) = if is_large(key, value.len(), page_size) {
            let held = self.write_large(value)?;
            (held, held.as_value(&[]).stored_len())
        } else {
            let at = self.bytes.len();
            self.bytes.extend_from_slice(value);
            let len = value.len();
            (Held::Inline { at, len }, len)
        };
        let slot = Slot {
            key_at,
            key_len: key.len(),
            value,
            bytes: key.len() + stored_len,
        };
        self.slots.push(slot);
        self.slots_bytes += slot.bytes;
        self.entries += 1;
        // The fences of a leaf have a common prefix that is no longer than that of any two keys
        // with it, so this is the least that it needs.
        while self.slots.len() > 1 && self.least_bytes() > page_size {
            self.close_leaf()?;
        }
        Ok(())
    }

    fn key(&self, slot: usize) -> &[u8] {
        let Slot {
            key_at, key_len, ..
        } = self.slots[slot];
        &self.bytes[key_at..key_at + key_len]
    }

    fn least_bytes(&self) -> usize {
        let last = self.key(self.slots.len() - 1);
        leaf::bytes_of(&self.lower, Some(last), self.slots.len(), self.slots_bytes)
    }

    /// Builds a leaf of as many slots as fit, which is not all of them.
    fn close_leaf(&mut self) -> Result<()> {
        let page_size = self.shared().page_size();
        let mut count = self.slots.len() - 1;
        let mut bytes = self.slots_bytes - self.slots[count].bytes;
        let separator = loop {
            let separator = shortest_separator(self.key(count - 1), self.key(count));
            let needed = leaf::bytes_of(&self.lower, Some(separator), count, bytes);
            if needed <= page_size || count == 1 {
                break separator.to_vec();
            }
            count -= 1;
            bytes -= self.slots[count].bytes;
        };
        self.build_leaf(count, Some(&separator))?;
        let rest_at = self.slots[count].key_at;
        self.bytes.drain(..rest_at);
        self.slots.drain(..count);
        for slot in &mut self.slots {
            slot.key_at -= rest_at;
            if let Held::Inline { at, .. } = &mut slot.value {
                *at -= rest_at;
            }
        }
        self.slots_bytes -= bytes;
        self.lower = separator;
        Ok(())
    }

    fn build_leaf(&mut self, count: usize, upper: Option<&[u8]>) -> Result<()> {
        let entries = (0..count).map(|at| {
            let value = self.slots[at].value.as_value(&self.bytes);
            (self.key(at), value)
        });
        let page_size = self.shared().page_size();
        let image = leaf::of_entries(&self.lower, upper, entries, page_size);
        let known = {
            let fences = (&self.lower[..], upper);
            self.shared().pager.known_from(&image, fences)
        };
        let link = self.place(image)?;
        if let Some(known) = known {
            let pager = &self.shared().pager;
            pager.note_leaves([(link.page(), known)], &crossbeam_epoch::pin());
        }
        let lower = std::mem::take(&mut self.lower);
        self.add_child(0, &lower, link)
    }

    /// Adds a node with that lower fence to the level above `level`.
    fn add_child(&mut self, level: usize, lower: &[u8], link: Link) -> Result<()> {
        if self.open.len() == level {
            self.open.push(OpenNode::default());
        }
        let page_size = self.shared().page_size();
        let cost = lower.len() + inner::RECORD_HEADER_LEN + inner::CHILD_LEN + 8;
        let node = &mut self.open[level];
        let is_full = node.children.len() >= MIN_CHILDREN
            && node.bytes + cost + node.lower.len() + lower.len() + INNER_HEADER_BYTES > page_size;
        if is_full {
            self.close_node(level, Some(lower))?;
        }
        let node = &mut self.open[level];
        match node.children.is_empty() {
            true => node.lower = lower.to_vec(),
            false => node.separators.push(lower.to_vec()),
        }
        node.children.push(link);
        node.bytes += cost;
        Ok(())
    }

    /// Writes the open node above `level`, which ends at `upper`.
    fn close_node(&mut self, level: usize, upper: Option<&[u8]>) -> Result<()> {
        let node = std::mem::take(&mut self.open[level]);
        let separators: Vec<&[u8]> = node.separators.iter().map(Vec::as_slice).collect();
        let page_size = self.shared().page_size();
        let image = inner::build(
            level as u8 + 1,
            &node.lower,
            upper,
            &separators,
            &node.children,
            page_size,
        );
        let link = self.place(image)?;
        self.add_child(level + 1, &node.lower, link)
    }

    /// Ends the tree, which has an entry. Everything is written, and not synced.
    pub(super) fn finish(mut self) -> Result<BuiltTree> {
        // The last leaf has no upper fence, and so no prefix.
        while leaf::bytes_of(&self.lower, None, self.slots.len(), self.slots_bytes)
            > self.shared().page_size()
            && self.slots.len() > 1
        {
            self.close_leaf()?;
        }
        self.build_leaf(self.slots.len(), None)?;
        let mut level = 0;
        let root = loop {
            let node = &self.open[level];
            if level + 1 == self.open.len() && node.children.len() == 1 {
                break node.children[0];
            }
            self.close_node(level, None)?;
            level += 1;
        };
        self.write_out()?;
        self.give_back_rest();
        Ok(BuiltTree {
            root,
            level: level as u8,
            entries: self.entries,
            overflow_units: self.overflow_units,
            runs: std::mem::take(&mut self.runs),
        })
    }

    fn write_large(&mut self, value: &[u8]) -> Result<Held> {
        let units = self.shared().pager.units_for(value.len());
        let page = self.allocate(units)?;
        let checksum = checksum(self.shared().pager.seed_of_page(page), value);
        self.overflow_units += units;
        self.write_at(page, value)?;
        Ok(Held::Overflow {
            page,
            len: value.len() as u32,
            checksum,
        })
    }

    /// Gives a node its place and its checksum.
    fn place(&mut self, mut image: Box<[u8]>) -> Result<Link> {
        let page = self.allocate(self.shared().pager.units_for(image.len()))?;
        node::set_page_id(&mut image, page);
        node::write_checksum(&mut image, self.shared().pager.seed_of_page(page));
        self.write_at(page, &image)?;
        Ok(Link::to(&image))
    }

    fn allocate(&mut self, units: u64) -> Result<PageId> {
        let left = self.runs.last().map_or(0, |run| run.len - self.used);
        if left < units {
            self.give_back_rest();
            let len = units.max((RESERVED_BYTES / self.shared().pager.unit()) as u64);
            let mut checkpointer = self.tree.as_ref().checkpointer.lock();
            let start = reserve(&mut checkpointer, len)?;
            // With the lock: the map may be made anew otherwise, with what was known before.
            let guard = crossbeam_epoch::pin();
            let known = mutated!("load-forgets-no-older-pages", 0, len);
            self.shared().pager.reuse(PageId(start), known, &guard);
            drop(checkpointer);
            self.runs.push(Run { start, len });
            self.used = 0;
        }
        let run = self.runs.last().expect("there is one with room");
        let page = PageId(run.start + self.used);
        self.used += units;
        Ok(page)
    }

    /// Gives back what the last run has left.
    fn give_back_rest(&mut self) {
        if let Some(run) = self.runs.last_mut()
            && self.used < run.len
        {
            let mut checkpointer = self.tree.as_ref().checkpointer.lock();
            checkpointer
                .free_mut()
                .end_reservation(run.start, self.used);
            run.len = self.used;
        }
    }

    /// Writes `bytes` to `page`, some time before [`TreeBuilder::write_out`] returns.
    fn write_at(&mut self, page: PageId, bytes: &[u8]) -> Result<()> {
        let at = self.shared().pager.offset(page);
        let end = self.buffer_at + self.buffer.len() as u64;
        // An overflow value ends within a unit.
        let gap = at
            .checked_sub(end)
            .filter(|gap| *gap < self.shared().pager.unit() as u64);
        match gap {
            Some(gap) if self.buffer.len() + bytes.len() <= WRITE_BYTES => {
                let len = self.buffer.len() + gap as usize;
                self.buffer.resize(len, 0);
            }
            _ => {
                self.write_out()?;
                self.buffer_at = at;
            }
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn write_out(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            let len = self.buffer.len() as u64;
            self.file.write_all_at(&self.buffer, self.buffer_at)?;
            self.file.start_writeback(self.buffer_at, len)?;
            self.buffer_at += len;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl<T: AsRef<Tree>> Drop for TreeBuilder<T> {
    fn drop(&mut self) {
        give_back(self.tree.as_ref(), &self.runs);
    }
}

impl Held {
    fn as_value<'a>(&self, bytes: &'a [u8]) -> LeafValue<'a> {
        match *self {
            Self::Inline { at, len } => LeafValue::Inline(&bytes[at..at + len]),
            Self::Overflow {
                page,
                len,
                checksum,
            } => LeafValue::Overflow {
                page,
                len,
                checksum,
            },
        }
    }
}

fn reserve(checkpointer: &mut Checkpointer, units: u64) -> Result<u64> {
    // What is free is not known then.
    checkpointer.check_usable()?;
    let free = checkpointer.free_mut();
    let start = free.reserve(units);
    if free.file_units > Link::UNITS_MAX {
        free.end_reservation(start, 0);
        let what = "the file has as many pages as a B-tree can have";
        return Err(Error::invalid(what));
    }
    Ok(start)
}

/// Makes reserved pages reusable, which nothing refers to.
pub(super) fn give_back(tree: &Tree, runs: &[Run]) {
    if !runs.is_empty() && !mutated!("pages-of-a-dropped-load-stay-reserved") {
        let mut checkpointer = tree.checkpointer.lock();
        for run in runs {
            checkpointer.free_mut().end_reservation(run.start, 0);
        }
    }
}
