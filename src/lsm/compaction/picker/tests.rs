//! Single decisions, and a simulation that lets the picker shape a tree for a long time.

use super::*;
use crate::testing::Random;

/// A table of the simulation: keys are numbers, inclusive.
#[derive(Debug, Clone)]
struct SimFile {
    id: FileId,
    size_bytes: u64,
    low: [u8; 8],
    high: [u8; 8],
    deletes: u64,
    largest_seq: u64,
    older_versions: u64,
    covered_bytes: CoveredBytes,
    is_unreadable: bool,
    fits_upper: bool,
    fits_last: bool,
}

impl SimFile {
    fn new(id: u64, size_bytes: u64, low: u64, high: u64) -> Self {
        Self {
            id: FileId(id),
            size_bytes,
            low: low.to_be_bytes(),
            high: high.to_be_bytes(),
            deletes: 0,
            largest_seq: 1,
            older_versions: 0,
            covered_bytes: CoveredBytes::default(),
            is_unreadable: false,
            fits_upper: true,
            fits_last: true,
        }
    }

    /// As it is flushed: neither compressed nor anything else that levels want.
    fn flushed(id: u64, size_bytes: u64, low: u64, high: u64) -> Self {
        Self {
            fits_upper: false,
            fits_last: false,
            ..Self::new(id, size_bytes, low, high)
        }
    }

    fn info(&self) -> FileInfo<'_> {
        FileInfo {
            id: self.id,
            size_bytes: self.size_bytes,
            smallest: &self.low,
            largest: Bound::Included(&self.high),
            entries: 100,
            deletes: self.deletes,
            range_tombstones: 0,
            largest_seq: SeqNo(self.largest_seq),
            older_versions: self.older_versions,
            covered_bytes: self.covered_bytes,
            is_expired: false,
            fits_upper: self.fits_upper,
            fits_last: self.fits_last,
            is_busy: false,
            is_unreadable: self.is_unreadable,
        }
    }
}

const LIMITS: Limits = Limits {
    level0_trigger: 4,
    base_bytes: 1000,
    size_ratio: 10,
    table_bytes: 100,
    max_overlap_bytes: 1000,
};

fn tree<'a>(levels: &'a [Vec<SimFile>; LEVELS], running: &'a [Span]) -> Tree<'a> {
    Tree {
        levels: std::array::from_fn(|l| levels[l].iter().map(SimFile::info).collect()),
        running,
        oldest_read: SeqNo(100),
        expired_by_ms: 0,
    }
}

