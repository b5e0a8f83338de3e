//! The modules that a program in Go was linked of. Its linker writes them into the program: 32 bytes at a multiple of 16
//! near the beginning of the first writable segment (magic, size of a pointer, flags), then the version of Go and the
//! modules, each text with its length before it (since Go 1.18; older programs have pointers there, and list nothing).

use std::io;

use super::Package;

const MAGIC: &[u8] = b"\xff Go buildinf:";
/// The texts stand behind the head, not behind pointers.
const INLINE: u8 = 2;
/// Go's own reader looks no further for the magic.
const SEARCHED: usize = 64 << 10;
/// Modules are read up to this size.
const LONGEST: usize = 4 << 20;
/// What stands before and behind the list of modules.
const SENTINEL: usize = 16;

/// The packages that a file names, if it is such a program; `read` reads at an offset.
pub(super) fn packages(path: &str, read: &dyn Fn(&mut [u8], u64) -> io::Result<usize>) -> io::Result<Vec<Package>> {
    let mut head = [0; 64];
    if fill(&mut head, 0, read)? < head.len() || !head.starts_with(b"\x7fELF") {
        return Ok(Vec::new());
    }
    let Some(table) = Table::of(&head) else { return Ok(Vec::new()) };
    let mut entries = vec![0; table.size * table.count];
    let filled = fill(&mut entries, table.offset, read)?;
    let Some((offset, length)) = entries[..filled].chunks_exact(table.size).find_map(|entry| table.writable(entry))
    else {
        return Ok(Vec::new());
    };
    let mut data = vec![0; usize::try_from(length).unwrap_or(LONGEST).min(SEARCHED)];
    let filled = fill(&mut data, offset, read)?;
    let Some(at) = (0..filled).step_by(16).find(|at| data[*at..filled].starts_with(MAGIC)) else {
        return Ok(Vec::new());
    };
    let mut info = vec![0; usize::try_from(length).unwrap_or(LONGEST).saturating_sub(at).min(LONGEST)];
    let filled = fill(&mut info, offset + at as u64, read)?;
    Ok(listed(&info[..filled], path).unwrap_or_default())
}

/// Reads as much as there is.
fn fill(buffer: &mut [u8], offset: u64, read: &dyn Fn(&mut [u8], u64) -> io::Result<usize>) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read(&mut buffer[filled..], offset.saturating_add(filled as u64))? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Where a program says which parts of it are loaded.
struct Table {
    offset: u64,
    size: usize,
    count: usize,
    is_wide: bool,
}

impl Table {
    /// Of little-endian programs, 32 or 64 bits wide.
    fn of(head: &[u8; 64]) -> Option<Self> {
        let is_wide = match (head[4], head[5]) {
            (1, 1) => false,
            (2, 1) => true,
            _ => return None,
        };
        let short = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
        let (offset, size, count, least) = match is_wide {
            true => (long(head, 32, 8)?, short(54), short(56), 56),
            false => (long(head, 28, 4)?, short(42), short(44), 32),
        };
        (size >= least && size <= 4096 && count <= 4096).then_some(Self { offset, size, count, is_wide })
    }

    /// Offset and length of a segment that is loaded and written to.
    fn writable(&self, entry: &[u8]) -> Option<(u64, u64)> {
        let (flags, offset, length) = match self.is_wide {
            true => (long(entry, 4, 4)?, long(entry, 8, 8)?, long(entry, 32, 8)?),
            false => (long(entry, 24, 4)?, long(entry, 4, 4)?, long(entry, 16, 4)?),
        };
        (long(entry, 0, 4)? == 1 && flags & 2 != 0 && length > 0).then_some((offset, length))
    }
}

