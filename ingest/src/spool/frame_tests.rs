use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn event(id: &str, body: &[u8]) -> Event {
    Event {
        source: "acme".into(),
        id: id.into(),
        kind: "push".into(),
        time: "2026-11-24T09:00:00.000Z".into(),
        content_type: Some("application/json".into()),
        traceparent: None,
        kept_headers: vec![("x-acme".into(), Bytes::from_static(b"\xff\x00"))],
        body: Bytes::copy_from_slice(body),
    }
}

fn segment(key: &Key, events: &[Event]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = key.head().to_vec();
    let mut starts = Vec::new();
    for event in events {
        starts.push(bytes.len());
        append(key, event, &mut bytes);
    }
    (bytes, starts)
}

/// Events, and places that cannot be read.
type Reading = (Vec<Event>, Vec<(usize, usize)>);

/// What is found in a segment with a head.
fn read(bytes: &[u8]) -> Option<Reading> {
    let key = Key::of_segment(bytes)?;
    let (mut events, mut damage) = (Vec::new(), Vec::new());
    let mut at = HEAD_BYTES;
    for piece in Pieces::new(key, bytes, HEAD_BYTES) {
        let (start, end) = match piece {
            Piece::Event { start, end, event } => {
                events.push(*event);
                (start, end)
            }
            Piece::Unreadable { start, end } => {
                damage.push((start, end));
                (start, end)
            }
        };
        assert!(start == at && start < end, "a gap before {start}");
        at = end;
    }
    assert!(at == bytes.len() || bytes.len() < HEAD_BYTES);
    Some((events, damage))
}

fn three() -> (Key, Vec<Event>) {
    (Key::new([7; 32]), vec![event("one", b"{}"), event("two", b""), event("three", &[b'x'; 90])])
}

#[test]
fn what_is_written_is_read_in_order() {
    let (key, events) = three();
    let (bytes, _) = segment(&key, &events);
    assert_eq!(read(&bytes), Some((events, Vec::new())));
}

#[test]
fn a_write_that_is_cut_anywhere_loses_no_event_before_the_cut() {
    let (key, events) = three();
    let (bytes, starts) = segment(&key, &events);
    let ends: Vec<_> = starts.iter().skip(1).copied().chain([bytes.len()]).collect();
    for cut in 0..bytes.len() {
        let Some((found, damage)) = read(&bytes[..cut]) else {
            assert!(cut < HEAD_BYTES, "{cut}");
            continue;
        };
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(found, events[..whole], "cut at {cut}");
        let is_torn = cut != HEAD_BYTES && !ends.contains(&cut);
        assert_eq!(damage.len(), usize::from(is_torn), "cut at {cut}");
    }
}

#[test]
fn a_byte_that_is_changed_anywhere_costs_one_event_and_is_never_passed_over() {
    let (key, events) = three();
    let (bytes, starts) = segment(&key, &events);
    for at in 0..bytes.len() {
        for change in [1, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= change;
            let Some((found, damage)) = read(&bytes) else {
                assert!(at < HEAD_BYTES, "{at}");
                continue;
            };
            let hit = starts.iter().rposition(|start| *start <= at).unwrap();
            let mut rest = events.clone();
            rest.remove(hit);
            assert_eq!(found, rest, "changed at {at}");
            assert_eq!(damage.len(), 1, "changed at {at}");
        }
    }
}

/// Whoever chooses a body knows how frames look, and not the key.
#[test]
fn a_body_cannot_pass_for_a_frame_where_a_place_is_damaged() {
    let strange = Key::new([8; 32]);
    let (forged, _) = segment(&strange, &[event("forged", b"forged")]);
    let key = Key::new([7; 32]);
    let (mut bytes, starts) = segment(&key, &[event("one", &forged[HEAD_BYTES..]), event("two", b"")]);
    bytes[starts[0]] ^= 1;
    let (found, damage) = read(&bytes).unwrap();
    assert_eq!(found, [event("two", b"")]);
    assert_eq!(damage, [(starts[0], starts[1])]);
}

#[test]
fn an_empty_segment_and_strange_bytes_hold_nothing() {
    let key = Key::new([7; 32]);
    assert_eq!(read(&key.head()), Some((Vec::new(), Vec::new())));
    assert_eq!(read(b""), None);
    assert_eq!(read(&[0; 200]), None);
}

proptest! {
    #[test]
    fn any_event_survives(id in "[ -~]{1,40}", body in proptest::collection::vec(any::<u8>(), 0..300),
                          value in proptest::collection::vec(any::<u8>(), 0..50)) {
        let key = Key::new([7; 32]);
        let mut event = event(&id, &body);
        event.kept_headers = vec![("x-one".into(), value.clone().into()), ("x-two".into(), value.into())];
        let (bytes, _) = segment(&key, std::slice::from_ref(&event));
        prop_assert_eq!(read(&bytes), Some((vec![event], Vec::new())));
    }

    #[test]
    fn whatever_becomes_of_the_bytes_nothing_false_is_read(
        cut in 0usize..600, changes in proptest::collection::vec((0usize..600, any::<u8>()), 0..20),
    ) {
        let (key, events) = three();
        let (mut bytes, _) = segment(&key, &events);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(cut);
        if let Some((found, _)) = read(&bytes) {
            prop_assert!(found.iter().all(|event| events.contains(event)));
        }
    }
}
