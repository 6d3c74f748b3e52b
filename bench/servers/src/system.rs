//! Signals, clocks and memory, as the system has them.

use std::time::Duration;

/// Ends the program with 0 at `SIGTERM`. Outside the runtimes, so that it costs all of them the same: nothing.
pub fn end_on_sigterm() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: `_exit` may be called in a signal's handler, and does not return.
        unsafe { libc::_exit(0) }
    }
    let end: extern "C" fn(libc::c_int) = end;
    // SAFETY: the handler calls nothing but `_exit`, which is safe in one, at any moment.
    unsafe { libc::signal(libc::SIGTERM, end as *const () as libc::sighandler_t) };
}

/// Which processor time is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// That of the calling thread.
    Thread,
    /// That of the process: where threads of a pool do some of the work.
    Process,
}

impl Clock {
    /// The processor time until now.
    pub fn now(self) -> Duration {
        let clock = match self {
            Clock::Thread => libc::CLOCK_THREAD_CPUTIME_ID,
            Clock::Process => libc::CLOCK_PROCESS_CPUTIME_ID,
        };
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a `timespec` that the call may write.
        let result = unsafe { libc::clock_gettime(clock, &mut time) };
        assert_eq!(result, 0, "Linux has both clocks");
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
    }
}

/// Resident bytes of this process.
pub fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    // SAFETY: asks for a constant of the system.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages * page.unsigned_abs()
}
