//! An earlier run to compare with: the file that `--json` wrote then.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::results::Results;
use crate::error::{Error, Result};
use crate::format::{WIDTH, table_within};
use crate::subject::Subject;
use crate::verdict::{median, times};

/// The medians of an earlier run.
#[derive(Debug, Clone)]
pub struct Baseline {
    file: String,
    command: String,
    /// By label, name of the figure, and name of the subject.
    medians: BTreeMap<(String, String, String), f64>,
}

/// A figure of both runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Ratio {
    /// What is compared.
    pub label: String,
    /// The name of the figure for programs.
    pub id: String,
    /// What was measured.
    pub subject: Subject,
    /// The median then.
    pub before: f64,
    /// The median now.
    pub now: f64,
    /// How many times better it is now; below 1 it was better then.
    pub better: f64,
}

impl Baseline {
    /// Reads what `--json` wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .map_err(|source| Error::io("reading the baseline", path, source))?;
        let refuse = || {
            Error::usage(format!(
                "{} holds no results of `hedgerow bench --json`",
                path.display()
            ))
        };
        let value: Value = serde_json::from_str(&text).map_err(|_| refuse())?;
        let baseline = Self::of(&path.display().to_string(), &value);
        baseline.ok_or_else(refuse)
    }

    fn of(file: &str, value: &Value) -> Option<Self> {
        let mut medians = BTreeMap::new();
        for row in value["rows"].as_array()? {
            for compared in row["compared"].as_array()? {
                let text = |name: &str| compared[name].as_str().map(str::to_owned);
                // Whatever else is an object with a median is what somebody's rounds gave.
                for (subject, rounds) in compared.as_object()? {
                    if let Some(figure) = rounds["median"].as_f64() {
                        let key = (text("label")?, text("id")?, subject.clone());
                        medians.insert(key, figure);
                    }
                }
            }
        }
        Some(Self {
            file: file.to_owned(),
            command: value["command"].as_str()?.to_owned(),
            medians,
        })
    }

    /// Every figure that both runs have.
    pub fn ratios(&self, results: &Results) -> Vec<Ratio> {
        let mut ratios = Vec::new();
        for contest in results.contests() {
            for (column, &subject) in results.subjects.iter().enumerate() {
                let key = (
                    contest.label.clone(),
                    contest.id.clone(),
                    subject.name.to_owned(),
                );
                let now = median(contest.figures(column));
                let Some(&before) = self.medians.get(&key) else {
                    continue;
                };
                let better = match contest.unit.more_is_better() {
                    true => now / before,
                    false => before / now,
                };
                if better.is_finite() {
                    ratios.push(Ratio {
                        label: key.0,
                        id: key.1,
                        subject,
                        before,
                        now,
                        better,
                    });
                }
            }
        }
        ratios
    }

    /// The ratios as a table for a terminal.
    pub fn to_text(&self, results: &Results) -> String {
        let ratios = self.ratios(results);
        if ratios.is_empty() {
            return format!("{} has no figure that this run has.", self.file);
        }
        let mut rows = vec![vec![String::new()]];
        rows[0].extend(results.subjects.iter().map(ToString::to_string));
        for contest in results.contests() {
            let of = |subject| {
                let found = ratios.iter().find(|ratio| {
                    (&ratio.label, &ratio.id, ratio.subject)
                        == (&contest.label, &contest.id, subject)
                });
                found.map_or("–".to_owned(), |ratio| times_better(ratio.better))
            };
            let mut row = vec![contest.label.clone()];
            row.extend(results.subjects.iter().map(|&subject| of(subject)));
            rows.push(row);
        }
        format!(
            "Times better than in {} (below 1 it was better then):\n{}",
            self.file,
            table_within(&rows, 1, WIDTH)
        )
    }

    /// The ratios for programs.
    pub fn to_json(&self, results: &Results) -> Value {
        let ratios = self.ratios(results).into_iter().map(|ratio| {
            json!({
                "label": ratio.label,
                "id": ratio.id,
                "engine": ratio.subject.name,
                "before": ratio.before,
                "now": ratio.now,
                "better": ratio.better,
            })
        });
        json!({
            "file": self.file,
            "command": self.command,
            "ratios": ratios.collect::<Vec<_>>(),
        })
    }
}

/// As [`times`], with two digits where one would hide that something has become worse.
fn times_better(ratio: f64) -> String {
    match ratio < 10.0 {
        true => format!("{ratio:.2}x"),
        false => times(ratio),
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::testing;
    use super::*;
    use crate::subject::Variant;

    #[test]
    fn a_run_compared_with_itself_is_even() {
        let results = testing::results(&["fillrandom", "readrandom", "queue"]);
        let baseline = Baseline::of("old.json", &results.to_json()).unwrap();
        let ratios = baseline.ratios(&results);
        assert_eq!(ratios.len(), 8, "four figures of two subjects");
        assert!(ratios.iter().all(|ratio| ratio.better == 1.0), "{ratios:?}");
    }

    #[test]
    fn more_is_better_or_less_is() {
        let results = testing::results(&["readrandom", "queue"]);
        let mut old = results.to_json();
        old["rows"][0]["compared"][0]["lsm"]["median"] = json!(750.0);
        old["rows"][1]["compared"][1]["btree"]["median"] = json!(2048.0);
        let baseline = Baseline::of("old.json", &old).unwrap();
        let ratios = baseline.ratios(&results);
        let of = |label: &str, variant: Variant| {
            let found = ratios
                .iter()
                .find(|r| r.label == label && r.subject == variant.subject());
            found.unwrap().better
        };
        assert_eq!(of("readrandom", Variant::Lsm), 2.0);
        assert_eq!(of("queue: on disk", Variant::BTree), 0.5);
        let text = baseline.to_text(&results);
        assert!(text.contains("2.00x") && text.contains("0.50x"), "{text}");
        let json = baseline.to_json(&results);
        assert_eq!(json["ratios"][0]["better"], 2.0);
    }

    #[test]
    fn what_only_one_run_has_is_left_out() {
        let old = testing::results(&["readrandom"]).to_json();
        let baseline = Baseline::of("old.json", &old).unwrap();
        let results = testing::results(&["queue"]);
        assert_eq!(baseline.ratios(&results), []);
        assert!(baseline.to_text(&results).contains("no figure"));
        assert!(Baseline::of("x", &json!({"rows": 3})).is_none());
    }
}
