//! The charts of the page, each from the results.

use hedgerow::EngineKind;

use super::svg::{Axis, Chart, Line, diverging_bar, escape, triangles};
use crate::suite::results::{Contest, Cost, Results, Row};
use crate::verdict::{median, times};

/// Points of a line of throughput: more than a chart has room for are averaged.
const POINTS_MAX: usize = 120;
/// Where the horizontal axis of latencies ends: 99.999 %, and the largest at its edge.
const NINES_MAX: f64 = 5.0;

/// What an engine is called on the page.
pub fn name(engine: EngineKind) -> &'static str {
    match engine {
        EngineKind::Lsm => "LSM tree",
        EngineKind::BTree => "B-tree",
    }
}

/// How many times better the winner of each contest is: a row with a bar for each.
pub fn ratios(contests: &[Contest]) -> String {
    let logs = contests
        .iter()
        .filter_map(Contest::lsm_advantage)
        .map(f64::log2);
    let most = logs
        .fold(1.0, |most: f64, log| most.max(log.abs()))
        .ceil()
        .min(12.0);
    // Marks at powers of two, few enough to stay apart on a phone.
    let step = (most / 3.0).ceil();
    let marks: Vec<f64> = (1..)
        .map(|nth| f64::from(nth) * step)
        .take_while(|&mark| mark <= most)
        .collect();
    let places: Vec<f64> = marks
        .iter()
        .flat_map(|mark| [-mark / most, mark / most])
        .collect();
    let mut out = String::from("<div class=\"ratios\">");
    for contest in contests {
        let verdict = contest.verdict();
        let class = verdict.winner.map_or("even", EngineKind::name);
        let unclear = if verdict.clear { "" } else { " unclear" };
        // The B-tree to the left, the LSM tree to the right.
        let place = contest
            .lsm_advantage()
            .map_or(0.0, |ratio| ratio.log2() / most);
        out += &format!(
            "<div class=\"ratio\"><span class=\"what\">{}</span>{}<span class=\"who {class}\">{}</span></div>",
            escape(&contest.label),
            diverging_bar(&format!("fill {class}{unclear}"), place, &places),
            match verdict.winner {
                None => "even".to_owned(),
                Some(engine) => format!(
                    "{} {}{}",
                    name(engine),
                    if verdict.clear { "" } else { "~" },
                    times(verdict.factor)
                ),
            }
        );
    }
    out += "<div class=\"ratio scale\"><span class=\"what\"></span><span class=\"marks\">";
    for mark in marks
        .iter()
        .rev()
        .map(|mark| -mark)
        .chain([0.0])
        .chain(marks.iter().copied())
    {
        let left = 50.0 + mark / most * 50.0;
        let label = match mark {
            0.0 => "1x".to_owned(),
            mark => format!("{}x", short_power(mark.abs())),
        };
        out += &format!("<span style=\"left:{left:.1}%\">{label}</span>");
    }
    out += "</span><span class=\"who\"></span></div></div>";
    out
}

fn short_power(log: f64) -> String {
    let factor = log.exp2();
    format!("{factor:.0}")
}

/// Throughput over time of one workload, in its round of middling speed.
pub fn throughput(row: &Row, engines: &[EngineKind]) -> Option<String> {
    let lines: Vec<Line> = engines
        .iter()
        .filter_map(|&engine| {
            let points = thinned(&row.typical(engine)?.throughput());
            (!points.is_empty()).then(|| Line {
                class: format!("line {engine}"),
                name: name(engine).to_owned(),
                points,
            })
        })
        .collect();
    let points = || lines.iter().flat_map(|line| &line.points);
    let most = |figures: &mut dyn Iterator<Item = f64>| figures.fold(0.0, f64::max);
    let longest = most(&mut points().map(|&(end, _)| end));
    let fastest = most(&mut points().map(|&(_, rate)| rate));
    (!lines.is_empty()).then(|| {
        Chart {
            description: format!("Operations a second over time of {}", row.label),
            x: Axis::linear("seconds", longest, seconds),
            y: Axis::linear("", fastest, round),
            lines,
        }
        .render()
    })
}

