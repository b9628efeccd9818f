//! `load`: what it takes, what it refuses, and what it says. Every test is named after what went
//! wrong, or was missing, when people loaded files of their own.

use std::io::Write as _;

use serde_json::json;

use crate::rig::{Bench, ENGINES, parse};

/// Exit code 0, and 4,993 records were in the value of another.
#[test]
fn an_unclosed_quote_is_an_error_and_leaves_nothing_behind() {
    let b = Bench::new();
    let mut text = "id,name\n".to_owned();
    for n in 1..=500 {
        let quote = if n == 7 { "\"" } else { "" };
        text.push_str(&format!("{n},{quote}name {n}\n"));
    }
    b.file("a.csv", &text);
    let load = ["load", "db", "a.csv", "--key", "id"];
    let ran = b.fails(
        1,
        "a.csv: line 8: a quote is opened and never closed",
        &load,
    );
    assert!(
        ran.err.contains("after 0 records had been committed"),
        "{ran:?}"
    );
    assert!(!b.path("db").exists());
    // What was committed before the error is said and stays.
    let ran = b.fails(1, "line 8", &[&load[..], &["--batch", "2"]].concat());
    assert!(
        ran.err.contains("after 6 records had been committed"),
        "{ran:?}"
    );
    assert_eq!(b.ok(&["count", "db"]), "6\n");
}

#[test]
fn large_numbers_are_different_keys() {
    let b = Bench::new();
    let ids = ["123456789012345678901", "123456789012345678902"];
    b.file(
        "a.jsonl",
        ids.map(|id| format!("{{\"id\":{id}}}\n")).concat(),
    );
    b.ok(&["load", "db", "a.jsonl", "--key", "id"]);
    assert_eq!(
        b.ok(&["scan", "db", "--keys-only"]),
        format!("{}\n{}\n", ids[0], ids[1])
    );
}

/// 28,298 records became 234, and the tool said that it had loaded 28,298.
#[test]
fn records_that_replace_others_are_counted() {
    for engine in ENGINES {
        let b = Bench::new();
        let lines: String = (0..3000).map(|n| format!("{}\t{n}\n", n % 234)).collect();
        b.file("a.tsv", &lines);
        let load = ["load", "db", "a.tsv", "--key", "1", "--value", "2"];
        let text = b.ok(&[&load[..], &["--engine", engine]].concat());
        assert!(
            text.starts_with("3,000 records read, 234 new keys, "),
            "{text}"
        );
        assert!(
            text.contains("2,766 records replaced one with the same key"),
            "{text}"
        );
        assert_eq!(b.ok(&["get", "db", "0"]), "2808\n");
        assert_eq!(b.ok(&["count", "db"]), "234\n");

        // Records that are there from before count as well.
        b.file("more.tsv", "5\tx\nnew\tx\n5\ty\n");
        let load = ["load", "db", "more.tsv", "--key", "1", "--value", "2"];
        let first = [&load[..], &["--on-duplicate", "first", "--json"]].concat();
        let report = parse(&b.ok(&first));
        assert_eq!(
            [
                &report["records_read"],
                &report["new_keys"],
                &report["replaced"],
                &report["kept"]
            ],
            [&json!(3), &json!(1), &json!(0), &json!(2)]
        );
        assert_eq!(b.ok(&["get", "db", "5"]), "2813\n");
        let error = [&load[..], &["--on-duplicate", "error"]].concat();
        b.fails(1, "line 1: the key 5 is there already", &error);
        b.ok(&load);
        assert_eq!(b.ok(&["get", "db", "5"]), "y\n");
    }
}

#[test]
fn a_wrong_key_leaves_nothing_behind() {
    let b = Bench::new();
    b.file("a.csv", "id,name\n1,ada\n");
    b.file("a.jsonl", "{\"id\":1}\n");
    b.file("a.tsv", "1\tada\n");
    let wrong: [(i32, &[&str]); 6] = [
        (2, &["a.csv", "--key", "ID"]),
        (1, &["a.csv", "--key", "3"]),
        (1, &["a.jsonl", "--key", "ID"]),
        (1, &["a.jsonl", "--key", "ID", "--skip-errors"]),
        (1, &["a.jsonl", "--key", "ID", "--missing", "skip"]),
        (1, &["a.tsv", "--key", "3"]),
    ];
    for (code, args) in wrong {
        b.fails(code, "", &[&["load", "db"], args].concat());
        assert!(!b.path("db").exists(), "{args:?}");
    }
    b.ok(&["put", "db", "k", "v"]);
    for (code, args) in wrong {
        b.fails(code, "", &[&["load", "db", "-k", "new"], args].concat());
        assert_eq!(b.ok(&["keyspaces", "db"]), "lsm    default\n", "{args:?}");
    }
}

