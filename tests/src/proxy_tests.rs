use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use hookwell_common::lifecycle::{Clock, spawn_thread};

use tokio::sync::watch;

use super::{Lane, Network, Orders, PACKET, Proxy, Way};
use crate::wait;

/// Longer than anything here takes that is not held up.
const A_WHILE: Duration = Duration::from_millis(300);

/// A proxy before a server that answers each byte with the next one.
fn proxy() -> Result<Proxy> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let proxy = Proxy::start(listener.local_addr()?.port())?;
    spawn_thread("server", move || {
        for stream in listener.incoming() {
            spawn_thread("connection", move || answer(stream?)).ok();
        }
    })?;
    Ok(proxy)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let length = stream.read(&mut bytes)?;
        if length == 0 {
            return Ok(());
        }
        bytes[..length].iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
        stream.write_all(&bytes[..length])?;
    }
}

fn client(proxy: &Proxy) -> Result<TcpStream> {
    let stream = TcpStream::connect(proxy.address())?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(wait::PATIENCE))?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream, byte: u8) -> Result<()> {
    stream.write_all(&[byte])?;
    expect(stream, byte)
}

fn expect(stream: &mut TcpStream, byte: u8) -> Result<()> {
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    ensure!(answer[0] == byte + 1, "{} answers {byte}", answer[0]);
    Ok(())
}

/// Whether no answer comes for a while.
fn is_silent(stream: &mut TcpStream) -> Result<bool> {
    stream.set_read_timeout(Some(A_WHILE))?;
    let heard = stream.read(&mut [0]);
    stream.set_read_timeout(Some(wait::PATIENCE))?;
    Ok(heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
}

#[test]
fn everything_passes_and_an_end_is_an_end() {
    let proxy = proxy().unwrap();
    let mut stream = client(&proxy).unwrap();
    ask(&mut stream, 1).unwrap();
    stream.write_all(&[7; 100_000]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).unwrap();
    assert_eq!(answers, [8; 100_000]);
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn in_a_black_hole_connections_stay_and_say_nothing_and_what_was_said_comes_later() {
    let proxy = proxy().unwrap();
    let mut old = client(&proxy).unwrap();
    ask(&mut old, 1).unwrap();
    proxy.set(Network::BlackHole);
    let mut new = client(&proxy).unwrap();
    for stream in [&mut old, &mut new] {
        stream.write_all(&[5]).unwrap();
        assert!(is_silent(stream).unwrap());
    }
    proxy.set(Network::Fine);
    expect(&mut old, 5).unwrap();
    expect(&mut new, 5).unwrap();
}

/// What the server hears of a client behind `network`, and whether its own word reaches the client.
fn heard_through(network: Network) -> Result<(bool, bool)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let proxy = Proxy::start(listener.local_addr()?.port())?;
    let mut client = client(&proxy)?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(wait::PATIENCE))?;
    proxy.set(network);
    client.write_all(&[1])?;
    server.write_all(&[2])?;
    let heard = (!is_silent(&mut server)?, !is_silent(&mut client)?);
    // What was held back is there as soon as it may pass.
    proxy.set(Network::Fine);
    for (held, stream) in [(!heard.0, &mut server), (!heard.1, &mut client)] {
        if held {
            stream.read_exact(&mut [0])?;
        }
    }
    Ok(heard)
}

#[test]
fn half_a_connection_can_be_silent() {
    assert_eq!(heard_through(Network::Fine).unwrap(), (true, true));
    assert_eq!(heard_through(Network::AnswersStay).unwrap(), (true, false));
    assert_eq!(heard_through(Network::RequestsStay).unwrap(), (false, true));
}

