//! Every test that docs/testing.md names exists, so that a renamed test leaves no dead name.
//!
//! Names are those that `cargo test` prints, or the end of one: `lsm::tests::one_thing`; or a suite
//! and the name of a test in it: `hostile: one_thing`. A module that has tests may be named as a
//! whole, and so may a workload of the crash states, which `HEDGEROW_WORKLOAD` picks.
//!
//! Read off the text, which rustfmt has laid out: a test is a function behind `#[test]`, within the
//! modules of its file. Of a macro that makes tests it is enough that it is used in the module, and
//! that what follows in the name stands in its rules or where it is used.

use std::collections::BTreeSet;

use super::{Kind, Source, Violation, lines_of_code};

const DOCUMENT: &str = "docs/testing.md";
const WORKLOADS: &str = "tests/store/crash_states/workloads.rs";

/// The tests of all sources.
#[derive(Debug, Default)]
struct Tests {
    /// Path of the file, and the test with its modules, as it is printed.
    written: BTreeSet<(String, String)>,
    made: Vec<Made>,
    workloads: BTreeSet<String>,
}

/// The tests that one use of a macro makes.
#[derive(Debug)]
struct Made {
    file: String,
    /// Where it is used.
    module: String,
    /// What stands in the rules of the macro, and where it is used.
    words: BTreeSet<String>,
}

/// A macro that makes tests.
struct Macro {
    name: String,
    words: BTreeSet<String>,
}

pub fn check(sources: &[Source]) -> Vec<Violation> {
    let tests = Tests::of(sources);
    let documents = sources.iter().filter(|source| source.path == DOCUMENT);
    let mut found = Vec::new();
    for (source, line, name) in documents.flat_map(names) {
        if !tests.has(name) {
            found.push(source.violation(line, format!("there is no test {name}")));
        }
    }
    found
}

/// How many names are checked.
pub fn count(sources: &[Source]) -> usize {
    let documents = sources.iter().filter(|source| source.path == DOCUMENT);
    documents.flat_map(names).count()
}

/// The names of tests in a document, each with its line.
fn names(source: &Source) -> Vec<(&Source, usize, &str)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let code = lines_of_code(&lines);
    let mut names = Vec::new();
    for (number, line) in (1..).zip(lines) {
        if code.contains(&number) {
            continue;
        }
        let in_code = line.split('`').skip(1).step_by(2);
        names.extend(
            in_code
                .filter(|text| is_name(text))
                .map(|name| (source, number, name)),
        );
    }
    names
}

/// True for `module::test` and `suite: test`.
fn is_name(text: &str) -> bool {
    let parts: Vec<&str> = match text.split_once(": ") {
        Some((suite, test)) => vec![suite, test],
        None => text.split("::").collect(),
    };
    parts.len() > 1 && parts.iter().all(|part| is_snake(part))
}

fn is_snake(word: &str) -> bool {
    let is_right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(is_right)
}

impl Tests {
    fn of(sources: &[Source]) -> Self {
        let rust = || sources.iter().filter(|source| source.kind == Kind::Rust);
        let macros: Vec<Macro> = rust().flat_map(macros).collect();
        let mut tests = Self::default();
        for source in rust() {
            tests.read(source, &macros);
        }
        tests
    }

