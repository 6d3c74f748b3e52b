//! `pelton serve`: from the options to reactors, and the words at the start and at the end.
//!
//! The reactors that serve are a fleet, one thread each. The main thread has a small reactor of its
//! own that waits for signals: however busy the others are, a signal is seen at once, and also
//! while some of them have ended and others have not.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::task::Poll;
use std::time::Duration;

use pelton::driver::{Config, Kind};
use pelton::signal::{Signal, SignalKind, signal};
use pelton::{Fleet, FleetBuilder, FleetError, Handle, Runtime};

use crate::access_log::{AccessLog, Target};
use crate::admin::{Admin, ReactorReport};
use crate::app::{App, Shared};
use crate::args::{Backend, Serve};
use crate::bind;
use crate::exchange::Tally;
use crate::files::Site;
use crate::on_pelton::{OnListener, OnPelton};
use crate::open_files;
use crate::reactor::{self, Settings};
use crate::root::Root;
use crate::stop::{Stage, Stop};
use crate::watch::Limits;

/// How long the end waits for the access log to be written.
pub(crate) const LOG_LIMIT: Duration = Duration::from_secs(2);

/// Serves until a signal ends it.
///
/// # Errors
/// A sentence that says what to do.
pub(crate) fn run(options: &Serve) -> Result<(), String> {
    let open_files = open_files::raise();
    if options.verbose {
        eprintln!("pelton: {open_files}.");
    }
    let seats: Arc<OnceLock<Vec<Seat>>> = Arc::default();
    let admin = (!options.no_admin).then(|| {
        let seats = Arc::clone(&seats);
        // Until all have started there is nothing to report.
        Admin::new(move || seats.get().map_or(Vec::new(), |seats| reports(seats)))
    });
    let shared = Arc::new(shared(options, admin)?);
    let wanted = options.listen.resolve()?;
    let count = options.reactors.count();
    let (address, listeners) =
        bind::all(wanted, count).map_err(|(address, error)| explain_bind(address, &error))?;

    let lobby = lobby().map_err(|error| format!("{error}."))?;
    let (ready, readiness) = mpsc::channel();
    let plan = Arc::new(Plan {
        shared: Arc::clone(&shared),
        settings: settings(options),
        stop: Stop::default(),
        listeners: listeners.into_iter().map(|it| Mutex::new(Some(it))).collect(),
        tallies: (0..count).map(|_| Arc::default()).collect(),
        ready,
        lobby: lobby.handle(),
        running: AtomicUsize::new(count),
        cut: AtomicUsize::new(0),
    });
    let ended = lobby.block_on(async {
        let refused = |error| format!("the system refuses to watch for signals: {error}.");
        // Before anything is announced: who reads the announcement may send one at once.
        let signals = Signals::new().map_err(refused)?;
        let fleet = start(options.backend, &plan)?;
        for _ in 0..count {
            // A reactor that ends says so too, hence all are heard of.
            readiness.recv().unwrap_or_else(|_| Err(ENDED_EARLY.to_owned()))?;
        }
        let handles = fleet.handles();
        let all = handles.iter().zip(&plan.tallies);
        let all = all.map(|(handle, tally)| Seat { handle: handle.clone(), tally: tally.clone() });
        let _ = seats.set(all.collect());
        let fallback = fallback(&handles);
        let backend = handles[0].backend().name();
        crate::print(&announcement(address, backend, count, fallback.as_deref()));
        signals.pass_on(&plan).await;
        Ok(fleet)
    });
    let result = ended.and_then(|fleet| fleet.join().map_err(|error| explain_fleet(&error)));
    if let Some(log) = &shared.log
        && !log.close(LOG_LIMIT)
    {
        eprintln!("pelton: the access log is not complete: nobody took its last lines.");
    }
    let cut = plan.cut.load(Relaxed);
    if cut > 0 {
        eprintln!("pelton: {} cut before the end.", plural(cut as u64, "was", "were"));
    }
    result
}

/// What a reactor that serves is reached by.
#[derive(Debug)]
struct Seat {
    handle: Handle,
    tally: Arc<Tally>,
}

/// What the members of the fleet are started with and leave behind.
struct Plan {
    shared: Arc<Shared>,
    settings: Settings,
    stop: Stop,
    listeners: Vec<Mutex<Option<TcpListener>>>,
    tallies: Vec<Arc<Tally>>,
    /// Where each member says that it serves, or why it cannot.
    ready: mpsc::Sender<Result<(), String>>,
    /// The main thread's reactor, which is to end when no member runs any more.
    lobby: Handle,
    running: AtomicUsize,
    /// Connections that were cut at the end.
    cut: AtomicUsize,
}

