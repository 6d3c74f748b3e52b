//! Bringing a file to the disk.

use std::io::Write;

use pelton_driver::{Backend, Config, Driver, Submission, Token};

fn on_each_backend(test: impl Fn(&Driver)) {
    for backend in [Backend::IoUring, Backend::Epoll] {
        match Driver::new(Config { backend, ..Config::default() }) {
            Ok(driver) => test(&driver),
            Err(reason) => println!("skipped on {backend}: {reason}"),
        }
    }
}

fn outcome(
    driver: &Driver,
    submission: Submission<pelton_driver::Plain>,
) -> std::io::Result<usize> {
    let key = driver.submit(submission, Token::NONE).unwrap();
    while !driver.is_done(&key) {
        driver.tick(None, |_| {}).unwrap();
    }
    driver.take(key).unwrap()
}

#[test]
fn a_file_can_be_synced_with_and_without_its_metadata() {
    on_each_backend(|driver| {
        let path = std::env::temp_dir().join(format!("pelton-sync-{}", std::process::id()));
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(b"content").unwrap();
        let fd = driver.attach(file.into()).unwrap();
        assert_eq!(outcome(driver, Submission::sync(fd, false)).unwrap(), 0);
        assert_eq!(outcome(driver, Submission::sync(fd, true)).unwrap(), 0);
        driver.close(fd);
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn what_cannot_be_synced_says_so() {
    on_each_backend(|driver| {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let fd = driver.attach(socket.into()).unwrap();
        let error = outcome(driver, Submission::sync(fd, false)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    });
}
