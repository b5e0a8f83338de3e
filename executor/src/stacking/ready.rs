//! What stands for the overlays of one sandbox where the kernel does not make them: made before it starts, ended after it.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rbuild_image::ContainerPath;

use super::{Copied, FuseOverlay, Stacker, Stacking};
use crate::plan::OverlayMarks;
use crate::rootfs::erofs;
use crate::spawn_error::SpawnError;
use crate::spec::{Durability, Lower, MountSource, Rootfs, SandboxSpec};

/// The stacks of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Stacks {
    root: Option<Stack>,
    /// Those of mounts, whose changes nobody keeps.
    others: Vec<Stack>,
    /// Mounts for the plan, the root's first.
    pub(crate) mounts: Vec<OwnedFd>,
    /// Lower layers that had to be mounted.
    lowers: Vec<OwnedFd>,
}

#[derive(Debug)]
enum Stack {
    Fuse(FuseOverlay),
    Copied(Copied),
}

/// Lower layers as the directories that they must be without overlayfs; what is an image in a file is mounted for it, at no
/// place, as long as `held` lasts.
fn directories(lowers: &[Lower], held: &mut Vec<OwnedFd>) -> Result<Vec<PathBuf>, SpawnError> {
    let mut directories = Vec::with_capacity(lowers.len());
    for lower in lowers {
        match lower {
            Lower::Directory(path) => directories.push(path.clone()),
            Lower::Stack(paths) => directories.extend_from_slice(paths),
            Lower::Erofs { index, devices } => {
                let mount = erofs::mount(index, devices).map_err(|source| SpawnError::Rootfs { source })?;
                // Programs of the host's see it, too.
                directories.push(format!("/proc/{}/fd/{}", std::process::id(), mount.as_raw_fd()).into());
                held.push(mount);
            }
        }
    }
    Ok(directories)
}

impl Stacks {
    /// Makes what the specification needs; with copies it becomes another one.
    pub(crate) fn prepare<'a>(
        stacker: &Stacker,
        spec: &'a SandboxSpec,
        marks: OverlayMarks,
    ) -> Result<(Self, Cow<'a, SandboxSpec>), SpawnError> {
        let mut stacks = Self::default();
        let Some(place) = first_place(spec) else { return Ok((stacks, Cow::Borrowed(spec))) };
        let failed = |source: io::Error| SpawnError::Rootfs { source };
        let mut changed = Cow::Borrowed(spec);
        match stacker.stacking(place, marks)? {
            Stacking::Overlayfs => {}
            Stacking::FuseOverlayfs => {
                let program = stacker.fuse_program()?;
                let mount = |lowers: &[PathBuf], upper: &Path, work: &Path, durability| {
                    let (mount, overlay) =
                        FuseOverlay::mount(program, lowers, upper, work, durability, marks).map_err(failed)?;
                    Ok::<_, SpawnError>((mount, Stack::Fuse(overlay)))
                };
                if let Rootfs::Overlay { lowers, upper, work } = &spec.rootfs
                    && !lowers.is_empty()
                {
                    let (made, stack) = mount(&directories(lowers, &mut stacks.lowers)?, upper, work, spec.durability)?;
                    stacks.mounts.push(made);
                    stacks.root = Some(stack);
                }
                for source in spec.mounts.iter().map(|mount| &mount.source) {
                    if let MountSource::Overlay { lowers, upper, work, .. } = source
                        && !lowers.is_empty()
                    {
                        let (made, stack) =
                            mount(&directories(lowers, &mut stacks.lowers)?, upper, work, Durability::AtCommit)?;
                        stacks.mounts.push(made);
                        stacks.others.push(stack);
                    }
                }
            }
            Stacking::Copy => {
                let changed = changed.to_mut();
                if let Rootfs::Overlay { lowers, upper, work } = &spec.rootfs
                    && !lowers.is_empty()
                {
                    let mut held = Vec::new();
                    let lowers = directories(lowers, &mut held)?;
                    let copied = Copied::new(&lowers, upper, work, marks).map_err(failed)?;
                    changed.rootfs = Rootfs::Directory(copied.root().to_owned());
                    stacks.root = Some(Stack::Copied(copied));
                }
                for mount in &mut changed.mounts {
                    if let MountSource::Overlay { lowers, upper, work, subpath } = &mount.source
                        && !lowers.is_empty()
                    {
                        let mut held = Vec::new();
                        let lowers = directories(lowers, &mut held)?;
                        let copied = Copied::new(&lowers, upper, work, marks).map_err(failed)?;
                        let root = copied.root().to_owned();
                        mount.source = MountSource::BindInside { root, subpath: subpath.clone() };
                        stacks.others.push(Stack::Copied(copied));
                    }
                }
            }
        }
        Ok((stacks, changed))
    }

    /// The sandbox is gone: waits until everything that it wrote is in the root's backing directory.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        self.mounts.clear();
        match &mut self.root {
            Some(Stack::Fuse(overlay)) => overlay.settle(),
            _ => Ok(()),
        }
    }

    /// It is settled: the upper directory of its root becomes what an overlay would have left. Mount points
    /// were made and removed in the directories `visited`.
    pub(crate) fn finish(mut self, visited: &[ContainerPath]) -> io::Result<()> {
        match self.root.take() {
            Some(Stack::Copied(copied)) => copied.finish(visited),
            // It was all done when it settled.
            None | Some(Stack::Fuse(_)) => Ok(()),
        }
    }

    /// Whether anything has to be ended.
    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_none() && self.others.is_empty()
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        for stack in self.root.take().into_iter().chain(self.others.drain(..)) {
            if let Stack::Copied(copied) = stack
                && let Err(error) = copied.discard()
            {
                tracing::warn!(%error, "a copied root file system stays behind");
            }
        }
    }
}

/// A directory on the file system of the upper directories.
fn first_place(spec: &SandboxSpec) -> Option<&Path> {
    let root = match &spec.rootfs {
        Rootfs::Overlay { lowers, work, .. } if !lowers.is_empty() => Some(work),
        _ => None,
    };
    let mounts = spec.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Overlay { lowers, work, .. } if !lowers.is_empty() => Some(work),
        _ => None,
    });
    root.into_iter().chain(mounts).next().and_then(|work| work.parent())
}