const ENDED_EARLY: &str = "a reactor ended before it served.";

fn start(backend: Backend, plan: &Arc<Plan>) -> Result<Fleet, String> {
    let backend = match backend {
        Backend::Auto => pelton::Backend::Auto,
        Backend::IoUring => pelton::Backend::IoUring,
        Backend::Epoll => pelton::Backend::Epoll,
        Backend::Iocp => pelton::Backend::Iocp,
    };
    let runtime = pelton::Builder::new().backend(backend);
    let plan = Arc::clone(plan);
    FleetBuilder::new()
        .reactors(plan.tallies.len())
        .runtime(runtime)
        .start(move |member| serve_as(Arc::clone(&plan), member.index()))
        .map_err(|error| explain_fleet(&error))
}

/// The life of a member of the fleet.
async fn serve_as(plan: Arc<Plan>, index: usize) -> io::Result<()> {
    let mut attendance = Attendance { plan: &plan, orderly: false };
    let listener = plan.listeners[index].lock().unwrap_or_else(PoisonError::into_inner).take();
    let listener = listener.ok_or_else(|| io::Error::other("a listener is taken once"))?;
    let listener = OnListener::new(listener, plan.shared.log.is_some()).inspect_err(|error| {
        let _ = plan.ready.send(Err(format!("a reactor cannot take its listener: {error}.")));
    })?;
    let (shared, tally) = (Arc::clone(&plan.shared), Arc::clone(&plan.tallies[index]));
    let app = Rc::new(App::new(OnPelton, shared, tally));
    let _ = plan.ready.send(Ok(()));
    let cut = reactor::run(OnPelton, listener, app, plan.settings, plan.stop.clone()).await;
    plan.cut.fetch_add(cut, Relaxed);
    attendance.orderly = true;
    Ok(())
}

/// Tells of the end of a member, whatever it is.
struct Attendance<'a> {
    plan: &'a Plan,
    orderly: bool,
}

impl Drop for Attendance<'_> {
    fn drop(&mut self) {
        if !self.orderly {
            // One that failed: the others finish what they are at, and a supervisor starts anew. A
            // server that lives on with a part of itself is noticed by nobody.
            let _ = self.plan.ready.send(Err(ENDED_EARLY.to_owned()));
            self.plan.stop.begin();
        }
        if self.plan.running.fetch_sub(1, AcqRel) == 1 {
            self.plan.lobby.shutdown();
        }
    }
}

/// The main thread's reactor. It waits for signals only, so it is as small as can be.
fn lobby() -> Result<Runtime, pelton::driver::Error> {
    let config = Config {
        // The one that is always there.
        backend: if cfg!(target_os = "linux") {
            pelton::Backend::Epoll
        } else {
            pelton::Backend::Auto
        },
        max_operations: 64,
        max_descriptors: 256,
        pool_buffers: 1,
        pool_buffer_len: 64,
        ..Config::default()
    };
    pelton::Builder::new().driver(config).build()
}

/// The two signals that end the program.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::Terminate)?,
            interrupt: signal(SignalKind::Interrupt)?,
        })
    }

    /// Passes each signal on, until no member of the fleet runs any more.
    async fn pass_on(mut self, plan: &Plan) {
        let mut all_ended = pin!(pelton::shutdown_requested());
        loop {
            let mut terminate = pin!(self.terminate.recv());
            let mut interrupt = pin!(self.interrupt.recv());
            let arrived = poll_fn(|cx| {
                if all_ended.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                match terminate.as_mut().poll(cx) {
                    Poll::Pending => interrupt.as_mut().poll(cx).map(Some),
                    arrived => arrived.map(Some),
                }
            })
            .await;
            match arrived {
                None => return,
                Some(Ok(())) => tell(plan, plan.stop.raise()),
                Some(Err(error)) => {
                    eprintln!("pelton: signals are not seen any more, so this is the end: {error}");
                    plan.stop.begin();
                    return;
                }
            }
        }
    }
}

