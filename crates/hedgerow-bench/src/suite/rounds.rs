//! Runs the rounds, each subject in turn and in a process of its own, and collects what they print.

use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cgroup::Group;
use super::plan::Plan;
use super::results::{Results, Sample};
use crate::error::{Error, Result, with_causes};
use crate::stop;
use crate::subject::Subject;

/// How often a signal is looked for while a child works.
const POLL: Duration = Duration::from_millis(100);

/// What a process of its own measures.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// What is measured.
    pub subject: Subject,
    /// An empty directory for its stores.
    pub dir: &'a Path,
    /// The control group that it enters.
    pub group: Option<&'a Path>,
    /// The step that the process before it was killed in.
    pub killed_in: Option<usize>,
}

/// How far the rounds are.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// A step begins.
    Begins {
        /// The round, from 1.
        round: u32,
        /// What is measured.
        subject: Subject,
        /// The step's label.
        step: &'a str,
    },
    /// A step is done.
    Done {
        /// What it gave.
        sample: &'a Sample,
    },
    /// A round of one of them failed; the others go on.
    Failed {
        /// What failed, and why.
        error: &'a Error,
    },
}

/// Where and how rounds are run.
pub struct Setup<'a> {
    /// A directory for the stores.
    pub home: &'a Path,
    /// The control group of the processes that measure.
    pub group: Option<&'a Group>,
    /// The command that starts a process which does a task, by [`child::run`](super::child::run).
    pub command: &'a dyn Fn(&Task<'_>) -> io::Result<Command>,
    /// Called as each step begins and ends.
    pub progress: &'a dyn Fn(Progress<'_>),
    /// Whether the others go on when one fails.
    pub keep_going: bool,
}

/// Runs all rounds of `plan` on the subjects of `results`, and puts the samples in `results`.
///
/// # Errors
///
/// That of the first step that failed, unless the others are to go on: then it is one of the
/// results. [`Error::Interrupted`] if the process was asked to stop. The
/// process that measures has ended by then.
pub fn run(plan: &Plan, setup: &Setup<'_>, results: &mut Results) -> Result<()> {
    let began = Instant::now();
    for round in 1..=plan.rounds {
        // Who goes second finds the disk and the processor warm: they take turns at that.
        let mut order: Vec<(usize, Subject)> =
            results.subjects.iter().copied().enumerate().collect();
        let turns = (round as usize - 1) % order.len().max(1);
        order.rotate_left(turns);
        for (column, subject) in order {
            let measured = run_one(plan, setup, round, column, results)
                .map_err(|error| error.during(format!("round {round}, {subject}")));
            match measured {
                Err(error) if setup.keep_going && !matches!(error.root(), Error::Interrupted) => {
                    (setup.progress)(Progress::Failed { error: &error });
                    results.failures.push((subject, with_causes(&error)));
                }
                measured => measured?,
            }
        }
    }
    results.took = began.elapsed();
    Ok(())
}

/// One round of one subject.
fn run_one(
    plan: &Plan,
    setup: &Setup<'_>,
    round: u32,
    column: usize,
    results: &mut Results,
) -> Result<()> {
    let subject = results.subjects[column];
    let dir = setup.home.join(format!("{subject}-{round}"));
    std::fs::create_dir(&dir).map_err(|source| Error::io("making", &dir, source))?;
    let mut take = |line: Value| -> Result<()> {
        let number = |name: &str| line[name].as_u64().map(|number| number as usize);
        if let Some(step) = number("begin").and_then(|at| plan.steps.get(at)) {
            let step = &step.label;
            (setup.progress)(Progress::Begins {
                round,
                subject,
                step,
            });
        } else if let Some(step) = number("step") {
            let sample = Sample::new(line["result"].clone());
            (setup.progress)(Progress::Done { sample: &sample });
            results.add(step, column, sample);
        } else {
            return Err(error_in(&line));
        }
        Ok(())
    };
    let measured = measure(setup, subject, &dir, &mut take);
    // The next one gets the space, whatever happened; an error of the measurement comes first.
    let removed = std::fs::remove_dir_all(&dir);
    measured?;
    removed.map_err(|source| Error::io("removing", &dir, source))
}

/// An error that a child reports.
fn error_in(line: &Value) -> Error {
    let what = line["error"]
        .as_str()
        .unwrap_or("the measuring process failed");
    match line["usage"].as_bool() {
        Some(true) => Error::usage(what),
        _ => Error::failed(what),
    }
}

/// Measures `subject` in a process, or in several, if steps take two; hands what they print to
/// `take`.
fn measure(
    setup: &Setup<'_>,
    subject: Subject,
    dir: &Path,
    take: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<()> {
    let mut task = Task {
        subject,
        dir,
        group: setup.group.map(Group::dir),
        killed_in: None,
    };
    loop {
        match run_child(setup, &task, take)? {
            End::Exited => return Ok(()),
            End::Killed { step } => task.killed_in = Some(step),
        }
    }
}

/// How a child ended.
enum End {
    /// By itself: it has done what there was to do.
    Exited,
    /// It asked to be killed, in the first half of a step, and was.
    Killed { step: usize },
}

/// Starts a child, and hands what it prints to `take`.
fn run_child(
    setup: &Setup<'_>,
    task: &Task<'_>,
    take: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<End> {
    let mut child = (setup.command)(task)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| Error::from(source).during("starting the measuring process"))?;
    let lines = lines_of(&mut child);
    let followed = follow(&lines, take);
    if !matches!(followed, Ok(End::Exited)) {
        // Gone already, if that is what failed.
        let _ = child.kill();
    }
    let status = child.wait()?;
    let end = followed?;
    if matches!(end, End::Exited) {
        check(status, setup.group)?;
    }
    Ok(end)
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

fn follow(lines: &Receiver<String>, take: &mut dyn FnMut(Value) -> Result<()>) -> Result<End> {
    loop {
        stop::check()?;
        let line = match lines.recv_timeout(POLL) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(End::Exited),
        };
        let value: Value = serde_json::from_str(&line)
            .map_err(|_| Error::failed(format!("the measuring process said: {line}")))?;
        if let Some(step) = value["kill"].as_u64() {
            return Ok(End::Killed {
                step: step as usize,
            });
        }
        take(value)?;
    }
}

fn check(status: ExitStatus, group: Option<&Group>) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    // A signal from the terminal goes to both processes, and the child may be the quicker one.
    std::thread::sleep(POLL);
    stop::check()?;
    let why = group.and_then(Group::killed_for);
    Err(Error::failed(match why {
        Some(why) => format!("the measuring process was killed: {why}"),
        None => format!("the measuring process ended with {status}"),
    }))
}
