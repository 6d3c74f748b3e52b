//! Directories that are watched: what changes is told, in its order, also what changed while nobody asked.

mod common;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use common::{inside_each_backend, on_each_backend, quiet, runtime};
use pelton::Backend;
use pelton::fs::{Change, Watcher, watch};
use pelton::time;

/// A directory of a test's own.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("pelton-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Place(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// True where the system tells which entry has changed.
fn tells_names(backend: Backend) -> bool {
    backend != Backend::Kqueue
}

/// The next change that is no write: those come as often as the system likes.
async fn next(watcher: &mut Watcher) -> Change {
    loop {
        match time::timeout(Duration::from_secs(20), watcher.next()).await.expect("nothing told") {
            Ok(Change::Modified(_)) => {}
            told => return told.unwrap(),
        }
    }
}

/// Waits for this change. Where names are not told it is something.
async fn expect(backend: Backend, watcher: &mut Watcher, change: Change) {
    let told = next(watcher).await;
    assert_eq!(told, if tells_names(backend) { change } else { Change::Rescan });
}

fn name(name: &str) -> OsString {
    name.into()
}

#[test]
fn entries_that_come_go_and_get_other_names_are_told_in_their_order() {
    inside_each_backend(|on| async move {
        let place = Place::new("told");
        let mut watcher = watch(&place.0).await.unwrap();
        fs::write(place.at("one"), "").unwrap();
        expect(on, &mut watcher, Change::Created(name("one"))).await;
        fs::create_dir(place.at("n\u{e9}xt")).unwrap();
        expect(on, &mut watcher, Change::Created(name("n\u{e9}xt"))).await;
        fs::rename(place.at("one"), place.at("two")).unwrap();
        let renamed = Change::Renamed { from: name("one"), to: name("two") };
        expect(on, &mut watcher, renamed).await;
        fs::remove_file(place.at("two")).unwrap();
        expect(on, &mut watcher, Change::Removed(name("two"))).await;
        fs::remove_dir(place.at("n\u{e9}xt")).unwrap();
        expect(on, &mut watcher, Change::Removed(name("n\u{e9}xt"))).await;
    });
}

#[test]
fn writes_to_an_entry_are_told_where_the_system_tells_of_them() {
    inside_each_backend(|on| async move {
        let place = Place::new("written");
        fs::write(place.at("file"), "one").unwrap();
        let mut watcher = watch(&place.0).await.unwrap();
        fs::write(place.at("file"), "two, and longer").unwrap();
        if tells_names(on) {
            let told = time::timeout(Duration::from_secs(20), watcher.next()).await.unwrap();
            assert_eq!(told.unwrap(), Change::Modified(name("file")));
        } else {
            // Nothing but what happens to the directory itself.
            fs::remove_file(place.at("file")).unwrap();
            assert_eq!(watcher.next().await.unwrap(), Change::Rescan);
        }
    });
}

#[test]
fn what_changes_while_nobody_asks_is_kept_in_its_order() {
    inside_each_backend(|on| async move {
        let place = Place::new("kept");
        let mut watcher = watch(&place.0).await.unwrap();
        let names: Vec<_> = (0..100).map(|n| format!("entry-{n}")).collect();
        for name in &names {
            fs::create_dir(place.at(name)).unwrap();
        }
        if tells_names(on) {
            for name in &names {
                assert_eq!(next(&mut watcher).await, Change::Created(name.into()));
            }
        } else {
            assert_eq!(next(&mut watcher).await, Change::Rescan);
        }
    });
}

#[test]
fn a_wait_that_is_given_up_loses_no_change() {
    inside_each_backend(|on| async move {
        let place = Place::new("given-up");
        let mut watcher = watch(&place.0).await.unwrap();
        for n in 0..10 {
            assert!(time::timeout(Duration::from_micros(300), watcher.next()).await.is_err());
            drop(watcher.next());
            fs::create_dir(place.at(&n.to_string())).unwrap();
            expect(on, &mut watcher, Change::Created(name(&n.to_string()))).await;
        }
        drop(watcher);
        quiet().await;
    });
}