/// Says what a signal did, where it takes time: somebody at a terminal wonders.
fn tell(plan: &Plan, stage: Stage) {
    let open: u64 = plan.tallies.iter().map(|tally| tally.get("http_connections")).sum();
    if stage == Stage::Draining && open > 0 && plan.running.load(Acquire) > 0 {
        let seconds = plan.settings.drain.as_secs();
        eprintln!(
            "pelton: finishing {}, for at most {seconds} s; another signal ends this at once.",
            plural(open, "", "").trim_end()
        );
    }
}

fn plural(connections: u64, one: &str, more: &str) -> String {
    match connections {
        1 => format!("1 connection {one}"),
        n => format!("{n} connections {more}"),
    }
}

fn reports(seats: &[Seat]) -> Vec<ReactorReport> {
    let report = |(id, Seat { handle, tally }): (usize, &Seat)| {
        let snapshot = handle.snapshot();
        let in_flight = Kind::ALL.iter().map(|kind| (kind.name(), snapshot.in_flight_of(*kind)));
        ReactorReport {
            id,
            backend: handle.backend().name().to_owned(),
            fallback: handle.fallback().map(str::to_owned),
            counters: snapshot.fields(),
            in_flight: in_flight.collect(),
            http: tally.fields(),
        }
    };
    seats.iter().enumerate().map(report).collect()
}

/// Why reactors run on another backend than the first choice, if any do.
fn fallback(handles: &[Handle]) -> Option<String> {
    let mut fallen = handles.iter().enumerate().filter(|(_, handle)| handle.fallback().is_some());
    let (first, handle) = fallen.next()?;
    let (reason, others) = (handle.fallback()?, fallen.count());
    if others + 1 == handles.len() {
        return Some(reason.to_owned());
    }
    let (n, name) = (others + 1, handle.backend().name());
    Some(format!("{n} of the reactors, from reactor {first} on, run on {name}: {reason}"))
}

fn explain_fleet(error: &FleetError) -> String {
    match error {
        FleetError::Start(error) => format!("{error}."),
        other => format!("{other}."),
    }
}

/// Everything of the options that the reactors share.
///
/// # Errors
/// A sentence that says what to do.
pub(crate) fn shared(options: &Serve, admin: Option<Admin>) -> Result<Shared, String> {
    let root = Root::open(&options.dir).map_err(|error| explain_folder(&options.dir, &error))?;
    let log = match &options.access_log.0 {
        None => None,
        Some(target) => {
            let log = AccessLog::open(target).map_err(|error| explain_log(target, &error))?;
            Some(Arc::new(log))
        }
    };
    let site =
        Site { root, listing: !options.no_listing, cache_control: options.cache_control.clone() };
    Ok(Shared { site, log, admin })
}

/// What a reactor is to keep to.
pub(crate) fn settings(options: &Serve) -> Settings {
    let seconds = |n: u32| Duration::from_secs(n.into());
    // 0 is no limit; only the drain takes it at its word.
    let limit = |n: u32| (n > 0).then(|| seconds(n));
    Settings {
        max_connections: options.max_connections.get(),
        drain: seconds(options.drain_seconds),
        limits: Limits {
            head: limit(options.header_timeout),
            idle: limit(options.idle_timeout),
            send: limit(options.send_timeout),
            ..Limits::default()
        },
    }
}

/// What is printed when everything listens: one line, and a second one where the backend is not the
/// first choice.
pub(crate) fn announcement(
    address: SocketAddr,
    backend: &str,
    reactors: usize,
    fallback: Option<&str>,
) -> String {
    let mut text = format!("listening on http://{address} backend={backend} reactors={reactors}\n");
    if let Some(reason) = fallback {
        // One line, whatever a reason is made of: scripts read this.
        let reason: Vec<&str> = reason.split_whitespace().collect();
        text.push_str(&format!("fallback: {}\n", reason.join(" ")));
    }
    text
}

/// Why a folder cannot be served, and what would help.
pub(crate) fn explain_folder(folder: &Path, error: &io::Error) -> String {
    let folder = folder.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("there is no folder {folder}. Name one that exists: `pelton serve DIR`.")
        }
        io::ErrorKind::NotADirectory => {
            format!("{folder} is not a folder. Name the folder that holds it: `pelton serve DIR`.")
        }
        io::ErrorKind::PermissionDenied => format!(
            "this user may not read {folder}. Run as one who may, or give the right with `chmod o+rx`."
        ),
        _ => format!("{folder} cannot be opened: {error}."),
    }
}

