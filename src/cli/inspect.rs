//! `inspect`: containers, images, volumes and networks by name, and what all kinds of it share.

use clap::ValueEnum;
use rbuild_container::{FindError, VolumeName};
use serde_json::Value;

use super::go_template::{Shape, Template};
use super::images;
use super::network;
use super::report::{self, Failure, printable};
use super::run::{CONTAINER_SHAPE, containers_of, details};
use super::volume;
use crate::engine::Engine;
use crate::exit_code::Exit;

/// What `inspect` finds things by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Containers
    Container,
    /// Images
    Image,
    /// Networks
    Network,
    /// Volumes
    Volume,
}

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Show what a Go template makes of each: '{{.Id}}', '{{json .Config}}'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Only things of this kind
    #[arg(long = "type", value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// Also how much containers have written
    #[arg(short, long)]
    size: bool,
}

/// Arguments of `container inspect`.
#[derive(Debug, clap::Args)]
pub(super) struct InspectContainerArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// Show what a Go template makes of each: '{{.State.Status}}', '{{json .Config}}'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Also how much they have written
    #[arg(short, long)]
    size: bool,
}

/// Runs `inspect`.
pub(super) fn inspect(args: &InspectArgs, engine: &Engine) -> Result<Exit, Failure> {
    show(&args.names, args.format.as_deref(), |name| {
        let kinds = args.kind.map_or_else(|| Kind::value_variants().to_vec(), |kind| vec![kind]);
        for kind in &kinds {
            let found = match kind {
                Kind::Container => container(name, args.size, engine)?,
                Kind::Image => images::details(name, engine)?.inspect(|_| ignored(args.size, "image")),
                Kind::Network => {
                    network::find(name, engine)?.map(|found| (found, None)).inspect(|_| ignored(args.size, "network"))
                }
                Kind::Volume => volume_details(name, engine)?.inspect(|_| ignored(args.size, "volume")),
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        let what = match args.kind {
            None => "object",
            Some(Kind::Container) => "container",
            Some(Kind::Image) => "image",
            Some(Kind::Network) => "network",
            Some(Kind::Volume) => "volume",
        };
        Err(Failure::new(format!("no such {what}: {name}")).with_help(match args.kind {
            None => "`rbuild ps -a`, `rbuild images`, `rbuild volume ls` and `rbuild network ls` list what there is",
            Some(Kind::Container) => "`rbuild ps -a` lists all containers, stopped ones too",
            Some(Kind::Image) => "`rbuild images` lists what there is",
            Some(Kind::Network) => "`rbuild network ls` lists them",
            Some(Kind::Volume) => "`rbuild volume ls` lists them",
        }))
    })
}

/// Says that only containers have a size that is measured.
fn ignored(size: bool, what: &str) {
    if size {
        report::story(&format!("WARNING: --size ignored for {what}\n"));
    }
}

/// Runs `container inspect`.
pub(super) fn inspect_container(args: &InspectContainerArgs, engine: &Engine) -> Result<Exit, Failure> {
    show(&args.names, args.format.as_deref(), |name| {
        let found = container(name, args.size, engine)?;
        found.ok_or_else(|| Failure::new(format!("no such container: {name}")))
    })
}

/// A document, and the shape that templates see it in.
pub(super) type Found = (Value, Option<&'static Shape>);

fn container(name: &str, size: bool, engine: &Engine) -> Result<Option<Found>, Failure> {
    let containers = containers_of(engine)?;
    let record = match containers.find(name) {
        Ok(record) => record,
        Err(FindError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut document = details(&record, &containers);
    if size && let Value::Object(fields) = &mut document {
        let written = containers.written(&record)?;
        let image = record.snapshot.map(|id| engine.store().map(|store| store.snapshots().layers(id))).transpose()?;
        let image: u64 = image.transpose()?.into_iter().flatten().map(|layer| layer.size).sum();
        fields.insert("SizeRw".to_owned(), written.into());
        fields.insert("SizeRootFs".to_owned(), (written + image).into());
    }
    Ok(Some((document, Some(&CONTAINER_SHAPE))))
}

fn volume_details(name: &str, engine: &Engine) -> Result<Option<Found>, Failure> {
    let Ok(name) = name.parse::<VolumeName>() else { return Ok(None) };
    let containers = containers_of(engine)?;
    Ok(containers.volume(&name)?.map(|found| (volume::details(&found, &containers), None)))
}

/// Shows everything that is found, then says what is not.
pub(super) fn show(
    names: &[String],
    format: Option<&str>,
    find: impl Fn(&str) -> Result<Found, Failure>,
) -> Result<Exit, Failure> {
    let format = format.filter(|format| !format.is_empty());
    let template = format.filter(|format| *format != "json").map(Template::for_inspect).transpose()?;
    let (mut found, mut failed) = (Vec::new(), None);
    for name in names {
        match find(name) {
            Ok(document) => found.push(document),
            Err(failure) => failed = failed.or(Some(failure)),
        }
    }
    let mut out = String::new();
    if let Some(template) = &template {
        for (document, shape) in &found {
            let rendered = match shape {
                Some(shape) => template.render_shaped(document, shape),
                None => template.render(document),
            };
            match rendered {
                Ok(text) => out.push_str(&text),
                Err(failure) => failed = failed.or(Some(failure)),
            }
            out.push('\n');
        }
    } else {
        let documents: Vec<Value> = found.into_iter().map(|(document, _)| document).collect();
        out =
            if format.is_some() { format!("{}\n", serde_json::to_string(&documents)?) } else { indented(&documents)? };
    }
    report::answer(&printable(&out))?;
    failed.map_or(Ok(Exit::Success), Err)
}

/// JSON as Docker indents it, by four.
pub(super) fn indented(documents: &[Value]) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    serde::Serialize::serialize(&documents, &mut serde_json::Serializer::with_formatter(&mut bytes, indent))?;
    Ok(format!("{}\n", String::from_utf8_lossy(&bytes)))
}
