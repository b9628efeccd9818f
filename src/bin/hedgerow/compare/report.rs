//! The figures of all rounds: medians, who wins, a table and JSON.

use hedgerow::EngineKind;
use serde_json::{Value, json};

use super::measure::{MEASURES, Samples, Unit};
use crate::output::{bytes, table};

/// Two medians closer than this are called even: rounds differ by as much.
const EVEN_WITHIN: f64 = 1.05;
/// Times that differ by less are called even, whatever their ratio: nobody waits for that.
const EVEN_WITHIN_MS: f64 = 0.5;

/// The figures of a comparison.
#[derive(Debug, Default)]
pub struct Report {
    /// Of the LSM tree.
    pub lsm: Samples,
    /// Of the B-tree.
    pub btree: Samples,
}

/// Who is better at something, and how many times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// None if they are even.
    pub winner: Option<EngineKind>,
    /// At least 1.
    pub factor: f64,
    /// True if the worst round of the winner beats the best of the other.
    pub clear: bool,
}

impl Report {
    /// The figures of an engine.
    pub fn of(&mut self, engine: EngineKind) -> &mut Samples {
        match engine {
            EngineKind::Lsm => &mut self.lsm,
            EngineKind::BTree => &mut self.btree,
        }
    }

    /// The table for people: a row for each measure, with the engine that wins it.
    pub fn to_table(&self) -> String {
        let mut rows = vec![["", "lsm", "btree", "better"].map(str::to_owned).to_vec()];
        for measure in MEASURES {
            let (lsm, btree) = (&self.lsm[measure.id], &self.btree[measure.id]);
            rows.push(vec![
                measure.label.to_owned(),
                show(measure.unit, median(lsm)),
                show(measure.unit, median(btree)),
                judge(measure.unit, lsm, btree).to_text(),
            ]);
        }
        table(&rows)
    }

    /// The measures for programs.
    pub fn to_json(&self) -> Value {
        let figures = |samples: &[f64]| json!({ "median": median(samples), "samples": samples });
        let rows = MEASURES.iter().map(|measure| {
            let (lsm, btree) = (&self.lsm[measure.id], &self.btree[measure.id]);
            let verdict = judge(measure.unit, lsm, btree);
            json!({
                "id": measure.id,
                "label": measure.label,
                "unit": measure.unit.name(),
                "better": if measure.unit.more_is_better() { "more" } else { "less" },
                "lsm": figures(lsm),
                "btree": figures(btree),
                "winner": verdict.winner.map_or("even", EngineKind::name),
                "factor": verdict.factor,
                "clear": verdict.clear,
            })
        });
        Value::Array(rows.collect())
    }
}

impl Unit {
    fn more_is_better(self) -> bool {
        self == Self::PerSecond
    }

    fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "operations/s",
            Self::Bytes => "bytes",
            Self::Times => "times",
            Self::Milliseconds => "ms",
        }
    }
}

impl Verdict {
    fn to_text(self) -> String {
        match self.winner {
            None => "even".to_owned(),
            Some(engine) if self.clear => format!("{engine} {}", times(self.factor)),
            Some(engine) => format!("{engine} ~{}", times(self.factor)),
        }
    }
}

fn times(factor: f64) -> String {
    if factor < 100.0 {
        format!("{factor:.1}x")
    } else {
        format!("{factor:.0}x")
    }
}

/// The middle of the samples; of an even number, the mean of the two in the middle.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

fn judge(unit: Unit, lsm: &[f64], btree: &[f64]) -> Verdict {
    let (a, b) = (median(lsm), median(btree));
    // How many times better the LSM tree is; nothing is infinitely better than zero.
    let ratio = if unit.more_is_better() { a / b } else { b / a };
    let negligible = unit == Unit::Milliseconds && (a - b).abs() < EVEN_WITHIN_MS;
    if !ratio.is_finite() || ratio <= 0.0 || negligible {
        return Verdict {
            winner: None,
            factor: 1.0,
            clear: false,
        };
    }
    let factor = ratio.max(1.0 / ratio);
    let winner = match (factor < EVEN_WITHIN, ratio > 1.0) {
        (true, _) => None,
        (false, true) => Some(EngineKind::Lsm),
        (false, false) => Some(EngineKind::BTree),
    };
    let apart = max(lsm) < min(btree) || max(btree) < min(lsm);
    Verdict {
        winner,
        factor,
        clear: winner.is_some() && apart,
    }
}

fn min(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::INFINITY, f64::min)
}

fn max(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn show(unit: Unit, figure: f64) -> String {
    match unit {
        Unit::PerSecond if figure >= 1e6 => format!("{:.2} M/s", figure / 1e6),
        Unit::PerSecond if figure >= 1e4 => format!("{:.0} k/s", figure / 1e3),
        Unit::PerSecond => format!("{figure:.0} /s"),
        Unit::Bytes => bytes(figure as u64),
        Unit::Times => format!("{figure:.2}x"),
        Unit::Milliseconds if figure < 10.0 => format!("{figure:.2} ms"),
        Unit::Milliseconds => format!("{figure:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_ignore_outliers() {
        assert_eq!(median(&[3.0, 1.0, 200.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
    }

    #[test]
    fn the_better_engine_wins() {
        let winner = |unit, lsm: f64, btree: f64| judge(unit, &[lsm], &[btree]).winner;
        assert_eq!(winner(Unit::PerSecond, 2.0, 1.0), Some(EngineKind::Lsm));
        assert_eq!(winner(Unit::Bytes, 2.0, 1.0), Some(EngineKind::BTree));
        assert_eq!(winner(Unit::Bytes, 1.0, 1.04), None);
        assert_eq!(winner(Unit::Milliseconds, 0.1, 0.5), None);
        assert_eq!(winner(Unit::Bytes, 0.0, 1.0), None);
        assert_eq!(judge(Unit::Bytes, &[1.0], &[3.0]).factor, 3.0);
    }

    #[test]
    fn overlapping_rounds_decide_nothing_clearly() {
        let verdict = judge(Unit::PerSecond, &[1.0, 2.0, 9.0], &[3.0, 4.0, 5.0]);
        assert_eq!(
            (verdict.winner, verdict.clear),
            (Some(EngineKind::BTree), false)
        );
        assert_eq!(verdict.to_text(), "btree ~2.0x");
        let verdict = judge(Unit::PerSecond, &[1.0, 2.0], &[3.0, 4.0]);
        assert!(verdict.clear);
    }

    #[test]
    fn a_full_report_renders() {
        let mut report = Report::default();
        for engine in EngineKind::ALL {
            for (nth, measure) in MEASURES.iter().enumerate() {
                report.of(engine).insert(measure.id, vec![nth as f64 + 1.0]);
            }
        }
        assert_eq!(report.to_table().lines().count(), MEASURES.len() + 1);
        assert_eq!(report.to_json().as_array().unwrap().len(), MEASURES.len());
    }
}
