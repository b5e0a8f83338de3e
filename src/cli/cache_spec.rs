//! `--cache-from` and `--cache-to`: what buildx takes, turned into what it means.

use rbuild_cache::remote::CacheShape;
use rbuild_image::{Flavour, ImageRef};

use super::compression_spec::compression;
use super::spec::fields;
use crate::cli::report::Failure;
use crate::config::Settings;
use crate::remote_cache::spec::{
    CacheExport, CacheImport, CacheMode, ExistingBlobs, ExportPlace, LocalPick, OnExportError,
};

/// Kinds that buildx knows and that need a service of their own.
const UNSERVED: [&str; 3] = ["gha", "s3", "azblob"];

/// One `--cache-from` or `--cache-to`.
struct Spec<'a> {
    flag: &'static str,
    text: &'a str,
    kind: String,
    attributes: Vec<(String, String)>,
}

/// Caches to look in.
pub(super) fn imports(given: &[String], settings: &Settings) -> Result<Vec<CacheImport>, Failure> {
    let mut out = Vec::new();
    for text in given {
        for spec in Spec::parse("--cache-from", text)? {
            out.push(spec.import(settings)?);
        }
    }
    Ok(out)
}

/// Caches to write; `BUILDKIT_INLINE_CACHE=1` is one, too.
pub(super) fn exports(
    given: &[String],
    build_args: &[(String, String)],
    settings: &Settings,
) -> Result<Vec<CacheExport>, Failure> {
    let mut out = Vec::new();
    for text in given {
        for spec in Spec::parse("--cache-to", text)? {
            out.push(spec.export(settings)?);
        }
    }
    let asked = build_args.iter().rev().find(|(name, _)| name == "BUILDKIT_INLINE_CACHE");
    let wanted = asked.map(|(name, value)| truth(value).ok_or_else(|| not_a_truth(name, value))).transpose()?;
    if wanted == Some(true) && !out.iter().any(|export| export.place == ExportPlace::Inline) {
        out.extend(
            Spec::parse("--cache-to", "type=inline")?.iter().map(|spec| spec.export(settings)).next().transpose()?,
        );
    }
    Ok(out)
}

fn not_a_truth(name: &str, value: &str) -> Failure {
    Failure::usage(format!("--build-arg {name}={value}: want 1 or 0"), "e.g. --build-arg BUILDKIT_INLINE_CACHE=1")
}

