//! Simulated pipes: bytes one way, from one file to another, on one host and without a network.

use std::collections::VecDeque;

use super::calls::{here, tried};
use super::fault::Fault;
use super::file::{File, FileId, Kind};
use super::state::{Event, MICRO, State};
use super::table::OpKey;
use crate::sys::RawDescriptor;

/// How many bytes one holds.
const ROOM: usize = 64 * 1024;
/// No more bytes than this are written as a whole or not at all.
const WHOLE: usize = 4096;

/// One end.
pub(super) struct Pipe {
    /// The end to read from, which has the bytes.
    reads: bool,
    /// The other end, as long as that is open.
    other: Option<FileId>,
    bytes: VecDeque<u8>,
}

impl State {
    /// The end to read from, and the one to write to.
    pub(super) fn pipe_pair(&mut self, nonblocking: bool) -> (FileId, FileId) {
        let ends = [true, false].map(|reads| {
            let end = Pipe { reads, other: None, bytes: VecDeque::new() };
            self.new_file(Kind::Pipe(end), nonblocking)
        });
        for (end, other) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            if let Some(end) = self.pipe_mut(end) {
                end.other = Some(other);
            }
        }
        (ends[0], ends[1])
    }

    pub(super) fn is_pipe(&self, id: FileId) -> bool {
        self.pipe(id).is_some()
    }

    fn pipe(&self, id: FileId) -> Option<&Pipe> {
        match self.file(id) {
            Some(File { kind: Kind::Pipe(pipe), .. }) => Some(pipe),
            _ => None,
        }
    }

    fn pipe_mut(&mut self, id: FileId) -> Option<&mut Pipe> {
        match self.file_mut(id) {
            Some(File { kind: Kind::Pipe(pipe), .. }) => Some(pipe),
            _ => None,
        }
    }

    pub(super) fn pipe_ready(&self, pipe: &Pipe) -> i16 {
        let is_over = pipe.other.is_none();
        if pipe.reads {
            let there = if pipe.bytes.is_empty() { 0 } else { libc::POLLIN };
            return there | if is_over { libc::POLLHUP } else { 0 };
        }
        let held = pipe.other.and_then(|other| self.pipe(other)).map_or(0, |end| end.bytes.len());
        let room = if ROOM - held >= WHOLE { libc::POLLOUT } else { 0 };
        room | if is_over { libc::POLLERR } else { 0 }
    }

    /// Takes up to `most` bytes; 0 at the end.
    pub(super) fn pipe_read(&mut self, id: FileId, most: usize) -> Result<Vec<u8>, i32> {
        let Some(pipe) = self.pipe(id) else { return Err(-libc::EBADF) };
        if !pipe.reads {
            return Err(-libc::EBADF);
        }
        let (there, other) = (pipe.bytes.len(), pipe.other);
        if there == 0 && other.is_some() {
            return Err(-libc::EAGAIN);
        }
        let mut n = there.min(most);
        let who = id.index.into();
        if n > 1 && self.fault(Fault::ShortReceive, who, String::new) {
            n = 1 + self.choose("short-receive to", who, n as u64 - 1) as usize;
            self.tell(Fault::ShortReceive.name(), who, |state| {
                format!("a read of {} brought {n} bytes of {there}", state.file_name(id))
            });
            // What is left makes an edge, as behind a short receive from a stream.
            self.plan(MICRO, Event::Heard(id));
        }
        let Some(pipe) = self.pipe_mut(id) else { return Err(-libc::EBADF) };
        let bytes = pipe.bytes.drain(..n).collect();
        if let Some(other) = other {
            self.wake_file(other, libc::POLLOUT);
        }
        Ok(bytes)
    }

    /// How many bytes a write may take now; then [`State::pipe_written`] takes them.
    pub(super) fn may_write_pipe(&mut self, id: FileId, len: usize) -> Result<usize, i32> {
        let Some(pipe) = self.pipe(id).filter(|pipe| !pipe.reads) else { return Err(-libc::EBADF) };
        let Some(other) = pipe.other else { return Err(-libc::EPIPE) };
        let room = ROOM - self.pipe(other).map_or(0, |end| end.bytes.len());
        if len == 0 {
            return Ok(0);
        }
        if room < WHOLE || (len <= WHOLE && room < len) {
            return Err(-libc::EAGAIN);
        }
        let mut n = len.min(room);
        let who = id.index.into();
        if len > WHOLE && self.fault(Fault::ShortSend, who, String::new) {
            n = 1 + self.choose("short-send to", who, n as u64 - 1) as usize;
            self.tell(Fault::ShortSend.name(), who, |state| {
                format!("a write to {} took {n} bytes of {len}", state.file_name(id))
            });
            self.plan(MICRO, Event::Window(id));
        }
        Ok(n)
    }

    pub(super) fn pipe_written(&mut self, id: FileId, bytes: &[u8]) {
        let Some(other) = self.pipe(id).and_then(|pipe| pipe.other) else { return };
        if let Some(end) = self.pipe_mut(other) {
            end.bytes.extend(bytes);
        }
        if !bytes.is_empty() {
            self.wake_file(other, libc::POLLIN);
        }
    }

    /// The last holder of an end has let go of it.
    pub(super) fn pipe_closed(&mut self, pipe: &Pipe) {
        let Some(other) = pipe.other else { return };
        if let Some(end) = self.pipe_mut(other) {
            end.other = None;
        }
        self.wake_file(other, libc::POLLHUP | libc::POLLERR);
    }

    /// Tries a read from a pipe that a ring has in flight.
    pub(super) fn attempt_pipe_read(&mut self, id: FileId, key: OpKey, file: FileId, most: usize) {
        match self.pipe_read(file, most) {
            Ok(bytes) => {
                let n = self.fill(id, key, &bytes);
                self.end(id, key, n, 0);
            }
            Err(error) if error == -libc::EAGAIN => self.block(id, key, file, libc::POLLIN),
            Err(error) => self.end(id, key, error, 0),
        }
    }

    /// Tries a write to a pipe that a ring has in flight.
    pub(super) fn attempt_pipe_write(&mut self, id: FileId, key: OpKey, file: FileId) {
        let bytes = self.taken(id, key, 0, usize::MAX);
        match self.may_write_pipe(file, bytes.len()) {
            Ok(n) => {
                self.pipe_written(file, &bytes[..n]);
                self.end(id, key, n as i32, 0);
            }
            Err(error) if error == -libc::EAGAIN => self.block(id, key, file, libc::POLLOUT),
            Err(error) => self.end(id, key, error, 0),
        }
    }
}

