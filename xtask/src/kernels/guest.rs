//! The first process of the emulated machine: runs each test by itself and tells of it.

/// The line that begins the report: behind it the kernel's release.
pub(super) const BEGINS: &str = "@kernel ";
/// A test's line: its verdict, its milliseconds, its program, its name.
pub(super) const RESULT: &str = "@test ";
/// The line that ends the report.
pub(super) const ENDS: &str = "@end";

/// True in the emulated machine, whose first process this program is.
///
/// The first process finds no `/proc` yet that could tell where its program lies, but the kernel
/// starts it by that name; what is started later, by `#!/init`, finds `/proc`.
pub(crate) fn is_here() -> bool {
    let here = std::path::Path::new("/init");
    let is_first = std::process::id() == 1;
    let started_as = std::env::args_os().next();
    (is_first && started_as.is_some_and(|name| name == here))
        || std::env::current_exe().is_ok_and(|program| program == here)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn run_everything() -> crate::Outcome {
    Err("the machine is a Linux".into())
}

#[cfg(target_os = "linux")]
pub(crate) use linux::run_everything;

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::CString;
    use std::fs;
    use std::io::{self, Read, Seek};
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::{BEGINS, ENDS, RESULT};
    use crate::Outcome;

    /// How long a test may take: what takes a second elsewhere takes half a minute here.
    const CAP: Duration = Duration::from_secs(120);

    /// What an emulated machine of ours cannot show, and why.
    const NOT_HERE: &[(&str, &str)] = &[
        ("a_storm_of_signals", "the processor is too slow to both send and handle that many"),
        ("where_the_page_cache_has_it", "a file in memory cannot be tried without waiting there"),
        (
            "what_is_cached_is_read_without_an_operation",
            "a file in memory cannot be tried without waiting there",
        ),
        (
            "what_is_cached_enters_no_kernel_wait",
            "a file in memory cannot be tried without waiting there",
        ),
        (
            "epoll::each_kind_that_is_cancelled",
            "a Unix socket that is full takes what is sent from a file all the same",
        ),
        ("no_code_reads_a_status", "the sources are not in the machine"),
        ("nothing_asks_for_a_procedure_call", "the sources are not in the machine"),
        ("the_output_of_a_child_is_read", "the machine has no program to start"),
        ("a_child_whose_reactor_has_ended", "the machine has no program to start"),
        (
            "that_end_at_once_do_not_starve",
            "a file in memory cannot be tried without waiting there",
        ),
    ];

    pub(crate) fn run_everything() -> Outcome {
        if std::env::args().any(|word| word == "/proc/self/fd") {
            return list_own_descriptors();
        }

        let prepared = prepare();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        println!("{BEGINS}{}", release.trim());
        if let Err(error) = prepared {
            println!("preparing the machine: {error}");
        }
        let only = fs::read_to_string("/only").unwrap_or_default();
        let mut programs: Vec<_> = fs::read_dir("/t").into_iter().flatten().flatten().collect();
        programs.sort_by_key(fs::DirEntry::file_name);
        for program in programs {
            run_program(&program.path(), &program.file_name().to_string_lossy(), &only);
        }
        println!("{ENDS}");
        // SAFETY: plain calls. The machine ends here, and with it this process.
        unsafe {
            libc::sync();
            libc::reboot(libc::RB_AUTOBOOT);
        }
        Err("the machine did not end".into())
    }

    fn prepare() -> io::Result<()> {
        mount("proc", "/proc")?;
        mount("sysfs", "/sys")?;
        mount("devtmpfs", "/dev")?;
        mount("tmpfs", "/tmp")?;
        fs::create_dir_all("/dev/shm")?;
        raise_loopback()?;
        // As an ordinary login has it.
        let most = libc::rlimit { rlim_cur: 8192, rlim_max: 1 << 20 };
        // SAFETY: a valid limit.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &most) };
        // Some tests ask for more memory than they touch.
        fs::write("/proc/sys/vm/overcommit_memory", "1")?;
        // What some tests start.
        fs::create_dir_all("/bin")?;
        fs::write("/bin/ls", "#!/init\n")?;
        fs::set_permissions("/bin/ls", std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        // SAFETY: no other thread runs yet.
        unsafe {
            std::env::set_var("TMPDIR", "/tmp");
            std::env::set_var("PATH", "/bin");
        }
        Ok(())
    }

    /// `ls -l /proc/self/fd`, as far as the tests read it.
    fn list_own_descriptors() -> Outcome {
        for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            println!("{} -> {}", entry.file_name().display(), target.display());
        }
        Ok(())
    }

    fn mount(kind: &str, at: &str) -> io::Result<()> {
        let (kind, at) = (CString::new(kind)?, CString::new(at)?);
        // SAFETY: strings that end, and no data.
        let done =
            unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn raise_loopback() -> io::Result<()> {
        // SAFETY: zero is a valid request; it is filled and passed by a valid pointer.
        unsafe {
            let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            let mut request: libc::ifreq = std::mem::zeroed();
            for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
                *to = *from as libc::c_char;
            }
            request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
            let done = libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &request);
            let error = io::Error::last_os_error();
            libc::close(socket);
            if done == 0 { Ok(()) } else { Err(error) }
        }
    }

    fn run_program(path: &Path, program: &str, only: &str) {
        let list = Command::new(path).args(["--list", "--format", "terse"]).output();
        let list = match list {
            Ok(list) if list.status.success() => String::from_utf8_lossy(&list.stdout).into_owned(),
            Ok(list) => return println!("{RESULT}failed 0 {program} --list: {}", list.status),
            Err(error) => return println!("{RESULT}failed 0 {program} --list: {error}"),
        };
        for name in list.lines().filter_map(|line| line.strip_suffix(": test")) {
            if !format!("{program} {name}").contains(only) {
                continue;
            }
            let not_here = NOT_HERE.iter().find(|(part, _)| name.contains(part));
            if let Some((_, reason)) = not_here {
                println!("skipped: {name}: {reason}");
                println!("{RESULT}skipped 0 {program} {name}");
                continue;
            }
            let began = Instant::now();
            let (verdict, said) = run_test(path, name);
            if verdict == "failed" {
                println!("{program} {name}:\n{said}");
            }
            println!("{RESULT}{verdict} {} {program} {name}", began.elapsed().as_millis());
        }
    }

    /// Runs one test in a process of its own; what it said goes to a file, so that no pipe fills.
    fn run_test(path: &Path, name: &str) -> (&'static str, String) {
        let run = || -> io::Result<(bool, String)> {
            let mut said = fs::File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open("/tmp/said")?;
            let mut child = Command::new(path)
                .args(["--exact", name, "--nocapture", "--test-threads", "1"])
                .stdin(Stdio::null())
                .stdout(said.try_clone()?)
                .stderr(said.try_clone()?)
                .spawn()?;
            let began = Instant::now();
            let mut late = "";
            let status = loop {
                if let Some(status) = child.try_wait()? {
                    break status;
                }
                if began.elapsed() > CAP {
                    late = "it took too long and was ended";
                    child.kill()?;
                    break child.wait()?;
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            let mut text = Vec::new();
            said.rewind()?;
            said.read_to_end(&mut text)?;
            Ok((status.success(), format!("{}{late}", String::from_utf8_lossy(&text))))
        };
        match run() {
            Ok((true, said)) if said.contains("1 ignored;") || said.contains("\nskipped: ") => {
                ("skipped", said)
            }
            Ok((true, said)) => ("passed", said),
            Ok((false, said)) => ("failed", said),
            Err(error) => ("failed", error.to_string()),
        }
    }
}
