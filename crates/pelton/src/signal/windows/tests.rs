//! The console itself can only be asked where there is one (`tests/console.rs`): here its part is played, on threads
//! of the tests' own, as the console has one.

use std::future::poll_fn;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::{ConsoleEvent, Signal, console, signal};
use super::*;

/// Events concern the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    locked(&ALONE)
}

/// Has an event told, as the console does. Only for events whose handler returns.
fn tell(event: u32) -> i32 {
    // SAFETY: as the console calls it.
    std::thread::spawn(move || unsafe { told(event) }).join().unwrap()
}

fn has_arrived(signal: &Signal) -> bool {
    locked(&signal.0.waiter).has_arrived
}

const EVENTS: [(ConsoleEvent, u32); 5] = [
    (ConsoleEvent::CtrlC, CTRL_C_EVENT),
    (ConsoleEvent::CtrlBreak, CTRL_BREAK_EVENT),
    (ConsoleEvent::Close, CTRL_CLOSE_EVENT),
    (ConsoleEvent::Logoff, CTRL_LOGOFF_EVENT),
    (ConsoleEvent::Shutdown, CTRL_SHUTDOWN_EVENT),
];

#[test]
fn an_event_reaches_everybody_who_waits_for_its_signal_and_nobody_else() {
    let _alone = alone();
    crate::block_on(async {
        let mut first = signal(SignalKind::Interrupt).unwrap();
        let mut second = signal(SignalKind::Interrupt).unwrap();
        let mut third = console(ConsoleEvent::CtrlC).unwrap();
        let other = signal(SignalKind::Hangup).unwrap();
        let waits = crate::spawn(async move { first.recv().await });
        crate::yield_now().await;
        assert!(!waits.is_finished());
        assert_eq!(tell(CTRL_C_EVENT), 1);
        waits.await.unwrap().unwrap();
        second.recv().await.unwrap();
        third.recv().await.unwrap();
        assert!(!has_arrived(&other));
        drop((second, third, other));
        assert_eq!(tell(CTRL_BREAK_EVENT), 0, "nobody waits: the system does what it does");
        assert_eq!(tell(CTRL_C_EVENT), 0, "nobody waits any more");
    });
}

#[test]
fn each_of_the_five_events_is_told_to_those_who_wait_for_it() {
    let _alone = alone();
    crate::block_on(async {
        let all: Vec<_> = EVENTS.map(|(event, _)| console(event).unwrap()).into();
        let kinds = [SignalKind::Interrupt, SignalKind::Terminate, SignalKind::Hangup]
            .map(|kind| signal(kind).unwrap());
        let groups = [0, 1, 2, 2, 1];
        for (at, (event, number)) in EVENTS.into_iter().enumerate() {
            // The handler of some does not return: the process would end.
            // SAFETY: as the console calls it.
            std::thread::spawn(move || unsafe { told(number) });
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while !(has_arrived(&all[at]) && has_arrived(&kinds[groups[at]])) {
                assert!(std::time::Instant::now() < deadline, "{event:?} is not told");
                std::thread::yield_now();
            }
            for signal in all.iter().chain(&kinds) {
                let arrived = std::mem::take(&mut locked(&signal.0.waiter).has_arrived);
                let expected =
                    std::ptr::eq(signal, &all[at]) || std::ptr::eq(signal, &kinds[groups[at]]);
                assert_eq!(arrived, expected, "{event:?}");
            }
        }
        // One that nobody knows.
        for strange in [3, 4, 31, 32, u32::MAX] {
            assert_eq!(tell(strange), 0);
        }
        for kind in [SignalKind::User1, SignalKind::User2] {
            assert_eq!(signal(kind).unwrap_err().kind(), io::ErrorKind::Unsupported);
        }
    });
}

/// The console tells of an event with its own lock held, under which a handler is added too.
#[test]
fn an_event_is_told_while_somebody_else_is_adding_the_handler() {
    let _alone = alone();
    crate::block_on(async {
        let waits = signal(SignalKind::Interrupt).unwrap();
        let adding = locked(&HEARD);
        assert_eq!(tell(CTRL_C_EVENT), 1);
        drop(adding);
        assert!(has_arrived(&waits));
    });
}

#[test]
fn an_event_that_comes_when_its_reactor_has_gone_touches_nothing_of_it() {
    let _alone = alone();
    // Registered by a task that the runtime's end drops, and by one who outlives it.
    let left = crate::block_on(async {
        let mut dropped = signal(SignalKind::Interrupt).unwrap();
        crate::spawn(async move { dropped.recv().await }).detach();
        crate::yield_now().await;
        let mut left = Box::pin(signal(SignalKind::Interrupt).unwrap());
        poll_fn(|cx| {
            let recv = std::pin::pin!(left.recv());
            assert!(recv.poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        left
    });
    assert_eq!(tell(CTRL_C_EVENT), 1, "somebody waits still");
    assert!(has_arrived(&left));
    drop(left);
    assert_eq!(tell(CTRL_C_EVENT), 0);
    // Reactors that end while events come.
    let over = Arc::new(AtomicBool::new(false));
    let console = {
        let over = over.clone();
        std::thread::spawn(move || {
            let mut handled = 0;
            while !over.load(Ordering::Relaxed) {
                // SAFETY: as the console calls it.
                handled += unsafe { told(CTRL_C_EVENT) };
            }
            handled
        })
    };
    for _ in 0..20 {
        crate::block_on(async {
            let mut awaited = signal(SignalKind::Interrupt).unwrap();
            let mut other = signal(SignalKind::Interrupt).unwrap();
            crate::spawn(async move { while other.recv().await.is_ok() {} }).detach();
            awaited.recv().await.unwrap();
        });
    }
    over.store(true, Ordering::Relaxed);
    assert!(console.join().unwrap() >= 20);
}
