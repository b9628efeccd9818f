//! The same real data and the same work on both engines, every answer checked.
//!
//! Each engine gets a store of its own, though one store could hold both: then the log, its syncs,
//! the cache and the background threads are that engine's alone, and bytes written, reopening and
//! memory can be told apart. It is also what somebody who picks one engine would run. Rounds
//! alternate between the engines, each in a fresh store, so that whatever else the machine does
//! hits both; the table has medians.
//!
//! [`data`] prepares records and draws, [`workload`] does the work on any `Kv`, [`measure`] makes
//! a round of it, [`report`] renders.

pub mod data;
pub mod measure;
pub mod report;
pub mod workload;

use std::path::Path;

use hedgerow::{Durability, EngineKind};

use self::data::Data;
use self::measure::{Round, STEPS};
use self::report::Report;
use crate::error::{Error, Result};

/// How many steps `rounds` rounds on each engine have.
pub fn steps(rounds: u32) -> u64 {
    u64::from(rounds) * EngineKind::ALL.len() as u64 * STEPS
}

/// Runs `rounds` rounds on each engine, in stores under the directory `home`, which are removed
/// after each round. Loads and overwrites commit with `durability`. `announce` is called as each of
/// the [`steps`] begins, with its name.
///
/// # Errors
///
/// [`Error::WrongResult`] if an engine answered wrongly, [`Error::Interrupted`] if the process was
/// [asked to stop](crate::stop), and those of the stores.
pub fn run(
    data: &Data,
    rounds: u32,
    durability: Durability,
    home: &Path,
    announce: &dyn Fn(&str),
) -> Result<Report> {
    let mut report = Report::default();
    for round in 1..=rounds {
        for engine in EngineKind::ALL {
            let dir = home.join(format!("{engine}-{round}"));
            Round {
                engine,
                dir: &dir,
                data,
                durability,
                announce: &|what| announce(&format!("round {round}, {engine}: {what}")),
            }
            .run(report.of(engine))?;
            std::fs::remove_dir_all(&dir).map_err(|source| Error::io("removing", &dir, source))?;
        }
    }
    Ok(report)
}
