//! Owners of every shape, written and read by the kernel at completion time: long after the driver took
//! their address, and without a second look at them.

use std::io::Read;

use super::*;

fn receive<B: IoBufMut>(buf: B, data: &[u8]) -> (usize, B) {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    // Others before and after it, so that slots are made and used again while the kernel holds the address.
    let other = driver.submit(Submission::recv(fd, [0; 8]), Token::NONE).unwrap();
    let key = driver.submit(Submission::recv(fd, buf), Token::NONE).unwrap();
    let _ = driver.submit(Submission::nop(), Token::NONE).unwrap();
    kernel.fill(other.id().user_data(), b"other");
    assert_eq!(tick(&driver).len(), 2);
    drop(driver.take(other).unwrap());
    kernel.fill(key.id().user_data(), data);
    assert_eq!(tick(&driver).len(), 1);
    kernel.obey();
    let (result, buf) = driver.take(key).unwrap();
    (result.unwrap(), buf)
}

fn send<B: IoBuf>(buf: B) -> Vec<u8> {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let key = driver.submit(Submission::send_all(fd, buf), Token::NONE).unwrap();
    tick(&driver);
    let bytes = kernel.bytes(key.id().user_data());
    kernel.complete(key.id().user_data(), bytes.len() as i32);
    tick(&driver);
    let (result, _) = driver.take(key).unwrap();
    assert_eq!(result.unwrap(), bytes.len());
    bytes
}

#[test]
fn a_vector_receives_after_the_bytes_it_has() {
    let mut buf = Vec::with_capacity(16);
    buf.extend(b"head");
    let (n, buf) = receive(buf, b"tail");
    assert_eq!((n, &buf[..]), (4, &b"headtail"[..]));
}

#[test]
fn a_boxed_slice_and_a_boxed_array_are_overwritten_from_their_start() {
    let (n, buf) = receive(vec![b'.'; 8].into_boxed_slice(), b"box");
    assert_eq!((n, &buf[..]), (3, &b"box....."[..]));
    let (n, buf) = receive(Box::new([b'.'; 4]), b"longer than it is");
    assert_eq!((n, &buf[..]), (4, &b"long"[..]));
}

#[test]
fn an_array_in_the_slot_itself_is_written_where_it_stands() {
    let (n, buf) = receive([b'.'; 24], b"inline");
    assert_eq!((n, &buf[..8]), (6, &b"inline.."[..]));
}

#[test]
fn an_owner_that_is_too_large_for_the_slot_goes_into_a_box() {
    let (n, buf) = receive([b'.'; 25], b"boxed");
    assert_eq!((n, &buf[..6]), (5, &b"boxed."[..]));
    let (n, buf) = receive([b'.'; 4096], &[b'x'; 4096]);
    assert_eq!((n, buf), (4096, [b'x'; 4096]));
}

#[test]
fn an_owner_that_is_aligned_to_more_than_the_slot_keeps_its_alignment() {
    #[repr(align(64))]
    struct Aligned([u8; 16]);
    impl IoBuf for Aligned {
        fn as_init(&self) -> &[u8] {
            &self.0
        }
    }
    impl IoBufMut for Aligned {
        fn spare(&mut self) -> Spare<'_> {
            assert_eq!(self.0.as_ptr().addr() % 64, 0);
            (&mut self.0[..]).into()
        }
        unsafe fn advance(&mut self, _: usize) {}
    }
    let (n, buf) = receive(Aligned([0; 16]), b"aligned");
    assert_eq!((n, &buf.0[..7]), (7, &b"aligned"[..]));
    assert_eq!(send(Aligned([7; 16])), [7; 16]);
}

#[test]
fn every_kind_of_bytes_is_sent_as_it_is() {
    assert_eq!(send(b"vec".to_vec()), b"vec");
    assert_eq!(send(Box::<[u8]>::from(&b"box"[..])), b"box");
    assert_eq!(send(*b"array in the slot"), b"array in the slot");
    assert_eq!(send([b'x'; 100]), [b'x'; 100]);
    assert_eq!(send("str"), b"str");
    assert_eq!(send(b"static"), b"static");
    assert_eq!(send(&b"static"[..]), b"static");
    assert_eq!(send(String::from("string")), b"string");
    assert_eq!(send(std::sync::Arc::<[u8]>::from(&b"arc"[..])), b"arc");
    assert_eq!(send(()), b"");
    assert_eq!(send(Slice::range(b"0123456789".to_vec(), 2, 5)), b"234");
    let shared = Rc::<[u8]>::from(&b"shared"[..]);
    assert_eq!(send(shared.clone()), b"shared");
    assert_eq!(Rc::strong_count(&shared), 1);
}

