//! Archives written and read: round trips, agreement with other tools, and archives made to hurt.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test stops at once, and says aloud what it skips")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use proptest::prelude::*;
use rbuild_image::archive::{
    Archive, ArchiveError, ArchiveFormat, ArchiveInput, ArchiveLimits, Export, write_docker_tar, write_oci_archive,
    write_oci_directory,
};
use rbuild_image::layer::{DecodeLimits, EncodeOptions, Encoder, Entry, EntryKind, LayerWriter, TarReader, TarWriter};
use rbuild_image::{
    AssembleError, BlobSink, BlobSource, BlobWriter, Compression, ContainerPath, Descriptor, DescriptorMismatch,
    Digest, DocumentError, Flavour, Hashing, ImageConfig, LayerBlob, MediaType, MemoryBlobs, Platform, assemble,
    assemble_index, copy_blob,
};

/// Blobs in memory, verified when they are taken in.
#[derive(Default)]
struct Sink(std::sync::Arc<Mutex<BTreeMap<Digest, Vec<u8>>>>);

struct SinkWriter {
    sink: std::sync::Arc<Mutex<BTreeMap<Digest, Vec<u8>>>>,
    expected: Descriptor,
    bytes: Vec<u8>,
}

impl BlobSink for Sink {
    fn contains(&self, digest: &Digest) -> io::Result<bool> {
        Ok(self.0.lock().unwrap().contains_key(digest))
    }

    fn begin(&self, expected: &Descriptor) -> io::Result<Box<dyn BlobWriter>> {
        Ok(Box::new(SinkWriter { sink: self.0.clone(), expected: expected.clone(), bytes: Vec::new() }))
    }
}

impl Write for SinkWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.bytes.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for SinkWriter {
    fn resume_offset(&self) -> u64 {
        0
    }

    fn commit(self: Box<Self>) -> io::Result<()> {
        self.expected.verify(&self.bytes).map_err(io::Error::other)?;
        self.sink.lock().unwrap().insert(self.expected.digest, self.bytes);
        Ok(())
    }
}

/// An image of two layers with the given content, its blobs put into `blobs`.
fn image(
    blobs: &mut MemoryBlobs<'_>,
    text: &str,
    platform: &str,
    compression: Compression,
    flavour: Flavour,
) -> Descriptor {
    let mut layers = Vec::new();
    for (name, content) in [("/etc/base", "base"), ("/etc/text", text)] {
        let mut writer = LayerWriter::new(Vec::new());
        let directory = Entry::new(ContainerPath::new("/etc"), EntryKind::Directory, 0o755);
        writer.append(&directory, &mut io::empty()).unwrap();
        let file = Entry::new(ContainerPath::new(name), EntryKind::file(content.len() as u64), 0o644);
        writer.append(&file, &mut content.as_bytes()).unwrap();
        let (tar, summary) = writer.finish().unwrap();
        let mut encoder = Encoder::new(Hashing::new(Vec::new()), EncodeOptions::new(compression)).unwrap();
        encoder.write_all(&tar).unwrap();
        let (blob, digest, size) = encoder.finish().unwrap().finish();
        blobs.insert(blob);
        let media_type = MediaType::layer(flavour, compression).unwrap();
        layers.push(LayerBlob { descriptor: Descriptor::new(media_type, digest, size), diff_id: summary.diff_id });
    }
    let mut config = ImageConfig::new(&platform.parse().unwrap());
    config.config.cmd = Some(vec!["/bin/true".to_owned()]);
    config.config.labels.insert("text".to_owned(), text.to_owned());
    let image = assemble(&config, &layers, flavour, &BTreeMap::new()).unwrap();
    blobs.insert(image.config.1);
    blobs.insert(image.manifest.1);
    image.manifest.0
}

fn export(root: &Descriptor, names: &[&str]) -> Export {
    Export { root: root.clone(), names: names.iter().map(|name| name.parse().unwrap()).collect() }
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn open_with(input: ArchiveInput, limits: &ArchiveLimits) -> Result<Archive, ArchiveError> {
    Archive::open(input, limits, &mut tempfile::tempfile)
}

fn open(bytes: &[u8]) -> Result<Archive, ArchiveError> {
    open_with(ArchiveInput::Stream(Box::new(io::Cursor::new(bytes.to_vec()))), &ArchiveLimits::default())
}

/// Takes all blobs of all images in, as a load does.
fn load(archive: &Archive) -> io::Result<Sink> {
    let sink = Sink::default();
    for image in archive.images() {
        for blob in image.blobs() {
            copy_blob(&mut *archive.open(&blob.digest)?, &blob, &sink)?;
        }
    }
    Ok(sink)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        out.push_str(": ");
        out.push_str(&error.to_string());
        source = error.source();
    }
    out
}

