//! Signals: told to everybody who waits, and harmless to everybody else.
#![cfg(target_os = "linux")]

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::{eventually, inside_each_backend, on_each_backend, pair_with_std, runtime};
use pelton::Handle;
use pelton::signal::{SignalKind, signal};
use rustix::process::{Signal as Number, getpid, kill_process};

fn raise(number: Number) {
    kill_process(getpid(), number).unwrap();
}

#[test]
fn everybody_who_waits_for_a_signal_is_told() {
    inside_each_backend(|_| async {
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let mut arrivals = signal(SignalKind::User1).unwrap();
                pelton::spawn(async move {
                    arrivals.recv().await.unwrap();
                    arrivals
                })
            })
            .collect();
        pelton::yield_now().await;
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        raise(Number::USR1);
        for waiter in waiters {
            drop(waiter.await.unwrap());
        }
    });
}

#[test]
fn waiters_on_several_reactors_are_told() {
    on_each_backend(|backend| {
        let ready = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let ready = ready.clone();
                std::thread::spawn(move || {
                    runtime(backend).block_on(async {
                        let mut arrivals = signal(SignalKind::User1).unwrap();
                        ready.fetch_add(1, Ordering::Release);
                        arrivals.recv().await.unwrap();
                    });
                })
            })
            .collect();
        while ready.load(Ordering::Acquire) < 2 {
            std::thread::yield_now();
        }
        raise(Number::USR1);
        threads.into_iter().for_each(common::join);
    });
}

#[test]
fn arrivals_that_nobody_waited_for_count_as_one() {
    inside_each_backend(|_| async {
        let mut arrivals = signal(SignalKind::User2).unwrap();
        // Another listener counts, so that all of them have arrived.
        let arrived = Arc::new(AtomicU32::new(0));
        let counts = arrived.clone();
        // SAFETY: it does nothing but add to an atomic.
        let counter = unsafe {
            signal_hook_registry::register(Number::USR2.as_raw(), move || {
                counts.fetch_add(1, Ordering::Relaxed);
            })
        }
        .unwrap();
        for n in 1..=200 {
            raise(Number::USR2);
            eventually("it arrives", || arrived.load(Ordering::Relaxed) == n).await;
        }
        arrivals.recv().await.unwrap();
        let again = pelton::time::timeout(Duration::from_millis(5), arrivals.recv()).await;
        assert!(again.is_err(), "arrivals before the last look count as one");
        raise(Number::USR2);
        arrivals.recv().await.unwrap();
        signal_hook_registry::unregister(counter);
    });
}

#[test]
fn giving_up_the_wait_loses_no_arrival() {
    inside_each_backend(|_| async {
        let mut arrivals = signal(SignalKind::User1).unwrap();
        for _ in 0..20 {
            let late = pelton::time::timeout(Duration::from_micros(100), arrivals.recv()).await;
            assert!(late.is_err());
            raise(Number::USR1);
            arrivals.recv().await.unwrap();
        }
    });
}

#[test]
fn signals_that_nobody_listens_to_any_more_leave_no_descriptor() {
    inside_each_backend(|_| async {
        let before = common::open_descriptors();
        for _ in 0..50 {
            drop(signal(SignalKind::Hangup).unwrap());
        }
        common::quiet().await;
        common::closed_down_to(before).await;
    });
}

unsafe extern "C" {
    safe fn pthread_self() -> usize;
    fn pthread_kill(thread: usize, signal: i32) -> i32;
}

#[test]
fn a_storm_of_signals_to_the_reactors_thread_loses_nothing() {
    const SIGNALS: u32 = 10_000;
    on_each_backend(|backend| {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let runtime = runtime(backend);
        runtime.block_on(async {
            // So that the signal does nothing else.
            let _arrivals = signal(SignalKind::User1).unwrap();
            let handled = Arc::new(AtomicU32::new(0));
            let counts = handled.clone();
            // SAFETY: it does nothing but add to an atomic.
            let counter = unsafe {
                signal_hook_registry::register(Number::USR1.as_raw(), move || {
                    counts.fetch_add(1, Ordering::Relaxed);
                })
            }
            .unwrap();
            let target = pthread_self();
            let storm = {
                let (stop, sent) = (stop.clone(), sent.clone());
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) || sent.load(Ordering::Relaxed) < SIGNALS {
                        // SAFETY: the reactor's thread lives until this one has been joined.
                        let refused = unsafe { pthread_kill(target, Number::USR1.as_raw()) };
                        assert_eq!(refused, 0);
                        sent.fetch_add(1, Ordering::Relaxed);
                        std::thread::yield_now();
                    }
                })
            };
            let (stream, mut client) = pair_with_std().await;
            let talker = std::thread::spawn(move || {
                for n in 0..300u32 {
                    let mut answer = [0; 4];
                    client.write_all(&n.to_le_bytes()).unwrap();
                    client.read_exact(&mut answer).unwrap();
                    assert_eq!(answer, n.to_le_bytes());
                }
            });
            let timers = pelton::spawn(async {
                for _ in 0..300 {
                    let began = std::time::Instant::now();
                    pelton::time::sleep(Duration::from_micros(100)).await;
                    assert!(began.elapsed() >= Duration::from_micros(100));
                }
            });
            let wakes = {
                let handle = Handle::current();
                std::thread::spawn(move || {
                    for n in 0..300 {
                        let task = handle.spawn(async move { n });
                        assert_eq!(common::park_on(task).unwrap(), n);
                    }
                })
            };
            for _ in 0..300 {
                let chunk = stream.recv().await.unwrap().unwrap();
                stream.send_all(chunk).await.unwrap();
            }
            timers.await.unwrap();
            stop.store(true, Ordering::Relaxed);
            pelton::spawn_blocking(move || {
                common::join(talker);
                common::join(wakes);
                common::join(storm);
            })
            .await
            .unwrap();
            assert!(sent.load(Ordering::Relaxed) >= SIGNALS);
            let handled = handled.load(Ordering::Relaxed);
            assert!(handled > SIGNALS / 100, "hardly a signal was delivered: {handled}");
            signal_hook_registry::unregister(counter);
        });
    });
}
