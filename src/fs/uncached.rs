//! Files that are read from storage, past what the operating system keeps of them in memory
//! (`O_DIRECT` of Linux).
//!
//! Such reads begin and end at multiples of [`ALIGN_BYTES`], in the file and in memory; so a read
//! goes to memory of its own that is aligned, and is copied from there.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// What all usual devices are content with.
const ALIGN_BYTES: usize = 4096;

/// A file that is read past the operating system's cache.
#[derive(Debug)]
pub(super) struct UncachedFile(fs::File);

impl UncachedFile {
    /// Opens a file; `None` if its file system cannot be read so.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let flags = OFlags::DIRECT | OFlags::NOFOLLOW;
        let opened = fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(path);
        let file = match opened {
            Ok(file) => Self(file),
            Err(e) if is_refusal(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        // Some open the file, and then cannot read it so.
        match file.read_at(&mut Aligned::new(ALIGN_BYTES), 0) {
            Err(e) if is_refusal(&e) => Ok(None),
            Err(e) => Err(e),
            Ok(_) => Ok(Some(file)),
        }
    }

    /// Fills `buf` from `offset`.
    pub(super) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let skip = (offset % ALIGN_BYTES as u64) as usize;
        let mut aligned = Aligned::new((skip + buf.len()).next_multiple_of(ALIGN_BYTES));
        let read = self.read_at(&mut aligned, offset - skip as u64)?;
        match aligned.bytes()[..read].get(skip..skip + buf.len()) {
            Some(bytes) => buf.copy_from_slice(bytes),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    /// Fills `aligned` from `offset`, or what of it there is before the end of the file.
    fn read_at(&self, aligned: &mut Aligned, offset: u64) -> io::Result<usize> {
        let buffer = aligned.bytes();
        let mut read = 0;
        while read < buffer.len() {
            match self.0.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            // A short read that does not end at a border has come to the end of the file.
            if !read.is_multiple_of(ALIGN_BYTES) {
                break;
            }
        }
        Ok(read)
    }
}

fn is_refusal(e: &io::Error) -> bool {
    let refusals = [rustix::io::Errno::INVAL, rustix::io::Errno::OPNOTSUPP];
    refusals
        .iter()
        .any(|errno| e.raw_os_error() == Some(errno.raw_os_error()))
}

/// Bytes that begin at an aligned address.
struct Aligned {
    space: Vec<u8>,
    at: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let space = vec![0; len + ALIGN_BYTES];
        let at = space.as_ptr().align_offset(ALIGN_BYTES);
        Self { space, at, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.space[self.at..self.at + self.len]
    }
}
