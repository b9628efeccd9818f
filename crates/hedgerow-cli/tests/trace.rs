//! Recording a workload and what the command line makes of it: `replay` and `advise`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hedgerow::trace::{KeyMode, Reader, TraceOptions};
use hedgerow::{Db, Durability, EngineKind, Options};
use serde_json::Value;

/// Records a bit of everything on two keyspaces of a store that held records before.
fn record(dir: &Path, options: TraceOptions) -> PathBuf {
    let (store, trace) = (dir.join("store"), dir.join("a.trace"));
    let before = Db::open(&store).unwrap();
    let users = before.keyspace("users", EngineKind::BTree).unwrap();
    let users = users.with_durability(Durability::Buffered);
    for n in 0..500 {
        users.put(format!("old {n:04}"), [1; 50]).unwrap();
    }
    before.close().unwrap();
    drop((users, before));

    let db = Options::new()
        .durability(Durability::Buffered)
        .record_to(&trace, options)
        .open(&store)
        .unwrap();
    let users = db.keyspace("users", EngineKind::BTree).unwrap();
    let events = db.keyspace("events", EngineKind::Lsm).unwrap();
    for n in 0..300u64 {
        assert!(users.get(format!("old {n:04}")).unwrap().is_some());
        assert!(users.get(format!("absent {n}")).unwrap().is_none());
        let mut batch = db.batch();
        batch.put(&events, n.to_be_bytes(), vec![7; n as usize]);
        batch.put(&users, format!("new {n}"), "x");
        db.write(batch, Durability::Buffered).unwrap();
        if n % 10 == 0 {
            assert_eq!(users.range("old"..).take(20).count(), 20);
            events.delete(n.to_be_bytes()).unwrap();
        }
    }
    events.delete_range(..50u64.to_be_bytes()).unwrap();
    let snapshot = db.snapshot();
    assert_eq!(snapshot.iter(&events).rev().take(5).count(), 5);
    db.flush().unwrap();
    db.close().unwrap();
    trace
}

fn hedgerow(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hedgerow"))
        .args(arguments)
        .output()
        .expect("the tool starts")
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_replay_does_what_was_recorded_on_both_engines() {
    let dir = tempfile::tempdir().unwrap();
    let trace = record(dir.path(), TraceOptions::new());
    let path = trace.to_str().unwrap();
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let home = home.to_str().unwrap();
    let replayed = json(&hedgerow(&["replay", path, "--json", "--dir", home]));
    // The records that lookups found; scans took none beyond them.
    assert_eq!(replayed["preloaded_records"], 300);
    assert_eq!(replayed["made_up_records"], 0);
    for engine in ["lsm", "btree"] {
        let kinds = &replayed["engines"][engine]["latencies"];
        assert_eq!(kinds["get hit"]["count"], 300, "{engine}");
        assert_eq!(kinds["get miss"]["count"], 300, "{engine}");
        assert_eq!(kinds["batch"]["count"], 300, "{engine}");
        assert_eq!(kinds["scan"]["count"], 31, "{engine}");
        assert_eq!(kinds["delete"]["count"], 30, "{engine}");
        assert_eq!(kinds["delete_range"]["count"], 1, "{engine}");
        // Both engines end with the same contents.
        assert_eq!(
            replayed["engines"][engine]["live_bytes"],
            replayed["engines"]["lsm"]["live_bytes"]
        );
        assert!(replayed["engines"][engine]["write_amplification"].as_f64() > Some(0.0));
    }
    let limited = ["replay", path, "--json", "--ops", "10", "--engine", "lsm"];
    let filled = [
        "--records-preload",
        "900",
        "--speed",
        "recorded",
        "--dir",
        home,
    ];
    let replayed = json(&hedgerow(&[&limited[..], &filled[..]].concat()));
    assert!(replayed["engines"]["lsm"]["ops"].as_u64() <= Some(12));
    assert!(replayed["engines"]["btree"].is_null());
    assert_eq!(replayed["preloaded_records"], 1800);
    // Nothing is left behind.
    assert_eq!(std::fs::read_dir(home).unwrap().count(), 0);
}

#[test]
fn what_replay_and_advise_print_fits_80_columns() {
    let dir = tempfile::tempdir().unwrap();
    let trace = record(dir.path(), TraceOptions::new().keys(KeyMode::Hashed));
    let path = trace.to_str().unwrap();
    let home = dir.path().to_str().unwrap();
    for command in [
        &["replay", path, "--records-preload", "900", "--dir", home][..],
        &["advise", path, "--rounds", "2", "--dir", home],
    ] {
        let output = hedgerow(command);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && text.lines().count() > 10,
            "{text}"
        );
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}\nof\n{text}");
        }
    }
}

#[test]
fn hashed_traces_replay_and_advise() {
    let dir = tempfile::tempdir().unwrap();
    let trace = record(dir.path(), TraceOptions::new().keys(KeyMode::Hashed));
    let path = trace.to_str().unwrap();
    let home = dir.path().to_str().unwrap();
    let replayed = json(&hedgerow(&["replay", path, "--json", "--dir", home]));
    for engine in ["lsm", "btree"] {
        let kinds = &replayed["engines"][engine]["latencies"];
        assert_eq!(kinds["get hit"]["count"], 300, "{engine}");
        assert_eq!(kinds["get miss"]["count"], 300, "{engine}");
    }
}

