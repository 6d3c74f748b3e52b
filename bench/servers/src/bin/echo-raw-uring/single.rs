//! One receive at a time, into a buffer of the connection's own.

use std::os::fd::RawFd;

use bench::{count, listen};
use io_uring::types::{Fd, Timespec};
use io_uring::{cqueue, opcode};
use pelton_bench_servers as bench;

use crate::Handler;
use crate::queue::{Kind, Places, Queue, unword, word};

pub(super) struct Echo {
    listener: RawFd,
    buffer: usize,
    pause: Box<Timespec>,
    connections: Places<Connection>,
}

struct Connection {
    fd: RawFd,
    /// Its memory stays where it is: nothing is pushed onto it.
    buffer: Vec<u8>,
    received: usize,
    sent: usize,
}

impl Echo {
    pub(super) fn new(listener: RawFd, buffer: usize) -> Echo {
        let pause = Box::new(Timespec::from(listen::PAUSE));
        Echo { listener, buffer, pause, connections: Places::new() }
    }

    fn accept(&self, queue: &mut Queue<'_>) {
        let accept = opcode::AcceptMulti::new(Fd(self.listener)).flags(libc::SOCK_CLOEXEC);
        // SAFETY: the listener stays open, and no memory is named.
        unsafe { queue.push(accept.build().user_data(word(Kind::Accept, 0))) };
    }

    fn accepted(&mut self, completion: &cqueue::Entry, queue: &mut Queue<'_>) {
        let result = completion.result();
        if result >= 0 {
            let connection = Connection {
                fd: result,
                buffer: Vec::with_capacity(self.buffer),
                received: 0,
                sent: 0,
            };
            let place = self.connections.insert(connection);
            self.receive(place, queue);
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

    fn receive(&mut self, place: u32, queue: &mut Queue<'_>) {
        let Some(connection) = self.connections.get(place) else { return };
        let buffer = connection.buffer.as_mut_ptr();
        let receive = opcode::Recv::new(Fd(connection.fd), buffer, self.buffer as u32).build();
        // SAFETY: the buffer has this capacity, and is freed with the connection, which ends only when
        // nothing is in flight on it.
        unsafe { queue.push(receive.user_data(word(Kind::Receive, place))) };
    }

    fn received(&mut self, place: u32, result: i32, queue: &mut Queue<'_>) {
        let Some(connection) = self.connections.get(place) else { return };
        match result {
            1.. => {
                connection.received = result as usize;
                connection.sent = 0;
                send(place, connection, queue);
            }
            _ if result == -libc::EINTR => self.receive(place, queue),
            _ => close(place, connection, queue),
        }
    }

    fn sent(&mut self, place: u32, result: i32, queue: &mut Queue<'_>) {
        let Some(connection) = self.connections.get(place) else { return };
        if result < 0 && result != -libc::EINTR {
            return close(place, connection, queue);
        }
        connection.sent += result.max(0) as usize;
        if connection.sent < connection.received {
            return send(place, connection, queue);
        }
        count::one();
        self.receive(place, queue);
    }
}

impl Handler for Echo {
    fn start(&mut self, queue: &mut Queue<'_>) {
        self.accept(queue);
    }

    fn complete(&mut self, completion: &cqueue::Entry, queue: &mut Queue<'_>) {
        let (kind, place) = unword(completion.user_data());
        let result = completion.result();
        match kind {
            Kind::Receive => self.received(place, result, queue),
            Kind::Send => self.sent(place, result, queue),
            Kind::Accept => self.accepted(completion, queue),
            Kind::Pause => self.accept(queue),
            Kind::Close => self.connections.remove(place),
            Kind::Cancel => {}
        }
    }
}

fn send(place: u32, connection: &Connection, queue: &mut Queue<'_>) {
    let rest = connection.buffer.as_ptr().wrapping_add(connection.sent);
    let len = connection.received - connection.sent;
    let send = opcode::Send::new(Fd(connection.fd), rest, len as u32)
        .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
        .build();
    // SAFETY: `received` bytes of the buffer were written by the kernel, `sent` is not more, and the buffer
    // is neither changed nor freed while this is in flight.
    unsafe { queue.push(send.user_data(word(Kind::Send, place))) };
}

/// Nothing is in flight on the connection here: each operation is staged when the one before has ended.
fn close(place: u32, connection: &Connection, queue: &mut Queue<'_>) {
    let close = opcode::Close::new(Fd(connection.fd)).build();
    // SAFETY: the descriptor is the connection's, and nothing is staged on it after this.
    unsafe { queue.push(close.user_data(word(Kind::Close, place))) };
}
