//! Where the records of a file go: to the visitor, or, if they cannot be used, to the count of
//! records that were skipped.

use std::fmt;

use super::shape::{Missing, Shape};
use crate::failure::{Failure, Result};

/// Where a record begins: lines are counted from 1.
pub type Line = u64;

/// Why one record cannot be used; the next one may be.
#[derive(Debug, PartialEq, Eq)]
pub enum Problem {
    /// A column or field that was named is not there.
    Missing(String),
    /// Anything else.
    Bad(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) | Self::Bad(what) => f.write_str(what),
        }
    }
}

/// The failure that a record which cannot be used is.
pub fn bad(line: Line, what: impl fmt::Display) -> Failure {
    Failure::error(format!("line {line}: {what}")).detail("line", line)
}

/// What became of the records of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that were visited.
    pub records: u64,
    /// Records skipped because a column named was missing, as the user asked.
    pub missing: u64,
    /// Records skipped because they cannot be used.
    pub skipped: u64,
    /// The first record of either, and why.
    pub first_skipped: Option<(Line, String)>,
}

/// Takes the records of a file.
pub struct Sink<V> {
    visit: V,
    missing: Missing,
    skip_errors: bool,
    tally: Tally,
}

impl<V: FnMut(Line, &[u8], &[u8]) -> Result<()>> Sink<V> {
    /// Hands what can be used to `visit`.
    pub fn new(shape: &Shape, visit: V) -> Self {
        Self {
            visit,
            missing: shape.missing,
            skip_errors: shape.skip_errors,
            tally: Tally::default(),
        }
    }

    /// Takes the record that begins at `line`. Fails if it cannot be used and is not to be skipped,
    /// and if the visitor fails.
    pub fn take(&mut self, line: Line, key: &[u8], value: Result<&[u8], Problem>) -> Result<()> {
        let problem = match value {
            Ok(value) => match too_long(key, value) {
                None => {
                    (self.visit)(line, key, value)
                        .map_err(|failure| failure.context(format!("line {line}")))?;
                    self.tally.records += 1;
                    return Ok(());
                }
                Some(problem) => problem,
            },
            Err(problem) => problem,
        };
        match problem {
            Problem::Missing(_) if self.missing == Missing::Skip => self.tally.missing += 1,
            _ if self.skip_errors => self.tally.skipped += 1,
            _ => return Err(bad(line, problem)),
        }
        let first = &mut self.tally.first_skipped;
        first.get_or_insert_with(|| (line, problem.to_string()));
        Ok(())
    }

    /// Ends the reading. Fails if records were skipped and none was left.
    pub fn finish(&mut self) -> Result<Tally> {
        let tally = std::mem::take(&mut self.tally);
        match &tally.first_skipped {
            Some((line, what)) if tally.records == 0 => {
                Err(bad(*line, format!("{what}; no record could be used")))
            }
            _ => Ok(tally),
        }
    }
}

/// Limits are checked here, where the line is known, rather than when a batch is written.
fn too_long(key: &[u8], value: &[u8]) -> Option<Problem> {
    let what = if key.len() > hedgerow::MAX_KEY_LEN_BYTES {
        format!("a key of {} bytes is too long", key.len())
    } else if value.len() > hedgerow::MAX_VALUE_LEN_BYTES {
        format!("a value of {} bytes is too long", value.len())
    } else {
        return None;
    };
    Some(Problem::Bad(what))
}
