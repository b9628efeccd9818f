//! What a thread does in its transactions, and whether what is left afterwards is right.
//!
//! An attempt that is refused is begun again, for every store alike: at once the first time, then
//! after a pause whose longest doubles from 40 us to 5 ms, as `hedgerow::Db::transact` does. The
//! time of all of them counts for the transaction that is committed in the end. Without pauses a
//! store that refuses a commit before what it conflicts with is visible spends its time on
//! attempts in vain.

use std::fmt;
use std::str::FromStr;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use hedgerow_bench::{Chooser, Distribution, Error, Histogram, Result, Rng, Usage};
use serde_json::{Value, json};

use super::accounts::{Account, BALANCE_AT_FIRST, key};
use super::{Attempt, Transactional, Tx};

/// Accounts that a transaction of [`Kind::ReadMostly`] reads. It writes one of them.
const READS: usize = 10;
/// The longest pause after the second refusal is twice this.
const PAUSE_AT_FIRST: Duration = Duration::from_micros(20);
/// How often the longest pause doubles at most.
const DOUBLINGS_MAX: u32 = 8;
/// Accounts in a transaction that fills or checks a store.
const IN_BULK: u64 = 1_000;

/// What a transaction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Moves an amount from one account to another: two reads, two writes.
    Transfer,
    /// Reads ten accounts and writes one of them.
    ReadMostly,
}

/// What transactions do, and to which accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    kind: Kind,
    distribution: Distribution,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            Kind::Transfer => "transfer",
            Kind::ReadMostly => "read-mostly",
        };
        write!(f, "{name}:{}", self.distribution)
    }
}

impl FromStr for Workload {
    type Err = Error;

    /// `transfer` or `read-mostly`, with a distribution behind a colon if it is not uniform.
    fn from_str(text: &str) -> Result<Self> {
        let (name, distribution) = text.split_once(':').unwrap_or((text, "uniform"));
        let kind = match name {
            "transfer" => Kind::Transfer,
            "read-mostly" => Kind::ReadMostly,
            _ => {
                return Err(Error::usage(format!(
                    "unknown workload {name:?}: use transfer or read-mostly"
                )));
            }
        };
        let distribution = distribution.parse()?;
        Ok(Self { kind, distribution })
    }
}

/// The accounts of a run.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// How many accounts there are: ten at least.
    pub accounts: u64,
    /// Bytes of a value.
    pub value_len_bytes: usize,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Outcome {
    committed: u64,
    refused: u64,
    elapsed: Duration,
    processor: Option<Duration>,
    /// In nanoseconds, from the first attempt on.
    latency: Histogram,
}

impl Outcome {
    /// For the process that collects them.
    pub fn to_json(&self, workload: &Workload, threads: usize) -> Value {
        let per_committed = |total: Duration| total.as_secs_f64() / self.committed.max(1) as f64;
        let attempts = self.committed + self.refused;
        json!({
            "workload": workload.to_string(),
            "threads": threads,
            "committed_per_s": self.committed as f64 / self.elapsed.as_secs_f64(),
            "refused_share": self.refused as f64 / attempts.max(1) as f64,
            "p50_us": self.latency.percentile(50.0) as f64 / 1e3,
            "p99_us": self.latency.percentile(99.0) as f64 / 1e3,
            "p99.9_us": self.latency.percentile(99.9) as f64 / 1e3,
            "processor_us": self.processor.map(|total| per_committed(total) * 1e6),
        })
    }
}

/// Commits `body`, after as many attempts as it takes; how many were refused.
fn commit(
    store: &dyn Transactional,
    pauses: &mut Rng,
    mut body: impl FnMut(&mut dyn Tx) -> Result<()>,
) -> Result<u64> {
    let mut refused = 0_u32;
    while store.attempt(&mut body)? == Attempt::Refused {
        if refused > 0 {
            pause(pauses, refused);
        }
        refused += 1;
    }
    Ok(refused.into())
}

/// Waits for a random time, so that those that compete are not in step.
fn pause(pauses: &mut Rng, refused: u32) {
    let longest = PAUSE_AT_FIRST * (1 << refused.min(DOUBLINGS_MAX));
    std::thread::sleep(longest.mul_f64(pauses.unit()));
}

fn read(tx: &mut dyn Tx, size: Size, number: u64, account: &mut Account) -> Result<()> {
    let mut well_formed = Ok(());
    let found = tx.get(&key(number), &mut |value| {
        well_formed = account.read(number, value, size.value_len_bytes);
    })?;
    match found {
        true => well_formed,
        false => Err(Error::wrong(format!("account {number} is gone"))),
    }
}

