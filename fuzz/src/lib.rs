//! The fuzz targets' shared part. What they do is in the crate of tests/support, so that the
//! ordinary tests can replay their corpora on the stable tool chain; here is what only a fuzzer
//! needs.
//!
//! Every allocation passes through an allocator that refuses single ones above 64 MiB: hostile
//! bytes must not be able to ask for more.

use std::alloc::{GlobalAlloc, Layout, System};

pub use support::fuzzing::{crashes, decoders, files, hostile, keys, operations, pages};

/// The largest single allocation that hostile bytes may bring about.
const MAX_ALLOCATION_BYTES: usize = 64 << 20;

struct Bounded;

fn check(len: usize) {
    if len > MAX_ALLOCATION_BYTES {
        // Not a panic, which would allocate.
        eprintln!("an allocation of {len} bytes");
        std::process::abort();
    }
}

// SAFETY: everything is the system's allocator's; the lengths are only looked at.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        check(new_size);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;
