//! The scrub of a tree: its file read from storage again, at the pace that the caller sets.
//!
//! In pieces of key order: an inner node above leaves, with the leaves and their large values. Each
//! piece is found from the root of the file's tree as it is by then, whose pages are kept from
//! being reused only while the piece is read. So a scrub that takes days keeps nothing meanwhile,
//! and finds the way also when checkpoints move everything; what they write is read by the next
//! pass at the latest.

use super::file::meta::Meta;
use super::node;
use super::node::inner::Inner;
use super::node::{Link, NodeKind};
use super::state::Tree;
use super::verify::{Fences, Verifier, child_fences, root_level};
use crate::engine::VerifyReport;
use crate::error::{Error, Result};
use crate::fs::{File, Fs};

impl Tree {
    /// As [`crate::engine::Engine::scrub`].
    pub(super) fn scrub(
        &self,
        fs: &dyn Fs,
        pace: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<VerifyReport> {
        if !self.shared.pager.has_file() {
            return Ok(VerifyReport::default());
        }
        let mut report = VerifyReport {
            files: 1,
            ..VerifyReport::default()
        };
        let file = match fs.open_uncached(self.shared.pager.path()) {
            Ok(file) => file,
            Err(error) => {
                report.problem(error);
                return Ok(report);
            }
        };
        let mut from = Some(Vec::new());
        while let Some(start) = from {
            let (part, bytes, end) = self.scrub_piece(&*file, &start);
            report.merge(part);
            // Keys rise, or the tree would be walked forever.
            from = end.filter(|end| *end > start);
            pace(bytes)?;
        }
        Ok(report)
    }

    /// Reads the piece that `start` is in: what was found, the bytes read, and where the next piece
    /// begins.
    fn scrub_piece(&self, file: &dyn File, start: &[u8]) -> (VerifyReport, u64, Option<Vec<u8>>) {
        let checkpointer = self.checkpointer.lock();
        let meta: Meta = checkpointer.meta().clone();
        let mut verifier = Verifier::new(self, file, meta.file_units, true);
        if start.is_empty()
            && let Err(error) = verifier.check_meta_pages(&checkpointer)
        {
            verifier.report.problem(error);
        }
        let _kept = self.shared.keep_generation(meta.generation);
        drop(checkpointer);
        let level = root_level(&meta);
        let end = verifier.scrub_from(meta.root, level, &(Vec::new(), None), start);
        (verifier.report, verifier.bytes, end)
    }
}

impl Verifier<'_> {
    /// Reads the piece below `link` that `start` is in, and returns where it ends.
    fn scrub_from(
        &mut self,
        link: Link,
        level: u8,
        fences: &Fences,
        start: &[u8],
    ) -> Option<Vec<u8>> {
        let end = fences.1.clone();
        let node = self.read_node(link, level, fences);
        let Some(image) = self.noted(link, node).flatten() else {
            return end;
        };
        if node::kind(&image) == Some(NodeKind::Leaf) {
            let checked = self.check_values(&image, link.page());
            self.noted(link, checked);
            return end;
        }
        let inner = Inner::from_image(&image);
        if let Some(packs) = inner.packs() {
            let checked = self.check_packs(&packs.decode());
            self.noted(link, checked);
        }
        let below = level.saturating_sub(1);
        let is_before = |fences: &Fences| fences.1.as_ref().is_some_and(|end| **end <= *start);
        let children = (0..inner.child_count()).map(|i| (i, child_fences(inner, i)));
        for (i, fences) in children.skip_while(|(_, fences)| is_before(fences)) {
            let child_end = self.scrub_from(inner.child(i), below, &fences, start);
            if below > 0 {
                return child_end;
            }
        }
        end
    }

    /// What was read; an error of reading is a problem.
    fn noted<T>(&mut self, link: Link, read: Result<T>) -> Option<T> {
        match read {
            Ok(read) => Some(read),
            Err(error @ Error::Corruption { .. }) => {
                self.report.problem(error);
                None
            }
            Err(error) => {
                self.problem(link.page(), format!("{error:#}"));
                None
            }
        }
    }
}
