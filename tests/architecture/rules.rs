//! The rules of docs/architecture.md that can be read off the source.

use std::collections::{BTreeMap, BTreeSet};

use crate::arrows::{Arrows, Graph, circles};
use crate::lexer::{Token, tokens};
use crate::modules::{Source, Tree};

/// The modules at the top of the library from the ground up: a module uses its own line and those
/// above it in this list. Modules that share a line do not use one another, but for those of
/// [`GROUND`].
const ORDER: [&[&str]; 12] = [
    GROUND,
    &["format"],
    &["fs"],
    &["values", "resolve"],
    &["options"],
    &["wal", "engine"],
    &["kv", "lsm", "btree"],
    &["trace"],
    &["store"],
    &["db"],
    &["lib", "internals"],
    &["crates"],
];

/// These may use one another as long as there is no circle; `util` uses nothing.
const GROUND: &[&str] = &["types", "error", "util", "cache"];

/// No file may use two of these but [`ENGINES`], and none uses another.
const APART: [&str; 3] = ["lsm", "btree", "wal"];

/// The one file that knows both engines. What is behind `internals` is for tests.
const ENGINES: &str = "src/store/engines.rs";

/// The files that have `unsafe` code.
const UNSAFE: [&str; 8] = [
    "src/btree/memory/slot.rs",
    "src/fs/fork.rs",
    "src/fs/map.rs",
    "src/fs/writeback.rs",
    "src/lsm/memtable/btree.rs",
    "src/lsm/memtable/btree/tests.rs",
    "src/util/prefetch.rs",
    "tests/store/ownership.rs",
];

/// Source files directly in `src/`, at most.
const MAX_FILES_AT_THE_TOP: usize = 12;

/// What the rules found.
#[derive(Debug)]
pub struct Verdict {
    /// Files that are compiled without tests.
    pub files: usize,
    pub arrows: usize,
    pub circles: usize,
    /// What breaks a rule, sorted.
    pub violations: Vec<String>,
}

/// Holds the sources of the workspace against all rules.
pub fn check(sources: &[Source]) -> Verdict {
    let tree = Tree::read(sources);
    let graph = Graph::of(&tree);
    let circles = circles(tree.files.len(), &graph.uses);
    let mut violations: Vec<String> = circles
        .iter()
        .map(|circle| describe_circle(&tree, &graph.uses, circle))
        .collect();
    violations.extend(wrong_arrows(&tree, &graph));
    violations.extend(too_many_files(sources));
    violations.extend(files_of_the_system(sources));
    violations.extend(unsafe_code(sources));
    violations.extend(labels(sources));
    violations.sort();
    Verdict {
        files: tree.files.len(),
        arrows: graph.uses.len(),
        circles: circles.len(),
        violations,
    }
}

fn describe_circle(tree: &Tree, uses: &Arrows, circle: &[usize]) -> String {
    let mut lines = Vec::new();
    for ((from, to), names) in uses {
        if circle.contains(from) && circle.contains(to) {
            let (from, to) = (&tree.files[*from], &tree.files[*to]);
            lines.push(format!("\n    {from} -> {to} ({})", join(names)));
        }
    }
    lines.sort();
    format!("circle of {} files{}", circle.len(), lines.concat())
}

/// The names, but not more of them than one reads.
fn join(names: &BTreeSet<String>) -> String {
    const MAX: usize = 8;
    let first: Vec<_> = names.iter().take(MAX).map(String::as_str).collect();
    match names.len().saturating_sub(MAX) {
        0 => first.join(", "),
        more => format!("{}, and {more} more", first.join(", ")),
    }
}

/// The module at the top of the library that a file belongs to.
fn place_of(path: &str) -> &str {
    let Some(within) = path.strip_prefix("src/") else {
        return "crates";
    };
    let first = within.split('/').next().unwrap_or(within);
    match first.strip_suffix(".rs") {
        Some(stem) => stem,
        None if first == "bin" => "crates",
        None => first,
    }
}

fn rank_of(place: &str) -> Option<usize> {
    ORDER.iter().position(|line| line.contains(&place))
}

/// Why a file in `from` may not use one in `to`.
fn forbidden(from: &str, to: &str) -> Option<String> {
    if from == to {
        return None;
    }
    // Where a place has no rank, that is said once for the place.
    let (above, below) = (rank_of(from)?, rank_of(to)?);
    if APART.contains(&from) && APART.contains(&to) {
        Some(format!("{from} and {to} never meet"))
    } else if from == "util" {
        Some("util uses nothing of the crate".to_owned())
    } else if below > above {
        Some(format!("{from} lies below {to}"))
    } else if below == above && !GROUND.contains(&from) {
        Some(format!("{from} and {to} stand side by side"))
    } else {
        None
    }
}

