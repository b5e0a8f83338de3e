//! Volumes on a store of their own: names, first fill, users, removal.

use super::*;
use rbuild_cache::snapshot::{Content, Metadata};
use rbuild_cache::{OpenOptions, Store, SystemClock};
use std::os::unix::fs::MetadataExt;

struct Bench {
    _home: tempfile::TempDir,
    containers: Containers,
    lease: Lease,
}

fn bench() -> Bench {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
    let lease = store.lease("test").unwrap();
    Bench { _home: home, containers: Containers::new(store, Arc::new(SystemClock)), lease }
}

fn named(name: &str) -> NewVolume {
    NewVolume {
        name: name.parse().unwrap(),
        ownership: VolumeOwnership::Named,
        labels: BTreeMap::new(),
        options: VolumeOptions::default(),
        lifetime: Lifetime::Kept,
    }
}

impl Bench {
    /// An image with `/data` (mode 0770) holding a file, a second name of it, a directory and a symlink to the host.
    fn image(&self) -> Arc<View> {
        let snapshots = self.containers.store().snapshots();
        let active = snapshots.prepare(None, &self.lease).unwrap();
        let mut writer = active.writer().unwrap();
        let at = |path: &str| ContainerPath::new(path);
        let meta = |mode| Metadata { mode, ..Metadata::default() };
        writer.make_directories(&at("/data/sub"), &meta(0o755)).unwrap();
        writer.set_directory_metadata(&at("/data"), &meta(0o770)).unwrap();
        writer.file(&at("/data/file"), &meta(0o640), Content::Bytes(b"from the image")).unwrap();
        writer.hard_link(&at("/data/file"), &at("/data/sub/again")).unwrap();
        writer.symlink(&at("/data/link"), b"/etc/passwd", &meta(0o777)).unwrap();
        writer.symlink(&at("/way"), b"/data", &meta(0o777)).unwrap();
        writer.symlink(&at("/out"), b"/../../../etc", &meta(0o777)).unwrap();
        writer.finish().unwrap();
        drop(writer);
        active.commit(&self.lease).unwrap().view().unwrap()
    }

    fn seed(&self, path: &str) -> Seed {
        Seed { view: self.image(), path: ContainerPath::new(path) }
    }
}

#[test]
fn a_new_volume_takes_over_the_images_files_once() {
    let bench = bench();
    let volume = named("data");
    bench.containers.ensure_volume(&volume, Some(&bench.seed("/data")), &bench.lease).unwrap();
    let data = bench.containers.volume_data(&volume.name);
    assert_eq!(fs::read_to_string(data.join("sub/again")).unwrap(), "from the image");
    let (file, again) = (fs::metadata(data.join("file")).unwrap(), fs::metadata(data.join("sub/again")).unwrap());
    assert_eq!((file.ino(), file.mode() & 0o7777), (again.ino(), 0o640));
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o7777, 0o770);
    assert_eq!(fs::read_link(data.join("link")).unwrap(), std::path::Path::new("/etc/passwd"));

    fs::write(data.join("file"), "changed").unwrap();
    bench.containers.ensure_volume(&volume, Some(&bench.seed("/data")), &bench.lease).unwrap();
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "changed");
}

#[test]
fn an_empty_volume_is_filled_later() {
    let bench = bench();
    let volume = named("data");
    bench.containers.ensure_volume(&volume, None, &bench.lease).unwrap();
    let data = bench.containers.volume_data(&volume.name);
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    bench.containers.ensure_volume(&volume, Some(&bench.seed("/way")), &bench.lease).unwrap();
    assert_eq!(
        fs::read_to_string(data.join("file")).unwrap(),
        "from the image",
        "a symlink inside the image is followed"
    );
}

#[test]
fn nothing_of_the_host_gets_into_a_volume() {
    let bench = bench();
    for (name, path) in [("absent", "/nothing"), ("outside", "/out")] {
        let volume = named(name);
        bench.containers.ensure_volume(&volume, Some(&bench.seed(path)), &bench.lease).unwrap();
        assert_eq!(fs::read_dir(bench.containers.volume_data(&volume.name)).unwrap().count(), 0, "{path}");
    }
    let error =
        bench.containers.ensure_volume(&named("file"), Some(&bench.seed("/data/file")), &bench.lease).unwrap_err();
    assert!(matches!(error, VolumeError::Populate { source: PopulateError::NotADirectory { .. }, .. }), "{error}");
    assert!(error.to_string().ends_with(" cannot take over the image's files"), "{error}");
    assert_eq!(bench.containers.volume(&"file".parse().unwrap()).unwrap(), None, "nothing half-made");
}

#[test]
fn volumes_are_listed_and_removed() {
    let bench = bench();
    for name in ["bb", "aa"] {
        bench.containers.ensure_volume(&named(name), None, &bench.lease).unwrap();
    }
    let names: Vec<String> = bench.containers.volumes().unwrap().iter().map(|v| v.name.to_string()).collect();
    assert_eq!(names, ["aa", "bb"]);
    bench.containers.remove_volume(&"aa".parse().unwrap(), &bench.lease).unwrap();
    let error = bench.containers.remove_volume(&"aa".parse().unwrap(), &bench.lease).unwrap_err();
    assert_eq!(error.to_string(), "no such volume: aa");
    assert_eq!(bench.containers.volumes().unwrap().len(), 1);
}

#[test]
fn pruning_spares_named_volumes_unless_told_otherwise() {
    let bench = bench();
    let anonymous = NewVolume { ownership: VolumeOwnership::Anonymous, ..named("anonymous") };
    for volume in [&named("named"), &anonymous] {
        bench.containers.ensure_volume(volume, Some(&bench.seed("/data")), &bench.lease).unwrap();
    }
    let pruned = bench.containers.prune_volumes(PrunedVolumes::Anonymous, &|_| true, &bench.lease).unwrap();
    assert_eq!(pruned.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["anonymous"]);
    assert!(pruned[0].1 > 0);
    let pruned = bench.containers.prune_volumes(PrunedVolumes::All, &|_| true, &bench.lease).unwrap();
    assert_eq!(pruned.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["named"]);
    assert_eq!(bench.containers.volumes().unwrap(), []);
}

#[test]
fn errors_name_the_volume_and_its_users() {
    let name = || "data".parse::<VolumeName>().unwrap();
    let path = || ContainerPath::new("/data");
    let denied = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let users = ["a", "b"].map(|digit| digit.repeat(64).parse().unwrap()).to_vec();
    let errors: [Box<dyn std::error::Error>; 6] = [
        Box::new(VolumeError::NotFound { name: name() }),
        Box::new(VolumeError::InUse { name: name(), users }),
        Box::new(VolumeError::Populate { name: name(), source: PopulateError::Open(denied()) }),
        Box::new(PopulateError::NotADirectory { path: path() }),
        Box::new(PopulateError::Read { path: path(), source: denied() }),
        Box::new(PopulateError::Open(denied())),
    ];
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(words.join("\n"), @r"
    no such volume: data
    remove data: volume is in use - [aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb]
    volume data cannot take over the image's files
    /data is a file in the image, not a directory
    cannot read /data of the image
    cannot open the volume's directory
    ");
}