fn input_ids(pick: &Pick) -> Vec<u64> {
    let mut ids: Vec<_> = pick.inputs.iter().map(|(_, id)| id.0).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn an_empty_tree_and_a_small_one_need_nothing() {
    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    assert_eq!(tree(&levels, &[]).pick(&LIMITS), None);
    levels[0] = (0..3).map(|id| SimFile::new(id, 100, 0, 50)).collect();
    levels[6] = vec![SimFile::new(9, 5000, 0, 50)];
    assert_eq!(tree(&levels, &[]).pick(&LIMITS), None);
}

#[test]
fn level_0_goes_to_the_base_level_with_what_it_overlaps() {
    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    levels[0] = (0..4)
        .map(|id| SimFile::flushed(id, 100, 10 * id, 10 * id + 5))
        .collect();
    levels[6] = vec![
        SimFile::new(7, 300, 0, 9),
        SimFile::new(8, 300, 34, 40),
        SimFile::new(9, 300, 41, 50),
    ];
    let pick = tree(&levels, &[]).pick(&LIMITS).unwrap();
    assert_eq!(
        (input_ids(&pick), pick.output_level),
        (vec![0, 1, 2, 3, 7, 8], 6)
    );
    assert!(!pick.is_move);

    // A larger last level brings another level above it.
    levels[6][2].size_bytes = 20_000;
    let pick = tree(&levels, &[]).pick(&LIMITS).unwrap();
    assert_eq!((input_ids(&pick), pick.output_level), (vec![0, 1, 2, 3], 4));
    assert!(!pick.is_move, "tables of level 0 are rewritten");
    // Unless they are written as the base level wants them, or the last, where they end.
    let is_move =
        |levels: &[Vec<SimFile>; LEVELS]| tree(levels, &[]).pick(&LIMITS).unwrap().is_move;
    for (fits_upper, fits_last) in [(true, false), (false, true)] {
        for file in &mut levels[0] {
            (file.fits_upper, file.fits_last) = (fits_upper, fits_last);
        }
        assert!(is_move(&levels), "{fits_upper} {fits_last}");
        let other = std::mem::replace(&mut levels[0][2].fits_last, false);
        levels[0][2].fits_upper = false;
        assert!(!is_move(&levels), "one of them does not fit");
        levels[0][2].fits_last = other;
    }
}

/// What is written for the levels above the last is written again on its way there.
#[test]
fn a_table_moves_to_the_last_level_only_if_it_is_written_for_it() {
    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    levels[5] = vec![SimFile::new(1, 6000, 0, 10)];
    levels[6] = vec![SimFile::new(4, 9000, 20, 50)];
    let pick = |levels: &[Vec<SimFile>; LEVELS]| tree(levels, &[]).pick(&LIMITS).unwrap();
    assert!(pick(&levels).is_move);
    levels[5][0].fits_last = false;
    let rewritten = pick(&levels);
    assert_eq!(
        (input_ids(&rewritten), rewritten.output_level),
        (vec![1], 6)
    );
    assert!(!rewritten.is_move);
}

/// A damaged table kept all of level 0 where it was, for good.
#[test]
fn what_need_not_pass_a_damaged_table_goes_down() {
    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    let moving = |levels: &[Vec<SimFile>; LEVELS]| {
        let pick = tree(levels, &[]).pick(&LIMITS);
        pick.map(|pick| (input_ids(&pick), pick.output_level))
    };
    // Newest first. Table 2 would pass the damaged one.
    let extents = [
        (60, 69),
        (15, 25),
        (8, 16),
        (50, 59),
        (20, 29),
        (40, 49),
        (0, 99),
        (10, 19),
    ];
    levels[0] = extents
        .iter()
        .zip(1..)
        .map(|((low, high), id)| SimFile::new(id, 100, *low, *high))
        .collect();
    levels[0][4].is_unreadable = true;
    assert_eq!(moving(&levels), Some((vec![1, 3, 4, 6, 7, 8], 6)));
    // And 1 would pass 2, which stays.
    levels[0][0] = SimFile::new(1, 100, 12, 16);
    assert_eq!(moving(&levels), Some((vec![3, 4, 6, 7, 8], 6)));
    // Damage below: what overlaps it stays, and so does what would pass that.
    levels[0][4].is_unreadable = false;
    levels[0].remove(6);
    levels[6] = vec![SimFile::new(20, 100, 30, 42), SimFile::new(21, 100, 70, 80)];
    levels[6][0].is_unreadable = true;
    assert_eq!(moving(&levels), Some((vec![1, 2, 3, 5, 8], 6)));
    let settled = |levels: &[Vec<SimFile>; LEVELS]| tree(levels, &[]).settled_in_level0(&LIMITS);
    assert_eq!(settled(&levels), 1);
    // Those on the other side go when they are more.
    for id in 9..14 {
        levels[0].insert(0, SimFile::new(id, 100, 50, 80));
    }
    assert_eq!(moving(&levels), Some((vec![4, 9, 10, 11, 12, 13, 21], 6)));
}

/// Those that had to stay became ever more, and writers were slowed for good.
#[test]
fn what_stays_in_level_0_is_joined_there_with_its_neighbours_in_age() {
    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    levels[0] = (0..8).map(|id| SimFile::new(id, 100, 0, 50)).collect();
    levels[6] = vec![SimFile::new(9, 5000, 0, 50)];
    levels[0][7].is_unreadable = true;
    levels[0][2].low = 60_u64.to_be_bytes();
    levels[0][2].high = 70_u64.to_be_bytes();
    let pick = tree(&levels, &[]).pick(&LIMITS).expect("four neighbours");
    assert_eq!(
        (input_ids(&pick), pick.output_level, pick.is_move),
        (vec![3, 4, 5, 6], 0, false)
    );
    assert_eq!(tree(&levels, &[]).settled_in_level0(&LIMITS), 3);
    levels[0].drain(3..7);
    levels[0].insert(3, SimFile::new(10, 400, 0, 50));
    assert_eq!(tree(&levels, &[]).pick(&LIMITS), None);
    assert_eq!(tree(&levels, &[]).settled_in_level0(&LIMITS), 4);
}

/// All that was flushed beside such a job came into one table, which had to be read and written
/// again as a whole, and whose filter was made in memory.
#[test]
fn beside_a_job_over_all_tables_level_0_is_joined_up_to_a_bound() {
    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    // Newest first.
    levels[0] = (0..5)
        .map(|id| SimFile::flushed(id, 180, 0, 50))
        .chain((5..7).map(|id| SimFile::flushed(id, 900, 0, 50)))
        .collect();
    let picked = |levels: &[Vec<SimFile>; LEVELS]| {
        let tree = tree(levels, &[]);
        let pick = tree.pick_beside_full(&LIMITS);
        let picked = pick.map(|pick| (input_ids(&pick), pick.output_level));
        (picked, tree.settled_beside_full(&LIMITS))
    };
    assert_eq!(picked(&levels), (Some((vec![0, 1, 2, 3, 4], 0)), 2));
    levels[0].drain(..2);
    assert_eq!(picked(&levels), (None, 5));
    levels[0] = (0..4).map(|id| SimFile::flushed(id, 900, 0, 50)).collect();
    assert_eq!(picked(&levels), (None, 4));
}

/// Tables of a sorted load were merged into one, and would have moved down unread.
#[test]
fn beside_a_job_over_all_tables_what_will_move_down_is_left_alone() {
    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    let loaded = |id| SimFile::new(id, 100, 10 * id, 10 * id + 9);
    levels[0] = (0..6).map(loaded).collect();
    let picked = |levels: &[Vec<SimFile>; LEVELS]| tree(levels, &[]).pick_beside_full(&LIMITS);
    assert_eq!(picked(&levels), None);
    // It would be rewritten for the one that overlaps it.
    levels[0][2].high = 35_u64.to_be_bytes();
    assert!(picked(&levels).is_some());
}

#[test]
fn level_0_never_jumps_over_a_level_in_use() {
    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    levels[0] = (0..4).map(|id| SimFile::new(id, 100, 0, 50)).collect();
    levels[3] = vec![SimFile::new(8, 1, 20, 20)];
    levels[6] = vec![SimFile::new(9, 900, 0, 50)];
    // Its target is nothing: it drains before or after, but is not passed by.
    let pick = tree(&levels, &[]).pick(&LIMITS).unwrap();
    assert!(pick.output_level <= 4);
    levels[0].truncate(3);
    let pick = tree(&levels, &[]).pick(&LIMITS).unwrap();
    assert_eq!(
        (input_ids(&pick), pick.output_level, pick.is_move),
        (vec![8], 4, true)
    );
}

#[test]
fn the_table_with_the_least_overlap_goes_first_and_running_jobs_are_avoided() {
    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    levels[5] = vec![SimFile::new(1, 600, 0, 10), SimFile::new(2, 600, 20, 30)];
    levels[6] = vec![SimFile::new(3, 2000, 0, 10), SimFile::new(4, 3000, 11, 50)];
    let pick = tree(&levels, &[]).pick(&LIMITS).unwrap();
    assert_eq!((input_ids(&pick), pick.output_level), (vec![1, 3], 6));
    let other = tree(&levels, std::slice::from_ref(&pick.span))
        .pick(&LIMITS)
        .unwrap();
    assert_eq!(input_ids(&other), [2, 4]);
    assert_eq!(tree(&levels, &[pick.span, other.span]).pick(&LIMITS), None);
}

#[test]
fn tables_of_deletes_move_down_when_nothing_else_is_due() {
    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    levels[5] = vec![SimFile::new(1, 60, 0, 10), SimFile::new(2, 60, 20, 30)];
    levels[5][1].deletes = 80;
    levels[6] = vec![SimFile::new(4, 9000, 0, 50)];
    let pick = tree(&levels, &[]).pick(&LIMITS).unwrap();
    assert_eq!(input_ids(&pick), [2, 4]);
}

#[test]
fn small_neighbours_are_joined_and_large_ones_are_not() {
    let sized = |sizes: &[u64]| {
        let files = sizes.iter().zip(1..).map(|(bytes, id)| {
            let low = id * 10;
            SimFile::new(id, *bytes, low, low + 5)
        });
        let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
        levels[6] = files.collect();
        levels
    };
    let joined = |sizes: &[u64]| {
        let levels = sized(sizes);
        let pick = tree(&levels, &[]).pick(&LIMITS)?;
        assert_eq!((pick.output_level, pick.is_move), (6, false));
        Some(input_ids(&pick))
    };
    assert_eq!(joined(&[10, 10, 10]), None);
    assert_eq!(joined(&[10, 10, 10, 10]), Some(vec![1, 2, 3, 4]));
    // The largest would be rewritten for little, but the others are joined.
    assert_eq!(joined(&[80, 5, 5, 4]), None);
    assert_eq!(joined(&[80, 4, 4, 4, 4]), Some(vec![2, 3, 4, 5]));
    assert_eq!(joined(&[8, 4, 2, 1]), None);
    // No larger than a table may be.
    assert_eq!(joined(&[30, 30, 30, 30]), None);
    assert_eq!(joined(&[60, 20, 20, 20, 20, 60]), Some(vec![2, 3, 4, 5]));
    // Not where the output would overlap too much below.
    let mut levels = sized(&[10, 10, 10, 10]);
    levels.swap(5, 6);
    levels[6] = vec![SimFile::new(9, 10_000, 0, 99)];
    let within = |max_overlap_bytes| Limits {
        max_overlap_bytes,
        ..LIMITS
    };
    assert_eq!(tree(&levels, &[]).pick(&within(9999)), None);
    let pick = tree(&levels, &[]).pick(&within(10_000)).expect("joins");
    assert_eq!((pick.output_level, input_ids(&pick)), (5, vec![1, 2, 3, 4]));
}

/// Trivial moves carried tombstones to the last level, where nothing looked at them again; and what
/// a snapshot had held stayed when it was gone.
#[test]
fn a_table_with_nothing_below_it_is_rewritten_once_no_snapshot_sees_what_it_hides() {
    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    let mut hollow = SimFile::new(1, 100, 10, 20);
    hollow.deletes = 60;
    levels[4].push(hollow);
    // So large that tables may stay in level 4.
    levels[6].push(SimFile::new(2, 50_000, 30, 40));
    let pick = |levels: &[Vec<SimFile>; LEVELS]| tree(levels, &[]).pick(&LIMITS);
    // Nothing lies in its way, but it is no move.
    let down = pick(&levels).expect("on its way down");
    assert_eq!((down.output_level, down.is_move), (5, false));
    // A snapshot sees what it hides: it stays where it is.
    levels[4][0].largest_seq = 101;
    assert_eq!(pick(&levels), None);
    assert_eq!(tree(&levels, &[]).next_release(), Some(SeqNo(101)));
    levels[4][0].largest_seq = 100;
    assert!(pick(&levels).is_some());
    // Something lies below: it is moved there, seen or not.
    levels[4][0].largest_seq = 101;
    levels[6].insert(0, SimFile::new(3, 100, 15, 25));
    let down = pick(&levels).expect("on its way down");
    assert_eq!((down.output_level, down.is_move), (5, true));

    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    levels[6].push(SimFile::new(1, 100, 10, 20));
    levels[6][0].deletes = 60;
    let again = pick(&levels).expect("in its last place");
    assert_eq!((again.output_level, again.is_move), (6, false));
    levels[6][0].deletes = 40;
    assert_eq!(pick(&levels), None);
    levels[6][0].older_versions = 13;
    assert!(pick(&levels).is_some());
    levels[6][0].largest_seq = 101;
    assert_eq!(pick(&levels), None);
    assert_eq!(tree(&levels, &[]).next_release(), Some(SeqNo(101)));
}

#[test]
fn level_0_is_due_early_if_that_frees_as_much_as_it_costs() {
    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    levels[0].push(SimFile::new(1, 1, 10, 20));
    levels[6].push(SimFile::new(2, 100, 0, 30));
    levels[6].push(SimFile::new(3, 500, 40, 50));
    for (covered_bytes, is_due) in [(0, false), (49, false), (50, true)] {
        levels[0][0].covered_bytes.below = covered_bytes;
        let pick = tree(&levels, &[]).pick(&LIMITS);
        assert_eq!(
            pick.map(|pick| input_ids(&pick)),
            is_due.then(|| vec![1, 2])
        );
    }
}

#[test]
fn level_0_is_due_early_if_its_deletes_hide_half_of_what_is_read() {
    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    levels[0].push(SimFile::new(1, 1, 10, 20));
    // Entries here have three bytes on average.
    levels[6].push(SimFile::new(2, 100, 0, 30));
    levels[6].push(SimFile::new(3, 500, 40, 50));
    for (deletes, is_due) in [(0, false), (16, false), (17, true)] {
        levels[0][0].deletes = deletes;
        let picked = tree(&levels, &[]).pick(&LIMITS);
        let inputs = picked.map(|pick| input_ids(&pick));
        assert_eq!(inputs, is_due.then(|| vec![1, 2]));
    }
    // A snapshot may see what they hide.
    levels[0][0].deletes = 60;
    levels[0][0].largest_seq = 101;
    assert_eq!(tree(&levels, &[]).pick(&LIMITS), None);
    assert_eq!(tree(&levels, &[]).next_release(), Some(SeqNo(101)));
}

/// What a delete or a range delete hid in level 0 itself counted for nothing.
#[test]
fn level_0_is_due_early_if_half_of_it_is_hidden_in_it() {
    let pair = || {
        let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
        levels[0].push(SimFile::new(2, 20, 10, 20));
        levels[0].push(SimFile::new(1, 100, 10, 20));
        levels
    };
    let inputs = |levels: &[Vec<SimFile>; LEVELS]| {
        let picked = tree(levels, &[]).pick(&LIMITS);
        picked.map(|pick| input_ids(&pick))
    };
    let mut levels = pair();
    for (in_level0, is_due) in [(0, false), (59, false), (60, true)] {
        levels[0][0].covered_bytes.in_level0 = in_level0;
        assert_eq!(inputs(&levels), is_due.then(|| vec![1, 2]));
    }
    let mut levels = pair();
    for (deletes, is_due) in [(0, false), (59, false), (60, true)] {
        levels[0][0].deletes = deletes;
        assert_eq!(inputs(&levels), is_due.then(|| vec![1, 2]));
    }
    // A table's deletes hide nothing of a newer one.
    let mut levels = pair();
    levels[0][1].deletes = 100;
    assert_eq!(inputs(&levels), None);
}

/// Feeds flushes of random keys and does all picks; keys are never overwritten.
#[test]
fn a_simulated_fill_keeps_its_shape_and_writes_little() {
    const FLUSH_BYTES: u64 = 32 << 20;
    const TABLE_BYTES: u64 = 64 << 20;
    let limits = Limits {
        base_bytes: 16 * FLUSH_BYTES,
        table_bytes: TABLE_BYTES,
        max_overlap_bytes: 10 * TABLE_BYTES,
        ..LIMITS
    };
    let mut random = Random::new(1);
    let mut levels: [Vec<SimFile>; LEVELS] = Default::default();
    let (mut next_id, mut flushed, mut written) = (0, 0, 0);
    for _ in 0..1200 {
        next_id += 1;
        flushed += FLUSH_BYTES;
        let low = random.below(1 << 20);
        levels[0].insert(
            0,
            SimFile::flushed(next_id, FLUSH_BYTES, low, (1 << 32) - 1 - low),
        );
        while let Some(pick) = tree(&levels, &[]).pick(&limits) {
            let mut inputs = Vec::new();
            for (level, id) in &pick.inputs {
                let at = levels[*level]
                    .iter()
                    .position(|file| file.id == *id)
                    .unwrap();
                inputs.push(levels[*level].remove(at));
            }
            let low = inputs
                .iter()
                .map(|file| u64::from_be_bytes(file.low))
                .min()
                .unwrap();
            let high = inputs
                .iter()
                .map(|file| u64::from_be_bytes(file.high))
                .max()
                .unwrap();
            let bytes: u64 = inputs.iter().map(|file| file.size_bytes).sum();
            if pick.is_move {
                levels[pick.output_level].extend(inputs);
            } else {
                written += bytes;
                let count = bytes.div_ceil(TABLE_BYTES);
                let width = (high - low + 1) / count;
                for n in 0..count {
                    next_id += 1;
                    let start = low + n * width;
                    let end = if n + 1 == count {
                        high
                    } else {
                        start + width - 1
                    };
                    let file = SimFile::new(next_id, bytes / count, start, end);
                    levels[pick.output_level].push(file);
                }
            }
            levels[pick.output_level].sort_by_key(|file| file.low);
            for level in &levels[1..] {
                assert!(level.windows(2).all(|pair| pair[0].high < pair[1].low));
            }
        }
        assert!(levels[0].len() < 4);
    }
    let sizes: Vec<u64> = levels
        .iter()
        .map(|l| l.iter().map(|file| file.size_bytes).sum())
        .collect();
    let total: u64 = sizes.iter().sum();
    // 37 GiB over three levels: at least five sixths rest in the last level.
    assert!(sizes[6] * 6 > total * 5, "{sizes:?}");
    let amplification = written as f64 / flushed as f64;
    assert!(
        amplification < 20.0,
        "write amplification {amplification}, {sizes:?}"
    );
}
