//! Panics of user code, wherever it runs.

use super::*;

/// Throws when it is dropped, and counts that.
struct ThrowsOnDrop(Rc<Cell<usize>>);

impl Drop for ThrowsOnDrop {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        throw("drop");
    }
}

#[test]
fn a_panic_is_the_handles_error() {
    let tasks = tasks();
    let dropped = counter();
    let held = Counted(dropped.clone());
    let handle = tasks.spawn(async move {
        let _held = held;
        yield_now().await;
        throw("first");
    });
    run(&tasks);
    assert_eq!((dropped.get(), tasks.live(), tasks.counts().panics), (1, 0, 1));
    let error: JoinError = join(&tasks, handle).map(|(): ()| ()).unwrap_err();
    assert!(error.is_panic() && !error.is_cancelled());
    assert_eq!(error.to_string(), "the task panicked: first");
    assert_eq!(*error.into_panic().downcast::<&str>().unwrap(), "first");
}

#[test]
fn an_error_shows_what_text_the_panic_carried() {
    let tasks = tasks();
    let error = |payload: Box<dyn std::any::Any + Send>| {
        let handle = tasks.spawn(async move { std::panic::resume_unwind(payload) });
        join(&tasks, handle).map(|(): ()| ()).unwrap_err().to_string()
    };
    assert_eq!(error(Box::new(String::from("owned"))), "the task panicked: owned");
    assert_eq!(error(Box::new(5)), "the task panicked");
}

#[test]
fn a_panic_of_a_detached_task_is_counted() {
    let tasks = tasks();
    tasks.spawn(async { throw("unseen") }).detach();
    run(&tasks);
    assert_eq!((tasks.live(), tasks.counts().panics), (0, 1));
}

#[test]
fn a_thousand_panicking_tasks_leave_nothing_alive() {
    let tasks = tasks();
    let count = if cfg!(miri) { 100 } else { 1000 };
    let dropped = counter();
    let handles: Vec<JoinHandle<()>> = (0..count)
        .map(|_| {
            let held = Counted(dropped.clone());
            tasks.spawn(async move {
                let _held = held;
                throw("again")
            })
        })
        .collect();
    run(&tasks);
    assert_eq!((tasks.live(), tasks.counts().panics, dropped.get()), (0, count as u64, count));
    assert!(handles.iter().all(JoinHandle::is_finished));
    drop(handles);
    let headers = tasks.counts().headers;
    tasks.spawn(async {});
    assert_eq!(tasks.counts().headers, headers);
}

/// Throws in its poll, and again when it is dropped.
struct ThrowsTwice(Rc<Cell<usize>>);

impl Future for ThrowsTwice {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        throw("poll")
    }
}

impl Drop for ThrowsTwice {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        throw("drop")
    }
}

#[test]
fn a_future_that_panics_in_its_drop_too_keeps_the_first_error() {
    let tasks = tasks();
    let dropped = counter();
    let handle = tasks.spawn(ThrowsTwice(dropped.clone()));
    run(&tasks);
    assert_eq!((dropped.get(), tasks.live()), (1, 0));
    assert_eq!(join(&tasks, handle).unwrap_err().to_string(), "the task panicked: poll");
}

#[test]
fn an_output_survives_the_panic_of_its_finished_future() {
    struct ReadyThenThrows;
    impl Future for ReadyThenThrows {
        type Output = i32;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<i32> {
            Poll::Ready(4)
        }
    }
    impl Drop for ReadyThenThrows {
        fn drop(&mut self) {
            throw("drop")
        }
    }
    let tasks = tasks();
    let handle = tasks.spawn(ReadyThenThrows);
    run(&tasks);
    assert_eq!((tasks.live(), tasks.counts().panics), (0, 1));
    assert_eq!(join(&tasks, handle).unwrap(), 4);
}

#[test]
fn a_panic_in_the_drop_of_an_aborted_future_is_the_handles_error() {
    let tasks = tasks();
    let dropped = counter();
    let held = ThrowsOnDrop(dropped.clone());
    let handle = tasks.spawn(async move {
        std::future::pending::<()>().await;
        drop(held);
    });
    run(&tasks);
    handle.abort();
    assert_eq!((dropped.get(), tasks.live(), tasks.counts().panics), (1, 0, 1));
    assert!(join(&tasks, handle).unwrap_err().is_panic());
}

#[test]
fn a_panic_in_the_drop_of_an_output_is_contained() {
    let tasks = tasks();
    let dropped = counter();
    let spawn = || {
        let output = ThrowsOnDrop(dropped.clone());
        tasks.spawn(async move { output })
    };
    spawn().detach();
    run(&tasks);
    assert_eq!((dropped.get(), tasks.counts().panics), (1, 1));
    let handle = spawn();
    run(&tasks);
    drop(handle);
    assert_eq!((dropped.get(), tasks.counts().panics), (2, 2));
    assert_eq!(tasks.counts().headers, 1, "the header was taken back both times");
}

#[test]
fn a_handle_may_be_dropped_while_its_thread_unwinds() {
    let tasks = tasks();
    let dropped = counter();
    let output = ThrowsOnDrop(dropped.clone());
    let handle = tasks.spawn(async move { output });
    run(&tasks);
    let thrown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _handle = handle;
        throw("outer");
    }));
    assert_eq!(*thrown.unwrap_err().downcast::<&str>().unwrap(), "outer");
    assert_eq!((dropped.get(), tasks.counts().panics), (1, 1));
}

#[test]
fn tasks_may_be_dropped_while_their_thread_unwinds() {
    let dropped = counter();
    let held = ThrowsOnDrop(dropped.clone());
    let thrown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let tasks = tasks();
        tasks.spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        run(&tasks);
        throw("outer");
    }));
    assert_eq!(*thrown.unwrap_err().downcast::<&str>().unwrap(), "outer");
    assert_eq!(dropped.get(), 1);
}

#[test]
fn payloads_that_panic_in_their_drop_come_to_an_end() {
    thread_local! {
        static DROPS: Cell<usize> = const { Cell::new(0) };
    }
    /// Of no size, so that one which is forgotten leaks nothing.
    struct Payload;
    impl Drop for Payload {
        fn drop(&mut self) {
            DROPS.set(DROPS.get() + 1);
            std::panic::resume_unwind(Box::new(Payload));
        }
    }
    let tasks = tasks();
    tasks.spawn(async { std::panic::resume_unwind(Box::new(Payload)) }).detach();
    run(&tasks);
    assert_eq!(tasks.live(), 0);
    assert_eq!(
        DROPS.get(),
        2,
        "the first with the output, the second as its panic; the third is forgotten"
    );
}

#[test]
fn a_foreign_waker_that_panics_is_contained() {
    struct Hostile;
    impl Wake for Hostile {
        fn wake(self: Arc<Self>) {
            throw("wake")
        }
    }
    impl Drop for Hostile {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                throw("drop")
            }
        }
    }
    let tasks = tasks();
    let mut woken = tasks.spawn(async { 1 });
    assert!(poll_once(&mut woken, &Arc::new(Hostile).into()).is_pending());
    run(&tasks);
    assert_eq!(tasks.counts().panics, 1);
    assert_eq!(join(&tasks, woken).unwrap(), 1);

    let hostile: Waker = Arc::new(Hostile).into();
    let mut handle = tasks.spawn(async { 2 });
    assert!(poll_once(&mut handle, &hostile).is_pending());
    drop(hostile);
    // The handle's is the last.
    drop(handle);
    run(&tasks);
    assert_eq!(tasks.live(), 0);
}
