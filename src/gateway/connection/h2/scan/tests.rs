//! Tests of the scanner.

use std::time::Duration;

use super::*;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags, 0, 0, 0, stream]);
    bytes.extend(payload);
    bytes
}

fn scan() -> Scan {
    let mut scan = Scan::new(200, 65_536);
    scan.read(&[0; PREFACE]).unwrap();
    scan.greeted = true;
    scan
}

/// How many of these frames pass, at most 10,000.
fn passed(scan: &mut Scan, frame: &[u8]) -> usize {
    (0..10_000).take_while(|_| scan.read(frame).is_ok()).count()
}

#[tokio::test(start_paused = true)]
async fn what_carries_nothing_is_bounded() {
    assert_eq!(passed(&mut scan(), &frame(6, 0, 0, &[0; 8])), 1_000);
    assert_eq!(passed(&mut scan(), &frame(8, 0, 0, &[0; 4])), 1_000);
    assert_eq!(passed(&mut scan(), &frame(2, 0, 3, &[0; 5])), 1_000);
    assert_eq!(passed(&mut scan(), &frame(3, 0, 1, &[0; 4])), 1_000);
    assert_eq!(passed(&mut scan(), &frame(SETTINGS, 0, 0, &[])), 50);
    assert_eq!(passed(&mut scan(), &frame(0x16, 0, 0, &[])), 1_000);
    assert_eq!(passed(&mut scan(), &frame(0x16, 0, 0, &[0; 16_384])), 58);
    assert_eq!(passed(&mut scan(), &frame(CONTINUATION, 0, 1, &[])), 1_000);
}

#[tokio::test(start_paused = true)]
async fn time_and_messages_fill_the_stock_again() {
    let ping = frame(6, 0, 0, &[0; 8]);
    let empty = || Scan { stock: 0, ..scan() };
    let mut later = empty();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(passed(&mut later, &ping), 20);
    let mut busy = empty();
    busy.sent(2);
    busy.read(&frame(DATA, 0, 1, b"x")).unwrap();
    busy.read(&frame(HEADERS, END_HEADERS, 1, &[0x82])).unwrap();
    // Trailers, and heads of streams that are not new, give nothing.
    busy.read(&frame(HEADERS, END_HEADERS, 1, &[0x90])).unwrap();
    assert_eq!(passed(&mut busy, &ping), 2 * 4 + 1 + 8);
}

#[tokio::test]
async fn settings_come_first() {
    let mut scan = Scan::new(200, 65_536);
    scan.read(&[&[0; PREFACE][..], &frame(SETTINGS, 0, 0, &[])].concat())
        .unwrap();
    scan.read(&frame(6, 0, 0, &[0; 8])).unwrap();
    let mut scan = Scan::new(200, 65_536);
    let ping = [&[0; PREFACE][..], &frame(6, 0, 0, &[0; 8])].concat();
    assert_eq!(scan.read(&ping), Err(Violation::Malformed));
}

#[tokio::test]
async fn heads_are_read_however_they_are_cut() {
    let padded = [
        &[2, 0, 0, 0, 0, 9][..],
        &[0x44, 3, b'/', b'#', b'x'],
        &[0, 0],
    ]
    .concat();
    let cases = [
        (
            frame(HEADERS, END_HEADERS, 1, &[0x44, 3, b'/', b'#', b'x']),
            true,
        ),
        (
            frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 1, &padded),
            true,
        ),
        (
            [
                frame(HEADERS, PADDED, 1, &[1, 0x44, 3, 0]),
                frame(CONTINUATION, 0, 1, b""),
                frame(CONTINUATION, END_HEADERS, 1, b"/#x"),
            ]
            .concat(),
            true,
        ),
        (
            [
                frame(HEADERS, END_HEADERS, 1, &[0x82]),
                frame(HEADERS, END_HEADERS, 1, &[0x82]),
            ]
            .concat(),
            true,
        ),
        (
            frame(HEADERS, END_HEADERS, 1, &[0x44, 3, b'/', b'a', b'x']),
            false,
        ),
        (frame(HEADERS, END_HEADERS | PADDED, 1, &[200, 1]), false),
    ];
    for (bytes, malformed) in cases {
        for size in [1, 2, 3, 7, bytes.len()] {
            let mut scan = scan();
            let read = bytes.chunks(size).try_for_each(|chunk| scan.read(chunk));
            assert_eq!(
                read,
                if malformed {
                    Err(Violation::Malformed)
                } else {
                    Ok(())
                }
            );
            assert!(malformed || !scan.is_unfinished());
        }
    }
}

#[tokio::test]
async fn a_head_of_very_many_fields_is_a_flood_before_h2_decodes_it() {
    assert!(
        scan()
            .read(&frame(HEADERS, END_HEADERS, 1, &[0x90; 800]))
            .is_ok()
    );
    let bomb = frame(HEADERS, END_HEADERS, 1, &[0x90; 801]);
    assert_eq!(scan().read(&bomb), Err(Violation::Flood));
    // Trailers are not answered: they have no more fields than a head may have.
    for (fields, read) in [(200, Ok(())), (201, Err(Violation::Flood))] {
        let mut scan = scan();
        scan.read(&frame(HEADERS, END_HEADERS, 1, &[0x82])).unwrap();
        let trailers = frame(HEADERS, END_HEADERS, 1, &vec![0x90; fields]);
        assert_eq!(scan.read(&trailers), read);
    }
}

#[tokio::test]
async fn a_head_that_has_begun_is_unfinished_and_a_body_is_not() {
    let mut scan = scan();
    assert!(!scan.is_unfinished());
    scan.read(&[0, 0, 1]).unwrap();
    assert!(scan.is_unfinished());
    scan.read(&[HEADERS, 0, 0, 0, 0, 1]).unwrap();
    assert!(scan.is_unfinished());
    scan.read(&[0x82]).unwrap();
    assert!(scan.is_unfinished(), "END_HEADERS is to come");
    scan.read(&frame(CONTINUATION, END_HEADERS, 1, b""))
        .unwrap();
    assert!(!scan.is_unfinished());
    scan.read(&frame(DATA, 0, 1, b"abc")[..10]).unwrap();
    assert!(!scan.is_unfinished());
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(chunks: Vec<Vec<u8>>) {
        let mut scan = Scan::new(200, 65_536);
        let _ = chunks.iter().try_for_each(|chunk| scan.read(chunk));
    }
}
