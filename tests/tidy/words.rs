//! Words that are not used here, because the field has another one or plain English has.
//!
//! Identifiers count: `DeadZones` and `dead_zones` are "dead zones". So do words that a line break
//! of a comment or a paragraph separates.

use std::collections::HashMap;
use std::iter::repeat;
use std::sync::LazyLock;

use super::{Kind, Source, Violation};

/// A word or several in a row, in lower case, and what to write instead.
struct Banned {
    words: &'static [&'static str],
    instead: &'static str,
    /// Where it is not used; other places may.
    under: &'static str,
}

const fn everywhere(words: &'static [&'static str], instead: &'static str) -> Banned {
    Banned {
        words,
        instead,
        under: "",
    }
}

const fn in_the_library(words: &'static [&'static str], instead: &'static str) -> Banned {
    Banned {
        words,
        instead,
        under: "src/",
    }
}

static BANNED: [Banned; 36] = [
    everywhere(&["hub"], "coordinator"),
    everywhere(&["struct", "front"], "the engine's host, or the store"),
    everywhere(&["trait", "front"], "the engine's host, or the store"),
    everywhere(&["enum", "front"], "the engine's host, or the store"),
    everywhere(&["horizon"], "WAL manifest"),
    everywhere(&["horizons"], "WAL manifests"),
    everywhere(&["dead", "zone"], "empty range"),
    everywhere(&["dead", "zones"], "empty ranges"),
    everywhere(&["spared"], "has_no_put_in, skipped"),
    everywhere(&["reaper"], "ObsoleteFiles"),
    everywhere(&["doom"], "enqueue, delete"),
    everywhere(&["doomed"], "what happens to it"),
    everywhere(&["teeth"], "mutants"),
    everywhere(&["planted", "fault"], "mutant"),
    everywhere(&["planted", "faults"], "mutants"),
    everywhere(&["let", "go"], "delete, release"),
    everywhere(&["lets", "go"], "deletes, releases"),
    everywhere(&["letting", "go"], "deleting, releasing"),
    everywhere(&["whoever"], "the thread, the caller, a reader"),
    everywhere(&["believe"], "accept"),
    everywhere(&["believes"], "accepts"),
    everywhere(&["believed"], "accepted"),
    everywhere(&["bring", "in"], "load"),
    everywhere(&["brings", "in"], "loads"),
    everywhere(&["brought", "in"], "loaded"),
    everywhere(&["off", "the", "books"], "free"),
    everywhere(&["the", "present"], "the current"),
    everywhere(&["at", "the", "most"], "at most"),
    everywhere(&["at", "the", "least"], "at least"),
    everywhere(&["dear"], "expensive"),
    everywhere(&["dearer"], "more expensive"),
    everywhere(&["for", "ever"], "forever"),
    in_the_library(&["nobody"], "no thread, no caller, no reader"),
    in_the_library(&["somebody"], "a thread, a caller, another process"),
    in_the_library(&["no", "one"], "no thread, no caller, no reader"),
    in_the_library(&["someone"], "a thread, a caller, another process"),
];

/// A file in which words are used all the same, and why.
struct Allowed {
    words: &'static [&'static str],
    path: &'static str,
    reason: &'static str,
}

const ALLOWED: [Allowed; 2] = [
    Allowed {
        words: &["dear"],
        path: "tests/store/database.rs",
        reason: "a letter begins with it",
    },
    Allowed {
        words: &["nobody"],
        path: "src/trace/tests.rs",
        reason: "a key that is absent",
    },
];

/// A word, and the line that it is in.
#[derive(Debug)]
struct Word {
    text: String,
    line: usize,
    /// What separates it from the word before is no more than space, a line break within a comment
    /// or paragraph, or the joint of an identifier.
    follows: bool,
}

pub fn check(source: &Source) -> Vec<Violation> {
    // This file has the list.
    if source.path == "tests/tidy/words.rs" {
        return Vec::new();
    }
    let found = uses(source);
    let found = found
        .iter()
        .filter(|(banned, _)| !ALLOWED.iter().any(|a| is_allowed(a, banned, source)));
    found
        .map(|(banned, line)| {
            let words = banned.words.join(" ");
            source.violation(*line, format!("\"{words}\": write {}", banned.instead))
        })
        .collect()
}

