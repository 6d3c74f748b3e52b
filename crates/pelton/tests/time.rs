//! Sleeping, deadlines, intervals.

mod common;

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use common::{CountingWaker, eventually, inside_each_backend, on_each_backend, pair, quiet};
use pelton::Handle;
use pelton::driver::Kind;
use pelton::time::{Sleep, interval, sleep, sleep_until, timeout, timeout_at};

fn timers_in_flight() -> u64 {
    Handle::current().snapshot().in_flight_of(Kind::Timeout)
}

async fn poll_once(sleep: &mut Sleep) -> Poll<()> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *sleep).poll(cx))).await
}

#[test]
fn a_sleep_never_ends_early() {
    inside_each_backend(|_| async {
        for micros in [0, 1, 50, 300, 999, 1000, 1001, 1500, 5000, 20_000] {
            let duration = Duration::from_micros(micros);
            let began = Instant::now();
            sleep(duration).await;
            assert!(began.elapsed() >= duration, "{duration:?}");
        }
        sleep_until(Instant::now()).await;
        if let Some(past) = Instant::now().checked_sub(Duration::from_secs(1)) {
            sleep_until(past).await;
        }
    });
}

#[test]
fn a_sleep_of_less_than_a_millisecond_does_not_spin() {
    inside_each_backend(|_| async {
        let handle = Handle::current();
        for _ in 0..20 {
            let before = handle.snapshot();
            sleep(Duration::from_micros(300)).await;
            let entered = handle.snapshot().enters - before.enters;
            assert!(entered <= 3, "{entered} entries for one sleep of 300 µs");
        }
    });
}

#[test]
fn sleeps_end_in_the_order_of_their_deadlines() {
    inside_each_backend(|_| async {
        let mut ahead = Duration::from_millis(5);
        loop {
            let log = Rc::new(RefCell::new(Vec::new()));
            let begun = Rc::new(Cell::new(0));
            let base = Instant::now() + ahead;
            // Shuffled: 7 is prime to 100.
            let tasks: Vec<_> = (0..100u64)
                .map(|n| (n * 7) % 100)
                .map(|n| {
                    let (log, begun) = (log.clone(), begun.clone());
                    pelton::spawn(async move {
                        begun.set(begun.get() + 1);
                        sleep_until(base + Duration::from_micros(n * 200)).await;
                        log.borrow_mut().push(n);
                    })
                })
                .collect();
            while begun.get() < 100 {
                pelton::yield_now().await;
            }
            let was_in_time = Instant::now() < base;
            for task in tasks {
                task.await.unwrap();
            }
            // A sleep that begins behind its deadline ends when it begins: a slow machine tries again.
            if was_in_time {
                assert!(log.borrow().is_sorted(), "{:?}", log.borrow());
                break;
            }
            ahead *= 2;
        }
    });
}

#[test]
fn ten_thousand_sleeps_at_once_all_end() {
    inside_each_backend(|_| async {
        let done = Rc::new(Cell::new(0));
        let began = Instant::now();
        let mut sleeps: Vec<_> =
            (0..10_000u64).map(|n| sleep(Duration::from_micros(n * 37 % 20_000))).collect();
        for timer in &mut sleeps {
            assert!(poll_once(timer).await.is_pending());
        }
        assert_eq!(timers_in_flight(), 10_000, "no tick has come between");
        for (n, timer) in (0..).zip(sleeps) {
            let done = done.clone();
            pelton::spawn(async move {
                timer.await;
                assert!(began.elapsed() >= Duration::from_micros(n * 37 % 20_000));
                done.set(done.get() + 1);
            })
            .detach();
        }
        // Sleeping itself, so that the loop is not kept awake.
        while done.get() < 10_000 {
            sleep(Duration::from_millis(1)).await;
        }
        quiet().await;
        assert_eq!(Handle::current().snapshot().task_panics, 0);
    });
}

