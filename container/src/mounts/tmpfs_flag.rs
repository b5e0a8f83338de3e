//! `--tmpfs TARGET[:OPTIONS]`.
//!
//! As in Docker, `noexec`, `nosuid` and `nodev` hold unless their opposites are asked for.

use rbuild_executor::{Access, TmpfsOptions};

use super::{InvalidMount, MountRequest, MountRequestSource, target};
use crate::quantity;

/// Mode of a tmpfs that was given none.
pub(super) const DEFAULT_MODE: u32 = 0o1777;

/// Reads one `--tmpfs`.
pub fn parse(text: &str) -> Result<MountRequest, InvalidMount> {
    let (path, typed) = text.split_once(':').unwrap_or((text, ""));
    let target = target(path)?;
    let (mut access, mut size, mut mode) = (Access::ReadWrite, None, DEFAULT_MODE);
    let mut options = TmpfsOptions::default();
    for word in typed.split(',').filter(|word| !word.is_empty()) {
        match word.split_once('=') {
            None => match word {
                "rw" => access = Access::ReadWrite,
                "ro" => access = Access::ReadOnly,
                "exec" | "noexec" => options.exec = word == "exec",
                "suid" | "nosuid" => options.suid = word == "suid",
                "dev" | "nodev" => options.dev = word == "dev",
                // What the kernel does anyway.
                "defaults" | "relatime" | "async" => {}
                _ => {
                    return Err(InvalidMount::NotServed {
                        what: format!("the tmpfs option '{word}'"),
                        instead: "use rw, ro, exec, noexec, suid, nosuid, dev, nodev, size=, mode=, uid=, gid=, nr_inodes= and \
                                  nr_blocks=",
                    });
                }
            },
            // The kernel knows percentages of the memory, too.
            Some((key @ "size", value)) if value.ends_with('%') => options.kernel.push(number(key, value, "%")?),
            Some(("size", value)) => size = Some(quantity::bytes(value)?),
            Some(("mode", value)) => mode = octal_mode("mode", value)?,
            Some((key @ ("uid" | "gid"), value)) => options.kernel.push(number(key, value, "")?),
            Some((key @ ("nr_inodes" | "nr_blocks"), value)) => options.kernel.push(number(key, value, "kmgKMG")?),
            Some((key, value)) => return Err(invalid(key, value)),
        }
    }
    let source = MountRequestSource::Tmpfs { size, mode, options, typed: Some(typed.to_owned()) };
    Ok(MountRequest { target, source, access })
}

/// A number that the kernel reads, behind which one of these letters may stand.
fn number(key: &str, value: &str, suffixes: &str) -> Result<(String, String), InvalidMount> {
    let digits = value.strip_suffix(|c| suffixes.contains(c)).unwrap_or(value);
    match digits.parse::<u32>() {
        Ok(_) if digits.bytes().all(|b| b.is_ascii_digit()) => Ok((key.to_owned(), value.to_owned())),
        _ => Err(invalid(key, value)),
    }
}

fn invalid(key: &str, value: &str) -> InvalidMount {
    InvalidMount::Value { key: format!("tmpfs option {key}"), value: value.to_owned() }
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
        let none = TmpfsOptions::default();
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let kernel = [("size", "50%"), ("uid", "1000"), ("gid", "50"), ("nr_inodes", "2k")].map(pair).to_vec();
        for (text, path, size, mode, access, options) in [
            ("/run", "/run", None, 0o1777, Access::ReadWrite, none.clone()),
            (
                "/run:rw,noexec,nosuid,size=65536k,mode=700",
                "/run",
                Some(64 << 20),
                0o700,
                Access::ReadWrite,
                none.clone(),
            ),
            ("/run:ro,mode=0755", "/run", None, 0o755, Access::ReadOnly, none.clone()),
            (
                "/run:exec,suid,dev",
                "/run",
                None,
                0o1777,
                Access::ReadWrite,
                TmpfsOptions { exec: true, suid: true, dev: true, kernel: Vec::new() },
            ),
            (
                "/run:size=50%,uid=1000,gid=50,nr_inodes=2k",
                "/run",
                None,
                0o1777,
                Access::ReadWrite,
                TmpfsOptions { kernel, ..none.clone() },
            ),
        ] {
            let typed = Some(text.split_once(':').map_or("", |(_, typed)| typed).to_owned());
            let target = rbuild_image::ContainerPath::new(path);
            let source = MountRequestSource::Tmpfs { size, mode, options, typed };
            assert_eq!(parse(text), Ok(MountRequest { target, source, access }), "{text}");
        }
        for (bad, want) in [
            ("run", "invalid mount path: 'run': mount path must be absolute"),
            ("/", "invalid specification: destination can't be '/'"),
            ("/run:mode=9", "invalid value for mode: 9"),
            ("/run:mode=", "invalid value for mode: "),
            ("/run:mode=77777", "invalid value for mode: 77777"),
            ("/run:nr_inodes=5x", "invalid value for tmpfs option nr_inodes: 5x"),
            ("/run:uid=root", "invalid value for tmpfs option uid: root"),
            ("/run:huge=always", "invalid value for tmpfs option huge: always"),
        ] {
            assert_eq!(parse(bad).unwrap_err().to_string(), want, "{bad:?}");
        }
        assert!(parse("/run:sync").unwrap_err().to_string().contains("the tmpfs option 'sync' is not supported"));
        assert!(parse("/run:size=lots").is_err());
    }
}
