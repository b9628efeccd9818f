//! `inspect`, on both engines.

use serde_json::Value;

use crate::rig::{Bench, ENGINES, parse};

/// All parts of a kind, wherever they are.
fn of_kind<'a>(part: &'a Value, kind: &str, found: &mut Vec<&'a Value>) {
    if part["kind"] == kind {
        found.push(part);
    }
    for below in part["parts"].as_array().unwrap() {
        of_kind(below, kind, found);
    }
}

fn sum_of(part: &Value, kind: &str, figure: &str) -> u64 {
    let mut found = Vec::new();
    of_kind(part, kind, &mut found);
    let figures = found.iter().map(|part| &part["figures"][figure]);
    figures.filter_map(Value::as_u64).sum()
}

#[test]
fn parts_add_up_to_the_whole() {
    for engine in ENGINES {
        let b = Bench::new();
        let lines: String = (0..3000).map(|n| format!("{n:05}\tvalue\n")).collect();
        b.file("a.tsv", &lines);
        b.ok(&["load", "db", "a.tsv", "--key", "1", "--engine", engine]);
        let inspect = |args: &[&str]| {
            let all = [&["inspect", "db", "--json"], args].concat();
            parse(&b.ok(&all))
        };
        let leaf = if engine == "lsm" { "table" } else { "leaf" };
        assert_eq!(sum_of(&inspect(&[]), leaf, "entries"), 0, "{engine}");
        let store = inspect(&["--pages"]);
        assert_eq!(sum_of(&store, leaf, "entries"), 3000, "{engine}");
        assert_eq!(sum_of(&store, "level", "entries"), 3000, "{engine}");
        assert_eq!(store["parts"][2]["kind"], "log");
        let blocks = inspect(&["--blocks", "-k", "default"]);
        assert_eq!(blocks["kind"], "keyspace");
        if engine == "lsm" {
            assert_eq!(sum_of(&blocks, "block", "entries"), 3000);
        }
        // What is only in the log is in memory.
        b.ok(&["put", "db", "00001", "changed"]);
        let text = b.ok(&["inspect", "db", "--blocks"]);
        let memory = match engine {
            "lsm" => "memtable active: entries=1 ",
            _ => "put: key=\"00001\" value_bytes=7",
        };
        assert!(text.contains(memory), "{text}");
        b.fails(1, "there is no keyspace", &["inspect", "db", "-k", "no"]);
    }
}
