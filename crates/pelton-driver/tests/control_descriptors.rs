//! Descriptors that come with a message: closed where nobody takes them, and never sent on by their number.
#![cfg(target_os = "linux")]

mod common;

use std::io::{IoSlice, PipeReader, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use common::*;
use pelton_driver::*;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

on_every_backend! {
    descriptors_of_a_receive_that_nobody_takes_are_closed
    what_came_is_not_sent_on_by_its_number
    the_descriptor_of_a_process_that_nobody_takes_is_closed
}

/// Sends a descriptor along with one byte.
fn pass(socket: &UnixDatagram, descriptor: BorrowedFd<'_>) {
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(socket, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
}

/// True when nobody has the other end open any more.
fn is_at_its_end(reader: &mut PipeReader) -> bool {
    rustix::io::ioctl_fionbio(reader.as_fd(), true).unwrap();
    matches!(reader.read(&mut [0]), Ok(0))
}

fn room() -> Control {
    Control::with_capacity(Control::space(4))
}

fn descriptors_of_a_receive_that_nobody_takes_are_closed(on: &On) {
    // Nobody may be forked off with a copy of the descriptors.
    let _alone = alone();
    for abandoned_before in [true, false] {
        let driver = on.driver();
        let (other, mine) = UnixDatagram::pair().unwrap();
        let fd = driver.attach(mine.into()).unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let key = driver.go(Submission::recv_msg(fd, [vec![0; 8].into_boxed_slice()], room()));
        driver.settle();
        pass(&other, writer.as_fd());
        drop(writer);
        assert!(!is_at_its_end(&mut reader), "the message has it");
        if !abandoned_before {
            driver.until(|| driver.is_done(&key));
        }
        driver.abandon(key);
        driver.until(|| driver.operations() == 0);
        if !abandoned_before {
            assert!(is_at_its_end(&mut reader), "it was received for nobody");
        }
        // Where the cancel came first the message is in the socket still, and goes with that.
        drop(driver);
        assert!(is_at_its_end(&mut reader), "before: {abandoned_before}");
    }
}

fn what_came_is_not_sent_on_by_its_number(on: &On) {
    let _alone = alone();
    let driver = on.driver();
    let (other, mine) = UnixDatagram::pair().unwrap();
    let fd = driver.attach(mine.into()).unwrap();
    let receive = |control| {
        let recv = Submission::recv_msg(fd, [vec![0; 8].into_boxed_slice()], control);
        let (received, _, control) = driver.run(recv);
        assert_eq!(received.unwrap().len, 1);
        control
    };
    let (_reader, writer) = std::io::pipe().unwrap();
    pass(&other, writer.as_fd());
    let mut control = receive(room());
    let taken = control.take_descriptors();
    assert_eq!(taken.len(), 1);
    // Taken: a number that whoever opens something next may get.
    let back = driver.attach(other.into()).unwrap();
    let (sent, _, mut control) = driver.run(Submission::send_msg(back, [b"x"], None, control));
    assert_eq!(sent.unwrap(), 1);
    assert!(control.is_empty());
    assert!(receive(room()).take_descriptors().is_empty(), "nobody gave it to be sent");
    // What is pushed comes first, not behind what came.
    control.push(7, 8, b"a").unwrap();
    assert_eq!(control.iter().count(), 1);
}

/// Has messages bring the descriptor of the process that sent them (`SO_PASSPIDFD`). False before Linux 6.5.
fn asks_for_the_process(socket: &UnixDatagram) -> bool {
    const SO_PASSPIDFD: i32 = 76;
    let (yes, len) = (1_i32, size_of::<i32>() as u32);
    let raw = std::os::fd::AsRawFd::as_raw_fd(socket);
    // SAFETY: the socket is open; the argument is a number of ours.
    let result = unsafe {
        libc::setsockopt(raw, libc::SOL_SOCKET, SO_PASSPIDFD, (&raw const yes).cast(), len)
    };
    result == 0
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn the_descriptor_of_a_process_that_nobody_takes_is_closed(on: &On) {
    let _alone = alone();
    let driver = on.driver();
    let (other, mine) = UnixDatagram::pair().unwrap();
    if !asks_for_the_process(&mine) {
        return eprintln!("skipped: no message of this kernel carries a process");
    }
    let fd = driver.attach(mine.into()).unwrap();
    let receive = || {
        other.send(b"x").unwrap();
        let recv = Submission::recv_msg(fd, [vec![0; 8].into_boxed_slice()], room());
        let (received, _, control) = driver.run(recv);
        assert_eq!(received.unwrap().len, 1);
        assert_eq!(control.iter().count(), 1, "it brings the process");
        control
    };
    // Whatever a driver makes for itself is there by now.
    drop(receive());
    let before = open_descriptors();
    drop(receive());
    assert_eq!(open_descriptors(), before, "it was for nobody");
    let mut control = receive();
    assert!(control.take_descriptors().is_empty(), "a process is none of those that were sent");
    let process = control.take_process().expect("nobody has taken it");
    drop(control);
    assert_eq!(open_descriptors(), before + 1, "it is the taker's");
    drop(process);
    assert_eq!(open_descriptors(), before);
}
