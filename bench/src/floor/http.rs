//! A web server of the same make that answers 200 once it has the body, and does nothing with it.

use std::net::TcpListener;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, rt, web};
use anyhow::Result;
use bytes::Bytes;
use clap::Args;

/// A bare handler.
#[derive(Clone, Debug, Args)]
pub(crate) struct Http {
    /// Where it listens on 127.0.0.1
    port: u16,
}

impl Http {
    /// Serves until it is ended.
    pub(crate) fn run(self) -> Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", self.port))?;
        super::begin(0);
        rt::System::new().block_on(async move {
            let app = || App::new().route("/webhooks/{source}", web::route().to(answer));
            let server = HttpServer::new(app).keep_alive(Duration::from_secs(75)).backlog(4096);
            server.listen(listener)?.run().await
        })?;
        Ok(())
    }
}

async fn answer(_body: Bytes) -> HttpResponse {
    HttpResponse::Ok().finish()
}
