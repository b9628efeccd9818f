//! The check is checked: sources that break a rule are found, and sources that keep all rules pass.

use crate::modules::Source;
use crate::rules::check;

/// A small library that keeps the rules, with much of what Rust's `use` can say.
const CLEAN: [(&str, &str); 15] = [
    (
        "src/lib.rs",
        "mod btree; mod error; mod format; mod fs; mod kv; mod lsm; mod store; mod util;
         #[cfg(test)] mod testing;
         pub use error::Error; pub use store::Store;",
    ),
    (
        "src/error.rs",
        "//! - **E1** is a label.\n
         pub enum Error { Io(std::io::Error) }
         #[cfg(test)] mod tests { use crate::store::Store; use std::fs::File; }",
    ),
    ("src/util/mod.rs", "pub(crate) mod sync;"),
    ("src/util/sync.rs", "pub(crate) use std::sync::Mutex;"),
    (
        "src/format/mod.rs",
        "use crate::Error; pub(crate) fn decode() -> Result<(), Error> { Ok(()) }",
    ),
    (
        "src/fs/mod.rs",
        "use std::fs; use crate::format::*; fn read() { decode(); fs::read(\"x\"); }",
    ),
    (
        "src/kv/mod.rs",
        "//! - E2: another label, and see E1.\n
         mod scan; pub(crate) use scan::Scan; pub(crate) trait Kv {}",
    ),
    (
        "src/kv/scan.rs",
        "use super::Kv; pub(crate) struct Scan<'a>(&'a dyn Kv, char);",
    ),
    (
        "src/lsm/mod.rs",
        "//! A façade: of `use crate::btree::Tree` in a comment nothing comes.\n
         mod merge; mod run; pub(crate) use run::{Run, start as begin}; /* use crate::store; */",
    ),
    (
        "src/lsm/run.rs",
        "use super::merge::{self, Merge}; pub(crate) struct Run; pub(crate) fn start() {
            merge::merge(Merge::Tail); let text = r#\"use crate::btree::Tree; \"#; let c = '\"'; }",
    ),
    (
        "src/lsm/merge.rs",
        "pub(crate) enum Merge { Tail } pub(crate) fn merge(_: Merge) {}",
    ),
    (
        "src/btree/mod.rs",
        "mod tree; pub(super) use self::tree::Tree;",
    ),
    (
        "src/btree/tree.rs",
        "use crate::{fs, util::sync::Mutex as Lock}; pub(crate) struct Tree(Lock<fs::File>);",
    ),
    ("src/store/mod.rs", "mod engines; pub struct Store;"),
    (
        "src/store/engines.rs",
        "use crate::{btree::Tree, lsm}; fn make(_: Tree) { lsm::begin(); }",
    ),
];

/// The verdict on [`CLEAN`] with other files, which replace those of the same path.
fn violations_with(changed: &[(&str, &str)]) -> Vec<String> {
    let kept = CLEAN
        .iter()
        .filter(|(path, _)| changed.iter().all(|(other, _)| other != path));
    let sources: Vec<_> = kept
        .chain(changed)
        .map(|&(path, text)| Source {
            path: path.to_owned(),
            text: text.to_owned(),
        })
        .collect();
    check(&sources).violations
}

#[test]
fn a_clean_library_passes() {
    assert_eq!(violations_with(&[]), [""; 0]);
}

#[test]
fn an_engine_that_uses_the_other_is_found() {
    let expected =
        ["arrow: src/lsm/merge.rs uses src/btree/tree.rs (Tree): lsm and btree never meet"];
    for text in [
        "use crate::btree::Tree;",
        "use crate::{error::Error, btree::{Tree}};",
        "use super::super::btree::Tree as Other;",
        "fn seek() { use crate::btree::Tree; }",
    ] {
        let text =
            format!("{text} pub(crate) enum Merge {{ Tail }} pub(crate) fn merge(_: Merge) {{}}");
        let found = violations_with(&[("src/lsm/merge.rs", &text)]);
        assert_eq!(found, expected, "{text}");
    }
    // A path in the code needs no `use`.
    let found = violations_with(&[(
        "src/lsm/merge.rs",
        "pub(crate) enum Merge { Tail }
         pub(crate) fn merge(_: Merge) { crate::btree::Tree::open() }",
    )]);
    let expected = "arrow: src/lsm/merge.rs uses src/btree/tree.rs (crate::btree::Tree::open): \
                    lsm and btree never meet";
    assert_eq!(found, [expected]);
}

