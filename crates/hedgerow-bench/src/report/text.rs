//! The results as tables for a terminal, 80 columns wide at most.

use crate::format::{WIDTH, table_within, wrap};
use crate::suite::results::{COSTS, Results};

/// Who is better at what: one line for each workload and each figure of a trade-off run.
pub fn verdicts(results: &Results) -> String {
    let mut header = vec!["".to_owned()];
    header.extend(results.subjects.iter().map(ToString::to_string));
    if results.is_comparison() {
        header.push("better".to_owned());
    }
    let names = results.names();
    let mut rows = vec![header];
    for contest in results.contests() {
        let mut row = vec![contest.label.clone()];
        row.extend((0..names.len()).map(|subject| contest.show(subject)));
        if results.is_comparison() {
            row.push(contest.verdict().to_text(&names));
        }
        rows.push(row);
    }
    table_within(&rows, 1, WIDTH)
}

/// What each workload cost on each subject: medians.
pub fn costs(results: &Results) -> String {
    let mut header = vec!["".to_owned(), "engine".to_owned()];
    header.extend(COSTS.map(|(_, label, _)| label.to_owned()));
    let mut rows = vec![header];
    for row in results.workloads() {
        for (at, subject) in results.subjects.iter().enumerate() {
            let mut cells = vec![row.label.clone(), subject.to_string()];
            cells.extend(COSTS.map(|(name, _, cost)| cost.show(row.median(at, name))));
            rows.push(cells);
        }
    }
    if rows.len() == 1 {
        return String::new();
    }
    table_within(&rows, 2, WIDTH)
}

/// How often each is better, in a sentence; empty if one was run alone.
pub fn score(results: &Results) -> String {
    if !results.is_comparison() {
        return String::new();
    }
    let verdicts: Vec<_> = results.contests().iter().map(|c| c.verdict()).collect();
    let leads = |subject: usize| {
        let verdicts = verdicts.iter();
        verdicts
            .filter(|verdict| !verdict.is_even() && verdict.leaders.contains(&subject))
            .count()
    };
    let best: Vec<_> = results
        .subjects
        .iter()
        .enumerate()
        .map(|(at, subject)| format!("{} is best in {}", subject.title, leads(at)))
        .collect();
    let even = verdicts.iter().filter(|verdict| verdict.is_even()).count();
    let none = verdicts.iter().filter(|verdict| verdict.leaders.is_empty());
    let none = match none.count() {
        0 => String::new(),
        none => format!("; {none} cannot be compared"),
    };
    format!(
        "Of {} figures: {}; {even} are even{none}.",
        verdicts.len(),
        best.join("; ")
    )
}

