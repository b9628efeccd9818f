//! What all rounds gave: samples per step and subject, their medians, and who is better.

use std::time::Duration;

use serde_json::{Value, json};

use super::plan::{Plan, Work};
use super::setting::Setting;
use crate::conditions::{Doubt, Effort};
use crate::subject::Subject;
use crate::verdict::{self, NOTHING, Unit, Verdict, judge, median};

/// What one step gave in one round of one subject: the object that the child printed.
#[derive(Debug, Clone)]
pub struct Sample {
    raw: Value,
}

/// One step with its samples.
#[derive(Debug, Clone)]
pub struct Row {
    /// The step's label.
    pub label: String,
    /// What it shows.
    pub about: String,
    /// True for a workload, false for a trade-off run.
    pub is_workload: bool,
    /// True for a workload that writes.
    pub writes: bool,
    /// By the position of the subject, in the order of the rounds.
    samples: Vec<Vec<Sample>>,
}

/// How long the operations of one kind took.
#[derive(Debug, Clone, PartialEq)]
pub struct Latencies {
    /// The kind of operation.
    pub kind: String,
    /// How many were timed.
    pub measured: u64,
    /// Per cent and microseconds.
    pub points: Vec<(f64, f64)>,
}

/// A figure that the subjects are compared by.
#[derive(Debug, Clone)]
pub struct Contest {
    /// What is compared: the workload, or the trade-off run and its figure.
    pub label: String,
    /// The name of the figure for programs.
    pub id: String,
    /// What it counts.
    pub unit: Unit,
    /// Figures of the rounds, by the position of the subject.
    pub rounds: Vec<Vec<f64>>,
    /// What it shows.
    pub about: String,
    /// True if the run allows no certain verdict.
    pub unsure: bool,
}

/// The results of all rounds.
#[derive(Debug, Clone)]
pub struct Results {
    /// How they came about.
    pub setting: Setting,
    /// What was run, in the order of the columns.
    pub subjects: Vec<Subject>,
    /// Rounds of each.
    pub rounds: u32,
    /// Records that a fill writes.
    pub records: u64,
    /// True if operations were offered at a fixed rate, so that latency is what is compared.
    pub fixed_rate: bool,
    /// The steps.
    pub rows: Vec<Row>,
    /// What failed, and why, where rounds went on all the same.
    pub failures: Vec<(Subject, String)>,
    /// How long all rounds took.
    pub took: Duration,
}

/// The figures of a workload that tables show, beside throughput: name, label and unit.
pub const COSTS: [(&str, &str, Cost); 15] = [
    ("ops_per_s", "ops/s", Cost::Count),
    ("settled_ops_per_s", "settled", Cost::Count),
    ("p50_us", "p50", Cost::Micros),
    ("p99_us", "p99", Cost::Micros),
    ("p999_us", "p99.9", Cost::Micros),
    ("max_us", "max", Cost::Micros),
    ("cpu_s_per_million_ops", "CPU s/M", Cost::Plain),
    ("peak_anonymous_bytes", "memory", Cost::Bytes),
    ("store_written_bytes", "written", Cost::Bytes),
    ("write_amplification", "write amp", Cost::Plain),
    ("read_amplification", "read amp", Cost::Plain),
    ("fetched_bytes_per_op", "fetched/op", Cost::Bytes),
    ("tree_space_amplification", "space amp", Cost::Plain),
    ("longest_stall_s", "stall s", Cost::Plain),
    ("writers_held_ms", "held ms", Cost::Plain),
];

/// How a cost is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Operations.
    Count,
    /// Microseconds.
    Micros,
    /// Bytes.
    Bytes,
    /// A number.
    Plain,
}

impl Cost {
    /// A figure, or a dash for none.
    pub fn show(self, figure: Option<f64>) -> String {
        let Some(figure) = figure.filter(|figure| figure.is_finite()) else {
            return "–".to_owned();
        };
        match self {
            Self::Count => short(figure),
            Self::Micros if figure >= 999_500.0 => format!("{:.1} s", figure / 1e6),
            Self::Micros if figure >= 9995.0 => format!("{:.0} ms", figure / 1e3),
            Self::Micros if figure >= 999.5 => format!("{:.1} ms", figure / 1e3),
            Self::Micros => format!("{} us", short(figure)),
            Self::Bytes => crate::format::bytes(figure as u64),
            Self::Plain => short(figure),
        }
    }
}

