//! `bench`: the workloads of db_bench and YCSB and the trade-offs of the textbooks, on one engine,
//! on both or on variants of them, with tables, JSON, CSV and a page to read.
//!
//! The suite itself is [`hedgerow_bench::suite`]; here are its arguments, the processes that
//! measure, which are this program again, and the files that results go to.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hedgerow_bench::conditions::Watch;
use hedgerow_bench::format::{WIDTH, command_line, wrap};
use hedgerow_bench::report::{html, text};
use hedgerow_bench::suite::baseline::Baseline;
use hedgerow_bench::suite::cgroup::Group;
use hedgerow_bench::suite::child;
use hedgerow_bench::suite::plan::{Plan, Preset, Wishes};
use hedgerow_bench::suite::results::Results;
use hedgerow_bench::suite::rounds::{self, Progress, Setup, Task};
use hedgerow_bench::suite::setting::Setting;
use hedgerow_bench::{Distribution, KeyShape, Subject, TargetOptions, ValueSize, Variant};
use tempfile::NamedTempFile;

use super::workload_list;
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::{JSON_TO_STDOUT, Output, step_progress};
use crate::scratch;
use crate::store::DurabilityArg;

/// Compare the engines in benchmarks
///
/// Runs workloads named as in db_bench and YCSB, and runs that show the trade-offs between the
/// engines, checks every answer, and prints which engine is better at what, and what it costs.
/// docs/benchmarks.md describes the method.
#[derive(Debug, Args)]
#[command(after_long_help = workload_list::text())]
pub struct Bench {
    /// How much to run
    #[arg(long, value_enum, default_value = "quick")]
    preset: PresetArg,
    /// Workloads in order, as name[:argument][@threads], and trade-off runs, separated by commas
    /// [default: the preset's]
    #[arg(long, value_name = "LIST")]
    workloads: Option<String>,
    /// Engines and variants to run, a column each, separated by commas
    #[arg(
        long,
        alias = "engine",
        value_enum,
        value_delimiter = ',',
        default_value = "both"
    )]
    engines: Vec<EngineArg>,
    /// Records that a fill writes [default: the preset's]
    #[arg(long, value_name = "N")]
    records: Option<u64>,
    /// Operations of other workloads [default: as many as records, fewer where one takes long]
    #[arg(long, value_name = "N")]
    ops: Option<u64>,
    /// Stop a workload that is not a fill after this many seconds [default: the preset's]
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
    /// Rounds for each; medians are printed [default: the preset's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Offer this many operations a second, and measure latency from when each was due
    #[arg(long, value_name = "OPS")]
    rate: Option<f64>,
    /// Threads of workloads that do not name them [default: 1]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Bytes of a key [default: 16]
    #[arg(long, value_name = "BYTES")]
    key_size: Option<usize>,
    /// What keys look like: decimal, binary, hashed or prefixed [default: decimal]
    #[arg(long, value_name = "SHAPE", value_parser = |s: &str| s.parse::<KeyShape>())]
    key_shape: Option<KeyShape>,
    /// Bytes of a value, as 100 or 16-1024 [default: 100]
    #[arg(long, value_name = "BYTES", value_parser = |s: &str| s.parse::<ValueSize>())]
    value_size: Option<ValueSize>,
    /// The fraction that values compress to [default: 0.5]
    #[arg(long, value_name = "FRACTION")]
    compress_fraction: Option<f64>,
    /// How keys are drawn where the workload leaves it open: uniform, zipfian, scrambled, latest
    /// or hot [default: the workload's]
    #[arg(long, value_name = "NAME", value_parser = |s: &str| s.parse::<Distribution>())]
    distribution: Option<Distribution>,
    /// Durability of workloads that are not about it
    #[arg(long, value_enum, default_value = "buffered")]
    durability: DurabilityArg,
    /// Budget of the cache of blocks and pages, in MiB [default: 256; quick: 16]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(0..=MAX_MIB))]
    cache_mib: Option<u64>,
    /// Budget of memtables and dirty pages, in MiB [default: 64; quick: 4]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=MAX_MIB))]
    write_buffer_mib: Option<u64>,
    /// Let the measuring processes use this much memory, page cache included; needs root
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=MAX_MIB))]
    memory_limit_mib: Option<u64>,
    /// Measure the latency of one operation in this many; at a fixed rate, of all [default: 8]
    #[arg(long, value_name = "N")]
    latency_every: Option<u64>,
    /// Seed of keys, orders and values [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where to make the temporary stores [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print JSON, or write it to FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = JSON_TO_STDOUT)]
    json: Option<String>,
    /// Write every figure of every round to FILE
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write a page with charts to FILE
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print how this run compares with the one whose --json is in FILE
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,

    /// The variant that a child process measures
    #[arg(long, hide = true, requires = "child_dir", value_parser = |s: &str| s.parse::<Variant>())]
    child_variant: Option<Variant>,
    /// The directory that a child process may use
    #[arg(long, hide = true)]
    child_dir: Option<PathBuf>,
    /// The control group that a child process enters
    #[arg(long, hide = true)]
    child_group: Option<PathBuf>,
    /// The step that the child process before it was killed in
    #[arg(long, hide = true)]
    child_killed_in: Option<usize>,
}

