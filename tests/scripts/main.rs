//! Golden scripts: operations, and what the tree looks like after them.
//!
//! A script (`*.txt` in this folder) is made of paragraphs: commands, one a line, and below a line
//! `---` what they print. Lines that begin with `#` are comments. The first command is `open`: it
//! says on what the script runs, `lsm`, `btree`, `model`, or several of them, and how large things
//! are. What is read must be the same on all of them, so it is printed once. The commands are in
//! [`command`].
//!
//! Everything happens in memory, with no threads but the test's own: a script does the same every
//! time. After a change that is meant to change what they print:
//!
//! ```text
//! HEDGEROW_UPDATE_SCRIPTS=1 cargo test --test scripts && git diff tests/scripts
//! ```

mod command;
mod script;
mod world;

use std::path::PathBuf;

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "scripts"]
        .iter()
        .collect()
}

/// A test for each script, and one that no script is left out.
macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                script::run(&folder().join(concat!(stringify!($name), ".txt")));
            }
        )*

        #[test]
        fn every_script_has_a_test() {
            let names = std::fs::read_dir(folder()).unwrap();
            let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut found: Vec<_> = names
                .filter_map(|name| Some(name.strip_suffix(".txt")?.to_owned()))
                .collect();
            found.sort();
            let mut listed = vec![$(stringify!($name)),*];
            listed.sort_unstable();
            assert_eq!(found, listed);
        }
    };
}

scripts!(
    batch,
    changes,
    checkpoint,
    compaction,
    flush,
    log,
    merge,
    packs,
    range_delete,
    recovery,
    snapshots,
    split,
    values,
);
