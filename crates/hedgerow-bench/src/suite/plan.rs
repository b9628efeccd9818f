//! What is to be run: presets, the list of steps, and whether it can be run here at all.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use super::contestant::Contestant;
use super::scenarios::Trial;
use super::{cgroup, disk_space};
use crate::data::{KeyShape, ValueSize};
use crate::distribution::Distribution;
use crate::error::{Error, Result};
use crate::format::bytes;
use crate::machine::Machine;
use crate::targets::TargetOptions;
use crate::workload::{OpKind, Params, Workload};

/// A size of the whole comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// A first look: about a minute for both engines on two cores.
    Quick,
    /// 2,000,000 records, every workload: about an hour (estimated).
    Standard,
    /// Twice as much data as there is memory: hours.
    Large,
}

/// Workloads of `quick`.
const QUICK: &str = "fillseq,fillrandom,readrandom,readmissing,seekrandom,readseq,overwrite,\
    readwhilewriting,ycsb-a,ycsb-b,ycsb-c,ycsb-d,ycsb-e,ycsb-f,overwritesync@1,overwritesync@4,\
    deleterandom,queue,bulkdelete,heldsnapshot,coldopen,recovery";

/// Workloads of `standard`: all names, YCSB over two distributions, and every trade-off.
const STANDARD: &str = "fillsync,fillseq,fillbatch,fillrandom,readrandom,readrandom@2,\
    readrandom:zipfian,readmissing,readhot,seekrandom,seekrandom:100,scanreverse,readseq,\
    readreverse,overwrite,overwritebatch,updaterandom,readwhilewriting,fill100K,\
    ycsb-a,ycsb-b,ycsb-c,ycsb-d,ycsb-e,ycsb-f,\
    ycsb-a:zipfian,ycsb-b:zipfian,ycsb-c:zipfian,ycsb-f:zipfian,\
    ycsb-a:uniform,ycsb-b:uniform,ycsb-c:uniform,ycsb-f:uniform,\
    overwritesync@1,overwritesync@2,overwritesync@4,overwritesync@8,overwritesync@16,deleterandom,\
    queue,bulkdelete,heldsnapshot,coldopen,recovery,\
    valuesize:16,valuesize:100,valuesize:1000,valuesize:10000,valuesize:100000";

/// Workloads of `large`. It is filled in order: a random fill of a B-tree that does not fit in
/// memory would take days, and the overwrites that follow show why within their time.
const LARGE: &str = "fillseq,readrandom,readrandom:zipfian,readmissing,seekrandom,overwrite,\
    readrandom,readwhilewriting,ycsb-a,ycsb-b,ycsb-c,ycsb-d,ycsb-e,ycsb-f";

/// `large` has this many bytes of data for each byte of memory.
const LARGE_DATA_PER_MEMORY: f64 = 2.0;

/// One line of the results: a workload or a trade-off run.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What it is called: unlike every other step.
    pub label: String,
    /// What it does.
    pub work: Work,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Work {
    /// A workload of the benchmark library.
    Workload(Workload),
    /// A trade-off run.
    Trial(Trial),
}

impl Work {
    /// What it shows, in a line.
    pub fn about(&self) -> String {
        match self {
            Self::Workload(workload) => workload.about.to_owned(),
            Self::Trial(trial) => trial.about().to_owned(),
        }
    }

    /// True for a workload that writes: work that it puts off counts.
    pub fn writes(&self) -> bool {
        matches!(self, Self::Workload(workload) if workload.writes())
    }
}

impl FromStr for Work {
    type Err = Error;

    fn from_str(request: &str) -> Result<Self> {
        if let Some(trial) = Trial::parse(request)? {
            return Ok(Self::Trial(trial));
        }
        let workload = request.parse().map_err(|error| {
            let names = Trial::NAMES.join(", ");
            Error::usage(format!("{error}; or a trade-off run: {names}"))
        })?;
        Ok(Self::Workload(workload))
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trial(trial) => trial.fmt(f),
            Self::Workload(workload) => {
                workload.fmt(f)?;
                // A skewed distribution that the request did not name is named here, because YCSB
                // calls two different ones "zipfian".
                let label = workload.label();
                match workload.distribution() {
                    Some(Distribution::Uniform) | None => Ok(()),
                    Some(drawn) if label.contains(drawn.name()) => Ok(()),
                    Some(drawn) => write!(f, " ({drawn})"),
                }
            }
        }
    }
}

