//! What lowering asks of the outside: base images and named contexts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_cache::{Lease, Store, StoredImage};
use rbuild_image::archive::{Archive, ArchiveInput, ArchiveLimits};
use rbuild_image::pull as registry;
use rbuild_image::registry::without_credentials;
use rbuild_image::{ImageConfig, ImageRef, Platform};
use rbuild_solver::{
    ContextSource, NamedContext, Resolve, ResolveError, ResolvedImage, Source, git_context, http_context,
};

use crate::cli::report::Failure;
use crate::context::{ContextFiles, IgnoreFile, LocalContext, named_directory};
use crate::engine::Engine;
use crate::failure_help;
use crate::image_names;
use crate::timings::{Phase, Timings};
use crate::transfer::{self, Input};

/// Resolves for one build; each question is asked of the outside once.
pub(crate) struct Outside<'a> {
    engine: &'a Engine,
    store: &'a Store,
    lease: &'a Lease,
    named: &'a [(String, String)],
    fresh: Freshness,
    images: Mutex<BTreeMap<(ImageRef, Platform), Result<ResolvedImage, ResolveError>>>,
    contexts: Mutex<BTreeMap<String, LocalContext>>,
    warnings: Mutex<Vec<String>>,
    timings: Option<&'a Timings>,
}

/// Whether stored images may be older than the registry's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// They may.
    Stored,
    /// The registry is asked (`--pull`).
    Registry,
}

impl<'a> Outside<'a> {
    /// Answers from the store of `engine`, and from registries.
    pub(crate) fn new(
        engine: &'a Engine,
        store: &'a Store,
        lease: &'a Lease,
        named: &'a [(String, String)],
        fresh: Freshness,
    ) -> Self {
        let (images, contexts, warnings) = Default::default();
        Self { engine, store, lease, named, fresh, images, contexts, warnings, timings: None }
    }

    /// The same, measured.
    pub(crate) fn timed(self, timings: &'a Timings) -> Self {
        Self { timings: Some(timings), ..self }
    }

