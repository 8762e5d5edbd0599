//! The hash of a key: part of the format, the same for ever (docs/formats.md, "Key hash").

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

/// "firebric" in ASCII.
const SEED: u64 = 0x6669_7265_6272_6963;
const SECRETS: RapidSecrets = RapidSecrets::seed_cpp(SEED);

/// The hash of a key.
#[inline]
pub fn hash_key(key: &[u8]) -> u64 {
    rapidhash_v3_seeded(key, &SECRETS)
}

/// The hash of a key given as a number: that of its 8 little-endian bytes.
#[inline]
pub fn hash_u64(key: u64) -> u64 {
    rapidhash_v3_seeded(&key.to_le_bytes(), &SECRETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of an independent program after the C++ `rapidhash_withSeed`, version 3.
    /// Every stored partition was cut by these values: a change of crate or seed that moves one of
    /// them makes data unreachable.
    #[test]
    fn vectors_never_change() {
        let long: Vec<u8> = (0..=255).collect();
        let vectors: [(&[u8], u64); 6] = [
            (b"", 0x0fb5_f156_0cf2_cc6f),
            (b"a", 0xa522_1e1b_524d_0ec4),
            (b"firebrick", 0x3b59_4ec3_889d_41b0),
            (b"user:0000000001", 0xbbfe_e825_cfc8_4d0b),
            (b"0123456789abcdef0123456789abcdef0", 0xa77a_c033_a702_0ac8),
            (&long, 0x9b45_844d_1087_b77f),
        ];
        for (key, hash) in vectors {
            assert_eq!(hash_key(key), hash, "hash of {key:02x?} is {:#018x}", hash_key(key));
        }
        assert_eq!(hash_u64(42), hash_key(&[42, 0, 0, 0, 0, 0, 0, 0]));
    }
}
