//! A fleet: one reactor per core.
//!
//! Each member is a thread with a runtime of its own; nothing is shared between them but what the program
//! shares. A fleet starts as a whole or not at all: where one member cannot be made, those that were are
//! ended again before the error is returned. It ends in two steps: members are asked to stop, and have
//! until a deadline to finish what they do; then whatever is left of them is dropped.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::Waker;
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use crate::handle::Handle;
use crate::runtime::{Builder, Runtime};

/// Settings of a [`Fleet`].
///
/// ```
/// use pelton::net::{ListenOptions, TcpListener};
///
/// let fleet = pelton::FleetBuilder::new().reactors(2).start(|member| async move {
///     let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
///     // Port 0 would give each member another port.
///     let _listener = TcpListener::bind_with("127.0.0.1:0", options).await?;
///     member.shutdown_requested().await;
///     Ok(())
/// })?;
/// assert_eq!(fleet.handles().len(), 2);
/// fleet.shutdown(std::time::Duration::from_secs(5))?;
/// # Ok::<(), pelton::FleetError>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `start`"]
pub struct FleetBuilder {
    reactors: Option<usize>,
    pin: bool,
    runtime: Builder,
}

impl Default for FleetBuilder {
    fn default() -> FleetBuilder {
        FleetBuilder::new()
    }
}

impl FleetBuilder {
    /// One reactor for each processor that this process may use, not pinned.
    pub fn new() -> FleetBuilder {
        FleetBuilder { reactors: None, pin: false, runtime: Builder::new() }
    }

    /// How many reactors. At least 1.
    pub fn reactors(mut self, reactors: usize) -> FleetBuilder {
        self.reactors = Some(reactors);
        self
    }

    /// Keeps each reactor on a processor of its own, as far as there are any. Only Linux and Windows
    /// (there among the first 64).
    pub fn pin(mut self, pin: bool) -> FleetBuilder {
        self.pin = pin;
        self
    }

    /// The settings of each reactor.
    pub fn runtime(mut self, runtime: Builder) -> FleetBuilder {
        self.runtime = runtime;
        self
    }

    /// Starts the reactors, and on each the future that `main` makes for it, on the reactor's thread. A
    /// member ends when its future does. Returns when every reactor has been made.
    ///
    /// # Errors
    /// One of the reactors cannot be made; those that were have ended again.
    pub fn start<M, F>(self, main: M) -> Result<Fleet, FleetError>
    where
        M: Fn(Member) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<()>> + 'static,
    {
        let count = self.reactors.unwrap_or_else(processors);
        if count == 0 {
            return Err(FleetError::Start(io::Error::new(
                io::ErrorKind::InvalidInput,
                "`reactors`: 0 is not at least 1",
            )));
        }
        let main = Arc::new(main);
        let places = if self.pin { allowed_processors() } else { Vec::new() };
        let mut fleet = Fleet { members: Vec::new() };
        for index in 0..count {
            let place = places.get(index % places.len().max(1)).copied();
            match start_member(index, count, place, self.runtime.clone(), main.clone()) {
                Ok(running) => fleet.members.push(running),
                Err(error) => {
                    let _ = fleet.end(Duration::ZERO);
                    return Err(FleetError::Start(error));
                }
            }
        }
        Ok(fleet)
    }
}

/// What a member of a fleet knows of itself.
#[derive(Clone, Debug)]
pub struct Member {
    index: usize,
    count: usize,
    handle: Handle,
}

impl Member {
    /// Which one, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The handle of this member's reactor.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends when the fleet is asked to stop.
    pub async fn shutdown_requested(&self) {
        crate::shutdown_requested().await;
    }
}

/// Reactors that run.
#[derive(Debug)]
pub struct Fleet {
    members: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
    id: ThreadId,
    ended: mpsc::Receiver<Outcome>,
}

type Outcome = Result<io::Result<()>, Box<dyn Any + Send>>;

/// How a fleet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Every member's future ended by itself.
    Complete,
    /// The deadline passed; this many members were cut short.
    CutShort(usize),
}

