//! Line charts and bars as inline SVG: no script, no font, no colour of their own.
//!
//! Colours and sizes of text come from the page's style sheet through classes, so that one picture
//! serves light and dark. A chart is drawn at the size of a phone's column and put side by side
//! with others on a wide screen, so its text is as large as the page's wherever it is seen.

use std::fmt::Write as _;

/// Width of a line chart, in pixels at its natural size.
pub const WIDTH: f64 = 360.0;
/// Height of a line chart.
pub const HEIGHT: f64 = 220.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;

/// Text as HTML and SVG take it, in elements and in attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML has no other control characters.
            control if control.is_control() && !"\n\t".contains(control) => out.push('\u{FFFD}'),
            other => out.push(other),
        }
    }
    out
}

/// A scale with its marks.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From zero to at least `most`, with four or five marks at round numbers.
    pub fn linear(label: &str, most: f64, show: impl Fn(f64) -> String) -> Self {
        let most = if most.is_finite() && most > 0.0 {
            most
        } else {
            1.0
        };
        let step = round_step(most / 4.0);
        let marks = (most / step).ceil().max(1.0);
        let ticks = (0..=marks as u32).map(|mark| f64::from(mark) * step);
        Self {
            label: label.to_owned(),
            low: 0.0,
            high: marks * step,
            logarithmic: false,
            ticks: ticks.map(|at| (at, show(at))).collect(),
        }
    }

    /// Powers of ten around `least` and `most`.
    pub fn decades(label: &str, least: f64, most: f64, show: impl Fn(f64) -> String) -> Self {
        let sane = |figure: f64, otherwise: f64| match figure.is_finite() && figure > 0.0 {
            true => figure,
            false => otherwise,
        };
        let low = sane(least, 1.0).log10().floor();
        let high = sane(most, 10.0).log10().ceil().max(low + 1.0);
        let ticks = (low as i32..=high as i32).map(|power| 10f64.powi(power));
        Self {
            label: label.to_owned(),
            low: 10f64.powf(low),
            high: 10f64.powf(high),
            logarithmic: true,
            ticks: ticks.map(|at| (at, show(at))).collect(),
        }
    }

    /// From `low` to `high`, with the marks given.
    pub fn marked(label: &str, low: f64, high: f64, ticks: Vec<(f64, String)>) -> Self {
        Self {
            label: label.to_owned(),
            low,
            high,
            logarithmic: false,
            ticks,
        }
    }

    /// Where `value` lies, from 0 to 1; what lies outside is put at the edge.
    fn place(&self, value: f64) -> f64 {
        let place = match self.logarithmic {
            true => {
                let value = value.max(f64::MIN_POSITIVE);
                (value / self.low).log10() / (self.high / self.low).log10()
            }
            false => (value - self.low) / (self.high - self.low),
        };
        if place.is_finite() {
            place.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }
}

/// The smallest of 1, 2, 2.5, 5 times a power of ten that is at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|times| times * power);
    // Rounding may leave the largest a hair too small.
    steps
        .into_iter()
        .find(|&round| round >= step)
        .unwrap_or(steps[4])
}

/// A line of a chart.
#[derive(Debug, Clone)]
pub struct Line {
    /// Classes of the style sheet.
    pub class: String,
    /// Its name, shown when pointed at.
    pub name: String,
    /// Its points, in order.
    pub points: Vec<(f64, f64)>,
}

/// A chart of lines over two axes.
#[derive(Debug, Clone)]
pub struct Chart {
    /// What it shows, for readers who cannot see it.
    pub description: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The lines.
    pub lines: Vec<Line>,
}

