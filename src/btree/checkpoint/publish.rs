//! Publishing a tree that was written: from now on the file's pages stand for its nodes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_epoch::Guard;

use super::checkpointer::Checkpointer;
use super::write::{FrozenTree, NewPlace, PackedBranches, Written};
use crate::btree::memory::node::{Body, Child, ChildRef, MemInner, MemLeaf, Slot};
use crate::btree::node::Link;
use crate::btree::node::inner::Inner;
use crate::btree::node::packs::{ChildPacks, Group, PackRef, PackedLeaf, Packs};
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
            freed,
            starts,
            nodes,
            packed,
            large,
            sparse_leaves,
            value_table,
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
        self.persisted_seq
            .store(meta.persisted_seq.0, Ordering::Release);
        self.has_load.store(false, Ordering::Relaxed);
        let mut publication = Publication {
            tree: &self.shared,
            nodes,
            packed,
            branches: Vec::new(),
            dirty_bytes: 0,
            replaced: &mut replaced,
            guard: &guard,
        };
        publication.convert(&self.shared.root);
        publication.put_branches();
        // Written, and superseded meanwhile: the pages are in the file's tree but not in ours.
        for (address, place) in &publication.nodes {
            writer.pending_frees.free_node(place.link, place.pages);
            writer.pending_frees.removed_entries += place.entries;
            for (page, units) in publication.packed.extents(*address) {
                let free = &mut writer.pending_frees;
                mutated!(
                    "packs-of-a-superseded-node-lost",
                    (),
                    free.free(page, units)
                );
            }
            let packs = publication.packed.links(*address);
            writer.pending_frees.nodes.extend(packs);
        }
        for (value, page, checksum) in large {
            let pages = self.shared.pager.units_for(value.bytes.len());
            value.set_extent(page, checksum);
            if value.dropped.load(Ordering::Acquire) {
                writer.pending_frees.free(page, pages);
                writer.pending_frees.freed_overflow_units += pages;
            }
        }
        let since = &writer.value_files;
        let held_files = &self.shared.held_files;
        held_files.leave(generation, |file| {
            let is_new = since.contains(&file);
            value_table.has(file)
                || is_new && !mutated!("file-of-a-change-beside-a-checkpoint-leaves")
        });
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
        let free = &mut checkpointer.free;
        free.keep_changes();
        free.file_units = meta.file_units;
        counters
            .free_units
            .store(free.free_units(), Ordering::Relaxed);
        checkpointer.meta = meta;
        checkpointer.value_table = value_table;
        counters
            .used_units
            .store(checkpointer.node_units(), Ordering::Relaxed);
        self.shared.count_leaves(checkpointer.node_units());
        *self.value_usage.lock() = Arc::new(checkpointer.value_usage());
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
        // A slot and the packs of its node belong together.
        let has_packs = old.packs.is_some() || node.packs().is_some();
        if node.child_count() != old.slots.len() || has_packs {
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
struct Publication<'g, 'r> {
    tree: &'g SharedTree,
    /// What was written and not found in the current tree yet.
    nodes: HashMap<usize, NewPlace>,
    /// What packs hold for the leaves of the file.
    packed: PackedBranches,
    /// Nodes of level 1 in the current tree whose packs have changed.
    branches: Vec<NewBranch<'g>>,
    /// Bytes of what stays in memory.
    dirty_bytes: u64,
    /// Nodes that pages took the place of.
    replaced: &'r mut Vec<Child>,
    guard: &'g Guard,
}

/// A node of level 1 that takes the place of another one.
struct NewBranch<'g> {
    slot: &'g Slot,
    old: &'g MemInner,
    children: Vec<Child>,
    packs: Packs,
    /// Where each of its groups comes from.
    sources: Vec<Source>,
}

/// The leaf of the file below a leaf in memory.
#[derive(Debug, Clone, Copy)]
enum Below {
    /// The checkpoint wrote it, or packs for it.
    Written(Link),
    /// The checkpoint may have written packs for it.
    AsItWas(Link),
}

impl Below {
    fn page(self) -> Link {
        match self {
            Self::Written(page) | Self::AsItWas(page) => page,
        }
    }
}

/// A group, before it was known which of its children a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Of the checkpoint.
    Written(usize),
    /// Of a node that was loaded after it began.
    Loaded(usize),
}

