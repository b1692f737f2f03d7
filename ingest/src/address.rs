//! Who the client is, and whether it may send.
//!
//! Only a trusted proxy may name somebody else in `X-Forwarded-For`, and what counts there is the
//! last hop that is not one of the proxies: everything before it is what the client claims.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::source::Source;
use crate::verify::request::RequestHeaders;

/// Whether `source` takes a request with these headers from `peer`, which is `None` where nobody knows
/// who that is.
pub fn is_allowed(
    source: &Source,
    peer: Option<IpAddr>,
    headers: &dyn RequestHeaders,
    trusted: &[IpNet],
) -> bool {
    if source.allow_from.is_empty() && !source.needs_proxy {
        return true;
    }
    let Some(peer) = peer else { return false };
    if source.needs_proxy && !contains(trusted, peer) {
        return false;
    }
    if source.allow_from.is_empty() {
        return true;
    }
    let forwarded: Vec<_> = (0..).map_while(|n| headers.nth("x-forwarded-for", n)).collect();
    contains(&source.allow_from, client_address(peer, forwarded.into_iter(), trusted))
}

/// The client's address: that of the connection unless a trusted proxy forwards for another.
/// `forwarded_for` holds the values of `X-Forwarded-For`, in order.
pub fn client_address<'v>(
    peer: IpAddr,
    forwarded_for: impl DoubleEndedIterator<Item = &'v [u8]>,
    trusted: &[IpNet],
) -> IpAddr {
    let mut client = peer.to_canonical();
    for value in forwarded_for.rev() {
        for hop in value.split(|byte| *byte == b',').rev() {
            if !contains(trusted, client) {
                return client;
            }
            // What cannot be read was not written by a proxy of ours; whoever wrote it is the client.
            let Some(hop) = parse_hop(hop) else { return client };
            client = hop;
        }
    }
    client
}

/// Whether one of `networks` holds `address`.
pub fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address.to_canonical()))
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(with_port).or_else(in_brackets).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        client_address(peer.parse().unwrap(), forwarded.iter().map(|value| value.as_bytes()), &trusted)
            .to_string()
    }

    #[test]
    fn a_stranger_cannot_name_another_client() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn a_trusted_proxy_names_the_client() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn what_the_client_claims_before_the_last_hop_does_not_count() {
        assert_eq!(client("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["203.0.113.9", "198.51.100.7, 10.0.0.2"]), "198.51.100.7");
    }

    #[test]
    fn what_cannot_be_read_ends_the_chain() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn ports_and_brackets_are_read() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(client("fd00::1", &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(client("fd00::1", &["[2001:db8::1]"]), "2001:db8::1");
    }

    #[test]
    fn only_proxies_all_the_way_leave_the_first_of_them() {
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }
}
