//! What is signed: a template over the parts of a request.

use super::request::UnverifiedRequest;

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
    /// The value of a header.
    Header(String),
    /// The value of another pair of the signature header.
    Field(String),
    /// The URL that the sender was given.
    Url,
    /// The method, in upper case.
    Method,
}

/// A part that the request does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPart<'c>(pub &'c Part);

impl Content {
    /// The grammar, as an error message says it.
    pub const GRAMMAR: &'static str =
        "text with {body}, {header:NAME}, {field:NAME}, {url} and {method} in it; it must cover {body}";

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
        self.0.contains(&Part::Body)
    }

    /// Whether the URL is covered, which must then be configured.
    pub fn covers_url(&self) -> bool {
        self.0.contains(&Part::Url)
    }

    /// The parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Hands each signed piece of `request` to `take`; `field` finds pairs of the signature
    /// header.
    pub fn feed<'c>(
        &'c self,
        request: &UnverifiedRequest<'_>,
        url: &str,
        field: impl Fn(&str) -> Option<String>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), MissingPart<'c>> {
        for part in &self.0 {
            match part {
                Part::Literal(text) => take(text.as_bytes()),
                Part::Body => take(request.body),
                Part::Header(name) => take(request.headers.first(name).ok_or(MissingPart(part))?),
                Part::Field(name) => take(field(name).ok_or(MissingPart(part))?.as_bytes()),
                Part::Url => take(url.as_bytes()),
                Part::Method => take(request.method.as_bytes()),
            }
        }
        Ok(())
    }
}

impl Part {
    fn from_name(name: &str) -> Option<Self> {
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        match name {
            "body" => Some(Part::Body),
            "url" => Some(Part::Url),
            "method" => Some(Part::Method),
            _ => match name.split_once(':')? {
                ("header", name) => named(&name.to_ascii_lowercase()).map(Part::Header),
                ("field", name) => named(name).map(Part::Field),
                _ => None,
            },
        }
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
            Part::Header("x-time".into()),
            Part::Literal(":".into()),
            Part::Field("t".into()),
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
        for words in ["{", "}", "{}", "{bodi}", "{header:}", "{field}", "{body", "body}", "{query:a}"] {
            assert_eq!(Content::from_words(words), None, "{words}");
        }
    }
}