#[test]
fn skipped_records_are_reported() {
    let b = Bench::new();
    b.file("a.jsonl", "{\"k\":1}\nno\n{}\n{\"k\":2}\n");
    let load = ["load", "db", "a.jsonl", "--key", "k", "--skip-errors"];
    let text = b.ok(&[&load[..], &["--missing", "skip"]].concat());
    for part in [
        "2 records read, 2 new keys",
        "1 record skipped: a column was missing",
        "1 record skipped: it could not be used",
        "the first record skipped: line 2: not JSON",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let report = parse(&b.ok(&[&load[..], &["--json"]].concat()));
    assert_eq!(
        (&report["skipped_errors"], &report["skipped_missing"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(report["first_skipped"]["line"], 2);
}

#[test]
fn compressed_files_are_read_or_named() {
    let b = Bench::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"id,v\n1,a\n2,b\n").unwrap();
    let gzip = gzip.finish().unwrap();
    b.file("a.csv.gz", &gzip);
    b.ok(&["load", "db", "a.csv.gz", "--key", "id", "--value", "v"]);
    assert_eq!(b.ok(&["scan", "db"]), "1\ta\n2\tb\n");
    let stdin = ["load", "other", "-", "--format", "csv", "--key", "id"];
    assert_eq!(b.run_with_input(&stdin, &gzip).code, 0);
    assert_eq!(b.ok(&["count", "other"]), "2\n");
    // A torn file is not a short one.
    let ran = b.run_with_input(&stdin, &gzip[..gzip.len() - 9]);
    assert_eq!(ran.code, 1, "{ran:?}");

    b.file("a.csv.zst", b"\x28\xB5\x2F\xFD\x04\x00");
    b.fails(
        1,
        "compressed (zstd)",
        &["load", "no", "a.csv.zst", "--key", "id"],
    );
    b.file("utf16.csv", b"\xFF\xFEi\0d\0\n\0");
    b.fails(1, "UTF-16LE", &["load", "no", "utf16.csv", "--key", "id"]);
    assert!(!b.path("no").exists());
}

#[test]
fn tables_become_json_and_arrays_are_read() {
    let b = Bench::new();
    b.file("a.csv", "id;name\n1;ada, countess\n");
    let load = ["load", "db", "a.csv", "--key", "id"];
    b.ok(&[&load[..], &["--delimiter", ";", "--value-as", "json"]].concat());
    assert_eq!(
        b.ok(&["get", "db", "1"]),
        "{\"id\":\"1\",\"name\":\"ada, countess\"}\n"
    );
    b.file(
        "a.json",
        "[\n{\"a\": {\"id\": 7}},\n{\"a\": {\"id\": 8}}\n]\n",
    );
    b.ok(&["load", "db", "a.json", "-k", "json", "--key", "a.id"]);
    assert_eq!(
        b.ok(&["scan", "db", "-k", "json"]),
        "7\t{\"a\": {\"id\": 7}}\n8\t{\"a\": {\"id\": 8}}\n"
    );
}

#[test]
fn dump_into_load_gives_every_byte_back() {
    let b = Bench::new();
    let mut written = "\t\n\u{FEFF}first\t\u{FEFF}\n".to_owned();
    for byte in 0..=255u8 {
        written.push_str(&format!(
            "k\\x{byte:02x}\t\\x{byte:02x}\\r\\n\\x{byte:02x}\\r\n"
        ));
    }
    b.file("written.tsv", written);
    b.ok(&["load", "db", "written.tsv", "--dumped"]);
    assert_eq!(b.ok(&["get", "db", "6b80", "--hex"]), "800d0a800d\n");
    let all = b.ok(&["scan", "db", "--hex"]);
    for (format, engine) in [("tsv", "lsm"), ("jsonl", "btree")] {
        let dump = b.ok(&["dump", "db", "--format", format]);
        let load = [
            "load", format, "-", "--dumped", "--engine", engine, "--format", format,
        ];
        let ran = b.run_with_input(&load, dump.as_bytes());
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(
            ran.out.starts_with("258 records read, 258 new keys, "),
            "{ran:?}"
        );
        assert_eq!(b.ok(&["scan", format, "--hex"]), all);
        assert_eq!(b.ok(&["dump", format, "--format", format]), dump);
    }
    // What dump prints unless it is told otherwise needs no format.
    let ran = b.run_with_input(
        &["load", "copy", "-", "--dumped"],
        b.ok(&["dump", "db"]).as_bytes(),
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    // The dump of an empty keyspace makes an empty keyspace.
    let ran = b.run_with_input(&["load", "empty", "-", "--dumped"], b"");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(b.ok(&["count", "empty"]), "0\n");
}

/// Sorted records are committed in one, whatever comes after them.
#[test]
fn sorted_records_are_loaded_in_one() {
    for engine in ENGINES {
        let b = Bench::new();
        let line = |n: u32| format!("{n:06}\tvalue {n}\n");
        let sorted: String = (0..5000).map(line).collect();
        b.file("sorted.tsv", &sorted);
        let load = [
            "load",
            "db",
            "sorted.tsv",
            "--key",
            "1",
            "--value",
            "2",
            "--json",
        ];
        let engine = ["--engine", engine];
        let report = parse(&b.ok(&[&load[..], &engine].concat()));
        assert_eq!(
            [
                &report["records"],
                &report["bulk_loaded"],
                &report["new_keys"]
            ],
            [5000; 3]
        );
        assert_eq!(b.ok(&["count", "db"]), "5000\n");
        b.ok(&["verify", "db"]);

        // Out of order after a while, with keys that are there twice.
        let mut mixed: String = (4000..9000).chain(8999..9001).map(line).collect();
        mixed.push_str("000100\tlater\n009000\tlast\n");
        b.file("mixed.tsv", &mixed);
        let load = [
            "load",
            "db",
            "mixed.tsv",
            "--key",
            "1",
            "--value",
            "2",
            "--json",
        ];
        let report = parse(&b.ok(&load));
        assert_eq!(
            [&report["records"], &report["new_keys"], &report["replaced"]],
            [&json!(5004), &json!(4001), &json!(1003)]
        );
        // A B-tree that has something would be written anew.
        let is_lsm = engine[1] == "lsm";
        assert_eq!(report["bulk_loaded"], if is_lsm { 5002 } else { 0 });
        assert_eq!(b.ok(&["get", "db", "000100"]), "later\n");
        assert_eq!(b.ok(&["get", "db", "009000"]), "last\n");
        assert_eq!(b.ok(&["count", "db"]), "9001\n");

        // The same records in another order.
        let shuffled: String = (0..5000).map(|n| line(n * 1999 % 5000)).collect();
        b.file("shuffled.tsv", &shuffled);
        let load = [
            "load",
            "other",
            "shuffled.tsv",
            "--key",
            "1",
            "--value",
            "2",
            "--json",
        ];
        let load = [&load[..], &engine].concat();
        assert_eq!(parse(&b.ok(&load))["bulk_loaded"], 0);
        let all = b.ok(&["scan", "other"]);
        assert_eq!(all, sorted);
        let load = [
            "load",
            "third",
            "shuffled.tsv",
            "--key",
            "1",
            "--value",
            "2",
            "--json",
        ];
        let report = parse(&b.ok(&[&load[..], &engine, &["--sort"]].concat()));
        assert_eq!([&report["records"], &report["bulk_loaded"]], [5000; 2]);
        assert_eq!(b.ok(&["scan", "third"]), all);
    }
}

/// What was read in order before a bad record is committed, and said.
#[test]
fn sorted_records_before_a_bad_one_are_committed() {
    let b = Bench::new();
    let mut lines: String = (0..3000).map(|n| format!("{n:06}\tvalue\n")).collect();
    lines.push_str("no value\n");
    b.file("a.tsv", &lines);
    let load = ["load", "db", "a.tsv", "--key", "1", "--value", "2"];
    let ran = b.fails(1, "line 3001", &load);
    assert!(
        ran.err.contains("after 3,000 records had been committed"),
        "{ran:?}"
    );
    assert_eq!(b.ok(&["count", "db"]), "3000\n");
}
