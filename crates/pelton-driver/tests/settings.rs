//! Settings and backends: what is wrong is an error at construction, and says what.

mod common;

use common::*;
use pelton_driver::*;

#[test]
fn each_bad_field_names_itself() {
    let bad: [(&str, Config); 16] = [
        ("ring_entries", Config { ring_entries: 0, ..small() }),
        ("ring_entries", Config { ring_entries: 48, ..small() }),
        ("ring_entries", Config { ring_entries: 65536, ..small() }),
        ("completion_entries", Config { completion_entries: 0, ..small() }),
        ("completion_entries", Config { completion_entries: 100, ..small() }),
        ("completion_entries", Config { completion_entries: 1 << 17, ..small() }),
        ("completion_entries", Config { ring_entries: 64, completion_entries: 32, ..small() }),
        ("max_operations", Config { max_operations: 0, ..small() }),
        ("max_operations", Config { max_operations: u32::MAX, ..small() }),
        ("max_descriptors", Config { max_descriptors: 0, ..small() }),
        ("max_descriptors", Config { max_descriptors: u32::MAX, ..small() }),
        ("pool_buffers", Config { pool_buffers: 0, ..small() }),
        ("pool_buffers", Config { pool_buffers: 12, ..small() }),
        ("pool_buffer_len", Config { pool_buffer_len: 0, ..small() }),
        ("pool_buffer_len", Config { pool_buffer_len: u32::MAX, ..small() }),
        ("shutdown_timeout", Config { shutdown_timeout: std::time::Duration::MAX, ..small() }),
    ];
    for (field, config) in bad {
        for backend in [Backend::Auto, Backend::Epoll, Backend::IoUring] {
            let config = Config { backend, ..config.clone() };
            match Driver::new(config.clone()) {
                Err(Error::Config(error)) => {
                    assert_eq!(error.field, field);
                    assert_eq!(config.check().unwrap_err(), error);
                    assert!(error.to_string().contains(field), "{error}");
                }
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_backend_that_is_no_backend_is_named() {
    let error = "abacus".parse::<Backend>().unwrap_err();
    assert_eq!(error.field, "backend");
    for backend in [Backend::Auto, Backend::IoUring, Backend::Epoll, Backend::Kqueue, Backend::Iocp]
    {
        assert_eq!(backend.name().parse(), Ok(backend));
    }
}

#[test]
#[cfg(not(feature = "sim"))]
fn the_simulated_backend_is_refused_with_the_feature_that_brings_it() {
    let error = "sim".parse::<Backend>().unwrap_err();
    assert_eq!(error.field, "backend");
    assert!(error.reason.contains("built without the feature `sim`"), "{error}");
}

#[test]
#[cfg(feature = "sim")]
fn the_simulated_backend_has_a_name() {
    assert_eq!("sim".parse(), Ok(Backend::Sim));
    assert_eq!(Backend::Sim.to_string(), "sim");
}

#[test]
fn a_backend_that_is_forced_runs_or_says_why_it_cannot() {
    for backend in [Backend::IoUring, Backend::Epoll, Backend::Iocp] {
        match Driver::new(Config { backend, ..small() }) {
            Ok(driver) => {
                assert_eq!(driver.backend(), backend);
                assert_eq!(driver.fallback(), None, "a forced backend falls back to nothing");
            }
            Err(Error::Unsupported { backend: named, reason }) => {
                assert_eq!(named, backend);
                assert_ne!(backend, if cfg!(windows) { Backend::Iocp } else { Backend::Epoll });
                assert!(reason.len() > 20, "a reason and a cure: {reason}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn small_and_large_queues_work() {
    for (ring_entries, completion_entries) in [(1, 2), (1, 64), (2048, 2048), (4096, 65536)] {
        for backend in [Backend::IoUring, Backend::Epoll, Backend::Iocp] {
            let config = Config { backend, ring_entries, completion_entries, ..small() };
            let driver = match Driver::new(config) {
                Ok(driver) => driver,
                Err(Error::Unsupported { .. }) => continue,
                Err(error) => panic!("{error}"),
            };
            let (fd, mut peer) = tcp(&driver);
            std::io::Write::write_all(&mut peer, b"x").unwrap();
            let sends: Vec<_> = (0..5).map(|_| driver.go(Submission::send_all(fd, "x"))).collect();
            assert_eq!(driver.run(Submission::recv(fd, [0; 8])).0.unwrap(), 1);
            for key in sends {
                assert_eq!(driver.end(key).0.unwrap(), 1);
            }
        }
    }
}

on_every_backend! {
    the_limits_on_operations_and_descriptors_hold_and_give_things_back
    a_driver_is_used_on_and_on_within_its_limits
}

fn the_limits_on_operations_and_descriptors_hold_and_give_things_back(on: &On) {
    let driver = on.driver_with(Config { max_operations: 3, max_descriptors: 256, ..small() });
    let (fd, _peer) = tcp(&driver);
    let keys: Vec<_> = (0..3).map(|_| driver.go(Submission::recv(fd, [0; 8]))).collect();
    let refused = driver.submit(Submission::recv(fd, [7; 8]), Token::NONE).unwrap_err();
    assert_eq!(refused.error.kind(), std::io::ErrorKind::QuotaExceeded);
    assert!(refused.error.to_string().contains("max_operations"));
    assert_eq!(refused.payload.0, [7; 8]);
    keys.into_iter().for_each(|key| driver.abandon(key));
    driver.until(|| driver.operations() == 0);
    let fds: Vec<_> = std::iter::from_fn(|| {
        let (reader, _) = std::io::pipe().unwrap();
        driver.attach(reader.into()).ok()
    })
    .collect();
    assert_eq!(fds.len(), 255);
    let (reader, _) = std::io::pipe().unwrap();
    let error = driver.attach(reader.into()).unwrap_err();
    assert!(error.to_string().contains("max_descriptors"), "{error}");
    driver.close(fds[0]);
    let (reader, _) = std::io::pipe().unwrap();
    driver.attach(reader.into()).unwrap();
}

fn a_driver_is_used_on_and_on_within_its_limits(on: &On) {
    let driver = on.driver_with(Config { max_operations: 4, max_descriptors: 256, ..small() });
    for round in 0..2000 {
        let (fd, mut peer) = unix(&driver);
        std::io::Write::write_all(&mut peer, &pattern(round, 8)).unwrap();
        let (n, buf) = driver.run(Submission::recv(fd, [0; 8]));
        assert_eq!((n.unwrap(), &buf[..]), (8, &pattern(round, 8)[..]));
        driver.run(Submission::close(fd)).unwrap();
    }
    assert_eq!((driver.operations(), driver.descriptors()), (0, 0));
}
