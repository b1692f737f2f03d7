//! A processor with a handler of one's own, for the destination `orders` of kind `custom`.
//!
//! `cargo run --example own_handler -- --config hookwell.toml`

use std::process::ExitCode;

use hookwell_processor::{HandlerError, Processor, Request};

fn main() -> ExitCode {
    Processor::new().handler("orders", store).main()
}

async fn store(request: Request) -> Result<(), HandlerError> {
    let order = std::str::from_utf8(&request.event.body)
        .map_err(|_| HandlerError::Permanent("the body is not text".into()))?;
    tracing::info!(target: "destination", key = request.idempotency_key, bytes = order.len(), "stored");
    Ok(())
}
