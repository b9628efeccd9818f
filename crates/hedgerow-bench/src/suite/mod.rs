//! The whole comparison on made data: the workloads of db_bench and YCSB and the trade-offs of the
//! textbooks, on the engines of hedgerow and their variants, or on any stores.
//!
//! ```text
//! wishes ──▶ Plan ──▶ rounds ──▶ Results ──▶ text, JSON, CSV, page
//!                       │  ▲
//!                       ▼  │ lines of JSON
//!                 a child for each round and subject
//! ```
//!
//! Where [`compare`](crate::compare) is the short form on real data, this is the long one. [`plan`]
//! says what to run, [`contestant`] on what, [`rounds`] starts a process for each round and subject
//! in turn, in which [`child`] runs all steps, [`scenarios`] has the steps that are no workload of
//! db_bench or YCSB, [`setting`] says how all came about, [`results`] has medians and verdicts,
//! [`baseline`] sets them beside those of an earlier run; [`report`](crate::report) shows them.

pub mod baseline;
pub mod cgroup;
pub mod child;
pub mod contestant;
pub mod disk_space;
pub mod plan;
pub mod results;
pub mod rounds;
pub mod scenarios;
pub mod setting;
