//! Files: a log that is written ahead and synced, on a host that loses power now and then. What was synced is
//! there afterwards, in its order, as long as the disk has not lied.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use pelton::fs::File;
use pelton::sim::Sim;
use pelton::time;

use crate::hosted::{must, pause};
use crate::pattern;

const RECORD: usize = 700;

/// What somebody outside knows of the logs: of each life's, its records that were synced and written.
#[derive(Default)]
struct Known {
    lives: RefCell<Vec<(u64, u64)>>,
    rounds: Cell<u64>,
}

pub(crate) fn scenario(sim: &Sim) {
    let lies = sim.world().rate(pelton::sim::Fault::LyingSync) > 0;
    let known = Rc::new(Known::default());
    let watched = known.clone();
    sim.host("store", move || store(known.clone(), lies));
    for number in 0..4 {
        let at = Duration::from_millis(20 + 97 * number);
        sim.at(at, |sim| sim.crash("store"));
        sim.at(at + Duration::from_millis(30), |sim| sim.restart("store"));
    }
    sim.client("watcher", async move {
        while watched.rounds.get() < 40 || watched.lives.borrow().len() < 3 {
            time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    });
}

fn record(life: usize, number: u64) -> Vec<u8> {
    pattern::bytes(life as u64, number * RECORD as u64, RECORD)
}

async fn store(known: Rc<Known>, lies: bool) -> io::Result<()> {
    let lives = known.lives.borrow().len();
    for life in 0..lives {
        recover(&known, life, lies).await;
    }
    let life = lives;
    known.lives.borrow_mut().push((0, 0));
    let log = loop {
        match File::create(format!("/log{life}")).await {
            Ok(log) => break log,
            Err(_) => pause().await,
        }
    };
    let mut number = 0;
    loop {
        known.rounds.set(known.rounds.get() + 1);
        let batch = 1 + pelton::random() % 3;
        for _ in 0..batch {
            known.lives.borrow_mut()[life].1 = number + 1;
            write(&log, number * RECORD as u64, record(life, number)).await;
            number += 1;
        }
        if log.sync_all().await.is_ok() {
            known.lives.borrow_mut()[life].0 = number;
        }
        time::sleep(Duration::from_millis(pelton::random() % 5)).await;
    }
}

/// Writes all of a record, however often that fails.
async fn write(log: &File, mut offset: u64, mut rest: Vec<u8>) {
    while !rest.is_empty() {
        let (wrote, back) = log.write_at(rest, offset).await;
        rest = back;
        match wrote {
            Ok(n) => {
                must!(n > 0 && n <= rest.len(), "a write says {n}");
                rest.drain(..n);
                offset += n as u64;
            }
            Err(_) => pause().await,
        }
    }
}

async fn recover(known: &Known, life: usize, lies: bool) {
    let (synced, written) = known.lives.borrow()[life];
    let log = loop {
        match File::open(format!("/log{life}")).await {
            Ok(log) => break log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                must!(synced == 0 || lies, "a log that was synced is gone");
                return;
            }
            Err(_) => pause().await,
        }
    };
    let mut bytes = Vec::new();
    loop {
        let (read, piece) = log.read_at(Vec::with_capacity(500), bytes.len() as u64).await;
        match read {
            Ok(0) => break,
            Ok(n) => {
                must!(n == piece.len(), "a read says another number than it brings");
                bytes.extend_from_slice(&piece);
            }
            Err(_) => pause().await,
        }
    }
    must!(bytes.len() as u64 <= written * RECORD as u64, "a log has more than was written");
    if lies {
        return;
    }
    let certain = (synced * RECORD as u64) as usize;
    must!(bytes.len() >= certain, "{} bytes of {certain} that were synced", bytes.len());
    must!(pattern::matches(life as u64, 0, &bytes[..certain]), "what was synced has changed");
}
