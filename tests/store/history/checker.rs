//! Is a history of concurrent calls linearizable? That is: is there an order of all calls, in which
//! a call that returned before another was invoked stands before it, and in which every read gives
//! what the writes before it left?
//!
//! The search of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993), with Lowe's
//! memory of configurations that failed ("Testing for linearizability", 2017). The object is the
//! whole store: a read may cover many keys at once, as a snapshot does, a write too, as a batch
//! does. Two things keep it fast: histories are short, since they are cut where no call is
//! running; and a read that can stand next and fits is put there at once, since no order is lost
//! by that.

use std::collections::HashSet;
use std::fmt;

/// How many keys the object has, over all keyspaces.
pub const KEYS: usize = 8;
/// Most calls of a history.
pub const MAX_CALLS: usize = 256;

/// The value of each key; zero for none.
pub type State = [u64; KEYS];

/// Keys and what was written to, or read from, each of them. Zero is "absent".
pub type Cells = Vec<(usize, u64)>;

/// What a call did, all at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Write(Cells),
    Read(Cells),
}

/// A call: between two moments of a clock that all threads share.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    pub thread: usize,
    pub invoked: u64,
    pub returned: u64,
    pub effect: Effect,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "thread {} from {} to {}: {:?}",
            self.thread, self.invoked, self.returned, self.effect
        )
    }
}

/// A set of calls, by their index.
type Set = [u64; MAX_CALLS / 64];

fn contains(set: &Set, at: usize) -> bool {
    set[at / 64] & 1 << (at % 64) != 0
}

/// How far a search has come.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Configuration {
    done: Set,
    state: State,
}

impl Configuration {
    fn len(&self) -> usize {
        self.done
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Puts a call next; false, and nothing changed, if it is a read that does not fit.
    fn put(&mut self, at: usize, call: &Call) -> bool {
        match &call.effect {
            Effect::Read(cells) => {
                if cells.iter().any(|(key, value)| self.state[*key] != *value) {
                    return false;
                }
            }
            Effect::Write(cells) => {
                for (key, value) in cells {
                    self.state[*key] = *value;
                }
            }
        }
        self.done[at / 64] |= 1 << (at % 64);
        true
    }
}

/// The calls that may stand next: those that no other one has to stand before.
fn candidates<'a>(
    calls: &'a [Call],
    configuration: &Configuration,
) -> impl Iterator<Item = (usize, &'a Call)> {
    let done = configuration.done;
    let open = move |(at, _): &(usize, &Call)| !contains(&done, *at);
    let first_return = calls
        .iter()
        .enumerate()
        .filter(open)
        .map(|(_, call)| call.returned)
        .min()
        .unwrap_or(0);
    // Sorted by invocation, so that the search stops early.
    calls
        .iter()
        .enumerate()
        .take_while(move |(_, call)| call.invoked <= first_return)
        .filter(open)
}

/// Finds an order of `calls` that begins with `initial`, and returns the state after it; or says
/// how far it came. If the last call is a read of everything, the state is the only one possible.
pub fn linearize(initial: State, calls: &[Call]) -> Result<State, String> {
    assert!(calls.len() <= MAX_CALLS, "the history is too long");
    assert!(calls.iter().all(|call| call.invoked < call.returned));
    let mut calls = calls.to_vec();
    calls.sort_by_key(|call| call.invoked);
    let mut stack = vec![Configuration {
        done: Set::default(),
        state: initial,
    }];
    let mut seen = HashSet::new();
    let mut furthest = stack[0].clone();
    while let Some(mut configuration) = stack.pop() {
        // Reads that fit stand next, as long as there are any.
        loop {
            let fits = candidates(&calls, &configuration).find(|(at, call)| {
                matches!(call.effect, Effect::Read(_)) && configuration.clone().put(*at, call)
            });
            let Some((at, call)) = fits else { break };
            configuration.put(at, call);
        }
        let len = configuration.len();
        if len == calls.len() {
            return Ok(configuration.state);
        }
        if len > furthest.len() {
            furthest = configuration.clone();
        }
        if !seen.insert(configuration.clone()) {
            continue;
        }
        let mut next: Vec<_> = candidates(&calls, &configuration)
            .filter(|(_, call)| matches!(call.effect, Effect::Write(_)))
            .collect();
        // The first to return is tried first.
        next.sort_by_key(|(_, call)| std::cmp::Reverse(call.returned));
        for (at, call) in next {
            let mut later = configuration.clone();
            later.put(at, call);
            stack.push(later);
        }
    }
    Err(explain(&calls, &furthest))
}

