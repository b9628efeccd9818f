//! The B-tree engine: a page-oriented B+tree in one file, with its changes in memory.
//!
//! # Where things are
//!
//! ```text
//! engine.rs     the engine contract, opening and creating
//! tree.rs       what everybody shares: the root, point reads, who may see what
//! writer.rs     applying operations: put, delete, range delete, splits and merges
//! checkpoint.rs bringing a frozen tree into the file, and the flip of the meta pages
//! view.rs       immutable views; latest.rs, those of the present tree, which scans share
//! cursor.rs     the cursor over a view; merged.rs, changes over a page as one sequence
//! compact.rs    moving pages to the front and cutting the file
//! verify.rs     checking everything
//! slot.rs       references to nodes that change under readers' eyes (the unsafe module)
//! mem.rs        nodes in memory; children.rs, what an inner one refers to
//! delta.rs      changes to a page that stays on disk
//! pager.rs      pages from the memory map or the cache, checked at first touch
//! freespace.rs  free pages; meta.rs, the meta pages; node/, images of leaves and inner nodes
//! ```
//!
//! # How data flows
//!
//! A child reference is a page of the file or a node in memory. A put goes down to its leaf, makes every
//! node on the way the writer's own ([`writer`]), and changes the leaf under its small lock. A get goes
//! down without locks, under an epoch pin, and takes the leaf's lock for the moment of reading, or reads
//! the page where it lies in the map. A checkpoint *seals* the tree (generation + 1), writes its
//! changed nodes to free places while commits go on in copies, flips the meta pages, and turns the
//! references to those nodes into references to their pages. A view is a frozen root; scans share it
//! until something changes ([`latest`]).
//!
//! # Why changes, and not pages, are kept in memory
//!
//! The first plan was to copy a page into memory at its first change. With random keys each put then
//! dirties a page of its own: a write buffer of 64 MiB is full after 4,000 puts of 100 bytes, and a
//! checkpoint writes 140 bytes for one. So a leaf that is changed a little stays on disk, with a
//! small sorted [`delta`] in memory; it is made whole when the changes approach the size of a page, need
//! room that the page lacks, or concern large values. A leaf that is changed while a checkpoint writes it
//! stays as it is too: the new changes lie over it, and later over its page. So a checkpoint that goes
//! on does not double the memory for changes.
//!
//! # Invariants
//!
//! - **BT1** Nothing that a meta page on disk can reach is overwritten ([`freespace`], [`checkpoint`]).
//! - **BT2** A frozen node never changes (BW1 in [`writer`]).
//! - **BT3** A reader of the latest state sees a leaf only when its last change is published (E4): each
//!   leaf carries the number of its last change, the file as a whole that of its last operation.
//! - **BT4** Every page is exactly one of meta, node, overflow, freelist, free ([`verify`] checks it).
//! - **BT5** The file is a prefix of commit order: a checkpoint holds exactly what was applied when it
//!   was frozen (E2), and makes the log durable before the flip (E3).
//!
//! # What is missing on purpose, and what is simply missing
//!
//! - No compression: pages are read where they lie.
//! - Levels in the figures are those of the last checkpoint; with more than 4,096 inner pages they are left out.
//! - Compaction walks the whole tree to find what lies too far back, once it begins.
//! - A split makes two whole pages in memory out of one: while a tree grows by random puts, they fill the
//!   write buffer sooner than the changes themselves would.
//! - Memory held by views does not count as pressure: no checkpoint could lower it. Each view keeps at most the
//!   changes that were in memory when it was taken; many long-lived ones keep many.
//! - Pages of a range delete are walked by the next checkpoint, which reads each leaf once.
//! - Sequential deletes of single keys leave sparse leaves behind until they are touched again or
//!   [`compact`] joins them, when the deletes were recorded as changes.
mod checkpoint;
mod compact;
mod engine;
mod file;
mod memory;
pub(crate) mod node;
mod read;
mod state;
mod stats;
#[cfg(test)]
mod tests;
mod verify;
mod write;

pub(crate) use engine::BTreeEngine;