#[test]
fn a_shared_buffer_may_be_read_while_the_kernel_reads_it() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let shared = Rc::<[u8]>::from(&b"shared"[..]);
    let keys: Vec<_> = (0..3)
        .map(|_| driver.submit(Submission::send_all(fd, shared.clone()), Token::NONE).unwrap())
        .collect();
    for key in &keys {
        assert_eq!(kernel.bytes(key.id().user_data()), *shared);
    }
    assert_eq!(Rc::strong_count(&shared), 4);
    for key in keys {
        driver.abandon(key);
    }
    kernel.obey();
    tick(&driver);
    tick(&driver);
    assert_eq!(Rc::strong_count(&shared), 1);
}

#[test]
fn a_buffer_without_room_is_refused_and_comes_back() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let refused = driver.submit(Submission::recv(fd, vec![1, 2, 3]), Token::NONE).unwrap_err();
    assert_eq!(refused.error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(refused.payload.0, [1, 2, 3]);
    let refused =
        driver.submit(Submission::recv_vectored(fd, [Vec::new(), Vec::new()]), Token::NONE);
    assert_eq!(refused.unwrap_err().error.kind(), std::io::ErrorKind::InvalidInput);
    let refused = driver.submit(Submission::recv(fd, []), Token::NONE);
    assert_eq!(refused.unwrap_err().error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!((driver.operations(), kernel.held().len()), (0, 0));
}

#[test]
fn an_offset_that_no_file_has_is_refused() {
    let (driver, _) = driver();
    let fd = attach(&driver);
    for offset in [u64::MAX, 1 << 63] {
        let refused = driver.submit(Submission::read_at(fd, [0; 8], offset), Token::NONE);
        assert_eq!(refused.unwrap_err().error.kind(), std::io::ErrorKind::InvalidInput);
        let refused = driver.submit(Submission::write_at(fd, [0; 8], offset), Token::NONE);
        assert_eq!(refused.unwrap_err().error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

#[test]
fn several_buffers_are_filled_in_order_as_far_as_the_bytes_go() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let bufs = [Vec::with_capacity(3), b"xy".to_vec(), Vec::new(), Vec::with_capacity(8)];
    let bufs = bufs.map(|buf: Vec<u8>| if buf.capacity() == 2 { b"xy".to_vec() } else { buf });
    let key = driver.submit(Submission::recv_vectored(fd, bufs), Token::NONE).unwrap();
    kernel.fill(key.id().user_data(), b"abcdefg");
    tick(&driver);
    let (result, bufs) = driver.take(key).unwrap();
    assert_eq!(result.unwrap(), 7);
    let all: Vec<u8> = bufs.concat();
    assert_eq!(all, b"abcxydefg", "the second one had no room to spare");

    let arrays =
        driver.submit(Submission::recv_vectored(fd, vec![[0; 4]; 3]), Token::NONE).unwrap();
    kernel.fill(arrays.id().user_data(), b"123456");
    tick(&driver);
    let (result, arrays) = driver.take(arrays).unwrap();
    assert_eq!(result.unwrap(), 6);
    assert_eq!(arrays, [*b"1234", *b"56\0\0", [0; 4]]);
}

#[test]
fn several_buffers_are_sent_in_order_and_those_past_the_limit_are_left() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let parts: Vec<Vec<u8>> = (0..MAX_PARTS as u8 + 9).map(|n| vec![n; 2]).collect();
    let key = driver.submit(Submission::send_vectored(fd, parts.clone()), Token::NONE).unwrap();
    assert_eq!(kernel.bytes(key.id().user_data()), parts[..MAX_PARTS].concat());
    let pair = (b"head".to_vec(), Rc::<[u8]>::from(&b"body"[..]));
    let pair = driver.submit(Submission::send_vectored_all(fd, pair), Token::NONE).unwrap();
    assert_eq!(kernel.bytes(pair.id().user_data()), b"headbody");
    let boxed: Box<[[u8; 3]]> = Box::new([*b"abc", *b"def"]);
    let boxed = driver.submit(Submission::send_vectored(fd, boxed), Token::NONE).unwrap();
    assert_eq!(kernel.bytes(boxed.id().user_data()), b"abcdef");
    driver.abandon(pair);
    driver.abandon(boxed);
    kernel.obey();
}

#[test]
fn an_accept_that_failed_looks_at_no_address() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    for result in [-crate::errno::ECONNABORTED, -ECANCELED, 0] {
        let key = driver.submit(Submission::accept(fd), Token::NONE).unwrap();
        kernel.complete(key.id().user_data(), result);
        tick(&driver);
        assert!(driver.take(key).unwrap().is_err());
    }
}

/// A connection that shows when it is closed: a pipe's writing end.
fn connection() -> (std::io::PipeReader, crate::OwnedDescriptor) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, writer.into())
}

