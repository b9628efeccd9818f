//! One file for each group of subcommands.
//!
//! A subcommand is an `Args` struct, whose documentation is the help text, and a `run` function
//! that opens the store itself, so that each says in its first lines whether it writes.

pub mod advise;
pub mod bench;
pub mod compare;
pub mod count;
pub mod dump;
pub mod inspect;
pub mod inspect_tree;
pub mod load;
pub mod maintain;
pub mod point;
pub mod replay;
pub mod scan;
pub mod soak;
pub mod trace_args;
pub mod workload_list;