/// Three significant digits, with k, M or G.
pub fn short(figure: f64) -> String {
    let (scaled, unit) = match figure.abs() {
        // What rounds to 1000 belongs to the next unit.
        size if size >= 999.5e6 => (figure / 1e9, "G"),
        size if size >= 999.5e3 => (figure / 1e6, "M"),
        size if size >= 999.5 => (figure / 1e3, "k"),
        _ => (figure, ""),
    };
    let decimals = match scaled.abs() {
        size if size >= 99.95 || size == 0.0 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.decimals$}{unit}")
}

impl Sample {
    /// The sample that `raw` describes.
    pub fn new(raw: Value) -> Self {
        Self { raw }
    }

    /// A figure of a workload.
    pub fn figure(&self, name: &str) -> Option<f64> {
        match name {
            "writers_held_ms" => {
                let held = |name| self.raw[name].as_f64();
                Some(held("writers_slowed_ms")? + held("writers_stopped_ms")?)
            }
            // Read amplification as the storage sees it: nothing while the data is in memory.
            "fetched_bytes_per_op" => {
                let ops = self.raw["ops"].as_f64()?.max(1.0);
                Some(self.raw["device_read_bytes"].as_f64()? / ops)
            }
            // Without the log, which both engines have alike and which is prepared in whole
            // segments: in a small store it would be all that is seen.
            "tree_space_amplification" => {
                let live = self.raw["live_bytes"].as_f64()?;
                Some(self.raw["tree_bytes"].as_f64()? / live).filter(|ratio| ratio.is_finite())
            }
            _ => self.raw[name].as_f64(),
        }
    }

    /// The figures of a trade-off run: name, label, unit, value.
    fn figures(&self) -> Vec<(String, String, Unit, f64)> {
        let figures = self.raw["figures"].as_array().into_iter().flatten();
        figures
            .filter_map(|figure| {
                let text = |name: &str| figure[name].as_str().map(str::to_owned);
                let unit = Unit::ALL
                    .into_iter()
                    .find(|unit| Some(unit.name()) == figure["unit"].as_str())?;
                Some((text("id")?, text("label")?, unit, figure["value"].as_f64()?))
            })
            .collect()
    }

    /// Throughput over time: seconds since the start, and operations a second up to then.
    pub fn throughput(&self) -> Vec<(f64, f64)> {
        let mut before = 0.0;
        pairs(&self.raw["series_end_s_ops"])
            .into_iter()
            .filter_map(|(end, ops)| {
                let length = end - before;
                // The last interval is cut short by the end: too little to tell a rate by.
                if length < 1e-3 {
                    return None;
                }
                before = end;
                Some((end, ops / length))
            })
            .collect()
    }

    /// Latency curves, one for each kind of operation.
    pub fn latencies(&self) -> Vec<Latencies> {
        let kinds = self.raw["latencies"].as_array().into_iter().flatten();
        kinds
            .filter_map(|kind| {
                let points = pairs(&kind["curve_percent_ns"]);
                let points = points
                    .into_iter()
                    .map(|(percent, nanos)| (percent, nanos / 1e3))
                    .collect();
                Some(Latencies {
                    kind: kind["kind"].as_str()?.to_owned(),
                    measured: kind["count"].as_u64().unwrap_or(0),
                    points,
                })
            })
            .collect()
    }
}

/// An array of arrays of two numbers.
fn pairs(value: &Value) -> Vec<(f64, f64)> {
    let items = value.as_array().into_iter().flatten();
    items
        .filter_map(|pair| Some((pair[0].as_f64()?, pair[1].as_f64()?)))
        .collect()
}

impl Row {
    /// The samples of a subject, in the order of the rounds.
    pub fn samples(&self, subject: usize) -> &[Sample] {
        self.samples.get(subject).map_or(&[], Vec::as_slice)
    }

