//! The results as a page of Markdown: every figure with its spread, and everything needed to repeat
//! the run.

use std::fmt::Write as _;

use crate::format::wrap;
use crate::suite::results::{Cost, Results, Row};
use crate::verdict::NOTHING;

/// A subject and those that it is meant to be better than, by their names.
#[derive(Debug, Clone, Copy)]
pub struct Family<'a> {
    /// Ours.
    pub subject: &'a str,
    /// Theirs.
    pub rivals: &'a [&'a str],
}

/// A table: a row for each workload, a column for each subject.
struct Table {
    title: &'static str,
    figure: &'static str,
    cost: Cost,
    /// True if it says nothing about workloads that only read.
    of_writes: bool,
}

const fn table(title: &'static str, figure: &'static str, cost: Cost) -> Table {
    Table {
        title,
        figure,
        cost,
        of_writes: false,
    }
}

const fn table_of_writes(title: &'static str, figure: &'static str, cost: Cost) -> Table {
    Table {
        of_writes: true,
        ..table(title, figure, cost)
    }
}

const TABLES: [Table; 9] = [
    table("Operations per second", "ops_per_s", Cost::Count),
    table_of_writes(
        "Operations per second, with the time until the store had no work left",
        "settled_ops_per_s",
        Cost::Count,
    ),
    table("Median latency", "p50_us", Cost::Micros),
    table("99.9th percentile of latency", "p999_us", Cost::Micros),
    table("Longest latency", "max_us", Cost::Micros),
    table(
        "CPU seconds per million operations",
        "cpu_s_per_million_ops",
        Cost::Plain,
    ),
    table_of_writes(
        "Sent to storage, until the store had no work left",
        "device_written_bytes",
        Cost::Bytes,
    ),
    table_of_writes("On disk at the end", "disk_bytes", Cost::Bytes),
    table(
        "Peak of anonymous memory",
        "peak_anonymous_bytes",
        Cost::Bytes,
    ),
];

/// Columns of prose.
const WIDTH: usize = 100;

