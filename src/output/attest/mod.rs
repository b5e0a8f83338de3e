//! What is attested about an image: statements in in-toto's form, made only when they are asked for.

mod packages;
mod provenance;
mod spdx;

use std::io;

use jiff::Timestamp;
use rbuild_cache::view::{FileKind, View};
use rbuild_cache::{Lease, Store};
use rbuild_image::{ContainerPath, Hashing, ImageRef, Platform};
use rbuild_parser::Source;
use rbuild_solver::Graph;
use serde_json::{Value, json};

use super::Built;
use super::stage::Staged;
use crate::cli::report::Failure;
use crate::request::BuildRequest;

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
        let subject = subject(names, &built.config.platform(), staged);
        let predicates = self.predicates(built, names, (store, lease))?;
        let statement = |made: Predicate| {
            (made.kind.to_owned(), statement(made.kind, &subject, &made.content).to_string().into_bytes())
        };
        Ok(predicates.into_iter().map(statement).collect())
    }

    /// The statements about a result's files, each with the name of the file that it becomes beside them.
    pub(crate) fn files(
        &self,
        built: &Built,
        view: &View,
        (store, lease): (&Store, &Lease),
    ) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
        let predicates = self.predicates(built, &self.request.tags, (store, lease))?;
        let for_files = |made: &Predicate| {
            let inline_only = self.request.provenance.as_ref().is_some_and(|provenance| provenance.inline_only);
            made.kind != provenance::PREDICATE_TYPE || !inline_only
        };
        let predicates: Vec<Predicate> = predicates.into_iter().filter(for_files).collect();
        if predicates.is_empty() {
            return Ok(Vec::new());
        }
        let subject = Value::Array(regular_files(view)?);
        let file = |made: Predicate| {
            let text = serde_json::to_vec_pretty(&statement(made.kind, &subject, &made.content));
            (made.file, text.expect("a JSON value is always JSON"))
        };
        Ok(predicates.into_iter().map(file).collect())
    }

    fn predicates(
        &self,
        built: &Built,
        names: &[ImageRef],
        (store, lease): (&Store, &Lease),
    ) -> Result<Vec<Predicate>, Failure> {
        let mut predicates = Vec::new();
        if self.request.sbom {
            let view = store.snapshots().view(built.snapshot)?;
            let scratch = || lease.scratch_name("packages").map_err(io::Error::other);
            let packages = packages::list(&view, &scratch)?;
            let name = names.first().map_or_else(|| "image".to_owned(), ImageRef::canonical);
            let created = built.config.created.clone().unwrap_or_else(|| Timestamp::UNIX_EPOCH.to_string());
            let content = spdx::document(&name, &created, &packages);
            predicates.push(Predicate { kind: spdx::PREDICATE_TYPE, file: "sbom.spdx.json", content });
        }
        if let Some(asked) = &self.request.provenance {
            let content = provenance::predicate(self, asked, &built.config.platform());
            predicates.push(Predicate { kind: provenance::PREDICATE_TYPE, file: "provenance.json", content });
        }
        Ok(predicates)
    }
}

/// What is said of a result.
struct Predicate {
    /// The type of the statement.
    kind: &'static str,
    /// BuildKit's name for the statement where it is a file.
    file: &'static str,
    content: Value,
}

/// An in-toto statement.
fn statement(predicate_type: &str, subject: &Value, predicate: &Value) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": predicate_type,
        "subject": subject,
        "predicate": predicate,
    })
}

/// Every regular file by path and digest.
fn regular_files(view: &View) -> Result<Vec<Value>, Failure> {
    let mut files = Vec::new();
    view.walk(&ContainerPath::root(), &mut |path, stat| {
        if stat.kind == FileKind::File {
            let mut file = Hashing::new(view.open(path)?);
            io::copy(&mut file, &mut io::sink())?;
            let (_, digest, _) = file.finish();
            let name = String::from_utf8_lossy(&path.as_bytes()[1..]).into_owned();
            files.push(json!({ "name": name, "digest": { "sha256": digest.hex() } }));
        }
        Ok(())
    })?;
    Ok(files)
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