    /// A figure of all rounds; none where it means nothing.
    pub fn figures(&self, subject: usize, name: &str) -> Vec<f64> {
        // It is divided by the data that is left.
        if name == "tree_space_amplification" && self.label.starts_with("deleterandom") {
            return Vec::new();
        }
        let samples = self.samples(subject).iter();
        samples.filter_map(|sample| sample.figure(name)).collect()
    }

    /// The median of a figure, if there is one.
    pub fn median(&self, subject: usize, name: &str) -> Option<f64> {
        Some(median(&self.figures(subject, name))).filter(|median| median.is_finite())
    }

    /// The median of a figure with the smallest and the largest; a dash if there is none.
    pub fn show_range(&self, subject: usize, name: &str, cost: Cost) -> String {
        range(&self.figures(subject, name), |figure| {
            cost.show(Some(figure))
        })
    }

    /// The round in the middle by throughput: the one that curves are drawn of.
    pub fn typical(&self, subject: usize) -> Option<&Sample> {
        let mut samples: Vec<_> = self.samples(subject).iter().collect();
        let rate = |sample: &Sample| sample.figure("ops_per_s").unwrap_or(0.0);
        samples.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
        samples.get(samples.len() / 2).copied()
    }

    /// What the subjects are compared by: throughput of a workload, with the work that writes put
    /// off; its 99th percentile at a fixed rate; every figure of a trade-off run.
    fn contests(&self, fixed_rate: bool, unsure: bool) -> Vec<Contest> {
        let subjects = 0..self.samples.len();
        if self.is_workload {
            let offered = |subject| self.median(subject, "offered_per_s").is_some();
            let paced = subjects.clone().any(offered);
            let (id, unit) = match (fixed_rate && paced, self.writes) {
                (true, _) => ("p99_us", Unit::Microseconds),
                (_, true) => ("settled_ops_per_s", Unit::PerSecond),
                (_, false) => ("ops_per_s", Unit::PerSecond),
            };
            return vec![Contest {
                label: self.label.clone(),
                id: id.to_owned(),
                unit,
                rounds: subjects.map(|subject| self.figures(subject, id)).collect(),
                about: self.about.clone(),
                unsure,
            }];
        }
        let mut contests: Vec<Contest> = Vec::new();
        for (subject, samples) in self.samples.iter().enumerate() {
            for (id, label, unit, value) in samples.iter().flat_map(Sample::figures) {
                let known = contests.iter().position(|contest| contest.id == id);
                let at = known.unwrap_or_else(|| {
                    contests.push(Contest {
                        label: format!("{}: {label}", self.label),
                        id,
                        unit,
                        rounds: vec![Vec::new(); self.samples.len()],
                        about: self.about.clone(),
                        unsure,
                    });
                    contests.len() - 1
                });
                contests[at].rounds[subject].push(value);
            }
        }
        contests
    }
}

impl Contest {
    /// The figures of a subject.
    pub fn figures(&self, subject: usize) -> &[f64] {
        self.rounds.get(subject).map_or(&[], Vec::as_slice)
    }

    /// Who is better.
    pub fn verdict(&self) -> Verdict {
        let rounds: Vec<&[f64]> = self.rounds.iter().map(Vec::as_slice).collect();
        judge(self.unit, &rounds).doubted(self.unsure)
    }

    /// Which of two is better: 0 for the first.
    pub fn verdict_of_two(&self, first: usize, second: usize) -> Verdict {
        judge(self.unit, &[self.figures(first), self.figures(second)]).doubted(self.unsure)
    }

    /// How many times better the first is than the second, by their medians: below 1, the second
    /// is. With the least and the most that rounds allow: the worst round of the one beside the
    /// best of the other, and the other way round.
    pub fn advantage(&self, first: usize, second: usize) -> Option<Spread> {
        let (a, b) = (self.figures(first), self.figures(second));
        let ratio = |a: f64, b: f64| match self.unit.more_is_better() {
            true => a / b,
            false => b / a,
        };
        let spread = Spread {
            middle: ratio(median(a), median(b)),
            low: ratio(verdict::min(a), verdict::max(b)),
            high: ratio(verdict::max(a), verdict::min(b)),
        };
        Some(spread.in_order()).filter(Spread::is_positive)
    }

