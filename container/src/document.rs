//! Small files that are replaced whole, and errors that say which path they are about.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rbuild_cache::PathError;

/// Whether a write must survive a power cut once it was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It must.
    Synced,
    /// It goes with its process anyway.
    Volatile,
}

/// Attaches the action and the path to an I/O result.
pub(crate) trait AtPath<T> {
    /// Turns the error into a [`PathError`].
    fn at(self, action: &'static str, path: &Path) -> Result<T, PathError>;
}

impl<T, E: Into<io::Error>> AtPath<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, PathError> {
        self.map_err(|source| PathError { action, path: path.to_owned(), source: source.into() })
    }
}

/// Replaces `path` by a file of mode 0600 with this content; readers see the old or the new one, whole.
pub(crate) fn replace(path: &Path, content: &[u8], durability: Durability) -> Result<(), PathError> {
    let temporary = path.with_extension("new");
    write(&temporary, content, 0o600, durability)?;
    fs::rename(&temporary, path).at("replace", path)?;
    match path.parent() {
        Some(parent) if durability == Durability::Synced => sync_directory(parent),
        _ => Ok(()),
    }
}

/// Writes a file of this mode that nobody reads yet.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32, durability: Durability) -> Result<(), PathError> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).at("create", path)?;
    file.write_all(content).at("write", path)?;
    // Said again, since the process's umask may have had a say.
    file.set_permissions(Permissions::from_mode(mode)).at("set mode of", path)?;
    match durability {
        Durability::Synced => file.sync_all().at("sync", path),
        Durability::Volatile => Ok(()),
    }
}

/// Makes everything durable that is on the file system of `path`: for trees, where it beats syncing each file.
pub(crate) fn sync_file_system(path: &Path) -> Result<(), PathError> {
    let directory = File::open(path).at("open", path)?;
    rustix::fs::syncfs(&directory).at("sync", path)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), PathError> {
    File::open(path).and_then(|directory| directory.sync_all()).at("sync", path)
}

/// Bytes of a tree's files, as Docker counts them: directories count nothing, files with several names once. No symlink is
/// followed.
pub(crate) fn files_size(root: &Path) -> Result<u64, PathError> {
    let (mut total, mut seen, mut todo) = (0, HashSet::new(), vec![root.to_path_buf()]);
    while let Some(path) = todo.pop() {
        let Some(stat) = if_present(fs::symlink_metadata(&path)).at("inspect", &path)? else { continue };
        if !stat.is_dir() && (stat.nlink() < 2 || seen.insert((stat.dev(), stat.ino()))) {
            total += stat.len();
        }
        if stat.is_dir() {
            let Some(entries) = if_present(fs::read_dir(&path)).at("list", &path)? else { continue };
            for entry in entries {
                todo.push(entry.at("list", &path)?.path());
            }
        }
    }
    Ok(total)
}

/// Whether something does not exist; other errors stay.
pub(crate) fn if_present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_replaced_and_private() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.json");
        for (text, durability) in [("one", Durability::Synced), ("2", Durability::Volatile)] {
            replace(&path, text.as_bytes(), durability).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn usage_counts_each_file_once_and_follows_nothing() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("tree");
        fs::create_dir_all(root.join("sub")).unwrap();
        assert_eq!(files_size(&root).unwrap(), 0);
        fs::write(root.join("file"), vec![1; 64 << 10]).unwrap();
        assert_eq!(files_size(&root).unwrap(), 64 << 10);
        fs::hard_link(root.join("file"), root.join("sub/again")).unwrap();
        std::os::unix::fs::symlink("/usr", root.join("link")).unwrap();
        assert_eq!(files_size(&root).unwrap(), (64 << 10) + 4, "the link's own text");
        assert_eq!(files_size(&home.path().join("absent")).unwrap(), 0);
    }

    #[test]
    fn errors_name_the_path() {
        let error = replace(Path::new("/nowhere/at/all"), b"", Durability::Volatile).unwrap_err();
        assert_eq!(error.to_string(), "cannot create /nowhere/at/all.new");
    }
}
