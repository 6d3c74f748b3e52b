//! Directories that are watched. A simulated system tells of no changes, and says so.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use pelton::fs::{Change, Watcher, watch};
use pelton::time;
use pelton_driver::{Backend, Directory, Token};

use crate::registry::behaviours;
use crate::{Bench, errno};

behaviours! {
    "what comes into a directory, goes and gets another name is told in its order, or a simulated system says that it does not tell" => changes_are_told
        [];
    "a watch that is given up loses no change" => a_watch_is_given_up [];
    "a directory that is removed is the end of its watch" => a_directory_is_removed [];
    "watching what is no directory is an error" => no_directory [];
    "the driver alone tells of changes, and a cancelled wait ends and loses none" => the_driver_tells_of_changes
        [];
}

/// Runs `show` with a directory of its own; or, on a simulated system, shows that nothing is told.
fn with_a_directory<F: Future<Output = ()>>(on: &Bench, show: impl FnOnce(PathBuf, Backend) -> F) {
    on.block_on(async {
        let path = on.path("watched");
        if on.is_simulated() {
            let refused = watch(&path).await.expect_err("nothing tells of changes");
            assert_eq!(refused.kind(), ErrorKind::Unsupported);
            return;
        }
        fs::create_dir(&path).expect("a directory");
        show(path, on.backend()).await;
    });
}

/// The next change that is no write, which must be this one where names are told.
async fn expect(on: Backend, watcher: &mut Watcher, change: Change) {
    loop {
        match watcher.next().await.expect("a change") {
            Change::Modified(_) => {}
            told if on == Backend::Kqueue => return assert_eq!(told, Change::Rescan),
            told => return assert_eq!(told, change),
        }
    }
}

fn name(name: &str) -> OsString {
    name.into()
}

fn changes_are_told(on: &Bench) {
    with_a_directory(on, |path, on| async move {
        let mut watcher = watch(&path).await.unwrap();
        fs::write(path.join("one"), "").unwrap();
        expect(on, &mut watcher, Change::Created(name("one"))).await;
        fs::rename(path.join("one"), path.join("two")).unwrap();
        let renamed = Change::Renamed { from: name("one"), to: name("two") };
        expect(on, &mut watcher, renamed).await;
        fs::remove_file(path.join("two")).unwrap();
        expect(on, &mut watcher, Change::Removed(name("two"))).await;
    });
}

fn a_watch_is_given_up(on: &Bench) {
    with_a_directory(on, |path, on| async move {
        let mut watcher = watch(&path).await.unwrap();
        for n in ["one", "two", "three"] {
            assert!(time::timeout(Duration::from_millis(1), watcher.next()).await.is_err());
            fs::create_dir(path.join(n)).unwrap();
            expect(on, &mut watcher, Change::Created(name(n))).await;
        }
    });
}

fn a_directory_is_removed(on: &Bench) {
    with_a_directory(on, |path, _| async move {
        let mut watcher = watch(&path).await.unwrap();
        fs::remove_dir(&path).unwrap();
        loop {
            match watcher.next().await {
                Ok(told) => assert_eq!(told, Change::Rescan),
                Err(error) => return assert_eq!(error.kind(), ErrorKind::NotFound),
            }
        }
    });
}

fn no_directory(on: &Bench) {
    with_a_directory(on, |path, _| async move {
        fs::write(path.join("file"), "").unwrap();
        let error = watch(path.join("file")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotADirectory);
        let error = watch(path.join("nothing")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

fn the_driver_tells_of_changes(on: &Bench) {
    let driver = on.driver();
    let path = on.path("watched");
    if on.is_simulated() {
        let refused = Directory::open(&path, driver.backend()).unwrap_err();
        return assert_eq!(refused.kind(), ErrorKind::Unsupported);
    }
    fs::create_dir(&path).unwrap();
    let directory = Directory::open(&path, driver.backend()).unwrap();
    let mut watch = driver.watch_directory(directory).unwrap();
    driver.keep(watch.fd());
    for n in 0..3 {
        let told = watch.submit(&driver, Token::NONE).unwrap();
        let twice = watch.submit(&driver, Token::NONE).unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::ResourceBusy);
        driver.settle();
        assert!(driver.cancel(told.id()));
        let outcome = driver.end(told);
        assert_eq!(errno(watch.take_in(outcome)), pelton_driver::errno::ECANCELED);
        assert_eq!(watch.next(), None);
        let made = n.to_string();
        fs::create_dir(path.join(&made)).unwrap();
        let told = watch.submit(&driver, Token::NONE).unwrap();
        watch.take_in(driver.end(told)).unwrap();
        match watch.next().expect("a change") {
            Change::Rescan => assert_eq!(on.backend(), Backend::Kqueue),
            change => assert_eq!(change, Change::Created(made.into())),
        }
        assert_eq!(watch.next(), None);
    }
}
