//! Why an index cannot be made.

use std::io;

use rbuild_image::ContainerPath;
use rbuild_image::layer::TarError;
use rbuild_image::layer::whiteout::InvalidWhiteout;

/// A layer that no index can be made of, or an index that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The archive is damaged, or asks for more than the limits allow.
    #[error("invalid layer")]
    Archive(#[from] TarError),
    /// A whiteout that names nothing.
    #[error("invalid layer")]
    Whiteout(#[from] InvalidWhiteout),
    /// An entry below a whiteout, which is no directory.
    #[error("invalid layer: {path} lies below a whiteout")]
    BelowWhiteout {
        /// The entry.
        path: ContainerPath,
    },
    /// A member that cannot be placed: its parent is no directory, its hard link leads nowhere.
    #[error("cannot {action} {path}")]
    Place {
        /// What was tried, e.g. `create directory`.
        action: &'static str,
        /// Where in the layer.
        path: ContainerPath,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The format, or Linux, has no way to say this.
    #[error("invalid layer: {path} has {what}")]
    Unrepresentable {
        /// Whose.
        path: ContainerPath,
        /// What.
        what: Unrepresentable,
    },
    /// The layer as a whole is too large.
    #[error("the layer has more than {limit} {what}")]
    TooLarge {
        /// Of what there is too much.
        what: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// The bytes of a layer or of another index did not come.
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    /// The bytes did not go out.
    #[error("cannot write the layer's index")]
    Write(#[source] io::Error),
}

/// What cannot be said in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrepresentable {
    /// More than 255 bytes.
    #[error("a name of more than 255 bytes")]
    Name,
    /// More than 4095 bytes.
    #[error("a link target of more than 4095 bytes, or none")]
    LinkTarget,
    /// The id that means "no change" to chown(2).
    #[error("the owner or group 4294967295")]
    Owner,
    /// More than 12 bits of major or 20 bits of minor number.
    #[error("a device number that Linux does not have")]
    Device,
    /// A name of more than 255 bytes behind its first part, or a value of more than 65,535.
    #[error("an extended attribute that is too long")]
    Xattr,
    /// More than 256 KiB of them.
    #[error("too many extended attributes")]
    Xattrs,
    /// Offsets that are no multiples of 512, chunks that are not as many as the size asks for, or beyond 2 TiB.
    #[error("content that lies beyond what an index can address")]
    Content,
    /// Larger than any file system of Linux has them, or with too many runs for its size.
    #[error("a sparse map that is too large")]
    Sparse,
}

pub(super) fn place(action: &'static str, path: &ContainerPath) -> impl FnOnce(io::Error) -> IndexError + use<> {
    let path = path.clone();
    move |source| IndexError::Place { action, path, source }
}

pub(super) fn refuse(action: &'static str, path: &ContainerPath, errno: rustix::io::Errno) -> IndexError {
    place(action, path)(errno.into())
}
