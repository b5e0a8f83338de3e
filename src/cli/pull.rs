//! `pull`, `push`, `image copy`: images between registries, archives and the store.

use rbuild_image::{ImageRef, Platform};

use super::report::{self, Failure};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::progress::{Mode, Transfers};
use crate::transfer::{self, CopyRequest, ImagePlace};

/// Arguments of `pull`.
#[derive(Debug, clap::Args)]
pub(super) struct PullArgs {
    /// Image to fetch: name, name:tag or name@digest
    #[arg(value_name = "IMAGE")]
    image: ImageRef,
    /// Platform to choose [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Fetch every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
}

/// Runs `pull`.
pub(super) fn pull(args: &PullArgs, engine: &Engine) -> Result<Exit, Failure> {
    if args.all_tags {
        if args.image.tag().is_some() || args.image.digest().is_some() {
            return Err(Failure::usage("--all-tags: a tag or digest cannot be given with it", "name a repository"));
        }
        let tags = engine.client()?.tags(&args.image)?;
        if tags.is_empty() {
            return Err(Failure::new(format!("{} has no tags", args.image)));
        }
        for tag in tags {
            let reference = args.image.with_tag(&tag)?;
            pull_one(args, &reference, engine)?;
        }
        return Ok(Exit::Success);
    }
    pull_one(args, &args.image.tag_or_latest(), engine)
}

fn pull_one(args: &PullArgs, reference: &ImageRef, engine: &Engine) -> Result<Exit, Failure> {
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let transfers = Transfers::start(mode(args.quiet), engine.settings());
    let pulled = transfer::pull(engine, reference, &platform, &transfers);
    transfers.finish();
    let pulled = pulled?;
    if !args.quiet {
        let status = if pulled.was_present { "Image is up to date" } else { "Downloaded newer image" };
        report::story(&format!("Digest: {}\nStatus: {status} for {reference}\n", pulled.digest));
    }
    report::answer(&format!("{}\n", reference.canonical()))?;
    Ok(Exit::Success)
}

/// Arguments of `push`.
#[derive(Debug, clap::Args)]
pub(super) struct PushArgs {
    /// Images to send; their names say where to
    #[arg(value_name = "NAME", required = true)]
    images: Vec<ImageRef>,
    /// Send every tag of the repositories
    #[arg(short, long)]
    all_tags: bool,
    /// Only the image for this platform, without an index [default: all that are here]
    #[arg(long, value_name = "PLATFORM", conflicts_with = "all_tags")]
    platform: Option<Platform>,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
}

/// Runs `push`.
pub(super) fn push(args: &PushArgs, engine: &Engine) -> Result<Exit, Failure> {
    let mut references = Vec::new();
    for image in &args.images {
        if image.digest().is_some() {
            return Err(Failure::usage(format!("{image}: cannot push a digest reference"), "name a tag"));
        }
        match (args.all_tags, image.tag()) {
            (false, _) => references.push(image.tag_or_latest()),
            (true, None) => references.extend(transfer::stored_tags(engine, image)?),
            (true, Some(_)) => {
                return Err(Failure::usage("--all-tags: a tag cannot be given with it", "name a repository"));
            }
        }
    }
    for reference in references {
        let transfers = Transfers::start(mode(args.quiet), engine.settings());
        let pushed = transfer::push(engine, &reference, args.platform.as_ref(), &transfers);
        transfers.finish();
        let pushed = pushed?;
        if args.quiet {
            report::answer(&format!("{}\n", reference.canonical()))?;
        } else {
            let tag = reference.tag().unwrap_or("latest");
            report::answer(&format!("{tag}: digest: {} size: {}\n", pushed.digest, pushed.size))?;
        }
    }
    Ok(Exit::Success)
}

/// Arguments of `image copy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Places:
  NAME, docker://NAME           a registry
  store:NAME                    rbuild's store
  oci:DIR[:NAME]                an OCI layout
  oci-archive:FILE[:NAME]       an OCI layout in a tar
  docker-archive:FILE[:NAME]    what `docker load` reads

Examples:
  rbuild image copy debian:12 registry.example/mirror/debian:12
  rbuild image copy store:app:1 oci:out:1
  rbuild image copy oci-archive:app.tar registry.example/app:1")]
pub(super) struct CopyArgs {
    /// Where the image is
    #[arg(value_name = "SOURCE")]
    from: ImagePlace,
    /// Where it is to be
    #[arg(value_name = "DESTINATION")]
    to: ImagePlace,
    /// Only the image for this platform [default: all; for the store and docker-archive this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Print only the digest
    #[arg(short, long)]
    quiet: bool,
}

/// Runs `image copy`.
pub(super) fn copy(args: &CopyArgs, engine: &Engine) -> Result<Exit, Failure> {
    let request = CopyRequest { from: args.from.clone(), to: args.to.clone(), platform: args.platform.clone() };
    let transfers = Transfers::start(mode(args.quiet), engine.settings());
    let digest = transfer::copy(engine, &request, &transfers);
    transfers.finish();
    report::answer(&format!("{}\n", digest?))?;
    Ok(Exit::Success)
}

fn mode(quiet: bool) -> Mode {
    if quiet { Mode::Quiet } else { Mode::Auto }
}
