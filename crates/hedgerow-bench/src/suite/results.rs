//! What all rounds gave: samples per step and engine, their medians, and which engine is better.

use std::collections::BTreeMap;

use hedgerow::EngineKind;
use serde_json::{Value, json};

use super::plan::{Plan, Work};
use crate::machine::Machine;
use crate::verdict::{self, Unit, Verdict, judge, median};

/// What one step gave in one round on one engine: the object that the child printed.
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
    samples: BTreeMap<EngineKind, Vec<Sample>>,
}

/// A figure of a row that both engines have, or the one engine that was run.
#[derive(Debug, Clone)]
pub struct Contest {
    /// What is compared: the workload, or the trade-off run and its figure.
    pub label: String,
    /// The name of the figure for programs.
    pub id: String,
    /// What it counts.
    pub unit: Unit,
    /// Figures of the rounds.
    pub lsm: Vec<f64>,
    /// Figures of the rounds.
    pub btree: Vec<f64>,
}

/// The circumstances of a run: what a reader must know to believe it, or to repeat it.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The command line.
    pub command: String,
    /// Version of hedgerow.
    pub version: String,
    /// The machine.
    pub machine: Machine,
    /// The parameters in words: name and value.
    pub parameters: Vec<(&'static str, String)>,
    /// When it was run, in seconds since 1970.
    pub unix_time_s: u64,
}

/// The results of all rounds.
#[derive(Debug, Clone)]
pub struct Results {
    /// How they came about.
    pub setting: Setting,
    /// The engines that were run.
    pub engines: Vec<EngineKind>,
    /// Rounds for each engine.
    pub rounds: u32,
    /// True if operations were offered at a fixed rate, so that latency is what is compared.
    pub fixed_rate: bool,
    /// The steps.
    pub rows: Vec<Row>,
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

