//! Medians with their spread, and figures short enough for a table.

/// One figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Sums up the figures of the rounds; `None` if there are none.
    pub fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
        };
        Some(Self { median, min, max })
    }

    /// The median, and in brackets the spread if there is one.
    pub fn show(&self, figure: impl Fn(f64) -> String) -> String {
        let (median, min, max) = (figure(self.median), figure(self.min), figure(self.max));
        if min == max {
            median
        } else {
            format!("{median} ({min}–{max})")
        }
    }
}

/// Three significant digits, with k, M or G.
pub fn short(figure: f64) -> String {
    let (scaled, unit) = match figure.abs() {
        // What rounds to 1000 belongs to the next unit.
        size if size >= 999.5e6 => (figure / 1e9, "G"),
        size if size >= 999.5e3 => (figure / 1e6, "M"),
        size if size >= 999.5 => (figure / 1e3, "k"),
        _ => (figure, ""),
    };
    let decimals = match scaled.abs() {
        size if size >= 99.95 || size == 0.0 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spread() {
        assert_eq!(Summary::of(&[]), None);
        let one = Summary::of(&[5.0]).unwrap();
        assert_eq!(one.show(short), "5.00");
        let three = Summary::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((three.median, three.min, three.max), (2.0, 1.0, 3.0));
        assert_eq!(three.show(|f| f.to_string()), "2 (1–3)");
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
    }

    #[test]
    fn figures_are_short() {
        for (figure, shown) in [
            (0.0, "0"),
            (0.123, "0.12"),
            (9.999, "10.0"),
            (12.34, "12.3"),
            (233.4, "233"),
            (999.6, "1.00k"),
            (233_400.0, "233k"),
            (999_600.0, "1.00M"),
            (16_640_000.0, "16.6M"),
            (2.5e9, "2.50G"),
        ] {
            assert_eq!(short(figure), shown);
        }
    }
}
