//! Operations in the form in which a keyspace stores them: checked by its operator, and with stamps
//! behind values that may expire ([`crate::resolve`]). What a keyspace cannot do is refused here,
//! before anything is written.

use std::borrow::Cow;

use super::batch::{Batch, Expiry, check_op};
use crate::error::{Error, Result};
use crate::resolve::{NEVER, OperandStamp, Resolver, Stamp};
use crate::types::Op;

/// The longest that two stamps and the longer lengths in front of an operation are.
const GROWTH_BYTES: usize = 18;

/// How a keyspace stores what is written to it.
pub(crate) struct StoredForm<'a> {
    pub(crate) resolver: &'a Resolver,
    /// What the keyspace is called in errors.
    pub(crate) name: &'a dyn Fn() -> String,
}

impl StoredForm<'_> {
    #[cold]
    fn refuses(&self, what: &str) -> Error {
        Error::invalid(format!("keyspace {:?} {what}", (self.name)()))
    }

    /// Refuses an operation that the keyspace cannot do, or that its operator refuses.
    #[inline]
    pub(crate) fn check(&self, op: &Op<'_>) -> Result<()> {
        let checked = match (self.resolver.operator(), op) {
            (Some(operator), Op::Put { key, value }) => operator.check_value(key, value),
            (Some(operator), Op::Merge { key, operand }) => operator.check_operand(key, operand),
            (None, Op::Merge { .. }) => return Err(self.refuses("has no merge operator")),
            _ => return Ok(()),
        };
        checked.map_err(|why| self.refuses(&format!("takes no such value: {why}")))
    }

    /// Refuses what says when it expires, if values do not, or if that is no time to come.
    pub(crate) fn check_expiry(&self, expiry: Expiry) -> Result<()> {
        if !self.resolver.expires() {
            return Err(self.refuses("was made without expiry, so no value in it can expire"));
        }
        let now_ms = self.resolver.now_ms();
        self.expires_at_ms(Some(expiry), now_ms).map(drop)
    }

    /// When something expires that is committed at `now_ms`.
    fn expires_at_ms(&self, expiry: Option<Expiry>, now_ms: u64) -> Result<u64> {
        let at = match expiry {
            Some(Expiry::At(at)) => at,
            Some(Expiry::After(ttl)) => now_ms.saturating_add(ttl),
            None => match self.resolver.default_ttl_ms() {
                Some(ttl) => now_ms.saturating_add(ttl),
                None => NEVER,
            },
        };
        if at <= now_ms {
            return Err(self.refuses("is given a value that has expired already"));
        }
        Ok(at)
    }

    /// What is committed in the place of `batch`; `None` if it is committed as it is.
    /// It is committed at `now_ms`, which is asked for if that counts.
    pub(crate) fn of_batch(
        &self,
        batch: &Batch,
        now_ms: impl FnOnce() -> u64,
    ) -> Result<Option<Batch>> {
        batch.check()?;
        if self.resolver.operator().is_some() || batch.has_merges() {
            batch.iter().try_for_each(|op| self.check(&op))?;
        }
        if let Some((_, expiry)) = batch.expiries().first() {
            self.check_expiry(*expiry)?;
        }
        if !self.resolver.expires() {
            return Ok(None);
        }
        let now_ms = now_ms();
        let mut stored = Batch::with_capacity(batch.len_bytes() + GROWTH_BYTES * batch.len());
        let mut expiries = batch.expiries().iter().peekable();
        for (number, (op, end)) in (0..).zip(batch.iter_with_ends()) {
            let expiry = expiries.next_if(|(of, _)| *of == number);
            let expiry = expiry.map(|(_, expiry)| *expiry);
            let expires_at_ms = self.expires_at_ms(expiry, now_ms)?;
            match op {
                Op::Put { key, value } => {
                    let value = Stamp { expires_at_ms }.put_behind(value.to_vec());
                    let put = Op::Put { key, value: &value };
                    stored.push_for(&put, batch, (&op, end));
                }
                Op::Merge { key, operand } => {
                    let stamp = OperandStamp {
                        written_at_ms: now_ms,
                        expires_at_ms,
                    };
                    let operand = stamp.put_behind(operand.to_vec());
                    let operand = &operand;
                    stored.push(&Op::Merge { key, operand });
                }
                Op::Delete { .. } | Op::DeleteRange { .. } => stored.push(&op),
            }
        }
        stored.check()?;
        Ok(Some(stored))
    }

    /// A value as it is stored, for a bulk load.
    pub(crate) fn of_value<'v>(&self, key: &[u8], value: &'v [u8]) -> Result<Cow<'v, [u8]>> {
        self.check(&Op::Put { key, value })?;
        if !self.resolver.expires() {
            return Ok(Cow::Borrowed(value));
        }
        let expires_at_ms = self.expires_at_ms(None, self.resolver.now_ms())?;
        let stored = Stamp { expires_at_ms }.put_behind(value.to_vec());
        let value = &stored[..];
        check_op(&Op::Put { key, value })?;
        Ok(Cow::Owned(stored))
    }
}
