//! What a script may do.

use proptest::prelude::*;

/// An end of one of the two connections: 0 and 1 are one over TCP, 2 and 3 a pair.
pub(crate) type End = usize;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// All of it, or as much as there is room for at once.
    Send {
        end: End,
        len: usize,
        all: bool,
    },
    SendParts {
        end: End,
        one: usize,
        other: usize,
    },
    Receive {
        end: End,
        room: usize,
    },
    Readable(End),
    Writable(End),
    Shutdown(End, std::net::Shutdown),
    Close(End),
    /// One more client of the listener, or of nobody.
    Connect {
        somebody: bool,
    },
    Accept,
    StopListening,
    WriteAt {
        at: usize,
        len: usize,
    },
    ReadAt {
        at: usize,
        len: usize,
    },
    Sync {
        data_only: bool,
    },
    /// Due so many microseconds from now.
    Timeout(u64),
    /// Cancels one of those that are in flight: by a call, or by an operation.
    Cancel {
        which: usize,
        by_operation: bool,
    },
    /// Lets whatever must come to its end do so.
    Settle,
}

/// Scripts that have found a bug, as short as they were when it was known.
pub(crate) fn that_found_something() -> Vec<Vec<Step>> {
    let send = |len| Step::Send { end: 1, len, all: false };
    vec![
        // A cancelled accept swallowed the word of a connection, and the other one was told of nothing.
        vec![
            Step::Accept,
            Step::Accept,
            Step::Cancel { which: 0, by_operation: false },
            Step::Connect { somebody: true },
            Step::Settle,
        ],
        // A full connection that is shut for writing lets a send go that waits for room.
        vec![send(1 << 20), send(1), Step::Shutdown(1, std::net::Shutdown::Write)],
    ]
}

pub(crate) fn script() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..40)
}

fn step() -> impl Strategy<Value = Step> {
    use std::net::Shutdown::{Both, Read, Write};
    let end = || 0..4_usize;
    let how = prop_oneof![4 => Just(Write), 1 => Just(Read), 1 => Just(Both)];
    prop_oneof![
        6 => (end(), 1..5000_usize, any::<bool>())
            .prop_map(|(end, len, all)| Step::Send { end, len, all }),
        // More than there is room for.
        1 => (end(), any::<bool>()).prop_map(|(end, all)| Step::Send { end, len: 1 << 20, all }),
        2 => (end(), 0..900_usize, 1..900_usize)
            .prop_map(|(end, one, other)| Step::SendParts { end, one, other }),
        8 => (end(), 1..6000_usize).prop_map(|(end, room)| Step::Receive { end, room }),
        1 => end().prop_map(Step::Readable),
        1 => end().prop_map(Step::Writable),
        2 => (end(), how).prop_map(|(end, how)| Step::Shutdown(end, how)),
        1 => end().prop_map(Step::Close),
        2 => prop_oneof![3 => Just(true), 1 => Just(false)]
            .prop_map(|somebody| Step::Connect { somebody }),
        2 => Just(Step::Accept),
        1 => Just(Step::StopListening),
        3 => (0..6000_usize, 1..3000_usize).prop_map(|(at, len)| Step::WriteAt { at, len }),
        3 => (0..9000_usize, 1..3000_usize).prop_map(|(at, len)| Step::ReadAt { at, len }),
        1 => any::<bool>().prop_map(|data_only| Step::Sync { data_only }),
        2 => prop_oneof![Just(0), Just(500), Just(3_600_000_000)].prop_map(Step::Timeout),
        4 => (0..8_usize, any::<bool>())
            .prop_map(|(which, by_operation)| Step::Cancel { which, by_operation }),
        5 => Just(Step::Settle),
    ]
}
