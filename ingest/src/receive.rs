//! HTTP to answer: the one way that a request takes through ingest.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use arc_swap::ArcSwap;
use bytestring::ByteString;
use hookwell_common::failpoint;
use hookwell_common::lifecycle::Clock;
use hookwell_common::time::Now;
use ipnet::IpNet;
use prometheus::IntGauge;

use crate::accept::{Accepted, accept};
use crate::address::{client_address, contains};
use crate::body::{Budget, read_body};
use crate::connection::Connection;
use crate::metrics::{ACCEPTED, HANDSHAKE, Metrics, SourceMeters};
use crate::publish::{Ack, PublishError, Publisher};
use crate::rejection::Rejection;
use crate::respond;
use crate::source::Source;
use crate::verify::explain::Silent;
use crate::verify::handshake::Reply;
use crate::verify::request::{RequestHeaders, UnverifiedRequest};
use crate::verify::{shake_hands, verify};

/// All that requests need, shared by all workers.
#[derive(Debug)]
pub struct Gateway {
    /// The senders; swapped whole on a reload.
    pub senders: ArcSwap<Senders>,
    /// The way to Kafka.
    pub publisher: Publisher,
    /// What is counted.
    pub metrics: Metrics,
    /// What bodies may take of memory.
    pub budget: Budget,
    /// The bounds on one request.
    pub limits: Limits,
    /// Set once the process is to end.
    pub stopping: AtomicBool,
    /// Ends the listener.
    pub server: OnceLock<ServerHandle>,
    /// The clocks.
    pub clock: Clock,
    /// Counts what needs an id that nothing else has.
    pub unique: Unique,
}

/// The bounds on one request.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest body.
    pub max_body_bytes: usize,
    /// How long the body may take to arrive.
    pub read_timeout: Duration,
    /// Who may name the client.
    pub trusted_proxies: Vec<IpNet>,
}

/// The configured senders, each with its counters.
pub type Senders = std::collections::HashMap<String, (Source, SourceMeters)>;

/// Ids that no other event has: the start of the process, its number, and a count.
#[derive(Debug)]
pub struct Unique {
    process: String,
    count: AtomicU64,
}

impl Unique {
    /// Ids of a process that started at `now`.
    pub fn new(now: Now) -> Self {
        let process = format!("{:x}-{:x}", now.wall.as_millis(), std::process::id());
        Self { process, count: AtomicU64::new(0) }
    }

    fn next(&self) -> String {
        format!("unique:{}-{:x}", self.process, self.count.fetch_add(1, Ordering::Relaxed))
    }
}

/// Answers one request.
pub async fn receive(
    request: HttpRequest,
    name: web::Path<String>,
    payload: web::Payload,
    gateway: web::Data<Arc<Gateway>>,
) -> HttpResponse {
    let begun = gateway.clock.now();
    let _in_flight = InFlight::count(&gateway.metrics.in_flight);
    let _busy = request.conn_data::<Arc<Connection>>().map(Connection::busy);
    let senders = gateway.senders.load_full();
    let sender = senders.get(name.as_str());
    let mut account = Account { gateway: &gateway, sender, begun, line: Line::default(), is_closed: false };
    let outcome = match sender {
        None => Err(Rejection::UnknownSource),
        Some((source, meters)) => {
            gateway.take_in(&request, payload, source, meters, begun, &mut account.line).await
        }
    };
    account.close(&outcome);
    match outcome {
        Ok(Taken::Stored(_)) => respond::accepted(sender.map_or(200, |(source, _)| source.success_status)),
        Ok(Taken::Answered(reply)) => respond::handshake(reply),
        Err(rejection) => respond::rejected(rejection, sender.map(|(source, _)| source)),
    }
}

/// Answers a request for what is not there at all; it is counted and logged like any other.
pub async fn refuse_unknown(gateway: web::Data<Arc<Gateway>>) -> HttpResponse {
    let rejection = Rejection::UnknownSource;
    gateway.metrics.unknown.count(rejection);
    Line::default().write(None, &Err(rejection), Duration::ZERO);
    respond::rejected(rejection, None)
}

