//! Asking the kernel for a ring, and saying in words why it was refused.
//!
//! Every flag that we ask for is an optimisation: without it a ring behaves the same and costs
//! more. So a kernel that refuses one with `EINVAL` loses that flag alone, and [`Features`] says
//! what was granted. A kernel does not say *which* flag it refuses. The one that real kernels lack
//! is tried first; on a kernel unlike any that we know, each flag is asked for on its own, with the
//! smallest ring there is, so that nothing is given up in the company of another.
//!
//! `ENOMEM` has a cause that passes by itself: a kernel worker gives the memory of a closed ring
//! back to `RLIMIT_MEMLOCK` some time after `close` returned, within 30 ms where it has little else
//! to do. It is retried for a quarter of a second.
//!
//! [`negotiate`] takes the system call and the sleep as arguments, so that the refusals of kernels
//! and containers that are not at hand can be tested.

use std::fmt;
use std::fs;
use std::time::Duration;

use rustix::io::Errno;
use rustix::io_uring::{
    IoringFeatureFlags, IoringOp, IoringSetupFlags as Flags, io_uring_params, io_uring_setup,
};
use rustix::process::{Resource, getrlimit};

use super::ring::RingConfig;

/// The oldest kernel whose io_uring this backend uses: `DEFER_TASKRUN` and `SYNC_CANCEL` with the
/// semantics that the shutdown relies on.
pub(crate) const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// Why there is no ring, and what to do about it.
#[derive(Clone, Debug)]
pub(crate) struct SetupError {
    /// What the kernel answered; `None` where it was not asked (a kernel that is too old).
    pub(crate) errno: Option<Errno>,
    /// The reason in words.
    pub(crate) reason: String,
    /// What a system administrator can do about it.
    pub(crate) cure: String,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.cure)
    }
}

impl std::error::Error for SetupError {}

/// What this kernel granted to this ring.
#[derive(Clone, Debug, Default)]
pub(crate) struct Features {
    /// One thread submits (6.0).
    pub(crate) single_issuer: bool,
    /// Completions are processed when this thread asks for them, not when they happen (6.1).
    pub(crate) defer_taskrun: bool,
    /// Completions do not interrupt this thread (5.19).
    pub(crate) coop_taskrun: bool,
    /// The kernel raises a flag in the ring when there are completions to process (5.19).
    pub(crate) taskrun_flag: bool,
    /// The submission queue has no index array (6.6).
    pub(crate) no_sqarray: bool,
    /// A refused entry does not stop the submission of those behind it (5.18).
    pub(crate) submit_all: bool,
    /// The ring is entered through the thread's table of rings, not its descriptor table (5.18).
    pub(crate) registered_ring: bool,
    /// A wait takes a timeout (5.11).
    pub(crate) ext_arg: bool,
    /// What a submission points at may change once it is submitted (5.5).
    pub(crate) submit_stable: bool,
    /// Completions that do not fit into the queue are kept by the kernel (5.5).
    pub(crate) nodrop: bool,
    /// An operation can ask for no completion when it succeeds (5.17).
    pub(crate) cqe_skip: bool,
    /// One receive or send takes several provided buffers (6.10).
    pub(crate) recvsend_bundle: bool,
    /// A wait can gather completions for a minimal time (6.12).
    pub(crate) min_timeout: bool,
    /// A wait is not accounted as waiting for a disk (6.15).
    pub(crate) no_iowait: bool,
    /// Provided buffers in a ring (5.19).
    pub(crate) pbuf_ring: bool,
    /// Provided buffers that are consumed piece by piece (6.12).
    pub(crate) pbuf_inc: bool,
    /// One bit for each operation code that the kernel answers.
    pub(crate) ops: [u64; 4],
}

