//! Giving way to other tasks.

use std::future::poll_fn;
use std::task::Poll;

/// Lets the other tasks that are ready run, and the reactor look at its completions, before going on.
///
/// The task wakes itself and is polled again after what was queued before it. A task that computes for
/// long should call this now and then: nothing else on its reactor runs meanwhile.
///
/// Cancelling this (dropping the future) does nothing but leave one needless wake behind.
///
/// ```
/// use std::{cell::RefCell, rc::Rc};
///
/// pelton::block_on(async {
///     let order = Rc::new(RefCell::new(Vec::new()));
///     let inner = order.clone();
///     let other = pelton::spawn(async move { inner.borrow_mut().push("other") });
///     pelton::yield_now().await;
///     order.borrow_mut().push("this");
///     assert_eq!(*order.borrow(), ["other", "this"]);
///     other.await.unwrap();
/// });
/// ```
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