fn seconds(at: f64) -> String {
    // Marks are round numbers but for the last bit.
    let text = format!("{at:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A round number without superfluous zeros, with k or M.
fn round(figure: f64) -> String {
    let (scaled, unit) = match figure {
        figure if figure >= 1e6 => (figure / 1e6, "M"),
        figure if figure >= 1e3 => (figure / 1e3, "k"),
        figure => (figure, ""),
    };
    format!("{}{unit}", seconds(scaled))
}

/// At most [`POINTS_MAX`] points, each the mean of its neighbours over time.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(POINTS_MAX).max(1);
    let mean = |group: &[(f64, f64)]| {
        let rates: f64 = group.iter().map(|&(_, rate)| rate).sum();
        let end = group.last().map_or(0.0, |&(end, _)| end);
        (end, rates / group.len() as f64)
    };
    points.chunks(group).map(mean).collect()
}

/// Latencies of one workload by percentile, in its round of middling speed: solid for its first
/// kind of operation, dashed for the second.
pub fn latency(row: &Row, engines: &[EngineKind]) -> Option<(String, Vec<String>)> {
    let mut kinds: Vec<String> = Vec::new();
    let mut lines = Vec::new();
    for &engine in engines {
        for (kind, points) in row.typical(engine)?.latencies() {
            let nth = kinds.iter().position(|known| *known == kind);
            let nth = nth.unwrap_or_else(|| {
                kinds.push(kind.clone());
                kinds.len() - 1
            });
            let dashed = if nth > 0 { " dashed" } else { "" };
            lines.push(Line {
                class: format!("line {engine}{dashed}"),
                name: format!("{}: {kind}", name(engine)),
                points: points
                    .into_iter()
                    .map(|(percent, micros)| (nines(percent), micros))
                    .collect(),
            });
        }
    }
    let points = || lines.iter().flat_map(|line: &Line| &line.points);
    let least = points()
        .map(|&(_, micros)| micros)
        .fold(f64::INFINITY, f64::min);
    let most = points().map(|&(_, micros)| micros).fold(0.0, f64::max);
    let mark = |percent: f64, label: &str| (nines(percent), label.to_owned());
    (!lines.is_empty()).then(|| {
        let chart = Chart {
            description: format!("Latencies of {} by percentile", row.label),
            x: Axis::marked(
                "percentile",
                0.0,
                NINES_MAX,
                vec![
                    mark(0.0, "0"),
                    mark(90.0, "90"),
                    mark(99.0, "99"),
                    mark(99.9, "99.9"),
                    mark(99.99, "99.99"),
                    mark(100.0, "max"),
                ],
            ),
            y: Axis::decades("", least, most, micros),
            lines,
        };
        (chart.render(), kinds)
    })
}

/// A percentile by the number of its nines: 90 is 1, 99 is 2, 99.9 is 3.
fn nines(percent: f64) -> f64 {
    (-(1.0 - percent / 100.0).log10()).clamp(0.0, NINES_MAX)
}

fn micros(at: f64) -> String {
    match at {
        at if at >= 1e6 => format!("{:.0} s", at / 1e6),
        at if at >= 1e3 => format!("{:.0} ms", at / 1e3),
        at if at >= 1.0 => format!("{at:.0} µs"),
        at => format!("{:.0} ns", at * 1e3),
    }
}

/// What an engine costs per unit of work: microseconds of processor time per lookup, bytes sent to
/// storage per byte put, bytes on disk per byte of data.
#[derive(Debug, Clone, Copy)]
pub struct Amplification {
    /// The engine.
    pub engine: EngineKind,
    /// Read, write, space.
    pub figures: [Option<f64>; 3],
    /// Blocks or pages touched per lookup. Not a corner of the triangle: a block of the one engine
    /// and a page of the other differ in size, and an LSM tree's filters and indexes are not
    /// counted, while a B-tree's inner pages are.
    pub touched: Option<f64>,
}

/// The amplifications of each engine: medians over the workloads that show them.
pub fn amplifications(results: &Results) -> Vec<Amplification> {
    let of = |engine, name: &str, counts: &dyn Fn(&Row) -> bool| {
        let rows = results.workloads().filter(|row| counts(row));
        let figures: Vec<f64> = rows.filter_map(|row| row.median(engine, name)).collect();
        Some(median(&figures)).filter(|median| median.is_finite())
    };
    let lookups = |row: &Row| {
        let sample = results
            .engines
            .iter()
            .find_map(|&engine| row.typical(engine));
        let kinds = sample.map(|sample| sample.latencies()).unwrap_or_default();
        !kinds.is_empty() && kinds.iter().all(|(kind, _)| kind == "read")
    };
    let engines = results.engines.iter();
    engines
        .map(|&engine| Amplification {
            engine,
            figures: [
                of(engine, "cpu_s_per_million_ops", &lookups),
                of(engine, "write_amplification", &|row| row.writes),
                of(engine, "tree_space_amplification", &|row| {
                    !row.label.starts_with("deleterandom")
                }),
            ],
            touched: of(engine, "read_amplification", &lookups),
        })
        .collect()
}

/// The triangle of read, write and space amplification.
pub fn triangle(amplifications: &[Amplification]) -> Option<String> {
    let any = |corner: usize| amplifications.iter().any(|a| a.figures[corner].is_some());
    if ![0, 1, 2].into_iter().all(any) {
        return None;
    }
    let corner = |label: &str, corner: usize| {
        let figures = amplifications
            .iter()
            .map(|a| Cost::Plain.show(a.figures[corner]));
        format!("{label} {}", figures.collect::<Vec<_>>().join(" / "))
    };
    let shapes: Vec<_> = amplifications
        .iter()
        .map(|a| {
            (
                a.engine.name().to_owned(),
                a.figures.map(|figure| figure.unwrap_or(0.0)),
            )
        })
        .collect();
    Some(triangles(
        "Cost of reading, writing and space of each engine; smaller is better",
        &[corner("read", 0), corner("write", 1), corner("space", 2)],
        &shapes,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_spread_by_their_nines() {
        assert_eq!(nines(0.0), 0.0);
        assert!((nines(90.0) - 1.0).abs() < 1e-9 && (nines(99.9) - 3.0).abs() < 1e-9);
        assert_eq!(nines(100.0), NINES_MAX);
    }

    #[test]
    fn marks_are_short() {
        assert_eq!(
            (round(2_500_000.0), round(500.0)),
            ("2.5M".into(), "500".into())
        );
        assert_eq!(
            (seconds(0.1 + 0.2), seconds(10.0)),
            ("0.3".into(), "10".into())
        );
        assert_eq!((micros(0.1), micros(1e6)), ("100 ns".into(), "1 s".into()));
    }

    #[test]
    fn long_series_are_averaged() {
        let points: Vec<_> = (1..=1000).map(|at| (f64::from(at), 7.0)).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS_MAX && thin.iter().all(|&(_, rate)| rate == 7.0));
        assert_eq!(thin.last(), Some(&(1000.0, 7.0)));
        assert!(thinned(&[]).is_empty());
    }
}
