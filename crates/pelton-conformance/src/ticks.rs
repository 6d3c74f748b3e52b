//! The tick: what is submitted, told of and taken around one entry into the kernel.

use std::cell::RefCell;
use std::time::Duration;

use pelton_driver::{Config, Driver, Error, Submission, Token};

use crate::registry::behaviours;
use crate::rig::small;
use crate::{Bench, errno};

behaviours! {
    "a forced backend is the one that runs" => a_forced_backend_is_the_one_that_runs
        [Aws "event_loop_creation", Reseau "backend creation contract", Aws "socket_posix_creation"];
    "a bad setting is an error that names its field" => a_bad_setting_names_its_field
        [Ioxide "ReactorSetupTeardownTests"];
    "drivers are made and dropped by the dozen and leave nothing" => drivers_come_and_go
        [Ioxide "ReactorSetupTeardownTests"];
    "a nop completes with 0 at the next tick, told of once" => a_nop_completes_at_the_next_tick
        [];
    "a tick that is not to wait does not, and one with a limit ends" => a_tick_waits_as_long_as_it_is_told
        [ReseauMain "backend delay semantics", Libxev "stop"];
    "what is submitted in a callback is never told of inside that call" => a_submission_in_a_callback_is_told_of_later
        [Aws "sock_write_cb_is_async", Aws "future: callback is its own task"];
    "a tick inside a tick's callback is an error" => a_tick_in_a_callback_is_an_error
        [];
    "more completions at once than a queue holds are all told of, each once" => more_than_a_queue_holds_is_told_of
        [Reseau "wait buffer grows", Reseau "exact-capacity wait", Ioxide "HardeningTests: CQ overflow"];
    "more submissions than the queue holds all go their way" => more_submissions_than_the_queue_holds
        [Reseau "stress scheduling", Reseau "epoll task pre-queue drain"];
    "too many operations are refused with an error that names the cure" => too_many_operations_are_refused
        [];
    "a token follows its operation, also when it is set anew" => a_token_follows_its_operation
        [Reseau "subscription payload owned by handle"];
    "a driver refuses the keys of another" => a_key_of_another_driver_is_refused
        [];
}

fn a_forced_backend_is_the_one_that_runs(on: &Bench) {
    let driver = on.driver();
    assert_eq!(driver.is_simulated(), on.is_simulated());
    assert_eq!(driver.fallback(), None, "one that is forced falls back to nothing");
    let unforced = Driver::new(small()).unwrap();
    assert_eq!(unforced.is_simulated(), on.is_simulated());
    #[cfg(target_os = "linux")]
    if on.is_simulated() {
        let sim = Driver::new(Config { backend: pelton_driver::Backend::Sim, ..small() }).unwrap();
        assert_eq!(sim.backend(), pelton_driver::Backend::Sim);
    }
}

