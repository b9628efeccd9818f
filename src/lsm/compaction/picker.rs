//! What to compact next. Pure: it sees sizes and key extents, and does no I/O.
//!
//! # The shape it strives for
//!
//! Leveled compaction with *dynamic level sizes* (RocksDB's
//! `level_compaction_dynamic_level_bytes`): data fills the tree from the bottom. Level 6 is as
//! large as it is; each level above has a target of a tenth of the next, up to the *base level*,
//! the first whose target is at most [`Limits::base_bytes`]. Level 0 is merged into the base level,
//! and the levels between are empty. So about nine tenths of the data is in the last level,
//! whatever the size of the store, and space taken by old versions is bounded by about a tenth.
//!
//! `base_bytes` is several times what level 0 brings at once: merging a batch straight into a level
//! a few times its size rewrites fewer bytes than an additional level would.
//!
//! # Order of work
//!
//! Every level has a *score*: level 0 its number of tables over the trigger, the others their bytes
//! over the target. The highest score of at least 1 that can be worked on is taken. Within a level,
//! the table goes first that overlaps the fewest bytes below per byte of its own; deletes count for
//! it, since they free space when they move down. When no level is over its target, small
//! neighbours within a level are joined, and then tables that are mostly deletes, or have range
//! tombstones, move down for the same reason.
//!
//! # Joining
//!
//! Keys that are written in rising order overlap nothing, so each batch from level 0 adds a table
//! of its own, however small, and nothing would ever rewrite it. So at least [`MIN_JOINED`]
//! neighbours are made into one where that is at least twice as large as the largest of them, and
//! at most as large as a table may be. Each join at least doubles the table that an entry is in, so
//! an entry is rewritten at most as often as a table can be doubled until it is full; and where
//! nothing can be joined any more, sizes fall to both sides of the largest table like powers of
//! two, so that few small tables are left.
//!
//! # Moving
//!
//! A table moves to another level as it is if it overlaps nothing there, and is written as that
//! level wants its tables: compression and filters may be others in the last level than above. A
//! flush writes what overlaps nothing at all, as keys do that rise, in the form of the last level;
//! it moves through all levels. Neighbours of that form keep it when they are joined.
//!
//! # Giving space back
//!
//! A tombstone is dropped by a job that writes it to where nothing lies below it, so a table with
//! tombstones is not moved there as it is. One that comes there because a snapshot may still see
//! what it hides, and one that has entries which were kept for snapshots only, is written again,
//! alone and in its level, when the last such snapshot is gone: then everything in it is below
//! [`Tree::oldest_read`], so the job drops all of that, and no table is rewritten for it twice.
//!
//! Level 0 is due before it has as many tables as usual, if a job frees at least half as many bytes
//! as it finds in the base level: those that are hidden by range tombstones, or were kept for
//! snapshots. Or if its deletes, or the range tombstones of one table, hide at least half as many
//! as they have to be merged with on their way to the last level, those of level 0 included: each
//! delete is taken to hide an entry of an older table or of the levels below, of average length.
//! The job takes them to the base level, and from there they go on, being most of what it writes.
//!
//! # Around damage
//!
//! A table that could not be read stays where it is. Below level 0 this concerns the jobs that need
//! it and no others. A table of level 0 has to *stay* with it if it would pass it on its way down:
//! if it overlaps the damaged one, being newer, or one that stays for this reason, or a damaged one
//! in the base level. All others go down. So that those that stay do not become ever more, and
//! writers are not slowed forever, neighbours among them are joined in level 0, as above.
//!
//! # Beside a job over all tables
//!
//! `compact` has all tables until it ends, which may take minutes, and what is flushed meanwhile
//! cannot go down. It is joined within level 0 instead, whenever that makes one table of at least
//! [`MIN_JOINED`], up to [`Limits::base_bytes`]. Each join at least doubles the table that an entry
//! is in, so there are few. Tables that will move down as they are, as those of rising keys and of
//! loads, are left alone.
//!
//! # Invariants
//!
//! - **LP1** Jobs that run at the same time share no table, and two jobs whose spans of levels meet
//!   have disjoint key extents. So what a job writes cannot overlap what another writes or moves.
//! - **LP2** A job from level 0 takes all of its tables but those that stay and those between which
//!   and its inputs a damaged table of the base level lies. So no older table that overlaps an
//!   input stays behind above the output. It takes all tables of the output level that the inputs
//!   overlap. This keeps LV3 of [`super::super::version`].
//! - **LP3** Levels between level 0 and the base level are empty, or level 0 goes to the first that
//!   is not.
//! - **LP4** A job within level 0 takes tables that follow one another in age, and makes one of
//!   them: the ages of the tables of level 0 stay disjoint.

