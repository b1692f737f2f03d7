use proptest::prelude::*;

use super::*;

fn raw(event: &Event, passage: &Passage) -> RawRecord {
    let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
    encode_headers(event, passage, |name, value| headers.push((name.to_owned(), value.to_owned())));
    let key = record_key(&event.source, &event.id);
    RawRecord::copy(
        Some(&key),
        &event.body,
        headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())),
    )
}

fn text() -> impl Strategy<Value = ByteString> {
    "[ -~é日]{1,40}".prop_map(ByteString::from)
}

fn moment() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp::from_millis)
}

prop_compose! {
    fn event()(
        source in text(), id in text(), kind in text(), time in text(),
        content_type in proptest::option::of(text()),
        traceparent in proptest::option::of(text()),
        kept in proptest::collection::vec(("[a-z-]{1,20}", any::<Vec<u8>>()), 0..4),
        body in any::<Vec<u8>>(),
    ) -> Event {
        let kept_headers = kept.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Event { source, id, kind, time, content_type, traceparent, kept_headers, body: body.into() }
    }
}

prop_compose! {
    fn passage()(
        destination in proptest::option::of(text()),
        generation in any::<u16>(), attempt in any::<u16>(), forced in any::<bool>(),
        not_before in proptest::option::of(moment()),
        first_failed_at in proptest::option::of(moment()),
        origin in proptest::option::of((text(), any::<i32>(), any::<i64>())),
        failure in proptest::option::of((text(), text())),
    ) -> Passage {
        Passage {
            destination, generation, attempt, forced, not_before, first_failed_at,
            origin: origin.map(|(topic, partition, offset)| Origin { topic, partition, offset }),
            failure: failure.map(|(class, detail)| Failure { class, detail }),
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(event in event(), passage in passage()) {
        prop_assert_eq!(raw(&event, &passage).decode(), Ok((event, passage)));
    }

    #[test]
    fn a_second_hop_replaces_the_headers_of_the_first(event in event(), first in passage(), second in passage()) {
        let (event, _) = raw(&event, &first).decode().unwrap();
        let hop = raw(&event, &second);
        let mut names: Vec<_> = hop.headers().map(|(name, _)| name).filter(|name| !name.starts_with(b"http-")).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        prop_assert_eq!(names.len(), count);
        prop_assert_eq!(hop.decode(), Ok((event, second)));
    }

    #[test]
    fn strange_records_are_refused_and_never_crash(
        value in any::<Vec<u8>>(),
        headers in proptest::collection::vec((proptest::sample::select(names::ALL), any::<Vec<u8>>()), 0..12),
    ) {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_slice()));
        if let Ok((event, _)) = RawRecord::copy(None, &value, headers).decode() {
            prop_assert!(!event.id.is_empty() && !event.source.is_empty());
        }
    }
}

fn minimal() -> Vec<(&'static str, &'static [u8])> {
    vec![
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"github"),
        ("ce_type", b"push"),
        ("ce_time", b"2026-11-24T09:00:00.000Z"),
    ]
}

#[test]
fn an_accepted_event_carries_no_header_of_a_hop() {
    let record = RawRecord::copy(None, b"{}", minimal().into_iter());
    let (event, passage) = record.decode().unwrap();
    assert_eq!(passage, Passage::default());
    let mut names = Vec::new();
    encode_headers(&event, &passage, |name, _| names.push(name.to_owned()));
    assert!(names.iter().all(|name| name.starts_with("ce_")), "{names:?}");
}

#[test]
fn each_missing_header_is_named() {
    for (index, (name, _)) in minimal().into_iter().enumerate() {
        let mut headers = minimal();
        headers.remove(index);
        let record = RawRecord::copy(None, b"", headers.into_iter());
        assert_eq!(record.decode(), Err(DecodeError::Missing(name)));
    }
}

#[test]
fn an_empty_event_id_is_a_missing_one() {
    let headers =
        minimal().into_iter().map(|(name, value)| (name, if name == "ce_id" { b"" } else { value }));
    assert_eq!(RawRecord::copy(None, b"", headers).decode(), Err(DecodeError::Missing("ce_id")));
}

#[test]
fn text_that_could_break_a_header_or_a_log_line_is_refused() {
    for bad in [b"a\nb".as_slice(), b"\xff", b"a\0"] {
        let headers =
            minimal().into_iter().map(|(name, value)| (name, if name == "ce_type" { bad } else { value }));
        assert_eq!(RawRecord::copy(None, b"", headers).decode(), Err(DecodeError::NotText("ce_type")));
    }
}

#[test]
fn a_number_that_is_none_is_refused_by_name() {
    let mut headers = minimal();
    headers.push(("hookwell-attempt", b"-1"));
    assert_eq!(
        RawRecord::copy(None, b"", headers.into_iter()).decode(),
        Err(DecodeError::Malformed("hookwell-attempt"))
    );
}

#[test]
fn an_error_text_is_cut_between_characters() {
    let passage = Passage {
        failure: Some(Failure { class: "transient".into(), detail: "é".repeat(600).into() }),
        ..Passage::default()
    };
    let mut written = Vec::new();
    encode_passage(&passage, |name, value| {
        if name == names::ERROR {
            written = value.to_owned();
        }
    });
    assert_eq!(String::from_utf8(written).unwrap().len(), names::MAX_ERROR_BYTES);
}

#[test]
fn every_name_that_is_written_is_in_the_contract() {
    let event = Event {
        source: "s".into(),
        id: "i".into(),
        kind: "k".into(),
        time: "t".into(),
        content_type: Some("c".into()),
        traceparent: Some("p".into()),
        kept_headers: vec![],
        body: Bytes::new(),
    };
    let moment = Some(Timestamp::from_millis(1));
    let passage = Passage {
        destination: Some("d".into()),
        forced: true,
        not_before: moment,
        first_failed_at: moment,
        origin: Some(Origin { topic: "t".into(), partition: 0, offset: 0 }),
        failure: Some(Failure { class: "c".into(), detail: "d".into() }),
        ..Passage::default()
    };
    let mut written = Vec::new();
    encode_headers(&event, &passage, |name, _| written.push(name.to_owned()));
    assert_eq!(written, names::ALL);
}
