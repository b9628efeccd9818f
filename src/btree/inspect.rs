//! What a tree looks like: the meta page, levels, pages, changes in memory, free space.
//!
//! The tree is that of one moment, a view: its nodes do not change, and its pages are not reused.
//! It is walked level by level, and each node is looked at under a pin of its own.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use crossbeam_epoch::Guard;

use super::file::freespace::{FreeSpace, Run};
use super::file::meta::Meta;
use super::memory::node::{Body, Changes, Child, ChildRef, LeafState};
use super::node::inner::Inner;
use super::node::leaf::{self, Leaf, LeafValue};
use super::node::pack::Pack;
use super::node::packs::{PackedLeaf, Packs};
use super::node::{self, Link, NodeKind};
use super::read::view::View;
use super::state::Tree;
use crate::engine::{InspectDetail, Inspection};
use crate::error::Result;

impl Tree {
    /// As [`crate::engine::Engine::inspect`]. Waits for a checkpoint that is running.
    pub(super) fn inspect(&self, detail: InspectDetail) -> Result<Vec<Inspection>> {
        let (meta, free) = {
            let checkpointer = self.checkpointer.lock();
            (
                checkpointer.meta().clone(),
                of_free_space(checkpointer.free(), detail),
            )
        };
        let view = self.latest_view();
        let mut parts = vec![of_meta(&meta, self.dirty_bytes.load(Ordering::Relaxed))];
        parts.extend(Walk::new(&view, detail).levels()?);
        parts.push(free);
        Ok(parts)
    }
}

fn of_meta(meta: &Meta, dirty_bytes: u64) -> Inspection {
    Inspection::new("meta", "")
        .number("generation", meta.generation)
        .number("root_page", meta.root.page().0)
        .number("height", meta.height.into())
        .number("persisted_seq", meta.persisted_seq.0)
        .number("entries_estimate", meta.entries)
        .number_if_any("overflow_units", meta.overflow_units)
        .number_if_any("value_files", meta.value_files)
        .number("file_units", meta.file_units)
        .number("page_bytes", meta.page_size.into())
        .number("unit_bytes", meta.unit.into())
        .number_if_any("dirty_memory_bytes", dirty_bytes)
}

fn of_free_space(free: &FreeSpace, detail: InspectDetail) -> Inspection {
    let units = |runs: &[Run]| runs.iter().map(|run| run.len).sum();
    let ready: Vec<Run> = free.ready_runs().collect();
    let held: Vec<Run> = free.held_runs().map(|(_, run)| run).collect();
    let mut part = Inspection::new("free_space", "")
        .number("units", units(&ready))
        .number("runs", ready.len() as u64)
        .number_if_any("held_units", units(&held));
    if detail >= InspectDetail::Tables {
        let run = |kind, run: Run| {
            Inspection::new(kind, format_args!("page {}", run.start)).number("units", run.len)
        };
        part.parts
            .extend(ready.iter().map(|ready| run("run", *ready)));
        part.parts.extend(
            free.held_runs().map(|(freed_by, held)| {
                run("held_run", held).number("freed_by_generation", freed_by)
            }),
        );
    }
    part
}

/// A level while its nodes are looked at.
#[derive(Default)]
struct Row {
    nodes: Vec<Inspection>,
    /// Nodes of the level below, and what packs hold for them.
    below: Vec<(Child, Option<PackedLeaf>)>,
    /// Nodes that are whole in memory, and leaves that are changes over another.
    whole: u64,
    changed: u64,
    changes: u64,
    /// Of leaves, where they were read.
    entries: u64,
    /// Packs with changes to the level below: how many, the units that they and their areas take,
    /// and each of them, if that was asked for.
    packs: u64,
    pack_units: u64,
    each_pack: Vec<Inspection>,
    /// Leaves to which packs hold changes.
    packed: u64,
}

struct Walk<'v> {
    view: &'v View,
    detail: InspectDetail,
    /// Pages that were looked at: hostile ones that all refer to the same ones would keep this busy
    /// forever.
    seen: HashSet<u64>,
}

impl<'v> Walk<'v> {
    fn new(view: &'v View, detail: InspectDetail) -> Self {
        Self {
            view,
            detail,
            seen: HashSet::new(),
        }
    }