use std::ops::Bound;

use crate::lsm::table_handle::CoveredBytes;
use crate::lsm::version::LEVELS;
use crate::types::{FileId, SeqNo};
use crate::util::mutants::mutated;

/// A table, as far as picking is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileInfo<'a> {
    pub(crate) id: FileId,
    pub(crate) size_bytes: u64,
    pub(crate) smallest: &'a [u8],
    pub(crate) largest: Bound<&'a [u8]>,
    pub(crate) entries: u64,
    pub(crate) deletes: u64,
    pub(crate) range_tombstones: u64,
    /// Highest number of an entry or range tombstone.
    pub(crate) largest_seq: SeqNo,
    /// Entries that were kept for snapshots only.
    pub(crate) older_versions: u64,
    /// Level 0: what the table's range tombstones hide.
    pub(crate) covered_bytes: CoveredBytes,
    /// About half of its values have expired, or more, for all reads.
    pub(crate) is_expired: bool,
    /// It is written as levels above the last want their tables.
    pub(crate) fits_upper: bool,
    /// It is written as the last level wants its tables.
    pub(crate) fits_last: bool,
    /// A running job has it.
    pub(crate) is_busy: bool,
    /// The last job that had it could not read it.
    pub(crate) is_unreadable: bool,
}

/// Levels and key extent of a running job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first_level: usize,
    pub(crate) last_level: usize,
    pub(crate) start: Vec<u8>,
    pub(crate) end: Bound<Vec<u8>>,
}

impl Span {
    /// True if keys from `start` to `end` are within the extent.
    pub(crate) fn meets(&self, start: &[u8], end: Bound<&[u8]>) -> bool {
        !ends_before(as_slices(&self.end), start) && !ends_before(end, &self.start)
    }
}

/// The tree that is to be shaped. Levels are ordered as in a version: level 0 newest first, the
/// others by key.
#[derive(Debug, Default)]
pub(crate) struct Tree<'a> {
    pub(crate) levels: [Vec<FileInfo<'a>>; LEVELS],
    pub(crate) running: &'a [Span],
    /// The lowest number that reads use: what is hidden from it is hidden from all.
    pub(crate) oldest_read: SeqNo,
    /// What has expired by this time has for all reads; in milliseconds since 1970.
    pub(crate) expired_by_ms: u64,
}

/// The figures that steer picking.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Tables in level 0 that make it due.
    pub(crate) level0_trigger: usize,
    /// The largest target of a base level.
    pub(crate) base_bytes: u64,
    /// How many times larger each level is than the one above.
    pub(crate) size_ratio: u64,
    /// Where outputs are cut.
    pub(crate) table_bytes: u64,
    /// How many bytes of the level below an output may overlap.
    pub(crate) max_overlap_bytes: u64,
}

/// Fewer tables are not joined.
const MIN_JOINED: usize = 4;
/// More tables are not joined at once.
const MAX_JOINED: usize = 64;

/// A job to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pick {
    /// Level and number of every input.
    pub(crate) inputs: Vec<(usize, FileId)>,
    pub(crate) output_level: usize,
    /// The inputs are moved as they are: they overlap nothing in the output level.
    pub(crate) is_move: bool,
    pub(crate) span: Span,
}

/// Target sizes, and the level that level 0 is merged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) base_level: usize,
    pub(crate) target_bytes: [u64; LEVELS],
}

