//! `--overlay`: how the layers of root file systems are put over each other.

use clap::ValueEnum;
use rbuild_executor::user_namespace::find_program;
use rbuild_executor::{Stacking, StackingChoice};

use super::report::Failure;
use crate::config::Settings;

/// What layers are put over each other with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Overlay {
    /// The first that works.
    Auto,
    /// The kernel's overlayfs.
    Overlayfs,
    /// The program fuse-overlayfs.
    FuseOverlayfs,
    /// A copy of all layers.
    Copy,
}

/// What the option, else the environment, asks for.
pub(super) fn choose(asked: Option<Overlay>, settings: &Settings) -> Result<StackingChoice, Failure> {
    let overlay = match (asked, settings.overlay.as_deref()) {
        (Some(overlay), _) => overlay,
        (None, None) => Overlay::Auto,
        (None, Some(text)) => Overlay::from_str(text, false).map_err(|_| {
            Failure::new(format!("RBUILD_OVERLAY={text:?} is no kind of overlay"))
                .with_help("use auto, overlayfs, fuse-overlayfs or copy")
        })?,
    };
    let forced = match overlay {
        Overlay::Auto => None,
        Overlay::Overlayfs => Some(Stacking::Overlayfs),
        Overlay::FuseOverlayfs => Some(Stacking::FuseOverlayfs),
        Overlay::Copy => Some(Stacking::Copy),
    };
    Ok(StackingChoice { forced, fuse_program: find_program("fuse-overlayfs", settings.path.as_deref()) })
}
