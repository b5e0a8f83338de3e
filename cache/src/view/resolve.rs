//! Symlink resolution inside a tree, by lookups only: no path can leave the root, and loops end.
//!
//! Works on anything that can say what a path is, so the merged view, a layer being written and a build context all
//! resolve alike. Components that do not exist resolve to themselves, so that the result may be created.

use std::io;

use rbuild_image::ContainerPath;

use super::stat::FileKind;

/// How many symlinks one resolution follows, as in Linux.
pub const MAX_SYMLINKS: usize = 40;

/// A tree in which paths are looked up.
pub trait Lookup {
    /// What `path` is, no symlink followed anywhere in it; `None` when it does not exist.
    fn kind(&self, path: &ContainerPath) -> io::Result<Option<FileKind>>;

    /// The target of the symlink at `path`.
    fn read_link(&self, path: &ContainerPath) -> io::Result<Vec<u8>>;
}

/// What happens when the last component is a symlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// It is followed.
    Follow,
    /// It is the answer.
    Keep,
}

/// Where a path leads: no component but perhaps the last is a symlink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The path without symlinks.
    pub path: ContainerPath,
    /// What is there.
    pub kind: Option<FileKind>,
}

/// Resolves `path` in `tree`. Absolute targets start at the root, `..` stops there.
pub fn resolve(tree: &(impl Lookup + ?Sized), path: impl AsRef<[u8]>, last: LastLink) -> io::Result<Resolved> {
    let mut todo = split(path.as_ref());
    let mut here = ContainerPath::root();
    let mut kind = Some(FileKind::Directory);
    let mut hops = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            here = here.parent().unwrap_or_else(ContainerPath::root);
            kind = tree.kind(&here)?;
            continue;
        }
        let next = here.join(&name);
        let found = match kind {
            Some(FileKind::Directory) => tree.kind(&next)?,
            _ => None,
        };
        if found == Some(FileKind::Symlink) && (last == LastLink::Follow || !todo.is_empty()) {
            hops += 1;
            if hops > MAX_SYMLINKS {
                return Err(io::Error::from_raw_os_error(rustix::io::Errno::LOOP.raw_os_error()));
            }
            let target = tree.read_link(&next)?;
            if target.starts_with(b"/") {
                here = ContainerPath::root();
                kind = Some(FileKind::Directory);
            }
            todo.extend(split(&target));
            continue;
        }
        here = next;
        kind = found;
    }
    Ok(Resolved { path: here, kind })
}

/// The components of `path` in reverse, without empty ones and `.`.
fn split(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').rev().filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Links(BTreeMap<&'static str, &'static str>);

    impl Lookup for Links {
        fn kind(&self, path: &ContainerPath) -> io::Result<Option<FileKind>> {
            let text = path.to_string();
            Ok(match text.as_str() {
                _ if self.0.contains_key(text.as_str()) => Some(FileKind::Symlink),
                "/" | "/usr" | "/usr/lib" | "/data" | "/data/sub" => Some(FileKind::Directory),
                "/data/file" => Some(FileKind::File),
                _ => None,
            })
        }

        fn read_link(&self, path: &ContainerPath) -> io::Result<Vec<u8>> {
            Ok(self.0[path.to_string().as_str()].as_bytes().to_vec())
        }
    }

    #[test]
    fn links_resolve_inside_the_root() {
        let tree = Links(BTreeMap::from([
            ("/lib", "usr/lib"),
            ("/abs", "/data/sub"),
            ("/out", "../../../etc"),
            ("/data/up", ".."),
            ("/two", "abs/../file"),
            ("/loop", "loop"),
            ("/dangling", "/made/by"),
        ]));
        for (given, last, want) in [
            ("/lib/x", LastLink::Follow, "/usr/lib/x"),
            ("/abs/n", LastLink::Follow, "/data/sub/n"),
            ("/abs", LastLink::Keep, "/abs"),
            ("/abs/", LastLink::Keep, "/abs"),
            ("/out/passwd", LastLink::Follow, "/etc/passwd"),
            ("/data/up/lib", LastLink::Follow, "/usr/lib"),
            ("/two", LastLink::Follow, "/data/file"),
            ("/dangling/f", LastLink::Follow, "/made/by/f"),
            ("../../..", LastLink::Follow, "/"),
            ("/data/file/x", LastLink::Follow, "/data/file/x"),
        ] {
            let got = resolve(&tree, given, last).unwrap();
            assert_eq!(got.path.to_string(), want, "{given}");
        }
        assert_eq!(resolve(&tree, "/two", LastLink::Follow).unwrap().kind, Some(FileKind::File));
        assert_eq!(resolve(&tree, "/data/file/x", LastLink::Follow).unwrap().kind, None);
        let error = resolve(&tree, "/loop", LastLink::Follow).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()));
    }
}
