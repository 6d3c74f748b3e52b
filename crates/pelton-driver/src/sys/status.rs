//! What the status of a completion means: from the words of the Windows kernel to the numbers of Winsock and
//! of the system, and from those to one [kind](std::io::Error::kind) on every platform.
//!
//! Plain data, which is tested wherever the tests run. Wine never comes to most of it.

use super::numbers as n;

/// A status of the kernel's (`NTSTATUS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u32);

impl Status {
    pub(crate) const SUCCESS: Status = Status(0);
    pub(crate) const PENDING: Status = Status(0x0000_0103);
    pub(crate) const BUFFER_OVERFLOW: Status = Status(0x8000_0005);
    pub(crate) const END_OF_FILE: Status = Status(0xC000_0011);
    pub(crate) const CANCELLED: Status = Status(0xC000_0120);

    /// True for successes and information; a warning is none.
    pub(crate) fn is_success(self) -> bool {
        self.0 & 0x8000_0000 == 0
    }

    /// True for an operation that was cancelled, on a socket or elsewhere.
    pub(crate) fn is_cancelled(self) -> bool {
        // The request was aborted; or its handle was closed under it, as Wine says that.
        self == Status::CANCELLED || matches!(self.0, 0xC000_0240 | 0x8000_000A)
    }

    /// The error of a socket, as Winsock numbers it. 0 for a success.
    pub(crate) fn socket_error(self) -> i32 {
        if self.is_success() {
            return 0;
        }
        if self.is_cancelled() {
            return ECANCELED;
        }
        match self.0 {
            // No handle; of another type.
            0xC000_0008 | 0xC000_0024 => n::ENOTSOCK,
            // Resources, quotas, memory.
            0xC000_009A | 0xC000_012C | 0xC000_012D | 0xC000_00A1 | 0xC000_0017 | 0xC000_0044
            | 0xC000_0097 | 0xC000_013D => n::ENOBUFS,
            // The address is taken.
            0xC000_0209 | 0xC000_0043 | 0xC000_020A => n::WSAEADDRINUSE,
            // Too slow.
            0xC000_00B5 | 0xC000_013F => n::WSAETIMEDOUT,
            // The peer has gone, in order or not; a datagram could not be delivered.
            0xC000_0237 => n::WSAEDISCON,
            0xC000_013C | 0xC000_020D | 0xC000_013E | 0xC000_020C | 0xC000_023F | 0xC000_A012 => {
                n::ECONNRESET
            }
            // This end has given up.
            0xC000_013B | 0xC000_020F | 0xC000_0241 => n::ECONNABORTED,
            0xC000_00BE | 0xC000_023C | 0xC000_023E => n::WSAENETUNREACH,
            0xC000_023D => n::WSAEHOSTUNREACH,
            // Longer than its buffer.
            0x8000_0005 | 0xC000_0206 => n::EMSGSIZE,
            0xC000_0023 | 0xC000_0005 => n::WSAEFAULT,
            0xC000_00A3 | 0xC000_00D0 => n::EAGAIN,
            0xC000_00C3 | 0xC000_00BF | 0xC000_000E | 0xC000_000F | 0xC000_003A | 0xC000_0034
            | 0xC000_00C4 => n::WSAENETDOWN,
            0xC000_0140 => n::ENOTCONN,
            // Nobody listens there.
            0xC000_00BC | 0xC000_0236 => n::ECONNREFUSED,
            0xC000_00B0 => n::WSAESHUTDOWN,
            0xC000_0018 | 0xC000_0141 | 0xC000_0207 => n::WSAEADDRNOTAVAIL,
            0xC000_00BB | 0xC000_0002 => n::EOPNOTSUPP,
            0xC000_0022 => n::WSAEACCES,
            // The number of a Windows error, in a status.
            wrapped if wrapped >> 16 == 0xC007 => (wrapped & 0xFFFF) as i32,
            _ => n::WSAEINVAL,
        }
    }

