//! What a behaviour is, and the macro that makes rows and tests of a table.

use crate::bench::Bench;
use crate::worlds::Fault;

/// One behaviour.
#[derive(Debug)]
pub struct Behaviour {
    /// What holds, in words.
    pub text: &'static str,
    /// The function's name.
    pub name: &'static str,
    /// The file that it is in.
    pub subject: &'static str,
    /// The tests of older systems that it comes from.
    pub origins: &'static [Origin],
    /// It is about real threads.
    pub threads: bool,
    /// Faults that are left off when it runs on a simulated system with faults.
    pub unbearable: &'static [Fault],
    /// Why they are.
    pub because: &'static str,
    /// Shows it, or panics.
    pub show: fn(&Bench),
}

/// A row of another system's tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Whose.
    pub source: Source,
    /// Its name there.
    pub row: &'static str,
}

/// The older systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Source {
    Aws,
    Reseau,
    ReseauMain,
    Ioxide,
    Libxev,
}

impl Source {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Source::Aws => "aws-c-io",
            Source::Reseau => "Reseau",
            Source::ReseauMain => "Reseau main",
            Source::Ioxide => "ioxide",
            Source::Libxev => "libxev",
        }
    }
}

/// A table of behaviours: `"what holds" => function [Source "row", …]`, then `needs threads` where it is about
/// real threads, or `cannot bear Fault, … because "why"`.
macro_rules! behaviours {
    ($($text:literal => $name:ident [$($source:ident $row:literal),* $(,)?]
        $(needs $need:ident)? $(cannot bear $($fault:ident),+ because $why:literal)?;)+) => {
        pub(crate) const BEHAVIOURS: &[$crate::registry::Behaviour] = &[$(
            $crate::registry::Behaviour {
                text: $text,
                name: stringify!($name),
                subject: module_path!().split_at("pelton_conformance::".len()).1,
                origins: &[$($crate::registry::Origin {
                    source: $crate::registry::Source::$source,
                    row: $row,
                }),*],
                threads: $crate::registry::behaviours!(@threads $($need)?),
                unbearable: &[$($($crate::worlds::Fault::$fault),+)?],
                because: concat!($($why)?),
                show: $name,
            },
        )+];

        #[cfg(all(test, target_os = "linux"))]
        mod io_uring {
            $(#[test] fn $name() {
                $crate::bench::test(super::BEHAVIOURS, stringify!($name), $crate::System::IoUring);
            })+
        }
        #[cfg(all(test, windows))]
        mod iocp {
            $(#[test] fn $name() {
                $crate::bench::test(super::BEHAVIOURS, stringify!($name), $crate::System::Iocp);
            })+
        }
        #[cfg(all(test, target_os = "linux"))]
        mod epoll {
            $(#[test] fn $name() {
                $crate::bench::test(super::BEHAVIOURS, stringify!($name), $crate::System::Epoll);
            })+
        }
        #[cfg(all(test, unix, any(not(target_os = "linux"), pelton_kqueue_elsewhere)))]
        mod kqueue {
            $(#[test] fn $name() {
                $crate::bench::test(super::BEHAVIOURS, stringify!($name), $crate::System::Kqueue);
            })+
        }
        #[cfg(all(test, target_os = "linux"))]
        mod sim {
            mod ring {
                $($crate::registry::behaviours! { @sim SimRing $name $($need)? })+
            }
            mod readiness {
                $($crate::registry::behaviours! { @sim SimReadiness $name $($need)? })+
            }
            mod faults {
                $($crate::registry::behaviours! { @sim SimFaults $name $($need)? })+
            }
            #[cfg(pelton_iocp_elsewhere)]
            mod ports {
                $($crate::registry::behaviours! { @sim SimPorts $name $($need)? })+
            }
            #[cfg(pelton_iocp_elsewhere)]
            mod ports_faults {
                $($crate::registry::behaviours! { @sim SimPortsFaults $name $($need)? })+
            }
        }
    };
    (@threads) => { false };
    (@threads threads) => { true };
    (@sim $system:ident $name:ident threads) => {};
    (@sim $system:ident $name:ident) => {
        #[test]
        fn $name() {
            $crate::bench::test(super::super::BEHAVIOURS, stringify!($name), $crate::System::$system);
        }
    };
}

pub(crate) use behaviours;