/// Go's idea of a boolean.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl<'a> Spec<'a> {
    /// Reads one value; a list of bare names stands for as many registries.
    fn parse(flag: &'static str, text: &'a str) -> Result<Vec<Self>, Failure> {
        if !text.contains('=') {
            let one = |name: String| Self {
                flag,
                text,
                kind: "registry".to_owned(),
                attributes: vec![("ref".to_owned(), name)],
            };
            return Ok(fields(text).into_iter().map(one).collect());
        }
        let mut spec = Self { flag, text, kind: String::new(), attributes: Vec::new() };
        for field in fields(text) {
            let Some((key, value)) = field.split_once('=') else {
                return Err(spec.wrong(&format!("{field:?} is not KEY=VALUE")));
            };
            match key.trim().to_ascii_lowercase().as_str() {
                "type" => spec.kind = value.to_owned(),
                key if spec.attributes.iter().any(|(known, _)| known == key) => {
                    return Err(spec.wrong(&format!("{key} is given twice")));
                }
                key => spec.attributes.push((key.to_owned(), value.to_owned())),
            }
        }
        if spec.kind.is_empty() {
            return Err(spec.wrong("type is missing"));
        }
        Ok(vec![spec])
    }

    fn wrong(&self, why: &str) -> Failure {
        let example = match self.flag {
            "--cache-from" => "e.g. --cache-from type=registry,ref=registry.example/app:cache, or type=local,src=DIR",
            _ => "e.g. --cache-to type=registry,ref=registry.example/app:cache,mode=max, or type=local,dest=DIR",
        };
        Failure::usage(format!("{} {:?}: {why}", self.flag, self.text), example)
    }

    /// Refuses attributes that the kind does not have.
    fn only(&self, known: &[&str]) -> Result<(), Failure> {
        match self.attributes.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => Err(self.wrong(&format!("unknown attribute {key:?}; known are {}", known.join(", ")))),
            None => Ok(()),
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn needed(&self, key: &str) -> Result<&str, Failure> {
        self.get(key).filter(|value| !value.is_empty()).ok_or_else(|| self.wrong(&format!("{key} is missing")))
    }

    fn truth(&self, key: &str) -> Result<Option<bool>, Failure> {
        let read = |value| truth(value).ok_or_else(|| self.wrong(&format!("{key}={value}: want true or false")));
        self.get(key).map(read).transpose()
    }

    fn reference(&self) -> Result<ImageRef, Failure> {
        let text = self.needed("ref")?;
        let name: ImageRef = text.parse().map_err(|error| self.wrong(&format!("ref={text}: {error}")))?;
        Ok(name.tag_or_latest())
    }

    fn tag(&self) -> Result<String, Failure> {
        let tag = self.get("tag").unwrap_or("latest");
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if tag.is_empty() || tag.len() > 128 || !tag.chars().all(fine) {
            return Err(self.wrong(&format!("tag={tag}: not a tag")));
        }
        Ok(tag.to_owned())
    }

    fn unknown(&self, known: &str) -> Failure {
        if UNSERVED.contains(&self.kind.as_str()) {
            return self.wrong(&format!("type={} is not supported; use {known}", self.kind));
        }
        self.wrong(&format!("unknown type {:?}; known are {known}", self.kind))
    }

    fn import(&self, settings: &Settings) -> Result<CacheImport, Failure> {
        match self.kind.as_str() {
            "registry" => {
                self.only(&["ref"])?;
                Ok(CacheImport::Registry(self.reference()?))
            }
            "local" => {
                self.only(&["src", "tag", "digest"])?;
                let directory = settings.absolute(self.needed("src")?);
                let pick = match self.get("digest") {
                    Some(digest) => LocalPick::Digest(
                        digest.parse().map_err(|error| self.wrong(&format!("digest={digest}: {error}")))?,
                    ),
                    None => LocalPick::Tag(self.tag()?),
                };
                Ok(CacheImport::Local { directory, pick })
            }
            "inline" => Err(self.wrong("a cache inside an image is named by the image: type=registry,ref=IMAGE")),
            _ => Err(self.unknown("registry and local")),
        }
    }

    fn export(&self, settings: &Settings) -> Result<CacheExport, Failure> {
        const COMMON: [&str; 7] = [
            "mode",
            "compression",
            "compression-level",
            "force-compression",
            "ignore-error",
            "oci-mediatypes",
            "image-manifest",
        ];
        let place = match self.kind.as_str() {
            "registry" => {
                self.only(&[&["ref"], &COMMON[..]].concat())?;
                ExportPlace::Registry(self.reference()?)
            }
            "local" => {
                self.only(&[&["dest", "tag"], &COMMON[..]].concat())?;
                ExportPlace::Local { directory: settings.absolute(self.needed("dest")?), tag: self.tag()? }
            }
            "inline" => {
                self.only(&["mode"])?;
                ExportPlace::Inline
            }
            _ => return Err(self.unknown("registry, local and inline")),
        };
        let mode = match self.get("mode") {
            None | Some("min") => CacheMode::Min,
            Some("max") if place == ExportPlace::Inline => {
                return Err(self.wrong("a cache inside an image has only what is in the image: mode=min"));
            }
            Some("max") => CacheMode::Max,
            Some(mode) => return Err(self.wrong(&format!("mode={mode}: want min or max"))),
        };
        let oci = self.truth("oci-mediatypes")?.unwrap_or(true);
        let shape = match (self.truth("image-manifest")?, oci) {
            (Some(true), false) => return Err(self.wrong("image-manifest=true needs oci-mediatypes=true")),
            (Some(true) | None, true) => CacheShape::Image,
            (Some(false) | None, _) => CacheShape::Index,
        };
        Ok(CacheExport {
            place,
            mode,
            compression: compression(self.get("compression"), self.get("compression-level"))
                .map_err(|why| self.wrong(&why))?,
            existing: match self.truth("force-compression")? {
                Some(true) => ExistingBlobs::Recompressed,
                _ => ExistingBlobs::Kept,
            },
            shape,
            flavour: if oci { Flavour::Oci } else { Flavour::Docker },
            // buildx fails a build whose cache cannot be written; here a cache is only worth a warning until asked.
            on_error: match self.truth("ignore-error")? {
                Some(false) => OnExportError::Fail,
                _ => OnExportError::Warn,
            },
        })
    }
}
