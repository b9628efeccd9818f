//! What a run of a workload gave, and how it is written down.

use std::time::Duration;

use serde_json::{Value, json};

use crate::distribution::Distribution;
use crate::histogram::Histogram;
use crate::machine::Memory;
use crate::workload::OpKind;

/// Operations between the end of the interval before and the end of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// When the interval ended, since the start of the run.
    pub end: Duration,
    /// Operations in it.
    pub ops: u64,
}

/// Times in which a store did not do what it usually does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stalls {
    /// Intervals with less than a tenth of the median throughput.
    pub slow_intervals: u64,
    /// The longest time in such intervals without a break.
    pub longest: Duration,
    /// Operations, of those whose latency was measured, that took a tenth of a second or more.
    pub long_ops: u64,
}

impl Stalls {
    /// An operation that takes this long is a stall by itself.
    pub const LONG_OP: Duration = Duration::from_millis(100);
    /// A median of fewer intervals says nothing.
    const FEWEST_INTERVALS: usize = 10;

    /// Finds the stalls in a series.
    pub fn of(series: &[Interval], long_ops: u64) -> Self {
        let mut stalls = Self {
            long_ops,
            ..Self::default()
        };
        // The last interval is cut short by the end of the run.
        let whole = &series[..series.len().saturating_sub(1)];
        if whole.len() < Self::FEWEST_INTERVALS {
            return stalls;
        }
        let mut before = Duration::ZERO;
        let mut rates = Vec::with_capacity(whole.len());
        for interval in whole {
            let length = interval.end.saturating_sub(before);
            rates.push((interval.ops as f64 / length.as_secs_f64().max(1e-9), length));
            before = interval.end;
        }
        let mut sorted: Vec<f64> = rates.iter().map(|&(rate, _)| rate).collect();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        let mut current = Duration::ZERO;
        for (rate, length) in rates {
            if rate < median / 10.0 {
                stalls.slow_intervals += 1;
                current += length;
                stalls.longest = stalls.longest.max(current);
            } else {
                current = Duration::ZERO;
            }
        }
        stalls
    }
}

/// The figures of one run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which store.
    pub target: String,
    /// How it was set up.
    pub settings: String,
    /// Which workload, as it was requested.
    pub workload: String,
    /// The distribution of its keys, if it draws them.
    pub distribution: Option<Distribution>,
    /// Threads, without the one that writes beside readers.
    pub threads: usize,
    /// Operations: keys of batches and entries of full scans are counted singly.
    pub ops: u64,
    /// From the first operation to the end of the last.
    pub elapsed: Duration,
    /// From then on until the store had no work left; about zero for reads.
    pub settle: Duration,
    /// Operations a second that were offered, at a fixed rate.
    pub offered_per_s: Option<f64>,
    /// Latencies per kind of operation. A batch or a full scan is one operation here.
    pub latency_ns: Vec<(OpKind, Histogram)>,
    /// Throughput over time.
    pub series: Vec<Interval>,
    /// Its low points.
    pub stalls: Stalls,
    /// CPU time of all threads of the process, settling included.
    pub cpu: Option<Duration>,
    /// The most memory seen during the run.
    pub peak_memory: Option<Memory>,
    /// Bytes of keys and values written by the workload.
    pub user_written_bytes: u64,
    /// Bytes sent to storage, as the kernel counts them, settling included.
    pub device_written_bytes: Option<u64>,
    /// Bytes fetched from storage, as the kernel counts them.
    pub device_read_bytes: Option<u64>,
    /// Bytes written to files, as the store counts them, settling included.
    pub store_written_bytes: Option<u64>,
    /// Blocks or pages touched, as the store counts them.
    pub blocks_read: Option<u64>,
    /// Milliseconds for which the store slowed writers down, settling included.
    pub writers_slowed_ms: Option<u64>,
    /// Milliseconds for which the store stopped writers, settling included.
    pub writers_stopped_ms: Option<u64>,
    /// Bytes that the store's data take at the end, without its log, as the store counts them.
    pub tree_bytes: Option<u64>,
    /// Bytes that the store's files occupy at the end.
    pub disk_bytes: u64,
    /// Bytes of keys and values that a user would say are in the store.
    pub live_bytes: u64,
}

/// `a / b`, unless that is no number.
fn ratio(a: u64, b: u64) -> Option<f64> {
    (b > 0).then(|| a as f64 / b as f64)
}

