//! The scan of answers' heads, whole and cut at every place.

use super::*;

fn whole(bytes: &[u8]) -> Result<bool, Refused> {
    Scan::default().feed(bytes)
}

/// However the bytes are cut, the verdict is the same.
fn scan(bytes: &[u8]) -> Result<bool, Refused> {
    let verdict = whole(bytes);
    for cut in 1..bytes.len() {
        let mut scan = Scan::default();
        let (first, second) = bytes.split_at(cut);
        let pieces = match scan.feed(first) {
            Ok(false) => scan.feed(second),
            over => over,
        };
        assert_eq!(pieces, verdict, "cut at {cut}: {:?}", bytes.escape_ascii());
    }
    let mut scan = Scan::default();
    let mut one_by_one = Ok(false);
    for byte in bytes.chunks(1) {
        one_by_one = scan.feed(byte);
        if one_by_one != Ok(false) {
            break;
        }
    }
    assert_eq!(one_by_one, verdict);
    verdict
}

#[test]
fn a_head_ends_with_its_empty_line() {
    assert_eq!(scan(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(true));
    assert_eq!(scan(b"HTTP/1.1 200\r\n\r\n"), Ok(true));
    assert_eq!(scan(b"HTTP/1.1 200 \r\n\r\n"), Ok(true));
    assert_eq!(scan(b"HTTP/1.0 200 OK\r\na: b\r\n\r\n"), Ok(true));
    assert_eq!(scan(b"HTTP/1.1 200 OK\r\na: b\r\n"), Ok(false));
    assert_eq!(
        scan(b"HTTP/1.1 101 Switching\r\na: b\r\n\r\nanything\n"),
        Ok(true)
    );
    assert_eq!(scan(b"HTTP/1.1 200 OK\r\na: b\r\n\r\nbody\nbody"), Ok(true));
}

#[test]
fn an_interim_answer_is_followed_by_another() {
    assert_eq!(scan(b"HTTP/1.1 100 Continue\r\n\r\n"), Ok(false));
    assert_eq!(
        scan(b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        Ok(true)
    );
    assert_eq!(
        scan(b"HTTP/1.1 100 Continue\r\n\r\njunk"),
        Err(Refused::NotHttp)
    );
}

#[test]
fn what_is_not_http_is_known_by_its_first_bytes() {
    for junk in [
        &b"S"[..],
        b"SSH-2.0-x\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 200\tOK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"<html>",
    ] {
        assert_eq!(scan(junk), Err(Refused::NotHttp), "{}", junk.escape_ascii());
    }
}

#[test]
fn a_line_ends_with_both_characters() {
    for bare in [
        &b"HTTP/1.1 200 OK\n\n"[..],
        b"HTTP/1.1 200 OK\r\na: b\nset-cookie: evil\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\r\n\n",
        b"HTTP/1.1 200 OK\r\n\n\r\n",
    ] {
        assert_eq!(scan(bare), Err(Refused::BareLineFeed));
    }
}

#[test]
fn a_head_has_bounds() {
    let fields = |count: u32| {
        let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
        for number in 0..count {
            head.extend_from_slice(format!("{number}:\r\n").as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        head
    };
    assert_eq!(whole(&fields(FIELDS)), Ok(true));
    assert_eq!(whole(&fields(FIELDS + 1)), Err(Refused::Fields));
    let long = [b"HTTP/1.1 200 OK\r\na: ".to_vec(), vec![b'x'; HEAD_BYTES]].concat();
    assert_eq!(whole(&long), Err(Refused::Bytes));
    let interim = b"HTTP/1.1 102 Processing\r\n\r\n";
    assert_eq!(whole(&interim.repeat(INTERIM as usize)), Ok(false));
    assert_eq!(
        whole(&interim.repeat(INTERIM as usize + 1)),
        Err(Refused::Interim)
    );
}

#[test]
fn a_cut_head_is_told_from_none() {
    assert_eq!(Scan::default().cut(), Break::Terminated);
    let mut scan = Scan::default();
    scan.feed(b"H").unwrap();
    assert_eq!(scan.cut(), Break::Incomplete);
}
