//! A walk over a header block (RFC 7541 §6) that decodes nothing: how many fields, and what h2 drops without a word.
//!
//! It looks for a pseudo-header, which trailers may not hold (RFC 9113 §8.1), and for `#` in `:path`, where `http` cuts the target
//! off. It follows neither table: a name that stands in the dynamic table is not recognised, and such a block is cut as before.
//! That is no way to another request, only one that we repair instead of refusing it.
//!
//! Not here: whether the block is right; h2 decodes it afterwards.

/// What a header block holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    pub(super) fields: usize,
    /// A pseudo-header is among them.
    pub(super) pseudo: bool,
    /// `:path` has a fragment.
    pub(super) fragment: bool,
}

/// The static table begins with the pseudo-headers (RFC 7541 Appendix A).
const STATIC_PSEUDO: std::ops::RangeInclusive<usize> = 1..=14;
const STATIC_PATH: std::ops::RangeInclusive<usize> = 4..=5;
/// The Huffman code of `:`, 7 bits.
const COLON: u8 = 0b101_1100;
/// `:path` in Huffman code.
const PATH: [u8; 4] = [0xb9, 0x58, 0xd3, 0x3f];

/// Walks over a block; none if it is none, which h2 will find as well.
pub(super) fn walk(mut block: &[u8]) -> Option<Walked> {
    let mut walked = Walked::default();
    while let Some(first) = block.first().copied() {
        if first & 0x80 != 0 {
            let index = integer(&mut block, 7)?;
            walked.fields += 1;
            walked.pseudo |= STATIC_PSEUDO.contains(&index);
            continue;
        }
        if first & 0xe0 == 0x20 {
            integer(&mut block, 5)?;
            continue;
        }
        let index = integer(&mut block, if first & 0x40 != 0 { 6 } else { 4 })?;
        let (pseudo, path) = match index {
            0 => name(string(&mut block)?),
            _ => (STATIC_PSEUDO.contains(&index), STATIC_PATH.contains(&index)),
        };
        let value = string(&mut block)?;
        walked.fields += 1;
        walked.pseudo |= pseudo;
        walked.fragment |= path && value.has_number_sign();
    }
    Some(walked)
}

/// Whether a name is a pseudo-header's, and whether it is `:path`.
fn name(name: Text<'_>) -> (bool, bool) {
    match name {
        Text::Plain(bytes) => (bytes.first() == Some(&b':'), bytes == b":path"),
        Text::Huffman(bytes) => (
            bytes.first().is_some_and(|byte| byte >> 1 == COLON),
            bytes == PATH,
        ),
    }
}

#[derive(Clone, Copy)]
enum Text<'a> {
    Plain(&'a [u8]),
    Huffman(&'a [u8]),
}

impl Text<'_> {
    fn has_number_sign(self) -> bool {
        match self {
            Self::Plain(bytes) => bytes.contains(&b'#'),
            Self::Huffman(bytes) => huffman_number_sign(bytes),
        }
    }
}

/// RFC 7541 §5.1, up to 2^28.
fn integer(block: &mut &[u8], prefix: u32) -> Option<usize> {
    let (first, mut rest) = block.split_first()?;
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        for shift in [0, 7, 14, 21] {
            let (byte, after) = rest.split_first()?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *block = rest;
                return Some(value);
            }
        }
        return None;
    }
    *block = rest;
    Some(value)
}

/// RFC 7541 §5.2.
fn string<'a>(block: &mut &'a [u8]) -> Option<Text<'a>> {
    let huffman = block.first()? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length)?;
    *block = rest;
    Some(match huffman {
        true => Text::Huffman(text),
        false => Text::Plain(text),
    })
}

/// The Huffman code is canonical (RFC 7541 Appendix B): put to 30 bits, the codes of one length lie below those of the next. Each
/// length with the first code, so put, that is longer.
const LENGTHS: [(u32, u32); 20] = [
    (0x1400_0000, 5),
    (0x2e00_0000, 6),
    (0x3e00_0000, 7),
    (0x3f80_0000, 8),
    (0x3fd0_0000, 10),
    (0x3fe8_0000, 11),
    (0x3ff0_0000, 12),
    (0x3ffc_0000, 13),
    (0x3ffe_0000, 14),
    (0x3fff_8000, 15),
    (0x3fff_9800, 19),
    (0x3fff_b800, 20),
    (0x3fff_d200, 21),
    (0x3fff_ec00, 22),
    (0x3fff_fa80, 23),
    (0x3fff_fd80, 24),
    (0x3fff_fe00, 25),
    (0x3fff_fef0, 26),
    (0x3fff_ff88, 27),
    (0x3fff_fffc, 28),
];
/// The code of `#`, which has 12 bits.
const NUMBER_SIGN: u32 = 0xffa;

