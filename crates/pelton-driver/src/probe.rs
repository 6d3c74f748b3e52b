//! What this system lets a driver do, and what to change: for `pelton doctor` and for bug reports.
//!
//! The findings are plain data, gathered once. The advice is worked out from them by `advise`,
//! which asks the system nothing, so that every piece of it can be tested.

use std::fmt;

use crate::config::{Backend, Config, ConfigError};

/// What [`diagnose`] found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The operating system, its release and the machine, as `uname -srm` prints them.
    pub system: String,
    /// The release of the kernel.
    pub kernel: String,
    /// The backend that [`Driver::new`](crate::Driver::new) picks with default settings; `None` when
    /// it fails.
    pub backend: Option<&'static str>,
    /// Why that one, or why none.
    pub backend_reason: String,
    /// The value of `PELTON_BACKEND`, where it is set.
    pub requested: Option<String>,
    /// Whether io_uring works here, and with what.
    pub io_uring: IoUring,
    /// Limits of this process and of the system.
    pub limits: Limits,
    /// The processors that this thread may run on.
    pub cpus: usize,
    /// The same, or fewer where a container's quota does not let it use them all.
    pub usable_cpus: usize,
    /// What to change, the gravest first. Empty when all is well.
    pub advice: Vec<Advice>,
}

/// The state of io_uring.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct IoUring {
    /// Whether a ring of the default size can be created.
    pub works: bool,
    /// The number of the error that the kernel refused it with, where the kernel was asked.
    pub errno: Option<i32>,
    /// Why not.
    pub reason: Option<String>,
    /// What to do about it.
    pub cure: Option<String>,
    /// Each feature that a driver makes use of. Empty when there is no ring.
    pub features: Vec<Feature>,
    /// The kernel memory that a ring of the default size takes, in bytes.
    pub ring_bytes: Option<u64>,
}

/// A feature of the kernel's io_uring.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Feature {
    /// Its name in the kernel, without the prefix.
    pub name: &'static str,
    /// Whether the kernel granted it.
    pub granted: bool,
}

/// Limits that servers run into.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Limits {
    /// `RLIMIT_NOFILE`: how many descriptors this process may have open.
    pub nofile: Limit,
    /// `RLIMIT_MEMLOCK`: how many bytes the processes of this user may lock.
    pub memlock: Limit,
    /// `kernel.io_uring_disabled` (Linux 6.6): 0 for everybody, 1 for a group, 2 for nobody.
    pub io_uring_disabled: Option<u32>,
    /// `net.core.somaxconn`: the longest queue of connections that wait to be accepted.
    pub somaxconn: Option<u32>,
}

/// A resource limit; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limit {
    /// The limit in force.
    pub soft: Option<u64>,
    /// How far this process may raise it by itself.
    pub hard: Option<u64>,
}

/// How much a piece of advice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It does not run like this.
    Error,
    /// It runs, and worse than it could.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    /// The severity in a lower-case word.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Something to change, in a system administrator's words.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Advice {
    /// How much it matters.
    pub severity: Severity,
    /// What is the matter.
    pub what: String,
    /// What to do about it.
    pub do_this: String,
}

/// Looks at the kernel, the container and the limits that this process runs under, and tries what a
/// driver would use. It changes nothing; where memory is short it takes up to a quarter of a second.
///
/// ```
/// let diagnosis = pelton_driver::probe::diagnose();
/// println!("{diagnosis}");
/// if !diagnosis.io_uring.works {
///     eprintln!("io_uring: {}", diagnosis.io_uring.reason.unwrap());
/// }
/// ```
pub fn diagnose() -> Diagnosis {
    let config = Config::default();
    let facts = system::facts(&config);
    let io_uring = system::io_uring(&config);
    let (backend, backend_reason) = choose(config.wanted(), &io_uring);
    let mut diagnosis = Diagnosis {
        backend,
        backend_reason,
        requested: std::env::var_os("PELTON_BACKEND")
            .filter(|name| !name.is_empty())
            .map(|name| name.to_string_lossy().into_owned()),
        io_uring,
        ..facts.diagnosis
    };
    diagnosis.advice = advise(&diagnosis, facts.kernel, facts.ring_memory_limit);
    diagnosis
}