    /// Latency curves: the kind of operation, and points of per cent and microseconds.
    pub fn latencies(&self) -> Vec<(String, Vec<(f64, f64)>)> {
        let kinds = self.raw["latencies"].as_array().into_iter().flatten();
        kinds
            .filter_map(|kind| {
                let points = pairs(&kind["curve_percent_ns"]);
                let points = points
                    .into_iter()
                    .map(|(percent, nanos)| (percent, nanos / 1e3))
                    .collect();
                Some((kind["kind"].as_str()?.to_owned(), points))
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
    /// The samples of an engine, in the order of the rounds.
    pub fn samples(&self, engine: EngineKind) -> &[Sample] {
        self.samples.get(&engine).map_or(&[], Vec::as_slice)
    }

    /// A figure of all rounds.
    pub fn figures(&self, engine: EngineKind, name: &str) -> Vec<f64> {
        let samples = self.samples(engine).iter();
        samples.filter_map(|sample| sample.figure(name)).collect()
    }

    /// The median of a figure, if there is one.
    pub fn median(&self, engine: EngineKind, name: &str) -> Option<f64> {
        Some(median(&self.figures(engine, name))).filter(|median| median.is_finite())
    }

    /// The round in the middle by throughput: the one that curves are drawn of.
    pub fn typical(&self, engine: EngineKind) -> Option<&Sample> {
        let mut samples: Vec<_> = self.samples(engine).iter().collect();
        let rate = |sample: &Sample| sample.figure("ops_per_s").unwrap_or(0.0);
        samples.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
        samples.get(samples.len() / 2).copied()
    }

    /// What the engines are compared by: throughput of a workload, with the work that writes put
    /// off; its 99th percentile at a fixed rate; every figure of a trade-off run.
    pub fn contests(&self, fixed_rate: bool) -> Vec<Contest> {
        if self.is_workload {
            let offered = |engine| self.median(engine, "offered_per_s").is_some();
            let paced = EngineKind::ALL.into_iter().any(offered);
            let (id, unit) = match (fixed_rate && paced, self.writes) {
                (true, _) => ("p99_us", Unit::Microseconds),
                (_, true) => ("settled_ops_per_s", Unit::PerSecond),
                (_, false) => ("ops_per_s", Unit::PerSecond),
            };
            return vec![Contest {
                label: self.label.clone(),
                id: id.to_owned(),
                unit,
                lsm: self.figures(EngineKind::Lsm, id),
                btree: self.figures(EngineKind::BTree, id),
            }];
        }
        let mut contests: Vec<Contest> = Vec::new();
        for (&engine, samples) in &self.samples {
            for (id, label, unit, value) in samples.iter().flat_map(Sample::figures) {
                let known = contests.iter().position(|contest| contest.id == id);
                let at = known.unwrap_or_else(|| {
                    contests.push(Contest {
                        label: format!("{}: {label}", self.label),
                        id,
                        unit,
                        lsm: Vec::new(),
                        btree: Vec::new(),
                    });
                    contests.len() - 1
                });
                contests[at].of(engine).push(value);
            }
        }
        contests
    }
}

impl Contest {
    fn of(&mut self, engine: EngineKind) -> &mut Vec<f64> {
        match engine {
            EngineKind::Lsm => &mut self.lsm,
            EngineKind::BTree => &mut self.btree,
        }
    }

    /// The figures of an engine.
    pub fn figures(&self, engine: EngineKind) -> &[f64] {
        match engine {
            EngineKind::Lsm => &self.lsm,
            EngineKind::BTree => &self.btree,
        }
    }

    /// Who is better.
    pub fn verdict(&self) -> Verdict {
        judge(self.unit, &self.lsm, &self.btree)
    }

    /// How many times better the LSM tree is: below 1, the B-tree is.
    pub fn lsm_advantage(&self) -> Option<f64> {
        let (lsm, btree) = (median(&self.lsm), median(&self.btree));
        let ratio = match self.unit.more_is_better() {
            true => lsm / btree,
            false => btree / lsm,
        };
        Some(ratio).filter(|ratio| ratio.is_finite() && *ratio > 0.0)
    }

    /// The median of an engine with the smallest and largest figure; a dash if there is none.
    pub fn show(&self, engine: EngineKind) -> String {
        let figures = self.figures(engine);
        if figures.is_empty() {
            return "–".to_owned();
        }
        let show = |figure| self.unit.show(figure);
        let (low, high) = (verdict::min(figures), verdict::max(figures));
        match show(low) == show(high) {
            true => show(median(figures)),
            false => format!("{} ({}–{})", show(median(figures)), show(low), show(high)),
        }
    }
}

impl Results {
    /// No results yet, for the steps of `plan`.
    pub fn new(plan: &Plan, engines: &[EngineKind], setting: Setting) -> Self {
        let row = |step: &super::plan::Step| Row {
            label: step.label.clone(),
            about: step.work.about(),
            is_workload: matches!(step.work, Work::Workload(_)),
            writes: step.work.writes(),
            samples: BTreeMap::new(),
        };
        Self {
            setting,
            engines: engines.to_vec(),
            rounds: plan.rounds,
            fixed_rate: plan.params.rate_per_s.is_some(),
            rows: plan.steps.iter().map(row).collect(),
        }
    }

    /// Adds what a step gave in one round.
    pub fn add(&mut self, step: usize, engine: EngineKind, sample: Sample) {
        if let Some(row) = self.rows.get_mut(step) {
            row.samples.entry(engine).or_default().push(sample);
        }
    }

    /// True if both engines were run, so that one can be better.
    pub fn is_comparison(&self) -> bool {
        self.engines.len() == 2
    }

    /// The workloads.
    pub fn workloads(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.is_workload)
    }

    /// What the engines are compared by, workloads first.
    pub fn contests(&self) -> Vec<Contest> {
        let of = |workloads: bool| {
            let rows = self.rows.iter();
            rows.filter(move |row| row.is_workload == workloads)
                .flat_map(|row| row.contests(self.fixed_rate))
        };
        of(true).chain(of(false)).collect()
    }

    /// Everything, for programs.
    pub fn to_json(&self) -> Value {
        let setting = &self.setting;
        let parameters = setting.parameters.iter();
        let rows = self.rows.iter().map(|row| {
            let engines: serde_json::Map<_, _> = row
                .samples
                .iter()
                .map(|(engine, samples)| {
                    let samples: Vec<_> = samples.iter().map(|sample| &sample.raw).collect();
                    (engine.name().to_owned(), json!(samples))
                })
                .collect();
            let contests = row.contests(self.fixed_rate);
            let contests: Vec<_> = contests
                .iter()
                .map(|contest| self.judged(contest))
                .collect();
            json!({
                "label": row.label,
                "about": row.about,
                "kind": if row.is_workload { "workload" } else { "trade-off" },
                "compared": contests,
                "rounds": engines,
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
            "engines": self.engines.iter().map(|engine| engine.name()).collect::<Vec<_>>(),
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
        for &engine in &self.engines {
            let figures = contest.figures(engine);
            value[engine.name()] = json!({ "median": median(figures), "samples": figures });
        }
        if self.is_comparison() {
            let verdict = contest.verdict();
            value["winner"] = json!(verdict.winner.map_or("even", EngineKind::name));
            value["factor"] = json!(verdict.factor);
            value["clear"] = json!(verdict.clear);
        }
        value
    }

    /// Every figure of every round on a line of its own.
    pub fn to_csv(&self) -> csv::Result<Vec<u8>> {
        let mut out = csv::Writer::from_writer(Vec::new());
        out.write_record(["workload", "engine", "round", "figure", "value"])?;
        for row in &self.rows {
            for (engine, samples) in &row.samples {
                for (round, sample) in samples.iter().enumerate() {
                    let round = (round + 1).to_string();
                    let mut write = |figure: &str, value: f64| {
                        let value = value.to_string();
                        out.write_record([&row.label, engine.name(), &round, figure, &value])
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

    /// Two rounds on both engines; `queue` is a trade-off run, everything else a workload.
    pub fn results(labels: &[&str]) -> Results {
        let setting = Setting {
            command: "hedgerow bench".into(),
            version: "hedgerow 1".into(),
            machine: Machine::default(),
            parameters: vec![("data", "some".into()), ("machine", "one".into())],
            unix_time_s: 0,
        };
        let mut results = Results {
            setting,
            engines: EngineKind::ALL.to_vec(),
            rounds: 2,
            fixed_rate: false,
            rows: Vec::new(),
        };
        for (step, label) in labels.iter().enumerate() {
            results.rows.push(Row {
                label: (*label).into(),
                about: "about it".into(),
                is_workload: *label != "queue",
                writes: label.starts_with("fill"),
                samples: BTreeMap::new(),
            });
            for (nth, engine) in EngineKind::ALL.into_iter().enumerate() {
                for round in 0..2 {
                    let scale = (nth * 2 + round + 1) as f64;
                    let raw = match *label {
                        "queue" => trial(scale),
                        _ => workload(scale),
                    };
                    results.add(step, engine, Sample::new(raw));
                }
            }
        }
        results
    }

    fn workload(scale: f64) -> Value {
        json!({
            "workload": "w",
            "ops_per_s": 1000.0 * scale,
            "settled_ops_per_s": 500.0 * scale,
            "p99_us": 10.0 / scale,
            "write_amplification": 3.0 * scale,
            "read_amplification": 1.25 * scale,
            "cpu_s_per_million_ops": 1.5,
            "device_read_bytes": 8192,
            "ops": 4,
            "tree_bytes": 1200,
            "live_bytes": 1000,
            "writers_slowed_ms": 1,
            "writers_stopped_ms": 2,
            "series_end_s_ops": [[0.1, 100], [0.2, 300], [0.2001, 1]],
            "latencies": [{"kind": "read", "curve_percent_ns": [[0, 100], [99, 1000], [100, 5e6]]}],
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

    #[test]
    fn figures_of_the_rounds_are_summed_up() {
        let results = testing::results(&["fillrandom", "readrandom", "queue"]);
        let contests = results.contests();
        let ids: Vec<_> = contests.iter().map(|contest| contest.id.as_str()).collect();
        assert_eq!(ids, ["settled_ops_per_s", "ops_per_s", "turns", "disk"]);
        assert_eq!(contests[0].lsm, [500.0, 1000.0]);
        assert_eq!(contests[0].show(EngineKind::Lsm), "750 /s (500 /s–1000 /s)");
        let verdict = contests[0].verdict();
        assert_eq!(
            (verdict.winner, verdict.clear),
            (Some(EngineKind::BTree), true)
        );
        assert_eq!(contests[3].verdict().winner, None);
        assert_eq!(contests[3].show(EngineKind::BTree), "4.0 KiB");
        assert_eq!(contests[1].lsm_advantage(), Some(1500.0 / 3500.0));
    }

    #[test]
    fn a_series_becomes_a_rate() {
        let results = testing::results(&["readrandom"]);
        let sample = results.rows[0].typical(EngineKind::Lsm).unwrap();
        let throughput = sample.throughput();
        assert_eq!(throughput.len(), 2, "the rest of an interval is left out");
        assert!((throughput[1].1 - 3000.0).abs() < 1e-6);
        assert_eq!(sample.latencies()[0].1[1], (99.0, 1.0));
        assert_eq!(sample.figure("writers_held_ms"), Some(3.0));
        assert_eq!(sample.figure("tree_space_amplification"), Some(1.2));
        assert_eq!(sample.figure("fetched_bytes_per_op"), Some(2048.0));
        assert_eq!(sample.figure("absent"), None);
    }

    #[test]
    fn at_a_fixed_rate_latency_decides() {
        let mut results = testing::results(&["readrandom"]);
        results.fixed_rate = true;
        for samples in results.rows[0].samples.values_mut() {
            for sample in samples {
                sample.raw["offered_per_s"] = json!(10);
            }
        }
        let contests = results.contests();
        assert_eq!(contests[0].id, "p99_us");
        assert_eq!(contests[0].verdict().winner, Some(EngineKind::BTree));
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
            results.rows[0].median(EngineKind::BTree, "read_amplification"),
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
