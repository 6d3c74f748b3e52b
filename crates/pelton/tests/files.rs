//! Files: reading and writing at an offset, wherever that is.

mod common;

use std::future::poll_fn;
use std::path::PathBuf;
use std::task::Poll;

use common::{inside_each_backend, pattern, quiet};
use pelton::fs::File;
#[cfg(unix)]
use pelton::{Backend, Handle};

/// A file that is removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        Scratch(std::env::temp_dir().join(format!("pelton-files-{}-{name}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn write_all_at(file: &File, mut bytes: Vec<u8>, mut offset: u64) {
    while !bytes.is_empty() {
        let written;
        (written, bytes) = file.write_at(bytes, offset).await;
        let written = written.unwrap();
        assert!(written > 0);
        bytes.drain(..written);
        offset += written as u64;
    }
}

async fn read_all_at(file: &File, len: usize, offset: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let read;
        let at = offset + bytes.len() as u64;
        (read, bytes) = file.read_at(bytes, at).await;
        if read.unwrap() == 0 {
            break;
        }
    }
    bytes
}

#[test]
fn what_is_written_at_an_offset_is_read_there_also_past_four_gibibytes() {
    inside_each_backend(|backend| async move {
        let path = Scratch::new(&format!("sparse-{backend}"));
        let file = File::create(&path.0).await.unwrap();
        // Sparse: nothing between is on the disk.
        let offsets = [0, 1, (1 << 32) - 5, 1 << 32, (5 << 30) + 3];
        for (n, offset) in offsets.into_iter().enumerate() {
            write_all_at(&file, pattern(10_000 + n), offset).await;
            assert_eq!(
                read_all_at(&file, 10_000 + n, offset).await,
                pattern(10_000 + n),
                "{offset}"
            );
        }
        // No offset was cut to 32 bits: the start is what was last written there.
        assert_eq!(read_all_at(&file, 10_001, 1).await, pattern(10_001));
        assert_eq!(read_all_at(&file, 100, 1 << 31).await, [0; 100], "a hole reads as zeros");
        let end = (5u64 << 30) + 3 + 10_004;
        assert_eq!(std::fs::metadata(&path.0).unwrap().len(), end);
        assert_eq!(file.read_at([0u8; 16], end).await.0.unwrap(), 0, "the end of the file");
        assert_eq!(file.read_at([0u8; 16], 1 << 40).await.0.unwrap(), 0);
        assert_eq!(file.read_at([0u8; 16], end - 4).await.0.unwrap(), 4);
        quiet().await;
    });
}

#[test]
fn reading_fills_a_vec_behind_what_it_has() {
    inside_each_backend(|backend| async move {
        let path = Scratch::new(&format!("behind-{backend}"));
        std::fs::write(&path.0, "0123456789").unwrap();
        let file = File::open(&path.0).await.unwrap();
        let mut buf = Vec::with_capacity(20);
        buf.extend_from_slice(b"read: ");
        let (read, buf) = file.read_at(buf, 4).await;
        assert_eq!(read.unwrap(), 6);
        assert_eq!(buf, b"read: 456789");
        let (read, _) = file.read_at(Vec::new(), 0).await;
        assert!(read.is_err(), "no room is no end of the file");
        assert!(format!("{file:?}").contains("File"));
    });
}

#[test]
fn what_a_file_does_not_allow_is_an_error_and_the_buffer_comes_back() {
    inside_each_backend(|backend| async move {
        let path = Scratch::new(&format!("denied-{backend}"));
        std::fs::write(&path.0, "read only").unwrap();
        let file = File::open(&path.0).await.unwrap();
        let (written, buf) = file.write_at(pattern(100), 0).await;
        assert_eq!(written.unwrap_err().raw_os_error(), Some(pelton::driver::errno::EBADF));
        assert_eq!(buf, pattern(100));
        for offset in [1 << 63, u64::MAX] {
            let (read, buf) = file.read_at(Vec::with_capacity(10), offset).await;
            assert!(read.is_err(), "an offset past what a file can have");
            assert_eq!(buf.capacity(), 10);
        }
        let only_writes = std::fs::File::options().write(true).open(&path.0).unwrap();
        let only_writes = File::from_std(only_writes).unwrap();
        assert_eq!(
            only_writes.read_at([0u8; 4], 0).await.0.unwrap_err().raw_os_error(),
            Some(pelton::driver::errno::EBADF)
        );
        only_writes.write_at("READ", 0).await.0.unwrap();
        assert_eq!(read_all_at(&file, 9, 0).await, b"READ only");
        let error = File::open(path.0.join("not a directory")).await.unwrap_err();
        // Windows does not tell which part of a path is not there.
        let expected = std::io::ErrorKind::NotADirectory;
        assert!(error.kind() == expected || cfg!(windows), "{error}");
        assert!(File::open("/nobody/has/this").await.is_err());
        if cfg!(unix) {
            let (read, _) = File::open("/tmp").await.unwrap().read_at([0u8; 4], 0).await;
            assert!(read.is_err(), "a directory is not read");
        }
    });
}

