//! One receive per connection that stays armed, into buffers that the kernel takes from the pool.
//!
//! A receive may bring the next chunk before the last one has been sent: chunks are queued, and sent one
//! after the other. A connection whose client does not read what it is sent has its receive cancelled until
//! the queue is empty again, so that one client cannot have all the buffers.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use bench::{count, listen};
use io_uring::types::{Fd, Timespec};
use io_uring::{cqueue, opcode};
use pelton_bench_servers as bench;

use crate::Handler;
use crate::pool::{self, Pool};
use crate::queue::{Kind, Places, Queue, unword, word};

/// Chunks that may wait for one connection.
const WAITING: usize = 16;

pub(super) struct Echo {
    listener: RawFd,
    pause: Box<Timespec>,
    pool: Pool,
    connections: Places<Connection>,
    /// Connections that found no free buffer.
    starved: Vec<u32>,
}

struct Connection {
    fd: RawFd,
    /// A receive is armed.
    receiving: bool,
    /// Its cancel is on its way.
    cancelling: bool,
    starved: bool,
    /// Nothing more is to be received.
    ended: bool,
    closing: bool,
    sending: Option<Chunk>,
    waiting: VecDeque<Chunk>,
}

/// Received bytes of one buffer.
#[derive(Clone, Copy)]
struct Chunk {
    buffer: u16,
    sent: u32,
    len: u32,
}

impl Echo {
    pub(super) fn new(listener: RawFd, pool: Pool) -> Echo {
        Echo {
            listener,
            pause: Box::new(Timespec::from(listen::PAUSE)),
            pool,
            connections: Places::new(),
            starved: Vec::new(),
        }
    }

    fn accept(&self, queue: &mut Queue<'_>) {
        let accept = opcode::AcceptMulti::new(Fd(self.listener)).flags(libc::SOCK_CLOEXEC);
        // SAFETY: the listener stays open, and no memory is named.
        unsafe { queue.push(accept.build().user_data(word(Kind::Accept, 0))) };
    }

    fn accepted(&mut self, completion: &cqueue::Entry, queue: &mut Queue<'_>) {
        let result = completion.result();
        if result >= 0 {
            let place = self.connections.insert(Connection::new(result));
            self.settle(place, queue);
        }
        if cqueue::more(completion.flags()) {
            return;
        }
        if result >= 0 {
            return self.accept(queue);
        }
        // Descriptors have run out, or memory: accepting at once would fail again.
        let pause = opcode::Timeout::new(&*self.pause).build();
        // SAFETY: the time is boxed and lives as long as the program.
        unsafe { queue.push(pause.user_data(word(Kind::Pause, 0))) };
    }

    fn received(&mut self, place: u32, completion: &cqueue::Entry, queue: &mut Queue<'_>) {
        let Some(connection) = self.connections.get(place) else { return };
        if !cqueue::more(completion.flags()) {
            connection.receiving = false;
            connection.cancelling = false;
        }
        let result = completion.result();
        match (result, cqueue::buffer_select(completion.flags())) {
            (1.., Some(buffer)) => {
                self.pool.took(buffer);
                let chunk = Chunk { buffer, sent: 0, len: result as u32 };
                if connection.ended {
                    self.pool.give_back(buffer);
                } else if connection.sending.is_some() {
                    connection.waiting.push_back(chunk);
                    if connection.waiting.len() >= WAITING {
                        connection.cancel(place, queue);
                    }
                } else {
                    connection.send(place, chunk, &self.pool, queue);
                }
                // The usual case: nothing else to be done.
                if connection.receiving {
                    return;
                }
            }
            // Cancelled, or interrupted: `settle` arms it again when it is time.
            (_, _) if result == -libc::ECANCELED || result == -libc::EINTR => {}
            (_, _) if result == -libc::ENOBUFS => {
                connection.starved = true;
                self.starved.push(place);
            }
            _ => connection.ended = true,
        }
        self.settle(place, queue);
    }