fn wrong_arrows(tree: &Tree, graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    let mut both = BTreeMap::<usize, BTreeSet<&str>>::new();
    let reexports = graph.reexports.iter().map(|arrow| (arrow, "re-exports"));
    let uses = graph.uses.iter().map(|arrow| (arrow, "uses"));
    for (((from, to), names), verb) in uses.chain(reexports) {
        let (path, target) = (&tree.files[*from], &tree.files[*to]);
        if let Some(why) = forbidden(place_of(path), place_of(target)) {
            let names = join(names);
            found.push(format!("arrow: {path} {verb} {target} ({names}): {why}"));
        }
        if ["lsm", "btree"].contains(&place_of(target)) {
            both.entry(*from).or_default().insert(place_of(target));
        }
    }
    for (from, engines) in both {
        let path = &tree.files[from];
        let may = path == ENGINES || place_of(path) == "internals";
        if engines.len() == 2 && !may {
            found.push(format!(
                "arrow: {path} names both engines, which only {ENGINES} does"
            ));
        }
    }
    let places: BTreeSet<_> = tree.files.iter().map(|path| place_of(path)).collect();
    for place in places {
        if rank_of(place).is_none() {
            found.push(format!(
                "place: {place} has no place in the order of modules"
            ));
        }
    }
    found
}

fn too_many_files(sources: &[Source]) -> Option<String> {
    let is_at_the_top = |path: &str| {
        path.strip_prefix("src/")
            .is_some_and(|name| !name.contains('/'))
    };
    let count = sources.iter().filter(|s| is_at_the_top(&s.path)).count();
    (count > MAX_FILES_AT_THE_TOP).then(|| {
        format!(
            "layout: {count} files directly in src/, at most {MAX_FILES_AT_THE_TOP} are allowed"
        )
    })
}

/// Files of the library outside of `fs` that use files of the operating system.
fn files_of_the_system(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        if ["fs", "crates"].contains(&place_of(&source.path)) || is_for_tests(&source.path) {
            continue;
        }
        let code = crate::lexer::without_tests(&tokens(&source.text));
        let text = |at: usize| code.get(at).map_or("", |token: &Token<'_>| token.text);
        for at in 0..code.len() {
            let name = match text(at) {
                "OpenOptions" => "OpenOptions",
                "rustix" if text(at + 1) == "::" => "rustix",
                "memmap2" if text(at + 1) == "::" => "memmap2",
                "fs" if text(at - at.min(1)) == "::" && text(at - at.min(2)) == "std" => "std::fs",
                // `use std::{fs, ...}`, with whatever stands between.
                "fs" if is_in_braces_of_std(&code, at) => "std::fs",
                _ => continue,
            };
            found.push(format!("file system: {} names {name}", source.path));
        }
    }
    found.dedup();
    found
}

/// Whether the word at `at` begins a path in `use std::{...}`.
fn is_in_braces_of_std(code: &[Token<'_>], at: usize) -> bool {
    let mut depth = 0;
    for (back, token) in code[..at].iter().enumerate().rev() {
        if token.is("}") {
            depth += 1;
        } else if token.is("{") && depth > 0 {
            depth -= 1;
        } else if token.is("{") {
            let starts_a_path = code[at - 1].is("{") || code[at - 1].is(",");
            return starts_a_path
                && back >= 2
                && code[back - 1].is("::")
                && code[back - 2].is("std");
        } else if token.is(";") {
            return false;
        }
    }
    false
}

/// Whether a file is compiled for tests only, by its name.
fn is_for_tests(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || place_of(path) == "testing"
}

fn unsafe_code(sources: &[Source]) -> Vec<String> {
    let has_unsafe: BTreeSet<&str> = sources
        .iter()
        .filter(|source| tokens(&source.text).iter().any(|token| token.is("unsafe")))
        .map(|source| source.path.as_str())
        .collect();
    let listed = BTreeSet::from(UNSAFE);
    let unlisted = has_unsafe.difference(&listed);
    let unlisted = unlisted.map(|path| format!("unsafe: {path} is not listed for unsafe code"));
    let all: BTreeSet<_> = sources.iter().map(|source| source.path.as_str()).collect();
    let stale = listed
        .intersection(&all)
        .filter(|path| !has_unsafe.contains(*path));
    let stale = stale.map(|path| format!("unsafe: {path} is listed and has no unsafe code"));
    unlisted.chain(stale).collect()
}

/// Labels of invariants (`//! - **W1** ...` or `//! - W1: ...`) that are defined twice.
fn labels(sources: &[Source]) -> Vec<String> {
    let mut places = BTreeMap::<&str, Vec<&str>>::new();
    for source in sources {
        for label in source.text.lines().filter_map(label_of) {
            places.entry(label).or_default().push(&source.path);
        }
    }
    places.retain(|_, paths| paths.len() > 1);
    places
        .into_iter()
        .map(|(label, mut paths)| {
            paths.sort_unstable();
            format!("label: {label} is defined in {}", paths.join(" and "))
        })
        .collect()
}

/// The label that a line of documentation defines: a few capitals and a number, in bold or with a
/// colon behind.
fn label_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let doc = line.strip_prefix("//!").or(line.strip_prefix("///"))?;
    let item = doc.trim_start().strip_prefix("- ")?;
    let bold = item.strip_prefix("**");
    let text = bold.unwrap_or(item);
    let capitals = text.bytes().take_while(u8::is_ascii_uppercase).count();
    let digits = text[capitals..].bytes().take_while(u8::is_ascii_digit);
    let len = capitals + digits.count();
    let is_defined = bold.is_some() || text[len..].starts_with(':');
    ((1..=3).contains(&capitals) && len > capitals && is_defined).then(|| &text[..len])
}
