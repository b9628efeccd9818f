//! Running a transaction again until it meets no conflict.

use std::sync::Arc;
use std::time::Duration;

use super::{Transaction, TransactionOptions};
use crate::error::{Error, Result};
use crate::format::checksum::mix64;
use crate::store::Store;
use crate::types::SeqNo;

/// The longest pause after the first conflict, about.
const PAUSE_AT_FIRST: Duration = Duration::from_micros(20);
/// How often the pause doubles.
const DOUBLINGS_MAX: u32 = 8;

/// What a transaction that was committed has given; returned by
/// [`Db::transact_with`](crate::Db::transact_with).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transacted<T> {
    /// What the closure returned.
    pub value: T,
    /// The place in the order of commits: see [`Transaction::commit`].
    pub seq: SeqNo,
    /// How often it met a conflict before.
    pub conflicts: u32,
}

/// Runs `run` in a transaction and commits that, again after a conflict.
pub(crate) fn transact<T, E: From<Error>>(
    store: &Arc<Store>,
    options: &TransactionOptions,
    mut run: impl FnMut(&Transaction) -> Result<T, E>,
) -> Result<Transacted<T>, E> {
    let mut conflicts = 0;
    loop {
        let transaction = Transaction::begin(store, options)?;
        let began = transaction.seq();
        let value = run(&transaction)?;
        match transaction.commit() {
            Ok(seq) => {
                return Ok(Transacted {
                    value,
                    seq,
                    conflicts,
                });
            }
            Err(error) if error.is_conflict() && conflicts + 1 < options.attempts => {
                pause(conflicts, began);
                conflicts += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits before another attempt, after `conflicts` that were paused for: not at all after the
/// first, whose winner is done by now; then for a random time, so that those that compete are not
/// in step, of up to 5 ms.
fn pause(conflicts: u32, salt: SeqNo) {
    if conflicts == 0 {
        return;
    }
    let longest = PAUSE_AT_FIRST * (1 << conflicts.min(DOUBLINGS_MAX));
    // The address differs from thread to thread.
    let on_the_stack = std::ptr::from_ref(&longest) as u64;
    let random = mix64(salt.0 ^ on_the_stack.rotate_left(32) ^ u64::from(conflicts));
    std::thread::sleep(longest.mul_f64(random as f64 / u64::MAX as f64));
}
