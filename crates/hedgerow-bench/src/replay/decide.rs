//! The decision: which engine fits, how sure that is, and why. Pure; nothing is measured here.
//!
//! Every criterion is a ratio of two measured figures. The score of a goal is their weighted
//! geometric mean: twice as good at one thing makes up for half as good at another of the same
//! weight. The profile of the workload decides nothing; it explains.

use hedgerow::EngineKind;

use super::profile::Profile;

/// What matters most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// A bit of everything.
    Balanced,
    /// Operations a second.
    Throughput,
    /// Short and even waiting times.
    Latency,
    /// Size on disk.
    Space,
    /// Few bytes written: flash that lasts.
    WriteWear,
}

impl Goal {
    /// Every goal.
    pub const ALL: [Self; 5] = [
        Self::Balanced,
        Self::Throughput,
        Self::Latency,
        Self::Space,
        Self::WriteWear,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::Space => "space",
            Self::WriteWear => "write-wear",
        }
    }

    /// Weights in the order of [`Criterion::ALL`]; they add up to 1.
    pub const fn weights(self) -> [f64; 6] {
        match self {
            Self::Balanced => [0.30, 0.30, 0.15, 0.15, 0.05, 0.05],
            Self::Throughput => [0.80, 0.10, 0.0, 0.0, 0.10, 0.0],
            Self::Latency => [0.15, 0.85, 0.0, 0.0, 0.0, 0.0],
            Self::Space => [0.10, 0.05, 0.80, 0.05, 0.0, 0.0],
            Self::WriteWear => [0.10, 0.05, 0.05, 0.80, 0.0, 0.0],
        }
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Criterion {
    /// Operations a second, until the store is idle.
    Throughput,
    /// Median and 99th percentile of the latency, in microseconds.
    Latency,
    /// Bytes on disk.
    Space,
    /// Bytes written to files.
    Wear,
    /// CPU microseconds an operation.
    Cpu,
    /// Bytes of buffers and cache.
    Memory,
}

impl Criterion {
    /// Every criterion.
    pub const ALL: [Self; 6] = [
        Self::Throughput,
        Self::Latency,
        Self::Space,
        Self::Wear,
        Self::Cpu,
        Self::Memory,
    ];

    /// Its name in tables.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Throughput => "operations a second, until idle",
            Self::Latency => "latency (p50, p99), microseconds",
            Self::Space => "size on disk",
            Self::Wear => "bytes written",
            Self::Cpu => "CPU microseconds an operation",
            Self::Memory => "memory of buffers and cache",
        }
    }

    /// A figure with its unit.
    pub fn show(self, figure: f64) -> String {
        match self {
            Self::Throughput => crate::format::thousands(figure as u64),
            Self::Latency | Self::Cpu => format!("{figure:.1}"),
            Self::Space | Self::Wear | Self::Memory => crate::format::bytes(figure as u64),
        }
    }

    const fn more_is_better(self) -> bool {
        matches!(self, Self::Throughput)
    }
}

/// The figures of one engine: rounds, each in the order of [`Criterion::ALL`].
pub type Rounds = Vec<[f64; 6]>;

/// How sure an advice is.
#[derive(Debug, Clone, PartialEq)]
pub enum Certainty {
    /// The score is beyond [`CLOSE`], in every round.
    Clear,
    /// The engines are too near each other, or rounds disagree; and why.
    Close(String),
}

/// A criterion with its outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What is compared.
    pub criterion: Criterion,
    /// The median of the LSM tree.
    pub lsm: f64,
    /// The median of the B-tree.
    pub btree: f64,
    /// How many times better the LSM tree is; below 1 the B-tree is better.
    pub lsm_advantage: f64,
    /// The weight that the goal gives it.
    pub weight: f64,
}

