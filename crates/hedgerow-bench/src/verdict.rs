//! Who is better at something, and by how much: medians over rounds and their spread.
//!
//! Those compared are known by their position in a list, so that it may be engines, variants of an
//! engine, or other stores, and any number of them.

use crate::format::{bytes, thousands};

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
    /// Things that are not wanted: fewer is better.
    Count,
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::PerSecond,
        Self::Bytes,
        Self::Times,
        Self::Milliseconds,
        Self::Microseconds,
        Self::Count,
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
            Self::Count => "count",
        }
    }

    /// A figure for people.
    pub fn show(self, figure: f64) -> String {
        match self {
            Self::PerSecond if figure >= 999_500.0 => format!("{:.2} M/s", figure / 1e6),
            Self::PerSecond if figure >= 1e4 => format!("{:.0} k/s", figure / 1e3),
            // Few of something a second are not none.
            Self::PerSecond if figure > 0.0 && figure < 9.95 => format!("{figure:.2} /s"),
            Self::PerSecond => format!("{figure:.0} /s"),
            Self::Bytes => bytes(figure as u64),
            Self::Times => format!("{figure:.2}x"),
            Self::Milliseconds if figure < 10.0 => format!("{figure:.2} ms"),
            Self::Milliseconds => format!("{figure:.0} ms"),
            Self::Microseconds if figure < 10.0 => format!("{figure:.2} us"),
            Self::Microseconds if figure < 1e4 => format!("{figure:.0} us"),
            Self::Microseconds => format!("{:.0} ms", figure / 1e3),
            Self::Count => thousands(figure as u64),
        }
    }
}

/// Who is better at something, and how many times.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Positions of the best, and of those that are even with it. Empty if there is nothing to
    /// compare: fewer than two have figures, or nobody did any work.
    pub leaders: Vec<usize>,
    /// How many were compared.
    pub compared: usize,
    /// How many times better the best is than the best of those that are not even with it; 1 if
    /// all are even, infinite if the others did nothing at all.
    pub factor: f64,
    /// True if the worst round of the leaders beats the best of all others, over two rounds at
    /// least.
    pub clear: bool,
    /// True if the conditions of the run allow no certain verdict; see
    /// [`Doubt`](crate::conditions::Doubt).
    pub unsure: bool,
}

/// What is written where nothing can be compared, or is not known.
pub const NOTHING: &str = "–";

impl Verdict {
    /// True if all that were compared are even.
    pub fn is_even(&self) -> bool {
        self.compared > 0 && self.leaders.len() == self.compared
    }

    /// The position of the one that is better than all others.
    pub fn winner(&self) -> Option<usize> {
        match self.leaders[..] {
            [winner] if self.compared > 1 => Some(winner),
            _ => None,
        }
    }

    /// The verdict of a run that allows no certain one, if `unsure`.
    pub fn doubted(mut self, unsure: bool) -> Self {
        self.unsure |= unsure;
        self.clear &= !unsure;
        self
    }

    /// The names of the leaders: `lsm`, or `lsm, lsm-skiplist`; `even`; a dash for no verdict.
    pub fn leaders_text(&self, names: &[&str]) -> String {
        if self.leaders.is_empty() {
            return NOTHING.to_owned();
        }
        if self.is_even() {
            return "even".to_owned();
        }
        let leaders = self.leaders.iter();
        let leaders: Vec<_> = leaders.map(|&at| *names.get(at).unwrap_or(&"?")).collect();
        leaders.join(", ")
    }

    /// In a few words: `lsm 2.1x`. A `~` marks what some rounds would overturn, a `?` everything
    /// of a run that allows no certain verdict.
    pub fn to_text(&self, names: &[&str]) -> String {
        let leaders = self.leaders_text(names);
        if self.leaders.is_empty() {
            return leaders;
        }
        let unsure = if self.unsure { "?" } else { "" };
        if self.is_even() {
            return format!("{leaders}{unsure}");
        }
        let some_rounds = if self.clear || self.unsure { "" } else { "~" };
        format!("{leaders} {some_rounds}{}{unsure}", times(self.factor))
    }
}

