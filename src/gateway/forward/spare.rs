//! A spare: the copy of a request that may have to be sent a second time.
//!
//! Hardly one is ever needed, and one is kept for nearly every request: so its fields lie in one piece of memory, of the size they
//! have, and are taken apart only when it is sent. A copy of the map would be three times as large, and cold when it is dropped.
//!
//! Not here: when a second sending is safe (`send`).

use bytes::{Buf, BufMut, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::body::RequestBody;

/// See the module. It has no body.
pub(super) struct Spare {
    method: Method,
    uri: Uri,
    version: Version,
    /// Per field: the lengths of name and value, name, value.
    fields: Vec<u8>,
}

/// What the two lengths of a field take.
const LENGTHS: usize = 2 * size_of::<u32>();

impl Spare {
    pub(super) fn of(request: &Request<RequestBody>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            fields: pack(request.headers()),
        }
    }

    /// The request again. None: never, what came out of a request fits into one.
    pub(super) fn request(self) -> Option<Request<RequestBody>> {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = unpack(self.fields.into())?;
        Some(request)
    }
}

fn pack(headers: &HeaderMap) -> Vec<u8> {
    let size =
        |(name, value): (&HeaderName, &HeaderValue)| LENGTHS + name.as_str().len() + value.len();
    let mut fields = Vec::with_capacity(headers.iter().map(size).sum());
    for (name, value) in headers {
        // A head is far below 4 GiB.
        fields.put_u32_ne(name.as_str().len() as u32);
        fields.put_u32_ne(value.len() as u32);
        fields.put_slice(name.as_str().as_bytes());
        fields.put_slice(value.as_bytes());
    }
    fields
}

fn unpack(mut fields: Bytes) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    while fields.has_remaining() {
        let name = fields.try_get_u32_ne().ok()? as usize;
        let value = fields.try_get_u32_ne().ok()? as usize;
        if fields.remaining() < name + value {
            return None;
        }
        let name = HeaderName::from_bytes(&fields.split_to(name)).ok()?;
        let value = HeaderValue::from_maybe_shared(fields.split_to(value)).ok()?;
        headers.try_append(name, value).ok()?;
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_request_it_was_made_of() {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = Method::OPTIONS;
        *request.uri_mut() = "/a?b=c".parse().unwrap();
        let fields = [
            ("host", &b"k3x9q2.gitspaces.localhost"[..]),
            ("x-twice", b"1"),
            ("x-empty", b""),
            ("x-twice", b"2"),
            ("x-latin", b"caf\xe9"),
        ];
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value).unwrap();
            request.headers_mut().append(name, value);
        }
        let again = Spare::of(&request).request().unwrap();
        assert_eq!(again.method(), request.method());
        assert_eq!(again.uri(), request.uri());
        assert_eq!(again.version(), request.version());
        assert_eq!(again.headers(), request.headers());
    }

    #[test]
    fn what_is_cut_short_is_no_request() {
        let headers =
            HeaderMap::from_iter([("x-a".parse().unwrap(), HeaderValue::from_static("b"))]);
        let fields = pack(&headers);
        for length in 1..fields.len() {
            assert!(
                unpack(Bytes::copy_from_slice(&fields[..length])).is_none(),
                "{length}"
            );
        }
        assert_eq!(unpack(fields.into()), Some(headers));
    }
}
