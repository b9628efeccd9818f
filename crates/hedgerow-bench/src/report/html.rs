//! The report: one page that needs nothing else, no script and no network.
//!
//! It answers in the order that a reader asks: which engine is better at what and by how much, how
//! steady that is over time and for the slowest operations, what it costs, and how it was measured.

use hedgerow::EngineKind;

use super::charts::name;
use super::svg::escape;
use super::{charts, text};
use crate::suite::results::{COSTS, Contest, Results, Row};
use crate::verdict::times;

const STYLE: &str = include_str!("style.css");

/// Of the figures that an engine wins, this many are named at the top.
const BEST: usize = 5;

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
         checkpoints that foreground work has to wait for.",
        &|row| {
            let chart = charts::throughput(row, &results.engines)?;
            Some((chart, String::new()))
        },
    );
    body += &chart_section(
        results,
        "Latency",
        "Time of one operation by percentile, both axes logarithmic: to the right are the slowest.",
        &|row| {
            let (chart, kinds) = charts::latency(row, &results.engines)?;
            let caption = match &kinds[..] {
                [only] => only.clone(),
                [first, rest @ ..] => format!("solid: {first}; dashed: {}", rest.join(", ")),
                [] => String::new(),
            };
            Some((chart, caption))
        },
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
    if !results.is_comparison() {
        let engine = results
            .engines
            .first()
            .map_or("hedgerow", |&engine| name(engine));
        out += &format!("<h1>{engine}: benchmark</h1>\n");
        out += &format!(
            "<p class=\"muted\">{}</p>\n</header>\n",
            escape(&about(results))
        );
        return out;
    }
    out += "<h1>LSM tree or B-tree?</h1>\n";
    out += &format!("<p class=\"muted\">{}</p>\n", escape(&about(results)));
    out += "<div class=\"score\">\n";
    let won = |engine: Option<EngineKind>| {
        contests
            .iter()
            .filter(|contest| contest.verdict().winner == engine)
            .count()
    };
    for (engine, class, label) in [
        (Some(EngineKind::Lsm), "lsm", "better: LSM tree"),
        (Some(EngineKind::BTree), "btree", "better: B-tree"),
        (None, "even", "even, within 5 %"),
    ] {
        let count = won(engine);
        out += &format!("<div class=\"card\"><b class=\"{class}\">{count}</b>{label}</div>\n");
    }
    out += "</div>\n<div class=\"best\">\n";
    for engine in EngineKind::ALL {
        out += &best(engine, contests);
    }
    out += "</div>\n</header>\n";
    out
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

/// The figures that an engine wins most clearly.
fn best(engine: EngineKind, contests: &[Contest]) -> String {
    let mut won: Vec<_> = contests
        .iter()
        .map(|contest| (contest, contest.verdict()))
        .filter(|(_, verdict)| verdict.winner == Some(engine) && verdict.clear)
        .collect();
    won.sort_by(|a, b| b.1.factor.total_cmp(&a.1.factor));
    let mut out = format!(
        "<div class=\"card\"><h3 class=\"{engine}\">Where the {} wins most</h3>",
        name(engine)
    );
    if won.is_empty() {
        out += "<p class=\"muted\">In nothing that all rounds agree on.</p></div>\n";
        return out;
    }
    out += "<ul>";
    for (contest, verdict) in won.into_iter().take(BEST) {
        out += &format!(
            "<li><b>{}</b> {} <span class=\"muted\">{} against {}</span></li>",
            times(verdict.factor),
            escape(&contest.label),
            escape(
                &contest
                    .unit
                    .show(crate::verdict::median(contest.figures(engine)))
            ),
            escape(
                &contest
                    .unit
                    .show(crate::verdict::median(contest.figures(other(engine))))
            ),
        );
    }
    out += "</ul></div>\n";
    out
}

fn other(engine: EngineKind) -> EngineKind {
    match engine {
        EngineKind::Lsm => EngineKind::BTree,
        EngineKind::BTree => EngineKind::Lsm,
    }
}

fn ratio_section(results: &Results, contests: &[Contest]) -> String {
    if !results.is_comparison() {
        return String::new();
    }
    let what = if results.fixed_rate {
        "the 99th percentile of latency at the rate offered"
    } else {
        "operations a second; work that writes put off is waited for"
    };
    let mut out = format!(
        "<section>\n<h2>Which engine is better, and by how much</h2>\n<p class=\"muted\">Medians of \
         {} round{}, on logarithmic scales. Pale bars and ~ mark what some rounds would \
         overturn.</p>\n",
        results.rounds,
        if results.rounds == 1 { "" } else { "s" },
    );
    // Each with a scale of its own: a factor of a thousand in one would hide everything else.
    let workloads = results.workloads().count();
    let (workloads, trials) = contests.split_at(workloads);
    for (title, what, contests) in [
        ("Workloads", what, workloads),
        ("Trade-off runs", "the figure named", trials),
    ] {
        if contests.is_empty() {
            continue;
        }
        out += &format!(
            "<div class=\"card ratio-card\">\n<h3>{title} <span class=\"muted\">{what}</span></h3>\n<div \
             class=\"ends\"><span class=\"btree\">← B-tree better</span><span class=\"lsm\">LSM tree \
             better →</span></div>\n{}\n</div>\n",
            charts::ratios(contests)
        );
    }
    out += "</section>\n";
    out
}

fn amplification_section(results: &Results) -> String {
    let amplifications = charts::amplifications(results);
    let Some(triangle) = charts::triangle(&amplifications) else {
        return String::new();
    };
    let mut rows = String::new();
    for (at, (label, what)) in [
        ("read", "µs of processor time per lookup"),
        ("write", "bytes sent to storage per byte put"),
        ("space", "bytes on disk per byte of data, without the log"),
    ]
    .into_iter()
    .enumerate()
    {
        rows += &format!("<tr><td>{label}: {what}</td>");
        for amplification in &amplifications {
            let figure = crate::suite::results::Cost::Plain.show(amplification.figures[at]);
            rows += &format!("<td>{}</td>", escape(&figure));
        }
        rows += "</tr>\n";
    }
    if amplifications.iter().any(|each| each.touched.is_some()) {
        rows += "<tr><td>blocks or pages touched per lookup</td>";
        for amplification in &amplifications {
            let figure = crate::suite::results::Cost::Plain.show(amplification.touched);
            rows += &format!("<td>{}</td>", escape(&figure));
        }
        rows += "</tr>\n";
    }
    let heads: String = results
        .engines
        .iter()
        .map(|&engine| format!("<th>{}</th>", name(engine)))
        .collect();
    format!(
        "<section>\n<h2>Read, write, space</h2>\n<p class=\"muted\">No store is best in all three \
         (the RUM conjecture): the smaller a triangle, the less it costs. Medians over the workloads \
         that show them; each corner has a scale of its own, from zero to the larger figure.</p>\n\
         <div class=\"pair\">\n<figure>{}{triangle}</figure>\n<div class=\"card scroll\"><table>\n\
         <tr><th>cost</th>{heads}</tr>\n{rows}</table></div>\n</div>\n</section>\n",
        legend(results),
    )
}

fn legend(results: &Results) -> String {
    let engines = results.engines.iter();
    let spans = engines.map(|&engine| format!("<span class=\"{engine}\">{}</span>", name(engine)));
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
            escape(&row.label),
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
    out += "<p class=\"muted\">Medians of the rounds (smallest–largest).</p>\n\
            <div class=\"card scroll\"><table>\n<tr><th></th>";
    for &engine in &results.engines {
        out += &format!("<th>{}</th>", name(engine));
    }
    if results.is_comparison() {
        out += "<th>better</th>";
    }
    out += "</tr>\n";
    for contest in contests {
        out += &format!("<tr><td>{}</td>", escape(&contest.label));
        for &engine in &results.engines {
            out += &format!("<td>{}</td>", escape(&contest.show(engine)));
        }
        if results.is_comparison() {
            let verdict = contest.verdict();
            let class = verdict.winner.map_or("even", EngineKind::name);
            out += &format!("<td class=\"{class}\">{}</td>", escape(&verdict.to_text()));
        }
        out += "</tr>\n";
    }
    out += "</table></div>\n";
    if results.workloads().next().is_some() {
        out += "<h2>What it costs</h2>\n<p class=\"muted\">Settled: operations a second until no work \
                is left. CPU s/M: seconds of processor time for a million operations. Memory: the \
                most that no file backs. Written: bytes that the store says it wrote. Read amp: \
                blocks of data that an operation touched in the LSM tree, filters and indexes not \
                counted; pages in the B-tree, from the root down. Fetched: bytes from storage, which \
                are none while the data is in memory. Amplification of writes by what the kernel sent to storage. Stall: the longest time below a tenth \
                of the usual throughput. Held: how long writers were slowed or stopped, added \
                up.</p>\n<div class=\"card scroll\"><table>\n<tr><th></th><th>engine</th>";
        for (_, label, _) in COSTS {
            out += &format!("<th>{}</th>", escape(label));
        }
        out += "</tr>\n";
        for row in results.workloads() {
            for &engine in &results.engines {
                out += &format!(
                    "<tr><td>{}</td><td class=\"{engine}\">{}</td>",
                    escape(&row.label),
                    name(engine)
                );
                for (id, _, cost) in COSTS {
                    out += &format!("<td>{}</td>", escape(&cost.show(row.median(engine, id))));
                }
                out += "</tr>\n";
            }
        }
        out += "</table></div>\n";
    }
    out += "</section>\n";
    out
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
    use crate::suite::results::testing;

    #[test]
    fn every_workload_appears() {
        let results = testing::results(&["fillrandom", "ycsb-a (scrambled)", "queue"]);
        let page = render(&results);
        for row in &results.rows {
            // In the bars, the tables, and as the title of its charts.
            assert!(page.matches(&row.label).count() >= 2, "{}", row.label);
        }
        assert_eq!(page.matches("<svg viewBox").count(), 2 * 2 + 1);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(page.contains("class=\"shape lsm\"") && page.contains("class=\"shape btree\""));
        assert!(
            !page.contains("NaN") && !page.contains("inf"),
            "figures are numbers"
        );
    }

    #[test]
    fn blocks_touched_are_shown_beside_the_triangle_and_in_the_table() {
        let page = render(&testing::results(&["fillrandom", "readrandom"]));
        // Medians of 1.25 and 2.5, and of 3.75 and 5.
        assert!(
            page.contains("touched per lookup</td><td>1.88</td><td>4.38</td>"),
            "{page}"
        );
        assert!(page.contains("<th>read amp</th>") && page.contains("Read amp: blocks of data"));
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
        results.engines = vec![EngineKind::BTree];
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
