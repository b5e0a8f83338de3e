//! How many bits bytes are worth by their frequencies.
//!
//! Everything is in fixed point, [`BIT`] to a bit: what is decided by it is decided alike on every machine.

/// One bit.
pub(super) const BIT: u64 = 256;

/// Bits behind the point of [`log2`].
const PRECISION: u32 = 8;

/// How often each byte occurs.
#[derive(Clone)]
pub(in crate::layer) struct Histogram {
    counts: [u32; 256],
    total: u32,
}

impl Histogram {
    /// Of at most 2 GiB.
    pub(super) fn of(data: &[u8]) -> Self {
        // Equal bytes in a row would wait for each other's count.
        let mut lanes = [[0u32; 256]; 4];
        let chunks = data.chunks_exact(4);
        for &byte in chunks.remainder() {
            lanes[0][usize::from(byte)] += 1;
        }
        for chunk in chunks {
            for (lane, &byte) in lanes.iter_mut().zip(chunk) {
                lane[usize::from(byte)] += 1;
            }
        }
        let [mut counts, rest @ ..] = lanes;
        for lane in &rest {
            add(&mut counts, lane);
        }
        Self { counts, total: u32::try_from(data.len()).expect("pieces are small") }
    }

    /// That of both one after the other.
    pub(super) fn joined(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        add(&mut joined.counts, &other.counts);
        joined.total += other.total;
        joined
    }

    pub(super) fn counts(&self) -> &[u32; 256] {
        &self.counts
    }

    /// How many different bytes there are.
    pub(super) fn distinct(&self) -> u32 {
        self.counts.iter().map(|&count| u32::from(count > 0)).sum()
    }

    pub(super) fn total(&self) -> u32 {
        self.total
    }

    /// What all of them take by a code that is made for them.
    pub(super) fn bits(&self) -> u64 {
        let weight = |count: u32| u64::from(count) * u64::from(log2(count.max(1)));
        weight(self.total).saturating_sub(self.counts.iter().map(|&count| weight(count)).sum())
    }

    /// What each byte takes by that code.
    pub(super) fn prices(&self) -> [u32; 256] {
        let whole = log2(self.total.max(1));
        self.counts.map(|count| whole.saturating_sub(log2(count.max(1))))
    }
}

fn add(counts: &mut [u32; 256], more: &[u32; 256]) {
    for (count, more) in counts.iter_mut().zip(more) {
        *count += more;
    }
}

/// The binary logarithm of `n`, which is not 0.
pub(super) fn log2(n: u32) -> u32 {
    let exponent = n.ilog2();
    let mantissa = (u64::from(n) << PRECISION) >> exponent;
    (exponent << PRECISION) + u32::from(FRACTIONS[(mantissa & 0xff) as usize])
}

/// Logarithms of what is from 1 to 2.
const FRACTIONS: [u16; 256] = fractions();

const fn fractions() -> [u16; 256] {
    let mut out = [0; 256];
    let mut at = 0;
    while at < 256 {
        // Squaring doubles the logarithm: its next bit is whether 2 was reached.
        let mut x = (256 + at as u64) << 22;
        let mut bits = 0u16;
        let mut digit = 0;
        while digit < PRECISION {
            x = (x * x) >> 30;
            let over = x >> 31;
            bits = bits << 1 | over as u16;
            x >>= over;
            digit += 1;
        }
        out[at] = bits;
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_close_and_never_too_large() {
        for n in (1..5000).chain([65_535, 65_536, 1_000_003, u32::MAX]) {
            let want = f64::from(n).log2() * 256.0;
            let got = f64::from(log2(n));
            assert!(got <= want + 1e-6 && want - got < 3.0, "{n}: {got}, and it is {want}");
        }
    }

    #[test]
    fn bytes_take_what_shannon_says() {
        for (data, want) in [
            (vec![], 0.0),
            (vec![7; 1000], 0.0),
            ((0..=255).cycle().take(4096).collect(), 8.0 * 4096.0),
            ([0, 0, 1, 2].repeat(1000), 1.5 * 4000.0),
        ] {
            let histogram = Histogram::of(&data);
            let got = histogram.bits() as f64 / BIT as f64;
            assert!((got - want).abs() <= want / 100.0, "{got}, and it is {want}");
            assert_eq!(histogram.total() as usize, data.len());
        }
    }

    #[test]
    fn joining_is_counting_both() {
        let (a, b) = (b"abracadabra".as_slice(), b"cadabra!!".as_slice());
        let joined = Histogram::of(a).joined(&Histogram::of(b));
        let whole = Histogram::of(&[a, b].concat());
        assert_eq!(joined.counts(), whole.counts());
        assert_eq!((joined.total(), joined.distinct()), (20, 6));
    }
}
