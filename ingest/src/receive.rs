//! HTTP to answer: the one way that a request takes through ingest.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use arc_swap::ArcSwap;
use bytestring::ByteString;
use hookwell_common::event::Event;
use hookwell_common::failpoint;
use hookwell_common::identity::Identity;
use hookwell_common::lifecycle::Clock;
use hookwell_common::time::Now;
use ipnet::IpNet;
use prometheus::IntGauge;

use crate::accept::{Accepted, accept};
use crate::address::is_allowed;
use crate::body::{Budget, Share, read_body};
use crate::connection::Connection;
use crate::keyring::Keyring;
use crate::metrics::{ACCEPTED, Dropped, HANDSHAKE, Metrics, SPOOLED, SourceMeters};
use crate::publish::{Ack, PublishError, Publisher};
use crate::quarantine::keeper::Keeper;
use crate::quarantine::record::Kept;
use crate::rejection::Rejection;
use crate::respond;
use crate::source::Source;
use crate::spool::{Spool, SpoolError, Spooled};
use crate::verify::explain::Silent;
use crate::verify::handshake::Reply;
use crate::verify::request::{RequestHeaders, UnverifiedRequest};
use crate::verify::{advice, shake_hands};

/// All that requests need, shared by all workers.
#[derive(Debug)]
pub struct Gateway {
    /// The senders; swapped whole on a reload.
    pub senders: ArcSwap<Senders>,
    /// The way to Kafka.
    pub publisher: Arc<Publisher>,
    /// The keys that senders publish.
    pub keyring: Keyring,
    /// Where events wait while there is no way, if anywhere.
    pub spool: Option<Spool>,
    /// The way of what failed verification, where a source keeps it.
    pub keeper: Option<Keeper>,
    /// Set once Kafka's topics are known to be as configured.
    pub is_verified: AtomicBool,
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

/// What became of a request that is not refused.
#[derive(Debug)]
enum Taken {
    /// An event, which Kafka has: what a 200 stands on.
    OnKafka(Ack),
    /// An event, which the spool has: the same.
    InSpool(Spooled),
    /// No event, but a question that was answered.
    Answered(Reply),
}

/// Ids that no other event has: the start of the process, something random, for in containers all have
/// one number, and a count.
#[derive(Debug)]
pub struct Unique {
    process: String,
    count: AtomicU64,
}

impl Unique {
    /// Ids of a process that started at `now`.
    pub fn new(now: Now) -> Self {
        let mut random = [0; 8];
        // Without it the time and the number are all there is.
        getrandom::fill(&mut random).ok();
        let process = format!("{:x}-{:x}-{}", now.wall.as_millis(), std::process::id(), hex::encode(random));
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
        Ok(Taken::OnKafka(_) | Taken::InSpool(_)) => respond::accepted(sender.map(|(source, _)| source)),
        Ok(Taken::Answered(reply)) => respond::handshake(reply),
        Err(rejection) => respond::rejected(rejection, sender.map(|(source, _)| source)),
    }
}

/// Answers a request for what is not there at all; it is counted and logged like any other.
pub async fn refuse_unknown(gateway: web::Data<Arc<Gateway>>) -> HttpResponse {
    let rejection = Rejection::UnknownSource;
    gateway.metrics.unknown.count_rejected(rejection);
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
        let (body, share) =
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
            if let Some(reply) = shake_hands(&unverified, source, None, &mut Silent) {
                return reply.map(Taken::Answered);
            }
            let verified = self.keyring.verify(unverified, source).await.inspect_err(|reason| {
                let peer = request.peer_addr().map(|peer| peer.ip());
                self.quarantine(unverified, peer, source, meters, *reason);
            })?;
            meters.count_secret(verified.key().0, self.clock.now().wall);
            if let Some(reply) = shake_hands(&unverified, source, Some(verified.key()), &mut Silent) {
                return self.keyring.visit(reply?, source).await.map(Taken::Answered);
            }
            if let Some(advice) = advice(&unverified, source) {
                tracing::warn!(source = source.name.as_str(), "{advice}");
            }
            let accepted = accept(&verified, body.clone(), || self.unique.next(), &mut Silent)?;
            failpoint::hit("ingest-verified");
            accepted
        };
        // Only what is verified counts, or a forger could use up what a sender may send.
        if source.rate_limit.as_ref().is_some_and(|limit| !limit.admits_one()) {
            return Err(Rejection::TooMany);
        }
        self.store(accepted, source, meters, &Arc::new(share), line).await
    }

    fn check_address(&self, request: &HttpRequest, source: &Source) -> Result<(), Rejection> {
        let peer = request.peer_addr().map(|peer| peer.ip());
        let headers = ActixHeaders(request.headers());
        let is_allowed = is_allowed(source, peer, &headers, &self.limits.trusted_proxies);
        if is_allowed { Ok(()) } else { Err(Rejection::AddressNotAllowed) }
    }

    /// Keeps what failed verification, where its source asks for it. Its sender does not wait for that,
    /// and hears the same.
    fn quarantine(
        &self,
        request: UnverifiedRequest<'_>,
        peer: Option<IpAddr>,
        source: &Source,
        meters: &SourceMeters,
        reason: Rejection,
    ) {
        let Some(limit) = &source.quarantine else { return };
        if !reason.is_of_verification() {
            return;
        }
        let meters = &meters.quarantine;
        match &self.keeper {
            _ if !limit.admits_one() => meters.count_dropped(Dropped::Rate),
            Some(keeper) if self.is_verified.load(Ordering::Relaxed) => {
                let unique = self.unique.next();
                let kept = Kept { source: source.name.as_str(), reason, request, peer, unique: &unique };
                keeper.keep(&kept, meters);
            }
            Some(_) | None => meters.count_dropped(Dropped::Unavailable),
        }
    }

    async fn store(
        &self,
        accepted: Accepted,
        source: &Source,
        meters: &SourceMeters,
        share: &Arc<Share>,
        line: &mut Line,
    ) -> Result<Taken, Rejection> {
        let Accepted { event, identity } = accepted;
        line.event_id = event.id.clone();
        line.event_type = event.kind.clone();
        let stored = match self.spool_of(source) {
            Some(spool) => self.publish_or_spool(spool, &event, &identity, share).await,
            None => self.publish(&event, &identity).await.map(Taken::OnKafka).map_err(|error| {
                let rejection = refusal(&error);
                if rejection == Rejection::LogUnavailable {
                    tracing::warn!(%error, "an event was not stored; its sender is told to send it again");
                }
                rejection
            }),
        }?;
        meters.last_event.set(self.clock.now().wall.as_seconds_f64());
        Ok(stored)
    }

    /// The spool, where the source asks for it.
    fn spool_of(&self, source: &Source) -> Option<&Spool> {
        self.spool.as_ref().filter(|_| source.spools())
    }

    /// Into the spool at once where others wait there, or Kafka is known to be away; and otherwise
    /// where Kafka turns out to be. A spool that cannot take the event does no harm while Kafka can.
    async fn publish_or_spool(
        &self,
        spool: &Spool,
        event: &Event,
        identity: &Identity,
        share: &Arc<Share>,
    ) -> Result<Taken, Rejection> {
        let mut refused = None;
        if spool.goes_first() {
            match spool.put(event.clone(), share).await {
                Ok(spooled) => return Ok(Taken::InSpool(spooled)),
                Err(error) if spool.knows_kafka_is_away() => return Err(refusal_of_spool(error)),
                Err(error) => refused = Some(error),
            }
        }
        let error = match self.publish(event, identity).await {
            Ok(ack) => return Ok(Taken::OnKafka(ack)),
            Err(error) => error,
        };
        match (&error, refused) {
            // In the spool it would wait for a day that does not come.
            (PublishError::Unfit(_), _) => {
                tracing::warn!(%error, "an event was not stored");
                Err(refusal(&error))
            }
            (_, Some(refused)) => Err(refusal_of_spool(refused)),
            (_, None) => spool.put(event.clone(), share).await.map(Taken::InSpool).map_err(refusal_of_spool),
        }
    }

    async fn publish(&self, event: &Event, identity: &Identity) -> Result<Ack, PublishError> {
        // On a topic with another number of partitions it would lie where nobody looks for it.
        if !self.is_verified.load(Ordering::Relaxed) {
            return Err(PublishError::Unverified);
        }
        let begun = self.clock.mono();
        let outcome = self.publisher.publish(event, identity).await;
        self.metrics.publish_seconds.observe(self.clock.mono().saturating_sub(begun).as_secs_f64());
        outcome
    }
}