#[test]
fn a_sleep_can_be_reset_at_any_time() {
    inside_each_backend(|_| async {
        let hour = Duration::from_secs(3600);
        // Before it is polled.
        let mut timer = sleep(hour);
        timer.reset(Instant::now() + Duration::from_micros(100));
        (&mut timer).await;
        assert!(timer.is_elapsed());
        // After it has ended: it sleeps again.
        let again = Instant::now() + Duration::from_millis(2);
        timer.reset(again);
        assert!(!timer.is_elapsed());
        assert_eq!(timer.deadline(), again);
        (&mut timer).await;
        assert!(Instant::now() >= again);
        // While it is armed: to earlier, and to later.
        timer.reset(Instant::now() + hour);
        assert!(poll_once(&mut timer).await.is_pending());
        timer.reset(Instant::now() + Duration::from_micros(100));
        (&mut timer).await;
        timer.reset(Instant::now() + Duration::from_micros(100));
        assert!(poll_once(&mut timer).await.is_pending());
        let later = Instant::now() + Duration::from_millis(5);
        timer.reset(later);
        (&mut timer).await;
        assert!(Instant::now() >= later);
        // When it has fired and nobody has looked: the old firing must not count for the new deadline.
        timer.reset(Instant::now() + Duration::from_micros(50));
        assert!(poll_once(&mut timer).await.is_pending());
        sleep(Duration::from_millis(1)).await;
        let later = Instant::now() + Duration::from_millis(3);
        timer.reset(later);
        (&mut timer).await;
        assert!(Instant::now() >= later, "an old firing counted");
        // Many times over, polled or not, leaving nothing behind.
        for n in 0..1000 {
            timer.reset(Instant::now() + hour);
            if n % 3 > 0 {
                assert!(poll_once(&mut timer).await.is_pending());
            }
            if n % 3 > 1 {
                pelton::yield_now().await;
            }
        }
        drop(timer);
        quiet().await;
    });
}

#[test]
fn one_timer_that_is_reset_when_several_fire_together_disturbs_none_of_them() {
    inside_each_backend(|_| async {
        // All are due in one tick; the first to be told resets the second, which is done already.
        for _ in 0..50 {
            let due = Instant::now() + Duration::from_micros(200);
            let shared = Rc::new(RefCell::new(Box::pin(sleep_until(due))));
            let fired = Rc::new(Cell::new(0));
            let tasks: Vec<_> = (0..4)
                .map(|n| {
                    let (shared, fired) = (shared.clone(), fired.clone());
                    pelton::spawn(async move {
                        sleep_until(due).await;
                        if n == 0 {
                            shared.borrow_mut().as_mut().reset(due + Duration::from_micros(300));
                        }
                        fired.set(fired.get() + 1);
                    })
                })
                .collect();
            poll_fn(|cx| Poll::Ready(shared.borrow_mut().as_mut().poll(cx).is_pending())).await;
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(fired.get(), 4, "each fired once");
            poll_fn(|cx| shared.borrow_mut().as_mut().poll(cx)).await;
            assert!(Instant::now() >= due + Duration::from_micros(300));
        }
        quiet().await;
    });
}

#[test]
fn a_sleep_that_is_dropped_is_disarmed() {
    inside_each_backend(|_| async {
        let handle = Handle::current();
        for _ in 0..1000 {
            let mut timer = sleep(Duration::from_secs(3600));
            assert!(poll_once(&mut timer).await.is_pending());
            assert_eq!(timers_in_flight(), 1);
            drop(timer);
            assert_eq!(timers_in_flight(), 0);
        }
        assert_eq!(handle.snapshot().orphans, 0);
        assert_eq!(handle.snapshot().timers_fired, 0);
    });
}

#[test]
fn a_very_long_sleep_is_accepted_and_harmless() {
    inside_each_backend(|_| async {
        let long = [
            Duration::MAX,
            Duration::from_secs(u64::MAX / 2),
            Duration::from_millis(1 << 33),
            Duration::from_millis(u64::from(u32::MAX)),
            Duration::from_secs(86400 * 365 * 200),
        ];
        let mut sleeps: Vec<_> = long.iter().map(|duration| sleep(*duration)).collect();
        for timer in &mut sleeps {
            assert!(poll_once(timer).await.is_pending());
        }
        let before = Handle::current().snapshot();
        sleep(Duration::from_millis(5)).await;
        let entered = Handle::current().snapshot().enters - before.enters;
        assert!(entered < 10, "the reactor spins: {entered} entries in 5 ms");
        for timer in &mut sleeps {
            assert!(poll_once(timer).await.is_pending());
        }
        assert!(timeout(Duration::MAX, async { 1 }).await.is_ok());
    });
}

