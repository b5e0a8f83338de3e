//! What a user asks to be mounted into a container, whichever flag it was asked with.
//!
//! Pure: no path is looked at. `-v`, `--mount` and `--tmpfs` each have a reader of their own below; all give a
//! [`MountRequest`]. Whether a source exists, and which volume it becomes, is decided when the container is created.

mod mount_flag;
pub(crate) mod tie;
mod tmpfs_flag;
mod volume_flag;

use std::path::PathBuf;

use rbuild_executor::{Access, BindManner, Propagation, TmpfsOptions};
use rbuild_image::ContainerPath;
use serde::{Deserialize, Serialize};

use crate::quantity::InvalidQuantity;
use crate::volume::{InvalidVolumeName, VolumeName};

pub use tie::InvalidTie;

pub use mount_flag::parse as parse_mount_flag;
pub use tmpfs_flag::parse as parse_tmpfs_flag;
pub use volume_flag::parse as parse_volume_flag;

/// One mount asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountRequest {
    /// Where it is to appear; never `/`.
    pub target: ContainerPath,
    /// What is to appear there.
    pub source: MountRequestSource,
    /// Whether it can be written.
    pub access: Access,
}

/// What is asked to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountRequestSource {
    /// A volume, made when it does not exist; without a name a new one that belongs to the container.
    Volume {
        /// Its name.
        name: Option<VolumeName>,
        /// Whether the image's files are copied into it while it is empty.
        copy: CopyUp,
        /// Labels for a volume that has to be made.
        labels: Vec<(String, String)>,
    },
    /// A file or directory of the host.
    Bind {
        /// Absolute host path.
        path: PathBuf,
        /// What to do when it does not exist.
        missing: MissingSource,
        /// How it is tied to the host's mounts.
        manner: BindManner,
    },
    /// Memory.
    Tmpfs {
        /// Size limit in bytes.
        size: Option<u64>,
        /// Mode of its root directory.
        mode: u32,
        /// What else it is.
        options: TmpfsOptions,
        /// What stood behind the place in `--tmpfs`.
        typed: Option<String>,
    },
}

/// Whether an empty volume takes over what the image has at its mount point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyUp {
    /// It does, with owners and modes.
    Content,
    /// It stays empty (`nocopy`).
    Nothing,
}

/// What becomes of a bind mount whose source does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingSource {
    /// A directory is made (`-v`).
    CreateDirectory,
    /// The container is refused (`--mount`).
    Refuse,
}

/// A mount flag that cannot be understood, or asks for what is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMount {
    /// `-v` has no or too many parts, or an empty one.
    #[error("invalid volume specification: '{text}'")]
    Specification {
        /// What was given.
        text: String,
    },
    /// The container's side is no absolute path.
    #[error("invalid mount path: '{path}': mount path must be absolute")]
    RelativeTarget {
        /// What was given.
        path: String,
    },
    /// The container's side is its root.
    #[error("invalid specification: destination can't be '/'")]
    RootTarget,
    /// An option of `-v` that Docker does not know, or given twice, or with its opposite.
    #[error("invalid mode: {mode}")]
    Mode {
        /// The options as given.
        mode: String,
    },
    /// The volume's name has characters that names cannot have.
    #[error(transparent)]
    VolumeName(#[from] InvalidVolumeName),
    /// A field of `--mount` that does not exist.
    #[error("unexpected key '{key}' in '{text}'")]
    Key {
        /// The field.
        key: String,
        /// What was given.
        text: String,
    },
    /// A field of `--mount` or an option of `--tmpfs` whose value makes no sense.
    #[error("invalid value for {key}: {value}")]
    Value {
        /// The field.
        key: String,
        /// Its value.
        value: String,
    },
    /// A size that cannot be read.
    #[error(transparent)]
    Quantity(#[from] InvalidQuantity),
    /// A field of `--mount` that must be there is not.
    #[error("{field} is required")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field that does not go with this type of mount.
    #[error("cannot use '{key}' with a mount of type '{kind}'")]
    WrongKind {
        /// The field.
        key: String,
        /// The type.
        kind: &'static str,
    },
    /// Understood, and not served.
    #[error("{what} is not supported: {instead}")]
    NotServed {
        /// What was asked for.
        what: String,
        /// What to do.
        instead: &'static str,
    },
}

/// `rslave` and its kin; what is mounted below a source goes with it.
fn propagation(word: &str) -> Option<Propagation> {
    match word {
        "private" | "rprivate" => Some(Propagation::Private),
        "slave" | "rslave" => Some(Propagation::Slave),
        "shared" | "rshared" => Some(Propagation::Shared),
        _ => None,
    }
}

/// Reads the container's side of a mount.
fn target(path: &str) -> Result<ContainerPath, InvalidMount> {
    if !path.starts_with('/') {
        return Err(InvalidMount::RelativeTarget { path: path.to_owned() });
    }
    let target = ContainerPath::new(path);
    if target.is_root() { Err(InvalidMount::RootTarget) } else { Ok(target) }
}
