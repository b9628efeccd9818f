//! Runs the rounds, each engine in turn and in a process of its own, and collects what they print.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use hedgerow::EngineKind;
use serde_json::Value;

use super::control_group::Group;
use super::plan::Plan;
use super::results::{Results, Sample};
use crate::failure::{Exit, Failure, Result};
use crate::interrupt;
use crate::output::step_progress;

/// How often a signal is looked for while a child works.
const POLL: Duration = Duration::from_millis(100);

/// Runs all rounds of `plan` on `engines` in stores under `home`, in processes of `group`, and puts
/// the samples in `results`.
pub fn run(
    plan: &Plan,
    engines: &[EngineKind],
    home: &Path,
    group: Option<&Group>,
    json: bool,
    results: &mut Results,
) -> Result<()> {
    let steps = plan.steps.len() * engines.len() * plan.rounds as usize;
    let progress = step_progress(json, steps as u64);
    if !progress.is_hidden() {
        progress.enable_steady_tick(POLL);
    }
    for round in 1..=plan.rounds {
        // Whoever goes second finds the disk and the processor warm: they take turns at that.
        let mut order = engines.to_vec();
        if round % 2 == 0 {
            order.reverse();
        }
        for engine in order {
            let dir = home.join(format!("{engine}-{round}"));
            std::fs::create_dir(&dir).map_err(|source| Failure::io("making", &dir, source))?;
            let mut take = |line: Value| -> Result<()> {
                let number = |name: &str| line[name].as_u64().map(|number| number as usize);
                if let Some(step) = number("begin").and_then(|at| plan.steps.get(at)) {
                    let rounds = plan.rounds;
                    progress.set_message(format!("round {round}/{rounds} {engine} {}", step.label));
                } else if let Some(step) = number("step") {
                    progress.inc(1);
                    results.add(step, engine, Sample::new(line["result"].clone()));
                } else {
                    return Err(failure_in(&line));
                }
                Ok(())
            };
            measure(engine, &dir, group, &mut take)
                .map_err(|failure| failure.context(format!("round {round}, {engine}")))?;
            std::fs::remove_dir_all(&dir)
                .map_err(|source| Failure::io("removing", &dir, source))?;
        }
    }
    progress.finish_and_clear();
    Ok(())
}

/// A failure that a child reports.
fn failure_in(line: &Value) -> Failure {
    let exit = match line["exit_code"].as_u64() {
        Some(2) => Exit::Usage,
        _ => Exit::Error,
    };
    Failure::new(
        exit,
        line["failure"]
            .as_str()
            .unwrap_or("the measuring process failed"),
    )
}

/// Starts this program again, with the same arguments, as the child that measures `engine`, and
/// hands what it prints to `take`.
fn measure(
    engine: EngineKind,
    dir: &Path,
    group: Option<&Group>,
    take: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(std::env::args_os().skip(1))
        .args(["--child-engine", engine.name(), "--child-dir"])
        .arg(dir);
    if let Some(group) = group {
        command.arg("--child-group").arg(group.dir());
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| Failure::from(source).context("starting the measuring process"))?;
    let lines = lines_of(&mut child);
    let followed = follow(&lines, take);
    if followed.is_err() {
        // Gone already, if that is what failed.
        let _ = child.kill();
    }
    let status = child.wait()?;
    followed?;
    check(status, group)
}

/// The child's lines, read on a thread of their own so that waiting for one can be broken off.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(out) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

fn follow(lines: &Receiver<String>, take: &mut dyn FnMut(Value) -> Result<()>) -> Result<()> {
    loop {
        interrupt::check()?;
        match lines.recv_timeout(POLL) {
            Ok(line) => match serde_json::from_str(&line) {
                Ok(value) => take(value)?,
                Err(_) => {
                    return Err(Failure::error(format!(
                        "the measuring process said: {line}"
                    )));
                }
            },
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn check(status: ExitStatus, group: Option<&Group>) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    // A signal from the terminal goes to both processes, and the child may be the quicker one.
    std::thread::sleep(POLL);
    interrupt::check()?;
    let why = group.and_then(Group::killed_for);
    Err(Failure::error(match why {
        Some(why) => format!("the measuring process was killed: {why}"),
        None => format!("the measuring process ended with {status}"),
    }))
}
