//! The named workloads, and the figures that scale them.
//!
//! Names are those of db_bench (RocksDB's and LevelDB's benchmark) and of YCSB, so that a
//! reader who knows those knows what is run. A request is written `name[:argument][@threads]`:
//! `readrandom@2`, `seekrandom:100`, `fillbatch:1000`, `ycsb-a:zipfian@8`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hedgerow::Durability;

use crate::data::{KeyShape, Keys, ValueSize};
use crate::distribution::Distribution;
use crate::error::{Error, Result};

/// One kind of operation. Latencies are kept per kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OpKind {
    /// Looks up a key that exists.
    Read,
    /// Looks up a key that does not exist, between keys that do.
    ReadMissing,
    /// Writes a key that exists, or will.
    Update,
    /// Writes a key that is new, beyond the records.
    Insert,
    /// Looks up a key, then writes it.
    ReadModifyWrite,
    /// Seeks to a key and walks up.
    Scan,
    /// Seeks to a key and walks down.
    ScanReverse,
    /// Removes a key.
    Delete,
}

impl OpKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Read,
        Self::ReadMissing,
        Self::Update,
        Self::Insert,
        Self::ReadModifyWrite,
        Self::Scan,
        Self::ScanReverse,
        Self::Delete,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadMissing => "read-missing",
            Self::Update => "update",
            Self::Insert => "insert",
            Self::ReadModifyWrite => "read-modify-write",
            Self::Scan => "scan",
            Self::ScanReverse => "scan-reverse",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// In which order operations go over the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By number, each once.
    Sequential,
    /// In a random order, each once.
    Shuffled,
    /// Drawn anew each time.
    Drawn(Distribution),
}

/// How far a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nexts {
    /// So many entries behind the one sought.
    Exactly(u64),
    /// Uniformly one to so many entries.
    UpTo(u64),
    /// Over everything; each entry counts as an operation.
    All,
}

/// A workload: what each operation does, in which order, how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    /// Kinds of operations with their shares in per cent, which add up to 100.
    pub mix: &'static [(OpKind, u8)],
    /// Order over the records.
    pub order: Order,
    /// Length of scans.
    pub nexts: Nexts,
    /// Keys per commit.
    pub batch: u64,
    /// The store must be empty at first, and holds all records in the end.
    pub fills: bool,
    /// The durability it is about, if it is.
    pub durability: Option<Durability>,
    /// Value sizes, if it is about them.
    pub values: Option<ValueSize>,
    /// Operations are the number of records divided by this.
    pub ops_divisor: u64,
    /// One more thread overwrites random keys all the time.
    pub with_writer: bool,
    /// Threads, if the request names them.
    pub threads: Option<usize>,
    /// The argument of the request, if the workload takes one and it differs from the default.
    argument: Option<Argument>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Argument {
    Nexts(u64),
    Batch(u64),
    Distribution(Distribution),
}

/// The common ground of the table below: reads of random records.
const READ: Workload = Workload {
    name: "readrandom",
    about: "look up random keys that exist",
    mix: &[(OpKind::Read, 100)],
    order: Order::Drawn(Distribution::Uniform),
    nexts: Nexts::Exactly(0),
    batch: 1,
    fills: false,
    durability: None,
    values: None,
    ops_divisor: 1,
    with_writer: false,
    threads: None,
    argument: None,
};

const WRITE: Workload = Workload {
    name: "overwrite",
    about: "write random keys that exist, one commit each",
    mix: &[(OpKind::Update, 100)],
    ..READ
};

const FILL: Workload = Workload {
    name: "fillrandom",
    about: "write every key once in random order, one commit each",
    order: Order::Shuffled,
    fills: true,
    ..WRITE
};

const YCSB: Workload = Workload {
    order: Order::Drawn(Distribution::Scrambled),
    ..READ
};