fn explain(calls: &[Call], furthest: &Configuration) -> String {
    let stuck: String = candidates(calls, furthest)
        .map(|(_, call)| format!("\n  {call:?}"))
        .collect();
    let done = calls
        .iter()
        .enumerate()
        .filter(|(at, _)| contains(&furthest.done, *at));
    let skip = furthest.len().saturating_sub(12);
    let before: String = done
        .skip(skip)
        .map(|(_, call)| format!("\n  {call:?}"))
        .collect();
    format!(
        "no order of the {} calls explains what was read. With {} of them in order the state is \
         {:?}, and none of these can stand next:{stuck}\nthe last ones before were:{before}",
        calls.len(),
        furthest.len(),
        furthest.state
    )
}

mod tests {
    use support::random::{Random, Source};

    use super::*;

    fn call(thread: usize, from: u64, to: u64, effect: Effect) -> Call {
        Call {
            thread,
            invoked: from,
            returned: to,
            effect,
        }
    }

    fn write(thread: usize, from: u64, to: u64, cells: &[(usize, u64)]) -> Call {
        call(thread, from, to, Effect::Write(cells.to_vec()))
    }

    fn read(thread: usize, from: u64, to: u64, cells: &[(usize, u64)]) -> Call {
        call(thread, from, to, Effect::Read(cells.to_vec()))
    }

    const EMPTY: State = [0; KEYS];

    #[test]
    fn good_histories_are_accepted() {
        let good: &[&[Call]] = &[
            &[],
            &[write(0, 1, 2, &[(0, 5)]), read(0, 3, 4, &[(0, 5)])],
            // While a write runs, both answers are right, old after new is not asked for.
            &[
                write(0, 1, 9, &[(0, 5)]),
                read(1, 2, 3, &[(0, 0)]),
                read(1, 4, 5, &[(0, 5)]),
            ],
            // Two writes at once, in the order that the readers saw.
            &[
                write(0, 1, 9, &[(0, 5)]),
                write(1, 2, 8, &[(0, 6)]),
                read(2, 3, 4, &[(0, 6)]),
                read(2, 10, 11, &[(0, 5)]),
            ],
            // A read that takes long may be answered from its beginning.
            &[
                read(0, 1, 9, &[(0, 0), (4, 0)]),
                write(1, 2, 3, &[(0, 5), (4, 5)]),
                write(1, 4, 5, &[(0, 0), (4, 7)]),
            ],
        ];
        for history in good {
            assert!(linearize(EMPTY, history).is_ok(), "{history:?}");
        }
    }

