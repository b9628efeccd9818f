//! Scripts as files: running one, and holding what it prints against what it says, or writing that.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::command::Command;
use crate::world::World;

/// Separates commands from what they print.
const SEPARATOR: &str = "---";

/// Set, it makes scripts say what they print now.
const UPDATE: &str = "HEDGEROW_UPDATE_SCRIPTS";

/// Commands and what they should print.
#[derive(Debug, Default)]
struct Paragraph {
    /// Commands and comments, each with its line in the file.
    lines: Vec<(usize, String)>,
    expected: Vec<String>,
    /// Where the first line of `expected` is, or would be.
    expected_at: usize,
}

fn parse(text: &str) -> Vec<Paragraph> {
    let mut paragraphs = Vec::new();
    let mut paragraph = Paragraph::default();
    let mut is_behind_separator = false;
    for (at, line) in text.lines().enumerate() {
        if line.is_empty() {
            paragraphs.push(std::mem::take(&mut paragraph));
            is_behind_separator = false;
        } else if is_behind_separator {
            paragraph.expected.push(line.to_owned());
        } else if line == SEPARATOR {
            is_behind_separator = true;
        } else {
            paragraph.lines.push((at + 1, line.to_owned()));
        }
        if !is_behind_separator || line == SEPARATOR {
            paragraph.expected_at = at + 2;
        }
    }
    paragraphs.push(paragraph);
    paragraphs.retain(|paragraph| !paragraph.lines.is_empty());
    paragraphs
}

/// Runs the script at `path`. Panics where it prints something else than it says, unless it is to
/// be updated.
pub fn run(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    let is_update = std::env::var_os(UPDATE).is_some();
    let mut world = World::default();
    let mut updated = String::new();
    let mut differences = String::new();
    for paragraph in parse(&text) {
        let mut printed = String::new();
        for (at, line) in &paragraph.lines {
            if line.starts_with('#') {
                continue;
            }
            let place = format!("{}:{at}", path.display());
            let command = Command::parse(line).unwrap_or_else(|what| panic!("{place}: {what}"));
            world.run(&command, &place, &mut printed);
        }
        let printed: Vec<&str> = printed.lines().collect();
        if printed != paragraph.expected {
            let place = format!("{}:{}", path.display(), paragraph.expected_at);
            writeln!(differences, "{place}").unwrap();
            write_difference(&paragraph.expected, &printed, &mut differences);
        }
        if !updated.is_empty() {
            updated.push('\n');
        }
        let separator = (!printed.is_empty()).then_some(SEPARATOR);
        let lines = paragraph.lines.iter().map(|(_, line)| line.as_str());
        for line in lines.chain(separator).chain(printed) {
            updated.push_str(line);
            updated.push('\n');
        }
    }
    if is_update {
        if updated != text {
            fs::write(path, updated).unwrap();
        }
    } else {
        assert!(
            differences.is_empty(),
            "the script prints something else (- as it says, + now); {UPDATE}=1 takes that over\n\
             {differences}"
        );
    }
}

/// The lines from the first difference to the last one, old ones and new ones.
fn write_difference(expected: &[String], printed: &[&str], out: &mut String) {
    let pairs = expected.iter().zip(printed);
    let same = pairs.take_while(|(old, new)| old == *new).count();
    let (expected, printed) = (&expected[same..], &printed[same..]);
    let pairs = expected.iter().rev().zip(printed.iter().rev());
    let tail = pairs.take_while(|(old, new)| old == *new).count();
    for line in &expected[..expected.len() - tail] {
        writeln!(out, "  - {line}").unwrap();
    }
    for line in &printed[..printed.len() - tail] {
        writeln!(out, "  + {line}").unwrap();
    }
}

#[test]
fn paragraphs_are_found() {
    let text = "# one\nput a 1\n\nget a\n---\na = 1\n\n\nflush\n";
    let paragraphs = parse(text);
    let of = |paragraph: &Paragraph| (paragraph.lines.len(), paragraph.expected.len());
    let counts: Vec<_> = paragraphs.iter().map(of).collect();
    assert_eq!(counts, [(2, 0), (1, 1), (1, 0)]);
    assert_eq!(paragraphs[1].lines, [(4, "get a".to_owned())]);
    assert_eq!(paragraphs[1].expected, ["a = 1"]);
    assert_eq!(paragraphs[1].expected_at, 6);
}

#[test]
fn differences_are_shown_without_what_is_the_same() {
    let expected = ["a", "b", "c", "d"].map(str::to_owned);
    let mut out = String::new();
    write_difference(&expected, &["a", "x", "y", "d"], &mut out);
    assert_eq!(out, "  - b\n  - c\n  + x\n  + y\n");
}