#[test]
fn advice_names_an_engine_for_each_keyspace_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let trace = record(dir.path(), TraceOptions::new());
    let path = trace.to_str().unwrap();
    let home = dir.path().to_str().unwrap();
    let advised = json(&hedgerow(&[
        "advise", path, "--json", "--rounds", "2", "--dir", home,
    ]));
    let keyspaces = advised["keyspaces"].as_array().unwrap();
    assert_eq!(keyspaces.len(), 2);
    assert_eq!(keyspaces[0]["keyspace"], "users");
    assert_eq!(keyspaces[0]["profile"]["hit_rate"], 0.5);
    assert_eq!(
        keyspaces[1]["profile"]["write_share"]
            .as_f64()
            .unwrap()
            .round(),
        1.0
    );
    for keyspace in keyspaces {
        assert!(["lsm", "btree"].contains(&keyspace["engine"].as_str().unwrap()));
        assert_eq!(keyspace["rounds"]["lsm"].as_array().unwrap().len(), 2);
        assert_eq!(keyspace["criteria"].as_array().unwrap().len(), 6);
    }
    // For people, with one goal and one keyspace.
    let output = hedgerow(&[
        "advise", path, "-k", "events", "--goal", "space", "--rounds", "1",
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "goal space: 10 % throughput",
        "keyspace events",
        "advice:",
        "80 %",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(!text.contains("users"));
}

#[test]
fn a_torn_trace_is_used_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let trace = record(dir.path(), TraceOptions::new());
    let bytes = std::fs::read(&trace).unwrap();
    let torn = dir.path().join("torn.trace");
    std::fs::write(&torn, &bytes[..bytes.len() - 1]).unwrap();
    let whole = Reader::open(&trace).unwrap().count();
    assert_eq!(Reader::open(&torn).unwrap().count(), whole);
    let home = dir.path().to_str().unwrap();
    let output = hedgerow(&["replay", torn.to_str().unwrap(), "--json", "--dir", home]);
    let notes = json(&output)["notes"].to_string();
    assert!(notes.contains("breaks off"), "{notes}");
}

#[test]
fn what_is_no_trace_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other");
    std::fs::write(
        &other,
        "this is not a trace, but it is long enough for the header of one",
    )
    .unwrap();
    let missing = dir.path().join("missing");
    let trace = record(dir.path(), TraceOptions::new());
    for (path, complaint) in [(&other, "not a trace"), (&missing, "missing")] {
        for command in ["replay", "advise"] {
            let output = hedgerow(&[command, path.to_str().unwrap()]);
            assert_eq!(output.status.code(), Some(1));
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(errors.contains(complaint), "{errors}");
        }
    }
    let output = hedgerow(&["advise", trace.to_str().unwrap(), "-k", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn impossible_requests_are_refused_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let trace = record(dir.path(), TraceOptions::new());
    let stores = dir.path().join("stores");
    std::fs::create_dir(&stores).unwrap();
    let (trace, stores_dir) = (trace.to_str().unwrap(), stores.to_str().unwrap());
    let nowhere = dir.path().join("no/such");
    let nowhere = nowhere.to_str().unwrap();
    for (code, complaint, arguments) in [
        (2, "--ops", &["replay", trace, "--ops", "0"][..]),
        (2, "--ops", &["advise", trace, "--ops", "0"]),
        (2, "--rounds", &["advise", trace, "--rounds", "0"]),
        (2, "--seconds", &["advise", trace, "--seconds", "0"]),
        (2, "--goal", &["advise", trace, "--goal", "wealth"]),
        (2, "--engine", &["replay", trace, "--engine", "hash"]),
        (2, "--speed", &["replay", trace, "--speed", "light"]),
        (
            2,
            "--cache-mib",
            &["replay", trace, "--cache-mib", "99999999999999"],
        ),
        (
            2,
            "--write-buffer-mib",
            &["advise", trace, "--write-buffer-mib", "0"],
        ),
        (
            2,
            "--records-preload",
            &["replay", trace, "--records-preload", "999999999999"],
        ),
        (1, "no/such", &["replay", trace, "--dir", nowhere]),
        (1, "no/such", &["advise", trace, "--dir", nowhere]),
        // A directory is no trace.
        (1, "stores", &["replay", stores_dir, "--dir", stores_dir]),
        (1, "stores", &["advise", stores_dir, "--dir", stores_dir]),
    ] {
        let output = hedgerow(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(complaint), "{arguments:?}: {errors}");
        assert_eq!(
            std::fs::read_dir(&stores).unwrap().count(),
            0,
            "{arguments:?}"
        );
    }
}

/// A run that ends early, because the trace does, leaves nothing behind either.
#[test]
fn replays_leave_no_stores_behind() {
    let dir = tempfile::tempdir().unwrap();
    let trace = record(dir.path(), TraceOptions::new());
    let stores = dir.path().join("stores");
    std::fs::create_dir(&stores).unwrap();
    let (trace, stores_dir) = (trace.to_str().unwrap(), stores.to_str().unwrap());
    let output = hedgerow(&["replay", trace, "--dir", stores_dir, "--ops", "50"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read_dir(&stores).unwrap().count(), 0);
}

/// A program that records was started a second time, and all it heard was "File exists".
#[test]
fn a_second_start_with_recording_on_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let trace = record(dir.path(), TraceOptions::new());
    let before = std::fs::read(&trace).unwrap();
    let options = Options::new().record_to(&trace, TraceOptions::new());
    let error = options.open(dir.path().join("store")).unwrap_err();
    let error = error.to_string();
    for part in ["a.trace exists already", "name another file, or remove"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(std::fs::read(&trace).unwrap(), before);
    // The store is none the worse for it.
    Db::open(dir.path().join("store")).unwrap().close().unwrap();
}
