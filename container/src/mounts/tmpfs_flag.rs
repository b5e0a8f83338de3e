//! `--tmpfs TARGET[:OPTIONS]`.
//!
//! As in Docker, `noexec`, `nosuid` and `nodev` are always on and mode 1777 is the default.

use rbuild_executor::Access;

use super::{InvalidMount, MountRequest, MountRequestSource, target};
use crate::quantity;

/// Mode of a tmpfs that was given none.
pub(super) const DEFAULT_MODE: u32 = 0o1777;

/// Reads one `--tmpfs`.
pub fn parse(text: &str) -> Result<MountRequest, InvalidMount> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let target = target(path)?;
    let (mut access, mut size, mut mode) = (Access::ReadWrite, None, DEFAULT_MODE);
    for word in options.split(',').filter(|word| !word.is_empty()) {
        match word.split_once('=') {
            None => match word {
                "rw" => access = Access::ReadWrite,
                "ro" => access = Access::ReadOnly,
                "noexec" | "nosuid" | "nodev" => {}
                _ => {
                    return Err(InvalidMount::NotServed {
                        what: format!("the tmpfs option '{word}'"),
                        instead: "use rw, ro, noexec, nosuid, nodev, size= and mode=",
                    });
                }
            },
            Some(("size", value)) => size = Some(quantity::bytes(value)?),
            Some(("mode", value)) => mode = octal_mode("mode", value)?,
            Some((key, value)) => {
                return Err(InvalidMount::Value { key: format!("tmpfs option {key}"), value: value.to_owned() });
            }
        }
    }
    Ok(MountRequest { target, source: MountRequestSource::Tmpfs { size, mode }, access })
}

/// Reads an octal mode, with or without a leading zero.
pub(super) fn octal_mode(key: &str, value: &str) -> Result<u32, InvalidMount> {
    let octal = value.bytes().all(|b| (b'0'..=b'7').contains(&b));
    u32::from_str_radix(value, 8)
        .ok()
        .filter(|mode| octal && *mode <= 0o7777)
        .ok_or_else(|| InvalidMount::Value { key: key.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_tmpfs_are_a_closed_list() {
        let tmpfs = |target: &str, size, mode, access| {
            Ok(MountRequest {
                target: rbuild_image::ContainerPath::new(target),
                source: MountRequestSource::Tmpfs { size, mode },
                access,
            })
        };
        assert_eq!(parse("/run"), tmpfs("/run", None, 0o1777, Access::ReadWrite));
        assert_eq!(
            parse("/run:rw,noexec,nosuid,size=65536k,mode=700"),
            tmpfs("/run", Some(64 << 20), 0o700, Access::ReadWrite)
        );
        assert_eq!(parse("/run:ro,mode=0755"), tmpfs("/run", None, 0o755, Access::ReadOnly));
        for (bad, want) in [
            ("run", "invalid mount path: 'run': mount path must be absolute"),
            ("/", "invalid specification: destination can't be '/'"),
            ("/run:mode=9", "invalid value for mode: 9"),
            ("/run:mode=", "invalid value for mode: "),
            ("/run:mode=77777", "invalid value for mode: 77777"),
            ("/run:nr_inodes=5", "invalid value for tmpfs option nr_inodes: 5"),
        ] {
            assert_eq!(parse(bad).unwrap_err().to_string(), want, "{bad:?}");
        }
        assert!(parse("/run:exec").unwrap_err().to_string().contains("the tmpfs option 'exec' is not supported"));
        assert!(parse("/run:size=lots").is_err());
    }
}
