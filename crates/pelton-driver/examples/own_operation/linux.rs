//! The example, on Linux: timer descriptors and splices are Linux's.

use std::error::Error;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use pelton_driver::{Driver, Interest, RawEntry, Seam, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// `IORING_OP_SPLICE`.
const SPLICE: u8 = 30;

pub(crate) fn run(driver: &Driver) -> Result<(), Box<dyn Error>> {
    let ticks = read_a_timer(driver)?;
    println!("{}: the timer had fired {ticks} times when it was read", driver.backend());
    match driver.seam() {
        Seam::Ring => {
            println!("{}: spliced {:?}", driver.backend(), splice(driver, b"through the kernel")?);
        }
        other => println!("{}: no submission entries here, but {other:?}", driver.backend()),
    }
    Ok(())
}

/// The form that works everywhere: what to wait for, and what to call then.
fn read_a_timer(driver: &Driver) -> Result<u64, Box<dyn Error>> {
    let timer =
        timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let soon = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    let once = Itimerspec { it_interval: never, it_value: soon };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;

    let fd = driver.attach(timer.into())?;
    // The memory of the call: moved into the driver, and given back with the outcome.
    let prepared = driver.prepare(Some(fd), [0_u8; 8]).map_err(|refused| refused.error)?;
    let read = prepared.submit_when(Token::NONE, Interest::Readable, |count, ready| {
        Ok(rustix::io::read(ready.descriptor()?, &mut count[..])?)
    });
    let read = read.map_err(|refused| refused.error)?;
    // A limit cancels the call and still awaits its end.
    let (n, count) = driver.finish(read, Some(Duration::from_secs(30)), |_| {})?;
    assert_eq!(n?, 8);
    driver.close(fd);
    Ok(u64::from_ne_bytes(count))
}

/// Pipes that a splice uses, kept open by the operation itself.
struct Pipes {
    from: OwnedFd,
    _into: OwnedFd,
}

/// io_uring's own form: a submission entry. What it names is in the operation's memory.
fn splice(driver: &Driver, bytes: &'static [u8]) -> Result<String, Box<dyn Error>> {
    let (from, mut writer) = std::io::pipe()?;
    let (mut reader, into) = std::io::pipe()?;
    let memory = Pipes { from: from.into(), _into: into.try_clone()?.into() };
    let fd = driver.attach(into.into())?;

    let prepared = driver.prepare(Some(fd), memory).map_err(|refused| refused.error)?;
    // SAFETY: the entry names no memory. The descriptor that it names beside its own is the operation's memory's,
    // which is not dropped before it has ended. A splice completes once.
    let splice = unsafe {
        prepared.submit_entry(Token::NONE, |pipes, entry| {
            *entry = RawEntry {
                opcode: SPLICE,
                // Pipes have no offsets: -1 in both places.
                off: u64::MAX,
                addr: u64::MAX,
                len: bytes.len() as u32,
                file_index: pipes.from.as_raw_fd() as u32,
                ..RawEntry::default()
            };
        })
    };
    let splice = splice.map_err(|refused| refused.error)?;
    // It is in the kernel, and waits there for something to splice.
    driver.tick(Some(Duration::ZERO), |_| {})?;
    writer.write_all(bytes)?;
    let (n, _pipes) = driver.finish(splice, Some(Duration::from_secs(30)), |_| {})?;

    let mut spliced = vec![0; n?];
    reader.read_exact(&mut spliced)?;
    driver.close(fd);
    Ok(String::from_utf8(spliced)?)
}
