//! Line charts, bars and triangles as inline SVG: no script, no font, no colour of their own.
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

/// A bar to the left or right of the middle; `place` is from -1 to 1.
pub fn diverging_bar(class: &str, place: f64, ticks: &[f64]) -> String {
    let place = if place.is_finite() {
        place.clamp(-1.0, 1.0)
    } else {
        0.0
    };
    let mut out = String::from(
        r#"<svg class="bar" viewBox="0 0 200 10" preserveAspectRatio="none" aria-hidden="true">"#,
    );
    for tick in ticks {
        let at = 100.0 + tick * 100.0;
        push(
            &mut out,
            format_args!(r#"<line class="grid" x1="{at:.2}" y1="0" x2="{at:.2}" y2="10"/>"#),
        );
    }
    let (left, width) = (100.0 + place.min(0.0) * 100.0, place.abs() * 100.0);
    push(
        &mut out,
        format_args!(
            r#"<rect class="{}" x="{left:.2}" y="1.5" width="{width:.2}" height="7"/>"#,
            escape(class)
        ),
    );
    out.push_str(r#"<line class="axis" x1="100" y1="0" x2="100" y2="10"/></svg>"#);
    out
}

/// Triangles over three axes from a common middle. Each corner has its own scale, from zero to the
/// largest figure there.
pub fn triangles(
    description: &str,
    corners: &[String; 3],
    shapes: &[(String, [f64; 3])],
) -> String {
    const SIZE: (f64, f64) = (360.0, 232.0);
    const CENTRE: (f64, f64) = (180.0, 142.0);
    const RADIUS: f64 = 112.0;
    // Up, lower right, lower left.
    let directions = [-90f64, 30.0, 150.0].map(|degrees| {
        let angle = degrees.to_radians();
        (angle.cos(), angle.sin())
    });
    let point = |corner: usize, share: f64| {
        let (dx, dy) = directions[corner];
        (
            CENTRE.0 + dx * RADIUS * share,
            CENTRE.1 + dy * RADIUS * share,
        )
    };
    let polygon = |shares: [f64; 3]| {
        let points = [0, 1, 2].map(|corner| {
            let (x, y) = point(corner, shares[corner]);
            format!("{x:.1},{y:.1}")
        });
        points.join(" ")
    };
    let mut out = open(SIZE.0, SIZE.1, description);
    for ring in [0.25, 0.5, 0.75, 1.0] {
        push(
            &mut out,
            format_args!(r#"<polygon class="ring" points="{}"/>"#, polygon([ring; 3])),
        );
    }
    let most = [0, 1, 2].map(|corner| {
        let figures = shapes.iter().map(|(_, figures)| figures[corner]);
        figures
            .filter(|figure| figure.is_finite())
            .fold(f64::MIN_POSITIVE, f64::max)
    });
    for (class, figures) in shapes {
        let shares = [0, 1, 2].map(|corner| {
            let share = figures[corner] / most[corner];
            if share.is_finite() {
                share.clamp(0.0, 1.0)
            } else {
                0.0
            }
        });
        push(
            &mut out,
            format_args!(
                r#"<polygon class="shape {}" points="{}"/>"#,
                escape(class),
                polygon(shares)
            ),
        );
    }
    for (corner, label) in corners.iter().enumerate() {
        let (x, y) = point(corner, 1.0);
        let (dy, anchor, x) = match corner {
            0 => (-10.0, "middle", x),
            1 => (20.0, "end", SIZE.0 - 6.0),
            _ => (20.0, "start", 6.0),
        };
        text(&mut out, x, y + dy, anchor, label);
    }
    out.push_str("</svg>");
    out
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
    fn bars_and_triangles_stay_inside() {
        let bar = diverging_bar("lsm", -9.0, &[0.5]);
        assert!(bar.contains(r#"x="0.00" y="1.5" width="100.00""#), "{bar}");
        assert!(!diverging_bar("even", f64::NAN, &[]).contains("NaN"));
        let corners = ["read".into(), "write".into(), "space".into()];
        let shapes = [
            ("lsm".into(), [2.0, 1.0, f64::NAN]),
            ("btree".into(), [1.0, 4.0, 0.0]),
        ];
        let svg = triangles("three", &corners, &shapes);
        assert_eq!(svg.matches("class=\"shape").count(), 2);
        assert!(svg.contains("180.0,30.0") && !svg.contains("NaN"), "{svg}");
    }
}