impl Outcome {
    /// Operations per second while the workload ran.
    pub fn ops_per_s(&self) -> f64 {
        self.ops as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Operations per second if the work that was put off counts as well.
    pub fn settled_ops_per_s(&self) -> f64 {
        self.ops as f64 / (self.elapsed + self.settle).as_secs_f64().max(1e-9)
    }

    /// Bytes sent to storage per byte written by the workload.
    pub fn write_amplification(&self) -> Option<f64> {
        ratio(self.device_written_bytes?, self.user_written_bytes)
    }

    /// Bytes on disk per byte of live data.
    pub fn space_amplification(&self) -> Option<f64> {
        ratio(self.disk_bytes, self.live_bytes)
    }

    /// Blocks or pages touched per operation.
    pub fn read_amplification(&self) -> Option<f64> {
        ratio(self.blocks_read?, self.ops)
    }

    /// CPU seconds per million operations.
    pub fn cpu_s_per_million(&self) -> Option<f64> {
        Some(self.cpu?.as_secs_f64() * 1e6 / self.ops.max(1) as f64)
    }

    /// The latencies of all kinds together.
    pub fn all_latencies(&self) -> Histogram {
        let mut all = Histogram::new();
        for (_, histogram) in &self.latency_ns {
            all.merge(histogram);
        }
        all
    }

    /// The outcome as a JSON object, throughput series and latency curves included. Figures that
    /// are unknown, or by an accident of arithmetic no numbers, are left out.
    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "target": self.target,
            "settings": self.settings,
            "workload": self.workload,
        });
        if let Some(distribution) = self.distribution {
            json["distribution"] = json!(distribution.name());
        }
        for (name, figure) in self.figures() {
            if let Some(figure) = figure.filter(|figure| figure.is_finite()) {
                json[name] = number(figure);
            }
        }
        let latencies = self.latency_ns.iter().map(|(kind, histogram)| {
            json!({
                "kind": kind.name(),
                "count": histogram.count(),
                "mean_ns": number(histogram.mean()),
                "curve_percent_ns": histogram.curve(),
            })
        });
        json["latencies"] = latencies.collect();
        let series = self.series.iter();
        let series = series.map(|interval| json!([interval.end.as_secs_f64(), interval.ops]));
        json["series_end_s_ops"] = series.collect();
        json
    }

    /// The plain figures, by the names of [`FIGURES`].
    fn figures(&self) -> impl Iterator<Item = (&'static str, Option<f64>)> {
        let count = |count: Option<u64>| count.map(|count| count as f64);
        let seconds = |time: Duration| Some(time.as_secs_f64());
        let all = self.all_latencies();
        let percentile =
            |percent| (!all.is_empty()).then(|| all.percentile(percent) as f64 / 1000.0);
        let memory = |of: fn(&Memory) -> u64| count(self.peak_memory.as_ref().map(of));
        let figures = [
            Some(self.threads as f64),
            Some(self.ops as f64),
            seconds(self.elapsed),
            seconds(self.settle),
            Some(self.ops_per_s()),
            Some(self.settled_ops_per_s()),
            self.offered_per_s,
            percentile(50.0),
            percentile(99.0),
            percentile(99.9),
            percentile(100.0),
            Some(self.stalls.slow_intervals as f64),
            seconds(self.stalls.longest),
            Some(self.stalls.long_ops as f64),
            self.cpu.map(|cpu| cpu.as_secs_f64()),
            self.cpu_s_per_million(),
            memory(|memory| memory.resident_bytes),
            memory(|memory| memory.anonymous_bytes),
            Some(self.user_written_bytes as f64),
            count(self.device_written_bytes),
            count(self.device_read_bytes),
            count(self.store_written_bytes),
            count(self.blocks_read),
            count(self.writers_slowed_ms),
            count(self.writers_stopped_ms),
            count(self.tree_bytes),
            Some(self.disk_bytes as f64),
            Some(self.live_bytes as f64),
            self.write_amplification(),
            self.space_amplification(),
            self.read_amplification(),
        ];
        FIGURES.into_iter().zip(figures)
    }
}

/// A figure as JSON: counts have no fraction.
fn number(figure: f64) -> Value {
    /// Up to here every whole number is one of both kinds.
    const WHOLE_MAX: f64 = (1u64 << 53) as f64;
    match figure.fract() == 0.0 && figure.abs() <= WHOLE_MAX {
        true => json!(figure as i64),
        false => json!(figure),
    }
}

