//! A handler behind HTTP that does as it is told, and remembers each call.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt, web};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use hookwell_common::lifecycle::{Clock, spawn_thread};

use crate::ledger::{self, Ledger};
use crate::wait;

/// One call, as it came.
#[derive(Clone)]
pub struct Call {
    /// Where it came to: `/` and the destination's name.
    pub path: String,
    /// Every header, by its lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Bytes,
    /// When it came, milliseconds since the epoch.
    pub at: u64,
    /// The status that it was answered with.
    pub status: u16,
}

/// Without the body: failures of tests are read by people.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (event, attempt, key) = (self.event(), self.attempt(), self.key());
        write!(f, "{}?event={event}&attempt={attempt}&key={key} at {} -> {}", self.path, self.at, self.status)
    }
}

impl Call {
    /// One header; empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The event's id.
    pub fn event(&self) -> &str {
        self.header("hookwell-event-id")
    }

    /// Which attempt it is.
    pub fn attempt(&self) -> &str {
        self.header("hookwell-attempt")
    }

    /// The idempotency key.
    pub fn key(&self) -> &str {
        self.header("webhook-id")
    }
}

/// How a call is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status; 0 to leave the call without an answer until the caller gives up.
    pub status: u16,
    /// How long the caller waits for it.
    pub after: Duration,
    /// The value of `retry-after`.
    pub retry_after: Option<String>,
}

impl From<u16> for Reply {
    fn from(status: u16) -> Self {
        Self { status, after: Duration::ZERO, retry_after: None }
    }
}

type Rule = dyn Fn(&Call) -> Reply + Send + Sync;

/// The running handler; stopped when dropped.
pub struct HttpHandler {
    port: u16,
    server: ServerHandle,
    state: Arc<State>,
}

struct State {
    clock: Clock,
    rule: Mutex<Arc<Rule>>,
    calls: Mutex<Vec<Call>>,
    ledger: Mutex<Option<Arc<Ledger>>>,
}

impl State {
    fn remember(&self, call: Call) {
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match ledger {
            Some(ledger) => ledger.called(&ledger::call(&call)),
            None => self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call),
        }
    }
}

impl fmt::Debug for HttpHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpHandler").field("port", &self.port).finish_non_exhaustive()
    }
}

impl HttpHandler {
    /// Listens on a port that nobody uses, and answers each call with 200.
    pub fn start() -> Result<Self> {
        Self::start_at(0)
    }

    /// Listens on `port`, and answers each call with 200.
    pub fn start_at(port: u16) -> Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Listens on `address`, and answers each call with 200.
    pub fn start_on(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State {
            clock: Clock::start(),
            rule: Mutex::new(Arc::new(|_: &Call| Reply::from(200))),
            calls: Mutex::new(Vec::new()),
            ledger: Mutex::new(None),
        });
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let shared = web::Data::from(Arc::clone(&state));
        spawn_thread("handler", move || {
            rt::System::new().block_on(async move {
                let app = move || {
                    let limit = web::PayloadConfig::new(128 * 1024 * 1024);
                    App::new().app_data(shared.clone()).app_data(limit).default_service(web::to(take))
                };
                // A connection that it closes when its caller comes again is an attempt that fails.
                let server = HttpServer::new(app).workers(1).keep_alive(Duration::from_secs(3_600));
                let server = server.disable_signals().listen(listener)?.run();
                tell.send(server.handle()).ok();
                server.await
            })
        })?;
        let server = told.recv().context("the handler did not start")?;
        Ok(Self { port, server, state })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where calls for `destination` go.
    pub fn url(&self, destination: &str) -> String {
        format!("http://127.0.0.1:{}/{destination}", self.port)
    }

    /// From now on calls are answered as `rule` says.
    pub fn answer(&self, rule: impl Fn(&Call) -> Reply + Send + Sync + 'static) {
        *self.state.rule.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rule);
    }

    /// From now on calls are written into `ledger`, and no longer remembered.
    pub fn write_into(&self, ledger: &Arc<Ledger>) {
        *self.state.ledger.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(ledger));
    }

    /// Every call that is remembered.
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many calls there were.
    pub fn count(&self) -> usize {
        self.state.calls.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The calls for one event.
    pub fn calls_for(&self, event: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.event() == event).collect()
    }

    /// Waits until there were at least `count` calls.
    pub fn until_called(&self, count: usize) -> Result<()> {
        wait::until(&format!("{count} calls of the handler"), || Ok((count <= self.count()).then_some(())))
    }
}

impl Drop for HttpHandler {
    fn drop(&mut self) {
        // The order to stop is given with the call; nobody has to wait for it.
        drop(self.server.stop(false));
    }
}

async fn take(request: HttpRequest, body: Bytes, state: web::Data<State>) -> HttpResponse {
    let header =
        |(name, value): (&actix_web::http::header::HeaderName, &actix_web::http::header::HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
    let mut call = Call {
        path: request.path().to_owned(),
        headers: request.headers().iter().map(header).collect(),
        body,
        at: state.clock.now().wall.as_millis(),
        status: 0,
    };
    let rule = Arc::clone(&state.rule.lock().unwrap_or_else(PoisonError::into_inner));
    let reply = rule(&call);
    call.status = reply.status;
    // Remembered before it is answered: whoever hears the answer finds the call.
    state.remember(call);
    rt::time::sleep(reply.after).await;
    let Ok(status) = StatusCode::from_u16(reply.status) else { return std::future::pending().await };
    let mut response = HttpResponse::build(status);
    if let Some(after) = reply.retry_after {
        response.insert_header(("retry-after", after));
    }
    response.finish()
}