/// Compares upper ends of extents: which reaches further?
fn max_end<'a>(a: Bound<&'a [u8]>, b: Bound<&'a [u8]>) -> Bound<&'a [u8]> {
    // For one key, the inclusive end reaches further than the exclusive one.
    let rank = |end: Bound<&'a [u8]>| match end {
        Bound::Excluded(key) => (0, key, 0),
        Bound::Included(key) => (0, key, 1),
        Bound::Unbounded => (1, &b""[..], 0),
    };
    if rank(a) >= rank(b) { a } else { b }
}

/// True if everything up to `end` lies below `key`.
fn ends_before(end: Bound<&[u8]>, key: &[u8]) -> bool {
    match end {
        Bound::Included(end) => end < key,
        Bound::Excluded(end) => end <= key,
        Bound::Unbounded => false,
    }
}

fn as_slices(end: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    end.as_ref().map(Vec::as_slice)
}

/// A table that is rewritten for what snapshots held has at least one such entry in so many.
const HELD_SHARE: u64 = 8;

impl FileInfo<'_> {
    /// A job may take it.
    fn is_idle(&self) -> bool {
        !self.is_busy && !self.is_unreadable
    }

    fn overlaps(&self, other: &FileInfo<'_>) -> bool {
        !ends_before(self.largest, other.smallest) && !ends_before(other.largest, self.smallest)
    }

    /// It may move to `level` as it is. One that is written for the last level may lie in any: it
    /// goes there in the end.
    fn fits(&self, level: usize) -> bool {
        let is_upper = level < LEVELS - 1;
        self.fits_last || (is_upper && self.fits_upper) || mutated!("move-of-another-form")
    }

    /// Mostly deletes, or with range tombstones: moving down frees space.
    fn is_hollow(&self) -> bool {
        self.range_tombstones > 0 || 2 * self.deletes > self.entries
    }

    /// Much of it is no longer seen, or will not be when snapshots go.
    fn is_held(&self) -> bool {
        self.older_versions > 0 && HELD_SHARE.saturating_mul(self.older_versions) >= self.entries
    }
}

/// The extent of some tables. There is at least one.
fn hull<'a>(files: &[&FileInfo<'a>]) -> (&'a [u8], Bound<&'a [u8]>) {
    let start = files
        .iter()
        .map(|file| file.smallest)
        .min()
        .expect("not empty");
    let end = files
        .iter()
        .map(|file| file.largest)
        .reduce(max_end)
        .expect("not empty");
    (start, end)
}

/// How many of `files`, from the first on, are to be joined: the most that are worth it, and
/// together not larger than `max_bytes`.
fn joinable<'f, 'a: 'f>(
    files: impl Iterator<Item = &'f FileInfo<'a>>,
    max_bytes: u64,
) -> Option<usize> {
    let mut most = None;
    let (mut bytes, mut largest_bytes) = (0, 0);
    for (count, file) in (1..=MAX_JOINED).zip(files) {
        bytes += file.size_bytes;
        largest_bytes = largest_bytes.max(file.size_bytes);
        if !file.is_idle() || bytes > max_bytes {
            break;
        }
        if count >= MIN_JOINED && bytes >= 2 * largest_bytes {
            most = Some(count);
        }
    }
    most
}

fn is_disjoint(mut files: Vec<&FileInfo<'_>>) -> bool {
    files.sort_by_key(|file| file.smallest);
    files
        .windows(2)
        .all(|pair| ends_before(pair[0].largest, pair[1].smallest))
}

/// The tables of level 0, oldest first.
#[derive(Debug)]
struct Level0<'t, 'a> {
    /// What a job takes.
    moving: Vec<&'t FileInfo<'a>>,
    /// What cannot be read, or would pass such a table. A table that is in neither list waits for
    /// its turn to move.
    staying: Vec<&'t FileInfo<'a>>,
}

impl<'a> Tree<'a> {
    fn level_bytes(&self, level: usize) -> u64 {
        self.levels[level].iter().map(|file| file.size_bytes).sum()
    }

