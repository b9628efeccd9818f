//! Files that do not obey a rule yet. Delete an entry, and the rule is applied.

use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Width,
    Words,
    Links,
    Attributes,
    Examples,
    NamedTests,
}

/// Each entry: the rule, and the beginning of the paths that it does not apply to.
const PENDING: &[(Rule, &str)] = &[];

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
