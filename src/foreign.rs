//! Whether this machine runs programs of the platforms that a build is for: its own, and those for which the kernel knows
//! an interpreter (`binfmt_misc`). Told before anything is built, not by a step in the middle.

use std::fs;
use std::path::Path;

use rbuild_image::Platform;
use rbuild_solver::{Graph, Op};

use crate::cli::report::Failure;

/// Where the kernel lists the interpreters of foreign programs.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// How programs of an architecture begin: class (32 or 64 bits), byte order, and machine (elf(5)).
const MACHINES: [(&str, u8, u8, u16); 13] = [
    ("386", 1, 1, 3),
    ("amd64", 2, 1, 62),
    ("arm", 1, 1, 40),
    ("arm64", 2, 1, 183),
    ("loong64", 2, 1, 258),
    ("mips", 1, 2, 8),
    ("mipsle", 1, 1, 8),
    ("mips64", 2, 2, 8),
    ("mips64le", 2, 1, 8),
    ("ppc64le", 2, 1, 21),
    ("ppc64", 2, 2, 21),
    ("riscv64", 2, 1, 243),
    ("s390x", 2, 2, 22),
];

/// Fails when a step is to run a program that this machine cannot run.
pub(crate) fn check(graph: &Graph) -> Result<(), Failure> {
    check_with(graph, &Platform::host(), Path::new(BINFMT))
}

fn check_with(graph: &Graph, host: &Platform, interpreters: &Path) -> Result<(), Failure> {
    for id in graph.ids() {
        let vertex = graph.vertex(id);
        let Op::Run(run) = &vertex.op else { continue };
        if !runs(&run.platform, host, interpreters) {
            let architecture = &run.platform.architecture;
            return Err(Failure::new(format!(
                "this machine ({host}) cannot run programs for {}, as {} needs it",
                run.platform, vertex.name
            ))
            .with_help(no_such_architecture(architecture).unwrap_or_else(|| format!(
                "register an emulator, e.g. with the Debian packages qemu-user-static and binfmt-support; or compile on \
                 this machine for {architecture}: FROM --platform=$BUILDPLATFORM, and $TARGETARCH"
            ))));
        }
    }
    Ok(())
}

/// The names by which images are made for architectures.
const ARCHITECTURES: [&str; 10] =
    ["386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x", "wasm"];

/// What a name was meant to be that is no architecture's.
fn no_such_architecture(name: &str) -> Option<String> {
    let near = rbuild_parser::suggestion(name, ARCHITECTURES)?;
    Some(format!("there is no architecture {name:?}: did you mean {near}?"))
}

/// The architecture of a binary, from how it begins; `None` where it is no ELF file of a known machine.
pub(crate) fn architecture(head: &[u8]) -> Option<&'static str> {
    let (class, order) = (*head.get(4)?, *head.get(5)?);
    let bytes: [u8; 2] = head.get(18..20)?.try_into().ok()?;
    let number = if order == 1 { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) };
    let known = MACHINES.iter().find(|(_, a, b, machine)| (*a, *b, *machine) == (class, order, number));
    known.filter(|_| head.starts_with(b"\x7fELF")).map(|(name, ..)| *name)
}

/// Whether this machine runs programs of an architecture.
pub(crate) fn runs_here(architecture: &str) -> bool {
    runs(&Platform::new("linux", architecture, None), &Platform::host(), Path::new(BINFMT))
}

