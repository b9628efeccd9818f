//! Whether a run can tell which of those compared is better: the circumstances that make its
//! figures worthless, however many digits they have.

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};

use crate::format::counted;
use crate::machine::{self, Others, ProcessorTime};

/// With fewer records than this, everything is in the caches of the processor.
const RECORDS_MIN: u64 = 10_000;
/// With fewer operations than this, one that was late is what is measured.
const OPERATIONS_MIN: u64 = 1000;
/// What takes less time than this may fall between two turns of the scheduler, and may not meet a
/// single flush.
const SECONDS_MIN: f64 = 0.05;
/// File systems that keep files in memory, so that nothing reaches a device and syncs cost nothing.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// The share of the processors that others may use during a run. The kernel's own threads write
/// back what the run writes, which is some hundredths on two processors.
const OTHERS_MAX: f64 = 0.1;

/// Where a run is made, and how busy the machine was before it and meanwhile.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conditions {
    /// The kind of file system of the stores, if the platform tells.
    pub file_system: Option<String>,
    /// The load average of the last minute before the start, if the platform tells.
    pub load_average: Option<f64>,
    /// What others used of the processors during the run, if it has ended and the platform tells.
    pub others: Option<Others>,
    /// Cores that the program may use.
    pub cores: usize,
    /// True for a build without optimisation, or with the checks of one.
    pub debug_build: bool,
}

/// How much was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effort {
    /// Rounds.
    pub rounds: u32,
    /// Records of a store.
    pub records: u64,
    /// Operations of a usual step, if that is known.
    pub operations: Option<u64>,
    /// How long a usual step takes, if that is known.
    pub seconds: Option<f64>,
}

/// A reason why no verdict of a run is certain.
#[derive(Debug, Clone, PartialEq)]
pub enum Doubt {
    /// Nothing shows how far rounds differ.
    OneRound,
    /// Too few records.
    FewRecords(u64),
    /// Too few operations.
    FewOperations(u64),
    /// Over too soon: seconds.
    Short(f64),
    /// The file system keeps files in memory.
    MemoryFileSystem(String),
    /// Others used more of the processors during the run than a little.
    Others(Others),
    /// The load average was above the number of cores, and nothing is known of the run itself.
    Loaded {
        /// The load average.
        load_average: f64,
        /// The number of cores.
        cores: usize,
    },
    /// The program was built without optimisation, or with the checks of such a build.
    DebugBuild,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneRound => f.write_str("one round shows no spread"),
            Self::FewRecords(records) => {
                write!(
                    f,
                    "{} fit in a processor's cache",
                    counted(*records, "record")
                )
            }
            Self::FewOperations(operations) => {
                write!(f, "{} are too few", counted(*operations, "operation"))
            }
            Self::Short(seconds) => {
                write!(f, "a usual step took only {:.1} ms", seconds * 1e3)
            }
            Self::MemoryFileSystem(name) => write!(f, "{name} keeps files in memory"),
            Self::Others(others) => write!(f, "other programs used {others} during the run"),
            Self::Loaded {
                load_average,
                cores,
            } => write!(
                f,
                "the machine was busy at the start (load average {load_average:.2}, {})",
                counted(*cores as u64, "core")
            ),
            Self::DebugBuild => f.write_str("this is a debug build"),
        }
    }
}

/// Watches a run from its start, for what else the machine does meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Watch(Option<ProcessorTime>);

impl Watch {
    /// From now on.
    pub fn start() -> Self {
        Self(ProcessorTime::now())
    }

    /// What others used of the processors since the start, if the platform tells. Children count
    /// as others as long as they run.
    pub fn others(&self) -> Option<Others> {
        ProcessorTime::now()?.others_since(&self.0?)
    }
}

impl Conditions {
    /// The conditions now, for stores in directory `dir`.
    pub fn now(dir: &Path) -> Self {
        Self {
            file_system: machine::file_system(dir),
            load_average: machine::load_average(),
            others: None,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            debug_build: cfg!(debug_assertions),
        }
    }

    /// In a line: `file system ext4; load average 0.31 at the start, 2 cores`, and after the run
    /// what others used of the processors.
    pub fn to_text(&self) -> String {
        let file_system = self.file_system.as_deref().unwrap_or("unknown");
        let load = match self.load_average {
            Some(load) => format!("{load:.2} at the start"),
            None => "unknown".to_owned(),
        };
        let cores = counted(self.cores as u64, "core");
        let mut text = format!("file system {file_system}; load average {load}, {cores}");
        if let Some(others) = &self.others {
            text += &format!("; others used {others} during the run");
        }
        text
    }

    /// What others used of the processors during the run, in a sentence; `None` if that is among
    /// the doubts, or not known.
    pub fn others_sentence(&self, doubts: &[Doubt]) -> Option<String> {
        let others = self.others?;
        let doubted = doubts.contains(&Doubt::Others(others));
        (!doubted).then(|| format!("Other programs used {others} during the run."))
    }