/// What the system says about itself.
struct Facts {
    diagnosis: Diagnosis,
    /// Major and minor version, for what depends on it.
    kernel: Option<(u32, u32)>,
    /// The limit on locked memory, if it limits rings.
    ring_memory_limit: Option<u64>,
}

/// The rule of [`Driver::new`](crate::Driver::new).
fn choose(
    wanted: Result<Backend, ConfigError>,
    io_uring: &IoUring,
) -> (Option<&'static str>, String) {
    let refused = || io_uring.reason.clone().unwrap_or_default();
    match wanted {
        Err(error) => (None, error.to_string()),
        Ok(Backend::IoUring) if io_uring.works => {
            (Some(Backend::IoUring.name()), "PELTON_BACKEND asks for it".into())
        }
        Ok(Backend::IoUring) => {
            (None, format!("PELTON_BACKEND asks for io_uring, and {}", refused()))
        }
        Ok(Backend::Auto) if io_uring.works => {
            (Some(Backend::IoUring.name()), "the best that works here".into())
        }
        Ok(Backend::Auto) if system::USUAL != Backend::Epoll => {
            (Some(system::USUAL.name()), "what this system has".into())
        }
        Ok(Backend::Auto) => (Some(Backend::Epoll.name()), refused()),
        Ok(other) => (Some(other.name()), "PELTON_BACKEND asks for it".into()),
    }
}

