//! The command-line tool from outside: what it prints, what it stores, how it exits.

mod inspect;
mod load;
mod rig;
#[cfg(unix)]
mod signals;
mod stores;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hedgerow_bench::cities;
use serde_json::{Value, json};

use rig::{Bench, ENGINES, names, parse};

#[test]
fn put_get_delete() {
    for engine in ENGINES {
        let b = Bench::new();
        assert_eq!(b.ok(&["put", "db", "ada", "1815", "--engine", engine]), "");
        assert_eq!(b.ok(&["get", "db", "ada"]), "1815\n");
        assert_eq!(b.ok(&["get", "db", "ada", "--raw"]), "1815");
        assert_eq!(
            parse(&b.ok(&["get", "db", "ada", "--json"])),
            json!({"key": "ada", "value": "1815"})
        );
        assert_eq!(b.ok(&["keyspaces", "db"]), format!("{engine:5}  default\n"));
        assert_eq!(b.ok(&["delete", "db", "ada"]), "1 record deleted\n");
        b.fails(3, "no such key: ada", &["get", "db", "ada"]);
        assert!(
            b.ok(&["delete", "db", "ada"])
                .starts_with("nothing deleted")
        );
    }
}

#[test]
fn empty_and_binary_keys_and_values() {
    for engine in ENGINES {
        let b = Bench::new();
        b.ok(&["put", "db", "", "", "--engine", engine]);
        assert_eq!(b.ok(&["get", "db", ""]), "\n");
        b.ok(&["put", "db", "00ff", "0a0d80", "--hex"]);
        assert_eq!(b.ok(&["get", "db", "00FF", "--hex"]), "0a0d80\n");
        assert_eq!(b.ok(&["scan", "db"]), "\t\n\\x00\\xff\t\\n\\r\\x80\n");
        assert_eq!(
            b.ok(&["scan", "db", "--hex", "--from", "00"]),
            "00ff\t0a0d80\n"
        );
        let lines = b.ok(&["scan", "db", "--json", "--reverse", "--limit", "1"]);
        assert_eq!(
            parse(&lines),
            json!({"key": {"hex": "00ff"}, "value": {"hex": "0a0d80"}})
        );
        b.fails(2, "0g", &["get", "db", "0g", "--hex"]);

        b.file("value", [0, 159, 146, 150]);
        b.ok(&["put", "db", "file", "--file", "value"]);
        assert_eq!(
            b.ok(&["scan", "db", "--hex", "--prefix", "66"]),
            "66696c65\t009f9296\n"
        );
        assert_eq!(
            b.run_with_input(&["put", "db", "in", "--file", "-"], b"piped")
                .code,
            0
        );
        assert_eq!(b.ok(&["get", "db", "in"]), "piped\n");
    }
}

