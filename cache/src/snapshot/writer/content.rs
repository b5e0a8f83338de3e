//! Bringing bytes into a new file: shared extents where the file system can, holes kept, copied by the kernel otherwise.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rbuild_image::layer::SparseMap;
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::metadata::Metadata;
use crate::view::FileBytes;

/// Files up to this size are read and written in one go.
const SMALL: u64 = 128 * 1024;
/// Granularity of holes that are left out while writing a stream.
const BLOCK: usize = 4096;

/// Where a new file's bytes come from.
pub enum Content<'a> {
    /// From memory.
    Bytes(&'a [u8]),
    /// From a stream that holds exactly this many bytes. Blocks of zeros become holes.
    Stream(&'a mut dyn Read, u64),
    /// From a stream of only the data runs of a file of this size.
    Sparse(&'a mut dyn Read, &'a SparseMap, u64),
    /// From a file that is opened later, on another thread.
    File(OpenContent),
}

/// Opens a file whose bytes are copied.
pub type OpenContent = Box<dyn FnOnce() -> io::Result<FileBytes> + Send>;

impl std::fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Stream(_, size) => write!(f, "Stream({size})"),
            Self::Sparse(_, _, size) => write!(f, "Sparse({size})"),
            Self::File(_) => f.write_str("File"),
        }
    }
}

/// Creates `name` in `dir`, which must not exist.
pub(super) fn create(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
}

/// Writes a stream of exactly `size` bytes; blocks of zeros become holes.
pub(super) fn write_stream(target: &OwnedFd, reader: &mut dyn Read, size: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    write_run(target, reader, 0, size, buffer)?;
    set_length(target, size)
}

/// Writes the data runs of a sparse file of `size` bytes.
pub(super) fn write_sparse(
    target: &OwnedFd,
    reader: &mut dyn Read,
    map: &SparseMap,
    size: u64,
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    for run in map.segments() {
        write_run(target, reader, run.offset, run.length, buffer)?;
    }
    set_length(target, size)
}

fn set_length(target: &OwnedFd, size: u64) -> io::Result<()> {
    if size > 0 {
        rustix::fs::ftruncate(target, size)?;
    }
    Ok(())
}

fn write_run(target: &OwnedFd, reader: &mut dyn Read, start: u64, length: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.resize(256 * 1024, 0);
    let mut done = 0;
    while done < length {
        let want = usize::try_from(length - done).map_or(buffer.len(), |left| left.min(buffer.len()));
        reader.read_exact(&mut buffer[..want])?;
        write_blocks(target, &buffer[..want], start + done)?;
        done += want as u64;
    }
    Ok(())
}

/// Writes `bytes` at `offset`, leaving out whole blocks of zeros.
fn write_blocks(target: &OwnedFd, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut run: Option<usize> = None;
    let mut at = 0;
    while at < bytes.len() {
        let end = (at + BLOCK).min(bytes.len());
        let hole = end - at == BLOCK && is_zero(&bytes[at..end]);
        match (hole, run) {
            (true, Some(start)) => {
                write_at(target, &bytes[start..at], offset + start as u64)?;
                run = None;
            }
            (false, None) => run = Some(at),
            _ => {}
        }
        at = end;
    }
    match run {
        Some(start) => write_at(target, &bytes[start..], offset + start as u64),
        None => Ok(()),
    }
}

fn is_zero(block: &[u8]) -> bool {
    block.chunks_exact(16).all(|part| u128::from_ne_bytes(part.try_into().expect("16 bytes")) == 0)
}

pub(super) fn write_at(target: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = rustix::io::retry_on_intr(|| rustix::io::pwrite(target, bytes, offset))?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[n..];
        offset += n as u64;
    }
    Ok(())
}

/// Copies whole files; remembers whether extents can be shared.
#[derive(Debug)]
pub(super) struct Copier {
    may_clone: AtomicBool,
}

impl Copier {
    pub(super) fn new() -> Self {
        Self { may_clone: AtomicBool::new(true) }
    }

    /// Makes `name` in `dir` a copy of `source` with `metadata`.
    pub(super) fn copy(&self, dir: impl AsFd, name: &[u8], source: &FileBytes, metadata: &Metadata) -> io::Result<()> {
        let target = create(dir, name)?;
        let size = source.size()?;
        match source.whole() {
            _ if size == 0 => {}
            Some(file) if self.clone_extents(&target, file)? => {}
            Some(file) if size > SMALL => copy_large(&target, file, size)?,
            None if size > SMALL => copy_parts(&target, source, size)?,
            _ => write_at(&target, &source.read_whole(size)?, 0)?,
        }
        Ok(metadata.apply_to_file(target.as_fd())?)
    }

    fn clone_extents(&self, target: &OwnedFd, source: &File) -> io::Result<bool> {
        if !self.may_clone.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match rustix::fs::ioctl_ficlone(target, source) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::PERM) => {
                self.may_clone.store(false, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn copy_parts(target: &OwnedFd, source: &FileBytes, size: u64) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut at = 0;
    while at < size {
        let read = source.read_at(&mut buffer, at)?;
        if read == 0 {
            break;
        }
        write_blocks(target, &buffer[..read], at)?;
        at += read as u64;
    }
    set_length(target, size)
}

/// Copies data regions only, so that holes stay holes.
fn copy_large(target: &OwnedFd, source: &File, size: u64) -> io::Result<()> {
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => at,
            Err(error) => return Err(error.into()),
        };
        let end = match rustix::fs::seek(source, SeekFrom::Hole(start)) {
            Ok(end) => end,
            Err(Errno::INVAL) => size,
            Err(error) => return Err(error.into()),
        };
        copy_range(target, source, start, end)?;
        at = end;
    }
    Ok(rustix::fs::ftruncate(target, size)?)
}

fn copy_range(target: &OwnedFd, source: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut by_kernel = true;
    let mut buffer = Vec::new();
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        if by_kernel {
            let (mut from, mut to) = (at, at);
            match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), left) {
                // Some file systems answer 0 instead of an error where they cannot.
                Ok(0) | Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::PERM) => {
                    by_kernel = false;
                }
                Ok(n) => at += n as u64,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            continue;
        }
        buffer.resize(left.min(1 << 20), 0);
        let n = rustix::io::retry_on_intr(|| rustix::io::pread(source, &mut buffer[..], at))?;
        if n == 0 {
            break; // It shrank meanwhile; what is left is a hole.
        }
        write_at(target, &buffer[..n], at)?;
        at += n as u64;
    }
    Ok(())
}
