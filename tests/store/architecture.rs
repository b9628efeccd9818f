//! The rules of docs/architecture.md that a reader of the source can check.

use std::fs;
use std::path::{Path, PathBuf};

/// The lines of every source file that are not comments, with path and number.
fn source_lines() -> Vec<(PathBuf, usize, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut lines = Vec::new();
    let mut todo = vec![root.clone()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let within = path.strip_prefix(&root).unwrap().to_path_buf();
            for (at, line) in text.lines().enumerate() {
                if !line.trim_start().starts_with("//") {
                    lines.push((within.clone(), at + 1, line.to_owned()));
                }
            }
        }
    }
    assert!(lines.len() > 1000, "the source was found");
    lines
}

/// Lines of files under `room` (a folder or a file's stem) that mention one of `words`.
fn mentions(room: &str, words: &[&str]) -> Vec<String> {
    source_lines()
        .into_iter()
        .filter(|(path, ..)| path.starts_with(room))
        .filter(|(_, _, line)| words.iter().any(|word| line.contains(word)))
        .map(|(path, number, line)| format!("src/{}:{number}: {line}", path.display()))
        .collect()
}

#[test]
fn the_file_system_is_used_in_one_room() {
    let elsewhere: Vec<_> = source_lines()
        .into_iter()
        .filter(|(path, ..)| !path.starts_with("fs"))
        .filter(|(_, _, line)| {
            ["std::fs", "std::{fs", "OpenOptions", "rustix::"]
                .iter()
                .any(|word| line.contains(word))
        })
        .map(|(path, number, line)| format!("src/{}:{number}: {line}", path.display()))
        .collect();
    assert_eq!(elsewhere, [""; 0]);
}

#[test]
fn the_engines_know_neither_each_other_nor_the_front() {
    let front = [
        "crate::db",
        "crate::wal",
        "crate::commit",
        "crate::store",
        "crate::recovery",
        "crate::keyspace",
        "crate::snapshot",
        "crate::hub",
        "crate::registry",
        "crate::catalog",
        "crate::throttle",
        "crate::write_batch",
    ];
    for (room, other) in [("lsm", "crate::btree"), ("btree", "crate::lsm")] {
        let words: Vec<_> = front.iter().copied().chain([other]).collect();
        assert_eq!(mentions(room, &words), [""; 0]);
    }
}

#[test]
fn the_log_takes_payloads_as_bytes() {
    let words = [
        "crate::batch",
        "crate::lsm",
        "crate::btree",
        "crate::engine",
        "crate::db",
    ];
    assert_eq!(mentions("wal", &words), [""; 0]);
}

#[test]
fn the_ground_stands_on_nothing() {
    let words = [
        "crate::db",
        "crate::lsm",
        "crate::btree",
        "crate::wal",
        "crate::commit",
        "crate::store",
        "crate::engine",
    ];
    for room in [
        "fs",
        "key.rs",
        "coding.rs",
        "checksum.rs",
        "types.rs",
        "error.rs",
        "record.rs",
    ] {
        assert_eq!(mentions(room, &words), [""; 0]);
    }
}