#[test]
fn what_is_moved_elsewhere_and_from_there_is_told_as_gone_and_come() {
    inside_each_backend(|on| async move {
        let (place, elsewhere) = (Place::new("moved"), Place::new("elsewhere"));
        fs::write(place.at("goes"), "").unwrap();
        let mut watcher = watch(&place.0).await.unwrap();
        fs::rename(place.at("goes"), elsewhere.at("goes")).unwrap();
        expect(on, &mut watcher, Change::Removed(name("goes"))).await;
        fs::rename(elsewhere.at("goes"), place.at("comes")).unwrap();
        expect(on, &mut watcher, Change::Created(name("comes"))).await;
    });
}

#[test]
fn two_watchers_of_one_directory_are_both_told() {
    inside_each_backend(|on| async move {
        let place = Place::new("both");
        let mut watchers = [watch(&place.0).await.unwrap(), watch(&place.0).await.unwrap()];
        fs::create_dir(place.at("one")).unwrap();
        for watcher in &mut watchers {
            expect(on, watcher, Change::Created(name("one"))).await;
        }
        let [first, mut second] = watchers;
        drop(first);
        fs::remove_dir(place.at("one")).unwrap();
        expect(on, &mut second, Change::Removed(name("one"))).await;
    });
}

#[test]
fn a_directory_that_is_removed_is_the_end_and_says_so() {
    inside_each_backend(|on| async move {
        let place = Place::new("removed");
        fs::create_dir(place.at("in-it")).unwrap();
        let path = place.at("in-it");
        let mut watcher = watch(&path).await.unwrap();
        fs::create_dir(path.join("entry")).unwrap();
        fs::remove_dir(path.join("entry")).unwrap();
        fs::remove_dir(&path).unwrap();
        if tells_names(on) {
            assert_eq!(next(&mut watcher).await, Change::Created(name("entry")));
            assert_eq!(next(&mut watcher).await, Change::Removed(name("entry")));
        } else {
            assert_eq!(next(&mut watcher).await, Change::Rescan);
        }
        for _ in 0..2 {
            let end = time::timeout(Duration::from_secs(20), watcher.next()).await;
            assert_eq!(end.expect("an end").unwrap_err().kind(), std::io::ErrorKind::NotFound);
        }
    });
}

#[test]
fn what_is_no_directory_is_an_error() {
    inside_each_backend(|_| async {
        let place = Place::new("no-directory");
        fs::write(place.at("file"), "").unwrap();
        let error = watch(place.at("file")).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotADirectory);
        let error = watch(place.at("nothing")).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    });
}

#[test]
fn a_watcher_that_outlives_its_reactor_says_so() {
    on_each_backend(|on| {
        let place = Place::new("outlives");
        let runtime = runtime(on);
        let mut watcher = runtime.block_on(watch(&place.0)).unwrap();
        drop(runtime);
        let waker = std::task::Waker::noop();
        let mut polls = 0;
        // What was in flight when the reactor ended is told first.
        loop {
            let next = std::pin::pin!(watcher.next());
            match next.poll(&mut std::task::Context::from_waker(waker)) {
                std::task::Poll::Ready(Ok(_)) => {}
                std::task::Poll::Ready(Err(_)) => break,
                std::task::Poll::Pending => panic!("it waits for nobody"),
            }
            polls += 1;
            assert!(polls < 10);
        }
    });
}

/// More than the system keeps. On Linux that is a number that anybody may read.
#[cfg(target_os = "linux")]
#[test]
fn more_than_the_system_keeps_is_told_as_that() {
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: u32 = most.trim().parse().unwrap();
    assert!(most <= 100_000, "too many to be made here: {most}");
    inside_each_backend(|on| async move {
        let place = Place::new("overflow");
        let mut watcher = watch(&place.0).await.unwrap();
        let (one, two) = (place.at("one"), place.at("two"));
        fs::write(&one, "").unwrap();
        for _ in 0..most / 4 + 10 {
            fs::rename(&one, &two).unwrap();
            fs::rename(&two, &one).unwrap();
        }
        let mut told = 0;
        while next(&mut watcher).await != Change::Rescan {
            told += 1;
        }
        assert!(told <= most / 2 + 2 && (told > most / 4 || !tells_names(on)), "{told} of {most}");
        // And it goes on.
        fs::create_dir(place.at("next")).unwrap();
        expect(on, &mut watcher, Change::Created(name("next"))).await;
    });
}