#[test]
fn both_formats_survive_a_round_trip_from_file_stream_and_directory() {
    let mut blobs = MemoryBlobs::default();
    let one = image(&mut blobs, "one", "linux/amd64", Compression::Gzip, Flavour::Oci);
    let two = image(&mut blobs, "two", "linux/amd64", Compression::Zstd, Flavour::Oci);
    let exports = [export(&one, &["hello:0.1", "localhost:5000/a/b"]), export(&two, &[])];
    let oci = write_oci_archive(Vec::new(), &exports, &blobs).unwrap();
    let docker = write_docker_tar(Vec::new(), &exports, &amd64(), &blobs).unwrap();
    assert_eq!(oci, write_oci_archive(Vec::new(), &exports, &blobs).unwrap(), "equal images, equal archives");
    let directory = tempfile::tempdir().unwrap();
    write_oci_directory(directory.path(), &exports, &blobs, &Default::default()).unwrap();
    let file = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        ArchiveInput::File(file)
    };
    let mut gzip = Encoder::new(Vec::new(), EncodeOptions::new(Compression::Gzip)).unwrap();
    gzip.write_all(&docker).unwrap();
    let gzip = gzip.finish().unwrap();
    for input in [
        file(&oci),
        file(&docker),
        file(&gzip),
        ArchiveInput::Stream(Box::new(io::Cursor::new(oci.clone()))),
        ArchiveInput::Stream(Box::new(io::Cursor::new(gzip.clone()))),
        ArchiveInput::Directory(directory.path().to_owned()),
    ] {
        let shown = format!("{input:?}");
        let archive = open_with(input, &ArchiveLimits::default()).unwrap_or_else(|e| panic!("{shown}: {}", chain(&e)));
        assert_eq!(archive.format(), ArchiveFormat::OciLayout);
        let [first, second] = archive.images() else { panic!("{shown}") };
        let names: Vec<String> = first.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["hello:0.1", "localhost:5000/a/b:latest"]);
        assert!(second.names.is_empty() && second.label.is_none());
        assert_eq!((first.root().0.digest, second.root().0.digest), (one.digest, two.digest));
        let manifest = first.select(&amd64()).unwrap();
        assert_eq!(manifest.image_config.config.labels["text"], "one");
        assert_eq!(manifest.layers.len(), 2);
        let sink = load(&archive).unwrap();
        assert_eq!(sink.0.lock().unwrap().len(), 8, "two manifests, two configs, two layers each");
    }
}

#[test]
fn an_index_keeps_its_platforms_and_may_lack_some() {
    let mut blobs = MemoryBlobs::default();
    let amd = image(&mut blobs, "amd", "linux/amd64", Compression::Gzip, Flavour::Oci);
    let arm = image(&mut blobs, "arm", "linux/arm64", Compression::Gzip, Flavour::Oci);
    let (index, bytes) = assemble_index(vec![amd.clone(), arm.clone()], Flavour::Oci, &BTreeMap::new());
    blobs.insert(bytes);
    let exports = [export(&index, &["multi"])];
    let bytes = write_oci_archive(Vec::new(), &exports, &blobs).unwrap();
    let archive = open(&bytes).unwrap();
    let [image] = archive.images() else { panic!() };
    assert_eq!(image.root().0.digest, index.digest);
    assert_eq!(image.select(&"linux/arm64".parse().unwrap()).unwrap().manifest.0.digest, arm.digest);
    assert!(image.select(&"linux/s390x".parse().unwrap()).is_none());
    assert_eq!(load(&archive).unwrap().0.lock().unwrap().len(), 1 + 2 + 2 + 3);

    let without = |gone: &[&Descriptor]| {
        let names: Vec<String> = gone.iter().map(|d| format!("/blobs/sha256/{}", d.digest.hex())).collect();
        rewrite(&bytes, |path, content| (!names.contains(path)).then_some(content))
    };
    let archive = open(&without(&[&arm])).unwrap();
    assert_eq!(archive.images()[0].manifests.len(), 1, "docker leaves out what it does not have");
    assert!(matches!(open(&without(&[&arm, &amd])), Err(ArchiveError::MissingMember { .. })));

    let docker = write_docker_tar(Vec::new(), &exports, &"linux/arm64".parse().unwrap(), &blobs).unwrap();
    let legacy = open(&rewrite(&docker, |path, content| (path != "/oci-layout").then_some(content))).unwrap();
    assert_eq!(legacy.images()[0].manifests[0].platform.to_string(), "linux/arm64");
    let error = write_docker_tar(Vec::new(), &exports, &"linux/s390x".parse().unwrap(), &blobs).unwrap_err();
    assert!(matches!(error, ArchiveError::NoPlatform { .. }));
}