fn refusal(error: &PublishError) -> Rejection {
    match error {
        PublishError::QueueFull => Rejection::Overloaded,
        PublishError::TimedOut
        | PublishError::Unproven
        | PublishError::Unverified
        | PublishError::Refused(_)
        | PublishError::Unfit(_) => Rejection::LogUnavailable,
    }
}

/// The spool says itself what is wrong with it.
fn refusal_of_spool(error: SpoolError) -> Rejection {
    match error {
        SpoolError::Full | SpoolError::Busy => Rejection::Overloaded,
        SpoolError::Unwritable => Rejection::LogUnavailable,
    }
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
            Ok(Taken::OnKafka(_)) => meters.count_accepted(),
            Ok(Taken::InSpool(_)) => meters.count_spooled(),
            Ok(Taken::Answered(_)) => meters.count_handshake(),
            Err(rejection) => meters.count_rejected(*rejection),
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
        let accepted = source.map_or(200, |source| source.success_status);
        let status_of = |rejection: Rejection| match source {
            Some(source) => source.status_of(rejection),
            None => rejection.status(),
        };
        let source = source.map_or("", |source| source.name.as_str());
        let millis = f64::from(u32::try_from(took.as_micros()).unwrap_or(u32::MAX)) / 1000.0;
        let (event_id, event_type, bytes) = (&*self.event_id, &*self.event_type, self.bytes);
        match outcome {
            Ok(Taken::Answered(reply)) => {
                let status = reply.status;
                tracing::info!(target: "request", source, status, outcome = HANDSHAKE, bytes, millis);
            }
            Ok(Taken::OnKafka(ack)) => tracing::info!(
                target: "request",
                source, status = accepted, outcome = ACCEPTED, event_id, event_type, bytes,
                partition = ack.partition(), offset = ack.offset(), millis,
            ),
            Ok(Taken::InSpool(_)) => tracing::info!(
                target: "request",
                source, status = accepted, outcome = SPOOLED, event_id, event_type, bytes, millis,
            ),
            Err(rejection) => {
                let (status, (_, outcome)) = (status_of(*rejection), rejection.contract());
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
