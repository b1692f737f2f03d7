//! Bytes as what a target wants: numbers, texts, and a request whose headers are made up as they are
//! asked for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use hookwell_ingest::verify::request::RequestHeaders;

/// What is left of the bytes.
#[derive(Debug)]
pub struct Input<'d>(Cell<&'d [u8]>);

impl<'d> Input<'d> {
    /// All of `data`.
    pub fn new(data: &'d [u8]) -> Self {
        Self(Cell::new(data))
    }

    /// The next byte; 0 where none is left.
    pub fn byte(&self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// The next two bytes as a number.
    pub fn number(&self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// The next bytes, as many as their own length says.
    pub fn bytes(&self) -> &'d [u8] {
        let length = self.number();
        self.take(usize::from(length))
    }

    /// The same, as text; empty where they are none.
    pub fn text(&self) -> &'d str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }

    /// All that is left.
    pub fn rest(&self) -> &'d [u8] {
        self.0.take()
    }

    fn take(&self, count: usize) -> &'d [u8] {
        let left = self.0.get();
        let (taken, left) = left.split_at(count.min(left.len()));
        self.0.set(left);
        taken
    }
}

/// Headers that are made up as they are asked for, so that whatever a sender's scheme looks at is
/// there.
#[derive(Debug)]
pub struct MadeUp<'d> {
    input: Input<'d>,
    known: RefCell<BTreeMap<String, Vec<&'d [u8]>>>,
}

impl<'d> MadeUp<'d> {
    /// Headers made of `input`.
    pub fn of(input: Input<'d>) -> Self {
        Self { input, known: RefCell::default() }
    }
}

impl RequestHeaders for MadeUp<'_> {
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
        let mut known = self.known.borrow_mut();
        let values = known.entry(name.to_owned()).or_insert_with(|| {
            let times = self.input.byte() % 3;
            (0..times).map(|_| self.input.bytes()).collect()
        });
        values.get(n).copied()
    }

    fn names(&self) -> Vec<String> {
        self.known.borrow().keys().cloned().collect()
    }
}

/// What [`Input`] and [`MadeUp`] read, written: for cases that are made of real requests.
#[derive(Clone, Debug, Default)]
pub struct Output(pub Vec<u8>);

impl Output {
    /// For [`Input::number`].
    pub fn number(&mut self, number: u16) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    /// For [`Input::bytes`].
    pub fn bytes(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
        self.number(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
        self.0.extend_from_slice(bytes);
    }
}

/// Real headers, written as [`MadeUp`] will read them: in the order in which they are asked for.
#[derive(Debug)]
pub struct Written<'h> {
    headers: &'h Vec<(String, Vec<u8>)>,
    output: RefCell<(Vec<String>, Output)>,
}

impl<'h> Written<'h> {
    /// Writes `headers` behind `output`.
    pub fn behind(output: Output, headers: &'h Vec<(String, Vec<u8>)>) -> Self {
        Self { headers, output: RefCell::new((Vec::new(), output)) }
    }

    /// All that was asked for.
    pub fn into_bytes(self) -> Vec<u8> {
        self.output.into_inner().1.0
    }
}

impl RequestHeaders for Written<'_> {
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
        let (asked, output) = &mut *self.output.borrow_mut();
        if !asked.iter().any(|known| known == name) {
            asked.push(name.to_owned());
            let values: Vec<_> = (0..2).map_while(|n| self.headers.nth(name, n)).collect();
            output.0.push(u8::try_from(values.len()).unwrap_or(2));
            values.iter().for_each(|value| output.bytes(value));
        }
        self.headers.nth(name, n)
    }

    fn names(&self) -> Vec<String> {
        self.output.borrow().0.clone()
    }
}
