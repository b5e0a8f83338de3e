//! What lowering asks of the outside: configurations of base images, and what named contexts are.

use std::sync::Arc;

use rbuild_image::{Digest, ImageConfig, ImageRef, Platform};

use crate::op::Source;

/// The outside, as lowering sees it.
pub trait Resolve {
    /// Fixes an image to a digest and reads its configuration. The reference has a tag or a digest.
    fn image(&self, reference: &ImageRef, platform: &Platform) -> Result<ResolvedImage, ResolveError>;

    /// What `--build-context NAME=…` gives for a stage or an image of that name, if anything. Names come in their
    /// familiar form, without `:latest`.
    fn context(&self, name: &str, platform: &Platform) -> Result<Option<NamedContext>, ResolveError>;
}

/// A base image.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedImage {
    /// The reference with defaults applied.
    pub reference: ImageRef,
    /// Digest of what the reference names (an index, where it names one); people see it.
    pub shown: Digest,
    /// Digest of the platform's manifest, or of the config where there is no manifest.
    pub digest: Digest,
    /// The configuration.
    pub config: Arc<ImageConfig>,
}

/// What a named context is.
#[derive(Clone, Debug, PartialEq)]
pub enum NamedContext {
    /// Files: a directory ([`Source::Context`]), a repository, a downloaded file.
    Files(Source),
    /// An image.
    Image(ResolvedImage),
}

/// No outside: for a file that cannot be built anyway. Named contexts are known by name.
pub(super) struct Nothing<'a> {
    pub(super) replaced: &'a dyn Fn(&str) -> bool,
}

impl Resolve for Nothing<'_> {
    fn image(&self, _: &ImageRef, _: &Platform) -> Result<ResolvedImage, ResolveError> {
        Err(ResolveError { message: "not asked for".to_owned(), help: None })
    }

    fn context(&self, name: &str, _: &Platform) -> Result<Option<NamedContext>, ResolveError> {
        let files = NamedContext::Files(Source::Context(crate::op::ContextSource { name: name.to_owned() }));
        Ok((self.replaced)(name).then_some(files))
    }
}

/// The outside has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ResolveError {
    /// Lower-case sentence, e.g. `docker.io/library/nope:latest: not found`.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}
