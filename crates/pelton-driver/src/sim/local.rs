//! Unix sockets by name: the names of a host, and connecting without a network.
//!
//! A connect finds its listener at once or not at all, as within one kernel. A name is free again as soon as its
//! listener is closed: there is no file that would have to be removed first. Where the listener has no room the
//! answer is `EAGAIN`, on a ring as on readiness.

use super::calls::{self, here, on_file};
use super::file::{File, FileId, Kind};
use super::state::State;
use super::stream::{Listener, Phase, Stream};
use crate::sys::{AddressLength, AddressStorage, RawDescriptor};
use crate::unix_address::UnixAddr;

pub(crate) fn unix_socket(nonblocking: bool) -> i32 {
    calls::call(|state| {
        let stream = Stream::new(state.current_host, true);
        let file = state.new_file(Kind::Stream(Box::new(stream)), nonblocking);
        state.try_new_fd(file)
    })
}

/// `bind` and `listen`.
pub(crate) fn unix_listen(fd: RawDescriptor, name: UnixAddr, backlog: i32) -> i32 {
    on_file(fd, |state, file| state.unix_listen(file, name, backlog))
}

pub(crate) fn unix_local_addr(fd: RawDescriptor) -> Result<UnixAddr, i32> {
    unix_name(fd, |_, kind| match kind {
        Kind::Listener(Listener { name: Some(name), .. }) => Ok(name.clone()),
        Kind::Stream(stream) if stream.unix => Ok(stream.name.clone()),
        _ => Err(-libc::EOPNOTSUPP),
    })
}

pub(crate) fn unix_peer_addr(fd: RawDescriptor) -> Result<UnixAddr, i32> {
    unix_name(fd, |state, kind| match kind {
        Kind::Listener(Listener { name: Some(_), .. }) => Err(-libc::ENOTCONN),
        Kind::Stream(stream) if stream.unix => match stream.peer {
            Some(peer) => Ok(state.stream(peer).map(|peer| peer.name.clone()).unwrap_or_default()),
            None => Err(-libc::ENOTCONN),
        },
        _ => Err(-libc::EOPNOTSUPP),
    })
}

fn unix_name(
    fd: RawDescriptor,
    of: impl FnOnce(&State, &Kind) -> Result<UnixAddr, i32>,
) -> Result<UnixAddr, i32> {
    here(|state| {
        let file = state.of_fd(fd).and_then(|id| state.file(id)).ok_or(-libc::EBADF)?;
        of(state, &file.kind)
    })
    .unwrap_or(Err(-libc::EBADF))
}

impl State {
    /// Starts a connect to an address in the system's form, or says how one goes.
    ///
    /// # Safety
    /// `len` bytes of the address are valid, or it is null.
    pub(super) unsafe fn connect_to(
        &mut self,
        id: FileId,
        address: *const AddressStorage,
        len: AddressLength,
    ) -> i32 {
        if address.is_null() {
            return -libc::EFAULT;
        }
        // SAFETY: by the caller, who also gives no more than an address has.
        let (ip, bytes) = unsafe {
            let len_here = (len as usize).min(size_of::<AddressStorage>());
            let bytes = std::slice::from_raw_parts(address.cast::<u8>(), len_here);
            (crate::sys::socket_address(address, len), bytes)
        };
        match (ip, UnixAddr::read(bytes)) {
            (Some(to), _) => self.connect(id, to),
            (None, Some(name)) => self.connect_by_name(id, &name),
            (None, None) => -libc::EAFNOSUPPORT,
        }
    }

    fn unix_listen(&mut self, id: FileId, name: UnixAddr, backlog: i32) -> i32 {
        let Some(stream) = self.stream(id).filter(|stream| stream.unix) else {
            return -libc::EINVAL;
        };
        if stream.phase != Phase::Fresh {
            return -libc::EINVAL;
        }
        let key = (self.file(id).expect("it was there just now").host, name.clone());
        if self.local_listeners.contains_key(&key) {
            return -libc::EADDRINUSE;
        }
        self.local_listeners.insert(key, id);
        if let Some(file) = self.file_mut(id) {
            file.kind = Kind::Listener(Listener::local(name, backlog));
        }
        0
    }

    fn connect_by_name(&mut self, id: FileId, name: &UnixAddr) -> i32 {
        let Some(File { host, kind, .. }) = self.file(id) else { return -libc::EBADF };
        let host = *host;
        match kind {
            Kind::Stream(stream) if !stream.unix => return -libc::EAFNOSUPPORT,
            Kind::Stream(stream) => match stream.phase {
                Phase::Fresh => {}
                Phase::Connected => return -libc::EISCONN,
                Phase::Connecting | Phase::Dead => return -libc::EINVAL,
            },
            _ => return -libc::EOPNOTSUPP,
        }
        let Some(&at) = self.local_listeners.get(&(host, name.clone())) else {
            return if name.as_path().is_some() { -libc::ENOENT } else { -libc::ECONNREFUSED };
        };
        let Some(File { kind: Kind::Listener(listener), .. }) = self.file(at) else {
            return -libc::ECONNREFUSED;
        };
        // As Linux counts: one more than was asked for.
        if listener.queue.len() > listener.backlog {
            return -libc::EAGAIN;
        }
        let connection = self.fresh_connection(|state| {
            let host = state.host_name(host);
            format!("{host} -> {host}:{name:?}")
        });
        let mut server = Stream::new(host, true);
        server.connection = connection;
        server.phase = Phase::Connected;
        server.peer = Some(id);
        server.name = name.clone();
        let server = self.new_file_on(host, Kind::Stream(Box::new(server)), false);
        // The queue's.
        self.hold(server);
        if let Some(stream) = self.stream_mut(id) {
            stream.connection = connection;
            stream.phase = Phase::Connected;
            stream.peer = Some(server);
        }
        if let Some(Kind::Listener(listener)) = self.file_mut(at).map(|file| &mut file.kind) {
            listener.queue.push_back(server);
        }
        self.wake_file(at, libc::POLLIN);
        0
    }
}
