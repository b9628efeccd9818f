//! What happens to a store just before a commit gets its place in the order: a test says so, and it
//! happens on the thread of the commit, as if another thread had done it all at that moment.

use std::cell::RefCell;

type Event = Box<dyn FnOnce()>;

thread_local! {
    static NEXT: RefCell<Option<Event>> = const { RefCell::new(None) };
}

/// Has `event` happen on this thread before the next commit locks the log.
pub(crate) fn before_a_commit_is_ordered(event: impl FnOnce() + 'static) {
    NEXT.set(Some(Box::new(event)));
}

/// Called by every commit that has done what it does without the log lock.
pub(crate) fn just_before_a_commit_is_ordered() {
    if let Some(event) = NEXT.take() {
        event();
    }
}
