//! Senders: they sign each request on the fly, keep their connections, and send the next as soon
//! as the last is answered.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use hookwell_common::lifecycle::Clock;
use ring::hmac;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::record::{body, event_id};

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// The port on 127.0.0.1.
    pub(crate) port: u16,
    /// How many connections, each with one request at a time.
    pub(crate) connections: usize,
    /// For how long.
    pub(crate) time: Duration,
    /// At most so many requests.
    pub(crate) most: u64,
    /// The length of a body.
    pub(crate) bytes: usize,
    /// What all ids begin with.
    pub(crate) run: String,
    /// The first event's number.
    pub(crate) first: u64,
    /// What it is signed with.
    pub(crate) secret: &'static str,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// Answers by their status.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// The numbers of the events that heard 200.
    pub(crate) accepted: Vec<u64>,
}

impl Sent {
    /// Requests that were answered, which all were.
    pub(crate) fn requests(&self) -> u64 {
        self.statuses.values().sum()
    }
}

impl Load {
    /// Sends, on this thread.
    pub(crate) fn send(&self) -> Result<Sent> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let crowd = Crowd {
            load: self,
            key: hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes()),
            clock: Clock::start(),
            next: Cell::new(self.first),
            sent: RefCell::default(),
        };
        runtime.block_on(try_join_all((0..self.connections).map(|_| crowd.converse())))?;
        Ok(crowd.sent.into_inner())
    }
}

/// All connections, on one thread.
struct Crowd<'l> {
    load: &'l Load,
    key: hmac::Key,
    clock: Clock,
    next: Cell<u64>,
    sent: RefCell<Sent>,
}

impl Crowd<'_> {
    async fn converse(&self) -> Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.load.port)).await?;
        stream.set_nodelay(true)?;
        let (mut request, mut answer) = (Vec::with_capacity(4096), Vec::with_capacity(4096));
        while self.clock.mono() < self.load.time && self.next.get() < self.load.first + self.load.most {
            let n = self.next.replace(self.next.get() + 1);
            self.write(n, &mut request);
            stream.write_all(&request).await?;
            let status = read_answer(&mut stream, &mut answer).await?;
            let mut sent = self.sent.borrow_mut();
            *sent.statuses.entry(status).or_default() += 1;
            if status == 200 {
                sent.accepted.push(n);
            }
        }
        Ok(())
    }

    /// The request of event `n`, as GitHub would send it.
    fn write(&self, n: u64, request: &mut Vec<u8>) {
        let id = event_id(&self.load.run, n);
        let body = body(&id, self.load.bytes);
        let signature = hex::encode(hmac::sign(&self.key, &body));
        request.clear();
        let head = format!(
            "POST /webhooks/github HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: GitHub-Hookshot/044aadd\r\n\
             content-type: application/json\r\nx-github-event: push\r\nx-github-delivery: {id}\r\n\
             x-hub-signature-256: sha256={signature}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(&body);
    }
}

/// Reads one answer to its end, and gives its status.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<u16> {
    buffer.clear();
    loop {
        ensure!(0 < stream.read_buf(buffer).await?, "the connection was closed without an answer");
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut answer = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) = answer.parse(buffer)? else { continue };
        let status = answer.code.context("an answer without a status")?;
        let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.map_or("0", |header| std::str::from_utf8(header.value).unwrap_or("0"));
        let missing = (head + length.parse::<usize>()?).saturating_sub(buffer.len());
        if missing == 0 {
            return Ok(status);
        }
        if 64 * 1024 < missing {
            bail!("an answer of {length} bytes");
        }
    }
}
