//! `compression` and `compression-level` of `--output` and `--cache-to`: what BuildKit takes, turned into what is written.
//!
//! | | BuildKit | here |
//! |---|---|---|
//! | gzip 1 to 9, zstd 1 to 22 | a level of Go's writers; of zstd's only four differ | that level |
//! | gzip 0 | stored | stored |
//! | gzip -1 | Go's usual level | as without a level |
//! | gzip -2 | Huffman codes only: the least work | level 1 |
//! | any other of gzip | fails when the first layer is written | refused before anything is built |
//! | zstd below 1, above 22 | the fastest, the smallest | 1, 22 |

use crate::request::Compression;

/// What layers become; gzip where no format is named.
pub(super) fn compression(format: Option<&str>, level: Option<&str>) -> Result<Compression, String> {
    let number = |text: &str| text.parse::<i64>().map_err(|_| format!("compression-level={text}: not a number"));
    let level = level.map(number).transpose()?;
    match format {
        None | Some("gzip") => level.map_or(Ok(None), gzip_level).map(Compression::Gzip),
        Some("zstd") => {
            Ok(Compression::Zstd(level.map(|level| i32::try_from(level.clamp(1, 22)).expect("it is within 1 to 22"))))
        }
        Some("uncompressed") => Ok(Compression::Uncompressed),
        Some("estargz") => Err("compression=estargz cannot be written: want gzip, zstd or uncompressed".to_owned()),
        Some(other) => Err(format!("compression={other}: want gzip, zstd or uncompressed")),
    }
}

fn gzip_level(level: i64) -> Result<Option<i32>, String> {
    match i32::try_from(level) {
        Ok(-1) => Ok(None),
        Ok(-2) => Ok(Some(1)),
        Ok(level @ 0..=9) => Ok(Some(level)),
        _ => Err(format!("compression-level={level}: gzip has levels 0 to 9, and -1 for its usual one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_that_buildkit_takes() {
        for (format, level, want) in [
            (None, None, Ok(Compression::Gzip(None))),
            (None, Some("3"), Ok(Compression::Gzip(Some(3)))),
            (Some("gzip"), Some("0"), Ok(Compression::Gzip(Some(0)))),
            (Some("gzip"), Some("-1"), Ok(Compression::Gzip(None))),
            (Some("gzip"), Some("-2"), Ok(Compression::Gzip(Some(1)))),
            (Some("gzip"), Some("9"), Ok(Compression::Gzip(Some(9)))),
            (Some("zstd"), None, Ok(Compression::Zstd(None))),
            (Some("zstd"), Some("-1"), Ok(Compression::Zstd(Some(1)))),
            (Some("zstd"), Some("19"), Ok(Compression::Zstd(Some(19)))),
            (Some("zstd"), Some("23"), Ok(Compression::Zstd(Some(22)))),
            (Some("zstd"), Some("9000000000"), Ok(Compression::Zstd(Some(22)))),
            (Some("uncompressed"), Some("5"), Ok(Compression::Uncompressed)),
        ] {
            assert_eq!(compression(format, level), want, "{format:?} {level:?}");
        }
        for (format, level, why) in [
            (None, "10", "compression-level=10: gzip has levels 0 to 9"),
            (Some("gzip"), "-3", "compression-level=-3: gzip has levels 0 to 9"),
            (Some("gzip"), "9000000000", "gzip has levels 0 to 9"),
            (Some("zstd"), "best", "compression-level=best: not a number"),
            (Some("uncompressed"), "", "not a number"),
            (Some("estargz"), "5", "estargz cannot be written"),
            (Some("lzma"), "5", "compression=lzma: want gzip"),
        ] {
            let error = compression(format, Some(level)).unwrap_err();
            assert!(error.contains(why), "{format:?} {level:?}: {error}");
        }
    }
}