    /// Targets and base level.
    pub(crate) fn shape(&self, limits: &Limits) -> Shape {
        let last = LEVELS - 1;
        let sizes: [u64; LEVELS] = std::array::from_fn(|level| self.level_bytes(level));
        let largest = sizes[1..].iter().copied().max().unwrap_or(0);
        // Levels above the base level keep a target of nothing, so that they drain.
        let mut target_bytes = [0; LEVELS];
        let mut base_level = last;
        target_bytes[last] = largest.max(limits.base_bytes);
        while base_level > 1 && target_bytes[base_level] > limits.base_bytes {
            target_bytes[base_level - 1] = target_bytes[base_level] / limits.size_ratio;
            base_level -= 1;
        }
        // LP3.
        let first_used = (1..LEVELS).find(|level| sizes[*level] > 0).unwrap_or(last);
        Shape {
            base_level: base_level.min(first_used),
            target_bytes,
        }
    }

    /// How due each level is; at least 1 is due.
    pub(crate) fn scores(&self, shape: &Shape, limits: &Limits) -> [f64; LEVELS] {
        std::array::from_fn(|level| {
            let idle = self.levels[level].iter().filter(|file| file.is_idle());
            match level {
                0 => self.level0(shape).moving.len() as f64 / limits.level0_trigger as f64,
                // The last level has nowhere to go.
                _ if level == LEVELS - 1 => 0.0,
                _ => {
                    let bytes: u64 = idle.map(|file| file.size_bytes).sum();
                    match shape.target_bytes[level] {
                        // To be drained; not so urgent that level 0 starves.
                        0 if bytes > 0 => 1.5,
                        0 => 0.0,
                        target => bytes as f64 / target as f64,
                    }
                }
            }
        })
    }

    /// The job to do next, if any is due that does not meet a running one.
    pub(crate) fn pick(&self, limits: &Limits) -> Option<Pick> {
        let shape = self.shape(limits);
        let scores = self.scores(&shape, limits);
        let mut order: Vec<usize> = (0..LEVELS).filter(|level| scores[*level] >= 1.0).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let by_score = order.into_iter().find_map(|level| match level {
            0 => self.pick_level0(&shape),
            _ => self.pick_from(level, |_| true),
        });
        by_score
            .or_else(|| self.pick_join_in_level0(&shape))
            .or_else(|| self.pick_join(limits))
            .or_else(|| self.pick_hollow())
            .or_else(|| self.pick_released())
            .or_else(|| self.pick_level0_for_space(&shape))
    }

