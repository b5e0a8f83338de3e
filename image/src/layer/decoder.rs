//! Decompression of what strangers compressed: found out by its first bytes, streamed, bounded.
//!
//! No program is run for it. A [`Decoder`] that has returned its end has taken all bytes of the underlying reader, so a
//! digest computed on the way covers the whole blob.

use std::io::{self, BufReader, Chain, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::media_type::Compression;

/// Below this much output no ratio is too high.
const RATIO_FREE: u64 = 64 << 20;
/// How much memory an xz stream may ask for: its largest preset needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;
/// The longest of the marks that streams begin with.
const LONGEST_MAGIC: usize = 6;

/// How much a compressed stream may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Bytes of output.
    pub output_bytes: u64,
    /// Bytes of output for each byte of input, once there are 64 MiB of output.
    pub ratio: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { output_bytes: 1 << 40, ratio: 500 }
    }
}

/// A compressed stream that becomes too much. Travels inside an [`io::Error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeLimitExceeded {
    /// Too long.
    #[error("the decompressed data exceeds the limit output_bytes of {limit}")]
    Output {
        /// The limit.
        limit: u64,
    },
    /// Too long for what it was made from.
    #[error("{consumed} compressed bytes became {produced}, which exceeds the limit ratio of {limit}")]
    Ratio {
        /// Bytes taken in.
        consumed: u64,
        /// Bytes given out.
        produced: u64,
        /// The limit.
        limit: u64,
    },
}

/// Finds out how a stream is compressed by its first bytes, of which six are enough.
pub fn detect(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        _ => Compression::None,
    }
}

/// Reads the decompressed bytes of a stream.
pub struct Decoder<R: Read> {
    codec: Codec<R>,
    compression: Compression,
    limits: DecodeLimits,
    consumed: Arc<AtomicU64>,
    produced: u64,
}

type Source<R> = BufReader<Counted<Chain<Cursor<Vec<u8>>, R>>>;