/// Why an address cannot be listened on, and what would help.
pub(crate) fn explain_bind(address: SocketAddr, error: &io::Error) -> String {
    let (ip, port) = (address.ip(), address.port());
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program listens on {address} already. Stop it (`ss -ltnp 'sport = :{port}'` shows which it \
             is), or choose another port: `--listen {}`.",
            SocketAddr::new(ip, 0)
        ),
        io::ErrorKind::PermissionDenied if port != 0 && port < 1024 => format!(
            "ports below 1024 are not for every user. Choose one above (`--listen {}`), or allow it: \
             `setcap cap_net_bind_service=+ep` on the program, or AmbientCapabilities=CAP_NET_BIND_SERVICE in the \
             systemd unit.",
            SocketAddr::new(ip, 8080)
        ),
        io::ErrorKind::PermissionDenied => {
            format!(
                "this process may not listen on {address}: look for a sandbox or a firewall policy."
            )
        }
        io::ErrorKind::AddrNotAvailable => format!(
            "{ip} is not an address of this machine. `ip address` lists those that are; `--listen :{port}` takes \
             all of them."
        ),
        _ => format!("cannot listen on {address}: {error}."),
    }
}

fn explain_log(target: &Target, error: &io::Error) -> String {
    match target {
        Target::Stdout => format!("no thread for the access log: {error}."),
        Target::File(path) => format!(
            "the access log {} cannot be opened: {error}. Name a file in a folder that exists and that this user \
             may write to, `-` for stdout, or `none`.",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn the_announcement_is_one_line_or_two() {
        let address: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(
            announcement(address, "io_uring", 2, None),
            "listening on http://127.0.0.1:8080 backend=io_uring reactors=2\n"
        );
        let six: SocketAddr = "[::]:80".parse().unwrap();
        assert_eq!(
            announcement(six, "epoll", 1, Some("seccomp forbids\n it")),
            "listening on http://[::]:80 backend=epoll reactors=1\nfallback: seccomp forbids it\n"
        );
    }

    #[test]
    fn errors_at_the_start_name_the_cure() {
        use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
        let low: SocketAddr = "0.0.0.0:80".parse().unwrap();
        let high: SocketAddr = "192.0.2.1:8080".parse().unwrap();
        for (text, cure) in [
            (explain_bind(high, &AddrInUse.into()), "sport = :8080"),
            (explain_bind(low, &PermissionDenied.into()), "cap_net_bind_service"),
            (explain_bind(high, &PermissionDenied.into()), "sandbox"),
            (explain_bind(high, &AddrNotAvailable.into()), "--listen :8080"),
            (explain_folder(Path::new("/x"), &NotFound.into()), "pelton serve DIR"),
            (explain_folder(Path::new("/x"), &PermissionDenied.into()), "chmod"),
        ] {
            assert!(text.contains(cure) && text.ends_with('.'), "{text}");
        }
    }

    #[test]
    fn options_that_cannot_be_met_are_told_before_anything_starts() {
        use clap::Parser;
        let folder = Folder::new();
        let options = |args: &[&str]| {
            let all = ["pelton", "serve"].iter().chain(args);
            match crate::args::Cli::parse_from(all).command {
                crate::args::Command::Serve(serve) => serve,
                crate::args::Command::Doctor(_) => unreachable!(),
            }
        };
        let dir = folder.path().to_str().unwrap();
        let error = shared(&options(&[&format!("{dir}/none")]), None).unwrap_err();
        assert!(error.contains("there is no folder"), "{error}");
        let log = format!("{dir}/none/access.log");
        let error = shared(&options(&[dir, "--access-log", &log]), None).unwrap_err();
        assert!(error.contains("access log"), "{error}");
        let shared = shared(&options(&[dir, "--no-listing"]), None).unwrap();
        assert!(!shared.site.listing && shared.log.is_none());
        let limits = settings(&options(&["--idle-timeout", "5", "--send-timeout", "7"])).limits;
        assert_eq!(limits.head, Some(Duration::from_secs(10)));
        assert_eq!(limits.idle, Some(Duration::from_secs(5)));
        assert_eq!(limits.send, Some(Duration::from_secs(7)));
        let never = ["--header-timeout", "0", "--idle-timeout", "0", "--send-timeout", "0"];
        let settings = settings(&options(&never));
        let Limits { head, idle, send, .. } = settings.limits;
        assert_eq!((head, idle, send), (None, None, None));
        assert_eq!(settings.drain, Duration::from_secs(30));
    }
}
