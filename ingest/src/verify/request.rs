//! A request nobody has vouched for yet, seen without the web server that read it.

use hookwell_common::time::Timestamp;

/// The parts of a request that verification may look at; the body is never re-serialised.
#[derive(Clone, Copy)]
pub struct UnverifiedRequest<'r> {
    /// In upper case.
    pub method: &'r str,
    /// What follows `?` in the request's target.
    pub query: Option<&'r str>,
    /// The headers.
    pub headers: &'r dyn RequestHeaders,
    /// The body, byte for byte.
    pub body: &'r [u8],
    /// When it was received.
    pub received_at: Timestamp,
}

impl std::fmt::Debug for UnverifiedRequest<'_> {
    /// Shows neither headers nor body: both may hold what must not be logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnverifiedRequest")
            .field("method", &self.method)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// The headers of a request, whoever parsed them.
pub trait RequestHeaders {
    /// The `n`th value of header `name`, which is in lower case, counted from 0.
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]>;

    /// All names, in lower case.
    fn names(&self) -> Vec<String>;

    /// The first value of header `name`.
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.nth(name, 0)
    }

    /// Whether header `name` is there more than once, so that nobody can say which one counts.
    fn is_repeated(&self, name: &str) -> bool {
        self.nth(name, 1).is_some()
    }
}

/// Headers as a list, for requests that come from a file or a test. Names are in lower case.
impl RequestHeaders for Vec<(String, Vec<u8>)> {
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
        self.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_slice()).nth(n)
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|(name, _)| name.clone()).collect()
    }
}
