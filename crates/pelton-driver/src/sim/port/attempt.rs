//! Trying what an overlapped call asks for: at once, and again when its file may be ready.

use std::net::SocketAddr;

use super::super::file::{FileId, Kind};
use super::super::seal::Seal;
use super::super::state::State;
use super::super::stream::{Context, Phase};
use super::super::table::OpKey;
use super::{BROKEN_PIPE, Call, PIPE_CLOSING, afd, status_of};
use crate::sys::RawDescriptor;

impl State {
    /// Tries a call: its status and how many bytes, or none where it has to wait.
    pub(super) fn attempt_request(&mut self, id: FileId, key: OpKey) -> Option<(u32, usize)> {
        let request = self.request(id, key)?;
        let (call, file) = (request.call, request.file);
        let most = request.parts.iter().map(|part| part.1).sum::<usize>();
        let ended = match call {
            // It waits for something to be there, and takes nothing.
            Call::Receive if most == 0 && self.stream(file).is_some() => {
                match self.stream(file).map(|stream| stream.phase)? {
                    Phase::Fresh => Err(-libc::ENOTCONN),
                    _ if self.ready(file) & (libc::POLLIN | libc::POLLERR) == 0 => {
                        Err(-libc::EAGAIN)
                    }
                    _ => Ok(0),
                }
            }
            // Neither here, and that a pipe has come to its end is an error.
            Call::Receive if self.is_pipe(file) => {
                let there = self.ready(file);
                if most == 0 && there & libc::POLLIN != 0 {
                    Ok(0)
                } else {
                    match self.pipe_read(file, most) {
                        Ok(bytes) if bytes.is_empty() => return Some((BROKEN_PIPE, 0)),
                        Ok(bytes) => Ok(self.fill_request(id, key, &bytes)),
                        Err(error) => Err(error),
                    }
                }
            }
            Call::Receive => {
                self.receive(file, most).map(|bytes| self.fill_request(id, key, &bytes))
            }
            Call::Send => return self.attempt_send_request(id, key, file, most),
            Call::Accept(socket, peer) => self.attempt_accept_request(file, socket, peer),
            Call::Connect(to) => {
                let started =
                    self.request(id, key).map(|r| std::mem::replace(&mut r.started, true));
                match self.connect(file, to) {
                    error if error == -libc::EINPROGRESS => Err(-libc::EAGAIN),
                    error if error == -libc::EALREADY && started == Some(true) => {
                        Err(-libc::EAGAIN)
                    }
                    error if error == -libc::EISCONN && started == Some(true) => {
                        if let Some(stream) = self.stream_mut(file) {
                            stream.context = Context::Missing;
                        }
                        Ok(0)
                    }
                    error => Err(error),
                }
            }
            Call::Read(offset) => match self.read_file(file, most, offset) {
                Ok(bytes) if bytes.is_empty() && most > 0 => return Some((0xC000_0011, 0)),
                Ok(bytes) => Ok(self.fill_request(id, key, &bytes)),
                Err(error) => Err(error),
            },
            Call::Write(offset) => {
                let bytes = self.taken_request(id, key, 0, most);
                let n = self.write_file(file, &bytes, offset);
                if n < 0 { Err(n) } else { Ok(n as usize) }
            }
            Call::Poll(info) => {
                // SAFETY: the poll's until its packet has been taken.
                let asked = unsafe { (*info).events };
                let there = self.afd_events(file) & asked;
                if there == 0 {
                    return None;
                }
                // SAFETY: as above.
                unsafe { (*info).events = there };
                Ok(0)
            }
        };
        match ended {
            Ok(bytes) => Some((0, bytes)),
            Err(error) if error == -libc::EAGAIN => None,
            Err(error) => Some((status_of(-error), 0)),
        }
    }

