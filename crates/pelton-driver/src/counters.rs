//! Counters: plain numbers with one writer, which any thread can read while the driver runs.
//!
//! The owner of a driver adds with a load and a store, never a read-modify-write: nobody else writes.
//! The two exceptions, wakes sent and coalesced, are written by the threads that wake, which pay for a
//! shared cache line there anyway.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::op::{KINDS, Kind};

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds, from the one thread that writes this number.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts, from the one thread that writes this number.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Replaces the number, from the one thread that writes it.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Raises the number to `n` where it is lower, from the one thread that writes it.
    #[inline]
    pub fn raise_to(&self, n: u64) {
        if n > self.0.load(Relaxed) {
            self.0.store(n, Relaxed);
        }
    }

    /// Adds one from any thread, at the price of a read-modify-write.
    #[inline]
    pub fn add_shared(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// The number now. Any thread.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Operations of one kind submitted so far, and those that have ended: one addition for each, and what is in flight is
/// the difference. Side by side, so that one operation's life is counted in one line of memory.
#[derive(Debug, Default)]
struct OfKind {
    started: Count,
    ended: Count,
}

macro_rules! counters {
    ($($(#[doc = $hot_doc:literal])+ $hot:ident),+; $($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The live numbers of one driver. Read them through [`Counters::snapshot`].
        #[derive(Debug, Default)]
        #[repr(C, align(64))]
        pub struct Counters {
            $($(#[doc = $hot_doc])+ pub $hot: Count,)+
            by_kind: [OfKind; KINDS],
            $($(#[doc = $doc])+ pub $name: Count,)+
        }

        /// The numbers of one driver at one moment. Each is read by itself: two of them may be a few
        /// operations apart.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Snapshot {
            $($(#[doc = $hot_doc])+ pub $hot: u64,)+
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Operations submitted.
            pub submissions: u64,
            /// Operations in flight, by kind, in the order of [`Kind::ALL`].
            pub in_flight: [u64; KINDS],
        }

        impl Counters {
            /// Operations in flight of one kind. Any thread.
            #[inline]
            pub fn in_flight_of(&self, kind: Kind) -> u64 {
                let of = &self.by_kind[kind as usize];
                let ended = of.ended.get();
                of.started.get().saturating_sub(ended)
            }

            /// All the numbers now. Any thread.
            pub fn snapshot(&self) -> Snapshot {
                // First those that have ended: none of them is then missing among those that have begun.
                let ended: [u64; KINDS] = std::array::from_fn(|kind| self.by_kind[kind].ended.get());
                let started: [u64; KINDS] =
                    std::array::from_fn(|kind| self.by_kind[kind].started.get());
                Snapshot {
                    $($hot: self.$hot.get(),)+
                    $($name: self.$name.get(),)+
                    submissions: started.iter().sum(),
                    in_flight: std::array::from_fn(|kind| started[kind].saturating_sub(ended[kind])),
                }
            }
        }

        impl Snapshot {
            /// Every plain number with its name and its meaning, for a page or an exporter.
            pub fn fields(&self) -> Vec<(&'static str, u64, &'static str)> {
                vec![
                    ("submissions", self.submissions, "Operations submitted."),
                    $((stringify!($hot), self.$hot, concat!($($hot_doc),+).trim_ascii()),)+
                    $((stringify!($name), self.$name, concat!($($doc),+).trim_ascii()),)+
                ]
            }
        }
    };
}

// What every tick writes comes first and fills one line of memory; then the counts by kind, of which those that nearly
// all operations are share one.
const _: () = {
    assert!(std::mem::offset_of!(Counters, by_kind) == 64);
    assert!(size_of::<OfKind>() == 16 && (Kind::Recv as usize).is_multiple_of(4));
    assert!(Kind::RecvPooled as usize / 4 == Kind::Recv as usize / 4);
    assert!(Kind::Send as usize / 4 == Kind::Recv as usize / 4);
};

counters! {
    /// Ticks of the driver.
    ticks,
    /// Entries into the kernel to submit or to wait.
    enters,
    /// Completions reaped, the last and the others, those to nobody too.
    completions,
    /// Tasks spawned.
    tasks_spawned,
    /// Tasks that have not finished.
    tasks_live,
    /// Times that a task was polled.
    polls,
    /// Tasks that panicked; each is an error of its handle.
    task_panics,
    /// Completions that found the completion queue full, by the kernel's own count; nothing is lost.
    cq_overflows;
    /// Times that the submission queue was full and had to be flushed inside a tick.
    sq_full,
    /// Entries refused by a kernel that was busy; what was staged was kept.
    busy,
    /// Receives that found no free buffer and were parked until one came back.
    stalls,
    /// Multishot operations cancelled because nobody took what they had yielded.
    unclaimed,
    /// Connections accepted.
    accepts,
    /// Connections closed at once because the cap was reached.
    sheds,
    /// Times that accepting paused because descriptors or memory had run out.
    accept_pauses,
    /// Descriptors closed.
    closes,
    /// Completions that belonged to no operation any more, and were dropped.
    stale,
    /// Operations whose owner has gone and whose last completion is still to come.
    orphans,
    /// Slots left behind at a shutdown because the kernel did not finish them in time.
    leaked,
    /// Wakes from other threads that entered the kernel.
    wakes_sent,
    /// Wakes from other threads that found one under way, or the driver awake.
    wakes_coalesced,
    /// Wakes from other threads that the kernel refused; the next one tries again.
    wakes_failed,
    /// Pooled buffers that a lease holds now.
    buffers_in_use,
    /// The most pooled buffers that leases held at once.
    buffers_high_water,
    /// Pooled buffers in all.
    buffers_total,
    /// Timers that fired.
    timers_fired,
    /// Jobs given to the blocking pool.
    blocking_jobs,
    /// Calls that changed what the kernel watches (`epoll_ctl`).
    registrations,
    /// Closures posted from other threads that ran.
    posts,
    /// Closures posted from other threads that panicked.
    post_panics,
}

impl Counters {
    #[inline]
    pub(crate) fn started(&self, kind: Kind) {
        self.by_kind[kind as usize].started.add(1);
    }

    /// One that has ended as it began.
    #[inline]
    pub(crate) fn at_once(&self, kind: Kind) {
        self.started(kind);
        self.completions.add(1);
        self.ended(kind);
    }

    #[inline]
    pub(crate) fn ended(&self, kind: Kind) {
        self.by_kind[kind as usize].ended.add(1);
    }
}

impl Snapshot {
    /// Operations in flight, all kinds together.
    pub fn in_flight_total(&self) -> u64 {
        self.in_flight.iter().sum()
    }

    /// Operations in flight of one kind.
    pub fn in_flight_of(&self, kind: Kind) -> u64 {
        self.in_flight[kind as usize]
    }
}