#[test]
fn half_a_connection_can_end_while_the_other_half_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().port()).unwrap();
    for way in [Way::ToClient, Way::ToServer] {
        let mut client = client(&proxy).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[1]).unwrap();
        server.read_exact(&mut [0]).unwrap();
        proxy.half_close(way);
        let (deaf, hearing) = match way {
            Way::ToClient => (&mut client, &mut server),
            Way::ToServer => (&mut server, &mut client),
        };
        assert_eq!(deaf.read(&mut [0]).unwrap(), 0);
        hearing.write_all(&[2]).unwrap();
        for said in 3..6 {
            let mut heard = [0];
            deaf.write_all(&[said]).unwrap();
            hearing.read_exact(&mut heard).unwrap();
            assert_eq!(heard, [said]);
        }
        deaf.shutdown(Shutdown::Write).unwrap();
        assert_eq!(hearing.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_reset_reaches_both_ends_and_only_those_who_were_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().port()).unwrap();
    let mut client_end = client(&proxy).unwrap();
    let (mut server_end, _) = listener.accept().unwrap();
    // Both ends know of each other.
    client_end.write_all(&[1]).unwrap();
    server_end.read_exact(&mut [0]).unwrap();
    proxy.reset();
    for end in [&mut client_end, &mut server_end] {
        assert_eq!(end.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let mut next = client(&proxy).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    next.write_all(&[1]).unwrap();
    server.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_server_that_is_gone_resets_its_clients() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let proxy = Proxy::start(gone).unwrap();
    let heard = client(&proxy).and_then(|mut stream| ask(&mut stream, 1)).unwrap_err();
    assert!(heard.downcast_ref::<std::io::Error>().is_some(), "{heard:?}");
}

#[test]
fn new_connections_are_refused_and_old_ones_go_on() {
    let proxy = proxy().unwrap();
    let mut old = client(&proxy).unwrap();
    ask(&mut old, 1).unwrap();
    proxy.set(Network::Refusing);
    let refused = |what: &str, expected: bool| {
        wait::until(what, || {
            let refused = client(&proxy).and_then(|mut stream| ask(&mut stream, 1)).is_err();
            Ok((refused == expected).then_some(()))
        })
    };
    refused("connections to be refused", true).unwrap();
    ask(&mut old, 2).unwrap();
    proxy.set(Network::Fine);
    refused("connections to be welcome", false).unwrap();
    ask(&mut old, 3).unwrap();
}

#[test]
fn latency_delays_each_way_and_keeps_the_order() {
    let proxy = proxy().unwrap();
    let late = Duration::from_millis(100);
    proxy.set(Network::Slow(late));
    let mut stream = client(&proxy).unwrap();
    let clock = Clock::start();
    (0..50).for_each(|byte| stream.write_all(&[byte]).unwrap());
    for byte in 0..50 {
        expect(&mut stream, byte).unwrap();
        assert!(2 * late <= clock.mono());
    }
}

#[test]
fn much_may_be_on_its_way_at_once() {
    // Chunk by chunk this would take longer than patience lasts.
    const LENGTH: usize = 256 * super::CHUNK;
    let proxy = proxy().unwrap();
    proxy.set(Network::Slow(Duration::from_secs(1)));
    let mut stream = client(&proxy).unwrap();
    let mut other = stream.try_clone().unwrap();
    let sender = spawn_thread("sender", move || other.write_all(&vec![3; LENGTH])).unwrap();
    stream.set_read_timeout(Some(A_WHILE)).unwrap();
    let (mut bytes, mut heard) = (vec![0; LENGTH], 0);
    wait::until("all answers", || {
        heard += stream.read(&mut bytes)?;
        Ok((heard == LENGTH).then_some(()))
    })
    .unwrap();
    sender.join().unwrap().unwrap();
}

#[test]
fn what_is_lost_comes_late_and_in_its_order() {
    let proxy = proxy().unwrap();
    proxy.set(Network::Lossy { per_mille: 1000, seed: 1 });
    let mut stream = client(&proxy).unwrap();
    let clock = Clock::start();
    (0..50).for_each(|byte| stream.write_all(&[byte]).unwrap());
    for byte in 0..50 {
        expect(&mut stream, byte).unwrap();
        assert!(Duration::from_millis(400) <= clock.mono());
    }
}

/// How late 10,000 packets are that follow each other on a connection, in milliseconds.
fn late(seed: u64, connection: u64) -> Vec<u128> {
    let (_, orders) = watch::channel(Orders { network: Network::Fine, resets: 0, ends: [0; 2] });
    let mut lane = Lane::new(Way::ToServer, connection, &orders);
    (0..10_000).map(|_| lane.late_by_loss(PACKET, 10, seed).as_millis()).collect()
}

#[test]
fn one_packet_in_a_hundred_is_lost_and_the_seed_says_which() {
    let drawn = late(1, 0);
    let lost: Vec<_> = drawn.iter().filter(|late| 0 < **late).collect();
    assert!((60..140).contains(&lost.len()), "{}", lost.len());
    assert!(lost.iter().all(|late| (200..300).contains(*late)));
    assert_eq!(late(1, 0), drawn);
    assert_ne!(late(2, 0), drawn);
    assert_ne!(late(1, 1), drawn);
}