/// Why a fleet did not start, or how it ended badly.
#[derive(Debug)]
#[non_exhaustive]
pub enum FleetError {
    /// A reactor could not be made.
    Start(io::Error),
    /// A reactor's own thread waits for the fleet: it would wait for itself.
    OwnThread,
    /// A member's future returned an error.
    Member {
        /// Which one.
        index: usize,
        /// What it returned.
        error: io::Error,
    },
    /// A member's future panicked.
    Panicked {
        /// Which one.
        index: usize,
        /// What it panicked with.
        message: String,
    },
}

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FleetError::Start(error) => write!(f, "the fleet did not start: {error}"),
            FleetError::OwnThread => f.write_str(
                "a reactor of the fleet waits for the fleet, that is for itself: wait on another thread",
            ),
            FleetError::Member { index, error } => write!(f, "reactor {index}: {error}"),
            FleetError::Panicked { index, message } => write!(f, "reactor {index} panicked: {message}"),
        }
    }
}

impl std::error::Error for FleetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FleetError::Start(error) | FleetError::Member { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl From<FleetError> for io::Error {
    fn from(error: FleetError) -> io::Error {
        io::Error::other(error)
    }
}

impl Fleet {
    /// The members' handles, in their order.
    pub fn handles(&self) -> Vec<Handle> {
        self.members.iter().map(|member| member.handle.clone()).collect()
    }

    /// Waits until every member's future has ended by itself.
    ///
    /// # Errors
    /// [`FleetError::OwnThread`] on a thread of the fleet, whose members are then asked to stop and end by
    /// themselves. Else the first member that failed; the others have ended too.
    pub fn join(mut self) -> Result<(), FleetError> {
        self.refuse_own_thread()?;
        self.collect(None).map(drop)
    }

    /// Asks the members to stop, waits until they have, and after `deadline` drops what is left of them.
    ///
    /// # Errors
    /// As for [`Fleet::join`].
    pub fn shutdown(mut self, deadline: Duration) -> Result<Drain, FleetError> {
        self.refuse_own_thread()?;
        self.end(deadline)
    }

    /// Asks the members to stop, and waits for nothing. Any thread.
    pub fn request_shutdown(&self) {
        self.members.iter().for_each(|member| member.handle.shutdown());
    }

    fn refuse_own_thread(&self) -> Result<(), FleetError> {
        let here = std::thread::current().id();
        if self.members.iter().any(|member| member.id == here) {
            return Err(FleetError::OwnThread);
        }
        Ok(())
    }

    fn end(&mut self, deadline: Duration) -> Result<Drain, FleetError> {
        self.request_shutdown();
        // One that no clock can name is none.
        self.collect(crate::time::now().checked_add(deadline))
    }

    fn collect(&mut self, deadline: Option<Instant>) -> Result<Drain, FleetError> {
        let mut first = None;
        let mut cut_short = 0;
        for (index, member) in self.members.iter_mut().enumerate() {
            let ended = match deadline {
                None => member.ended.recv().ok(),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(crate::time::now());
                    match member.ended.recv_timeout(left) {
                        Ok(ended) => Some(ended),
                        Err(RecvTimeoutError::Disconnected) => None,
                        Err(RecvTimeoutError::Timeout) => {
                            cut_short += 1;
                            member.cut_short();
                            None
                        }
                    }
                }
            };
            first = first.or(ended.and_then(|ended| failure(index, ended)));
        }
        for member in &mut self.members {
            if let Some(thread) = member.thread.take() {
                // The thread's own panics are caught and sent as its outcome.
                let _ = thread.join();
            }
        }
        for (index, member) in self.members.iter().enumerate() {
            // Of those that were cut short: how that went, if it did not go well.
            if let Ok(ended) = member.ended.try_recv() {
                first = first.or(failure(index, ended));
            }
        }
        match first {
            Some(error) => Err(error),
            None if cut_short > 0 => Ok(Drain::CutShort(cut_short)),
            None => Ok(Drain::Complete),
        }
    }
}

impl Drop for Fleet {
    /// Ends the fleet at once, unless it has been waited for, or this is a thread of its own: then its
    /// members are asked to stop and go on by themselves.
    fn drop(&mut self) {
        if self.refuse_own_thread().is_err() {
            self.request_shutdown();
        } else if self.members.iter().any(|member| member.thread.is_some()) {
            let _ = self.end(Duration::ZERO);
        }
    }
}

