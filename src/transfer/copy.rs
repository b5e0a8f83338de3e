//! `image copy`: an image from one place to another — registries, archives, the store — as it is: every platform, every
//! attestation, byte by byte, so that it keeps its digest. What the destination has already does not move, and between
//! repositories of one registry nothing does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::PathBuf;
use std::str::FromStr;

use rbuild_cache::{Lease, Store, wait_silently};
use rbuild_image::archive::{Archive, ArchiveImage, ArchiveInput, ArchiveLimits};
use rbuild_image::pull as registry;
use rbuild_image::registry::{Client, Silent};
use rbuild_image::{
    BlobSource, Descriptor, Digest, Document, ImageRef, MAX_INDEX_NESTING, MAX_MANIFEST_BYTES, Platform,
};

use super::Input;
use super::load::load_image;
use super::pull::{Attested, Watch, fetch_as};
use super::push::{Among, images_for, send, stored};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::image_names;
use crate::output::image::{Known, push_everywhere};
use crate::output::origins;
use crate::output::stage::{NOBODY, Ready};
use crate::output::{Leaving, Readers, export};
use crate::progress::Transfers;
use crate::request::{ArchiveFormat, Destination, PushAs};

/// Where an image is, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImagePlace {
    /// A registry: `docker://NAME`, or a name alone.
    Registry(ImageRef),
    /// rbuild's store: `store:NAME`.
    Store(ImageRef),
    /// A file or directory.
    File {
        /// What kind of.
        kind: FileKind,
        /// Where it is.
        path: PathBuf,
        /// Which of its images, or what the image is to be called.
        name: Option<String>,
    },
}

/// Kinds of files that hold images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// An OCI layout: `oci:DIRECTORY[:NAME]`.
    OciDirectory,
    /// One in a tar: `oci-archive:FILE[:NAME]`.
    OciArchive,
    /// What `docker load` reads: `docker-archive:FILE[:NAME]`.
    DockerArchive,
}

/// A text that names no place of an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no place of an image: {reason}")]
pub struct InvalidPlace {
    /// What was given.
    pub text: String,
    /// What is wrong.
    pub reason: String,
}

impl FromStr for ImagePlace {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        let wrong = |reason: String| InvalidPlace { text: text.to_owned(), reason };
        let name = |name: &str| name.parse::<ImageRef>().map_err(|error| wrong(error.to_string()));
        let kinds = [
            ("oci:", FileKind::OciDirectory),
            ("oci-archive:", FileKind::OciArchive),
            ("docker-archive:", FileKind::DockerArchive),
        ];
        if let Some((prefix, kind)) = kinds.into_iter().find(|(prefix, _)| text.starts_with(prefix)) {
            // A colon after the last slash of a path begins a name; names of docker archives have slashes themselves.
            let rest = &text[prefix.len()..];
            let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name.to_owned())));
            if path.is_empty() {
                return Err(wrong("the path is missing".to_owned()));
            }
            return Ok(Self::File { kind, path: path.into(), name: name.filter(|name| !name.is_empty()) });
        }
        let elsewhere = [
            ("docker-daemon:", "`docker save NAME | rbuild load` and `docker load` move images from and to Docker"),
            ("containers-storage:", "`podman save --format oci-archive` writes an oci-archive: that can be copied"),
            ("dir:", "name an OCI layout: oci:DIRECTORY"),
        ];
        if let Some((prefix, instead)) = elsewhere.into_iter().find(|(prefix, _)| text.starts_with(prefix)) {
            return Err(wrong(format!("{prefix} is not served; {instead}")));
        }
        match text.strip_prefix("store:") {
            Some(stored) => Ok(Self::Store(name(stored)?.tag_or_latest())),
            None => Ok(Self::Registry(name(text.strip_prefix("docker://").unwrap_or(text))?.tag_or_latest())),
        }
    }
}

/// What to copy.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// From where.
    pub from: ImagePlace,
    /// To where.
    pub to: ImagePlace,
    /// Only the image for this platform; all where none is said.
    pub platform: Option<Platform>,
}