#[test]
fn a_lower_module_that_uses_a_higher_one_is_found() {
    let store = "pub(crate) fn decode(_: crate::Store) -> Result<(), crate::Error> {}";
    let mut found = violations_with(&[("src/format/mod.rs", store)]);
    let expected =
        "arrow: src/format/mod.rs uses src/store/mod.rs (crate::Store): format lies below store";
    assert_eq!(found, [expected]);

    // A re-export does not hide the way up.
    let store = "pub(crate) use crate::store::Store; pub(crate) fn decode() {}";
    found = violations_with(&[("src/format/mod.rs", store)]);
    let expected =
        "arrow: src/format/mod.rs re-exports src/store/mod.rs (Store): format lies below store";
    assert_eq!(found, [expected]);
}

#[test]
fn a_circle_through_a_re_export_is_found() {
    let found = violations_with(&[(
        "src/lsm/merge.rs",
        "use super::Run; pub(crate) enum Merge { Tail } pub(crate) fn merge(_: Run) {}",
    )]);
    let expected = "circle of 2 files\n    \
                    src/lsm/merge.rs -> src/lsm/run.rs (Run)\n    \
                    src/lsm/run.rs -> src/lsm/merge.rs (Merge, merge::merge)";
    assert_eq!(found, [expected]);

    // Who re-exports a name and uses it too depends on it.
    let found = violations_with(&[(
        "src/kv/mod.rs",
        "mod scan; pub(crate) use scan::Scan; pub(crate) trait Kv { fn scan(&self) -> Scan<'_>; }",
    )]);
    let expected = "circle of 2 files\n    \
                    src/kv/mod.rs -> src/kv/scan.rs (Scan)\n    \
                    src/kv/scan.rs -> src/kv/mod.rs (Kv)";
    assert_eq!(found, [expected]);

    // Through everything of a module.
    let found = violations_with(&[
        (
            "src/lsm/mod.rs",
            "mod merge; mod run; pub(crate) use run::*;",
        ),
        (
            "src/lsm/merge.rs",
            "use super::*; pub(crate) enum Merge { Tail } pub(crate) fn merge(_: Run) {}",
        ),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("circle of 2 files"), "{found:?}");
}

#[test]
fn a_second_file_that_names_both_engines_is_found() {
    let both = "mod engines; pub struct Store(crate::lsm::Run, crate::btree::Tree);";
    let expected =
        "arrow: src/store/mod.rs names both engines, which only src/store/engines.rs does";
    assert_eq!(violations_with(&[("src/store/mod.rs", both)]), [expected]);
}

#[test]
fn files_of_the_system_are_found_outside_of_fs() {
    for (text, name) in [
        ("fn open() { std::fs::read(\"x\"); }", "std::fs"),
        ("use std::{io, fs::File};", "std::fs"),
        ("use std::fs::OpenOptions as Open;", "OpenOptions"),
        ("fn lock() { rustix::fs::flock(0); }", "rustix"),
    ] {
        let text = format!("mod engines; pub struct Store; {text}");
        let found = violations_with(&[("src/store/mod.rs", &text)]);
        let expected = format!("file system: src/store/mod.rs names {name}");
        assert!(found.contains(&expected), "{text}: {found:?}");
    }
}

#[test]
fn unlisted_unsafe_code_and_stale_entries_are_found() {
    let text = "mod engines; pub struct Store; unsafe impl Send for Store {}";
    let found = violations_with(&[("src/store/mod.rs", text)]);
    let expected = "unsafe: src/store/mod.rs is not listed for unsafe code";
    assert_eq!(found, [expected]);

    let found = violations_with(&[("src/fs/map.rs", "// unsafe no more")]);
    let expected = "unsafe: src/fs/map.rs is listed and has no unsafe code";
    assert_eq!(found, [expected]);
}

#[test]
fn labels_with_two_meanings_are_found() {
    let text = "//! - **E2 order.** One thread at a time.\nmod engines; pub struct Store;";
    let found = violations_with(&[("src/store/mod.rs", text)]);
    let expected = "label: E2 is defined in src/kv/mod.rs and src/store/mod.rs";
    assert_eq!(found, [expected]);
}

#[test]
fn modules_without_a_place_and_too_many_files_are_found() {
    let names: Vec<_> = (0..11).map(|n| format!("src/extra{n}.rs")).collect();
    let mut changed: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    changed.push(("src/lib.rs", "mod extra7; pub use extra7::*;"));
    let expected = [
        "layout: 13 files directly in src/, at most 12 are allowed",
        "place: extra7 has no place in the order of modules",
    ];
    assert_eq!(violations_with(&changed), expected);
}
