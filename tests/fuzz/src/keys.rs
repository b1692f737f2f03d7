//! What stands where senders publish their keys, or whatever else answers there, and what they are
//! named by.

use hookwell_common::time::Timestamp;
use hookwell_ingest::source::Source;

use crate::input::{Input, Output};
use crate::requests::presets;

/// A set of keys, and a certificate, to each sender that publishes any.
pub fn cases() -> Vec<Vec<u8>> {
    let set = include_bytes!("../keys/set.json").as_slice();
    let certificate = include_bytes!("../keys/rsa-certificate.pem").as_slice();
    let case = |(number, document): (usize, &[u8])| {
        let mut output = Output(vec![u8::try_from(number).unwrap_or_default()]);
        output.bytes(b"a");
        [output.0, document.to_vec()].concat()
    };
    let numbers = 0..publishers().count();
    numbers.flat_map(|number| [(number, set), (number, certificate)]).map(case).collect()
}

fn publishers() -> impl Iterator<Item = &'static Source> {
    presets().values().filter(|source| source.scheme.published().is_some())
}

pub(crate) fn read(data: &[u8]) {
    is_read(data);
}

/// Whether the document holds a key with which its sender could sign.
pub fn is_read(data: &[u8]) -> bool {
    let input = Input::new(data);
    let number = usize::from(input.byte()) % publishers().count();
    let published = publishers().nth(number).and_then(|source| source.scheme.published());
    let (id, document) = (input.text(), input.rest());
    let Some(document) = published.and_then(|published| published.read(document)) else { return false };
    document.holds(Timestamp::from_millis(1_795_000_000_000));
    document.key(Some(id)).or(document.key(None)).is_some()
}
