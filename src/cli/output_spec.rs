//! `--output`, `--push`, `--load` and `--annotation`: what was typed, turned into what it means.

use std::path::{Component, Path};

use rbuild_image::{Flavour, ImageRef, Platform};

use super::compression_spec::compression;
use super::spec::fields;
use super::{AllowArg, BuildArgs};
use crate::cli::report::Failure;
use crate::config::Settings;
use crate::output::image::check_form;
use crate::remote_cache::spec::ExistingBlobs;
use crate::request::{
    Annotation, AnnotationPlace, ArchiveFormat, ArchiveOutput, AttestAs, Destination, FilesForm, ImageForm,
    ImageOutput, OtherFiles, Output, PushAs, Split,
};

/// What becomes of the result: every `--output`, then what `--push` and `--load` add.
pub(super) fn outputs(args: &BuildArgs, settings: &Settings) -> Result<Vec<Output>, Failure> {
    let deletes = args.allow.contains(&AllowArg::LocalDelete);
    let mut out = args.output.iter().map(|text| output(text, settings, deletes)).collect::<Result<Vec<_>, _>>()?;
    if out.is_empty() {
        out.push(Output::Image(ImageOutput::default()));
    }
    if args.push {
        let images = out.iter_mut().filter_map(|output| match output {
            Output::Image(image) => Some(image),
            _ => None,
        });
        let mut pushed = false;
        for image in images {
            image.push.get_or_insert(PushAs::Tags);
            pushed = true;
        }
        if !pushed {
            out.push(Output::Image(ImageOutput { push: Some(PushAs::Tags), ..ImageOutput::default() }));
        }
    }
    if args.load && !out.iter().any(|output| matches!(output, Output::Docker(_))) {
        out.push(Output::Docker(ImageForm::default()));
    }
    if args.reproducible {
        for output in &mut out {
            if let Output::Image(ImageOutput { form, .. })
            | Output::Archive(ArchiveOutput { form, .. })
            | Output::Docker(form) = output
            {
                form.rewrite_timestamp = true;
            }
        }
    }
    Ok(out)
}

/// `[TYPE[PLATFORM][,TYPE…]:]KEY=VALUE`.
pub(super) fn annotations(given: &[String]) -> Result<Vec<Annotation>, Failure> {
    let mut out = Vec::new();
    for text in given {
        let wrong = |why: &str| {
            Failure::usage(
                format!("--annotation {text:?}: {why}"),
                "e.g. org.opencontainers.image.title=app, or index,manifest[linux/amd64]:KEY=VALUE",
            )
        };
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("it is not KEY=VALUE"))?;
        let (places, key) = key.split_once(':').unwrap_or(("manifest", key));
        if key.is_empty() {
            return Err(wrong("the key is missing"));
        }
        for place in places.split(',') {
            let (place, platform) = match place.split_once('[') {
                Some((place, rest)) => (place, Some(rest.strip_suffix(']').ok_or_else(|| wrong("a ] is missing"))?)),
                None => (place, None),
            };
            let place = annotation_place(place)
                .ok_or_else(|| wrong("known are manifest, manifest-descriptor, index and index-descriptor"))?;
            out.push(annotation(place, platform, key, value).map_err(|why| wrong(&why))?);
        }
    }
    Ok(out)
}

fn annotation_place(text: &str) -> Option<AnnotationPlace> {
    match text {
        "manifest" => Some(AnnotationPlace::Manifest),
        "manifest-descriptor" => Some(AnnotationPlace::ManifestDescriptor),
        "index" => Some(AnnotationPlace::Index),
        "index-descriptor" => Some(AnnotationPlace::IndexDescriptor),
        _ => None,
    }
}

