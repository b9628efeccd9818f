//! What is done while operations fail: short programs that between them reach everything that a
//! store does with its files.

use hedgerow::{Durability, EngineKind, KeyspaceOptions};
use support::filter;
use support::random::{Random, Source};

use super::driver::{Driver, Edit, key_of};

use Durability::{Buffered, Sync};

/// A named program.
pub type Workload = (&'static str, fn(&mut Driver));

pub const ALL: [Workload; 29] = [
    ("fill", fill),
    ("fill buffered", fill_buffered),
    ("overwrite", overwrite),
    ("deletes", deletes),
    ("range deletes", range_deletes),
    ("batches over both engines", batches),
    ("flush", flush),
    ("compaction", compaction),
    ("background work", background_work),
    ("full write buffer", full_write_buffer),
    ("log rotation", log_rotation),
    ("keyspaces made", keyspaces_made),
    ("keyspace dropped", keyspace_dropped),
    ("keyspace made again", keyspace_made_again),
    ("keyspace renamed", keyspace_renamed),
    ("reopen", reopen),
    ("recovery", recovery),
    ("large values", large_values),
    ("snapshots", snapshots),
    ("scans", scans),
    ("bulk loads", bulk_loads),
    ("no cache", no_cache),
    ("emptied", emptied),
    ("merges", merges),
    ("expiry", expiry),
    ("filters", filters),
    ("staged batches", staged_batches),
    ("transactions", transactions),
    ("everything", everything),
];

fn other(engine: EngineKind) -> EngineKind {
    match engine {
        EngineKind::Lsm => EngineKind::BTree,
        EngineKind::BTree => EngineKind::Lsm,
    }
}

fn main_only(d: &mut Driver) {
    d.make("main", d.engine);
}

fn both(d: &mut Driver) {
    d.make("main", d.engine);
    d.make("other", other(d.engine));
}

fn fill(d: &mut Driver) {
    main_only(d);
    for n in 0..12 {
        d.put("main", n * 7 % 12, 60, Sync);
    }
    d.check();
}

fn fill_buffered(d: &mut Driver) {
    both(d);
    for n in 0..20 {
        d.put(["main", "other"][n as usize % 2], n, 100, Buffered);
        if n % 7 == 6 {
            d.sync();
        }
    }
    d.check();
}

fn bulk_loads(d: &mut Driver) {
    both(d);
    d.load("main", 0, 30, 60);
    d.put("main", 7, 40, Buffered);
    d.put("other", 3, 40, Buffered);
    d.check();
    d.load("main", 20, 50, 100);
    d.load("other", 0, 10, 40);
    d.check();
    d.put("main", 25, 40, Sync);
    d.work();
    d.load("main", 60, 64, 1500);
    d.check();
    d.reopen(true);
    d.load("main", 0, 5, 40);
    d.compact();
    d.check();
}

fn overwrite(d: &mut Driver) {
    main_only(d);
    for round in 0..4 {
        for n in 0..6 {
            let durability = if n == 5 { Sync } else { Buffered };
            d.put("main", n, 40 + round * 30, durability);
        }
        if round == 1 {
            d.flush();
        }
    }
    d.check();
}

fn deletes(d: &mut Driver) {
    main_only(d);
    for n in 0..16 {
        d.put("main", n, 80, Buffered);
    }
    d.flush();
    for n in 0..16 {
        if n % 3 != 0 {
            d.delete("main", n, if n % 4 == 0 { Sync } else { Buffered });
        }
    }
    d.check();
    d.flush();
    d.check();
}

fn range_deletes(d: &mut Driver) {
    main_only(d);
    for n in 0..30 {
        d.put("main", n, 60, Buffered);
    }
    d.flush();
    for (from, to) in [(3, 9), (20, 25), (8, 12)] {
        let edit = Edit::DeleteRange(key_of(from), key_of(to));
        d.commit(&[("main", edit)], Sync);
        d.put("main", from + 1, 60, Buffered);
    }
    d.check();
    d.flush();
    d.check();
    d.compact();
    d.check();
}

fn batches(d: &mut Driver) {
    both(d);
    for n in 0..12u32 {
        let mut edits = Vec::new();
        for name in ["main", "other"] {
            edits.push((name, Edit::Set(b"count".to_vec(), Some(d.value(8)))));
            edits.push((name, Edit::Set(key_of(n), Some(d.value(200)))));
            if n > 3 {
                edits.push((name, Edit::Set(key_of(n - 3), None)));
            }
            if n == 9 {
                edits.push((name, Edit::DeleteRange(key_of(0), key_of(5))));
            }
        }
        d.commit(&edits, if n % 2 == 0 { Sync } else { Buffered });
        if n % 5 == 4 {
            d.flush();
        }
    }
    d.check();
}

fn flush(d: &mut Driver) {
    both(d);
    for round in 0..3 {
        for n in 0..8 {
            d.put("main", n * 3 + round, 120, Buffered);
            d.put("other", n * 3 + round, 120, Buffered);
        }
        d.flush();
        d.check();
    }
}

fn compaction(d: &mut Driver) {
    main_only(d);
    for round in 0..4 {
        for n in 0..14 {
            d.put("main", n * 5 + round * 2, 150, Buffered);
        }
        d.delete("main", round * 5, Buffered);
        d.flush();
    }
    d.compact();
    d.check();
}

fn background_work(d: &mut Driver) {
    both(d);
    for n in 0..40 {
        d.put("main", n * 17 % 40, 900, Buffered);
        if n % 8 == 7 {
            d.put("other", n, 200, Sync);
            d.work();
        }
    }
    d.check();
}

fn full_write_buffer(d: &mut Driver) {
    main_only(d);
    for n in 0..60 {
        d.put(
            "main",
            n * 37 % 60,
            1500,
            if n % 20 == 0 { Sync } else { Buffered },
        );
    }
    d.check();
}

fn log_rotation(d: &mut Driver) {
    d.with(|options| options.write_buffer_bytes(512 << 10));
    both(d);
    // An idle keyspace holds the oldest segment until it is flushed for the log's sake.
    d.put("other", 0, 100, Sync);
    for n in 0..30 {
        d.put(
            "main",
            n % 6,
            14_000,
            if n % 5 == 0 { Sync } else { Buffered },
        );
        if n % 10 == 9 {
            d.work();
        }
    }
    d.check();
}

fn keyspaces_made(d: &mut Driver) {
    for (n, name) in ["main", "b", "c", "d"].into_iter().enumerate() {
        d.make(name, EngineKind::ALL[n % 2]);
        d.put(name, 1, 50, Sync);
    }
    d.check();
    d.reopen(false);
    d.check();
}

fn keyspace_dropped(d: &mut Driver) {
    both(d);
    for n in 0..10 {
        d.put("main", n, 200, Buffered);
        d.put("other", n, 200, Buffered);
    }
    d.flush();
    d.put("main", 3, 10, Buffered);
    d.drop_keyspace("main");
    d.put("other", 3, 10, Sync);
    d.check();
    d.reopen(true);
    d.check();
}

fn keyspace_made_again(d: &mut Driver) {
    main_only(d);
    for engine in [other(d.engine), d.engine] {
        for n in 0..6 {
            d.put("main", n, 100, Buffered);
        }
        d.drop_keyspace("main");
        d.make("main", engine);
        d.put("main", 2, 100, Sync);
    }
    d.check();
}

fn keyspace_renamed(d: &mut Driver) {
    both(d);
    for n in 0..6 {
        d.put("main", n, 200, Buffered);
        d.put("other", n, 200, Buffered);
    }
    d.rename("main", "renamed");
    d.put("renamed", 3, 10, Buffered);
    d.flush();
    d.put("renamed", 4, 10, Sync);
    d.check();
    d.reopen(true);
    d.rename("other", "b");
    d.put("b", 4, 10, Buffered);
    d.check();
    d.reopen(false);
    d.check();
}

fn reopen(d: &mut Driver) {
    both(d);
    for round in 0..3 {
        for n in 0..6 {
            d.put("main", n * 3 + round, 100, Buffered);
            d.put("other", n + round, 100, Buffered);
        }
        if round == 1 {
            d.flush();
        }
        d.reopen(true);
        d.check();
    }
}

fn recovery(d: &mut Driver) {
    both(d);
    for round in 0..3 {
        for n in 0..8 {
            d.put(
                "main",
                n * 3 + round,
                300,
                if n == 4 { Sync } else { Buffered },
            );
            d.put("other", n, 1200, Buffered);
        }
        d.delete("main", 3, Buffered);
        d.reopen(false);
        d.check();
        if round == 1 {
            d.work();
        }
    }
}

fn large_values(d: &mut Driver) {
    main_only(d);
    for n in 0..6 {
        d.put(
            "main",
            n % 4,
            5_000 + n as usize * 4_000,
            if n % 2 == 0 { Sync } else { Buffered },
        );
        if n % 3 == 2 {
            d.flush();
            d.check();
        }
    }
    d.delete("main", 2, Sync);
    d.reopen(false);
    d.check();
}

fn snapshots(d: &mut Driver) {
    both(d);
    for n in 0..15 {
        d.put("main", n, 150, Buffered);
        d.put("other", n, 150, Buffered);
    }
    let first = d.hold_snapshot();
    d.flush();
    for n in 0..15 {
        d.put("main", n, 100, Buffered);
        d.delete("other", n, Buffered);
    }
    let second = d.hold_snapshot();
    d.flush();
    d.compact();
    d.check_snapshot(first.as_ref());
    d.check_snapshot(second.as_ref());
    drop(first);
    d.put("main", 3, 10, Sync);
    d.compact();
    d.check_snapshot(second.as_ref());
    d.check();
}

fn scans(d: &mut Driver) {
    main_only(d);
    for n in 0..60 {
        d.put("main", n, 120, Buffered);
    }
    d.flush();
    d.reopen(true);
    let mut begun = d.begin_scan(20);
    for n in 20..50 {
        d.delete("main", n, Buffered);
    }
    d.flush();
    d.compact();
    if let Some(begun) = &mut begun {
        d.go_on(begun, 50);
    }
    d.check();
}

fn no_cache(d: &mut Driver) {
    d.with(|options| options.cache_bytes(0));
    main_only(d);
    for n in 0..40 {
        d.put("main", n, 100, Buffered);
    }
    d.flush();
    d.reopen(true);
    d.check();
    d.put("main", 7, 100, Sync);
    d.delete("main", 8, Sync);
    d.flush();
    d.check();
    // Whole leaves go unread, and are read when their pages are to be freed.
    let edit = Edit::DeleteRange(key_of(4), key_of(38));
    d.commit(&[("main", edit)], Sync);
    d.flush();
    d.check();
}

fn emptied(d: &mut Driver) {
    main_only(d);
    for n in 0..40 {
        d.put("main", n, 300, Buffered);
    }
    d.flush();
    d.commit(
        &[("main", Edit::DeleteRange(Vec::new(), b"z".to_vec()))],
        Sync,
    );
    d.check();
    d.compact();
    d.work();
    d.check();
    d.put("main", 1, 100, Sync);
    d.reopen(true);
    d.check();
}

fn appending(options: KeyspaceOptions) -> KeyspaceOptions {
    let options = options.value_threshold_bytes(0);
    options.merge_operator("append")
}

fn expiring(options: KeyspaceOptions) -> KeyspaceOptions {
    appending(options).expiry(true)
}

fn merge(d: &Driver, n: u32, len: usize) -> Edit {
    Edit::Merge(key_of(n), d.value(len))
}

fn merges(d: &mut Driver) {
    d.make_with("main", d.engine, appending);
    d.make_with("other", other(d.engine), appending);
    for round in 0..3 {
        for n in 0..8 {
            let name = if n % 4 == 3 { "other" } else { "main" };
            let durability = if n == 5 { Sync } else { Buffered };
            d.commit(&[(name, merge(d, n % 5, 30))], durability);
        }
        let edits = ["main", "main", "other"].map(|name| (name, merge(d, round, 20)));
        d.commit(&edits, Buffered);
        match round {
            0 => d.flush(),
            1 => d.reopen(false),
            _ => d.compact(),
        }
        d.put("main", 1, 50, Buffered);
    }
    let edit = Edit::DeleteRange(key_of(0), key_of(3));
    d.commit(&[("main", edit)], Buffered);
    d.commit(&[("main", merge(d, 2, 20))], Sync);
    d.check();
    d.reopen(true);
    d.check();
}

fn expiry(d: &mut Driver) {
    d.make_with("main", d.engine, expiring);
    d.make_with("other", other(d.engine), expiring);
    for round in 0..2 {
        for n in 0..24 {
            let name = if n % 4 == 3 { "other" } else { "main" };
            let edit = match n % 3 {
                0 => Edit::Set(key_of(n), Some(d.value(100))),
                _ => Edit::SetFor(key_of(n), d.value(100), 20 + u64::from(n)),
            };
            d.commit(&[(name, edit)], if n == 5 { Sync } else { Buffered });
        }
        if round == 0 {
            d.flush();
        }
        d.advance_ms(30);
        d.check();
        d.commit(&[("main", merge(d, 1, 20))], Buffered);
        d.work();
        d.advance_ms(200);
        d.work();
        d.check();
        if round == 0 {
            d.reopen(false);
        }
    }
    d.compact();
    d.check();
}

fn filtered(options: KeyspaceOptions) -> KeyspaceOptions {
    options.compaction_filter(filter::NAME)
}

fn filters(d: &mut Driver) {
    d.make_with("main", d.engine, filtered);
    d.make_with("other", other(d.engine), filtered);
    for round in 0..3 {
        for n in 0..14 {
            let name = if n % 4 == 3 { "other" } else { "main" };
            let mark = if n % 3 == 0 { filter::MARKED } else { b'+' };
            let value = [&[mark], &d.value(80)[..]].concat();
            let edit = Edit::Set(key_of(n + round), Some(value));
            d.commit(&[(name, edit)], if n == 9 { Sync } else { Buffered });
        }
        match round {
            0 => d.compact(),
            1 => {
                d.advance_ms(20);
                d.flush();
                d.work();
            }
            _ => d.reopen(false),
        }
        d.check();
    }
    d.compact();
    d.check();
}

/// Batches of eight operations for each keyspace, which are seen before the engines have them.
fn staged_batches(d: &mut Driver) {
    both(d);
    for round in 0..6u32 {
        let mut edits = Vec::new();
        for name in ["main", "other"] {
            for n in 0..6 {
                let key = key_of((n * 5 + round) % 24);
                let value = (n != 4).then(|| [&d.value(100)[..], &[n as u8]].concat());
                edits.push((name, Edit::Set(key, value)));
            }
            let (from, to) = (round * 3, round * 3 + 4);
            edits.push((name, Edit::DeleteRange(key_of(from), key_of(to))));
            let last = match round {
                3 => Edit::DeleteRange(Vec::new(), b"z".to_vec()),
                _ => Edit::Set(key_of(round), Some(d.value(60))),
            };
            edits.push((name, last));
        }
        d.commit(&edits, if round % 2 == 0 { Sync } else { Buffered });
        if round % 2 == 1 {
            d.check();
        }
        match round {
            1 => d.flush(),
            2 => d.reopen(false),
            3 => d.load("main", 0, 6, 40),
            4 => d.work(),
            _ => {}
        }
    }
    d.reopen(true);
    d.check();
}

fn transactions(d: &mut Driver) {
    both(d);
    for round in 0..5u32 {
        let mut edits = Vec::new();
        for name in ["main", "other"] {
            for n in 0..2 + 3 * (round % 2) {
                let value = [&d.value(120)[..], &[n as u8]].concat();
                edits.push((name, Edit::Set(key_of(n * 3 + round), Some(value))));
            }
            edits.push((name, Edit::Set(key_of(round), None)));
        }
        if round == 4 {
            edits.push(("main", Edit::DeleteRange(key_of(2), key_of(6))));
        }
        d.transact(&edits, if round % 2 == 0 { Sync } else { Buffered });
        match round {
            2 => d.flush(),
            3 => d.reopen(true),
            4 => d.check(),
            _ => {}
        }
    }
    d.compact();
    d.check();
}

fn everything(d: &mut Driver) {
    both(d);
    let mut random = Random::new(91);
    for _ in 0..110 {
        let name = *random.pick(&["main", "other"]);
        let key = random.below(40) as u32;
        let durability = *random.pick(&[Sync, Buffered, Buffered]);
        match random.below(24) {
            0..14 => {
                let len = random.below(400) as usize;
                d.put(name, key, len, durability);
            }
            14..17 => d.delete(name, key, durability),
            17 => {
                let edit = Edit::DeleteRange(key_of(key), key_of(key + 4));
                d.commit(&[(name, edit)], durability);
            }
            18 => {
                let edits =
                    ["main", "other"].map(|name| (name, Edit::Set(key_of(key), Some(d.value(30)))));
                d.commit(&edits, durability);
            }
            19 => d.flush(),
            20 => d.work(),
            21 => d.sync(),
            22 => d.reopen(random.one_in(2)),
            _ => d.compact(),
        }
    }
    d.check();
}
