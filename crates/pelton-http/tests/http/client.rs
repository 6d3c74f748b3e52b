//! A client that says exactly what a test wants it to, on the reactor that serves it.

use std::net::SocketAddr;
use std::rc::Rc;

use pelton::net::TcpStream;

/// A connection to a server.
pub(crate) struct Client {
    stream: Rc<TcpStream>,
    /// Received, and not part of an answer yet.
    rest: Vec<u8>,
}

/// A request without a body.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        Client { stream: Rc::new(TcpStream::connect(address).await.unwrap()), rest: Vec::new() }
    }

    /// A connection that has been answered once, and is therefore among those that the server has.
    pub(crate) async fn known(address: SocketAddr) -> Client {
        let mut client = Client::connect(address).await;
        assert_eq!(client.get("/").await.1, b"/");
        client
    }

    pub(crate) async fn say(&self, bytes: impl AsRef<[u8]>) {
        self.stream.send_all(bytes.as_ref().to_vec()).await.unwrap();
    }

    /// Asks, and returns the head and the body of the answer.
    pub(crate) async fn get(&mut self, path: &str) -> (String, Vec<u8>) {
        self.say(get(path)).await;
        self.hear().await
    }

    /// The head and the body of the next answer.
    pub(crate) async fn hear(&mut self) -> (String, Vec<u8>) {
        let end = loop {
            if let Some(at) = self.rest.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.receive().await, "no answer, but the end: {}", self.text());
        };
        let head = String::from_utf8(self.rest.drain(..end).collect()).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.unwrap_or_else(|| panic!("no length: {head}")).parse().unwrap();
        while self.rest.len() < length {
            assert!(self.receive().await, "the body is cut short at {}", self.rest.len());
        }
        (head, self.rest.drain(..length).collect())
    }

    /// Waits until the server has closed the connection without an answer that nobody has heard.
    pub(crate) async fn hear_the_end(mut self) {
        while self.receive().await {}
        assert!(self.rest.is_empty(), "an answer in place of the end: {}", self.text());
    }

    /// The bytes that come until the server closes the connection.
    pub(crate) async fn hear_all(mut self) -> Vec<u8> {
        while self.receive().await {}
        self.rest
    }

    /// The connection, to send on while an answer is heard.
    pub(crate) fn stream(&self) -> Rc<TcpStream> {
        self.stream.clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.rest).into_owned()
    }

    /// Receives more. False at the end, a reset among it.
    async fn receive(&mut self) -> bool {
        match self.stream.recv().await {
            Ok(Some(lease)) => self.rest.extend_from_slice(&lease),
            Ok(None) => return false,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return false,
            Err(error) => panic!("{error}"),
        }
        true
    }
}
