//! A checkout on its way into a layer: owners, modes and times become what they are for everybody.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rbuild_cache::snapshot::{Content, LayerWriter, Metadata};
use rbuild_cache::view::Timestamp;
use rbuild_executor::{FileKind, RootDir};
use rbuild_image::ContainerPath;

use crate::cli::report::Failure;

/// Copies a checkout into a layer.
pub(super) struct CheckedOut {
    /// The checkout.
    pub(super) root: Arc<RootDir>,
    /// What of it is wanted; free of symlinks.
    pub(super) top: ContainerPath,
    /// Whether `.git` belongs to it.
    pub(super) keep: bool,
    /// The time that everything gets.
    pub(super) mtime: Option<Timestamp>,
}

impl CheckedOut {
    fn metadata(&self, mode: u32) -> Metadata {
        Metadata { mode, mtime: self.mtime, ..Metadata::default() }
    }

    /// Copies the entries of a directory that is there, then gives it its metadata.
    pub(super) fn copy(
        &self,
        path: &ContainerPath,
        writer: &mut LayerWriter,
        check: &dyn Fn() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        check()?;
        let from = self.source(path);
        let unreadable = |error: io::Error| Failure::from_error("cannot read a checkout", &error);
        for entry in self.root.list(&from).map_err(unreadable)? {
            let name = entry.name.as_bytes();
            // At the top the repository itself, in submodules a pointer into it.
            if name == b".git" && !self.keep {
                continue;
            }
            let (inside, source) = (path.join(name), from.join(name));
            let stat = self.root.lstat(&source).map_err(unreadable)?;
            match stat.kind {
                FileKind::Directory => {
                    writer.make_directory(&inside, &self.metadata(0o755))?;
                    self.copy(&inside, writer, check)?;
                }
                FileKind::Symlink => {
                    let target = self.root.read_link(&source).map_err(unreadable)?;
                    writer.symlink(&inside, target.as_bytes(), &self.metadata(0o777))?;
                }
                FileKind::File => {
                    let root = Arc::clone(&self.root);
                    let open = Box::new(move || Ok(root.open_file(&source)?.into()));
                    writer.file(&inside, &self.metadata(mode(stat.mode)), Content::File(open))?;
                }
                _ => return Err(Failure::new(format!("a checkout has a special file: {inside}"))),
            }
        }
        writer.set_directory_metadata(path, &self.metadata(0o755))?;
        Ok(())
    }

    fn source(&self, path: &ContainerPath) -> ContainerPath {
        if path.is_root() { self.top.clone() } else { self.top.join(&path.as_bytes()[1..]) }
    }
}

/// A file's mode as it is with the usual mask: git knows only whether it may be run; its own objects are read-only.
fn mode(found: u32) -> u32 {
    match (found & 0o100 != 0, found & 0o200 != 0) {
        (true, _) => 0o755,
        (false, true) => 0o644,
        (false, false) => 0o444,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_what_git_knows() {
        for (found, want) in
            [(0o600, 0o644), (0o664, 0o644), (0o700, 0o755), (0o775, 0o755), (0o444, 0o444), (0o400, 0o444)]
        {
            assert_eq!(mode(found), want, "{found:o}");
        }
    }
}
