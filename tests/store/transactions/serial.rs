//! Transactions once more, one after the other, in the order of their commits.

use std::collections::BTreeMap;

use hedgerow::{Isolation, SeqNo};

use super::program::{KEYSPACES, Map, Record, Sets, Step};

/// What all keyspaces hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State(pub [Map; KEYSPACES]);

/// Which reads have to give what they gave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    All,
    Tracked,
}

impl State {
    /// Runs the steps on this state, and returns the state after them; or says which step read
    /// something else.
    fn run(&self, steps: &[Step], checked: Reads) -> Result<Self, String> {
        let mut now = self.clone();
        let mut savepoints = Vec::new();
        for step in steps {
            match step {
                Step::Get { is_tracked, .. } | Step::Scan { is_tracked, .. }
                    if checked == Reads::All || *is_tracked =>
                {
                    let expected = now.expected(step);
                    if expected != *step {
                        return Err(format!("it read {step:?}, and there is {expected:?}"));
                    }
                }
                Step::Get { .. } | Step::Scan { .. } => {}
                Step::Write {
                    keyspace,
                    key,
                    value,
                } => {
                    match value {
                        Some(value) => now.0[*keyspace].insert(*key, *value),
                        None => now.0[*keyspace].remove(key),
                    };
                }
                Step::DeleteRange {
                    keyspace,
                    low,
                    high,
                } => now.0[*keyspace].retain(|key, _| !(*low..*high).contains(key)),
                Step::Savepoint(at) => {
                    savepoints.push((*at, now.clone()));
                }
                Step::RollbackTo(at) => {
                    let place = savepoints.iter().position(|(saved, _)| saved == at);
                    savepoints.truncate(place.expect("it was made") + 1);
                    now = savepoints.last().expect("the one").1.clone();
                }
            }
        }
        Ok(now)
    }

    /// The step with what it gives on this state.
    fn expected(&self, step: &Step) -> Step {
        let mut expected = step.clone();
        match &mut expected {
            Step::Get {
                keyspace,
                key,
                found,
                ..
            } => *found = self.0[*keyspace].get(key).copied(),
            Step::Scan {
                keyspace,
                low,
                high,
                is_backward,
                found,
                is_cut,
                ..
            } => {
                let entries = self.0[*keyspace].range(*low..*high);
                let entries = entries.map(|(key, value)| (*key, *value));
                let mut all: Vec<_> = match is_backward {
                    true => entries.rev().collect(),
                    false => entries.collect(),
                };
                if *is_cut {
                    all.truncate(found.len());
                }
                *found = all;
            }
            _ => {}
        }
        expected
    }
}

fn overlap(a: &Sets, b: &Sets) -> bool {
    a.iter().zip(b).any(|(a, b)| a & b != 0)
}

/// The state from each number on at which it changed.
pub type States = BTreeMap<SeqNo, State>;

/// Runs all that was committed in the order of commits, and returns the states on the way, the
/// first one at zero; or says which transaction does not fit, and why. `before` is the state before
/// the first one, and nothing else was committed meanwhile.
pub fn check(before: &State, records: &[Record]) -> Result<States, String> {
    let has_written = |record: &&Record| record.seq.is_some() && record.wrote != Sets::default();
    let mut committed: Vec<&Record> = records.iter().filter(has_written).collect();
    committed.sort_by_key(|record| record.seq);
    let mut states = States::from([(SeqNo::ZERO, before.clone())]);
    for record in &committed {
        let seq = record.seq.expect("it was committed");
        let state = states.last_key_value().expect("the first").1;
        let checked = match record.isolation {
            Isolation::Serializable => Reads::Tracked,
            _ => Reads::All,
        };
        // Snapshot isolation: its reads are checked below.
        let steps: Vec<_> = match checked {
            Reads::Tracked => record.steps.clone(),
            Reads::All => record
                .steps
                .iter()
                .filter(|s| !is_read(s))
                .cloned()
                .collect(),
        };
        let after = state
            .run(&steps, checked)
            .map_err(|reason| format!("not serializable: {reason}\n{record:#?}"))?;
        states.insert(seq, after);
    }
    for record in records {
        if record.is_transaction {
            let (_, state) = states
                .range(..=record.began)
                .next_back()
                .expect("the first");
            state
                .run(&record.steps, Reads::All)
                .map_err(|reason| format!("not one moment: {reason}\n{record:#?}"))?;
        }
        check_dependencies(record, &committed)?;
    }
    Ok(states)
}

