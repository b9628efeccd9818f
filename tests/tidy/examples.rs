//! Every public function of the library stands in an example: of the documentation, in `examples/`,
//! in the README or in the tour.
//!
//! Read off the text: types are public that `src/lib.rs` and its public modules name, and a
//! function is used where its name is followed by a parenthesis or stands behind a dot or a colon.

use std::collections::BTreeSet;

use super::{Kind, Source, Violation};

/// The files that say what is public.
const FRONT: [&str; 3] = ["src/lib.rs", "src/fs/mod.rs", "src/trace/mod.rs"];
/// Documents whose code counts as examples.
const DOCUMENTS: [&str; 2] = ["README.md", "docs/tour.md"];

/// What is public and stands in no example.
pub fn check(sources: &[Source]) -> Vec<Violation> {
    let types = public_types(sources);
    let used: BTreeSet<String> = sources
        .iter()
        .flat_map(|source| used_names(&example_code(source)))
        .collect();
    let library = sources.iter().filter(|source| is_library(source));
    let mut missing = Vec::new();
    for source in library {
        for (line, owner, name) in functions(&source.text, &types) {
            if !used.contains(name) {
                missing.push(source.violation(line, format!("no example uses {owner}::{name}")));
            }
        }
    }
    missing
}

/// How many public functions there are.
pub fn count(sources: &[Source]) -> usize {
    let types = public_types(sources);
    let library = sources.iter().filter(|source| is_library(source));
    library
        .map(|source| functions(&source.text, &types).len())
        .sum()
}

fn is_library(source: &Source) -> bool {
    source.kind == Kind::Rust && source.path.starts_with("src/")
}

/// Names of types that are exported or defined where what is public is said.
fn public_types(sources: &[Source]) -> BTreeSet<String> {
    let front = sources
        .iter()
        .filter(|source| FRONT.contains(&source.path.as_str()));
    let mut types = BTreeSet::new();
    for source in front {
        let mut is_export = false;
        for line in source.text.lines() {
            is_export |= line.starts_with("pub use ");
            let defines = ["pub struct ", "pub enum ", "pub trait "];
            if is_export || defines.iter().any(|start| line.starts_with(start)) {
                let words = identifiers(line).map(|(_, word)| word);
                let names = words.filter(|word| word.starts_with(|c: char| c.is_uppercase()));
                types.extend(names.map(str::to_owned));
            }
            is_export &= !line.ends_with(';');
        }
    }
    types
}

/// The public functions of `types`: line, type and name.
fn functions<'a>(text: &'a str, types: &BTreeSet<String>) -> Vec<(usize, &'a str, &'a str)> {
    let mut found = Vec::new();
    let mut owner: Option<(&str, bool)> = None;
    let mut setters = false;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(start) = line.strip_prefix("impl") {
            owner = implemented(start).map(|name| (name, false));
        } else if let Some(start) = line.strip_prefix("pub trait ") {
            owner = identifiers(start).next().map(|(_, name)| (name, true));
        } else if line.starts_with('}') {
            owner = None;
        }
        let Some((owner, is_trait)) = owner.filter(|(name, _)| types.contains(*name)) else {
            continue;
        };
        let Some(item) = line.strip_prefix("    ") else {
            continue;
        };
        setters |= item.ends_with("setters! {");
        setters &= item != "}";
        let field = item.strip_prefix("    ").unwrap_or("//");
        let name = if setters && field.starts_with(|c: char| c.is_alphabetic()) {
            identifiers(field).next().map(|(_, name)| name)
        } else {
            declared(item, is_trait)
        };
        found.extend(name.map(|name| (number, owner, name)));
    }
    found
}

/// The type of an `impl` block, if it implements no trait; `start` is what follows `impl`.
fn implemented(start: &str) -> Option<&str> {
    if start.contains(" for ") {
        return None;
    }
    let mut depth = 0;
    let generics = start.find(|c: char| {
        depth += i32::from(c == '<') - i32::from(c == '>');
        depth == 0
    })?;
    let path = start[generics..].trim_start_matches('>').trim_start();
    let path = &path[..path.find(['<', ' ']).unwrap_or(path.len())];
    path.rsplit("::").next()
}

/// The name of the function that a line of a block begins.
fn declared(item: &str, is_trait: bool) -> Option<&str> {
    let rest = match item.strip_prefix("pub ") {
        Some(rest) => rest,
        None if is_trait => item,
        None => return None,
    };
    let rest = rest.strip_prefix("const ").unwrap_or(rest);
    let rest = rest.strip_prefix("async ").unwrap_or(rest);
    let rest = rest.strip_prefix("fn ")?;
    identifiers(rest).next().map(|(_, name)| name)
}

/// The code of the examples in a file.
fn example_code(source: &Source) -> String {
    if source.path.starts_with("examples/") {
        return source.text.clone();
    }
    let documents = DOCUMENTS.contains(&source.path.as_str());
    if !documents && !is_library(source) {
        return String::new();
    }
    let mut code = String::new();
    let mut block: Option<bool> = None;
    for line in source.text.lines() {
        let text = line.trim_start();
        let text = match documents {
            true => Some(text),
            false => text.strip_prefix("///").or(text.strip_prefix("//!")),
        };
        let Some(text) = text.map(str::trim) else {
            block = None;
            continue;
        };
        if let Some(language) = text.strip_prefix("```") {
            block = match block {
                Some(_) => None,
                None => Some(language.is_empty() || language.starts_with("rust")),
            };
        } else if block == Some(true) {
            code += text;
            code.push('\n');
        }
    }
    code
}

/// The names that stand where functions are called, named or defined.
fn used_names(code: &str) -> Vec<String> {
    let names = identifiers(code).filter(|(at, name)| {
        let before = code[..*at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        after == Some('(') || matches!(before, Some('.' | ':'))
    });
    names.map(|(_, name)| name.to_owned()).collect()
}

/// Each identifier with where it begins.
fn identifiers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = 0;
    std::iter::from_fn(move || {
        let start = rest + text[rest..].find(is_part)?;
        let len = text[start..]
            .find(|c| !is_part(c))
            .unwrap_or(text.len() - start);
        rest = start + len;
        Some((start, &text[start..rest]))
    })
}

#[test]
fn a_function_without_an_example_is_found() {
    let source = |path: &str, text: &str| Source {
        path: path.into(),
        kind: Kind::Rust,
        text: text.into(),
    };
    let sources = [
        source(
            "src/lib.rs",
            "pub use a::{\n    Kept,\n    Told,\n};\nuse a::Own;\n",
        ),
        source(
            "src/a.rs",
            "/// ```\n/// Kept::open().close();\n/// // not_called, wide\n/// ```\n\
             /// ```text\n/// told()\n/// ```\n\
             impl<T: Into<u8>> Kept<T> {\n    pub fn open() {}\n    pub const fn close() {}\n\
             \x20   pub fn not_called() {}\n    fn own() {}\n\
             \x20   setters! {\n        /// Text.\n        wide: bool,\n    }\n}\n\
             impl Own {\n    pub fn hidden() {}\n}\n\
             impl Drop for Kept {\n    pub fn not_here() {}\n}\n\
             pub trait Told: Sized {\n    fn told(&self);\n}\n",
        ),
    ];
    let missing: Vec<_> = check(&sources)
        .into_iter()
        .map(|found| found.what)
        .collect();
    let names = ["Kept::not_called", "Kept::wide", "Told::told"];
    assert_eq!(missing, names.map(|name| format!("no example uses {name}")));
    assert_eq!(count(&sources), 5);
}
