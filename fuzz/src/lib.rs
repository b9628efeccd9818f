//! The fuzz targets' shared part. What they do is in the crate of tests/support, so that the
//! ordinary tests can replay their corpora on the stable tool chain; here is what only a fuzzer
//! needs.
//!
//! Every allocation passes through an allocator that refuses single ones above 64 MiB: hostile
//! bytes must not be able to ask for more.

use support::alloc::{Bounded, HOSTILE_LIMIT_BYTES, Watched};

pub use support::fuzzing::{crashes, decoders, files, hostile, keys, operations, pages};

#[global_allocator]
static ALLOCATOR: Watched<Bounded> = Watched(Bounded {
    limit_bytes: HOSTILE_LIMIT_BYTES,
});
