//! What is signed: a template over the parts of a request.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::canonical::{encoded_path, listed, php_form, signed_headers, unclear};
use super::request::UnverifiedRequest;
use super::value::{Place, header_name, is_repeated};

/// What a signature covers, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content(Vec<Part>);

/// One piece of what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Itself.
    Literal(String),
    /// The body, byte for byte.
    Body,
    /// What lies somewhere in the request.
    Value(Place),
    /// The same; nothing where it is not there.
    Optional(Place),
    /// The URL that the sender was given.
    Url,
    /// The same without its query.
    BareUrl,
    /// Its path and query, escaped.
    EncodedPath,
    /// The method, in upper case.
    Method,
    /// The headers that the first of these lists, all of these among them.
    SignedHeaders(Vec<String>),
    /// The secret itself, where a hash is taken and no HMAC.
    Secret,
    /// The id by which the sender knows the secret.
    SecretId,
    /// Name and value of each field of a form, sorted; of a name that is there more than once, each
    /// value once.
    Form,
    /// Each field of a form but this one, as PHP serialises them.
    PhpForm(String),
    /// The CRC-32 of the body, in decimal digits.
    Checksum,
    /// The body as a string of JSON.
    Quoted,
}

/// What a signature covers beside the request: the URL that the sender was given, and its secret.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'g> {
    /// The URL.
    pub url: &'g str,
    /// The secret itself, where a hash is taken.
    pub secret: &'g [u8],
    /// What the sender calls it.
    pub secret_id: &'g str,
}

/// A part that the request does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPart(pub Place);

impl Content {
    /// The grammar, as an error message says it.
    pub const GRAMMAR: &'static str = "text with {body}, {header:NAME}, {field:NAME}, {json:/POINTER}, {form:NAME}, {query:NAME}, {form}, {url}, {bare-url}, {encoded-path}, {method}, {signed-headers:NAME,…}, {crc32}, {quoted-body}, {open}, {close} and {secret-id} in it; it must cover {body}, {quoted-body} or {form}";

    /// Reads a template; `None` where a `{…}` means nothing.
    pub fn from_words(words: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = words;
        while let Some((literal, after)) = rest.split_once('{') {
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let (name, after) = after.split_once('}')?;
            parts.push(Part::from_name(name)?);
            rest = after;
        }
        if rest.contains('}') {
            return None;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Some(Self(parts))
    }

    /// Whether the body is covered; without it, anybody could alter it.
    pub fn covers_body(&self) -> bool {
        let covers = |part: &Part| match part {
            Part::Body | Part::Form | Part::PhpForm(_) | Part::Quoted => true,
            Part::Literal(_)
            | Part::Value(_)
            | Part::Optional(_)
            | Part::Url
            | Part::BareUrl
            | Part::EncodedPath
            | Part::Method
            | Part::SignedHeaders(_)
            | Part::Secret
            | Part::SecretId
            | Part::Checksum => false,
        };
        self.0.iter().any(covers)
    }

    /// Whether it begins with the secret, so that a plain hash of it can be continued by who knows the
    /// hash alone.
    pub fn begins_with_secret(&self) -> bool {
        self.0.first() == Some(&Part::Secret)
    }

    /// Whether each secret must have an id.
    pub fn names_secret(&self) -> bool {
        self.0.contains(&Part::SecretId)
    }

    /// Whether the URL is covered, which must then be configured.
    pub fn covers_url(&self) -> bool {
        [Part::Url, Part::BareUrl, Part::EncodedPath].iter().any(|part| self.0.contains(part))
    }

    /// Whether what lies at `place` is signed as it is.
    pub fn covers(&self, place: &Place) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Value(signed) if signed == place))
    }

    /// Whether it leaves out a field of a form: that of the signature, which no configuration can name.
    pub fn leaves_out_a_field(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::PhpForm(_)))
    }

    /// Whether it holds the secret, which is for hashes only.
    pub fn holds_secret(&self) -> bool {
        self.0.contains(&Part::Secret)
    }

    /// The parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Every place that it looks at.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.0.iter().filter_map(|part| match part {
            Part::Value(place) | Part::Optional(place) => Some(place),
            Part::Literal(_)
            | Part::Body
            | Part::Url
            | Part::BareUrl
            | Part::EncodedPath
            | Part::Method
            | Part::SignedHeaders(_)
            | Part::Secret
            | Part::SecretId
            | Part::Form
            | Part::PhpForm(_)
            | Part::Checksum
            | Part::Quoted => None,
        })
    }

    /// What is signed and there more than once, so that nobody can say which one was meant.
    pub fn repeated(&self, request: &UnverifiedRequest<'_>) -> Option<Place> {
        let twice = |part: &Part| match part {
            Part::Value(place) | Part::Optional(place) => is_repeated(request, place).then(|| place.clone()),
            Part::SignedHeaders(names) => {
                let listed = names.first().map(|list| listed(request, list)).unwrap_or_default();
                let mut all = names.iter().cloned().chain(listed);
                all.find(|name| request.headers.is_repeated(name)).map(Place::Header)
            }
            Part::Literal(_)
            | Part::Body
            | Part::Url
            | Part::BareUrl
            | Part::EncodedPath
            | Part::Method
            | Part::Secret
            | Part::SecretId
            | Part::Form
            | Part::PhpForm(_)
            | Part::Checksum
            | Part::Quoted => None,
        };
        self.0.iter().find_map(twice)
    }

    /// Why others may read another form than the one that is signed.
    pub fn unclear(&self, request: &UnverifiedRequest<'_>) -> Option<&'static str> {
        if self.leaves_out_a_field() { unclear(request.body) } else { None }
    }

    /// Hands each signed piece of `request` to `take`; `find` finds what lies at a place.
    pub fn feed<'f>(
        &self,
        request: &UnverifiedRequest<'_>,
        given: Given<'_>,
        find: impl Fn(&Place) -> Option<Cow<'f, [u8]>>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), MissingPart> {
        for part in &self.0 {
            match part {
                Part::Literal(text) => take(text.as_bytes()),
                Part::Body => take(request.body),
                Part::Value(place) => take(&find(place).ok_or_else(|| MissingPart(place.clone()))?),
                Part::Optional(place) => take(&find(place).unwrap_or_default()),
                Part::Url => take(given.url.as_bytes()),
                Part::BareUrl => take(given.url.split('?').next().unwrap_or_default().as_bytes()),
                Part::EncodedPath => take(encoded_path(given.url).as_bytes()),
                Part::Method => take(request.method.as_bytes()),
                Part::SignedHeaders(names) => take(&signed_headers(request, names).map_err(MissingPart)?),
                Part::Secret => take(given.secret),
                Part::SecretId => take(given.secret_id.as_bytes()),
                Part::Form => feed_form(request.body, &mut take),
                Part::PhpForm(without) => take(php_form(request.body, without).as_bytes()),
                Part::Quoted => {
                    let text = String::from_utf8_lossy(request.body);
                    take(serde_json::Value::from(text).to_string().as_bytes());
                }
                Part::Checksum => take(crc32fast::hash(request.body).to_string().as_bytes()),
            }
        }
        Ok(())
    }
}

