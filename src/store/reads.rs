//! Reads of a keyspace: what its engine has, with a large batch over it that it does not have yet
//! ([`super::staging`]), and without what has expired ([`crate::resolve`]).

use std::ops::Range;
use std::sync::Arc;

use super::keyspaces::OpenKeyspace;
use super::staging::StagedBatch;
use crate::engine::{Laid, OverlaidView, Overlay, ReadView, Registered, UnexpiredView, over_many};
use crate::error::Result;
use crate::types::{SeqNo, Value};
use crate::util::mutants::mutated;
use crate::values::OpenValue;

/// Views that are taken to find one during which the clock stood still.
const MAX_VIEWS: u32 = 8;

impl OpenKeyspace {
    /// As [`Engine::get`](crate::engine::Engine::get).
    #[inline]
    pub(crate) fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        if self.resolver.expires() {
            return self.get_unexpired(key, read);
        }
        self.get_stored(key, read)
    }

    /// The same where values expire.
    #[cold]
    fn get_unexpired(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let now_ms = self.resolver.now_ms();
        let mut is_there = false;
        self.get_stored(key, &mut |stored| {
            if let Some(value) = self.resolver.visible(stored, now_ms) {
                is_there = true;
                read(value);
            }
        })?;
        Ok(is_there)
    }

    /// What `copy` makes of the value of `key` where values expire.
    #[cold]
    fn copy_unexpired(&self, key: &[u8], copy: impl Fn(&[u8]) -> Value) -> Result<Option<Value>> {
        let mut value = None;
        self.get_unexpired(key, &mut |bytes| value = Some(copy(bytes)))?;
        Ok(value)
    }

    /// When the value of `key` expires, in milliseconds since 1970; `None` if there is none.
    pub(crate) fn expires_at_ms(&self, key: &[u8]) -> Result<Option<u64>> {
        let now_ms = self.resolver.now_ms();
        let mut expires_at_ms = None;
        self.get_stored(key, &mut |stored| {
            let is_there = self.resolver.visible(stored, now_ms).is_some();
            expires_at_ms = is_there.then(|| self.resolver.expires_at_ms(stored));
        })?;
        Ok(expires_at_ms)
    }

    #[inline]
    fn get_stored(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let found = self.staging.of_one_key(|staged| {
            let laid = value_in(staged, key, &mut *read);
            laid.or_below(|| Ok(self.engine.get(key, read)?.then_some(())))
        });
        Ok(found?.is_some())
    }

    /// As [`Engine::get_value`](crate::engine::Engine::get_value).
    #[inline]
    pub(crate) fn get_value(&self, key: &[u8]) -> Result<Option<Value>> {
        if self.resolver.expires() {
            return self.copy_unexpired(key, Value::copy_from);
        }
        self.staging.of_one_key(|staged| {
            let laid = value_in(staged, key, Value::copy_from);
            laid.or_below(|| self.engine.get_value(key))
        })
    }

    /// As [`Engine::get_part`](crate::engine::Engine::get_part).
    pub(crate) fn get_part(&self, key: &[u8], part: Range<usize>) -> Result<Option<Value>> {
        if self.resolver.expires() {
            return self.copy_unexpired(key, |value| Value::copy_part(value, &part));
        }
        self.staging.of_one_key(|staged| {
            let laid = value_in(staged, key, |value| Value::copy_part(value, &part));
            laid.or_below(|| self.engine.get_part(key, part.clone()))
        })
    }

    /// As [`Engine::open_value`](crate::engine::Engine::open_value).
    pub(crate) fn open_value(&self, key: &[u8]) -> Result<Option<OpenValue>> {
        if self.resolver.expires() {
            let value = self.copy_unexpired(key, Value::copy_from)?;
            return Ok(value.map(OpenValue::Whole));
        }
        self.staging.of_one_key(|staged| {
            let laid = value_in(staged, key, |value| {
                OpenValue::Whole(Value::copy_from(value))
            });
            laid.or_below(|| self.engine.open_value(key))
        })
    }

    /// As [`Engine::contains`](crate::engine::Engine::contains).
    #[inline]
    pub(crate) fn contains(&self, key: &[u8]) -> Result<bool> {
        if self.resolver.expires() {
            return self.get_unexpired(key, &mut |_| ());
        }
        let found = self.staging.of_one_key(|staged| {
            let below = || Ok(self.engine.contains(key)?.then_some(()));
            value_in(staged, key, |_| ()).or_below(below)
        });
        Ok(found?.is_some())
    }

    /// As [`Engine::value_ref`](crate::engine::Engine::value_ref).
    pub(crate) fn value_ref(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let staged = self.staging.visible();
        let laid = staged.map_or(Laid::Nothing, |staged| staged.value_ref(key));
        let below = || self.engine.value_ref(key).map(Some);
        Ok(laid.or_below(below)?.flatten())
    }

    /// As [`Engine::multi_get`](crate::engine::Engine::multi_get).
    pub(crate) fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        if self.resolver.expires() {
            // To read may take longer than the clock stands still; to take a view does not.
            return self.view()?.multi_get(keys);
        }
        self.staging.in_one_state(|staged| match staged {
            None => self.engine.multi_get(keys),
            Some(staged) => over_many(&*staged, keys, |rest| self.engine.multi_get(rest)),
        })
    }

    /// What `take` gives of the keyspace, a view, and its time, if values expire. A flush or a
    /// sweep of a later time may have dropped one of two values that expire together before the
    /// view was taken: then the clock shows another time afterwards. Where it does so again and
    /// again, the later time is as good: what was dropped had expired by then.
    fn at_one_time<T>(&self, take: impl Fn() -> Result<T>) -> Result<(T, Option<u64>)> {
        if !self.resolver.expires() {
            return Ok((take()?, None));
        }
        let mut now_ms = self.resolver.now_ms();
        let mut attempts = 0;
        loop {
            let found = take()?;
            if mutated!("time-taken-before-its-view") {
                return Ok((found, Some(now_ms)));
            }
            let after_ms = self.resolver.now_ms();
            attempts += 1;
            if after_ms == now_ms || attempts == MAX_VIEWS {
                return Ok((found, Some(after_ms)));
            }
            now_ms = after_ms;
        }
    }

    /// As [`Engine::view`](crate::engine::Engine::view).
    pub(crate) fn view(&self) -> Result<Arc<dyn ReadView>> {
        let (view, now_ms) = self.at_one_time(|| self.stored_view())?;
        Ok(self.at_time(view, now_ms))
    }

    /// The same with values as they are stored.
    pub(super) fn stored_view(&self) -> Result<Arc<dyn ReadView>> {
        let view = |staged| Ok(over(self.engine.view()?, staged));
        self.staging.in_one_state(view)
    }

    /// As [`Engine::snapshot_view`](crate::engine::Engine::snapshot_view).
    pub(crate) fn snapshot_view(&self, at: Registered) -> Option<Arc<dyn ReadView>> {
        let view = |staged| Some(over(self.engine.snapshot_view(at.seq)?, staged));
        let view = self.staging.at(at.seq, view)?;
        Some(self.unexpired_at(view, at))
    }

    /// `view`, which shows the moment of a snapshot, without what had expired by then.
    pub(crate) fn unexpired_at(
        &self,
        view: Arc<dyn ReadView>,
        at: Registered,
    ) -> Arc<dyn ReadView> {
        self.at_time(view, self.resolver.expires().then_some(at.time_ms))
    }

    /// `view` without what has expired by `now_ms`, if values expire.
    fn at_time(&self, view: Arc<dyn ReadView>, now_ms: Option<u64>) -> Arc<dyn ReadView> {
        match now_ms {
            Some(now_ms) => Arc::new(UnexpiredView::new(view, Arc::clone(&self.resolver), now_ms)),
            None => view,
        }
    }

    /// The first operation that only the log has, if there is one.
    pub(super) fn oldest_unpersisted(&self) -> Option<SeqNo> {
        // In this order: what is no longer staged is in the engine.
        let staged = self.staging.first_staged();
        let applied = self.engine.oldest_unpersisted();
        staged.into_iter().chain(applied).min()
    }
}

/// What `make` makes of the value that a batch has laid over `key`.
#[inline]
fn value_in<T>(staged: Option<&StagedBatch>, key: &[u8], make: impl FnOnce(&[u8]) -> T) -> Laid<T> {
    staged.map_or(Laid::Nothing, |staged| staged.over(key).map(make))
}

fn over(view: Arc<dyn ReadView>, staged: Option<Arc<StagedBatch>>) -> Arc<dyn ReadView> {
    match staged {
        None => view,
        Some(staged) => Arc::new(OverlaidView::new(view, staged)),
    }
}
