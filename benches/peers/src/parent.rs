//! Runs the children, round after round, and collects what they print.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child as Process, Command, Stdio};
use std::time::Instant;

use hedgerow_bench::{Error, Result};
use serde_json::Value;

use crate::args::{Args, Child};
use crate::child::row_labels;
use crate::report::{Collected, Entry};
use crate::stores::Store;

/// Compares the stores, and prints and writes the tables.
pub fn run(args: &Args) -> Result<()> {
    // Mistakes in the request come out before the first minute of work, not after the last.
    args.params()?;
    let (workloads, stores) = (args.workloads()?, args.stores()?);
    if args.rounds == 0 {
        return Err(Error::Usage("there must be at least one round".into()));
    }
    for file in [&args.out, &args.json].into_iter().flatten() {
        check_parent(file)?;
    }
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir(),
    };
    if !dir.is_dir() {
        return Err(Error::Usage(format!("{} is no directory", dir.display())));
    }

    touch_memory(args.touch_gib);
    let start = Instant::now();
    let mut collected = Collected::new(row_labels(&workloads), stores.clone(), args.rounds);
    for round in 0..args.rounds {
        for (column, &store) in stores.iter().enumerate() {
            if let Err(error) = measure(args, store, column, round, &dir, &mut collected) {
                if !args.keep_going {
                    return Err(error);
                }
                eprintln!("peers: {} failed: {error}", store.name);
                collected.failures.push((store.name, error.to_string()));
            }
        }
    }
    let page = collected.markdown(args, start.elapsed());
    print!("{page}");
    if let Some(path) = &args.out {
        std::fs::write(path, &page)?;
    }
    if let Some(path) = &args.json {
        std::fs::write(path, collected.json(args))?;
    }
    Ok(())
}

fn check_parent(file: &Path) -> Result<()> {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            Err(Error::Usage(format!(
                "{} cannot be written: there is no such directory",
                file.display()
            )))
        }
        _ => Ok(()),
    }
}

/// Measures one store in one round.
fn measure(
    args: &Args,
    store: Store,
    column: usize,
    round: usize,
    dir: &Path,
    collected: &mut Collected,
) -> Result<()> {
    // Removed when this function returns, whichever way.
    let scratch = tempfile::Builder::new()
        .prefix("hedgerow-peers-")
        .tempdir_in(dir)?;
    crate::child::settle_disk();
    let labels = collected.rows.clone();
    let mut suite = start(Child::Suite, store, scratch.path())?;
    let read = read_lines(&mut suite, |line| {
        let row = line["row"].as_u64().unwrap_or(0) as usize;
        let outcome = line["outcome"].clone();
        eprintln!(
            "round {} of {}, {:15} {:28} {:>9} ops/s",
            round + 1,
            args.rounds,
            store.name,
            labels.get(row).map_or("", String::as_str),
            crate::summary::short(outcome["ops_per_s"].as_f64().unwrap_or(0.0)),
        );
        collected.entries.push(Entry {
            column,
            round,
            row: Some(row),
            figures: outcome,
        });
        Ok(true)
    });
    finish(suite, read, store)?;

    if args.reopen_puts > 0 {
        let dir = scratch.path().join("reopen");
        std::fs::create_dir(&dir)?;
        let mut loader = start(Child::Load, store, &dir)?;
        let read = read_lines(&mut loader, |_| Ok(false));
        // Only a process that has said that it is done is killed in the middle of nothing else.
        let loaded = matches!(read, Ok(true));
        let _ = loader.kill();
        loader.wait()?;
        read?;
        if !loaded {
            return Err(Error::store(format!("{} could not be loaded", store.name)));
        }
        let mut opener = start(Child::Reopen, store, &dir)?;
        let read = read_lines(&mut opener, |line| {
            let figures = line["reopen"].clone();
            collected.entries.push(Entry {
                column,
                round,
                row: None,
                figures,
            });
            Ok(true)
        });
        finish(opener, read, store)?;
    }
    Ok(())
}

/// Starts this program again, with the same arguments, as a child.
fn start(child: Child, store: Store, dir: &Path) -> Result<Process> {
    let name = match child {
        Child::Suite => "suite",
        Child::Load => "load",
        Child::Reopen => "reopen",
    };
    let process = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .args(["--child", name, "--child-store", store.name, "--child-dir"])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    Ok(process)
}

/// Hands each line that `process` prints to `take`, until that has had enough. True if there was
/// a line.
fn read_lines(process: &mut Process, mut take: impl FnMut(Value) -> Result<bool>) -> Result<bool> {
    let Some(out) = process.stdout.take() else {
        return Ok(false);
    };
    let mut any = false;
    for line in BufReader::new(out).lines() {
        let line = serde_json::from_str(&line?).map_err(Error::store)?;
        any = true;
        if !take(line)? {
            break;
        }
    }
    Ok(any)
}

/// Waits for the end of a child. Its own message has gone to standard error already.
fn finish(mut process: Process, read: Result<bool>, store: Store) -> Result<()> {
    if read.is_err() {
        let _ = process.kill();
    }
    let status = process.wait()?;
    read?;
    if !status.success() {
        return Err(Error::store(format!("{} ended with {status}", store.name)));
    }
    Ok(())
}

/// Touches memory once: the first touch of a virtual machine's memory is slow, and would fall to
/// the store that is measured first.
fn touch_memory(gib: u64) {
    const PAGE_BYTES: usize = 4096;
    let mut memory = vec![0u8; (gib as usize) << 30];
    for page in memory.chunks_mut(PAGE_BYTES) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
}
