//! `commit`: a container becomes an image.

use clap::ArgAction;
use rbuild_image::ImageRef;

use crate::cli::report::{self, Failure};
use crate::cli::run::containers_of;
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names;
use crate::interrupt::Interrupts;
use crate::transfer::{self, CommitRequest, Pausing};

/// Arguments of `commit`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CommitArgs {
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Name of the image
    #[arg(value_name = "NAME")]
    name: Option<ImageRef>,
    /// Author, e.g. "Jane Doe <jane@example.org>"
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// Dockerfile instruction for the image's config: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, …
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Comment in the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Freeze a running container meanwhile; --pause=false lets it go on
    #[arg(short, long, default_value_t = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    pause: bool,
}

/// Runs `commit`.
pub(in crate::cli) fn commit(args: &CommitArgs, engine: &Engine) -> Result<Exit, Failure> {
    args.name.iter().try_for_each(image_names::check_new)?;
    let request = CommitRequest {
        container: args.container.clone(),
        name: args.name.as_ref().map(ImageRef::tag_or_latest),
        author: args.author.clone(),
        message: args.message.clone(),
        changes: args.change.clone(),
        pausing: if args.pause { Pausing::WhileReading } else { Pausing::Never },
    };
    let _interrupts = Interrupts::cancelling(engine.cancel())?;
    let id = transfer::commit(engine, &containers_of(engine)?, &request)?;
    report::answer(&format!("{id}\n"))?;
    Ok(Exit::Success)
}
