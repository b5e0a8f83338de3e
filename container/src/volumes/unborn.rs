//! Anonymous volumes of a container that is being made: nobody would find them if that is cut short.
//!
//! Whoever makes such a container holds them by a lease until it is there. A lease whose process was killed lets the next
//! invocation remove them, unless the container did appear: then they are its own.

use std::fs;
use std::io;
use std::path::Path;

use rbuild_cache::{Hold, Layout};

use super::RECORD;
use crate::id::ContainerId;
use crate::volume::VolumeName;

/// Kind of what a lease holds for a volume whose container is being made; its name is `CONTAINER/VOLUME`.
pub const UNBORN_VOLUME_KIND: &str = "volume";

pub(crate) fn hold_unborn(container: &ContainerId, volume: &VolumeName) -> Hold {
    Hold::Outside { kind: UNBORN_VOLUME_KIND.to_owned(), name: format!("{container}/{volume}") }
}

/// Removes the volume of a container that never appeared in the store at `root`; `name` is what the lease said.
pub fn remove_unborn_volume(root: &Path, name: &str) -> io::Result<()> {
    let parsed = name.split_once('/').and_then(|(container, volume)| {
        Some((container.parse::<ContainerId>().ok()?, volume.parse::<VolumeName>().ok()?))
    });
    let (container, volume) = parsed.ok_or(io::ErrorKind::InvalidData)?;
    let layout = Layout::new(root.to_owned());
    let place = layout.volumes().join(volume.as_str());
    if layout.containers().join(container.as_str()).exists() || !place.exists() || is_used(&layout, &volume)? {
        return Ok(());
    }
    // Its record first: what is cut short here is no volume any more, and the lease stays for the next attempt.
    match fs::remove_file(place.join(RECORD)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::remove_dir_all(&place),
    }
}

/// Whether a container says the volume's name anywhere, as one does that was given it by its random name meanwhile.
fn is_used(layout: &Layout, volume: &VolumeName) -> io::Result<bool> {
    let entries = match fs::read_dir(layout.containers()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    for entry in entries {
        let record = entry?.path().join("container.json");
        match fs::read_to_string(record) {
            Ok(text) if text.contains(volume.as_str()) => return Ok(true),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
