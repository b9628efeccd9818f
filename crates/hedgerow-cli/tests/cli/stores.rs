//! The commands that read, count and change stores, as newcomers met them.

use serde_json::json;

use crate::rig::{Bench, ENGINES, parse};

/// `stats` said ~0 and `verify` 0 entries of a store with 135,233 records.
#[test]
fn what_was_loaded_or_put_is_counted_everywhere() {
    for engine in ENGINES {
        let b = Bench::new();
        let lines: String = (0..3000).map(|n| format!("{n:05}\tvalue\n")).collect();
        b.file("a.tsv", &lines);
        let load = ["load", "db", "a.tsv", "--key", "1", "--engine", engine];
        b.ok(&load);
        let stats = |args: &[&str]| {
            let all = [&["stats", "db", "--json"], args].concat();
            parse(&b.ok(&all))["keyspaces"][0].clone()
        };
        assert_eq!(stats(&[])["records"], 3000, "{engine}");
        assert!(
            b.ok(&["verify", "db"]).contains(", 3,000 records"),
            "{engine}"
        );
        assert_eq!(parse(&b.ok(&["verify", "db", "--json"]))["records"], 3000);
        // One more, of which only the log knows.
        b.ok(&["put", "db", "k", "v"]);
        assert_eq!(stats(&[])["records"], 3001, "{engine}");
        assert_eq!(stats(&[])["records_are_exact"], true, "{engine}");
        assert_eq!(stats(&["--estimate"])["records_are_exact"], false);
        assert!(b.ok(&["stats", "db"]).contains(" 3,001 "));
        assert!(b.ok(&["verify", "db"]).contains(", 3,001 records"));
        assert_eq!(b.ok(&["count", "db"]), "3001\n");
        assert_eq!(b.ok(&["count", "db", "--prefix", "000"]), "100\n");
        assert_eq!(
            b.ok(&["count", "db", "--from", "00010", "--to", "00015"]),
            "5\n"
        );
        assert_eq!(
            parse(&b.ok(&["count", "db", "--json"])),
            json!({ "keyspace": "default", "records": 3001 })
        );
    }
}

/// A store had one keyspace, `events`, and a `put` without `-k` went there.
#[test]
fn writes_never_pick_another_keyspace() {
    let b = Bench::new();
    b.ok(&["put", "db", "k", "v", "-k", "events"]);
    b.file("a.tsv", "a\tb\n");
    let writes: [&[&str]; 4] = [
        &["put", "db", "k", "other"],
        &["delete", "db", "k"],
        &["delete", "db", "--all"],
        &["load", "db", "a.tsv", "--key", "1"],
    ];
    for write in writes {
        b.fails(2, "which keyspace? the store has events", write);
    }
    assert_eq!(b.ok(&["keyspaces", "db"]), "lsm    events\n");
    // Reading does no harm.
    assert_eq!(b.ok(&["scan", "db"]), "k\tv\n");
    b.ok(&["put", "db", "k", "w", "-k", "default"]);
    b.ok(&["put", "db", "k", "x"]);
    assert_eq!(b.ok(&["get", "db", "k", "-k", "events"]), "v\n");
    assert_eq!(b.ok(&["get", "db", "k"]), "x\n");
}

/// An empty shell variable behind `--prefix` removed everything.
#[test]
fn bounds_that_take_in_everything_are_refused() {
    let b = Bench::new();
    b.file("a.tsv", "a\nb\nc\n");
    b.ok(&["load", "db", "a.tsv", "--key", "1"]);
    let everything: [&[&str]; 3] = [
        &["--prefix", ""],
        &["--from", ""],
        &["--prefix", "", "--hex"],
    ];
    for bounds in everything {
        b.fails(2, "say --all", &[&["delete", "db"], bounds].concat());
    }
    assert_eq!(b.ok(&["count", "db"]), "3\n");
    assert_eq!(b.ok(&["delete", "db", "--to", "b"]), "1 record deleted\n");
    let report = parse(&b.ok(&["delete", "db", "--all", "--json"]));
    assert_eq!(report, json!({ "keyspace": "default", "deleted": 2 }));
    assert_eq!(
        b.ok(&["delete", "db", "--all"]),
        "nothing deleted: there was no such key\n"
    );
}

#[test]
fn keys_are_accepted_as_scan_prints_them() {
    for engine in ENGINES {
        let b = Bench::new();
        for key in ["615c62", "00ff09", "5c6e", "0a", "c3a4"] {
            b.ok(&["put", "db", key, "01", "--hex", "--engine", engine]);
        }
        let keys = b.ok(&["scan", "db", "--keys-only"]);
        assert_eq!(keys.lines().count(), 5);
        for key in keys.lines() {
            assert_eq!(b.ok(&["get", "db", key, "--raw"]), "\u{1}", "{key}");
            assert!(b.ok(&["scan", "db", "--from", key]).starts_with(key));
            assert_eq!(b.ok(&["delete", "db", key]), "1 record deleted\n");
        }
        b.fails(2, "\\\\ is a backslash", &["get", "db", "a\\b"]);
    }
}

#[test]
fn help_helps() {
    let b = Bench::new();
    assert_eq!(b.ok(&["help"]), b.ok(&["--help"]));
    assert_eq!(b.ok(&["help", "load"]), b.ok(&["load", "--help"]));
    let help = b.ok(&["bench", "--help"]);
    for workload in hedgerow_bench::WORKLOADS {
        assert!(help.contains(workload.about), "{}", workload.name);
    }
    for run in hedgerow_bench::suite::scenarios::Trial::NAMES {
        assert!(help.contains(run), "{run}");
    }
}
