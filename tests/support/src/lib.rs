//! What the tests, the fuzz targets and the benches of hedgerow share.

pub mod alloc;
pub mod block_on;
pub mod filter;
pub mod forge;
pub mod forward;
pub mod fuzzing;
pub mod image;
pub mod lockstep;
pub mod order;
pub mod random;
pub mod repair;
pub mod rig;
pub mod sizes;
pub mod tmpfs;

/// The code in docs/migrating.md compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/migrating.md")]
pub struct MigrationGuide;
