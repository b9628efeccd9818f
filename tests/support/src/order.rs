//! An order of keys that both benches take.

/// Every number below a limit once before any comes twice, in a scattered order.
pub struct Order {
    limit: u64,
    step: u64,
    at: u64,
}

impl Order {
    /// A step that shares no factor with the limit visits everything: a large prime.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            step: 2_654_435_761 % limit,
            at: 0,
        }
    }

    pub fn next(&mut self) -> u64 {
        self.at = (self.at + self.step) % self.limit;
        self.at
    }
}