#[test]
fn scans_keep_their_bounds() {
    for engine in ENGINES {
        let b = Bench::new();
        b.file("in.tsv", "a\t1\nab\t2\nabc\t3\nb\t4\nc\t5\n");
        b.ok(&[
            "load", "db", "in.tsv", "--key", "1", "--value", "2", "--engine", engine,
        ]);
        let keys = |args: &[&str]| {
            let mut all = vec!["scan", "db", "--keys-only"];
            all.extend(args);
            b.ok(&all).split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(keys(&[]), "a ab abc b c");
        assert_eq!(keys(&["--reverse"]), "c b abc ab a");
        assert_eq!(keys(&["--from", "ab"]), "ab abc b c");
        assert_eq!(keys(&["--to", "b"]), "a ab abc");
        assert_eq!(keys(&["--from", "aa", "--to", "b", "--reverse"]), "abc ab");
        assert_eq!(keys(&["--prefix", "ab"]), "ab abc");
        assert_eq!(
            keys(&["--prefix", "ab", "--reverse", "--limit", "1"]),
            "abc"
        );
        assert_eq!(keys(&["--limit", "2"]), "a ab");
        assert_eq!(keys(&["--limit", "0"]), "");
        assert_eq!(keys(&["--from", "c", "--to", "a"]), "");

        b.ok(&["delete", "db", "--prefix", "ab"]);
        assert_eq!(keys(&[]), "a b c");
        b.ok(&["delete", "db", "--from", "b", "--to", "c"]);
        assert_eq!(keys(&[]), "a c");
        b.ok(&["delete", "db", "--all"]);
        assert_eq!(keys(&[]), "");
    }
}

#[test]
fn dumps_load_back_in_each_format() {
    let b = Bench::new();
    b.ok(&["put", "db", "", "empty key"]);
    b.ok(&["put", "db", "00ff80", "0a5c09", "--hex"]);
    b.ok(&["put", "db", "Zürich\\n", "tab\there, \"quoted\"\r\n"]);
    b.ok(&["put", "db", "empty value", ""]);
    let all = b.ok(&["scan", "db", "--hex"]);
    assert_eq!(all.lines().count(), 4);
    for format in ["tsv", "jsonl"] {
        for engine in ENGINES {
            let dump = b.ok(&["dump", "db", "--format", format]);
            assert_eq!(dump.lines().count(), 4);
            let file = format!("dump.{format}");
            b.file(&file, dump);
            let copy = format!("{format}-{engine}");
            let load = [
                "load", &copy, &file, "--dumped", "--engine", engine, "--json",
            ];
            assert_eq!(parse(&b.ok(&load))["records"], 4);
            assert_eq!(b.ok(&["scan", &copy, "--hex"]), all, "{format}, {engine}");
        }
    }
    assert_eq!(
        b.ok(&["dump", "db", "--json"]),
        b.ok(&["dump", "db", "--format", "jsonl"])
    );
}

#[test]
fn each_format_loads() {
    let b = Bench::new();
    let stdin = |args: &[&str], input: &str| {
        let ran = b.run_with_input(args, input.as_bytes());
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.out
    };
    b.file("a.csv", "name,born\n\"Lovelace, Ada\",1815\nHopper,1906\n");
    let printed = b.ok(&[
        "load", "db", "a.csv", "-k", "csv", "--key", "name", "--value", "born",
    ]);
    assert!(
        printed.starts_with("2 records read, 2 new keys, "),
        "{printed}"
    );
    assert_eq!(
        b.ok(&["scan", "db", "-k", "csv"]),
        "Hopper\t1906\nLovelace, Ada\t1815\n"
    );

    let args = [
        "load", "db", "-", "-k", "json", "--format", "jsonl", "--key", "a,b",
    ];
    stdin(&args, "{\"a\":1,\"b\":\"x\"}\n\n{\"a\":2,\"b\":\"y\"}\n");
    assert_eq!(
        b.ok(&["scan", "db", "-k", "json", "--keys-only"]),
        "1/x\n2/y\n"
    );
    assert_eq!(
        b.ok(&["get", "db", "1/x", "-k", "json"]),
        "{\"a\":1,\"b\":\"x\"}\n"
    );

    let args = [
        "load", "db", "-", "-k", "tsv", "--format", "tsv", "--header", "--key", "2,1",
    ];
    stdin(
        &[&args[..], &["--join", ":", "--batch", "1"]].concat(),
        "x\ty\n1\t2\n3\t4\n",
    );
    assert_eq!(
        b.ok(&["scan", "db", "-k", "tsv"]),
        "2:1\t1\\t2\n4:3\t3\\t4\n"
    );
}

#[test]
fn the_cities_load_from_their_file() {
    let b = Bench::new();
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../hedgerow-bench/data/cities.tsv.lz4"
    );
    let load = [
        "load",
        "db",
        file,
        "--key",
        "country,admin,name,id",
        "--engine",
        "btree",
        "--json",
    ];
    let report = parse(&b.ok(&load));
    assert_eq!(report["records"], json!(cities::CITIES));
    assert_eq!(report["engine"], "btree");
    let city = &cities::cities()[77_777];
    let key = String::from_utf8(city.key.clone()).unwrap();
    assert_eq!(b.ok(&["get", "db", &key, "--raw"]).as_bytes(), city.value);
    assert!(b.ok(&["scan", "db", "--prefix", "AD/"]).lines().count() > 5);
}

