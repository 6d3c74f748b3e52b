//! The few primitives that loom and shuttle replace when they run the interleavings, and the identity of threads.
//!
//! Everything that two threads can reach goes through this file; everything else in the module is
//! plain `Cell`s of the owner's thread, and loom need not see it.

#[cfg(not(any(loom, shuttle)))]
mod imp {
    use std::cell::{Cell, UnsafeCell};
    use std::thread::{self, ThreadId};

    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
    pub(crate) use std::sync::{Arc, Mutex, MutexGuard};

    thread_local! {
        /// Set by the first `Tasks` of a thread. It has no destructor, so it can be read at any time
        /// of a thread's life, and ids are never used twice, so a thread that comes later cannot
        /// pass for the owner of tasks that were forgotten.
        static THIS: Cell<Option<ThreadId>> = const { Cell::new(None) };
    }

    /// The calling thread's id, remembered so that [`is_current`] can compare without a call.
    pub(crate) fn claim() -> ThreadId {
        let id = thread::current().id();
        THIS.set(Some(id));
        id
    }

    #[inline]
    pub(crate) fn is_current(owner: ThreadId) -> bool {
        THIS.get() == Some(owner)
    }

    pub(crate) type Owner = ThreadId;

    /// A plain cell that is handed from thread to thread by an atomic elsewhere.
    pub(crate) struct Handed<T>(UnsafeCell<T>);

    impl<T: Copy> Handed<T> {
        pub(crate) fn new(value: T) -> Handed<T> {
            Handed(UnsafeCell::new(value))
        }

        /// # Safety
        /// No other thread writes to the cell at the same time.
        #[inline]
        pub(crate) unsafe fn get(&self) -> T {
            // SAFETY: the caller says that nobody writes.
            unsafe { *self.0.get() }
        }

        /// # Safety
        /// No other thread reads or writes the cell at the same time.
        #[inline]
        pub(crate) unsafe fn set(&self, value: T) {
            // SAFETY: the caller says that the cell is ours.
            unsafe { *self.0.get() = value };
        }
    }

    /// Marks for loom which accesses need the memory to exist, and where it ends. Nothing otherwise.
    pub(crate) struct Life;

    impl Life {
        pub(crate) fn new() -> Life {
            Life
        }

        #[inline]
        pub(crate) fn used(&self) {}

        #[inline]
        pub(crate) fn ends(&self) {}
    }
}

#[cfg(loom)]
mod imp {
    use loom::cell::UnsafeCell;
    use loom::thread::{self, ThreadId};

    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
    pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};

    pub(crate) fn claim() -> ThreadId {
        thread::current().id()
    }

    pub(crate) fn is_current(owner: ThreadId) -> bool {
        thread::current().id() == owner
    }

    pub(crate) type Owner = ThreadId;

    pub(crate) struct Handed<T>(UnsafeCell<T>);

    impl<T: Copy> Handed<T> {
        pub(crate) fn new(value: T) -> Handed<T> {
            Handed(UnsafeCell::new(value))
        }

        /// # Safety
        /// As above; loom checks it.
        pub(crate) unsafe fn get(&self) -> T {
            // SAFETY: loom fails the model when another thread writes.
            self.0.with(|value| unsafe { *value })
        }

        /// # Safety
        /// As above; loom checks it.
        pub(crate) unsafe fn set(&self, value: T) {
            // SAFETY: loom fails the model when another thread looks.
            self.0.with_mut(|place| unsafe { *place = value });
        }
    }

    /// A race between a use and an end is what a use-after-free is; loom sees it in this cell.
    pub(crate) struct Life(UnsafeCell<()>);

    impl Life {
        pub(crate) fn new() -> Life {
            Life(UnsafeCell::new(()))
        }

        pub(crate) fn used(&self) {
            self.0.with(|_| ());
        }

        pub(crate) fn ends(&self) {
            self.0.with_mut(|_| ());
        }
    }
}

/// As on the real system, but for what `shuttle` replaces: it looks at no memory, only at what comes of the
/// interleavings, and at many more threads.
#[cfg(shuttle)]
mod imp {
    use std::cell::UnsafeCell;

    use shuttle::thread::{self, ThreadId};

    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
    pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};

    pub(crate) fn claim() -> ThreadId {
        thread::current().id()
    }

    pub(crate) fn is_current(owner: ThreadId) -> bool {
        thread::current().id() == owner
    }

    pub(crate) type Owner = ThreadId;

    pub(crate) struct Handed<T>(UnsafeCell<T>);

    impl<T: Copy> Handed<T> {
        pub(crate) fn new(value: T) -> Handed<T> {
            Handed(UnsafeCell::new(value))
        }

        /// # Safety
        /// As above.
        pub(crate) unsafe fn get(&self) -> T {
            // SAFETY: the caller says that nobody writes.
            unsafe { *self.0.get() }
        }

        /// # Safety
        /// As above.
        pub(crate) unsafe fn set(&self, value: T) {
            // SAFETY: the caller says that the cell is ours.
            unsafe { *self.0.get() = value };
        }
    }

    pub(crate) struct Life;

    impl Life {
        pub(crate) fn new() -> Life {
            Life
        }

        pub(crate) fn used(&self) {}

        pub(crate) fn ends(&self) {}
    }
}

/// What the models need beside that: a way to run them, threads, and how many to have.
#[cfg(all(test, any(loom, shuttle)))]
pub(crate) mod model {
    #[cfg(loom)]
    pub(crate) use loom::{sync::Arc, thread};
    #[cfg(shuttle)]
    pub(crate) use shuttle::{sync::Arc, thread};

    /// Threads beside the owner. loom's work grows with the factorial of it.
    pub(crate) const OTHERS: usize = if cfg!(loom) { 2 } else { 6 };

    /// Runs a model in every interleaving, or in many.
    pub(crate) fn check(model: impl Fn() + Send + Sync + 'static) {
        #[cfg(loom)]
        {
            let mut builder = loom::model::Builder::new();
            // Three threads with locks: more switches than this show nothing new.
            builder.preemption_bound = Some(3);
            builder.check(model);
        }
        #[cfg(shuttle)]
        {
            let model = std::sync::Arc::new(model);
            let again = model.clone();
            shuttle::check_random(move || model(), 20_000);
            shuttle::check_pct(move || again(), 20_000, 3);
        }
    }
}

pub(crate) use imp::*;