    /// The named contexts that were asked for and are directories, and what people should know.
    pub(crate) fn finish(self) -> (BTreeMap<String, LocalContext>, Vec<String>) {
        let contexts = self.contexts.into_inner().unwrap_or_else(PoisonError::into_inner);
        (contexts, self.warnings.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn resolve(&self, reference: &ImageRef, platform: &Platform) -> Result<ResolvedImage, ResolveError> {
        let images = self.store.images();
        let stored = match images.get(reference, Some(platform)).map_err(|error| plain(&error))? {
            None => images.get(reference, None).map_err(|error| plain(&error))?,
            found => found,
        };
        let serves = |image: &StoredImage| image.record.platform.rank_for(platform).is_some();
        if let (Some(image), Freshness::Stored) = (&stored, self.fresh) {
            // A stored image of another platform is used when the name has no other: with a warning, as BuildKit does.
            if serves(image) || only_platform(image) {
                return self.stored(reference, image);
            }
            return Err(ResolveError {
                message: format!("{reference}: no match for platform in manifest: {platform} not found"),
                help: Some(format!("the stored image is for {}", image.record.platform)),
            });
        }
        match self.ask_registry(reference, platform) {
            Err(error) if stored.is_some() => {
                let image = stored.as_ref().expect("just checked");
                self.warn(format!("{reference}: {}; using the stored image", error.message));
                self.stored(reference, image)
            }
            answer => answer,
        }
    }

    fn stored(&self, reference: &ImageRef, image: &StoredImage) -> Result<ResolvedImage, ResolveError> {
        let id = image.record.id;
        let held = self.store.images().acquire(&id.to_string(), Some(&image.record.platform), self.lease);
        held.map_err(|error| plain(&error))?;
        let config = image_names::config(self.store, &id)
            .map_err(|failure| ResolveError { message: format!("{reference}: {}", failure.message()), help: None })?;
        let digest = image.record.manifest.as_ref().map_or(id, |manifest| manifest.digest);
        Ok(ResolvedImage { reference: reference.clone(), shown: digest, digest, config: Arc::new(config) })
    }

    fn ask_registry(&self, reference: &ImageRef, platform: &Platform) -> Result<ResolvedImage, ResolveError> {
        let client = self
            .engine
            .client()
            .map_err(|failure| ResolveError { message: failure.message().to_owned(), help: None })?;
        let found = registry::resolve(&client, reference, platform)
            .and_then(|image| registry::fetch_config(&client, &image).map(|(_, config)| (image, config)));
        match found {
            Ok((image, config)) => Ok(ResolvedImage {
                reference: reference.clone(),
                shown: image.descriptor().digest,
                digest: image.manifest.0.digest,
                config: Arc::new(config),
            }),
            Err(error) => {
                // What could not be looked up is named by whoever asks.
                let why = Failure::from_error("", &*error.cause);
                let not_found = if error.is_not_found() { ": not found" } else { "" };
                let help = failure_help::of_error(&error).unwrap_or_else(|| {
                    "check the name; `rbuild images` lists stored ones, `rbuild login` is for private registries"
                        .to_owned()
                });
                let message = format!("{}{not_found}", why.message().trim_start_matches(": "));
                Err(ResolveError { message, help: Some(help) })
            }
        }
    }

    fn warn(&self, text: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn named_context(&self, name: &str, given: &str, platform: &Platform) -> Result<NamedContext, ResolveError> {
        let wrong = |message: String, help: &str| ResolveError { message, help: Some(help.to_owned()) };
        if let Some(image) = given.strip_prefix("docker-image://") {
            if image == "scratch" {
                let nothing = LocalContext { files: ContextFiles::Snapshot(None), ignore: IgnoreFile::default() };
                self.contexts.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), nothing);
                return Ok(NamedContext::Files(Source::Context(ContextSource { name: name.to_owned() })));
            }
            let reference: ImageRef = image.parse().map_err(|error| plain(&error))?;
            return self.image(&reference.tag_or_latest(), platform).map(NamedContext::Image);
        }
        if let Some(layout) = given.strip_prefix("oci-layout://") {
            return self.oci_layout(name, layout, platform).map(NamedContext::Image);
        }
        let context = |message: String| {
            wrong(
                format!("build context {name}={}: {message}", without_credentials(given)),
                "name a directory, a repository (https://….git#ref:dir), a URL, docker-image:// or oci-layout://",
            )
        };
        // Only contexts that are no directory here: `github.com/…` may be one.
        if given.contains("://") || !self.engine.settings().absolute(given).exists() {
            if let Some(git) = git_context(given).map_err(context)? {
                return Ok(NamedContext::Files(Source::Git(git)));
            }
            if let Some(http) = http_context(given) {
                return Ok(NamedContext::Files(Source::Http(http)));
            }
            if given.contains("://") {
                return Err(context("unsupported context source".to_owned()));
            }
        }
        let directory = self.engine.settings().absolute(given);
        let context = named_directory(&directory).map_err(|failure| {
            wrong(format!("build context {name}: {}", failure.message()), "name an existing directory")
        })?;
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), context);
        Ok(NamedContext::Files(Source::Context(ContextSource { name: name.to_owned() })))
    }

    /// Takes an image of an OCI layout into the store, under a name that says where it came from.
    fn oci_layout(&self, name: &str, layout: &str, platform: &Platform) -> Result<ResolvedImage, ResolveError> {
        let failed = |text: String| ResolveError { message: format!("build context {name}: {text}"), help: None };
        let (path, wanted) = split_layout(layout);
        let directory = self.engine.settings().absolute(path);
        let mut scratch = || Err(std::io::Error::from(std::io::ErrorKind::Unsupported));
        let archive =
            Archive::open(ArchiveInput::Directory(directory.clone()), &ArchiveLimits::default(), &mut scratch)
                .map_err(|error| failed(error.to_string()))?;
        let tagged = |tag: &str| {
            archive.images().iter().find(|image| {
                image.label.as_deref() == Some(tag) || image.names.iter().any(|name| name.tag() == Some(tag))
            })
        };
        let chosen = match &wanted {
            LayoutItem::Only => tagged("latest").or(match archive.images() {
                [only] => Some(only),
                _ => None,
            }),
            LayoutItem::Tag(tag) => tagged(tag),
            LayoutItem::Digest(digest) => {
                archive.images().iter().find(|image| image.root().0.digest.to_string() == *digest)
            }
        };
        let chosen = chosen.ok_or_else(|| {
            failed(match &wanted {
                LayoutItem::Only => format!("{} has several images, none tagged latest", directory.display()),
                LayoutItem::Tag(name) | LayoutItem::Digest(name) => {
                    format!("{} has no image {name}", directory.display())
                }
            })
        })?;
        let manifest = chosen
            .select(platform)
            .ok_or_else(|| failed(format!("no match for platform in manifest: {platform} not found")))?;
        let id = manifest.config.0.digest;
        let input = Input::Directory(directory);
        transfer::load_image(self.engine, self.lease, &input, &archive, chosen, &[])
            .map_err(|failure| failed(failure.message().to_owned()))?;
        let config: ImageConfig = manifest.image_config.clone();
        let reference: ImageRef =
            format!("localhost/oci-layout/{}", id.short()).parse().map_err(|error| plain(&error))?;
        Ok(ResolvedImage { reference, shown: chosen.root().0.digest, digest: id, config: Arc::new(config) })
    }
}