/// The advice for one keyspace.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    /// What matters most.
    pub goal: Goal,
    /// The engine that fits better.
    pub engine: EngineKind,
    /// How many times better it is by the goal's weights; at least 1.
    pub score: f64,
    /// How sure that is.
    pub certainty: Certainty,
    /// Every criterion.
    pub verdicts: Vec<Verdict>,
    /// Goals, with who wins by how much.
    pub by_goal: Vec<(Goal, EngineKind, f64)>,
    /// What speaks for the engine, the weightiest first.
    pub reasons: Vec<String>,
    /// What speaks against it, the weightiest first.
    pub against: Vec<String>,
}

/// A score below this is a close call: replays of one trace on one machine differ by as much.
pub const CLOSE: f64 = 1.10;
/// No single criterion counts for more than this factor.
const ADVANTAGE_MAX: f64 = 16.0;
/// A criterion is worth mentioning from this factor on.
const NOTABLE: f64 = 1.10;

/// Decides by the medians of the rounds.
pub fn decide(profile: &Profile, lsm: &Rounds, btree: &Rounds, goal: Goal) -> Advice {
    let (lsm_medians, btree_medians) = (medians(lsm), medians(btree));
    let advantages = advantages(&lsm_medians, &btree_medians);
    let (engine, score) = winner(&advantages, goal);
    let verdicts: Vec<Verdict> = Criterion::ALL
        .into_iter()
        .enumerate()
        .map(|(at, criterion)| Verdict {
            criterion,
            lsm: lsm_medians[at],
            btree: btree_medians[at],
            lsm_advantage: advantages[at],
            weight: goal.weights()[at],
        })
        .collect();
    let dissent = lsm
        .iter()
        .zip(btree)
        .filter(|(lsm, btree)| winner(&self::advantages(lsm, btree), goal).0 != engine)
        .count();
    let certainty = if score < CLOSE {
        Certainty::Close(format!(
            "the weighted difference is {:.0} %, less than replays of one trace differ by",
            (score - 1.0) * 100.0
        ))
    } else if dissent > 0 {
        Certainty::Close(format!(
            "{dissent} of {} rounds say otherwise",
            lsm.len().min(btree.len())
        ))
    } else {
        Certainty::Clear
    };
    let by_goal = Goal::ALL
        .into_iter()
        .map(|goal| {
            let (engine, score) = winner(&advantages, goal);
            (goal, engine, score)
        })
        .collect();
    let mut notable: Vec<&Verdict> = verdicts
        .iter()
        .filter(|verdict| verdict.weight > 0.0)
        .filter(|verdict| times_better(verdict.lsm_advantage) >= NOTABLE)
        .collect();
    let weight = |verdict: &Verdict| verdict.weight * verdict.lsm_advantage.ln().abs();
    notable.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
    let (mut reasons, mut against) = (Vec::new(), Vec::new());
    let mut told = Vec::new();
    for verdict in notable {
        let better = better_engine(verdict.lsm_advantage);
        let line = explain(verdict, better, profile, &mut told);
        if better == engine {
            reasons.push(line);
        } else {
            against.push(line);
        }
    }
    Advice {
        goal,
        engine,
        score,
        certainty,
        verdicts,
        by_goal,
        reasons,
        against,
    }
}

fn medians(rounds: &Rounds) -> [f64; 6] {
    std::array::from_fn(|at| {
        let mut figures: Vec<f64> = rounds.iter().map(|round| round[at]).collect();
        figures.sort_by(f64::total_cmp);
        match figures.len() {
            0 => 0.0,
            len if len % 2 == 1 => figures[len / 2],
            len => (figures[len / 2 - 1] + figures[len / 2]) / 2.0,
        }
    })
}

/// How many times better the LSM tree is at each criterion.
fn advantages(lsm: &[f64; 6], btree: &[f64; 6]) -> [f64; 6] {
    std::array::from_fn(|at| {
        let (better, worse) = match Criterion::ALL[at].more_is_better() {
            true => (lsm[at], btree[at]),
            false => (btree[at], lsm[at]),
        };
        // Nothing on both sides, such as bytes written by a workload that only reads, is even.
        if better <= 0.0 && worse <= 0.0 {
            return 1.0;
        }
        let ratio = better.max(f64::MIN_POSITIVE) / worse.max(f64::MIN_POSITIVE);
        ratio.clamp(1.0 / ADVANTAGE_MAX, ADVANTAGE_MAX)
    })
}

