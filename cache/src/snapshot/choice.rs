//! How new layers are kept: as tars where the kernel mounts such layers for this process, else as directories.
//!
//! Whether it does is found out by doing it once, with a tiny layer in the store's own file system, when the first layer
//! is written. That it worked is noted in the store for as long as the kernel runs and for the same user namespace; that
//! it did not is found out anew each time, since a module may have been loaded meanwhile.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rbuild_executor::user_namespace::{Powers, powers};
use rustix::io::Errno;

use super::meanwhile::Queue;
use super::remembered::Remembered;
use super::seen::Seen;
use super::store::{SnapshotError, Snapshots};
use crate::erofs::{Device, IndexBuilder, IndexError};
use crate::removal::remove_tree;

/// How new layers are to be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotterChoice {
    /// As tars with an EROFS index where the kernel mounts these for this process, as directories elsewhere.
    #[default]
    Auto,
    /// As tars with an EROFS index; an error where that is not possible.
    Erofs,
    /// As directories.
    Directory,
}

/// How new layers are kept here, and why so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// `erofs` or `directory`.
    pub kind: &'static str,
    /// Why that one.
    pub why: WhyKept,
}

/// Why layers are kept as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyKept {
    /// It was asked for.
    Asked,
    /// It was tried, and the kernel mounts them.
    Mountable,
    /// It was tried, and the kernel does not.
    NotMountable {
        /// What it said.
        error: String,
    },
}

impl fmt::Display for WhyKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("asked for"),
            Self::Mountable => f.write_str("erofs from files can be mounted here"),
            Self::NotMountable { error } => write!(f, "erofs from files cannot be mounted here: {error}"),
        }
    }
}

/// Something that names no way to keep layers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no way to keep layers: auto, erofs or directory is wanted")]
pub struct InvalidSnapshotter {
    /// What was given.
    pub text: String,
}

impl FromStr for SnapshotterChoice {
    type Err = InvalidSnapshotter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "erofs" => Ok(Self::Erofs),
            "directory" => Ok(Self::Directory),
            _ => Err(InvalidSnapshotter { text: text.to_owned() }),
        }
    }
}

/// What was found out in this process.
#[derive(Debug, Default)]
pub(crate) struct Snapshotting {
    pub(crate) choice: SnapshotterChoice,
    can_mount: OnceLock<Result<(), (i32, String)>>,
    /// Whether layers have got another form, and left the old one behind.
    replaced: AtomicBool,
    /// Layers that become tars while steps run.
    queue: Arc<Queue>,
    /// What is known of layers while a build runs.
    seen: Arc<Seen>,
    /// What is known of snapshots while a build runs.
    remembered: Arc<Remembered>,
    /// Which boot of the machine this is; empty where that cannot be told.
    boot: OnceLock<String>,
}

impl Snapshotting {
    pub(crate) fn new(choice: SnapshotterChoice) -> Self {
        Self { choice, ..Self::default() }
    }

    pub(super) fn note_replaced(&self) {
        self.replaced.store(true, Ordering::Relaxed);
    }

    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    pub(super) fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    pub(super) fn remembered(&self) -> &Arc<Remembered> {
        &self.remembered
    }

    /// The boot of the machine that this process runs in.
    pub(crate) fn boot(&self) -> Option<&str> {
        let read = || fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        Some(self.boot.get_or_init(read).as_str()).filter(|boot| !boot.is_empty())
    }

    /// Whether that happened since it was asked last.
    pub(crate) fn take_replaced(&self) -> bool {
        self.replaced.swap(false, Ordering::Relaxed)
    }
}

impl Snapshots {
    /// Whether new layers become tars.
    pub(super) fn makes_tars(&self) -> Result<bool, SnapshotError> {
        Ok(self.keeping()?.kind == super::tar_layer::NAME)
    }

    /// How new layers are kept here.
    pub fn keeping(&self) -> Result<Keeping, SnapshotError> {
        let (tars, directories) = (super::tar_layer::NAME, super::directory::NAME);
        Ok(match (self.store.snapshotting().choice, self.mounts_erofs()) {
            (SnapshotterChoice::Auto, Ok(())) => Keeping { kind: tars, why: WhyKept::Mountable },
            (SnapshotterChoice::Auto, Err(error)) => {
                Keeping { kind: directories, why: WhyKept::NotMountable { error: error.to_string() } }
            }
            (SnapshotterChoice::Erofs, Ok(())) => Keeping { kind: tars, why: WhyKept::Asked },
            (SnapshotterChoice::Erofs, Err(source)) => return Err(SnapshotError::NoErofs { source }),
            (SnapshotterChoice::Directory, _) => Keeping { kind: directories, why: WhyKept::Asked },
        })
    }

    /// Whether this process can mount layers that are tars.
    pub fn mounts_erofs(&self) -> io::Result<()> {
        let known = self.store.snapshotting().can_mount.get_or_init(|| {
            self.probe().map_err(|error| (error.raw_os_error().unwrap_or_default(), error.to_string()))
        });
        match known {
            Ok(()) => Ok(()),
            Err((errno, _)) if *errno != 0 => Err(io::Error::from_raw_os_error(*errno)),
            Err((_, text)) => Err(io::Error::other(text.clone())),
        }
    }

    fn probe(&self) -> io::Result<()> {
        if powers() != Powers::All {
            return Err(Errno::PERM.into());
        }
        let boot = self.store.snapshotting().boot();
        let namespace = fs::read_link("/proc/self/ns/user").unwrap_or_default();
        let condition = format!("{} {}\n", boot.unwrap_or_default(), namespace.display());
        let noted = self.store.layout().erofs_note();
        if boot.is_some() && fs::read_to_string(&noted).is_ok_and(|text| text == condition) {
            return Ok(());
        }
        let place = self.store.layout().tmp().join(format!("probe-{}", std::process::id()));
        fs::create_dir(&place)?;
        let tried = try_tiny(&place);
        remove_tree(&place)?;
        tried?;
        // A note that cannot be written, or only in part, means another trial.
        drop(fs::write(&noted, condition));
        Ok(())
    }
}

fn try_tiny(place: &Path) -> io::Result<()> {
    let (tar, index) = (place.join("tar"), place.join("index"));
    fs::write(&tar, [0; 1024])?;
    let mut out = fs::File::create(&index)?;
    IndexBuilder::new().finish(&[Device { bytes: 1024, digest: None }], &mut out).map_err(|error| match error {
        IndexError::Write(error) | IndexError::Read(error) => error,
        other => io::Error::other(other),
    })?;
    rbuild_executor::try_erofs(&index, &[tar])
}
