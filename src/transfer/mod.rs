//! Images in and out of the store: archives, root file systems, registries.

mod arrival;
mod beside;
mod commit;
mod config_changes;
mod copy;
mod import;
mod load;
mod login;
mod pull;
mod push;
mod save;
mod search;
mod unpack;

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

pub use commit::{CommitRequest, Pausing, commit};
pub use copy::{CopyRequest, FileKind, ImagePlace, InvalidPlace, copy};
pub use import::{ImportRequest, import};
pub(crate) use load::load_image;
pub use load::{LoadRequest, Loaded, load};
pub use login::{Existing, login, login_again, logout};
pub use pull::{Pulled, pull};
pub(crate) use pull::{Watch, created, ensure_unpacked, fetch};
pub use push::{Pushed, push, stored_tags};
pub use save::{SaveRequest, save};
pub use search::{Found, FoundRepository, HubFilter, HubImage, search};
pub(crate) use unpack::{LayerBlob, unpack};

use crate::cli::report::Failure;

/// Where an archive or root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// A directory (an OCI layout).
    Directory(PathBuf),
    /// A file behind a URL.
    Url(String),
}

impl Input {
    /// Opens a stream.
    fn open(&self) -> Result<Box<dyn Read + Send>, Failure> {
        match self {
            Self::Stdin => Ok(Box::new(io::stdin())),
            Self::Url(url) => Err(Failure::new(format!("{url} is not a file here"))),
            Self::File(path) | Self::Directory(path) => match File::open(path) {
                Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_dir()) => {
                    Err(Failure::new(format!("{} is a directory", path.display()))
                        .with_help("name a tar file, or use --oci"))
                }
                Ok(file) => Ok(Box::new(file)),
                Err(error) => Err(Failure::new(format!("cannot open {}: {error}", path.display()))),
            },
        }
    }

    /// How messages call it.
    fn name(&self) -> String {
        match self {
            Self::Stdin => "standard input".to_owned(),
            Self::Url(url) => rbuild_image::registry::without_credentials(url),
            Self::File(path) | Self::Directory(path) => path.display().to_string(),
        }
    }
}