impl Part {
    fn from_name(name: &str) -> Option<Self> {
        let place = |words| Place::from_words(words).filter(|place| *place != Place::BodyHash);
        match name {
            "body" => Some(Part::Body),
            "url" => Some(Part::Url),
            "bare-url" => Some(Part::BareUrl),
            "encoded-path" => Some(Part::EncodedPath),
            "method" => Some(Part::Method),
            "secret" => Some(Part::Secret),
            "secret-id" => Some(Part::SecretId),
            "form" => Some(Part::Form),
            "crc32" => Some(Part::Checksum),
            "quoted-body" => Some(Part::Quoted),
            "open" => Some(Part::Literal("{".to_owned())),
            "close" => Some(Part::Literal("}".to_owned())),
            _ => match (name.split_once(':'), name.strip_suffix('?')) {
                (Some(("signed-headers", names)), _) => {
                    let names: Option<Vec<_>> = names.split(',').map(header_name).collect();
                    names.map(Part::SignedHeaders)
                }
                (Some(("php-form-without", name)), _) => Some(Part::PhpForm(name.to_owned())),
                (_, Some(name)) => place(name).map(Part::Optional),
                (_, None) => place(name).map(Part::Value),
            },
        }
    }
}

/// Hands the fields of a form to `take` as [`Part::Form`] says.
pub fn feed_form(body: &[u8], mut take: impl FnMut(&[u8])) {
    let fields: BTreeSet<_> = url::form_urlencoded::parse(body).collect();
    for (name, value) in fields {
        take(name.as_bytes());
        take(value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_its_parts_in_order() {
        let content = Content::from_words("v0:{header:X-Time}:{field:t}.{method}{url}{body}").unwrap();
        let expected = [
            Part::Literal("v0:".into()),
            Part::Value(Place::Header("x-time".into())),
            Part::Literal(":".into()),
            Part::Value(Place::Field("t".into())),
            Part::Literal(".".into()),
            Part::Method,
            Part::Url,
            Part::Body,
        ];
        assert_eq!(content.parts(), expected);
        assert!(content.covers_body() && content.covers_url());
    }

    #[test]
    fn a_template_that_means_nothing_is_refused() {
        for words in
            ["{", "}", "{}", "{bodi}", "{header:}", "{field}", "{body", "body}", "{body-hash}", "{json:a}"]
        {
            assert_eq!(Content::from_words(words), None, "{words}");
        }
    }
}