    /// The levels, from the root.
    fn levels(mut self) -> Result<Vec<Inspection>> {
        let mut levels = Vec::new();
        let mut row = vec![(self.view.root().clone(), None)];
        // Unknown before the root has been seen.
        let mut level = None;
        loop {
            let mut seen = Row::default();
            let count = row.len() as u64;
            let is_read = level != Some(0) || self.detail >= InspectDetail::Tables;
            let mut number = level;
            for (child, packed) in row {
                seen.packed += u64::from(packed.is_some());
                let found = self.look(&child, packed, level, is_read, &mut seen)?;
                number = number.or(found);
            }
            let mut part = Inspection::new("level", number.unwrap_or(0)).number("nodes", count);
            if number == Some(0) && is_read {
                part = part.number("entries", seen.entries);
            }
            let part = part
                .number_if_any("whole_in_memory", seen.whole)
                .number_if_any("with_changes", seen.changed)
                .number_if_any("changes", seen.changes)
                .number_if_any("with_packs", seen.packed);
            levels.push(part.with(seen.nodes));
            if seen.packs > 0 {
                let part = Inspection::new("packs", "")
                    .number("packs", seen.packs)
                    .number("units", seen.pack_units);
                levels.push(part.with(seen.each_pack));
            }
            if seen.below.is_empty() {
                return Ok(levels);
            }
            row = seen.below;
            level = number.and_then(|number| number.checked_sub(1));
        }
    }

    /// Looks at a node, which must be at `level` if that is known; returns its level. Of a leaf
    /// that is not to be read, only what is in memory is looked at. Damage is a figure of the node.
    fn look(
        &mut self,
        child: &Child,
        packed: Option<PackedLeaf>,
        level: Option<u8>,
        is_read: bool,
        row: &mut Row,
    ) -> Result<Option<u8>> {
        let guard = crossbeam_epoch::pin();
        let (name, found) = match child.as_ref() {
            ChildRef::Disk(_) if !is_read => return Ok(Some(0)),
            ChildRef::Disk(link) if !self.seen.insert(link.page().0) => {
                let error = self.view.tree().pager.damaged(link.page(), "used twice");
                (name_of(link), Err(error))
            }
            ChildRef::Disk(link) => {
                let found = self.look_at_page(link, packed, level, &guard, row);
                (name_of(link), found)
            }
            ChildRef::Inner(inner) => {
                let inner = inner.get();
                row.whole += 1;
                row.below.extend((0..inner.slots.len()).map(|i| {
                    let child = inner.slots[i].load(&guard).to_owned();
                    (child, inner.packed_child(i, &guard))
                }));
                if let Some(packs) = &inner.packs {
                    self.look_at_packs(packs, &guard, row);
                }
                let part = of_inner(inner.node(), "in memory".into());
                (String::new(), Ok((inner.node().level(), part)))
            }
            ChildRef::Leaf(leaf) => {
                let part = self.look_at_leaf(&leaf.read(), is_read, &guard, row);
                ("in memory".into(), part.map(|part| (0, part)))
            }
        };
        let (level, part) = match found {
            Ok((level, part)) => (Some(level), part),
            Err(error) if error.is_corruption() => {
                (level, Inspection::new("node", name).text("damage", error))
            }
            Err(error) => return Err(error),
        };
        if self.detail >= InspectDetail::Tables {
            row.nodes.push(part);
        }
        Ok(level)
    }

    fn look_at_page(
        &self,
        link: Link,
        packed: Option<PackedLeaf>,
        level: Option<u8>,
        guard: &Guard,
        row: &mut Row,
    ) -> Result<(u8, Inspection)> {
        let tree = self.view.tree();
        if let Some(leaf) = packed {
            let image = tree.packed_image(&leaf, guard)?;
            row.entries += Leaf::from_image(&image).len() as u64;
            let part = of_leaf(&image, name_of(link))
                .number("packs", leaf.packs.as_slice().len() as u64)
                .number("packed_bytes", leaf.held.bytes.into());
            return Ok((0, part));
        }
        let image = tree.disk_node(link, level, guard)?;
        let part = if node::kind(&image) == Some(NodeKind::Leaf) {
            row.entries += Leaf::from_image(&image).len() as u64;
            of_leaf(&image, name_of(link))
        } else {
            let inner = Inner::from_image(&image);
            let child = |i| (Child::Disk(inner.child(i)), inner.packed(i));
            row.below.extend((0..inner.child_count()).map(child));
            if let Some(packs) = inner.packs() {
                self.look_at_packs(&packs.decode(), guard, row);
            }
            of_inner(inner, name_of(link))
        };
        Ok((node::level(&image), part))
    }

