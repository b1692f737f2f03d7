//! The admin listener: `/metrics`, `/livez` and `/readyz`, apart from what strangers can reach.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use actix_web::dev::ServerHandle;
use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, web};
use prometheus::{Encoder, Registry, TextEncoder};

use crate::lifecycle::{Failure, spawn_thread};

/// Whether a process can do its work: `Err` says, in one sentence, why not.
pub type Readiness = Result<(), String>;

/// What a program tells of itself.
pub trait Health: Send + Sync + 'static {
    /// Whether the process makes progress. A process that does not should be killed.
    fn live(&self) -> Readiness;
    /// Whether work should be sent to it.
    fn ready(&self) -> Readiness;
    /// Brings figures up to date that are only reckoned when somebody asks.
    fn refresh(&self);
}

/// The running listener; ends with [`AdminServer::stop`].
#[derive(Debug)]
pub struct AdminServer {
    handle: ServerHandle,
    thread: JoinHandle<io::Result<()>>,
    address: SocketAddr,
}

impl AdminServer {
    /// Listens on `address`, on a thread of its own, so that neither load nor a stall elsewhere
    /// keeps it from answering.
    pub fn start(address: SocketAddr, registry: Registry, health: Arc<dyn Health>) -> Result<Self, Failure> {
        let cannot = |error: io::Error| {
            Failure::Usage(format!(
                "admin_listen = {address:?} cannot be listened on: {error}; is the port taken?",
                address = address.to_string()
            ))
        };
        let listener = TcpListener::bind(address).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let serve = move || {
            actix_web::rt::System::new().block_on(async move {
                let app = move || {
                    let registry = registry.clone();
                    let (metrics_of, live, ready) =
                        (Arc::clone(&health), Arc::clone(&health), Arc::clone(&health));
                    App::new()
                        .route(
                            "/metrics",
                            web::get().to(move || {
                                metrics_of.refresh();
                                let answer = metrics(&registry);
                                async { answer }
                            }),
                        )
                        .route(
                            "/livez",
                            web::get().to(move || {
                                let answer = verdict(live.live());
                                async { answer }
                            }),
                        )
                        .route(
                            "/readyz",
                            web::get().to(move || {
                                let answer = verdict(ready.ready());
                                async { answer }
                            }),
                        )
                };
                let server = HttpServer::new(app)
                    .workers(1)
                    .disable_signals()
                    .shutdown_timeout(1)
                    .listen(listener)?
                    .run();
                sender.send(server.handle()).ok();
                server.await
            })
        };
        let thread = spawn_thread("admin", serve).map_err(cannot)?;
        let handle =
            receiver.recv().map_err(|_| Failure::Usage("the admin listener did not start".to_owned()))?;
        Ok(Self { handle, thread, address })
    }

    /// Where it listens; tells the port where the configuration left it open.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it.
    pub fn stop(self) {
        drop(self.handle.stop(true));
        if let Ok(Err(error)) = self.thread.join() {
            tracing::warn!(%error, "the admin listener ended badly");
        }
    }
}

fn metrics(registry: &Registry) -> HttpResponse {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut text) {
        Ok(()) => HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

fn verdict(readiness: Readiness) -> HttpResponse {
    match readiness {
        Ok(()) => HttpResponse::Ok().content_type(ContentType::plaintext()).body("ok\n"),
        Err(why) => {
            HttpResponse::ServiceUnavailable().content_type(ContentType::plaintext()).body(why + "\n")
        }
    }
}
