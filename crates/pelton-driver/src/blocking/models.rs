//! The pool's protocol in every interleaving: no job is forgotten, and none runs twice.

use super::*;
use crate::sync::Ordering;
use crate::sync::model::{Arc, AtomicUsize, OTHERS, check_within, thread};

type Threads = Arc<Mutex<Vec<thread::JoinHandle<()>>>>;

fn pool() -> (Arc<Pool>, Threads) {
    let pool = Pool { state: Mutex::new(State::default()), work: Condvar::new() };
    (Arc::new(pool), Arc::new(Mutex::new(Vec::new())))
}

fn start(pool: &Arc<Pool>, threads: &Threads) -> std::io::Result<()> {
    let of_thread = pool.clone();
    threads.lock().unwrap().push(thread::spawn(move || work(&of_thread)));
    Ok(())
}

fn job(ran: &Arc<AtomicUsize>) -> Job {
    let ran = ran.clone();
    Box::new(move || {
        ran.fetch_add(1, Ordering::Relaxed);
    })
}

/// The ten seconds are over: every thread ends when it finds no job, and is waited for.
fn end(pool: &Arc<Pool>, threads: &Threads) {
    lock(pool).over = true;
    pool.work.notify_all();
    loop {
        // Apart: a thread that is being started is put there under this lock.
        let Some(thread) = threads.lock().unwrap().pop() else { break };
        thread.join().unwrap();
    }
    let state = lock(pool);
    assert_eq!((state.threads, state.running, state.idle), (0, 0, 0));
    assert!(state.jobs.is_empty(), "a job that nobody will ever run");
}

#[test]
fn jobs_from_several_threads_each_run_once() {
    check_within(Some(2), || {
        let ((pool, threads), ran) = (pool(), Arc::new(AtomicUsize::new(0)));
        // loom has few threads: the owner submits too, so one beside it is enough there.
        let others: Vec<_> = (1..OTHERS)
            .map(|_| {
                let (pool, threads, ran) = (pool.clone(), threads.clone(), ran.clone());
                thread::spawn(move || run_on(&pool, job(&ran), || start(&pool, &threads)).unwrap())
            })
            .collect();
        run_on(&pool, job(&ran), || start(&pool, &threads)).unwrap();
        for other in others {
            other.join().unwrap();
        }
        end(&pool, &threads);
        assert_eq!(ran.load(Ordering::Relaxed), OTHERS);
    });
}

#[test]
fn a_job_that_comes_while_a_thread_goes_to_rest_is_run_by_it_or_by_another() {
    check_within(Some(2), || {
        let ((pool, threads), ran) = (pool(), Arc::new(AtomicUsize::new(0)));
        run_on(&pool, job(&ran), || start(&pool, &threads)).unwrap();
        run_on(&pool, job(&ran), || start(&pool, &threads)).unwrap();
        end(&pool, &threads);
        assert_eq!(ran.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_job_that_comes_while_the_last_thread_ends_is_not_left_to_it() {
    check_within(Some(2), || {
        let ((pool, threads), ran) = (pool(), Arc::new(AtomicUsize::new(0)));
        run_on(&pool, job(&ran), || start(&pool, &threads)).unwrap();
        lock(&pool).over = true;
        pool.work.notify_all();
        run_on(&pool, job(&ran), || start(&pool, &threads)).unwrap();
        end(&pool, &threads);
        assert_eq!(ran.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn while_threads_are_refused_every_job_is_run_or_its_submitter_told() {
    check_within(Some(2), || {
        let ((pool, threads), ran) = (pool(), Arc::new(AtomicUsize::new(0)));
        let refuse = || Err(std::io::ErrorKind::OutOfMemory.into());
        let other = {
            let (pool, threads, ran) = (pool.clone(), threads.clone(), ran.clone());
            thread::spawn(move || run_on(&pool, job(&ran), || start(&pool, &threads)).unwrap())
        };
        let refused = run_on(&pool, job(&ran), refuse).is_err();
        other.join().unwrap();
        end(&pool, &threads);
        assert_eq!(ran.load(Ordering::Relaxed), 2 - usize::from(refused));
    });
}
