//! Waiting for a future on the calling thread, without a runtime.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

/// Wakes the thread that waits.
struct Waiting(Thread);

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls `future` until it is ready. Panics if it is not woken for a minute.
pub fn block_on<F: Future>(future: F) -> F::Output {
    const PATIENCE: Duration = Duration::from_secs(60);
    let waker = Waker::from(Arc::new(Waiting(std::thread::current())));
    let mut future = pin!(future);
    loop {
        let begun = std::time::Instant::now();
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park_timeout(PATIENCE);
        assert!(begun.elapsed() < PATIENCE, "a future that was not woken");
    }
}
