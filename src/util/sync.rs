//! Locks, atomics and threads of the parts whose interleavings are tested.
//!
//! Ordinarily these are parking_lot's and the standard library's, and nothing else. Tests built
//! with `--cfg shuttle` take those of the crate shuttle instead, which runs the threads of a test
//! one at a time and chooses at every lock and atomic which one goes on (src/testing/schedules.rs).

#[cfg(not(all(test, shuttle)))]
mod chosen {
    pub(crate) use std::sync::atomic;
    pub(crate) use std::{hint, thread};

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
}

#[cfg(all(test, shuttle))]
mod chosen {
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    pub(crate) use shuttle::sync::atomic;
    pub(crate) use shuttle::{hint, thread};

    /// shuttle's lock with parking_lot's manners: no poisoning.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    /// The guard of a [`Mutex`]; empty only while a [`Condvar`] has it.
    #[derive(Debug)]
    pub(crate) struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().expect("a panic ends the test")))
        }

        /// Waits without end: time does not pass here.
        pub(crate) fn try_lock_for(&self, _timeout: Duration) -> Option<MutexGuard<'_, T>> {
            Some(self.lock())
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("held")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("held")
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        /// Waits without end: a wake-up that only a timeout would make good is a deadlock here.
        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _timeout: Duration) {
            let held = guard.0.take().expect("held");
            guard.0 = Some(self.0.wait(held).expect("a panic ends the test"));
        }
    }
}

pub(crate) use chosen::*;
