//! What happens to a store just before or after a read takes its number: a test says so, and it
//! happens on the thread of the read, as if another thread had done it all at that moment.

use std::cell::RefCell;

type Event = Box<dyn FnOnce()>;

thread_local! {
    static BEFORE: RefCell<Option<Event>> = const { RefCell::new(None) };
    static NEXT: RefCell<Option<Event>> = const { RefCell::new(None) };
}

/// Has `event` happen on this thread before the next number is taken.
pub(crate) fn first(event: impl FnOnce() + 'static) {
    BEFORE.set(Some(Box::new(event)));
}

/// Called by every read of the published number.
pub(crate) fn just_before_a_number_is_taken() {
    if let Some(event) = BEFORE.take() {
        event();
    }
}

/// Has `event` happen on this thread after the next number is taken.
pub(crate) fn then(event: impl FnOnce() + 'static) {
    NEXT.set(Some(Box::new(event)));
}

/// Called by every read of the published number.
pub(crate) fn just_after_a_number_was_taken() {
    if let Some(event) = NEXT.take() {
        event();
    }
}
