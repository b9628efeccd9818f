//! Has the operating system begin to write what it keeps of a file, without waiting for that.
//!
//! A sync of many megabytes at once keeps the device busy and its caller waiting, after a time in
//! which the device had nothing to do. What was asked for piece by piece is on its way, or there,
//! when the sync comes. Nothing relies on it: only a sync makes bytes durable.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::io::Errno;

/// Begin to write dirty pages, and do not wait for any (`SYNC_FILE_RANGE_WRITE`).
const WRITE: c_uint = 2;
/// A page that is not complete yet would be written twice.
const PAGE_BYTES: u64 = 4096;

unsafe extern "C" {
    fn sync_file_range(fd: c_int, offset: i64, len: i64, flags: c_uint) -> c_int;
}

/// Begins to write the pages that end within the `len` bytes from `offset` on. What cannot be done
/// here at all is no error. Others are: a file system that finds no place for a page may say so
/// once, and let the page go.
pub(super) fn start(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let from = offset / PAGE_BYTES * PAGE_BYTES;
    let to = offset.saturating_add(len) / PAGE_BYTES * PAGE_BYTES;
    let len = to.saturating_sub(from);
    let (Ok(from), Ok(len)) = (i64::try_from(from), i64::try_from(len)) else {
        return Ok(());
    };
    // Zero would stand for all that follows.
    if len == 0 || from.checked_add(len).is_none() {
        return Ok(());
    }
    // SAFETY: the signature is that of the C library, whose `off64_t` has 64 bits everywhere. The
    // call gets numbers only, and touches no memory of ours; the descriptor is that of an open
    // file, which `file` keeps open.
    let result = unsafe { sync_file_range(file.as_raw_fd(), from, len, WRITE) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match Errno::from_io_error(&error) {
        Some(Errno::NOSYS | Errno::INVAL | Errno::SPIPE | Errno::PERM | Errno::OPNOTSUPP) => Ok(()),
        _ => Err(error),
    }
}
