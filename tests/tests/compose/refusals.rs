//! What a stack says that cannot be started as it is.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Result, ensure};
use hookwell_tests::docker::{Engine, Stack};

use crate::ports;

pub(crate) fn a_stack_without_a_secret_says_which_file_to_write(engine: &Arc<Engine>) -> Result<()> {
    let secrets = tempfile::tempdir()?;
    let mut variables = ports()?;
    variables.push(("HOOKWELL_SECRETS", secrets.path().display().to_string()));
    let stack = Stack::new(engine, "hookwell-test-secrets", &variables);
    let Err(refused) = stack.compose(&["up", "--detach", "--build"]) else {
        anyhow::bail!("a stack without a secret was started");
    };
    let words = format!("{refused:#}");
    ensure!(words.contains(r#"service "configuration" didn't complete successfully: exit 2"#), "{words}");
    let told = stack.compose(&["logs", "configuration"])?;
    ensure!(told.contains("file /run/secrets/acme cannot be read"), "{told}");
    ensure!(told.contains("put the secret there, readable for this user"), "{told}");
    for service in ["topics", "ingest", "processor"] {
        for container in stack.containers(service)? {
            let status = stack.inspect(&container, "{{.State.Status}}")?;
            ensure!(status == "created", "{service} is {status}");
        }
    }
    Ok(())
}

pub(crate) fn a_port_that_is_taken_is_named(engine: &Arc<Engine>) -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let mut variables = ports()?;
    variables.retain(|(name, _)| *name != "HOOKWELL_PROMETHEUS_PORT");
    variables.push(("HOOKWELL_PROMETHEUS_PORT", port.to_string()));
    let stack = Stack::new(engine, "hookwell-test-port", &variables);
    let Err(refused) = stack.compose(&["up", "--detach", "--no-deps", "prometheus"]) else {
        anyhow::bail!("a taken port was taken again");
    };
    let words = format!("{refused:#}");
    ensure!(words.contains(&format!("127.0.0.1:{port}")) && words.contains("already in use"), "{words}");
    Ok(())
}
