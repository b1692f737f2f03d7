//! `hookwell.toml`: whatever it says, all its faults are told, and what is without fault says the same
//! when it is shown and read again.

use std::path::Path;

use hookwell_common::config::{Config, Environment, Faults};
use hookwell_ingest::source::resolve_all;

/// The configuration that `make run` starts with, and one that names every table.
pub(crate) fn cases() -> Vec<Vec<u8>> {
    let all = concat!(
        include_str!("../../../deploy/demo/failure.toml"),
        "[kafka.properties]\n'session.timeout.ms' = 3000\n[kafka.retention]\nevents = '1d'\n",
        "[processor]\nmax_concurrency = 7\n[log]\nformat = 'json'\n",
        "[[sources]]\nname = 'own'\nsecrets = [{ env = 'S' }]\nallow_from = ['10.0.0.0/8']\nevent_id = 'json:/id'\n",
        "[sources.hmac]\nheader = 's'\nparse = 'kv:,:v1'\ncontent = '{field:t}.{body}'\ntimestamp = 'field:t'\n",
    );
    vec![include_bytes!("../../../deploy/demo/hookwell.toml").to_vec(), all.as_bytes().to_vec()]
}

pub(crate) fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut faults = Faults::default();
    let config = parse(text, &mut faults);
    // Files of this machine are not what is tried.
    if !text.contains("file") {
        resolve_all(&config, &Environment::default(), &mut faults);
    }
    if !faults.is_empty() {
        for fault in faults.into_sorted() {
            assert!(!fault.to_string().trim().is_empty());
        }
        return;
    }
    let shown = config.to_string();
    let again = parse(&shown, &mut faults);
    assert!(faults.is_empty(), "{:?}\n{shown}", faults.into_sorted());
    assert_eq!(shown, again.to_string());
}

fn parse(text: &str, faults: &mut Faults) -> Config {
    Config::parse(Path::new("hookwell.toml"), text, &Environment::default(), faults)
}
