//! The numbers of errors that rooms give by themselves, as [`io::Error::raw_os_error`](std::io::Error::raw_os_error)
//! has them on this system: under the names of Unix, the numbers of Windows, chosen so that the
//! [kind](std::io::Error::kind) of each is the same everywhere.

/// There are no addresses of that family: `WSAEAFNOSUPPORT`.
pub const EAFNOSUPPORT: i32 = 10047;
/// Nothing is ready: `WSAEWOULDBLOCK`.
pub const EAGAIN: i32 = 10035;
/// It has begun already: `WSAEALREADY`.
pub const EALREADY: i32 = 10037;
/// There is no such descriptor: `ERROR_INVALID_HANDLE`.
pub const EBADF: i32 = 6;
/// The operation was cancelled: `ERROR_CANCELLED`. Not the `ERROR_OPERATION_ABORTED` that the system itself
/// says, which the standard library takes for a timeout.
pub const ECANCELED: i32 = 1223;
/// The connection was given up at this end: `WSAECONNABORTED`.
pub const ECONNABORTED: i32 = 10053;
/// Nobody listens there: `WSAECONNREFUSED`.
pub const ECONNREFUSED: i32 = 10061;
/// The peer has reset the connection: `WSAECONNRESET`.
pub const ECONNRESET: i32 = 10054;
/// There is nowhere to send it: `WSAEDESTADDRREQ`.
pub const EDESTADDRREQ: i32 = 10039;
/// It has begun: `WSAEINPROGRESS`.
pub const EINPROGRESS: i32 = 10036;
/// The call was interrupted: `WSAEINTR`.
pub const EINTR: i32 = 10004;
/// An argument is wrong: `ERROR_INVALID_PARAMETER`.
pub const EINVAL: i32 = 87;
/// The device has failed: `ERROR_IO_DEVICE`.
pub const EIO: i32 = 1117;
/// It is connected already: `WSAEISCONN`.
pub const EISCONN: i32 = 10056;
/// This process has too many: `WSAEMFILE`.
pub const EMFILE: i32 = 10024;
/// It is too long for a datagram: `WSAEMSGSIZE`.
pub const EMSGSIZE: i32 = 10040;
/// The system has too many: `ERROR_TOO_MANY_OPEN_FILES`.
pub const ENFILE: i32 = 4;
/// No memory is left for it: `WSAENOBUFS`.
pub const ENOBUFS: i32 = 10055;
/// There is no such thing: `ERROR_FILE_NOT_FOUND`.
pub const ENOENT: i32 = 2;
/// No memory is left: `ERROR_NOT_ENOUGH_MEMORY`.
pub const ENOMEM: i32 = 8;
/// The system has no such call: `ERROR_CALL_NOT_IMPLEMENTED`.
pub const ENOSYS: i32 = 120;
/// It is not connected: `WSAENOTCONN`.
pub const ENOTCONN: i32 = 10057;
/// It is no socket: `WSAENOTSOCK`.
pub const ENOTSOCK: i32 = 10038;
/// It knows no such request: `ERROR_INVALID_FUNCTION`.
pub const ENOTTY: i32 = 1;
/// It does not do that: `WSAEOPNOTSUPP`.
pub const EOPNOTSUPP: i32 = 10045;
/// Nobody reads any more: `ERROR_NO_DATA`.
pub const EPIPE: i32 = 232;
/// It has no places to read or write at: `ERROR_SEEK_ON_DEVICE`.
pub const ESPIPE: i32 = 132;