fn annotation(place: AnnotationPlace, platform: Option<&str>, key: &str, value: &str) -> Result<Annotation, String> {
    let platform = platform.map(str::parse::<Platform>).transpose().map_err(|error| error.to_string())?;
    if platform.is_some() && matches!(place, AnnotationPlace::Index | AnnotationPlace::IndexDescriptor) {
        return Err("an index is for all platforms".to_owned());
    }
    Ok(Annotation { place, platform, key: key.to_owned(), value: value.to_owned() })
}

fn output(text: &str, settings: &Settings, deletes: bool) -> Result<Output, Failure> {
    let wrong = |why: String| {
        Failure::usage(format!("--output {text:?}: {why}"), "e.g. --output type=oci,dest=image.tar, or a directory")
    };
    // A path may have a `=`; a key has no `/`.
    let is_key = |(key, _): (&str, &str)| !key.contains('/');
    if !text.contains(',') && !text.split_once('=').is_some_and(is_key) {
        return Ok(match text {
            "-" => Output::Tar(Destination::Stdout, FilesForm::default()),
            path => Output::Local(settings.absolute(path), FilesForm::default()),
        });
    }
    let mut given = Attributes::default();
    for field in fields(text) {
        let (key, value) = field.split_once('=').ok_or_else(|| wrong(format!("{field:?} is not KEY=VALUE")))?;
        let key = key.trim();
        // As in buildx the case of keys means nothing; only what an annotation is called is taken as it is.
        let lower = if key.starts_with("annotation") { key.to_owned() } else { key.to_lowercase() };
        given.take(&lower, value, &wrong)?;
    }
    let file = |dest: Option<&str>| match dest {
        None if settings.stdout_is_terminal => {
            Err(wrong("dest is missing, and a terminal cannot take an archive".to_owned()))
        }
        None | Some("-") => Ok(Destination::Stdout),
        Some(path) => Ok(Destination::File(settings.absolute(path))),
    };
    match given.kind.as_deref() {
        None => Err(wrong("type is missing".to_owned())),
        Some(kind @ ("image" | "store" | "registry")) => {
            let own = [
                "name",
                "push",
                "push-by-digest",
                "registry.insecure",
                "store",
                "unpack",
                "attestations",
                "name-canonical",
                "dangling-name-prefix",
            ];
            given.only(&own, IMAGE, &wrong)?;
            let push = match (given.push.unwrap_or(kind == "registry"), given.by_digest) {
                (_, true) => Some(PushAs::Digest),
                (true, false) => Some(PushAs::Tags),
                (false, false) => None,
            };
            let store = given.store.unwrap_or(true);
            if !store && push.is_none() {
                return Err(wrong("store=false without push=true leaves nothing: use type=cacheonly".to_owned()));
            }
            let insecure = given.insecure;
            let canonical = given.canonical;
            let dangling = given.dangling_prefix.clone();
            if !store && (canonical || dangling.is_some()) {
                return Err(wrong(
                    "name-canonical and dangling-name-prefix name what the store keeps: not with store=false"
                        .to_owned(),
                ));
            }
            let form = given.form(push == Some(PushAs::Digest), &wrong)?;
            check_form(&form, push)?;
            if form.attestations == AttestAs::Referrer && push.is_none() {
                return Err(wrong("attestations=referrers is for registries: add push=true".to_owned()));
            }
            Ok(Output::Image(ImageOutput { form, store, push, insecure, canonical, dangling }))
        }
        Some("cacheonly") => given.only(&[], &[], &wrong).map(|()| Output::CacheOnly),
        Some("tar") => {
            given.only(&["dest", "platform-split", "attestation-prefix"], &[], &wrong)?;
            Ok(Output::Tar(file(given.dest.as_deref())?, given.files()))
        }
        Some("local") => {
            given.only(&["dest", "platform-split", "attestation-prefix", "mode"], &[], &wrong)?;
            let Some(path) = &given.dest else { return Err(wrong("dest is missing".to_owned())) };
            let path = settings.absolute(path);
            if given.others == OtherFiles::Removed && !deletes && !is_inside(&path, &settings.cwd) {
                return Err(Failure::usage(
                    format!(
                        "--output {text:?}: mode=delete would remove what else is in {}, which is not inside the working directory",
                        path.display()
                    ),
                    "give --allow=buildx.local.delete if that is meant",
                ));
            }
            Ok(Output::Local(path, given.files()))
        }
        Some("docker") if given.dest.is_none() && !given.layout => {
            given.only(&["name"], IMAGE, &wrong)?;
            Ok(Output::Docker(given.form(false, &wrong)?))
        }
        Some(kind @ ("oci" | "docker")) => {
            given.only(&["name", "dest", "tar"], IMAGE, &wrong)?;
            let format = if kind == "oci" { ArchiveFormat::Oci } else { ArchiveFormat::Docker };
            if format == ArchiveFormat::Oci && given.flavour == Some(Flavour::Docker) {
                return Err(wrong(
                    "an OCI layout has OCI's media types: oci-mediatypes=false cannot be had".to_owned(),
                ));
            }
            let dest = match (given.layout, given.dest.as_deref()) {
                (false, dest) => file(dest)?,
                (true, _) if format == ArchiveFormat::Docker => {
                    return Err(wrong("tar=false is only for type=oci".to_owned()));
                }
                (true, Some(path)) => Destination::Directory(settings.absolute(path)),
                (true, None) => return Err(wrong("tar=false needs dest".to_owned())),
            };
            Ok(Output::Archive(ArchiveOutput { format, dest, form: given.form(false, &wrong)? }))
        }
        Some(other) => Err(wrong(format!(
            "unknown type {other:?}; known are image, registry, oci, docker, tar, local and cacheonly"
        ))),
    }
}