/// `pipe2`.
pub(crate) fn pipe(nonblocking: bool) -> Result<(RawDescriptor, RawDescriptor), i32> {
    here(|state| {
        let (read, write) = state.pipe_pair(nonblocking);
        (state.new_fd(read), state.new_fd(write))
    })
    .ok_or(-libc::EBADF)
}

/// `read` of what does not block: a pipe, or a socket.
///
/// # Safety
/// `ptr` is valid for writes of `len` bytes.
pub(crate) unsafe fn read(fd: RawDescriptor, ptr: *mut u8, len: usize) -> i32 {
    tried(fd, |state, file| {
        let bytes = match state.is_pipe(file) {
            true => state.pipe_read(file, len),
            false => state.receive(file, len),
        };
        match bytes {
            Ok(bytes) => {
                // SAFETY: no more than `len` bytes, which the caller has room for.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), ptr, bytes.len()) };
                bytes.len() as i32
            }
            Err(error) => error,
        }
    })
}

/// `write` to what does not block: a pipe, or a socket.
///
/// # Safety
/// `ptr` is valid for reads of `len` bytes.
pub(crate) unsafe fn write(fd: RawDescriptor, ptr: *const u8, len: usize) -> i32 {
    tried(fd, |state, file| {
        let is_pipe = state.is_pipe(file);
        let n = match is_pipe {
            true => state.may_write_pipe(file, len),
            false => state.may_send(file, len),
        };
        let n = match n {
            Ok(n) => n,
            Err(error) => return error,
        };
        // SAFETY: `n <= len`, by the caller; not null where it is not zero.
        let bytes = if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(ptr, n) } };
        match is_pipe {
            true => state.pipe_written(file, bytes),
            false => state.send_taken(file, bytes.to_vec()),
        }
        n as i32
    })
}
