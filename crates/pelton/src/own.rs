//! Operations of one's own: calls that Pelton has never heard of, on descriptors of any kind.
//!
//! The driver's half is its [seam](pelton_driver::Prepared), with the rules that hold here too. Here its operations
//! are futures: dropped at any moment they are cancelled, and what they own stays with the reactor until the kernel
//! has let go. So [`time::timeout`](crate::time::timeout) around one is a limit that loses nothing.
//!
//! ```
//! # pelton::block_on(async {
//! use pelton::driver::Interest;
//! use pelton::own::Descriptor;
//! use std::io::Write;
//!
//! let (reader, mut writer) = std::io::pipe()?;
//! let reader = Descriptor::new(std::os::fd::OwnedFd::from(reader))?;
//! writer.write_all(b"hello")?;
//! let read = reader.when_ready(Interest::Readable, [0; 16], |buf, ready| {
//!     Ok(rustix::io::read(ready.descriptor()?, &mut buf[..])?)
//! });
//! let (n, buf) = read.await;
//! assert_eq!(&buf[..n?], b"hello");
//! # std::io::Result::Ok(()) }).unwrap();
//! ```

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pelton_driver::{
    Interest, Key, Own, OwnedDescriptor, Prepared, RawDescriptor, RawEntry, Ready, Refused, Seam,
    Token,
};

use crate::operation::Pending;
use crate::reactor::{MayGoOn, Reactor};
use crate::socket::Socket;

/// A descriptor of any kind on this thread's reactor: a timer, a pipe, a device. Dropped, it is closed, or let go of
/// where it was only associated; what is in flight on it is cancelled first.
pub struct Descriptor {
    socket: Socket,
}

impl Descriptor {
    /// Takes a descriptor over.
    ///
    /// # Errors
    /// No reactor runs on this thread, its table of descriptors is full, or the descriptor cannot be made not to
    /// block where the backend needs that.
    pub fn new(descriptor: impl Into<OwnedDescriptor>) -> io::Result<Descriptor> {
        Ok(Descriptor { socket: Socket::attach(Reactor::here()?, descriptor.into())? })
    }

    /// Uses a descriptor that stays the caller's: it is never closed here.
    ///
    /// # Errors
    /// As for [`Descriptor::new`].
    ///
    /// # Safety
    /// As for [`Driver::associate`](pelton_driver::Driver::associate): it stays open until the association has ended
    /// ([`Descriptor::close`] has returned), or the reactor is gone and has left nothing behind.
    pub unsafe fn associate(raw: RawDescriptor) -> io::Result<Descriptor> {
        let reactor = Reactor::here()?;
        // SAFETY: by the caller.
        let fd = unsafe { reactor.driver.associate(raw) }?;
        Ok(Descriptor { socket: Socket { reactor: reactor.into(), fd } })
    }

    /// Makes a call when the descriptor is ready, as often as it says `WouldBlock`; anything else is the outcome.
    /// The memory is the call's meanwhile, and comes back. See
    /// [`Prepared::submit_when`](pelton_driver::Prepared::submit_when) for what the call has to keep to.
    ///
    /// Cancelled: the call is not made any more.
    ///
    /// # Errors
    /// What the call said; or the descriptor cannot be watched.
    pub async fn when_ready<T: 'static>(
        &self,
        interest: Interest,
        memory: T,
        attempt: impl FnMut(&mut T, &Ready<'_>) -> io::Result<usize> + 'static,
    ) -> (io::Result<usize>, T) {
        Call::new(&self.socket, memory, move |prepared, token| {
            prepared.submit_when(token, interest, attempt)
        })
        .await
    }

    /// Makes a call of io_uring on the descriptor, by a submission entry that `fill` writes. The memory is the call's
    /// meanwhile, and comes back.
    ///
    /// Cancelled: the kernel is asked to; the memory stays in the reactor until it has ended.
    ///
    /// # Errors
    /// What the kernel said, as it is. `Unsupported`: this backend has no ring ([`seam`]). `InvalidInput`: the entry
    /// has flags or an opcode that it must not have.
    ///
    /// # Safety
    /// As for [`Prepared::submit_entry`](pelton_driver::Prepared::submit_entry).
    pub async unsafe fn entry<T: 'static>(
        &self,
        memory: T,
        fill: impl FnOnce(&mut T, &mut RawEntry),
    ) -> (io::Result<usize>, T) {
        Call::new(&self.socket, memory, |prepared, token| {
            // SAFETY: by the caller.
            unsafe { prepared.submit_entry(token, fill) }
        })
        .await
    }

    /// Closes it, or ends the association, when what is in flight has ended, and waits until that is done.
    ///
    /// # Errors
    /// What the system said; the descriptor is gone in any case.
    pub async fn close(self) -> io::Result<()> {
        let close = |fd, ()| pelton_driver::Submission::close(fd);
        self.socket.operation((), close).await.map(drop)
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptor").field("fd", &self.socket.fd).finish_non_exhaustive()
    }
}

/// The form that this thread's reactor has beside the closure.
///
/// # Errors
/// No reactor runs on this thread.
pub fn seam() -> io::Result<Seam> {
    Ok(Reactor::here()?.driver.seam())
}

/// An operation of one's own as a future.
struct Call<'a, T: 'static, S> {
    socket: &'a Socket,
    /// There until it is submitted.
    start: Option<(T, S)>,
    pending: Pending<Own<T>>,
}

impl<'a, T, S> Call<'a, T, S>
where
    S: FnOnce(Prepared<'_, T>, Token) -> Result<Key<Own<T>>, Refused<Own<T>>>,
{
    fn new(socket: &'a Socket, memory: T, start: S) -> Call<'a, T, S> {
        Call { socket, start: Some((memory, start)), pending: Pending::none() }
    }
}

// Nothing in it is borrowed by the kernel: that is all in the driver.
impl<T, S> Unpin for Call<'_, T, S> {}

impl<T, S> Future for Call<'_, T, S>
where
    S: FnOnce(Prepared<'_, T>, Token) -> Result<Key<Own<T>>, Refused<Own<T>>>,
{
    type Output = (io::Result<usize>, T);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let reactor = &*this.socket.reactor;
        if let Some(poll) = this.pending.poll(reactor, cx) {
            return poll;
        }
        if !reactor.may_go_on() && reactor.give_way(cx.waker()) == MayGoOn::Later {
            return Poll::Pending;
        }
        let Some((memory, start)) = this.start.take() else { crate::operation::ended_already() };
        if reactor.has_ended() {
            let what = "the reactor of this object has ended";
            return Poll::Ready((Err(io::Error::new(io::ErrorKind::BrokenPipe, what)), memory));
        }
        let token = reactor.token_for(cx.waker());
        let unused = Unused { reactor, token };
        let key = reactor.driver.prepare(Some(this.socket.fd), memory);
        match key.and_then(|prepared| start(prepared, token)) {
            Ok(key) => {
                std::mem::forget(unused);
                this.pending = Pending::of(Some(key));
            }
            Err(refused) => {
                drop(unused);
                return Poll::Ready(refused.into_output());
            }
        }
        this.pending.poll(reactor, cx).unwrap_or(Poll::Pending)
    }
}

/// A token that no operation has: user code has not begun one yet, and may panic instead.
struct Unused<'a> {
    reactor: &'a Reactor,
    token: Token,
}

impl Drop for Unused<'_> {
    fn drop(&mut self) {
        self.reactor.forget(self.token);
    }
}

impl<T, S> Drop for Call<'_, T, S> {
    fn drop(&mut self) {
        self.pending.abandon(&self.socket.reactor);
    }
}