fn long(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + width)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn listed(info: &[u8], path: &str) -> Option<Vec<Package>> {
    if info.get(15)? & INLINE == 0 {
        return None;
    }
    let (version, rest) = text(info.get(32..)?)?;
    let (modules, _) = text(rest)?;
    let modules = modules.get(SENTINEL..modules.len().checked_sub(SENTINEL)?)?;
    let mut found = Vec::new();
    let version = String::from_utf8_lossy(version);
    let number = version.strip_prefix("go").and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    if number.starts_with(|c: char| c.is_ascii_digit()) {
        found.push(Package::new("golang", "stdlib", number, path));
    }
    for line in String::from_utf8_lossy(modules).lines() {
        let mut fields = line.split('\t');
        let (kind, name, version) =
            (fields.next(), fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        match kind {
            Some("mod" | "dep") => {}
            // What took the place of the module before.
            Some("=>") => drop(found.pop()),
            _ => continue,
        }
        let (namespace, name) = name.rsplit_once('/').unwrap_or(("", name));
        found.push(Package { namespace: namespace.to_owned(), ..Package::new("golang", name, version, path) });
    }
    // A module that was built from where it lies has no version.
    found.retain(|package| !package.name.is_empty() && !["", "(devel)"].contains(&package.version.as_str()));
    Some(found)
}

/// A text, and what follows it: its length is a number of 7 bits a byte, the lowest first.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut length, mut at) = (0usize, 0);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7f).checked_shl(u32::try_from(at).ok()? * 7)?;
        at += 1;
        if byte < 0x80 {
            break;
        }
        if at > 4 {
            return None;
        }
    }
    let rest = &bytes[at..];
    (length <= rest.len()).then(|| rest.split_at(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: &str = "path\texample.com/app\nmod\texample.com/app\t(devel)\t\ndep\tgolang.org/x/net\tv0.1.0\th1:x\n\
                           dep\texample.com/old\tv1.0.0\n=>\texample.com/new\tv2.0.0\th1:y\nbuild\tGOOS=linux\n";

    /// A program of two segments, the second of which is written to and has the information behind a bit of data.
    fn program(is_wide: bool) -> Vec<u8> {
        let mut elf = vec![0u8; 4096];
        elf[..6].copy_from_slice(if is_wide { b"\x7fELF\x02\x01" } else { b"\x7fELF\x01\x01" });
        let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
        let (size, at) = if is_wide { (56, 64) } else { (32, 52) };
        if is_wide {
            put(32, &64u64.to_le_bytes());
            put(54, &[56, 0, 2, 0]);
        } else {
            put(28, &52u32.to_le_bytes());
            put(42, &[32, 0, 2, 0]);
        }
        for (entry, flags, offset) in [(at, 5u32, 0u32), (at + size, 6, 1024)] {
            put(entry, &1u32.to_le_bytes());
            if is_wide {
                put(entry + 4, &flags.to_le_bytes());
                put(entry + 8, &u64::from(offset).to_le_bytes());
                put(entry + 32, &2048u64.to_le_bytes());
            } else {
                put(entry + 24, &flags.to_le_bytes());
                put(entry + 4, &offset.to_le_bytes());
                put(entry + 16, &2048u32.to_le_bytes());
            }
        }
        let length = MODULES.len() + 32;
        let mut info = [MAGIC, &[8, INLINE]].concat();
        info.resize(32, 0);
        info.push(8);
        info.extend(b"go1.21.3");
        info.extend([(length & 0x7f | 0x80) as u8, (length >> 7) as u8]);
        info.extend([b'<'; 16]);
        info.extend(MODULES.as_bytes());
        info.extend([b'>'; 16]);
        put(1024 + 48, &info);
        elf
    }

    fn urls(bytes: &[u8]) -> Vec<String> {
        let read = |buffer: &mut [u8], offset: u64| {
            let rest = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
            let count = rest.len().min(buffer.len()).min(100);
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        };
        packages("/app", &read).unwrap().iter().map(Package::url).collect()
    }

    #[test]
    fn programs_name_their_modules() {
        for is_wide in [true, false] {
            assert_eq!(
                urls(&program(is_wide)),
                ["pkg:golang/stdlib@1.21.3", "pkg:golang/golang.org/x/net@v0.1.0", "pkg:golang/example.com/new@v2.0.0"]
            );
        }
        assert_eq!(urls(b"#!/bin/sh\n"), [""; 0]);
    }

    #[test]
    fn whatever_is_broken_lists_nothing_worse_than_nothing() {
        let whole = program(true);
        for cut in (0..2048).step_by(7) {
            drop(urls(&whole[..cut]));
        }
        for at in (0..200).chain(1024..1200) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            drop(urls(&bytes));
        }
    }
}
