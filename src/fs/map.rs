//! Memory maps: the only place where the store maps files.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::{Mmap, MmapRaw};

use crate::error::Result;

/// A file that can be mapped.
pub(super) trait MapFile {
    /// Maps the first `len` bytes for reading, if possible. `len` must not exceed the file's
    /// length.
    ///
    /// The caller promises not to change or cut bytes while there is a reference to them: not
    /// while the mapping lives, if its bytes are read as one slice; not while a range lives, if
    /// they are read by [`Mapping::bytes`].
    fn map(&self, len: u64) -> Result<Option<Mapping>>;

    /// Maps the first `len` bytes, which must be allocated, for writing, if possible.
    fn map_mut(&self, len: u64) -> Result<Option<MappingMut>>;
}

/// What the store maps a file through; see [`File::map_source`](super::File::map_source). Opaque,
/// because a map is only sound with the promises that the store makes about its own files.
#[derive(Clone, Copy)]
pub struct MapSource<'a>(&'a dyn MapFile);

impl<'a> MapSource<'a> {
    pub(super) fn new(file: &'a dyn MapFile) -> Self {
        Self(file)
    }

    pub(super) fn map(self, len: u64) -> Result<Option<Mapping>> {
        self.0.map(len)
    }

    pub(super) fn map_mut(self, len: u64) -> Result<Option<MappingMut>> {
        self.0.map_mut(len)
    }
}

impl fmt::Debug for MapSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapSource").finish_non_exhaustive()
    }
}

/// How mapped bytes will be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Scattered points: no read-ahead.
    Random,
    /// EngineHost to back: aggressive read-ahead.
    Sequential,
    /// Soon: start reading now.
    WillNeed,
}

/// The first bytes of a file, mapped for reading.
///
/// The bytes are immutable by the promise of [`map`](fn@super::map): the store maps only
/// what it wrote, and neither changes nor cuts any byte that a reference from the mapping can
/// reach. Against other processes that write to the store's files there is no defence in a mapping;
/// the lock file keeps out other hedgerows, file modes keep out other users.
pub(crate) struct Mapping(Mmap);

impl Mapping {
    /// Maps `len > 0` bytes of `file`.
    pub(super) fn new(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: the caller of `map` promises that the mapped bytes are neither changed
        // nor cut while the mapping lives (law stated there).
        unsafe { memmap2::MmapOptions::new().len(len).map(file) }.map(Self)
    }

    /// The `len` bytes at `offset`, if the mapping has them. Unlike a slice of the whole mapping,
    /// this makes no reference to any other byte, so those may change meanwhile.
    #[inline]
    pub(crate) fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        if offset > self.0.len() || len > self.0.len() - offset {
            return None;
        }
        // SAFETY: the range was checked to be inside the mapping, which lives as long as `self`;
        // the caller of `map` promises that bytes do not change while referred to.
        Some(unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(offset), len) })
    }

    /// Advises the operating system how `range` (byte offsets) will be read. A hint: failures are
    /// ignored, and platforms without such hints do nothing.
    pub(crate) fn advise(&self, advice: Advice, offset: usize, len: usize) {
        #[cfg(unix)]
        {
            let advice = match advice {
                Advice::Random => memmap2::Advice::Random,
                Advice::Sequential => memmap2::Advice::Sequential,
                Advice::WillNeed => memmap2::Advice::WillNeed,
            };
            let _ = self.0.advise_range(advice, offset, len);
        }
        #[cfg(not(unix))]
        let _ = (advice, offset, len);
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("len", &self.0.len())
            .finish()
    }
}

/// The first bytes of a file, mapped for writing. What is written is in the operating system's
/// hands at once, and durable after [`File::sync_data`](super::File::sync_data).
pub(crate) struct MappingMut(MmapRaw);

impl MappingMut {
    /// Maps `len > 0` allocated bytes of `file`.
    pub(super) fn new(file: &File, len: usize) -> io::Result<Self> {
        memmap2::MmapOptions::new().len(len).map_raw(file).map(Self)
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Copies `bytes` to `offset`. Takes `&mut self`, so writers exclude each other; no thread
    /// reads through this mapping.
    ///
    /// # Panics
    ///
    /// If the bytes do not fit.
    pub(crate) fn write(&mut self, bytes: &[u8], offset: usize) {
        assert!(
            offset <= self.len() && bytes.len() <= self.len() - offset,
            "within the mapping"
        );
        // SAFETY: the range was checked to be inside the mapping, which lives as long as `self`;
        // `&mut self` excludes other writers, and no reference into the mapping is ever
        // made, so nothing aliases the destination. `bytes` cannot overlap it for
        // the same reason.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.0.as_mut_ptr().add(offset),
                bytes.len(),
            );
        }
    }
}

impl fmt::Debug for MappingMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappingMut")
            .field("len", &self.0.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In memory without a file: Miri has no other maps.
    #[test]
    fn what_is_written_lands_in_its_place_and_nowhere_else() {
        let map = memmap2::MmapOptions::new().len(10_000).map_anon().unwrap();
        let mut mapping = MappingMut(map.into());
        assert_eq!(mapping.len(), 10_000);
        let mut expected = vec![0; mapping.len()];
        for (bytes, offset) in [
            (&b"first"[..], 0),
            (b"", 10_000),
            (b"middle", 4093),
            (b"last", 9996),
        ] {
            mapping.write(bytes, offset);
            expected[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        // SAFETY: all of the mapping, which lives on and is not written meanwhile.
        let found = unsafe { std::slice::from_raw_parts(mapping.0.as_ptr(), mapping.len()) };
        assert_eq!(found, expected);
    }

    #[test]
    #[should_panic(expected = "within the mapping")]
    fn nothing_is_written_beyond_the_end() {
        let map = memmap2::MmapOptions::new().len(100).map_anon().unwrap();
        MappingMut(map.into()).write(b"four", 97);
    }
}