/// What the user may set; what is absent comes from the preset.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// The workloads and trade-off runs, in order, separated by commas.
    pub workloads: Option<String>,
    /// Records that a fill writes.
    pub records: Option<u64>,
    /// Operations of other workloads.
    pub ops: Option<u64>,
    /// Rounds for each engine.
    pub rounds: Option<u32>,
    /// Seconds after which a workload that is not a fill stops.
    pub duration_s: Option<f64>,
    /// Milliseconds that a workload which only reads runs before it is measured.
    pub warmup_ms: Option<u64>,
    /// Operations offered each second.
    pub rate_per_s: Option<f64>,
    /// Threads of workloads that do not name them.
    pub threads: Option<usize>,
    /// Bytes of a key.
    pub key_size_bytes: Option<usize>,
    /// What keys look like.
    pub key_shape: Option<KeyShape>,
    /// Bytes of a value.
    pub value_size: Option<ValueSize>,
    /// The fraction that values compress to.
    pub compress_fraction: Option<f64>,
    /// How keys are drawn where the workload leaves it open.
    pub distribution: Option<Distribution>,
    /// The latency of one operation in so many is measured.
    pub latency_every: Option<u64>,
    /// The memory that measuring processes may use, page cache included.
    pub memory_limit_bytes: Option<u64>,
    /// Seed of keys, orders and values.
    pub seed: Option<u64>,
}

/// Everything that is to be run, checked.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In order. A fill begins a new store; what needs records goes on with it.
    pub steps: Vec<Step>,
    /// The figures of workloads.
    pub params: Params,
    /// How stores are opened.
    pub target: TargetOptions,
    /// Rounds for each engine.
    pub rounds: u32,
    /// The memory that measuring processes may use, if the user limits it.
    pub memory_limit_bytes: Option<u64>,
    /// The memory that `memratio` is about: the limit, or what this process may use.
    pub memory_bytes: u64,
}

impl Plan {
    /// Makes the plan of a preset, as the user wishes it changed.
    pub fn new(preset: Preset, wishes: &Wishes, target: TargetOptions) -> Result<Self> {
        let (list, rounds, seconds, warmup_ms, interval_ms) = match preset {
            Preset::Quick => (QUICK, 3, 0.4, 50, 20),
            Preset::Standard => (STANDARD, 3, 10.0, 500, 100),
            Preset::Large => (LARGE, 1, 60.0, 500, 100),
        };
        let defaults = Params::default();
        let seconds = wishes.duration_s.unwrap_or(seconds);
        if !(seconds > 0.0 && seconds <= 1e6) {
            return Err(Error::usage("the duration must be above 0 seconds"));
        }
        let mut params = Params {
            ops: wishes.ops,
            key_shape: wishes.key_shape.unwrap_or(defaults.key_shape),
            key_len_bytes: wishes.key_size_bytes.unwrap_or(defaults.key_len_bytes),
            values: wishes.value_size.unwrap_or(defaults.values),
            compressed_fraction: wishes.compress_fraction.unwrap_or(0.5),
            threads: wishes.threads.unwrap_or(1),
            rate_per_s: wishes.rate_per_s,
            duration: Some(Duration::from_secs_f64(seconds)),
            warmup: Duration::from_millis(wishes.warmup_ms.unwrap_or(warmup_ms)),
            latency_every: wishes.latency_every.unwrap_or(8),
            interval: Duration::from_millis(interval_ms),
            seed: wishes.seed.unwrap_or(1),
            ..defaults
        };
        let memory_bytes = wishes.memory_limit_bytes.unwrap_or_else(memory_here);
        params.records = wishes.records.unwrap_or_else(|| match preset {
            Preset::Quick => 150_000,
            Preset::Standard => 2_000_000,
            Preset::Large => params.records_in(memory_bytes as f64 * LARGE_DATA_PER_MEMORY),
        });
        params.check()?;
        if let Some(limit) = wishes.memory_limit_bytes {
            check_memory(&target, limit)?;
        }
        let list = wishes.workloads.as_deref().unwrap_or(list);
        Ok(Self {
            steps: steps(list, wishes.distribution)?,
            params,
            target,
            rounds: wishes.rounds.unwrap_or(rounds),
            memory_limit_bytes: wishes.memory_limit_bytes,
            memory_bytes,
        })
    }

