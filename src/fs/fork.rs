//! Which process a handle belongs to.
//!
//! A child that was forked and has not executed another program holds a copy of everything: open
//! files, locks, maps, the state of the store. Two processes that go on with one state each
//! destroy the store, and a child that merely lets its copies go would give the parent's lock
//! away. So whatever changes files remembers its [`Owner`] and refuses to work in a child. So does
//! whatever reads them, though it began before the fork: the parent writes other things to the
//! places that the child's copy knows, and a map shows them.
//!
//! Forks are counted by a handler that the operating system calls in the child; looking at the
//! count costs one load. A child that was made past the C library (a bare `clone`) is not
//! counted; [`Owner::check_exactly`] notices it, too, and costs a system call.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Forks between the process that loaded the library and this one.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Changes in every child, and at no other time.
#[inline]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// The process that made something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    generation: u64,
    pid: u32,
}

impl Owner {
    /// This process.
    pub(crate) fn this_process() -> Self {
        count_forks();
        Self {
            generation: generation(),
            pid: std::process::id(),
        }
    }

    /// True in the process that made it.
    #[inline]
    pub(crate) fn is_this_process(&self) -> bool {
        self.generation == generation()
    }

    /// [`Error::Forked`] in a child.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_this_process() {
            Ok(())
        } else {
            Err(Error::Forked)
        }
    }

    /// As [`check`](Self::check), and notices a child whose making was not counted.
    pub(crate) fn check_exactly(&self) -> Result<()> {
        self.check()?;
        if self.pid == std::process::id() {
            Ok(())
        } else {
            Err(Error::Forked)
        }
    }
}

#[cfg(all(unix, not(miri)))]
fn count_forks() {
    use std::ffi::c_int;
    use std::sync::Once;

    type Handler = Option<unsafe extern "C" fn()>;

    unsafe extern "C" {
        fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> c_int;
    }

    unsafe extern "C" fn count() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
    }

    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: the signature is POSIX's. The handler is called in a child of fork, where only
        // what is safe in a signal handler is allowed: it adds to an atomic number, and neither
        // allocates, locks nor unwinds. It fails for want of memory only; then children are
        // noticed by their process id alone.
        let _ = unsafe { pthread_atfork(None, None, Some(count)) };
    });
}

#[cfg(not(all(unix, not(miri))))]
fn count_forks() {}

#[cfg(all(test, unix, not(miri)))]
mod tests {
    use std::ffi::c_int;

    use super::*;

    unsafe extern "C" {
        fn fork() -> c_int;
        fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
        fn _exit(status: c_int) -> !;
    }

    #[test]
    fn a_child_knows_that_it_is_none_of_the_parent() {
        let owner = Owner::this_process();
        owner.check_exactly().unwrap();
        // SAFETY: the child touches atomic numbers only, and ends without unwinding or running
        // destructors; the parent waits for it with a valid place for the status.
        let status = unsafe {
            let child = fork();
            if child == 0 {
                let is_refused = matches!(owner.check(), Err(Error::Forked));
                let is_noticed = owner.pid != std::process::id();
                _exit(if is_refused && is_noticed { 7 } else { 8 });
            }
            let mut status = 0;
            assert_eq!(waitpid(child, &raw mut status, 0), child);
            status
        };
        assert_eq!(status, 7 << 8, "the child ended with 7");
        owner.check_exactly().unwrap();
    }

    #[test]
    fn a_child_that_was_not_counted_is_noticed_by_its_number() {
        let mut owner = Owner::this_process();
        owner.pid ^= 1;
        owner.check().unwrap();
        assert!(matches!(owner.check_exactly(), Err(Error::Forked)));
    }
}