/// Names of the figures in JSON, units last.
pub const FIGURES: [&str; 31] = [
    "threads",
    "ops",
    "elapsed_s",
    "settle_s",
    "ops_per_s",
    "settled_ops_per_s",
    "offered_per_s",
    "p50_us",
    "p99_us",
    "p999_us",
    "max_us",
    "slow_intervals",
    "longest_stall_s",
    "long_ops",
    "cpu_s",
    "cpu_s_per_million_ops",
    "peak_resident_bytes",
    "peak_anonymous_bytes",
    "user_written_bytes",
    "device_written_bytes",
    "device_read_bytes",
    "store_written_bytes",
    "blocks_read",
    "writers_slowed_ms",
    "writers_stopped_ms",
    "tree_bytes",
    "disk_bytes",
    "live_bytes",
    "write_amplification",
    "space_amplification",
    "read_amplification",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Outcome {
        let mut histogram = Histogram::new();
        for nanos in 1..=1000 {
            histogram.record(nanos * 1000);
        }
        Outcome {
            target: "store \"x\", new".into(),
            settings: "line\nbreak </script>".into(),
            workload: "ycsb-a:zipfian@2".into(),
            distribution: Some(Distribution::Zipfian),
            threads: 2,
            ops: 1000,
            elapsed: Duration::from_millis(500),
            settle: Duration::from_millis(500),
            offered_per_s: None,
            latency_ns: vec![(OpKind::Read, histogram)],
            series: vec![Interval {
                end: Duration::from_millis(500),
                ops: 1000,
            }],
            stalls: Stalls::default(),
            cpu: Some(Duration::from_secs(2)),
            peak_memory: None,
            user_written_bytes: 500,
            device_written_bytes: Some(1500),
            device_read_bytes: None,
            store_written_bytes: None,
            blocks_read: Some(3000),
            writers_slowed_ms: Some(7),
            writers_stopped_ms: None,
            tree_bytes: Some(3500),
            disk_bytes: 4000,
            live_bytes: 2000,
        }
    }

    #[test]
    fn figures_are_derived() {
        let outcome = example();
        assert_eq!(outcome.ops_per_s(), 2000.0);
        assert_eq!(outcome.settled_ops_per_s(), 1000.0);
        assert_eq!(outcome.write_amplification(), Some(3.0));
        assert_eq!(outcome.space_amplification(), Some(2.0));
        assert_eq!(outcome.read_amplification(), Some(3.0));
        assert_eq!(outcome.cpu_s_per_million(), Some(2000.0));
        assert_eq!(outcome.all_latencies().max(), 1_000_000);
        let nothing = Outcome {
            user_written_bytes: 0,
            live_bytes: 0,
            blocks_read: None,
            ..outcome
        };
        assert_eq!(nothing.write_amplification(), None);
        assert_eq!(nothing.space_amplification(), None);
        assert_eq!(nothing.read_amplification(), None);
    }

    #[test]
    fn json_is_complete() {
        let json = example().to_json();
        assert_eq!(json["target"], "store \"x\", new");
        assert_eq!(json["distribution"], "zipfian");
        assert_eq!(json["ops_per_s"], 2000);
        assert_eq!(json["elapsed_s"], 0.5);
        assert_eq!(json["tree_bytes"], 3500);
        assert_eq!(json["writers_slowed_ms"], 7);
        assert_eq!(json["latencies"][0]["kind"], "read");
        assert_eq!(json["latencies"][0]["count"], 1000);
        assert_eq!(json["latencies"][0]["mean_ns"], 500_500.0);
        assert_eq!(
            json["latencies"][0]["curve_percent_ns"][15],
            json!([100.0, 1_000_000])
        );
        assert_eq!(json["series_end_s_ops"], json!([[0.5, 1000]]));
        let object = json.as_object().unwrap();
        for absent in ["device_read_bytes", "writers_stopped_ms"] {
            assert!(!object.contains_key(absent), "{json}");
        }
        for name in FIGURES {
            let known = object.get(name).is_none_or(serde_json::Value::is_number);
            assert!(known, "{name} in {json}");
        }
        assert_eq!(json.to_string().lines().count(), 1);
    }

    #[test]
    fn stalls_are_found() {
        let at = |i: u64, ops| Interval {
            end: Duration::from_millis(100 * (i + 1)),
            ops,
        };
        let mut series: Vec<_> = (0..20).map(|i| at(i, 100)).collect();
        assert_eq!(Stalls::of(&series, 0), Stalls::default());
        series[3].ops = 5;
        series[4].ops = 0;
        series[9].ops = 9;
        series[12].ops = 11;
        series[19].ops = 0;
        let stalls = Stalls::of(&series, 7);
        assert_eq!((stalls.slow_intervals, stalls.long_ops), (3, 7));
        assert_eq!(stalls.longest, Duration::from_millis(200));
        assert_eq!(Stalls::of(&series[..5], 0), Stalls::default());
        assert_eq!(Stalls::of(&[], 0), Stalls::default());
    }
}