/// Writes all accounts anew.
pub fn fill(store: &dyn Transactional, size: Size) -> Result<()> {
    let mut pauses = Rng::new(0);
    for first in (0..size.accounts).step_by(IN_BULK as usize) {
        commit(store, &mut pauses, |tx| {
            for number in first..size.accounts.min(first + IN_BULK) {
                let account = Account::new(number, size.value_len_bytes);
                tx.put(&key(number), account.value())?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// The balances of all accounts, and how often they were written, together.
fn totals(store: &dyn Transactional, size: Size) -> Result<(i64, u64)> {
    let (mut balance, mut writes) = (0, 0);
    let mut account = Account::default();
    let mut pauses = Rng::new(0);
    for first in (0..size.accounts).step_by(IN_BULK as usize) {
        let (balance_so_far, writes_so_far) = (balance, writes);
        commit(store, &mut pauses, |tx| {
            (balance, writes) = (balance_so_far, writes_so_far);
            for number in first..size.accounts.min(first + IN_BULK) {
                read(tx, size, number, &mut account)?;
                account.check_filler(number)?;
                balance += account.balance();
                writes += account.writes();
            }
            Ok(())
        })?;
    }
    Ok((balance, writes))
}

/// Runs `workload` for `duration` on so many threads, over a store that [`fill`] has filled.
///
/// An error if what was read was not well formed; if the balances of all accounts together have
/// changed; or if an account was not written exactly as often as a transaction that did so was
/// committed.
pub fn run(
    store: &dyn Transactional,
    workload: &Workload,
    size: Size,
    threads: usize,
    duration: Duration,
    seed: u64,
) -> Result<Outcome> {
    let chooser = Chooser::new(workload.distribution, size.accounts, seed);
    let (balance, writes) = totals(store, size)?;
    if balance != size.accounts as i64 * BALANCE_AT_FIRST {
        return Err(Error::wrong(format!("all accounts have {balance}")));
    }
    store.wait_idle()?;

    let start = Barrier::new(threads + 1);
    let (usage, began, results) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads as u64)
            .map(|thread| {
                let (chooser, start) = (&chooser, &start);
                scope.spawn(move || {
                    let stream = (seed, thread);
                    let worker = Worker::new(store, *workload, size, chooser, stream);
                    start.wait();
                    worker.run(Instant::now() + duration)
                })
            })
            .collect();
        let usage = Usage::now();
        let began = Instant::now();
        start.wait();
        let join = |worker: std::thread::ScopedJoinHandle<'_, _>| worker.join();
        (
            usage,
            began,
            workers.into_iter().map(join).collect::<Vec<_>>(),
        )
    });
    let mut outcome = Outcome {
        elapsed: began.elapsed(),
        processor: Usage::now().since(&usage).cpu,
        ..Outcome::default()
    };
    for result in results {
        let part: Outcome = result.map_err(|_| Error::failed("a thread has panicked"))??;
        outcome.committed += part.committed;
        outcome.refused += part.refused;
        outcome.latency.merge(&part.latency);
    }

    let (balance_after, writes_after) = totals(store, size)?;
    let of_each = match workload.kind {
        Kind::Transfer => 2,
        Kind::ReadMostly => 1,
    };
    if balance_after != balance || writes_after != writes + of_each * outcome.committed {
        return Err(Error::wrong(format!(
            "{workload}: all accounts had {balance} and have {balance_after}; {} transactions \
             made {} writes",
            outcome.committed,
            writes_after - writes
        )));
    }
    Ok(outcome)
}

/// A thread at work.
struct Worker<'a> {
    store: &'a dyn Transactional,
    workload: Workload,
    size: Size,
    chooser: &'a Chooser,
    /// Of what is done.
    rng: Rng,
    /// Of how long it waits, apart so that this does not change what is done.
    pauses: Rng,
    /// Those of a transaction, each once.
    numbers: Vec<u64>,
    accounts: [Account; 2],
    outcome: Outcome,
}

impl<'a> Worker<'a> {
    fn new(
        store: &'a dyn Transactional,
        workload: Workload,
        size: Size,
        chooser: &'a Chooser,
        (seed, thread): (u64, u64),
    ) -> Self {
        Self {
            store,
            workload,
            size,
            chooser,
            rng: Rng::of_stream(seed, thread),
            pauses: Rng::of_stream(!seed, thread),
            numbers: Vec::with_capacity(READS),
            accounts: Default::default(),
            outcome: Outcome::default(),
        }
    }

    fn run(mut self, deadline: Instant) -> Result<Outcome> {
        let mut began = Instant::now();
        while began < deadline {
            self.outcome.refused += match self.workload.kind {
                Kind::Transfer => self.transfer()?,
                Kind::ReadMostly => self.read_mostly()?,
            };
            self.outcome.committed += 1;
            let ended = Instant::now();
            let latency = ended.duration_since(began);
            self.outcome.latency.record(latency.as_nanos() as u64);
            began = ended;
        }
        Ok(self.outcome)
    }

    /// Draws so many different accounts.
    fn draw(&mut self, count: usize) {
        self.numbers.clear();
        while self.numbers.len() < count {
            let number = self.chooser.choose(&mut self.rng, self.size.accounts);
            if !self.numbers.contains(&number) {
                self.numbers.push(number);
            }
        }
    }

    fn transfer(&mut self) -> Result<u64> {
        self.draw(2);
        let most = 1 + self.rng.below(100) as i64;
        let (size, numbers, [from, to]) = (self.size, &self.numbers, &mut self.accounts);
        commit(self.store, &mut self.pauses, |tx| {
            read(tx, size, numbers[0], from)?;
            read(tx, size, numbers[1], to)?;
            let amount = most.min(from.balance());
            from.change(-amount);
            to.change(amount);
            tx.put(&key(numbers[0]), from.value())?;
            tx.put(&key(numbers[1]), to.value())
        })
    }

    fn read_mostly(&mut self) -> Result<u64> {
        self.draw(READS);
        let (size, numbers, [other, changed]) = (self.size, &self.numbers, &mut self.accounts);
        commit(self.store, &mut self.pauses, |tx| {
            read(tx, size, numbers[0], changed)?;
            for &number in &numbers[1..] {
                read(tx, size, number, other)?;
            }
            changed.change(0);
            tx.put(&key(numbers[0]), changed.value())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_nonsense_does_not() {
        for name in ["transfer:uniform", "transfer:zipfian", "read-mostly:latest"] {
            assert_eq!(name.parse::<Workload>().unwrap().to_string(), name);
        }
        let default: Workload = "transfer".parse().unwrap();
        assert_eq!(default.to_string(), "transfer:uniform");
        for nonsense in ["", "transfers", "transfer:", "transfer:even"] {
            assert!(nonsense.parse::<Workload>().is_err(), "{nonsense}");
        }
    }
}
