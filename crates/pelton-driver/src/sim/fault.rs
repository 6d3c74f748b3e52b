//! The faults that a world can show, and how often.

use std::fmt;

use super::choices::mix;

macro_rules! faults {
    ($($(#[$doc:meta])+ $name:ident = $label:literal,)+) => {
        /// One kind of fault. Each is something that a real system may do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum Fault {
            $($(#[$doc])+ $name,)+
        }

        impl Fault {
            /// Every fault.
            pub const ALL: &'static [Fault] = &[$(Fault::$name),+];

            /// Its name, in the spelling of stories and of `--faults`.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$name => $label),+ }
            }
        }
    };
}

faults! {
    /// A receive brings fewer bytes than are there.
    ShortReceive = "short-receive",
    /// A send takes fewer bytes than there is room for, also one that was to take all.
    ShortSend = "short-send",
    /// A read from a file, or a write to one, stops early.
    ShortFile = "short-file",
    /// A completion comes later than others that happened after it.
    LateCompletion = "late-completion",
    /// A completion is not seen before the kernel has been entered a few times more.
    Unseen = "unseen",
    /// A cancel comes too late: the operation goes on and ends with what it did.
    CancelTooLate = "cancel-too-late",
    /// A cancel finds nothing though its operation is there: it is between two attempts.
    CancelMissed = "cancel-missed",
    /// An operation ends with `EINTR`.
    Interrupted = "interrupted",
    /// A connection is reset in the middle.
    Reset = "reset",
    /// A connection dies without a word: `ETIMEDOUT`, later.
    Silence = "silence",
    /// There is no way to a host when it is connected to: `EHOSTUNREACH`.
    Unreachable = "unreachable",
    /// An accept fails with `EMFILE`, `ENFILE` or `ENOMEM`.
    AcceptRunsOut = "accept-runs-out",
    /// An accept fails with `ECONNABORTED`.
    AcceptAborted = "accept-aborted",
    /// A receive finds no provided buffer though there is one.
    NoBuffer = "no-buffer",
    /// A multishot operation ends though nothing is wrong.
    MultishotEnds = "multishot-ends",
    /// The kernel takes fewer submissions than there are.
    ShortSubmit = "short-submit",
    /// Entering the kernel fails with `EINTR`.
    EnterInterrupted = "enter-interrupted",
    /// Entering the kernel fails with `EAGAIN`.
    EnterAgain = "enter-again",
    /// Entering the kernel fails with `EBUSY`, because completions have overflowed.
    EnterBusy = "enter-busy",
    /// A wait ends early, with `ETIME` or nothing.
    EnterEarly = "enter-early",
    /// The completion queue is full before its time.
    Overflow = "overflow",
    /// A wake from another reactor comes late.
    WakeLate = "wake-late",
    /// A wake comes twice.
    WakeTwice = "wake-twice",
    /// A reactor is woken for nothing, or told of readiness that is not there.
    WakeSpurious = "wake-spurious",
    /// Something takes much longer on the network.
    Slow = "slow",
    /// A datagram is lost.
    DatagramLost = "datagram-lost",
    /// A datagram comes twice.
    DatagramTwice = "datagram-twice",
    /// A datagram overtakes others.
    DatagramOvertakes = "datagram-overtakes",
    /// A write to a file finds no space: `ENOSPC`.
    NoSpace = "no-space",
    /// A file operation fails with `EIO`.
    IoError = "io-error",
    /// A sync says that it is done and has done nothing.
    LyingSync = "lying-sync",
    /// The clock stands still for a while.
    ClockStall = "clock-stall",
    /// The wall clock jumps.
    WallJump = "wall-jump",
    /// The kernel refuses a ring when a driver is made.
    RingRefused = "ring-refused",
    /// A descriptor number is refused: `EMFILE`, `ENFILE`.
    NoDescriptor = "no-descriptor",
    /// The way between two hosts is lost while they are connected: `EHOSTUNREACH` or `ENETUNREACH`, later.
    WayLost = "way-lost",
    /// A descriptor that a driver itself needs is refused when it is made, that of its ring, its epoll instance
    /// or its wake source: `EMFILE`, `ENFILE` or `ENOMEM`.
    NoDriver = "no-driver",
    /// A call that sets an option of a socket, or asks for an address, fails with `ENOBUFS`. No swarm has it:
    /// hardly a program could begin.
    SocketCall = "socket-call",
}

impl Fault {
    /// True for a fault that no application should notice: one that Pelton must hide, or a delay.
    pub fn is_harmless(self) -> bool {
        use Fault::*;
        !matches!(
            self,
            Reset
                | Silence
                | Unreachable
                | AcceptAborted
                | NoSpace
                | IoError
                | LyingSync
                | DatagramLost
                | DatagramTwice
                | DatagramOvertakes
                | NoDescriptor
                | WayLost
                | NoDriver
                | SocketCall
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each fault comes, in millionths of the occasions for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    rates: [u32; Fault::ALL.len()],
}

impl Faults {
    /// No fault at all.
    pub fn none() -> Faults {
        Faults { rates: [0; Fault::ALL.len()] }
    }

    /// Swarm testing: the seed picks which faults there are, most of them off, and how often each comes, from
    /// one in a thousand to one in three. Faults that an application must expect to lose by (reset
    /// connections, lost hosts, failing disks) are in it too, one in twenty at most: where hardly anything
    /// ever succeeds nothing is tested.
    pub fn swarm(seed: u64) -> Faults {
        let mut faults = Faults::none();
        for fault in Fault::ALL.iter().filter(|fault| **fault != Fault::SocketCall) {
            let random = mix(mix(seed ^ 0x5EED_FA17) ^ *fault as u64);
            if random.is_multiple_of(4) {
                let most = if fault.is_harmless() { 333_333 } else { 50_000 };
                let rates = [1_000, 10_000, 50_000, most];
                faults.rates[*fault as usize] = rates[(random >> 8) as usize % rates.len()];
            }
        }
        faults
    }

    /// Sets a fault's rate, in millionths.
    #[must_use]
    pub fn with(mut self, fault: Fault, rate: u32) -> Faults {
        self.rates[fault as usize] = rate;
        self
    }

    /// Takes faults out.
    #[must_use]
    pub fn without(mut self, faults: &[Fault]) -> Faults {
        for fault in faults {
            self.rates[*fault as usize] = 0;
        }
        self
    }

    /// The faults that no application should notice: whatever Pelton itself must hide, and delays.
    #[must_use]
    pub fn harmless(mut self) -> Faults {
        for fault in Fault::ALL.iter().filter(|fault| !fault.is_harmless()) {
            self.rates[*fault as usize] = 0;
        }
        self
    }

    /// A fault's rate, in millionths.
    pub fn rate(&self, fault: Fault) -> u32 {
        self.rates[fault as usize]
    }
}
