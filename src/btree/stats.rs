//! Figures of the file's tree.

use std::sync::atomic::Ordering;

use super::node;
use super::node::inner::Inner;
use super::node::{Link, NodeKind};
use super::read::shared::PagesKept;
use super::state::Tree;
use crate::engine::LevelStats;

/// Inner pages that are looked at for figures.
const COUNTED_PAGES_MAX: u32 = 4096;

impl Tree {
    /// Pages per level of the file's tree, from the root, without looking at leaves. `None` if it
    /// has too many inner pages to look at for a figure, or one cannot be read.
    pub(super) fn count_levels(&self) -> Option<Vec<LevelStats>> {
        let (_kept, root) = self.keep_file_tree();
        self.count_levels_below(root)
    }

    /// The root of the file's tree, and what keeps its pages.
    pub(super) fn keep_file_tree(&self) -> (PagesKept<'_>, Link) {
        let _writer = self.writer.lock();
        let generation = self.shared.disk_generation.load(Ordering::Acquire);
        let root = Link::from_bits(self.disk_root.load(Ordering::Acquire));
        (self.shared.keep_generation(generation), root)
    }

    fn count_levels_below(&self, root: Link) -> Option<Vec<LevelStats>> {
        let unit = self.shared.pager.unit() as u64;
        let level_of = |nodes: u64, units: u64| LevelStats {
            files: nodes,
            bytes: units * unit,
        };
        // What is neither free nor an inner node nor a value belongs to leaves, nearly.
        let used = self.counters.used_units.load(Ordering::Relaxed);
        let mut inner_units = 0;
        let mut levels = Vec::new();
        let mut row = vec![root];
        let mut looked_at = 0;
        loop {
            let mut below = Vec::new();
            let (mut nodes, mut units, mut leaves) = (0, 0, 0);
            for link in row {
                let guard = crossbeam_epoch::pin();
                let image = self.shared.disk_node(link, None, &guard).ok()?;
                nodes += 1;
                units += u64::from(node::unit_count(&image));
                looked_at += 1;
                if looked_at > COUNTED_PAGES_MAX {
                    return None;
                }
                if node::kind(&image) == Some(NodeKind::Leaf) {
                    continue;
                }
                let inner = Inner::from_image(&image);
                if inner.level() == 1 {
                    leaves += inner.child_count() as u64;
                } else {
                    below.extend((0..inner.child_count()).map(|i| inner.child(i)));
                }
            }
            levels.push(level_of(nodes, units));
            inner_units += units;
            if leaves > 0 {
                levels.push(level_of(leaves, used.saturating_sub(inner_units)));
            }
            if below.is_empty() {
                return Some(levels);
            }
            row = below;
        }
    }
}
