//! The numbers of errors where the room runs on a simulated system: that one's, so that what is told means the same
//! as on its other rooms. What only Windows says has numbers that no other error has.

pub(crate) use libc::{
    EAFNOSUPPORT, EAGAIN, EALREADY, EBADF, ECANCELED, ECONNABORTED, ECONNREFUSED, ECONNRESET,
    EDESTADDRREQ, EINPROGRESS, EINTR, EINVAL, EIO, EISCONN, EMFILE, EMSGSIZE, ENFILE, ENOENT,
    ENOMEM, ENOSYS, ENOTCONN, ENOTSOCK, ENOTTY, EOPNOTSUPP, EPIPE, ESPIPE,
};

/// What Winsock says where memory or any other resource has run out, which is another word elsewhere.
pub(crate) const ENOBUFS: i32 = libc::ENOMEM;
pub(crate) const WSAESHUTDOWN: i32 = libc::ESHUTDOWN;
pub(crate) const WSAEINVAL: i32 = libc::EINVAL;
pub(crate) const WSAEMSGSIZE: i32 = libc::EMSGSIZE;
pub(crate) const WSAENETRESET: i32 = libc::ENETRESET;
pub(crate) const WSAEACCES: i32 = libc::EACCES;
pub(crate) const WSAEFAULT: i32 = libc::EFAULT;
pub(crate) const WSAEADDRINUSE: i32 = libc::EADDRINUSE;
pub(crate) const WSAEADDRNOTAVAIL: i32 = libc::EADDRNOTAVAIL;
pub(crate) const WSAENETDOWN: i32 = libc::ENETDOWN;
pub(crate) const WSAENETUNREACH: i32 = libc::ENETUNREACH;
pub(crate) const WSAETIMEDOUT: i32 = libc::ETIMEDOUT;
pub(crate) const WSAEHOSTUNREACH: i32 = libc::EHOSTUNREACH;
pub(crate) const ACCESS_DENIED: i32 = libc::EACCES;
pub(crate) const SHARING_VIOLATION: i32 = libc::EBUSY;
pub(crate) const LOCK_VIOLATION: i32 = libc::EDEADLK;
pub(crate) const DISK_FULL: i32 = libc::ENOSPC;
pub(crate) const NO_SYSTEM_RESOURCES: i32 = libc::ENOMEM;

pub(crate) const IO_PENDING: i32 = 997;
pub(crate) const OPERATION_ABORTED: i32 = 995;
pub(crate) const NOT_FOUND: i32 = 1168;
pub(crate) const WAIT_TIMEOUT: i32 = 258;
pub(crate) const WAIT_IO_COMPLETION: i32 = 192;
pub(crate) const WSAEDISCON: i32 = 10101;
pub(crate) const HANDLE_EOF: i32 = 1_038;
pub(crate) const MORE_DATA: i32 = 1_234;
pub(crate) const BROKEN_PIPE: i32 = crate::sim::port::ENDED_PIPE;
pub(crate) const PIPE_NOT_CONNECTED: i32 = 1_233;
pub(crate) const BAD_PIPE: i32 = 1_230;
pub(crate) const PIPE_BUSY: i32 = 1_231;
pub(crate) const PIPE_CONNECTED: i32 = 1_535;
pub(crate) const PIPE_LISTENING: i32 = 1_536;