/// Copies an image; gives the digest that it has.
pub fn copy(engine: &Engine, request: &CopyRequest, transfers: &Transfers) -> Result<Digest, Failure> {
    let store = engine.store()?;
    let lease = store.lease("image copy")?;
    if let ImagePlace::Store(name) = &request.to {
        return into_store(engine, &lease, request, name, transfers);
    }
    if let (ImagePlace::Store(from), ImagePlace::Registry(to)) = (&request.from, &request.to) {
        let images = images_for(store, &lease, from, request.platform.as_ref())?;
        let among = if request.platform.is_some() { Among::First } else { Among::All };
        let sent = send(engine, &lease, (images, among), to, &Watch::of(transfers))?.root().0.digest;
        drop(lease);
        origins::forget_fetched(engine)?;
        return Ok(sent);
    }
    let archive = open_archive(engine, &lease, &request.from)?;
    let prepared = |ready: Ready<'_>| -> Result<_, Failure> {
        let opened = open(engine, &lease, &request.from, archive.as_ref(), ready)?;
        let root = chosen(&opened, request.platform.as_ref())?;
        Ok((opened, root))
    };
    match &request.to {
        ImagePlace::Registry(name) => {
            let (opened, root) = prepared(NOBODY)?;
            let watch = Watch::of(transfers);
            let how = if name.digest().is_some() { PushAs::Digest } else { PushAs::Tags };
            if name.digest().is_some_and(|wanted| *wanted != root.0.digest) {
                return Err(Failure::new(format!("the image is {}, not {name}", root.0.digest))
                    .with_help("name the destination by a tag"));
            }
            let names = std::slice::from_ref(name);
            let known = Known { elsewhere: &opened.elsewhere, there: &BTreeSet::new() };
            push_everywhere(&engine.client()?, &root, &*opened.blobs, names, how, known, &watch)?;
            Ok(root.0.digest)
        }
        ImagePlace::File { kind, path, name } => {
            let named = |name: &String| name.parse::<ImageRef>().map(|name| name.tag_or_latest());
            let names: Vec<ImageRef> = name.iter().map(named).collect::<Result<_, _>>()?;
            let path = engine.settings().absolute(path);
            let (format, dest) = match kind {
                FileKind::OciDirectory => (ArchiveFormat::Oci, Destination::Directory(path)),
                FileKind::OciArchive => (ArchiveFormat::Oci, Destination::File(path)),
                FileKind::DockerArchive => (ArchiveFormat::Docker, Destination::File(path)),
            };
            let platform = request.platform.clone().unwrap_or_else(Platform::host);
            // What is packed goes into the archive, so only if all of it is wanted.
            let pack = |ready: Ready<'_>| prepared(if request.platform.is_some() { NOBODY } else { ready });
            let (_, root) = export(engine, (format, &dest, Readers::Anybody), pack, |(opened, root)| Leaving {
                images: vec![(root.0.clone(), names.clone())],
                platform: platform.clone(),
                blobs: &*opened.blobs,
            })?;
            Ok(root.0.digest)
        }
        ImagePlace::Store(_) => unreachable!("answered above"),
    }
}

fn into_store(
    engine: &Engine,
    lease: &Lease,
    request: &CopyRequest,
    name: &ImageRef,
    transfers: &Transfers,
) -> Result<Digest, Failure> {
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    match &request.from {
        ImagePlace::Store(from) => {
            let image = engine.store()?.images().acquire(&from.canonical(), Some(&platform), lease);
            let image = image.map_err(image_names::explain)?;
            engine.store()?.images().tag(name, &image.record.id).map_err(image_names::explain)?;
            Ok(image.record.manifest.map_or(image.record.id, |manifest| manifest.digest))
        }
        ImagePlace::Registry(from) => {
            let resolved = registry::resolve(&engine.client()?, from, &platform)?;
            let watch = Watch::of(transfers);
            let pulled = fetch_as(engine, lease, &resolved, std::slice::from_ref(name), Attested::Fetched, &watch)?;
            Ok(pulled.digest)
        }
        from @ ImagePlace::File { path, .. } => {
            let archive = open_archive(engine, lease, from)?.expect("a file is an archive");
            let image = pick(&archive, from)?;
            let input = Input::File(engine.settings().absolute(path));
            load_image(engine, lease, &input, &archive, image, std::slice::from_ref(name))?;
            Ok(image.root().0.digest)
        }
    }
}

