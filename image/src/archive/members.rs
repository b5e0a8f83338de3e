//! The members of an archive by name, each readable at any time.
//!
//! A tar file is indexed once, by its headers; content is then read by position, from several threads if need be. What
//! cannot seek or is compressed is first written to a scratch file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ArchiveError, ArchiveInput, ArchiveLimits, doing};
use crate::layer::{Decoder, EntryKind, TarReader, detect};
use crate::media_type::Compression;
use crate::path::ContainerPath;

/// How many links may lead from one member to another.
const MAX_LINKS: usize = 8;

/// The members of an archive.
#[derive(Debug)]
pub(super) enum Members {
    /// Files below a directory.
    Directory(PathBuf),
    /// Parts of a tar file.
    Tar { file: Arc<File>, members: BTreeMap<ContainerPath, Member> },
}

/// One member of a tar file.
#[derive(Debug)]
pub(super) enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// Another name: `docker save` wrote the second of two equal layers so.
    Link(ContainerPath),
    Other,
}

/// The content of a member.
#[derive(Clone, Debug)]
pub(super) struct Section {
    file: Arc<File>,
    offset: u64,
    size: u64,
}

impl Section {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Reads the content from its start.
    pub(super) fn reader(&self) -> io::Result<SectionReader> {
        Ok(SectionReader { file: Arc::clone(&self.file), offset: self.offset, left: self.size })
    }

    /// The first bytes: at most `count`, fewer when the content is shorter.
    pub(super) fn start(&self, count: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(count);
        self.reader()?.take(count as u64).read_to_end(&mut out)?;
        Ok(out)
    }
}

/// Reads the content of a member; does not share a position with other readers of the file.
#[derive(Debug)]
pub(super) struct SectionReader {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for SectionReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        if want == 0 {
            return Ok(0);
        }
        let n = self.file.read_at(&mut buf[..want], self.offset)?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive became shorter while it was read"));
        }
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

impl Members {
    pub(super) fn open(
        input: ArchiveInput,
        limits: &ArchiveLimits,
        scratch: &mut dyn FnMut() -> io::Result<File>,
    ) -> Result<Self, ArchiveError> {
        let file = match input {
            ArchiveInput::Directory(path) => return Ok(Self::Directory(path)),
            ArchiveInput::File(file) if is_plain(&file)? => file,
            ArchiveInput::File(file) => spool(Box::new(file), limits, scratch)?,
            ArchiveInput::Stream(stream) => spool(stream, limits, scratch)?,
        };
        index(file, limits)
    }

    /// Whether there is a member of this name, whatever it is.
    pub(super) fn holds(&self, name: &str) -> bool {
        match self {
            Self::Directory(root) => root.join(name).symlink_metadata().is_ok(),
            Self::Tar { members, .. } => members.contains_key(&ContainerPath::new(name)),
        }
    }

    /// The content of a regular member.
    pub(super) fn find(&self, name: &str) -> Result<Section, ArchiveError> {
        let shown = || name.chars().take(300).collect::<String>();
        if name.is_empty() || name.split('/').any(|part| part == "..") || name.contains('\0') {
            return Err(ArchiveError::NotRegular { name: shown() });
        }
        match self {
            Self::Directory(root) => find_file(root, name),
            Self::Tar { file, members } => {
                let mut path = ContainerPath::new(name);
                for _ in 0..=MAX_LINKS {
                    match members.get(&path) {
                        None => return Err(ArchiveError::MissingMember { name: shown() }),
                        Some(Member::File { offset, size }) => {
                            return Ok(Section { file: Arc::clone(file), offset: *offset, size: *size });
                        }
                        Some(Member::Link(target)) => path = target.clone(),
                        Some(Member::Other) => break,
                    }
                }
                Err(ArchiveError::NotRegular { name: shown() })
            }
        }
    }

    /// Reads a whole member of at most `limit` bytes.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ArchiveError> {
        let section = self.find(name)?;
        if section.size() > limit {
            return Err(ArchiveError::TooLarge { name: name.to_owned(), size: section.size(), limit });
        }
        let mut out = Vec::new();
        let read = section.reader().and_then(|mut reader| reader.read_to_end(&mut out));
        read.map_err(doing(format!("read {name:?}")))?;
        Ok(out)
    }
}

