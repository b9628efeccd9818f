//! The chain of live segments: which were written and not synced, and which can be deleted.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::segment::values_path;
use super::segment_factory::{ReadySegment, SegmentFactory};
use crate::error::Result;
use crate::fs::{File, Fs};
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use crate::util::sync::Mutex;
use crate::values::ValueFiles;

/// The segments of a log, from the oldest to the active one.
#[derive(Debug)]
pub(super) struct SegmentChain {
    // Constant.
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Is told of every segment that may take values.
    values: Option<Arc<ValueFiles>>,

    /// Held for moments only, never over I/O.
    segments: Mutex<Segments>,
    retire_turn: Mutex<RetireState>,
}

#[derive(Debug)]
struct Segments {
    /// Oldest first; the last one is active.
    live: VecDeque<LiveSegment>,
    /// Those with records or an activation that no sync covered; the last one is active.
    unsynced: VecDeque<UnsyncedSegment>,
}

#[derive(Debug, Default)]
struct RetireState {
    /// A name went, and the directory could not be synced.
    owes_sync: bool,
}

/// A segment of the chain.
#[derive(Debug)]
pub(super) struct LiveSegment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) len_bytes: u64,
    /// See [`Header::is_sparse`](super::segment::Header::is_sparse).
    pub(super) is_sparse: bool,
    /// First number that counts here.
    pub(super) first: SeqNo,
    /// The activation is durable.
    pub(super) is_anchored: bool,
}

#[derive(Debug, Clone)]
struct UnsyncedSegment {
    number: u64,
    file: Arc<dyn File>,
}

/// A segment, and which operations of it count.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) len_bytes: u64,
    pub(super) first: SeqNo,
    /// The first one that does not count, because a later segment has it.
    pub(super) end: SeqNo,
}

impl SegmentChain {
    /// The chain that recovery found, oldest first. It has no active segment yet.
    pub(super) fn new(
        fs: Arc<dyn Fs>,
        dir: &Path,
        live: VecDeque<LiveSegment>,
        values: Option<Arc<ValueFiles>>,
    ) -> Self {
        Self {
            fs,
            dir: dir.to_path_buf(),
            values,
            segments: Mutex::new(Segments {
                live,
                unsynced: VecDeque::new(),
            }),
            retire_turn: Mutex::default(),
        }
    }

    /// `active` is the active segment from here on, with `first` as its first sequence number.
    /// `is_anchored` says whether its activation is durable.
    pub(super) fn push(&self, active: &ReadySegment, first: SeqNo, is_anchored: bool) {
        if let Some(values) = &self.values {
            // Before a record in it is applied. One that recovery goes on in is known.
            values.add_segment(active.number, &active.path, active.len_bytes);
        }
        let mut segments = self.segments.lock();
        segments.live.push_back(LiveSegment {
            number: active.number,
            path: active.path.clone(),
            len_bytes: active.len_bytes,
            is_sparse: active.is_sparse,
            first,
            is_anchored,
        });
        segments.unsynced.push_back(UnsyncedSegment {
            number: active.number,
            file: Arc::clone(&active.file),
        });
    }

    /// Of segment `number` only `len_bytes` will be there, which hold all of its records.
    pub(super) fn note_cut(&self, number: u64, len_bytes: u64) {
        if let Some(values) = &self.values {
            values.note_len(number, len_bytes);
        }
        let mut segments = self.segments.lock();
        for segment in segments.live.iter_mut().filter(|it| it.number == number) {
            segment.len_bytes = len_bytes;
        }
    }

    /// Segments that a sync has to look at. Each keeps its file open.
    pub(super) fn unsynced_count(&self) -> usize {
        self.segments.lock().unsynced.len()
    }

    /// Bytes of all segments but the active one.
    pub(super) fn older_bytes(&self) -> u64 {
        let segments = self.segments.lock();
        let older = segments.live.len().saturating_sub(1);
        segments.live.iter().take(older).map(|s| s.len_bytes).sum()
    }

    /// Bytes of all segments.
    pub(super) fn disk_bytes(&self) -> u64 {
        let segments = self.segments.lock();
        segments.live.iter().map(|s| s.len_bytes).sum()
    }

    /// True if a segment can go once `seq`, the oldest number needed, is needed no more: it
    /// is not in the active segment, which always stays.
    pub(super) fn would_retire_after(&self, seq: SeqNo) -> bool {
        let segments = self.segments.lock();
        segments.live.back().expect("one is active").first > seq
    }

    /// First sequence number in the oldest segment that [`retire`](Self::retire) would keep.
    pub(super) fn first_after_retiring(&self, oldest_needed: SeqNo) -> SeqNo {
        let segments = self.segments.lock();
        let later = segments.live.iter().skip(1);
        let front = segments.live.front().expect("one is active");
        later
            .map(|segment| segment.first)
            .take_while(|first| *first <= oldest_needed)
            .last()
            .unwrap_or(front.first)
    }

