//! Which key comes next.

/// How often each key is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// All alike.
    Uniform,
    /// A few often: the key of rank r with a weight of `1 / r^theta`; `theta` in 0..1, 0.99 is usual.
    Zipf {
        /// The skew.
        theta: f64,
    },
}

/// `SplitMix64`: seeded, so that a run can be repeated.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers from this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// In 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Chooses numbers of keys, 0..keys. Zipf after Gray et al., "Quickly Generating Billion-Record Synthetic
/// Databases" (SIGMOD 1994): constant time a key after one sum over all ranks.
#[derive(Debug, Clone)]
pub struct Chooser {
    random: Random,
    keys: u64,
    zipf: Option<Zipf>,
}

#[derive(Debug, Clone, Copy)]
struct Zipf {
    theta: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Chooser {
    /// A chooser among `keys` keys, at least one.
    pub fn new(distribution: Distribution, keys: u64, seed: u64) -> Self {
        let keys = keys.max(1);
        let zipf = match distribution {
            Distribution::Uniform => None,
            Distribution::Zipf { theta } => {
                let theta = theta.clamp(0.0, 0.9999);
                let zeta: f64 = (1..=keys).map(|rank| (rank as f64).powf(-theta)).sum();
                let zeta_two = 1.0 + 0.5_f64.powf(theta);
                let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - theta)) / (1.0 - zeta_two / zeta);
                Some(Zipf { theta, zeta, alpha: 1.0 / (1.0 - theta), eta })
            }
        };
        Self { random: Random::new(seed), keys, zipf: zipf.filter(|_| keys > 2) }
    }

    /// The next key's number.
    pub fn next_key(&mut self) -> u64 {
        match self.zipf {
            None => self.random.next_u64() % self.keys,
            // Neighbouring ranks must not be neighbouring keys.
            Some(zipf) => mix(self.rank(zipf)) % self.keys,
        }
    }

    fn rank(&mut self, zipf: Zipf) -> u64 {
        let unit = self.random.unit();
        let scaled = unit * zipf.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(zipf.theta) {
            return 1;
        }
        let rank = self.keys as f64 * (zipf.eta * unit - zipf.eta + 1.0).powf(zipf.alpha);
        (rank as u64).min(self.keys - 1)
    }

    /// True for this share of the calls.
    pub fn chance(&mut self, share: f64) -> bool {
        share >= 1.0 || self.random.unit() < share
    }
}

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;

/// `key:` and twelve digits, as redis-benchmark writes them.
pub fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut bytes = *b"key:000000000000";
    let mut rest = number;
    for digit in bytes[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_sixteen_bytes_and_twelve_digits() {
        assert_eq!(&key(0), b"key:000000000000");
        assert_eq!(&key(1_234_567), b"key:000001234567");
        assert_eq!(&key(999_999_999_999), b"key:999999999999");
    }

    /// How often the most frequent key, and how many different keys, came in 100,000 choices of 10,000.
    fn shape(distribution: Distribution) -> (u64, usize) {
        let mut chooser = Chooser::new(distribution, 10_000, 7);
        let mut seen = vec![0_u64; 10_000];
        for _ in 0..100_000 {
            seen[chooser.next_key() as usize] += 1;
        }
        (seen.iter().copied().max().unwrap(), seen.iter().filter(|&&n| n > 0).count())
    }

    #[test]
    fn uniform_is_flat_and_zipf_is_steep() {
        let (most, different) = shape(Distribution::Uniform);
        assert!(most < 40 && different > 9900, "{most} {different}");
        // The first of 10,000 keys has a share of 1 / zeta(10,000, 0.99) = 9.8%.
        let (most, different) = shape(Distribution::Zipf { theta: 0.99 });
        assert!((9_000..11_500).contains(&most) && different < 7500, "{most} {different}");
        let mut tiny = Chooser::new(Distribution::Zipf { theta: 0.99 }, 1, 7);
        assert_eq!(tiny.next_key(), 0);
    }
}
