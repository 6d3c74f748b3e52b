//! Which tests the slow checkers run. This is the one place to add to.
//!
//! A row is the arguments of one `cargo test`. A row that runs no test fails, so that a renamed
//! module cannot quietly empty a checker.

/// Under Miri: what needs no system call. The fake kernel completes from user space, late, twice
/// and after a cancel, so the ownership of every slot is exercised without one.
pub(crate) const MIRI: &[&[&str]] = &[
    &[
        "-p",
        "pelton-driver",
        "--features",
        "fake-kernel",
        "--lib",
        "--",
        "fake_tests",
        "timer",
        "latch",
    ],
    &["-p", "pelton", "--lib", "task"],
];

/// Under Miri, on the simulator: the rooms for io_uring and epoll and whole reactors, with memory that crosses
/// the queues of a ring as numbers. So pointers that were exposed as such are allowed here, and nowhere else.
pub(crate) const MIRI_SIMULATED: &[&[&str]] = &[
    &["-p", "pelton-driver", "--features", "sim", "--test", "scripts"],
    &["-p", "pelton-driver", "--features", "sim", "--test", "sim_datagrams"],
    &["-p", "pelton-driver", "--features", "sim", "--test", "sim_own"],
    &["-p", "pelton-driver", "--features", "sim", "--test", "sim_pipes"],
    &["-p", "pelton-driver", "--features", "sim", "--test", "sim_multishot"],
    &["-p", "pelton-driver", "--features", "sim", "--test", "sim_lifetimes"],
    &["-p", "pelton", "--features", "sim", "--test", "sim_memory"],
];

/// Under the sanitizers: everything that runs compiled, against the real kernel. No doctests:
/// rustdoc would compile them without the sanitizer.
pub(crate) const SANITIZED: &[&[&str]] =
    &[&["-p", "pelton-driver", "-p", "pelton", "--all-features", "--tests", "--lib"]];

/// Under loom and under shuttle: the modules that are called so, or `models` where both run them.
pub(crate) const LOOM: &[&[&str]] = &[
    &["-p", "pelton-driver", "--lib", "models"],
    &["-p", "pelton", "--lib", "--", "models", "loom"],
];
pub(crate) const SHUTTLE: &[&[&str]] =
    &[&["-p", "pelton-driver", "--lib", "models"], &["-p", "pelton", "--lib", "models"]];

/// Random scripts on every system, real and simulated, beside a model.
pub(crate) const SCRIPTS: &[&str] = &["-p", "pelton-conformance", "--test", "differential"];
