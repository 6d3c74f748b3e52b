//! A client that says exactly what a test wants it to, and reads answers one by one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::server::WATCHDOG;

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    /// Received, and not part of an answer yet.
    rest: Vec<u8>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case, in the order in which they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's value, empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|header| header.0 == name).map_or("", |header| &header.1)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// All but the date, to compare answers of different moments.
    pub(crate) fn without_date(mut self) -> Answer {
        self.headers.retain(|header| header.0 != "date");
        self
    }
}

/// A request for a path, with more lines behind its own.
pub(crate) fn request(method: &str, path: &str, lines: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{lines}\r\n")
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, WATCHDOG)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WATCHDOG))?;
        stream.set_write_timeout(Some(WATCHDOG))?;
        Ok(Client { stream, rest: Vec::new() })
    }

    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_say(bytes).unwrap();
    }

    /// Says something, unless the connection has ended.
    pub(crate) fn try_say(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Asks, and reads the answer.
    pub(crate) fn get(&mut self, path: &str, lines: &str) -> Answer {
        self.say(request("GET", path, lines));
        self.hear()
    }

    /// As [`Client::get`], for HEAD.
    pub(crate) fn head(&mut self, path: &str, lines: &str) -> Answer {
        self.say(request("HEAD", path, lines));
        self.hear_head().unwrap()
    }

    /// Reads one answer with its body.
    pub(crate) fn hear(&mut self) -> Answer {
        self.try_hear().unwrap()
    }

    /// Reads one answer with its body, unless the connection ends before.
    pub(crate) fn try_hear(&mut self) -> io::Result<Answer> {
        let mut answer = self.hear_head()?;
        let length = match answer.header("content-length") {
            "" => 0,
            length => length.parse().unwrap(),
        };
        while self.rest.len() < length {
            self.receive()?;
        }
        answer.body = self.rest.drain(..length).collect();
        Ok(answer)
    }

    /// Reads the head of an answer.
    pub(crate) fn hear_head(&mut self) -> io::Result<Answer> {
        let end = loop {
            if let Some(end) = self.rest.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            self.receive()?;
        };
        let head: Vec<u8> = self.rest.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).unwrap();
        let status = status.split(' ').next().unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Ok(Answer { status, headers: headers.collect(), body: Vec::new() })
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut bytes = vec![0; 64 * 1024];
        let n = loop {
            match self.stream.read(&mut bytes) {
                // The end of a ring that this thread has tried may interrupt what it does next.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.rest.extend_from_slice(&bytes[..n]);
        Ok(())
    }

    /// Reads the body of an answer whose head has been read.
    pub(crate) fn hear_body(&mut self, want: &[u8]) {
        while self.rest.len() < want.len() {
            self.receive().unwrap();
        }
        assert!(self.rest.drain(..want.len()).eq(want.iter().copied()));
    }

    /// Whether a part of an answer has come that nobody has read.
    pub(crate) fn has_heard_something(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Waits until the server has closed the connection, having sent no more than was read.
    pub(crate) fn hear_the_end(mut self) {
        assert!(self.rest.is_empty(), "{:?}", String::from_utf8_lossy(&self.rest));
        match self.receive() {
            Ok(()) => panic!("it goes on: {:?}", String::from_utf8_lossy(&self.rest)),
            Err(error) => match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {}
                _ => panic!("it does not end: {error}"),
            },
        }
    }

    /// The server's numbers, of all reactors together, by name.
    pub(crate) fn numbers(&mut self) -> Numbers {
        let answer = self.get("/_pelton/counters.json", "");
        assert_eq!(answer.status, 200);
        Numbers(serde_json::from_slice(&answer.body).unwrap())
    }

    /// Asks for the numbers until they are as they should be.
    pub(crate) fn numbers_when(&mut self, like: impl Fn(&Numbers) -> bool) -> Numbers {
        let begun = Instant::now();
        loop {
            let numbers = self.numbers();
            if like(&numbers) {
                return numbers;
            }
            assert!(begun.elapsed() < WATCHDOG, "they stay like this: {}", numbers.0);
            // Asking for ever is no synchronisation, and need not take a processor of its own.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What `/_pelton/counters.json` says.
#[derive(Debug)]
pub(crate) struct Numbers(pub(crate) serde_json::Value);

impl Numbers {
    /// One number, of all reactors together.
    pub(crate) fn of(&self, name: &str) -> u64 {
        let reactors = self.0["reactors"].as_array().unwrap();
        let one = |reactor: &serde_json::Value| {
            let value =
                [&reactor["counters"], &reactor["http"]].into_iter().find_map(|it| it.get(name));
            value.and_then(serde_json::Value::as_u64).unwrap_or_else(|| panic!("no number {name}"))
        };
        reactors.iter().map(one).sum()
    }
}