/// The whole page under `title`; it says how many times as fast the subject of each family is as
/// the better of its rivals.
pub fn page(title: &str, results: &Results, families: &[Family<'_>]) -> String {
    let mut out = format!("# {title}\n\n");
    out += &circumstances(results);
    out += &subjects(results);
    for (subject, why) in &results.failures {
        let _ = writeln!(out, "\n**{subject} failed:** {why}");
    }
    out += &ratios(results, families);
    for table in &TABLES {
        out += &figures(results, table);
    }
    out += &trade_offs(results);
    out
}

fn circumstances(results: &Results) -> String {
    let setting = &results.setting;
    let took = format!(
        "Written by this command, which took {:.0} minutes; docs/benchmarks.md describes the \
         method and what is held equal.",
        results.took.as_secs_f64() / 60.0
    );
    let mut out = format!(
        "{}\n\n```text\n{}\n```\n\n",
        wrap(&took, 0, WIDTH),
        setting.command
    );
    let parameters = setting.parameters.iter();
    let mut items: Vec<_> = parameters
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    items.push("medians of the rounds, in brackets the smallest and the largest figure".to_owned());
    items.extend(results.noise());
    for item in items {
        out += &wrap(&format!("- {item}"), 2, WIDTH);
        out.push('\n');
    }
    let doubts: Vec<_> = results.doubts().iter().map(ToString::to_string).collect();
    if !doubts.is_empty() {
        let why = format!("**No figure is certain:** {}.", doubts.join("; "));
        let _ = writeln!(out, "\n{}", wrap(&why, 0, WIDTH));
    }
    out
}

/// What was compared.
fn subjects(results: &Results) -> String {
    let titles = [
        "store",
        "version",
        "settings (of the first workload)",
        "weaker in",
    ];
    let mut out = head(None, titles, "---");
    for (at, subject) in results.subjects.iter().enumerate() {
        let settings = results.settings(at).unwrap_or(NOTHING);
        let weaker_in = subject.weaker_in.unwrap_or("");
        out += &line([subject.name, subject.version, settings, weaker_in]);
    }
    out
}

fn figures(results: &Results, table: &Table) -> String {
    let mut out = head(Some(table.title), columns("workload", results), "---:");
    for row in rows(results, table.of_writes) {
        let cells = (0..results.subjects.len())
            .map(|subject| row.show_range(subject, table.figure, table.cost));
        out += &line([row.label.clone()].into_iter().chain(cells));
    }
    out
}

fn trade_offs(results: &Results) -> String {
    let contests = results.trade_offs();
    if contests.is_empty() {
        return String::new();
    }
    let mut out = head(Some("Trade-off runs"), columns("figure", results), "---:");
    for contest in contests {
        let cells = (0..results.subjects.len()).map(|subject| contest.show_range(subject));
        out += &line([contest.label.clone()].into_iter().chain(cells));
    }
    out
}

/// How many times as fast the subject of each family is as the better of its rivals.
fn ratios(results: &Results, families: &[Family<'_>]) -> String {
    let column = |name: &str| results.names().iter().position(|known| *known == name);
    let families: Vec<(usize, Vec<usize>)> = families
        .iter()
        .filter_map(|family| {
            let rivals: Vec<_> = family
                .rivals
                .iter()
                .filter_map(|name| column(name))
                .collect();
            Some((column(family.subject)?, rivals)).filter(|(_, rivals)| !rivals.is_empty())
        })
        .collect();
    if families.is_empty() {
        return String::new();
    }
    let names = results.names();
    let titles: Vec<_> = families
        .iter()
        .map(|(ours, rivals)| {
            let rivals: Vec<_> = rivals.iter().map(|&rival| names[rival]).collect();
            format!("{} to the better of {}", names[*ours], rivals.join(", "))
        })
        .collect();
    let mut out = String::new();
    for (title, figure, of_writes) in [
        (
            "Ratios of the medians of operations per second: above 1 the first is faster",
            "ops_per_s",
            false,
        ),
        (
            "The same ratios, with the time until the store had no work left",
            "settled_ops_per_s",
            true,
        ),
    ] {
        let columns = ["workload"]
            .into_iter()
            .chain(titles.iter().map(String::as_str));
        out += &head(Some(title), columns, "---:");
        for row in rows(results, of_writes) {
            let cells = families.iter().map(|(ours, rivals)| {
                let Some((ratio, rival)) = to_the_better(row, figure, *ours, rivals) else {
                    return NOTHING.to_owned();
                };
                format!("{ratio:.2} ({})", names[rival])
            });
            out += &line([row.label.clone()].into_iter().chain(cells));
        }
    }
    out
}

/// A rate of `ours` by that of the best of `rivals`, and which that is.
fn to_the_better(row: &Row, figure: &str, ours: usize, rivals: &[usize]) -> Option<(f64, usize)> {
    let rates = rivals
        .iter()
        .filter_map(|&rival| Some((row.median(rival, figure)?, rival)));
    let (best, rival) = rates.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let ratio = row.median(ours, figure)? / best;
    ratio.is_finite().then_some((ratio, rival))
}

/// The workloads, or those that write.
fn rows(results: &Results, of_writes: bool) -> impl Iterator<Item = &Row> {
    results
        .workloads()
        .filter(move |row| row.writes || !of_writes)
}

fn columns<'a>(first: &'a str, results: &Results) -> impl Iterator<Item = &'a str> {
    [first].into_iter().chain(results.names())
}