fn advise(
    diagnosis: &Diagnosis,
    kernel: Option<(u32, u32)>,
    ring_memory_limit: Option<u64>,
) -> Vec<Advice> {
    let mut all = Vec::new();
    let mut advise = |severity, what: String, do_this: String| {
        all.push(Advice { severity, what, do_this });
    };
    let Diagnosis { io_uring, limits, .. } = diagnosis;

    if diagnosis.backend.is_none() {
        let cure = match (&io_uring.cure, &diagnosis.requested) {
            (Some(cure), Some(name)) if name.parse() == Ok(Backend::IoUring) => cure.clone(),
            _ => "unset PELTON_BACKEND, and the best that works is used".into(),
        };
        advise(Severity::Error, "nothing would run with this PELTON_BACKEND".into(), cure);
    } else if let Some(cure) = &io_uring.cure {
        let severity =
            if diagnosis.requested.is_some() { Severity::Note } else { Severity::Warning };
        let what = "io_uring, which costs fewer system calls than epoll, cannot run here".into();
        // Epoll does the work already.
        advise(severity, what, system::cure_without_epoll(cure));
    }

    let missing = |name| io_uring.features.iter().any(|it| it.name == name && !it.granted);
    if missing("DEFER_TASKRUN") || missing("COOP_TASKRUN") {
        advise(
            Severity::Warning,
            "the kernel interrupts a reactor for every completion (no DEFER_TASKRUN or \
             COOP_TASKRUN), which costs 5 to 10 % of a busy processor and more of a quiet one"
                .into(),
            "boot Linux 6.1 or newer, unmodified; compare with PELTON_BACKEND=epoll".into(),
        );
    }
    if missing("PBUF_RING") {
        advise(
            Severity::Warning,
            "the kernel refuses rings of provided buffers".into(),
            "look for a seccomp filter on io_uring_register, and at RLIMIT_MEMLOCK".into(),
        );
    }
    if let (true, Some(limit), Some(ring)) =
        (io_uring.works, ring_memory_limit, io_uring.ring_bytes)
    {
        let needed = ring * diagnosis.usable_cpus as u64;
        if needed > limit {
            advise(
                Severity::Warning,
                format!(
                    "RLIMIT_MEMLOCK is {} KiB for all processes of this user together: a reactor \
                     on each CPU locks {} KiB",
                    limit / 1024,
                    needed.div_ceil(1024)
                ),
                "raise it (`ulimit -l`, LimitMEMLOCK= of the systemd unit, `--ulimit memlock=` of \
                 the container), or lower `ring_entries` and `completion_entries`"
                    .into(),
            );
        }
    }
    if io_uring.works && kernel.is_some_and(|version| ((6, 5)..(6, 15)).contains(&version)) {
        advise(
            Severity::Note,
            "this kernel shows a reactor that waits for its peers as iowait in `top`: that time \
             is idle time"
                .into(),
            "leave iowait out of alerts; Linux 6.15 accounts it as idle".into(),
        );
    }
    if let Some(soft) = limits.nofile.soft.filter(|soft| *soft < 4096) {
        let what = format!("RLIMIT_NOFILE is {soft}: each connection takes a descriptor");
        match limits.nofile.hard {
            Some(hard) if hard < 4096 => advise(
                Severity::Warning,
                what,
                "raise the hard limit too (LimitNOFILE= of the systemd unit, `--ulimit nofile=` of \
                 the container)"
                    .into(),
            ),
            hard => {
                let hard = hard.unwrap_or(65536);
                advise(
                    Severity::Note,
                    what,
                    format!(
                        "`pelton serve` raises it to the hard limit by itself; for another program, \
                         raise it (`ulimit -n {hard}`, LimitNOFILE=)"
                    ),
                );
            }
        }
    }
    if let Some(somaxconn) = limits.somaxconn.filter(|length| *length < 1024) {
        advise(
            Severity::Note,
            format!("net.core.somaxconn is {somaxconn}: a burst of connections is cut off there"),
            "`sysctl -w net.core.somaxconn=4096`".into(),
        );
    }
    if diagnosis.usable_cpus < diagnosis.cpus {
        advise(
            Severity::Note,
            format!(
                "the container's quota is worth {} of {} CPUs: more reactors than that are \
                 throttled, all at once",
                diagnosis.usable_cpus, diagnosis.cpus
            ),
            format!("run {} reactors, or raise cpu.max", diagnosis.usable_cpus),
        );
    }
    all.sort_by_key(|advice| advice.severity);
    all
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "system    {}, CPUs: {}", self.system, self.cpus)?;
        if self.usable_cpus < self.cpus {
            writeln!(f, "          {} of them by quota", self.usable_cpus)?;
        }
        writeln!(f, "backend   {}: {}", self.backend.unwrap_or("none"), self.backend_reason)?;
        if let Some(name) = &self.requested {
            writeln!(f, "          PELTON_BACKEND is {name:?}")?;
        }
        match &self.io_uring.reason {
            // The line above has said it.
            Some(reason) if self.backend_reason.contains(reason) => writeln!(f, "io_uring  no")?,
            Some(reason) => writeln!(f, "io_uring  no: {reason}")?,
            None => writeln!(f, "io_uring  works, {} KiB each ring", self.io_uring.ring_kib())?,
        }
        for (title, granted) in [("granted", true), ("missing", false)] {
            let features = self.io_uring.features.iter();
            let mut names = features.filter(|it| it.granted == granted).peekable();
            if names.peek().is_some() {
                write!(f, "  {title}")?;
                names.try_for_each(|feature| write!(f, " {}", feature.name))?;
                writeln!(f)?;
            }
        }
        let Limits { nofile, memlock, io_uring_disabled, somaxconn } = &self.limits;
        writeln!(f, "limits    open files {}, at most {}", Count(nofile.soft), Count(nofile.hard))?;
        let kib = |bytes: Option<u64>| Count(bytes.map(|bytes| bytes / 1024));
        let (soft, hard) = (kib(memlock.soft), kib(memlock.hard));
        writeln!(f, "          locked memory {soft} KiB, at most {hard}")?;
        if let Some(length) = somaxconn {
            writeln!(f, "          net.core.somaxconn {length}")?;
        }
        if let Some(value) = io_uring_disabled {
            writeln!(f, "          kernel.io_uring_disabled {value}")?;
        }
        for Advice { severity, what, do_this } in &self.advice {
            write!(f, "\n{severity}: {what}\n  do this: {do_this}\n")?;
        }
        Ok(())
    }
}

impl IoUring {
    fn ring_kib(&self) -> u64 {
        self.ring_bytes.unwrap_or_default().div_ceil(1024)
    }
}

