//! The results as tables for a terminal.

use hedgerow::EngineKind;

use crate::format::table;
use crate::suite::results::{COSTS, Results};

/// Which engine is better at what: one line for each workload and each figure of a trade-off run.
pub fn verdicts(results: &Results) -> String {
    let mut header = vec!["".to_owned()];
    header.extend(results.engines.iter().map(ToString::to_string));
    if results.is_comparison() {
        header.push("better".to_owned());
    }
    let mut rows = vec![header];
    for contest in results.contests() {
        let mut row = vec![contest.label.clone()];
        row.extend(results.engines.iter().map(|&engine| contest.show(engine)));
        if results.is_comparison() {
            row.push(contest.verdict().to_text());
        }
        rows.push(row);
    }
    table(&rows)
}

/// What each workload cost on each engine: medians.
pub fn costs(results: &Results) -> String {
    let mut header = vec!["".to_owned(), "engine".to_owned()];
    header.extend(COSTS.map(|(_, label, _)| label.to_owned()));
    let mut rows = vec![header];
    for row in results.workloads() {
        for &engine in &results.engines {
            let mut cells = vec![row.label.clone(), engine.to_string()];
            cells.extend(COSTS.map(|(name, _, cost)| cost.show(row.median(engine, name))));
            rows.push(cells);
        }
    }
    if rows.len() == 1 {
        return String::new();
    }
    table(&rows)
}

/// How often each engine wins, in a sentence; empty if one was run alone.
pub fn score(results: &Results) -> String {
    if !results.is_comparison() {
        return String::new();
    }
    let contests: Vec<_> = results.contests().iter().map(|c| c.verdict()).collect();
    let won = |engine: Option<EngineKind>| {
        contests
            .iter()
            .filter(|verdict| verdict.winner == engine)
            .count()
    };
    format!(
        "Of {} figures the LSM tree is better in {}, the B-tree in {}; {} are even.",
        contests.len(),
        won(Some(EngineKind::Lsm)),
        won(Some(EngineKind::BTree)),
        won(None),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::results::testing;

    #[test]
    fn blocks_touched_are_among_the_costs() {
        let text = costs(&testing::results(&["readrandom"]));
        assert!(text.contains("read amp") && text.contains("4.38"), "{text}");
    }
}
