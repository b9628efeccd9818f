//! The figures of all rounds: medians, who wins, a table and JSON.

use hedgerow::EngineKind;
use serde_json::{Value, json};

use super::measure::{MEASURES, Samples};
use crate::format::table;
use crate::verdict::{judge, median};

/// The figures of a comparison.
#[derive(Debug, Default)]
pub struct Report {
    /// Of the LSM tree.
    pub lsm: Samples,
    /// Of the B-tree.
    pub btree: Samples,
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
                measure.unit.show(median(lsm)),
                measure.unit.show(median(btree)),
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

#[cfg(test)]
mod tests {
    use super::*;

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
