//! What goes into a kernel queue and comes out of it, by names that every system shares.

/// What is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// There is something to receive, or to accept.
    Read,
    /// There is room to send.
    Write,
    /// A thread has asked for it.
    User,
    /// A process does what the notes name.
    #[cfg_attr(target_os = "linux", allow(dead_code, reason = "only a real kernel has it"))]
    Process,
    /// A file or a directory changes as the notes name.
    #[cfg_attr(target_os = "linux", allow(dead_code, reason = "only a real kernel has it"))]
    Vnode,
    /// Nothing that this driver has asked for.
    #[cfg_attr(target_os = "linux", allow(dead_code, reason = "only a real kernel has others"))]
    Other,
}

/// A change, or an event: `struct kevent`, in fields that are wide enough on every system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(super) ident: usize,
    pub(super) filter: Filter,
    pub(super) flags: u32,
    pub(super) fflags: u32,
    pub(super) data: i64,
    pub(super) udata: u64,
}

impl Event {
    /// What fills a list that the kernel is to write into.
    pub(super) const NOTHING: Event =
        Event { ident: 0, filter: Filter::Read, flags: 0, fflags: 0, data: 0, udata: 0 };
}
