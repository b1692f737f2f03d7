//! `X-Forwarded-For`, and the ids and types that senders give.

use std::net::{IpAddr, Ipv4Addr};

use hookwell_common::event::{event_id_from_sender, event_kind_from_sender};
use hookwell_ingest::address::client_address;

/// The longest id that is kept as it is, in bytes: docs/http.md.
const MAX_ID_BYTES: usize = 256;

pub(crate) fn cases() -> Vec<Vec<u8>> {
    let cases = ["203.0.113.9, 10.0.0.2:80\n[2001:db8::1]:443, fd00::7", "unknown", "evt_1", "id-blake3:00"];
    cases.iter().map(|case| case.as_bytes().to_vec()).collect()
}

pub(crate) fn read(data: &[u8]) {
    let peer = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().ok());
    let trusted: Vec<_> = networks.into_iter().flatten().collect();
    let lines = || data.split(|byte| *byte == b'\n');
    let client = client_address(peer, lines(), &trusted);
    assert_eq!(client, client_address(peer, lines(), &trusted));
    // A stranger is whoever it is.
    let stranger = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(client_address(stranger, lines(), &trusted), stranger);
    if let Some(id) = event_id_from_sender(data) {
        assert!(!id.is_empty() && id.len() <= MAX_ID_BYTES, "{} bytes", id.len());
    }
    let kind = event_kind_from_sender(&String::from_utf8_lossy(data));
    assert!(!kind.is_empty() && kind.len() <= MAX_ID_BYTES, "{} bytes", kind.len());
}
