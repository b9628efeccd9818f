//! What runs covered.

/// What a run covered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Coverage {
    /// Operations performed.
    pub operations: u64,
    /// Commits acknowledged.
    pub commits: u64,
    /// Of these, batches that were large enough to be staged.
    pub staged_batches: u64,
    /// Of these, sorted loads.
    pub loads: u64,
    /// Power losses, without those during a recovery.
    pub crashes: u64,
    /// Kills of the process.
    pub kills: u64,
    /// Recoveries that failed, and lost power.
    pub interrupted_recoveries: u64,
    /// Times that the store was opened again without a crash.
    pub reopens: u64,
    /// Snapshots that were compared.
    pub snapshot_reads: u64,
    /// Calls of `verify`.
    pub verifications: u64,
}

impl Coverage {
    /// Adds what another run covered.
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.commits += other.commits;
        self.staged_batches += other.staged_batches;
        self.loads += other.loads;
        self.crashes += other.crashes;
        self.kills += other.kills;
        self.interrupted_recoveries += other.interrupted_recoveries;
        self.reopens += other.reopens;
        self.snapshot_reads += other.snapshot_reads;
        self.verifications += other.verifications;
    }
}
