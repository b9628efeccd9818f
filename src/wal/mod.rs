//! See docs/architecture.md.
use crate::error::Result;
use crate::fs::Fs;
use crate::types::SeqNo;
use std::path::Path;
use std::sync::Arc;
pub(crate) struct WalConfig {
    pub(crate) segment_bytes: u64,
    pub(crate) use_mmap: bool,
}
pub(crate) struct Recovery;
impl Recovery {
    pub(crate) fn open(_fs: Arc<dyn Fs>, _dir: &Path, _store_id: u64) -> Result<Self> {
        todo!()
    }
    pub(crate) fn replay(
        &mut self,
        _from: SeqNo,
        _visit: &mut dyn FnMut(SeqNo, SeqNo, &[u8]) -> Result<()>,
    ) -> Result<SeqNo> {
        todo!()
    }
    pub(crate) fn into_log(self, _config: WalConfig, _last: SeqNo) -> Result<(Writer, Arc<Log>)> {
        todo!()
    }
}
#[derive(Debug)]
pub(crate) struct Writer;
impl Writer {
    pub(crate) fn append(&mut self, _first: SeqNo, _last: SeqNo, _parts: &[&[u8]]) -> Result<()> {
        todo!()
    }
}
#[derive(Debug)]
pub(crate) struct Log;
pub(crate) struct LogStats {
    pub(crate) bytes_appended: u64,
    pub(crate) syncs: u64,
    pub(crate) disk_bytes: u64,
}
impl Log {
    pub(crate) fn sync(&self) -> Result<SeqNo> {
        todo!()
    }
    pub(crate) fn synced_seq(&self) -> SeqNo {
        todo!()
    }
    pub(crate) fn appended_seq(&self) -> SeqNo {
        todo!()
    }
    pub(crate) fn retire(&self, _oldest_needed: Option<SeqNo>) -> Result<()> {
        todo!()
    }
    pub(crate) fn live_bytes(&self) -> u64 {
        todo!()
    }
    pub(crate) fn would_retire_after(&self, _seq: SeqNo) -> bool {
        todo!()
    }
    pub(crate) fn needs_prepare(&self) -> bool {
        todo!()
    }
    pub(crate) fn prepare(&self) -> Result<bool> {
        todo!()
    }
    pub(crate) fn stats(&self) -> LogStats {
        todo!()
    }
}
