//! One list of cases, run on the model and on both engines in several configurations. Every
//! case in every configuration is a test of its own, named `conformance::CONFIGURATION::CASE`.
//!
//! A case is a function over `impl Kv` that starts with an empty keyspace. On a real store the
//! harness adds to every case: afterwards `verify` is clean, and after closing and opening
//! again everything is still there, and again after compaction.

use hedgerow::{EngineKind, Keyspace, MemtableKind, Model};
use support::rig::{Place, Rig, Sizes};

mod batches;
pub mod helpers;
mod limits;
mod one_step;
mod points;
mod range_deletes;
mod scans;
mod snapshots;
mod whole;

/// The list. `$with` is a function that calls a case with a fresh keyspace.
macro_rules! conformance {
    ($($configuration:ident: $with:expr;)+) => {$(
        mod $configuration {
            use super::*;
            conformance! { @tests $with =>
                points: an_empty_store_has_nothing, put_get_contains_delete, the_last_put_wins,
                    a_deleted_key_stays_deleted_after_flushes, deleting_what_is_absent_is_fine,
                    a_key_can_come_and_go_many_times, the_empty_key_and_the_empty_value,
                    awkward_keys_are_told_apart, every_single_byte_is_a_key,
                    keys_with_long_shared_prefixes, keys_of_falling_and_rising_length,
                    many_keys_in_random_order, ascending_and_descending_fills,
                    overwriting_with_other_sizes, deleting_most_of_many,
                    get_with_lends_the_value, a_value_outlives_what_happens_to_its_key,
                    multi_get_keeps_the_order, looking_up_a_key_beyond_the_limit_finds_nothing;
                limits: keys_of_the_longest_length, many_long_keys,
                    keys_beyond_the_limit_are_refused, values_of_every_interesting_size,
                    a_value_of_twenty_mib, values_beyond_the_limit_are_refused,
                    bounds_longer_than_any_key;
                batches: an_empty_batch_changes_nothing, the_last_operation_of_a_batch_wins,
                    range_deletes_inside_a_batch_keep_their_place,
                    both_durabilities_are_visible_at_once, a_batch_can_be_cleared_and_used_again,
                    a_batch_of_many_operations, a_batch_of_several_mib,
                    random_batches_agree_with_a_map;
                scans: every_kind_of_bounds, every_range_syntax, both_ends_meet_in_the_middle,
                    prefixes, seek_jumps_ahead_and_never_back, random_walks_agree_with_a_map,
                    lending_and_owning_agree, a_scan_does_not_see_later_writes,
                    deleting_while_scanning_drains_everything, scans_over_deleted_stretches;
                range_deletes: empty_and_inverted_bounds_delete_nothing,
                    every_kind_of_bounds_deletes_what_it_says,
                    the_whole_keyspace_can_be_deleted, keys_put_after_a_range_delete_stay,
                    a_range_delete_reaches_through_every_layer, awkward_bounds,
                    overlapping_range_deletes_and_puts_agree_with_a_map,
                    many_small_range_deletes, range_deletes_of_large_values;
                whole: the_ends_are_the_lowest_and_the_highest_key, the_length_is_exact,
                    keys_and_values_alone, seeking_from_both_ends_agrees_with_a_map,
                    points_that_divide_a_range_lie_in_it,
                    sizes_of_ranges_are_about_right;
                one_step: every_write_returns_a_higher_number, update_makes_changes_and_removes,
                    comparing_and_swapping, remove_and_pops_return_what_was_there,
                    retain_removes_what_is_not_wanted, threads_that_count_lose_nothing,
                    no_entry_is_popped_twice;
                snapshots: a_snapshot_of_nothing_stays_empty,
                    stable_across_overwrites_and_deletes, stable_across_range_deletes,
                    a_snapshot_between_two_operations_of_one_key, a_snapshot_sees_whole_batches,
                    scans_of_a_snapshot_outlive_it, many_snapshots_taken_and_dropped;
            }
        }
    )+};
    (@tests $with:expr => $($subject:ident: $($case:ident),+;)+) => {$($(
        #[test]
        fn $case() {
            $with(|kv| $subject::$case(kv));
        }
    )+)+};
}