/// Writes an archive again with some members changed or left out.
fn rewrite(bytes: &[u8], mut change: impl FnMut(&String, Vec<u8>) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut reader = TarReader::new(bytes);
    let mut writer = TarWriter::new(Vec::new());
    while let Some(mut entry) = reader.next_entry().unwrap() {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        let Some(content) = change(&entry.path.to_string(), content) else { continue };
        if let EntryKind::File { size, .. } = &mut entry.kind {
            *size = content.len() as u64;
        }
        writer.append(&entry, &mut content.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

/// A docker archive as it was before OCI layouts: plain layer tars, the second of two equal ones a link.
fn legacy(manifest: &str) -> Vec<u8> {
    let mut layer = TarWriter::new(Vec::new());
    let entry = Entry::new(ContainerPath::new("/f"), EntryKind::file(1), 0o644);
    layer.append(&entry, &mut &b"x"[..]).unwrap();
    let layer = layer.finish().unwrap();
    let mut gzip = Encoder::new(Vec::new(), EncodeOptions::new(Compression::Gzip)).unwrap();
    gzip.write_all(&layer).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut xz = b"\xfd7zXZ\0".to_vec();
    xz.extend_from_slice(&[0; 20]);
    let diff_id = Digest::sha256(&layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["x"]}},"odd":1,"rootfs":{{"type":"layers","diff_ids":["{diff_id}","{diff_id}"]}}}}"#
    );
    let mut writer = TarWriter::new(Vec::new());
    for (name, content) in [
        ("/a/layer.tar", layer.as_slice()),
        ("/g/layer.tar", &gzip),
        ("/x/layer.tar", &xz),
        ("/wrong/layer.tar", b"not this"),
        ("/config.json", config.as_bytes()),
        ("/manifest.json", manifest.as_bytes()),
    ] {
        let entry = Entry::new(ContainerPath::new(name), EntryKind::file(content.len() as u64), 0o644);
        writer.append(&entry, &mut &content[..]).unwrap();
    }
    for (name, target) in [
        ("/b/layer.tar", "../a/layer.tar"),
        ("/loop1", "loop2"),
        ("/loop2", "loop1"),
        ("/out", "/etc/passwd"),
        ("/up", "../../../../etc/passwd"),
    ] {
        let kind = EntryKind::Symlink { target: target.into() };
        writer.append(&Entry::new(ContainerPath::new(name), kind, 0o777), &mut io::empty()).unwrap();
    }
    writer.append(&Entry::new(ContainerPath::new("/fifo"), EntryKind::Fifo, 0o644), &mut io::empty()).unwrap();
    writer.append(&Entry::new(ContainerPath::new("/dir"), EntryKind::Directory, 0o755), &mut io::empty()).unwrap();
    writer.finish().unwrap()
}

