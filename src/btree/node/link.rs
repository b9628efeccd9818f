//! References to nodes of the file, which distinguish one version of a page from another.
//!
//! A checksum is bound to its page, not to a moment: an older version of the page is as intact as
//! the current one. So what refers to a node, its parent or the meta page, also says which node was
//! there: a [`Link`] is the page and the *fingerprint* of the node, the low bits of its checksum.
//! That covers the links to the node's own children, and so on down: the tree is a Merkle tree, and
//! the meta page stands for every bit of it. (Overflow values and the freelist have their whole
//! checksum beside the reference.)
//!
//! Page and fingerprint share one word, so that a child takes no more space than a page number
//! would, and an inner node has as many children. With 24 bits one in 16.7 million wrong versions
//! passes. Checksums do not keep an attacker from forging a tree, and neither does this.

use super::header::{checksum_of, page_id};
use crate::types::PageId;

/// Bits of a link that hold the page; the fingerprint is above them.
const PAGE_BITS: u32 = 40;
const PAGE_MASK: u64 = (1 << PAGE_BITS) - 1;

/// Low bits of a node's checksum.
const FINGERPRINT_MASK: u64 = u64::MAX >> PAGE_BITS;

/// The page of a node, and which node was written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link(u64);

impl Link {
    /// Of a node that has no place in the file yet. Page 0 is a meta page, so nothing reads it.
    pub(crate) const NOWHERE: Self = Self(0);

    /// Most pages of a file: the places for references in memory have 38 bits for a page. That is
    /// 256 TiB of the smallest pages.
    pub(crate) const UNITS_MAX: u64 = (1 << 38) - 1;

    /// To `page`, of whose node the fingerprint is the low 24 bits of `fingerprint`.
    pub(crate) fn new(page: PageId, fingerprint: u32) -> Self {
        debug_assert!(page.0 <= PAGE_MASK);
        Self(page.0 & PAGE_MASK | u64::from(fingerprint) << PAGE_BITS)
    }

    /// To the node in `image`, which has its place and its checksum.
    pub(crate) fn to(image: &[u8]) -> Self {
        Self::new(page_id(image), checksum_of(image))
    }

    /// The link as it stands in the file.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// What stands in the file.
    #[inline]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) fn page(self) -> PageId {
        PageId(self.0 & PAGE_MASK)
    }

    #[inline]
    pub(crate) fn fingerprint(self) -> u32 {
        (self.0 >> PAGE_BITS) as u32
    }

    /// True if the node in `image`, whose checksum was verified, is the one that is referred to.
    #[inline]
    pub(crate) fn means(self, image: &[u8]) -> bool {
        u64::from(checksum_of(image)) & FINGERPRINT_MASK == self.0 >> PAGE_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/format.md, "B-tree: node".
    #[test]
    fn golden_bits() {
        let link = Link::new(PageId(0x12_3456_789A), 0xAABB_CCDD);
        assert_eq!(link.bits(), 0xBBCC_DD12_3456_789A);
        assert_eq!(link.page(), PageId(0x12_3456_789A));
        assert_eq!(link.fingerprint(), 0xBB_CCDD);
        assert_eq!(Link::from_bits(link.bits()), link);
    }
}
