//! The report: one page that needs nothing else, no script and no network.
//!
//! It answers in the order that a reader asks: whether the run can tell anything, who is better at
//! what and by how much, how steady that is over time and for the slowest operations, what it
//! costs, and how it was measured.

use super::svg::escape;
use super::{charts, text};
use crate::conditions;
use crate::subject::Subject;
use crate::suite::results::{COSTS, Contest, Cost, Results, Row};
use crate::verdict::{median, times};

const STYLE: &str = include_str!("style.css");

/// Of the figures that a subject wins, this many are named at the top.
const BEST: usize = 5;

/// The costs of the first table: how fast and how steady. The others are in the second.
const SPEED: [&str; 8] = [
    "ops_per_s",
    "settled_ops_per_s",
    "p50_us",
    "p99_us",
    "p999_us",
    "max_us",
    "longest_stall_s",
    "writers_held_ms",
];

/// The page.
pub fn render(results: &Results) -> String {
    let contests = results.contests();
    let mut body = header(results, &contests);
    body += &ratio_section(results, &contests);
    body += &amplification_section(results);
    body += &chart_section(
        results,
        "Throughput over time",
        "Operations a second in the round of middling speed. Dips are stalls: compactions and \
         checkpoints that foreground work has to wait for. Each chart has scales of its own: \
         compare the lines of one chart, not one chart with another.",
        &|row| {
            let chart = charts::throughput(row, &results.subjects)?;
            Some((chart, String::new()))
        },
    );
    let axis = charts::latency_axis(results);
    body += &chart_section(
        results,
        "Latency",
        "Time of one operation by percentile, in the round of middling speed: to the right are the \
         slowest. Both axes are logarithmic, and the same in all charts. A percentile is only as \
         good as the number of operations timed (n) beyond it: of 1000, one is beyond 99.9.",
        &|row| charts::latency(row, &results.subjects, &axis),
    );
    body += &tables(results, &contests);
    body += &setting(results);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>hedgerow bench</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n\
         </html>\n"
    )
}

fn header(results: &Results, contests: &[Contest]) -> String {
    let mut out = String::from("<header>\n");
    let titles: Vec<_> = results
        .subjects
        .iter()
        .map(|subject| subject.title)
        .collect();
    let title = match &titles[..] {
        [] => "hedgerow: benchmark".to_owned(),
        [alone] => format!("{alone}: benchmark"),
        [first @ .., last] => format!("{} or {last}?", first.join(", ")),
    };
    out += &format!(
        "<h1>{}</h1>\n<p class=\"muted\">{}</p>\n",
        escape(&title),
        escape(&about(results))
    );
    out += &banner(results);
    if !results.is_comparison() {
        out += "</header>\n";
        return out;
    }
    out += "<div class=\"score\">\n";
    let verdicts: Vec<_> = contests.iter().map(Contest::verdict).collect();
    for (at, subject) in results.subjects.iter().enumerate() {
        let led = verdicts.iter();
        let led = led.filter(|verdict| !verdict.is_even() && verdict.leaders.contains(&at));
        out += &format!(
            "<div class=\"card\"><b class=\"{subject}\">{}</b>best: {}</div>\n",
            led.count(),
            escape(subject.title)
        );
    }
    let even = verdicts.iter().filter(|verdict| verdict.is_even()).count();
    out += &format!("<div class=\"card\"><b class=\"even\">{even}</b>even, within 5 %</div>\n");
    out += "</div>\n<div class=\"best\">\n";
    for at in 0..results.subjects.len() {
        out += &best(at, results, contests);
    }
    out += "</div>\n</header>\n";
    out
}

/// What is to be known before any figure: that the run tells little, if it does.
fn banner(results: &Results) -> String {
    let doubts = conditions::warning(&results.doubts());
    let sentences: Vec<_> = doubts.into_iter().chain(results.noise()).collect();
    if sentences.is_empty() {
        return String::new();
    }
    format!(
        "<p class=\"banner\" role=\"alert\">{}</p>\n",
        escape(&sentences.join(" "))
    )
}

/// What was run, in a sentence.
fn about(results: &Results) -> String {
    let parameter = |wanted: &str| {
        let mut parameters = results.setting.parameters.iter();
        parameters
            .find(|(name, _)| *name == wanted)
            .map_or("", |(_, value)| value)
    };
    format!("{}. {}.", parameter("data"), parameter("machine"))
}