enum Codec<R: Read> {
    None(Source<R>),
    Gzip(flate2::bufread::MultiGzDecoder<Source<R>>),
    Zstd(zstd::Decoder<'static, Source<R>>),
    Bzip2(bzip2::bufread::MultiBzDecoder<Source<R>>),
    Xz(liblzma::bufread::XzDecoder<Source<R>>),
}

/// Counts what a decoder takes in.
struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Decoder<R> {
    /// Looks at the first bytes of `reader` and decompresses accordingly, with the default limits.
    pub fn new(reader: R) -> io::Result<Self> {
        Self::with_limits(reader, DecodeLimits::default())
    }

    /// Looks at the first bytes of `reader` and decompresses accordingly.
    pub fn with_limits(mut reader: R, limits: DecodeLimits) -> io::Result<Self> {
        let mut start = Vec::with_capacity(LONGEST_MAGIC);
        Read::take(&mut reader, LONGEST_MAGIC as u64).read_to_end(&mut start)?;
        let compression = detect(&start);
        let consumed = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: Cursor::new(start).chain(reader), count: Arc::clone(&consumed) };
        let source = BufReader::with_capacity(128 * 1024, counted);
        let codec = match compression {
            Compression::None => Codec::None(source),
            Compression::Gzip => Codec::Gzip(flate2::bufread::MultiGzDecoder::new(source)),
            Compression::Zstd => Codec::Zstd(zstd::Decoder::with_buffer(source)?),
            Compression::Bzip2 => Codec::Bzip2(bzip2::bufread::MultiBzDecoder::new(source)),
            Compression::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
                Codec::Xz(liblzma::bufread::XzDecoder::new_stream(source, stream))
            }
        };
        Ok(Self { codec, compression, limits, consumed, produced: 0 })
    }

    /// How the stream is compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    fn check(&self) -> Result<(), DecodeLimitExceeded> {
        let (limits, produced) = (&self.limits, self.produced);
        if produced > limits.output_bytes {
            return Err(DecodeLimitExceeded::Output { limit: limits.output_bytes });
        }
        let consumed = self.consumed.load(Ordering::Relaxed);
        if produced > RATIO_FREE && produced / consumed.max(1) > limits.ratio {
            return Err(DecodeLimitExceeded::Ratio { consumed, produced, limit: limits.ratio });
        }
        Ok(())
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.codec {
            Codec::None(codec) => codec.read(buf),
            Codec::Gzip(codec) => codec.read(buf),
            Codec::Zstd(codec) => codec.read(buf),
            Codec::Bzip2(codec) => codec.read(buf),
            Codec::Xz(codec) => codec.read(buf),
        }?;
        self.produced += n as u64;
        self.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(n)
    }
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("compression", &self.compression).field("produced", &self.produced).finish()
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(compression: Compression, data: &[u8]) -> Vec<u8> {
        match compression {
            Compression::None => data.to_vec(),
            Compression::Gzip => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                writer.write_all(data).unwrap();
                writer.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(data, 1).unwrap(),
            Compression::Bzip2 => {
                let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                writer.write_all(data).unwrap();
                writer.finish().unwrap()
            }
            Compression::Xz => liblzma::encode_all(data, 1).unwrap(),
        }
    }

    const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz];

    fn text() -> Vec<u8> {
        (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    #[test]
    fn each_format_is_found_out_and_read_to_its_last_byte() {
        for compression in ALL {
            let once = packed(compression, &text());
            let members = [once.clone(), once].concat();
            let mut rest = &members[..];
            let mut decoder = Decoder::new(&mut rest).unwrap();
            let mut out = Vec::new();
            decoder.read_to_end(&mut out).unwrap();
            assert_eq!(decoder.compression(), compression);
            assert_eq!(out, [text(), text()].concat(), "{compression:?}: all members are read");
            drop(decoder);
            assert!(rest.is_empty(), "{compression:?}");
        }
        let mut out = Vec::new();
        Decoder::new(&b"\x1f"[..]).unwrap().read_to_end(&mut out).unwrap();
        assert_eq!(out, b"\x1f", "too short to be anything");
    }

    #[test]
    fn cut_and_damaged_streams_are_errors() {
        for compression in &ALL[1..] {
            let whole = packed(*compression, &text());
            for cut in [whole.len() - 1, whole.len() / 2, 7] {
                let error = Decoder::new(&whole[..cut]).unwrap().read_to_end(&mut Vec::new());
                assert!(error.is_err(), "{compression:?} cut to {cut} of {}", whole.len());
            }
            let tail = [whole.as_slice(), b"garbage"].concat();
            assert!(
                Decoder::new(&tail[..]).unwrap().read_to_end(&mut Vec::new()).is_err(),
                "{compression:?} + garbage"
            );
        }
    }

    fn failure(data: &[u8], limits: DecodeLimits) -> DecodeLimitExceeded {
        let mut decoder = Decoder::with_limits(data, limits).unwrap();
        let error = io::copy(&mut decoder, &mut io::sink()).unwrap_err();
        error.into_inner().unwrap().downcast_ref::<DecodeLimitExceeded>().unwrap().clone()
    }

    #[test]
    fn output_and_ratio_are_bounded() {
        let zeros = packed(Compression::Gzip, &vec![0; 80 << 20]);
        let limits = DecodeLimits { output_bytes: 1 << 20, ratio: u64::MAX };
        assert_eq!(failure(&zeros, limits), DecodeLimitExceeded::Output { limit: 1 << 20 });
        let limits = DecodeLimits { output_bytes: u64::MAX, ratio: 100 };
        assert!(
            matches!(failure(&zeros, limits), DecodeLimitExceeded::Ratio { limit: 100, produced, .. } if produced < 65 << 20)
        );
        let plain = DecodeLimits { output_bytes: 10, ratio: 1 };
        assert_eq!(failure(&[7; 11], plain), DecodeLimitExceeded::Output { limit: 10 });
        for (error, words) in [
            (DecodeLimitExceeded::Output { limit: 10 }, "the decompressed data exceeds the limit output_bytes of 10"),
            (
                DecodeLimitExceeded::Ratio { consumed: 7, produced: 7000, limit: 100 },
                "7 compressed bytes became 7000, which exceeds the limit ratio of 100",
            ),
        ] {
            assert_eq!(error.to_string(), words);
        }
        let small = packed(Compression::Zstd, &vec![0; 8 << 20]);
        let mut decoder = Decoder::with_limits(&small[..], DecodeLimits { output_bytes: u64::MAX, ratio: 1 }).unwrap();
        assert_eq!(io::copy(&mut decoder, &mut io::sink()).unwrap(), 8 << 20, "small things may be packed well");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_decoders_panic(
            mut bytes in proptest::collection::vec(0u8.., 0..300),
            format in 0usize..5,
            at in 0usize..300,
        ) {
            drop(Decoder::new(&bytes[..]).unwrap().read_to_end(&mut Vec::new()));
            let mut whole = packed(ALL[format], b"some text some text some text");
            let at = at % whole.len();
            whole.splice(at..(at + 2).min(whole.len()), bytes.drain(..bytes.len().min(4)));
            let mut out = Vec::new();
            drop(Decoder::new(&whole[..]).unwrap().take(1 << 20).read_to_end(&mut out));
        }
    }
}
