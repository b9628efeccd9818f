//! The integration tests of hedgerow, in one binary. docs/testing.md is the guide.

mod closing;
mod concurrency;
mod conformance;
mod corpus;
mod counters;
mod crash_states;
mod damage;
mod database;
mod descriptors;
mod extremes;
mod faults;
mod full_disk;
mod history;
mod interleaved;
mod keyspaces;
mod kills;
mod large_batches;
mod log_space;
mod maps;
mod ownership;
mod random_operations;
mod real_data;
mod regressions;
mod replay;
mod same_operations;
mod values;
