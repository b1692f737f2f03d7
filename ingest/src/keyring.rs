//! The keys that senders publish, read when a request names one, and kept.

pub mod cache;
pub mod fetch;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hookwell_common::lifecycle::{Clock, spawn};
use reqwest::Client;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::metrics::KeyMeters;
use crate::rejection::Rejection;
use crate::source::Source;
use crate::verify::explain::Silent;
use crate::verify::handshake::Reply;
use crate::verify::published::{KEY_PATIENCE, KeyName, KeySource, PublishedKey, asked_at};
use crate::verify::request::UnverifiedRequest;
use crate::verify::{VerifiedRequest, verify_with};
use cache::{Answer, KeyCache};
use fetch::{Outcome, client, get};

/// The keys that are known, and the way to others. All clones are one.
#[derive(Clone, Debug)]
pub struct Keyring(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    cache: Mutex<KeyCache>,
    /// Told when something was read, or could not be.
    changed: Notify,
    client: OnceLock<Option<Client>>,
    meters: KeyMeters,
    clock: Clock,
}

impl Keyring {
    /// One that knows nothing yet.
    pub fn new(meters: KeyMeters, clock: Clock) -> Self {
        let (cache, changed, client) = (Mutex::default(), Notify::new(), OnceLock::new());
        Self(Arc::new(Shared { cache, changed, client, meters, clock }))
    }

    /// Vouches for `request` as [`verify`](crate::verify::verify) does, and reads the key that it
    /// names where that is needed. What can be refused without a key is refused before.
    pub async fn verify<'r>(
        &self,
        request: UnverifiedRequest<'r>,
        source: &'r Source,
    ) -> Result<VerifiedRequest<'r>, Rejection> {
        let Some(published) = source.scheme.published().filter(|_| source.reads_keys()) else {
            return verify_with(request, source, None, &mut Silent);
        };
        let name = source.scheme.key_name(&request);
        let name = name.map(|name| name.at(source.keys_url.as_deref()));
        let known = name.as_ref().and_then(|name| self.known(name));
        let verdict = verify_with(request, source, known.as_ref(), &mut Silent);
        match (verdict, name) {
            (Err(Rejection::KeyUnavailable), Some(name)) => {
                let key = self.obtain(source, published, name).await?;
                verify_with(request, source, Some(&key), &mut Silent)
            }
            (verdict, _) => verdict,
        }
    }

    /// Visits the address that stands in `reply`, if there is one, before that is given: the sender
    /// wants to see there that we agree.
    pub async fn visit(&self, mut reply: Reply, source: &Source) -> Result<Reply, Rejection> {
        let Some(address) = reply.visit.take() else { return Ok(reply) };
        let (name, now) = (source.name.as_str(), self.0.clock.mono());
        // Whoever sends a signed request again and again must not have us hammer the sender.
        let may_ask = self.cache().may_ask(&format!("{name} visits"), now);
        let outcome = match self.client().filter(|_| may_ask) {
            Some(client) => get(client, &asked_at(&address, source.keys_url.as_deref())).await.err(),
            None => Some(Outcome::Unreachable),
        };
        // The address holds a token, which is nobody else's.
        match outcome {
            None => {
                tracing::info!(source = name, "a subscription was confirmed");
                Ok(reply)
            }
            Some(outcome) => {
                tracing::warn!(source = name, "a subscription could not be confirmed: {outcome}");
                Err(Rejection::ConfirmationFailed)
            }
        }
    }

    fn known(&self, name: &KeyName) -> Option<PublishedKey> {
        self.cache().known(name, self.0.clock.now()).cloned()
    }

    /// The key called `name`. It is read once, however many want it.
    async fn obtain(
        &self,
        source: &Source,
        published: &Arc<KeySource>,
        name: KeyName,
    ) -> Result<PublishedKey, Rejection> {
        let since = self.0.clock.mono();
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // From here on nothing that is told is missed.
            changed.as_mut().enable();
            let answer = self.cache().answer(source.name.as_str(), &name, since, self.0.clock.now());
            match answer {
                Answer::Known(key) => return Ok(key),
                Answer::Absent => return Err(Rejection::SignatureMismatch),
                Answer::Unavailable => return Err(Rejection::KeyUnavailable),
                Answer::Ask => self.read(source, published, name.address().to_owned()),
                Answer::Wait => {}
            }
            let left = KEY_PATIENCE.saturating_sub(self.0.clock.mono().saturating_sub(since));
            if tokio::time::timeout(left, changed).await.is_err() {
                return Err(Rejection::KeyUnavailable);
            }
        }
    }

    /// Reads `address` on a task of its own: whoever wanted it first may go away.
    fn read(&self, source: &Source, published: &Arc<KeySource>, address: String) {
        let (keyring, published, source) = (self.clone(), Arc::clone(published), source.name.clone());
        let read = async move {
            let outcome = keyring.read_now(&published, &address).await;
            keyring.0.meters.count(outcome);
            if outcome == Outcome::Fetched {
                tracing::info!(source = source.as_str(), address, "a key was fetched");
            } else {
                tracing::warn!(source = source.as_str(), address, "a key could not be fetched: {outcome}");
            }
            keyring.0.changed.notify_waiters();
        };
        // It is bounded in time, and nobody has to wait for its end.
        drop(spawn(&Handle::current(), "keys", read));
    }

    async fn read_now(&self, published: &KeySource, address: &str) -> Outcome {
        let fetched = match self.client() {
            Some(client) => get(client, address).await,
            None => Err(Outcome::Unreachable),
        };
        let read = fetched.and_then(|fetched| {
            let document = published.read(&fetched.body).ok_or(Outcome::Unreadable)?;
            Ok((document, fetched.max_age))
        });
        let now = self.0.clock.now();
        let mut cache = self.cache();
        match read {
            Ok((document, max_age)) => {
                let holds = cache.learn(address, document, max_age, now);
                if holds { Outcome::Fetched } else { Outcome::Expired }
            }
            Err(outcome) => {
                cache.fail(address, now);
                outcome
            }
        }
    }

    /// Made when it is first needed: most configurations need none.
    fn client(&self) -> Option<&Client> {
        let make = || match client() {
            Ok(client) => Some(client),
            Err(error) => {
                tracing::error!(%error, "no key can be fetched: there is no HTTP client");
                None
            }
        };
        self.0.client.get_or_init(make).as_ref()
    }

    fn cache(&self) -> MutexGuard<'_, KeyCache> {
        self.0.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
