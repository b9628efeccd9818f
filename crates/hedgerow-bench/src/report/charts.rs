//! The charts of the page, each from the results.

use super::svg::{Axis, Chart, Line, bar, diverging_bar, escape};
use crate::format::thousands;
use crate::subject::Subject;
use crate::suite::results::{Contest, Cost, Results, Row, Spread};
use crate::verdict::{max, median, min, times};

/// Points of a line of throughput: more than a chart has room for are averaged.
const POINTS_MAX: usize = 120;
/// Where the horizontal axis of latencies ends: 99.999 %, and the largest at its edge.
const NINES_MAX: f64 = 5.0;

/// The scale of all bars of factors on a page: doublings from the middle to an edge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FactorScale {
    doublings: f64,
}

impl FactorScale {
    /// Doublings beyond which a bar ends at the edge of its column.
    const MOST: f64 = 12.0;

    /// The scale on which every factor of `contests` has room, and what its rounds allow.
    pub fn of(contests: &[Contest], subjects: usize) -> Self {
        let advantages = contests
            .iter()
            .flat_map(|contest| (1..subjects).filter_map(|other| shown_advantage(contest, other)));
        let ends = advantages.flat_map(|advantage| [advantage.low, advantage.high]);
        let most = ends.fold(1.0, |most: f64, end| most.max(end.log2().abs()));
        Self {
            doublings: most.ceil().min(Self::MOST),
        }
    }

    /// Where a factor is, from -1 to 1.
    fn place(self, factor: f64) -> f64 {
        factor.log2() / self.doublings
    }

    /// Doublings at which there are marks, few enough to stay apart on a phone.
    fn marks(self) -> Vec<f64> {
        let step = (self.doublings / 3.0).ceil();
        let marks = (1..).map(|nth| f64::from(nth) * step);
        marks.take_while(|&mark| mark <= self.doublings).collect()
    }
}

/// How many times better the first subject is than `other`, unless that is nothing to be drawn:
/// what is called even has no bar.
fn shown_advantage(contest: &Contest, other: usize) -> Option<Spread> {
    contest.verdict_of_two(0, other).winner()?;
    contest.advantage(0, other)
}

/// How many times better the first subject or another is in each contest: a row with a bar for
/// each other.
pub fn ratios(contests: &[Contest], subjects: &[Subject], scale: FactorScale) -> String {
    let marks = scale.marks();
    let places: Vec<f64> = marks
        .iter()
        .flat_map(|mark| [-mark / scale.doublings, mark / scale.doublings])
        .collect();
    let Some((first, others)) = subjects.split_first() else {
        return String::new();
    };
    let mut out = String::from("<div class=\"ratios\">");
    for contest in contests {
        for (nth, other) in others.iter().enumerate() {
            let verdict = contest.verdict_of_two(0, nth + 1);
            let pair = [*first, *other];
            let better = verdict.winner().map(|winner| pair[winner]);
            let class = better.map_or("even", |subject| subject.name);
            let unclear = if verdict.clear { "" } else { " unclear" };
            // The first to the right, the others to the left.
            let advantage = shown_advantage(contest, nth + 1);
            let place = match (advantage, verdict.winner()) {
                (Some(advantage), _) => scale.place(advantage.middle),
                // Infinitely better: the others did nothing.
                (None, Some(0)) => 1.0,
                (None, Some(_)) => -1.0,
                (None, None) => 0.0,
            };
            let whisker = advantage
                .filter(|advantage| advantage.low < advantage.high)
                .map(|advantage| (scale.place(advantage.low), scale.place(advantage.high)));
            let mut what = String::new();
            if nth == 0 {
                what += &named(&contest.label, &contest.about);
            }
            if others.len() > 1 {
                let other = escape(other.title);
                what += &format!("<span class=\"against\">against {other}</span>");
            }
            let unsure = if verdict.unsure { "?" } else { "" };
            let who = match better {
                Some(subject) => {
                    let some_rounds = if verdict.clear || verdict.unsure {
                        ""
                    } else {
                        "~"
                    };
                    let factor = times(verdict.factor);
                    format!("{} {some_rounds}{factor}{unsure}", subject.title)
                }
                None if verdict.is_even() && others.len() > 1 => {
                    format!("{} even{unsure}", other.title)
                }
                None => verdict.to_text(&[]),
            };
            out += &format!(
                "<div class=\"ratio\"><span class=\"what\">{what}</span>{}<span class=\"who \
                 {class}\">{}</span></div>",
                diverging_bar(&format!("fill {class}{unclear}"), place, whisker, &places),
                escape(&who),
            );
        }
    }
    out += "<div class=\"ratio scale\"><span class=\"what\"></span><span class=\"marks\">";
    let mirrored = marks.iter().rev().map(|mark| -mark);
    for mark in mirrored.chain([0.0]).chain(marks.iter().copied()) {
        let left = 50.0 + mark / scale.doublings * 50.0;
        let label = match mark {
            0.0 => "1x".to_owned(),
            mark => format!("{}x", short_power(mark.abs())),
        };
        out += &format!("<span style=\"left:{left:.1}%\">{label}</span>");
    }
    out += "</span><span class=\"who\"></span></div></div>";
    out
}