/// Attributes of everything that is an image.
const IMAGE: &[&str] = &[
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "oci-artifact",
    "annotation",
    "rewrite-timestamp",
    "attestation-inline",
    "prefer-nondist-layers",
    "buildinfo",
];

/// Whether a path is below a directory, not above it by `..` and not the directory itself.
fn is_inside(path: &Path, directory: &Path) -> bool {
    let rest = path.strip_prefix(directory).map(|rest| rest.components().collect::<Vec<_>>());
    rest.is_ok_and(|rest| !rest.is_empty() && rest.iter().all(|component| matches!(component, Component::Normal(_))))
}

/// The attributes of one `--output`.
#[derive(Debug, Default)]
struct Attributes {
    kind: Option<String>,
    dest: Option<String>,
    compression: Option<String>,
    level: Option<String>,
    existing: Option<ExistingBlobs>,
    flavour: Option<Flavour>,
    names: Vec<String>,
    annotations: Vec<Annotation>,
    layout: bool,
    rewrite_timestamp: bool,
    artifact: bool,
    referrers: bool,
    split: Split,
    attestation_prefix: String,
    others: OtherFiles,
    inline: bool,
    canonical: bool,
    dangling_prefix: Option<ImageRef>,
    push: Option<bool>,
    by_digest: bool,
    insecure: bool,
    store: Option<bool>,
    keys: Vec<String>,
}

