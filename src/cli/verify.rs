//! `rbuild verify IMAGE CONTEXT`: builds again, without any cache, and says whether it is the same image.

use super::build::{BuildArgs, spec};
use super::report::{self, Failure};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::progress::Mode;
use crate::verify::{self, Verdict};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The image has to be built with --reproducible (or with SOURCE_DATE_EPOCH and rewrite-timestamp=true); what else
the build was given, such as --build-arg, --target or --label, is given here again.

Examples:
  rbuild build --reproducible -t app:1 .
  rbuild verify app:1 .")]
pub(super) struct VerifyArgs {
    /// Image to verify: a name or an id of the store, or a name in a registry
    #[arg(value_name = "IMAGE")]
    image: String,
    #[command(flatten)]
    build: BuildArgs,
}

/// Runs `verify`.
pub(super) fn execute(args: &VerifyArgs, engine: &Engine) -> Result<Exit, Failure> {
    args.build.refuse_outputs()?;
    let settings = engine.settings();
    let request = spec::request(&args.build, settings)?;
    let mode = match args.build.mode() {
        Some(mode) => mode,
        None => Mode::from_settings(settings)?,
    };
    match verify::verify(engine, &args.image, request, mode)? {
        Verdict::Same { id } => {
            report::answer(&format!("{} is reproduced: {id}\n", args.image))?;
            Ok(Exit::Success)
        }
        Verdict::Different { image, rebuilt, differences } => {
            let mut text = format!("{} is not reproduced: it is {image}, built again it is {rebuilt}\n", args.image);
            for difference in differences {
                text.push_str(&format!("  {}\n", report::printable(&difference)));
            }
            report::answer(&text)?;
            Ok(Exit::Failure)
        }
    }
}