/// Every workload, with its default argument.
pub const WORKLOADS: [Workload; 24] = [
    Workload {
        name: "fillseq",
        about: "write every key once in ascending order, one commit each",
        order: Order::Sequential,
        ..FILL
    },
    FILL,
    Workload {
        name: "fillbatch",
        about: "write every key once in random order, 1000 keys a commit",
        batch: 1000,
        ..FILL
    },
    Workload {
        name: "fillsync",
        about: "write a thousandth of the keys, each commit durable against power loss",
        durability: Some(Durability::Sync),
        ops_divisor: 1000,
        ..FILL
    },
    Workload {
        name: "fill100K",
        about: "write values of 100,000 bytes under a thousandth of the keys",
        values: Some(ValueSize::fixed(100_000)),
        ops_divisor: 1000,
        ..WRITE
    },
    WRITE,
    Workload {
        name: "overwritebatch",
        about: "write random keys that exist, 1000 a commit",
        batch: 1000,
        ..WRITE
    },
    Workload {
        name: "overwritesync",
        about: "write random keys that exist, each commit durable against power loss",
        durability: Some(Durability::Sync),
        ops_divisor: 400,
        ..WRITE
    },
    READ,
    Workload {
        name: "readmissing",
        about: "look up random keys that do not exist, between keys that do",
        mix: &[(OpKind::ReadMissing, 100)],
        ..READ
    },
    Workload {
        name: "readhot",
        about: "look up random keys among the first hundredth",
        order: Order::Drawn(Distribution::Hot),
        ..READ
    },
    Workload {
        name: "readseq",
        about: "walk over everything, ascending",
        mix: &[(OpKind::Scan, 100)],
        nexts: Nexts::All,
        ..READ
    },
    Workload {
        name: "readreverse",
        about: "walk over everything, descending",
        mix: &[(OpKind::ScanReverse, 100)],
        nexts: Nexts::All,
        ..READ
    },
    Workload {
        name: "seekrandom",
        about: "seek to a random key and read the next 10 entries",
        mix: &[(OpKind::Scan, 100)],
        nexts: Nexts::Exactly(10),
        ops_divisor: 4,
        ..READ
    },
    Workload {
        name: "readwhilewriting",
        about: "look up random keys while one more thread overwrites",
        with_writer: true,
        ..READ
    },
    Workload {
        name: "deleterandom",
        about: "remove every key once in random order, one commit each",
        mix: &[(OpKind::Delete, 100)],
        order: Order::Shuffled,
        ..READ
    },
    Workload {
        name: "ycsb-a",
        about: "50 % read, 50 % update",
        mix: &[(OpKind::Read, 50), (OpKind::Update, 50)],
        ..YCSB
    },
    Workload {
        name: "ycsb-b",
        about: "95 % read, 5 % update",
        mix: &[(OpKind::Read, 95), (OpKind::Update, 5)],
        ..YCSB
    },
    Workload {
        name: "ycsb-c",
        about: "100 % read",
        ..YCSB
    },
    Workload {
        name: "ycsb-d",
        about: "95 % read of the latest, 5 % insert",
        mix: &[(OpKind::Read, 95), (OpKind::Insert, 5)],
        order: Order::Drawn(Distribution::Latest),
        ..YCSB
    },
    Workload {
        name: "ycsb-e",
        about: "95 % scan of 1 to 100 entries, 5 % insert",
        mix: &[(OpKind::Scan, 95), (OpKind::Insert, 5)],
        nexts: Nexts::UpTo(100),
        ops_divisor: 4,
        ..YCSB
    },
    Workload {
        name: "ycsb-f",
        about: "50 % read, 50 % read-modify-write",
        mix: &[(OpKind::Read, 50), (OpKind::ReadModifyWrite, 50)],
        ..YCSB
    },
    Workload {
        name: "scanreverse",
        about: "seek to a random key and read the 10 entries before it",
        mix: &[(OpKind::ScanReverse, 100)],
        nexts: Nexts::Exactly(10),
        ops_divisor: 4,
        ..READ
    },
    Workload {
        name: "updaterandom",
        about: "read a random key that exists, then write it, one commit each",
        mix: &[(OpKind::ReadModifyWrite, 100)],
        ..READ
    },
];

impl Workload {
    /// The name with everything that the request added: parses back to the same workload.
    pub fn label(&self) -> String {
        self.to_string()
    }

    /// True if it needs the records to be there.
    pub fn needs_records(&self) -> bool {
        !self.fills
    }

