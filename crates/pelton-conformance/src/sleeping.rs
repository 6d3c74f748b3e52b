//! Sleeping, deadlines and intervals of the runtime.

use std::cell::Cell;
use std::future::pending;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use pelton::net::{TcpListener, TcpStream};
use pelton::spawn;
use pelton::time::{interval, now, sleep, sleep_until, timeout, timeout_at};

use crate::Bench;
use crate::registry::behaviours;

behaviours! {
    "a sleep ends at its moment and never before" => a_sleep_never_ends_early
        [Libxev "timer", ReseauMain "sleep/timedwait on poller", Ioxide "TimerTests"];
    "sleepers wake in the order of their moments" => sleepers_wake_in_order
        [Libxev "timer", Reseau "future scheduling timing"];
    "a sleep is given another moment, before and after it has ended" => a_sleep_is_given_another_moment
        [Libxev "timer reset", Libxev "timer reset after trigger", ReseauMain "deadline reset"];
    "a future that is too slow is dropped with what it has in flight" => a_slow_future_is_dropped
        [ReseauMain "read deadline", ReseauMain "combined deadline", Ioxide "TcpTimeoutTests"];
    "a future that is in time is not touched" => a_future_in_time_is_not_touched
        [ReseauMain "stale timer does not poison", Aws "future: wait timeout"];
    "a deadline in the past looks once" => a_deadline_in_the_past_looks_once
        [ReseauMain "absolute deadlines"];
    "a deadline that is set anew while a read waits always ends it" => a_deadline_that_is_set_anew
        [ReseauMain "deadline reset", ReseauMain "stale cancelled wake retried",
         ReseauMain "combined deadline one heap entry"];
    "a listener waits no longer than its deadline, and accepts afterwards" => a_listener_has_a_deadline
        [ReseauMain "listener deadline"];
    "a connect that hangs ends with its deadline" => a_connect_ends_with_its_deadline
        [Aws "connect_timeout", Ioxide "TcpTimeoutTests"];
    "an interval ticks at whole periods and makes up for none" => an_interval_ticks
        [Ioxide "TimerTests"];
    "ten thousand sleepers that are dropped leave nothing" => sleepers_that_are_dropped
        [Libxev "timer cancel", Reseau "cancel-schedule churn on the same id"];
    "a very long sleep is harmless" => a_very_long_sleep
        [Libxev "timer cancel"];
}

fn a_sleep_never_ends_early(on: &Bench) {
    on.block_on(async {
        for micros in [0, 1, 50, 1000, 4000] {
            let begun = now();
            let wait = Duration::from_micros(micros);
            sleep(wait).await;
            assert!(now() - begun >= wait);
        }
    });
}