    /// A send ends when all of it has been taken.
    fn attempt_send_request(
        &mut self,
        id: FileId,
        key: OpKey,
        file: FileId,
        all: usize,
    ) -> Option<(u32, usize)> {
        loop {
            let done = self.request(id, key)?.done;
            let pipe = self.is_pipe(file);
            let may = if pipe {
                self.may_write_pipe(file, all - done)
            } else {
                self.may_send(file, all - done)
            };
            match may {
                Ok(n) => {
                    let bytes = self.taken_request(id, key, done, n);
                    if pipe {
                        self.pipe_written(file, &bytes);
                    } else {
                        self.send_taken(file, bytes);
                    }
                    let request = self.request(id, key)?;
                    request.done += n;
                    if request.done == all || n == 0 {
                        return Some((0, request.done));
                    }
                }
                Err(error) if error == -libc::EAGAIN => return None,
                Err(error) if pipe && error == -libc::EPIPE => return Some((PIPE_CLOSING, done)),
                Err(error) => return Some((status_of(-error), done)),
            }
        }
    }

    fn attempt_accept_request(
        &mut self,
        listener: FileId,
        socket: RawDescriptor,
        peer: *mut Option<SocketAddr>,
    ) -> Result<usize, i32> {
        let (taken, remote) = self.accept(listener)?;
        if let Some(stream) = self.stream_mut(taken) {
            stream.context = Context::Missing;
        }
        self.fd_becomes(socket, taken);
        // The queue's hold.
        self.let_go(taken);
        // SAFETY: the accept's until its packet has been taken; bytes to whoever gave them.
        unsafe { peer.write_unaligned(remote) };
        Ok(0)
    }

    /// What a poll of AFD is told of a socket.
    fn afd_events(&self, id: FileId) -> u32 {
        let ready = self.ready(id);
        let is = |bits: i16, event: u32| if ready & bits != 0 { event } else { 0 };
        match self.file(id).map(|file| &file.kind) {
            Some(Kind::Listener(_)) => is(libc::POLLIN, afd::ACCEPT),
            Some(Kind::Stream(stream)) if stream.phase == Phase::Fresh => 0,
            Some(Kind::Stream(_)) => {
                is(libc::POLLIN, afd::RECEIVE)
                    | is(libc::POLLRDHUP, afd::DISCONNECT)
                    | is(libc::POLLOUT, afd::SEND)
                    | is(libc::POLLERR | libc::POLLHUP, afd::ABORT)
            }
            Some(_) => is(libc::POLLIN, afd::RECEIVE) | is(libc::POLLOUT, afd::SEND),
            None => afd::LOCAL_CLOSE,
        }
    }

    fn fill_request(&mut self, id: FileId, key: OpKey, bytes: &[u8]) -> usize {
        let Some(request) = self.request(id, key) else { return 0 };
        let mut rest = bytes;
        // SAFETY: until the call ends nobody but the system touches the memory.
        let sealed = unsafe { request.seal.check(&request.parts, 0) };
        for (ptr, len) in &request.parts {
            let (now, later) = rest.split_at(rest.len().min(*len));
            // SAFETY: the part has room for it, and is the system's.
            unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), *ptr, now.len()) };
            rest = later;
        }
        if let Err(how) = sealed {
            request.seal = Seal::none();
            self.violation(format!("a receive: {how} while the kernel held it"));
        }
        bytes.len() - rest.len()
    }

    /// Reads from a call's memory: at most `n` bytes, behind the first `skip`.
    fn taken_request(&mut self, id: FileId, key: OpKey, mut skip: usize, mut n: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Some(request) = self.request(id, key) else { return bytes };
        for (ptr, len) in &request.parts {
            let here = len.saturating_sub(skip).min(n);
            if here > 0 {
                // SAFETY: inside the part, which its owner has initialised and leaves alone until the packet.
                bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(ptr.add(skip), here) });
            }
            skip = skip.saturating_sub(*len);
            n -= here;
        }
        bytes
    }
}