/// The compiler that built this program; from `build.rs`.
const COMPILER: &str = env!("HEDGEROW_RUSTC");
/// The dependencies that speed depends on, with their versions; from `build.rs`.
const CRATES: &str = env!("HEDGEROW_CRATES");
/// The largest budget: 1 TiB.
const MAX_MIB: u64 = 1 << 20;

/// [`Preset`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PresetArg {
    /// A first look: about a minute for both engines on two cores
    Quick,
    /// 2,000,000 records, every workload: about an hour (estimated)
    Standard,
    /// Twice as much data as there is memory: hours
    Large,
}

impl From<PresetArg> for Preset {
    fn from(arg: PresetArg) -> Self {
        match arg {
            PresetArg::Quick => Self::Quick,
            PresetArg::Standard => Self::Standard,
            PresetArg::Large => Self::Large,
        }
    }
}

/// What to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineArg {
    /// Log-structured merge tree
    Lsm,
    /// The same, its memtables skip lists
    LsmSkiplist,
    /// B-tree
    Btree,
    /// lsm and btree
    Both,
    /// Everything
    All,
}

impl EngineArg {
    fn variants(self) -> &'static [Variant] {
        match self {
            Self::Lsm => &[Variant::Lsm],
            Self::LsmSkiplist => &[Variant::LsmSkipList],
            Self::Btree => &[Variant::BTree],
            Self::Both => &Variant::ENGINES,
            Self::All => &Variant::ALL,
        }
    }
}

impl Bench {
    /// True for a process that measures for another one.
    pub fn is_child(&self) -> bool {
        self.child_dir.is_some()
    }

    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let plan = Plan::new(self.preset.into(), &self.wishes(), self.target_options())?;
        if let (Some(variant), Some(dir)) = (self.child_variant, &self.child_dir) {
            let (group, killed_in) = (self.child_group.as_deref(), self.child_killed_in);
            let contestant = variant.into();
            return Ok(child::run(
                &plan,
                &contestant,
                dir,
                group,
                killed_in,
                out.writer(),
            )?);
        }
        let baseline = self.baseline.as_deref().map(Baseline::read).transpose()?;
        let files = Files::open(self)?;
        interrupt::take_time();
        let home = scratch::directory("hedgerow-bench-", self.dir.as_deref())?;
        let within = home.path().parent().unwrap_or(home.path());
        plan.check_space(within)?;
        let group = plan.memory_limit_bytes.map(Group::with_limit).transpose()?;

        let command = command_line("hedgerow", std::env::args_os().skip(1));
        let program = [("compiler", COMPILER), ("crates", CRATES)];
        let setting = Setting::now(&plan, within, command, &program);
        let mut results = Results::new(&plan, &self.subjects(), setting);
        if !out.json {
            for (name, value) in &results.setting.parameters {
                out.line(wrap(&format!("{name:14} {value}"), 15, WIDTH))?;
            }
            out.line("")?;
            out.flush()?;
        }
        let watch = Watch::start();
        let outcome = measure(&plan, home.path(), group.as_ref(), out.json, &mut results);
        conclude(&mut results.setting, &watch);
        drop(group);
        // Removed whatever happened; an error of the benchmark comes first.
        let removed = home.close().map_err(Failure::from);
        outcome?;
        removed?;