fn sleepers_wake_in_order(on: &Bench) {
    on.block_on(async {
        let order = Rc::new(std::cell::RefCell::new(Vec::new()));
        let begun = now();
        let tasks = [7, 2, 9, 4].map(|ms| {
            let order = order.clone();
            spawn(async move {
                sleep_until(begun + Duration::from_millis(ms)).await;
                order.borrow_mut().push(ms);
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.borrow(), [2, 4, 7, 9]);
    });
}

fn a_sleep_is_given_another_moment(on: &Bench) {
    on.block_on(async {
        let mut slept = pin!(sleep(Duration::from_secs(3600)));
        assert!(timeout(Duration::from_millis(1), slept.as_mut()).await.is_err());
        let soon = now() + Duration::from_millis(2);
        slept.reset(soon);
        slept.as_mut().await;
        assert!(slept.is_elapsed() && now() >= soon && slept.deadline() == soon);
        // Later than it was, and after it has ended.
        let later = now() + Duration::from_millis(2);
        slept.reset(later);
        assert!(!slept.is_elapsed());
        slept.as_mut().await;
        assert!(now() >= later);
    });
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept_stream().await.unwrap())
}

fn a_slow_future_is_dropped(on: &Bench) {
    struct Noted(Rc<Cell<bool>>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    on.block_on(async {
        let dropped = Rc::new(Cell::new(false));
        let noted = Noted(dropped.clone());
        let never = async move {
            let _noted = noted;
            pending::<()>().await;
        };
        let deadline = now() + Duration::from_millis(2);
        assert!(timeout_at(deadline, never).await.is_err());
        assert!(dropped.get() && now() >= deadline);
        // A receive that is given up eats nothing.
        let (client, server) = pair().await;
        assert!(timeout(Duration::from_millis(2), server.recv()).await.is_err());
        assert!(timeout(Duration::from_millis(1), server.read([0; 8])).await.is_err());
        client.send_all("x").await.unwrap();
        assert_eq!(&server.recv().await.unwrap().unwrap()[..], b"x");
    });
}

fn a_future_in_time_is_not_touched(on: &Bench) {
    on.block_on(async {
        assert_eq!(timeout(Duration::from_secs(3600), async { 7 }).await, Ok(7));
        let (client, server) = pair().await;
        for n in 0..50 {
            client.send_all([n]).await.unwrap();
            let lease = timeout(Duration::from_secs(10), server.recv()).await.unwrap();
            assert_eq!(lease.unwrap().unwrap()[..], [n]);
        }
        // The deadlines that were not needed fire nobody.
        assert!(timeout(Duration::from_millis(1), server.recv()).await.is_err());
    });
}

fn a_deadline_in_the_past_looks_once(on: &Bench) {
    on.block_on(async {
        let past = now();
        sleep_until(past).await;
        assert_eq!(timeout_at(past, async { 1 }).await, Ok(1), "it was ready");
        assert!(timeout_at(past, pending::<()>()).await.is_err());
        assert!(timeout(Duration::ZERO, pending::<()>()).await.is_err());
    });
}

fn a_deadline_that_is_set_anew(on: &Bench) {
    on.block_on(async {
        let (client, server) = pair().await;
        for round in 0..100 {
            let mut deadline = pin!(sleep(Duration::from_secs(3600)));
            let mut read = pin!(server.read([0; 8]));
            let begun = std::future::poll_fn(|cx| {
                let _ = deadline.as_mut().poll(cx);
                std::task::Poll::Ready(read.as_mut().poll(cx).is_pending())
            });
            assert!(begun.await, "it waits");
            deadline.reset(now() + Duration::from_micros(100 + round));
            std::future::poll_fn(|cx| {
                assert!(read.as_mut().poll(cx).is_pending(), "nothing was sent");
                deadline.as_mut().poll(cx)
            })
            .await;
        }
        client.send_all("x").await.unwrap();
        assert_eq!(server.read([0; 8]).await.0.unwrap(), 1);
    });
}

fn a_listener_has_a_deadline(on: &Bench) {
    on.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for _ in 0..3 {
            assert!(timeout(Duration::from_millis(1), listener.accept()).await.is_err());
        }
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        drop(server);
        assert!(client.recv().await.unwrap().is_none());
    });
}

fn a_connect_ends_with_its_deadline(on: &Bench) {
    use pelton::net::ListenOptions;
    on.block_on(async {
        // Nobody accepts, and there is room for one.
        let options = ListenOptions { backlog: 0, ..ListenOptions::default() };
        let listener = TcpListener::bind_with("127.0.0.1:0", options).await.unwrap();
        let address = listener.local_addr().unwrap();
        let _first = TcpStream::connect(address).await.unwrap();
        let second = timeout(Duration::from_millis(20), TcpStream::connect(address)).await;
        assert!(second.is_err(), "it hangs");
    });
}

fn an_interval_ticks(on: &Bench) {
    on.block_on(async {
        let period = Duration::from_millis(1);
        let mut ticks = interval(period);
        let first = ticks.tick().await;
        for _ in 0..5 {
            let due = ticks.tick().await;
            assert!(now() >= due);
            assert_eq!((due - first).as_nanos() % period.as_nanos(), 0);
        }
        sleep(period * 10).await;
        let late = ticks.tick().await;
        let next = ticks.tick().await;
        assert!(next > late, "the ones between are not made up for");
        assert_eq!((next - first).as_nanos() % period.as_nanos(), 0);
    });
}

fn sleepers_that_are_dropped(on: &Bench) {
    on.block_on(async {
        for _ in 0..10 {
            let mut sleepers: Vec<_> =
                (0..1000).map(|n| Box::pin(sleep(Duration::from_micros(500 + n)))).collect();
            std::future::poll_fn(|cx| {
                for sleeper in &mut sleepers {
                    let _ = sleeper.as_mut().poll(cx);
                }
                std::task::Poll::Ready(())
            })
            .await;
            sleepers.truncate(1);
            sleepers.pop().unwrap().await;
        }
    });
}

fn a_very_long_sleep(on: &Bench) {
    on.block_on(async {
        for long in [Duration::MAX, Duration::from_secs(100 * 365 * 86400)] {
            assert!(timeout(Duration::from_millis(1), sleep(long)).await.is_err());
        }
    });
}
