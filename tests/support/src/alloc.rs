//! Allocators that watch what a process asks for: one counts, one refuses too much.
//!
//! A binary makes one of them its `#[global_allocator]`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What hostile bytes may bring a store to ask for, at one time and in one allocation.
pub const HOSTILE_LIMIT_BYTES: usize = 64 << 20;

/// Hears of every allocation, and must not allocate itself.
pub trait Watch {
    /// So many bytes are asked for.
    fn took(&self, bytes: usize);

    /// So many are given back.
    fn gave(&self, bytes: usize);
}

/// The system's allocator, watched.
#[derive(Debug, Clone, Copy)]
pub struct Watched<W>(pub W);

// SAFETY: every call goes to the system's allocator unchanged; watching touches nothing of it.
unsafe impl<W: Watch> GlobalAlloc for Watched<W> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.took(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.0.took(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Old and new may be there at the same time.
        self.0.took(new_size);
        self.0.gave(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(place, layout, new_size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        self.0.gave(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(place, layout) }
    }
}

/// Aborts the process at a single allocation above a limit.
#[derive(Debug, Clone, Copy)]
pub struct Bounded {
    /// The limit.
    pub limit_bytes: usize,
}

impl Watch for Bounded {
    fn took(&self, bytes: usize) {
        if bytes > self.limit_bytes {
            // Not a panic, which would allocate.
            eprintln!("an allocation of {bytes} bytes");
            std::process::abort();
        }
    }

    fn gave(&self, _bytes: usize) {}
}

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// Counts for [`measure`].
#[derive(Debug, Clone, Copy)]
pub struct Counting;

impl Watch for Counting {
    fn took(&self, bytes: usize) {
        let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
        PEAK.fetch_max(now, Ordering::Relaxed);
        LARGEST.fetch_max(bytes, Ordering::Relaxed);
    }

    fn gave(&self, bytes: usize) {
        NOW.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What was taken while something ran.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taken {
    /// The most bytes at one time, above what there was before.
    pub peak: usize,
    /// The longest single allocation, in bytes.
    pub largest: usize,
}

/// Runs `act` and measures, in a process whose allocator is [`Counting`]. Only one may run at a
/// time: the whole process is counted.
pub fn measure<T>(act: impl FnOnce() -> T) -> (T, Taken) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    LARGEST.store(0, Ordering::Relaxed);
    let result = act();
    let taken = Taken {
        peak: PEAK.load(Ordering::Relaxed).saturating_sub(before),
        largest: LARGEST.load(Ordering::Relaxed),
    };
    (result, taken)
}
