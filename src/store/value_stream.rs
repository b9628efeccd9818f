//! Values that are streamed in: from the file that one was written to, to its commit.
//!
//! ```text
//!   begin -> (write ...) -> sync, name -> [log lock: sequence, append] -> (sync) -> apply, publish
//! ```
//!
//! Nothing of the store waits for the source of a value: up to the last line of the picture a
//! stream concerns a file that nothing else knows of. The rest is a commit like any other, whose
//! record has a reference in the place of the value.
//!
//! - **VS1** The value is durable under its name before its record is appended. So a log that holds
//!   the record after a power loss has the file, whatever the durability of the commit.
//! - **VS2** The file is held from before it can be found by those that remove files, until the
//!   engine that was given the reference holds it. After a commit of which it is open whether the
//!   log has it, it is held until the store is closed.

use std::sync::Arc;

use super::commit::{Change, Streamed};
use super::keyspaces::OpenKeyspace;
use super::shared::Shared;
use crate::engine::EngineHost;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use crate::util::sync::atomic::{AtomicBool, Ordering};
use crate::values::{Digest, GrowingDigest};
use crate::wal::{STREAMED_HEADER_LEN_BYTES, StreamedFile};

impl Shared {
    /// Begins a file for one value.
    pub(crate) fn begin_stream(&self) -> Result<(StreamedFile, GrowingDigest)> {
        self.coordinator.check_writable()?;
        let log = self.coordinator.log().ok_or(Error::ReadOnly)?;
        Ok((StreamedFile::begin(log)?, self.values.growing_digest()))
    }

    /// Puts the value that was written to `file`, and has `digest`, under `key`.
    pub(crate) fn commit_stream(
        &self,
        keyspace: &Arc<OpenKeyspace>,
        key: &[u8],
        file: StreamedFile,
        digest: &Digest,
        durability: Durability,
    ) -> Result<SeqNo> {
        let (_, _pass) = self.enter_to_write()?;
        keyspace.check_alive()?;
        let named = file.finish()?;
        let hold = self
            .values
            .add_streamed(named.number, &named.path, named.len_bytes);
        let reference = digest.place(named.number, STREAMED_HEADER_LEN_BYTES as u64);
        let may_be_logged = AtomicBool::new(false);
        let change = Change::Streamed {
            keyspace,
            key,
            len_bytes: digest.len_bytes(),
            streamed: Streamed {
                reference: &reference,
                may_be_logged: &may_be_logged,
            },
        };
        match self.commit(change, durability) {
            Ok(seq) => {
                self.values
                    .note_streamed(reference.as_bytes(), keyspace.id, seq);
                drop(hold);
                self.flush_after_stream(keyspace);
                Ok(seq)
            }
            Err(error)
                if !may_be_logged.load(Ordering::Relaxed)
                    && !mutated!("refused-stream-keeps-its-file") =>
            {
                drop(hold);
                // Best effort: it is tried again.
                let _ = self.values.remove_unheld();
                Err(error)
            }
            Err(error) => {
                self.values.keep_in_doubt(hold);
                Err(error)
            }
        }
    }

    /// Streamed values are not in the log, whose length has others flushed, and a reference is next
    /// to nothing in a write buffer. So that values which were overwritten go all the same, a
    /// keyspace is flushed when it has more of them in memory than the log may be long. By the
    /// thread that streams: the next value waits for it.
    fn flush_after_stream(&self, keyspace: &OpenKeyspace) {
        let Some(oldest) = keyspace.oldest_unpersisted() else {
            return;
        };
        let bytes = self.values.streamed_bytes_since(keyspace.id, oldest);
        if bytes <= self.options.log_limit_bytes || mutated!("streamed-values-are-never-flushed") {
            return;
        }
        // The commit is there, whatever becomes of this; a failure is noted, as that of any flush.
        if self.flush(keyspace).is_ok() {
            self.coordinator.progressed();
            while let Ok(true) = self.values.remove_unheld() {}
        }
    }
}
