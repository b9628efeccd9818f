//! Files that do not obey a rule yet. Delete an entry, and the rule is applied.

use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Width,
    Words,
    Links,
    Attributes,
}

/// Each entry: the rule, and the beginning of the paths that it does not apply to.
const PENDING: &[(Rule, &str)] = &[
    (Rule::Words, "crates/hedgerow-bench/src"),
    (Rule::Words, "crates/hedgerow-cli/src"),
    (Rule::Width, "crates/hedgerow-bench/data/README.md"),
    (Rule::Words, "src/engine/snapshot_tracker.rs"),
    (Rule::Words, "src/store/catalog.rs"),
    (Rule::Width, "CHANGELOG.md"),
    (Rule::Width, "docs/cli.md"),
    (Rule::Width, "docs/durability.md"),
    (Rule::Words, "docs/durability.md"),
    (Rule::Width, "docs/format.md"),
    (Rule::Words, "docs/format.md"),
    (Rule::Width, "docs/testing.md"),
    (Rule::Width, "docs/trace.md"),
    (Rule::Width, "docs/trade-offs.md"),
];

pub fn is_pending(rule: Rule, path: &str) -> bool {
    PENDING
        .iter()
        .any(|(of, start)| *of == rule && path.starts_with(start))
}

/// Entries of files and folders that do not exist.
pub fn gone(root: &Path) -> Vec<&'static str> {
    let paths = PENDING.iter().map(|(_, path)| *path);
    paths.filter(|path| !root.join(path).exists()).collect()
}
