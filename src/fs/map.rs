//! Memory maps: the only place where the store maps files.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::MmapRaw;

use crate::error::Result;

/// A file that can be mapped.
pub(super) trait MapFile {
    /// Maps the first `len` bytes for reading, if possible. `len` must not exceed the file's
    /// length.
    ///
    /// The caller promises not to change or cut bytes while there is a reference to them.
    fn map(&self, len: u64) -> Result<Option<Mapping>>;

    /// Maps the first `len` bytes for writing, if a store to what is allocated of them cannot find
    /// the disk full: not on a file system that writes elsewhere what is overwritten.
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
    /// Soon: start reading now.
    WillNeed,
}

/// The first bytes of a file, mapped for reading.
///
/// A reference is made only to bytes that a caller asks for by [`bytes`](Self::bytes) or
/// [`range`](Self::range): other bytes of the mapping may change, and bytes that a shorter file no
/// longer has may lie in it, as long as no caller asks for them.
///
/// The bytes that are asked for are immutable by the promise of [`map`](fn@super::map): the store
/// maps only what it wrote, and neither changes nor cuts any byte that a reference from the
/// mapping can reach. Against other processes that write to the store's files there is no defence
/// in a mapping; the lock file keeps out other hedgerows, file modes keep out other users.
pub(crate) struct Mapping(MmapRaw);

impl Mapping {
    /// Maps `len > 0` bytes of `file`.
    pub(super) fn new(file: &File, len: usize) -> io::Result<Self> {
        memmap2::MmapOptions::new()
            .len(len)
            .map_raw_read_only(file)
            .map(Self)
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The `len` bytes at `offset`, if the mapping has them.
    #[inline]
    pub(crate) fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        if offset > self.0.len() || len > self.0.len() - offset {
            return None;
        }
        // SAFETY: the range was checked to be inside the mapping, which is readable and lives as
        // long as `self`, hence as the slice. The caller of `map` promises that bytes neither
        // change nor leave the file while there is a reference to them, and this makes one to
        // these bytes only.
        Some(unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(offset), len) })
    }

    /// The bytes of `range`.
    ///
    /// # Panics
    ///
    /// If the mapping does not have them.
    #[inline]
    pub(crate) fn range(&self, range: Range<usize>) -> &[u8] {
        let len = range.end.saturating_sub(range.start);
        self.bytes(range.start, len).expect("within the mapping")
    }

    /// Advises the operating system how `range` (byte offsets) will be read. A hint: failures are
    /// ignored, and platforms without such hints do nothing.
    pub(crate) fn advise(&self, advice: Advice, offset: usize, len: usize) {
        #[cfg(unix)]
        {
            let advice = match advice {
                Advice::Random => memmap2::Advice::Random,
                Advice::WillNeed => memmap2::Advice::WillNeed,
            };
            let _ = self.0.advise_range(advice, offset, len);
        }
        #[cfg(not(unix))]
        let _ = (advice, offset, len);
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
pub(crate) struct MappingMut(Target);

/// Where the bytes go.
enum Target {
    Mapped(MmapRaw),
    Simulated(Box<dyn Stores>),
}

/// What a simulated file system has in the place of a mapping.
pub(super) trait Stores: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> usize;

    /// As stores of the processor do: readers of the file see `bytes` at `offset` at once, and the
    /// disk may take them in parts, at any time until the next sync. They fit.
    fn store(&self, bytes: &[u8], offset: usize);
}

impl MappingMut {
    /// Maps `len > 0` bytes that `file` has.
    pub(super) fn new(file: &File, len: usize) -> io::Result<Self> {
        let map = memmap2::MmapOptions::new().len(len).map_raw(file)?;
        Ok(Self(Target::Mapped(map)))
    }

    /// A mapping of a simulated file.
    pub(super) fn simulated(stores: Box<dyn Stores>) -> Self {
        Self(Target::Simulated(stores))
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Target::Mapped(map) => map.len(),
            Target::Simulated(stores) => stores.len(),
        }
    }

    /// Copies `bytes` to `offset`, where the file is allocated. Takes `&mut self`, so writers
    /// exclude each other; no thread reads through this mapping.
    ///
    /// # Panics
    ///
    /// If the bytes do not fit.
    pub(crate) fn write(&mut self, bytes: &[u8], offset: usize) {
        assert!(
            offset <= self.len() && bytes.len() <= self.len() - offset,
            "within the mapping"
        );
        let map = match &self.0 {
            Target::Mapped(map) => map,
            Target::Simulated(stores) => return stores.store(bytes, offset),
        };
        // SAFETY: the range was checked to be inside the mapping, which is writable and lives as
        // long as `self`. `&mut self` excludes other writers through this mapping, and no
        // reference into it is ever made, so `bytes` does not overlap the destination.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                map.as_mut_ptr().add(offset),
                bytes.len(),
            );
        }
    }
}

impl fmt::Debug for MappingMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappingMut")
            .field("len", &self.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_range_or_none() {
        let mut map = memmap2::MmapOptions::new().len(100).map_anon().unwrap();
        for (at, byte) in map.iter_mut().enumerate() {
            *byte = at as u8;
        }
        let mapping = Mapping(map.into());
        assert_eq!(mapping.len(), 100);
        assert_eq!(mapping.bytes(10, 3), Some(&[10, 11, 12][..]));
        assert_eq!(mapping.range(97..100), [97, 98, 99]);
        assert_eq!(mapping.bytes(100, 0), Some(&[][..]));
        for (offset, len) in [
            (101, 0),
            (100, 1),
            (98, 3),
            (1, usize::MAX),
            (usize::MAX, 2),
        ] {
            assert_eq!(mapping.bytes(offset, len), None, "{len} bytes at {offset}");
        }
    }

    #[test]
    #[should_panic(expected = "within the mapping")]
    fn no_range_reaches_beyond_the_end() {
        let map = memmap2::MmapOptions::new().len(100).map_anon().unwrap();
        Mapping(map.into()).range(98..101);
    }

    /// In memory without a file: Miri has no other maps.
    #[test]
    fn what_is_written_lands_in_its_place_and_nowhere_else() {
        let map = memmap2::MmapOptions::new().len(10_000).map_anon().unwrap();
        let mut mapping = MappingMut(Target::Mapped(map.into()));
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
        let Target::Mapped(map) = &mapping.0 else {
            unreachable!("as it was made")
        };
        // SAFETY: all of the mapping, which lives on and is not written meanwhile.
        let found = unsafe { std::slice::from_raw_parts(map.as_ptr(), map.len()) };
        assert_eq!(found, expected);
    }

    #[test]
    #[should_panic(expected = "within the mapping")]
    fn nothing_is_written_beyond_the_end() {
        let map = memmap2::MmapOptions::new().len(100).map_anon().unwrap();
        MappingMut(Target::Mapped(map.into())).write(b"four", 97);
    }
}
