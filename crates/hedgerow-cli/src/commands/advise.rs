//! `advise`: which engine fits each keyspace of a recorded workload.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hedgerow::EngineKind;
use hedgerow::trace::{Change, Event, Op};
use hedgerow_bench::format::{WIDTH, bytes, table_within, thousands};
use hedgerow_bench::replay::decide::{Advice, Certainty, Criterion, Goal, Rounds, decide};
use hedgerow_bench::replay::plan::{Choice, Plan};
use hedgerow_bench::replay::profile::Profile;
use hedgerow_bench::replay::run::{Measured, Settings, run};
use hedgerow_bench::replay::{open, shortcomings};
use hedgerow_bench::stop;
use serde_json::{Map, Value, json};

use super::trace_args::{Bench, MAX_PRELOAD};
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::{Output, spinner};

/// Budgets that are scaled down with a sample stay above this.
const BUDGET_MIN_BYTES: u64 = 1 << 20;

/// Say which engine fits a recorded workload, and why
///
/// Describes the workload of each keyspace, replays it on both engines, and weighs what that cost.
/// A long trace is thinned out to one key in so many, with cache and write buffer made smaller in
/// proportion.
#[derive(Debug, Args)]
pub struct Advise {
    /// The trace
    trace: PathBuf,
    /// What matters most
    #[arg(long, value_enum, default_value = "balanced")]
    goal: GoalArg,
    /// Only this keyspace
    #[arg(long, short = 'k', value_name = "NAME")]
    keyspace: Option<String>,
    /// Replay about this many operations of each keyspace at most
    #[arg(long, value_name = "N", default_value_t = 500_000,
        value_parser = clap::value_parser!(u64).range(1..))]
    ops: u64,
    /// Stop each replay after this many seconds
    #[arg(long, value_name = "S", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Replays per engine, alternating; medians count
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Load made-up records too, until every keyspace begins with this many
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u64).range(..=MAX_PRELOAD))]
    records_preload: Option<u64>,
    #[command(flatten)]
    bench: Bench,
}

/// [`Goal`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GoalArg {
    /// A bit of everything
    Balanced,
    /// Operations a second
    Throughput,
    /// Short and even waiting times
    Latency,
    /// Size on disk
    Space,
    /// Few bytes written: flash that lasts
    WriteWear,
}

impl From<GoalArg> for Goal {
    fn from(arg: GoalArg) -> Self {
        match arg {
            GoalArg::Balanced => Self::Balanced,
            GoalArg::Throughput => Self::Throughput,
            GoalArg::Latency => Self::Latency,
            GoalArg::Space => Self::Space,
            GoalArg::WriteWear => Self::WriteWear,
        }
    }
}

/// Where figures begin that stand beside their names.
const FIGURES_INDENT: usize = 15;

/// A keyspace of the trace.
struct Subject {
    name: String,
    engine: Option<EngineKind>,
    profile: Profile,
}

/// What was found about one.
struct Finding {
    one_in: u64,
    ops: u64,
    preloaded: u64,
    cut: bool,
    advice: Advice,
    rounds: [Rounds; 2],
    notes: Vec<String>,
}