    /// True if it writes.
    pub fn writes(&self) -> bool {
        use OpKind::{Delete, Insert, ReadModifyWrite, Update};
        let writes = |kind| matches!(kind, Update | Insert | ReadModifyWrite | Delete);
        self.with_writer || self.mix.iter().any(|&(kind, _)| writes(kind))
    }

    /// The distribution that it draws keys from, if it does.
    pub fn distribution(&self) -> Option<Distribution> {
        match self.order {
            Order::Drawn(distribution) => Some(distribution),
            _ => None,
        }
    }

    /// The same workload with keys drawn from `distribution`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it does not draw keys.
    pub fn with_distribution(mut self, distribution: Distribution) -> Result<Self> {
        let draws = self.distribution().is_some() && self.nexts != Nexts::All;
        if !draws {
            return Err(Error::usage(format!(
                "{} goes over the keys in its own order: it takes no distribution",
                self.name
            )));
        }
        self.order = Order::Drawn(distribution);
        self.argument = Some(Argument::Distribution(distribution));
        Ok(self)
    }

    fn with_argument(mut self, text: &str) -> Result<Self> {
        let number = |what: &str, max: u64| match text.parse::<u64>() {
            Ok(number) if (1..=max).contains(&number) => Ok(number),
            _ => Err(Error::usage(format!(
                "{}:{text} needs {what}, from 1 to {max}",
                self.name
            ))),
        };
        match self.nexts {
            Nexts::Exactly(nexts) if nexts > 0 => {
                let nexts = number("a number of entries", 1_000_000)?;
                self.nexts = Nexts::Exactly(nexts);
                self.argument = Some(Argument::Nexts(nexts));
                return Ok(self);
            }
            _ => {}
        }
        if self.batch > 1 {
            self.batch = number("a number of keys a commit", 1_000_000)?;
            self.argument = Some(Argument::Batch(self.batch));
            return Ok(self);
        }
        self.with_distribution(text.parse()?)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match self.argument {
            Some(Argument::Nexts(n) | Argument::Batch(n)) => write!(f, ":{n}")?,
            Some(Argument::Distribution(distribution)) => write!(f, ":{distribution}")?,
            None => {}
        }
        match self.threads {
            Some(threads) => write!(f, "@{threads}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Workload {
    type Err = Error;

    fn from_str(request: &str) -> Result<Self> {
        let (rest, threads) = match request.split_once('@') {
            Some((rest, threads)) => (rest, Some(parse_threads(request, threads)?)),
            None => (request, None),
        };
        let (name, argument) = match rest.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (rest, None),
        };
        let known = WORKLOADS.iter().find(|known| known.name == name);
        let mut workload = *known.ok_or_else(|| {
            let names = WORKLOADS.map(|known| known.name).join(", ");
            Error::usage(format!("unknown workload {name:?}: use one of {names}"))
        })?;
        if let Some(argument) = argument {
            workload = workload.with_argument(argument)?;
        }
        workload.threads = threads;
        Ok(workload)
    }
}

/// The most threads a run may have: each has a histogram per kind of operation.
const MAX_THREADS: usize = 1024;
/// The time at which an operation is due must be one that there is.
const RATE_MIN_PER_S: f64 = 0.001;

fn parse_threads(request: &str, threads: &str) -> Result<usize> {
    match threads.parse() {
        Ok(threads) if (1..=MAX_THREADS).contains(&threads) => Ok(threads),
        _ => Err(Error::usage(format!(
            "{request:?} needs a number of threads after @, from 1 to {MAX_THREADS}"
        ))),
    }
}

/// Parses a list of workloads, separated by commas.
///
/// # Errors
///
/// [`Error::Usage`] for the first that is unknown or malformed, and for an empty list.
pub fn parse_workloads(list: &str) -> Result<Vec<Workload>> {
    let names = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let workloads: Vec<_> = names.map(str::parse).collect::<Result<_>>()?;
    if workloads.is_empty() {
        return Err(Error::usage("no workload was named"));
    }
    Ok(workloads)
}

/// The figures of a run; the same for every store that is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// Records that a fill writes.
    pub records: u64,
    /// Operations of a workload that is not a fill; by default as many as there are records, or
    /// the workload's own fraction of them.
    pub ops: Option<u64>,
    /// What keys look like.
    pub key_shape: KeyShape,
    /// Length of keys, in bytes.
    pub key_len_bytes: usize,
    /// Lengths of values.
    pub values: ValueSize,
    /// The fraction of its length that a value compresses to.
    pub compressed_fraction: f64,
    /// Threads of workloads that do not name them.
    pub threads: usize,
    /// Operations a second that are offered, by all threads together; as many as go if `None`.
    pub rate_per_s: Option<f64>,
    /// Stop a workload after this time, even if operations are left; fills run to their end.
    pub duration: Option<Duration>,
    /// Time to run a reading workload before measuring it.
    pub warmup: Duration,
    /// The latency of one operation in this many is measured. Reading the clock twice costs
    /// 40 to 60 ns, which fast stores feel; throughput and stalls are seen regardless. At a fixed
    /// rate every operation is measured.
    pub latency_every: u64,
    /// Length of the intervals of throughput over time.
    pub interval: Duration,
    /// Seed of everything that is random.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            records: 1_000_000,
            ops: None,
            key_shape: KeyShape::Decimal,
            key_len_bytes: 16,
            values: ValueSize::fixed(100),
            compressed_fraction: 0.5,
            threads: 1,
            rate_per_s: None,
            duration: None,
            warmup: Duration::ZERO,
            latency_every: 1,
            interval: Duration::from_millis(100),
            seed: 1,
        }
    }
}