/// Whether a name leads to one platform because the image has no index.
fn only_platform(image: &StoredImage) -> bool {
    !image.record.blobs.values().any(|role| *role == rbuild_cache::BlobRole::Index)
}

/// Which image of a layout.
#[derive(Debug, PartialEq, Eq)]
enum LayoutItem<'a> {
    /// The one tagged `latest`, or the only one.
    Only,
    Tag(&'a str),
    Digest(&'a str),
}

/// Splits `path[:tag][@digest]`; the tag is `latest` where there is none.
fn split_layout(text: &str) -> (&str, LayoutItem<'_>) {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    match (digest, tag) {
        (Some(digest), _) => (path, LayoutItem::Digest(digest)),
        (None, Some(tag)) => (path, LayoutItem::Tag(tag)),
        (None, None) => (path, LayoutItem::Only),
    }
}

impl Resolve for Outside<'_> {
    fn image(&self, reference: &ImageRef, platform: &Platform) -> Result<ResolvedImage, ResolveError> {
        let key = (reference.clone(), platform.clone());
        if let Some(known) = self.images.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return known.clone();
        }
        let answer = {
            let _resolving = self.timings.map(|timings| timings.start(Phase::Resolve));
            self.resolve(reference, platform)
        };
        self.images.lock().unwrap_or_else(PoisonError::into_inner).insert(key, answer.clone());
        answer
    }

    fn context(&self, name: &str, platform: &Platform) -> Result<Option<NamedContext>, ResolveError> {
        let same = |given: &str| match (given.parse::<ImageRef>(), name.parse::<ImageRef>()) {
            (Ok(given), Ok(name)) => given.tag_or_latest() == name.tag_or_latest(),
            _ => false,
        };
        let given = self
            .named
            .iter()
            .find(|(given, _)| given == name)
            .or_else(|| self.named.iter().find(|(given, _)| same(given)));
        given.map(|(name, source)| self.named_context(name, source, platform)).transpose()
    }
}

fn plain(error: &(dyn std::error::Error + 'static)) -> ResolveError {
    ResolveError { message: Failure::from_error("", error).message().trim_start_matches(": ").to_owned(), help: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_named_by_path_tag_and_digest() {
        for (text, path, item) in [
            ("./out", "./out", LayoutItem::Only),
            ("/a/b:v1", "/a/b", LayoutItem::Tag("v1")),
            ("../a:b/c", "../a:b/c", LayoutItem::Only),
            ("a@sha256:00", "a", LayoutItem::Digest("sha256:00")),
            ("a:v1@sha256:00", "a", LayoutItem::Digest("sha256:00")),
            ("a:b/c@sha256:00", "a:b/c", LayoutItem::Digest("sha256:00")),
        ] {
            assert_eq!(split_layout(text), (path, item), "{text}");
        }
    }
}
