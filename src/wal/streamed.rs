//! Files that one value was streamed into (docs/format.md, "Streamed value").
//!
//! A long value that comes in pieces cannot wait in memory until its record is appended, and the
//! log cannot wait for its source. So it is written to a file of its own beside the log, and the
//! record of its commit has no more than a reference to it.
//!
//! ```text
//!            write ...           header, sync, rename, sync of the directory      the last hold ends
//!   K.tmp ----------------> K.tmp ------------------------------------> N.val --------> (removed)
//! ```
//!
//! The name comes last, when all else is durable. What a crash leaves before that is a temporary
//! file, and what it leaves between that and the commit is a value file to which nothing refers:
//! recovery removes either.

use std::path::PathBuf;
use std::sync::Arc;

use super::log::Log;
use super::record_reader::begin_of;
use super::segment_factory::StreamedParts;
use crate::error::{Error, Result};
use crate::format::checksum::{checksum, seed_of};
use crate::format::coding::{get_u32, get_u64};
use crate::fs::File;
use crate::util::mutants::mutated;
use crate::values::FileKind;

const MAGIC: [u8; 8] = *b"HEDGEVAL";
const VERSION: u32 = 1;

/// The value follows.
pub(crate) const STREAMED_HEADER_LEN_BYTES: usize = 64;

/// A file that is being streamed into. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct StreamedFile {
    log: Arc<Log>,
    parts: StreamedParts,
    /// Where the next piece goes.
    at: u64,
    has_name: bool,
}

/// A file with a value in it that is durable, as is its name.
#[derive(Debug)]
pub(crate) struct NamedStream {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) len_bytes: u64,
}

impl StreamedFile {
    /// Begins a file for one value, which has a number as a segment has.
    pub(crate) fn begin(log: &Arc<Log>) -> Result<Self> {
        Ok(Self {
            log: Arc::clone(log),
            parts: log.begin_streamed()?,
            at: STREAMED_HEADER_LEN_BYTES as u64,
            has_name: false,
        })
    }

    /// Appends to the value.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.parts.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// The value has ended: makes it durable, and gives the file its name. On an error the file is
    /// removed.
    pub(crate) fn finish(mut self) -> Result<NamedStream> {
        let header = encode_header(self.log.store_id(), self.parts.number, self.at);
        self.parts.file.write_all_at(&header, 0)?;
        if !mutated!("streamed-value-not-synced") {
            self.parts.file.sync_data()?;
        }
        let path = self.log.publish_streamed(&self.parts)?;
        self.has_name = true;
        Ok(NamedStream {
            number: self.parts.number,
            path,
            len_bytes: self.at,
        })
    }
}

impl Drop for StreamedFile {
    fn drop(&mut self) {
        if !self.has_name {
            self.log.discard_streamed(&self.parts);
        }
    }
}

fn encode_header(store_id: u64, number: u64, len_bytes: u64) -> [u8; STREAMED_HEADER_LEN_BYTES] {
    let mut out = [0; STREAMED_HEADER_LEN_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[16..24].copy_from_slice(&store_id.to_le_bytes());
    out[24..32].copy_from_slice(&number.to_le_bytes());
    out[32..40].copy_from_slice(&len_bytes.to_le_bytes());
    let sum = header_checksum(VERSION, &out);
    out[12..16].copy_from_slice(&sum.to_le_bytes());
    out
}

fn header_checksum(version: u32, bytes: &[u8]) -> u32 {
    checksum(seed_of(&[u64::from(version)]), &bytes[16..])
}

/// Reads the header of a file with the name of value file `number` of store `store_id`, and says
/// what it is. What is neither a segment that has left the log nor a file for a streamed value is
/// an [`Error::Corruption`].
pub(crate) fn check_value_file(file: &dyn File, store_id: u64, number: u64) -> Result<FileKind> {
    let path = file.path();
    let len_bytes = file.len()?;
    let mut bytes = [0; STREAMED_HEADER_LEN_BYTES];
    if len_bytes >= bytes.len() as u64 {
        file.read_exact_at(&mut bytes, 0)?;
    }
    if bytes[..8] != MAGIC {
        return begin_of(file, store_id, number).map(|_| FileKind::Segment);
    }
    let version = get_u32(&bytes, 8);
    if version != VERSION && get_u32(&bytes, 12) == header_checksum(VERSION, &bytes) {
        // Everything else is as this version has it.
        let what = format!("the version of the file reads {version}");
        return Err(Error::corruption(path, 8, what));
    }
    Error::check_version(path, version, VERSION)?;
    if get_u32(&bytes, 12) != header_checksum(VERSION, &bytes) {
        return Err(Error::corruption(path, 12, "wrong checksum of the header"));
    }
    let found = [16, 24, 32].map(|at| get_u64(&bytes, at));
    if found != [store_id, number, len_bytes] {
        let what = "the header is not that of a file of this store with this name and length";
        return Err(Error::corruption(path, 16, what));
    }
    Ok(FileKind::Streamed)
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fs::{Fs, OpenMode, SimFs};

    #[test]
    fn golden_bytes_and_what_is_refused() {
        let header = encode_header(0x0102, 7, 100);
        assert_eq!(&header[..12], b"HEDGEVAL\x01\0\0\0");
        assert_eq!(&header[16..26], b"\x02\x01\0\0\0\0\0\0\x07\0");
        assert_eq!(&header[32..34], b"\x64\0");
        assert_eq!(header[40..], [0; 24]);
        let kind_of = |bytes: &[u8], len: usize, store_id, number| {
            let fs = SimFs::new();
            let path = Path::new("/0000000000000007.val");
            let file = fs.open(path, OpenMode::CreateNew).unwrap();
            let bytes = [bytes, &[1; 36]].concat();
            file.write_all_at(&bytes[..len], 0).unwrap();
            check_value_file(&*file, store_id, number)
        };
        assert_eq!(
            kind_of(&header, 100, 0x0102, 7).unwrap(),
            FileKind::Streamed
        );
        for (len, store_id, number) in [
            (99, 0x0102, 7),
            (63, 0x0102, 7),
            (0, 0x0102, 7),
            (100, 0x0103, 7),
            (100, 0x0102, 8),
        ] {
            let refused = kind_of(&header, len, store_id, number).unwrap_err();
            assert!(refused.is_corruption(), "{refused}");
        }
        for at in 0..header.len() {
            let mut damaged = header;
            damaged[at] ^= 1;
            let refused = kind_of(&damaged, 100, 0x0102, 7).unwrap_err();
            assert!(refused.is_corruption(), "byte {at}: {refused}");
        }
        let mut later = header;
        later[8] = 2;
        let sum = header_checksum(2, &later);
        later[12..16].copy_from_slice(&sum.to_le_bytes());
        let refused = kind_of(&later, 100, 0x0102, 7).unwrap_err();
        assert!(matches!(
            refused,
            Error::UnsupportedFormat {
                found: 2,
                supported: 1,
                ..
            }
        ));
    }
}
