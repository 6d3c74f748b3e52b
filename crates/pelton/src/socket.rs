//! A descriptor of this reactor's driver, closed when it is dropped.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use pelton_driver::{Fd, OwnedDescriptor};
use socket2::SockRef;

use crate::operation::Operation;
use crate::reactor::Reactor;

pub(crate) struct Socket {
    pub(crate) reactor: Rc<Reactor>,
    pub(crate) fd: Fd,
}

impl Socket {
    /// Takes over a stream socket that was made for this driver and has no duplicates.
    pub(crate) fn new_stream(
        reactor: Rc<Reactor>,
        descriptor: OwnedDescriptor,
    ) -> io::Result<Socket> {
        let fd = reactor.driver.attach_stream(descriptor)?;
        Ok(Socket { reactor, fd })
    }

    /// Takes over any descriptor.
    pub(crate) fn attach(reactor: Rc<Reactor>, descriptor: OwnedDescriptor) -> io::Result<Socket> {
        let fd = reactor.driver.attach(descriptor)?;
        Ok(Socket { reactor, fd })
    }

    /// A socket for an address's family, as this driver wants it: it neither survives an `exec` nor, where
    /// the backend needs that, blocks, from the start.
    pub(crate) fn open(reactor: &Reactor, address: SocketAddr) -> io::Result<socket2::Socket> {
        let domain = socket2::Domain::for_address(address);
        let kind = if reactor.driver.wants_nonblocking() {
            socket2::Type::STREAM.nonblocking()
        } else {
            socket2::Type::STREAM
        };
        socket2::Socket::new(domain, kind, Some(socket2::Protocol::TCP))
    }

    /// An operation on this descriptor.
    #[inline(always)]
    pub(crate) fn operation<A, P, F>(&self, argument: A, make: F) -> Operation<'_, A, P, F>
    where
        P: pelton_driver::Payload,
        F: Fn(Fd, A) -> pelton_driver::Submission<P>,
    {
        Operation::new(self, argument, make)
    }

    /// Sets or asks for an option.
    pub(crate) fn option<R>(&self, f: impl FnOnce(SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
        self.reactor.driver.with_descriptor(self.fd, |fd| f(SockRef::from(&fd)))?
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.option(|socket| ip(socket.local_addr()?))
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.option(|socket| ip(socket.peer_addr()?))
    }
}

fn ip(address: socket2::SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| {
        io::Error::new(io::ErrorKind::Unsupported, "the socket's address is not an IP address")
    })
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reactor.driver.close(self.fd);
        self.reactor.push_out();
    }
}