    /// The median of a subject, and how far the furthest round is from it: `1.23 M/s ±6%`; a dash
    /// if there is none.
    pub fn show(&self, subject: usize) -> String {
        let figures = self.figures(subject);
        if figures.is_empty() {
            return NOTHING.to_owned();
        }
        let middle = median(figures);
        let furthest = (verdict::max(figures) - middle).max(middle - verdict::min(figures));
        let percent = furthest / middle * 100.0;
        match percent.is_finite() && percent >= 0.5 {
            true => format!("{} ±{percent:.0}%", self.unit.show(middle)),
            false => self.unit.show(middle),
        }
    }

    /// The median of a subject with the smallest and largest figure; a dash if there is none.
    pub fn show_range(&self, subject: usize) -> String {
        range(self.figures(subject), |figure| self.unit.show(figure))
    }

    /// How many times the best round of a subject is better than its worst; of all subjects the
    /// most uneven.
    fn unevenness(&self) -> f64 {
        let rounds = self.rounds.iter().filter(|rounds| rounds.len() > 1);
        let ratios = rounds.map(|rounds| verdict::max(rounds) / verdict::min(rounds));
        ratios.filter(|ratio| ratio.is_finite()).fold(1.0, f64::max)
    }
}

/// The median with the smallest and largest figure, if they are written differently; a dash if
/// there is none.
fn range(figures: &[f64], show: impl Fn(f64) -> String) -> String {
    if figures.is_empty() {
        return NOTHING.to_owned();
    }
    let (low, high) = (show(verdict::min(figures)), show(verdict::max(figures)));
    match low == high {
        true => show(median(figures)),
        false => format!("{} ({low}–{high})", show(median(figures))),
    }
}

/// A figure with the least and the most that it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// By the medians.
    pub middle: f64,
    /// The least.
    pub low: f64,
    /// The most.
    pub high: f64,
}

impl Spread {
    fn in_order(self) -> Self {
        Self {
            middle: self.middle,
            low: self.low.min(self.high),
            high: self.low.max(self.high),
        }
    }

    fn is_positive(&self) -> bool {
        let positive = |figure: f64| figure.is_finite() && figure > 0.0;
        positive(self.middle) && positive(self.low) && positive(self.high)
    }
}

/// A run is noisy if the rounds of more than this share of its figures are uneven.
const NOISY_SHARE: f64 = 0.25;
/// Rounds are uneven if the best is this many times better than the worst.
const UNEVEN: f64 = 1.3;

impl Results {
    /// No results yet, for the steps of `plan`.
    pub fn new(plan: &Plan, subjects: &[Subject], setting: Setting) -> Self {
        let row = |step: &super::plan::Step| Row {
            label: step.label.clone(),
            about: step.work.about(),
            is_workload: matches!(step.work, Work::Workload(_)),
            writes: step.work.writes(),
            samples: vec![Vec::new(); subjects.len()],
        };
        Self {
            setting,
            subjects: subjects.to_vec(),
            rounds: plan.rounds,
            records: plan.params.records,
            fixed_rate: plan.params.rate_per_s.is_some(),
            rows: plan.steps.iter().map(row).collect(),
            failures: Vec::new(),
            took: Duration::ZERO,
        }
    }

    /// Adds what a step gave in one round of a subject.
    pub fn add(&mut self, step: usize, subject: usize, sample: Sample) {
        let row = self.rows.get_mut(step);
        if let Some(samples) = row.and_then(|row| row.samples.get_mut(subject)) {
            samples.push(sample);
        }
    }

    /// True if more than one was run, so that one can be better.
    pub fn is_comparison(&self) -> bool {
        self.subjects.len() > 1
    }

