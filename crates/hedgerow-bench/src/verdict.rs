//! Which engine is better at something, and by how much: medians over rounds and their spread.

use hedgerow::EngineKind;

use crate::format::bytes;

/// Two medians closer than this are called even: rounds differ by as much.
const EVEN_WITHIN: f64 = 1.05;
/// Times that differ by less are called even, whatever their ratio: nobody waits for that.
const EVEN_WITHIN_MS: f64 = 0.5;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Operations a second: more is better.
    PerSecond,
    /// Bytes: fewer is better.
    Bytes,
    /// A ratio, such as bytes written for each byte that the user put: less is better.
    Times,
    /// Milliseconds: fewer is better.
    Milliseconds,
    /// Microseconds: fewer is better.
    Microseconds,
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::PerSecond,
        Self::Bytes,
        Self::Times,
        Self::Milliseconds,
        Self::Microseconds,
    ];

    /// True if a larger figure is a better one.
    pub fn more_is_better(self) -> bool {
        self == Self::PerSecond
    }

    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "operations/s",
            Self::Bytes => "bytes",
            Self::Times => "times",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
        }
    }

    /// A figure for people.
    pub fn show(self, figure: f64) -> String {
        match self {
            Self::PerSecond if figure >= 999_500.0 => format!("{:.2} M/s", figure / 1e6),
            Self::PerSecond if figure >= 1e4 => format!("{:.0} k/s", figure / 1e3),
            Self::PerSecond => format!("{figure:.0} /s"),
            Self::Bytes => bytes(figure as u64),
            Self::Times => format!("{figure:.2}x"),
            Self::Milliseconds if figure < 10.0 => format!("{figure:.2} ms"),
            Self::Milliseconds => format!("{figure:.0} ms"),
            Self::Microseconds if figure < 10.0 => format!("{figure:.2} us"),
            Self::Microseconds if figure < 1e4 => format!("{figure:.0} us"),
            Self::Microseconds => format!("{:.0} ms", figure / 1e3),
        }
    }
}

/// Who is better at something, and how many times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// None if they are even.
    pub winner: Option<EngineKind>,
    /// At least 1.
    pub factor: f64,
    /// True if the worst round of the winner beats the best of the other.
    pub clear: bool,
}

impl Verdict {
    /// In a few words: `lsm 2.1x`; a `~` marks what some rounds would overturn.
    pub fn to_text(self) -> String {
        match self.winner {
            None => "even".to_owned(),
            Some(engine) if self.clear => format!("{engine} {}", times(self.factor)),
            Some(engine) => format!("{engine} ~{}", times(self.factor)),
        }
    }
}

/// A factor for people.
pub fn times(factor: f64) -> String {
    if factor < 100.0 {
        format!("{factor:.1}x")
    } else {
        format!("{factor:.0}x")
    }
}

/// The middle of the samples; of an even number, the mean of the two in the middle; not a number if
/// there are none.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// Judges by the medians of both engines' rounds.
pub fn judge(unit: Unit, lsm: &[f64], btree: &[f64]) -> Verdict {
    let (a, b) = (median(lsm), median(btree));
    // How many times better the LSM tree is; nothing is infinitely better than zero.
    let ratio = if unit.more_is_better() { a / b } else { b / a };
    let negligible = unit == Unit::Milliseconds && (a - b).abs() < EVEN_WITHIN_MS;
    if !ratio.is_finite() || ratio <= 0.0 || negligible {
        return Verdict {
            winner: None,
            factor: 1.0,
            clear: false,
        };
    }
    let factor = ratio.max(1.0 / ratio);
    let winner = match (factor < EVEN_WITHIN, ratio > 1.0) {
        (true, _) => None,
        (false, true) => Some(EngineKind::Lsm),
        (false, false) => Some(EngineKind::BTree),
    };
    let apart = max(lsm) < min(btree) || max(btree) < min(lsm);
    Verdict {
        winner,
        factor,
        clear: winner.is_some() && apart,
    }
}

/// The smallest sample.
pub fn min(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The largest sample.
pub fn max(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_ignore_outliers() {
        assert_eq!(median(&[3.0, 1.0, 200.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_better_engine_wins() {
        let winner = |unit, lsm: f64, btree: f64| judge(unit, &[lsm], &[btree]).winner;
        assert_eq!(winner(Unit::PerSecond, 2.0, 1.0), Some(EngineKind::Lsm));
        assert_eq!(winner(Unit::Bytes, 2.0, 1.0), Some(EngineKind::BTree));
        assert_eq!(winner(Unit::Bytes, 1.0, 1.04), None);
        assert_eq!(winner(Unit::Milliseconds, 0.1, 0.5), None);
        assert_eq!(winner(Unit::Microseconds, 0.1, 0.5), Some(EngineKind::Lsm));
        assert_eq!(winner(Unit::Bytes, 0.0, 1.0), None);
        assert_eq!(judge(Unit::Bytes, &[1.0], &[3.0]).factor, 3.0);
        assert_eq!(judge(Unit::Bytes, &[], &[3.0]).winner, None);
    }

    #[test]
    fn overlapping_rounds_decide_nothing_clearly() {
        let verdict = judge(Unit::PerSecond, &[1.0, 2.0, 9.0], &[3.0, 4.0, 5.0]);
        assert_eq!(
            (verdict.winner, verdict.clear),
            (Some(EngineKind::BTree), false)
        );
        assert_eq!(verdict.to_text(), "btree ~2.0x");
        let verdict = judge(Unit::PerSecond, &[1.0, 2.0], &[3.0, 4.0]);
        assert!(verdict.clear);
    }
}
