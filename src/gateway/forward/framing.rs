//! What an answer's fields say about where its body ends: one reading or none (RFC 9112 §6.3).
//!
//! hyper takes the first reading that it finds; the next hop may find another. What can be read in two ways is refused, what only
//! says nothing is removed.
//!
//! Not here: the bytes of heads (`guard`), fields of one hop (`headers`).

use http::{HeaderMap, HeaderValue, StatusCode, header, response::Parts};

use crate::gateway::rejection::{Break, Rejection};

/// Refuses an answer whose body could be taken to end elsewhere than where we saw it end.
pub(super) fn check(parts: &mut Parts) -> Result<(), Rejection> {
    let coded = parts.headers.contains_key(header::TRANSFER_ENCODING);
    let sized = parts.headers.contains_key(header::CONTENT_LENGTH);
    if coded {
        coding(&parts.headers)?;
        if sized {
            return Err(refuse(
                Break::Protocol,
                "the answer has both a length and a transfer coding",
            ));
        }
    }
    if sized {
        length(&parts.headers)?;
        // Neither has a body; a 304 may tell the length of the one that it stands for (RFC 9110 §8.6).
        if parts.status == StatusCode::NO_CONTENT || parts.status.is_informational() {
            parts.headers.remove(header::CONTENT_LENGTH);
        }
    }
    Ok(())
}

/// `chunked`, once, and nothing else: this hop asked for no other.
fn coding(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = values
        .next()
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if chunked && values.next().is_none() {
        return Ok(());
    }
    Err(refuse(
        Break::TransferCoding,
        "the answer has a transfer coding that is not `chunked`",
    ))
}

/// One number.
fn length(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let number = values.next().is_some_and(is_number);
    if number && values.next().is_none() {
        return Ok(());
    }
    Err(refuse(
        Break::Protocol,
        "the answer's length is not one number",
    ))
}

fn is_number(value: &HeaderValue) -> bool {
    let text = value.as_bytes();
    !text.is_empty()
        && text.iter().all(u8::is_ascii_digit)
        && value.to_str().is_ok_and(|text| text.parse::<u64>().is_ok())
}

fn refuse(how: Break, why: &'static str) -> Rejection {
    Rejection::Broke(how, why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, fields: &[(&str, &str)]) -> Result<Parts, &'static str> {
        let mut response = http::Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let (mut parts, ()) = response.body(()).unwrap().into_parts();
        match check(&mut parts) {
            Ok(()) => Ok(parts),
            Err(rejection) => Err(rejection.proxy_error()),
        }
    }

    #[test]
    fn one_length_or_one_coding() {
        assert!(verdict(200, &[]).is_ok());
        assert!(verdict(200, &[("content-length", "5")]).is_ok());
        assert!(verdict(200, &[("transfer-encoding", "Chunked")]).is_ok());
        for length in ["", "+5", "-1", "5, 5", "5x", "0x5", "18446744073709551616"] {
            assert_eq!(
                verdict(200, &[("content-length", length)]).err(),
                Some("http_protocol_error"),
                "{length}"
            );
        }
        for twice in [["5", "5"], ["5", "6"]] {
            let fields = twice.map(|length| ("content-length", length));
            assert_eq!(verdict(200, &fields).err(), Some("http_protocol_error"));
        }
        for coding in ["gzip, chunked", "identity", "chunked, chunked", "xchunked"] {
            assert_eq!(
                verdict(200, &[("transfer-encoding", coding)]).err(),
                Some("http_response_transfer_coding"),
                "{coding}"
            );
        }
        let both = [("transfer-encoding", "chunked"), ("content-length", "5")];
        assert_eq!(verdict(200, &both).err(), Some("http_protocol_error"));
    }

    #[test]
    fn what_has_no_body_tells_no_length() {
        let length = [("content-length", "5")];
        for status in [204, 101] {
            let parts = verdict(status, &length).unwrap();
            assert!(parts.headers.is_empty(), "{status}");
        }
        assert!(!verdict(304, &length).unwrap().headers.is_empty());
    }
}