/// A number that may be absent, which means that there is no limit.
struct Count(Option<u64>);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "{number}"),
            None => f.write_str("unlimited"),
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;
    use std::str::FromStr;

    use rustix::process::{Resource, getrlimit};
    use rustix::system::uname;

    use super::{Config, Diagnosis, Facts, Feature, IoUring, Limit, Limits};
    use crate::sys::uring::ring::{Ring, RingConfig};
    use crate::sys::uring::setup::{Environment, LEAVE_IT, ring_memory};

    /// What runs where io_uring does not.
    pub(super) const USUAL: super::Backend = super::Backend::Epoll;

    pub(super) fn facts(_: &Config) -> Facts {
        let environment = Environment::read();
        let name = uname();
        let kernel = name.release().to_string_lossy().into_owned();
        let (system, machine) =
            (name.sysname().to_string_lossy(), name.machine().to_string_lossy());
        let usable_cpus = std::thread::available_parallelism().map_or(1, usize::from);
        // A machine with more processors than the set has room for answers with an error.
        let allowed = rustix::thread::sched_getaffinity(None).map(|set| set.count() as usize);
        let diagnosis = Diagnosis {
            system: format!("{system} {kernel} {machine}"),
            kernel,
            limits: Limits {
                nofile: limit(Resource::Nofile),
                memlock: limit(Resource::Memlock),
                io_uring_disabled: environment.disabled,
                somaxconn: read("/proc/sys/net/core/somaxconn"),
            },
            cpus: allowed.unwrap_or(usable_cpus).max(usable_cpus),
            usable_cpus,
            ..Diagnosis::default()
        };
        let ring_memory_limit = environment.memlock_that_counts();
        Facts { diagnosis, kernel: environment.kernel, ring_memory_limit }
    }

    pub(super) fn io_uring(config: &Config) -> IoUring {
        let config =
            RingConfig { sq_entries: config.ring_entries, cq_entries: config.completion_entries };
        let ring_bytes = Some(ring_memory(&config));
        match Ring::create(&config) {
            Ok(ring) => {
                let features = ring.features().named();
                let features = features.map(|(name, granted)| Feature { name, granted }).into();
                IoUring { works: true, features, ring_bytes, ..IoUring::default() }
            }
            Err(error) => IoUring {
                errno: error.errno.map(|errno| errno.raw_os_error()),
                reason: Some(error.reason),
                cure: Some(error.cure),
                ring_bytes,
                ..IoUring::default()
            },
        }
    }

    /// A cure, without the advice to let epoll do the work.
    pub(super) fn cure_without_epoll(cure: &str) -> String {
        let cure = cure.strip_suffix(LEAVE_IT).unwrap_or(cure);
        cure.trim_end_matches(", or ").trim_end_matches(", and ").to_owned()
    }

    fn limit(resource: Resource) -> Limit {
        let limit = getrlimit(resource);
        Limit { soft: limit.current, hard: limit.maximum }
    }

    fn read<T: FromStr>(path: &str) -> Option<T> {
        fs::read_to_string(path).ok()?.trim().parse().ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{Backend, Config, Diagnosis, Facts, IoUring};

    /// What runs here.
    pub(super) const USUAL: Backend = if cfg!(windows) { Backend::Iocp } else { Backend::Kqueue };

    pub(super) fn facts(_: &Config) -> Facts {
        let usable_cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let diagnosis = Diagnosis {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            cpus: usable_cpus,
            usable_cpus,
            ..Diagnosis::default()
        };
        Facts { diagnosis, kernel: None, ring_memory_limit: None }
    }

    pub(super) fn io_uring(_: &Config) -> IoUring {
        // Without a cure there is no advice: nothing is the matter.
        IoUring { reason: Some("only Linux has io_uring".into()), ..IoUring::default() }
    }

    pub(super) fn cure_without_epoll(cure: &str) -> String {
        cure.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> IoUring {
        let granted = |name| Feature { name, granted: true };
        IoUring {
            works: true,
            features: vec![granted("DEFER_TASKRUN"), granted("COOP_TASKRUN")],
            ring_bytes: Some(200 << 10),
            ..IoUring::default()
        }
    }

    fn no_ring() -> IoUring {
        let text = |text: &str| Some(text.to_owned());
        IoUring { reason: text("it is off"), cure: text("switch it on"), ..IoUring::default() }
    }

    /// A system where all is well.
    fn well() -> Diagnosis {
        let (backend, backend_reason) = choose(Ok(Backend::Auto), &ring());
        let nofile = Limit { soft: Some(65536), hard: Some(65536) };
        Diagnosis {
            backend,
            backend_reason,
            io_uring: ring(),
            limits: Limits { nofile, somaxconn: Some(4096), ..Limits::default() },
            cpus: 4,
            usable_cpus: 4,
            ..Diagnosis::default()
        }
    }

    /// The only piece of advice for a system.
    fn only(diagnosis: &Diagnosis, limit: Option<u64>) -> (Severity, String) {
        let advice = advise(diagnosis, Some((6, 18)), limit);
        let [advice] = &advice[..] else { panic!("one piece of advice: {advice:#?}") };
        (advice.severity, format!("{} | {}", advice.what, advice.do_this))
    }

    #[test]
    fn a_system_where_all_is_well_gets_no_advice() {
        assert!(advise(&well(), Some((6, 18)), None).is_empty());
        assert!(advise(&well(), None, Some(4 * (200 << 10))).is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn io_uring_is_used_where_it_works_and_epoll_where_it_does_not() {
        assert_eq!(choose(Ok(Backend::Auto), &ring()).0, Some("io_uring"));
        assert_eq!(choose(Ok(Backend::Auto), &no_ring()), (Some("epoll"), "it is off".into()));
        assert_eq!(choose(Ok(Backend::Epoll), &ring()).0, Some("epoll"));
        let (backend, reason) = choose(Ok(Backend::IoUring), &no_ring());
        assert_eq!((backend, reason.contains("it is off")), (None, true));
        let (backend, reason) = choose("eepoll".parse(), &ring());
        assert_eq!((backend, reason.contains("eepoll")), (None, true));
    }

    #[test]
    fn a_refusal_is_a_warning_that_says_how_to_lift_it() {
        let (backend, backend_reason) = choose(Ok(Backend::Auto), &no_ring());
        let mut found = Diagnosis { backend, backend_reason, io_uring: no_ring(), ..well() };
        let (severity, text) = only(&found, None);
        assert_eq!(severity, Severity::Warning);
        assert!(text.ends_with("cannot run here | switch it on"), "{text}");
        found.requested = Some("epoll".into());
        assert_eq!(only(&found, None).0, Severity::Note, "epoll was asked for");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_reason_is_said_once_and_nobody_is_told_to_do_what_is_done_already() {
        use crate::sys::uring::setup::{Environment, LEAVE_IT, check_kernel, explain};
        let sizes = crate::sys::uring::ring::RingConfig { sq_entries: 64, cq_entries: 128 };
        let seccomp = Environment { seccomp: true, ..Environment::default() };
        let refusals = [
            rustix::io::Errno::PERM,
            rustix::io::Errno::ACCESS,
            rustix::io::Errno::NOSYS,
            rustix::io::Errno::NOMEM,
            rustix::io::Errno::MFILE,
            rustix::io::Errno::NFILE,
            rustix::io::Errno::INVAL,
            rustix::io::Errno::IO,
        ];
        let refusals = refusals.into_iter().flat_map(|errno| {
            [&seccomp, &Environment::default()].map(|system| explain(errno, &sizes, system))
        });
        let refusals: Vec<_> = refusals.chain(check_kernel(Some((5, 4))).err()).collect();
        assert_eq!(refusals.len(), 2 * 8 + 1);
        for refusal in refusals {
            let io_uring = IoUring {
                reason: Some(refusal.reason.clone()),
                cure: Some(refusal.cure.clone()),
                ..IoUring::default()
            };
            for wanted in [Backend::Auto, Backend::Epoll, Backend::IoUring] {
                let (backend, backend_reason) = choose(Ok(wanted), &io_uring);
                let requested = (wanted != Backend::Auto).then(|| wanted.name().to_owned());
                let (io_uring, runs) = (io_uring.clone(), backend.is_some());
                let mut found =
                    Diagnosis { backend, backend_reason, requested, io_uring, ..well() };
                found.advice = advise(&found, Some((6, 18)), None);
                let text = found.to_string();
                assert_eq!(text.matches(&refusal.reason).count(), 1, "{text}");
                assert_eq!(found.advice.len(), 1, "{text}");
                let cure = &found.advice[0].do_this;
                if runs {
                    assert!(!cure.is_empty() && !cure.contains("epoll"), "{text}");
                    assert!(refusal.cure.starts_with(cure), "{text}");
                    let cut = [",", " or", " and"].iter().any(|end| cure.ends_with(end));
                    assert!(!cut, "{text}");
                } else if refusal.cure.contains(LEAVE_IT) {
                    assert!(cure.contains(LEAVE_IT), "that is a way out: {text}");
                }
            }
        }
    }

    #[test]
    fn a_backend_that_was_asked_for_and_cannot_run_is_an_error() {
        let (backend, backend_reason) = choose(Ok(Backend::IoUring), &no_ring());
        let requested = Some("io_uring".into());
        let found = Diagnosis { backend, backend_reason, requested, io_uring: no_ring(), ..well() };
        let (severity, text) = only(&found, None);
        assert_eq!(severity, Severity::Error);
        assert!(text.ends_with("PELTON_BACKEND | switch it on"), "{text}");
        assert!(
            found.to_string().contains("none: PELTON_BACKEND asks for io_uring, and it is off")
        );

        let (backend, backend_reason) = choose("eepoll".parse(), &ring());
        let found =
            Diagnosis { backend, backend_reason, requested: Some("eepoll".into()), ..well() };
        let (severity, text) = only(&found, None);
        assert_eq!(severity, Severity::Error);
        assert!(text.contains("unset PELTON_BACKEND"), "{text}");
        assert!(found.to_string().contains("\"eepoll\" is no backend"));
    }

    #[test]
    fn limits_that_are_too_low_are_named_with_their_cure() {
        let (severity, text) = only(&well(), Some(700 << 10));
        assert_eq!(severity, Severity::Warning);
        for word in ["RLIMIT_MEMLOCK is 700 KiB", "locks 800 KiB", "ulimit -l"] {
            assert!(text.contains(word), "{text}");
        }
        for (hard, severity, cure) in [
            // `serve` does that by itself.
            (Some(9000), Severity::Note, "ulimit -n 9000"),
            (None, Severity::Note, "ulimit -n 65536"),
            (Some(1024), Severity::Warning, "hard limit too"),
        ] {
            let mut found = well();
            found.limits.nofile = Limit { soft: Some(1024), hard };
            let (found, text) = only(&found, None);
            assert_eq!(found, severity, "{text}");
            assert!(text.contains("RLIMIT_NOFILE is 1024") && text.contains(cure), "{text}");
        }
        let mut found = well();
        found.limits.somaxconn = Some(128);
        assert!(only(&found, None).1.contains("somaxconn=4096"));
        let found = Diagnosis { usable_cpus: 2, ..well() };
        assert!(only(&found, None).1.contains("2 of 4 CPUs"));
    }

    #[test]
    fn idle_time_that_looks_like_waiting_for_disks_is_explained() {
        for (version, notes) in [((6, 4), 0), ((6, 5), 1), ((6, 14), 1), ((6, 15), 0)] {
            assert_eq!(advise(&well(), Some(version), None).len(), notes, "{version:?}");
        }
    }

    #[test]
    fn a_missing_feature_that_costs_time_is_a_warning() {
        let mut found = well();
        found.io_uring.features[0].granted = false;
        assert!(only(&found, None).1.contains("DEFER_TASKRUN"));
    }

    #[test]
    fn the_gravest_advice_comes_first() {
        let mut found = well();
        found.limits = Limits {
            nofile: Limit { soft: Some(64), hard: Some(64) },
            somaxconn: Some(5),
            ..Limits::default()
        };
        found.backend = None;
        let severities = advise(&found, None, None).into_iter().map(|it| it.severity);
        let expected = [Severity::Error, Severity::Warning, Severity::Note];
        assert!(severities.eq(expected));
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn this_system_is_described_in_words() {
        let found = diagnose();
        let text = found.to_string();
        assert!(found.cpus >= found.usable_cpus && found.usable_cpus > 0);
        assert_eq!(found.io_uring.works, found.io_uring.reason.is_none());
        for line in ["system    ", "backend   ", "io_uring  ", "limits    "] {
            assert!(text.lines().any(|it| it.starts_with(line)), "{text}");
        }
        assert!(text.contains(&found.system) && text.contains(&found.backend_reason));
    }
}