fn is_closed(mut other_end: std::io::PipeReader) -> bool {
    // Blocks for ever where it is not: Miri calls that a deadlock, and the suite a timeout.
    other_end.read(&mut [0]).unwrap() == 0
}

#[test]
fn a_connection_for_nobody_is_closed() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let key = driver.submit(Submission::accept(fd), Token::NONE).unwrap();
    let id = key.id().user_data();
    let (other_end, connection) = connection();
    driver.abandon(key);
    kernel.connect(id, connection, false);
    assert_eq!(tick(&driver), []);
    assert!(is_closed(other_end));
}

#[test]
fn a_connection_that_was_accepted_and_not_taken_is_closed_with_its_key_or_its_driver() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let (one, two) = (connection(), connection());
    let abandoned = driver.submit(Submission::accept(fd), Token::NONE).unwrap();
    let kept = driver.submit(Submission::accept(fd), Token::NONE).unwrap();
    kernel.connect(abandoned.id().user_data(), one.1, false);
    kernel.connect(kept.id().user_data(), two.1, false);
    assert_eq!(tick(&driver).len(), 2);
    driver.abandon(abandoned);
    assert!(is_closed(one.0));
    drop(driver);
    assert!(is_closed(two.0));
}

#[test]
fn a_multishot_accept_yields_in_order_and_closes_what_nobody_takes() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let key = driver.submit(Submission::accept_multi(fd), Token::NONE).unwrap();
    let id = key.id().user_data();
    let mut others: VecDeque<_> = (0..4)
        .map(|n| {
            let (other_end, connection) = connection();
            kernel.connect(id, connection, n < 3);
            other_end
        })
        .collect();
    let told = tick(&driver);
    let more: Vec<_> = told.iter().map(|completion| completion.more).collect();
    assert_eq!(more, [true, true, true, true, false]);
    assert_eq!(driver.waiting(&key), 4);
    drop(driver.next(&key).unwrap());
    assert!(is_closed(others.pop_front().unwrap()), "the first one");
    driver.take(key).unwrap().unwrap();
    assert!(others.into_iter().all(is_closed));
    assert_eq!(driver.operations(), 0);
}

#[test]
fn what_a_multishot_operation_brings_after_its_abandon_is_dropped_at_once() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let accepts = driver.submit(Submission::accept_multi(fd), Token::NONE).unwrap();
    let leases = driver.submit(Submission::recv_multi(fd), Token::NONE).unwrap();
    let (accepts_id, leases_id) = (accepts.id().user_data(), leases.id().user_data());
    let (before, after) = (connection(), connection());
    kernel.connect(accepts_id, before.1, true);
    kernel.complete_more(leases_id, 10);
    tick(&driver);
    assert_eq!(driver.counters().snapshot().buffers_in_use, 1);
    driver.abandon(accepts);
    driver.abandon(leases);
    kernel.connect(accepts_id, after.1, true);
    kernel.complete_more(leases_id, 10);
    assert_eq!(tick(&driver), []);
    assert!(is_closed(after.0));
    assert_eq!(driver.operations(), 2, "the kernel has let go of neither");
    kernel.obey();
    tick(&driver);
    tick(&driver);
    assert!(is_closed(before.0));
    assert_eq!((driver.operations(), driver.counters().snapshot().buffers_in_use), (0, 0));
}