/// Whether a Huffman-coded text holds `#`. It steps from code to code; what a code stands for is not looked up.
fn huffman_number_sign(bytes: &[u8]) -> bool {
    const MASK: u64 = (1 << 30) - 1;
    let mut input = bytes.iter();
    let (mut bits, mut count) = (0_u64, 0_u32);
    loop {
        while count < 30 {
            let Some(byte) = input.next() else {
                break;
            };
            bits = bits << 8 | u64::from(*byte);
            count += 8;
        }
        if count == 0 {
            return false;
        }
        // Behind the end are ones: the padding is a prefix of the longest code.
        let code = match count {
            30.. => bits >> (count - 30) & MASK,
            _ => (bits << (30 - count) | MASK >> count) & MASK,
        };
        let code = u32::try_from(code).unwrap_or(u32::MAX);
        let length = LENGTHS
            .iter()
            .find(|(next, _)| code < *next)
            .map_or(30, |(_, length)| *length);
        if length > count {
            return false;
        }
        if length == 12 && code >> 18 == NUMBER_SIGN {
            return true;
        }
        count -= length;
        bits &= (1 << count) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
        [&[0, name.len() as u8], name, &[value.len() as u8], value].concat()
    }

    fn walked(fields: usize, pseudo: bool, fragment: bool) -> Option<Walked> {
        Some(Walked {
            fields,
            pseudo,
            fragment,
        })
    }

    #[test]
    fn fields_are_counted_in_every_representation() {
        // Size update, reference, literals with and without index and never indexed.
        let block = [
            0x20, 0x90, 0x50, 1, b'a', 0x0f, 0x01, 1, b'b', 0x10, 1, b'x', 1, b'y',
        ];
        assert_eq!(walk(&block), walked(4, false, false));
        assert_eq!(walk(&vec![0x90; 5000]), walked(5000, false, false));
        assert_eq!(walk(b""), walked(0, false, false));
    }

    #[test]
    fn pseudo_headers_are_found_by_index_and_by_name() {
        assert_eq!(walk(&[0x82]), walked(1, true, false));
        assert_eq!(walk(&[0x44, 1, b'/']), walked(1, true, false));
        assert_eq!(walk(&literal(b":x", b"1")), walked(1, true, false));
        assert_eq!(
            walk(&[0, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 1, b'/']),
            walked(1, true, false)
        );
        assert_eq!(walk(&literal(b"x:", b":1")), walked(1, false, false));
    }

    #[test]
    fn a_fragment_is_found_in_the_path_only() {
        assert_eq!(walk(&literal(b":path", b"/a#b")), walked(1, true, true));
        assert_eq!(walk(&[0x44, 3, b'/', b'#', b'x']), walked(1, true, true));
        assert_eq!(walk(&literal(b"x-test", b"/a#b")), walked(1, false, false));
    }

    #[test]
    fn number_signs_are_found_in_huffman_code() {
        for (text, coded) in HUFFMAN {
            assert_eq!(huffman_number_sign(coded), text.contains('#'), "{text}");
        }
    }

    #[test]
    fn what_is_no_block_is_nothing() {
        for block in [&[0xff; 12][..], &[0, 10, b'x'], &[0x40], &[0x04, 0x7f]] {
            assert_eq!(walk(block), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(block: Vec<u8>) {
            let _ = walk(&block);
            let _ = huffman_number_sign(&block);
        }
    }

    const HUFFMAN: [(&str, &[u8]); 15] = [
        ("/a#b", &[0x60, 0x7f, 0xf5, 0x1f]),
        ("#", &[0xff, 0xaf]),
        ("/~user/x", &[0x63, 0xff, 0xb6, 0xa0, 0xb6, 0x31, 0xe7]),
        (
            "/?a=1&b=%2F[]",
            &[
                0x63, 0xfc, 0x1c, 0x01, 0xf8, 0x8e, 0x05, 0x45, 0x87, 0xff, 0x7f, 0xfc,
            ],
        ),
        ("/~#", &[0x63, 0xff, 0xbf, 0xf5]),
        ("/#~", &[0x63, 0xfe, 0xbf, 0xfb]),
        (
            "/path?q=#f",
            &[0x62, 0xb1, 0xa6, 0x7f, 0xf3, 0xb4, 0x1f, 0xf5, 0x2f],
        ),
        (
            "/index.html",
            &[0x60, 0xd5, 0x48, 0x5f, 0x2b, 0xce, 0x9a, 0x68],
        ),
        (
            "/{a}|b^c`<>",
            &[
                0x63, 0xff, 0xf0, 0xff, 0xfd, 0xff, 0x91, 0xff, 0xf8, 0x4f, 0xff, 0xbf, 0xff, 0x3f,
                0xef,
            ],
        ),
        ("/ÿ#", &[0x63, 0xff, 0xf8, 0xff, 0xff, 0xf1, 0xff, 0xaf]),
        (
            "/ÿx",
            &[
                0x63, 0xff, 0xf8, 0xff, 0xff, 0xf1, 0xff, 0xfe, 0xbf, 0xff, 0xe6, 0xf3,
            ],
        ),
        (
            "////////#",
            &[0x61, 0x86, 0x18, 0x61, 0x86, 0x18, 0xff, 0xaf],
        ),
        ("*", &[0xf9]),
        (
            "/XZ&&&&*,;#",
            &[
                0x63, 0xf3, 0xf7, 0xe3, 0xe3, 0xe3, 0xe3, 0xe7, 0xeb, 0xef, 0xfe, 0xbf,
            ],
        ),
        (
            "/\\\\?!\"()",
            &[
                0x63, 0xff, 0xf8, 0x7f, 0xff, 0x0f, 0xf3, 0xf8, 0xfe, 0x7f, 0xaf, 0xef,
            ],
        ),
    ];
}
