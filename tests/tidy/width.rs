//! The width of lines: comments of code and prose of documents within 100 columns.
//!
//! Blocks of code, rows of tables and lines with a word that fits nowhere (an address) may be
//! longer. A cell of a table has 200 characters at most: what is longer is a paragraph.

use super::{Kind, Source, Violation, lines_of_code};

const MAX_COLUMNS: usize = 100;
const MAX_CELL_CHARS: usize = 200;
/// Longer words are addresses; no line break makes them fit.
const MAX_WORD_CHARS: usize = 70;

pub fn check(source: &Source) -> Vec<Violation> {
    let comments: Vec<&str>;
    let lines: Vec<&str> = source.text.lines().collect();
    let prose = match source.kind {
        Kind::Markdown => &lines,
        Kind::Rust => {
            comments = lines.iter().map(|line| comment(line, "//")).collect();
            &comments
        }
        Kind::Script => {
            comments = lines.iter().map(|line| comment(line, "#")).collect();
            &comments
        }
    };
    let code = lines_of_code(prose);
    let mut found = Vec::new();
    for (number, (line, prose)) in (1..).zip(lines.iter().zip(prose)) {
        if code.contains(&number) || prose.is_empty() {
            continue;
        }
        if prose.starts_with('|') {
            let cells = prose.replace("\\|", "/");
            let longest = cells.split('|').map(|cell| cell.trim().chars().count());
            let longest = longest.max().unwrap_or(0);
            if longest > MAX_CELL_CHARS {
                let what = format!("a cell of a table has {longest} characters");
                found.push(source.violation(number, what));
            }
            continue;
        }
        let columns = line.chars().count();
        let has_address = prose
            .split_whitespace()
            .any(|word| word.chars().count() > MAX_WORD_CHARS);
        if columns > MAX_COLUMNS && !has_address {
            found.push(source.violation(number, format!("{columns} columns")));
        }
    }
    found
}

/// What a line says that is a comment; empty if it is none.
fn comment<'a>(line: &'a str, marker: &str) -> &'a str {
    let line = line.trim_start();
    let Some(text) = line.strip_prefix(marker) else {
        return "";
    };
    text.trim_start_matches(['/', '!', '#']).trim()
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
fn long_prose_is_found_and_other_long_lines_are_not() {
    let long = "word ".repeat(21);
    let address = format!("see https://example.org/{} there", "x".repeat(90));
    let cell = format!("| {} |", "word ".repeat(41));
    let document =
        format!("# Title\n{long}\n```text\n{long}\n```\n{address}\n| {long} |\n{cell}\n");
    assert_eq!(lines_found("docs/x.md", Kind::Markdown, &document), [2, 8]);
    let code =
        format!("/// {long}\nlet x = \"{long}\";\n//! ```\n//! {long}\n//! ```\n    // {long}\n");
    assert_eq!(lines_found("src/x.rs", Kind::Rust, &code), [1, 6]);
}