fn is_read(step: &Step) -> bool {
    matches!(step, Step::Get { .. } | Step::Scan { .. })
}

/// What a transaction depends on was not written beside it, or it met a conflict; and it met one
/// only then.
fn check_dependencies(record: &Record, committed: &[&Record]) -> Result<(), String> {
    let has_written = record.wrote != Sets::default();
    let upto = record.seq.unwrap_or(SeqNo::MAX);
    let mut beside = committed.iter().filter(|other| {
        other
            .seq
            .is_some_and(|seq| seq > record.began && seq < upto)
    });
    let foiled = beside.find(|other| overlap(&other.wrote, &record.depends_on));
    match (record.seq, foiled) {
        (Some(_), Some(other)) if record.is_transaction && has_written => Err(format!(
            "what it depends on was written beside it by {other:#?}\n{record:#?}"
        )),
        (None, None) => Err(format!("a conflict for no reason: {record:#?}")),
        _ => Ok(()),
    }
}

mod tests {
    use super::*;

    fn record(isolation: Isolation, began: u64, seq: u64, steps: Vec<Step>) -> Record {
        let mut depends_on = Sets::default();
        let mut wrote = Sets::default();
        for step in &steps {
            match step {
                Step::Get { keyspace, key, .. } if isolation == Isolation::Serializable => {
                    depends_on[*keyspace] |= 1 << key;
                }
                Step::Write { keyspace, key, .. } => wrote[*keyspace] |= 1 << key,
                _ => {}
            }
        }
        if isolation == Isolation::Snapshot {
            depends_on = wrote;
        }
        Record {
            is_transaction: true,
            isolation,
            began: SeqNo(began),
            seq: (seq > 0).then_some(SeqNo(seq)),
            steps,
            depends_on,
            wrote,
        }
    }

    fn get(key: usize, found: Option<u64>) -> Step {
        Step::Get {
            keyspace: 0,
            key,
            found,
            is_tracked: true,
        }
    }

    fn put(key: usize, value: u64) -> Step {
        Step::Write {
            keyspace: 0,
            key,
            value: Some(value),
        }
    }

    #[test]
    fn bad_histories_are_refused() {
        let serializable = Isolation::Serializable;
        let fits = [
            record(serializable, 0, 1, vec![get(0, None), put(0, 5)]),
            record(serializable, 1, 2, vec![get(0, Some(5)), put(0, 6)]),
        ];
        let states = check(&State::default(), &fits).unwrap();
        assert_eq!(states[&SeqNo(1)].0[0][&0], 5);
        assert_eq!(states[&SeqNo(2)].0[0][&0], 6);
        let skewed = |isolation| {
            [
                record(isolation, 0, 1, vec![get(0, None), put(1, 5)]),
                record(isolation, 0, 2, vec![get(1, None), put(0, 6)]),
            ]
        };
        assert!(check(&State::default(), &skewed(Isolation::Snapshot)).is_ok());
        assert!(check(&State::default(), &skewed(serializable)).is_err());
        for isolation in [serializable, Isolation::Snapshot] {
            let lost_update = [
                record(isolation, 0, 1, vec![get(0, None), put(0, 5)]),
                record(isolation, 0, 2, vec![get(0, None), put(0, 6)]),
            ];
            assert!(check(&State::default(), &lost_update).is_err());
            let own_write_missed = [record(isolation, 0, 1, vec![put(0, 5), get(0, None)])];
            assert!(check(&State::default(), &own_write_missed).is_err());
            let two_moments = [
                record(isolation, 0, 1, vec![put(0, 5), put(1, 5)]),
                record(isolation, 1, 1, vec![get(0, Some(5)), get(1, None)]),
            ];
            assert!(check(&State::default(), &two_moments).is_err());
            let no_reason = [record(isolation, 0, 0, vec![get(0, None), put(0, 5)])];
            assert!(check(&State::default(), &no_reason).is_err());
        }
    }
}
