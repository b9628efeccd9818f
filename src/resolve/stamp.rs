//! When a value expires, behind it.

use crate::format::coding::get_u64;

/// The time of what never expires.
pub(crate) const NEVER: u64 = u64::MAX;

pub(super) const STAMP_BYTES: usize = 8;
const OPERAND_STAMP_BYTES: usize = 16;

/// What stands behind a value: when it expires, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) expires_at_ms: u64,
}

impl Stamp {
    pub(crate) const NEVER: Self = Self {
        expires_at_ms: NEVER,
    };

    /// A value and its stamp. Bytes that are too short for one, which only a damaged or a hostile
    /// file has, are a value that never expires.
    #[inline]
    pub(crate) fn split(stored: &[u8]) -> (&[u8], Self) {
        let Some(at) = stored.len().checked_sub(STAMP_BYTES) else {
            return (stored, Self::NEVER);
        };
        let expires_at_ms = get_u64(stored, at);
        (&stored[..at], Self { expires_at_ms })
    }

    /// `value` with this stamp behind it.
    pub(crate) fn put_behind(self, mut value: Vec<u8>) -> Vec<u8> {
        value.extend_from_slice(&self.expires_at_ms.to_le_bytes());
        value
    }

    #[inline]
    pub(crate) fn is_expired(self, now_ms: u64) -> bool {
        self.expires_at_ms <= now_ms
    }
}

/// What stands behind an operand: when it was committed, and when the value expires that it is
/// merged into if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OperandStamp {
    pub(crate) written_at_ms: u64,
    pub(crate) expires_at_ms: u64,
}

impl OperandStamp {
    /// An operand and its stamp, as [`Stamp::split`].
    #[inline]
    pub(crate) fn split(stored: &[u8]) -> (&[u8], Self) {
        let Some(at) = stored.len().checked_sub(OPERAND_STAMP_BYTES) else {
            let never = Self {
                written_at_ms: 0,
                expires_at_ms: NEVER,
            };
            return (stored, never);
        };
        let stamp = Self {
            written_at_ms: get_u64(stored, at),
            expires_at_ms: get_u64(stored, at + STAMP_BYTES),
        };
        (&stored[..at], stamp)
    }

    /// `operand` with this stamp behind it.
    pub(crate) fn put_behind(self, mut operand: Vec<u8>) -> Vec<u8> {
        operand.extend_from_slice(&self.written_at_ms.to_le_bytes());
        operand.extend_from_slice(&self.expires_at_ms.to_le_bytes());
        operand
    }
}
