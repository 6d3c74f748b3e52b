//! The ring on the kernel that this machine runs.

use std::io::Write;

use rustix::fd::AsRawFd;
use rustix::io_uring::{IoringOp, IoringSetupFlags, io_uring_user_data};

use super::*;

/// A ring; or, where io_uring is forbidden or missing, a line that says so.
pub(in super::super) fn ring_or_skip(sq_entries: u32, cq_entries: u32) -> Option<Ring> {
    or_skip(Ring::create(&RingConfig { sq_entries, cq_entries }))
}

fn or_skip(ring: Result<Ring, SetupError>) -> Option<Ring> {
    match ring {
        Ok(ring) => Some(ring),
        Err(error) => {
            let refused = [None, Some(Errno::PERM), Some(Errno::ACCESS), Some(Errno::NOSYS)];
            assert!(refused.contains(&error.errno), "{error}");
            skip(&error.to_string());
            None
        }
    }
}

/// Says that a test proved nothing, past the test harness, which would swallow a `println!` and an
/// `eprintln!`.
#[allow(clippy::explicit_write)]
fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    writeln!(std::io::stderr(), "skipped: {test}: {reason}").unwrap();
}

/// Stages an entry; panics if the queue is full.
pub(in super::super) fn stage(ring: &Ring, entry: io_uring_sqe) {
    // SAFETY: written whole at once; each test keeps what the entry points at alive.
    unsafe { ring.sqe().expect("room in the queue").write(entry) };
}

pub(in super::super) fn entry(opcode: IoringOp, user_data: u64) -> io_uring_sqe {
    io_uring_sqe {
        opcode,
        user_data: io_uring_user_data::from_u64(user_data),
        ..Default::default()
    }
}

fn poll_readable(fd: &OwnedFd, user_data: u64) -> io_uring_sqe {
    let mut poll = entry(IoringOp::PollAdd, user_data);
    poll.fd = fd.as_raw_fd();
    poll.op_flags.poll32_events = if cfg!(target_endian = "big") { 1 << 16 } else { 1 };
    poll
}

fn stage_nops(ring: &Ring, user_data: std::ops::Range<u64>) {
    user_data.for_each(|number| stage(ring, entry(IoringOp::Nop, number)));
}

fn reap(ring: &Ring) -> Vec<u64> {
    std::iter::from_fn(|| ring.next_cqe()).map(|cqe| cqe.user_data).collect()
}

#[test]
fn a_nop_comes_back_with_its_user_data() {
    let Some(ring) = ring_or_skip(8, 16) else { return };
    assert!(ring.features().supports(IoringOp::Nop));
    stage(&ring, entry(IoringOp::Nop, u64::MAX - 1));
    assert_eq!(ring.staged(), 1);
    assert_eq!(ring.enter(1, None, false), Ok(1));
    assert_eq!((ring.staged(), ring.cq_ready()), (0, 1));
    let cqe = ring.next_cqe().unwrap();
    assert_eq!((cqe.user_data, cqe.res, cqe.more(), cqe.buffer()), (u64::MAX - 1, 0, false, None));
    assert!(ring.next_cqe().is_none());
}

#[test]
fn a_full_submission_queue_refuses_until_an_enter_makes_room() {
    let Some(ring) = ring_or_skip(4, 64) else { return };
    for round in 0..10 {
        stage_nops(&ring, round * 4..round * 4 + 4);
        // SAFETY: there is no entry to write, as asserted.
        assert!(unsafe { ring.sqe() }.is_none());
        assert_eq!(ring.enter(0, None, false), Ok(4));
    }
    assert_eq!(reap(&ring), (0..40).collect::<Vec<_>>());
}

