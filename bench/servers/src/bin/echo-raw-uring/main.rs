//! Echo on io_uring and nothing else: the limit that runtimes are measured against.
//!
//! Every turn enters the kernel once, to submit all that is staged and to wait for at least one completion.
//! `multishot` has one accept and one receive per connection armed for good, receiving into buffers that all
//! connections share; `single` asks for each receive, into a buffer of the connection's own; `slots` does that
//! from futures, with the least that awaiting it safely takes, and is no limit but a part of the way there. With
//! `--batch-wait-us` a wait goes on so long after it began, so that a turn finds more to do.

mod multishot;
mod pool;
mod queue;
mod single;
mod slots;

use std::fmt::Write as _;
use std::io;
use std::os::fd::{IntoRawFd, RawFd};

use bench::args::{Args, Extra};
use bench::{fail, listen, ready, versions};
use io_uring::{IoUring, cqueue};
use pelton_bench_servers as bench;
use queue::Queue;

const NAME: &str = "echo-raw-uring";

/// What handles the completions.
trait Handler {
    /// Stages what is in flight from the start.
    fn start(&mut self, queue: &mut Queue<'_>);

    /// One completion.
    fn complete(&mut self, completion: &cqueue::Entry, queue: &mut Queue<'_>);

    /// All completions of a turn have been handled.
    fn turn_over(&mut self, _queue: &mut Queue<'_>) {}
}

fn main() {
    let args = Args::server(
        NAME,
        &[
            Extra::OneOf("--mode", &["multishot", "single", "slots"]),
            Extra::Count("--batch-wait-us", 0),
        ],
    );
    if let Err(error) = serve(&args) {
        fail(NAME, error);
    }
}

fn serve(args: &Args) -> io::Result<()> {
    let listener = listen::listen(args.listen)?;
    let address = listener.local_addr()?;
    // It stays open for as long as the program runs.
    let listener: RawFd = listener.into_raw_fd();
    let (mut ring, flags) = make_ring()?;
    let mode = args.one_of("--mode");
    let batch_wait = args.count("--batch-wait-us") as u32;
    let mut detail = format!("{} {mode} {flags}", versions::named("io-uring"));
    if batch_wait > 0 {
        write!(detail, ", waits {batch_wait} µs for a batch").expect("a string takes everything");
    }
    if mode == "single" {
        ready(NAME, address, &detail);
        run(&mut ring, batch_wait, single::Echo::new(listener, args.buffer))
    } else if mode == "slots" {
        ready(NAME, address, &detail);
        run(&mut ring, batch_wait, slots::Echo::new(listener, args.buffer))
    } else {
        let pool = pool::Pool::new(&ring.submitter(), args.buffer)?;
        ready(NAME, address, &detail);
        run(&mut ring, batch_wait, multishot::Echo::new(listener, pool))
    }
}

fn make_ring() -> io::Result<(IoUring, &'static str)> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun();
    builder.setup_cqsize(queue::COMPLETIONS);
    let without = builder.clone();
    match builder.setup_no_sqarray().build(queue::SUBMISSIONS) {
        Ok(ring) => Ok((ring, "SINGLE_ISSUER|DEFER_TASKRUN|COOP_TASKRUN|NO_SQARRAY")),
        // NO_SQARRAY came with Linux 6.6.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Ok((without.build(queue::SUBMISSIONS)?, "SINGLE_ISSUER|DEFER_TASKRUN|COOP_TASKRUN"))
        }
        Err(error) => Err(error),
    }
}

fn run(ring: &mut IoUring, batch_wait: u32, mut handler: impl Handler) -> io::Result<()> {
    let (mut submitter, submissions, mut completions) = ring.split();
    // Saves the lookup of the descriptor at each entry, where the kernel has it.
    let _ = submitter.register_ring_fd();
    let mut queue = Queue::new(submitter, submissions, batch_wait);
    handler.start(&mut queue);
    loop {
        // Publishes how far completions have been taken. Were this left until after the wait, the kernel
        // would still see the old ones, take them for what is waited for, and return at once.
        completions.sync();
        queue.submit_and_wait()?;
        completions.sync();
        for completion in &mut completions {
            handler.complete(&completion, &mut queue);
        }
        handler.turn_over(&mut queue);
    }
}