impl Advise {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        interrupt::take_time();
        let (subjects, notes) = self.subjects()?;
        let home = self.bench.temporary_dir()?;
        let mut lines = Vec::new();
        if !out.json {
            for note in &notes {
                out.wrapped(6, format!("note: {note}"))?;
            }
            let goal = Goal::from(self.goal);
            out.wrapped(2, format!("goal {}: {}", goal.name(), weights(goal)))?;
        }
        for (id, subject) in &subjects {
            if !out.json {
                out.line("")?;
                self.describe(subject, out)?;
                out.flush()?;
            }
            let progress = spinner(out.json, "replaying on both engines");
            let finding = self.find(*id, subject, home.path())?;
            progress.finish_and_clear();
            if out.json {
                lines.push(finding.to_json(subject));
            } else {
                finding.print(subject, out)?;
            }
        }
        home.close()?;
        if out.json {
            let trace = self.trace.display().to_string();
            return out.value(&json!({ "trace": trace, "notes": notes, "keyspaces": lines }));
        }
        Ok(())
    }

    /// The keyspaces that something was done on, by number.
    fn subjects(&self) -> Result<(BTreeMap<u32, Subject>, Vec<String>)> {
        let mut reader = open(&self.trace)?;
        let mut profiles: BTreeMap<u32, Profile> = BTreeMap::new();
        let mut seen = 0u64;
        for event in reader.by_ref() {
            let event = event?;
            seen += 1;
            if seen.is_multiple_of(65_536) {
                stop::check()?;
            }
            for id in keyspaces_of(&event) {
                profiles.entry(id).or_default().add(id, &event);
            }
        }
        let notes = shortcomings(&reader);
        let mut subjects = BTreeMap::new();
        for (id, profile) in profiles {
            let known = reader.keyspace(id);
            let name = known.map_or_else(|| format!("#{id}"), |known| known.name.clone());
            if self.keyspace.as_ref().is_some_and(|only| *only != name) {
                continue;
            }
            let subject = Subject {
                name,
                engine: known.map(|known| known.engine),
                profile,
            };
            subjects.insert(id, subject);
        }
        if subjects.is_empty() {
            return Err(Failure::error(match &self.keyspace {
                Some(name) => format!("the trace holds no operation on keyspace {name:?}"),
                None => "the trace holds no operation".to_owned(),
            }));
        }
        Ok((subjects, notes))
    }

    fn describe(&self, subject: &Subject, out: &mut Output) -> Result<()> {
        let engine = subject.engine.map_or_else(String::new, |engine| {
            format!(", recorded on {}", engine.name())
        });
        out.wrapped(2, format!("keyspace {}{engine}", subject.name))?;
        let rows: Vec<_> = subject.profile.lines();
        for (name, figures) in rows {
            out.wrapped(FIGURES_INDENT, format!("  {name:12} {figures}"))?;
        }
        Ok(())
    }

    /// Replays a keyspace on both engines and decides.
    fn find(&self, id: u32, subject: &Subject, home: &std::path::Path) -> Result<Finding> {
        let one_in = subject.profile.ops().div_ceil(self.ops).max(1);
        let choice = Choice {
            keyspace: Some(id),
            one_in,
            // Few keys that are very busy are not thinned out by key.
            limit: Some(self.ops.saturating_mul(2)),
        };
        let plan = Plan::read(&self.trace, choice, self.records_preload)?;
        if plan.events.is_empty() {
            return Err(Failure::error(format!(
                "no operation on keyspace {:?} is left in a sample of one key in {one_in}: raise \
                 --ops",
                subject.name
            )));
        }
        let scaled = |mib: u64| ((mib << 20) / one_in).max(BUDGET_MIN_BYTES);
        let mut settings = Settings {
            recorded_speed: false,
            cache_bytes: scaled(self.bench.cache_mib),
            write_buffer_bytes: scaled(self.bench.write_buffer_mib),
            limit: Some(Duration::from_secs(self.seconds)),
            limit_events: None,
        };
        let mut rounds = [Rounds::new(), Rounds::new()];
        let (mut ops, mut cut) = (0, false);
        let mut round = 0;
        'rounds: while round < self.rounds {
            // Who begins changes, so that neither always meets the other's leftovers.
            let mut order = [0, 1];
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                let engine = EngineKind::ALL[at];
                let dir = home.join(format!("{id}-{engine}-{round}"));
                let measured = run(&plan, engine, &dir, &settings)?;
                std::fs::remove_dir_all(&dir)
                    .map_err(|source| Failure::io("removing", &dir, source))?;
                if measured.cut {
                    // Only equal work compares: begin again with as much as could be done, and
                    // with time to spare, so that a slower round is not cut once more.
                    cut = true;
                    settings.limit_events = Some(measured.events);
                    settings.limit = settings.limit.map(|limit| limit * 4);
                    rounds = [Rounds::new(), Rounds::new()];
                    round = 0;
                    continue 'rounds;
                }
                ops = measured.ops;
                rounds[at].push(criteria(&measured));
            }
            round += 1;
        }
        let advice = decide(&subject.profile, &rounds[0], &rounds[1], self.goal.into());
        Ok(Finding {
            one_in,
            ops,
            preloaded: plan.preload.len() as u64,
            cut,
            advice,
            rounds,
            notes: plan.notes,
        })
    }
}

fn keyspaces_of(event: &Event) -> Vec<u32> {
    match &event.op {
        Op::Get { keyspace, .. }
        | Op::Contains { keyspace, .. }
        | Op::MultiGet { keyspace, .. }
        | Op::Scan { keyspace, .. } => vec![*keyspace],
        Op::Write { changes, .. } => {
            let mut ids: Vec<u32> = changes.iter().map(Change::keyspace).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        }
        _ => Vec::new(),
    }
}

/// The figures of a replay that count, in the order of [`Criterion::ALL`].
fn criteria(measured: &Measured) -> [f64; 6] {
    let ops = measured.ops.max(1) as f64;
    [
        measured.settled_rate(),
        measured.latency() / 1e3,
        measured.disk_bytes as f64,
        measured.written_bytes as f64,
        measured
            .cpu
            .map_or(0.0, |cpu| cpu.as_secs_f64() * 1e6 / ops),
        measured.memory_bytes as f64,
    ]
}

