//! Attributes that hide something: where a module's file is, or that nothing uses a piece of code.

use super::{Kind, Source, Violation};

/// Each with what to do instead.
const ATTRIBUTES: [(&str, &str); 2] = [
    ("#[path", "give the module a file of its name"),
    ("allow(dead_code)", "remove what nothing uses"),
];

pub fn check(source: &Source) -> Vec<Violation> {
    // This file names them.
    if source.kind != Kind::Rust || source.path == "tests/tidy/attributes.rs" {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (number, line) in (1..).zip(source.text.lines()) {
        let dense: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        for (attribute, advice) in ATTRIBUTES {
            if dense.contains(attribute) {
                found.push(source.violation(number, format!("{attribute}: {advice}")));
            }
        }
    }
    found
}

#[test]
fn attributes_are_found() {
    let source = Source {
        path: "src/x.rs".into(),
        kind: Kind::Rust,
        text: "#[path = \"y.rs\"]\nmod x;\n#![allow( dead_code )]\n".into(),
    };
    let lines: Vec<_> = check(&source).iter().map(|found| found.line).collect();
    assert_eq!(lines, [1, 3]);
}
