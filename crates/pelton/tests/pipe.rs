//! Pipes: within the process, from children, and named ones.

mod common;

use std::io::ErrorKind;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use common::{inside_each_backend, pattern, quiet};
use pelton::pipe::{PipeReader, pipe};

async fn all_of(reader: &PipeReader) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 << 16);
    loop {
        bytes.reserve(4096);
        let (n, back) = reader.read(bytes).await;
        bytes = back;
        if n.unwrap() == 0 {
            return bytes;
        }
    }
}

#[test]
fn what_is_written_is_read_up_to_the_end() {
    inside_each_backend(|_| async {
        let (reader, writer) = pipe().unwrap();
        let large = pattern(1_000_000);
        let sent = large.clone();
        let task = pelton::spawn(async move {
            let (n, buf) = writer.write(b"some".to_vec()).await;
            assert_eq!((n.unwrap(), buf), (4, b"some".to_vec()));
            writer.write_all(sent).await.0.unwrap();
            writer.close().await.unwrap();
        });
        let got = all_of(&reader).await;
        task.await.unwrap();
        assert!(got[..4] == *b"some" && got[4..] == large);
        reader.close().await.unwrap();
        quiet().await;
    });
}

#[test]
fn a_reader_that_is_dropped_breaks_the_pipe() {
    inside_each_backend(|_| async {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        loop {
            // The close is on its way.
            match writer.write_all("is anybody there?").await.0 {
                Ok(()) => pelton::yield_now().await,
                Err(error) => break assert_eq!(error.kind(), ErrorKind::BrokenPipe),
            }
        }
        quiet().await;
    });
}

#[test]
fn futures_that_are_dropped_lose_nothing_that_was_not_read() {
    inside_each_backend(|_| async {
        let (reader, writer) = pipe().unwrap();
        for n in 0..20_u8 {
            let mut cx = Context::from_waker(Waker::noop());
            {
                let mut read = pin!(reader.read([0; 8]));
                assert!(read.as_mut().poll(&mut cx).is_pending());
                let mut wait = pin!(reader.readable());
                assert!(wait.as_mut().poll(&mut cx).is_pending());
            }
            quiet().await;
            writer.write_all([n; 4]).await.0.unwrap();
            reader.readable().await.unwrap();
            let mut read = pin!(reader.read(Vec::with_capacity(8)));
            let (got, bytes) = match read.as_mut().poll(&mut cx) {
                Poll::Ready(done) => done,
                Poll::Pending => read.await,
            };
            assert_eq!((got.unwrap(), bytes), (4, vec![n; 4]));
        }
    });
}

#[test]
fn the_output_of_a_child_is_read() {
    inside_each_backend(|_| async {
        use std::process::{Command, Stdio};
        let shell = if cfg!(windows) { ["cmd", "/c"] } else { ["sh", "-c"] };
        let mut child = Command::new(shell[0])
            .args([shell[1], "echo from the child"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let reader = PipeReader::new(child.stdout.take().unwrap()).unwrap();
        assert_eq!(String::from_utf8(all_of(&reader).await).unwrap().trim(), "from the child");
        child.wait().unwrap();
    });
}

#[cfg(windows)]
mod named {
    use std::time::Duration;

    use super::*;
    use pelton::pipe::{NamedPipe, PipeClientOptions, PipeServerOptions};

    #[test]
    fn a_server_talks_to_one_client_after_the_other() {
        inside_each_backend(|_| async {
            let options = *PipeServerOptions::new().messages(true).max_instances(Some(1));
            let (name, server) = NamedPipe::create_unique(&options).unwrap();
            let task = pelton::spawn(async move {
                for _ in 0..3 {
                    server.connect().await.unwrap();
                    let (part, buf) = server.read_message(Vec::with_capacity(64)).await;
                    assert!(!part.unwrap().unwrap().more);
                    server.write_all(buf).await.0.unwrap();
                    let (end, _) = server.read_message([0; 1]).await;
                    assert_eq!(end.unwrap(), None);
                    server.disconnect().unwrap();
                }
            });
            let options = *PipeClientOptions::new().messages(true);
            for n in 0..3_u8 {
                let client = NamedPipe::open_when_free(&name, &options).await.unwrap();
                let busy = NamedPipe::open(&name, &options).await.unwrap_err();
                assert_eq!(busy.kind(), ErrorKind::ResourceBusy);
                client.write_all([n; 5]).await.0.unwrap();
                client.readable().await.unwrap();
                let (n_read, bytes) = client.read(Vec::with_capacity(64)).await;
                assert_eq!((n_read.unwrap(), bytes), (5, vec![n; 5]));
                client.close().await.unwrap();
            }
            task.await.unwrap();
            quiet().await;
        });
    }

    #[test]
    fn a_wait_for_a_client_or_for_an_instance_has_a_limit() {
        inside_each_backend(|_| async {
            let options = *PipeServerOptions::new().max_instances(Some(1));
            let (name, server) = NamedPipe::create_unique(&options).unwrap();
            let limit = Duration::from_millis(5);
            assert!(pelton::time::timeout(limit, server.connect()).await.is_err());
            let options = PipeClientOptions::new();
            let client = NamedPipe::open(&name, &options).await.unwrap();
            server.connect().await.unwrap();
            let another = NamedPipe::open_when_free(&name, &options);
            assert!(pelton::time::timeout(limit, another).await.is_err());
            drop(client);
            quiet().await;
        });
    }
}