#[test]
fn bad_lines_say_where_and_how_much_was_committed() {
    let b = Bench::new();
    b.file(
        "bad.jsonl",
        "{\"k\":1}\n{\"k\":2}\n{\"k\":3}\nnot json\n{\"k\":5}\n",
    );
    let load = ["load", "db", "bad.jsonl", "--key", "k", "--batch", "2"];
    let ran = b.fails(1, "bad.jsonl: line 4: not JSON", &load);
    assert!(
        ran.err
            .contains("stopped after 2 records had been committed"),
        "{ran:?}"
    );
    assert_eq!(b.ok(&["scan", "db", "--keys-only"]), "1\n2\n");

    let ran = b.fails(1, "line 4", &[&load[..], &["--json"]].concat());
    let error = parse(&ran.err);
    assert_eq!(
        (&error["committed"], &error["line"]),
        (&json!(2), &json!(4))
    );
    assert_eq!(error["exit_code"], 1);

    b.file("long.tsv", format!("{}\tx\n", "k".repeat(65_536)));
    b.fails(
        1,
        "line 1: a key of 65536 bytes is too long",
        &["load", "db", "long.tsv", "--key", "1"],
    );
    b.file("short.tsv", "a\tb\nc\n");
    b.fails(
        1,
        "line 2: no column 2",
        &["load", "db", "short.tsv", "--key", "2"],
    );
}

#[test]
fn a_mistake_creates_nothing() {
    let b = Bench::new();
    for args in [
        &["get", "typo", "k"][..],
        &["scan", "typo"],
        &["dump", "typo"],
        &["stats", "typo"],
        &["keyspaces", "typo"],
        &["verify", "typo"],
        &["compact", "typo"],
        &["drop", "typo", "k"],
        &["rename", "typo", "k", "l"],
        &["delete", "typo", "k"],
    ] {
        b.fails(1, "no store at typo: it does not exist", args);
    }
    b.fails(
        1,
        "missing.tsv",
        &["load", "typo", "missing.tsv", "--key", "1"],
    );
    b.fails(
        2,
        "which column is the key",
        &["load", "typo", "missing.tsv"],
    );
    b.fails(
        2,
        "cannot tell the format",
        &["load", "typo", "missing", "--key", "1"],
    );
    assert!(!b.path("typo").exists());

    // A directory that is not a store stays as it is.
    fs::create_dir(b.path("empty")).unwrap();
    b.fails(1, "empty", &["get", "empty", "k"]);
    assert_eq!(fs::read_dir(b.path("empty")).unwrap().count(), 0);

    b.ok(&["put", "db", "k", "v", "-k", "one"]);
    let before = b.ok(&["keyspaces", "db"]);
    b.fails(
        1,
        "there is no keyspace \"two\": the store has one",
        &["scan", "db", "-k", "two"],
    );
    b.fails(1, "there is no keyspace", &["drop", "db", "two"]);
    b.fails(1, "there is no keyspace", &["rename", "db", "two", "one"]);
    b.fails(
        2,
        "exists with engine lsm",
        &["put", "db", "k", "v", "-k", "one", "--engine", "btree"],
    );
    assert_eq!(b.ok(&["keyspaces", "db"]), before);
}

#[test]
fn usage_errors_exit_with_2() {
    let b = Bench::new();
    for args in [
        &[][..],
        &["fly"],
        &["get", "db"],
        &["delete", "db"],
        &["delete", "db", "k", "--prefix", "p"],
        &["scan", "db", "--prefix", "a", "--from", "b"],
        &["put", "db", "k"],
        &["load", "db", "f.tsv", "--key", "1", "--batch", "0"],
        &["load", "db", "f.tsv", "--key", "1", "--dumped"],
        &["compare", "--records", "0"],
        &["compare", "--key", "1"],
    ] {
        b.fails(2, "", args);
    }
    assert!(b.ok(&["--version"]).starts_with("hedgerow "));
    assert!(b.ok(&["--help"]).contains("compare"));
}

