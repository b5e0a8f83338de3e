//! Extended attributes of files in layer directories: which of them are a layer's own, and how to read and write them.
//!
//! Attributes are reached as `/proc/self/fd/DIR/NAME` with the non-following calls, because the kernel offers no `*at`
//! form before 6.13 and none that works on an `O_PATH` descriptor.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::view::Xattrs;

/// Whether this attribute is content of a layer: file capabilities and nothing else, as in the layers BuildKit makes.
/// Marks of overlayfs, labels of this host and `user.*` notes stay out.
pub(crate) fn is_content(name: &[u8]) -> bool {
    name == b"security.capability"
}

/// Whether a layer made elsewhere may set this attribute: nothing that overlayfs or this host's security modules act on.
pub(crate) fn may_be_applied(name: &[u8]) -> bool {
    name == b"security.capability" || (name.starts_with(b"user.") && !is_overlay(name))
}

/// Whether overlayfs would act on this attribute.
pub(crate) fn is_overlay(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// The path by which the attribute calls reach `name` in `dir`.
fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}", dir.as_raw_fd()).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    } else {
        path.extend_from_slice(b"/.");
    }
    path
}

/// All attributes of `name` in `dir` that `wanted` accepts; an empty `name` is `dir` itself.
pub(crate) fn read(dir: impl AsFd, name: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Result<Xattrs, Errno> {
    let path = proc_path(dir.as_fd(), name);
    let mut found = Xattrs::new();
    let mut names = [0_u8; 1024];
    let list: Vec<u8> = match rustix::fs::llistxattr(path.as_slice(), &mut names[..]) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(found),
        Ok(len) => names[..len].to_vec(),
        Err(Errno::RANGE) => {
            let mut large = vec![0; 65536];
            let len = rustix::fs::llistxattr(path.as_slice(), &mut large[..])?;
            large.truncate(len);
            large
        }
        Err(error) => return Err(error),
    };
    for attribute in list.split(|b| *b == 0).filter(|attribute| !attribute.is_empty() && wanted(attribute)) {
        if let Some(value) = read_one(&path, attribute)? {
            found.insert(attribute.to_vec(), value);
        }
    }
    Ok(found)
}

/// One attribute of `name` in `dir`.
pub(crate) fn get(dir: impl AsFd, name: &[u8], attribute: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    read_one(&proc_path(dir.as_fd(), name), attribute)
}

fn read_one(path: &[u8], attribute: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut small = [0_u8; 256];
    match rustix::fs::lgetxattr(path, attribute, &mut small[..]) {
        Ok(len) => Ok(Some(small[..len].to_vec())),
        Err(Errno::RANGE) => {
            let mut large = vec![0; 65536];
            let len = rustix::fs::lgetxattr(path, attribute, &mut large[..])?;
            large.truncate(len);
            Ok(Some(large))
        }
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets one attribute of `name` in `dir`, never through a symlink.
pub(crate) fn set(dir: impl AsFd, name: &[u8], attribute: &[u8], value: &[u8]) -> Result<(), Errno> {
    rustix::fs::lsetxattr(proc_path(dir.as_fd(), name).as_slice(), attribute, value, XattrFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_attributes_pass() {
        for (name, content, applied) in [
            ("security.capability", true, true),
            ("security.ima", false, false),
            ("trusted.md5", false, false),
            ("security.selinux", false, false),
            ("user.note", false, true),
            ("user.overlay.opaque", false, false),
            ("trusted.overlay.opaque", false, false),
            ("trusted.overlay.origin", false, false),
            ("system.posix_acl_access", false, false),
        ] {
            assert_eq!(is_content(name.as_bytes()), content, "{name}");
            assert_eq!(may_be_applied(name.as_bytes()), applied, "{name}");
        }
    }
}