/// The figures that a subject wins most clearly.
fn best(subject: usize, results: &Results, contests: &[Contest]) -> String {
    let mut won: Vec<_> = contests
        .iter()
        .map(|contest| (contest, contest.verdict()))
        .filter(|(_, verdict)| verdict.winner() == Some(subject) && verdict.clear)
        .collect();
    won.sort_by(|a, b| b.1.factor.total_cmp(&a.1.factor));
    let name = results.subjects[subject];
    let mut out = format!(
        "<div class=\"card\"><h3 class=\"{name}\">Where the {} wins most</h3>",
        escape(name.title)
    );
    if won.is_empty() {
        let why = match results.doubts().is_empty() {
            true => "In nothing that all rounds agree on.",
            false => "Nothing is certain in this run.",
        };
        out += &format!("<p class=\"muted\">{why}</p></div>\n");
        return out;
    }
    out += "<ul>";
    for (contest, verdict) in won.into_iter().take(BEST) {
        let others = (0..results.subjects.len()).filter(|&at| at != subject);
        let show = |at: usize| contest.unit.show(median(contest.figures(at)));
        let against: Vec<_> = others.map(show).collect();
        out += &format!(
            "<li><b>{}</b> {} <span class=\"muted\">{} against {}</span></li>",
            times(verdict.factor),
            charts::named(&contest.label, &contest.about),
            escape(&show(subject)),
            escape(&against.join(", ")),
        );
    }
    out += "</ul></div>\n";
    out
}

fn ratio_section(results: &Results, contests: &[Contest]) -> String {
    let [first, others @ ..] = &results.subjects[..] else {
        return String::new();
    };
    if others.is_empty() {
        return String::new();
    }
    let what = if results.fixed_rate {
        "the 99th percentile of latency at the rate offered"
    } else {
        "operations a second; work that writes put off is waited for"
    };
    let mut out = format!(
        "<section>\n<h2>Who is better, and by how much</h2>\n<p class=\"muted\">Medians of {}, all \
         bars on one logarithmic scale. Whiskers reach from the worst round of the one beside the \
         best of the other to the opposite. {} What is even has no bar.</p>\n",
        crate::format::counted(results.rounds.into(), "round"),
        match results.doubts().is_empty() {
            true => "Pale bars and ~ mark what some rounds would overturn.",
            false => "All bars are pale and have a ?, because nothing is certain in this run.",
        },
    );
    let scale = charts::FactorScale::of(contests, results.subjects.len());
    let workloads = results.workloads().count();
    let (workloads, trials) = contests.split_at(workloads.min(contests.len()));
    let left = match others {
        [only] => only.title,
        _ => "the other",
    };
    let left_class = match others {
        [only] => only.name,
        _ => "even",
    };
    for (title, what, contests) in [
        ("Workloads", what, workloads),
        ("Trade-off runs", "the figure named", trials),
    ] {
        if contests.is_empty() {
            continue;
        }
        out += &format!(
            "<div class=\"card ratio-card\">\n<h3>{title} <span class=\"muted\">{what}</span></h3>\n\
             <div class=\"ends\"><span class=\"{left_class}\">← {} better</span><span \
             class=\"{first}\">{} better →</span></div>\n{}\n</div>\n",
            escape(left),
            escape(first.title),
            charts::ratios(contests, &results.subjects, scale)
        );
    }
    out += "</section>\n";
    out
}

fn amplification_section(results: &Results) -> String {
    let costs = charts::amplifications(results);
    if costs.is_empty() {
        return String::new();
    }
    let bars: String = costs
        .iter()
        .map(|cost| charts::amplification_bars(cost, &results.subjects))
        .collect();
    format!(
        "<section>\n<h2>Read, write, space</h2>\n<p class=\"muted\">No store is best in all three \
         (the RUM conjecture): the shorter a bar, the less it costs. Medians over the workloads that \
         show them, whiskers from the smallest to the largest round. Each group of bars has a scale \
         of its own, from zero. Data that only memory and the log hold as yet takes no space \
         here.</p>\n<div class=\"card\">{bars}</div>\n</section>\n",
    )
}

fn legend(results: &Results) -> String {
    let spans = results.subjects.iter().map(|subject| {
        let title = escape(subject.title);
        format!("<span class=\"{subject}\">{title}</span>")
    });
    format!("<div class=\"legend\">{}</div>", spans.collect::<String>())
}

/// A section with one chart for each workload.
fn chart_section(
    results: &Results,
    title: &str,
    about: &str,
    chart: &dyn Fn(&Row) -> Option<(String, String)>,
) -> String {
    let mut figures = String::new();
    for row in results.workloads() {
        let (svg, caption) =
            chart(row).unwrap_or_else(|| (String::new(), "Over too soon to be drawn.".to_owned()));
        figures += &format!(
            "<figure><h3>{}</h3><figcaption>{}{}{}</figcaption>{svg}</figure>\n",
            charts::named(&row.label, &row.about),
            escape(&row.about),
            if caption.is_empty() { "" } else { " · " },
            escape(&caption),
        );
    }
    if figures.is_empty() {
        return String::new();
    }
    format!(
        "<section>\n<h2>{title}</h2>\n<p class=\"muted\">{about}</p>\n{}\n<div class=\"grid-of\">\n\
         {figures}</div>\n</section>\n",
        legend(results),
    )
}

