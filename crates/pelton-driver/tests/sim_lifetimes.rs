//! Drivers that outlive the simulated system under them. For Miri: what is wrong here is what is read.
#![cfg(all(target_os = "linux", feature = "sim"))]

use std::time::Duration;

use pelton_driver::sim::{World, WorldOptions};
use pelton_driver::*;

fn driver(backend: Backend) -> Driver {
    let world = World::new(&WorldOptions::new(1));
    let _entered = world.enter();
    let config = Config {
        backend,
        ring_entries: 8,
        completion_entries: 64,
        max_operations: 64,
        max_descriptors: 256,
        pool_buffers: 2,
        pool_buffer_len: 64,
        shutdown_timeout: Duration::ZERO,
        ..Config::default()
    };
    Driver::new(config).unwrap()
}

#[test]
fn a_driver_whose_world_has_gone_is_refused_everything_and_touches_nothing_of_it() {
    for backend in [Backend::IoUring, Backend::Epoll] {
        let driver = driver(backend);
        let wake = driver.submit(Submission::wake(), Token::NONE).unwrap();
        driver.tick(Some(Duration::ZERO), |_| {}).unwrap_err();
        driver.abandon(wake);
    }
}
