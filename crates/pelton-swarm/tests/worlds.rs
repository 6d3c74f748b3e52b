//! Some seeds of every world, in every run of the tests. `cargo xtask sim` runs more.

use pelton_swarm::{Options, worlds};

fn some_seeds(name: &str, seeds: u64) {
    let world = worlds().iter().find(|world| world.name == name).expect("a world of that name");
    let options = Options { twice: true, ..Options::default() };
    let mut events = 0;
    for seed in 0..seeds {
        match (world.run)(seed, &options) {
            Ok(stats) => events += stats.events,
            Err(failure) => panic!("{name}: {failure}"),
        }
    }
    assert!(events > 100, "the world did next to nothing: {events} events");
}

#[test]
fn chaos_ends_in_order() {
    some_seeds("chaos", 60);
}

#[test]
fn every_echo_is_what_was_sent_and_no_timer_is_early() {
    some_seeds("echo", 15);
}

#[test]
fn connections_that_churn_never_mix() {
    some_seeds("churn", 15);
}

#[test]
fn tasks_end_as_they_were_ended() {
    some_seeds("tasks", 10);
}

#[test]
fn no_post_is_lost() {
    some_seeds("posts", 20);
}

#[test]
fn what_was_synced_survives() {
    some_seeds("files", 20);
}

#[test]
fn every_datagram_that_came_was_sent() {
    some_seeds("datagrams", 20);
}

#[test]
fn every_errand_comes_to_its_end() {
    some_seeds("errands", 6);
}

/// The worlds on completion ports, in builds for tests that have them.
#[cfg(pelton_iocp_elsewhere)]
mod ports {
    use super::some_seeds;

    #[test]
    fn chaos_ends_in_order() {
        some_seeds("chaos-ports", 60);
    }

    #[test]
    fn every_echo_is_what_was_sent_and_no_timer_is_early() {
        some_seeds("echo-ports", 15);
    }

    #[test]
    fn connections_that_churn_never_mix() {
        some_seeds("churn-ports", 15);
    }

    #[test]
    fn no_post_is_lost() {
        some_seeds("posts-ports", 20);
    }

    #[test]
    fn what_was_synced_survives() {
        some_seeds("files-ports", 20);
    }

    #[test]
    fn every_datagram_that_came_was_sent() {
        some_seeds("datagrams-ports", 20);
    }

    #[test]
    fn places_and_directions_do_not_mix() {
        some_seeds("places-ports", 20);
    }

    #[test]
    fn every_errand_comes_to_its_end() {
        some_seeds("errands-ports", 6);
    }
}
