//! `verify`, `compact`, `rename` and `drop`.

use clap::Args;
use hedgerow::{Db, Error, Keyspace, Problem, VerifyReport};
use hedgerow_bench::format::{bytes, counted};
use serde_json::json;

use super::count::records_in;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Output, spinner};
use crate::store::{Access, KeyspaceArg, StoreArg, existing, missing, open, open_reporting};

/// Check everything in a store that can be checked
///
/// Reads every file and checks checksums, order and structure, then reads and counts every record,
/// also those that are only in the log. Changes nothing. Exits with 4 if
/// something is damaged, with a line for each problem.
#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    keyspace: KeyspaceArg,
}

impl Verify {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let progress = spinner(out.json, "verifying");
        let verified = self.verify();
        progress.finish_and_clear();
        let (report, records) = verified?;
        let printed = Self::print(out, &report, records);
        match (report.is_clean(), printed) {
            (true, printed) => printed,
            // What was found counts, whatever became of the output.
            (false, Err(mut failure)) if !failure.is_broken_pipe() => {
                failure.exit = Exit::Damage;
                Err(failure)
            }
            (false, _) => Err(Failure::silent(Exit::Damage)),
        }
    }

    fn print(out: &mut Output, report: &VerifyReport, records: Option<u64>) -> Result<()> {
        if out.json {
            return out.value(&json!({
                "clean": report.is_clean(),
                "files": report.files,
                "blocks": report.blocks,
                "entries": report.entries,
                "records": records,
                "problems": report.problems.iter().map(problem_json).collect::<Vec<_>>(),
            }));
        }
        for problem in &report.problems {
            out.line(problem.to_string())?;
        }
        let verdict = match report.problems.len() as u64 {
            0 => "no damage".to_owned(),
            problems => counted(problems, "problem"),
        };
        out.line(format!(
            "{verdict} in {}, {}, {}",
            counted(report.files, "file"),
            counted(report.blocks, "block"),
            match records {
                Some(records) => counted(records, "record"),
                None => counted(report.entries, "entry"),
            },
        ))
    }

    /// What was found and, if that is no damage, the number of records.
    fn verify(&self) -> Result<(VerifyReport, Option<u64>)> {
        // Damage can be so bad that the store does not open. That is a finding, too.
        let db = match open_reporting(&self.store, Access::Read)? {
            Ok(db) => db,
            Err(error) => return Ok((finding(&error), None)),
        };
        let one = match &self.keyspace.keyspace {
            Some(_) => Some(existing(&db, &self.keyspace)?),
            None => None,
        };
        let verified = match &one {
            Some(keyspace) => keyspace.verify(),
            None => db.verify(),
        };
        let counted = verified.and_then(|report| {
            let records = match report.is_clean() {
                true => Some(count(&db, one.as_ref())?),
                false => None,
            };
            Ok((report, records))
        });
        match counted {
            Err(error) if error.is_corruption() => Ok((finding(&error), None)),
            counted => Ok(counted?),
        }
    }
}

/// A problem as an object; a field that does not apply is null.
fn problem_json(problem: &Problem) -> serde_json::Value {
    json!({
        "keyspace": problem.keyspace,
        "file": problem.file.as_ref().map(|file| file.display().to_string()),
        "offset": problem.offset,
        "what": problem.what,
    })
}

/// The records of one keyspace or of all.
fn count(db: &Db, one: Option<&Keyspace>) -> hedgerow::Result<u64> {
    if let Some(keyspace) = one {
        return records_in(keyspace, ..);
    }
    let mut records = 0;
    for keyspace in db.keyspaces() {
        if let Some(keyspace) = db.existing_keyspace(&keyspace.name)? {
            records += records_in(&keyspace, ..)?;
        }
    }
    Ok(records)
}

/// A report of nothing but one error.
fn finding(error: &Error) -> VerifyReport {
    let mut report = VerifyReport::default();
    report.problem(error);
    report
}

/// Rewrite a store so that it is as small and as fast to read as it can be
#[derive(Debug, Args)]
pub struct Compact {
    #[command(flatten)]
    store: StoreArg,
    /// Only this keyspace [default: all of them]
    #[arg(long, short = 'k', value_name = "NAME")]
    keyspace: Option<String>,
}

impl Compact {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let db = open(&self.store, Access::Write)?;
        let before = keyspace_bytes(&db);
        let progress = spinner(out.json, "compacting");
        let outcome = match &self.keyspace {
            Some(name) => match db.existing_keyspace(name)? {
                Some(keyspace) => keyspace.compact(),
                None => return Err(missing(&db, name)),
            },
            None => db.compact(),
        };
        let outcome = outcome.and_then(|()| db.wait_idle());
        progress.finish_and_clear();
        outcome?;
        let after = keyspace_bytes(&db);
        db.close()?;
        out.either(
            &json!({ "disk_bytes_before": before, "disk_bytes_after": after }),
            format!("{} before, {} after", bytes(before), bytes(after)),
        )
    }
}

/// Bytes of the files of all keyspaces. The log's are left out: what is in them is there twice or
/// about to be deleted.
fn keyspace_bytes(db: &Db) -> u64 {
    let keyspaces = db.stats().keyspaces;
    keyspaces
        .iter()
        .map(|keyspace| keyspace.stats.disk_bytes)
        .sum()
}

/// Give a keyspace another name
#[derive(Debug, Args)]
pub struct Rename {
    #[command(flatten)]
    store: StoreArg,
    /// Name of the keyspace
    old: String,
    /// Its new name, which no keyspace has
    new: String,
}

impl Rename {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let db = open(&self.store, Access::Write)?;
        if db.existing_keyspace(&self.old)?.is_none() {
            return Err(missing(&db, &self.old));
        }
        db.rename_keyspace(&self.old, &self.new)?;
        db.close()?;
        if out.json {
            out.value(&json!({ "renamed": self.old, "name": self.new }))?;
        }
        Ok(())
    }
}

/// Remove a keyspace and everything in it
#[derive(Debug, Args)]
pub struct Drop {
    #[command(flatten)]
    store: StoreArg,
    /// Name of the keyspace
    name: String,
}

impl Drop {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let db = open(&self.store, Access::Write)?;
        if db.existing_keyspace(&self.name)?.is_none() {
            return Err(missing(&db, &self.name));
        }
        db.drop_keyspace(&self.name)?;
        db.close()?;
        if out.json {
            out.value(&json!({ "dropped": self.name }))?;
        }
        Ok(())
    }
}