#[test]
fn an_overflow_of_the_completion_queue_is_counted_and_loses_nothing() {
    let Some(ring) = ring_or_skip(4, 4) else { return };
    for round in 0..6 {
        stage_nops(&ring, round * 4..round * 4 + 4);
        assert_eq!(ring.enter(0, None, false), Ok(4));
    }
    assert!(ring.needs_enter(), "the kernel says that it holds completions back");
    assert_eq!(ring.cq_overflows(), 5, "every enter but the first left completions behind");
    let mut seen = Vec::new();
    while seen.len() < 24 {
        let _ = ring.enter(0, None, true);
        assert!(ring.cq_ready() > 0, "after {} completions", seen.len());
        seen.extend(reap(&ring));
    }
    ring.enter(0, None, true).unwrap();
    assert_eq!((ring.cq_ready(), ring.cq_dropped(), ring.needs_enter()), (0, 0, false));
    assert_eq!(seen, (0..24).collect::<Vec<_>>());
}

#[test]
fn a_wait_ends_with_etime_when_nothing_completes() {
    let Some(ring) = ring_or_skip(4, 8) else { return };
    assert_eq!(ring.enter(1, Some(Duration::from_nanos(1)), false), Err(Errno::TIME));
    assert_eq!(ring.enter(1, Some(Duration::ZERO), false), Err(Errno::TIME));
    assert!(is_transient(Errno::TIME));
    if ring.features().min_timeout {
        let timeout = Some(Duration::from_micros(20));
        assert_eq!(ring.enter_min_wait(8, timeout, 10), Err(Errno::TIME));
    }
}

#[test]
fn the_longest_timeout_waits() {
    let Some(ring) = ring_or_skip(4, 8) else { return };
    let soon = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    let mut timer = entry(IoringOp::Timeout, 7);
    timer.addr_or_splice_off_in.addr = io_uring_ptr::new(ptr::from_ref(&soon).cast_mut().cast());
    timer.len.len = 1;
    stage(&ring, timer);
    ring.enter(0, None, false).unwrap();
    assert_eq!(ring.enter(1, Some(Duration::MAX), false), Ok(0), "did not end at once");
    assert_eq!(reap(&ring), [7]);
}

#[test]
fn completions_already_taken_do_not_end_a_wait() {
    let Some(ring) = ring_or_skip(4, 8) else { return };
    stage_nops(&ring, 0..1);
    ring.enter(1, None, false).unwrap();
    assert_eq!(reap(&ring), [0]);
    assert_eq!(ring.enter(1, Some(Duration::from_nanos(1)), false), Err(Errno::TIME));
}

/// A ring of a kernel that refuses a flag with `EINVAL`.
fn ring_without(refused: IoringSetupFlags) -> Option<Ring> {
    or_skip(Ring::create_with(&RingConfig { sq_entries: 4, cq_entries: 8 }, |entries, params| {
        if params.flags.intersects(refused) {
            return Err(Errno::INVAL);
        }
        setup::kernel_setup(entries, params)
    }))
}

#[test]
fn entries_that_a_short_submission_left_behind_go_with_the_next() {
    // Without SUBMIT_ALL the kernel stops behind an entry that it refuses.
    let Some(ring) = ring_without(IoringSetupFlags::SUBMIT_ALL) else { return };
    assert!(!ring.features().submit_all);
    let mut unknown = entry(IoringOp::Nop, 0);
    unknown.ioprio.ioprio = u16::MAX;
    stage(&ring, unknown);
    stage_nops(&ring, 1..4);
    assert_eq!(ring.enter(0, None, false), Ok(1));
    assert_eq!(ring.staged(), 3);
    assert_eq!(ring.enter(4, None, false), Ok(3));
    assert_eq!(ring.next_cqe().unwrap().res, -Errno::INVAL.raw_os_error());
    assert_eq!(reap(&ring), [1, 2, 3]);
}