    /// True if no step but fills is asked for, so that they are what is to be measured.
    pub fn only_fills(&self) -> bool {
        let fills = |step: &Step| matches!(step.work, Work::Workload(workload) if workload.fills);
        self.steps.iter().all(fills)
    }

    /// Refuses what `contestant` cannot do.
    pub fn check_contestant(&self, contestant: &Contestant) -> Result<()> {
        for step in &self.steps {
            if let Work::Trial(trial) = step.work
                && trial.is_of_hedgerow_alone()
                && contestant.variant.is_none()
            {
                let store = contestant.subject;
                return Err(Error::usage(format!(
                    "{trial} is a trade-off run of hedgerow alone: {store} cannot do it"
                )));
            }
        }
        Ok(())
    }

    /// Refuses what the disk under `dir` cannot hold.
    pub fn check_space(&self, dir: &Path) -> Result<()> {
        let Some(free) = disk_space::free_bytes(dir) else {
            return Ok(());
        };
        let needed = self.peak_bytes();
        if needed > free {
            return Err(Error::usage(format!(
                "the largest store of this run needs about {} for a while, and {} has {} free: use \
                 fewer --records, a smaller --value-size, or another --dir",
                bytes(needed),
                dir.display(),
                bytes(free),
            )));
        }
        Ok(())
    }

    /// About the most that one store takes on disk. One exists at a time; a compaction, or a
    /// checkpoint of everything, holds old and new data side by side.
    fn peak_bytes(&self) -> u64 {
        const LOG_BYTES: u64 = 512 << 20;
        let live = |params: &Params| {
            let each = params.key_len_bytes as f64 + params.values.mean_bytes();
            params.records as f64 * each
        };
        let live_of = |step: &Step| match step.work {
            Work::Workload(Workload {
                values: Some(size), ..
            }) => {
                let few = self.params.records as f64 / 1000.0;
                live(&self.params) + few * size.mean_bytes()
            }
            Work::Workload(_) => live(&self.params),
            Work::Trial(trial) => live(&trial.params(&self.params, self.memory_bytes)),
        };
        let most = self.steps.iter().map(live_of).fold(0.0, f64::max);
        (most * 2.5) as u64 + LOG_BYTES
    }
}

/// Refuses a memory limit that leaves no room for what the stores keep for themselves.
fn check_memory(target: &TargetOptions, limit_bytes: u64) -> Result<()> {
    // The program itself, its stacks, and what is measured.
    const REST_BYTES: u64 = 32 << 20;
    // Writers are stopped when full memtables of twice the budget wait and another half is filling.
    let buffers = target.write_buffer_bytes.saturating_mul(5) / 2;
    let needed = target
        .cache_bytes
        .saturating_add(buffers)
        .saturating_add(REST_BYTES);
    if needed > limit_bytes {
        return Err(Error::usage(format!(
            "a memory limit of {} is too low: cache and write buffers alone may take {}; lower \
             --cache-mib and --write-buffer-mib, or raise it",
            bytes(limit_bytes),
            bytes(needed),
        )));
    }
    Ok(())
}

/// The memory that this process may use.
fn memory_here() -> u64 {
    let memory = Machine::this().memory_bytes.max(1 << 30);
    cgroup::limit_bytes().map_or(memory, |limit| limit.min(memory))
}

/// Parses the list of steps, and puts a fill before whatever needs records and would find none.
fn steps(list: &str, distribution: Option<Distribution>) -> Result<Vec<Step>> {
    let requests = list.split(',').map(str::trim);
    let requests = requests.filter(|request| !request.is_empty());
    let mut works = Vec::new();
    let mut filled = false;
    for request in requests {
        let mut work: Work = request.parse()?;
        if let Work::Workload(workload) = &mut work {
            if let Some(distribution) = distribution {
                *workload = redrawn(*workload, request, distribution)?;
            }
            if workload.needs_records() && !filled {
                works.push(Work::Workload(parse("fillrandom")?));
            }
            filled = match workload.mix[0].0 {
                OpKind::Delete => false,
                _ if workload.fills => workload.ops_divisor == 1,
                _ => true,
            };
        } else {
            // A trade-off run has a store of its own; the one before it makes room.
            filled = false;
        }
        works.push(work);
    }
    if works.is_empty() {
        return Err(Error::usage("no workload was named"));
    }
    Ok(labelled(works))
}

