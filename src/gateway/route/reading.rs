//! How else an app could read a path than byte for byte.
//!
//! A part of the table, for hosts that routes share by path. Servers decode a path once or twice, take `\` for `/`, drop empty
//! segments and what stands behind `;`, and resolve dot segments, in one order or another. Paths of routes have none of these
//! characters, so it is enough to do all of that: a server that does less finds no more in a path than what is found here.
//!
//! Not here: what becomes of a path that can be read as two routes' (`hosts`).

/// Whether a path has nothing that is read in different ways. Most have not.
pub(super) fn is_the_only_one(path: &str) -> bool {
    let mut before = 0;
    !path.bytes().any(|byte| {
        let doubtful =
            matches!(byte, b'%' | b'\\' | b';') || (before == b'/' && matches!(byte, b'/' | b'.'));
        before = byte;
        doubtful
    })
}

/// The path with the characters in it that no path of a URL can have as they are, or that some senders encode and others do not
/// (RFC 3986 §3.3): everything is decoded but what is unreserved, and so has no reason to be encoded, and what has a meaning of its own.
pub(super) fn written(path: &str) -> String {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if let (b'%', [high, low, tail @ ..]) = (first, tail)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
            && is_encoded_for_a_reason(16 * high + low)
        {
            out.push(16 * high + low);
            rest = tail;
        } else {
            out.push(*first);
        }
    }
    // What is no text is in no route's path.
    String::from_utf8_lossy(&out).into_owned()
}

fn is_encoded_for_a_reason(byte: u8) -> bool {
    let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !unreserved && !b"/\\;%".contains(&byte)
}

/// The other readings: with parameters dropped before and after decoding, or only after. None: it has a dot segment, which leads
/// to another path for whoever resolves it.
pub(super) fn others(path: &str) -> Option<[String; 2]> {
    let late = segments(&decoded(path.as_bytes()))?;
    let early = path.split('/').map(without_parameters);
    let early = early.collect::<Vec<_>>().join("/");
    Some([late, segments(&decoded(early.as_bytes()))?])
}

/// Decoded until there is nothing left to decode, in one pass: a byte that comes out may be part of the next one.
fn decoded(path: &[u8]) -> String {
    let mut out = Vec::with_capacity(path.len());
    for byte in path {
        out.push(*byte);
        while let [.., b'%', high, low] = *out
            && let (Some(high), Some(low)) = (digit(high), digit(low))
        {
            out.truncate(out.len() - 3);
            out.push(16 * high + low);
        }
    }
    // What is no text is in no route's path.
    String::from_utf8_lossy(&out).into_owned()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// The segments that are left, each with its slash. None if one is a dot segment.
fn segments(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    for segment in path.split(['/', '\\']).map(without_parameters) {
        match segment {
            "." | ".." => return None,
            "" => {}
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    Some(out)
}

fn without_parameters(segment: &str) -> &str {
    segment.split(';').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_in_one_way_is_told() {
        for path in ["/", "/a/b", "/a.b/c..d/e...", "/a=b&c:d@e", "*"] {
            assert!(is_the_only_one(path), "{path}");
        }
        for path in ["/%61", "/a\\b", "/a;b", "//", "/.", "/a/..", "/a/.b"] {
            assert!(!is_the_only_one(path), "{path}");
        }
    }

    #[test]
    fn everything_that_a_server_may_do_is_done() {
        for (path, late, early) in [
            ("/%61/%2562", "/a/b", "/a/b"),
            ("/a%2fb%5Cc\\d", "/a/b/c/d", "/a/b/c/d"),
            ("//a///b/", "/a/b", "/a/b"),
            ("/a;x/b%3By", "/a/b", "/a/b"),
            ("/a;%2fb", "/a/b", "/a"),
            ("/%", "/%", "/%"),
            ("/%%331", "/1", "/1"),
            ("/", "", ""),
        ] {
            let expected = [late.to_owned(), early.to_owned()];
            assert_eq!(others(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_is_encoded_for_a_reason_is_read() {
        for (path, written) in [
            ("/a%40b/%20c%C3%A4", "/a@b/ c\u{e4}"),
            ("/%61%2f%5c%3b%25%2541", "/%61%2f%5c%3b%25%2541"),
            ("/%4", "/%4"),
            ("/%zz%", "/%zz%"),
        ] {
            assert_eq!(super::written(path), written, "{path}");
        }
    }

    #[test]
    fn dot_segments_are_found_in_every_spelling() {
        for path in [
            "/.",
            "/..",
            "/a/../b",
            "/%2e",
            "/.%2E/",
            "/%252e.",
            "/..;x",
            "/..%3bx",
            "/a%2f..",
            "/a\\..\\b",
            "/a%5c.",
            "/;%2f..",
        ] {
            assert_eq!(others(path), None, "{path}");
        }
        for path in ["/...", "/.a", "/a..", "/..a/b"] {
            assert!(others(path).is_some(), "{path}");
        }
    }
}
