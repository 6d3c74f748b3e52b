//! Bringing a file to the disk.

mod common;

use std::io::Write;

use common::*;
use pelton_driver::*;

on_every_backend! {
    a_file_can_be_synced_with_and_without_its_metadata
    what_cannot_be_synced_says_so
}

fn a_file_can_be_synced_with_and_without_its_metadata(on: &On) {
    let driver = on.driver();
    let name = format!("pelton-sync-{}-{}", on.backend.name(), std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(b"content").unwrap();
    let fd = attach(&driver, file);
    for data_only in [false, true] {
        assert_eq!(driver.run(Submission::sync(fd, data_only)).unwrap(), 0);
    }
    driver.close(fd);
    std::fs::remove_file(path).unwrap();
}

fn what_cannot_be_synced_says_so(on: &On) {
    let driver = on.driver();
    let (socket, _other) = local_pair();
    let fd = attach(&driver, socket);
    for data_only in [false, true] {
        let error = driver.run(Submission::sync(fd, data_only)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}
