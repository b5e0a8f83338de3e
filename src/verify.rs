//! Whether an image is what its sources give: it is built again without any cache, with the time that it says it was
//! made, and compared.

use rbuild_cache::StoredImage;
use rbuild_cache::view::View;
use rbuild_image::{Digest, ImageConfig, ImageRef, Platform};

use crate::build::build;
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::file_changes::{Comparing, FileChange, compare};
use crate::image_names;
use crate::progress::{Mode, Transfers};
use crate::request::{BuildRequest, CacheChoice, ImageForm, ImageOutput, Output};
use crate::transfer;

/// Differences that are told; the rest is counted.
const SHOWN: usize = 20;

/// What a comparison gave.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The same image.
    Same {
        /// Its id.
        id: Digest,
    },
    /// Another one.
    Different {
        /// The image that was given.
        image: Digest,
        /// What its sources give; the store keeps it without a name.
        rebuilt: Digest,
        /// Where they differ.
        differences: Vec<String>,
    },
}

/// Builds `request` again and compares the result with `image`.
pub fn verify(engine: &Engine, image: &str, request: BuildRequest, mode: Mode) -> Result<Verdict, Failure> {
    let wanted = find(engine, image, request.platforms.first())?;
    let store = engine.store()?;
    let lease = store.lease("verify")?;
    let wanted = store
        .images()
        .acquire(&wanted.record.id.to_string(), Some(&wanted.record.platform), &lease)
        .map_err(image_names::explain)?;
    let made = wanted.record.created_at.ok_or_else(|| {
        Failure::new(format!("{image} does not say when it was made: it cannot be built again"))
            .with_help("build it with --reproducible")
    })?;
    let form = ImageForm { rewrite_timestamp: true, ..ImageForm::default() };
    let mut request = BuildRequest {
        cache: CacheChoice::Ignore,
        cache_from: Vec::new(),
        cache_to: Vec::new(),
        platforms: vec![wanted.record.platform.clone()],
        tags: Vec::new(),
        outputs: vec![Output::Image(ImageOutput { form, ..ImageOutput::default() })],
        reproducible: true,
        ..request
    };
    request.build_args.retain(|(name, _)| name != "SOURCE_DATE_EPOCH");
    request.build_args.push(("SOURCE_DATE_EPOCH".to_owned(), made.as_second().to_string()));
    let rebuilt = build(engine, &request, mode)?.image_id.ok_or_else(|| Failure::new("the build gave no image"))?;
    if rebuilt == wanted.record.id {
        return Ok(Verdict::Same { id: rebuilt });
    }
    let other = store.images().acquire(&rebuilt.to_string(), None, &lease).map_err(image_names::explain)?;
    let differences = differences(engine, &lease, &wanted, &other)?;
    Ok(Verdict::Different { image: wanted.record.id, rebuilt, differences })
}

/// The image in the store, or fetched from its registry.
fn find(engine: &Engine, image: &str, platform: Option<&Platform>) -> Result<StoredImage, Failure> {
    let store = engine.store()?;
    let missing = match store.images().find(image, platform) {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    let Ok(reference) = image.parse::<ImageRef>() else { return Err(image_names::explain(missing)) };
    let transfers = Transfers::start(Mode::Quiet, engine.settings());
    let host = Platform::host();
    let pulled = transfer::pull(engine, &reference.tag_or_latest(), platform.unwrap_or(&host), &transfers);
    transfers.finish();
    image_names::find(store, &pulled?.id.to_string(), None)
}

fn differences(
    engine: &Engine,
    lease: &rbuild_cache::Lease,
    one: &StoredImage,
    two: &StoredImage,
) -> Result<Vec<String>, Failure> {
    let store = engine.store()?;
    let mut found = Vec::new();
    let configs = [one, two].map(|image| image_names::config(store, &image.record.id));
    let [first, second] = configs;
    config_differences(&first?, &second?, &mut found);
    let cancelled = || engine.cancel().is_cancelled();
    let mut views = Vec::new();
    for image in [one, two] {
        let snapshot = transfer::ensure_unpacked(store, lease, image, &cancelled)?;
        views.push(store.snapshots().view(snapshot)?);
    }
    let mut files = file_differences(&views[0], &views[1])?;
    let more = files.len().saturating_sub(SHOWN);
    files.truncate(SHOWN);
    found.extend(files);
    if more > 0 {
        found.push(format!("and {more} more files"));
    }
    if found.is_empty() {
        found.push("the same files are in other layers".to_owned());
    }
    Ok(found)
}

/// The fields of two configs that differ; layers and their history speak for themselves.
fn config_differences(one: &ImageConfig, two: &ImageConfig, found: &mut Vec<String>) {
    let value = |config: &ImageConfig| serde_json::to_value(config).expect("a configuration is always JSON");
    let (one, two) = (value(one), value(two));
    let (Some(one), Some(two)) = (one.as_object(), two.as_object()) else { return };
    let names: std::collections::BTreeSet<&String> = one.keys().chain(two.keys()).collect();
    for name in names {
        if name != "rootfs" && one.get(name) != two.get(name) {
            let text = |value: Option<&serde_json::Value>| {
                let text = value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                if text.chars().count() > 200 {
                    format!("{}…", text.chars().take(199).collect::<String>())
                } else {
                    text
                }
            };
            found.push(format!("config {name}: {} became {}", text(one.get(name)), text(two.get(name))));
        }
    }
}

fn file_differences(one: &View, two: &View) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    compare::<Failure>(one, two, Comparing::Bytes, &mut |change| {
        found.push(difference(&change));
        Ok(())
    })?;
    Ok(found)
}

fn difference(change: &FileChange) -> String {
    let path = &change.path;
    match (&change.before, &change.after) {
        (Some(_), None) => format!("{path} is missing"),
        (None, _) => format!("{path} is new"),
        (Some(_), Some(_)) => {
            let aspects: Vec<&str> = change.aspects.iter().map(|aspect| aspect.name()).collect();
            format!("{path}: another {}", aspects.join(", "))
        }
    }
}
