//! A descriptor of this reactor's driver, closed when it is dropped.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use pelton_driver::{Fd, ListenOptions, OwnedDescriptor};
use socket2::SockRef;

use crate::operation::Operation;
use crate::reactor::{Reactor, Share};

pub(crate) struct Socket {
    pub(crate) reactor: Share,
    pub(crate) fd: Fd,
}

impl Socket {
    /// Takes over a stream socket that the driver has accepted.
    pub(crate) fn new_stream(reactor: Share, descriptor: OwnedDescriptor) -> io::Result<Socket> {
        let fd = reactor.driver.attach_stream(descriptor)?;
        Ok(Socket { reactor, fd })
    }

    /// Takes over any descriptor.
    pub(crate) fn attach(reactor: Rc<Reactor>, descriptor: OwnedDescriptor) -> io::Result<Socket> {
        let fd = reactor.driver.attach(descriptor)?;
        Ok(Socket { reactor: reactor.into(), fd })
    }

    /// A stream socket to connect to an address.
    pub(crate) fn open(reactor: Rc<Reactor>, address: SocketAddr) -> io::Result<Socket> {
        let fd = reactor.driver.stream_socket(address)?;
        Ok(Socket { reactor: reactor.into(), fd })
    }

    /// A stream socket that listens on an address.
    pub(crate) fn listen(
        reactor: Rc<Reactor>,
        address: SocketAddr,
        options: ListenOptions,
    ) -> io::Result<Socket> {
        let fd = reactor.driver.listen(address, options)?;
        Ok(Socket { reactor: reactor.into(), fd })
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

    /// Sets or asks for an option of the system's that the driver has no call for.
    pub(crate) fn option<R>(&self, f: impl FnOnce(SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
        self.reactor.driver.with_descriptor(self.fd, |fd| f(SockRef::from(&fd)))?
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.reactor.driver.local_addr(self.fd)
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.reactor.driver.peer_addr(self.fd)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reactor.driver.close(self.fd);
        self.reactor.push_out();
    }
}
