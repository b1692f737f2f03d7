//! Bodies of several parts (RFC 7578), of which one holds what counts.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use multer::{Multipart, parse_boundary};

use super::request::UnverifiedRequest;

/// The part called `name`; `None` where the body has none, or is of another kind.
pub(super) fn part(request: &UnverifiedRequest<'_>, name: &str) -> Option<Vec<u8>> {
    let content_type = std::str::from_utf8(request.headers.first("content-type")?).ok()?;
    let boundary = parse_boundary(content_type).ok()?;
    let body = Bytes::copy_from_slice(request.body);
    let mut parts = Multipart::new(stream::iter([Ok::<_, Infallible>(body)]), boundary);
    let find = async {
        while let Some(part) = parts.next_field().await.ok()? {
            if part.name() == Some(name) {
                return part.bytes().await.ok();
            }
        }
        None
    };
    // Everything is there already, so that nothing has to be waited for.
    find.now_or_never().flatten().map(|bytes| bytes.to_vec())
}