/// An image that can be read.
struct Opened<'a> {
    root: (Descriptor, Vec<u8>),
    blobs: Box<dyn BlobSource + 'a>,
    /// Repositories that have its blobs.
    elsewhere: Vec<ImageRef>,
}

fn open<'a>(
    engine: &'a Engine,
    lease: &'a Lease,
    from: &ImagePlace,
    archive: Option<&'a Archive>,
    ready: Ready<'_>,
) -> Result<Opened<'a>, Failure> {
    let store = engine.store()?;
    match from {
        ImagePlace::Registry(name) => {
            let client = engine.client()?;
            let fetched = client.fetch_manifest(name)?;
            let mut remote =
                Remote { client, name: name.clone(), store, lease, known: BTreeMap::new(), documents: BTreeMap::new() };
            let root = (fetched.descriptor, fetched.bytes);
            remote.learn(root.0.clone(), root.1.clone(), 0)?;
            Ok(Opened { root, blobs: Box::new(remote), elsewhere: vec![name.clone()] })
        }
        ImagePlace::Store(name) => {
            let stored = stored(engine, lease, name, ready)?;
            let root = stored.root().clone();
            Ok(Opened { root, elsewhere: stored.elsewhere().to_vec(), blobs: Box::new(stored) })
        }
        ImagePlace::File { .. } => {
            let archive = archive.expect("a file was opened");
            let root = pick(archive, from)?.root().clone();
            Ok(Opened { root, blobs: Box::new(Borrowed(archive)), elsewhere: Vec::new() })
        }
    }
}

/// The root, or the manifest for one platform below it.
fn chosen(opened: &Opened<'_>, platform: Option<&Platform>) -> Result<(Descriptor, Vec<u8>), Failure> {
    let mut root = opened.root.clone();
    let Some(platform) = platform else { return Ok(root) };
    for _ in 0..=MAX_INDEX_NESTING {
        let Document::Index(index) = Document::parse(&root.1, Some(&root.0.media_type))? else { return Ok(root) };
        let child = index.select(platform).ok_or_else(|| {
            let known: Vec<String> = index.platforms().iter().map(ToString::to_string).collect();
            Failure::new(format!("no image for {platform}; there are {}", known.join(", ")))
        })?;
        let mut bytes = Vec::new();
        opened.blobs.open(&child.digest)?.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes)?;
        child.verify(&bytes)?;
        root = (child.clone(), bytes);
    }
    Err(Failure::new(format!("indexes are nested more than {MAX_INDEX_NESTING} deep")))
}

fn open_archive(engine: &Engine, lease: &Lease, from: &ImagePlace) -> Result<Option<Archive>, Failure> {
    let ImagePlace::File { path, .. } = from else { return Ok(None) };
    let path = engine.settings().absolute(path);
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::from_error(&format!("cannot read {}", path.display()), error)
    };
    let input = match File::open(&path) {
        Ok(file) if file.metadata()?.is_dir() => ArchiveInput::Directory(path.clone()),
        Ok(file) => ArchiveInput::File(file),
        Err(error) => return Err(failed(&error)),
    };
    let mut scratch = || {
        let path = lease.scratch_name("archive")?;
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    };
    Archive::open(input, &ArchiveLimits::default(), &mut scratch).map(Some).map_err(|error| failed(&error))
}

/// The image of an archive that a place names, or the only one.
fn pick<'a>(archive: &'a Archive, from: &ImagePlace) -> Result<&'a ArchiveImage, Failure> {
    let ImagePlace::File { path, name, .. } = from else { unreachable!("only files hold archives") };
    let images = archive.images();
    match (name, images) {
        (None, [only]) => Ok(only),
        (None, several) => Err(Failure::usage(
            format!("{} holds {} images", path.display(), several.len()),
            "name one of them behind a colon",
        )),
        (Some(name), images) => {
            let wanted = name.parse::<ImageRef>().ok().map(|name| name.tag_or_latest());
            let fits = |image: &&ArchiveImage| {
                image.label.as_deref() == Some(name)
                    || image.names.iter().any(|have| Some(have) == wanted.as_ref() || have.tag() == Some(name))
            };
            images.iter().find(fits).ok_or_else(|| Failure::new(format!("{} has no image {name}", path.display())))
        }
    }
}

