//! `load`, `save`, `import`: images as files.

use std::path::PathBuf;

use clap::ValueEnum;
use rbuild_image::{ImageRef, Platform};

use super::report::{self, Failure};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names;
use crate::request::{ArchiveFormat, Destination};
use crate::transfer::{self, ImportRequest, Input, LoadRequest, SaveRequest};

/// Arguments of `load`.
#[derive(Debug, clap::Args)]
pub(super) struct LoadArgs {
    /// Archive to read [default: standard input]
    #[arg(short, long, value_name = "FILE", conflicts_with = "oci")]
    input: Option<PathBuf>,
    /// OCI layout directory to read instead of an archive
    #[arg(long, value_name = "DIR")]
    oci: Option<PathBuf>,
    /// Name for the image, where the archive has only one
    #[arg(short, long, value_name = "NAME")]
    tag: Option<ImageRef>,
    /// No progress (none is shown anyway)
    #[arg(short, long)]
    quiet: bool,
    /// Only this platform of each image
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
}

/// Runs `load`.
pub(super) fn load(args: &LoadArgs, engine: &Engine) -> Result<Exit, Failure> {
    let settings = engine.settings();
    let input = match (&args.oci, &args.input) {
        (Some(dir), _) => Input::Directory(settings.absolute(dir)),
        (None, Some(file)) => Input::File(settings.absolute(file)),
        (None, None) => Input::Stdin,
    };
    args.tag.iter().try_for_each(image_names::check_new)?;
    let name = args.tag.as_ref().map(ImageRef::tag_or_latest);
    let loaded = transfer::load(engine, &LoadRequest { input, name, platform: args.platform.clone() })?;
    for image in loaded {
        report::answer(&match &image.reference {
            Some(reference) => format!("Loaded image: {reference}\n"),
            None => format!("Loaded image ID: {}\n", image.id),
        })?;
    }
    Ok(Exit::Success)
}

/// Arguments of `save`.
#[derive(Debug, clap::Args)]
pub(super) struct SaveArgs {
    /// Names or ids; a name without a tag means all its tags
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Archive to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Format of the archive: docker is what `docker load` reads, oci an OCI layout
    #[arg(long, value_enum, default_value_t = FormatArg::Docker)]
    format: FormatArg,
    /// Only this platform of each image [default: all that are here]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    /// docker-archive
    #[value(alias = "docker-archive")]
    Docker,
    /// OCI layout in a tar
    #[value(alias = "oci-archive")]
    Oci,
}

/// Runs `save`.
pub(super) fn save(args: &SaveArgs, engine: &Engine) -> Result<Exit, Failure> {
    let settings = engine.settings();
    let dest = match &args.output {
        Some(file) => Destination::File(settings.absolute(file)),
        None if settings.stdout_is_terminal => {
            return Err(Failure::usage(
                "an archive cannot be written to a terminal",
                "name a file with -o, or redirect",
            ));
        }
        None => Destination::Stdout,
    };
    let format = match args.format {
        FormatArg::Docker => ArchiveFormat::Docker,
        FormatArg::Oci => ArchiveFormat::Oci,
    };
    transfer::save(
        engine,
        &SaveRequest { images: args.images.clone(), dest, format, platform: args.platform.clone() },
    )?;
    Ok(Exit::Success)
}

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// Root file system as a tar, compressed or not: a file, a URL, or `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Name of the image
    #[arg(value_name = "NAME")]
    name: Option<ImageRef>,
    /// Dockerfile instruction for the image's config: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, …
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Comment in the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Platform the files are for [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
}

/// Runs `import`.
pub(super) fn import(args: &ImportArgs, engine: &Engine) -> Result<Exit, Failure> {
    args.name.iter().try_for_each(image_names::check_new)?;
    let settings = engine.settings();
    let input = match args.file.to_str() {
        Some("-") => Input::Stdin,
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => Input::Url(url.to_owned()),
        _ => Input::File(settings.absolute(&args.file)),
    };
    let request = ImportRequest {
        input,
        name: args.name.as_ref().map(ImageRef::tag_or_latest),
        changes: args.change.clone(),
        message: args.message.clone(),
        platform: args.platform.clone().unwrap_or_else(Platform::host),
    };
    let id = transfer::import(engine, &request)?;
    report::answer(&format!("{id}\n"))?;
    Ok(Exit::Success)
}
