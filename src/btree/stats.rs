//! Figures of the file's tree.

use std::sync::atomic::Ordering;

use super::node;
use super::node::inner::Inner;
use super::node::{Link, NodeKind};
use super::state::Tree;
use crate::engine::LevelStats;

/// Inner pages that are looked at for figures.
const COUNTED_PAGES_MAX: u32 = 4096;

impl Tree {
    /// Pages per level of the file's tree, from the root, without looking at leaves. `None` if it
    /// has too many inner pages to look at for a figure, or one cannot be read.
    pub(super) fn count_levels(&self) -> Option<Vec<LevelStats>> {
        // Registered like a view, so that no page of the tree is reused meanwhile.
        let (generation, root) = {
            let _writer = self.writer.lock();
            let root = Link::from_bits(self.disk_root.load(Ordering::Acquire));
            (self.shared.register_view(), root)
        };
        let levels = self.count_levels_below(root);
        self.shared.unregister_view(generation);
        levels
    }

    fn count_levels_below(&self, root: Link) -> Option<Vec<LevelStats>> {
        let page_size = self.shared.page_size() as u64;
        let level_of = |pages: u64| LevelStats {
            files: pages,
            bytes: pages * page_size,
        };
        let mut levels = Vec::new();
        let mut row = vec![root];
        let mut looked_at = 0;
        loop {
            let mut below = Vec::new();
            let mut pages = 0;
            let mut leaves = 0;
            for link in row {
                let guard = crossbeam_epoch::pin();
                let image = self.shared.disk_node(link, None, &guard).ok()?;
                pages += u64::from(node::page_count(&image));
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
            levels.push(level_of(pages));
            if leaves > 0 {
                levels.push(level_of(leaves));
            }
            if below.is_empty() {
                return Some(levels);
            }
            row = below;
        }
    }
}