    /// First sequence number in the oldest live segment.
    pub(super) fn oldest_seq(&self) -> SeqNo {
        let segments = self.segments.lock();
        segments.live.front().expect("one is active").first
    }

    pub(super) fn fs(&self) -> &dyn Fs {
        &*self.fs
    }

    /// The segments now, oldest first, and what counts of each.
    pub(super) fn spans(&self) -> Vec<Span> {
        let segments = self.segments.lock();
        let later = segments.live.iter().skip(1).map(|segment| segment.first);
        let ends = later.chain([SeqNo::MAX]);
        let spans = segments.live.iter().zip(ends).map(|(segment, end)| Span {
            number: segment.number,
            path: segment.path.clone(),
            len_bytes: segment.len_bytes,
            first: segment.first,
            end,
        });
        spans.collect()
    }

    /// True if the segment is a part of the chain.
    pub(super) fn has(&self, number: u64) -> bool {
        let segments = self.segments.lock();
        segments.live.iter().any(|segment| segment.number == number)
    }

    /// As [`has`](Self::has), for a caller that has read its file: waits until it is decided
    /// whether a segment whose file is on its way out is one.
    pub(super) fn still_has(&self, number: u64) -> bool {
        let _turn = self.retire_turn.lock();
        self.has(number)
    }

    /// Syncs the segments that need it, in order. One thread at a time.
    pub(super) fn sync(&self) -> Result<()> {
        let list: Vec<UnsyncedSegment> = {
            let segments = self.segments.lock();
            segments.unsynced.iter().cloned().collect()
        };
        for segment in &list {
            let is_active = Some(segment.number) == list.last().map(|last| last.number);
            if is_active || !mutated!("older-segment-not-synced") {
                segment.file.sync_data()?;
            }
        }
        let mut segments = self.segments.lock();
        // The last one was active when the list was made and may have grown since.
        for _ in 1..list.len() {
            segments.unsynced.pop_front();
        }
        let newest = list.last().expect("one is active").number;
        for segment in segments.live.iter_mut().rev() {
            if segment.is_anchored {
                break;
            }
            segment.is_anchored = segment.number <= newest;
        }
        Ok(())
    }

    /// Deletes segments whose records are all below `oldest_needed` (all but the active one, if
    /// `None`), or gives their files to `factory`; those with values that engines refer to become
    /// value files. `anchor` makes the activations of all segments durable.
    pub(super) fn retire(
        &self,
        oldest_needed: Option<SeqNo>,
        factory: &SegmentFactory,
        anchor: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let mut turn = self.retire_turn.lock();
        loop {
            // One durably before the next (WL3).
            if turn.owes_sync {
                self.fs.sync_dir(&self.dir)?;
                turn.owes_sync = false;
            }
            let (number, end, path, reusable, next_is_anchored) = {
                let segments = self.segments.lock();
                let Some(next) = segments.live.get(1) else {
                    return Ok(());
                };
                if oldest_needed.is_some_and(|needed| next.first > needed) {
                    return Ok(());
                }
                let front = segments.live.front().expect("there is a next one");
                let path = front.path.clone();
                let reusable = (!front.is_sparse).then_some(front.len_bytes);
                (front.number, next.first, path, reusable, next.is_anchored)
            };
            if !next_is_anchored && !mutated!("segment-unlinked-before-the-next-is-durable") {
                // Without the next activation it would not be known where numbers go on.
                anchor()?;
            }
            let recycled = match &self.values {
                Some(values) if values.is_held(number) => {
                    factory.guard_check()?;
                    let new = values_path(&self.dir, number);
                    let rename = || self.leave_log(&path, &new);
                    values.leave_log(number, end, new.clone(), rename)?;
                    None
                }
                values => {
                    let recycled = factory.recycle(&path, reusable)?;
                    if let Some(values) = values {
                        values.forget(number);
                    }
                    recycled
                }
            };
            let gone = self.segments.lock().live.pop_front();
            debug_assert_eq!(gone.map(|s| s.number), Some(number));
            if let Some(recycled) = recycled {
                factory.keep(recycled);
            }
            turn.owes_sync = true;
        }
    }

    /// Gives a segment the name of a value file. One change of one directory: a power loss leaves
    /// it under the old name or the new one (VF3).
    fn leave_log(&self, path: &Path, new: &Path) -> Result<()> {
        match self.fs.rename_new(path, new) {
            // An earlier attempt reported an error and had worked all the same.
            Err(e) if e.is_not_found() && self.fs.exists(new)? => Ok(()),
            renamed => renamed,
        }
    }
}