        let mut json = results.to_json();
        if let Some(baseline) = &baseline {
            json["baseline"] = baseline.to_json(&results);
        }
        if out.json {
            out.value(&json)?;
        } else {
            // Again, since the run has shown what else used the processors.
            let conditions = results.setting.conditions.to_text();
            out.line(wrap(&format!("conditions     {conditions}"), 15, WIDTH))?;
            out.line("")?;
            print(&results, out)?;
            if let Some(baseline) = &baseline {
                out.line("")?;
                out.line(baseline.to_text(&results))?;
            }
        }
        files.write(&results, &json)
    }

    /// What to run, each once, in the order of the columns.
    fn subjects(&self) -> Vec<Subject> {
        let mut subjects = Vec::new();
        for variant in self.engines.iter().flat_map(|arg| arg.variants()) {
            let subject = variant.subject();
            if !subjects.contains(&subject) {
                subjects.push(subject);
            }
        }
        subjects
    }

    fn wishes(&self) -> Wishes {
        Wishes {
            workloads: self.workloads.clone(),
            records: self.records,
            ops: self.ops,
            rounds: self.rounds,
            duration_s: self.duration,
            warmup_ms: None,
            rate_per_s: self.rate,
            threads: self.threads,
            key_size_bytes: self.key_size,
            key_shape: self.key_shape,
            value_size: self.value_size,
            compress_fraction: self.compress_fraction,
            distribution: self.distribution,
            latency_every: self.latency_every,
            memory_limit_bytes: self.memory_limit_mib.map(|mib| mib << 20),
            seed: self.seed,
        }
    }

    fn target_options(&self) -> TargetOptions {
        // `quick` has a tenth of the data of `standard`, and buffers to match: otherwise all of it
        // would stay in a memtable, and nothing that distinguishes the engines would be seen.
        let (cache_mib, write_buffer_mib) = match self.preset {
            PresetArg::Quick => (16, 4),
            PresetArg::Standard | PresetArg::Large => (256, 64),
        };
        TargetOptions {
            durability: self.durability.into(),
            cache_bytes: self.cache_mib.unwrap_or(cache_mib) << 20,
            write_buffer_bytes: self.write_buffer_mib.unwrap_or(write_buffer_mib) << 20,
            ..TargetOptions::default()
        }
    }
}

/// Adds to the conditions what was seen of the machine during the run.
fn conclude(setting: &mut Setting, watch: &Watch) {
    setting.conditions.others = watch.others();
    let text = setting.conditions.to_text();
    for (_, value) in setting
        .parameters
        .iter_mut()
        .filter(|(name, _)| *name == "conditions")
    {
        value.clone_from(&text);
    }
}

/// Runs the rounds, with a progress bar.
fn measure(
    plan: &Plan,
    home: &Path,
    group: Option<&Group>,
    json: bool,
    results: &mut Results,
) -> Result<()> {
    let steps = plan.steps.len() * results.subjects.len() * plan.rounds as usize;
    let bar = step_progress(json, steps as u64);
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(100));
    }
    let setup = Setup {
        home,
        group,
        command: &child_command,
        progress: &|progress| match progress {
            Progress::Begins {
                round,
                subject,
                step,
            } => bar.set_message(format!("round {round}/{} {subject} {step}", plan.rounds)),
            Progress::Done { .. } => bar.inc(1),
            Progress::Failed { .. } => {}
        },
        keep_going: false,
    };
    rounds::run(plan, &setup, results)?;
    bar.finish_and_clear();
    Ok(())
}

/// This program again, with the same arguments, as the process that measures.
fn child_command(task: &Task<'_>) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(std::env::args_os().skip(1))
        .args(["--child-variant", task.subject.name, "--child-dir"])
        .arg(task.dir);
    if let Some(group) = task.group {
        command.arg("--child-group").arg(group);
    }
    if let Some(step) = task.killed_in {
        command.args(["--child-killed-in", &step.to_string()]);
    }
    Ok(command)
}

