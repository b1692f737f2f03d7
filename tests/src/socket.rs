//! A client below HTTP: bytes as they are, for what no HTTP library would send.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use anyhow::{Context as _, Result};

use crate::sender::Signed;
use crate::wait;

/// One connection.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The status line and the headers, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Socket {
    /// Connects to the ingest that listens on `port`.
    pub fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("no connection")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(wait::PATIENCE))?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// [`Socket::connect`], and the first bytes.
    pub fn sending(port: u16, bytes: impl AsRef<[u8]>) -> Result<Self> {
        let mut socket = Self::connect(port)?;
        socket.send(bytes)?;
        Ok(socket)
    }

    /// Sends `bytes`.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.stream.write_all(bytes.as_ref())?)
    }

    /// Says that nothing more comes.
    pub fn finish(&self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Waits for the next answer.
    pub fn answer(&mut self) -> Result<Answered> {
        let end = loop {
            match self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => self.read().context("no answer")?,
            }
        };
        let head = String::from_utf8_lossy(&self.unread[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(Ok(0), |length| length.trim().parse())?;
        while self.unread.len() < end + length {
            self.read().context("half an answer")?;
        }
        let body = String::from_utf8_lossy(&self.unread[end..end + length]).into_owned();
        self.unread.drain(..end + length);
        Ok(Answered { status, head, body })
    }

    /// Sends `drop` again and again until the other side has closed the connection.
    pub fn trickle_until_closed(&mut self, drop: &[u8]) -> Result<()> {
        self.stream.set_read_timeout(Some(std::time::Duration::from_millis(50)))?;
        wait::until("a connection to be closed", || match self.send(drop).and_then(|()| self.read()) {
            Ok(()) => Ok(None),
            Err(error) => match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
                Some(ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
                Some(_) | None => Ok(Some(())),
            },
        })
    }

    fn read(&mut self) -> Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(std::io::Error::from(ErrorKind::UnexpectedEof).into()),
            length => {
                self.unread.extend_from_slice(&buffer[..length]);
                Ok(())
            }
        }
    }
}

/// The head of a request for `signed`, with `more` lines of headers, each ended.
pub fn head(signed: &Signed, more: &str) -> String {
    let lines: String = signed.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("POST /webhooks/{} HTTP/1.1\r\nhost: tests\r\n{lines}{more}\r\n", signed.source)
}

/// The whole request for `signed`, with `more` lines of headers.
pub fn request(signed: &Signed, more: &str) -> Vec<u8> {
    let length = format!("content-length: {}\r\n", signed.body.len());
    [head(signed, &(length + more)).as_bytes(), &signed.body].concat()
}

/// `body` in chunks of `size`.
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}
