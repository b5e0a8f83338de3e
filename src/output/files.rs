//! The root file system of a result as a tar, and what a tar and a directory have in common.

use std::collections::BTreeMap;
use std::io::{self, Write};

use rbuild_cache::view::{FileKind, Stat, View};
use rbuild_image::layer::{Device, Entry, EntryKind, TarWriter, Timestamp as LayerTime};
use rbuild_image::{ContainerPath, Platform};

use super::{Readers, whole_file};
use crate::cli::report::Failure;
use crate::request::Destination;

/// The files of one platform.
pub struct Tree {
    /// Where they go: a directory's name, or nothing for the place itself.
    pub(super) directory: String,
    /// The files.
    pub(super) view: View,
    /// What is attested about them, as files beside them.
    pub(super) attested: Vec<(String, Vec<u8>)>,
    /// The time of these files.
    pub(super) attested_at: i64,
}

impl Tree {
    /// The directory as a path.
    pub(super) fn top(&self) -> ContainerPath {
        ContainerPath::new(&self.directory)
    }
}

/// Mode of attestations, as BuildKit has it.
pub(super) const ATTESTED_MODE: u32 = 0o600;

/// Writes trees as a tar, each below its directory: entries in byte order, hard links kept, attestations last. With
/// `epoch` everything has that time.
pub fn write_tar(trees: &[Tree], dest: &Destination, epoch: Option<i64>) -> Result<(), Failure> {
    match dest {
        Destination::File(path) => whole_file(path, Readers::Anybody, |out| tar_into(trees, out, epoch)),
        Destination::Stdout => tar_into(trees, &mut io::BufWriter::with_capacity(1 << 20, io::stdout().lock()), epoch),
        Destination::Directory(path) => Err(Failure::new(format!("{} is a directory, not a file", path.display()))),
    }
}

/// Fails when two platforms have the same file: without directories of their own one would replace the other.
pub(super) fn refuse_common_files<'a>(views: impl Iterator<Item = (Platform, &'a View)>) -> Result<(), Failure> {
    let mut seen: BTreeMap<ContainerPath, Platform> = BTreeMap::new();
    for (platform, view) in views {
        let mut twice = None;
        view.walk(&ContainerPath::root(), &mut |path, stat| {
            if !stat.kind.is_directory()
                && let Some(first) = seen.insert(path.clone(), platform.clone())
                && first != platform
            {
                twice.get_or_insert((path.clone(), first));
            }
            Ok(())
        })?;
        if let Some((path, first)) = twice {
            return Err(Failure::new(format!(
                "cannot overwrite {path} from {first} with {platform} when split option is disabled"
            ))
            .with_help("leave platform-split=false out: each platform then gets a directory"));
        }
    }
    Ok(())
}

/// Writes trees as a tar to a stream.
fn tar_into(trees: &[Tree], out: &mut dyn Write, epoch: Option<i64>) -> Result<(), Failure> {
    let mut tar = TarWriter::new(out);
    for tree in trees {
        let mut names: BTreeMap<(u64, u64), ContainerPath> = BTreeMap::new();
        let mut failure = None;
        let (top, view) = (tree.top(), &tree.view);
        view.walk(&ContainerPath::root(), &mut |path, stat| {
            if path.is_root() && top.is_root() {
                return Ok(());
            }
            let place = top.join(&path.as_bytes()[1..]);
            append(&mut tar, view, path, place, &dated(stat, epoch), &mut names).map_err(|error| {
                failure = Some(Failure::from_error(&format!("cannot write {path}"), &error));
                io::Error::from(io::ErrorKind::Other)
            })
        })
        .map_err(|error| failure.unwrap_or_else(|| Failure::from(error)))?;
        for (name, bytes) in &tree.attested {
            let entry = Entry {
                path: top.join(name),
                kind: EntryKind::file(bytes.len() as u64),
                mode: ATTESTED_MODE,
                uid: 0,
                gid: 0,
                mtime: LayerTime { seconds: epoch.unwrap_or(tree.attested_at), nanoseconds: 0 },
                xattrs: BTreeMap::new(),
            };
            tar.append(&entry, &mut bytes.as_slice())?;
        }
    }
    tar.finish()?.flush()?;
    Ok(())
}

fn append(
    tar: &mut TarWriter<&mut dyn Write>,
    view: &View,
    path: &ContainerPath,
    place: ContainerPath,
    stat: &Stat,
    names: &mut BTreeMap<(u64, u64), ContainerPath>,
) -> io::Result<()> {
    let device = |major, minor| Device { major, minor };
    let kind = match stat.kind {
        FileKind::Directory => EntryKind::Directory,
        FileKind::Symlink => EntryKind::Symlink { target: view.read_link(path)? },
        FileKind::CharDevice { major, minor } => EntryKind::CharDevice(device(major, minor)),
        FileKind::BlockDevice { major, minor } => EntryKind::BlockDevice(device(major, minor)),
        FileKind::Fifo => EntryKind::Fifo,
        // A socket means nothing without its process.
        FileKind::Socket => return Ok(()),
        FileKind::File => match first_name(names, &place, stat) {
            Some(first) => EntryKind::Hardlink { target: first },
            None => EntryKind::file(stat.size),
        },
    };
    let is_file = matches!(kind, EntryKind::File { .. });
    let entry = Entry {
        path: place,
        kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: LayerTime { seconds: stat.mtime.seconds, nanoseconds: stat.mtime.nanoseconds },
        xattrs: view.xattrs(path)?,
    };
    let appended =
        if is_file { tar.append(&entry, &mut view.open(path)?) } else { tar.append(&entry, &mut io::empty()) };
    appended.map_err(io::Error::other)
}

/// A file's metadata with the time that it leaves with.
pub(super) fn dated(stat: &Stat, epoch: Option<i64>) -> Stat {
    let mtime = epoch.map_or(stat.mtime, |seconds| rbuild_cache::view::Timestamp { seconds, nanoseconds: 0 });
    Stat { mtime, ..*stat }
}

/// The name under which the same inode was written before; remembers this one otherwise.
pub(super) fn first_name(
    names: &mut BTreeMap<(u64, u64), ContainerPath>,
    path: &ContainerPath,
    stat: &Stat,
) -> Option<ContainerPath> {
    if stat.links < 2 {
        return None;
    }
    match names.entry(stat.inode) {
        std::collections::btree_map::Entry::Occupied(known) => Some(known.get().clone()),
        std::collections::btree_map::Entry::Vacant(free) => {
            free.insert(path.clone());
            None
        }
    }
}
