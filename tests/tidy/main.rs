//! Prose is maintained like code: the width of lines, words that are not used here, links that lead
//! somewhere, an example for every public function, tests that exist where a document names them.
//! Over sources and documents of the repository, of all its workspaces.
//!
//! Nothing here needs the library, so the check also runs while the library does not compile:
//!
//! ```text
//! rustc --edition 2024 --test tests/tidy/main.rs -o target/tidy && target/tidy
//! ```

mod attributes;
mod examples;
mod exceptions;
mod links;
mod named_tests;
mod width;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where to look, from the root of the repository.
const PLACES: [&str; 11] = [
    "src",
    "crates",
    "tests",
    "fuzz",
    "benches",
    "examples",
    "docs",
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    ".ci",
];

/// Folders of these names hold nothing that is written by hand.
const GENERATED: [&str; 4] = ["target", "corpus", "artifacts", "coverage"];

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rust,
    Markdown,
    Script,
}

/// A file of the repository.
#[derive(Debug)]
struct Source {
    /// From the root, with slashes.
    path: String,
    kind: Kind,
    text: String,
}

/// What breaks a rule, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl Source {
    fn violation(&self, line: usize, what: impl Into<String>) -> Violation {
        Violation {
            path: self.path.clone(),
            line,
            what: what.into(),
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(option_env!("CARGO_MANIFEST_DIR").unwrap_or("."))
}

/// All files that the rules are about.
fn sources() -> Vec<Source> {
    let root = root();
    let mut sources = Vec::new();
    let mut waiting: Vec<PathBuf> = PLACES.iter().map(|place| root.join(place)).collect();
    while let Some(path) = waiting.pop() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !GENERATED.contains(&name.as_ref()) {
                let entries = fs::read_dir(&path).unwrap();
                waiting.extend(entries.map(|entry| entry.unwrap().path()));
            }
            continue;
        }
        let path_from_root = slashed(path.strip_prefix(&root).unwrap());
        let kind = match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => Kind::Rust,
            Some("md") => Kind::Markdown,
            None if path_from_root.starts_with(".ci/") => Kind::Script,
            _ => continue,
        };
        sources.push(Source {
            text: fs::read_to_string(&path).unwrap(),
            path: path_from_root,
            kind,
        });
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn slashed(path: &Path) -> String {
    let names = path.components().map(|name| name.as_os_str());
    let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
    names.join("/")
}

/// The numbers, from 1, of the lines of a document that belong to a block of code, the fences
/// included.
fn lines_of_code(lines: &[&str]) -> BTreeSet<usize> {
    let mut code = BTreeSet::new();
    let mut is_open = false;
    for (number, line) in (1..).zip(lines) {
        let is_fence = line.trim_start().starts_with("```");
        if is_open || is_fence {
            code.insert(number);
        }
        is_open ^= is_fence;
    }
    code
}

/// Prints what is left after the exceptions, and fails if that is anything.
fn report(mut found: Vec<Violation>, rule: exceptions::Rule) {
    found.retain(|violation| !exceptions::is_pending(rule, &violation.path));
    found.sort();
    for violation in &found {
        println!("{}:{}: {}", violation.path, violation.line, violation.what);
    }
    assert!(found.is_empty(), "{} violations", found.len());
}

fn in_all(check: impl Fn(&Source) -> Vec<Violation>) -> Vec<Violation> {
    let sources = sources();
    assert!(sources.len() > 200, "only {} files found", sources.len());
    sources.iter().flat_map(check).collect()
}

#[test]
fn lines_of_prose_fit_100_columns() {
    report(in_all(width::check), exceptions::Rule::Width);
}

#[test]
fn words_are_those_of_the_field() {
    report(in_all(words::check), exceptions::Rule::Words);
}

#[test]
fn allowed_words_are_still_needed() {
    let sources = sources();
    let unused = words::unused_exceptions(&sources);
    assert!(
        unused.is_empty(),
        "exceptions that nothing needs: {unused:?}"
    );
}

#[test]
fn links_lead_to_files_and_headings() {
    let root = root();
    report(
        in_all(|source| links::check(source, &root)),
        exceptions::Rule::Links,
    );
}

#[test]
fn no_path_attribute_and_no_dead_code() {
    report(in_all(attributes::check), exceptions::Rule::Attributes);
}

#[test]
fn every_public_function_is_in_an_example() {
    let sources = sources();
    let count = examples::count(&sources);
    assert!(count > 200, "only {count} public functions found");
    report(examples::check(&sources), exceptions::Rule::Examples);
}

#[test]
fn tests_that_the_guide_names_exist() {
    let sources = sources();
    let count = named_tests::count(&sources);
    assert!(count > 200, "only {count} names of tests found");
    report(named_tests::check(&sources), exceptions::Rule::NamedTests);
}

#[test]
fn pending_files_exist() {
    let gone = exceptions::gone(&root());
    assert!(gone.is_empty(), "no longer there: {gone:?}");
}
