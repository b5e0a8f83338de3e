//! `save`: stored images as one archive.

use rbuild_image::{Flavour, ImageRef, Platform};

use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::image_names;
use crate::output::stage::{self, Packing, Staged, Together};
use crate::output::write_archive;
use crate::request::{ArchiveFormat, Compression, Destination};

/// What to save.
#[derive(Clone, Debug)]
pub struct SaveRequest {
    /// Names or ids.
    pub images: Vec<String>,
    /// Where to.
    pub dest: Destination,
    /// As what.
    pub format: ArchiveFormat,
    /// This platform of each image; this machine's where it is not given.
    pub platform: Option<Platform>,
}

/// Writes images as an archive. Those that came with a manifest leave with the same layers.
pub fn save(engine: &Engine, request: &SaveRequest) -> Result<(), Failure> {
    let store = engine.store()?;
    let lease = store.lease("save")?;
    let (mut staged, mut names): (Vec<Staged<'_>>, Vec<Vec<ImageRef>>) = (Vec::new(), Vec::new());
    for text in &request.images {
        let image = store.images().acquire(text, request.platform.as_ref(), &lease).map_err(image_names::explain)?;
        let name = text.parse::<ImageRef>().ok().map(|name| name.tag_or_latest());
        let name: Vec<ImageRef> = name.filter(|name| image.references.contains(name)).into_iter().collect();
        let flavour = match request.format {
            ArchiveFormat::Docker => Flavour::Docker,
            ArchiveFormat::Oci => Flavour::Oci,
        };
        let packing = Packing { compression: Compression::Uncompressed, flavour };
        let one = match stage::original(store, &image)? {
            Some(original) => original,
            None => stage::pack(engine, &lease, &image.record, packing)?,
        };
        match staged.iter().position(|known| known.manifest.digest == one.manifest.digest) {
            Some(at) => names[at].extend(name),
            None => {
                staged.push(one);
                names.push(name);
            }
        }
    }
    let exports = staged.iter().map(|staged| staged.manifest.clone()).zip(names).collect();
    write_archive(request.format, &request.dest, exports, &Platform::host(), &Together { staged: &staged, index: None })
}
