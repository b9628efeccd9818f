//! See docs/architecture.md.
use crate::engine::Engine;
use crate::engine::EngineContext;
use crate::error::Result;
use std::sync::Arc;
pub(crate) struct BTreeEngine;
impl BTreeEngine {
    pub(crate) fn open(_c: EngineContext) -> Result<Arc<dyn Engine>> {
        todo!()
    }
    pub(crate) fn create(_c: EngineContext) -> Result<Arc<dyn Engine>> {
        todo!()
    }
}

mod node;