impl Running {
    /// Makes the member's loop leave its future where it is.
    fn cut_short(&self) {
        // The member may have ended meanwhile: then there is nothing to cut.
        let _ = self.handle.post(|| {
            CUT_SHORT.with(|cut| cut.set(true));
            if let Some(waker) = CUT_SHORT_WAKER.with(|waker| waker.borrow_mut().take()) {
                waker.wake();
            }
        });
    }
}

thread_local! {
    /// Set on a member's thread when its time is up.
    static CUT_SHORT: Cell<bool> = const { Cell::new(false) };
    /// Who has to look then.
    static CUT_SHORT_WAKER: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

fn start_member<M, F>(
    index: usize,
    count: usize,
    place: Option<usize>,
    builder: Builder,
    main: Arc<M>,
) -> io::Result<Running>
where
    M: Fn(Member) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<()>> + 'static,
{
    let (started, starts) = mpsc::channel::<io::Result<Handle>>();
    let (end, ended) = mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("pelton-{index}")).spawn(move || {
        if let Some(place) = place
            && let Err(error) = pin_to(place)
        {
            let _ = started.send(Err(error));
            return;
        }
        let runtime = match builder.build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = started.send(Err(error.into()));
                return;
            }
        };
        let handle = runtime.handle();
        let _ = started.send(Ok(handle.clone()));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run_member(&runtime, Member { index, count, handle }, &*main)
        }));
        // The runtime goes first, so that whoever learns of the end finds nothing of it left.
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(runtime)));
        let _ = end.send(outcome.and_then(|outcome| dropped.map(|()| outcome)));
    })?;
    let id = thread.thread().id();
    match starts.recv() {
        Ok(Ok(handle)) => Ok(Running { handle, thread: Some(thread), id, ended }),
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        Err(_) => {
            let _ = thread.join();
            Err(io::Error::other("the reactor's thread ended before it started"))
        }
    }
}

fn run_member<M, F>(runtime: &Runtime, member: Member, main: &M) -> io::Result<()>
where
    M: Fn(Member) -> F,
    F: Future<Output = io::Result<()>> + 'static,
{
    // A task, so that it can be dropped from outside; its panic is the member's.
    let outcome = runtime.block_on(async {
        let mut task = crate::spawn(main(member));
        std::future::poll_fn(|cx| {
            if CUT_SHORT.with(Cell::get) {
                task.abort();
            }
            CUT_SHORT_WAKER.with(|waker| *waker.borrow_mut() = Some(cx.waker().clone()));
            std::pin::Pin::new(&mut task).poll(cx)
        })
        .await
    });
    match outcome {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ok(()),
    }
}

fn failure(index: usize, ended: Outcome) -> Option<FleetError> {
    match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(FleetError::Member { index, error }),
        Err(panic) => Some(FleetError::Panicked { index, message: message(&*panic) }),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is not text".to_owned())
}

/// Processors that this process may use.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(target_os = "linux")]
fn allowed_processors() -> Vec<usize> {
    rustix::thread::sched_getaffinity(None).map_or_else(
        |_| Vec::new(),
        |set| (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect(),
    )
}

#[cfg(target_os = "linux")]
fn pin_to(place: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(place);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

#[cfg(windows)]
fn allowed_processors() -> Vec<usize> {
    use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessAffinityMask};
    let (mut mine, mut all) = (0, 0);
    // SAFETY: this process, and two words of ours.
    if unsafe { GetProcessAffinityMask(GetCurrentProcess(), &mut mine, &mut all) } == 0 {
        return Vec::new();
    }
    (0..usize::BITS as usize).filter(|cpu| mine >> cpu & 1 != 0).collect()
}

#[cfg(windows)]
fn pin_to(place: usize) -> io::Result<()> {
    use windows_sys::Win32::System::Threading::{GetCurrentThread, SetThreadAffinityMask};
    // SAFETY: this thread, and a number.
    match unsafe { SetThreadAffinityMask(GetCurrentThread(), 1 << place) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(not(any(target_os = "linux", windows)))]
fn allowed_processors() -> Vec<usize> {
    Vec::new()
}

#[cfg(not(any(target_os = "linux", windows)))]
fn pin_to(_: usize) -> io::Result<()> {
    Ok(())
}
