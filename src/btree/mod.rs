//! The B-tree engine: a page-oriented B+tree in one file, with its changes in memory.
//!
//! # Where things are
//!
//! From the ground up; a file uses those above it in this list, and state.rs also what one
//! checkpoint hands to the next (checkpoint/checkpointer.rs).
//!
//! ```text
//! node/        images of leaves, inner nodes and packs (changes to leaves that stay as they are)
//! memory/      slot (references to nodes that change under readers' eyes; the unsafe module),
//!              children (of an inner node), delta (changes to a page that stays on disk),
//!              node (nodes in memory), merged (changes over a page as one sequence)
//! file/        the page file: freespace, meta (the two meta pages), value_table (value files that
//!              nodes refer to), pager (pages from the memory map or the cache, checked at first
//!              touch)
//! read/        shared (what readers share: the root, the way to a leaf), held_files (value files
//!              that the tree refers to), readers (which trees of the file readers may look at),
//!              many (several keys at a time), rising (keys in order), point (reads of one key),
//!              merge_cost (what scans pay for changes), pack_cost (what reads pay for packs), view
//!              (one moment of the tree), view_cache (views of the current tree, which scans share),
//!              cursor (over a view),
//!              estimate (sizes of ranges)
//! write/       state (of the one writer), editor (what every change is made of), leaf,
//!              split_merge, point, range_delete, finger (the leaf of a thread's last change)
//! state.rs     the tree as a whole: owns all of the above
//! batch.rs     from the operations of a commit to the tree
//! bulk_load/   sorted input: full leaves beside the tree, which they become a part of at once
//! checkpoint/  writing a frozen tree to the file (write; branch: leaves, whole or as changes in
//!              packs), flipping the meta pages, publishing
//! compact/     joining leaves, moving pages to the front and cutting the file
//! verify.rs    checking everything; scrub.rs: at a pace, from storage
//! inspect.rs   what a tree looks like, for people
//! stats.rs     figures of the file's tree
//! engine.rs    the engine contract, opening and creating
//! ```
//!
//! # How data flows
//!
//! A child reference is a page of the file or a node in memory. A put goes down to its leaf, copies
//! or loads every node on the way that the writer does not own yet ([`mod@write`]), and changes the
//! leaf under its small lock. A get goes down without locks, under an epoch pin, and takes the
//! leaf's lock for the moment of reading, or reads the page where it lies in the map. A checkpoint
//! *freezes* the tree (generation + 1), writes its changed nodes to free places while commits go on
//! in copies, flips the meta pages, and turns the references to those nodes into references to
//! their pages. A view is a frozen root; scans share it until something changes
//! ([`read::view_cache`]).
//!
//! # Why changes, and not pages, are kept in memory
//!
//! The first plan was to copy a page into memory at its first change. With random keys each put
//! then dirties a page of its own: a write buffer of 64 MiB is full after 4,000 puts of 100 bytes,
//! and a checkpoint writes 140 bytes for one. So a leaf that is changed a little stays on disk,
//! with a small sorted delta in memory ([`memory::delta`]); it becomes a whole page in memory when
//! the changes approach the size of a page, need space that the page lacks, or concern large
//! values. A leaf that is changed while a checkpoint writes it stays as it is too: the new changes
//! lie over it, and later over its page. So a long checkpoint does not double the memory for
//! changes.
//!
//! # Invariants
//!
//! - **BT1** Nothing that a meta page on disk can reach is overwritten ([`file::freespace`],
//!   [`checkpoint`]).
//! - **BT2** A frozen node never changes (BW1 in [`mod@write`]).
//! - **BT3** A reader of the latest state sees a leaf only when its last change is published (E4):
//!   each leaf has the number of its last change, the file as a whole that of its last operation.
//! - **BT4** Every unit is exactly one of meta, node, area of packs, overflow, freelist, table of
//!   value files, free ([`verify`] checks it).
//! - **BT5** The file is a prefix of commit order: a checkpoint holds exactly what was applied when
//!   the tree was frozen (E2), and makes the log durable before the flip (E3).
//!
//! # What is missing on purpose, and what is simply missing
//!
//! - No compression: pages are read where they lie.
//! - Levels in the figures are those of the last checkpoint; with more than 4,096 inner pages they
//!   are left out.
//! - Each pass of a compaction walks the whole tree to find what lies too far back, and reads every
//!   leaf.
//! - Each checkpoint writes the whole freelist, two to four bytes for each piece of free space:
//!   where those are millions, that is much of what it writes.
//! - A split makes two whole pages in memory out of one: while a tree grows by random puts, they
//!   fill the write buffer sooner than the changes themselves would.
//! - Memory held by views does not count as pressure: no checkpoint could lower it. Each view keeps
//!   at most the changes that were in memory when it was taken; many long-lived ones keep many.
//! - The next checkpoint walks the pages of a range delete and reads each leaf once.
//! - A leaf may be sparse until [`compact`] joins it with others: when deletes were recorded as
//!   changes, when values became shorter, or when both neighbours were too full.
//! - A value that is too long for a leaf takes whole pages.
//! - Commits, to other keyspaces too, wait while a large batch is applied.

mod batch;
mod bulk_load;
mod checkpoint;
mod compact;
mod engine;
mod file;
mod inspect;
mod memory;
pub(crate) mod node;
mod read;
mod scrub;
mod state;
mod stats;
#[cfg(test)]
mod tests;
mod verify;
mod write;

pub(crate) use engine::{BTreeEngine, is_own_file};
pub(crate) use file::new_file::FILE_NAME;