/// The name of a workload or a figure, which tells what it shows when it is pointed at.
pub fn named(label: &str, about: &str) -> String {
    format!(
        "<span class=\"named\" title=\"{}\">{}</span>",
        escape(about),
        escape(label)
    )
}

fn short_power(log: f64) -> String {
    let factor = log.exp2();
    format!("{factor:.0}")
}

/// Throughput over time of one workload, in its round of middling speed.
pub fn throughput(row: &Row, subjects: &[Subject]) -> Option<String> {
    let lines: Vec<Line> = subjects
        .iter()
        .enumerate()
        .filter_map(|(at, subject)| {
            let points = thinned(&row.typical(at)?.throughput());
            (!points.is_empty()).then(|| Line {
                class: format!("line {subject}"),
                name: subject.title.to_owned(),
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

/// The vertical axis of all charts of latencies: from the least to the most of any workload.
pub fn latency_axis(results: &Results) -> Axis {
    let figures: Vec<f64> = results
        .workloads()
        .flat_map(|row| (0..results.subjects.len()).filter_map(|at| row.typical(at)))
        .flat_map(|sample| sample.latencies())
        .flat_map(|latencies| latencies.points)
        .map(|(_, micros)| micros)
        .collect();
    Axis::decades("", min(&figures), max(&figures), micros)
}

/// Latencies of one workload by percentile, in its round of middling speed, and what the lines are:
/// solid for its first kind of operation, dashed for the others.
pub fn latency(row: &Row, subjects: &[Subject], axis: &Axis) -> Option<(String, String)> {
    // Each kind with how many operations were timed on whom.
    let mut kinds: Vec<(String, Vec<String>)> = Vec::new();
    let mut lines = Vec::new();
    for (at, subject) in subjects.iter().enumerate() {
        for latencies in row.typical(at)?.latencies() {
            let nth = kinds.iter().position(|(kind, _)| *kind == latencies.kind);
            let nth = nth.unwrap_or_else(|| {
                kinds.push((latencies.kind.clone(), Vec::new()));
                kinds.len() - 1
            });
            let timed = thousands(latencies.measured);
            kinds[nth].1.push(format!("{timed} ({})", subject.title));
            let dashed = if nth > 0 { " dashed" } else { "" };
            lines.push(Line {
                class: format!("line {subject}{dashed}"),
                name: format!(
                    "{}: {}, n = {}",
                    subject.title, latencies.kind, latencies.measured
                ),
                points: latencies
                    .points
                    .into_iter()
                    .map(|(percent, micros)| (nines(percent), micros))
                    .collect(),
            });
        }
    }
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
            y: axis.clone(),
            lines,
        };
        let several = kinds.len() > 1;
        let caption = kinds.iter().enumerate().map(|(nth, (kind, timed))| {
            let line = match (several, nth) {
                (false, _) => "",
                (true, 0) => "solid: ",
                (true, _) => "dashed: ",
            };
            format!("{line}{kind}, n = {}", timed.join(", "))
        });
        (chart.render(), caption.collect::<Vec<_>>().join("; "))
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

/// What reading, writing and space cost: a figure of the workloads that show it.
#[derive(Debug, Clone)]
pub struct Amplification {
    /// What it is, with the unit.
    pub label: &'static str,
    /// For each subject: the median over the workloads of their medians over the rounds, with the
    /// smallest and the largest round.
    pub figures: Vec<Option<Spread>>,
}

/// The amplifications: medians over the workloads that show them.
pub fn amplifications(results: &Results) -> Vec<Amplification> {
    let subjects = 0..results.subjects.len();
    let lookups = |row: &Row| {
        let sample = subjects.clone().find_map(|at| row.typical(at));
        let kinds = sample.map(|sample| sample.latencies()).unwrap_or_default();
        !kinds.is_empty() && kinds.iter().all(|latencies| latencies.kind == "read")
    };
    let of = |label, name: &str, counts: &dyn Fn(&Row) -> bool| {
        let rows: Vec<&Row> = results.workloads().filter(|row| counts(row)).collect();
        let figures = subjects.clone().map(|at| {
            let medians: Vec<f64> = rows.iter().filter_map(|row| row.median(at, name)).collect();
            let rounds: Vec<f64> = (0..results.rounds as usize)
                .map(|round| {
                    let of_round = rows.iter().filter_map(|row| {
                        row.samples(at)
                            .get(round)
                            .and_then(|sample| sample.figure(name))
                    });
                    median(&of_round.collect::<Vec<_>>())
                })
                .filter(|figure| figure.is_finite())
                .collect();
            let middle = median(&medians);
            middle.is_finite().then(|| Spread {
                middle,
                low: min(&rounds).min(middle),
                high: max(&rounds).max(middle),
            })
        });
        Amplification {
            label,
            figures: figures.collect(),
        }
    };
    let all = [
        of(
            "Read: µs of processor time per lookup",
            "cpu_s_per_million_ops",
            &lookups,
        ),
        // A block of the one engine and a page of the other differ in size, and an LSM tree's
        // filters and indexes are not counted, while a B-tree's inner pages are.
        of(
            "Read: blocks or pages touched per lookup",
            "read_amplification",
            &lookups,
        ),
        of(
            "Write: bytes sent to storage per byte put",
            "write_amplification",
            &|row| row.writes,
        ),
        of(
            "Space: bytes on disk per byte of data, without the log",
            "tree_space_amplification",
            &|_| true,
        ),
    ];
    let shown = |each: &Amplification| each.figures.iter().any(Option::is_some);
    all.into_iter().filter(shown).collect()
}

/// One cost as bars from zero, on a scale of its own; shorter is better.
pub fn amplification_bars(cost: &Amplification, subjects: &[Subject]) -> String {
    let figures = cost.figures.iter().flatten();
    let most = figures.map(|spread| spread.high).fold(0.0, f64::max);
    let most = if most > 0.0 { most } else { 1.0 };
    let mut out = format!("<div class=\"costs\"><h3>{}</h3>", escape(cost.label));
    for (subject, spread) in subjects.iter().zip(&cost.figures) {
        let figure = Cost::Plain.show(spread.map(|spread| spread.middle));
        let drawn = match spread {
            Some(Spread { middle, low, high }) => bar(
                &format!("fill {subject}"),
                middle / most,
                (low < high).then_some((low / most, high / most)),
            ),
            None => bar("fill even", 0.0, None),
        };
        out += &format!(
            "<div class=\"cost\"><span class=\"{subject}\">{}</span>{drawn}<span \
             class=\"who\">{figure}</span></div>",
            escape(subject.title),
        );
    }
    out += "</div>";
    out
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

    use crate::suite::results::testing;

    #[test]
    fn one_scale_has_room_for_every_factor() {
        let contests = testing::results(&["fillrandom", "queue"]).contests();
        let scale = FactorScale::of(&contests, 2);
        // 750 against 1750 operations a second, 1.5 against 3.5 turns.
        // At the furthest 1 against 4, so that no whisker is cut off.
        assert_eq!(scale, FactorScale { doublings: 2.0 });
        assert_eq!((scale.place(4.0), scale.place(0.5)), (1.0, -0.5));
        let mut uneven = contests;
        uneven[0].rounds[0][0] /= 16.0;
        assert_eq!(FactorScale::of(&uneven, 2), FactorScale { doublings: 6.0 });
        assert_eq!(FactorScale::of(&[], 2).marks(), [1.0]);
    }

    /// "even" stood beside a bar of 3.7x where times differed by less than half a millisecond.
    #[test]
    fn what_is_even_has_no_bar() {
        let mut results = testing::results(&["queue"]);
        let mut contest = results.contests().remove(0);
        contest.unit = crate::verdict::Unit::Milliseconds;
        contest.rounds = vec![vec![0.1, 0.1], vec![0.37, 0.37]];
        let bars = ratios(
            &[contest],
            &results.subjects,
            FactorScale { doublings: 2.0 },
        );
        assert!(
            bars.contains(">even<") && bars.contains(r#"width="0.00""#),
            "{bars}"
        );
        assert!(!bars.contains("whisker"), "{bars}");
        results.subjects.clear();
        assert_eq!(ratios(&[], &results.subjects, FactorScale::of(&[], 0)), "");
    }

    #[test]
    fn costs_have_the_spread_of_the_rounds() {
        let results = testing::results(&["fillrandom", "readrandom"]);
        let costs = amplifications(&results);
        let touched = costs
            .iter()
            .find(|cost| cost.label.contains("touched"))
            .unwrap();
        // Rounds of 1.25 and 2.5, and of 3.75 and 5.
        let [Some(lsm), Some(btree)] = touched.figures[..] else {
            panic!("{touched:?}");
        };
        assert_eq!((lsm.low, lsm.middle, lsm.high), (1.25, 1.875, 2.5));
        assert_eq!((btree.low, btree.middle, btree.high), (3.75, 4.375, 5.0));
        let bars = amplification_bars(touched, &results.subjects);
        assert!(bars.contains(">1.88<") && bars.contains(">4.38<"), "{bars}");
        assert_eq!(bars.matches("class=\"whisker\"").count(), 2 * 3);
        // From zero: 4.375 of 5.
        assert!(bars.contains(r#"width="175.00""#), "{bars}");
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
