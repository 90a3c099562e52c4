//! Ed25519 keys under which a signature proves nothing.
//!
//! The curve has eight points of small order. Under one of them `R = S·B - k·A` (RFC 8032 §5.1.7) holds for signatures that nobody made,
//! and the verification, which follows the RFC, does not mind. No honest key is one of them.

/// Their y, little-endian, without the sign of x; the last two are spelled beyond the field's prime.
const SMALL_ORDER: [&str; 7] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

/// Whether a public key is a point of small order.
pub(super) fn has_small_order(key: &[u8]) -> bool {
    let Some((last, rest)) = key.split_last() else {
        return false;
    };
    let bytes = rest.iter().copied().chain([last & 0x7f]);
    let y: String = bytes.map(|byte| format!("{byte:02x}")).collect();
    SMALL_ORDER.contains(&y.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_orders_are_known_with_either_sign_and_other_keys_are_not() {
        for sign in [0, 0x80] {
            let mut neutral = [0; 32];
            (neutral[0], neutral[31]) = (1, sign);
            assert!(has_small_order(&neutral));
            // The base point.
            let mut base = [0x66; 32];
            (base[0], base[31]) = (0x58, 0x66 | sign);
            assert!(!has_small_order(&base));
        }
        assert!(!has_small_order(&[]));
    }
}
