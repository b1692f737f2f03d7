//! The body of a request, read whole: bounded in length, in time, and in what all bodies together
//! take of memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::web::Payload;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::rejection::Rejection;

/// What all bodies together may take of memory.
#[derive(Clone, Debug)]
pub struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub struct Share {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { used: Arc::default(), limit }
    }

    /// The bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn share(&self) -> Share {
        Share { used: Arc::clone(&self.used), bytes: 0 }
    }
}

impl Share {
    /// Takes `bytes` more; refused once the budget is spent.
    fn grow(&mut self, bytes: usize, limit: usize) -> Result<(), Rejection> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > limit { Err(Rejection::Overloaded) } else { Ok(()) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads `payload` to its end. `announced` is its `content-length`, where it has one.
///
/// Memory is taken as bytes arrive and not as they are announced, so that a thousand clients that
/// promise much and send little cost little.
pub async fn read_body(
    mut payload: Payload,
    announced: Option<u64>,
    max_bytes: usize,
    patience: Duration,
    budget: &Budget,
) -> Result<(Bytes, Share), Rejection> {
    if announced.is_some_and(|bytes| bytes > max_bytes as u64) {
        return Err(Rejection::BodyTooLarge);
    }
    let mut share = budget.share();
    let read = async {
        let mut first: Option<Bytes> = None;
        let mut rest = BytesMut::new();
        let mut length = 0;
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| Rejection::Aborted)?;
            length += chunk.len();
            if length > max_bytes {
                return Err(Rejection::BodyTooLarge);
            }
            share.grow(chunk.len(), budget.limit)?;
            // Most bodies arrive in one piece, which is then not copied.
            match first.take() {
                None if rest.is_empty() => first = Some(chunk),
                None => rest.extend_from_slice(&chunk),
                Some(first) => {
                    rest.extend_from_slice(&first);
                    rest.extend_from_slice(&chunk);
                }
            }
        }
        Ok(first.unwrap_or_else(|| rest.freeze()))
    };
    let body = tokio::time::timeout(patience, read).await.map_err(|_| Rejection::TooSlow)??;
    Ok((body, share))
}
