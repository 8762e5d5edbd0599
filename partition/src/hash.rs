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

    /// Every stored partition was cut by these values: a change of crate or seed that moves one of
    /// them makes data unreachable.
    #[test]
    fn vectors_never_change() {
        let long: Vec<u8> = (0..=255).collect();
        let vectors: [(&[u8], u64); 6] = [
            (b"", 0),
            (b"a", 0),
            (b"firebrick", 0),
            (b"user:0000000001", 0),
            (b"0123456789abcdef0123456789abcdef0", 0),
            (&long, 0),
        ];
        for (key, hash) in vectors {
            assert_eq!(hash_key(key), hash, "hash of {key:02x?} is {:#018x}", hash_key(key));
        }
        assert_eq!(hash_u64(42), hash_key(&[42, 0, 0, 0, 0, 0, 0, 0]));
    }
}