#[test]
fn stats_verify_compact_drop() {
    for engine in ENGINES {
        let b = Bench::new();
        let lines: String = (0..5000).map(|n| format!("{n:05}\tvalue {n}\n")).collect();
        b.file("in.tsv", lines);
        b.ok(&[
            "load", "db", "in.tsv", "--key", "1", "-k", "a", "--engine", engine,
        ]);
        b.ok(&["put", "db", "k", "v", "-k", "b"]);

        let compacted = parse(&b.ok(&["compact", "db", "--json"]));
        assert!(compacted["disk_bytes_after"].as_u64().unwrap() > 0);
        let stats = parse(&b.ok(&["stats", "db", "--json"]));
        let keyspaces = stats["keyspaces"].as_array().unwrap();
        let names: Vec<_> = keyspaces
            .iter()
            .map(|ks| ks["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(keyspaces[0]["engine"], engine);
        assert!(
            keyspaces[0]["disk_bytes"].as_u64().unwrap() > 10_000,
            "{stats}"
        );
        assert!(b.ok(&["stats", "db", "-k", "b"]).contains("keyspace"));

        let report = parse(&b.ok(&["verify", "db", "--json"]));
        assert_eq!(report["clean"], true);
        assert!(report["entries"].as_u64().unwrap() >= 5001, "{report}");
        assert!(
            b.ok(&["verify", "db", "-k", "a"])
                .starts_with("no damage in ")
        );

        b.fails(1, "there is a keyspace", &["rename", "db", "a", "b"]);
        b.ok(&["rename", "db", "a", "c"]);
        assert!(b.ok(&["keyspaces", "db"]).ends_with("c\nlsm    b\n"));
        b.ok(&["drop", "db", "c"]);
        assert_eq!(b.ok(&["keyspaces", "db"]), "lsm    b\n");
        assert_eq!(b.ok(&["get", "db", "k"]), "v\n");
    }
}

/// The largest file below a directory: after a load and a compaction, the data.
fn largest_file(dir: &Path) -> (u64, PathBuf) {
    let mut largest = (0, PathBuf::new());
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let found = if path.is_dir() {
            largest_file(&path)
        } else {
            (fs::metadata(&path).unwrap().len(), path)
        };
        if found > largest {
            largest = found;
        }
    }
    largest
}

#[test]
fn verify_finds_damage() {
    for engine in ENGINES {
        let b = Bench::new();
        let lines: String = (0..20_000)
            .map(|n| format!("{n:05}\tvalue {n}\n"))
            .collect();
        b.file("in.tsv", lines);
        b.ok(&["load", "db", "in.tsv", "--key", "1", "--engine", engine]);
        b.ok(&["compact", "db"]);
        // Not the log's: its segments are prepared in advance, larger than the data.
        let keyspace = fs::read_dir(b.path("db"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let keyspace = keyspace.filter(|path| path.is_dir() && !path.ends_with("wal"));
        let (len, path) = keyspace.map(|dir| largest_file(&dir)).max().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        // In several places, because a B-tree file has pages that hold nothing.
        for at in (1..16).map(|sixteenth| len as usize * sixteenth / 16) {
            bytes[at] ^= 0x10;
        }
        fs::write(&path, bytes).unwrap();
        let ran = b.run(&["verify", "db", "--json"]);
        assert_eq!(ran.code, 4, "{engine}: {ran:?}");
        let report = parse(&ran.out);
        assert_eq!(report["clean"], false);
        let problems = report["problems"].as_array().unwrap();
        assert!(!problems.is_empty());
        for problem in problems {
            assert!(
                problem["file"].is_string() && problem["what"].is_string(),
                "{problem}"
            );
        }
        let ran = b.run(&["verify", "db"]);
        assert_eq!(ran.code, 4);
        assert!(ran.out.contains("problem"), "{ran:?}");
    }
}

/// Damage had the exit code of a reader that left, once it had more lines than a pipe holds.
#[test]
fn damage_is_the_verdict_when_the_reader_leaves() {
    let b = Bench::new();
    let value = "x".repeat(600);
    let lines: String = (0..30_000).map(|n| format!("{n:05}\t{value}\n")).collect();
    b.file("in.tsv", lines);
    b.ok(&["load", "db", "in.tsv", "--key", "1", "--engine", "btree"]);
    b.ok(&["compact", "db"]);
    let mut trees = fs::read_dir(b.path("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("tree.hdb"));
    let path = trees.find(|path| path.exists()).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    // One bit of each leaf: inner pages, which have no values, lead to them.
    for page in bytes.chunks_exact_mut(16 << 10) {
        if page[7000..8000].windows(8).any(|part| part == b"xxxxxxxx") {
            page[8000] ^= 0x10;
        }
    }
    fs::write(&path, bytes).unwrap();
    for json in [None, Some("--json")] {
        let mut args = vec!["verify", "db"];
        args.extend(json);
        let ran = b.run(&args);
        assert_eq!(ran.code, 4);
        assert!(ran.out.len() > 80 << 10, "{} bytes", ran.out.len());
        let mut child = b.start(&args);
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{output:?}");
    }
}

#[test]
fn a_store_in_use_is_refused() {
    let b = Bench::new();
    let db = hedgerow::Db::open(b.path("db")).unwrap();
    let holder = format!("open in another process, {}", std::process::id());
    b.fails(1, &holder, &["put", "db", "k", "v"]);
    b.fails(1, &holder, &["scan", "db"]);
    db.close().unwrap();
    b.ok(&["put", "db", "k", "v"]);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let b = Bench::new();
    let lines: String = (0..50_000).map(|n| format!("{n}\tvalue {n}\n")).collect();
    b.file("in.tsv", lines);
    b.ok(&["load", "db", "in.tsv", "--key", "1"]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_hedgerow"))
        .args(["scan", "db"])
        .current_dir(b.dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}

#[test]
fn compare_checks_and_reports() {
    let b = Bench::new();
    fs::create_dir(b.path("tmp")).unwrap();
    let small = [
        "compare",
        "--records",
        "2000",
        "--rounds",
        "1",
        "--dir",
        "tmp",
    ];
    let report = parse(&b.ok(&[&small[..], &["--json"]].concat()));
    assert_eq!(report["records"], 2000);
    assert_eq!(report["all_answers_checked"], true);
    let measures = report["measures"].as_array().unwrap();
    assert!(measures.len() >= 15);
    for measure in measures {
        for engine in ENGINES {
            assert_eq!(
                measure[engine]["samples"].as_array().unwrap().len(),
                1,
                "{measure}"
            );
            assert!(
                measure[engine]["median"].as_f64().unwrap() >= 0.0,
                "{measure}"
            );
        }
        assert!(measure["factor"].as_f64().unwrap() >= 1.0, "{measure}");
    }
    let text = b.ok(&small);
    assert!(text.contains("point reads, hit") && text.contains("Every answer was checked"));
    let left: Vec<_> = fs::read_dir(b.path("tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[cfg(unix)]
#[test]
fn compare_tidies_up_when_interrupted() {
    let b = Bench::new();
    fs::create_dir(b.path("tmp")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_hedgerow"))
        .args([
            "compare",
            "--records",
            "20000",
            "--rounds",
            "1000",
            "--dir",
            "tmp",
        ])
        .current_dir(b.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let files = || fs::read_dir(b.path("tmp")).unwrap().count();
    while files() == 0 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let signalled = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(signalled.success());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{err}");
    assert!(err.contains("interrupted"), "{err}");
    assert_eq!(files(), 0);
}

#[test]
fn compare_takes_a_file() {
    let b = Bench::new();
    let lines: String = (0..1000)
        .map(|n| format!("{{\"id\": {}, \"n\": {n}}}\n", n % 900))
        .collect();
    b.file("in.jsonl", lines);
    let args = [
        "compare", "in.jsonl", "--key", "id", "--rounds", "1", "--dir", ".", "--json",
    ];
    let report = parse(&b.ok(&args));
    assert_eq!(
        (&report["records"], &report["source"]),
        (&json!(900), &json!("in.jsonl"))
    );
    b.fails(1, "nowhere", &["compare", "--dir", "nowhere"]);
}

#[test]
fn bench_measures_both_engines_and_leaves_nothing_behind() {
    let b = Bench::new();
    fs::create_dir(b.path("stores")).unwrap();
    let workloads = "fillrandom,readrandom,ycsb-a,deleterandom,queue,recovery";
    let out = b.ok(&[
        "bench",
        "--records",
        "2000",
        "--rounds",
        "2",
        "--duration",
        "0.2",
        "--dir",
        "stores",
        "--workloads",
        workloads,
        "--json",
        "out.json",
        "--csv",
        "out.csv",
        "--report",
        "out.html",
    ]);
    assert!(
        out.contains("ycsb-a (scrambled)") && out.contains("better"),
        "{out}"
    );
    assert_eq!(names(&b.path("stores")), [""; 0]);
    assert_eq!(
        names(b.dir.path()),
        ["out.csv", "out.html", "out.json", "stores"]
    );

    let json = parse(&fs::read_to_string(b.path("out.json")).unwrap());
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    for row in rows {
        assert!(!row["compared"].as_array().unwrap().is_empty(), "{row}");
        for engine in ENGINES {
            assert_eq!(row["rounds"][engine].as_array().unwrap().len(), 2, "{row}");
        }
    }
    assert_eq!(rows[0]["rounds"]["lsm"][0]["ops"], 2000);
    assert!(json["command"].as_str().unwrap().contains("--records 2000"));
    let parameters = &json["parameters"];
    // Long lines are cut between words.
    let said = out.split_whitespace().collect::<Vec<_>>().join(" ");
    for (name, part) in [
        ("conditions", "load average "),
        ("compiler", "rustc "),
        ("crates", "lz4_flex "),
        ("version", env!("CARGO_PKG_VERSION")),
    ] {
        let text = parameters[name].as_str().unwrap();
        assert!(text.contains(part) && said.contains(text), "{name}: {text}");
    }
    let page = fs::read_to_string(b.path("out.html")).unwrap();
    let csv = fs::read_to_string(b.path("out.csv")).unwrap();
    for label in ["fillrandom", "ycsb-a (scrambled)", "queue"] {
        assert!(page.contains(label) && csv.contains(label), "{label}");
    }
}

#[test]
fn bench_prints_json_and_runs_one_engine() {
    let b = Bench::new();
    let out = b.ok(&[
        "bench",
        "--records",
        "2000",
        "--rounds",
        "1",
        "--engine",
        "btree",
        "--json",
        "--workloads",
        "fillrandom,readrandom",
    ]);
    let json = parse(&out);
    assert_eq!(json["engines"], json!(["btree"]));
    assert_eq!(json["rows"][1]["label"], "readrandom");
    assert_eq!(json["rows"][1]["rounds"]["lsm"], Value::Null);
    assert_eq!(names(b.dir.path()), [""; 0]);
}

/// The step is in two processes, and those after it go on in the second.
#[test]
fn bench_kills_a_process_and_opens_what_it_left() {
    let b = Bench::new();
    let args = ["bench", "--records", "2000", "--duration", "0.1", "--json"];
    let wanted = ["--workloads", "fillseq,kill:500,fillbatch", "--rounds", "2"];
    let json = parse(&b.ok(&[&args[..], &wanted].concat()));
    let rows = json["rows"].as_array().unwrap();
    let labels: Vec<_> = rows.iter().map(|row| &row["label"]).collect();
    assert_eq!(labels, ["fillseq", "kill:500", "fillbatch"]);
    for row in rows {
        for engine in ENGINES {
            assert_eq!(row["rounds"][engine].as_array().unwrap().len(), 2, "{row}");
        }
    }
    let lost = &rows[1]["compared"][1];
    assert_eq!(
        (&lost["id"], &lost["unit"]),
        (&json!("lost"), &json!("count"))
    );
    for engine in ENGINES {
        assert_eq!(lost[engine]["median"], 0.0, "{lost}");
    }
    assert_eq!(names(b.dir.path()), [""; 0]);
}

/// One process fills, the next reads: else the labels would say that it was one.
#[test]
fn bench_reads_a_cold_store_in_a_new_process() {
    let b = Bench::new();
    let args = ["bench", "--records", "2000", "--duration", "0.1", "--json"];
    let wanted = ["--workloads", "coldopen,fillseq", "--rounds", "1"];
    let json = parse(&b.ok(&[&args[..], &wanted].concat()));
    assert_eq!(json["rows"][1]["label"], "fillseq");
    let compared = json["rows"][0]["compared"].as_array().unwrap();
    let labels: Vec<_> = compared.iter().map(|figure| &figure["label"]).collect();
    let expected = [
        "coldopen: open and read one",
        "coldopen: cold read, mean",
        "coldopen: cold read, p99",
    ];
    assert_eq!(labels[..3], expected, "{labels:?}");
    for engine in ENGINES {
        assert!(compared[1][engine]["median"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(names(b.dir.path()), [""; 0]);
}

/// A column for each variant that is asked for, none wider than a terminal, and a mark on every
/// verdict of a run as small as this.
#[test]
fn bench_runs_variants_and_marks_what_is_uncertain() {
    let b = Bench::new();
    let args = [
        "bench",
        "--records",
        "2000",
        "--rounds",
        "1",
        "--duration",
        "0.1",
    ];
    let wanted = [
        "--engines",
        "btree,lsm-skiplist,lsm",
        "--workloads",
        "fillrandom,queue",
    ];
    let out = b.ok(&[&args[..], &wanted, &["--json", "out.json"]].concat());
    for line in out.lines() {
        // The directory and the processor are as long as they are.
        let fixed = line.contains(b.dir.path().to_str().unwrap());
        assert!(fixed || line.chars().count() <= 80, "{line}\n{out}");
    }
    assert!(out.contains("No verdict is certain (?)"), "{out}");
    assert_eq!(out.matches("one round shows no spread").count(), 1, "{out}");
    let json = parse(&fs::read_to_string(b.path("out.json")).unwrap());
    assert_eq!(json["engines"], json!(["btree", "lsm-skiplist", "lsm"]));
    assert!(json["conditions"]["cores"].as_u64().unwrap() > 0);
    for row in json["rows"].as_array().unwrap() {
        for compared in row["compared"].as_array().unwrap() {
            assert_eq!(compared["unsure"], true, "{compared}");
            assert!(compared["lsm-skiplist"]["median"].is_number(), "{compared}");
        }
    }
    let skiplist = &json["rows"][0]["rounds"]["lsm-skiplist"][0];
    let settings = skiplist["settings"].as_str().unwrap();
    assert!(settings.contains("skip list"), "{settings}");
}

#[test]
fn bench_shows_how_many_blocks_a_lookup_touches() {
    let b = Bench::new();
    // Several times what the write buffer holds, so that most records are in files.
    let out = b.ok(&[
        "bench",
        "--records",
        "20000",
        "--rounds",
        "1",
        "--write-buffer-mib",
        "1",
        "--workloads",
        "fillrandom,readrandom",
        "--json",
        "out.json",
        "--csv",
        "out.csv",
        "--report",
        "out.html",
    ]);
    assert!(out.contains("read amp"), "{out}");
    let json = parse(&fs::read_to_string(b.path("out.json")).unwrap());
    let csv = fs::read_to_string(b.path("out.csv")).unwrap();
    for engine in ENGINES {
        let sample = &json["rows"][1]["rounds"][engine][0];
        let figure = |name: &str| sample[name].as_f64().unwrap();
        let touched = figure("read_amplification");
        assert_eq!(touched, figure("blocks_read") / figure("ops"));
        assert!((0.3..10.0).contains(&touched), "{engine}: {touched}");
        let line = format!("readrandom,{engine},1,read_amplification,{touched}\n");
        assert!(csv.contains(&line), "{csv}");
    }
    let page = fs::read_to_string(b.path("out.html")).unwrap();
    assert!(page.contains("touched per lookup") && page.contains("<th>read amp</th>"));
}

#[test]
fn bench_compares_with_a_baseline() {
    let b = Bench::new();
    let args = [
        "bench",
        "--records",
        "2000",
        "--rounds",
        "1",
        "--workloads",
        "fillrandom,queue",
        "--json",
    ];
    b.ok(&[&args[..], &["old.json"]].concat());
    let out = b.ok(&[&args[..], &["new.json", "--baseline", "old.json"]].concat());
    assert!(out.contains("Times better than in old.json"), "{out}");
    let new = parse(&fs::read_to_string(b.path("new.json")).unwrap());
    let old = parse(&fs::read_to_string(b.path("old.json")).unwrap());
    assert_eq!(new["baseline"]["command"], old["command"]);
    let ratios = new["baseline"]["ratios"].as_array().unwrap();
    // A workload has one figure, the queue four; of each engine.
    assert_eq!(ratios.len(), 2 * 5, "{ratios:?}");
    let first = &ratios[0];
    let figure = |name: &str| first[name].as_f64().unwrap();
    // The last digit may be another: each was rounded by itself.
    let error = figure("better") / (figure("now") / figure("before")) - 1.0;
    assert!(error.abs() < 1e-9, "{first:?}");

    b.file("other.json", "[1, 2]");
    let refused = ["bench", "--baseline", "other.json"];
    b.fails(2, "holds no results", &refused);
    assert_eq!(names(b.dir.path()), ["new.json", "old.json", "other.json"]);
}

/// Where this process may make control groups, the limit holds; where not, that is said.
#[test]
fn bench_limits_memory_or_says_why_not() {
    let b = Bench::new();
    let ran = b.run(&[
        "bench",
        "--records",
        "2000",
        "--rounds",
        "1",
        "--duration",
        "0.1",
        "--memory-limit-mib",
        "64",
        "--workloads",
        "memratio:0.1",
        "--json",
    ]);
    if ran.code == 0 {
        let json = parse(&ran.out);
        let memory = json["parameters"]["memory"].as_str().unwrap();
        assert!(memory.contains("64"), "{memory}");
        // What the limit is worth is for the workload to say: a tenth of it, not of the machine.
        let seen = &json["rows"][0]["rounds"]["lsm"][0]["figures"];
        assert!(!seen.as_array().unwrap().is_empty(), "{json}");
    } else {
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains("control group"), "{ran:?}");
    }
    assert_eq!(names(b.dir.path()), [""; 0]);
}

#[test]
fn bench_refuses_nonsense_and_leaves_nothing_behind() {
    let b = Bench::new();
    for (code, what, args) in [
        (2, "unknown workload", &["--workloads", "readall"][..]),
        (2, "needs a size", &["--workloads", "valuesize:x"]),
        (2, "takes no argument", &["--workloads", "queue:3"]),
        (2, "records", &["--records", "0"]),
        (2, "duration", &["--duration", "0"]),
        (2, "rate", &["--rate", "0"]),
        (2, "a value has at most", &["--value-size", "999999999999"]),
        (2, "keys must have", &["--key-size", "3"]),
        (
            2,
            "free",
            &["--records", "999999999", "--value-size", "1000000"],
        ),
        (2, "unknown key shape", &["--key-shape", "round"]),
        (1, "no/such", &["--report", "no/such/page.html"]),
        (1, "no/such", &["--dir", "no/such", "--csv", "out.csv"]),
        (2, "is a directory", &["--csv", "."]),
        (2, "invalid value", &["--rounds", "0"]),
        (2, "ops must be at least 1", &["--ops", "0"]),
        (2, "threads", &["--threads", "0"]),
        (2, "latency_every", &["--latency-every", "0"]),
        (2, "fraction", &["--compress-fraction", "1.5"]),
        (2, "unknown distribution", &["--distribution", "normal"]),
        (2, "as kill:100000", &["--workloads", "kill:none"]),
        (2, "as memratio:0.5", &["--workloads", "memratio:0"]),
        (2, "no workload", &["--workloads", ","]),
        (2, "thread", &["--workloads", "readrandom@0"]),
        (2, "invalid value", &["--cache-mib", "99999999999"]),
        (2, "too low", &["--memory-limit-mib", "20"]),
        (1, "no/such", &["--baseline", "no/such.json"]),
    ] {
        let ran = b.fails(code, what, &[&["bench"], args].concat());
        assert_eq!(ran.out, "", "{args:?}");
        assert_eq!(names(b.dir.path()), [""; 0], "{args:?}");
    }
}

#[test]
fn soak_lives_through_its_rounds_and_leaves_nothing() {
    let b = Bench::new();
    let args = [
        "soak",
        "--rounds",
        "2",
        "--operations",
        "60",
        "--size-mib",
        "1",
    ];
    let dir = ["--dir", b.dir.path().to_str().unwrap()];
    let text = b.ok(&[&args[..], &dir].concat());
    for part in [
        "lsm, 1.0 MiB of live data",
        "btree",
        "range deletes",
        "too short a life",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = parse(&b.ok(&[&args[..], &dir, &["--engine", "btree", "--json"]].concat()));
    let engines = json["engines"].as_array().unwrap();
    assert_eq!(engines[0]["samples"].as_array().unwrap().len(), 14);
    assert_eq!(engines[0]["verdicts"][0]["what"], "disk");
    assert_eq!(names(b.dir.path()), [""; 0]);
    b.fails(2, "--minutes", &["soak", "--minutes", "0"]);
    b.fails(2, "--rounds", &["soak", "--operations", "5"]);
}
