//! The seed inputs of the fuzz targets, replayed on the stable tool chain, so that what a fuzzer
//! once found stays found.

use std::path::{Path, PathBuf};

use crate::rig::report;

/// The inputs of a fuzz target, by name.
fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut inputs: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} has seeds", dir.display());
    inputs
}

fn replay(target: &str, run: impl Fn(&[u8])) {
    let inputs = inputs(target);
    for (path, bytes) in &inputs {
        eprintln!("{}", path.display());
        run(bytes);
    }
    report(format_args!(
        "corpus: {} inputs of the fuzz target {target}",
        inputs.len()
    ));
}

#[test]
fn of_operations() {
    replay("operations", crate::fuzzing::operations);
}

#[test]
fn of_open_hostile() {
    replay("open_hostile", crate::fuzzing::open_hostile);
}
