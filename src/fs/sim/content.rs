//! The bytes of a file: pages that are shared until written, absent where all zero.
//!
//! A content is cheap to clone, and its hash is cheap to compute again after a small change,
//! because each page remembers its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::checksum::mix64;

/// Unit of sharing. A multiple of the sector.
pub(super) const PAGE_LEN_BYTES: usize = 4096;

/// Hash of a page that was not computed since its bytes changed.
const UNKNOWN: u64 = u64::MAX;

struct Page {
    bytes: [u8; PAGE_LEN_BYTES],
    hash: AtomicU64,
}

impl Page {
    fn zeros() -> Self {
        Self {
            bytes: [0; PAGE_LEN_BYTES],
            hash: AtomicU64::new(UNKNOWN),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8; PAGE_LEN_BYTES] {
        *self.hash.get_mut() = UNKNOWN;
        &mut self.bytes
    }

    /// Zero for a page of zeros, which is the same as an absent one.
    fn hash(&self) -> u64 {
        // Racing threads compute the same.
        match self.hash.load(Ordering::Relaxed) {
            UNKNOWN => {
                let hash = hash_page(&self.bytes);
                self.hash.store(hash, Ordering::Relaxed);
                hash
            }
            known => known,
        }
    }
}

impl Clone for Page {
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes,
            hash: AtomicU64::new(self.hash.load(Ordering::Relaxed)),
        }
    }
}

/// Four lanes, so that multiplications overlap.
fn hash_page(bytes: &[u8; PAGE_LEN_BYTES]) -> u64 {
    if is_zero(bytes) {
        return 0;
    }
    let mut lanes = [1_u64, 2, 3, 4];
    for group in bytes.chunks_exact(32) {
        for (lane, word) in lanes.iter_mut().zip(group.chunks_exact(8)) {
            let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
            *lane = (*lane ^ word)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(29);
        }
    }
    lanes.iter().fold(0, |hash, lane| mix64(hash ^ lane)) >> 1
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // By whole chunks: the compiler turns each into a few wide instructions.
    let mut chunks = bytes.chunks_exact(64);
    chunks.all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
        && chunks.remainder().iter().all(|byte| *byte == 0)
}

/// The bytes of a file.
#[derive(Clone, Default)]
pub(super) struct Content {
    pages: Arc<BTreeMap<u64, Arc<Page>>>,
    pub(super) len: u64,
}

/// The stretches of `len` bytes from `offset` on that lie within one page each: the page's number,
/// where in the page it begins, and which of the bytes it is.
fn by_page(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE_LEN_BYTES as u64) as usize;
        let now = (len - done).min(PAGE_LEN_BYTES - within);
        let range = done..done + now;
        done += now;
        Some((at / PAGE_LEN_BYTES as u64, within, range))
    })
}

impl Content {
    /// Fills `buf` from `offset`; zeros where nothing was written, whatever the length.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) {
        for (number, within, range) in by_page(offset, buf.len()) {
            let now = &mut buf[range];
            match self.pages.get(&number) {
                Some(page) => now.copy_from_slice(&page.bytes[within..within + now.len()]),
                None => now.fill(0),
            }
        }
    }

    /// Writes and extends.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        self.len = self.len.max(offset + bytes.len() as u64);
        self.put(bytes, offset);
    }

    /// Writes without a look at the length.
    pub(super) fn put(&mut self, bytes: &[u8], offset: u64) {
        for (number, within, range) in by_page(offset, bytes.len()) {
            let now = &bytes[range];
            if !self.pages.contains_key(&number) && is_zero(now) {
                continue;
            }
            let pages = Arc::make_mut(&mut self.pages);
            let page = pages
                .entry(number)
                .or_insert_with(|| Arc::new(Page::zeros()));
            Arc::make_mut(page).bytes_mut()[within..within + now.len()].copy_from_slice(now);
        }
    }

    /// Writes `len` zeros and extends.
    pub(super) fn write_zeros(&mut self, len: u64, offset: u64) {
        let end = offset + len;
        self.len = self.len.max(end);
        let mut at = offset;
        while at < end {
            let number = at / PAGE_LEN_BYTES as u64;
            let next = ((number + 1) * PAGE_LEN_BYTES as u64).min(end);
            if self.pages.contains_key(&number) {
                self.put(&[0; PAGE_LEN_BYTES][..(next - at) as usize], at);
            }
            at = next;
        }
    }

    /// Cuts, or extends with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let within = (len % PAGE_LEN_BYTES as u64) as usize;
            let kept = len.div_ceil(PAGE_LEN_BYTES as u64);
            let tail = len / PAGE_LEN_BYTES as u64;
            let has_more = self.pages.range(kept..).next().is_some();
            if has_more || (within > 0 && self.pages.contains_key(&tail)) {
                let pages = Arc::make_mut(&mut self.pages);
                drop(pages.split_off(&kept));
                // Growing again must show zeros, not what was cut.
                if within > 0
                    && let Some(page) = pages.get_mut(&tail)
                {
                    Arc::make_mut(page).bytes_mut()[within..].fill(0);
                }
            }
        }
        self.len = len;
    }

    /// False if the bytes of that page are all zero, as those of an absent one are.
    pub(super) fn has_page_at(&self, offset: u64) -> bool {
        self.pages.contains_key(&(offset / PAGE_LEN_BYTES as u64))
    }

    /// Forgets what [`put`](Self::put) wrote beyond the length.
    pub(super) fn clip(&mut self) {
        let len = std::mem::replace(&mut self.len, u64::MAX);
        self.set_len(len);
    }

    /// A number that differs, all but certainly, between different contents.
    pub(super) fn hash(&self) -> u64 {
        self.pages
            .iter()
            .fold(mix64(self.len), |hash, (number, page)| match page.hash() {
                0 => hash,
                page => hash.wrapping_add(mix64(page ^ mix64(*number + 1))),
            })
    }
}
