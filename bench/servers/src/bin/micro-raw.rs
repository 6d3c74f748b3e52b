//! What the kernel itself costs: the limits for the runtimes' file reads and for waking a thread.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
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
    let test_file = micro::test_file()?;
    let file = File::open(test_file.path())?;
    for (bench, depth) in [("file_read_1", 1), ("file_read_32", 32)] {
        if plan.wants(bench) {
            let mut reads = Reads::new(&file, depth)?;
            plan.measure_blocking(bench, READS, |n| reads.run(n as usize));
        }
    }
    let plan = plan.with_backend("pread");
    if plan.wants("file_read_1") {
        let mut block = vec![0; BLOCK];
        plan.measure_blocking("file_read_1", READS, |n| {
            for n in 0..n as usize {
                let read = file.read_at(&mut block, micro::offset(n));
                assert_eq!(read.expect("the file can be read"), BLOCK);
            }
        });
    }
    if both_threads.wants("cross_round_trip") {
        round_trips(both_threads)?;
    }
    Ok(())
}

/// Reads through a ring, `depth` at a time.
struct Reads<'a> {
    ring: IoUring,
    file: &'a File,
    blocks: Vec<Vec<u8>>,
}

impl Reads<'_> {
    fn new(file: &File, depth: usize) -> io::Result<Reads<'_>> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun();
        let ring = builder.build(64)?;
        Ok(Reads { ring, file, blocks: vec![vec![0; BLOCK]; depth] })
    }

    fn run(&mut self, n: usize) {
        let fd = Fd(self.file.as_raw_fd());
        let (submitter, mut submissions, mut completions) = self.ring.split();
        let mut started = 0;
        let mut ended = 0;
        let mut idle: Vec<usize> = (0..self.blocks.len()).collect();
        while ended < n {
            while started < n
                && let Some(block) = idle.pop()
            {
                let memory = self.blocks[block].as_mut_ptr();
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
