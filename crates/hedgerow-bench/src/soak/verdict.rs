//! Whether something grows with the rounds.
//!
//! The rule: of each phase the first quarter of its rounds is left out, in which caches and files
//! find their size; the rest is cut in half. A measure grows if in some phase the median of the
//! second half is above that of the first by more than its tolerance, a share and a constant, and
//! that of the last rounds is so as well: what came back is none. With fewer than [`ROUNDS_MIN`]
//! rounds nothing is said, and nothing of latency where a phase takes less than a second.

use std::fmt;

use crate::format::bytes;

/// Rounds from which on there is a verdict.
pub(super) const ROUNDS_MIN: usize = 6;

/// What is looked at, and how much more of it is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measure {
    pub(super) what: &'static str,
    pub(super) share: f64,
    pub(super) constant: f64,
    pub(super) show: fn(f64) -> String,
}

fn show_bytes(value: f64) -> String {
    bytes(value as u64)
}

fn show_count(value: f64) -> String {
    format!("{value:.0}")
}

fn show_ns(value: f64) -> String {
    format!("{:.3} ms", value / 1e6)
}

/// All measures. Processors are shared with others, so latency is given more.
pub(super) const MEASURES: [Measure; 5] = [
    Measure {
        what: "disk",
        share: 0.1,
        constant: (4 << 20) as f64,
        show: show_bytes,
    },
    Measure {
        what: "memory",
        share: 0.1,
        constant: (8 << 20) as f64,
        show: show_bytes,
    },
    Measure {
        what: "descriptors",
        share: 0.0,
        constant: 4.0,
        show: show_count,
    },
    Measure {
        what: "threads",
        share: 0.0,
        constant: 0.0,
        show: show_count,
    },
    Measure {
        what: "latency",
        share: 1.0,
        constant: 1e6,
        show: show_ns,
    },
];

/// What the rounds say of a measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Within its tolerance.
    Flat,
    /// From the first to the second half of the rounds that count, in this phase.
    Growing {
        /// The phase.
        phase: &'static str,
        /// The median of the first half.
        from: f64,
        /// The median of the second.
        to: f64,
    },
    /// There were too few rounds, or they were too short.
    TooShort,
    /// The platform does not tell.
    Unknown,
}

/// A measure, and the verdict on it.
#[derive(Debug, Clone, Copy)]
pub struct Judgement {
    /// `disk`, `memory`, `descriptors`, `threads` or `latency` (the 99th percentile).
    pub what: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    show: fn(f64) -> String,
}

impl Judgement {
    /// Whether it grows.
    pub fn is_growing(&self) -> bool {
        matches!(self.verdict, Verdict::Growing { .. })
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what;
        match self.verdict {
            Verdict::Flat => write!(f, "{what}: flat"),
            Verdict::Growing { phase, from, to } => {
                let (from, to) = ((self.show)(from), (self.show)(to));
                write!(f, "{what}: GROWING, from {from} to {to} after {phase}")
            }
            Verdict::TooShort => write!(f, "{what}: too short a life for a verdict"),
            Verdict::Unknown => write!(f, "{what}: unknown on this platform"),
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

impl Measure {
    /// The judgement of a life that was too short.
    pub(super) fn too_short(&self) -> Judgement {
        Judgement {
            what: self.what,
            verdict: Verdict::TooShort,
            show: self.show,
        }
    }
}

/// Judges a measure by its values in the rounds of each phase.
pub(super) fn judge(measure: &Measure, phases: &[(&'static str, Vec<Option<f64>>)]) -> Judgement {
    let judgement = |verdict| Judgement {
        what: measure.what,
        verdict,
        show: measure.show,
    };
    let mut worst: Option<(f64, Verdict)> = None;
    for (phase, values) in phases {
        if values.len() < ROUNDS_MIN {
            return judgement(Verdict::TooShort);
        }
        let Some(values) = values.iter().copied().collect::<Option<Vec<f64>>>() else {
            return judgement(Verdict::Unknown);
        };
        let counted = &values[values.len() / 4..];
        let (first, second) = counted.split_at(counted.len() / 2);
        let last = &second[second.len() / 2..];
        let (from, to) = (median(first), median(second));
        let excess = to - from * (1.0 + measure.share) - measure.constant;
        let goes_on = median(last) > from * (1.0 + measure.share) + measure.constant;
        if excess > 0.0 && goes_on && worst.as_ref().is_none_or(|(most, _)| excess > *most) {
            let phase = *phase;
            worst = Some((excess, Verdict::Growing { phase, from, to }));
        }
    }
    judgement(worst.map_or(Verdict::Flat, |(_, verdict)| verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(measure: usize, values: impl Iterator<Item = f64>) -> Verdict {
        let values = values.map(Some).collect();
        judge(&MEASURES[measure], &[("reads", values)]).verdict
    }

    const MIB: f64 = (1 << 20) as f64;

    #[test]
    fn what_rises_with_the_rounds_grows() {
        let rising = |n: u32| 100.0 * MIB + f64::from(n) * 10.0 * MIB;
        assert!(matches!(
            verdict(0, (0..12).map(rising)),
            Verdict::Growing { phase: "reads", .. }
        ));
        // A descriptor a round, and one thread.
        assert!(matches!(
            verdict(2, (0..16).map(f64::from)),
            Verdict::Growing { .. }
        ));
        let one_more = (0..12).map(|n| if n < 7 { 5.0 } else { 6.0 });
        assert!(matches!(verdict(3, one_more), Verdict::Growing { .. }));
    }

    #[test]
    fn what_finds_its_size_or_wavers_is_flat() {
        let filling = |n: u32| 200.0 * MIB * (1.0 - 0.1_f64.powi(n as i32));
        assert_eq!(verdict(0, (0..12).map(filling)), Verdict::Flat);
        let wavering = |n: u32| 100.0 * MIB + f64::from(n % 3) * 40.0 * MIB;
        assert_eq!(verdict(1, (0..12).map(wavering)), Verdict::Flat);
        assert_eq!(
            verdict(4, (0..12).map(|n| f64::from(n) * 5e4)),
            Verdict::Flat
        );
        // It went up once, and came back.
        let hill = (0..12).map(|n| if (6..9).contains(&n) { 50.0 } else { 5.0 });
        assert_eq!(verdict(2, hill), Verdict::Flat);
    }

    #[test]
    fn little_is_no_verdict() {
        assert_eq!(verdict(0, (0..5).map(f64::from)), Verdict::TooShort);
        let unknown = vec![None; 8];
        let judged = judge(&MEASURES[1], &[("reads", unknown)]);
        assert_eq!(judged.verdict, Verdict::Unknown);
        assert_eq!(judged.to_string(), "memory: unknown on this platform");
    }
}
