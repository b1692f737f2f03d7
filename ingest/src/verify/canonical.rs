//! What a few senders make of a request before they sign it, so that it reads the same on both sides.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::request::UnverifiedRequest;
use super::value::Place;

/// What `encodeURIComponent` of JavaScript escapes.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// What `encodeURI` of JavaScript escapes.
const URI: &AsciiSet = &COMPONENT
    .remove(b';')
    .remove(b',')
    .remove(b'/')
    .remove(b'?')
    .remove(b':')
    .remove(b'@')
    .remove(b'&')
    .remove(b'=')
    .remove(b'+')
    .remove(b'$')
    .remove(b'#');

/// The most headers that one request may list.
const MAX_LISTED: usize = 128;

/// The path of a URL, escaped, and its query, escaped twice, as Contentful's library has it; that leaves
/// out what follows a second question mark, and so would leave it unsigned.
pub(super) fn encoded_path(url: &str) -> String {
    let target = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (target, query) = target.split_once('?').unwrap_or((target, ""));
    let path = utf8_percent_encode(target.find('/').map_or("/", |at| &target[at..]), URI);
    if query.is_empty() {
        return path.to_string();
    }
    let query = utf8_percent_encode(query, COMPONENT).to_string();
    format!("{path}?{}", utf8_percent_encode(&query, URI))
}

/// The names in the header called `list`, in lower case, sorted.
pub(super) fn listed(request: &UnverifiedRequest<'_>, list: &str) -> BTreeSet<String> {
    let text = request.headers.first(list).and_then(|text| std::str::from_utf8(text).ok());
    let names = text.unwrap_or_default().split(',').take(MAX_LISTED);
    names.map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()).collect()
}

/// `name:value` of each header that the first of `names` lists, sorted, with `;` between. All of `names`
/// must be listed, or whoever sends it could choose others. An error is what is missing.
pub(super) fn signed_headers(request: &UnverifiedRequest<'_>, names: &[String]) -> Result<Vec<u8>, Place> {
    let listed = listed(request, names.first().map_or("", String::as_str));
    if let Some(missing) = names.iter().find(|name| !listed.contains(*name)) {
        return Err(Place::Header(missing.clone()));
    }
    let mut text = Vec::new();
    for name in listed {
        let Some(value) = request.headers.first(&name) else { return Err(Place::Header(name)) };
        if !text.is_empty() {
            text.push(b';');
        }
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        text.extend_from_slice(value.trim_ascii());
    }
    Ok(text)
}

/// The fields of a form but the one called `without`, sorted by name, as `serialize` of PHP writes an
/// array of strings: each with its length, so that no two forms become the same.
pub(super) fn php_form(body: &[u8], without: &str) -> String {
    let fields: BTreeMap<_, _> =
        url::form_urlencoded::parse(body).filter(|(name, _)| name != without).collect();
    let text = |text: &str| format!("s:{}:\"{text}\";", text.len());
    let pairs: String = fields.iter().map(|(name, value)| text(name) + &text(value)).collect();
    format!("a:{}:{{{pairs}}}", fields.len())
}

/// What makes a form mean other things to others than what [`php_form`] makes of it, or cost too much.
pub(super) fn unclear(body: &[u8]) -> Option<&'static str> {
    // PHP itself reads no more.
    const MAX_FIELDS: usize = 1000;
    if body.iter().filter(|byte| **byte == b'&').count() >= MAX_FIELDS {
        return Some("it has more than 1000 fields");
    }
    // Some read it as an ampersand; who writes forms escapes it.
    if body.contains(&b';') {
        return Some("a semicolon in it is not escaped");
    }
    let mut seen = BTreeSet::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        // Bytes that are no text became these.
        if [&name, &value].iter().any(|text| text.contains(char::REPLACEMENT_CHARACTER)) {
            return Some("it is not all UTF-8");
        }
        if !seen.insert(name) {
            return Some("a field is there more than once");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use hookwell_common::time::Timestamp;

    use super::*;

    fn headers_of(headers: &[(&str, &str)]) -> Result<String, Place> {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        let request = UnverifiedRequest {
            method: "POST",
            query: None,
            headers: &headers,
            body: b"",
            received_at: Timestamp::from_seconds(0),
        };
        let names = ["x-list", "x-time"].map(str::to_owned);
        signed_headers(&request, &names).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn a_path_is_escaped_once_and_a_query_twice() {
        for (url, path) in [
            ("https://a.example", "/"),
            ("https://a.example?b=c", "/?b%253Dc"),
            ("https://a.example/in/contentful", "/in/contentful"),
            ("https://a.example/in?b=c&d=%20", "/in?b%253Dc%2526d%253D%252520"),
            ("https://a.example/in?b?c", "/in?b%253Fc"),
            ("https://a.example/in?", "/in"),
            ("https://a.example/%C3%A9/é/~;,:@&=+$#", "/%25C3%25A9/%C3%A9/~;,:@&=+$#"),
            ("/in", "/in"),
        ] {
            assert_eq!(encoded_path(url), path, "{url}");
        }
    }

    #[test]
    fn the_headers_that_are_listed_are_sorted_and_trimmed_and_no_other_is_there() {
        let headers = [("x-time", "7"), ("x-list", "X-Time, b,x-list"), ("b", " two "), ("a", "not listed")];
        assert_eq!(headers_of(&headers).unwrap(), "b:two;x-list:X-Time, b,x-list;x-time:7");
    }

    #[test]
    fn a_list_that_leaves_out_itself_or_the_time_or_names_what_is_not_there_is_none() {
        let missing = |list: &str| headers_of(&[("x-time", "7"), ("x-list", list)]).unwrap_err();
        assert_eq!(missing("x-time"), Place::Header("x-list".to_owned()));
        assert_eq!(missing("x-list"), Place::Header("x-time".to_owned()));
        assert_eq!(missing("x-list,x-time,c"), Place::Header("c".to_owned()));
        assert_eq!(headers_of(&[]).unwrap_err(), Place::Header("x-list".to_owned()));
    }

    #[test]
    fn a_form_is_what_php_makes_of_it() {
        assert_eq!(
            php_form(b"b=%C3%A9&p_signature=x&a=1+2&c=", "p_signature"),
            "a:3:{s:1:\"a\";s:3:\"1 2\";s:1:\"b\";s:2:\"\u{e9}\";s:1:\"c\";s:0:\"\";}"
        );
        assert_eq!(php_form(b"", "p_signature"), "a:0:{}");
    }

    #[test]
    fn a_form_that_others_may_read_otherwise_is_unclear() {
        assert_eq!(unclear(b"a=1&b=1&c=%3B+%C3%A9"), None);
        let crowded = "a=1&".repeat(1000).into_bytes();
        for form in [&b"a=1&b=2&%61=3"[..], b"a=1;b=2", b"a=%FF", b"a=\xff", &crowded] {
            assert!(unclear(form).is_some(), "{form:?}");
        }
    }
}