/// Prints the tables.
fn print(results: &Results, out: &mut Output) -> Result<()> {
    out.line(text::verdicts(results))?;
    let costs = text::costs(results);
    if !costs.is_empty() {
        out.line("")?;
        out.line(costs)?;
    }
    out.line("")?;
    out.line(text::notes(results))
}

/// The files to write results to. They are made before the first round, under other names, so that
/// a mistake in a path costs no hour of work, and a run that fails leaves neither half a file nor
/// an empty one.
struct Files {
    json: Option<Pending>,
    csv: Option<Pending>,
    report: Option<Pending>,
}

struct Pending {
    target: Target,
    path: PathBuf,
}

enum Target {
    /// Takes the place of a regular file, or of nothing.
    Replacement(NamedTempFile),
    /// A pipe or a device: what is there stays there, and is written to.
    Stream(File),
}

impl Files {
    fn open(bench: &Bench) -> Result<Self> {
        let json = bench.json.as_deref().filter(|file| *file != JSON_TO_STDOUT);
        let open = |path: Option<&Path>| path.map(Pending::new).transpose();
        Ok(Self {
            json: open(json.map(Path::new))?,
            csv: open(bench.csv.as_deref())?,
            report: open(bench.report.as_deref())?,
        })
    }

    fn write(self, results: &Results, json: &serde_json::Value) -> Result<()> {
        if let Some(file) = self.json {
            file.finish(format!("{json:#}\n").as_bytes())?;
        }
        if let Some(file) = self.csv {
            let csv = results.to_csv();
            let csv = csv.map_err(|error| Failure::error(format!("writing CSV: {error}")))?;
            file.finish(&csv)?;
        }
        if let Some(file) = self.report {
            file.finish(html::render(results).as_bytes())?;
        }
        Ok(())
    }
}

impl Pending {
    fn new(path: &Path) -> Result<Self> {
        if path.is_dir() {
            let message = format!("{} cannot be written: it is a directory", path.display());
            return Err(Failure::usage(message));
        }
        let failed = |source| Failure::io("writing", path, source);
        // What a link leads to is replaced, not the link.
        let resolved = path.canonicalize();
        let resolved = resolved.as_deref().unwrap_or(path);
        if resolved.exists() && !resolved.is_file() {
            let stream = File::options().write(true).open(resolved);
            return Ok(Self {
                target: Target::Stream(stream.map_err(failed)?),
                path: path.to_path_buf(),
            });
        }
        let parent = resolved
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder
            .prefix(".hedgerow-bench-")
            .tempfile_in(parent)
            .map_err(|source| Failure::io("writing a file in", parent, source))?;
        Ok(Self {
            target: Target::Replacement(file),
            path: resolved.to_path_buf(),
        })
    }

    fn finish(self, contents: &[u8]) -> Result<()> {
        let failed = |source| Failure::io("writing", &self.path, source);
        match self.target {
            Target::Replacement(mut file) => {
                file.write_all(contents).map_err(failed)?;
                file.persist(&self.path)
                    .map_err(|error| failed(error.error))?;
            }
            Target::Stream(mut stream) => stream.write_all(contents).map_err(failed)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `--report /dev/null`, by root, put a regular file in the place of the device.
    #[cfg(unix)]
    #[test]
    fn results_written_to_a_pipe_do_not_replace_it() {
        use std::os::unix::fs::FileTypeExt;
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        Pending::new(&pipe).unwrap().finish(b"results").unwrap();
        assert_eq!(reader.join().unwrap(), b"results");
        let kind = std::fs::symlink_metadata(&pipe).unwrap().file_type();
        assert!(kind.is_fifo());

        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, b"old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        Pending::new(&link).unwrap().finish(b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn compiler_and_crates_are_known() {
        assert!(COMPILER.starts_with("rustc "), "{COMPILER}");
        assert_eq!(CRATES.split(", ").count(), 10, "{CRATES}");
        for package in CRATES.split(", ") {
            let version = package.split_once(' ').expect("a name and a version").1;
            assert!(
                version.starts_with(|c: char| c.is_ascii_digit()),
                "{CRATES}"
            );
        }
    }
}