impl Attributes {
    fn take(&mut self, key: &str, value: &str, wrong: &dyn Fn(String) -> Failure) -> Result<(), Failure> {
        // What Go takes for a boolean; nothing at all is a yes.
        let boolean = || match value {
            "" | "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(true),
            "false" | "False" | "FALSE" | "f" | "F" | "0" => Ok(false),
            _ => Err(wrong(format!("{key}={value}: want true or false"))),
        };
        match key {
            "type" => self.kind = Some(value.to_owned()),
            "dest" => self.dest = Some(value.to_owned()),
            "compression" => self.compression = Some(value.to_owned()),
            "compression-level" => self.level = Some(value.to_owned()),
            "force-compression" => {
                self.existing = Some(if boolean()? { ExistingBlobs::Recompressed } else { ExistingBlobs::Kept });
            }
            "oci-mediatypes" => self.flavour = Some(if boolean()? { Flavour::Oci } else { Flavour::Docker }),
            "oci-artifact" => self.artifact = boolean()?,
            "attestations" => {
                self.referrers = match value {
                    "index" => false,
                    "referrers" => true,
                    _ => return Err(wrong(format!("{key}={value}: want index or referrers"))),
                }
            }
            "name" => self.names = value.split(',').map(str::to_owned).collect(),
            "tar" => self.layout = !boolean()?,
            "rewrite-timestamp" => self.rewrite_timestamp = boolean()?,
            "platform-split" => self.split = if boolean()? { Split::Always } else { Split::Never },
            "push" => self.push = Some(boolean()?),
            "push-by-digest" => self.by_digest = boolean()?,
            "registry.insecure" => self.insecure = boolean()?,
            "store" => self.store = Some(boolean()?),
            // Layers are unpacked here in any case: that is how they were made.
            "unpack" => drop(boolean()?),
            "name-canonical" => self.canonical = boolean()?,
            "dangling-name-prefix" => {
                let name = value.parse::<ImageRef>().map_err(|error| wrong(format!("{key}: {error}")))?;
                if name.tag().is_some() || name.digest().is_some() {
                    return Err(wrong(format!("{key}={value}: a digest follows it: leave the tag out")));
                }
                self.dangling_prefix = Some(name);
            }
            "attestation-prefix" => {
                if value.contains('/') {
                    return Err(wrong(format!("{key}={value}: it begins the name of a file, and has no /")));
                }
                self.attestation_prefix = value.to_owned();
            }
            "mode" => {
                self.others = match value {
                    "copy" => OtherFiles::Kept,
                    "delete" => OtherFiles::Removed,
                    _ => return Err(wrong(format!("{key}={value}: want copy or delete"))),
                }
            }
            // Attestations are attached wherever they are made; only what they are beside can be chosen.
            "attestation-inline" => self.inline = boolean()?,
            "prefer-nondist-layers" if !boolean()? => {
                return Err(wrong(format!(
                    "{key}=false cannot be had: layers that must not be distributed stay what they are"
                )));
            }
            "prefer-nondist-layers" => {}
            "buildinfo" | "buildinfo-attrs" if boolean()? => {
                return Err(wrong(format!("{key} is no more, in BuildKit neither: use --provenance")));
            }
            "buildinfo" | "buildinfo-attrs" => {
                self.keys.push("buildinfo".to_owned());
                return Ok(());
            }
            "source-date-epoch" => {
                return Err(wrong(format!("{key} is for the whole build: --build-arg SOURCE_DATE_EPOCH={value}")));
            }
            other => match other.strip_prefix("annotation").and_then(|rest| rest.split_once('.')) {
                Some((place, name)) => {
                    let note = annotation_attribute(place, name, value);
                    self.annotations.push(note.map_err(|why| wrong(format!("{key}: {why}")))?);
                    self.keys.push("annotation".to_owned());
                    return Ok(());
                }
                None => return Err(wrong(format!("unknown attribute {other:?}"))),
            },
        }
        if key != "type" {
            self.keys.push(key.to_owned());
        }
        Ok(())
    }

    fn only(&self, known: &[&str], more: &[&str], wrong: &dyn Fn(String) -> Failure) -> Result<(), Failure> {
        match self.keys.iter().find(|key| !known.contains(&key.as_str()) && !more.contains(&key.as_str())) {
            Some(key) => Err(wrong(format!("{key} does not apply to this type"))),
            None => Ok(()),
        }
    }

    fn files(&self) -> FilesForm {
        FilesForm { split: self.split, attestation_prefix: self.attestation_prefix.clone(), others: self.others }
    }

