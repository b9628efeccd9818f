//! Reads of a keyspace: what its engine has, with a large batch over it that it does not have yet
//! ([`super::staging`]).

use std::ops::Range;
use std::sync::Arc;

use super::keyspaces::OpenKeyspace;
use super::staging::StagedBatch;
use crate::engine::{Laid, OverlaidView, Overlay, ReadView, over_many};
use crate::error::Result;
use crate::types::{SeqNo, Value};
use crate::values::OpenValue;

impl OpenKeyspace {
    /// As [`Engine::get`](crate::engine::Engine::get).
    #[inline]
    pub(crate) fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let laid = self.staged_value(key, &mut *read);
        let below = || Ok(self.engine.get(key, read)?.then_some(()));
        Ok(laid.or_below(below)?.is_some())
    }

    /// As [`Engine::get_value`](crate::engine::Engine::get_value).
    #[inline]
    pub(crate) fn get_value(&self, key: &[u8]) -> Result<Option<Value>> {
        let laid = self.staged_value(key, Value::copy_from);
        laid.or_below(|| self.engine.get_value(key))
    }

    /// As [`Engine::get_part`](crate::engine::Engine::get_part).
    pub(crate) fn get_part(&self, key: &[u8], part: Range<usize>) -> Result<Option<Value>> {
        let laid = self.staged_value(key, |value| Value::copy_part(value, &part));
        laid.or_below(|| self.engine.get_part(key, part))
    }

    /// As [`Engine::open_value`](crate::engine::Engine::open_value).
    pub(crate) fn open_value(&self, key: &[u8]) -> Result<Option<OpenValue>> {
        let laid = self.staged_value(key, |value| OpenValue::Whole(Value::copy_from(value)));
        laid.or_below(|| self.engine.open_value(key))
    }

    /// As [`Engine::contains`](crate::engine::Engine::contains).
    #[inline]
    pub(crate) fn contains(&self, key: &[u8]) -> Result<bool> {
        let below = || Ok(self.engine.contains(key)?.then_some(()));
        Ok(self.staged_value(key, |_| ()).or_below(below)?.is_some())
    }

    /// What `make` makes of the value that a batch has laid over `key`.
    #[inline]
    fn staged_value<T>(&self, key: &[u8], make: impl FnOnce(&[u8]) -> T) -> Laid<T> {
        match self.staging.visible() {
            Some(staged) => staged.over(key).map(make),
            None => Laid::Nothing,
        }
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
        self.staging.in_one_state(|staged| match staged {
            None => self.engine.multi_get(keys),
            Some(staged) => over_many(&*staged, keys, |rest| self.engine.multi_get(rest)),
        })
    }

    /// As [`Engine::view`](crate::engine::Engine::view).
    pub(crate) fn view(&self) -> Result<Arc<dyn ReadView>> {
        let view = |staged| Ok(over(self.engine.view()?, staged));
        self.staging.in_one_state(view)
    }

    /// As [`Engine::snapshot_view`](crate::engine::Engine::snapshot_view).
    pub(crate) fn snapshot_view(&self, seq: SeqNo) -> Option<Arc<dyn ReadView>> {
        let view = |staged| Some(over(self.engine.snapshot_view(seq)?, staged));
        self.staging.at(seq, view)
    }

    /// The first operation that only the log has, if there is one.
    pub(super) fn oldest_unpersisted(&self) -> Option<SeqNo> {
        // In this order: what is no longer staged is in the engine.
        let staged = self.staging.first_staged();
        let applied = self.engine.oldest_unpersisted();
        staged.into_iter().chain(applied).min()
    }
}

fn over(view: Arc<dyn ReadView>, staged: Option<Arc<StagedBatch>>) -> Arc<dyn ReadView> {
    match staged {
        None => view,
        Some(staged) => Arc::new(OverlaidView::new(view, staged)),
    }
}
