//! How the layers of a root file system are put over each other, and what this host can do of that.
//!
//! ```text
//! overlayfs        the kernel does it: the rule
//! fuse-overlayfs   a process of the host's does it, where the kernel or the store's file system does not
//! copy             all layers are copied into one tree; what changed in it becomes the layer in the end
//! ```
//!
//! What is possible is found out by doing it, once in a process, on the file system that is going to be used. All three leave
//! the same in the upper directory: it is a layer with overlayfs's whiteouts and opaque marks, whichever made it.

mod copied;
mod fuse;
mod merge;
mod prune;
mod ready;
mod trial;

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::plan::OverlayMarks;
use crate::root_dir::DirFd;
use crate::spawn_error::SpawnError;

pub(crate) use copied::Copied;
pub(crate) use fuse::FuseOverlay;
pub(crate) use ready::Stacks;

/// A way of putting layers over each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stacking {
    /// The kernel's overlayfs.
    Overlayfs,
    /// The program fuse-overlayfs.
    FuseOverlayfs,
    /// A copy of everything.
    Copy,
}

/// What is wanted: a certain way, or the best that works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackingChoice {
    /// The one to use, and no other.
    pub forced: Option<Stacking>,
    /// Where the program fuse-overlayfs is, if it is installed.
    pub fuse_program: Option<PathBuf>,
}

/// What works on a file system, and what would be used there.
#[derive(Clone, Debug)]
pub struct StackingReport {
    /// Why overlayfs does not work, if so.
    pub overlayfs: Result<(), String>,
    /// Why fuse-overlayfs does not work, if so.
    pub fuse_overlayfs: Result<(), String>,
    /// Whether copies share their blocks with what they were made of.
    pub reflinks: bool,
    /// What is used; why there is nothing, if so.
    pub chosen: Result<Stacking, String>,
}

impl Stacking {
    /// Every way, the best first.
    pub const ALL: [Self; 3] = [Self::Overlayfs, Self::FuseOverlayfs, Self::Copy];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlayfs => "overlayfs",
            Self::FuseOverlayfs => "fuse-overlayfs",
            Self::Copy => "copy",
        }
    }
}

impl std::fmt::Display for Stacking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Finds out what works, once.
#[derive(Debug, Default)]
pub(crate) struct Stacker {
    choice: StackingChoice,
    found: OnceLock<Result<Stacking, String>>,
}

impl Stacker {
    pub(crate) fn new(choice: StackingChoice) -> Self {
        Self { choice, found: OnceLock::new() }
    }

    /// The way that is used. `place` is a directory on the file system of the upper directories, for trials.
    pub(crate) fn stacking(&self, place: &Path, marks: OverlayMarks) -> Result<Stacking, SpawnError> {
        let found = self.found.get_or_init(|| choose(&self.choice, |kind| attempt(kind, &self.choice, place, marks)));
        found.clone().map_err(|reason| SpawnError::Stacking { reason })
    }

    /// The program fuse-overlayfs, where it is installed.
    pub(crate) fn fuse_program(&self) -> Result<&Path, SpawnError> {
        let missing = || SpawnError::Stacking { reason: NOT_INSTALLED.to_owned() };
        self.choice.fuse_program.as_deref().ok_or_else(missing)
    }
}

const NOT_INSTALLED: &str = "fuse-overlayfs is not installed";

/// Tries everything in `place`, which must be a directory of the caller's.
pub fn examine(choice: &StackingChoice, place: &Path, marks: OverlayMarks) -> StackingReport {
    let overlayfs = attempt(Stacking::Overlayfs, choice, place, marks);
    let fuse_overlayfs = attempt(Stacking::FuseOverlayfs, choice, place, marks);
    let known = |kind| match kind {
        Stacking::Overlayfs => overlayfs.clone(),
        Stacking::FuseOverlayfs => fuse_overlayfs.clone(),
        Stacking::Copy => attempt(Stacking::Copy, choice, place, marks),
    };
    let chosen = choose(choice, known);
    StackingReport { overlayfs, fuse_overlayfs, reflinks: trial::reflinks(place), chosen }
}

/// The one that is forced, or the first that works.
fn choose(choice: &StackingChoice, attempt: impl Fn(Stacking) -> Result<(), String>) -> Result<Stacking, String> {
    if let Some(forced) = choice.forced {
        return attempt(forced)
            .map(|()| forced)
            .map_err(|why| format!("{forced} was asked for and does not work: {why}"));
    }
    let mut reasons = Vec::new();
    for kind in Stacking::ALL {
        match attempt(kind) {
            Ok(()) => return Ok(kind),
            Err(why) => reasons.push(format!("{kind}: {why}")),
        }
    }
    Err(format!("nothing works here: {}", reasons.join("; ")))
}

/// Whether it works; why not, if so.
fn attempt(kind: Stacking, choice: &StackingChoice, place: &Path, marks: OverlayMarks) -> Result<(), String> {
    let tried = match (kind, &choice.fuse_program) {
        (Stacking::Overlayfs, _) => trial::overlayfs(place, marks),
        (Stacking::FuseOverlayfs, None) => return Err(NOT_INSTALLED.to_owned()),
        (Stacking::FuseOverlayfs, Some(program)) => trial::fuse_overlayfs(program, place, marks),
        (Stacking::Copy, _) => trial::marks(place, marks),
    };
    tried.map_err(|error| error.to_string())
}

impl OverlayMarks {
    /// The attribute that marks a directory as opaque.
    pub(crate) fn opaque(self) -> &'static OsStr {
        OsStr::new(match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        })
    }
}

/// Marks a directory as hiding what lower layers have at its place.
fn set_opaque(dir: &DirFd, name: &OsStr, marks: OverlayMarks) -> io::Result<()> {
    dir.set_xattr(name, marks.opaque(), b"y")
}

/// Whether a directory of a layer is marked so, in either manner.
fn is_opaque(dir: &DirFd, name: &OsStr) -> io::Result<bool> {
    for marks in [OverlayMarks::Trusted, OverlayMarks::User] {
        match dir.get_xattr(name, marks.opaque()) {
            Ok(value) if value.as_deref() == Some(b"y") => return Ok(true),
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOTSUP.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(works: Stacking) -> impl Fn(Stacking) -> Result<(), String> {
        move |kind| if kind == works { Ok(()) } else { Err("no".to_owned()) }
    }

    #[test]
    fn the_best_that_works_is_used_and_what_is_forced_is_not_replaced() {
        for kind in Stacking::ALL {
            assert_eq!(choose(&StackingChoice::default(), only(kind)), Ok(kind));
        }
        assert_eq!(choose(&StackingChoice::default(), |_| Ok(())), Ok(Stacking::Overlayfs));
        let forced = StackingChoice { forced: Some(Stacking::FuseOverlayfs), ..StackingChoice::default() };
        assert_eq!(choose(&forced, |_| Ok(())), Ok(Stacking::FuseOverlayfs));
        let refused = choose(&forced, only(Stacking::Copy)).unwrap_err();
        assert_eq!(refused, "fuse-overlayfs was asked for and does not work: no");
        let nothing = choose(&StackingChoice::default(), |_| Err("no".to_owned())).unwrap_err();
        assert_eq!(nothing, "nothing works here: overlayfs: no; fuse-overlayfs: no; copy: no");
    }
}
