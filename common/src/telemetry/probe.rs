//! What `--healthcheck` does: asks the program that runs beside it how it is, on its own admin
//! listener, so that an image needs no other program for that.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::str::FromStr;
use std::time::Duration;

use crate::lifecycle::Failure;

/// Shorter than what engines give a health check, so that this one says what was wrong.
const PATIENCE: Duration = Duration::from_secs(3);

/// More than any verdict has.
const LONGEST_ANSWER: u64 = 8 * 1024;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// Whether the process makes progress: what a restart cures.
    Live,
    /// Whether it can do its work now; false too while Kafka is away, which no restart cures.
    Ready,
}

impl Aspect {
    fn page(self) -> &'static str {
        match self {
            Aspect::Live => "livez",
            Aspect::Ready => "readyz",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Aspect::Live => "live",
            Aspect::Ready => "ready",
        }
    }
}

impl FromStr for Aspect {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [Aspect::Live, Aspect::Ready].into_iter().find(|aspect| aspect.word() == text);
        known.ok_or("must be live or ready")
    }
}

/// Asks the program whose admin listener is configured as `admin_listen`.
pub fn check_health(admin_listen: SocketAddr, aspect: Aspect) -> Result<(), Failure> {
    let address = SocketAddr::new(reachable(admin_listen.ip()), admin_listen.port());
    let page = aspect.page();
    let answer = ask(address, page)
        .map_err(|error| Failure::No(format!("http://{address}/{page} does not answer: {error}")))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some(_) | None => Err(Failure::No(format!("not {}: {}", aspect.word(), body.trim()))),
    }
}

fn ask(address: SocketAddr, page: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the end of the answer is the end of the connection.
    write!(stream, "GET /{page} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Where to reach who listens on all addresses.
fn reachable(listens: IpAddr) -> IpAddr {
    match listens {
        IpAddr::V4(_) if listens.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) if listens.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => listens,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus::Registry;

    use super::*;
    use crate::telemetry::{AdminServer, Health, Readiness};

    struct AwayFromKafka;

    impl Health for AwayFromKafka {
        fn live(&self) -> Readiness {
            Ok(())
        }
        fn ready(&self) -> Readiness {
            Err("Kafka is away".to_owned())
        }
        fn refresh(&self) {}
    }

    #[test]
    fn a_program_whose_kafka_is_away_is_live_and_not_ready() {
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        let server = AdminServer::start(any, Registry::new(), Arc::new(AwayFromKafka)).unwrap();
        let listens = server.address();
        assert!(check_health(listens, Aspect::Live).is_ok());
        let failure = check_health(listens, Aspect::Ready).unwrap_err();
        assert_eq!((failure.status(), failure.to_string().as_str()), (1, "not ready: Kafka is away"));
        server.stop();
    }

    #[test]
    fn nobody_there_is_a_no_with_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let failure = check_health(free, Aspect::Live).unwrap_err();
        assert_eq!(failure.status(), 1);
        assert!(failure.to_string().starts_with(&format!("http://{free}/livez does not answer")));
    }

    #[test]
    fn an_aspect_is_one_of_two_words() {
        assert_eq!("live".parse(), Ok(Aspect::Live));
        assert_eq!("ready".parse(), Ok(Aspect::Ready));
        assert_eq!("dead".parse::<Aspect>(), Err("must be live or ready"));
    }
}
