//! One reactor per core: starting as a whole or not at all, and ending in every way there is.

mod common;

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::ThreadId;
use std::time::Duration;

use common::{on_each_backend, open_descriptors};
use pelton::driver::Config;
use pelton::net::{ListenOptions, TcpListener, TcpStream};
use pelton::{Builder, Drain, Fleet, FleetBuilder, FleetError};
#[cfg(unix)]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const LONG: Duration = Duration::from_secs(60);

fn fleet(backend: pelton::Backend, reactors: usize) -> FleetBuilder {
    FleetBuilder::new().reactors(reactors).runtime(Builder::new().backend(backend))
}

#[test]
fn every_member_runs_on_a_thread_of_its_own_and_the_drain_completes() {
    on_each_backend(|backend| {
        let seen: Arc<Mutex<Vec<(usize, usize, ThreadId)>>> = Arc::default();
        let sees = seen.clone();
        let before = open_descriptors();
        let fleet = fleet(backend, 4)
            .start(move |member| {
                let sees = sees.clone();
                async move {
                    let thread = std::thread::current();
                    assert_eq!(thread.name(), Some(&*format!("pelton-{}", member.index())));
                    assert_eq!(member.handle().backend(), backend);
                    sees.lock().unwrap().push((member.index(), member.count(), thread.id()));
                    member.shutdown_requested().await;
                    assert_eq!(std::thread::current().id(), thread.id());
                    Ok(())
                }
            })
            .unwrap();
        assert_eq!(fleet.handles().len(), 4);
        assert_eq!(fleet.shutdown(LONG).unwrap(), Drain::Complete);
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        seen.sort_by_key(|(index, ..)| *index);
        assert_eq!(seen.iter().map(|(index, ..)| *index).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(seen.iter().all(|(_, count, _)| *count == 4));
        assert_eq!(seen.iter().map(|(.., thread)| *thread).collect::<HashSet<_>>().len(), 4);
        assert_eq!(open_descriptors(), before, "the fleet left descriptors behind");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn pinned_members_stay_on_a_processor_that_they_may_use() {
    on_each_backend(|backend| {
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let fleet = fleet(backend, 3)
            .pin(true)
            .start(move |_| async move {
                let mine = rustix::thread::sched_getaffinity(None)?;
                assert_eq!(mine.count(), 1);
                let place = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| mine.is_set(*cpu));
                assert!(allowed.is_set(place.unwrap()));
                Ok(())
            })
            .unwrap();
        fleet.join().unwrap();
    });
}

#[test]
fn a_fleet_of_nobody_is_refused() {
    let error = FleetBuilder::new().reactors(0).start(|_| async { Ok(()) }).unwrap_err();
    assert!(matches!(error, FleetError::Start(_)));
    assert!(error.to_string().contains("`reactors`"), "{error}");
}

#[test]
fn a_bad_setting_starts_nobody_and_names_its_field() {
    on_each_backend(|backend| {
        let config = Config { ring_entries: 3, ..common::config(backend) };
        let started = Arc::new(AtomicBool::new(false));
        let starts = started.clone();
        let before = open_descriptors();
        let error = FleetBuilder::new()
            .reactors(3)
            .runtime(Builder::new().driver(config))
            .start(move |_| {
                starts.store(true, Ordering::Relaxed);
                async { Ok(()) }
            })
            .unwrap_err();
        assert!(error.to_string().contains("`ring_entries`"), "{error}");
        assert!(!started.load(Ordering::Relaxed));
        assert_eq!(open_descriptors(), before);
    });
}

#[cfg(unix)]
#[test]
fn where_one_member_cannot_start_those_before_it_are_ended_again() {
    on_each_backend(|backend| {
        let before = open_descriptors();
        let limit = getrlimit(Resource::Nofile);
        // Room for some reactors, but not for as many as are asked for.
        setrlimit(Resource::Nofile, Rlimit { current: Some(before as u64 + 16), ..limit }).unwrap();
        let (running, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        struct Ends(Arc<AtomicUsize>);
        impl Drop for Ends {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (runs, ends) = (running.clone(), ended.clone());
        let outcome = fleet(backend, 64).start(move |_| {
            runs.fetch_add(1, Ordering::Relaxed);
            let ends = Ends(ends.clone());
            async move {
                let _ends = ends;
                // Deaf to the request to stop: it has to be cut short.
                std::future::pending().await
            }
        });
        setrlimit(Resource::Nofile, limit).unwrap();
        let error = outcome.unwrap_err();
        assert!(matches!(error, FleetError::Start(_)), "{error}");
        // A member may have been cut short before its future was made, but never left running.
        assert_eq!(running.load(Ordering::Relaxed), ended.load(Ordering::Relaxed));
        assert_eq!(open_descriptors(), before, "those that had started left descriptors behind");
    });
}

#[test]
fn a_fleet_can_be_started_again_after_its_end() {
    on_each_backend(|backend| {
        let before = open_descriptors();
        for _ in 0..5 {
            let fleet = fleet(backend, 2)
                .start(|member| async move {
                    pelton::time::sleep(Duration::from_micros(100)).await;
                    member.shutdown_requested().await;
                    Ok(())
                })
                .unwrap();
            assert_eq!(fleet.shutdown(LONG).unwrap(), Drain::Complete);
            assert_eq!(open_descriptors(), before);
        }
    });
}

#[test]
fn waiting_for_the_fleet_on_a_thread_of_its_own_is_an_error_and_no_deadlock() {
    on_each_backend(|backend| {
        for wait in ["join", "shutdown", "drop"] {
            let before = open_descriptors();
            let place: Arc<Mutex<Option<Fleet>>> = Arc::default();
            let takes = place.clone();
            let (tell, told) = mpsc::channel();
            let fleet = fleet(backend, 2)
                .start(move |member| {
                    let (takes, tell) = (takes.clone(), tell.clone());
                    async move {
                        if member.index() == 0 {
                            let fleet = loop {
                                if let Some(fleet) = takes.lock().unwrap().take() {
                                    break fleet;
                                }
                                pelton::yield_now().await;
                            };
                            let refused = match wait {
                                "join" => fleet.join().unwrap_err(),
                                "shutdown" => fleet.shutdown(LONG).unwrap_err(),
                                _ => {
                                    drop(fleet);
                                    FleetError::OwnThread
                                }
                            };
                            assert!(matches!(refused, FleetError::OwnThread), "{refused}");
                        }
                        // The fleet has gone with its owner: everybody is asked to stop.
                        member.shutdown_requested().await;
                        tell.send(member.index()).unwrap();
                        Ok(())
                    }
                })
                .unwrap();
            *place.lock().unwrap() = Some(fleet);
            let mut ended: Vec<usize> = told.iter().take(2).collect();
            ended.sort_unstable();
            assert_eq!(ended, [0, 1], "{wait}");
            // Nobody is left who could join the threads: they end by themselves.
            while open_descriptors() != before {
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn a_wait_that_is_refused_closes_nothing_that_the_other_threads_use() {
    on_each_backend(|backend| {
        let before = open_descriptors();
        let place: Arc<Mutex<Option<Fleet>>> = Arc::default();
        let (takes, gone) = (place.clone(), Arc::new(AtomicBool::new(false)));
        let leaves = gone.clone();
        let (tell, address) = mpsc::channel();
        let (ask, asked) = mpsc::channel();
        let asked = Mutex::new(Some(asked));
        let (report, reports) = mpsc::channel();
        let fleet = fleet(backend, 2)
            .start(move |member| {
                let (takes, tell, report, leaves) =
                    (takes.clone(), tell.clone(), report.clone(), leaves.clone());
                let asked = if member.index() == 0 { asked.lock().unwrap().take() } else { None };
                async move {
                    if member.index() == 1 {
                        // Serves one connection until it ends, whoever asks everybody to stop.
                        let listener = TcpListener::bind("127.0.0.1:0").await?;
                        tell.send(listener.local_addr()?).unwrap();
                        let (stream, _) = listener.accept().await?;
                        while let Some(chunk) = stream.recv().await? {
                            stream.send_all(chunk).await?;
                        }
                        leaves.store(true, Ordering::Release);
                        return Ok(());
                    }
                    let asked = asked.unwrap();
                    let () = asked.recv().unwrap();
                    let fleet = takes.lock().unwrap().take().unwrap();
                    let open = open_descriptors();
                    let refused = fleet.join().unwrap_err();
                    assert!(matches!(refused, FleetError::OwnThread), "{refused}");
                    assert_eq!(open_descriptors(), open, "something was closed");
                    report.send(()).unwrap();
                    // This reactor goes on as well, until the test has seen the other one do so.
                    let () = asked.recv().unwrap();
                    pelton::time::sleep(Duration::from_micros(100)).await;
                    Ok(())
                }
            })
            .unwrap();
        *place.lock().unwrap() = Some(fleet);
        let address = address.recv().unwrap();
        let mut client = std::net::TcpStream::connect(address).unwrap();
        let mut echo = |text: &[u8; 5]| {
            let mut back = [0; 5];
            std::io::Write::write_all(&mut client, text).unwrap();
            std::io::Read::read_exact(&mut client, &mut back).unwrap();
            assert_eq!(&back, text);
        };
        echo(b"start");
        ask.send(()).unwrap();
        reports.recv().unwrap();
        for _ in 0..100 {
            echo(b"alive");
        }
        assert!(!gone.load(Ordering::Acquire));
        ask.send(()).unwrap();
        drop(client);
        while open_descriptors() != before {
            std::thread::yield_now();
        }
        assert!(gone.load(Ordering::Acquire));
    });
}

#[test]
fn a_member_that_does_not_stop_in_time_is_cut_short_and_dropped_on_its_thread() {
    struct Tell(mpsc::Sender<ThreadId>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.send(std::thread::current().id()).unwrap();
        }
    }
    on_each_backend(|backend| {
        let before = open_descriptors();
        let (dropped, drops) = mpsc::channel();
        let (home, homes) = mpsc::channel();
        let fleet = fleet(backend, 3)
            .start(move |member| {
                let tell = (member.index() > 0).then(|| Tell(dropped.clone()));
                let home = home.clone();
                async move {
                    if let Some(_tell) = tell {
                        home.send(std::thread::current().id()).unwrap();
                        let (stream, _other) = common::pair().await;
                        // In flight when its time is up.
                        let _ = stream.recv().await;
                        std::future::pending::<()>().await;
                    }
                    member.shutdown_requested().await;
                    Ok(())
                }
            })
            .unwrap();
        let mut threads: Vec<_> = homes.iter().take(2).collect();
        assert_eq!(fleet.shutdown(Duration::from_secs(1)).unwrap(), Drain::CutShort(2));
        let mut ended: Vec<_> = drops.try_iter().collect();
        threads.sort_by_key(|thread| format!("{thread:?}"));
        ended.sort_by_key(|thread| format!("{thread:?}"));
        assert_eq!(ended, threads, "all of it ended before the shutdown returned");
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn a_member_that_panics_while_it_is_cut_short_is_no_silent_loss() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("in the drop");
        }
    }
    on_each_backend(|backend| {
        let fleet = fleet(backend, 2)
            .start(|member| async move {
                let _panics = (member.index() == 1).then(|| Panics);
                std::future::pending().await
            })
            .unwrap();
        // Dropped while it waits, and not before it was ever polled.
        for handle in fleet.handles() {
            while handle.snapshot().polls == 0 {
                std::thread::yield_now();
            }
        }
        let error = fleet.shutdown(Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), "reactor 1 panicked: in the drop");
    });
}

#[test]
fn a_deadline_without_end_waits_for_the_drain() {
    on_each_backend(|backend| {
        let fleet = fleet(backend, 2)
            .start(|member| async move {
                member.shutdown_requested().await;
                pelton::time::sleep(Duration::from_millis(5)).await;
                Ok(())
            })
            .unwrap();
        assert_eq!(fleet.shutdown(Duration::MAX).unwrap(), Drain::Complete);
    });
}

#[test]
fn an_error_of_a_member_is_told_with_its_index() {
    on_each_backend(|backend| {
        let fleet = fleet(backend, 3)
            .start(|member| async move {
                match member.index() {
                    1 => Err(io::Error::other("broken")),
                    _ => Ok(()),
                }
            })
            .unwrap();
        let error = fleet.join().unwrap_err();
        assert_eq!(error.to_string(), "reactor 1: broken");
        assert!(matches!(error, FleetError::Member { index: 1, .. }));
    });
}

#[test]
fn a_panic_of_a_member_is_told_with_its_index_and_the_others_end_in_order() {
    on_each_backend(|backend| {
        let stopped = Arc::new(AtomicUsize::new(0));
        let stops = stopped.clone();
        let fleet = fleet(backend, 3)
            .start(move |member| {
                let stops = stops.clone();
                async move {
                    assert!(member.index() != 2, "number {}", member.index());
                    member.shutdown_requested().await;
                    stops.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                }
            })
            .unwrap();
        // Its end comes by itself, the others' when they are asked.
        let handles = fleet.handles();
        while !handles[2].is_closed() {
            std::thread::yield_now();
        }
        match fleet.shutdown(LONG).unwrap_err() {
            FleetError::Panicked { index: 2, message } => assert_eq!(message, "number 2"),
            error => panic!("{error}"),
        }
        assert_eq!(stopped.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_panic_in_making_a_members_future_is_told_too() {
    on_each_backend(|backend| {
        let fleet = fleet(backend, 2)
            .start(|member| {
                assert!(member.index() == 0, "no future for {}", member.index());
                async { Ok(()) }
            })
            .unwrap();
        let error = fleet.join().unwrap_err();
        assert_eq!(error.to_string(), "reactor 1 panicked: no future for 1");
    });
}

#[test]
fn a_fleet_that_is_dropped_ends() {
    on_each_backend(|backend| {
        let before = open_descriptors();
        let fleet = fleet(backend, 2)
            .start(|_| async {
                let _listener = TcpListener::bind("127.0.0.1:0").await?;
                std::future::pending().await
            })
            .unwrap();
        let handles = fleet.handles();
        drop(fleet);
        assert!(handles.iter().all(pelton::Handle::is_closed));
        // A handle keeps what wakes its reactor.
        drop(handles);
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn the_members_of_a_fleet_share_a_port_and_every_connection_is_answered() {
    on_each_backend(|backend| {
        let address: Arc<Mutex<Option<std::net::SocketAddr>>> = Arc::default();
        let shared = address.clone();
        let (listens, listening) = mpsc::channel();
        let fleet = fleet(backend, 3)
            .start(move |member| {
                let (shared, listens) = (shared.clone(), listens.clone());
                async move {
                    let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
                    let listener = {
                        let mut shared = shared.lock().unwrap();
                        let address = shared.unwrap_or("127.0.0.1:0".parse().unwrap());
                        let listener = TcpListener::bind_now(address, options)?;
                        *shared = Some(listener.local_addr()?);
                        listener
                    };
                    listens.send(()).unwrap();
                    pelton::spawn(async move {
                        loop {
                            let stream = listener.accept_stream().await?;
                            pelton::spawn(echo(stream)).detach();
                        }
                        #[allow(unreachable_code)]
                        io::Result::Ok(())
                    })
                    .detach();
                    member.shutdown_requested().await;
                    Ok(())
                }
            })
            .unwrap();
        assert_eq!(listening.iter().take(3).count(), 3);
        let address = address.lock().unwrap().unwrap();
        common::runtime(backend).block_on(async {
            for n in 0..50u8 {
                let stream = TcpStream::connect(address).await.unwrap();
                stream.send_all(vec![n; 10]).await.unwrap();
                assert_eq!(common::read_n(&stream, 10).await, [n; 10]);
            }
        });
        assert_eq!(fleet.shutdown(LONG).unwrap(), Drain::Complete);
    });
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.send_all(chunk).await?;
    }
    Ok(())
}