impl Chart {
    /// The chart as an `<svg>` element.
    pub fn render(&self) -> String {
        let x = |value| LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT);
        let y = |value| HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM);
        let mut out = open(WIDTH, HEIGHT, &self.description);
        let (left, right) = (LEFT, WIDTH - RIGHT);
        let floor = HEIGHT - BOTTOM;
        for (value, label) in &self.y.ticks {
            let at = y(*value);
            push(
                &mut out,
                format_args!(
                    r#"<line class="grid" x1="{left:.1}" y1="{at:.1}" x2="{right:.1}" y2="{at:.1}"/>"#
                ),
            );
            text(&mut out, left - 5.0, at + 3.5, "end", label);
        }
        for (value, label) in &self.x.ticks {
            let at = x(*value);
            push(
                &mut out,
                format_args!(
                    r#"<line class="grid" x1="{at:.1}" y1="{TOP:.1}" x2="{at:.1}" y2="{floor:.1}"/>"#
                ),
            );
            let anchor = if at > right - 8.0 { "end" } else { "middle" };
            let at = if anchor == "end" { right + 6.0 } else { at };
            text(&mut out, at, floor + 14.0, anchor, label);
        }
        push(
            &mut out,
            format_args!(
                r#"<line class="axis" x1="{left:.1}" y1="{floor:.1}" x2="{right:.1}" y2="{floor:.1}"/>"#
            ),
        );
        text(
            &mut out,
            f64::midpoint(left, right),
            HEIGHT - 8.0,
            "middle",
            &self.x.label,
        );
        for line in &self.lines {
            let name = escape(&line.name);
            let class = escape(&line.class);
            if let [(only_x, only_y)] = line.points[..] {
                let (cx, cy) = (x(only_x), y(only_y));
                push(
                    &mut out,
                    format_args!(
                        r#"<circle class="{class}" cx="{cx:.1}" cy="{cy:.1}" r="3"><title>{name}</title></circle>"#
                    ),
                );
                continue;
            }
            let mut points = String::new();
            for &(px, py) in &line.points {
                push(&mut points, format_args!("{:.1},{:.1} ", x(px), y(py)));
            }
            push(
                &mut out,
                format_args!(
                    r#"<polyline class="{class}" points="{}"><title>{name}</title></polyline>"#,
                    points.trim_end()
                ),
            );
        }
        out.push_str("</svg>");
        out
    }
}

/// A bar to the left or right of the middle, with a whisker from the least to the most; all places
/// are from -1 to 1.
pub fn diverging_bar(
    class: &str,
    place: f64,
    whisker: Option<(f64, f64)>,
    ticks: &[f64],
) -> String {
    let at = |place: f64| 100.0 + within(place, -1.0) * 100.0;
    let mut out = open_bar();
    for tick in ticks {
        upright(&mut out, "grid", at(*tick), 0.0, 10.0);
    }
    let (from, to) = (at(place).min(100.0), at(place).max(100.0));
    rect(&mut out, class, from, to - from);
    upright(&mut out, "axis", 100.0, 0.0, 10.0);
    if let Some((low, high)) = whisker {
        draw_whisker(&mut out, at(low), at(high));
    }
    out.push_str("</svg>");
    out
}

/// A bar from the left edge, with a whisker from the least to the most; all places are from 0 to 1.
pub fn bar(class: &str, place: f64, whisker: Option<(f64, f64)>) -> String {
    let at = |place: f64| within(place, 0.0) * 200.0;
    let mut out = open_bar();
    rect(&mut out, class, 0.0, at(place));
    upright(&mut out, "axis", 0.0, 0.0, 10.0);
    if let Some((low, high)) = whisker {
        draw_whisker(&mut out, at(low), at(high));
    }
    out.push_str("</svg>");
    out
}

/// `place` between `low` and 1; what is no number is at 0.
fn within(place: f64, low: f64) -> f64 {
    if place.is_nan() {
        0.0
    } else {
        place.clamp(low, 1.0)
    }
}

/// Bars are as wide as their column, whatever that is.
fn open_bar() -> String {
    r#"<svg class="bar" viewBox="0 0 200 10" preserveAspectRatio="none" aria-hidden="true">"#.into()
}

fn rect(out: &mut String, class: &str, left: f64, width: f64) {
    let class = escape(class);
    push(
        out,
        format_args!(
            r#"<rect class="{class}" x="{left:.2}" y="1.5" width="{width:.2}" height="7"/>"#
        ),
    );
}

