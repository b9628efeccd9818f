//! A long life at bounded size: whether anything grows.
//!
//! A store is filled once and then lives through rounds of the same [phases](PHASES): overwrites
//! and deletes, a queue, reads, a long scan beside writes, range deletes, keyspaces that come and
//! go, and reopening. Every answer is checked: the values carry their record, their version and a
//! checksum, and each thread knows the versions of the records that are its own. After each phase
//! the store settles and a [`Sample`] is taken of what it holds: bytes on disk, memory,
//! descriptors, threads; and how long its operations took. The size of the data is the same at the
//! same phase of each round, so nothing else may depend on how many rounds there were; the rule is
//! with the [`Verdict`].
//!
//! ```
//! use hedgerow::EngineKind;
//! use hedgerow_bench::soak::{Length, Plan, run};
//!
//! let plan = Plan {
//!     engine: EngineKind::BTree,
//!     size_bytes: 1 << 18,
//!     length: Length::Rounds { rounds: 2, operations: 200 },
//!     ..Plan::default()
//! };
//! let dir = tempfile::tempdir()?;
//! let outcome = run(&plan, &dir.path().join("store"), &|_| ())?;
//! println!("{}", outcome.to_text());
//! assert!(outcome.judgements().iter().all(|judgement| !judgement.is_growing()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod life;
mod outcome;
mod plan;
mod records;
mod verdict;

use std::path::Path;
use std::time::Instant;

use crate::error::Result;
use crate::machine::{Handles, Memory, disk_bytes};
use life::Life;
use plan::{ROUNDS_OF_TIME, Until};
use verdict::ROUNDS_MIN;

pub use outcome::Outcome;
pub use plan::{Length, PHASES, Plan, Sample};
pub use verdict::{Judgement, Verdict};

/// Has a store in `dir`, which does not exist yet, live as planned, and looks at it. `announce` is
/// called as each phase begins.
///
/// # Errors
///
/// [`Error::WrongResult`](crate::Error::WrongResult) if the store answered wrongly,
/// [`Error::Interrupted`](crate::Error::Interrupted) if the process was
/// [asked to stop](crate::stop), and those of the store.
pub fn run(plan: &Plan, dir: &Path, announce: &dyn Fn(&str)) -> Result<Outcome> {
    announce("filling");
    let mut life = Life::begin(plan, dir)?;
    let begun = Instant::now();
    let mut samples = Vec::new();
    for round in 0.. {
        let is_over = match plan.length {
            Length::Rounds { rounds, .. } => round >= rounds,
            Length::Time(length) => round as usize >= ROUNDS_MIN && begun.elapsed() >= length,
        };
        if is_over {
            break;
        }
        for (phase, name) in PHASES.iter().enumerate() {
            announce(&format!("round {}: {name}", round + 1));
            let until = match plan.length {
                Length::Rounds { operations, .. } => Until::Operations(operations),
                Length::Time(length) => {
                    Until::Time(Instant::now() + length / ROUNDS_OF_TIME / PHASES.len() as u32)
                }
            };
            samples.push(look(&mut life, phase, until, dir)?);
        }
    }
    life.end()?;
    Ok(Outcome {
        plan: plan.clone(),
        elapsed: begun.elapsed(),
        samples,
    })
}

fn look(life: &mut Life<'_>, phase: usize, until: Until, dir: &Path) -> Result<Sample> {
    let begun = Instant::now();
    let latency_ns = life.phase(phase, until)?;
    let elapsed = begun.elapsed();
    life.settle()?;
    Ok(Sample {
        phase,
        operations: latency_ns.count(),
        elapsed,
        latency_ns,
        disk_bytes: disk_bytes(dir)?,
        log_bytes: life.log_bytes(),
        memory_bytes: Memory::now().map(|memory| memory.anonymous_bytes),
        handles: Handles::now(),
    })
}

#[cfg(test)]
mod tests {
    use hedgerow::EngineKind;

    use super::*;

    #[test]
    fn a_short_life_answers_rightly_and_is_looked_at_after_each_phase() {
        for engine in EngineKind::ALL {
            let plan = Plan {
                engine,
                size_bytes: 1 << 19,
                length: Length::Rounds {
                    rounds: 8,
                    operations: 150,
                },
                ..Plan::default()
            };
            let home = tempfile::tempdir().unwrap();
            let dir = home.path().join("store");
            let outcome = run(&plan, &dir, &|_| ()).unwrap();
            assert_eq!(outcome.samples.len(), 8 * PHASES.len());
            for sample in &outcome.samples {
                assert!(sample.operations > 0, "{}", PHASES[sample.phase]);
                assert!(sample.disk_bytes > plan.size_bytes / 4);
            }
            // The others depend on the machine, and on the tests beside this one.
            let judgements = outcome.judgements();
            let disk = judgements.iter().find(|it| it.what == "disk").unwrap();
            assert_eq!(disk.verdict, Verdict::Flat, "{engine}");
            let text = outcome.to_text();
            assert!(PHASES.iter().all(|phase| text.contains(phase)), "{text}");
            let json = outcome.to_json();
            assert_eq!(json["samples"].as_array().unwrap().len(), 56);
        }
    }
}