#[test]
fn many_reads_and_writes_at_once_keep_to_their_places() {
    inside_each_backend(|backend| async move {
        let path = Scratch::new(&format!("many-{backend}"));
        let file = std::rc::Rc::new(File::create(&path.0).await.unwrap());
        let tasks: Vec<_> = (0..100u8)
            .map(|n| {
                let file = file.clone();
                pelton::spawn(async move {
                    let offset = u64::from(n) * 5000;
                    write_all_at(&file, vec![n; 5000], offset).await;
                    assert_eq!(read_all_at(&file, 5000, offset).await, [n; 5000]);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let all = std::fs::read(&path.0).unwrap();
        assert!(all.chunks(5000).enumerate().all(|(n, chunk)| chunk == [n as u8; 5000]));
        file.sync_data().await.unwrap();
        file.sync_all().await.unwrap();
    });
}

#[test]
fn reads_and_writes_that_are_dropped_leave_nothing_behind() {
    inside_each_backend(|backend| async move {
        let path = Scratch::new(&format!("dropped-{backend}"));
        let before = common::open_descriptors();
        for round in 0..100 {
            let file = File::create(&path.0).await.unwrap();
            let mut write = Box::pin(file.write_at(pattern(100_000), 0));
            let mut read = Box::pin(file.read_at(Vec::with_capacity(100_000), 0));
            poll_fn(|cx| {
                let _ = (write.as_mut().poll(cx).is_ready(), read.as_mut().poll(cx).is_ready());
                Poll::Ready(())
            })
            .await;
            if round % 2 == 0 {
                pelton::yield_now().await;
            }
            drop((write, read));
            // The close waits for what the pool or the kernel still does with it.
            drop(file);
            quiet().await;
        }
        common::closed_down_to(before).await;
    });
}

#[cfg(unix)]
const READERS: u64 = 32;
#[cfg(unix)]
const READS: u64 = 50;

#[cfg(unix)]
async fn read_many(file: &File) {
    for _ in 0..READS {
        let (read, buf) = file.read_at([0u8; 64], 64).await;
        assert_eq!((read.unwrap(), &buf[..]), (64, &pattern(4096)[64..128]));
    }
}

#[cfg(unix)]
#[test]
fn one_reader_of_what_is_cached_enters_no_kernel_wait_and_many_share_each_entry() {
    inside_each_backend(|backend| async move {
        let path = Scratch::new(&format!("cached-{backend}"));
        std::fs::write(&path.0, pattern(4096)).unwrap();
        let handle = Handle::current();
        let enters = || handle.counters().enters.get();
        let file = File::open(&path.0).await.unwrap();
        let before = enters();
        read_many(&file).await;
        assert_eq!(enters() - before, 0, "alone: at once");

        let mut files = Vec::new();
        for _ in 0..READERS {
            files.push(File::open(&path.0).await.unwrap());
        }
        let before = (enters(), handle.counters().completions.get());
        let tasks: Vec<_> = files
            .into_iter()
            .map(|file| pelton::spawn(async move { read_many(&file).await }))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let (enters, reads) = (enters() - before.0, handle.counters().completions.get() - before.1);
        assert!(reads >= READERS * READS, "{reads} reads");
        assert!(enters <= 4 * READS, "{enters} entries for {reads} reads of {READERS} at a time");
        if backend == Backend::IoUring {
            assert!(enters >= READS / 2, "{enters} entries: they did not go through the ring");
        }
    });
}

#[test]
fn a_file_is_sent_over_a_connection() {
    inside_each_backend(|_| async {
        let path = std::env::temp_dir().join(format!("pelton-send-file-{}", std::process::id()));
        let content = common::pattern(500_000);
        std::fs::write(&path, &content).unwrap();
        let file = pelton::fs::File::open(&path).await.unwrap();
        let (one, other) = common::pair().await;
        let (sent, got) = {
            let receives = pelton::spawn(async move { common::read_n(&other, 400_000).await });
            (one.send_file(&file, 100_000, u64::MAX).await.unwrap(), receives.await.unwrap())
        };
        assert_eq!(sent, 400_000);
        assert!(got == content[100_000..]);
        // Given up in the middle, it leaves both as they were.
        let (one, _other) = common::pair().await;
        let limit = std::time::Duration::from_millis(1);
        loop {
            // Until the connection holds no more.
            let send = one.send_file(&file, 0, u64::MAX);
            if pelton::time::timeout(limit, send).await.is_err() {
                break;
            }
        }
        drop(one);
        assert_eq!(file.read_at(vec![0; 10], 0).await.0.unwrap_or(10), 10);
        common::quiet().await;
        drop(file);
        std::fs::remove_file(path).unwrap();
    });
}
