//! A seccomp filter of four instructions: `io_uring_setup` fails, everything else is allowed.
//!
//! It is for tests, not for safety: whoever wants io_uring under it cannot get a new ring, which
//! is all that a program looking for a backend can tell. The filter belongs to the thread that
//! installs it and to what that thread starts, so a test can put it on a thread of its own.

use crate::Outcome;

/// How the kernel is to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// EPERM, the answer of a container's policy and of `kernel.io_uring_disabled`.
    NotPermitted,
    /// ENOSYS, the answer of a kernel that was built without io_uring.
    NotImplemented,
}

/// From here on `io_uring_setup` fails for this thread and for all that it starts. It cannot be
/// taken back.
#[cfg(target_os = "linux")]
pub(crate) fn refuse_io_uring(refusal: Refusal) -> Outcome {
    let errno = match refusal {
        Refusal::NotPermitted => libc::EPERM,
        Refusal::NotImplemented => libc::ENOSYS,
    };
    linux::install(errno).map_err(|error| format!("cannot install a seccomp filter: {error}"))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn refuse_io_uring(_: Refusal) -> Outcome {
    Err("io_uring and seccomp are Linux's; there is nothing to refuse here".into())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::mem::offset_of;

    /// The program reads the system call's number only, not the architecture: `io_uring_setup`
    /// has one number on all that share the common table, and a foreign call that is refused by
    /// mistake harms no test.
    fn program(errno: i32) -> [libc::sock_filter; 4] {
        let number = offset_of!(libc::seccomp_data, nr) as u32;
        let refuse = libc::SECCOMP_RET_ERRNO | (errno as u32 & libc::SECCOMP_RET_DATA);
        [
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number, 0),
            instruction(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                libc::SYS_io_uring_setup as u32,
                1,
            ),
            instruction(libc::BPF_RET | libc::BPF_K, refuse, 0),
            instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
        ]
    }

    /// One instruction; `otherwise` is how many to skip when a comparison fails.
    fn instruction(code: u32, k: u32, otherwise: u8) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt: 0, jf: otherwise, k }
    }

    pub(super) fn install(errno: i32) -> io::Result<()> {
        let mut program = program(errno);
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // Without this an ordinary user may not install a filter: a program that gains rights by
        // being started must not find its system calls bent.
        // The kernel reads every argument as a long and wants the unused ones zero, so none is
        // passed as an `int`, whose upper half a variadic call leaves undefined.
        let (yes, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
        // SAFETY: this option takes four integers and no pointer.
        let promised =
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, unused, unused, unused) };
        if promised != 0 {
            return Err(io::Error::last_os_error());
        }
        let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
        // SAFETY: `filter` points to `program`, both live on this stack until the call returns,
        // and the kernel copies the program and keeps no pointer to either.
        let installed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) };
        if installed != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// The error of `io_uring_setup` without a parameter block, which no kernel accepts.
        fn setup_error() -> i32 {
            let nothing = std::ptr::null_mut::<libc::c_void>();
            // SAFETY: the kernel answers a null parameter block with an error and writes nowhere.
            let answer = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, nothing) };
            assert_eq!(answer, -1);
            io::Error::last_os_error().raw_os_error().unwrap()
        }

        #[test]
        fn the_filter_answers_for_io_uring_setup_and_lets_other_calls_pass() {
            // An error that io_uring_setup never gives by itself, so that only the filter can be
            // its source. A thread of its own, because the filter cannot be taken off again.
            let seen = std::thread::spawn(|| {
                assert_ne!(setup_error(), libc::EXDEV);
                install(libc::EXDEV).unwrap();
                // SAFETY: `getppid` takes nothing and cannot fail.
                assert!(unsafe { libc::syscall(libc::SYS_getppid) } >= 0);
                setup_error()
            });
            assert_eq!(seen.join().unwrap(), libc::EXDEV);
        }

        #[test]
        fn a_thread_beside_the_filtered_one_is_not_filtered() {
            let before = setup_error();
            std::thread::spawn(|| install(libc::EXDEV).unwrap()).join().unwrap();
            assert_eq!(setup_error(), before);
        }
    }
}