    /// The packs of a node. Damage is a figure of the pack.
    fn look_at_packs(&self, packs: &Packs, guard: &Guard, row: &mut Row) {
        row.pack_units += packs.extents().map(|(_, units)| units).sum::<u64>();
        let kinds = packs.groups.iter().flat_map(|group| {
            let old = group.old.iter().map(|pack| ("old_pack", pack));
            old.chain(group.recent.iter().map(|pack| ("recent_pack", pack)))
        });
        for (kind, pack) in kinds {
            row.packs += 1;
            if self.detail < InspectDetail::Tables {
                continue;
            }
            let part = Inspection::new(kind, name_of(pack.link));
            row.each_pack
                .push(match self.view.tree().disk_pack(pack.link, guard) {
                    Ok(image) => part
                        .number("changes", Pack::from_image(&image).len() as u64)
                        .number("units", pack.units.into()),
                    Err(error) => part.text("damage", error),
                });
        }
    }

    /// A leaf that is whole in memory, or changes over a page. It is frozen, so no thread waits
    /// for its lock while the page is read.
    fn look_at_leaf(
        &self,
        state: &LeafState,
        is_read: bool,
        guard: &Guard,
        row: &mut Row,
    ) -> Result<Inspection> {
        let changes = match &state.body {
            Body::Whole { image, .. } => {
                row.whole += 1;
                row.entries += Leaf::from_image(image).len() as u64;
                return Ok(of_leaf(image, "in memory".into()));
            }
            Body::Changes(changes) => changes,
            Body::Packed(leaf) => {
                let image = self.view.tree().packed_image(leaf, guard)?;
                return Ok(of_leaf(&image, name_of(leaf.page)));
            }
        };
        row.changed += 1;
        row.changes += changes.delta.len() as u64;
        let name = match changes.base_in_file(guard) {
            Some(leaf) => name_of(leaf.page),
            None => "of a running checkpoint".into(),
        };
        if !is_read {
            return Ok(Inspection::new("leaf", name));
        }
        let image = self.view.tree().merged_image(changes, guard)?;
        row.entries += Leaf::from_image(&image).len() as u64;
        let part = of_leaf(&image, name)
            .number("changes", changes.delta.len() as u64)
            .number_if_any("deletes", changes.delta.deletes() as u64);
        if self.detail < InspectDetail::Blocks {
            return Ok(part);
        }
        Ok(part.with(of_changes(changes)))
    }
}

fn name_of(link: Link) -> String {
    format!("page {}", link.page().0)
}

fn of_inner(inner: Inner<'_>, name: String) -> Inspection {
    let mut upper = Vec::new();
    let part = Inspection::new("inner", name)
        .number("children", inner.child_count() as u64)
        .number("used_bytes", inner.live_bytes() as u64)
        .key("lower_key", inner.lower_fence());
    match inner.write_upper_fence(&mut upper) {
        true => part.key("upper_key", &upper),
        false => part,
    }
}

fn of_leaf(image: &[u8], name: String) -> Inspection {
    let leaf = Leaf::from_image(image);
    let overflow = |i: &usize| matches!(leaf.value(*i), LeafValue::Overflow { .. });
    let mut upper = Vec::new();
    let part = Inspection::new("leaf", name)
        .number("entries", leaf.len() as u64)
        .number_if_any(
            "overflow_values",
            (0..leaf.len()).filter(overflow).count() as u64,
        )
        .number_if_any("values_apart", leaf::references(image).count() as u64)
        .number("used_bytes", leaf.live_bytes() as u64)
        .key("lower_key", leaf.lower_fence());
    match leaf.write_upper_fence(&mut upper) {
        true => part.key("upper_key", &upper),
        false => part,
    }
}

fn of_changes(changes: &Changes) -> impl Iterator<Item = Inspection> {
    changes.delta.iter().map(|(key, value)| match value {
        Some(value) => Inspection::new("put", "")
            .key("key", key)
            .number("value_bytes", value.value_len() as u64),
        None => Inspection::new("delete", "").key("key", key),
    })
}