impl<'g> Publication<'g, '_> {
    fn convert(&mut self, slot: &'g Slot) {
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
                let inner = inner.get();
                let has_packs = inner.packs.is_some() || !self.packed.is_empty();
                if inner.node().level() == 1 && has_packs {
                    self.convert_branch(slot, inner);
                    return;
                }
                for slot in inner.slots.iter() {
                    self.convert(slot);
                }
            }
            ChildRef::Leaf(leaf) => {
                self.convert_leaf(leaf.get());
            }
            ChildRef::Disk(_) => {}
        }
    }

    /// A leaf that was not written as it is. Returns the leaf of the file below it.
    fn convert_leaf(&mut self, leaf: &MemLeaf) -> Option<Below> {
        let state = leaf.read();
        self.dirty_bytes += state.size_bytes() as u64;
        let Body::Changes(changes) = &state.body else {
            return None;
        };
        let base = changes.base(self.guard);
        // Changed after it was frozen (BW5). The place stays among those to be freed: the changed
        // leaf will be written to another one.
        let written = base.address().and_then(|address| self.nodes.get(&address));
        let below = match (written, &base) {
            (Some(place), _) => Below::Written(place.link),
            (None, ChildRef::Leaf(leaf)) => match &leaf.read().body {
                Body::Packed(below) => Below::AsItWas(below.page),
                _ => return None,
            },
            (None, _) => return None,
        };
        match (self.packed.leaf(below.page()), below) {
            (Some((_, leaf, _)), Below::AsItWas(_)) => {
                let moved = || changes.move_base(&leaf, self.guard);
                mutated!("changes-lie-over-packs-that-were-merged", (), moved());
            }
            (Some((_, leaf, _)), _) => changes.move_base(&leaf, self.guard),
            (None, Below::Written(page)) => {
                changes.move_base(&PackedLeaf::alone(page), self.guard);
            }
            (None, Below::AsItWas(_)) => {}
        }
        Some(below)
    }

    /// A node of level 1 in the current tree. Readers find out from its packs and its children
    /// together what a leaf holds, so both are replaced at once, by another node.
    fn convert_branch(&mut self, slot: &'g Slot, old: &'g MemInner) {
        let count = old.slots.len();
        let none = Packs::none(count);
        let loaded = old.packs.as_deref().unwrap_or(&none);
        let mut children = Vec::with_capacity(count);
        let mut packs = Packs {
            children: vec![ChildPacks::default(); count],
            groups: Vec::new(),
        };
        let mut sources: Vec<Source> = Vec::new();
        for (i, slot) in old.slots.iter().enumerate() {
            let child = slot.load(self.guard);
            let below = match &child {
                ChildRef::Disk(page) => {
                    children.push(Child::Disk(*page));
                    Some(Below::AsItWas(*page))
                }
                ChildRef::Leaf(leaf) => {
                    let place = child
                        .address()
                        .and_then(|address| self.nodes.remove(&address));
                    match place {
                        Some(place) => {
                            self.replaced.push(child.to_owned());
                            children.push(Child::Disk(place.link));
                            Some(Below::Written(place.link))
                        }
                        None => {
                            children.push(child.to_owned());
                            self.convert_leaf(leaf.get())
                        }
                    }
                }
                ChildRef::Inner(_) => None,
            };
            let Some(below) = below else { continue };
            let is_as_it_was = matches!(below, Below::AsItWas(_));
            let (source, held, number, group) = match self.packed.leaf(below.page()) {
                Some((group, leaf, number)) => {
                    let source = Source::Written(group);
                    (source, leaf.held, number, self.packed.group(group))
                }
                // Its node was loaded after the checkpoint began. What packs held for a leaf that
                // was written is void.
                None if is_as_it_was && loaded.children[i].mask != 0 => {
                    let group = loaded.group_of(i);
                    let held = loaded.children[i];
                    (Source::Loaded(group), held, i, &loaded.groups[group])
                }
                None => continue,
            };
            packs.children[i] = held;
            if sources.last() != Some(&source) {
                packs.groups.push(Group {
                    first: if packs.groups.is_empty() { 0 } else { i },
                    old: Vec::new(),
                    ..group.clone()
                });
                sources.push(source);
            }
            let new = packs.groups.last_mut().expect("one was just pushed");
            if held.mask & 1 != 0
                && let Some(pack) = group.old_pack(number)
                && new.old.last().is_none_or(|last| last.link != pack.link)
            {
                new.old.push(PackRef { first: i, ..pack });
            }
        }
        if packs.groups.is_empty() {
            packs = none;
        }
        self.branches.push(NewBranch {
            slot,
            old,
            children,
            packs,
            sources,
        });
    }

    /// Puts the new nodes of level 1 into the tree.
    fn put_branches(&mut self) {
        // A group of the checkpoint may have children in several nodes by now.
        let mut seen: HashMap<usize, usize> = HashMap::new();
        for branch in &self.branches {
            for source in &branch.sources {
                if let Source::Written(group) = source {
                    *seen.entry(*group).or_default() += 1;
                }
            }
        }
        for branch in std::mem::take(&mut self.branches) {
            let mut packs = branch.packs;
            for (group, source) in packs.groups.iter_mut().zip(&branch.sources) {
                if let Source::Written(written) = source {
                    group.is_cut |= seen.get(written).is_some_and(|nodes| *nodes > 1);
                }
            }
            let packs = (!packs.is_empty()).then(|| Arc::new(packs));
            let old = branch.old;
            let new = MemInner::new(old.generation, Arc::clone(&old.image), branch.children);
            let replaced = branch.slot.load(self.guard).to_owned();
            self.replaced.push(replaced);
            let new = Child::Inner(Arc::new(new.with_packs(packs)));
            self.tree.store(branch.slot, new, self.guard);
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