    /// The error of a file or a pipe, as the system numbers it; none where this does not know it, and
    /// `RtlNtStatusToDosError` is to be asked.
    pub(crate) fn file_error(self) -> Option<i32> {
        if self.is_success() {
            return Some(0);
        }
        if self.is_cancelled() {
            return Some(ECANCELED);
        }
        Some(match self.0 {
            0xC000_0011 => n::HANDLE_EOF,          // the end of the file
            0xC000_0008 => n::EBADF,               // no handle
            0xC000_000D => n::EINVAL,              // a wrong argument
            0xC000_0022 => n::ACCESS_DENIED,       // access denied
            0xC000_0043 => n::SHARING_VIOLATION,   // shared with somebody who does not
            0xC000_0054 => n::LOCK_VIOLATION,      // locked
            0xC000_007F => n::DISK_FULL,           // the disk is full
            0xC000_009A => n::NO_SYSTEM_RESOURCES, // resources
            0xC000_014B => n::BROKEN_PIPE,         // the pipe is broken
            0xC000_00B0 => n::PIPE_NOT_CONNECTED,  // nobody at the other end
            0xC000_00B1 => n::EPIPE,               // the other end is closing
            0xC000_00AD => n::BAD_PIPE,            // the pipe is not in a state for that
            0xC000_00AE => n::PIPE_BUSY,           // all instances of the pipe have clients
            0xC000_00B2 => n::PIPE_CONNECTED,      // the client was faster
            0xC000_00B3 => n::PIPE_LISTENING,      // there is no client yet
            0x8000_0005 => n::MORE_DATA,           // more of the message is to come
            wrapped if wrapped >> 16 == 0xC007 => (wrapped & 0xFFFF) as i32,
            _ => return None,
        })
    }
}

/// `ERROR_CANCELLED`: what the driver says of a cancelled operation, whatever the system said.
pub(crate) const ECANCELED: i32 = n::ECANCELED;

/// What a send that has failed says: that this end was shut down, or was never connected, is a broken pipe
/// elsewhere.
pub(crate) fn of_send(error: i32) -> i32 {
    if matches!(error, n::ENOTCONN | n::WSAESHUTDOWN) { n::EPIPE } else { error }
}

/// What a stream says that has ended badly: a reset is told once, and then it is over. `was_told` is what has been
/// told so far.
pub(crate) fn of_reset(result: i32, sends: bool, was_told: &std::cell::Cell<bool>) -> i32 {
    if !matches!(-result, n::ECONNRESET | n::ECONNABORTED) {
        return result;
    }
    match was_told.replace(true) {
        false => result,
        true if sends => -n::EPIPE,
        true => 0,
    }
}

/// What a receive that has failed comes to, a result: where this end was shut down it is the end of the stream,
/// and a datagram that was cut short is what there was room for.
pub(crate) fn of_recv(error: i32, bytes: usize) -> i32 {
    match error {
        0 | n::EMSGSIZE => i32::try_from(bytes).unwrap_or(i32::MAX),
        n::WSAESHUTDOWN | n::WSAEDISCON => 0,
        error => -error,
    }
}

/// What a transfer that has failed says: that the handle is not open for it is no question of rights.
pub(crate) fn of_file(error: i32) -> i32 {
    if error == n::ACCESS_DENIED { n::EBADF } else { error }
}

/// What a read of a file comes to, a result: the end of the file is no error.
pub(crate) fn of_read(error: i32, bytes: usize) -> i32 {
    match error {
        0 | n::MORE_DATA => i32::try_from(bytes).unwrap_or(i32::MAX),
        n::HANDLE_EOF => 0,
        error => -error,
    }
}

/// What a read from a pipe comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PipeRead {
    /// So many bytes: all of a message, where there are messages.
    Bytes(i32),
    /// So many bytes, and there are more of that message.
    Part(i32),
    /// A message of no bytes; or somebody has written nothing to a pipe of bytes, which wakes who reads it.
    Nothing,
    /// Nobody writes any more.
    End,
    Failed(i32),
}