impl Gateway {
    async fn take_in(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        source: &Source,
        meters: &SourceMeters,
        begun: Now,
        line: &mut Line,
    ) -> Result<Taken, Rejection> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Rejection::ShuttingDown);
        }
        if !source.uses(request.method().as_str()) {
            return Err(Rejection::MethodNotAllowed);
        }
        self.check_address(request, source)?;
        let announced =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let (body, _share) =
            read_body(payload, announced, self.limits.max_body_bytes, self.limits.read_timeout, &self.budget)
                .await?;
        line.bytes = body.len();
        let accepted = {
            let headers = ActixHeaders(request.headers());
            let unverified = UnverifiedRequest {
                method: request.method().as_str(),
                query: request.uri().query(),
                headers: &headers,
                body: &body,
                received_at: begun.wall,
            };
            if let Some(reply) = shake_hands(&unverified, source, false, &mut Silent) {
                return reply.map(Taken::Answered);
            }
            let verified = verify(unverified, source, &mut Silent)?;
            meters.count_secret(verified.key().0);
            if let Some(reply) = shake_hands(&unverified, source, true, &mut Silent) {
                return reply.map(Taken::Answered);
            }
            let accepted = accept(&verified, body.clone(), || self.unique.next(), &mut Silent)?;
            failpoint::hit("ingest-verified");
            accepted
        };
        // Only what is verified counts, or a forger could use up what a sender may send.
        if source.rate_limit.as_ref().is_some_and(|limit| limit.check().is_err()) {
            return Err(Rejection::TooMany);
        }
        self.publish(accepted, meters, line).await.map(Taken::Stored)
    }

    fn check_address(&self, request: &HttpRequest, source: &Source) -> Result<(), Rejection> {
        if source.allow_from.is_empty() && !source.needs_proxy {
            return Ok(());
        }
        let peer = request.peer_addr().ok_or(Rejection::AddressNotAllowed)?.ip();
        if source.needs_proxy && !contains(&self.limits.trusted_proxies, peer) {
            return Err(Rejection::AddressNotAllowed);
        }
        if source.allow_from.is_empty() {
            return Ok(());
        }
        let forwarded: Vec<_> =
            request.headers().get_all("x-forwarded-for").map(|value| value.as_bytes()).collect();
        let client = client_address(peer, forwarded.into_iter(), &self.limits.trusted_proxies);
        if contains(&source.allow_from, client) { Ok(()) } else { Err(Rejection::AddressNotAllowed) }
    }

    async fn publish(
        &self,
        accepted: Accepted,
        meters: &SourceMeters,
        line: &mut Line,
    ) -> Result<Ack, Rejection> {
        let Accepted { event, identity } = accepted;
        line.event_id = event.id.clone();
        line.event_type = event.kind.clone();
        let begun = self.clock.mono();
        let outcome = self.publisher.publish(&event, &identity).await;
        self.metrics.publish_seconds.observe(self.clock.mono().saturating_sub(begun).as_secs_f64());
        match outcome {
            Ok(ack) => {
                meters.last_event.set(self.clock.now().wall.as_seconds_f64());
                Ok(ack)
            }
            Err(PublishError::QueueFull) => Err(Rejection::Overloaded),
            Err(error @ (PublishError::TimedOut | PublishError::Unproven | PublishError::Refused(_))) => {
                tracing::warn!(%error, "an event was not stored; its sender is told to send it again");
                Err(Rejection::LogUnavailable)
            }
        }
    }
}

/// What became of a request that is not refused.
#[derive(Debug)]
enum Taken {
    /// An event, which Kafka has.
    Stored(Ack),
    /// No event, but a question that was answered.
    Answered(Reply),
}

/// Counts a request for as long as it is being answered, also where its client goes away.
struct InFlight(IntGauge);

impl InFlight {
    fn count(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts and logs a request once, whatever becomes of it: where its client goes away the server
/// drops it in the middle, and nobody else would tell.
struct Account<'g> {
    gateway: &'g Gateway,
    sender: Option<&'g (Source, SourceMeters)>,
    begun: Now,
    line: Line,
    is_closed: bool,
}

impl Account<'_> {
    fn close(&mut self, outcome: &Result<Taken, Rejection>) {
        self.is_closed = true;
        let took = self.gateway.clock.mono().saturating_sub(self.begun.mono);
        let meters = self.sender.map_or(&self.gateway.metrics.unknown, |(_, meters)| meters);
        match outcome {
            Ok(Taken::Stored(_)) => meters.accepted.inc(),
            Ok(Taken::Answered(_)) => meters.handshakes.inc(),
            Err(rejection) => meters.count(*rejection),
        }
        meters.request_seconds.observe(took.as_secs_f64());
        self.line.write(self.sender.map(|(source, _)| source), outcome, took);
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        if !self.is_closed {
            self.close(&Err(Rejection::Aborted));
        }
    }
}

/// What the one line about a request says beside its outcome.
#[derive(Debug, Default)]
struct Line {
    event_id: ByteString,
    event_type: ByteString,
    bytes: usize,
}

impl Line {
    fn write(&self, source: Option<&Source>, outcome: &Result<Taken, Rejection>, took: Duration) {
        let source = source.map_or("", |source| source.name.as_str());
        let millis = f64::from(u32::try_from(took.as_micros()).unwrap_or(u32::MAX)) / 1000.0;
        let (event_id, event_type, bytes) = (&*self.event_id, &*self.event_type, self.bytes);
        match outcome {
            Ok(Taken::Answered(reply)) => {
                let status = reply.status;
                tracing::info!(target: "request", source, status, outcome = HANDSHAKE, bytes, millis);
            }
            Ok(Taken::Stored(ack)) => tracing::info!(
                target: "request",
                source, status = 200, outcome = ACCEPTED, event_id, event_type, bytes,
                partition = ack.partition(), offset = ack.offset(), millis,
            ),
            Err(rejection) => {
                let (status, outcome) = rejection.contract();
                tracing::info!(target: "request", source, status, outcome, event_id, event_type, bytes, millis);
            }
        }
    }
}

/// The headers as actix-web parsed them.
struct ActixHeaders<'h>(&'h HeaderMap);

impl RequestHeaders for ActixHeaders<'_> {
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
        match n {
            0 => self.0.get(name).map(|value| value.as_bytes()),
            n => self.0.get_all(name).nth(n).map(|value| value.as_bytes()),
        }
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().map(|name| name.as_str().to_owned()).collect()
    }
}
