//! Flights: the keys of a runtime's operations, by address.

use std::time::Instant;

use super::*;

#[track_caller]
fn launch<P: Payload>(driver: &Driver, submission: Submission<P>, token: usize) -> Flight<P> {
    // SAFETY: nothing in these tests closes a descriptor while it is launched on.
    match unsafe { driver.launch(submission, Token::number(token)) } {
        Ok(Launched::Flying(flight)) => flight,
        Ok(Launched::Over(_) | Launched::Landed(_)) => panic!("the fake kernel tries nothing"),
        Err(refused) => panic!("refused: {}", refused.error),
    }
}

/// The number by which the kernel knows a flight.
fn user_data<P>(driver: &Driver, flight: Flight<P>) -> (Flight<P>, u64) {
    // SAFETY: this driver has launched it.
    let key = unsafe { driver.key_of(flight) };
    let id = key.id().user_data();
    (driver.flight_of(key).expect("its own"), id)
}

#[test]
fn a_flight_lands_with_what_it_owned_and_for_whom_it_was_said_last() {
    let (driver, kernel) = driver();
    let (fd, census) = (attach(&driver), Census::default());
    let flight = launch(&driver, Submission::recv(fd, census.plain(8)), 2);
    let (flight, id) = user_data(&driver, flight);
    tick(&driver);
    // SAFETY: this driver has launched it, and it is taken when it has landed.
    unsafe {
        assert!(!driver.has_landed(&flight));
        assert_eq!(driver.token_in(&flight), Token::number(2));
        driver.set_token_in(&flight, Token::number(4));
        kernel.fill(id, b"four");
        assert_eq!(tick(&driver)[0].token, Token::number(4));
        assert!(driver.has_landed(&flight));
        let (n, buf) = driver.land(flight);
        assert_eq!((n.unwrap(), &buf.bytes[..4]), (4, &b"four"[..]));
    }
    assert_eq!((census.alive(), driver.operations()), (0, 0));
}

#[test]
fn a_flight_is_told_of_when_its_tick_tells_and_not_when_it_ends_before() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let (first, id) = user_data(&driver, launch(&driver, Submission::recv(fd, [0; 8]), 2));
    tick(&driver);
    // SAFETY: this driver has launched both, and each is taken when it has landed.
    unsafe {
        assert!(!driver.has_landed(&first) && !driver.is_told_of(&first));
        kernel.fill(id, b"told");
        assert!(!driver.has_landed(&first) && !driver.is_told_of(&first));
        assert_eq!(tick(&driver).len(), 1);
        assert!(driver.has_landed(&first) && driver.is_told_of(&first));
        driver.land(first).0.unwrap();
        // A timer that is cancelled has ended when the call returns, and the next tick tells of it.
        let far = Instant::now() + Duration::from_secs(1000);
        let timer = launch(&driver, Submission::timeout(far), 2);
        let timer = driver.key_of(timer);
        assert!(driver.cancel(timer.id()));
        let timer = driver.flight_of(timer).expect("its own");
        assert!(driver.has_landed(&timer) && !driver.is_told_of(&timer));
        assert_eq!(tick(&driver).len(), 1);
        assert!(driver.is_told_of(&timer));
        driver.land(timer).unwrap_err();
    }
    assert_eq!(driver.operations(), 0);
}

#[test]
fn a_token_is_changed_by_name_as_long_as_the_outcome_is_there() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let (flight, id) = user_data(&driver, launch(&driver, Submission::recv(fd, [0; 8]), 2));
    tick(&driver);
    // SAFETY: this driver has launched it, and takes it when it has landed.
    unsafe {
        let key = driver.key_of(flight);
        let name = key.id();
        driver.set_token_of(name, Token::number(6));
        kernel.fill(id, b"name");
        assert_eq!(tick(&driver)[0].token, Token::number(6));
        driver.take(key).expect("it has ended").0.unwrap();
        // Whoever has the slot now is another.
        let next = launch(&driver, Submission::recv(fd, [0; 8]), 8);
        driver.set_token_of(name, Token::number(6));
        assert_eq!(driver.token_in(&next), Token::number(8));
        driver.abandon(driver.key_of(next));
    }
}

#[test]
fn a_flight_goes_through_a_word_and_comes_back() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let flight = launch(&driver, Submission::recv(fd, vec![0; 8].into_boxed_slice()), 2);
    let (flight, id) = user_data(&driver, flight);
    let raw = flight.into_raw();
    assert_eq!(raw.addr().get() % 64, 0);
    // SAFETY: it came from the only flight there is, of this driver.
    let flight = unsafe { Flight::<Filling<Box<[u8]>>>::from_raw(raw) };
    tick(&driver);
    kernel.fill(id, b"word");
    tick(&driver);
    // SAFETY: as above, and it has landed.
    let (n, buf) = unsafe { driver.land(flight) };
    assert_eq!((n.unwrap(), &buf[..4]), (4, &b"word"[..]));
}

#[test]
fn a_flight_that_is_given_up_as_a_key_keeps_its_buffer_until_the_kernel_lets_go() {
    let (driver, kernel) = driver();
    let (fd, census) = (attach(&driver), Census::default());
    let flight = launch(&driver, Submission::recv(fd, census.plain(8)), 2);
    tick(&driver);
    let (flight, id) = user_data(&driver, flight);
    // SAFETY: this driver has launched it.
    driver.abandon(unsafe { driver.key_of(flight) });
    assert_eq!(census.alive(), 1);
    kernel.complete(id, -ECANCELED);
    assert!(tick(&driver).is_empty());
    assert_eq!((census.alive(), driver.operations()), (0, 0));
}

#[test]
fn a_launch_that_is_refused_gives_back_what_it_owned() {
    let (driver, _kernel) = driver();
    let (fd, census) = (attach(&driver), Census::default());
    // SAFETY: as in `launch`.
    let refused = unsafe { driver.launch(Submission::recv(fd, census.plain(0)), Token::NONE) };
    let Err(refused) = refused else { panic!("a buffer without room is refused") };
    let (result, buf) = refused.into_output();
    assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(census.alive(), 1);
    drop(buf);
    assert_eq!((census.alive(), driver.operations()), (0, 0));
}

#[test]
fn a_key_of_another_driver_is_no_flight_of_this_one() {
    let ((driver, kernel), (other, _)) = (driver(), self::driver());
    let key = driver.submit(Submission::recv(attach(&driver), [0; 8]), Token::NONE);
    let key = key.map_err(|refused| refused.error).unwrap();
    let key = other.flight_of(key).expect_err("of another driver");
    kernel.complete(key.id().user_data(), 0);
    tick(&driver);
    assert!(driver.take(key).is_ok());
}

#[test]
fn an_owner_of_whole_words_with_holes_comes_back_as_it_was() {
    #[derive(Debug, PartialEq)]
    #[repr(C)]
    struct Holes {
        small: u8,
        pointer: Box<[u8]>,
    }
    impl IoBuf for Holes {
        fn as_init(&self) -> &[u8] {
            &self.pointer
        }
    }
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let owner = Holes { small: 7, pointer: Box::from(*b"bytes") };
    assert_eq!(size_of::<Holes>(), 24);
    let flight = launch(&driver, Submission::send_whole(fd, owner), 2);
    let (flight, id) = user_data(&driver, flight);
    tick(&driver);
    kernel.complete(id, 5);
    tick(&driver);
    // SAFETY: this driver has launched it, and it has landed.
    let (sent, owner) = unsafe { driver.land(flight) };
    sent.unwrap();
    assert_eq!(owner, Holes { small: 7, pointer: Box::from(*b"bytes") });
}
