//! Asking for the leaves of a long batch before they are looked at.
//!
//! The leaves for keys that rise are asked for below one node of level 1 at a time, in the order of
//! the file and with few requests. So a device is kept busy with long pieces, while the leaves that
//! were asked for before are looked at one after the other.

use crossbeam_epoch::Guard;

use super::shared::SharedTree;
use crate::btree::memory::node::{ChildRef, MemInner};
use crate::btree::node::inner::Inner;
use crate::btree::node::packs::PackedLeaf;
use crate::btree::node::{self, Link, NodeKind};
use crate::error::Result;

/// Where a leaf of the file is referred to by a node in memory.
pub(crate) type Referrer<'g> = (&'g MemInner, usize);

impl SharedTree {
    /// Asks for what is below the node of level 1 above the leaf for the first of `keys`, which
    /// rise, and does not wait for it: the leaves for those keys that it covers, and their packs,
    /// unless they seem to be in memory. `is_needed` is asked about leaves that a node in memory
    /// refers to, with the number of the key. Returns how many keys the node covers.
    pub(crate) fn ask_for_branch<'a>(
        &self,
        keys: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
        is_needed: impl Fn(usize, &PackedLeaf, Referrer<'_>) -> bool,
        guard: &Guard,
    ) -> Result<usize> {
        let Some(first) = keys.clone().next() else {
            return Ok(0);
        };
        let mut child = self.root.load(guard);
        let mut level = None;
        let mut links = Vec::new();
        let covered = loop {
            match child {
                ChildRef::Leaf(_) => return Ok(keys.len()),
                ChildRef::Inner(inner) => {
                    let inner = inner.get();
                    let node = inner.node();
                    level = node.level().checked_sub(1);
                    if level == Some(0) {
                        break for_each_child(node, keys, |n, i| {
                            if let ChildRef::Disk(page) = inner.slots[i].load(guard) {
                                let packed = inner.packed(i, page);
                                let leaf = packed.unwrap_or_else(|| PackedLeaf::alone(page));
                                if is_needed(n, &leaf, (inner, i)) {
                                    add_links(&mut links, &leaf);
                                }
                            }
                        });
                    }
                    child = inner.slots[node.find_child(first)].load(guard);
                }
                ChildRef::Disk(link) => {
                    let image = self.disk_node(link, level, guard)?;
                    if node::kind(&image) == Some(NodeKind::Leaf) {
                        return Ok(keys.len());
                    }
                    let node = Inner::from_image(&image);
                    level = node.level().checked_sub(1);
                    if level == Some(0) {
                        break for_each_child(node, keys, |_, i| {
                            let packed = node.packed(i);
                            let leaf = packed.unwrap_or_else(|| PackedLeaf::alone(node.child(i)));
                            add_links(&mut links, &leaf);
                        });
                    }
                    child = ChildRef::Disk(node.child(node.find_child(first)));
                }
            }
        };
        links.sort_unstable_by_key(|link| link.page());
        links.dedup();
        self.pager.ask_for_all(&links, guard);
        Ok(covered)
    }
}

fn add_links(links: &mut Vec<Link>, leaf: &PackedLeaf) {
    links.push(leaf.page);
    links.extend_from_slice(leaf.packs.as_slice());
}

/// Calls `visit` for each child of `node` that covers some of `keys`, which rise and of which it
/// covers the first, with the number of the first of them. Returns how many the node covers.
fn for_each_child<'a>(
    node: Inner<'_>,
    keys: impl Iterator<Item = &'a [u8]>,
    mut visit: impl FnMut(usize, usize),
) -> usize {
    let mut last = None;
    let mut covered = 0;
    for key in keys {
        let child = match last {
            None => Some(node.find_child(key)),
            Some(i) => node.find_child_from(i, key),
        };
        let Some(i) = child else { break };
        if last.replace(i) != Some(i) {
            visit(covered, i);
        }
        covered += 1;
    }
    covered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btree::node::inner;

    #[test]
    fn children_that_keys_fall_into_are_visited_once_and_no_others() {
        let separators: Vec<Vec<u8>> = (1..10).map(|n| vec![b'k', 10 * n]).collect();
        let separators: Vec<&[u8]> = separators.iter().map(|key| &**key).collect();
        let (lower, upper) = (&b"k\x05"[..], Some(&b"k\x64"[..]));
        let links = [Link::NOWHERE; 10];
        let image = inner::build(1, lower, upper, &separators, &links, 4096);
        let node = Inner::from_image(&image);
        let keys: Vec<[u8; 2]> = [5, 9, 20, 29, 30, 70, 71, 99, 100, 101]
            .map(|n| [b'k', n])
            .to_vec();
        let mut visited = Vec::new();
        let covered = for_each_child(node, keys.iter().map(|key| &key[..]), |n, i| {
            visited.push((n, i));
        });
        // Those from the upper fence on are not the node's.
        assert_eq!(covered, 8);
        assert_eq!(visited, [(0, 0), (2, 2), (4, 3), (5, 7), (7, 9)]);
    }
}