/// What a read from a pipe that has ended comes to. An end that has no client, yet or any more, is not connected.
pub(crate) fn of_pipe_read(error: i32, bytes: usize) -> PipeRead {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    match error {
        0 if bytes == 0 => PipeRead::Nothing,
        0 => PipeRead::Bytes(bytes),
        n::MORE_DATA => PipeRead::Part(bytes),
        n::BROKEN_PIPE => PipeRead::End,
        n::BAD_PIPE | n::PIPE_NOT_CONNECTED | n::PIPE_LISTENING => PipeRead::Failed(n::ENOTCONN),
        error => PipeRead::Failed(of_file(error)),
    }
}

/// What a write to a pipe that has failed says: a client that has gone, or a server that has ended the connection,
/// is a broken pipe, and one that has not come yet is not.
pub(crate) fn of_pipe_write(error: i32) -> i32 {
    match error {
        n::BROKEN_PIPE | n::EPIPE | n::PIPE_NOT_CONNECTED => n::EPIPE,
        n::BAD_PIPE | n::PIPE_LISTENING => n::ENOTCONN,
        error => of_file(error),
    }
}

/// What waiting for the client of a pipe that has failed at once says, a result. A client that is there already is
/// what was waited for, and so is one that has gone again: what it wrote is still to be read.
pub(crate) fn of_pipe_connect(error: i32) -> i32 {
    if matches!(error, n::PIPE_CONNECTED | n::EPIPE) { 0 } else { -error }
}

/// How an overlapped call went that has just returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Began {
    /// It posts a packet, or has posted one: its memory is the kernel's until that has come.
    Posts,
    /// It has ended well, and posts none.
    Ended,
    /// It has failed with this error, and posts none.
    Failed(i32),
}

impl Began {
    /// What the return of an overlapped call says: `ok` that it succeeded at once, `error` what was wrong
    /// otherwise, and `skips` that successes of the handle that come at once post no packet.
    ///
    /// The kernel posts for everything that is no error to it. A message that is longer than its buffer is a
    /// warning there, so that call fails and posts.
    pub(crate) fn of(ok: bool, error: i32, skips: bool) -> Began {
        use n::{IO_PENDING, MORE_DATA};
        match error {
            _ if ok => {
                if skips {
                    Began::Ended
                } else {
                    Began::Posts
                }
            }
            IO_PENDING | MORE_DATA => Began::Posts,
            n::OPERATION_ABORTED => Began::Failed(ECANCELED),
            error => Began::Failed(error),
        }
    }
}

// In builds for tests elsewhere the errors have other numbers.
#[cfg(all(test, not(any(loom, shuttle, pelton_iocp_elsewhere))))]
mod tests {
    use super::*;

    #[test]
    fn a_success_at_once_posts_unless_the_handle_skips_that() {
        assert_eq!(Began::of(true, 0, false), Began::Posts);
        assert_eq!(Began::of(true, 0, true), Began::Ended);
        // Whatever the last error of the thread still says.
        assert_eq!(Began::of(true, 997, true), Began::Ended);
    }

    #[test]
    fn a_call_that_is_pending_posts_and_so_does_one_that_has_more_data() {
        for skips in [false, true] {
            assert_eq!(Began::of(false, 997, skips), Began::Posts);
            assert_eq!(Began::of(false, 234, skips), Began::Posts);
            assert_eq!(Began::of(false, 10054, skips), Began::Failed(10054));
            assert_eq!(Began::of(false, 995, skips), Began::Failed(ECANCELED));
        }
    }

    #[test]
    fn the_states_of_a_connection_have_the_errors_of_winsock() {
        for (status, error) in [
            (0, 0),
            (0x103, 0),
            (0xC000_0120, ECANCELED),
            (0xC000_020D, 10054),
            (0xC000_0236, 10061),
            (0xC000_0241, 10053),
            (0xC000_0140, 10057),
            (0xC000_00B5, 10060),
            (0xC000_023C, 10051),
            (0xC000_023D, 10065),
            (0x8000_0005, 10040),
            (0x8000_000A, ECANCELED),
            (0xC000_0017, 10055),
            (0xC007_274C, 10060),
            (0xC0FF_EE00, 10022),
        ] {
            assert_eq!(Status(status).socket_error(), error, "{status:#x}");
        }
    }

