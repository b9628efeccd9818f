//! Memory maps of simulated files, on Linux.
//!
//! A map for reading is a real one, of a file in memory that mirrors what is visible: what is
//! written later shows in it. What a cut takes away is overwritten, so that a reader that holds on
//! to it reads what no checksum accepts, where the operating system would end the process.
//!
//! A store into a map for writing is visible at once, and waits for a sync as a write does; the
//! disk may have half of it.

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::Mirror;
#[cfg(target_os = "linux")]
pub(super) use on_linux::Mirror;

#[cfg(target_os = "linux")]
mod on_linux {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;

    use super::super::content::{Content, PAGE_LEN_BYTES};
    use crate::fs::map::Mapping;

    /// What lies where a file was cut.
    const CUT: u8 = 0xDD;

    /// What the maps of one file show.
    pub(in super::super) struct Mirror(File);

    impl Mirror {
        /// `None` where there can be no maps.
        pub(in super::super) fn new(content: &Content) -> io::Result<Option<Self>> {
            use rustix::fs::{MemfdFlags, memfd_create};
            let file = File::from(memfd_create("hedgerow-sim", MemfdFlags::CLOEXEC)?);
            file.set_len(content.len)?;
            let mut bytes = vec![0; content.len as usize];
            content.read(&mut bytes, 0);
            file.write_all_at(&bytes, 0)?;
            Ok(Some(Self(file)))
        }

        pub(in super::super) fn map(&self, len: usize) -> io::Result<Mapping> {
            Mapping::new(&self.0, len)
        }

        /// The file, which has `len` bytes, is written to.
        pub(in super::super) fn write(&self, len: u64, bytes: &[u8], offset: u64) {
            let end = offset + bytes.len() as u64;
            if end > len {
                self.set_len(len, end);
            }
            let written = self.0.write_all_at(bytes, offset);
            written.expect("memory for what is mapped");
        }

        /// The file, which has `old` bytes, is cut or grows.
        pub(in super::super) fn set_len(&self, old: u64, new: u64) {
            let grown = if new > old {
                // There may be more of it, from before a cut.
                let kept = self.0.metadata().map_or(new, |found| found.len());
                let fill = vec![0; (new.min(kept).saturating_sub(old)) as usize];
                let filled = self.0.write_all_at(&fill, old);
                filled.and_then(|()| self.0.set_len(new.max(kept)))
            } else {
                // The rest of the last page shows zeros.
                let page = PAGE_LEN_BYTES as u64;
                let end = new.next_multiple_of(page).min(old);
                let zeros = vec![0; (end - new) as usize];
                let filled = self.0.write_all_at(&zeros, new);
                filled.and_then(|()| self.0.write_all_at(&vec![CUT; (old - end) as usize], end))
            };
            grown.expect("memory for what is mapped");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::io;

    use super::super::content::Content;
    use crate::fs::map::Mapping;

    /// There are no maps.
    pub(in super::super) enum Mirror {}

    impl Mirror {
        pub(in super::super) fn new(_content: &Content) -> io::Result<Option<Self>> {
            Ok(None)
        }

        pub(in super::super) fn map(&self, _len: usize) -> io::Result<Mapping> {
            match *self {}
        }

        pub(in super::super) fn write(&self, _len: u64, _bytes: &[u8], _offset: u64) {
            match *self {}
        }

        pub(in super::super) fn set_len(&self, _old: u64, _new: u64) {
            match *self {}
        }
    }
}