/// What must be known to read the tables, after them.
pub fn notes(results: &Results) -> String {
    let mut notes = Vec::new();
    if results.is_comparison() {
        notes.push(score(results));
        let doubts = results.doubts();
        notes.extend(crate::conditions::warning(&doubts));
        notes.extend(results.setting.conditions.others_sentence(&doubts));
        notes.extend(results.noise());
        notes.push("A ~ marks a verdict that some rounds would overturn.".to_owned());
    }
    notes.push(
        "Medians of the rounds, ± how far the furthest round is from them. Workloads that write \
         count until no work is left (settled). Every answer was checked."
            .to_owned(),
    );
    let notes: Vec<_> = notes.iter().map(|note| wrap(note, 0, WIDTH)).collect();
    notes.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Variant;
    use crate::suite::results::{Sample, testing};
    use serde_json::json;

    /// The longest labels and figures that the presets give.
    fn realistic(variants: &[Variant]) -> Results {
        let labels = [
            "fillrandom",
            "overwritesync@16",
            "ycsb-a:scrambled@16, after overwritesync@16",
            "readrandom:scrambled, after overwritebatch",
            "queue",
        ];
        let mut results = testing::results_of(variants, &labels);
        for (row, label) in labels.iter().enumerate() {
            for subject in 0..variants.len() {
                for round in 0..3 {
                    let scale = f64::from(round + 1) * 1.37 * (subject + 1) as f64;
                    let sample = match *label {
                        "queue" => json!({"figures": [
                            {"id": "held", "label": "overwrite, snapshot held, settled",
                             "unit": "operations/s", "value": 1_234_567.0 * scale},
                            {"id": "write", "label": "write amplification of overwrite",
                             "unit": "times", "value": 123.4 * scale},
                            {"id": "disk", "label": "on disk, settled, without the log",
                             "unit": "bytes", "value": 1023.9e6 * scale},
                            {"id": "take", "label": "take the first, p99",
                             "unit": "us", "value": 9876.0 * scale},
                        ]}),
                        _ => json!({
                            "ops": 2_000_000, "elapsed_s": 10.0,
                            "ops_per_s": 1_234_567.0 * scale,
                            "settled_ops_per_s": 0.01 * scale,
                            "p50_us": 12.3, "p99_us": 1234.0, "p999_us": 123_456.0,
                            "max_us": 1_234_567.0 * scale,
                            "cpu_s_per_million_ops": 12.34,
                            "peak_anonymous_bytes": 1023.9e6,
                            "store_written_bytes": 1023.9e9,
                            "write_amplification": 123.4,
                            "read_amplification": 12.34,
                            "device_read_bytes": 1.0e15,
                            "tree_bytes": 123_400.0, "live_bytes": 1000.0,
                            "longest_stall_s": 12.34,
                            "writers_slowed_ms": 12_345.0, "writers_stopped_ms": 12_345.0,
                        }),
                    };
                    results.add(row, subject, Sample::new(sample));
                }
            }
        }
        results.setting.conditions.load_average = Some(9.87);
        results.setting.conditions.file_system = Some("tmpfs".into());
        results
    }

    #[test]
    fn every_line_fits_80_columns() {
        for variants in [&[Variant::BTree][..], &Variant::ENGINES, &Variant::ALL] {
            let results = realistic(variants);
            let text = [verdicts(&results), costs(&results), notes(&results)].join("\n");
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}\nof\n{text}");
            }
            for (_, label, _) in COSTS {
                assert!(text.contains(label), "{label} in\n{text}");
            }
            for subject in &results.subjects {
                assert!(text.contains(subject.name), "{subject} in\n{text}");
            }
        }
    }

    #[test]
    fn blocks_touched_are_among_the_costs() {
        let text = costs(&testing::results(&["readrandom"]));
        assert!(text.contains("read amp") && text.contains("4.38"), "{text}");
    }

    /// It is divided by data that is gone.
    #[test]
    fn what_deleted_everything_has_no_space_amplification() {
        let figure = json!({"ops_per_s": 5.0, "tree_bytes": 77_700.0, "live_bytes": 1000.0});
        for (label, is_shown) in [("fillrandom", true), ("deleterandom@4", false)] {
            let mut results = testing::results(&[label]);
            for subject in [0, 1].repeat(5) {
                results.add(0, subject, Sample::new(figure.clone()));
            }
            assert_eq!(costs(&results).contains("77.7"), is_shown, "{label}");
        }
    }

    #[test]
    fn the_reasons_for_doubt_are_said_once() {
        let results = realistic(&Variant::ENGINES);
        let notes = notes(&results).replace('\n', " ");
        assert_eq!(notes.matches("tmpfs").count(), 1, "{notes}");
        assert!(notes.contains("load average 9.87, 2 cores"), "{notes}");
        let verdicts = verdicts(&results);
        assert!(!verdicts.contains("tmpfs"));
        assert_eq!(verdicts.matches('?').count(), results.contests().len());
        assert!(!notes_of_a_sure_run().contains('?'));
    }

    fn notes_of_a_sure_run() -> String {
        notes(&testing::results(&["fillrandom"]))
    }
}