    fn read(&mut self, source: &Source, macros: &[Macro]) {
        let file_module = module_of(&source.path);
        // Modules within the file that the line is in, each with its indentation.
        let mut within: Vec<(usize, &str)> = Vec::new();
        let mut is_test = false;
        let mut at = 0;
        for line in source.text.lines() {
            let rest = &source.text[at..];
            at += line.len() + 1;
            let text = line.trim_start();
            let indentation = line.len() - text.len();
            if text == "}" && within.last().is_some_and(|(of, _)| *of == indentation) {
                within.pop();
            }
            if let Some(name) = opened_module(text) {
                within.push((indentation, name));
            }
            let module = || {
                let names = within.iter().map(|(_, name)| *name);
                let names = [&file_module[..]].into_iter().chain(names);
                names
                    .filter(|name| !name.is_empty())
                    .collect::<Vec<_>>()
                    .join("::")
            };
            for used in macros {
                let Some(arguments) = text.strip_prefix(&used.name[..]) else {
                    continue;
                };
                // Not the macro's own rules, which call it, too.
                let is_use = arguments.starts_with('!') && !arguments.contains('@');
                let Some(open) = rest.find(['{', '(', '[']).filter(|_| is_use) else {
                    continue;
                };
                let mut words = words(enclosed(&rest[open..]));
                words.extend(used.words.iter().cloned());
                self.made.push(Made {
                    file: source.path.clone(),
                    module: module(),
                    words,
                });
            }
            if source.path == WORKLOADS
                && let Some((name, _)) = text.strip_prefix("(\"").and_then(|t| t.split_once('"'))
            {
                self.workloads.insert(name.to_owned());
            }
            is_test |= text.starts_with("#[test]");
            let Some((_, name)) = text.split_once("fn ").filter(|_| is_test) else {
                continue;
            };
            is_test = false;
            let name = name.split('(').next().unwrap_or(name);
            if is_snake(name) {
                let path = [&module(), name].join("::");
                let path = path.trim_start_matches(':').to_owned();
                self.written.insert((source.path.clone(), path));
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        if let Some((suite, test)) = name.split_once(": ") {
            let is_in = |file: &str| {
                let file = file.strip_suffix(".rs").unwrap_or(file);
                file.split('/').any(|part| part == suite)
            };
            let mut written = self.written.iter();
            let mut made = self.made.iter();
            return written.any(|(file, path)| is_in(file) && ends_with(path, test))
                || made.any(|made| is_in(&made.file) && made.words.contains(test));
        }
        let is_module = |path: &str| {
            let parents = path.match_indices("::").map(|(at, _)| &path[..at]);
            parents.into_iter().any(|parent| ends_with(parent, name))
        };
        let mut written = self.written.iter();
        let is_workload = || {
            let workload = name.strip_prefix("crash_states::");
            workload.is_some_and(|workload| self.workloads.contains(workload))
        };
        written.any(|(_, path)| ends_with(path, name) || is_module(path))
            || self.made.iter().any(|made| made.has(name))
            || is_workload()
    }
}

impl Made {
    /// True if the name is one of the module, and goes on with what the macro is given: a test, or
    /// a module and a test in it.
    fn has(&self, name: &str) -> bool {
        let parts: Vec<&str> = name.split("::").collect();
        (1..=2).any(|made| {
            let Some((module, made)) = parts.split_at_checked(parts.len().wrapping_sub(made))
            else {
                return false;
            };
            ends_with(&self.module, &module.join("::"))
                && made.iter().all(|part| self.words.contains(*part))
        })
    }
}

/// True if the last parts of a path are those of `end`.
fn ends_with(path: &str, end: &str) -> bool {
    let rest = path.strip_suffix(end);
    !end.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
}

/// The module that a file is, as the names of its tests begin.
fn module_of(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    let from = match parts[..] {
        ["crates", _, "tests", _, _, ..] => 4,
        ["crates", _, _, _, ..] => 3,
        ["tests", "support", ..] => 3,
        ["tests", _, ..] => 2,
        _ => 1,
    };
    let mut names: Vec<&str> = parts.get(from..).unwrap_or_default().to_vec();
    if let Some(last) = names.pop() {
        let stem = last.strip_suffix(".rs").unwrap_or(last);
        if !["mod", "lib", "main"].contains(&stem) {
            names.push(stem);
        }
    }
    names.join("::")
}

/// The name of the module whose text begins in this line.
fn opened_module(line: &str) -> Option<&str> {
    let rest = line.strip_suffix(" {")?;
    let rest = rest
        .strip_prefix("pub ")
        .or(rest.strip_prefix("pub(crate) "))
        .unwrap_or(rest);
    rest.strip_prefix("mod ").filter(|name| is_snake(name))
}

/// The macros of a file whose rules make tests of names that they are given.
fn macros(source: &Source) -> Vec<Macro> {
    let mut macros = Vec::new();
    for (at, keyword) in source.text.match_indices("macro_rules! ") {
        let rest = &source.text[at + keyword.len()..];
        let Some((name, rules)) = rest.split_once(' ') else {
            continue;
        };
        let rules = enclosed(rules);
        if is_snake(name) && rules.contains("#[test]") && rules.contains("fn $") {
            macros.push(Macro {
                name: name.to_owned(),
                words: words(rules),
            });
        }
    }
    macros
}

/// What is within the bracket that a text begins with.
fn enclosed(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| is_snake(word))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod self_test {
    use super::*;

    fn rust(path: &str, text: &str) -> Source {
        Source {
            path: path.into(),
            kind: Kind::Rust,
            text: text.into(),
        }
    }

    /// The names that are found dead in a document.
    fn dead(document: &str, mut sources: Vec<Source>) -> Vec<String> {
        sources.push(Source {
            path: DOCUMENT.into(),
            kind: Kind::Markdown,
            text: document.into(),
        });
        let found = check(&sources).into_iter();
        found
            .map(|violation| violation.what.replace("there is no test ", ""))
            .collect()
    }

    #[test]
    fn tests_are_found_by_their_modules() {
        let text = "\
#[cfg(test)]
mod tests {
    #[test]
    #[should_panic]
    fn one() {}

    fn no_test() {}
}

#[test]
fn two() {}
";
        let sources = || {
            vec![
                rust("src/lsm/table/mod.rs", text),
                rust("tests/store/kills.rs", text),
            ]
        };
        let right = "`lsm::table::tests::one` `table::two`, `lsm::table::tests` `kills::two`, \
                     `hedgerow::Model`, `kills: two`\n```sh\n`kills::three`\n```\n";
        assert_eq!(dead(right, sources()), [""; 0]);
        let wrong =
            "`lsm::table::one`, `table::tests::two` `kills::no_test` `able::two` `walls: two`";
        let expected = [
            "able::two",
            "kills::no_test",
            "lsm::table::one",
            "table::tests::two",
            "walls: two",
        ];
        let mut found = dead(wrong, sources());
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn tests_that_macros_make_are_found() {
        let rules = "\
macro_rules! on_both {
    ($($name:ident,)*) => {
        mod lsm {
            $(#[test] fn $name() { super::$name(Lsm) })*
        }
    };
}
";
        let uses =
            "on_both! {\n    one,\n    two,\n}\n\nfn one(engine: Engine) {}\nfn three() {}\n";
        let sources = || {
            vec![
                rust("tests/store/a.rs", rules),
                rust("tests/store/b/c.rs", uses),
            ]
        };
        assert_eq!(
            dead("`b::c::lsm::one` `c::lsm::two`, `b: one`", sources()),
            [""; 0]
        );
        let wrong = dead(
            "`b::c::lsm::three` `b::c::btree::one` `a::lsm::one`",
            sources(),
        );
        assert_eq!(
            wrong,
            ["b::c::lsm::three", "b::c::btree::one", "a::lsm::one"]
        );
    }

    #[test]
    fn workloads_are_found() {
        let text = "pub const ALL: &[Workload] = &[\n    (\"keyspaces\", |world| {\n";
        let sources = vec![rust(WORKLOADS, text)];
        let found = dead("`crash_states::keyspaces`, `crash_states::others`", sources);
        assert_eq!(found, ["crash_states::others"]);
    }
}
