//! `--attest`, `--provenance` and `--sbom`: what was typed, turned into what it means.

use super::BuildArgs;
use super::spec::fields;
use crate::cli::report::Failure;
use crate::request::{Provenance, ProvenanceMode};

/// What is said of an image beside what is in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Attestations {
    /// How it was made, where that is wanted.
    pub(super) provenance: Option<Provenance>,
    /// Whether the packages in it are listed.
    pub(super) sbom: bool,
}

/// What all three flags ask for. Of each kind the last word counts, and that of its own flag comes after `--attest`.
pub(super) fn attestations(args: &BuildArgs) -> Result<Attestations, Failure> {
    let mut asked = Attestations::default();
    for text in &args.attest {
        let (kind, rest): (Vec<String>, Vec<String>) =
            fields(text).into_iter().partition(|field| field.starts_with("type="));
        match kind.first().map(String::as_str) {
            Some("type=provenance") => asked.provenance = provenance(text, &rest)?,
            Some("type=sbom") => asked.sbom = sbom(text, &rest)?,
            _ => {
                return Err(Failure::usage(
                    format!("--attest {text:?}: type is missing or unknown"),
                    "e.g. --attest type=provenance,mode=max",
                ));
            }
        }
    }
    if let Some(text) = &args.provenance {
        asked.provenance = provenance(text, &fields(text))?;
    }
    if let Some(text) = &args.sbom {
        asked.sbom = sbom(text, &fields(text))?;
    }
    Ok(asked)
}

fn sbom(text: &str, fields: &[String]) -> Result<bool, Failure> {
    let mut wanted = true;
    for field in fields {
        match field.as_str() {
            "true" | "disabled=false" => {}
            "false" | "disabled=true" => wanted = false,
            other => {
                return Err(Failure::usage(
                    format!("sbom {text:?}: {other:?} is not known"),
                    "known are true and false; rbuild reads packages itself, without a generator's image",
                ));
            }
        }
    }
    Ok(wanted)
}

fn provenance(text: &str, fields: &[String]) -> Result<Option<Provenance>, Failure> {
    let wrong = |why: String| {
        Failure::usage(
            format!("provenance {text:?}: {why}"),
            "known are true, false, mode=min, mode=max, version=v1, builder-id=URL, reproducible=BOOL, inline-only=BOOL",
        )
    };
    let mut made = Provenance::default();
    let mut wanted = true;
    for field in fields {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        let boolean = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(wrong(format!("{field}: want true or false"))),
        };
        match (key, value) {
            ("true", "") | ("version", "v1") => {}
            ("false", "") => wanted = false,
            ("min", "") | ("mode", "min") => made.mode = ProvenanceMode::Min,
            ("max", "") | ("mode", "max") => made.mode = ProvenanceMode::Max,
            ("disabled", _) => wanted = !boolean()?,
            ("builder-id", url) => url.clone_into(&mut made.builder_id),
            ("reproducible", _) => made.reproducible = boolean()?,
            ("inline-only", _) => made.inline_only = boolean()?,
            ("version", _) => return Err(wrong(format!("{field}: only version 1 of SLSA's provenance is written"))),
            _ => return Err(wrong(format!("{field:?} is not known"))),
        }
    }
    Ok(wanted.then_some(made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provenance_has_modes() {
        let made = |text: &str| provenance(text, &fields(text)).map_err(|failure| failure.message().to_owned());
        let of = |mode| Some(Provenance { mode, ..Provenance::default() });
        assert_eq!(made("true"), Ok(of(ProvenanceMode::Min)));
        assert_eq!(made("mode=max"), Ok(of(ProvenanceMode::Max)));
        for none in ["false", "mode=max,disabled=true", "disabled=true,mode=max"] {
            assert_eq!(made(none), Ok(None), "{none}");
        }
        assert_eq!(
            made("mode=max,builder-id=https://ci.example/1,reproducible=true,inline-only=1,version=v1"),
            Ok(Some(Provenance {
                mode: ProvenanceMode::Max,
                builder_id: "https://ci.example/1".to_owned(),
                reproducible: true,
                inline_only: true
            }))
        );
        for bad in ["mode=all", "version=v0.2", "reproducible=maybe", "filter=x", "true=1"] {
            assert!(made(bad).is_err(), "{bad}");
        }
    }
}