fn weights(goal: Goal) -> String {
    let weighted = Criterion::ALL.into_iter().zip(goal.weights());
    let weighted = weighted.filter(|(_, weight)| *weight > 0.0);
    let weighted: Vec<_> = weighted
        .map(|(criterion, weight)| format!("{:.0} % {criterion:?}", weight * 100.0).to_lowercase())
        .collect();
    weighted.join(", ")
}

impl Finding {
    fn print(&self, subject: &Subject, out: &mut Output) -> Result<()> {
        let sample = match self.one_in {
            1 => String::new(),
            one_in => format!(" of one key in {one_in}, cache and buffer scaled alike"),
        };
        let cut = if self.cut {
            ", cut short by --seconds"
        } else {
            ""
        };
        out.wrapped(
            FIGURES_INDENT,
            format!(
                "  replayed     {} operations{sample}{cut}; {} records loaded first; {} rounds",
                thousands(self.ops),
                thousands(self.preloaded),
                self.rounds[0].len(),
            ),
        )?;
        for note in &self.notes {
            out.wrapped(8, format!("  note: {note}"))?;
        }
        let mut rows = vec![
            ["", "lsm", "btree", "better", "weight"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for verdict in &self.advice.verdicts {
            let advantage = verdict.lsm_advantage;
            let better = if advantage.max(1.0 / advantage) < 1.05 {
                "even".to_owned()
            } else if advantage > 1.0 {
                format!("lsm {advantage:.1}x")
            } else {
                format!("btree {:.1}x", 1.0 / advantage)
            };
            rows.push(vec![
                format!("  {}", verdict.criterion.label()),
                verdict.criterion.show(verdict.lsm),
                verdict.criterion.show(verdict.btree),
                better,
                format!("{:.0} %", verdict.weight * 100.0),
            ]);
        }
        out.line(table_within(&rows, 1, WIDTH))?;
        let advice = &self.advice;
        let headline = match &advice.certainty {
            Certainty::Clear => format!(
                "  advice: {}, {:.1}x better by these weights",
                advice.engine, advice.score
            ),
            Certainty::Close(why) => {
                format!(
                    "  advice: a close call, {} by a little: {why}",
                    advice.engine
                )
            }
        };
        out.wrapped(10, headline)?;
        for reason in &advice.reasons {
            out.wrapped(13, format!("    because  {reason}"))?;
        }
        for reason in &advice.against {
            out.wrapped(13, format!("    against  {reason}"))?;
        }
        let others: Vec<_> = advice
            .by_goal
            .iter()
            .filter(|(goal, engine, _)| *goal != advice.goal && *engine != advice.engine)
            .map(|(goal, engine, score)| format!("{} ({engine}, {score:.1}x)", goal.name()))
            .collect();
        if others.is_empty() {
            out.line("    every other goal gives the same advice")?;
        } else {
            out.wrapped(
                6,
                format!(
                    "    it depends on the goal: otherwise for {}",
                    others.join(", ")
                ),
            )?;
        }
        if subject.engine == Some(advice.engine) {
            out.line("    the keyspace is on that engine already")?;
        }
        let set = subject.profile.working_set_bytes();
        out.wrapped(6, format!(
            "    measured with {} of keys and values in use; far more data than memory may change it",
            bytes(set)
        ))
    }

    fn to_json(&self, subject: &Subject) -> Value {
        let advice = &self.advice;
        let verdicts: Vec<Value> = advice
            .verdicts
            .iter()
            .map(|verdict| {
                json!({
                    "criterion": format!("{:?}", verdict.criterion).to_lowercase(),
                    "lsm": verdict.lsm,
                    "btree": verdict.btree,
                    "lsm_advantage": verdict.lsm_advantage,
                    "weight": verdict.weight,
                })
            })
            .collect();
        let goals: Map<String, Value> = advice
            .by_goal
            .iter()
            .map(|(goal, engine, score)| {
                let winner = json!({ "engine": engine.name(), "score": score });
                (goal.name().to_owned(), winner)
            })
            .collect();
        json!({
            "keyspace": subject.name,
            "recorded_on": subject.engine.map(EngineKind::name),
            "profile": subject.profile.to_json(),
            "replayed_ops": self.ops,
            "one_key_in": self.one_in,
            "cut_short": self.cut,
            "preloaded_records": self.preloaded,
            "notes": self.notes,
            "goal": advice.goal.name(),
            "engine": advice.engine.name(),
            "score": advice.score,
            "clear": advice.certainty == Certainty::Clear,
            "close_because": match &advice.certainty {
                Certainty::Clear => None,
                Certainty::Close(why) => Some(why),
            },
            "criteria": verdicts,
            "rounds": { "lsm": self.rounds[0], "btree": self.rounds[1] },
            "reasons": advice.reasons,
            "against": advice.against,
            "by_goal": goals,
        })
    }
}