/// The head of a table, whose columns but the first are aligned as `alignment` says.
fn head<'a>(
    title: Option<&str>,
    columns: impl IntoIterator<Item = &'a str>,
    alignment: &str,
) -> String {
    let columns: Vec<_> = columns.into_iter().collect();
    let mut out = match title {
        Some(title) => format!("\n## {title}\n\n"),
        None => "\n".to_owned(),
    };
    out += &line(&columns);
    out += &line((0..columns.len()).map(|at| if at == 0 { "---" } else { alignment }));
    out
}

/// A row of a table.
fn line(cells: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut out = String::from("|");
    for cell in cells {
        let _ = write!(out, " {} |", cell.as_ref().replace('|', "\\|"));
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Variant;
    use crate::suite::results::testing;

    const FAMILIES: [Family<'_>; 2] = [
        Family {
            subject: "lsm",
            rivals: &["lsm-skiplist", "btree", "not run"],
        },
        Family {
            subject: "btree",
            rivals: &["not run"],
        },
    ];

    fn results() -> Results {
        let labels = ["fillrandom", "readrandom", "queue"];
        let mut results = testing::results_of(&Variant::ALL, &labels);
        results.subjects[2].version = "btree 2";
        results.subjects[2].weaker_in = Some("everything | all");
        results
    }

    /// The lines of the section under a heading that begins with `title`.
    fn section<'a>(page: &'a str, title: &str) -> Vec<&'a str> {
        let heading = format!("## {title}");
        let at = page
            .find(&heading)
            .unwrap_or_else(|| panic!("{title} in {page}"));
        let rest = &page[at + heading.len()..];
        rest.split("\n## ").next().unwrap_or("").lines().collect()
    }

    #[test]
    fn a_page_has_every_subject_and_step() {
        let page = page("stores", &results(), &FAMILIES);
        assert!(page.starts_with("# stores\n\n"), "{page}");
        for part in [
            "```text\nhedgerow bench\n```",
            "- data: some",
            "| lsm | hedgerow ",
            "| btree | btree 2 | of its own | everything \\| all |",
        ] {
            assert!(page.contains(part), "{part} in\n{page}");
        }
        let rates = section(&page, "Operations per second");
        assert!(
            rates.contains(
                &"| readrandom | 1.50k (1.00k–2.00k) | 3.50k (3.00k–4.00k) | 5.50k (5.00k–6.00k) |"
            ),
            "{rates:?}"
        );
        let trade_offs = section(&page, "Trade-off runs");
        assert!(
            trade_offs.contains(&"| queue: on disk | 4.0 KiB | 4.0 KiB | 4.0 KiB |"),
            "{trade_offs:?}"
        );
    }

    #[test]
    fn ratios_are_to_the_better_of_those_that_were_run() {
        let page = page("stores", &results(), &FAMILIES);
        let ratios = section(&page, "Ratios");
        assert!(
            ratios.contains(&"| workload | lsm to the better of lsm-skiplist, btree |"),
            "{ratios:?}"
        );
        // 1500 a second to the 3500 and the 5500 of the others.
        assert!(
            ratios.contains(&"| readrandom | 0.27 (btree) |"),
            "{ratios:?}"
        );
    }

    #[test]
    fn only_what_writes_settles() {
        let page = page("stores", &results(), &FAMILIES);
        for title in ["The same ratios", "On disk", "Sent to storage"] {
            let text = section(&page, title).join("\n");
            assert!(text.contains("| fillrandom |"), "{text}");
            assert!(!text.contains("readrandom"), "{text}");
        }
    }

    #[test]
    fn failures_and_doubts_are_said() {
        let mut results = results();
        assert!(!page("stores", &results, &[]).contains("**"));
        results
            .failures
            .push((results.subjects[0], "no space left".into()));
        results.setting.conditions.load_average = Some(9.87);
        let page = page("stores", &results, &[]);
        assert!(page.contains("**lsm failed:** no space left"), "{page}");
        assert!(
            page.contains("**No figure is certain:** the machine was busy"),
            "{page}"
        );
        assert!(!page.contains("to the better of"), "{page}");
    }
}
