//! The integration tests of hedgerow, in one binary. docs/testing.md is the guide.

mod concurrency;
mod conformance;
mod corpus;
mod counters;
mod crash_states;
mod damage;
mod database;
mod faults;
mod full_disk;
mod fuzzing;
mod history;
mod image;
mod kills;
mod lockstep;
mod random;
mod random_operations;
mod real_data;
mod regressions;
#[allow(dead_code)]
mod repair;
mod rig;
mod same_operations;
mod sizes;
mod tmpfs;