    fn form(self, bare: bool, wrong: &dyn Fn(String) -> Failure) -> Result<ImageForm, Failure> {
        let compression = compression(self.compression.as_deref(), self.level.as_deref()).map_err(wrong)?;
        if self.inline && self.referrers {
            return Err(wrong("attestation-inline=true and attestations=referrers exclude each other".to_owned()));
        }
        let parse = |name: &String| name.parse::<ImageRef>().map(|name| if bare { name } else { name.tag_or_latest() });
        let names = self.names.iter().map(parse).collect::<Result<_, _>>().map_err(|error| wrong(error.to_string()))?;
        Ok(ImageForm {
            names,
            compression,
            existing: self.existing.unwrap_or(ExistingBlobs::Kept),
            flavour: self.flavour,
            annotations: self.annotations,
            rewrite_timestamp: self.rewrite_timestamp,
            attestations: match (self.referrers, self.artifact) {
                (true, _) => AttestAs::Referrer,
                (false, true) => AttestAs::IndexedArtifact,
                (false, false) => AttestAs::Index,
            },
        })
    }
}

/// `annotation[-TYPE][\[PLATFORM\]].KEY`: `place` is what stands between the word and the dot.
fn annotation_attribute(place: &str, key: &str, value: &str) -> Result<Annotation, String> {
    let (place, platform) = match place.split_once('[') {
        Some((place, rest)) => (place, Some(rest.strip_suffix(']').ok_or("a ] is missing")?)),
        None => (place, None),
    };
    let place = match place.strip_prefix('-') {
        None if place.is_empty() => AnnotationPlace::Manifest,
        Some(place) => {
            annotation_place(place).ok_or("known are manifest, manifest-descriptor, index and index-descriptor")?
        }
        None => return Err("it is not annotation.KEY or annotation-TYPE.KEY".to_owned()),
    };
    annotation(place, platform, key, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Compression;

    fn parse(text: &str) -> Result<Output, String> {
        let settings = Settings { cwd: "/w".into(), stdout_is_terminal: false, ..Settings::from_environment() };
        output(text, &settings, false).map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn images_take_buildx_attributes() {
        let Ok(Output::Image(image)) = parse(
            "type=image,\"name=r.example/a:1,r.example/b\",push=true,compression=zstd,compression-level=9,force-compression=true,oci-mediatypes=false,annotation.x=y,annotation-manifest[linux/arm64].z=w,store=false",
        ) else {
            panic!("it is an image")
        };
        assert_eq!((image.push, image.store, image.insecure), (Some(PushAs::Tags), false, false));
        assert_eq!(image.form.compression, Compression::Zstd(Some(9)));
        assert_eq!(image.form.flavour, Some(Flavour::Docker));
        assert_eq!(image.form.existing, ExistingBlobs::Recompressed);
        assert_eq!(
            image.form.names.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["r.example/a:1", "r.example/b:latest"]
        );
        assert_eq!(image.form.annotations[1].platform, Some("linux/arm64".parse().unwrap()));
        let Ok(Output::Image(image)) = parse("type=registry,name=r.example/a,push-by-digest=true") else { panic!() };
        assert_eq!(image.push, Some(PushAs::Digest));
        assert_eq!(image.form.names[0].tag(), None);
        let Ok(Output::Image(image)) = parse("type=registry,name=a,oci-artifact=true,attestations=referrers") else {
            panic!()
        };
        assert_eq!(image.form.attestations, AttestAs::Referrer);
        assert!(matches!(parse("type=docker"), Ok(Output::Docker(_))));
        assert!(matches!(parse("type=docker,dest=-"), Ok(Output::Archive(_))));
        let Ok(Output::Image(image)) = parse(
            "TYPE=image,name=a,PUSH=,name-canonical=T,dangling-name-prefix=x,unpack=true,attestation-inline=1,buildinfo=false",
        ) else {
            panic!()
        };
        assert_eq!((image.push, image.canonical), (Some(PushAs::Tags), true));
        assert_eq!(image.dangling.map(|name| name.to_string()).as_deref(), Some("x"));
    }

    #[test]
    fn files_have_places_and_what_was_there_a_fate() {
        let local = |text: &str| match parse(text) {
            Ok(Output::Local(path, form)) => (path.display().to_string(), form),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(local("type=local,dest=o,platform-split=false").1.split, Split::Never);
        assert_eq!(local("type=local,dest=o,attestation-prefix=a-").1.attestation_prefix, "a-");
        assert_eq!(local("type=local,dest=o,mode=copy").1.others, OtherFiles::Kept);
        assert_eq!(local("type=local,dest=o/p,mode=delete").1.others, OtherFiles::Removed);
        assert_eq!(local("out").0, "/w/out");
        assert_eq!(local("/x/a=b").0, "/x/a=b");
        for outside in [".", "..", "/x", "/w", "o/../..", "/"] {
            let error = parse(&format!("type=local,dest={outside},mode=delete")).unwrap_err();
            assert!(error.contains("not inside the working directory"), "{outside}: {error}");
        }
        let settings = Settings { cwd: "/w".into(), ..Settings::from_environment() };
        assert!(output("type=local,dest=/x,mode=delete", &settings, true).is_ok());
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        for (text, why) in [
            ("type=image,store=false", "leaves nothing"),
            ("type=image,dest=x", "dest does not apply"),
            ("type=tar,push=true", "push does not apply"),
            ("type=oci,oci-mediatypes=false,dest=x", "OCI's media types"),
            ("type=image,compression=estargz", "estargz cannot be written"),
            ("type=image,compression=lzma", "want gzip"),
            ("type=image,compression-level=10", "gzip has levels"),
            ("type=registry,name=a:1,push-by-digest=true", "can't push tagged ref"),
            ("type=image,annotation-index[linux/amd64].k=v", "for all platforms"),
            ("type=image,annotation-x.k=v", "known are manifest"),
            ("type=image,attestations=referrers", "for registries"),
            ("type=registry,attestations=beside", "want index or referrers"),
            ("type=oci,dest=x,attestations=referrers", "attestations does not apply"),
            ("type=image,push=maybe", "want true or false"),
            ("type=image,push", "is not KEY=VALUE"),
            ("type=image,buildinfo=true", "is no more, in BuildKit neither"),
            ("type=image,source-date-epoch=0", "for the whole build"),
            ("type=image,prefer-nondist-layers=false", "stay what they are"),
            ("type=image,dangling-name-prefix=a:1", "leave the tag out"),
            ("type=registry,name=a,store=false,name-canonical=true", "not with store=false"),
            ("type=registry,name=a,attestations=referrers,attestation-inline=true", "exclude each other"),
            ("type=oci,dest=x,name-canonical=true", "does not apply"),
            ("type=tar,dest=x,mode=delete", "does not apply"),
            ("type=local,dest=x,mode=move", "want copy or delete"),
            ("type=local,dest=x,attestation-prefix=a/b", "has no /"),
            ("type=squashfs", "unknown type"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn annotations_have_places() {
        let given =
            ["a=b", "index,manifest:k=v:w", "manifest-descriptor[linux/amd64]:d=", "org.x/y=1"].map(str::to_owned);
        let shown: Vec<String> = annotations(&given)
            .unwrap()
            .iter()
            .map(|note| {
                format!(
                    "{:?} {:?} {}={}",
                    note.place,
                    note.platform.as_ref().map(ToString::to_string),
                    note.key,
                    note.value
                )
            })
            .collect();
        insta::assert_debug_snapshot!(shown, @r#"
        [
            "Manifest None a=b",
            "Index None k=v:w",
            "Manifest None k=v:w",
            "ManifestDescriptor Some(\"linux/amd64\") d=",
            "Manifest None org.x/y=1",
        ]
        "#);
        for bad in ["a", "=b", "nowhere:a=b", "manifest[linux/amd64:a=b", "index[linux/amd64]:a=b"] {
            assert!(annotations(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