impl Params {
    /// Refuses what cannot be run.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], naming the figure that is impossible.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::usage(what));
        // Inserts go beyond the records; half of the numbers are kept for them.
        let most = self
            .records
            .saturating_add(self.ops.unwrap_or(0))
            .saturating_mul(2);
        Keys::new(self.key_shape, self.key_len_bytes, most)?;
        self.values.check()?;
        if self.records == 0 || self.records > 1 << 40 {
            return refuse("records must number 1 to 2^40");
        }
        if self.ops == Some(0) {
            return refuse("ops must be at least 1");
        }
        if !(1..=MAX_THREADS).contains(&self.threads) {
            return refuse("threads must number 1 to 1024");
        }
        if self.latency_every == 0 {
            return refuse("latency_every must be at least 1");
        }
        if self.interval < Duration::from_millis(1) {
            return refuse("the interval must be at least a millisecond");
        }
        if self
            .rate_per_s
            .is_some_and(|rate| !rate.is_finite() || rate < RATE_MIN_PER_S)
        {
            return refuse("the rate must be 0.001 operations a second or more");
        }
        if !(0.0..=1.0).contains(&self.compressed_fraction) {
            return refuse("values compress to a fraction from 0 to 1");
        }
        Ok(())
    }

    /// How many operations `workload` does, keys of batches counted singly.
    pub fn ops_of(&self, workload: &Workload) -> u64 {
        let ops = match self.ops {
            Some(ops) if !workload.fills => ops,
            _ => self.records,
        };
        (ops / workload.ops_divisor).max(1)
    }

    /// Bytes of keys and values of the records.
    pub fn live_bytes(&self) -> u64 {
        (self.records as f64 * self.record_bytes()) as u64
    }

    /// How many records of this size have `bytes` bytes of keys and values; at least one.
    pub fn records_in(&self, bytes: f64) -> u64 {
        ((bytes / self.record_bytes().max(1.0)) as u64).max(1)
    }

    /// Bytes of a key and a value, on average.
    fn record_bytes(&self) -> f64 {
        self.key_len_bytes as f64 + self.values.mean_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(request: &str) -> Workload {
        request.parse().unwrap()
    }

    #[test]
    fn names_are_distinct_and_mixes_are_whole() {
        for (i, workload) in WORKLOADS.iter().enumerate() {
            let sum: u32 = workload
                .mix
                .iter()
                .map(|&(_, share)| u32::from(share))
                .sum();
            assert_eq!(sum, 100, "{}", workload.name);
            assert!(
                WORKLOADS[i + 1..]
                    .iter()
                    .all(|other| other.name != workload.name)
            );
            assert_eq!(parse(workload.name), *workload);
        }
    }

    #[test]
    fn requests_parse_and_print_back() {
        for request in [
            "readrandom@2",
            "seekrandom:100",
            "fillbatch:10@4",
            "ycsb-a:zipfian@8",
            "readrandom:latest",
            "overwritesync@8",
        ] {
            assert_eq!(parse(request).to_string(), request);
            assert_eq!(parse(request).label(), request);
        }
        assert_eq!(parse("seekrandom:100").nexts, Nexts::Exactly(100));
        assert_eq!(parse("fillbatch:10").batch, 10);
        assert_eq!(
            parse("ycsb-a:zipfian").distribution(),
            Some(Distribution::Zipfian)
        );
        assert_eq!(parse("ycsb-d").distribution(), Some(Distribution::Latest));
        assert_eq!(parse("fillsync").durability, Some(Durability::Sync));
    }

    #[test]
    fn bad_requests_say_what_is_wrong() {
        for (request, part) in [
            ("readall", "unknown workload \"readall\""),
            ("readrandom@0", "threads"),
            ("readrandom@x", "threads"),
            ("seekrandom:0", "number of entries"),
            ("fillbatch:many", "keys a commit"),
            ("readrandom:pareto", "unknown distribution"),
            ("fillseq:uniform", "own order"),
            ("readseq:uniform", "own order"),
        ] {
            let error = request.parse::<Workload>().unwrap_err().to_string();
            assert!(error.contains(part), "{request}: {error}");
        }
        assert!(parse_workloads(" , ").is_err());
        assert_eq!(parse_workloads("fillseq, readseq").unwrap().len(), 2);
    }

    #[test]
    fn impossible_figures_are_refused() {
        let good = Params::default();
        good.check().unwrap();
        let bad = [
            Params {
                records: 0,
                ..good.clone()
            },
            Params {
                records: 1 << 50,
                ..good.clone()
            },
            Params {
                ops: Some(0),
                ..good.clone()
            },
            Params {
                key_len_bytes: 3,
                ..good.clone()
            },
            Params {
                key_len_bytes: 100_000,
                ..good.clone()
            },
            Params {
                values: ValueSize {
                    min_bytes: 2,
                    max_bytes: 1,
                },
                ..good.clone()
            },
            Params {
                threads: 0,
                ..good.clone()
            },
            Params {
                latency_every: 0,
                ..good.clone()
            },
            Params {
                interval: Duration::ZERO,
                ..good.clone()
            },
            Params {
                rate_per_s: Some(f64::NAN),
                ..good.clone()
            },
            Params {
                rate_per_s: Some(1e-20),
                ..good.clone()
            },
            Params {
                rate_per_s: Some(-1.0),
                ..good.clone()
            },
            Params {
                compressed_fraction: 2.0,
                ..good.clone()
            },
            // 16 decimal digits are enough, 8 are not.
            Params {
                key_len_bytes: 8,
                records: 100_000_000,
                ..good.clone()
            },
        ];
        for params in bad {
            assert!(matches!(params.check(), Err(Error::Usage(_))), "{params:?}");
        }
    }

    #[test]
    fn operations_follow_the_records() {
        let params = Params {
            records: 2_000_000,
            ..Params::default()
        };
        assert_eq!(params.ops_of(&parse("fillrandom")), 2_000_000);
        assert_eq!(params.ops_of(&parse("fillsync")), 2000);
        let params = Params {
            ops: Some(50),
            ..params
        };
        assert_eq!(params.ops_of(&parse("fillrandom")), 2_000_000);
        assert_eq!(params.ops_of(&parse("readrandom")), 50);
        assert_eq!(params.ops_of(&parse("fill100K")), 1);
        assert_eq!(params.live_bytes(), 232_000_000);
        assert_eq!(params.records_in(232_000_000.0), 2_000_000);
        assert_eq!(params.records_in(0.0), 1);
    }

    #[test]
    fn writing_workloads_are_known() {
        for name in [
            "fillseq",
            "overwrite",
            "deleterandom",
            "ycsb-d",
            "readwhilewriting",
        ] {
            assert!(parse(name).writes(), "{name}");
        }
        for name in ["readrandom", "readseq", "ycsb-c", "seekrandom"] {
            assert!(!parse(name).writes(), "{name}");
        }
    }
}
