//! What the tests of this folder share.

/// splitmix64: small, seeded, good enough for tests.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Mixed: neighbouring seeds would otherwise give one and the same sequence, shifted by a step.
        Self(crate::checksum::mix64(seed ^ 0x5EED))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        crate::checksum::mix64(self.0)
    }

    /// Below `limit`, which is not zero.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
