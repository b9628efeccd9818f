//! The integration tests of hedgerow, in one binary. docs/testing.md is the guide.

mod architecture;
mod concurrency;
mod conformance;
mod corpus;
mod counters;
mod damage;
mod database;
mod fuzzing;
mod image;
mod kills;
mod lockstep;
mod random;
mod random_operations;
mod real_data;
mod regressions;
mod rig;
mod sizes;