#[test]
fn leases_on_one_buffer_are_disjoint_and_may_all_be_written() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let multi = driver.submit(Submission::recv_multi(fd), Token::NONE).unwrap();
    for _ in 0..3 {
        kernel.complete_more(multi.id().user_data(), 10);
    }
    tick(&driver);
    let mut leases: Vec<Lease> = std::iter::from_fn(|| driver.next(&multi)).collect();
    assert_eq!(leases.len(), 3);
    let slices: Vec<&mut [u8]> = leases.iter_mut().map(|lease| &mut lease[..]).collect();
    for (n, slice) in slices.into_iter().enumerate() {
        slice.fill(n as u8);
    }
    // While they are held the kernel fills the rest of the same buffer.
    kernel.complete_more(multi.id().user_data(), 10);
    tick(&driver);
    let last = driver.next(&multi).unwrap();
    assert_eq!(&last[..], [0xAB; 10]);
    for (n, lease) in leases.iter().enumerate() {
        assert_eq!(lease[..], [n as u8; 10]);
    }
    assert_eq!(driver.counters().snapshot().buffers_in_use, 1);
    let mut lease = leases.remove(1);
    lease.advance(4);
    lease.truncate(5);
    assert_eq!(lease[..], [1; 5]);
    lease.advance(100);
    assert!(lease.is_empty());

    // A lease is sent back without a copy, and outlives its driver.
    let send = driver.submit(Submission::send_all(fd, leases.remove(0)), Token::NONE).unwrap();
    assert_eq!(kernel.bytes(send.id().user_data()), [0; 10]);
    kernel.obey();
    drop(driver);
    assert_eq!(last[..], [0xAB; 10]);
}

#[test]
fn receives_without_a_buffer_wait_in_order_and_one_that_is_given_up_leaves_the_queue() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    // Four buffers of 64 bytes, all held.
    let holder = driver.submit(Submission::recv_multi(fd), Token::NONE).unwrap();
    for _ in 0..4 {
        kernel.complete_more(holder.id().user_data(), 64);
    }
    tick(&driver);
    let mut leases: Vec<Lease> = std::iter::from_fn(|| driver.next(&holder)).collect();
    assert_eq!((leases.len(), driver.counters().snapshot().buffers_in_use), (4, 4));

    let other = attach(&driver);
    let pooled = |fd| driver.submit(Submission::recv_pooled(fd), Token::NONE).unwrap();
    let (a, b, c, d) = (pooled(fd), pooled(fd), pooled(other), pooled(fd));
    for key in [&a, &b, &c, &d] {
        kernel.complete(key.id().user_data(), -crate::errno::ENOBUFS);
    }
    let multi = driver.submit(Submission::recv_multi(fd), Token::NONE).unwrap();
    kernel.complete(multi.id().user_data(), -crate::errno::ENOBUFS);
    assert_eq!(tick(&driver), []);
    assert_eq!(driver.counters().snapshot().stalls, 5);
    assert_eq!(kernel.held().len(), 1, "the holder; the others wait with the driver");

    driver.abandon(a);
    assert!(driver.cancel(b.id()));
    driver.close(other);
    let told = tick(&driver);
    assert_eq!(told.len(), 2, "b and c");
    assert_eq!(error_of(driver.take(b).unwrap()), ECANCELED);
    assert_eq!(error_of(driver.take(c).unwrap()), ECANCELED);
    assert_eq!((driver.operations(), kernel.closed()), (3, 1));

    leases.pop();
    tick(&driver);
    let held: Vec<u64> = kernel.held().iter().map(|held| held.user_data).collect();
    assert_eq!(
        held,
        [holder.id().user_data(), d.id().user_data()],
        "one buffer, the oldest receive"
    );
    leases.clear();
    tick(&driver);
    assert_eq!(kernel.held().len(), 3);
    kernel.complete(d.id().user_data(), 5);
    tick(&driver);
    assert_eq!(driver.take(d).unwrap().unwrap().unwrap().len(), 5);
    driver.abandon(multi);
    driver.abandon(holder);
    kernel.obey();
    tick(&driver);
    tick(&driver);
    assert_eq!((driver.operations(), driver.counters().snapshot().buffers_in_use), (0, 0));
}