conformance! {
    model: on_model;
    lsm: on_store(EngineKind::Lsm, Place::Disk, Sizes::Default);
    lsm_tiny: on_store(EngineKind::Lsm, Place::Disk, Sizes::Tiny);
    lsm_tiny_without_maps: without_maps(EngineKind::Lsm);
    lsm_tiny_in_memory: on_store(EngineKind::Lsm, Place::Memory, Sizes::Tiny);
    skiplist: on_skiplist(Place::Disk, Sizes::Default);
    skiplist_tiny: on_skiplist(Place::Disk, Sizes::Tiny);
    skiplist_tiny_in_memory: on_skiplist(Place::Memory, Sizes::Tiny);
    btree: on_store(EngineKind::BTree, Place::Disk, Sizes::Default);
    btree_tiny: on_store(EngineKind::BTree, Place::Disk, Sizes::Tiny);
    btree_tiny_apart: apart(Place::Disk);
    btree_tiny_apart_in_memory: apart(Place::Memory);
    btree_tiny_without_maps: without_maps(EngineKind::BTree);
    btree_tiny_in_memory: on_store(EngineKind::BTree, Place::Memory, Sizes::Tiny);
}

fn on_model(case: impl FnOnce(&Model)) {
    case(&Model::new());
}

fn on_store(engine: EngineKind, place: Place, sizes: Sizes) -> impl FnOnce(fn(&Keyspace)) {
    move |case| run(Rig::new(place, sizes), engine, case)
}

/// On an LSM tree whose memtables are skip lists.
fn on_skiplist(place: Place, sizes: Sizes) -> impl FnOnce(fn(&Keyspace)) {
    move |case| {
        let rig = Rig::new(place, sizes).with_memtable(MemtableKind::SkipList);
        run(rig, EngineKind::Lsm, case);
    }
}

/// On a B-tree that stores longer values apart.
fn apart(place: Place) -> impl FnOnce(fn(&Keyspace)) {
    move |case| {
        let rig = Rig::new(place, Sizes::Tiny).with_memtable(MemtableKind::SkipList);
        run(rig, EngineKind::BTree, case);
    }
}

fn without_maps(engine: EngineKind) -> impl FnOnce(fn(&Keyspace)) {
    move |case| {
        let rig = Rig::new(Place::Disk, Sizes::Tiny)
            .with(|options| options.mmap_reads(false).mmap_log(false));
        run(rig, engine, case);
    }
}

fn run(mut rig: Rig, engine: EngineKind, case: fn(&Keyspace)) {
    let keyspace = rig.keyspace("data", engine);
    case(&keyspace);

    let expected: Vec<_> = keyspace.iter().collect::<Result<_, _>>().expect("readable");
    let report = rig.db().verify().expect("verification runs");
    assert!(report.is_clean(), "after the case: {:#?}", report.problems);

    drop(keyspace);
    rig.close();
    let keyspace = rig.keyspace("data", engine);
    let found: Vec<_> = keyspace.iter().collect::<Result<_, _>>().expect("readable");
    assert!(
        found == expected,
        "after opening again: {} entries of {}",
        found.len(),
        expected.len()
    );
    keyspace
        .put(b"writable", b"")
        .expect("writable after opening again");
    keyspace
        .delete(b"writable")
        .expect("writable after opening again");

    keyspace.compact().expect("compaction runs");
    let found: Vec<_> = keyspace.iter().collect::<Result<_, _>>().expect("readable");
    let expected: Vec<_> = expected
        .into_iter()
        .filter(|(key, _)| key != b"writable")
        .collect();
    assert!(
        found == expected,
        "after compaction: {} entries of {}",
        found.len(),
        expected.len()
    );
    let report = rig.db().verify().expect("verification runs");
    assert!(
        report.is_clean(),
        "after compaction: {:#?}",
        report.problems
    );
    drop(keyspace);
    rig.close();
}
