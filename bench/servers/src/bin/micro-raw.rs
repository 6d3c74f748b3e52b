//! What the kernel itself costs: the limits for the runtimes' file reads and for waking a thread.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::thread;

use bench::args::Given;
use bench::fail;
use bench::micro::{self, BLOCK, Plan};
use bench::system::Clock;
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};
use pelton_bench_servers as bench;

const NAME: &str = "micro-raw";
const READS: u64 = 8192;

fn main() {
    let given = Given::read(NAME, micro::extras());
    let plan = Plan::new(&given, "raw", "io_uring", Clock::Thread);
    if let Err(error) = run(&plan, &Plan::new(&given, "raw", "eventfd", Clock::Process)) {
        fail(NAME, error);
    }
}

fn run(plan: &Plan, both_threads: &Plan) -> io::Result<()> {
    if plan.wants("file_read_1") || plan.wants("file_read_32") {
        file_reads(plan)?;
    }
    if both_threads.wants("cross_round_trip") {
        round_trips(both_threads)?;
    }
    Ok(())
}

/// The reads of a file in the three ways that the kernel has. A thread sleeps beside them, as the runtimes'
/// pools do: the kernel then counts who uses a descriptor.
fn file_reads(plan: &Plan) -> io::Result<()> {
    let test_file = micro::test_file()?;
    let (stop, asleep) = mpsc::channel::<()>();
    let beside = thread::spawn(move || asleep.recv());
    for (bench, depth) in [("file_read_1", 1), ("file_read_32", 32)] {
        if !plan.wants(bench) {
            continue;
        }
        let mut files = Vec::new();
        for _ in 0..depth {
            files.push(File::open(test_file.path())?);
        }
        let mut reads = Reads::new(files)?;
        plan.measure_blocking(bench, READS, |n| reads.through_ring(n as usize));
        let pread = plan.with_backend("pread");
        pread.measure_blocking(bench, READS, |n| {
            reads.one_by_one(n as usize, |file, block, offset| {
                file.read_at(block, offset).expect("the file can be read")
            });
        });
        let nowait = plan.with_backend("preadv2 RWF_NOWAIT");
        nowait.measure_blocking(bench, READS, |n| reads.one_by_one(n as usize, read_nowait));
    }
    drop(stop);
    let _ = beside.join();
    Ok(())
}

/// As `pread`, but only what the page cache has.
fn read_nowait(file: &File, block: &mut [u8], offset: u64) -> usize {
    let part = libc::iovec { iov_base: block.as_mut_ptr().cast(), iov_len: block.len() };
    let (low, high) = (offset as libc::c_ulong, (offset >> 32) as libc::c_ulong);
    // SAFETY: one part, which is memory that is borrowed for the call. The kernel takes the offset in two
    // words, and on a 64-bit machine only the first of them.
    let read = unsafe {
        libc::syscall(
            libc::SYS_preadv2,
            file.as_raw_fd(),
            &raw const part,
            1,
            low,
            high,
            libc::RWF_NOWAIT,
        )
    };
    usize::try_from(read).expect("the page cache has the file")
}

/// Readers, each with its own file and block, as the tasks of the runtimes have them.
struct Reads {
    ring: IoUring,
    files: Vec<File>,
    blocks: Vec<Vec<u8>>,
}

impl Reads {
    fn new(files: Vec<File>) -> io::Result<Reads> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun();
        let ring = builder.build(64)?;
        let blocks = vec![vec![0; BLOCK]; files.len()];
        Ok(Reads { ring, files, blocks })
    }

    /// One call for each read, by one reader after the other.
    fn one_by_one(&mut self, n: usize, read: impl Fn(&File, &mut [u8], u64) -> usize) {
        let each = n / self.files.len();
        for (file, block) in self.files.iter().zip(&mut self.blocks) {
            for n in 0..each {
                assert_eq!(read(file, block, micro::offset(n)), BLOCK);
            }
        }
    }

    /// As many at a time as there are readers, with one entry into the kernel for all.
    fn through_ring(&mut self, n: usize) {
        let (submitter, mut submissions, mut completions) = self.ring.split();
        let mut started = 0;
        let mut ended = 0;
        let mut idle: Vec<usize> = (0..self.blocks.len()).collect();
        while ended < n {
            while started < n
                && let Some(block) = idle.pop()
            {
                let memory = self.blocks[block].as_mut_ptr();
                let fd = Fd(self.files[block].as_raw_fd());
                let read = opcode::Read::new(fd, memory, BLOCK as u32)
                    .offset(micro::offset(started))
                    .build()
                    .user_data(block as u64);
                // SAFETY: the block is idle, lives as long as the ring, and is touched by nobody before the
                // read has ended. The ring has place for twice as many entries as there are blocks.
                unsafe { submissions.push(&read).expect("there is room") };
                started += 1;
            }
            submissions.sync();
            completions.sync();
            submitter.submit_and_wait(1).expect("nothing interrupts this program");
            submissions.sync();
            completions.sync();
            for completion in &mut completions {
                assert_eq!(completion.result(), BLOCK as i32, "the file can be read");
                idle.push(completion.user_data() as usize);
                ended += 1;
            }
        }
        completions.sync();
    }
}

/// Two threads that wake each other, each asleep in a read of an `eventfd`.
fn round_trips(plan: &Plan) -> io::Result<()> {
    let (mut ask, mut asked) = event()?;
    let (mut answer, mut answered) = event()?;
    let thread = thread::spawn(move || {
        let mut word = [0; 8];
        while asked.read(&mut word).is_ok() && u64::from_ne_bytes(word) == 1 {
            if answer.write(&word).is_err() {
                return;
            }
        }
    });
    plan.measure_blocking("cross_round_trip", 1000, |n| {
        let mut word = [0; 8];
        for _ in 0..n {
            ask.write_all(&1_u64.to_ne_bytes()).expect("an eventfd takes a word");
            answered.read_exact(&mut word).expect("an eventfd gives a word");
        }
    });
    // Any other number than one ends the thread.
    ask.write_all(&2_u64.to_ne_bytes())?;
    thread.join().expect("it does not panic");
    Ok(())
}

/// An `eventfd`, twice.
fn event() -> io::Result<(File, File)> {
    // SAFETY: takes no memory of ours.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `eventfd` has just made it, and nobody else has it.
    let file = unsafe { File::from_raw_fd(fd) };
    Ok((file.try_clone()?, file))
}