    /// Everything that makes the verdicts of a run uncertain; empty if nothing does.
    pub fn doubts(&self, effort: &Effort) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        if self.debug_build {
            doubts.push(Doubt::DebugBuild);
        }
        if effort.rounds < 2 {
            doubts.push(Doubt::OneRound);
        }
        if effort.records < RECORDS_MIN {
            doubts.push(Doubt::FewRecords(effort.records));
        } else if let Some(few) = effort.operations.filter(|&ops| ops < OPERATIONS_MIN) {
            doubts.push(Doubt::FewOperations(few));
        } else if let Some(short) = effort.seconds.filter(|&seconds| seconds < SECONDS_MIN) {
            doubts.push(Doubt::Short(short));
        }
        if let Some(name) = &self.file_system
            && IN_MEMORY.contains(&name.as_str())
        {
            doubts.push(Doubt::MemoryFileSystem(name.clone()));
        }
        match (self.others, self.load_average) {
            // What was before the run, such as the build of this program, is of no account.
            (Some(others), _) if others.share() > OTHERS_MAX => doubts.push(Doubt::Others(others)),
            (None, Some(load_average)) if load_average > self.cores as f64 => {
                doubts.push(Doubt::Loaded {
                    load_average,
                    cores: self.cores,
                });
            }
            _ => {}
        }
        doubts
    }

    /// The conditions for programs.
    pub fn to_json(&self) -> Value {
        json!({
            "file_system": self.file_system,
            "load_average": self.load_average,
            "processors_used_by_others": self.others.map(|others| others.used),
            "cores": self.cores,
            "debug_build": self.debug_build,
        })
    }
}

/// Why every verdict is marked, in a sentence; `None` if none is.
pub fn warning(doubts: &[Doubt]) -> Option<String> {
    let reasons: Vec<_> = doubts.iter().map(ToString::to_string).collect();
    (!reasons.is_empty()).then(|| format!("No verdict is certain (?): {}.", reasons.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Conditions {
        Conditions {
            file_system: Some("ext4".into()),
            load_average: Some(0.5),
            others: None,
            cores: 2,
            debug_build: false,
        }
    }

    const ENOUGH: Effort = Effort {
        rounds: 3,
        records: 150_000,
        operations: Some(150_000),
        seconds: Some(0.4),
    };

    #[test]
    fn a_long_run_on_a_quiet_machine_is_certain() {
        assert_eq!(quiet().doubts(&ENOUGH), []);
        assert_eq!(warning(&[]), None);
        assert_eq!(
            quiet().to_text(),
            "file system ext4; load average 0.50 at the start, 2 cores"
        );
        let unknown = Conditions {
            cores: 1,
            ..Conditions::default()
        };
        assert_eq!(unknown.doubts(&ENOUGH), []);
        assert_eq!(
            unknown.to_text(),
            "file system unknown; load average unknown, 1 core"
        );
    }

    /// The first command of the README marked every verdict, because the load average still had
    /// the compiler in it.
    #[test]
    fn a_build_before_the_run_is_no_doubt_and_one_during_it_is() {
        let others = |used| Conditions {
            load_average: Some(7.0),
            others: Some(Others {
                used,
                processors: 2,
            }),
            ..quiet()
        };
        assert_eq!(others(0.05).doubts(&ENOUGH), []);
        let sentence = |used| {
            let conditions = others(used);
            conditions.others_sentence(&conditions.doubts(&ENOUGH))
        };
        let said = "Other programs used 0.05 of 2 processors during the run.";
        assert_eq!(sentence(0.05).as_deref(), Some(said));
        assert_eq!(sentence(0.93), None, "it is among the doubts");
        assert_eq!(others(0.19).doubts(&ENOUGH), []);
        let said = warning(&others(0.93).doubts(&ENOUGH)).unwrap();
        assert!(
            said.contains("other programs used 0.93 of 2 processors during the run"),
            "{said}"
        );
        // A quiet start does not help.
        let mut late = others(0.93);
        late.load_average = Some(0.0);
        assert_eq!(late.doubts(&ENOUGH).len(), 1);
        assert_eq!(
            late.to_text(),
            "file system ext4; load average 0.00 at the start, 2 cores; others used 0.93 of 2 \
             processors during the run"
        );
        assert_eq!(late.to_json()["processors_used_by_others"], 0.93);
    }

    #[test]
    fn each_circumstance_is_a_doubt() {
        let reason = |conditions: Conditions, effort: Effort| {
            let doubts = conditions.doubts(&effort);
            assert_eq!(doubts.len(), 1, "{doubts:?}");
            warning(&doubts).unwrap()
        };
        for (effort, part) in [
            (
                Effort {
                    rounds: 1,
                    ..ENOUGH
                },
                "one round",
            ),
            (
                Effort {
                    records: 500,
                    ..ENOUGH
                },
                "500 records",
            ),
            (
                Effort {
                    operations: Some(999),
                    ..ENOUGH
                },
                "999 operations",
            ),
            (
                Effort {
                    seconds: Some(0.012),
                    ..ENOUGH
                },
                "12.0 ms",
            ),
        ] {
            let said = reason(quiet(), effort);
            assert!(said.contains(part), "{said}");
        }
        for (conditions, part) in [
            (
                Conditions {
                    file_system: Some("tmpfs".into()),
                    ..quiet()
                },
                "tmpfs",
            ),
            (
                Conditions {
                    load_average: Some(2.01),
                    ..quiet()
                },
                "2.01, 2 cores",
            ),
            (
                Conditions {
                    debug_build: true,
                    ..quiet()
                },
                "debug build",
            ),
        ] {
            let said = reason(conditions, ENOUGH);
            assert!(said.contains(part), "{said}");
        }
    }
}
