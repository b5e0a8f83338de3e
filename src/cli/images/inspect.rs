//! `inspect` and `image inspect`.

use clap::ValueEnum;
use serde_json::Value;

use super::shape::IMAGE;
use crate::cli::go_template::Template;
use crate::cli::report::{self, Failure, printable};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::image_names;

/// Arguments of `image inspect`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InspectArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Show what a Go template makes of each: '{{.Id}}', '{{json .Config}}', '{{index .Config.Labels "x"}}'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Ask for this platform where a name has several
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<rbuild_image::Platform>,
}

/// What `inspect` finds things by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Images
    Image,
}

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InspectAnyArgs {
    #[command(flatten)]
    inspect: InspectArgs,
    /// Only things of this kind
    #[arg(long = "type", value_enum, value_name = "KIND")]
    kind: Option<Kind>,
}

/// Runs `inspect`.
pub(in crate::cli) fn inspect_any(args: &InspectAnyArgs, engine: &Engine) -> Result<Exit, Failure> {
    match args.kind {
        Some(Kind::Image) | None => inspect(&args.inspect, engine),
    }
}

/// Runs `image inspect`: everything that is found is shown, then what is not.
pub(in crate::cli) fn inspect(args: &InspectArgs, engine: &Engine) -> Result<Exit, Failure> {
    let template = args.format.as_deref().filter(|format| *format != "json").map(Template::for_inspect).transpose()?;
    let store = engine.store()?;
    let (mut found, mut failed): (Vec<Value>, Option<Failure>) = (Vec::new(), None);
    for name in &args.images {
        match image_names::inspect(store, name, args.platform.as_ref()) {
            Ok(image) => found.push(serde_json::to_value(image)?),
            Err(failure) => failed = failed.or(Some(failure)),
        }
    }
    let mut out = String::new();
    match (&template, &args.format) {
        (Some(template), _) => {
            for image in &found {
                match template.render_shaped(image, &IMAGE) {
                    Ok(text) => out.push_str(&text),
                    Err(failure) => failed = failed.or(Some(failure)),
                }
                out.push('\n');
            }
        }
        (None, Some(_)) => out = format!("{}\n", serde_json::to_string(&found)?),
        (None, None) => {
            // Docker indents by four.
            let mut bytes = Vec::new();
            let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            serde::Serialize::serialize(&found, &mut serde_json::Serializer::with_formatter(&mut bytes, indent))?;
            out = format!("{}\n", String::from_utf8_lossy(&bytes));
        }
    }
    report::answer(&printable(&out))?;
    failed.map_or(Ok(Exit::Success), Err)
}
