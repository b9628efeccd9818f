//! See docs/architecture.md.

pub(crate) mod entry;
pub(crate) mod table;

use crate::engine::Engine;
use crate::engine::EngineContext;
use crate::error::Result;
use std::sync::Arc;
pub(crate) struct LsmEngine;
impl LsmEngine {
    pub(crate) fn open(_c: EngineContext) -> Result<Arc<dyn Engine>> {
        todo!()
    }
    pub(crate) fn create(_c: EngineContext) -> Result<Arc<dyn Engine>> {
        todo!()
    }
}