    /// The names of the subjects, for programs.
    pub fn names(&self) -> Vec<&'static str> {
        self.subjects.iter().map(|subject| subject.name).collect()
    }

    /// The settings of a subject, as its store told them in the first step that says so.
    pub fn settings(&self, subject: usize) -> Option<&str> {
        let samples = self.rows.iter().flat_map(|row| row.samples(subject));
        let mut settings = samples.filter_map(|sample| sample.raw["settings"].as_str());
        settings.next()
    }

    /// The workloads.
    pub fn workloads(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.is_workload)
    }

    /// What the subjects are compared by, workloads first.
    pub fn contests(&self) -> Vec<Contest> {
        let mut contests = self.contests_of(true);
        contests.append(&mut self.trade_offs());
        contests
    }

    /// The figures of the trade-off runs.
    pub fn trade_offs(&self) -> Vec<Contest> {
        self.contests_of(false)
    }

    fn contests_of(&self, workloads: bool) -> Vec<Contest> {
        let unsure = !self.doubts().is_empty();
        let rows = self.rows.iter();
        let rows = rows.filter(|row| row.is_workload == workloads);
        rows.flat_map(|row| row.contests(self.fixed_rate, unsure))
            .collect()
    }

    /// Everything that makes the verdicts uncertain.
    pub fn doubts(&self) -> Vec<Doubt> {
        let usual = |name: &str| {
            let subjects = 0..self.subjects.len();
            let figures: Vec<f64> = self
                .workloads()
                .flat_map(|row| subjects.clone().filter_map(|at| row.median(at, name)))
                .collect();
            Some(median(&figures)).filter(|figure| figure.is_finite())
        };
        self.setting.conditions.doubts(&Effort {
            rounds: self.rounds,
            records: self.records,
            operations: usual("ops").map(|ops| ops as u64),
            seconds: usual("elapsed_s"),
        })
    }

    /// What is to be said of rounds that differ much: nothing, or a sentence.
    pub fn noise(&self) -> Option<String> {
        let contests = self.contests();
        let uneven = contests
            .iter()
            .filter(|contest| contest.unevenness() >= UNEVEN);
        let uneven = uneven.count();
        (uneven as f64 > contests.len() as f64 * NOISY_SHARE).then(|| {
            format!(
                "The run was noisy: in {uneven} of {} figures the best round is {UNEVEN} times the \
                 worst or more.",
                contests.len()
            )
        })
    }

    /// Everything, for programs.
    pub fn to_json(&self) -> Value {
        let setting = &self.setting;
        let parameters = setting.parameters.iter();
        let doubts = self.doubts();
        let subjects = self.subjects.iter().enumerate().map(|(at, subject)| {
            json!({
                "name": subject.name,
                "title": subject.title,
                "version": subject.version,
                "weaker_in": subject.weaker_in,
                "settings": self.settings(at),
            })
        });
        let failures = self.failures.iter();
        let failures =
            failures.map(|(subject, why)| json!({ "subject": subject.name, "why": why }));
        let rows = self.rows.iter().map(|row| {
            let subjects = self.subjects.iter().zip(&row.samples);
            let rounds: serde_json::Map<_, _> = subjects
                .map(|(subject, samples)| {
                    let samples: Vec<_> = samples.iter().map(|sample| &sample.raw).collect();
                    (subject.name.to_owned(), json!(samples))
                })
                .collect();
            let contests = row.contests(self.fixed_rate, !doubts.is_empty());
            let contests: Vec<_> = contests
                .iter()
                .map(|contest| self.judged(contest))
                .collect();
            json!({
                "label": row.label,
                "about": row.about,
                "kind": if row.is_workload { "workload" } else { "trade-off" },
                "compared": contests,
                "rounds": rounds,
            })
        });
        json!({
            "command": setting.command,
            "version": setting.version,
            "unix_time_s": setting.unix_time_s,
            "machine": {
                "cpu": setting.machine.cpu,
                "cores": setting.machine.cores,
                "memory_bytes": setting.machine.memory_bytes,
                "system": setting.machine.system,
            },
            "parameters": parameters
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect::<serde_json::Map<_, _>>(),
            "rounds": self.rounds,
            "took_s": self.took.as_secs_f64(),
            "engines": self.names(),
            "subjects": subjects.collect::<Vec<_>>(),
            "failures": failures.collect::<Vec<_>>(),
            "conditions": setting.conditions.to_json(),
            "doubts": doubts.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "noisy": self.noise().is_some(),
            "all_answers_checked": true,
            "rows": rows.collect::<Vec<_>>(),
        })
    }

    fn judged(&self, contest: &Contest) -> Value {
        let mut value = json!({
            "id": contest.id,
            "label": contest.label,
            "unit": contest.unit.name(),
            "better": if contest.unit.more_is_better() { "more" } else { "less" },
        });
        for (at, subject) in self.subjects.iter().enumerate() {
            let figures = contest.figures(at);
            value[subject.name] = json!({ "median": median(figures), "samples": figures });
        }
        if self.is_comparison() {
            let verdict = contest.verdict();
            let names = self.names();
            value["winner"] = match verdict.leaders.is_empty() {
                true => Value::Null,
                false => json!(verdict.leaders_text(&names)),
            };
            // Nothing that is infinitely better than nothing is a number in JSON.
            value["factor"] = json!(verdict.factor);
            value["clear"] = json!(verdict.clear);
            value["unsure"] = json!(verdict.unsure);
        }
        value
    }

    /// Every figure of every round on a line of its own.
    pub fn to_csv(&self) -> csv::Result<Vec<u8>> {
        let mut out = csv::Writer::from_writer(Vec::new());
        out.write_record(["workload", "engine", "round", "figure", "value"])?;
        for row in &self.rows {
            for (subject, samples) in self.subjects.iter().zip(&row.samples) {
                for (round, sample) in samples.iter().enumerate() {
                    let round = (round + 1).to_string();
                    let mut write = |figure: &str, value: f64| {
                        let value = value.to_string();
                        out.write_record([&row.label, subject.name, &round, figure, &value])
                    };
                    for (id, _, _, value) in sample.figures() {
                        write(&id, value)?;
                    }
                    for (name, value) in sample.raw.as_object().into_iter().flatten() {
                        if let Some(value) = value.as_f64() {
                            write(name, value)?;
                        }
                    }
                }
            }
        }
        Ok(out.into_inner().expect("a vector takes everything"))
    }
}