fn tables(results: &Results, contests: &[Contest]) -> String {
    let mut out = String::from("<section>\n<h2>All figures</h2>\n");
    if results.is_comparison() {
        out += &format!("<p>{}</p>\n", escape(&text::score(results)));
    }
    let names = results.names();
    let mut head: Vec<String> = results
        .subjects
        .iter()
        .map(|s| s.title.to_owned())
        .collect();
    if results.is_comparison() {
        head.push("better".to_owned());
    }
    let rows = contests.iter().map(|contest| {
        let mut cells = vec![format!(
            "<td>{}</td>",
            charts::named(&contest.label, &contest.about)
        )];
        let figures = (0..names.len()).map(|at| escape(&contest.show_range(at)));
        cells.extend(figures.map(|figure| format!("<td>{figure}</td>")));
        if results.is_comparison() {
            let verdict = contest.verdict();
            let class = verdict.winner().map_or("even", |winner| names[winner]);
            let text = escape(&verdict.to_text(&names));
            cells.push(format!("<td class=\"{class}\">{text}</td>"));
        }
        cells.concat()
    });
    out += "<p class=\"muted\">Medians of the rounds (smallest–largest).</p>\n";
    out += &table(&head, rows);
    if results.workloads().next().is_some() {
        out += "<h2>How fast, and how steady</h2>\n<p class=\"muted\">Medians. Settled: operations a \
                second until no work is left. Stall: the longest time below a tenth of the usual \
                throughput. Held: how long writers were slowed or stopped, added up.</p>\n";
        out += &costs(results, &|id| SPEED.contains(&id));
        out += "<h2>What it costs</h2>\n<p class=\"muted\">Medians. CPU s/M: seconds of processor \
                time for a million operations. Memory: the most that no file backs. Written: bytes \
                that the store says it wrote. Write amp: bytes that the kernel sent to storage for \
                each byte put. Read amp: blocks of data that an operation touched in the LSM tree, \
                filters and indexes not counted; pages in the B-tree, from the root down. Fetched: \
                bytes from storage, which are none while the data is in memory.</p>\n";
        out += &costs(results, &|id| !SPEED.contains(&id));
    }
    out += "</section>\n";
    out
}

/// A table that can be scrolled sideways, by keyboard as well, where the page is too narrow for it.
fn table(head: &[String], rows: impl Iterator<Item = String>) -> String {
    let head: String = head
        .iter()
        .map(|cell| format!("<th>{}</th>", escape(cell)))
        .collect();
    let rows: String = rows.map(|row| format!("<tr>{row}</tr>\n")).collect();
    format!(
        "<div class=\"card scroll\" tabindex=\"0\" role=\"region\" aria-label=\"table\"><table>\n\
         <tr><th></th>{head}</tr>\n{rows}</table></div>\n"
    )
}

/// The costs whose name `wanted` takes, a line for each workload and subject.
fn costs(results: &Results, wanted: &dyn Fn(&str) -> bool) -> String {
    let columns: Vec<(&str, &str, Cost)> =
        COSTS.into_iter().filter(|(id, _, _)| wanted(id)).collect();
    let mut head = vec!["engine".to_owned()];
    head.extend(columns.iter().map(|(_, label, _)| (*label).to_owned()));
    let line = |row: &Row, at: usize, subject: &Subject| {
        let mut cells = format!(
            "<td>{}</td><td class=\"{subject}\">{}</td>",
            charts::named(&row.label, &row.about),
            escape(subject.title)
        );
        for (id, _, cost) in &columns {
            cells += &format!("<td>{}</td>", escape(&cost.show(row.median(at, id))));
        }
        cells
    };
    let rows = results.workloads().flat_map(|row| {
        let subjects = results.subjects.iter().enumerate();
        subjects.map(move |(at, subject)| (row, at, subject))
    });
    table(&head, rows.map(|(row, at, subject)| line(row, at, subject)))
}