impl Features {
    /// The part that `io_uring_setup` itself answers.
    pub(crate) fn granted(params: &io_uring_params) -> Features {
        // rustix has no names for these two yet.
        const MIN_TIMEOUT: u32 = 1 << 15; // IORING_FEAT_MIN_TIMEOUT, Linux 6.12
        const NO_IOWAIT: u32 = 1 << 17; // IORING_FEAT_NO_IOWAIT, Linux 6.15
        let (flags, features) = (params.flags, params.features);
        Features {
            single_issuer: flags.contains(Flags::SINGLE_ISSUER),
            defer_taskrun: flags.contains(Flags::DEFER_TASKRUN),
            coop_taskrun: flags.contains(Flags::COOP_TASKRUN),
            taskrun_flag: flags.contains(Flags::TASKRUN_FLAG),
            no_sqarray: flags.contains(Flags::NO_SQARRAY),
            submit_all: flags.contains(Flags::SUBMIT_ALL),
            ext_arg: features.contains(IoringFeatureFlags::EXT_ARG),
            submit_stable: features.contains(IoringFeatureFlags::SUBMIT_STABLE),
            nodrop: features.contains(IoringFeatureFlags::NODROP),
            cqe_skip: features.contains(IoringFeatureFlags::CQE_SKIP),
            recvsend_bundle: features.contains(IoringFeatureFlags::RECVSEND_BUNDLE),
            min_timeout: features.bits() & MIN_TIMEOUT != 0,
            no_iowait: features.bits() & NO_IOWAIT != 0,
            ..Features::default()
        }
    }

    /// Whether the kernel knows this operation at all. Flags of an operation (multishot, zero
    /// copy…) are not part of the answer.
    #[allow(dead_code, reason = "for operations that the oldest supported kernel lacks")]
    pub(crate) fn supports(&self, op: IoringOp) -> bool {
        let code = op as usize;
        self.ops[code / 64] >> (code % 64) & 1 == 1
    }

