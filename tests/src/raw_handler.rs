//! A handler below HTTP: it reads a call, or not, and answers with bytes, or not, as no HTTP library
//! would. Each connection is a call and has a thread of its own.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use hookwell_common::lifecycle::spawn_thread;
use rustix::net::sockopt::set_socket_linger;

use crate::wait;

/// A call as far as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawCall {
    /// The event's id.
    pub event: String,
    /// Which attempt it is.
    pub attempt: String,
    /// The idempotency key.
    pub key: String,
}

/// Somebody who calls.
#[derive(Debug)]
pub struct Caller<'s> {
    /// How many connected before.
    pub number: usize,
    stream: TcpStream,
    shared: &'s Shared,
}

/// The running handler; ended when dropped.
pub struct RawHandler {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    calls: Mutex<Vec<RawCall>>,
    connections: AtomicUsize,
    is_over: AtomicBool,
}

impl fmt::Debug for RawHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawHandler").field("port", &self.port).finish_non_exhaustive()
    }
}

impl RawHandler {
    /// Has `behave` deal with each caller. What it returns ends the connection and nothing else: a
    /// caller that has had enough is an error to whoever still writes.
    pub fn start(behave: impl Fn(&mut Caller<'_>) -> io::Result<()> + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let (ours, behave) = (Arc::clone(&shared), Arc::new(behave));
        spawn_thread("raw-handler", move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ours.is_over.load(Ordering::Relaxed) {
                    break;
                }
                let number = ours.connections.fetch_add(1, Ordering::Relaxed);
                let (shared, behave) = (Arc::clone(&ours), Arc::clone(&behave));
                let serve = move || behave(&mut Caller { number, stream, shared: &shared }).ok();
                if spawn_thread(format!("call-{number}"), serve).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { port, shared })
    }

    /// Where calls go.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// The calls that were read so far.
    pub fn calls(&self) -> Vec<RawCall> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connected so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for RawHandler {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // The listener's thread looks up, and ends.
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok();
    }
}

impl Caller<'_> {
    /// Reads the whole call.
    pub fn read(&mut self) -> io::Result<RawCall> {
        let mut bytes = Vec::new();
        let end = loop {
            match bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => self.read_some(&mut bytes)?,
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let header = |name: &str| {
            let value = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.unwrap_or_default().to_owned()
        };
        let length: usize = header("content-length").parse().unwrap_or_default();
        while bytes.len() < end + length {
            self.read_some(&mut bytes)?;
        }
        let (event, attempt) = (header("hookwell-event-id"), header("hookwell-attempt"));
        let call = RawCall { event, attempt, key: header("webhook-id") };
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call.clone());
        Ok(call)
    }

    /// Sends `bytes`.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends `bytes` one by one, a moment apart, until the caller has had enough.
    pub fn trickle(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.iter().try_for_each(|byte| {
            wait::pause(Duration::from_millis(20));
            self.send([*byte])
        })
    }

    /// Sends `bytes` again and again until the caller has had enough.
    pub fn repeat(&mut self, bytes: &[u8]) -> io::Result<()> {
        while !self.shared.is_over.load(Ordering::Relaxed) {
            self.send(bytes)?;
        }
        Ok(())
    }

    /// Says nothing more, and waits until the caller is gone.
    pub fn hang(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(wait::PATIENCE))?;
        while 0 < self.stream.read(&mut [0; 1024])? {}
        Ok(())
    }

    /// Ends the connection with a reset and not in order.
    pub fn reset(&mut self) -> io::Result<()> {
        Ok(set_socket_linger(&self.stream, Some(Duration::ZERO))?)
    }

    /// Says that nothing more comes, and waits until the caller is gone.
    pub fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        self.hang()
    }

    fn read_some(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                bytes.extend_from_slice(&buffer[..length]);
                Ok(())
            }
        }
    }
}
