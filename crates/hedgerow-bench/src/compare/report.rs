//! The figures of all rounds: medians, who wins, a table and JSON.

use hedgerow::EngineKind;
use serde_json::{Value, json};

use super::data::Data;
use super::measure::{MEASURES, Measure, Samples};
use crate::conditions::{Conditions, Doubt, Effort};
use crate::format::{WIDTH, table_within};
use crate::verdict::{Verdict, judge, median};

/// The engines in the order of the columns.
const NAMES: [&str; 2] = ["lsm", "btree"];

/// The figures of a comparison.
#[derive(Debug, Default)]
pub struct Report {
    /// Of the LSM tree.
    pub lsm: Samples,
    /// Of the B-tree.
    pub btree: Samples,
    /// Everything that makes the verdicts uncertain.
    pub doubts: Vec<Doubt>,
}

impl Report {
    /// The figures of an engine.
    pub fn of(&mut self, engine: EngineKind) -> &mut Samples {
        match engine {
            EngineKind::Lsm => &mut self.lsm,
            EngineKind::BTree => &mut self.btree,
        }
    }

    /// Takes into account where and how the figures were measured.
    pub fn judge_by(&mut self, conditions: &Conditions, data: &Data, rounds: u32) {
        // Loading is what takes longest; the engine that is quicker at it has the shorter run.
        let rates = [&self.lsm, &self.btree].map(|samples| samples.get("load"));
        let rates = rates.into_iter().flatten().map(|rates| median(rates));
        let rate = rates.fold(f64::NAN, f64::max);
        let records = data.records.len() as u64;
        self.doubts = conditions.doubts(&Effort {
            rounds,
            records,
            operations: None,
            seconds: Some(records as f64 / rate).filter(|seconds| seconds.is_finite()),
        });
    }

    fn verdict(&self, measure: &Measure) -> Verdict {
        let rounds = [&self.lsm, &self.btree].map(|samples| &samples[measure.id][..]);
        judge(measure.unit, &rounds).doubted(!self.doubts.is_empty())
    }

    /// The table for people: a row for each measure, with the engine that wins it.
    pub fn to_table(&self) -> String {
        let mut rows = vec![["", "lsm", "btree", "better"].map(str::to_owned).to_vec()];
        for measure in MEASURES {
            let (lsm, btree) = (&self.lsm[measure.id], &self.btree[measure.id]);
            rows.push(vec![
                measure.label.to_owned(),
                measure.unit.show(median(lsm)),
                measure.unit.show(median(btree)),
                self.verdict(measure).to_text(&NAMES),
            ]);
        }
        table_within(&rows, 1, WIDTH)
    }

    /// The measures for programs.
    pub fn to_json(&self) -> Value {
        let figures = |samples: &[f64]| json!({ "median": median(samples), "samples": samples });
        let rows = MEASURES.iter().map(|measure| {
            let (lsm, btree) = (&self.lsm[measure.id], &self.btree[measure.id]);
            let verdict = self.verdict(measure);
            json!({
                "id": measure.id,
                "label": measure.label,
                "unit": measure.unit.name(),
                "better": if measure.unit.more_is_better() { "more" } else { "less" },
                "lsm": figures(lsm),
                "btree": figures(btree),
                "winner": verdict.leaders_text(&NAMES),
                "factor": verdict.factor,
                "clear": verdict.clear,
                "unsure": verdict.unsure,
            })
        });
        Value::Array(rows.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of three rounds, the longest that the units show.
    fn report() -> Report {
        let mut report = Report::default();
        for (nth, engine) in EngineKind::ALL.into_iter().enumerate() {
            for measure in MEASURES {
                let figure = 1_023.96 * 1024.0 * 1024.0 * (nth + 1) as f64;
                let rounds = vec![figure, figure * 1.1, figure * 0.9];
                report.of(engine).insert(measure.id, rounds);
            }
        }
        report
    }

    #[test]
    fn a_full_report_renders() {
        let report = report();
        let table = report.to_table();
        assert_eq!(table.lines().count(), MEASURES.len() + 1);
        assert!(
            table.lines().all(|line| line.chars().count() <= WIDTH),
            "{table}"
        );
        let json = report.to_json();
        assert_eq!(json.as_array().unwrap().len(), MEASURES.len());
        assert_eq!(
            (&json[0]["clear"], &json[0]["unsure"]),
            (&true.into(), &false.into())
        );
    }

    #[test]
    fn doubts_mark_every_verdict() {
        let records = (0..20_000u32).map(|number| super::super::data::Record {
            key: number.to_be_bytes().to_vec(),
            value: Vec::new(),
        });
        let data = Data::new(records.collect(), None).unwrap();
        let conditions = Conditions {
            cores: 2,
            ..Conditions::default()
        };
        let mut report = report();
        report.lsm.insert("load", vec![40_000.0; 3]);
        report.btree.insert("load", vec![20_000.0; 3]);
        report.judge_by(&conditions, &data, 3);
        assert_eq!(report.doubts, [], "half a second is long enough");
        report.lsm.insert("load", vec![2e6; 3]);
        report.judge_by(&conditions, &data, 1);
        assert_eq!(report.doubts, [Doubt::OneRound, Doubt::Short(0.01)]);
        let table = report.to_table();
        assert_eq!(table.matches('?').count(), MEASURES.len(), "{table}");
        assert!(
            table.lines().all(|line| line.chars().count() <= WIDTH),
            "{table}"
        );
    }
}
