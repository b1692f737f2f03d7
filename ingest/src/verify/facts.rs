//! What is known of a way of signing without any request.

use super::value::Place;

/// What is known of a way of signing without any request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The first header that holds what proves a request; `None` where it lies in the body.
    pub header: Option<String>,
    /// Whether an altered body is noticed.
    pub covers_body: bool,
    /// Whether the URL is signed, which must then be configured.
    pub covers_url: bool,
    /// Whether each secret must have the id by which its sender knows it.
    pub needs_ids: bool,
    /// Where the secret itself may lie, for whoever must not keep it.
    pub secret_places: Vec<Place>,
    /// How secrets are written, for messages.
    pub key_words: String,
}