    #[test]
    fn files_and_pipes_have_the_errors_of_the_system() {
        for (status, error) in [
            (0, Some(0)),
            (0x10C, Some(0)),
            (0xC000_0011, Some(38)),
            (0xC000_0120, Some(ECANCELED)),
            (0xC000_014B, Some(109)),
            (0xC000_00B1, Some(232)),
            (0x8000_0005, Some(234)),
            (0xC000_007F, Some(112)),
            (0xC0FF_EE00, None),
        ] {
            assert_eq!(Status(status).file_error(), error, "{status:#x}");
        }
    }

    #[test]
    fn the_end_of_a_file_is_no_bytes_and_no_error() {
        assert_eq!(of_read(Status::END_OF_FILE.file_error().unwrap(), 0), 0);
        assert_eq!((of_read(0, 7), of_read(5, 0)), (7, -5));
    }

    #[test]
    fn a_datagram_that_is_cut_short_is_what_there_was_room_for() {
        assert_eq!(of_recv(Status::BUFFER_OVERFLOW.socket_error(), 4), 4);
        assert_eq!((of_recv(10058, 0), of_recv(10054, 0)), (0, -10054));
    }

    #[test]
    fn a_send_on_a_direction_that_is_shut_down_is_a_broken_pipe() {
        assert_eq!((of_send(10058), of_send(10057), of_send(10054)), (232, 232, 10054));
    }

    #[test]
    fn a_part_of_a_message_is_no_error_and_the_end_of_a_pipe_neither() {
        let read = |status: u32, bytes| of_pipe_read(Status(status).file_error().unwrap(), bytes);
        for (status, bytes, told) in [
            (0, 7, PipeRead::Bytes(7)),
            (0, 0, PipeRead::Nothing),
            (0x8000_0005, 7, PipeRead::Part(7)),
            (0x8000_0005, 0, PipeRead::Part(0)),
            (0xC000_014B, 0, PipeRead::End),
            (0xC000_00B0, 0, PipeRead::Failed(10057)),
            (0xC000_00B3, 0, PipeRead::Failed(10057)),
            (0xC000_0120, 0, PipeRead::Failed(ECANCELED)),
            (0xC000_0022, 0, PipeRead::Failed(6)),
        ] {
            assert_eq!(read(status, bytes), told, "{status:#x}");
        }
    }

    #[test]
    fn a_write_to_whoever_has_gone_is_a_broken_pipe() {
        let write = |status: u32| of_pipe_write(Status(status).file_error().unwrap());
        assert_eq!([0xC000_014B, 0xC000_00B1, 0xC000_00B0].map(write), [232; 3]);
        assert_eq!((write(0xC000_00B3), write(0xC000_0120)), (10057, ECANCELED));
    }

    #[test]
    fn a_client_that_is_there_already_or_has_gone_again_was_waited_for() {
        // Both fail at once, and post no packet.
        assert_eq!(Began::of(false, 535, false), Began::Failed(535));
        assert_eq!(Began::of(false, 232, false), Began::Failed(232));
        assert_eq!([535, 232, 87, ECANCELED].map(of_pipe_connect), [0, 0, -87, -ECANCELED]);
    }

    #[test]
    fn a_reset_is_told_once_and_then_the_stream_is_over() {
        let told = std::cell::Cell::new(false);
        assert_eq!((of_reset(7, true, &told), of_reset(-10057, false, &told)), (7, -10057));
        assert_eq!(of_reset(-10054, false, &told), -10054);
        assert_eq!(of_reset(-10053, false, &told), 0);
        assert_eq!(of_reset(-10054, true, &told), -232);
    }

    #[test]
    fn a_status_that_is_still_pending_is_no_error_and_no_end() {
        assert!(Status::PENDING.is_success() && Status::SUCCESS.is_success());
        assert_ne!(Status::PENDING, Status::SUCCESS);
    }
}
