//! The example of the open seam, run on every backend; and calls that no list of operations has, in the kernel when
//! they are cancelled and when their driver goes.
#![cfg(target_os = "linux")]

mod common;

#[path = "../examples/own_operation/linux.rs"]
mod example;

use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use common::*;
use pelton_driver::*;

on_every_backend! {
    the_example_works
    a_call_in_the_kernel_ends_when_it_is_cancelled_and_when_its_driver_goes
    a_call_on_no_descriptor_answers
    a_zero_copy_send_yields_what_it_did_and_keeps_its_memory_until_the_notice
    an_associated_descriptor_is_open_after_its_driver
}

fn the_example_works(on: &On) {
    example::run(&on.driver()).unwrap();
}

fn ring(on: &On) -> Option<Driver> {
    let driver = on.driver();
    (driver.seam() == Seam::Ring).then_some(driver)
}

/// A splice from an empty pipe, which waits in the kernel for ever: the pipes are the memory.
fn hanging<T: 'static>(driver: &Driver, keep: T) -> Key<Own<(std::io::PipeReader, T)>> {
    let ((from, writer), (_, into)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let fd = attach(driver, into);
    // Somebody might write still.
    attach(driver, writer);
    let prepared = driver.prepare(Some(fd), (from, keep)).unwrap();
    // SAFETY: no memory, and the other descriptor is the operation's memory's.
    let key = unsafe {
        prepared.submit_entry(Token::NONE, |(from, _), entry| {
            entry.opcode = 30;
            (entry.off, entry.addr, entry.len) = (u64::MAX, u64::MAX, 16);
            entry.file_index = from.as_raw_fd() as u32;
        })
    };
    key.unwrap()
}

fn a_call_in_the_kernel_ends_when_it_is_cancelled_and_when_its_driver_goes(on: &On) {
    let Some(driver) = ring(on) else { return };
    let memory = Rc::new(());
    for _ in 0..5 {
        let key = hanging(&driver, memory.clone());
        let limit = Some(Duration::from_millis(1));
        let (said, (_, memory)) = driver.finish(key, limit, |_| {}).unwrap();
        let errno = errno(said);
        assert!([libc::ECANCELED, libc::EINTR].contains(&errno), "{errno}");
        drop(memory);
    }
    driver.abandon(hanging(&driver, memory.clone()));
    driver.settle();
    assert_eq!((Rc::strong_count(&memory), driver.operations()), (1, 0));
    let left = hanging(&driver, memory.clone());
    driver.settle();
    let counters = driver.notifier();
    drop(driver);
    drop(left);
    assert_eq!((Rc::strong_count(&memory), counters.counters().leaked.get()), (1, 0));
}

fn a_call_on_no_descriptor_answers(on: &On) {
    let Some(driver) = ring(on) else { return };
    // `statx` of the root: the path and the answer are the memory.
    let memory = (c"/", Box::new([0_u8; 256]));
    let prepared = driver.prepare(None, memory).unwrap();
    // SAFETY: the answer is a block of the memory's own, the path lives for ever; it completes once.
    let key = unsafe {
        prepared.submit_entry(Token::NONE, |(path, answer), entry| {
            (entry.opcode, entry.fd) = (21, libc::AT_FDCWD);
            entry.addr = path.as_ptr().expose_provenance() as u64;
            entry.off = answer.as_mut_ptr().expose_provenance() as u64;
            entry.len = libc::STATX_TYPE | libc::STATX_MODE;
        })
    };
    let (said, (_, answer)) = driver.finish(key.unwrap(), None, |_| {}).unwrap();
    assert_eq!(said.unwrap(), 0, "a success of nothing is one");
    let mode = u16::from_ne_bytes([answer[28], answer[29]]);
    assert_eq!(u32::from(mode) & libc::S_IFMT, libc::S_IFDIR);
    // And one that fails: an error of the operation.
    let prepared = driver.prepare(None, Box::new([0_u8; 256])).unwrap();
    // SAFETY: as above.
    let key = unsafe {
        prepared.submit_entry(Token::NONE, |answer, entry| {
            (entry.opcode, entry.fd) = (21, libc::AT_FDCWD);
            entry.addr = c"/no/such/thing".as_ptr().expose_provenance() as u64;
            entry.off = answer.as_mut_ptr().expose_provenance() as u64;
        })
    };
    let (said, _) = driver.finish(key.unwrap(), None, |_| {}).unwrap();
    assert_eq!(errno(said), libc::ENOENT);
}

fn a_zero_copy_send_yields_what_it_did_and_keeps_its_memory_until_the_notice(on: &On) {
    let Some(driver) = ring(on) else { return };
    let (listener, address) = listener();
    let client = attach(&driver, std::net::TcpStream::connect(address).unwrap());
    let server = attach(&driver, listener.accept().unwrap().0);
    let bytes = vec![7_u8; 10_000];
    let prepared = driver.prepare(Some(client), bytes).unwrap();
    // SAFETY: the bytes are the memory's own; one completion, and the notice.
    let key = unsafe {
        prepared.submit_entry(Token::NONE, |bytes, entry| {
            entry.opcode = 47;
            entry.addr = bytes.as_ptr().expose_provenance() as u64;
            entry.len = bytes.len() as u32;
        })
    };
    let key = key.unwrap();
    let recv = driver.go(Submission::recv(server, Vec::with_capacity(20_000)));
    let told = driver.until(|| driver.is_done(&key));
    assert_eq!(told.iter().filter(|told| told.id == key.id()).count(), 1, "told of once");
    let (said, bytes) = driver.finish(key, None, |_| {}).unwrap();
    assert_eq!((said.unwrap(), bytes.len()), (10_000, 10_000));
    driver.until(|| driver.is_done(&recv));
}

fn an_associated_descriptor_is_open_after_its_driver(on: &On) {
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let driver = on.driver();
    // SAFETY: it is open until the end of this.
    let fd = unsafe { driver.associate(other.as_raw_fd()) }.unwrap();
    let recv = driver.go(Submission::recv(fd, [0; 8]));
    driver.settle();
    driver.abandon(recv);
    drop(driver);
    rustix::io::write(&one, b"open").unwrap();
    let mut buf = [0; 8];
    assert_eq!(rustix::io::read(&other, &mut buf[..]).unwrap(), 4);
}
