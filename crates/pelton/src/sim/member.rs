//! One reactor of a simulated host, turned by the simulation instead of a thread of its own.
//!
//! # How a reactor waits
//!
//! Its driver's wait returns at once, and the world remembers that the reactor waits and for how long. A turn
//! that did nothing leaves it there: the wake latch is put to sleep as a real wait would, so that a wake from
//! another reactor takes the way through the (simulated) kernel. Anything that concerns it, a completion, a
//! wake, the end of its time, makes it runnable, and the next turn finds what has come.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pelton_driver::sim::{HostId, ReactorId, World};

use super::panics::words;
use crate::handle::Handle;
use crate::runtime::{Builder, Runtime};

/// So many turns for nothing, one after the other, are a busy loop: faults make a few.
const MOST_IDLE: u32 = 10_000;

/// What a host or a client runs.
pub(super) type Main = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// How a main future ended.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    Well,
    Badly(String),
    Panicked(String),
}

pub(super) struct Member {
    pub(super) id: ReactorId,
    pub(super) host: HostId,
    runtime: Runtime,
    ended: Rc<RefCell<Option<Ended>>>,
    /// Turns in a row that did nothing and did not lead to a wait.
    idle: Cell<u32>,
}

impl Member {
    /// Makes a reactor on a host.
    pub(super) fn new(world: &World, host: HostId, builder: Builder) -> io::Result<Member> {
        let id = world.add_reactor(host);
        match world.as_reactor(id, || builder.build()) {
            Ok(runtime) => {
                Ok(Member { id, host, runtime, ended: Rc::default(), idle: Cell::new(0) })
            }
            Err(error) => {
                world.remove_reactor(id);
                Err(error.into())
            }
        }
    }

    /// Puts `main` on the reactor.
    pub(super) fn run(&self, world: &World, main: impl FnOnce() -> Main) {
        world.as_reactor(self.id, || {
            let _turning = self.runtime.reactor().tasks.turning();
            let main = Watched { main: Some(main()), ended: self.ended.clone() };
            drop(self.runtime.spawn(main));
        });
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        self.ended.borrow().clone()
    }

    pub(super) fn handle(&self) -> Handle {
        self.runtime.handle()
    }

    /// One turn of the reactor's loop.
    pub(super) fn turn(&self, world: &World) {
        world.as_reactor(self.id, || {
            let reactor = self.runtime.reactor();
            let Some(_entered) = reactor.enter() else {
                return world.violation("a reactor was turned from inside another one");
            };
            let _turning = reactor.tasks.turning();
            let before = progress(reactor);
            let root = reactor.tasks.root();
            let _ = reactor.turn(&root, || Poll::<()>::Pending);
            drop(root);
            // Whatever ran may have left something to submit: it is not idle before a turn without.
            let moved = progress(reactor) != before;
            let busy = reactor.tasks.has_queued() || moved;
            self.idle.set(if moved { 0 } else { self.idle.get() + 1 });
            if self.idle.get() == MOST_IDLE && !world.is_waiting(self.id) {
                let name = world.host_name(self.host);
                world
                    .violation(format!("a busy loop: {name} turned {MOST_IDLE} times for nothing"));
            }
            if busy || !world.is_waiting(self.id) || !reactor.driver.park() {
                world.set_runnable(self.id);
            } else {
                self.idle.set(0);
            }
        });
    }

    /// Drops every task and waits, in virtual time, for the kernel to let go.
    pub(super) fn end(self, world: &World) -> Vec<String> {
        let Member { id, host, runtime, .. } = self;
        world.remove_reactor(id);
        world.on_host(host, || {
            let reactor = runtime.reactor().clone();
            let _turning = reactor.tasks.turning();
            drop(runtime);
            let mut left = Vec::new();
            let name = world.host_name(host);
            let leaked = reactor.driver.counters().leaked.get();
            if leaked > 0 {
                left.push(format!("{leaked} operations of {name} were left behind"));
            }
            let (operations, live) = (reactor.driver.operations(), reactor.tasks.counts().live);
            if live > 0 {
                left.push(format!("{live} tasks of {name} are left after its end"));
            }
            if operations > 0 {
                left.push(format!("{operations} operations of {name} are left after its end"));
            }
            let descriptors = reactor.driver.descriptors();
            if descriptors > 0 {
                left.push(format!("{descriptors} descriptors of {name} are left after its end"));
            }
            drop(reactor);
            left
        })
    }
}

/// Anything that tells that a reactor has done something.
fn progress(reactor: &crate::reactor::Reactor) -> (u64, u64, u64) {
    let counters = reactor.driver.counters();
    (reactor.tasks.counts().polls, counters.completions.get(), counters.posts.get())
}

/// A main future, with its end written down, also where it panics.
struct Watched {
    main: Option<Main>,
    ended: Rc<RefCell<Option<Ended>>>,
}

impl Future for Watched {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(main) = self.main.as_mut() else { return Poll::Ready(()) };
        let polled = catch_unwind(AssertUnwindSafe(|| main.as_mut().poll(cx)));
        let ended = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => Ended::Well,
            Ok(Poll::Ready(Err(error))) => Ended::Badly(error.to_string()),
            Err(panic) => Ended::Panicked(words(panic.as_ref())),
        };
        *self.ended.borrow_mut() = Some(ended);
        // A panicked future must not be polled again; its drop may panic too.
        let main = self.main.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(main)));
        Poll::Ready(())
    }
}
