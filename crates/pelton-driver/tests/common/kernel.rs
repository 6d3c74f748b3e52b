//! A kernel that fails on purpose: system calls of one thread, answered by the test.
//!
//! A seccomp filter hands the calls that a test names to a thread of the test's, which answers each with an
//! error or lets the kernel have it. The filter belongs to the thread that installs it and cannot be taken
//! off, so what is tested runs on a thread of its own. Everything that thread starts has the filter too:
//! nothing that outlives the test may be started there, such as a thread of the blocking pool.
#![allow(dead_code, unreachable_pub)] // No test file uses all of it, and none is a library.

use std::io::{self, Write};
use std::mem::{offset_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;

/// A call that was made, for the test to judge.
pub struct Call {
    /// Which: `libc::SYS_…`.
    pub number: i64,
    pub args: [u64; 6],
}

/// Runs `test` on a thread whose calls of the kinds `numbers` go to `answer`: an error's number, or nothing
/// where the kernel is to have it. Where filters are not allowed, says so past the harness and skips.
pub fn with_answers(
    numbers: &[i64],
    mut answer: impl FnMut(&Call) -> Option<i32> + Send,
    test: impl FnOnce() + Send,
) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let (give, given) = mpsc::sync_channel::<io::Result<OwnedFd>>(1);
    std::thread::scope(|scope| {
        let tested = scope.spawn(move || {
            let installed = install(numbers);
            let refused = installed.is_err();
            // Before any call that is answered: somebody has to be there to answer it.
            give.send(installed).unwrap();
            drop(give);
            if !refused {
                test();
            }
        });
        match given.recv().unwrap() {
            Ok(listener) => judge(&listener, &mut answer),
            Err(error) => {
                let line = format!("\nskipped: {name}: no seccomp filter is allowed: {error}\n");
                io::stderr().write_all(line.as_bytes()).unwrap();
            }
        }
        if let Err(panic) = tested.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Answers until no thread with the filter is left.
fn judge(listener: &OwnedFd, answer: &mut impl FnMut(&Call) -> Option<i32>) {
    let raw = listener.as_raw_fd();
    loop {
        let mut poll = libc::pollfd { fd: raw, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        let ready = unsafe { libc::poll(&mut poll, 1, -1) };
        if ready < 0 {
            continue;
        }
        if poll.revents & libc::POLLIN == 0 {
            return;
        }
        // SAFETY: plain numbers, and the kernel wants them zero.
        let mut asked: libc::seccomp_notif = unsafe { zeroed() };
        // SAFETY: the kernel fills the structure, which has the size that is part of the request.
        if unsafe { libc::ioctl(raw, libc::SECCOMP_IOCTL_NOTIF_RECV, &mut asked) } != 0 {
            // Whoever asked was interrupted, and asks again or not at all.
            continue;
        }
        let call = Call { number: i64::from(asked.data.nr), args: asked.data.args };
        // SAFETY: plain numbers.
        let mut response: libc::seccomp_notif_resp = unsafe { zeroed() };
        response.id = asked.id;
        match answer(&call) {
            Some(errno) => response.error = -errno,
            None => response.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        }
        // SAFETY: the kernel reads the structure. Where who asked has gone there is nobody to answer.
        let _ = unsafe { libc::ioctl(raw, libc::SECCOMP_IOCTL_NOTIF_SEND, &mut response) };
    }
}

/// From here on this thread's calls of these kinds go to whoever holds the descriptor.
fn install(numbers: &[i64]) -> io::Result<OwnedFd> {
    let instruction = |code: u32, k: u32, otherwise: u8| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: otherwise,
        k,
    };
    let number = offset_of!(libc::seccomp_data, nr) as u32;
    let mut program = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number, 0)];
    for number in numbers {
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *number as u32, 1));
        program.push(instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF, 0));
    }
    program.push(instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let (yes, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: this option takes four integers and no pointer.
    let promised = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, unused, unused, unused) };
    if promised != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `filter` points to `program`, both live until the call returns, and the kernel copies the
    // program and keeps no pointer to either.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER as libc::c_ulong,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const filter,
        )
    };
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as i32) })
}