    /// Every feature by its kernel name, with whether it was granted.
    pub(crate) fn named(&self) -> [(&'static str, bool); 16] {
        [
            ("SINGLE_ISSUER", self.single_issuer),
            ("DEFER_TASKRUN", self.defer_taskrun),
            ("COOP_TASKRUN", self.coop_taskrun),
            ("TASKRUN_FLAG", self.taskrun_flag),
            ("NO_SQARRAY", self.no_sqarray),
            ("SUBMIT_ALL", self.submit_all),
            ("REGISTERED_RING", self.registered_ring),
            ("EXT_ARG", self.ext_arg),
            ("SUBMIT_STABLE", self.submit_stable),
            ("NODROP", self.nodrop),
            ("CQE_SKIP", self.cqe_skip),
            ("RECVSEND_BUNDLE", self.recvsend_bundle),
            ("MIN_TIMEOUT", self.min_timeout),
            ("NO_IOWAIT", self.no_iowait),
            ("PBUF_RING", self.pbuf_ring),
            ("PBUF_RING_INC", self.pbuf_inc),
        ]
    }
}

/// The flags that a ring is better for. An order in which each flag stands behind those that it
/// needs: `DEFER_TASKRUN` is refused without `SINGLE_ISSUER`, and `TASKRUN_FLAG` without one of the
/// two `TASKRUN` modes.
const WANTED: [Flags; 6] = [
    Flags::SUBMIT_ALL,
    Flags::SINGLE_ISSUER,
    Flags::COOP_TASKRUN,
    Flags::DEFER_TASKRUN,
    Flags::TASKRUN_FLAG,
    Flags::NO_SQARRAY,
];

/// The pauses between attempts that ended with `ENOMEM`, in milliseconds: 250 in all.
const PAUSES: [u64; 8] = [1, 2, 4, 8, 16, 32, 64, 123];

/// The system call in the shape that [`negotiate`] takes.
pub(crate) fn kernel_setup(
    entries: u32,
    params: &mut io_uring_params,
) -> Result<rustix::fd::OwnedFd, Errno> {
    // SAFETY: the parameters ask for neither ATTACH_WQ, whose descriptor would have to be open,
    // nor NO_MMAP, whose addresses would have to be ours. The kernel writes to `params` only, and
    // only during the call.
    unsafe { io_uring_setup(entries, params) }
}

/// Asks for a ring with every wanted flag and gives up those that are refused. Returns the ring's
/// descriptor and the parameters as the kernel filled them in, whose flags are those granted.
///
/// Blocks for up to a quarter of a second, where there is no memory.
pub(crate) fn negotiate<Fd>(
    config: &RingConfig,
    mut setup: impl FnMut(u32, &mut io_uring_params) -> Result<Fd, Errno>,
    mut sleep: impl FnMut(Duration),
) -> Result<(Fd, io_uring_params), Errno> {
    let mut pauses = PAUSES.iter();
    let mut attempt = |flags: Flags, sq_entries: u32, cq_entries: u32| loop {
        let mut params = io_uring_params::default();
        params.flags = flags | Flags::CQSIZE;
        params.cq_entries = cq_entries;
        match setup(sq_entries, &mut params) {
            Ok(fd) => return Ok((fd, params)),
            Err(Errno::NOMEM) => match pauses.next() {
                Some(millis) => sleep(Duration::from_millis(*millis)),
                None => return Err(Errno::NOMEM),
            },
            Err(errno) => return Err(errno),
        }
    };

    let all = WANTED.iter().copied().collect::<Flags>();
    // NO_SQARRAY is what kernels from 6.1 to 6.5 lack, and nothing else.
    for flags in [all, all - Flags::NO_SQARRAY] {
        match attempt(flags, config.sq_entries, config.cq_entries) {
            Err(Errno::INVAL) => {}
            answer => return answer,
        }
    }
    let mut granted = Flags::empty();
    for flag in WANTED {
        match attempt(granted | flag, 1, 2) {
            Ok(_) => granted |= flag,
            Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    attempt(granted, config.sq_entries, config.cq_entries)
}

/// What there is to know about the system when a ring was refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// Major and minor version of the kernel.
    pub(crate) kernel: Option<(u32, u32)>,
    /// `/proc/sys/kernel/io_uring_disabled` (6.6): 0, 1 or 2.
    pub(crate) disabled: Option<u32>,
    /// Whether a seccomp filter is installed on this thread.
    pub(crate) seccomp: bool,
    /// The soft `RLIMIT_MEMLOCK` in bytes; `None` is unlimited.
    pub(crate) memlock: Option<u64>,
    /// Whether limits on locked memory do not apply (`CAP_IPC_LOCK` outside of a user namespace).
    pub(crate) may_lock: bool,
    /// The soft `RLIMIT_NOFILE`.
    pub(crate) nofile: Option<u64>,
}

impl Environment {
    /// The limit on locked memory in bytes, if rings are charged to it and it applies.
    pub(crate) fn memlock_that_counts(&self) -> Option<u64> {
        // From 5.12 to 6.13 a ring's memory was charged to the control group only.
        let charged = self.kernel.is_none_or(|version| version >= (6, 14));
        self.memlock.filter(|_| charged && !self.may_lock)
    }

    /// Reads `/proc`; what cannot be read is left unknown.
    pub(crate) fn read() -> Environment {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let capabilities =
            field("CapEff:").and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        // In a user namespace CapEff is full of capabilities that the kernel's accounting ignores.
        let outer_namespace = fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
        const CAP_IPC_LOCK: u64 = 1 << 14;
        Environment {
            kernel: running_kernel(),
            disabled: fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
                .ok()
                .and_then(|value| value.trim().parse().ok()),
            seccomp: field("Seccomp:").is_some_and(|mode| mode.trim() == "2"),
            memlock: getrlimit(Resource::Memlock).current,
            may_lock: outer_namespace && capabilities.is_some_and(|set| set & CAP_IPC_LOCK != 0),
            nofile: getrlimit(Resource::Nofile).current,
        }
    }
}

/// The version of the running kernel, from `uname`.
pub(crate) fn running_kernel() -> Option<(u32, u32)> {
    parse_release(rustix::system::uname().release().to_str().ok()?)
}

/// Refuses a kernel that is too old. One whose name has no version in it gets its chance.
pub(crate) fn check_kernel(kernel: Option<(u32, u32)>) -> Result<(), SetupError> {
    let (major, minor) = OLDEST_KERNEL;
    match kernel {
        Some(version) if version < OLDEST_KERNEL => Err(SetupError {
            errno: None,
            reason: format!(
                "io_uring needs Linux {major}.{minor}, this is {}.{}",
                version.0, version.1
            ),
            cure: format!("boot a newer kernel, or {LEAVE_IT}"),
        }),
        _ => Ok(()),
    }
}

/// The locked memory that a ring takes, in bytes: what the kernel rounds up to whole pages.
pub(crate) fn ring_memory(config: &RingConfig) -> u64 {
    const PAGE: u64 = 4096;
    // The head of the shared ring is 64 bytes on newer kernels and 320 on older ones; the index
    // array is there only without NO_SQARRAY. The larger figure is given, it seldom costs a page.
    let rings = 320 + 16 * u64::from(config.cq_entries) + 4 * u64::from(config.sq_entries);
    let entries = 64 * u64::from(config.sq_entries);
    rings.next_multiple_of(PAGE) + entries.next_multiple_of(PAGE)
}

/// Puts the refusal of a simulated system into words.
pub(crate) fn explain_simulated(errno: Errno, config: &RingConfig) -> SetupError {
    SetupError {
        errno: Some(errno),
        reason: format!(
            "the simulated system refuses a ring of {} submissions and {} completions ({errno})",
            config.sq_entries, config.cq_entries
        ),
        cure: match errno {
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => "it passes: try again".into(),
            _ => format!("let its faults be, or {LEAVE_IT}"),
        },
    }
}

/// Puts a refusal into words: what happened and why, and what to do.
pub(crate) fn explain(errno: Errno, config: &RingConfig, system: &Environment) -> SetupError {
    let (reason, cure) = match errno {
        Errno::PERM | Errno::ACCESS => explain_permission(errno, system),
        Errno::NOSYS if system.seccomp => (
            "a seccomp filter hides io_uring from this process (ENOSYS)".into(),
            format!("{ALLOW_IT}, or {LEAVE_IT}"),
        ),
        Errno::NOSYS => (
            "this kernel has no io_uring (ENOSYS): it was built without CONFIG_IO_URING, or is an \
             emulated one"
                .into(),
            format!("boot a kernel that has it, or {LEAVE_IT}"),
        ),
        Errno::NOMEM => explain_memory(config, system),
        Errno::MFILE => (
            format!(
                "no file descriptor is left for the ring, RLIMIT_NOFILE is {}",
                system.nofile.map_or("unlimited".into(), |limit| limit.to_string())
            ),
            "raise it (`ulimit -n`, LimitNOFILE= of the systemd unit)".into(),
        ),
        Errno::NFILE => (
            "the system's table of open files is full".into(),
            "raise fs.file-max with sysctl, or find out who holds the files (`lsof`)".into(),
        ),
        Errno::INVAL => (
            format!(
                "the kernel refuses a ring of {} submissions and {} completions",
                config.sq_entries, config.cq_entries
            ),
            "lower `ring_entries` and `completion_entries`: Linux takes powers of two, at most \
             32768 submissions and 65536 completions, and not fewer completions than submissions"
                .into(),
        ),
        other => {
            (format!("io_uring_setup failed ({other})"), format!("report this, and {LEAVE_IT}"))
        }
    };
    SetupError { errno: Some(errno), reason, cure }
}

/// A ring that exists and cannot be mapped.
pub(crate) fn explain_mapping(errno: Errno, bytes: usize) -> SetupError {
    SetupError {
        errno: Some(errno),
        reason: format!(
            "the ring's {} KiB of shared memory cannot be mapped ({errno})",
            bytes.div_ceil(1024)
        ),
        cure: "raise RLIMIT_AS (`ulimit -v`) or the container's memory limit, or lower \
               `ring_entries` and `completion_entries`"
            .into(),
    }
}

const ALLOW_IT: &str = "allow io_uring_setup, io_uring_enter and io_uring_register in the profile \
                        of the container (`--security-opt seccomp=`) or in SystemCallFilter= of \
                        the systemd unit";
/// The last part of a cure, for who asked for io_uring.
pub(crate) const LEAVE_IT: &str = "let the epoll backend do the work (PELTON_BACKEND=epoll)";

/// A reason for falling back without the advice to do just that.
pub(crate) fn for_fallback(reason: &str) -> &str {
    match reason.strip_suffix(LEAVE_IT) {
        Some(rest) => {
            let rest = rest.strip_suffix(", or ").or(rest.strip_suffix(", and ")).unwrap_or(rest);
            rest.trim_end_matches([':', ' '])
        }
        None => reason,
    }
}

fn explain_permission(errno: Errno, system: &Environment) -> (String, String) {
    match system.disabled {
        Some(2) => (
            "io_uring is switched off on this system (kernel.io_uring_disabled is 2)".into(),
            "`sysctl -w kernel.io_uring_disabled=0` switches it on".into(),
        ),
        // The sysctl answers EPERM, never EACCES, and not to a process that is privileged; such a
        // one was refused by something else.
        Some(1) if errno == Errno::PERM && !system.may_lock => (
            "io_uring is reserved for the group kernel.io_uring_group and for CAP_SYS_ADMIN \
             (kernel.io_uring_disabled is 1)"
                .into(),
            "put this user into that group, or set `sysctl -w kernel.io_uring_disabled=0`".into(),
        ),
        _ if system.seccomp => (
            format!(
                "a seccomp filter forbids io_uring ({}), as the default profiles of container \
                 engines do",
                name(errno)
            ),
            format!("{ALLOW_IT}, or {LEAVE_IT}"),
        ),
        _ => (
            format!(
                "the kernel forbids io_uring ({}), and it is neither a sysctl nor a seccomp filter",
                name(errno)
            ),
            format!(
                "look for the denial of a security module such as SELinux in the audit log, or \
                 {LEAVE_IT}"
            ),
        ),
    }
}

fn explain_memory(config: &RingConfig, system: &Environment) -> (String, String) {
    let needed = ring_memory(config).div_ceil(1024);
    match system.memlock_that_counts() {
        Some(limit) => (
            format!(
                "the ring needs {needed} KiB of locked memory, RLIMIT_MEMLOCK is {} KiB for all \
                 processes of this user together",
                limit / 1024
            ),
            format!("{RAISE_MEMLOCK} or lower `ring_entries` and `completion_entries`"),
        ),
        None => (
            format!("the kernel has no {needed} KiB of memory for the ring"),
            "raise the memory limit of the control group (memory.max) or lower `ring_entries` and \
             `completion_entries`"
                .into(),
        ),
    }
}

/// How to raise `RLIMIT_MEMLOCK`.
pub(crate) const RAISE_MEMLOCK: &str = "raise it (`ulimit -l`, LimitMEMLOCK= of the systemd unit, \
                                        `--ulimit memlock=` of the container)";

fn name(errno: Errno) -> &'static str {
    if errno == Errno::PERM { "EPERM" } else { "EACCES" }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_for_falling_back_does_not_advise_to_fall_back() {
        for (said, kept) in [
            (format!("forbidden: allow it, or {LEAVE_IT}"), "forbidden: allow it"),
            (format!("it failed: report this, and {LEAVE_IT}"), "it failed: report this"),
            (format!("no memory: {LEAVE_IT}"), "no memory"),
            ("switched off: switch it on".to_owned(), "switched off: switch it on"),
        ] {
            assert_eq!(for_fallback(&said), kept);
        }
    }

    const CONFIG: RingConfig = RingConfig { sq_entries: 256, cq_entries: 1024 };

    /// A kernel that refuses some flags with `EINVAL` and obeys the rules between flags.
    fn kernel_without(
        refused: Flags,
    ) -> impl FnMut(u32, &mut io_uring_params) -> Result<u32, Errno> {
        move |entries, params| {
            let has = |flag| params.flags.contains(flag);
            let defer_alone = has(Flags::DEFER_TASKRUN) && !has(Flags::SINGLE_ISSUER);
            let flag_alone = has(Flags::TASKRUN_FLAG)
                && !params.flags.intersects(Flags::DEFER_TASKRUN | Flags::COOP_TASKRUN);
            if params.flags.intersects(refused) || defer_alone || flag_alone {
                return Err(Errno::INVAL);
            }
            Ok(entries)
        }
    }

    fn granted_by(setup: impl FnMut(u32, &mut io_uring_params) -> Result<u32, Errno>) -> Flags {
        let (entries, params) =
            negotiate(&CONFIG, setup, |_| panic!("nothing to wait for")).unwrap();
        assert_eq!((entries, params.cq_entries), (256, 1024), "the ring has the size asked for");
        params.flags - Flags::CQSIZE
    }

    fn all() -> Flags {
        WANTED.iter().copied().collect()
    }

    #[test]
    fn a_kernel_that_refuses_nothing_is_asked_once() {
        let (mut calls, mut kernel) = (0, kernel_without(Flags::empty()));
        let granted = granted_by(|entries, params| {
            calls += 1;
            kernel(entries, params)
        });
        assert_eq!((granted, calls), (all(), 1));
    }

    #[test]
    fn a_kernel_without_no_sqarray_loses_that_flag_alone_at_the_second_call() {
        let (mut calls, mut kernel) = (0, kernel_without(Flags::NO_SQARRAY));
        let granted = granted_by(|entries, params| {
            calls += 1;
            kernel(entries, params)
        });
        assert_eq!((granted, calls), (all() - Flags::NO_SQARRAY, 2));
    }

    #[test]
    fn each_refused_flag_is_given_up_by_itself() {
        for flag in WANTED {
            // What cannot be had without the flag goes with it, and nothing else.
            let lost =
                if flag == Flags::SINGLE_ISSUER { flag | Flags::DEFER_TASKRUN } else { flag };
            assert_eq!(granted_by(kernel_without(flag)), all() - lost, "without {flag:?}");
        }
        let two = Flags::DEFER_TASKRUN | Flags::NO_SQARRAY;
        assert_eq!(granted_by(kernel_without(two)), all() - two);
        assert_eq!(granted_by(kernel_without(all())), Flags::empty());
    }

    #[test]
    fn a_size_that_the_kernel_refuses_ends_as_einval() {
        let refuse_size = |entries: u32, _: &mut io_uring_params| match entries {
            1 => Ok(()),
            _ => Err(Errno::INVAL),
        };
        let error = negotiate(&CONFIG, refuse_size, |_| {}).unwrap_err();
        assert_eq!(error, Errno::INVAL);
        let text = explain(error, &CONFIG, &Environment::default()).to_string();
        assert!(text.contains("256 submissions") && text.contains("`ring_entries`"), "{text}");
    }

    #[test]
    fn memory_that_is_given_back_late_is_waited_for() {
        let (mut refusals, mut slept) = (5, Duration::ZERO);
        let late = |_: u32, _: &mut io_uring_params| {
            if refusals == 0 {
                return Ok(());
            }
            refusals -= 1;
            Err(Errno::NOMEM)
        };
        negotiate(&CONFIG, late, |pause| slept += pause).unwrap();
        assert_eq!(slept, Duration::from_millis(1 + 2 + 4 + 8 + 16));
    }

    #[test]
    fn memory_that_never_comes_is_waited_for_a_quarter_of_a_second_even_with_flags_refused() {
        let (mut slept, mut calls) = (Duration::ZERO, 0);
        let never = |_: u32, params: &mut io_uring_params| {
            calls += 1;
            let modern = params.flags.contains(Flags::NO_SQARRAY);
            Err::<(), _>(if modern { Errno::INVAL } else { Errno::NOMEM })
        };
        assert_eq!(negotiate(&CONFIG, never, |pause| slept += pause).unwrap_err(), Errno::NOMEM);
        assert_eq!((slept, calls), (Duration::from_millis(250), 2 + PAUSES.len()));
    }

    #[test]
    fn a_refusal_that_is_not_about_flags_is_final() {
        for errno in [Errno::PERM, Errno::NOSYS, Errno::MFILE, Errno::NFILE] {
            let mut calls = 0;
            let refuse = |_: u32, _: &mut io_uring_params| {
                calls += 1;
                Err::<(), _>(errno)
            };
            assert_eq!(negotiate(&CONFIG, refuse, |_| panic!("slept")).unwrap_err(), errno);
            assert_eq!(calls, 1);
        }
    }

    #[test]
    fn every_refusal_names_its_cause_and_its_cure() {
        let plain = Environment { kernel: Some((6, 18)), ..Environment::default() };
        let seccomp = Environment { seccomp: true, ..plain.clone() };
        let off = Environment { disabled: Some(2), ..seccomp.clone() };
        let group = Environment { disabled: Some(1), ..plain.clone() };
        let limits = Environment { memlock: Some(65536), nofile: Some(1024), ..plain.clone() };
        let free = Environment { may_lock: true, ..limits.clone() };
        let older = Environment { kernel: Some((6, 1)), ..limits.clone() };
        let cases: [(Errno, &Environment, &[&str]); 12] = [
            (Errno::PERM, &off, &["kernel.io_uring_disabled is 2", "sysctl -w"]),
            (Errno::PERM, &group, &["kernel.io_uring_group", "sysctl -w"]),
            (Errno::PERM, &seccomp, &["seccomp filter forbids", "--security-opt seccomp="]),
            (Errno::PERM, &plain, &["EPERM", "security module"]),
            (Errno::ACCESS, &plain, &["EACCES", "security module"]),
            (Errno::NOSYS, &seccomp, &["seccomp filter hides", "--security-opt seccomp="]),
            (Errno::NOSYS, &plain, &["CONFIG_IO_URING", "epoll"]),
            (Errno::NOMEM, &limits, &["36 KiB", "RLIMIT_MEMLOCK is 64 KiB", "`ring_entries`"]),
            (Errno::NOMEM, &free, &["36 KiB", "memory.max"]),
            (Errno::NOMEM, &older, &["36 KiB", "memory.max"]),
            (Errno::MFILE, &limits, &["RLIMIT_NOFILE is 1024", "ulimit -n"]),
            (Errno::NFILE, &plain, &["fs.file-max"]),
        ];
        for (errno, system, words) in cases {
            let error = explain(errno, &CONFIG, system);
            assert_eq!(error.errno, Some(errno));
            for word in words {
                assert!(error.to_string().contains(word), "{errno:?}: {error} lacks {word:?}");
            }
        }
    }

    #[test]
    fn a_kernel_older_than_6_1_is_named() {
        let error = check_kernel(Some((5, 15))).unwrap_err();
        assert!(error.reason.starts_with("io_uring needs Linux 6.1, this is 5.15"), "{error}");
        assert!(check_kernel(Some((6, 1))).is_ok());
        assert!(check_kernel(None).is_ok());
    }

    #[test]
    fn release_names_of_distributions_are_understood() {
        for (release, version) in [
            ("6.18.44-cloud", Some((6, 18))),
            ("6.1.0-28-amd64", Some((6, 1))),
            ("5.15.167.4-microsoft-standard-WSL2", Some((5, 15))),
            ("7.0-rc1", Some((7, 0))),
            ("next", None),
            ("6", None),
            ("", None),
        ] {
            assert_eq!(parse_release(release), version, "{release}");
        }
    }
}