/// Opens a file below a directory without following a link to it or on the way to it.
fn find_file(root: &Path, name: &str) -> Result<Section, ArchiveError> {
    let mut path = root.to_owned();
    let mut parts = name.split('/').filter(|part| !part.is_empty() && *part != ".").peekable();
    while let Some(part) = parts.next() {
        path.push(part);
        let found = match path.symlink_metadata() {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ArchiveError::MissingMember { name: name.to_owned() });
            }
            Err(error) => return Err(doing(format!("look at {}", path.display()))(error)),
        };
        let fits = if parts.peek().is_some() { found.is_dir() } else { found.is_file() };
        if !fits {
            return Err(ArchiveError::NotRegular { name: name.to_owned() });
        }
        if parts.peek().is_none() {
            let read = || format!("read {}", path.display());
            let file = File::open(&path).map_err(|error| doing(read())(error))?;
            let opened = file.metadata().map_err(|error| doing(read())(error))?;
            if (opened.dev(), opened.ino()) != (found.dev(), found.ino()) {
                return Err(ArchiveError::NotRegular { name: name.to_owned() });
            }
            return Ok(Section { file: Arc::new(file), offset: 0, size: opened.len() });
        }
    }
    Err(ArchiveError::NotRegular { name: name.to_owned() })
}

/// Whether a file can be read at any position and is not compressed.
fn is_plain(file: &File) -> Result<bool, ArchiveError> {
    let read = |error| doing("read the archive")(error);
    if !file.metadata().map_err(read)?.is_file() {
        return Ok(false);
    }
    let mut start = [0; 6];
    let n = file.read_at(&mut start, 0).map_err(read)?;
    if detect(&start[..n]) == Compression::None {
        return Ok(true);
    }
    // It is read as a stream then, which begins where the file stands.
    (&*file).seek(SeekFrom::Start(0)).map_err(read)?;
    Ok(false)
}

fn spool(
    stream: Box<dyn Read + Send>,
    limits: &ArchiveLimits,
    scratch: &mut dyn FnMut() -> io::Result<File>,
) -> Result<File, ArchiveError> {
    let mut file = scratch().map_err(doing("make a scratch file for the archive"))?;
    let mut decoder = Decoder::with_limits(stream, limits.decode.clone()).map_err(doing("read the archive"))?;
    io::copy(&mut decoder, &mut file).map_err(doing("unpack the archive into a scratch file"))?;
    Ok(file)
}

fn index(mut file: File, limits: &ArchiveLimits) -> Result<Members, ArchiveError> {
    let read = |error| doing("read the archive")(error);
    file.seek(SeekFrom::Start(0)).map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    let mut members = BTreeMap::new();
    let mut reader = TarReader::with_limits(BufReader::with_capacity(32 * 1024, &file), limits.tar.clone());
    let skip = |inner: &mut BufReader<&File>, bytes: u64| {
        let bytes = i64::try_from(bytes).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        inner.seek_relative(bytes)
    };
    while let Some(entry) = reader.next_entry_skipping(skip)? {
        let member = match entry.kind {
            EntryKind::File { size, sparse: None } => Member::File { offset: reader.offset(), size },
            EntryKind::Symlink { target } => {
                let directory = entry.path.parent().unwrap_or_else(ContainerPath::root);
                Member::Link(directory.join(target))
            }
            EntryKind::Hardlink { target } => Member::Link(target),
            _ => Member::Other,
        };
        // A skip beyond the end of a file succeeds, so the end is looked for here.
        if let Member::File { offset, size } = &member
            && offset.checked_add(*size).is_none_or(|end| end > length)
        {
            return Err(ArchiveError::Tar(crate::layer::TarError::Truncated { offset: *offset }));
        }
        let is_file = matches!(member, Member::File { .. });
        let name = entry.path.to_string();
        let had = members.insert(entry.path, member);
        // Blobs are checked against their names, so it does not matter which of two is taken.
        if is_file && matches!(had, Some(Member::File { .. })) && !name.starts_with("/blobs/") {
            return Err(ArchiveError::DuplicateMember { name });
        }
    }
    Ok(Members::Tar { file: Arc::new(file), members })
}