/// Who wins by a goal's weights, and how many times better it is.
fn winner(advantages: &[f64; 6], goal: Goal) -> (EngineKind, f64) {
    let weighted = advantages.iter().zip(goal.weights());
    let score = weighted
        .map(|(advantage, weight)| advantage.ln() * weight)
        .sum::<f64>()
        .exp();
    (better_engine(score), times_better(score))
}

fn better_engine(lsm_advantage: f64) -> EngineKind {
    if lsm_advantage > 1.0 {
        EngineKind::Lsm
    } else {
        EngineKind::BTree
    }
}

fn times_better(lsm_advantage: f64) -> f64 {
    lsm_advantage.max(1.0 / lsm_advantage)
}

/// A line: the figures, and what in the workload makes them so, unless that was `told` before.
fn explain(
    verdict: &Verdict,
    better: EngineKind,
    profile: &Profile,
    told: &mut Vec<String>,
) -> String {
    let (mine, other) = match better {
        EngineKind::Lsm => (verdict.lsm, verdict.btree),
        EngineKind::BTree => (verdict.btree, verdict.lsm),
    };
    let figures = format!(
        "{}: {} against {} ({:.1}x)",
        verdict.criterion.label(),
        verdict.criterion.show(mine),
        verdict.criterion.show(other),
        times_better(verdict.lsm_advantage),
    );
    match cause(verdict.criterion, better, profile) {
        Some(cause) if !told.contains(&cause) => {
            told.push(cause.clone());
            format!("{figures}; {cause}")
        }
        _ => figures,
    }
}

