//! What a verification found.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// What a verification saw.
///
/// ```
/// use std::path::Path;
/// use hedgerow::{Problem, VerifyReport};
///
/// let mut report = VerifyReport::default(); // as Db::verify returns it
/// assert!(report.is_clean());
/// report.problem(Problem::at(Path::new("tree.hdb"), 4096, "torn page"));
/// report.problem(Problem::in_file(Path::new("7.sst"), "not listed"));
///
/// let mut all = VerifyReport::default();
/// all.problem(Problem::new("two keyspaces of one name"));
/// all.merge(report);
/// for problem in &all.problems {
///     println!("{problem}");
/// }
/// assert!(!all.is_clean());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Files read.
    pub files: u64,
    /// Blocks or pages whose checksum and structure were checked.
    pub blocks: u64,
    /// Entries seen.
    pub entries: u64,
    /// What is wrong; empty if all is well.
    pub problems: Vec<Problem>,
}

impl VerifyReport {
    /// True if nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Adds a problem.
    pub fn problem(&mut self, problem: impl Into<Problem>) {
        self.problems.push(problem.into());
    }

    /// Adds the figures and problems of another report.
    pub fn merge(&mut self, other: Self) {
        self.files += other.files;
        self.blocks += other.blocks;
        self.entries += other.entries;
        self.problems.extend(other.problems);
    }
}

/// One thing that a verification found to be wrong. `Display` prints it on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The keyspace concerned; `None` for the files of the store itself, and in a report of one
    /// keyspace.
    pub keyspace: Option<String>,
    /// The damaged file; `None` if the damage is in no particular one.
    pub file: Option<PathBuf>,
    /// Byte offset of the damaged structure within the file, if it has a place.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl Problem {
    /// A problem of no particular file.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            keyspace: None,
            file: None,
            offset: None,
            what: what.into(),
        }
    }

    /// A problem of a whole file.
    pub fn in_file(file: &Path, what: impl Into<String>) -> Self {
        Self {
            file: Some(file.to_path_buf()),
            ..Self::new(what)
        }
    }

    /// A problem of a file at byte `offset`.
    pub fn at(file: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self {
            offset: Some(offset),
            ..Self::in_file(file, what)
        }
    }
}

impl From<String> for Problem {
    fn from(what: String) -> Self {
        Self::new(what)
    }
}

/// Of [`Error::Corruption`] the place is kept; of any other error its message and causes.
impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        match error {
            Error::Corruption { file, offset, what } => Self::at(file, *offset, what.as_str()),
            other => Self::new(format!("{other:#}")),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(keyspace) = &self.keyspace {
            write!(f, "keyspace {keyspace:?}: ")?;
        }
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some(offset) = self.offset {
                write!(f, " at byte {offset}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_with_what_is_known() {
        let file = Path::new("d/tree.hdb");
        let mut problem = Problem::from(Error::corruption(file, 4096, "torn page"));
        assert_eq!(problem.file.as_deref(), Some(file));
        assert_eq!(problem.offset, Some(4096));
        assert_eq!(problem.to_string(), "d/tree.hdb at byte 4096: torn page");
        problem.keyspace = Some("users".into());
        let line = "keyspace \"users\": d/tree.hdb at byte 4096: torn page";
        assert_eq!(problem.to_string(), line);
        let whole = Problem::in_file(file, "not listed");
        assert_eq!(whole.to_string(), "d/tree.hdb: not listed");
        assert_eq!(Problem::new("overlap").to_string(), "overlap");
    }
}
