//! Publishing a tree that was written: from now on the file's pages stand for its nodes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_epoch::Guard;

use super::checkpointer::Checkpointer;
use super::write::{FrozenTree, NewPlace, Written};
use crate::btree::memory::node::{Body, Child, ChildRef, Slot};
use crate::btree::node::Link;
use crate::btree::node::inner::Inner;
use crate::btree::read::shared::SharedTree;
use crate::btree::state::Tree;
use crate::util::mutants::mutated;

impl Tree {
    /// Step 5. Returns the nodes that pages took the place of, for the caller to drop when no
    /// reader looks at them any more: otherwise any reader might be the last to release a whole
    /// tree, and would spend its time on freeing it.
    pub(super) fn publish(
        &self,
        checkpointer: &mut Checkpointer,
        frozen: &FrozenTree,
        written: Written,
    ) -> Vec<Child> {
        let Written {
            meta,
            mut free,
            freed,
            starts,
            nodes,
            large,
            sparse_leaves,
            bytes,
        } = written;
        let generation = meta.generation;
        let mut replaced = Vec::new();
        let mut writer = self.writer.lock();
        let guard = crossbeam_epoch::pin();
        // First, so that a reader that sees a reference to a new page sees this (E4).
        self.shared
            .disk_seq
            .store(meta.persisted_seq.0, Ordering::Release);
        let mut publication = Publication {
            tree: &self.shared,
            nodes,
            dirty_bytes: 0,
            replaced: &mut replaced,
            guard: &guard,
        };
        publication.convert(&self.shared.root);
        // Written, and superseded meanwhile: the pages are in the file's tree but not in ours.
        for place in publication.nodes.values() {
            writer.pending_frees.free(place.link.page(), place.pages);
            writer.pending_frees.removed_entries += place.entries;
        }
        for (value, page, checksum) in large {
            let pages = self.shared.pager.units_for(value.bytes.len());
            value.set_extent(page, checksum);
            if value.dropped.load(Ordering::Acquire) {
                writer.pending_frees.free(page, pages);
                writer.pending_frees.freed_overflow_units += pages;
            }
        }
        writer.dirty_bytes = publication.dirty_bytes;
        writer.checkpointing = false;
        self.dirty_bytes
            .store(writer.dirty_bytes, Ordering::Relaxed);
        self.shared
            .disk_generation
            .store(generation, Ordering::Release);
        self.disk_root.store(meta.root.bits(), Ordering::Release);
        let since = writer.first_since_checkpoint;
        let since = mutated!("changes-beside-a-checkpoint-forgotten", None, since);
        let oldest = since.map_or(0, |seq| seq.0);
        self.oldest_unpersisted.store(oldest, Ordering::Release);
        self.shared.merge_cost.settle();
        // They keep what this checkpoint freed.
        let cached = self.take_cached_views(&mut writer);
        drop(writer);
        drop(guard);
        drop(cached);
        drop(self.fingers.take_all());

        self.put_pages_into(frozen, meta.root, &mut replaced);

        let counters = &self.counters;
        counters.entries.store(meta.entries, Ordering::Relaxed);
        counters
            .height
            .store(u64::from(meta.height), Ordering::Relaxed);
        counters
            .checkpoint_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        counters
            .sparse_leaves
            .fetch_add(sparse_leaves, Ordering::Relaxed);
        free.file_units = meta.file_units;
        counters
            .free_units
            .store(free.free_units(), Ordering::Relaxed);
        checkpointer.meta = meta;
        checkpointer.free = free;
        counters
            .used_units
            .store(checkpointer.node_units(), Ordering::Relaxed);
        let spans = self.shared.reader_spans();
        checkpointer.note_births(generation, &spans, freed.into_iter(), &starts);

        let quiet = Arc::clone(&self.shared.quiet_generation);
        let guard = crossbeam_epoch::pin();
        guard.defer(move || quiet.fetch_max(generation, Ordering::AcqRel));
        guard.flush();
        replaced
    }

    /// Views of the frozen tree read its pages from now on, and its nodes need no memory. The span
    /// that such a view registered keeps the pages.
    fn put_pages_into(&self, frozen: &FrozenTree, root: Link, replaced: &mut Vec<Child>) {
        let Child::Inner(old) = &frozen.root else {
            return;
        };
        let guard = crossbeam_epoch::pin();
        let Ok(image) = self.shared.pager.owned_node(root, &guard) else {
            return;
        };
        let node = Inner::from_image(&image);
        if node.child_count() != old.slots.len() {
            return;
        }
        for (i, slot) in old.slots.iter().enumerate() {
            let child = slot.load(&guard);
            if !matches!(child, ChildRef::Disk(_)) {
                replaced.push(child.to_owned());
                slot.store(Child::Disk(node.child(i)), &guard);
            }
        }
    }
}

/// Turns references to nodes that were written into references to their pages.
struct Publication<'g> {
    tree: &'g SharedTree,
    /// What was written and not found in the current tree yet.
    nodes: HashMap<usize, NewPlace>,
    /// Bytes of what stays in memory.
    dirty_bytes: u64,
    /// Nodes that pages took the place of.
    replaced: &'g mut Vec<Child>,
    guard: &'g Guard,
}

impl Publication<'_> {
    fn convert(&mut self, slot: &Slot) {
        let child = slot.load(self.guard);
        let Some(address) = child.address() else {
            return;
        };
        if self.nodes.contains_key(&address) {
            // Unchanged since it was frozen, and so is everything below it: changing a node
            // copies the nodes above it first.
            self.forget(&child);
            let place = self.nodes.remove(&address);
            let link = place.expect("looked at").link;
            self.replaced.push(child.to_owned());
            self.tree.store(slot, Child::Disk(link), self.guard);
            return;
        }
        match child {
            ChildRef::Inner(inner) => {
                self.dirty_bytes += inner.size_bytes() as u64;
                for slot in inner.get().slots.iter() {
                    self.convert(slot);
                }
            }
            ChildRef::Leaf(leaf) => {
                let state = leaf.read();
                if let Body::Changes(changes) = &state.body
                    && let Some(address) = changes.base(self.guard).address()
                    && let Some(place) = self.nodes.get(&address)
                {
                    // Changed after it was frozen (BW5). The place stays among those to be freed:
                    // the changed leaf will be written to another one.
                    changes.move_base(place.link, self.guard);
                }
                self.dirty_bytes += state.size_bytes() as u64;
            }
            ChildRef::Disk(_) => {}
        }
    }

    /// Everything below an unchanged node is in the file's tree.
    fn forget(&mut self, child: &ChildRef<'_>) {
        if let ChildRef::Inner(inner) = child {
            for slot in inner.slots.iter() {
                let child = slot.load(self.guard);
                if let Some(address) = child.address() {
                    self.nodes.remove(&address);
                }
                self.forget(&child);
            }
        }
    }
}