/// An operation goes on and will post its packet: `ERROR_IO_PENDING`, which is `WSA_IO_PENDING` too.
pub(crate) const IO_PENDING: i32 = 997;
/// The end of a file: `ERROR_HANDLE_EOF`.
pub(crate) const HANDLE_EOF: i32 = 38;
/// What the system says of a cancelled operation: `ERROR_OPERATION_ABORTED`.
pub(crate) const OPERATION_ABORTED: i32 = 995;
/// This end has shut that direction down: `WSAESHUTDOWN`.
pub(crate) const WSAESHUTDOWN: i32 = 10058;
/// An argument of Winsock's is wrong: `WSAEINVAL`.
pub(crate) const WSAEINVAL: i32 = 10022;
/// The datagram was longer than its buffer: `WSAEMSGSIZE`.
pub(crate) const WSAEMSGSIZE: i32 = 10040;
/// The connection was lost on its way, or a datagram was: `WSAENETRESET`.
pub(crate) const WSAENETRESET: i32 = 10052;
/// More of a message is to come: `ERROR_MORE_DATA`.
pub(crate) const MORE_DATA: i32 = 234;
/// All instances of a pipe have clients: `ERROR_PIPE_BUSY`.
pub(crate) const PIPE_BUSY: i32 = 231;
/// The client was faster than who waits for it: `ERROR_PIPE_CONNECTED`.
pub(crate) const PIPE_CONNECTED: i32 = 535;
/// Winsock is there, but too old: `WSAVERNOTSUPPORTED`.
pub(crate) const WSAVERNOTSUPPORTED: i32 = 10092;
/// No timeout is left: `WAIT_TIMEOUT`.
pub(crate) const WAIT_TIMEOUT: i32 = 258;
/// A wait was interrupted by a call for this thread: `WAIT_IO_COMPLETION`.
pub(crate) const WAIT_IO_COMPLETION: i32 = 192;

/// Whoever asks may not (`WSAEACCES`), and a pointer that points nowhere (`WSAEFAULT`).
pub(crate) const WSAEACCES: i32 = 10013;
pub(crate) const WSAEFAULT: i32 = 10014;
/// The address is taken, or is none of this system's: `WSAEADDRINUSE`, `WSAEADDRNOTAVAIL`.
pub(crate) const WSAEADDRINUSE: i32 = 10048;
pub(crate) const WSAEADDRNOTAVAIL: i32 = 10049;
/// The network is down, or cannot be reached: `WSAENETDOWN`, `WSAENETUNREACH`.
pub(crate) const WSAENETDOWN: i32 = 10050;
pub(crate) const WSAENETUNREACH: i32 = 10051;
/// It took too long: `WSAETIMEDOUT`.
pub(crate) const WSAETIMEDOUT: i32 = 10060;
/// The host cannot be reached: `WSAEHOSTUNREACH`.
pub(crate) const WSAEHOSTUNREACH: i32 = 10065;
/// The peer has ended in order: `WSAEDISCON`.
pub(crate) const WSAEDISCON: i32 = 10101;
/// Whoever asks may not: `ERROR_ACCESS_DENIED`.
pub(crate) const ACCESS_DENIED: i32 = 5;
/// Somebody has it open who does not share: `ERROR_SHARING_VIOLATION`; or has locked it: `ERROR_LOCK_VIOLATION`.
pub(crate) const SHARING_VIOLATION: i32 = 32;
pub(crate) const LOCK_VIOLATION: i32 = 33;
/// The disk is full: `ERROR_DISK_FULL`.
pub(crate) const DISK_FULL: i32 = 112;
/// The system has no more: `ERROR_NO_SYSTEM_RESOURCES`.
pub(crate) const NO_SYSTEM_RESOURCES: i32 = 1450;
/// The other end of a pipe has gone: `ERROR_BROKEN_PIPE`; or was never there: `ERROR_PIPE_NOT_CONNECTED`.
pub(crate) const BROKEN_PIPE: i32 = 109;
pub(crate) const PIPE_NOT_CONNECTED: i32 = 233;
/// A pipe is not in a state for that: `ERROR_BAD_PIPE`; or its client is not there yet: `ERROR_PIPE_LISTENING`.
pub(crate) const BAD_PIPE: i32 = 230;
pub(crate) const PIPE_LISTENING: i32 = 536;
