//! Has the operating system begin to write what it keeps of a file, without waiting for that.
//!
//! A sync of many megabytes at once keeps the device busy and its caller waiting, after a time in
//! which the device had nothing to do. What was asked for piece by piece is on its way, or there,
//! when the sync comes. Nothing relies on it: only a sync makes bytes durable.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::fs::File;
use std::os::fd::AsRawFd;

/// Begin to write dirty pages, and do not wait for any (`SYNC_FILE_RANGE_WRITE`).
const WRITE: c_uint = 2;

unsafe extern "C" {
    fn sync_file_range(fd: c_int, offset: i64, len: i64, flags: c_uint) -> c_int;
}

/// Begins to write the `len` bytes from `offset` on. That it could not is no error: the sync says
/// so if that matters.
pub(super) fn start(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else {
        return;
    };
    // SAFETY: the signature is that of the C library, whose `off64_t` has 64 bits everywhere. The
    // call gets numbers only, and touches no memory of ours; the descriptor is that of an open
    // file, which `file` keeps open.
    let _ = unsafe { sync_file_range(file.as_raw_fd(), offset, len, WRITE) };
}
