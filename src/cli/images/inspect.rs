//! `image inspect`.

use rbuild_cache::ImageError;
use serde_json::Value;

use super::shape::IMAGE;
use crate::cli::go_template::{Shape, Template};
use crate::cli::inspect::indented;
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

/// The document of an image and the types that templates see in it; `None` when there is none of that name.
pub(in crate::cli) fn details(name: &str, engine: &Engine) -> Result<Option<(Value, Option<&'static Shape>)>, Failure> {
    let store = engine.store()?;
    match store.images().acquire(name, None, &store.lease("inspect")?) {
        Err(ImageError::NotFound { .. }) => Ok(None),
        Err(error) => Err(image_names::explain(error)),
        Ok(_) => Ok(Some((serde_json::to_value(image_names::inspect(store, name, None)?)?, Some(&IMAGE)))),
    }
}

/// Runs `image inspect`: everything that is found is shown, then what is not.
pub(in crate::cli) fn inspect(args: &InspectArgs, engine: &Engine) -> Result<Exit, Failure> {
    let format = args.format.as_deref().filter(|format| !format.is_empty());
    let template = format.filter(|format| *format != "json").map(Template::for_inspect).transpose()?;
    let store = engine.store()?;
    let (mut found, mut failed): (Vec<Value>, Option<Failure>) = (Vec::new(), None);
    for name in &args.images {
        match image_names::inspect(store, name, args.platform.as_ref()) {
            Ok(image) => found.push(serde_json::to_value(image)?),
            Err(failure) => failed = failed.or(Some(failure)),
        }
    }
    let mut out = String::new();
    match (&template, format) {
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
        (None, None) => out = indented(&found)?,
    }
    report::answer(&printable(&out))?;
    failed.map_or(Ok(Exit::Success), Err)
}