    #[test]
    fn bad_histories_are_refused() {
        let bad: &[(&str, &[Call])] = &[
            (
                "a lost write",
                &[write(0, 1, 2, &[(0, 5)]), read(0, 3, 4, &[(0, 0)])],
            ),
            (
                "a stale read by another thread",
                &[
                    write(0, 1, 2, &[(0, 5)]),
                    write(0, 3, 4, &[(0, 6)]),
                    read(1, 5, 6, &[(0, 5)]),
                ],
            ),
            ("a value from nowhere", &[read(0, 1, 2, &[(3, 9)])]),
            (
                "a deleted key that comes back",
                &[
                    write(0, 1, 2, &[(0, 5)]),
                    write(0, 3, 4, &[(0, 0)]),
                    read(1, 5, 6, &[(0, 0)]),
                    read(1, 7, 8, &[(0, 5)]),
                ],
            ),
            (
                "old after new, while the write still runs",
                &[
                    write(0, 1, 9, &[(0, 5)]),
                    read(1, 2, 3, &[(0, 5)]),
                    read(2, 4, 5, &[(0, 0)]),
                ],
            ),
            (
                "two readers that disagree about the order of two writes",
                &[
                    write(0, 1, 20, &[(0, 5)]),
                    write(1, 2, 21, &[(0, 6)]),
                    read(2, 3, 4, &[(0, 5)]),
                    read(2, 5, 6, &[(0, 6)]),
                    read(3, 7, 8, &[(0, 5)]),
                ],
            ),
            (
                "a batch of which a snapshot saw a half",
                &[
                    write(0, 1, 9, &[(0, 5), (4, 5)]),
                    read(1, 2, 8, &[(0, 5), (4, 0)]),
                ],
            ),
            (
                "two snapshots that disagree about the order of writes to two keys",
                &[
                    write(0, 1, 20, &[(0, 5)]),
                    write(1, 2, 21, &[(4, 6)]),
                    read(2, 3, 10, &[(0, 5), (4, 0)]),
                    read(3, 4, 11, &[(0, 0), (4, 6)]),
                ],
            ),
            (
                "a snapshot from before it was taken",
                &[
                    write(0, 1, 2, &[(0, 5)]),
                    write(0, 3, 4, &[(4, 6)]),
                    read(1, 5, 6, &[(0, 5), (4, 0)]),
                ],
            ),
        ];
        for (what, history) in bad {
            assert!(linearize(EMPTY, history).is_err(), "{what} was accepted");
        }
    }

    /// Every order there is, one by one.
    fn by_trying_all(state: State, calls: &[Call]) -> bool {
        if calls.is_empty() {
            return true;
        }
        let first_return = calls.iter().map(|call| call.returned).min().unwrap_or(0);
        (0..calls.len()).any(|at| {
            let mut configuration = Configuration {
                done: Set::default(),
                state,
            };
            let mut rest = calls.to_vec();
            let call = rest.remove(at);
            call.invoked <= first_return
                && configuration.put(at, &call)
                && by_trying_all(configuration.state, &rest)
        })
    }

    #[test]
    fn the_search_agrees_with_trying_every_order() {
        let mut tally = [0; 2];
        for seed in 0..4000 {
            let mut random = Random::new(seed);
            let mut state = EMPTY;
            let mut calls = Vec::new();
            for n in 1..=1 + random.below(6) {
                // What happens at a moment, stretched to both sides, and sometimes wrong.
                let moment = 10 * n;
                let (before, after) = (random.below(25), random.below(25));
                let cells: Vec<_> = (0..1 + random.below(2))
                    .map(|_| random.below(3) as usize)
                    .collect();
                let effect = if random.one_in(2) {
                    for key in &cells {
                        state[*key] = n;
                    }
                    Effect::Write(cells.iter().map(|key| (*key, n)).collect())
                } else {
                    let wrong = random.one_in(5);
                    let value = |key: &usize| if wrong { n / 2 } else { state[*key] };
                    Effect::Read(cells.iter().map(|key| (*key, value(key))).collect())
                };
                calls.push(call(
                    0,
                    (2 * moment).saturating_sub(before),
                    2 * moment + 1 + after,
                    effect,
                ));
            }
            let expected = by_trying_all(EMPTY, &calls);
            let found = linearize(EMPTY, &calls);
            assert_eq!(found.is_ok(), expected, "seed {seed}: {calls:#?}");
            tally[usize::from(expected)] += 1;
        }
        assert!(tally.iter().all(|count| *count > 300), "{tally:?}");
    }
}
