//! A host at which senders publish their keys: it answers as it is told, and counts.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use hookwell_common::lifecycle::spawn_thread;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::wait;

/// How a question is answered.
#[derive(Clone, Debug)]
pub enum Page {
    /// 200, with a body.
    Body(String),
    /// Another status, with a header.
    Status(u16, String),
    /// Not at all, until whoever asks has had enough.
    Silence,
    /// 200, with a body that does not end.
    Endless,
}

#[derive(Debug, Default)]
struct Shared {
    pages: Mutex<BTreeMap<String, Page>>,
    asked: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

/// The running host; ended when dropped.
#[derive(Debug)]
pub struct KeyServer {
    port: u16,
    url: String,
    shared: Arc<Shared>,
}

impl KeyServer {
    /// One without a page: it answers 404.
    pub fn start() -> Result<Self> {
        Self::listen(None)
    }

    /// The same on TLS, at `https://localhost`.
    pub fn start_with(tls: ServerConfig) -> Result<Self> {
        Self::listen(Some(Arc::new(tls)))
    }

    fn listen(tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        let url = match &tls {
            None => format!("http://127.0.0.1:{port}"),
            Some(_) => format!("https://localhost:{port}"),
        };
        spawn_thread("key-server", move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ours.is_over.load(Ordering::Relaxed) {
                    break;
                }
                let (shared, tls) = (Arc::clone(&ours), tls.clone());
                if spawn_thread("question", move || shared.serve(stream, tls).ok()).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { port, url, shared })
    }

    /// What `keys_url` is to be.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on `path` is answered so.
    pub fn publish(&self, path: &str, page: Page) {
        self.shared.pages.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), page);
    }

    /// Every path that was asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
        stream.set_read_timeout(Some(wait::PATIENCE))?;
        match tls {
            None => self.answer(stream),
            Some(tls) => {
                let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
                self.answer(StreamOwned::new(connection, stream))
            }
        }
    }

    fn answer(&self, mut stream: impl Read + Write) -> io::Result<()> {
        let mut bytes = Vec::new();
        while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                length => bytes.extend_from_slice(&buffer[..length]),
            }
        }
        let head = String::from_utf8_lossy(&bytes);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        let page = self.pages.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
        match page.unwrap_or(Page::Status(404, String::new())) {
            Page::Body(body) => {
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                )
            }
            Page::Status(status, header) => {
                write!(
                    stream,
                    "HTTP/1.1 {status} x\r\n{header}content-length: 0\r\nconnection: close\r\n\r\n"
                )
            }
            Page::Silence => {
                while 0 < stream.read(&mut [0; 1024])? {}
                Ok(())
            }
            Page::Endless => {
                write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
                while !self.is_over.load(Ordering::Relaxed) {
                    stream.write_all(&[b'x'; 4096])?;
                }
                Ok(())
            }
        }
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // The listener's thread looks up, and ends.
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok();
    }
}