/// A factor for people.
pub fn times(factor: f64) -> String {
    if factor.is_infinite() {
        "∞x".to_owned()
    } else if factor < 99.95 {
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

/// Judges by the medians of the rounds of each.
pub fn judge(unit: Unit, rounds: &[&[f64]]) -> Verdict {
    let medians: Vec<f64> = rounds.iter().map(|samples| median(samples)).collect();
    let present: Vec<usize> = (0..rounds.len())
        .filter(|&at| medians[at].is_finite() && medians[at] >= 0.0)
        .collect();
    let better = |a: f64, b: f64| match unit.more_is_better() {
        true => a.max(b),
        false => a.min(b),
    };
    let best = present.iter().map(|&at| medians[at]).reduce(better);
    let mut verdict = Verdict {
        leaders: Vec::new(),
        compared: present.len(),
        factor: 1.0,
        clear: false,
        unsure: false,
    };
    let Some(best) = best.filter(|_| present.len() > 1) else {
        return verdict;
    };
    // Who did nothing was not measured: none of them is as fast as another.
    if unit.more_is_better() && best <= 0.0 {
        return verdict;
    }
    // How many times better the best is.
    let behind = |at: usize| match unit.more_is_better() {
        _ if medians[at] == best => 1.0,
        true => best / medians[at],
        false => medians[at] / best,
    };
    let negligible =
        |at: usize| unit == Unit::Milliseconds && (medians[at] - best).abs() < EVEN_WITHIN_MS;
    let (leaders, others): (Vec<usize>, Vec<usize>) = present
        .into_iter()
        .partition(|&at| behind(at) < EVEN_WITHIN || negligible(at));
    if !others.is_empty() {
        let nearest = others.iter().map(|&at| behind(at));
        verdict.factor = nearest.fold(f64::INFINITY, f64::min);
        let samples =
            |of: &[usize]| -> Vec<f64> { of.iter().flat_map(|&at| rounds[at]).copied().collect() };
        let (ours, theirs) = (samples(&leaders), samples(&others));
        let apart = match unit.more_is_better() {
            true => min(&ours) > max(&theirs),
            false => max(&ours) < min(&theirs),
        };
        let repeated = leaders.iter().chain(&others);
        verdict.clear = apart && repeated.into_iter().all(|&at| rounds[at].len() > 1);
    }
    verdict.leaders = leaders;
    verdict
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

    const NAMES: [&str; 3] = ["lsm", "btree", "lsm-skiplist"];

    #[test]
    fn the_better_one_wins() {
        let winner = |unit, lsm: f64, btree: f64| judge(unit, &[&[lsm], &[btree]]).winner();
        assert_eq!(winner(Unit::PerSecond, 2.0, 1.0), Some(0));
        assert_eq!(winner(Unit::Bytes, 2.0, 1.0), Some(1));
        assert_eq!(winner(Unit::Bytes, 1.0, 1.04), None);
        assert_eq!(winner(Unit::Milliseconds, 0.1, 0.5), None);
        assert_eq!(winner(Unit::Microseconds, 0.1, 0.5), Some(0));
        assert_eq!(judge(Unit::Bytes, &[&[1.0], &[3.0]]).factor, 3.0);
        let alone = judge(Unit::Bytes, &[&[], &[3.0]]);
        assert_eq!((alone.winner(), alone.is_even()), (None, false));
        assert_eq!(alone.to_text(&NAMES), NOTHING);
    }

    #[test]
    fn overlapping_rounds_decide_nothing_clearly() {
        let verdict = judge(Unit::PerSecond, &[&[1.0, 2.0, 9.0], &[3.0, 4.0, 5.0]]);
        assert_eq!((verdict.winner(), verdict.clear), (Some(1), false));
        assert_eq!(verdict.to_text(&NAMES), "btree ~2.0x");
        let verdict = judge(Unit::PerSecond, &[&[1.0, 2.0], &[3.0, 4.0]]);
        assert!(verdict.clear);
        assert_eq!(verdict.to_text(&NAMES), "btree 2.3x");
        let once = judge(Unit::PerSecond, &[&[1.0], &[3.0]]);
        assert!(!once.clear, "one round shows no spread");
    }

    /// `0 /s` against `0 /s` was "even", and 0.4 operations a second were shown as `0 /s`.
    #[test]
    fn no_work_is_never_even() {
        let nothing = judge(Unit::PerSecond, &[&[0.0], &[0.0]]);
        assert_eq!(nothing.to_text(&NAMES), NOTHING);
        assert!(!nothing.is_even());
        let one = judge(Unit::PerSecond, &[&[0.0, 0.0], &[7.0, 8.0]]);
        assert_eq!((one.winner(), one.clear), (Some(1), true));
        assert_eq!(one.to_text(&NAMES), "btree ∞x");
        assert_eq!(Unit::PerSecond.show(0.42), "0.42 /s");
        assert_eq!(Unit::PerSecond.show(0.0), "0 /s");
        // No bytes are as few as no bytes, and fewer than some.
        assert!(judge(Unit::Bytes, &[&[0.0], &[0.0]]).is_even());
        assert_eq!(judge(Unit::Bytes, &[&[0.0], &[1.0]]).winner(), Some(0));
    }

    #[test]
    fn of_three_the_leaders_are_named() {
        let rounds: [&[f64]; 3] = [&[100.0, 101.0], &[20.0, 25.0], &[99.0, 102.0]];
        let verdict = judge(Unit::PerSecond, &rounds);
        assert_eq!((&verdict.leaders[..], verdict.clear), (&[0, 2][..], true));
        assert_eq!(verdict.winner(), None);
        assert_eq!(verdict.to_text(&NAMES), "lsm, lsm-skiplist 4.5x");
        let verdict = judge(Unit::Bytes, &rounds);
        assert_eq!(verdict.to_text(&NAMES), "btree 4.5x");
        let same: [&[f64]; 3] = [&[5.0]; 3];
        assert_eq!(judge(Unit::PerSecond, &same).to_text(&NAMES), "even");
    }

    #[test]
    fn doubt_is_written_on_every_verdict() {
        let doubted = |rounds: &[&[f64]]| judge(Unit::PerSecond, rounds).doubted(true);
        let better = doubted(&[&[1.0, 1.0], &[3.0, 3.0]]);
        assert_eq!(
            (better.to_text(&NAMES).as_str(), better.clear),
            ("btree 3.0x?", false)
        );
        assert_eq!(doubted(&[&[1.0], &[1.0]]).to_text(&NAMES), "even?");
    }
}
