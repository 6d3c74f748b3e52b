//! The body: the box that holds a task's future, and later its output.
//!
//! One allocation per task. Which of the two it holds is written in the header's state (`DONE`), so
//! the box needs no tag of its own. Behind the vtable every call leaves the body in one of exactly two
//! conditions, whatever the user's code does: the future, or the output.

use std::alloc::{Layout, dealloc};
use std::any::Any;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker};

use pelton_driver::prefetch;

use super::join::JoinError;

/// What a poll came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Polled {
    /// The body still holds the future.
    Pending,
    /// The body holds the output.
    Ready,
    /// The body holds an output, and user code panicked on the way.
    Panicked,
}

struct Vtable {
    poll: unsafe fn(NonNull<Prefix>, &mut Context<'_>) -> Polled,
    panicked: unsafe fn(NonNull<Prefix>, Box<dyn Any + Send>),
    cancel: unsafe fn(NonNull<Prefix>) -> bool,
    take: unsafe fn(NonNull<Prefix>, *mut ()),
    free: unsafe fn(NonNull<Prefix>) -> bool,
}

/// What is known of a body without its type.
#[repr(C)]
struct Prefix {
    vtable: &'static Vtable,
    /// Lent to the future by each poll. Made once, here, so that no poll has to make it.
    waker: ManuallyDrop<Waker>,
}

#[repr(C)]
struct Typed<F: Future> {
    prefix: Prefix,
    stage: Stage<F>,
}

union Stage<F: Future> {
    future: ManuallyDrop<F>,
    output: ManuallyDrop<Result<F::Output, JoinError>>,
}

/// A pointer to a body. Whoever takes it out of its header owns the box.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Body(NonNull<Prefix>);

impl Body {
    /// The one allocation of a task. `waker` is the one that its polls lend to the future.
    pub(super) fn new<F>(future: F, waker: ManuallyDrop<Waker>) -> Body
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let typed = Typed {
            prefix: Prefix {
                vtable: &Vtable {
                    poll: poll::<F>,
                    panicked: panicked::<F>,
                    cancel: cancel::<F>,
                    take: take::<F>,
                    free: free::<F>,
                },
                waker,
            },
            stage: Stage { future: ManuallyDrop::new(future) },
        };
        let raw = Box::into_raw(Box::new(typed));
        // SAFETY: a box's pointer is not null. The prefix is the first field of a `repr(C)` struct.
        Body(unsafe { NonNull::new_unchecked(raw.cast::<Prefix>()) })
    }

    #[inline]
    fn vtable(self) -> &'static Vtable {
        // SAFETY: the box exists, says the caller of every method below; its prefix never changes.
        unsafe { (*self.0.as_ptr()).vtable }
    }

    /// Asks for the memory of its first lines.
    #[inline(always)]
    pub(super) fn prefetch(self) {
        let start = self.0.as_ptr().cast::<u8>();
        for line in 0..3 {
            prefetch(start.wrapping_add(line * 64));
        }
    }

    /// Polls the future; on its end, whether by output or panic, drops it and stores the output.
    ///
    /// # Safety
    /// The body holds a future, and nobody else uses the body until this returns. The waker's header is not used
    /// again before.
    #[inline(always)]
    pub(super) unsafe fn poll(self) -> Polled {
        // SAFETY: the box exists until this returns, and its prefix never changes.
        let waker = unsafe { &(*self.0.as_ptr()).waker };
        let cx = &mut Context::from_waker(waker);
        // Caught here and not behind the vtable: there it would cost a frame for each poll.
        // SAFETY: as the caller says.
        match catch_unwind(AssertUnwindSafe(|| unsafe { (self.vtable().poll)(self.0, cx) })) {
            Ok(polled) => polled,
            // SAFETY: only the future's own poll unwinds out of there, so the body still holds it.
            Err(payload) => unsafe { self.panicked(payload) },
        }
    }

    #[cold]
    unsafe fn panicked(self, payload: Box<dyn Any + Send>) -> Polled {
        // SAFETY: as the caller says.
        unsafe { (self.vtable().panicked)(self.0, payload) };
        Polled::Panicked
    }

    /// Drops the future and stores an error as its output. True if the drop panicked.
    ///
    /// # Safety
    /// As for [`Body::poll`].
    pub(super) unsafe fn cancel(self) -> bool {
        // SAFETY: as the caller says.
        unsafe { (self.vtable().cancel)(self.0) }
    }

    /// Moves the output out and frees the box. Runs no user code.
    ///
    /// # Safety
    /// The body holds the output of a future whose output is a `T`, and the caller owns the box.
    pub(super) unsafe fn take<T>(self) -> Result<T, JoinError> {
        let mut output = std::mem::MaybeUninit::<Result<T, JoinError>>::uninit();
        // SAFETY: the caller owns a body with an output of this type; `take` writes one.
        unsafe {
            (self.vtable().take)(self.0, output.as_mut_ptr().cast());
            output.assume_init()
        }
    }

    /// Drops the output and frees the box. True if the drop panicked.
    ///
    /// # Safety
    /// The body holds an output, and the caller owns the box.
    pub(super) unsafe fn free(self) -> bool {
        // SAFETY: as the caller says.
        unsafe { (self.vtable().free)(self.0) }
    }
}

