//! What crosses threads takes its primitives from here, so that the models can replace them: `loom` runs every
//! interleaving of a small model, `shuttle` a random choice of those of a larger one.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU32, Ordering},
};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU32, Ordering},
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU32, Ordering},
};

/// What the models need beside that: a way to run them, threads, and how many to have.
#[cfg(all(test, any(loom, shuttle)))]
pub(crate) mod model {
    #[cfg(loom)]
    pub(crate) use loom::{sync::Arc, sync::atomic::AtomicUsize, thread};
    #[cfg(shuttle)]
    pub(crate) use shuttle::{sync::Arc, sync::atomic::AtomicUsize, thread};

    /// Threads beside the owner. loom's work grows with the factorial of it.
    pub(crate) const OTHERS: usize = if cfg!(loom) { 2 } else { 6 };

    /// Runs a model in every interleaving, or in many.
    pub(crate) fn check(model: impl Fn() + Send + Sync + 'static) {
        check_within(None, model);
    }

    /// The same, in no interleaving with more switches that nobody asked for than that, where it has more
    /// threads than loom can do all of.
    pub(crate) fn check_within(switches: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
        #[cfg(loom)]
        {
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = switches;
            builder.check(model);
        }
        #[cfg(shuttle)]
        let _ = switches;
        #[cfg(shuttle)]
        {
            let model = std::sync::Arc::new(model);
            let again = model.clone();
            shuttle::check_random(move || model(), 20_000);
            shuttle::check_pct(move || again(), 20_000, 3);
        }
    }
}
