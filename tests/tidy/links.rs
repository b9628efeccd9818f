//! Links of documents, and documents that code names, lead to files that exist; anchors to
//! headings.

use std::fs;
use std::path::Path;

use super::{Kind, Source, Violation, lines_of_code, slashed};

/// What a document that is also read elsewhere (README.md, on docs.rs) puts before a path.
const REPOSITORY: [&str; 2] = [
    "https://github.com/hedgerow-db/hedgerow/blob/main/",
    "https://github.com/hedgerow-db/hedgerow/tree/main/",
];

pub fn check(source: &Source, root: &Path) -> Vec<Violation> {
    match source.kind {
        Kind::Markdown => check_document(source, root),
        // The tests of these checks name documents that do not exist.
        Kind::Rust if source.path.starts_with("tests/tidy/") => Vec::new(),
        Kind::Rust => check_code(source, root),
        Kind::Script => Vec::new(),
    }
}

fn check_document(source: &Source, root: &Path) -> Vec<Violation> {
    let lines: Vec<&str> = source.text.lines().collect();
    let code = lines_of_code(&lines);
    let mut found = Vec::new();
    for (number, line) in (1..).zip(&lines) {
        if code.contains(&number) {
            continue;
        }
        for target in targets(line) {
            if let Some(what) = problem(&source.path, target, root) {
                found.push(source.violation(number, what));
            }
        }
    }
    found
}

/// The documents that comments and messages of code name: `docs/format.md`.
fn check_code(source: &Source, root: &Path) -> Vec<Violation> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(source.text.lines()) {
        for (at, start) in line.match_indices("docs/") {
            let is_path = line[..at].ends_with(['/', '.', '-']);
            let rest = &line[at + start.len()..];
            let name_len = rest
                .find(|c: char| !c.is_ascii_lowercase() && c != '-')
                .unwrap_or(rest.len());
            if is_path || name_len == 0 || !rest[name_len..].starts_with(".md") {
                continue;
            }
            let path = format!("docs/{}.md", &rest[..name_len]);
            if !root.join(&path).exists() {
                found.push(source.violation(number, format!("there is no {path}")));
            }
        }
    }
    found
}

/// Where the links in a line lead: `[text](target)` and `[name]: target`.
fn targets(line: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    // Every second piece between backticks is code.
    for prose in line.split('`').step_by(2) {
        for (at, open) in prose.match_indices("](") {
            let rest = &prose[at + open.len()..];
            targets.extend(rest.split(')').next());
        }
    }
    // The text of a link may be code, and then its end is in another piece.
    if line.starts_with('[')
        && let Some((_, target)) = line.split_once("]: ")
    {
        targets.push(target.trim());
    }
    targets
}

/// What is wrong with a link in the document at `from`, if anything.
fn problem(from: &str, target: &str, root: &Path) -> Option<String> {
    let in_repository = REPOSITORY
        .iter()
        .find_map(|prefix| target.strip_prefix(prefix));
    if in_repository.is_none() && (target.contains("://") || target.starts_with("mailto:")) {
        return None;
    }
    let (file, anchor) = match in_repository.unwrap_or(target).split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (in_repository.unwrap_or(target), None),
    };
    let folder = Path::new(from).parent().unwrap_or(Path::new(""));
    let path = match (in_repository, file) {
        (Some(_), file) => root.join(file),
        (None, "") => root.join(from),
        (None, file) => root.join(folder).join(file),
    };
    if !path.exists() {
        return Some(format!("link to {target}: there is no such file"));
    }
    let anchor = anchor?;
    let text = fs::read_to_string(&path).unwrap_or_default();
    let headings: Vec<String> = text.lines().filter_map(anchor_of_heading).collect();
    if path.extension().is_some_and(|extension| extension == "md")
        && !headings.iter().any(|heading| heading == anchor)
    {
        let path = slashed(path.strip_prefix(root).unwrap_or(&path));
        return Some(format!("link to {target}: {path} has no such heading"));
    }
    None
}

/// The anchor that GitHub makes of a heading; `None` if the line is none.
fn anchor_of_heading(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#');
    let title = title.strip_prefix(' ')?.trim().to_lowercase();
    let kept = title.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() => Some(c),
        _ => None,
    });
    Some(kept.collect())
}

#[test]
fn targets_of_links() {
    let line = "see [a](b.md), [`c`](../d.rs) and `[x](y)`";
    assert_eq!(targets(line), ["b.md", "../d.rs"]);
    assert_eq!(targets("[name]: e.md"), ["e.md"]);
}

#[test]
fn missing_files_and_headings_are_found() {
    let root = super::root();
    let problem = |target: &str| problem("docs/architecture.md", target, &root);
    assert_eq!(problem("format.md"), None);
    assert_eq!(problem("../README.md"), None);
    assert_eq!(problem("../README.md#licence"), None);
    assert_eq!(problem("#decisions"), None);
    assert_eq!(problem("https://example.org/nothing.md"), None);
    assert!(problem("README.md").is_some());
    assert!(problem("format.md#nothing-of-the-kind").is_some());
    let on_github = "https://github.com/hedgerow-db/hedgerow/blob/main/docs/";
    assert_eq!(problem(&format!("{on_github}format.md")), None);
    assert!(problem(&format!("{on_github}nothing.md")).is_some());
    let source = Source {
        path: "src/x.rs".into(),
        kind: Kind::Rust,
        text: "//! docs/format.md, \"Batch\"\n//! docs/nothing.md\n".into(),
    };
    assert_eq!(check(&source, &root)[0].line, 2);
}

#[test]
fn anchors_are_those_of_github() {
    let anchor = |line| anchor_of_heading(line);
    assert_eq!(
        anchor("## B-tree: page file").as_deref(),
        Some("b-tree-page-file")
    );
    assert_eq!(
        anchor("### `dump` and load").as_deref(),
        Some("dump-and-load")
    );
    assert_eq!(anchor("#[test]"), None);
}