    /// A table whose tombstones hide what lies below, or can be dropped on the way.
    fn pick_hollow(&self) -> Option<Pick> {
        let last_used = (1..LEVELS)
            .rev()
            .find(|level| !self.levels[*level].is_empty())?;
        (1..last_used).find_map(|level| {
            let moves = |file: &FileInfo<'a>| {
                let can_drop = file.largest_seq <= self.oldest_read;
                file.is_hollow() && (can_drop || !self.is_bottom_of(level, file))
            };
            self.pick_from(level, moves)
        })
    }

    /// A table in its last place that has something to drop, now that no snapshot sees it.
    fn pick_released(&self) -> Option<Pick> {
        (1..LEVELS).find_map(|level| {
            let released = self.levels[level].iter().filter(|file| {
                file.largest_seq <= self.oldest_read && file.is_idle() && self.is_worth(level, file)
            });
            released
                .into_iter()
                .find_map(|file| self.job(level, vec![file], level))
        })
    }

    /// The lowest number from which on [`Tree::oldest_read`] makes another table worth rewriting.
    pub(crate) fn next_release(&self) -> Option<SeqNo> {
        let levels = (0..LEVELS).flat_map(|level| {
            let files = self.levels[level].iter();
            files.map(move |file| (level, file))
        });
        levels
            .filter(|(level, file)| {
                file.largest_seq > self.oldest_read
                    && file.is_idle()
                    && match level {
                        0 => file.is_held() || file.is_expired || file.is_hollow(),
                        _ => self.is_worth(*level, file),
                    }
            })
            .map(|(_, file)| file.largest_seq)
            .min()
    }

    /// True if a job over the table alone drops much of it, once no snapshot sees it any more.
    fn is_worth(&self, level: usize, file: &FileInfo<'a>) -> bool {
        file.is_held() || file.is_expired || (file.is_hollow() && self.is_bottom_of(level, file))
    }

    /// True if nothing lies below what is in `level`.
    fn is_bottom_of(&self, level: usize, file: &FileInfo<'a>) -> bool {
        let mut below = level + 1..LEVELS;
        below.all(|below| {
            self.overlapping(below, file.smallest, file.largest)
                .is_empty()
        })
    }

    /// All of level 0, if that frees much for what it costs.
    fn pick_level0_for_space(&self, shape: &Shape) -> Option<Pick> {
        let frees = |file: &FileInfo<'a>| {
            let held = match file.largest_seq <= self.oldest_read && file.is_held() {
                true => {
                    let entry_bytes = file.size_bytes / file.entries.max(1);
                    entry_bytes.saturating_mul(file.older_versions)
                }
                false => 0,
            };
            let expired = match file.largest_seq <= self.oldest_read && file.is_expired {
                true => file.size_bytes / 2,
                false => 0,
            };
            file.covered_bytes.below.max(held).max(expired)
        };
        let freed_bytes = self.levels[0].iter().map(frees).max()?;
        let deleted_bytes = self.bytes_that_level0_deletes();
        let covers = |file: &FileInfo<'a>| match file.largest_seq <= self.oldest_read {
            true => file.covered_bytes.in_level0 + file.covered_bytes.below,
            false => 0,
        };
        let covered_bytes = match mutated!("ranges-of-level-0-hide-nothing-in-it") {
            true => 0,
            false => self.levels[0].iter().map(covers).max()?,
        };
        if freed_bytes == 0 && deleted_bytes == 0 && covered_bytes == 0 {
            return None;
        }
        let pick = self.pick_level0(shape)?;
        let (start, end) = (&pick.span.start[..], as_slices(&pick.span.end));
        let bytes_in = |level: usize| -> u64 {
            let tables = self.overlapping(level, start, end);
            tables.iter().map(|file| file.size_bytes).sum()
        };
        let all_bytes = self.level_bytes(0) + (1..LEVELS).map(bytes_in).sum::<u64>();
        let is_worth = freed_bytes > 0
            && freed_bytes.saturating_mul(2) >= bytes_in(pick.output_level)
            || deleted_bytes.max(covered_bytes).saturating_mul(2) >= all_bytes;
        is_worth.then_some(pick)
    }

    /// Bytes of entries that deletes in level 0 hide from all reads, if each hides one of an older
    /// table.
    fn bytes_that_level0_deletes(&self) -> u64 {
        let below = || self.levels[1..].iter().flatten();
        let mut bytes: u64 = below().map(|file| file.size_bytes).sum();
        let mut entries: u64 = below().map(|file| file.entries).sum();
        let mut hidden_bytes = 0;
        let share = |bytes: u64, of: u64, all: u64| {
            (u128::from(bytes) * u128::from(of) / u128::from(all.max(1))) as u64
        };
        for file in self.levels[0].iter().rev() {
            if file.largest_seq <= self.oldest_read && !mutated!("deletes-of-level-0-hide-nothing")
            {
                let hidden = file.deletes.min(entries);
                let hides = share(bytes, hidden, entries);
                hidden_bytes += hides;
                (bytes, entries) = (bytes - hides, entries - hidden);
            }
            let puts = file.entries.saturating_sub(file.deletes);
            bytes += share(file.size_bytes, puts, file.entries);
            entries += puts;
        }
        hidden_bytes
    }

    /// What a job from level 0 takes, and what has to stay.
    fn level0(&self, shape: &Shape) -> Level0<'_, 'a> {
        let files = &self.levels[0];
        let base = &self.levels[shape.base_level];
        let damaged_below: Vec<_> = base.iter().filter(|file| file.is_unreadable).collect();
        if damaged_below.is_empty() && !files.iter().any(|file| file.is_unreadable) {
            return Level0 {
                moving: files.iter().collect(),
                staying: Vec::new(),
            };
        }
        let mut staying: Vec<&FileInfo<'a>> = Vec::new();
        // Between the damaged tables of the base level, and at both ends.
        let mut groups = vec![Vec::new(); damaged_below.len() + 1];
        for file in files.iter().rev() {
            let mut in_its_way = damaged_below.iter().chain(&staying);
            let would_pass = in_its_way.any(|other| other.overlaps(file))
                && !mutated!("damaged-table-passed-on-the-way-down");
            if file.is_unreadable || would_pass {
                staying.push(file);
            } else {
                let group = damaged_below
                    .partition_point(|other| ends_before(other.largest, file.smallest));
                groups[group].push(file);
            }
        }
        let moving = groups.into_iter().max_by_key(Vec::len);
        Level0 {
            moving: moving.unwrap_or_default(),
            staying,
        }
    }

    /// Level 0, but for what has to stay, and what it overlaps in the base level (LP2).
    fn pick_level0(&self, shape: &Shape) -> Option<Pick> {
        let moving = self.level0(shape).moving;
        if moving.is_empty() || self.levels[0].iter().any(|file| file.is_busy) {
            return None;
        }
        let is_disjoint = is_disjoint(moving.clone());
        let pick = self.job(0, moving, shape.base_level)?;
        Some(Pick {
            is_move: pick.is_move && is_disjoint,
            ..pick
        })
    }

    /// Tables of level 0 that have to stay and follow one another in age, if they can be joined.
    fn pick_join_in_level0(&self, shape: &Shape) -> Option<Pick> {
        let (at, count) = self.joinable_in_level0(shape)?;
        let files = &self.levels[0];
        if files.iter().any(|file| file.is_busy) {
            return None;
        }
        self.job(0, files[at..at + count].iter().collect(), 0)
    }

    /// Where such tables begin, and how many there are.
    fn joinable_in_level0(&self, shape: &Shape) -> Option<(usize, usize)> {
        let level0 = self.level0(shape);
        let stays = |file: &FileInfo<'a>| {
            !file.is_unreadable && level0.staying.iter().any(|other| other.id == file.id)
        };
        let files = &self.levels[0];
        let joins = (0..files.len()).filter_map(|at| {
            let files = files[at..].iter().take_while(|file| stays(file));
            Some((at, joinable(files, u64::MAX)?))
        });
        joins.max_by_key(|(_, count)| *count)
    }

    /// How many tables of level 0 stay, and are as few as they can be.
    pub(crate) fn settled_in_level0(&self, limits: &Limits) -> usize {
        let shape = self.shape(limits);
        let staying = self.level0(&shape).staying.len();
        match self.joinable_in_level0(&shape) {
            Some((_, count)) => staying - count,
            None => staying,
        }
    }

    /// The job to do beside one that has all other tables.
    pub(crate) fn pick_beside_full(&self, limits: &Limits) -> Option<Pick> {
        let (at, count) = self.joinable_beside_full(limits)?;
        self.job(0, self.levels[0][at..at + count].iter().collect(), 0)
    }

    /// How many tables of level 0 no such job can take.
    pub(crate) fn settled_beside_full(&self, limits: &Limits) -> usize {
        let joinable = self.joinable_beside_full(limits);
        let joinable = joinable.map_or(0, |(_, count)| count);
        self.levels[0].len() - joinable
    }

    /// The most idle tables of level 0 that can be joined: where they begin, and how many.
    fn joinable_beside_full(&self, limits: &Limits) -> Option<(usize, usize)> {
        let files = &self.levels[0];
        let joins = (0..files.len())
            .filter_map(|at| Some((at, joinable(files[at..].iter(), limits.base_bytes)?)));
        let will_move = |at: usize, count: usize| {
            let files: Vec<_> = files[at..at + count].iter().collect();
            files.iter().all(|file| file.fits_last) && is_disjoint(files)
        };
        joins
            .filter(|(at, count)| !will_move(*at, *count))
            .max_by_key(|(_, count)| *count)
    }

    /// The best table of a level, and what it overlaps in the next.
    fn pick_from(&self, level: usize, wanted: impl Fn(&FileInfo<'a>) -> bool) -> Option<Pick> {
        let mut candidates: Vec<(u128, usize)> = self.levels[level]
            .iter()
            .enumerate()
            .filter(|(_, file)| file.is_idle() && wanted(file))
            .map(|(at, file)| {
                let below = self.overlapping(level + 1, file.smallest, file.largest);
                let below_bytes: u64 = below.iter().map(|file| file.size_bytes).sum();
                let full_entries = file.entries.saturating_sub(file.deletes) + 1;
                // Bytes below per own byte, in thousandths, scaled by the share that is no delete.
                let cost = u128::from(below_bytes) * 1000 / u128::from(file.size_bytes.max(1))
                    * u128::from(full_entries)
                    / u128::from(file.entries + 1);
                (cost, at)
            })
            .collect();
        candidates.sort_unstable();
        candidates
            .into_iter()
            .find_map(|(_, at)| self.job(level, vec![&self.levels[level][at]], level + 1))
    }

    /// The most small neighbours of a level that can be joined; see the module docs.
    fn pick_join(&self, limits: &Limits) -> Option<Pick> {
        let joins = (1..LEVELS).flat_map(|level| {
            let files = &self.levels[level];
            (0..files.len()).filter_map(move |at| {
                let count = self.joinable(level, at, limits)?;
                Some((count, level, at))
            })
        });
        let mut joins: Vec<_> = joins.collect();
        joins.sort_by_key(|(count, ..)| std::cmp::Reverse(*count));
        joins.into_iter().find_map(|(count, level, at)| {
            let files = self.levels[level][at..at + count].iter().collect();
            self.job(level, files, level)
        })
    }

    /// How many tables from the one at `at` on are to be joined.
    fn joinable(&self, level: usize, at: usize, limits: &Limits) -> Option<usize> {
        let files = &self.levels[level][at..];
        // The job would cut its output where it overlaps too much below, and so join nothing.
        joinable(files.iter(), limits.table_bytes).filter(|count| {
            let (start, end) = hull(&files[..*count].iter().collect::<Vec<_>>());
            let below = self.overlapping(level + 1, start, end);
            below.iter().map(|file| file.size_bytes).sum::<u64>() <= limits.max_overlap_bytes
        })
    }

    /// The tables of a level below 0 that meet the extent; none below the last.
    fn overlapping(&self, level: usize, start: &[u8], end: Bound<&[u8]>) -> &[FileInfo<'a>] {
        let files: &[_] = self.levels.get(level).map_or(&[], Vec::as_slice);
        let low = files.partition_point(|file| ends_before(file.largest, start));
        let high = files.partition_point(|file| !ends_before(end, file.smallest));
        &files[low..high.max(low)]
    }

    /// The job that merges `inputs` of `level`, which are neighbours (in level 0 by age, if they
    /// stay there), into `output_level`, unless it would meet a running one (LP1).
    fn job<'s>(
        &'s self,
        level: usize,
        mut inputs: Vec<&'s FileInfo<'a>>,
        output_level: usize,
    ) -> Option<Pick> {
        let (start, end) = hull(&inputs);
        // Within a level the inputs are all that is there.
        let below = match output_level == level {
            true => &[],
            false => self.overlapping(output_level, start, end),
        };
        let is_move = below.is_empty()
            && output_level != level
            && !inputs.iter().any(|file| {
                let has_tombstones = file.deletes > 0 || file.range_tombstones > 0;
                !file.fits(output_level)
                    || (has_tombstones && self.is_bottom_of(output_level, file))
            });
        let mut named: Vec<_> = inputs.iter().map(|file| (level, file.id)).collect();
        named.extend(below.iter().map(|file| (output_level, file.id)));
        inputs.extend(below);
        if !inputs.iter().all(|file| file.is_idle()) {
            return None;
        }
        let (start, end) = hull(&inputs);
        let meets_running = self.running.iter().any(|span| {
            span.first_level <= output_level && level <= span.last_level && span.meets(start, end)
        });
        if meets_running {
            return None;
        }
        Some(Pick {
            inputs: named,
            output_level,
            is_move,
            span: Span {
                first_level: level,
                last_level: output_level,
                start: start.to_vec(),
                end: end.map(<[u8]>::to_vec),
            },
        })
    }
}

#[cfg(test)]
mod tests;
