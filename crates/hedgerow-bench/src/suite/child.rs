//! What runs in a process of its own: all steps on one store, once.
//!
//! A process for each store and round makes memory and CPU time that store's alone, gives every
//! round a fresh heap, and lets an interrupt end a workload at once: the parent removes the files.
//! Results are lines of JSON on standard output; so is an error, which the parent reports.

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

use hedgerow::Durability;
use serde_json::{Value, json};

use super::contestant::Contestant;
use super::plan::{Plan, Step, Work};
use super::scenarios::Run;
use super::{cgroup, disk_space};
use crate::dataset::DataSet;
use crate::error::with_causes;
use crate::error::{Error, Result};
use crate::runner::run as run_workload;
use crate::targets::{Target, TargetOptions};
use crate::workload::Workload;

/// Runs the steps of `plan` on `contestant` in `dir`, an empty directory, as a member of the control
/// group `group`, and writes the results to `out`, a line of JSON each.
///
/// For a process of its own: it ends the process, with exit code 1, when standard input is closed,
/// which the parent holds open as long as it lives.
///
/// # Errors
///
/// Only those of writing to `out`; what fails before is a line of the output.
pub fn run(
    plan: &Plan,
    contestant: &Contestant,
    dir: &Path,
    group: Option<&Path>,
    out: &mut dyn Write,
) -> Result<()> {
    end_with_parent();
    let mut suite = Suite {
        plan,
        contestant,
        dir,
        loaded: None,
    };
    let joined = group.map_or(Ok(()), cgroup::join);
    joined.and_then(|()| suite.run(out)).or_else(|error| {
        say(
            out,
            &json!({
                "error": with_causes(&error),
                "usage": matches!(error.root(), Error::Usage(_)),
            }),
        )
    })
}

/// Ends this process when the parent ends, however that happens: it holds the other end of standard
/// input open and writes nothing.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
}

/// Prints a line for the parent.
fn say(out: &mut dyn Write, line: &Value) -> Result<()> {
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

struct Suite<'a> {
    plan: &'a Plan,
    contestant: &'a Contestant,
    dir: &'a Path,
    loaded: Option<Loaded>,
}

/// A store with the records it holds.
struct Loaded {
    target: Box<dyn Target>,
    dir: PathBuf,
    data: DataSet,
    durability: Durability,
}

impl Suite<'_> {
    fn run(&mut self, out: &mut dyn Write) -> Result<()> {
        for (number, step) in self.plan.steps.iter().enumerate() {
            say(out, &json!({ "begin": number }))?;
            let result = self
                .step(number, step)
                .map_err(|error| error.during(step.label.clone()))?;
            say(out, &json!({ "step": number, "result": result }))?;
        }
        self.discard()
    }

    fn step(&mut self, number: usize, step: &Step) -> Result<Value> {
        let dir = self.dir.join(number.to_string());
        match step.work {
            Work::Workload(workload) => self.workload(&workload, dir),
            Work::Trial(trial) => {
                self.discard()?;
                make(&dir)?;
                let plan = self.plan;
                let figures = trial.run(&Run {
                    dir: &dir,
                    contestant: self.contestant,
                    options: plan.target,
                    params: trial.params(&plan.params, plan.memory_bytes),
                })?;
                remove(&dir)?;
                let figures = figures.iter().map(|figure| {
                    json!({
                        "id": figure.id,
                        "label": figure.label,
                        "unit": figure.unit.name(),
                        "value": figure.value,
                    })
                });
                Ok(json!({ "figures": figures.collect::<Vec<_>>() }))
            }
        }
    }

    fn workload(&mut self, workload: &Workload, dir: PathBuf) -> Result<Value> {
        let options = TargetOptions {
            durability: workload.durability.unwrap_or(self.plan.target.durability),
            ..self.plan.target
        };
        if workload.fills {
            self.discard()?;
        }
        let mut loaded = match self.loaded.take() {
            Some(loaded) => self.with_durability(loaded, &options)?,
            None => self.create(dir, workload, &options)?,
        };
        disk_space::settle_disk(self.dir);
        let outcome = run_workload(&*loaded.target, &loaded.dir, workload, &mut loaded.data)?;
        if workload.fills && workload.ops_divisor == 1 {
            // From here on at the rate that was asked for; see `create`.
            loaded.data = DataSet::filled(&self.plan.params)?;
        }
        self.loaded = Some(loaded);
        Ok(outcome.to_json())
    }

    fn create(&self, dir: PathBuf, workload: &Workload, options: &TargetOptions) -> Result<Loaded> {
        make(&dir)?;
        let mut params = self.plan.params.clone();
        if workload.fills && !self.plan.only_fills() {
            // A fill that makes the records for others goes as fast as it can.
            params.rate_per_s = None;
        }
        Ok(Loaded {
            target: (self.contestant.open)(&dir, options)?,
            dir,
            data: DataSet::new(&params)?,
            durability: options.durability,
        })
    }

    /// Reopens the store if its commits must have another durability.
    fn with_durability(&self, loaded: Loaded, options: &TargetOptions) -> Result<Loaded> {
        if loaded.durability == options.durability {
            return Ok(loaded);
        }
        let Loaded {
            target, dir, data, ..
        } = loaded;
        drop(target);
        Ok(Loaded {
            target: (self.contestant.open)(&dir, options)?,
            dir,
            data,
            durability: options.durability,
        })
    }

    /// Closes the store and removes its files: the next one gets the space.
    fn discard(&mut self) -> Result<()> {
        let Some(Loaded { target, dir, .. }) = self.loaded.take() else {
            return Ok(());
        };
        target.wait_idle()?;
        drop(target);
        remove(&dir)
    }
}

fn make(dir: &Path) -> Result<()> {
    std::fs::create_dir(dir).map_err(|source| Error::io("making", dir, source))
}

fn remove(dir: &Path) -> Result<()> {
    std::fs::remove_dir_all(dir).map_err(|source| Error::io("removing", dir, source))
}