/// Results to test rendering with.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::conditions::Conditions;
    use crate::machine::Machine;
    use crate::subject::Variant;

    /// Two rounds of both engines; `queue` is a trade-off run, everything else a workload.
    pub fn results(labels: &[&str]) -> Results {
        results_of(&Variant::ENGINES, labels)
    }

    /// The same of any variants, each better than the one before it.
    pub fn results_of(variants: &[Variant], labels: &[&str]) -> Results {
        let setting = Setting {
            command: "hedgerow bench".into(),
            version: "hedgerow 1".into(),
            machine: Machine::default(),
            conditions: Conditions {
                cores: 2,
                ..Conditions::default()
            },
            parameters: vec![("data", "some".into()), ("machine", "one".into())],
            unix_time_s: 0,
        };
        let mut results = Results {
            setting,
            subjects: variants.iter().map(|variant| variant.subject()).collect(),
            rounds: 2,
            records: 100_000,
            fixed_rate: false,
            rows: Vec::new(),
            failures: Vec::new(),
            took: Duration::ZERO,
        };
        for (step, label) in labels.iter().enumerate() {
            results.rows.push(Row {
                label: (*label).into(),
                about: "about it".into(),
                is_workload: *label != "queue",
                writes: label.starts_with("fill"),
                samples: vec![Vec::new(); variants.len()],
            });
            for nth in 0..variants.len() {
                for round in 0..2 {
                    let scale = (nth * 2 + round + 1) as f64;
                    let raw = match *label {
                        "queue" => trial(scale),
                        _ => workload(scale),
                    };
                    results.add(step, nth, Sample::new(raw));
                }
            }
        }
        results
    }

    fn workload(scale: f64) -> Value {
        json!({
            "workload": "w",
            "settings": "of its own",
            "ops_per_s": 1000.0 * scale,
            "settled_ops_per_s": 500.0 * scale,
            "p99_us": 10.0 / scale,
            "write_amplification": 3.0 * scale,
            "read_amplification": 1.25 * scale,
            "cpu_s_per_million_ops": 1.5,
            "device_read_bytes": 81_920_000,
            "ops": 40_000,
            "elapsed_s": 0.4,
            "tree_bytes": 1200,
            "live_bytes": 1000,
            "writers_slowed_ms": 1,
            "writers_stopped_ms": 2,
            "series_end_s_ops": [[0.1, 100], [0.2, 300], [0.2001, 1]],
            "latencies": [{"kind": "read", "count": 5000, "curve_percent_ns": [[0, 100], [99, 1000], [100, 5e6]]}],
        })
    }

    fn trial(scale: f64) -> Value {
        json!({ "figures": [
            {"id": "turns", "label": "turns", "unit": "operations/s", "value": scale},
            {"id": "disk", "label": "on disk", "unit": "bytes", "value": 4096},
        ]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Variant;

    const LSM: usize = 0;
    const BTREE: usize = 1;

    /// The reasons are said once; the mark is on every verdict.
    #[test]
    fn a_doubtful_run_marks_every_verdict() {
        let mut results = testing::results(&["fillrandom", "queue"]);
        assert_eq!(results.doubts(), []);
        assert!(
            results
                .contests()
                .iter()
                .any(|contest| contest.verdict().clear)
        );
        results.setting.conditions.load_average = Some(9.0);
        assert_eq!(results.doubts().len(), 1);
        for contest in results.contests() {
            let verdict = contest.verdict();
            assert!(verdict.unsure && !verdict.clear);
            assert!(verdict.to_text(&results.names()).ends_with('?'));
        }
        let json = results.to_json();
        assert_eq!(json["rows"][0]["compared"][0]["unsure"], true);
        assert_eq!(json["conditions"]["load_average"], 9.0);
        assert_eq!(json["doubts"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn what_a_usual_step_did_counts() {
        let mut results = testing::results(&["fillrandom", "readrandom"]);
        for row in &mut results.rows {
            for sample in row.samples.iter_mut().flatten() {
                sample.raw["elapsed_s"] = json!(0.003);
            }
        }
        assert_eq!(results.doubts(), [Doubt::Short(0.003)]);
        for row in &mut results.rows {
            for sample in row.samples.iter_mut().flatten() {
                sample.raw["ops"] = json!(12);
            }
        }
        assert_eq!(results.doubts(), [Doubt::FewOperations(12)]);
    }

    #[test]
    fn uneven_rounds_are_noise() {
        // The rounds of the first subject differ twofold.
        let results = testing::results(&["fillrandom", "readrandom"]);
        let said = results.noise().unwrap();
        assert!(said.contains("in 2 of 2 figures"), "{said}");
        let mut even = results;
        for row in &mut even.rows {
            for samples in &mut row.samples {
                samples.truncate(1);
            }
        }
        assert_eq!(even.noise(), None);
    }

    #[test]
    fn three_subjects_have_three_columns() {
        let results = testing::results_of(&Variant::ALL, &["fillrandom", "queue"]);
        assert_eq!(results.names(), ["lsm", "lsm-skiplist", "btree"]);
        let contests = results.contests();
        assert_eq!(contests[0].rounds.len(), 3);
        assert_eq!(
            contests[0].verdict().to_text(&results.names()),
            "btree 1.6x"
        );
        assert!(contests[2].verdict().is_even());
        let json = results.to_json();
        assert_eq!(json["engines"][1], "lsm-skiplist");
        assert_eq!(json["subjects"][1]["name"], "lsm-skiplist");
        assert_eq!(json["subjects"][1]["settings"], "of its own");
        let version = json["subjects"][1]["version"].as_str().unwrap();
        assert!(version.starts_with("hedgerow "), "{version}");
        assert!(json["rows"][0]["rounds"]["lsm-skiplist"].is_array());
        let csv = String::from_utf8(results.to_csv().unwrap()).unwrap();
        assert!(csv.contains("queue,lsm-skiplist,1,turns,3\n"), "{csv}");
    }

    #[test]
    fn figures_of_the_rounds_are_summed_up() {
        let results = testing::results(&["fillrandom", "readrandom", "queue"]);
        let contests = results.contests();
        let ids: Vec<_> = contests.iter().map(|contest| contest.id.as_str()).collect();
        assert_eq!(ids, ["settled_ops_per_s", "ops_per_s", "turns", "disk"]);
        assert_eq!(contests[0].rounds[LSM], [500.0, 1000.0]);
        assert_eq!(contests[0].show_range(LSM), "750 /s (500 /s–1000 /s)");
        assert_eq!(contests[0].show(LSM), "750 /s ±33%");
        let verdict = contests[0].verdict();
        assert_eq!((verdict.winner(), verdict.clear), (Some(BTREE), true));
        assert_eq!(contests[3].verdict().winner(), None);
        assert_eq!(contests[3].show(BTREE), "4.0 KiB");
        assert_eq!(
            contests[1].advantage(LSM, BTREE).unwrap(),
            Spread {
                middle: 1500.0 / 3500.0,
                low: 1000.0 / 4000.0,
                high: 2000.0 / 3000.0,
            }
        );
    }

    #[test]
    fn a_series_becomes_a_rate() {
        let results = testing::results(&["readrandom"]);
        let sample = results.rows[0].typical(LSM).unwrap();
        let throughput = sample.throughput();
        assert_eq!(throughput.len(), 2, "the rest of an interval is left out");
        assert!((throughput[1].1 - 3000.0).abs() < 1e-6);
        assert_eq!(sample.latencies()[0].points[1], (99.0, 1.0));
        assert_eq!(sample.latencies()[0].measured, 5000);
        assert_eq!(sample.figure("writers_held_ms"), Some(3.0));
        assert_eq!(sample.figure("tree_space_amplification"), Some(1.2));
        assert_eq!(sample.figure("fetched_bytes_per_op"), Some(2048.0));
        assert_eq!(sample.figure("absent"), None);
    }

    #[test]
    fn at_a_fixed_rate_latency_decides() {
        let mut results = testing::results(&["readrandom"]);
        results.fixed_rate = true;
        for samples in &mut results.rows[0].samples {
            for sample in samples {
                sample.raw["offered_per_s"] = json!(10);
            }
        }
        let contests = results.contests();
        assert_eq!(contests[0].id, "p99_us");
        assert_eq!(contests[0].verdict().winner(), Some(BTREE));
    }

    #[test]
    fn json_and_csv_have_every_round() {
        let results = testing::results(&["fillrandom", "queue"]);
        let json = results.to_json();
        assert_eq!(json["rows"][0]["compared"][0]["winner"], "btree");
        assert_eq!(json["rows"][0]["rounds"]["lsm"][1]["ops_per_s"], 2000.0);
        assert_eq!(
            json["rows"][1]["compared"][0]["btree"]["samples"],
            json!([3.0, 4.0])
        );
        let csv = String::from_utf8(results.to_csv().unwrap()).unwrap();
        assert!(csv.contains("fillrandom,btree,2,ops_per_s,4000\n"), "{csv}");
        assert!(csv.contains("queue,lsm,1,turns,1\n"), "{csv}");
    }

    #[test]
    fn blocks_touched_are_in_every_form_of_the_results() {
        let results = testing::results(&["readrandom"]);
        assert_eq!(
            results.rows[0].median(BTREE, "read_amplification"),
            Some(1.25 * 3.5)
        );
        let json = results.to_json();
        let sample = &json["rows"][0]["rounds"]["lsm"][1];
        assert_eq!(sample["read_amplification"], 2.5);
        let csv = String::from_utf8(results.to_csv().unwrap()).unwrap();
        let line = "readrandom,btree,2,read_amplification,5\n";
        assert!(csv.contains(line), "{csv}");
    }

    #[test]
    fn figures_are_short() {
        for (figure, shown) in [
            (0.0, "0"),
            (9.999, "10.0"),
            (233.4, "233"),
            (999.6, "1.00k"),
            (999_600.0, "1.00M"),
            (2.5e9, "2.50G"),
        ] {
            assert_eq!(short(figure), shown);
        }
        assert_eq!(Cost::Micros.show(Some(1500.0)), "1.5 ms");
        assert_eq!(Cost::Micros.show(Some(2e6)), "2.0 s");
        assert_eq!(Cost::Plain.show(None), "–");
    }
}