fn item(config: &str, names: &str, layers: &str) -> String {
    format!(r#"[{{"Config":"{config}","RepoTags":{names},"Layers":[{layers}]}}]"#)
}

#[test]
fn old_docker_archives_are_read_with_links_and_compressed_layers() {
    for layers in
        [r#""a/layer.tar","b/layer.tar""#, r#""a/layer.tar","g/layer.tar""#, r#""./a/layer.tar","a/layer.tar""#]
    {
        let archive = open(&legacy(&item("config.json", r#"["old:1","old"]"#, layers))).unwrap();
        assert_eq!(archive.format(), ArchiveFormat::DockerTar);
        let [image] = archive.images() else { panic!() };
        assert_eq!(image.names[1].to_string(), "old:latest");
        let manifest = &image.manifests[0];
        assert_eq!(manifest.config.0.media_type, MediaType::DockerConfig);
        assert!(String::from_utf8_lossy(&manifest.config.1).contains("odd"), "the image's id stays");
        assert_eq!(manifest.layers[0].descriptor.digest, *manifest.layers[0].diff_id.digest());
        load(&archive).unwrap();
    }
    let nameless = open(&legacy(&item("config.json", "null", r#""a/layer.tar","a/layer.tar""#))).unwrap();
    assert!(nameless.images()[0].names.is_empty());
    let wrong = open(&legacy(&item("config.json", "null", r#""a/layer.tar","wrong/layer.tar""#))).unwrap();
    assert!(load(&wrong).is_err(), "a layer that is not its diff id is found out when it is taken in");
}

#[test]
fn names_in_an_archive_lead_nowhere_else() {
    let a = r#""a/layer.tar","a/layer.tar""#;
    for (manifest, want) in [
        (
            item("config.json", "null", r#""a/layer.tar","/etc/passwd""#),
            r#"the archive names "/etc/passwd", but holds no such file"#,
        ),
        (item("config.json", "null", r#""a/layer.tar","../../etc/passwd""#), "not a regular file"),
        (item("config.json", "null", r#""a/layer.tar","out""#), "holds no such file"),
        (item("config.json", "null", r#""a/layer.tar","up""#), "holds no such file"),
        (item("config.json", "null", r#""a/layer.tar","loop1""#), "not a regular file"),
        (item("config.json", "null", r#""a/layer.tar","fifo""#), r#""fifo" in the archive is not a regular file"#),
        (item("config.json", "null", r#""a/layer.tar","dir""#), "not a regular file"),
        (item("config.json", "null", r#""a/layer.tar","""#), "not a regular file"),
        (item("config.json", "null", r#""a/layer.tar","a\u0000""#), "not a regular file"),
        (item("fifo", "null", a), "not a regular file"),
        (item("missing", "null", a), "holds no such file"),
        (item("manifest.json", "null", a), "invalid type"),
        (item("config.json", "null", r#""a/layer.tar""#), "the manifest has 1 layers, the configuration 2 diff ids"),
        (
            item("config.json", "null", r#""a/layer.tar","x/layer.tar""#),
            r#"layer "x/layer.tar" is compressed with Xz; only gzip and zstd are supported in images"#,
        ),
        (item("config.json", r#"["UPPER"]"#, a), r#"the archive names an image "UPPER": invalid reference format"#),
        (item("config.json", r#"["a:b:c"]"#, a), "invalid reference format"),
        (item("config.json", &format!(r#"["a@{}"]"#, Digest::sha256("x")), a), ": a tag has no digest"),
        (item("config.json", "null", a).replace("\"Layers\"", "\"Config\":\"x\",\"Layers\""), "duplicate key"),
        (item("config.json", "null", a) + "x", "trailing"),
        ("[]".to_owned(), "the archive holds no image"),
        ("{}".to_owned(), "invalid type"),
    ] {
        let error = chain(&open(&legacy(&manifest)).expect_err(&manifest));
        assert!(error.contains(want), "{manifest}: {error}");
    }
}

#[test]
fn what_others_write_as_a_name_is_a_name_or_a_label() {
    let mut blobs = MemoryBlobs::default();
    let root = image(&mut blobs, "one", "linux/amd64", Compression::Gzip, Flavour::Oci);
    let digest = Digest::sha256("x");
    for (label, name) in [
        ("1.0", None),
        ("latest", None),
        ("an odd: Label", None),
        ("hello:1.0", Some("hello:1.0")),
        ("quay.io/a/b", Some("quay.io/a/b:latest")),
        (&format!("a/b@{digest}"), None),
    ] {
        let mut root = root.clone();
        root.annotations.insert("org.opencontainers.image.ref.name".to_owned(), label.to_owned());
        let archive = open(&write_oci_archive(Vec::new(), &[export(&root, &[])], &blobs).unwrap()).unwrap();
        let image = &archive.images()[0];
        assert_eq!(image.names.first().map(ToString::to_string).as_deref(), name, "{label}");
        assert_eq!(image.label.as_deref(), name.is_none().then_some(label));
    }
}

#[test]
fn damaged_layouts_are_refused() {
    let mut blobs = MemoryBlobs::default();
    let root = image(&mut blobs, "one", "linux/amd64", Compression::Gzip, Flavour::Oci);
    let bytes = write_oci_archive(Vec::new(), &[export(&root, &["a"])], &blobs).unwrap();
    let manifest_name = format!("/blobs/sha256/{}", root.digest.hex());
    let with = |name: &str, change: &dyn Fn(Vec<u8>) -> Option<Vec<u8>>| {
        rewrite(&bytes, |path, content| if path == name { change(content) } else { Some(content) })
    };
    let replaced = |name: &str, from: &str, to: &str| {
        with(name, &|content| Some(String::from_utf8(content).unwrap().replacen(from, to, 1).into_bytes()))
    };
    let digest = root.digest.to_string();
    let index = "/index.json";
    for (archive, want) in [
        (replaced("/oci-layout", "1.0.0", "2.0.0"), r#"the OCI layout has version "2.0.0", only 1.0.0 is supported"#),
        (replaced("/oci-layout", "{", "["), "invalid \"oci-layout\""),
        (replaced(index, &digest, "sha256:../../../etc/passwd"), "invalid digest"),
        (replaced(index, &digest, &Digest::sha256("x").to_string()), "holds no such file"),
        (replaced(index, "\"manifests\"", "\"layers\":[],\"manifests\""), "both manifests and layers"),
        (replaced(index, "\"size\":", "\"size\":1"), "its descriptor says"),
        (replaced(index, "docker.io/library/a", "docker.io/library/A"), "must be lowercase"),
        (replaced(index, "image.manifest.v1", "image.index.v1"), "the document says"),
        (with(index, &|_| None), "holds no such file"),
        (with(&manifest_name, &|content| Some(content.iter().map(|b| b ^ 1).collect())), "has the digest"),
        (
            with(&manifest_name, &|mut content| {
                content.push(b' ');
                Some(content)
            }),
            "its descriptor says",
        ),
        (with(index, &|_| Some(vec![b' '; (4 << 20) + 1])), r#""index.json" has 4194305 bytes, the limit is 4194304"#),
        (
            with("/oci-layout", &|_| None),
            "neither an OCI layout nor a docker archive: it holds neither oci-layout nor manifest.json",
        ),
        (bytes[..bytes.len() / 2].to_vec(), "ends early"),
        (b"hello".to_vec(), "ends early"),
        (Vec::new(), "neither oci-layout nor manifest.json"),
    ] {
        let error = chain(&open(&archive).expect_err(want));
        assert!(error.contains(want), "{want}: {error}");
    }
    let twice = [&bytes[..bytes.len() - 1024], &bytes[..]].concat();
    let error = open(&twice).err().unwrap().to_string();
    assert!(error.starts_with("the archive holds \"") && error.ends_with("\" twice"), "{error}");
    let limits = ArchiveLimits { decode: DecodeLimits { output_bytes: 100, ratio: 1 }, ..ArchiveLimits::default() };
    let input = ArchiveInput::Stream(Box::new(io::Cursor::new(bytes.clone())));
    assert!(chain(&open_with(input, &limits).unwrap_err()).contains("output_bytes of 100"));
}

#[test]
fn indexes_may_not_be_nested_for_ever() {
    let mut blobs = MemoryBlobs::default();
    let mut root = image(&mut blobs, "one", "linux/amd64", Compression::Gzip, Flavour::Oci);
    for depth in 1..6 {
        let (index, bytes) = assemble_index(vec![root], Flavour::Oci, &BTreeMap::new());
        blobs.insert(bytes);
        root = index;
        let written = write_oci_archive(Vec::new(), &[export(&root, &["a"])], &blobs);
        assert_eq!(written.is_ok(), depth < 4, "{depth} indexes above the manifest");
        if let Ok(bytes) = written {
            assert_eq!(open(&bytes).unwrap().images()[0].indexes.len(), depth);
        }
    }
}

#[test]
fn links_in_an_unpacked_layout_are_not_followed() {
    let mut blobs = MemoryBlobs::default();
    let root = image(&mut blobs, "one", "linux/amd64", Compression::Gzip, Flavour::Oci);
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    write_oci_directory(&layout, &[export(&root, &["a"])], &blobs, &Default::default()).unwrap();
    assert!(open_with(ArchiveInput::Directory(layout.clone()), &ArchiveLimits::default()).is_ok());
    let again = write_oci_directory(&layout, &[export(&root, &["a"])], &blobs, &Default::default());
    assert!(again.is_err(), "nothing is written over");
    std::fs::rename(layout.join("index.json"), directory.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", layout.join("index.json")).unwrap();
    let error = open_with(ArchiveInput::Directory(layout.clone()), &ArchiveLimits::default()).unwrap_err();
    assert!(matches!(error, ArchiveError::NotRegular { .. }), "{error}");
    std::fs::remove_file(layout.join("index.json")).unwrap();
    std::fs::rename(directory.path().join("elsewhere"), layout.join("index.json")).unwrap();
    std::fs::rename(layout.join("blobs"), directory.path().join("blobs")).unwrap();
    std::os::unix::fs::symlink("../blobs", layout.join("blobs")).unwrap();
    let error = open_with(ArchiveInput::Directory(layout), &ArchiveLimits::default()).unwrap_err();
    assert!(matches!(error, ArchiveError::NotRegular { .. }), "{error}");
}

#[test]
fn a_damaged_store_makes_no_archive() {
    struct Lying<'a>(&'a MemoryBlobs<'a>, Digest);
    impl BlobSource for Lying<'_> {
        fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
            let mut bytes = Vec::new();
            self.0.open(digest)?.read_to_end(&mut bytes)?;
            if *digest == self.1 {
                bytes[5] ^= 1;
            }
            Ok(Box::new(io::Cursor::new(bytes)))
        }
        fn size(&self, digest: &Digest) -> io::Result<u64> {
            self.0.size(digest)
        }
    }
    let mut blobs = MemoryBlobs::default();
    let root = image(&mut blobs, "one", "linux/amd64", Compression::Gzip, Flavour::Oci);
    let exports = [export(&root, &["a"])];
    let archive = open(&write_oci_archive(Vec::new(), &exports, &blobs).unwrap()).unwrap();
    for blob in archive.images()[0].blobs() {
        let error = write_oci_archive(Vec::new(), &exports, &Lying(&blobs, blob.digest)).unwrap_err();
        assert!(matches!(error, ArchiveError::Mismatch(_)), "{error}");
    }
}

/// Runs a tool of the machine; `None`, said aloud, when it is not there.
fn tool(program: &str, args: &[&str], directory: &Path) -> Option<String> {
    match Command::new(program).args(args).current_dir(directory).output() {
        Ok(output) => {
            assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            eprintln!("SKIPPED: this check needs {program}, which did not start: {error}");
            None
        }
    }
}

#[test]
fn other_tools_read_what_was_written_and_what_they_write_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let mut blobs = MemoryBlobs::default();
    let oci = image(&mut blobs, "one", "linux/amd64", Compression::Gzip, Flavour::Oci);
    let docker = image(&mut blobs, "one", "linux/amd64", Compression::Gzip, Flavour::Docker);
    write_oci_archive(File::create(at.join("oci.tar")).unwrap(), &[export(&oci, &["hello:0.1"])], &blobs).unwrap();
    let out = File::create(at.join("docker.tar")).unwrap();
    write_docker_tar(out, &[export(&docker, &["hello:0.1"])], &amd64(), &blobs).unwrap();
    write_oci_directory(&at.join("layout"), &[export(&oci, &["hello:0.1"])], &blobs, &Default::default()).unwrap();

    if let Some(listing) = tool("tar", &["tf", "oci.tar"], at) {
        let names: Vec<&str> = listing.lines().collect();
        assert_eq!(names[..2], ["blobs/", "blobs/sha256/"]);
        assert_eq!(names[names.len() - 2..], ["index.json", "oci-layout"]);
    }
    if let Some(inspected) = tool("skopeo", &["inspect", "oci-archive:oci.tar:0.1"], at) {
        assert!(inspected.contains("\"text\": \"one\""), "{inspected}");
        let inspected = tool("skopeo", &["inspect", "docker-archive:docker.tar:hello:0.1"], at).unwrap();
        assert!(inspected.contains("\"text\": \"one\""), "{inspected}");
        let inspected = tool("skopeo", &["inspect", "--config", "oci:layout:0.1"], at).unwrap();
        assert!(inspected.contains("\"/bin/true\""), "{inspected}");
        for (from, to) in [
            ("oci-archive:oci.tar", "oci-archive:skopeo-oci.tar:hello:0.1"),
            ("oci-archive:oci.tar", "docker-archive:skopeo-docker.tar:hello:0.1"),
            ("oci-archive:oci.tar", "oci:skopeo-layout:hello:0.1"),
        ] {
            tool("skopeo", &["--insecure-policy", "copy", from, to], at).unwrap();
        }
        for (name, format) in [
            ("skopeo-oci.tar", ArchiveFormat::OciLayout),
            ("skopeo-docker.tar", ArchiveFormat::DockerTar),
            ("skopeo-layout", ArchiveFormat::OciLayout),
        ] {
            let path = at.join(name);
            let input = match path.is_dir() {
                true => ArchiveInput::Directory(path),
                false => ArchiveInput::File(File::open(path).unwrap()),
            };
            let archive =
                open_with(input, &ArchiveLimits::default()).unwrap_or_else(|e| panic!("{name}: {}", chain(&e)));
            assert_eq!(archive.format(), format, "{name}");
            assert_eq!(archive.images()[0].names[0].to_string(), "hello:0.1", "{name}");
            assert_eq!(archive.images()[0].manifests[0].image_config.config.labels["text"], "one");
            load(&archive).unwrap();
        }
    }
    if let Some(listing) = tool("umoci", &["ls", "--layout", "layout"], at) {
        assert_eq!(listing.trim(), "0.1");
        tool("umoci", &["unpack", "--rootless", "--image", "layout:0.1", "bundle"], at).unwrap();
        assert_eq!(std::fs::read(at.join("bundle/rootfs/etc/text")).unwrap(), b"one");
        assert_eq!(std::fs::read(at.join("bundle/rootfs/etc/base")).unwrap(), b"base");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn no_change_to_an_archive_makes_the_reader_panic(
        changes in proptest::collection::vec((0usize..1_000_000, 0u8..), 1..6),
        docker in proptest::bool::ANY,
        seal in proptest::bool::ANY,
    ) {
        let mut blobs = MemoryBlobs::default();
        let root = image(&mut blobs, "one", "linux/amd64", Compression::Gzip, Flavour::Oci);
        let mut bytes = if docker {
            legacy(&item("config.json", "null", r#""a/layer.tar","b/layer.tar""#))
        } else {
            write_oci_archive(Vec::new(), &[export(&root, &["a"])], &blobs).unwrap()
        };
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
            let start = at / 512 * 512;
            if seal && bytes[start + 257..start + 262] == *b"ustar" {
                let mut header = tar::Header::new_old();
                header.as_mut_bytes().copy_from_slice(&bytes[start..start + 512]);
                header.set_cksum();
                bytes[start..start + 512].copy_from_slice(header.as_bytes());
            }
        }
        if let Ok(archive) = open(&bytes) {
            drop(load(&archive));
        }
    }

    #[test]
    fn no_documents_make_the_reader_panic(manifest in "[\\[\\]{}\":,a-z0-9/. ]{0,60}", layers in "[\"a-z/.,]{0,30}") {
        drop(open(&legacy(&manifest)));
        drop(open(&legacy(&item("config.json", "null", &layers))));
    }
}

#[test]
fn what_no_archive_above_meets_has_words_too() {
    let digest = Digest::sha256("");
    let errors = [
        ArchiveError::Io { action: "read the archive".into(), source: io::ErrorKind::PermissionDenied.into() },
        ArchiveError::Document { digest, source: DocumentError::TooManyLayers { count: 1000 } },
        DescriptorMismatch::Size { digest, want: 1, got: 2 }.into(),
        ArchiveError::Nesting { digest, limit: 4 },
        ArchiveError::DigestAsTag { name: "a@sha256:00".into() },
        AssembleError::TooManyLayers { count: 1000 }.into(),
        ArchiveError::NoPlatform { digest, platform: amd64() },
        ArchiveError::DuplicateMember { name: "index.json".into() },
    ];
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(words.join("\n"), @r#"
    cannot read the archive
    invalid document sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    the archive is damaged
    index sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 is nested more than 4 deep
    the archive tags an image "a@sha256:00": a tag has no digest
    the image cannot be put together
    sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 has no image for linux/amd64
    the archive holds "index.json" twice
    "#);
}