fn upright(out: &mut String, class: &str, at: f64, from: f64, to: f64) {
    push(
        out,
        format_args!(r#"<line class="{class}" x1="{at:.2}" y1="{from}" x2="{at:.2}" y2="{to}"/>"#),
    );
}

fn draw_whisker(out: &mut String, low: f64, high: f64) {
    push(
        out,
        format_args!(r#"<line class="whisker" x1="{low:.2}" y1="5" x2="{high:.2}" y2="5"/>"#),
    );
    for end in [low, high] {
        upright(out, "whisker", end, 3.0, 7.0);
    }
}

fn open(width: f64, height: f64, description: &str) -> String {
    let description = escape(description);
    format!(r#"<svg viewBox="0 0 {width} {height}" role="img" aria-label="{description}">"#)
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, label: &str) {
    push(
        out,
        format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
            escape(label)
        ),
    );
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(
            escape("a<b>&\"c'\u{1}"),
            "a&lt;b&gt;&amp;&quot;c&#39;\u{FFFD}"
        );
    }

    #[test]
    fn axes_have_round_marks() {
        let marks = |most: f64| {
            let axis = Axis::linear("", most, |at| format!("{at}"));
            axis.ticks
                .into_iter()
                .map(|(_, label)| label)
                .collect::<Vec<_>>()
        };
        assert_eq!(marks(100.0), ["0", "25", "50", "75", "100"]);
        assert_eq!(marks(7.0), ["0", "2", "4", "6", "8"]);
        assert!(marks(0.0).len() > 1 && marks(f64::NAN).len() > 1);
        let axis = Axis::decades("", 0.4, 2500.0, |at| format!("{at}"));
        let labels: Vec<_> = axis.ticks.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["0.1", "1", "10", "100", "1000", "10000"]);
        assert_eq!(
            Axis::decades("", 0.0, f64::NAN, |_| String::new())
                .ticks
                .len(),
            2
        );
    }

    #[test]
    fn values_are_placed_within_the_chart() {
        let linear = Axis::linear("", 100.0, |_| String::new());
        assert_eq!(
            (linear.place(0.0), linear.place(50.0), linear.place(1e9)),
            (0.0, 0.5, 1.0)
        );
        let log = Axis::decades("", 1.0, 100.0, |_| String::new());
        assert_eq!(
            (log.place(10.0), log.place(0.0), log.place(f64::NAN)),
            (0.5, 0.0, 0.0)
        );
    }

    #[test]
    fn a_chart_has_its_lines_and_labels() {
        let chart = Chart {
            description: "a \"chart\"".into(),
            x: Axis::linear("seconds", 10.0, |at| format!("{at} s")),
            y: Axis::decades("", 1.0, 100.0, |at| format!("{at} us")),
            lines: vec![
                Line {
                    class: "line lsm".into(),
                    name: "<lsm>".into(),
                    points: vec![(0.0, 1.0), (10.0, 100.0)],
                },
                Line {
                    class: "line btree".into(),
                    name: "one point".into(),
                    points: vec![(5.0, 10.0)],
                },
            ],
        };
        let svg = chart.render();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"));
        assert!(svg.contains(r#"points="46.0,180.0 348.0,10.0""#), "{svg}");
        assert!(
            svg.contains("<title>&lt;lsm&gt;</title>") && svg.contains("<circle"),
            "{svg}"
        );
        assert!(
            svg.contains("a &quot;chart&quot;") && svg.contains("10 us") && !svg.contains("NaN")
        );
    }

    #[test]
    fn bars_and_whiskers_stay_inside() {
        let svg = diverging_bar("lsm", -9.0, Some((-9.0, 0.5)), &[0.5]);
        assert!(svg.contains(r#"x="0.00" y="1.5" width="100.00""#), "{svg}");
        assert!(
            svg.contains(r#"class="whisker" x1="0.00" y1="5" x2="150.00" y2="5""#),
            "{svg}"
        );
        assert!(!diverging_bar("even", f64::NAN, None, &[]).contains("NaN"));
        let svg = bar("btree", 0.25, Some((0.2, f64::INFINITY)));
        assert!(svg.contains(r#"x="0.00" y="1.5" width="50.00""#), "{svg}");
        assert!(
            svg.contains(r#"x1="40.00" y1="5" x2="200.00" y2="5""#),
            "{svg}"
        );
        assert!(!bar("even", f64::NAN, None).contains("NaN"));
    }
}
