//! What is attested about an image: statements in in-toto's form, made only when they are asked for.

mod packages;
mod provenance;
mod spdx;

use jiff::Timestamp;
use rbuild_cache::{Lease, Store};
use rbuild_image::{ImageRef, Platform};
use rbuild_parser::Source;
use rbuild_solver::Graph;
use serde_json::{Value, json};

use super::Built;
use super::stage::Staged;
use crate::cli::report::Failure;
use crate::request::{BuildRequest, ProvenanceMode};

/// What a build's attestations are made of.
pub(crate) struct Attester<'a> {
    /// What was asked for.
    pub(crate) request: &'a BuildRequest,
    /// The Dockerfile.
    pub(crate) dockerfile: &'a Source,
    /// What was done.
    pub(crate) graph: &'a Graph,
    /// The build's identity, where it is recorded.
    pub(crate) build: Option<String>,
    /// When the build began and its steps ended; nothing where the result is not to depend on it.
    pub(crate) times: Option<(Timestamp, Timestamp)>,
}

impl Attester<'_> {
    /// Whether nothing is attested.
    pub(crate) fn is_idle(&self) -> bool {
        self.request.provenance.is_none() && !self.request.sbom
    }

    /// The statements about one image, each with its predicate's type.
    pub(crate) fn statements(
        &self,
        built: &Built,
        staged: &Staged<'_>,
        names: &[ImageRef],
        (store, lease): (&Store, &Lease),
    ) -> Result<Vec<(String, Vec<u8>)>, Failure> {
        let mut statements = Vec::new();
        let subject = subject(names, &built.config.platform(), staged);
        if self.request.sbom {
            let view = store.snapshots().view(built.snapshot)?;
            let scratch = || lease.scratch_name("packages").map_err(std::io::Error::other);
            let packages = packages::list(&view, &scratch)?;
            let name = names.first().map_or_else(|| "image".to_owned(), ImageRef::canonical);
            let created = built.config.created.clone().unwrap_or_else(|| Timestamp::UNIX_EPOCH.to_string());
            let document = spdx::document(&name, &created, &packages);
            statements.push(statement(spdx::PREDICATE_TYPE, &subject, &document));
        }
        if let Some(mode) = self.request.provenance {
            let predicate = provenance::predicate(self, mode, &built.config.platform());
            statements.push(statement(provenance::PREDICATE_TYPE, &subject, &predicate));
        }
        Ok(statements)
    }

    fn is_complete(&self) -> bool {
        self.request.provenance == Some(ProvenanceMode::Max)
    }
}

/// An in-toto statement.
fn statement(predicate_type: &str, subject: &Value, predicate: &Value) -> (String, Vec<u8>) {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": predicate_type,
        "subject": subject,
        "predicate": predicate,
    });
    (predicate_type.to_owned(), statement.to_string().into_bytes())
}

/// What a statement is about: the manifest, under each of its names.
fn subject(names: &[ImageRef], platform: &Platform, staged: &Staged<'_>) -> Value {
    let digest = json!({ "sha256": staged.manifest.digest.hex() });
    if names.is_empty() {
        return json!([{ "name": "_", "digest": digest }]);
    }
    names.iter().map(|name| json!({ "name": package_url(name, platform), "digest": digest })).collect()
}

/// An image's package URL, as BuildKit writes it: `pkg:docker/debian@12?platform=linux%2Famd64`.
fn package_url(name: &ImageRef, platform: &Platform) -> String {
    let version = name.tag_or_latest();
    let version = version.tag().map(|tag| format!("@{}", escape(tag, b""))).unwrap_or_default();
    format!(
        "pkg:docker/{}{version}?platform={}",
        escape(&name.familiar_name(), b"/"),
        escape(&platform.to_string(), b"")
    )
}

/// Percent-encodes everything but unreserved characters and `keep`.
fn escape(text: &str, keep: &[u8]) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_package_urls() {
        for (name, platform, url) in [
            ("debian:12", "linux/amd64", "pkg:docker/debian@12?platform=linux%2Famd64"),
            (
                "localhost:5000/team/app",
                "linux/arm/v7",
                "pkg:docker/localhost%3A5000/team/app@latest?platform=linux%2Farm%2Fv7",
            ),
        ] {
            assert_eq!(package_url(&name.parse().unwrap(), &platform.parse().unwrap()), url);
        }
    }
}
