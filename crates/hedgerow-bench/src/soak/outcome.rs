//! What a long life showed, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::plan::{PHASES, Plan, Sample};
use super::verdict::{Judgement, MEASURES, Measure, judge};
use crate::format::{WIDTH, bytes, table_within, thousands, wrap};
use crate::histogram::Histogram;

/// How long each phase must take for a verdict on latency. Reopening may take less.
const LATENCY_NEEDS: Duration = Duration::from_secs(1);

/// What was planned, and what was seen.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was done.
    pub plan: Plan,
    /// How long it took, without filling the store.
    pub elapsed: Duration,
    /// One for each phase of each round, in their order.
    pub samples: Vec<Sample>,
}

impl Sample {
    /// The measures, in the order of their list.
    fn measures(&self) -> [Option<f64>; MEASURES.len()] {
        let handles = self.handles;
        [
            Some(self.disk_bytes as f64),
            self.memory_bytes.map(|bytes| bytes as f64),
            handles.map(|handles| handles.descriptors as f64),
            handles.map(|handles| handles.threads as f64),
            Some(self.latency_ns.percentile(99.0) as f64),
        ]
    }
}

impl Outcome {
    fn of_phase(&self, phase: usize) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |it| it.phase == phase)
    }

    /// What grows, and what does not: the verdict on each measure.
    pub fn judgements(&self) -> Vec<Judgement> {
        let timed = self.samples.iter().filter(|it| it.phase + 1 < PHASES.len());
        let quickest = timed.map(|sample| sample.elapsed).min();
        let is_quick = quickest.is_none_or(|elapsed| elapsed < LATENCY_NEEDS);
        let judged = |(at, measure): (usize, &Measure)| {
            if measure.what == "latency" && is_quick {
                return measure.too_short();
            }
            let phases: Vec<_> = PHASES
                .iter()
                .enumerate()
                .map(|(phase, name)| {
                    let values = self.of_phase(phase).map(|sample| sample.measures()[at]);
                    (*name, values.collect())
                })
                .collect();
            judge(measure, &phases)
        };
        MEASURES.iter().enumerate().map(judged).collect()
    }

    /// A table by phase, and the verdicts.
    pub fn to_text(&self) -> String {
        let head = [
            "phase", "timed/s", "p50 us", "p99 us", "max ms", "disk", "log", "memory", "files",
            "threads",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for (phase, name) in PHASES.iter().enumerate() {
            let mut latency = Histogram::new();
            let (mut operations, mut elapsed) = (0, Duration::ZERO);
            let mut last = None;
            for sample in self.of_phase(phase) {
                latency.merge(&sample.latency_ns);
                operations += sample.operations;
                elapsed += sample.elapsed;
                last = Some(sample);
            }
            let Some(last) = last else { continue };
            let rate = operations as f64 / elapsed.as_secs_f64().max(1e-9);
            let micros = |percent| format!("{:.1}", latency.percentile(percent) as f64 / 1e3);
            let unknown = || "-".to_owned();
            let count = |of: fn(&crate::machine::Handles) -> u64| {
                last.handles
                    .as_ref()
                    .map_or_else(unknown, |it| thousands(of(it)))
            };
            rows.push(vec![
                (*name).to_owned(),
                thousands(rate as u64),
                micros(50.0),
                micros(99.0),
                format!("{:.1}", latency.max() as f64 / 1e6),
                bytes(last.disk_bytes),
                bytes(last.log_bytes),
                last.memory_bytes.map_or_else(unknown, bytes),
                count(|handles| handles.descriptors),
                count(|handles| handles.threads),
            ]);
        }
        let mut text = table_within(&rows, 1, WIDTH);
        let legend = "After the last round; rates and latencies of all rounds. Not every operation \
                      is timed: timed/s counts those that are, over all the time of a phase.";
        text.push_str(&format!("\n\n{}\n", wrap(legend, 0, WIDTH)));
        for judgement in self.judgements() {
            text.push_str(&format!("{judgement}\n"));
        }
        text.pop();
        text
    }

    /// Everything.
    pub fn to_json(&self) -> Value {
        let sample = |(at, sample): (usize, &Sample)| {
            json!({
                "round": at / PHASES.len() + 1,
                "phase": PHASES[sample.phase],
                "operations": sample.operations,
                "elapsed_s": sample.elapsed.as_secs_f64(),
                "p50_ns": sample.latency_ns.percentile(50.0),
                "p99_ns": sample.latency_ns.percentile(99.0),
                "max_ns": sample.latency_ns.max(),
                "disk_bytes": sample.disk_bytes,
                "log_bytes": sample.log_bytes,
                "memory_bytes": sample.memory_bytes,
                "descriptors": sample.handles.map(|handles| handles.descriptors),
                "threads": sample.handles.map(|handles| handles.threads),
            })
        };
        let judgement = |judgement: &Judgement| {
            json!({
                "what": judgement.what,
                "growing": judgement.is_growing(),
                "text": judgement.to_string(),
            })
        };
        json!({
            "engine": self.plan.engine.name(),
            "size_bytes": self.plan.size_bytes,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "samples": self.samples.iter().enumerate().map(sample).collect::<Vec<_>>(),
            "verdicts": self.judgements().iter().map(judgement).collect::<Vec<_>>(),
        })
    }
}