/// What in the workload explains who is better at a criterion, if anything known does.
fn cause(criterion: Criterion, better: EngineKind, profile: &Profile) -> Option<String> {
    let mix = profile.mix();
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let order = if profile.ascending() > 0.9 {
        "in ascending order"
    } else {
        "in random order"
    };
    let value = profile.value_len.mean();
    match (criterion, better) {
        (Criterion::Throughput | Criterion::Latency | Criterion::Cpu, EngineKind::Lsm)
            if mix.writes > 0.5 =>
        {
            Some(format!(
                "{} of the operations write, {order}: an LSM tree takes them in memory and writes \
                 sorted runs, a B-tree finds and rewrites the page of each",
                percent(mix.writes)
            ))
        }
        (Criterion::Throughput | Criterion::Latency | Criterion::Cpu, EngineKind::BTree)
            if mix.reads >= mix.scans && mix.reads > 0.5 =>
        {
            Some(format!(
                "{} of the operations look up a key: a B-tree has one place to look, an LSM tree \
                 one in each sorted run, less what its filters rule out",
                percent(mix.reads)
            ))
        }
        (Criterion::Throughput | Criterion::Latency | Criterion::Cpu, EngineKind::BTree)
            if mix.scans > 0.2 =>
        {
            Some(format!(
                "{} of the operations scan, {:.0} entries each: a B-tree walks leaves, an LSM \
                 tree merges its runs",
                percent(mix.scans),
                profile.scan_len.mean()
            ))
        }
        (Criterion::Wear, EngineKind::Lsm) => Some(format!(
            "changes of {value:.0} bytes {order} are written in sorted runs and merged, while a \
             B-tree writes a whole page for the few that fall into it"
        )),
        (Criterion::Wear, EngineKind::BTree) if profile.skew() > 0.1 => Some(format!(
            "{} of the accesses go to 1 % of the keys: many changes of a page are written at once, \
             and nothing is merged again",
            percent(profile.skew())
        )),
        (Criterion::Wear, EngineKind::BTree) => {
            Some("an LSM tree writes data again each time it merges a level".to_owned())
        }
        (Criterion::Space, EngineKind::Lsm) => {
            Some("its blocks are compressed and full, pages are neither".to_owned())
        }
        (Criterion::Space, EngineKind::BTree) => Some(format!(
            "{} of the puts overwrite: an LSM tree keeps old versions until it merges them",
            percent(profile.overwrite_rate())
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile::tests::{event, get, put};
    use super::*;

    fn profile(writes: bool) -> Profile {
        let mut profile = Profile::default();
        for n in 0..100u64 {
            let name = format!("{:04}", n * 7919 % 1000);
            let op = match writes || n == 0 {
                true => put(&name, 1000),
                false => get(&name, Some(1000)),
            };
            profile.add(1, &event(n, op));
        }
        profile
    }

    fn even() -> Rounds {
        vec![[1e5, 5.0, 1e9, 2e9, 3.0, 3e8]; 3]
    }

    fn scaled(factors: [f64; 6]) -> Rounds {
        let mut rounds = even();
        for round in &mut rounds {
            for (figure, factor) in round.iter_mut().zip(factors) {
                *figure *= factor;
            }
        }
        rounds
    }

    #[test]
    fn weights_add_up() {
        for goal in Goal::ALL {
            assert!((goal.weights().iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn opposite_workloads_get_opposite_advice_with_their_reasons() {
        // Random writes on much data: the LSM tree is faster and writes less.
        let btree = scaled([0.3, 2.5, 1.8, 6.0, 2.0, 1.0]);
        let advice = decide(&profile(true), &even(), &btree, Goal::Balanced);
        assert_eq!(
            (advice.engine, &advice.certainty),
            (EngineKind::Lsm, &Certainty::Clear)
        );
        assert!(advice.score > 2.0);
        assert!(
            advice.reasons[0].contains("write, in random order"),
            "{:?}",
            advice.reasons
        );
        assert!(advice.against.is_empty());

        // Lookups in memory: the B-tree is faster; it takes more space, which does not outweigh it.
        let btree = scaled([2.5, 0.4, 1.6, 1.0, 0.4, 1.0]);
        let advice = decide(&profile(false), &even(), &btree, Goal::Balanced);
        assert_eq!(
            (advice.engine, &advice.certainty),
            (EngineKind::BTree, &Certainty::Clear)
        );
        assert!(
            advice.reasons[0].contains("look up a key"),
            "{:?}",
            advice.reasons
        );
        assert_eq!(advice.against.len(), 1);
        assert!(advice.against[0].starts_with("size on disk"));
        // Who has little space decides otherwise, and is told so.
        let space = decide(&profile(false), &even(), &btree, Goal::Space);
        assert_eq!(space.engine, EngineKind::Lsm);
        let told = advice
            .by_goal
            .iter()
            .find(|(goal, ..)| *goal == Goal::Space);
        assert_eq!(told.unwrap().1, EngineKind::Lsm);
    }

    #[test]
    fn near_figures_and_disagreeing_rounds_are_close_calls() {
        let near = decide(
            &profile(true),
            &even(),
            &scaled([1.05; 6]),
            Goal::Throughput,
        );
        assert!(matches!(near.certainty, Certainty::Close(_)));
        assert!(near.score < CLOSE);

        let mut noisy = scaled([2.0, 0.5, 1.0, 1.0, 1.0, 1.0]);
        noisy[1] = [5e4, 10.0, 1e9, 2e9, 3.0, 3e8];
        let advice = decide(&profile(true), &even(), &noisy, Goal::Throughput);
        assert_eq!(advice.engine, EngineKind::BTree);
        assert_eq!(
            advice.certainty,
            Certainty::Close("1 of 3 rounds say otherwise".to_owned())
        );
    }

    #[test]
    fn nothing_written_is_even_and_extremes_are_bounded() {
        let mut none = scaled([1.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
        let advice = decide(&profile(false), &none, &none, Goal::WriteWear);
        assert_eq!(advice.score, 1.0);
        none[0][3] = 0.0;
        let advice = decide(&profile(false), &even(), &none, Goal::WriteWear);
        assert_eq!(advice.engine, EngineKind::BTree);
        assert!(advice.score <= ADVANTAGE_MAX);
    }
}
