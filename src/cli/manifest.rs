//! `manifest inspect`: what a registry says of a name.

use rbuild_image::registry::FetchedManifest;
use rbuild_image::{Document, ImageRef, Platform};
use serde::Serialize;
use serde_json::{Value, json};

use super::report::{self, Failure};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// `rbuild manifest …`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ManifestCommand {
    /// Show an image's manifest or index as its registry has it
    Inspect(InspectArgs),
}

/// Arguments of `manifest inspect`.
#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// Image in a registry: name, name:tag or name@digest
    #[arg(value_name = "IMAGE")]
    image: ImageRef,
    /// Also show descriptors, and the manifests that an index names
    #[arg(short, long)]
    verbose: bool,
    /// The very bytes
    #[arg(long, conflicts_with = "verbose")]
    raw: bool,
    /// What refers to the image: attestations and signatures beside it
    #[arg(long, conflicts_with_all = ["verbose", "raw"])]
    referrers: bool,
}

/// Runs `rbuild manifest …`.
pub(super) fn execute(command: &ManifestCommand, engine: &Engine) -> Result<Exit, Failure> {
    let ManifestCommand::Inspect(args) = command;
    let client = engine.client()?;
    let name = args.image.tag_or_latest();
    let fetched = client.fetch_manifest(&name)?;
    if args.referrers {
        let index = client.referrers(&name, &fetched.descriptor.digest)?;
        report::answer(&pretty(&serde_json::from_slice(&index.to_json()).expect("it is written as JSON")))?;
        return Ok(Exit::Success);
    }
    if args.raw {
        report::answer_bytes(&fetched.bytes)?;
        return Ok(Exit::Success);
    }
    if !args.verbose {
        report::answer(&pretty(&serde_json::from_slice(&fetched.bytes).expect("it was parsed before")))?;
        return Ok(Exit::Success);
    }
    let shown = match &fetched.document {
        Document::Manifest(_) => verbose(&name.canonical(), &fetched, None),
        Document::Index(index) => {
            let mut all = Vec::new();
            for child in &index.manifests {
                let one = client.fetch_described(&name, child)?;
                all.push(verbose(&format!("{}@{}", name.canonical(), child.digest), &one, child.platform.as_ref()));
            }
            Value::Array(all)
        }
    };
    report::answer(&pretty(&shown))?;
    Ok(Exit::Success)
}

/// One manifest in Docker's words.
fn verbose(name: &str, fetched: &FetchedManifest, platform: Option<&Platform>) -> Value {
    let mut descriptor = fetched.descriptor.clone();
    descriptor.platform = platform.cloned();
    let field = match &fetched.document {
        Document::Index(_) => "OCIIndex",
        Document::Manifest(_) if fetched.descriptor.media_type.as_str().contains("docker") => "SchemaV2Manifest",
        Document::Manifest(_) => "OCIManifest",
    };
    let content: Value = serde_json::from_slice(&fetched.bytes).expect("it was parsed before");
    json!({ "Ref": name, "Descriptor": descriptor, field: content })
}

/// JSON with tabs, as Docker prints it.
fn pretty(value: &Value) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))
        .expect("a JSON value is always JSON");
    // JSON escapes control characters below U+0020; those above it would reach the terminal.
    report::printable(&String::from_utf8_lossy(&text)) + "\n"
}