#[test]
fn a_long_sleep_alone_leaves_the_reactor_asleep() {
    inside_each_backend(|_| async {
        let handle = Handle::current();
        let timers = [Duration::MAX, Duration::from_secs(40 * 86400), Duration::from_secs(100)];
        let tasks: Vec<_> = timers.into_iter().map(|long| pelton::spawn(sleep(long))).collect();
        pelton::yield_now().await;
        let channel = common::Oneshot::default();
        let sender = channel.clone();
        let thread = std::thread::spawn(move || {
            let before = handle.snapshot();
            // The length proves nothing by itself: a reactor that spins shows more entries.
            std::thread::sleep(Duration::from_millis(300));
            sender.send(handle.snapshot().enters - before.enters);
        });
        let entered = channel.recv().await;
        assert!(entered <= 4, "{entered} entries while all slept long");
        common::join(thread);
        drop(tasks);
    });
}

#[test]
fn a_timeout_drops_the_future_with_what_it_has_in_flight() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        for _ in 0..20 {
            let late = timeout(Duration::from_micros(200), a.read([0u8; 100])).await;
            assert_eq!(late.unwrap_err().to_string(), "the deadline has passed");
        }
        quiet().await;
        // The connection is as good as before.
        b.send_all("still here").await.unwrap();
        let (read, buf) = timeout(Duration::from_secs(60), a.read([0u8; 100])).await.unwrap();
        assert_eq!(&buf[..read.unwrap()], b"still here");
        quiet().await;
    });
}

#[test]
fn a_timeout_that_is_not_needed_leaves_no_timer() {
    inside_each_backend(|_| async {
        for _ in 0..100 {
            let ended = timeout(Duration::from_secs(3600), async {
                pelton::yield_now().await;
                5
            });
            assert_eq!(ended.await, Ok(5));
        }
        assert_eq!(timers_in_flight(), 0);
        let past = Instant::now();
        assert_eq!(timeout_at(past, async { 6 }).await, Ok(6), "what is ready goes first");
        assert!(timeout_at(past, pending::<()>()).await.is_err());
        let error: std::io::Error =
            timeout(Duration::ZERO, pending::<()>()).await.unwrap_err().into();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        quiet().await;
    });
}

#[test]
fn an_interval_ticks_at_once_and_then_on_its_grid() {
    inside_each_backend(|_| async {
        let period = Duration::from_millis(2);
        let mut ticks = interval(period);
        assert_eq!(ticks.period(), period);
        let first = ticks.tick().await;
        for _ in 0..5 {
            let due = ticks.tick().await;
            assert!(Instant::now() >= due);
            let since = due - first;
            assert_eq!(since.as_nanos() % period.as_nanos(), 0, "off the grid: {since:?}");
        }
    });
}

#[test]
fn an_interval_that_nobody_looked_at_skips_what_it_missed() {
    inside_each_backend(|_| async {
        let period = Duration::from_millis(1);
        let mut ticks = interval(period);
        let first = ticks.tick().await;
        // Time passes while nothing is awaited: that is the precondition here, not a synchronisation.
        while first.elapsed() < period * 10 {
            std::hint::spin_loop();
        }
        let looked = Instant::now();
        let late = ticks.tick().await;
        assert!(late > first && late <= looked, "a tick that was due already comes at once");
        let next = ticks.tick().await;
        assert!(next > looked, "missed ticks are not made up for");
        for due in [late, next] {
            assert_eq!((due - first).as_nanos() % period.as_nanos(), 0, "off the grid");
        }
        // Cancelling a wait loses nothing.
        for _ in 0..10 {
            let mut tick = pin!(ticks.tick());
            let _ = poll_fn(|cx| Poll::Ready(tick.as_mut().poll(cx).is_pending())).await;
        }
        ticks.tick().await;
    });
}

#[test]
fn an_interval_longer_than_time_itself_ticks_once() {
    inside_each_backend(|_| async {
        let mut ticks = interval(Duration::MAX);
        ticks.tick().await;
        assert!(timeout(Duration::from_millis(1), ticks.tick()).await.is_err());
    });
}