/// The dynamic loader that a binary names (`PT_INTERP`), where `head` reaches that far.
pub(crate) fn loader(head: &[u8]) -> Option<String> {
    let (wide, little) = (*head.get(4)? == 2, *head.get(5)? == 1);
    let number = |at: usize, length: usize| {
        let bytes = head.get(at..at.checked_add(length)?)?;
        let fold = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        let value = if little { bytes.iter().rev().fold(0, fold) } else { bytes.iter().fold(0, fold) };
        usize::try_from(value).ok()
    };
    // Offsets of the fields in elf(5)'s headers of 64 and of 32 bits.
    let (table, each, count) = if wide {
        (number(32, 8)?, number(54, 2)?, number(56, 2)?)
    } else {
        (number(28, 4)?, number(42, 2)?, number(44, 2)?)
    };
    const PT_INTERP: usize = 3;
    let entry = (0..count).find_map(|at| {
        let entry = table.checked_add(at.checked_mul(each)?)?;
        (number(entry, 4)? == PT_INTERP).then_some(entry)
    })?;
    let (start, length) = if wide {
        (number(entry + 8, 8)?, number(entry + 32, 8)?)
    } else {
        (number(entry + 4, 4)?, number(entry + 16, 4)?)
    };
    let name = head.get(start..start.checked_add(length)?)?.strip_suffix(b"\0")?;
    String::from_utf8(name.to_vec()).ok()
}

fn runs(platform: &Platform, host: &Platform, interpreters: &Path) -> bool {
    let (wanted, own) = (platform.architecture.as_str(), host.architecture.as_str());
    // A 64-bit kernel runs the 32-bit programs of its kind; arm64 ones that cannot are the exception.
    wanted == own || matches!((own, wanted), ("amd64", "386") | ("arm64", "arm")) || is_registered(wanted, interpreters)
}

/// Whether an enabled entry takes programs of an architecture.
fn is_registered(architecture: &str, interpreters: &Path) -> bool {
    let Some((_, class, order, machine)) = MACHINES.iter().find(|(name, ..)| *name == architecture) else {
        return false;
    };
    let mut head = [0u8; 20];
    head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', *class, *order]);
    head[6] = 1;
    // An executable, for this machine.
    let number = |value: u16| if *order == 1 { value.to_le_bytes() } else { value.to_be_bytes() };
    head[16..18].copy_from_slice(&number(2));
    head[18..20].copy_from_slice(&number(*machine));
    let entries = fs::read_dir(interpreters).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .any(|text| text.lines().next() == Some("enabled") && takes(&text, &head))
}

/// Whether an entry's magic fits the head of a program.
fn takes(entry: &str, head: &[u8]) -> bool {
    let value = |name: &str| entry.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let Some(magic) = value("magic ").and_then(|text| hex::decode(text).ok()) else { return false };
    let offset: usize = value("offset ").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mask = value("mask ").and_then(|text| hex::decode(text).ok()).unwrap_or_else(|| vec![0xff; magic.len()]);
    let known = magic.iter().zip(&mask).enumerate();
    known.into_iter().all(|(at, (byte, mask))| {
        // What lies behind the machine is not looked at.
        head.get(offset + at).is_none_or(|have| have & mask == byte & mask)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AARCH64: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: F\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn a_binary_says_what_it_is_for() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(architecture(&own), Some(Platform::host().architecture.as_str()));
        if let Some(loader) = loader(&own[..4096]) {
            assert!(loader.starts_with("/lib"), "{loader}");
        }
        let mut head = [0u8; 20];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18] = 183;
        assert_eq!(architecture(&head), Some("arm64"));
        assert_eq!((architecture(b"#!/bin/sh"), loader(&head)), (None, None));
    }

    #[test]
    fn interpreters_are_found_by_their_magic() {
        let dir = tempfile::tempdir().unwrap();
        let can = |architecture: &str| {
            let platform = Platform::new("linux", architecture, None);
            runs(&platform, &Platform::new("linux", "amd64", None), dir.path())
        };
        assert!(can("amd64") && can("386") && !can("arm64"));
        fs::write(dir.path().join("qemu-aarch64"), AARCH64).unwrap();
        fs::write(dir.path().join("status"), "enabled\n").unwrap();
        assert!(can("arm64") && !can("arm") && !can("s390x") && !can("unheard-of"));
        fs::write(dir.path().join("qemu-aarch64"), AARCH64.replace("enabled", "disabled")).unwrap();
        assert!(!can("arm64"));
    }
}
