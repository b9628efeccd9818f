//! What the store is doing when the power fails. Each workload is small, because every state at
//! every change of the file system is recovered, and named after what it is about.

use hedgerow::Durability::{Buffered, Sync};
use hedgerow::{EngineKind, Figure, InspectDetail, Keyspace, KeyspaceOptions};
use support::filter;
use support::random::Source;

use super::world::{Edit, World, key_of, other};

/// A name and what to do.
pub type Workload = (&'static str, fn(&mut World));

/// Packs in keyspace "a", or one if it is no B-tree, which has none.
fn packs(world: &World) -> u64 {
    match world.engine {
        EngineKind::BTree => packs_of(world.keyspace("a")),
        EngineKind::Lsm => 1,
    }
}

/// Packs in the file of a B-tree.
pub fn packs_of(keyspace: &Keyspace) -> u64 {
    let tree = keyspace
        .inspect(InspectDetail::Levels)
        .expect("it can be read");
    let packs = tree.parts.iter().filter(|part| part.kind == "packs");
    let figures = packs.flat_map(|part| &part.figures);
    let number = |figure: &(&str, Figure)| match figure {
        ("packs", Figure::Number(number)) => *number,
        _ => 0,
    };
    figures.map(number).sum()
}

fn appending(options: KeyspaceOptions) -> KeyspaceOptions {
    options.merge_operator("append")
}

fn filtered(options: KeyspaceOptions) -> KeyspaceOptions {
    options.compaction_filter(filter::NAME)
}

/// All workloads.
pub const ALL: &[Workload] = &[
    ("create_store", |_| {}),
    ("puts_synced", |world| {
        world.create_both();
        for n in 0..12 {
            world.put("a", n * 7 % 10, 20, Sync);
        }
    }),
    ("puts_buffered", |world| {
        world.create_both();
        for n in 0..16 {
            world.put("a", n * 7 % 10, 60, Buffered);
            if n % 6 == 5 {
                world.sync();
            }
        }
    }),
    ("deletes", |world| {
        world.create_both();
        for n in 0..8 {
            world.put("a", n, 30, Buffered);
        }
        world.flush("a");
        for n in 0..8 {
            world.delete("a", n * 3 % 8, if n % 2 == 0 { Sync } else { Buffered });
        }
        world.flush("a");
    }),
    ("range_deletes", |world| {
        world.create_both();
        for n in 0..20 {
            world.put("a", n, 30, Buffered);
        }
        world.flush("a");
        world.delete_range("a", 3, 9, Sync);
        world.put("a", 5, 10, Buffered);
        world.delete_range("a", 0, 100, Buffered);
        world.put("a", 6, 10, Sync);
        world.flush("a");
        world.compact("a");
    }),
    ("overwrites", |world| {
        world.create_both();
        for n in 0..14 {
            world.put(
                "a",
                n % 2,
                10 + 40 * n as usize,
                if n % 3 == 0 { Sync } else { Buffered },
            );
            if n % 5 == 4 {
                world.flush("a");
            }
        }
    }),
    ("batches", |world| {
        world.create_both();
        for n in 0..6_u64 {
            let mut edits = Vec::new();
            for m in 0..5 {
                edits.push(("a", Edit::Put(key_of(m), world.random.bytes(100))));
            }
            edits.push(("a", Edit::Delete(key_of(n % 5))));
            edits.push(("a", Edit::DeleteRange(key_of(n), key_of(n + 2))));
            world.commit(&edits, if n % 2 == 0 { Buffered } else { Sync });
        }
    }),
    ("batches_over_both_engines", |world| {
        world.create_both();
        for n in 0..8 {
            let mut edits = Vec::new();
            for _ in 0..4 {
                let name = *world.random.pick(&["a", "b"]);
                edits.push((name, world.draw_edit()));
            }
            edits.push(("a", Edit::Put(key_of(0), vec![n])));
            edits.push(("b", Edit::Put(key_of(0), vec![n])));
            let durability = world.draw_durability();
            world.commit(&edits, durability);
            if n == 4 {
                world.flush("a");
            }
        }
    }),
    ("transactions", |world| {
        world.create_both();
        for n in 0..7 {
            let mut edits = Vec::new();
            let mut undone = Vec::new();
            for _ in 0..3 {
                let name = *world.random.pick(&["a", "b"]);
                edits.push((name, world.draw_edit()));
                undone.push((name, world.draw_edit()));
            }
            edits.push(("a", Edit::Put(key_of(0), vec![n])));
            edits.push(("b", Edit::Put(key_of(0), vec![n])));
            let durability = world.draw_durability();
            world.transact(&edits, &undone, durability);
            if n % 3 == 1 {
                world.foil(&undone, 5);
            }
            if n == 4 {
                world.flush("a");
            }
        }
    }),
    ("flushes", |world| {
        world.create_both();
        for round in 0..4 {
            for n in 0..4 {
                world.put("a", n + round, 50, Sync);
            }
            world.flush("a");
        }
    }),
    ("flush_of_buffered_commits", |world| {
        world.create_both();
        for round in 0..3 {
            for n in 0..6 {
                let name = if n % 2 == 0 { "a" } else { "b" };
                world.put(name, n + round, 90, Buffered);
            }
            world.flush("a");
        }
        world.flush_all();
    }),
    ("compaction", |world| {
        world.create_both();
        for round in 0..5 {
            for n in 0..6 {
                world.put("a", n * 2 + round, 80, Buffered);
            }
            world.flush("a");
        }
        world.compact("a");
        world.delete_range("a", 0, 8, Sync);
        world.compact("a");
    }),
    ("background_work", |world| {
        world.create_both();
        for n in 0..60 {
            world.put("a", n % 23, 400, Buffered);
            if n % 15 == 14 {
                world.work();
            }
        }
        world.sync();
    }),
    ("log_rotation", |world| {
        world.create_both();
        for n in 0..36 {
            let name = if n % 3 == 0 { "b" } else { "a" };
            world.put(name, n % 7, 2200, if n % 8 == 0 { Sync } else { Buffered });
            if n % 4 == 0 {
                world.work();
            }
        }
    }),
    ("log_rotation_without_preparation", |world| {
        world.create("a", world.engine);
        for n in 0..10 {
            world.put("a", n % 3, 15_000, if n % 4 == 3 { Sync } else { Buffered });
        }
    }),
    ("log_recycling", |world| {
        world.create_both();
        for n in 0..48 {
            world.put("a", n % 5, 4500, Buffered);
            if n % 12 == 11 {
                world.flush_all();
            }
            if n % 3 == 2 {
                world.work();
            }
        }
    }),
    ("keyspaces_made_between_commits", |world| {
        world.create("a", world.engine);
        world.put("a", 1, 20, Buffered);
        world.create("b", other(world.engine));
        world.put("b", 1, 20, Buffered);
        world.create("c", world.engine);
        world.put("c", 1, 20, Sync);
        world.put("a", 2, 20, Buffered);
        world.flush("c");
    }),
    ("keyspaces_made_and_not_written_to", |world| {
        world.create("a", world.engine);
        world.put("a", 1, 20, Buffered);
        world.create("b", other(world.engine));
        world.create("c", world.engine);
        world.work();
        world.put("a", 2, 20, Sync);
        world.create("d", world.engine);
        world.reopen();
        world.put("b", 1, 20, Buffered);
        world.flush("b");
        world.flush("c");
        world.kill();
        world.drop_keyspace("c");
        world.put("d", 1, 20, Buffered);
    }),
    ("keyspaces_renamed", |world| {
        world.create_both();
        for n in 0..4 {
            world.put("a", n, 40, Buffered);
            world.put("b", n, 40, Buffered);
        }
        world.rename("a", "c");
        world.put("c", 9, 40, Buffered);
        world.flush("c");
        world.create("a", world.engine);
        world.put("a", 1, 40, Sync);
        world.rename("b", "d");
        world.drop_keyspace("c");
        world.rename("a", "c");
        world.kill();
        world.put("c", 2, 40, Buffered);
        world.reopen();
        world.rename("d", "b");
        world.put("b", 7, 40, Sync);
    }),
    ("keyspaces_and_a_log_that_goes", |world| {
        world.create("a", world.engine);
        for n in 0..6 {
            let name = format!("k{n}");
            world.create(
                &name,
                if n % 2 == 0 {
                    world.engine
                } else {
                    other(world.engine)
                },
            );
            world.put(&name, n, 3000, Buffered);
            world.put("a", n, 14_000, Buffered);
            if n == 3 {
                world.drop_keyspace("k1");
                world.rename("k2", "renamed");
            }
            world.flush_all();
            world.work();
        }
    }),
    ("keyspaces_dropped", |world| {
        world.create_both();
        for n in 0..5 {
            world.put("a", n, 40, Buffered);
            world.put("b", n, 40, Sync);
        }
        world.flush("a");
        world.put("a", 2, 40, Buffered);
        world.drop_keyspace("a");
        world.put("b", 9, 40, Buffered);
        world.create("a", other(world.engine));
        world.put("a", 1, 40, Buffered);
        world.drop_keyspace("b");
        world.put("a", 2, 40, Sync);
    }),
    ("reopens", |world| {
        world.create_both();
        for round in 0..4 {
            world.put("a", round, 40, Buffered);
            world.put("b", round, 40, Sync);
            if round == 2 {
                world.flush_all();
            }
            world.put("a", round + 1, 40, Buffered);
            world.reopen();
        }
    }),
    ("kills", |world| {
        world.create_both();
        for round in 0..4 {
            for n in 0..3 {
                world.put("a", n + round, 70, Buffered);
                world.put("b", n + round, 70, Buffered);
            }
            if round == 1 {
                world.flush("b");
            }
            world.kill();
        }
        world.put("a", 0, 10, Sync);
    }),
    ("values_longer_than_pages", |world| {
        world.create_both();
        for n in 0..9_usize {
            world.put(
                "a",
                n as u64 % 4,
                700 + 900 * n,
                if n % 3 == 1 { Sync } else { Buffered },
            );
            if n % 4 == 3 {
                world.flush("a");
            }
        }
        world.delete("a", 1, Buffered);
        world.flush_all();
    }),
    ("values_that_leave_the_log", |world| {
        world.create_both();
        for n in 0..24 {
            let durability = if n % 8 == 7 { Sync } else { Buffered };
            world.put("a", n % 10, 9000, durability);
            if n % 8 == 7 {
                world.flush("a");
                world.work();
            }
        }
        world.compact("a");
        world.work();
        world.reopen();
        world.put("a", 1, 9000, Buffered);
        world.flush_all();
        world.work();
    }),
    ("snapshots_held", |world| {
        world.create_both();
        for n in 0..8 {
            world.put("a", n, 60, Buffered);
        }
        let before = world.truth().holding("a");
        let snapshot = world.db().snapshot();
        world.delete_range("a", 0, 5, Sync);
        world.flush("a");
        for n in 0..8 {
            world.put("a", n, 30, Buffered);
        }
        world.flush("a");
        world.compact("a");
        let held: Vec<_> = snapshot
            .range(world.keyspace("a"), ..)
            .map(|item| item.expect("readable"))
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        assert!(held.into_iter().eq((*before.map).clone()), "by I9");
        drop(snapshot);
        world.compact("a");
        world.work();
    }),
    ("merges", |world| {
        world.create_with("a", world.engine, appending);
        world.create_with("b", other(world.engine), appending);
        for round in 0..4 {
            for n in 0..6 {
                let (one, two) = (world.random.bytes(20), world.random.bytes(30));
                let into = ["a", "a", "b"][n as usize % 3];
                world.commit(&[(into, Edit::Merge(key_of(n % 4), one))], Buffered);
                if n % 3 == 2 {
                    let edits = [
                        ("a", Edit::Merge(key_of(n), two.clone())),
                        ("b", Edit::Merge(key_of(n), two)),
                        ("a", Edit::Merge(key_of(n), vec![round])),
                    ];
                    world.commit(&edits, Buffered);
                }
            }
            world.put("a", 1, 40, Buffered);
            match round {
                0 => world.flush("a"),
                1 => world.kill(),
                2 => world.delete_range("a", 0, 3, Buffered),
                _ => world.compact("a"),
            }
        }
        world.commit(&[("a", Edit::Merge(key_of(2), vec![b'x']))], Sync);
        world.flush("b");
        world.compact("b");
    }),
    ("merges_that_expire", |world| {
        let expiring = |options| appending(options).expiry(true);
        world.create_with("a", world.engine, expiring);
        world.create_with("b", other(world.engine), expiring);
        for round in 0..3 {
            for n in 0..6 {
                let (value, operand) = (world.random.bytes(30), world.random.bytes(20));
                let name = if n % 3 == 2 { "b" } else { "a" };
                let put = match n % 2 {
                    0 => Edit::PutFor(key_of(n), value, 20 + 15 * n),
                    _ => Edit::Put(key_of(n), value),
                };
                world.commit(&[(name, put)], Buffered);
                let merge = Edit::Merge(key_of((n + round) % 6), operand);
                world.commit(&[(name, merge)], if n == 3 { Sync } else { Buffered });
                if n == round + 1 {
                    world.flush("a");
                }
                world.advance_ms(9);
            }
            // Into what has expired, and what has not yet left.
            world.advance_ms(25);
            let operand = world.random.bytes(10);
            let edits = [0, 2, 4].map(|n| ("a", Edit::Merge(key_of(n), operand.clone())));
            world.commit(&edits, Buffered);
            match round {
                0 => world.compact("a"),
                1 => world.kill(),
                _ => world.work(),
            }
        }
        world.advance_ms(200);
        world.compact("a");
        world.compact("b");
    }),
    ("filtered", |world| {
        world.create_with("a", world.engine, filtered);
        world.create("b", other(world.engine));
        for round in 0..3 {
            for n in 0..8 {
                let mut value = world.random.bytes(40);
                value[0] = if (n + round) % 3 == 0 {
                    filter::MARKED
                } else {
                    b'+'
                };
                world.commit(&[("a", Edit::Put(key_of(n + round), value))], Buffered);
            }
            world.put("b", round, 40, if round == 1 { Sync } else { Buffered });
            if round != 1 {
                world.flush("a");
            }
            world.compact_filtered("a");
            world.delete("a", round + 1, Buffered);
        }
        world.sync();
    }),
    // Large batches, of which ranges are all that is left.
    ("staged_batches", |world| {
        world.create_both();
        for round in 0..3 {
            let mut edits = Vec::new();
            for name in ["a", "b"] {
                for n in 0..5 {
                    edits.push((name, Edit::Put(key_of(n * 2), world.random.bytes(60))));
                }
                edits.push((name, Edit::DeleteRange(key_of(2), key_of(7))));
                edits.push((name, Edit::Delete(key_of(8))));
                if round != 1 || name == "b" {
                    edits.push((name, Edit::DeleteRange(String::new(), "l".into())));
                }
            }
            world.commit(&edits, if round == 2 { Sync } else { Buffered });
            world.put("b", round, 30, Buffered);
            if round != 0 {
                world.flush("a");
            }
            world.load("a", 20, 26, 1, 40);
            if round != 1 {
                world.kill();
            }
            world.put("a", 21, 30, Buffered);
        }
        world.flush_all();
    }),
    // A B-tree writes packs then, appends to them, and merges them.
    ("few_changes_in_many_leaves", |world| {
        world.create_both();
        let mut edits = Vec::new();
        for n in 0..96 {
            edits.push(("a", Edit::Put(key_of(n), world.random.bytes(60))));
        }
        world.commit(&edits, Buffered);
        world.flush("a");
        for round in 0..10 {
            let mut edits = Vec::new();
            for leaf in 0..8 {
                let edit = match (leaf + round) % 6 {
                    0 => Edit::Delete(key_of(12 * leaf + round)),
                    1 => Edit::Put(format!("{} more", key_of(12 * leaf)), vec![round as u8; 20]),
                    _ => Edit::Put(key_of(12 * leaf + round), world.random.bytes(60)),
                };
                edits.push(("a", edit));
            }
            world.commit(&edits, if round % 3 == 0 { Sync } else { Buffered });
            world.flush("a");
            assert!(packs(world) > 0, "round {round}");
            match round {
                4 => world.delete_range("a", 30, 44, Buffered),
                6 => world.kill(),
                8 => {
                    for n in 60..70 {
                        world.put("a", 200 + n, 90, Buffered);
                    }
                }
                _ => {}
            }
        }
        world.flush_all();
    }),
    ("bulk_loads", |world| {
        world.create_both();
        world.load("a", 0, 30, 1, 60);
        world.put("a", 7, 30, Buffered);
        world.put("b", 1, 30, Buffered);
        world.load("a", 5, 60, 4, 80);
        world.put("a", 9, 30, Buffered);
        world.kill();
        world.load("b", 10, 20, 1, 40);
        world.delete_range("a", 3, 12, Buffered);
        world.work();
        world.load("a", 100, 120, 1, 40);
        world.put("a", 110, 20, Sync);
        world.flush("a");
        world.compact("a");
    }),
    ("bulk_loads_between_commits", |world| {
        world.create_both();
        for n in 0..12 {
            world.put("a", n, 50, Buffered);
            world.put("b", n, 50, Buffered);
        }
        world.load("a", 4, 8, 1, 700);
        world.reopen();
        world.load("a", 6, 20, 2, 50);
        // One that is given up.
        let mut load = world.keyspace("a").bulk_load().expect("it begins");
        for n in 0..20 {
            load.put(key_of(n), [n as u8; 50]).expect("in order");
        }
        drop(load);
        world.put("a", 1, 50, Sync);
        world.load("b", 0, 12, 3, 50);
        world.drop_keyspace("b");
        world.put("a", 2, 50, Sync);
    }),
    ("a_file_that_shrinks", |world| {
        world.create_both();
        for n in 0..60 {
            world.put("a", n, 500, Buffered);
        }
        world.flush("a");
        world.delete_range("a", 2, 58, Buffered);
        world.flush("a");
        world.compact("a");
        world.put("a", 30, 500, Sync);
        world.flush("a");
    }),
    ("mixed", |world| {
        world.create_both();
        for _ in 0..40 {
            let name = *world.random.pick(&["a", "a", "b"]);
            match world.random.weighted(&[20, 4, 2, 1, 1, 2, 1, 1]) {
                0 => {
                    let edit = world.draw_edit();
                    let durability = world.draw_durability();
                    world.commit(&[(name, edit)], durability);
                }
                1 => {
                    let edits = [("a", world.draw_edit()), ("b", world.draw_edit())];
                    let durability = world.draw_durability();
                    world.commit(&edits, durability);
                }
                2 => world.flush(name),
                3 => world.flush_all(),
                4 => world.compact(name),
                5 => world.work(),
                6 => world.reopen(),
                _ => world.kill(),
            }
        }
        assert!(world.keyspace("a").iter().all(|item| item.is_ok()));
    }),
];