/// The entries of [`ALLOWED`] without which nothing would be found.
pub fn unused_exceptions(sources: &[Source]) -> Vec<String> {
    let is_used = |allowed: &Allowed| {
        let mut there = sources.iter().filter(|source| source.path == allowed.path);
        there.any(|source| {
            let uses = uses(source);
            let mut uses = uses.iter();
            uses.any(|(banned, _)| is_allowed(allowed, banned, source))
        })
    };
    let unused = ALLOWED.iter().filter(|allowed| !is_used(allowed));
    unused
        .map(|allowed| format!("{}: {}", allowed.path, allowed.reason))
        .collect()
}

fn is_allowed(allowed: &Allowed, banned: &Banned, source: &Source) -> bool {
    allowed.words == banned.words && allowed.path == source.path
}

/// Every use of a banned word, with its line.
fn uses(source: &Source) -> Vec<(&'static Banned, usize)> {
    static BY_FIRST: LazyLock<HashMap<&str, Vec<&Banned>>> = LazyLock::new(|| {
        let mut by_first: HashMap<_, Vec<_>> = HashMap::new();
        for banned in &BANNED {
            by_first.entry(banned.words[0]).or_default().push(banned);
        }
        by_first
    });
    let words = words(source);
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let Some(candidates) = BY_FIRST.get(word.text.as_str()) else {
            continue;
        };
        let here = |banned: &&&Banned| {
            let rest = words[at + 1..].iter().map(Some).chain(repeat(None));
            banned.words[1..]
                .iter()
                .zip(rest)
                .all(|(a, b)| b.is_some_and(|b| b.follows && b.text == *a))
                && source.path.starts_with(banned.under)
        };
        found.extend(candidates.iter().filter(here).map(|b| (*b, word.line)));
    }
    found
}

/// The words of a file, in lower case.
fn words(source: &Source) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut follows = false;
    for (line_number, line) in (1..).zip(source.text.lines()) {
        let trimmed = line.trim_start();
        let is_code = source.kind == Kind::Rust && !trimmed.starts_with("//");
        let text = match source.kind {
            Kind::Rust => trimmed.trim_start_matches(['/', '!']),
            Kind::Script => trimmed.trim_start_matches('#'),
            Kind::Markdown => trimmed,
        };
        // The end of a line of code ends what was said, and so does an empty line.
        follows &= !is_code && !text.trim().is_empty();
        let text = text.replace("GitHub", "Github");
        let mut is_in_quotes = false;
        let mut word = String::new();
        let mut before = ' ';
        for c in text.chars().chain([' ']) {
            let is_joint = c.is_uppercase() && before.is_lowercase();
            if (!c.is_alphanumeric() || is_joint) && !word.is_empty() {
                // `let` of the language is none of the prose.
                let is_keyword = is_code && !is_in_quotes && word == "let";
                words.push(Word {
                    text: std::mem::take(&mut word),
                    line: line_number,
                    follows,
                });
                follows = !is_keyword;
            }
            if c.is_alphanumeric() {
                word.extend(c.to_lowercase());
            } else if ![' ', '_', '-'].contains(&c) {
                follows = false;
            }
            is_in_quotes ^= c == '"';
            before = c;
        }
    }
    words
}

#[cfg(test)]
fn lines_found(path: &str, kind: Kind, text: &str) -> Vec<usize> {
    let source = Source {
        path: path.into(),
        kind,
        text: text.into(),
    };
    check(&source).iter().map(|found| found.line).collect()
}

#[test]
fn words_are_found_in_prose_and_identifiers() {
    let text = "/// The hub of it.\nstruct DeadZones;\nlet dead_zone = 1;\n\
                // What was let\n// go of.\nlet go = 2;\nlet x; // let, go\n// chub, github\n";
    assert_eq!(lines_found("src/x.rs", Kind::Rust, text), [1, 2, 3, 4]);
    let text = "It stays for\never. For.\n\never\n";
    assert_eq!(lines_found("docs/x.md", Kind::Markdown, text), [1]);
}

#[test]
fn some_words_are_for_prose_only() {
    let text = "// nobody waits\n";
    assert_eq!(lines_found("src/x.rs", Kind::Rust, text), [1]);
    assert_eq!(lines_found("docs/x.md", Kind::Markdown, text), [0; 0]);
}