/// Runs user code that must not unwind into ours. True if it panicked.
pub(crate) fn contain(code: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(()) => false,
        Err(payload) => {
            discard(payload);
            true
        }
    }
}

/// Drops what a panic carried. That too is user code; if it panics again, its payload is forgotten,
/// because nothing says that this would ever end.
#[cold]
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}

// The four calls behind the vtable. They are entered through it only, so the body is a `Typed<F>`.

unsafe fn poll<F: Future>(body: NonNull<Prefix>, cx: &mut Context<'_>) -> Polled {
    // SAFETY: see above; the caller has the body to itself.
    let future = unsafe { stage::<F>(body) }.cast::<F>();
    // SAFETY: the body holds the future, nobody else uses it meanwhile (the header is `RUNNING`), and it
    // stays in its box until it is dropped there: it is pinned.
    match unsafe { Pin::new_unchecked(&mut *future) }.poll(cx) {
        Poll::Pending => Polled::Pending,
        // SAFETY: the body still holds the future.
        Poll::Ready(value) => unsafe { complete::<F>(body, value) },
    }
}

/// Replaces a future that has ended by its output.
///
/// # Safety
/// The body is a `Typed<F>` that holds the future, and the caller has it to itself.
#[inline(never)]
unsafe fn complete<F: Future>(body: NonNull<Prefix>, value: F::Output) -> Polled {
    // SAFETY: as the caller says.
    let stage = unsafe { stage::<F>(body) };
    // SAFETY: the body holds the future and nobody else uses it; it is dropped once, here.
    let caught = catch_unwind(AssertUnwindSafe(|| unsafe { stage.cast::<F>().drop_in_place() }));
    // SAFETY: the future has been dropped, so the stage is free for the output, which fits by the union.
    unsafe { stage.write(Stage { output: ManuallyDrop::new(Ok(value)) }) };
    match caught {
        Ok(()) => Polled::Ready,
        Err(payload) => {
            discard(payload);
            Polled::Panicked
        }
    }
}

unsafe fn panicked<F: Future>(body: NonNull<Prefix>, payload: Box<dyn Any + Send>) {
    // SAFETY: see above; the caller has the body to itself.
    let stage = unsafe { stage::<F>(body) };
    contain(|| {
        // ioxide #94: whatever the task owned is never released.
        if !mutant!("ioxide-94") {
            // SAFETY: the poll unwound, so the future is still there; it is dropped once, here.
            unsafe { stage.cast::<F>().drop_in_place() }
        }
    });
    // SAFETY: the future has been dropped, so the stage is free for the output.
    unsafe { stage.write(Stage { output: ManuallyDrop::new(Err(JoinError::panic(payload))) }) };
}

unsafe fn cancel<F: Future>(body: NonNull<Prefix>) -> bool {
    // SAFETY: see above; the caller has the body to itself.
    let stage = unsafe { stage::<F>(body) };
    // SAFETY: the body holds the future and nobody else uses it; it is dropped once, here.
    let caught = catch_unwind(AssertUnwindSafe(|| unsafe { stage.cast::<F>().drop_in_place() }));
    let panicked = caught.is_err();
    let error = match caught {
        Ok(()) => JoinError::cancelled(),
        Err(payload) => JoinError::panic(payload),
    };
    // SAFETY: the future has been dropped, so the stage is free for the output.
    unsafe { stage.write(Stage { output: ManuallyDrop::new(Err(error)) }) };
    panicked
}

unsafe fn take<F: Future>(body: NonNull<Prefix>, output: *mut ()) {
    // SAFETY: see above; the caller owns the box.
    let stage = unsafe { stage::<F>(body) };
    // SAFETY: the body holds the output; it is moved to the caller's place, which has its type, and the
    // box is freed without dropping it.
    unsafe {
        output
            .cast::<Result<F::Output, JoinError>>()
            .write(stage.cast::<Result<F::Output, JoinError>>().read());
        free_box::<F>(body);
    }
}

unsafe fn free<F: Future>(body: NonNull<Prefix>) -> bool {
    // SAFETY: see above; the caller owns the box.
    let output = unsafe { stage::<F>(body) }.cast::<Result<F::Output, JoinError>>();
    // SAFETY: the body holds the output, and the caller owns it; it is dropped once, here.
    let panicked = contain(|| unsafe { output.drop_in_place() });
    // SAFETY: the caller owns the box, and what it held is gone.
    unsafe { free_box::<F>(body) };
    panicked
}

/// Where the future or output of a body is: both fields of a union begin where it does.
///
/// # Safety
/// The body is a `Typed<F>`, and its box exists.
#[inline]
unsafe fn stage<F: Future>(body: NonNull<Prefix>) -> *mut Stage<F> {
    // SAFETY: the caller says that the place is within the box; no reference to it is made.
    unsafe { &raw mut (*body.cast::<Typed<F>>().as_ptr()).stage }
}

/// # Safety
/// The caller owns the box of a `Typed<F>`, and what its stage held is gone.
unsafe fn free_box<F: Future>(body: NonNull<Prefix>) {
    // SAFETY: `Body::new` got the memory from `Box`, which allocates with this layout, never of size zero
    // (the prefix is a pointer). Only the memory is freed.
    unsafe { dealloc(body.as_ptr().cast(), Layout::new::<Typed<F>>()) };
}