fn a_bad_setting_names_its_field(on: &Bench) {
    let bad = [
        ("ring_entries", Config { ring_entries: 3, ..small() }),
        ("completion_entries", Config { completion_entries: 1 << 17, ..small() }),
        ("max_operations", Config { max_operations: 0, ..small() }),
        ("pool_buffers", Config { pool_buffers: 3, ..small() }),
    ];
    for (field, config) in bad {
        match Driver::new(Config { backend: on.backend(), ..config }) {
            Err(Error::Config(error)) => assert_eq!(error.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

fn drivers_come_and_go(on: &Bench) {
    for _ in 0..24 {
        let driver = on.driver();
        let (one, other) = driver.local_pair();
        let recv = driver.go(Submission::recv(other, [0; 8]));
        driver.send(one, "x");
        assert_eq!(driver.end(recv).0.unwrap(), 1);
    }
}

fn a_nop_completes_at_the_next_tick(on: &Bench) {
    let driver = on.driver();
    let nop = driver.go_for(Submission::nop(), 7);
    let mut told = Vec::new();
    let tick = driver.tick(None, |completion| told.push(completion)).unwrap();
    assert_eq!((tick.completions, told.len()), (1, 1));
    assert_eq!((told[0].id, told[0].token.as_number(), told[0].more), (nop.id(), 7, false));
    assert_eq!(driver.take(nop).unwrap().unwrap(), 0);
}

fn a_tick_waits_as_long_as_it_is_told(on: &Bench) {
    let driver = on.driver();
    let (fd, _peer) = driver.local_pair();
    let waits = driver.go(Submission::recv(fd, [0; 8]));
    for _ in 0..10 {
        let tick = driver.tick(Some(Duration::ZERO), |_| panic!("nothing happens")).unwrap();
        assert_eq!((tick.completions, tick.woken), (0, false));
    }
    // A tick may end early; several of them come to the limit.
    let limit = driver.now() + Duration::from_millis(5);
    while driver.now() < limit {
        let left = limit - driver.now();
        let tick = driver.tick(Some(left), |_| panic!("nothing happens")).unwrap();
        assert_eq!((tick.completions, tick.woken), (0, false));
    }
    driver.abandon(waits);
}

fn a_submission_in_a_callback_is_told_of_later(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    // One that can be done at once: there is room to send.
    let first = driver.go_for(Submission::nop(), 1);
    let second = RefCell::new(None);
    let told = RefCell::new(Vec::new());
    driver.watch(
        |completion| {
            told.borrow_mut().push(completion.token.as_number());
            if completion.token.as_number() == 1 {
                *second.borrow_mut() = Some(driver.go_for(Submission::send(one, "x"), 2));
                assert_eq!(*told.borrow(), [1], "not inside the call");
            }
        },
        || told.borrow().len() == 2,
    );
    assert_eq!(told.into_inner(), [1, 2]);
    assert_eq!(driver.take(second.into_inner().unwrap()).unwrap().0.unwrap(), 1);
    driver.take(first).unwrap().unwrap();
    assert_eq!(driver.receive(other, 1), b"x");
}

fn a_tick_in_a_callback_is_an_error(on: &Bench) {
    let driver = on.driver();
    let nop = driver.go(Submission::nop());
    let mut inner = None;
    driver.tick(None, |_| inner = Some(driver.tick(None, |_| {}))).unwrap();
    assert_eq!(inner.unwrap().unwrap_err().kind(), std::io::ErrorKind::Deadlock);
    driver.take(nop).unwrap().unwrap();
}

fn more_than_a_queue_holds_is_told_of(on: &Bench) {
    const COUNT: usize = 100;
    let config = Config { ring_entries: 4, completion_entries: 8, ..small() };
    let driver = on.driver_with(config);
    let pairs: Vec<_> = (0..COUNT).map(|_| driver.local_pair()).collect();
    let keys: Vec<_> = pairs
        .iter()
        .enumerate()
        .map(|(n, (_, fd))| driver.go_for(Submission::recv(*fd, [0; 4]), n + 1))
        .collect();
    driver.settle();
    let sends: Vec<_> =
        pairs.iter().map(|(fd, _)| driver.go_for(Submission::send_all(*fd, "x"), 0)).collect();
    let mut told = vec![0; COUNT + 1];
    for completion in driver.until(|| keys.iter().all(|key| driver.is_done(key))) {
        told[completion.token.as_number()] += 1;
    }
    assert!(told[1..].iter().all(|n| *n == 1), "each once: {told:?}");
    for key in keys {
        assert_eq!(driver.take(key).unwrap().0.unwrap(), 1);
    }
    for send in sends {
        assert_eq!(driver.end(send).0.unwrap(), 1);
    }
}

fn more_submissions_than_the_queue_holds(on: &Bench) {
    let config = Config { ring_entries: 4, completion_entries: 8, ..small() };
    let driver = on.driver_with(config);
    let pairs: Vec<_> = (0..20).map(|_| driver.local_pair()).collect();
    for round in 0..10 {
        let mut sends = Vec::new();
        let mut recvs = Vec::new();
        for (n, (one, other)) in pairs.iter().enumerate() {
            recvs.push(driver.go(Submission::recv(*other, [0; 4])));
            sends.push(driver.go(Submission::send_all(*one, [round as u8, n as u8])));
        }
        for (n, (send, recv)) in sends.into_iter().zip(recvs).enumerate() {
            assert_eq!(driver.end(send).0.unwrap(), 2);
            let (got, buf) = driver.end(recv);
            assert_eq!(buf[0], round as u8);
            if got.unwrap() == 1 {
                assert_eq!(driver.receive(pairs[n].1, 1), [n as u8]);
            } else {
                assert_eq!(buf[1], n as u8);
            }
        }
    }
}

fn too_many_operations_are_refused(on: &Bench) {
    let driver = on.driver_with(Config { max_operations: 8, ..small() });
    let hour = driver.now() + Duration::from_secs(3600);
    let timers: Vec<_> = (0..8).map(|_| driver.go(Submission::timeout(hour))).collect();
    let (one, _other) = driver.local_pair();
    let refused = driver.submit(Submission::send(one, b"mine".to_vec()), Token::NONE).unwrap_err();
    assert_eq!(refused.error.kind(), std::io::ErrorKind::QuotaExceeded);
    assert!(refused.error.to_string().contains("max_operations"), "{}", refused.error);
    assert_eq!(refused.payload.0, b"mine", "the buffer comes back");
    timers.into_iter().for_each(|timer| driver.abandon(timer));
    assert_eq!(driver.run(Submission::send_all(one, "x")).0.unwrap(), 1, "there is room again");
}

fn a_token_follows_its_operation(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    let recv = driver.go_for(Submission::recv(other, [0; 8]), 3);
    assert_eq!(driver.token(&recv).as_number(), 3);
    driver.settle();
    driver.set_token(&recv, Token::number(5));
    let send = driver.go_for(Submission::send_all(one, "x"), 4);
    let mut told: Vec<_> = driver
        .until(|| driver.is_done(&recv) && driver.is_done(&send))
        .iter()
        .map(|told| told.token.as_number())
        .collect();
    told.sort_unstable();
    assert_eq!(told, [4, 5]);
    assert_eq!(driver.token(&recv), Token::number(5));
    let mut key = Some(recv);
    assert!(driver.take_if_done(&mut key).is_some() && key.is_none());
    driver.take(send).unwrap().0.unwrap();
}

fn a_key_of_another_driver_is_refused(on: &Bench) {
    let (one, other) = (on.driver(), on.driver());
    let nop = one.go(Submission::nop());
    one.until(|| one.is_done(&nop));
    assert!(!other.is_done(&nop));
    let nop = other.take(nop).unwrap_err();
    assert_eq!(errno(one.take(nop).unwrap()), 0);
}