fn parse(request: &str) -> Result<Workload> {
    request.parse()
}

/// The workload with its keys drawn from `distribution`, unless the request names another, or the
/// workload is about the one it has.
fn redrawn(workload: Workload, request: &str, distribution: Distribution) -> Result<Workload> {
    let draws_freely = matches!(
        workload.distribution(),
        Some(Distribution::Uniform | Distribution::Scrambled)
    );
    let whole_scan = workload.nexts == crate::workload::Nexts::All;
    if !draws_freely || whole_scan || workload.batch > 1 || request.contains(':') {
        return Ok(workload);
    }
    workload.with_distribution(distribution)
}

/// Names steps by their request; where that comes a second time, as `readrandom` does after an
/// overwrite, by what went before as well.
fn labelled(works: Vec<Work>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::with_capacity(works.len());
    for work in works {
        let request = work.to_string();
        let taken = |label: &str| steps.iter().any(|step| step.label == label);
        let mut label = request.clone();
        if taken(&label)
            && let Some(before) = steps.last()
        {
            label = format!("{request}, after {}", before.work);
        }
        let mut nth = 2;
        while taken(&label) {
            label = format!("{request}, {nth}");
            nth += 1;
        }
        steps.push(Step { label, work });
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::{Subject, Variant};
    use crate::targets::hedgerow::ModelTarget;

    fn labels(list: &str, distribution: Option<Distribution>) -> Vec<String> {
        let steps = steps(list, distribution).unwrap();
        steps.into_iter().map(|step| step.label).collect()
    }

    #[test]
    fn every_preset_is_runnable() {
        for preset in [Preset::Quick, Preset::Standard, Preset::Large] {
            let plan = Plan::new(preset, &Wishes::default(), TargetOptions::default()).unwrap();
            assert!(plan.steps.len() > 10, "{preset:?}");
            let mut labels: Vec<_> = plan.steps.iter().map(|step| &step.label).collect();
            labels.sort_unstable();
            labels.dedup();
            assert_eq!(labels.len(), plan.steps.len(), "{preset:?}");
        }
    }

    #[test]
    fn a_fill_comes_before_what_needs_records() {
        assert_eq!(
            labels("readrandom,readseq", None),
            ["fillrandom", "readrandom", "readseq"]
        );
        assert_eq!(
            labels("fillseq,deleterandom,readseq", None),
            ["fillseq", "deleterandom", "fillrandom", "readseq"]
        );
        assert_eq!(
            labels("fillsync,readseq", None),
            ["fillsync", "fillrandom", "readseq"]
        );
        assert_eq!(labels("queue", None), ["queue"]);
        assert_eq!(
            labels("fillseq,queue,readseq", None),
            ["fillseq", "queue", "fillrandom", "readseq"]
        );
    }

    #[test]
    fn labels_name_the_distribution_and_are_distinct() {
        assert_eq!(
            labels("fillseq,ycsb-a,ycsb-a:zipfian,ycsb-d", None),
            [
                "fillseq",
                "ycsb-a (scrambled)",
                "ycsb-a:zipfian",
                "ycsb-d (latest)"
            ]
        );
        assert_eq!(
            labels("fillseq,readseq,overwrite,readseq,readseq,readseq", None),
            [
                "fillseq",
                "readseq",
                "overwrite",
                "readseq, after overwrite",
                "readseq, after readseq",
                "readseq, 2"
            ]
        );
    }

    #[test]
    fn a_distribution_applies_where_keys_are_drawn() {
        assert_eq!(
            labels(
                "fillseq,readrandom,readseq,readhot,ycsb-d,ycsb-b@2,readrandom:uniform",
                Some(Distribution::Zipfian)
            ),
            [
                "fillseq",
                "readrandom:zipfian",
                "readseq",
                "readhot",
                "ycsb-d (latest)",
                "ycsb-b:zipfian@2",
                "readrandom:uniform"
            ]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for list in [
            "",
            " , ",
            "readall",
            "valuesize:x",
            "memratio:-1",
            "queue:3",
            "kill",
            "kill:0",
        ] {
            let error = steps(list, None).unwrap_err();
            assert!(matches!(error, Error::Usage(_)), "{list}");
        }
        let message = steps("readall", None).unwrap_err().to_string();
        assert!(
            message.contains("readrandom") && message.contains("queue"),
            "{message}"
        );
        let plan = |wishes| Plan::new(Preset::Quick, &wishes, TargetOptions::default());
        let none = Wishes::default;
        assert!(plan(none()).is_ok());
        assert!(
            plan(Wishes {
                records: Some(0),
                ..none()
            })
            .is_err()
        );
        assert!(
            plan(Wishes {
                duration_s: Some(0.0),
                ..none()
            })
            .is_err()
        );
        assert!(
            plan(Wishes {
                rate_per_s: Some(-1.0),
                ..none()
            })
            .is_err()
        );
    }

    #[test]
    fn a_memory_limit_is_what_ratios_are_of() {
        let limit = 100 << 20;
        let target = TargetOptions {
            cache_bytes: 16 << 20,
            write_buffer_bytes: 4 << 20,
            ..TargetOptions::default()
        };
        let wishes = |limit: u64, list: &str| Wishes {
            memory_limit_bytes: Some(limit),
            workloads: Some(list.to_owned()),
            ..Wishes::default()
        };
        let plan = Plan::new(Preset::Quick, &wishes(limit, "memratio:2"), target).unwrap();
        let Work::Trial(trial) = plan.steps[0].work else {
            panic!("{:?}", plan.steps);
        };
        let live = trial.params(&plan.params, plan.memory_bytes).live_bytes();
        assert!(live.abs_diff(2 * limit) < 1000, "{live}");

        let error = Plan::new(Preset::Quick, &wishes(40 << 20, "queue"), target).unwrap_err();
        assert!(matches!(error, Error::Usage(_)), "{error}");
        assert!(error.to_string().contains("too low"), "{error}");
    }

    /// The name of a trade-off run as it is asked for: `valuesize:9` for `valuesize:BYTES`.
    fn with_number(name: &str) -> String {
        match name.split_once(':') {
            Some((name, _)) => format!("{name}:9"),
            None => name.to_owned(),
        }
    }

    #[test]
    fn a_run_of_hedgerow_alone_is_refused_for_another_store() {
        let hedgerow = Contestant::from(Variant::BTree);
        let other = Contestant {
            subject: Subject {
                name: "other",
                ..hedgerow.subject
            },
            open: ModelTarget::open,
            variant: None,
        };
        let plan = |list: &str| {
            let wishes = Wishes {
                workloads: Some(list.into()),
                ..Wishes::default()
            };
            Plan::new(Preset::Quick, &wishes, TargetOptions::default()).unwrap()
        };
        for name in Trial::NAMES {
            let list = format!("fillseq,{}", with_number(name));
            plan(&list).check_contestant(&hedgerow).unwrap();
            let refused = plan(&list).check_contestant(&other).err();
            let of_any_store = ["valuesize", "memratio", "kill"];
            let is_of_any = of_any_store.iter().any(|any| name.starts_with(any));
            assert_eq!(refused.is_none(), is_of_any, "{name}");
            if let Some(error) = refused {
                assert!(error.to_string().contains("other"), "{error}");
            }
        }
    }

    #[test]
    fn what_no_disk_holds_is_refused() {
        let wishes = Wishes {
            records: Some(1 << 39),
            value_size: Some(ValueSize::fixed(100_000)),
            ..Wishes::default()
        };
        let plan = Plan::new(Preset::Quick, &wishes, TargetOptions::default()).unwrap();
        if disk_space::free_bytes(&std::env::temp_dir()).is_some() {
            let error = plan.check_space(&std::env::temp_dir()).unwrap_err();
            assert!(matches!(error, Error::Usage(_)), "{error}");
            assert!(error.to_string().contains("free"), "{error}");
        }
    }
}