#[test]
fn an_interval_of_zero_is_refused_with_a_message() {
    inside_each_backend(|_| async {
        let task = pelton::spawn(async { drop(interval(Duration::ZERO)) });
        let error = task.await.unwrap_err();
        assert!(error.to_string().contains("never wait"), "{error}");
    });
}

#[test]
fn a_sleep_wakes_whoever_polled_it_last() {
    inside_each_backend(|_| async {
        let (first, second) = (CountingWaker::new(), CountingWaker::new());
        let mut timer = sleep(Duration::from_millis(2));
        for waker in [&first, &second] {
            let waker = Waker::from(waker.clone());
            assert!(Pin::new(&mut timer).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        eventually("the second is woken", || second.woken() == 1).await;
        assert_eq!(first.woken(), 0);
        let done = Pin::new(&mut timer).poll(&mut Context::from_waker(Waker::noop()));
        assert!(done.is_ready());
        assert_eq!(std::sync::Arc::strong_count(&first), 1, "its waker was let go of");
        assert_eq!(std::sync::Arc::strong_count(&second), 1, "its waker was let go of");
    });
}

#[test]
fn a_sleep_that_outlives_its_runtime_is_dropped_in_peace() {
    on_each_backend(|backend| {
        let runtime = common::runtime(backend);
        let (armed, unarmed) = runtime.block_on(async {
            let mut armed = sleep(Duration::from_micros(10));
            assert!(poll_once(&mut armed).await.is_pending());
            (armed, sleep(Duration::from_micros(10)))
        });
        drop(runtime);
        let (mut armed, mut unarmed) = (pin!(armed), pin!(unarmed));
        assert!(common::poll_once(armed.as_mut()).is_pending(), "the reactor's time has stopped");
        assert!(common::poll_once(unarmed.as_mut()).is_pending());
    });
}

#[test]
fn cancelling_and_scheduling_again_keeps_the_new_deadline() {
    inside_each_backend(|_| async {
        // Churn on one timer and on its neighbours in the wheel.
        let mut neighbours: Vec<_> =
            (0..50).map(|n| sleep(Duration::from_millis(20 + n % 7))).collect();
        for timer in &mut neighbours {
            assert!(poll_once(timer).await.is_pending());
        }
        for n in 0..5000u64 {
            let at = (n * 31 % 50) as usize;
            let due = Instant::now() + Duration::from_millis(20 + n % 13);
            neighbours[at].reset(due);
            assert!(poll_once(&mut neighbours[at]).await.is_pending());
            assert_eq!(timers_in_flight(), 50);
        }
        for timer in &mut neighbours {
            (&mut *timer).await;
            assert!(Instant::now() >= timer.deadline());
        }
        quiet().await;
    });
}

#[test]
fn a_deadline_that_is_set_anew_while_a_read_waits_always_fires() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let mut deadline = sleep(Duration::from_secs(3600));
        let mut read = Box::pin(a.read([0u8; 16]));
        for round in 0..1000u64 {
            // Shorter than before, or longer, and set twice now and then.
            deadline.reset(Instant::now() + Duration::from_micros(round % 7 * 20));
            if round % 3 == 0 {
                assert!(poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_pending())).await);
                let _ = poll_once(&mut deadline).await;
                deadline.reset(Instant::now() + Duration::from_micros(round % 5 * 30));
            }
            poll_fn(|cx| {
                assert!(read.as_mut().poll(cx).is_pending(), "nothing was sent");
                Pin::new(&mut deadline).poll(cx)
            })
            .await;
            assert!(Instant::now() >= deadline.deadline());
        }
        b.send_all("at last").await.unwrap();
        assert_eq!(read.await.0.unwrap(), 7);
    });
}

#[test]
fn more_sleeps_than_there_may_be_operations_all_end() {
    on_each_backend(|backend| {
        let small = pelton::driver::Config { max_operations: 16, ..common::config(backend) };
        let runtime = pelton::Builder::new().driver(small).build().unwrap();
        runtime.block_on(async {
            let sleeps: Vec<_> = (0..200)
                .map(|n| pelton::spawn(sleep(Duration::from_micros(n % 10 * 100))))
                .collect();
            for sleep in sleeps {
                sleep.await.unwrap();
            }
            quiet().await;
        });
    });
}