    fn sent(&mut self, place: u32, result: i32, queue: &mut Queue<'_>) {
        let Some(connection) = self.connections.get(place) else { return };
        let Some(mut chunk) = connection.sending.take() else { return };
        if result < 0 && result != -libc::EINTR {
            connection.ended = true;
            connection.cancel(place, queue);
            self.pool.give_back(chunk.buffer);
            for waiting in connection.waiting.drain(..) {
                self.pool.give_back(waiting.buffer);
            }
            return self.settle(place, queue);
        }
        chunk.sent += result.max(0) as u32;
        if chunk.sent < chunk.len {
            return connection.send(place, chunk, &self.pool, queue);
        }
        self.pool.give_back(chunk.buffer);
        count::one();
        if let Some(next) = connection.waiting.pop_front() {
            connection.send(place, next, &self.pool, queue);
        }
        if !connection.receiving {
            self.settle(place, queue);
        }
    }

    /// Arms the receive, or closes the connection, if it is time.
    fn settle(&mut self, place: u32, queue: &mut Queue<'_>) {
        let Some(connection) = self.connections.get(place) else { return };
        if connection.receiving || connection.closing || !connection.waiting.is_empty() {
            return;
        }
        let fd = Fd(connection.fd);
        if !connection.ended {
            if !connection.starved {
                connection.receiving = true;
                let receive = opcode::RecvMulti::new(fd, pool::GROUP).build();
                // SAFETY: the descriptor is closed only when no receive is armed, and the memory is the
                // pool's, which is never freed.
                unsafe { queue.push(receive.user_data(word(Kind::Receive, place))) };
            }
        } else if connection.sending.is_none() {
            connection.closing = true;
            let close = opcode::Close::new(fd).build();
            // SAFETY: nothing is in flight on the descriptor, and nothing is staged on it after this.
            unsafe { queue.push(close.user_data(word(Kind::Close, place))) };
        }
    }
}

impl Handler for Echo {
    fn start(&mut self, queue: &mut Queue<'_>) {
        self.accept(queue);
    }

    fn complete(&mut self, completion: &cqueue::Entry, queue: &mut Queue<'_>) {
        let (kind, place) = unword(completion.user_data());
        match kind {
            Kind::Receive => self.received(place, completion, queue),
            Kind::Send => self.sent(place, completion.result(), queue),
            Kind::Accept => self.accepted(completion, queue),
            Kind::Pause => self.accept(queue),
            Kind::Close => self.connections.remove(place),
            // The receive that it was for says the rest.
            Kind::Cancel => {}
        }
    }

    fn turn_over(&mut self, queue: &mut Queue<'_>) {
        if self.starved.is_empty() || self.pool.is_empty() {
            return;
        }
        for place in std::mem::take(&mut self.starved) {
            // It may have gone, and another connection may be there now: to that one this does no harm.
            if let Some(connection) = self.connections.get(place) {
                connection.starved = false;
                self.settle(place, queue);
            }
        }
    }
}

impl Connection {
    fn new(fd: RawFd) -> Connection {
        Connection {
            fd,
            receiving: false,
            cancelling: false,
            starved: false,
            ended: false,
            closing: false,
            sending: None,
            waiting: VecDeque::new(),
        }
    }

    fn send(&mut self, place: u32, chunk: Chunk, pool: &Pool, queue: &mut Queue<'_>) {
        self.sending = Some(chunk);
        let rest = pool.address(chunk.buffer).wrapping_add(chunk.sent as usize);
        let send = opcode::Send::new(Fd(self.fd), rest, chunk.len - chunk.sent)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        // SAFETY: the kernel has written `len` bytes of the buffer and does not touch it before it is given
        // back, which is when the send has ended; the descriptor stays open while `sending` says so.
        unsafe { queue.push(send.user_data(word(Kind::Send, place))) };
    }

    /// Ends the receive that is armed, if one is.
    fn cancel(&mut self, place: u32, queue: &mut Queue<'_>) {
        if self.receiving && !self.cancelling {
            self.cancelling = true;
            let cancel = opcode::AsyncCancel::new(word(Kind::Receive, place)).build();
            // SAFETY: names no memory.
            unsafe { queue.push(cancel.user_data(word(Kind::Cancel, place))) };
        }
    }
}