#[test]
fn entries_of_a_refused_enter_stay_staged() {
    // A ring that is not enabled yet refuses every enter, and takes nothing.
    let config = RingConfig { sq_entries: 4, cq_entries: 8 };
    let disabled = Ring::create_with(&config, |entries, params| {
        params.flags |= IoringSetupFlags::R_DISABLED;
        setup::kernel_setup(entries, params)
    });
    let Some(ring) = or_skip(disabled) else { return };
    stage_nops(&ring, 0..4);
    for _ in 0..3 {
        assert_eq!(ring.enter(0, None, true), Err(Errno::BADFD));
        assert_eq!(ring.staged(), 4);
    }
    // SAFETY: this operation has no argument.
    unsafe { ring.register(IoringRegisterOp::RegisterEnableRings, ptr::null_mut(), 0) }.unwrap();
    assert_eq!(ring.enter(4, None, false), Ok(4));
    assert_eq!(reap(&ring), [0, 1, 2, 3]);
}

#[test]
fn a_ring_with_an_index_array_works_beyond_one_round() {
    let Some(ring) = ring_without(IoringSetupFlags::NO_SQARRAY) else { return };
    assert!(!ring.features().no_sqarray);
    for round in 0..5 {
        stage_nops(&ring, round * 3..round * 3 + 3);
        assert_eq!(ring.enter(3, None, false), Ok(3));
        assert_eq!(reap(&ring), (round * 3..round * 3 + 3).collect::<Vec<_>>());
    }
}

#[test]
fn a_deferred_completion_raises_the_flag_and_comes_with_the_next_enter() {
    let Some(ring) = ring_or_skip(4, 8) else { return };
    if !(ring.features().taskrun_flag && ring.features().defer_taskrun) {
        return skip("this kernel does not defer completions and flag them");
    }
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    stage(&ring, poll_readable(&reader, 5));
    ring.enter(0, None, true).unwrap();
    assert!(!ring.needs_enter());
    rustix::io::write(&writer, b"x").unwrap();
    assert_eq!((ring.needs_enter(), ring.cq_ready()), (true, 0));
    ring.enter(0, None, true).unwrap();
    assert_eq!((ring.needs_enter(), reap(&ring)), (false, vec![5]));
}

#[test]
fn cancelling_everything_completes_everything() {
    let Some(ring) = ring_or_skip(4, 8) else { return };
    assert_eq!(ring.sync_cancel_all(), Ok(0));
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    (0..3).for_each(|number| stage(&ring, poll_readable(&reader, number)));
    ring.enter(0, None, true).unwrap();
    assert_eq!(ring.sync_cancel_all(), Ok(3));
    ring.enter(3, None, true).unwrap();
    for _ in 0..3 {
        assert_eq!(ring.next_cqe().unwrap().res, -Errno::CANCELED.raw_os_error());
    }
}

#[test]
fn the_descriptor_is_closed_on_exec() {
    let Some(ring) = ring_or_skip(4, 8) else { return };
    // SAFETY: the ring is open.
    let fd = unsafe { BorrowedFd::borrow_raw(ring.fd.fd.as_raw()) };
    let flags = rustix::io::fcntl_getfd(fd).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn rings_are_registered_until_the_table_is_full_and_leave_it_when_dropped() {
    // The table belongs to the thread, so this test has it for itself.
    for _ in 0..3 {
        let mut rings = Vec::new();
        for number in 0..20 {
            let Some(ring) = ring_or_skip(1, 2) else { return };
            let registered = ring.features().registered_ring;
            assert_eq!(registered, number < 16, "ring {number}: 16 places, empty at first");
            // A place's number may happen to be the descriptor's, so only this way round.
            assert!(registered || ring.enter_fd == ring.fd.fd.as_raw());
            stage(&ring, entry(IoringOp::Nop, number));
            ring.enter(1, None, false).unwrap();
            assert_eq!(reap(&ring), [number]);
            rings.push(ring);
        }
    }
}

#[test]
fn ten_thousand_rings_one_after_the_other() {
    for _ in 0..10_000 {
        let Some(ring) = ring_or_skip(256, 1024) else { return };
        drop(ring);
    }
}
