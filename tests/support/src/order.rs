//! An order of keys for benches.

/// Every number below a limit once before any comes twice, in a scattered order.
#[derive(Debug)]
pub struct Order {
    limit: u64,
    step: u64,
    at: u64,
}

impl Order {
    /// An order of the numbers below `limit`, which is not zero and no multiple of the step.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            // A large prime: a step that shares no factor with the limit visits everything.
            step: 2_654_435_761 % limit,
            at: 0,
        }
    }

    /// The next number. It goes on without end.
    pub fn step(&mut self) -> u64 {
        self.at = (self.at + self.step) % self.limit;
        self.at
    }
}
