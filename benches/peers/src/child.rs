//! What runs in a process of its own: one store, measured from an empty directory on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hedgerow::Durability;
use hedgerow_bench::{
    DataSet, Error, Params, Permutation, Result, Rng, Target, TargetOptions, Workload, is_value_of,
    run as run_workload,
};
use serde_json::json;

use crate::args::{Args, Child};
use crate::stores::{self, Store};

/// Runs one part of the comparison and prints its results as lines of JSON.
pub fn run(args: &Args, child: Child) -> Result<()> {
    let missing = || Error::Usage("a child needs a store and a directory".into());
    let store = stores::find(args.child_store.as_deref().ok_or_else(missing)?)?;
    let dir = args.child_dir.clone().ok_or_else(missing)?;
    match child {
        Child::Suite => suite(args, store, &dir),
        Child::Load => load(args, store, &dir),
        Child::Reopen => reopen(args, store, &dir),
    }
}

/// Prints a line for the parent.
fn report(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// One store with the records it holds.
struct Loaded {
    target: Box<dyn Target>,
    dir: PathBuf,
    data: DataSet,
    durability: Durability,
}

fn suite(args: &Args, store: Store, dir: &Path) -> Result<()> {
    let params = args.params()?;
    let mut loaded: Option<Loaded> = None;
    for (number, workload) in args.workloads()?.iter().enumerate() {
        let options = TargetOptions {
            durability: workload.durability.unwrap_or(Durability::Buffered),
            ..args.target_options()
        };
        let mut current = match loaded.take() {
            Some(current) if !workload.fills => current.with_durability(store, &options)?,
            before => {
                discard(before)?;
                create(store, &dir.join(number.to_string()), &options, &params)?
            }
        };
        settle_disk();
        let outcome = run_workload(&*current.target, &current.dir, workload, &mut current.data)?;
        report(&format!(
            r#"{{"row":{number},"outcome":{}}}"#,
            outcome.to_json()
        ))?;
        loaded = Some(current);
    }
    discard(loaded)
}

/// Lets the kernel write what came before, so that nobody pays for another's pages, and a page that
/// is written again counts again.
pub fn settle_disk() {
    // Without sync(1) the wait alone must do.
    let _ = Command::new("sync").status();
    std::thread::sleep(Duration::from_millis(100));
}

fn create(store: Store, dir: &Path, options: &TargetOptions, params: &Params) -> Result<Loaded> {
    fs::create_dir(dir)?;
    Ok(Loaded {
        target: (store.open)(dir, options)?,
        dir: dir.into(),
        data: DataSet::new(params)?,
        durability: options.durability,
    })
}

/// Closes a store and removes its files: the next one gets the disk space and the page cache.
fn discard(loaded: Option<Loaded>) -> Result<()> {
    if let Some(Loaded { target, dir, .. }) = loaded {
        drop(target);
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

impl Loaded {
    /// Reopens the store if its commits must have another durability.
    fn with_durability(self, store: Store, options: &TargetOptions) -> Result<Self> {
        if self.durability == options.durability {
            return Ok(self);
        }
        drop(self.target);
        Ok(Self {
            target: (store.open)(&self.dir, options)?,
            durability: options.durability,
            ..self
        })
    }
}

/// Writes records with buffered commits, then waits to be killed, so that nothing is closed in an
/// orderly way.
fn load(args: &Args, store: Store, dir: &Path) -> Result<()> {
    let target = (store.open)(dir, &args.target_options())?;
    let data = DataSet::new(&args.params()?)?;
    let order = Permutation::new(args.reopen_puts, args.seed);
    let mut rng = Rng::new(args.seed);
    let (mut key, mut value) = (data.keys().buffer(), Vec::new());
    for number in 0..args.reopen_puts {
        data.keys().write(order.at(number), &mut key);
        data.values().write(&key, &mut rng, &mut value);
        target.put(&key, &value)?;
    }
    report(&json!({ "loaded": args.reopen_puts }).to_string())?;
    // The parent holds the other end open until it has killed this process.
    let _ = std::io::stdin().read(&mut [0]);
    Err(Error::Usage("this process was to be killed".into()))
}

/// Opens what a killed process left; counts the commits that did not survive it.
fn reopen(args: &Args, store: Store, dir: &Path) -> Result<()> {
    let start = Instant::now();
    let target = (store.open)(dir, &args.target_options())?;
    let elapsed = start.elapsed();
    let data = DataSet::new(&args.params()?)?;
    let mut key = data.keys().buffer();
    let mut lost = 0u64;
    for number in 0..args.reopen_puts {
        data.keys().write(number, &mut key);
        let mut right = true;
        let found = target.get(&key, &mut |value| right = is_value_of(&key, value))?;
        if !right {
            return Err(Error::WrongResult(format!(
                "{} shows a value that was never written, after a kill",
                store.name
            )));
        }
        lost += u64::from(!found);
    }
    report(
        &json!({
            "reopen": {
                "puts": args.reopen_puts,
                "open_s": elapsed.as_secs_f64(),
                "lost": lost,
            }
        })
        .to_string(),
    )
}

/// What the workloads of a list are called: by their label, and where that comes a second time, as
/// `readrandom` does after an overwrite, by what went before as well.
pub fn row_labels(workloads: &[Workload]) -> Vec<String> {
    let mut labels: Vec<String> = Vec::with_capacity(workloads.len());
    for (number, workload) in workloads.iter().enumerate() {
        let label = workload.label();
        let repeated = workloads[..number]
            .iter()
            .any(|before| before.label() == label);
        labels.push(match repeated {
            true => format!("{label}, after {}", workloads[number - 1].label()),
            false => label,
        });
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_workloads_are_told_apart() {
        let workloads =
            hedgerow_bench::parse_workloads("fillseq,readseq,overwrite,readseq").unwrap();
        assert_eq!(
            row_labels(&workloads),
            [
                "fillseq",
                "readseq",
                "overwrite",
                "readseq, after overwrite"
            ]
        );
    }
}
