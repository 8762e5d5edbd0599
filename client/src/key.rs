//! Keys as applications have them.

/// A key: 0 to 32 KiB of bytes, or a number, which travels and hashes as its 8 little-endian bytes.
///
/// ```
/// use firebrick_client::Key;
/// assert_eq!(Key::from("cart").as_bytes(), b"cart");
/// assert_eq!(Key::from(7u64).as_bytes(), &[7, 0, 0, 0, 0, 0, 0, 0]);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Number([u8; 8]),
    Bytes(Vec<u8>),
}

impl Key {
    /// The bytes that are hashed and sent.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Number(n) => n,
            Repr::Bytes(b) => b,
        }
    }

    /// The bytes, without a copy where they were given as a `Vec` or `String`.
    pub fn into_bytes(self) -> Vec<u8> {
        match self.0 {
            Repr::Number(n) => n.to_vec(),
            Repr::Bytes(b) => b,
        }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key(b\"{}\")", self.as_bytes().escape_ascii())
    }
}

impl From<u64> for Key {
    fn from(n: u64) -> Self {
        Self(Repr::Number(n.to_le_bytes()))
    }
}

impl From<&[u8]> for Key {
    fn from(b: &[u8]) -> Self {
        Self(Repr::Bytes(b.to_vec()))
    }
}

impl<const N: usize> From<&[u8; N]> for Key {
    fn from(b: &[u8; N]) -> Self {
        Self(Repr::Bytes(b.to_vec()))
    }
}

impl From<Vec<u8>> for Key {
    fn from(b: Vec<u8>) -> Self {
        Self(Repr::Bytes(b))
    }
}

impl From<&Vec<u8>> for Key {
    fn from(b: &Vec<u8>) -> Self {
        Self(Repr::Bytes(b.clone()))
    }
}

impl From<&str> for Key {
    fn from(s: &str) -> Self {
        Self(Repr::Bytes(s.as_bytes().to_vec()))
    }
}

impl From<String> for Key {
    fn from(s: String) -> Self {
        Self(Repr::Bytes(s.into_bytes()))
    }
}

impl From<&String> for Key {
    fn from(s: &String) -> Self {
        Self(Repr::Bytes(s.as_bytes().to_vec()))
    }
}

impl From<&Key> for Key {
    fn from(k: &Key) -> Self {
        k.clone()
    }
}