fn setting(results: &Results) -> String {
    let mut out =
        String::from("<section>\n<h2>How this was measured</h2>\n<div class=\"card\">\n<dl>\n");
    for (name, value) in &results.setting.parameters {
        out += &format!("<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(value));
    }
    out += &format!(
        "<dt>date</dt><dd>{}</dd>\n<dt>checks</dt><dd>every answer was checked; a wrong one would \
         have ended the run</dd>\n</dl>\n<pre>{}</pre>\n</div>\n</section>\n",
        date(results.setting.unix_time_s),
        escape(&results.setting.command),
    );
    out
}

/// The day of a time since 1970, by the algorithm of Howard Hinnant ("chrono-compatible low-level
/// date algorithms"): years begin in March, so that the leap day is a year's last.
fn date(unix_time_s: u64) -> String {
    let days = unix_time_s / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} (UTC)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Variant;
    use crate::suite::results::testing;

    #[test]
    fn every_workload_appears() {
        let results = testing::results(&["fillrandom", "ycsb-a (scrambled)", "queue"]);
        let page = render(&results);
        for row in &results.rows {
            // In the bars, the tables, and as the title of its charts.
            assert!(page.matches(&row.label).count() >= 2, "{}", row.label);
        }
        assert_eq!(page.matches("<svg viewBox").count(), 2 * 2);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(
            !page.contains("NaN") && !page.contains("inf"),
            "figures are numbers"
        );
        assert!(!page.contains("polygon"), "no area suggests a factor");
    }

    #[test]
    fn blocks_touched_are_shown_as_bars_and_in_the_table() {
        let page = render(&testing::results(&["fillrandom", "readrandom"]));
        // Medians of 1.25 and 2.5, and of 3.75 and 5.
        assert!(page.contains("touched per lookup</h3>"), "{page}");
        assert!(page.contains(">1.88<") && page.contains(">4.38<"), "{page}");
        assert!(page.contains("<th>read amp</th>") && page.contains("Read amp: blocks of data"));
        for (_, label, _) in COSTS {
            let head = format!("<th>{}</th>", escape(label));
            assert_eq!(page.matches(&head).count(), 1, "{label}");
        }
    }

    #[test]
    fn names_of_workloads_tell_what_they_show() {
        let page = render(&testing::results(&["fillrandom", "queue"]));
        let named = r#"<span class="named" title="about it">fillrandom</span>"#;
        // In the bars, above both charts, in three tables.
        assert!(page.matches(named).count() >= 6, "{page}");
        assert!(
            page.contains(r#"title="about it">queue: turns</span>"#),
            "{page}"
        );
    }

    #[test]
    fn latencies_say_of_how_many_operations() {
        let page = render(&testing::results(&["readrandom"]));
        let caption = "read, n = 5,000 (LSM tree), 5,000 (B-tree)";
        assert!(page.contains(caption), "{page}");
    }

    #[test]
    fn a_doubtful_run_says_so_first() {
        let mut results = testing::results(&["fillrandom"]);
        results.setting.conditions.file_system = Some("tmpfs".into());
        let page = render(&results);
        let at = |text: &str| {
            page.find(text)
                .unwrap_or_else(|| panic!("{text} in {page}"))
        };
        assert!(at("class=\"banner\"") < at("class=\"score\""));
        assert_eq!(page.matches("tmpfs keeps files in memory").count(), 1);
        assert!(page.contains("Nothing is certain in this run."));
        results.setting.conditions.file_system = Some("ext4".into());
        let page = render(&results);
        assert!(!page.contains("No verdict is certain"));
        // The rounds of the LSM tree differ twofold all the same.
        assert!(page.contains("The run was noisy"), "{page}");
    }

    #[test]
    fn three_subjects_are_shown_each_against_the_first() {
        let page = render(&testing::results_of(
            &Variant::ALL,
            &["fillrandom", "queue"],
        ));
        assert!(
            page.contains("<h1>LSM tree, LSM tree (skip list) or B-tree?</h1>"),
            "{page}"
        );
        // Two bars for each of the three figures.
        assert_eq!(page.matches("<div class=\"ratio\">").count(), 2 * 3);
        for other in ["LSM tree (skip list)", "B-tree"] {
            let against = format!("<span class=\"against\">against {other}</span>");
            assert_eq!(page.matches(&against).count(), 3, "{page}");
        }
        assert!(page.contains("class=\"line lsm-skiplist\""));
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn the_page_stands_alone() {
        let page = render(&testing::results(&["fillrandom", "queue"]));
        for outside in [
            "http:", "https:", "//", "src=", "href=", "url(", "@import", "<script",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn text_from_outside_is_escaped() {
        let mut results = testing::results(&["a<b>&\"c\""]);
        results.setting.command = "hedgerow bench --dir '<script>'".into();
        let page = render(&results);
        assert!(!page.contains("<b>&\"c") && !page.contains("<script>"));
        assert!(page.contains("a&lt;b&gt;&amp;&quot;c&quot;"));
        assert!(page.contains("--dir &#39;&lt;script&gt;&#39;"));
    }

    #[test]
    fn one_engine_alone_is_no_comparison() {
        let mut results = testing::results(&["fillrandom"]);
        results.subjects.remove(0);
        let page = render(&results);
        assert!(page.contains("B-tree: benchmark") && !page.contains("class=\"ratio\""));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 (UTC)");
        assert_eq!(date(951_782_400), "2000-02-29 (UTC)");
        assert_eq!(date(1_709_251_199), "2024-02-29 (UTC)");
        assert_eq!(date(1_709_251_200), "2024-03-01 (UTC)");
    }
}
