//! The connections of clients, and an end for those on which nothing comes: the web server bounds
//! only the first request's head. A client that trickles a later one, or a chunked body after its
//! answer, would be waited for without end.

use std::any::Any;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_web::dev::Extensions;
use hookwell_common::lifecycle::{Clock, spawn};
use tokio::runtime::Handle;

/// One client's connection, for as long as it is open.
#[derive(Debug)]
pub struct Connection {
    /// A second handle of the socket, which ends with the first.
    socket: TcpStream,
    clock: Clock,
    /// When the last answer was ready, or the client came; [`BUSY`] while a request is answered.
    idle_since: AtomicU64,
}

/// Stands for a request that is being answered, which has bounds of its own.
const BUSY: u64 = u64::MAX;

/// Marks a connection as busy until it is dropped.
#[derive(Debug)]
pub struct Busy(Arc<Connection>);

/// Called by the web server for each client that comes: notes the connection in `extensions`, and
/// has it closed once nothing has come on it for `patience`.
pub fn note(socket: &dyn Any, extensions: &mut Extensions, clock: Clock, patience: Duration) {
    let Some(socket) = socket.downcast_ref::<actix_web::rt::net::TcpStream>() else { return };
    match Connection::of(socket, clock) {
        Ok(connection) => {
            let connection = Arc::new(connection);
            // It ends with the connection, which nobody has to wait for.
            drop(spawn(
                &Handle::current(),
                "connection",
                watch(Arc::downgrade(&connection), clock, patience),
            ));
            extensions.insert(connection);
        }
        // Nobody would close it in time, and whoever sends nothing could keep it for ever.
        Err(error) => {
            tracing::warn!(%error, "a connection cannot be watched and is closed");
            rustix::net::shutdown(socket, rustix::net::Shutdown::Both).ok();
        }
    }
}

impl Connection {
    fn of(socket: &impl AsFd, clock: Clock) -> io::Result<Self> {
        let socket = TcpStream::from(socket.as_fd().try_clone_to_owned()?);
        Ok(Self { socket, clock, idle_since: AtomicU64::new(millis(clock.mono())) })
    }

    /// Tells that a request has come, and until when it is being answered.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.idle_since.store(BUSY, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    fn idle_for(&self, now: Duration) -> Duration {
        Duration::from_millis(millis(now).saturating_sub(self.idle_since.load(Ordering::Relaxed)))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle_since.store(millis(self.0.clock.mono()), Ordering::Relaxed);
    }
}

async fn watch(connection: Weak<Connection>, clock: Clock, patience: Duration) {
    let mut rest = patience;
    loop {
        tokio::time::sleep(rest).await;
        let Some(connection) = connection.upgrade() else { return };
        rest = patience.saturating_sub(connection.idle_for(clock.mono()));
        if rest.is_zero() {
            // Where it fails the client has closed it already.
            connection.socket.shutdown(Shutdown::Both).ok();
            return;
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
