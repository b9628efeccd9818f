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
use super::plan::{Plan, Work};
use super::scenarios::{Run, Trial};
use super::{cgroup, disk_space};
use crate::dataset::DataSet;
use crate::error::with_causes;
use crate::error::{Error, Result};
use crate::runner::run as run_workload;
use crate::targets::{Target, TargetOptions};
use crate::workload::Workload;

/// Runs the steps of `plan` on `contestant` in `dir`, an empty directory, as a member of the
/// control group `group`, and writes the results to `out`, a line of JSON each.
///
/// A step may take two processes: then this one says so after the first half, and waits to be
/// killed. The process after it is told the number of that step, in `killed_in`, and goes on from
/// there.
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
    killed_in: Option<usize>,
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
    joined
        .and_then(|()| suite.run(killed_in, out))
        .or_else(|error| {
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
    fn run(&mut self, killed_in: Option<usize>, out: &mut dyn Write) -> Result<()> {
        let steps = self.plan.steps.iter().enumerate();
        for (number, step) in steps.skip(killed_in.unwrap_or(0)) {
            let is_second_half = killed_in == Some(number);
            if !is_second_half {
                say(out, &json!({ "begin": number }))?;
            }
            let dir = self.dir.join(number.to_string());
            let result = match step.work {
                Work::Workload(workload) => self.workload(&workload, dir),
                Work::Trial(trial) if is_second_half => self.trial(trial, &dir),
                Work::Trial(trial) => self
                    .first_half(trial, number, &dir, out)
                    .and_then(|()| self.trial(trial, &dir)),
            };
            let result = result.map_err(|error| error.during(step.label.clone()))?;
            say(out, &json!({ "step": number, "result": result }))?;
        }
        self.discard()
    }

    /// Makes room for a trade-off run. Does not return if the run takes two processes: this one is
    /// killed here.
    fn first_half(
        &mut self,
        trial: Trial,
        number: usize,
        dir: &Path,
        out: &mut dyn Write,
    ) -> Result<()> {
        self.discard()?;
        make(dir)?;
        let Some(_open) = trial.first_half(&self.setup(trial, dir))? else {
            return Ok(());
        };
        say(out, &json!({ "kill": number }))?;
        loop {
            std::thread::park();
        }
    }

    fn trial(&self, trial: Trial, dir: &Path) -> Result<Value> {
        let figures = trial.run(&self.setup(trial, dir))?;
        remove(dir)?;
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

    fn setup<'a>(&'a self, trial: Trial, dir: &'a Path) -> Run<'a> {
        let plan = self.plan;
        Run {
            dir,
            contestant: self.contestant,
            options: plan.target,
            params: trial.params(&plan.params, plan.memory_bytes),
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::subject::Variant;
    use crate::suite::plan::{Preset, Wishes};
    use crate::targets::hedgerow::ModelTarget;

    const PUTS: u64 = 500;

    fn plan(list: &str) -> Plan {
        let wishes = Wishes {
            workloads: Some(list.into()),
            records: Some(PUTS),
            ..Wishes::default()
        };
        Plan::new(Preset::Quick, &wishes, TargetOptions::default()).unwrap()
    }

    /// In memory: no process finds what another has put.
    fn forgetful() -> Contestant {
        Contestant {
            open: ModelTarget::open,
            variant: None,
            ..Contestant::from(Variant::BTree)
        }
    }

    fn run(
        plan: &Plan,
        contestant: &Contestant,
        dir: &Path,
        killed_in: Option<usize>,
        out: &mut dyn Write,
    ) -> Result<()> {
        let mut suite = Suite {
            plan,
            contestant,
            dir,
            loaded: None,
        };
        suite.run(killed_in, out)
    }

    fn lines(out: &[u8]) -> Vec<Value> {
        let lines = std::str::from_utf8(out).unwrap().lines();
        lines.map(|line| line.parse().unwrap()).collect()
    }

    /// Hands on what is written.
    struct Lines(Sender<Vec<u8>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_store_that_is_not_hedgerow_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let mut out = Vec::new();
        let plan = plan("fillseq,readseq,valuesize:10");
        run(&plan, &forgetful(), dir.path(), None, &mut out).unwrap();
        let lines = lines(&out);
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[1]["result"]["ops"], PUTS);
        assert_eq!(lines[1]["result"]["target"], "model");
        assert_eq!(lines[1]["result"]["tree_bytes"], Value::Null);
        assert_eq!(lines[5]["result"]["figures"][0]["id"], "fill");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_store_is_read_cold_by_the_process_after_the_one_that_filled_it() {
        let plan = plan("coldopen,fillseq");
        let dir = tempfile::tempdir().unwrap();
        let contestant = Contestant::from(Variant::BTree);
        let (sender, said) = channel();
        // Has closed its store, and waits to be killed until this process ends.
        std::thread::spawn({
            let (plan, dir) = (plan.clone(), dir.path().to_owned());
            move || run(&plan, &contestant, &dir, None, &mut Lines(sender))
        });
        let mut before: Vec<u8> = Vec::new();
        while !before.ends_with(b"{\"kill\":0}\n") {
            before.extend(said.recv().unwrap());
        }
        let contestant = Contestant::from(Variant::BTree);
        let mut out = Vec::new();
        run(&plan, &contestant, dir.path(), Some(0), &mut out).unwrap();
        let after = lines(&out);
        let figures = &after[0]["result"]["figures"];
        assert_eq!(figures[0]["label"], "open and read one");
        assert_eq!(figures[1]["label"], "cold read, mean");
        assert_eq!(after.last().unwrap()["step"], 1, "the rest follows");
    }

    #[test]
    fn what_a_killed_process_left_is_counted_by_the_next() {
        let plan = plan("fillseq,kill:500,fillseq");
        for (contestant, lost) in [(forgetful(), PUTS), (Variant::Lsm.into(), 0)] {
            let dir = tempfile::tempdir().unwrap();
            let (sender, said) = channel();
            // Waits to be killed, with its store open, until this process ends.
            std::thread::spawn({
                let (plan, dir) = (plan.clone(), dir.path().to_owned());
                move || run(&plan, &contestant, &dir, None, &mut Lines(sender))
            });
            let mut before: Vec<u8> = Vec::new();
            while !before.ends_with(b"{\"kill\":1}\n") {
                before.extend(said.recv().unwrap());
            }
            let begun = lines(&before).last().unwrap().clone();
            assert_eq!(begun, json!({ "kill": 1 }));

            // The thread has the store open still; what another process would find is a copy.
            let copy = tempfile::tempdir().unwrap();
            let of_step = |dir: &Path| dir.join("1");
            disk_space::copy_dir(&of_step(dir.path()), &of_step(copy.path())).unwrap();
            let mut out = Vec::new();
            run(&plan, &contestant, copy.path(), Some(1), &mut out).unwrap();
            let after = lines(&out);
            assert_eq!(after[0]["step"], 1, "the step does not begin twice");
            let figures = &after[0]["result"]["figures"];
            assert_eq!(figures[0]["id"], "open");
            assert_eq!(figures[1]["id"], "lost");
            assert_eq!(figures[1]["value"].as_f64(), Some(lost as f64));
            assert_eq!(after.last().unwrap()["step"], 2, "the rest follows");
        }
    }
}