struct Borrowed<'a>(&'a Archive);

impl BlobSource for Borrowed<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        self.0.open(digest)
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        self.0.size(digest)
    }
}

/// An image in a registry. Its documents are in memory; a blob is fetched into the store when its bytes are wanted,
/// verified and resumed like any other.
struct Remote<'a> {
    client: Client,
    name: ImageRef,
    store: &'a Store,
    lease: &'a Lease,
    known: BTreeMap<Digest, Descriptor>,
    documents: BTreeMap<Digest, Vec<u8>>,
}

impl Remote<'_> {
    /// Learns what a manifest or index names, depth first.
    fn learn(&mut self, descriptor: Descriptor, bytes: Vec<u8>, depth: usize) -> Result<(), Failure> {
        if depth > MAX_INDEX_NESTING {
            return Err(Failure::new(format!("indexes are nested more than {MAX_INDEX_NESTING} deep")));
        }
        match Document::parse(&bytes, Some(&descriptor.media_type))? {
            Document::Manifest(manifest) => {
                for blob in std::iter::once(manifest.config).chain(manifest.layers) {
                    self.known.insert(blob.digest, blob);
                }
            }
            Document::Index(index) => {
                for child in index.manifests {
                    let fetched = self.client.fetch_described(&self.name, &child)?;
                    self.learn(child, fetched.bytes, depth + 1)?;
                }
            }
        }
        self.documents.insert(descriptor.digest, bytes);
        self.known.insert(descriptor.digest, descriptor);
        Ok(())
    }

    fn described(&self, digest: &Digest) -> io::Result<&Descriptor> {
        self.known.get(digest).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl BlobSource for Remote<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        if let Some(bytes) = self.documents.get(digest) {
            return Ok(Box::new(Cursor::new(bytes.clone())));
        }
        let sink = self.store.blobs_for(self.lease, &wait_silently);
        self.client.fetch_blob(&self.name, self.described(digest)?, &sink, &Silent).map_err(io::Error::other)?;
        BlobSource::open(&self.store.blobs(), digest)
    }

    fn size(&self, digest: &Digest) -> io::Result<u64> {
        self.described(digest).map(|descriptor| descriptor.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_as_other_tools_name_them() {
        let file = |kind, path: &str, name: Option<&str>| ImagePlace::File {
            kind,
            path: path.into(),
            name: name.map(str::to_owned),
        };
        for (text, place) in [
            ("debian", ImagePlace::Registry("docker.io/library/debian:latest".parse().unwrap())),
            ("docker://r.example:5000/a:1", ImagePlace::Registry("r.example:5000/a:1".parse().unwrap())),
            ("store:app", ImagePlace::Store("app:latest".parse().unwrap())),
            ("oci:/d/layout", file(FileKind::OciDirectory, "/d/layout", None)),
            ("oci:out:v1", file(FileKind::OciDirectory, "out", Some("v1"))),
            ("oci-archive:a.tar", file(FileKind::OciArchive, "a.tar", None)),
            ("docker-archive:a.tar:r.example/a:1", file(FileKind::DockerArchive, "a.tar", Some("r.example/a:1"))),
        ] {
            assert_eq!(text.parse(), Ok(place), "{text}");
        }
        for (text, word) in [
            ("docker-daemon:app:1", "rbuild load"),
            ("containers-storage:app", "podman save"),
            ("dir:/tmp/x", "oci:DIRECTORY"),
        ] {
            let said = text.parse::<ImagePlace>().unwrap_err().to_string();
            assert!(said.contains("is not served") && said.contains(word), "{said}");
        }
        for bad in ["oci:", "store:", "docker://UPPER", "a b"] {
            assert!(bad.parse::<ImagePlace>().is_err(), "{bad}");
        }
    }
}
