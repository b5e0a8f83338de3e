//! What the store's errors say, where no other test meets them.

use std::io::{self, ErrorKind};

use rbuild_image::layer::{TarError, TarWriteError};
use rbuild_image::{ContainerPath, DiffId, Digest};

use crate::builds::BuildId;
use crate::content::IngestError;
use crate::erofs::{IndexError, Unrepresentable};
use crate::id::{LayerId, SnapshotId};
use crate::images::ImageError;
use crate::lock::{Holder, LockError, LockName};
use crate::mount_cache::CacheMountError;
use crate::snapshot::{ApplyError, DiffError, SnapshotError, SnapshotterChoice};
use crate::store::OpenError;
use crate::verify::Problem;

fn denied() -> io::Error {
    ErrorKind::PermissionDenied.into()
}

fn path() -> ContainerPath {
    ContainerPath::new("/a/b")
}

fn diff_id(of: &str) -> DiffId {
    DiffId::new(Digest::sha256(of))
}

#[test]
fn stores_that_cannot_be_used() {
    let root = || "/s".into();
    let errors = [
        OpenError::Owner { root: root(), owner: 0, user: 1000 },
        OpenError::Network { root: root(), kind: "nfs" },
        OpenError::Foreign { root: root() },
    ];
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(words.join("\n"), @r"
    the store /s belongs to user 0, but this is user 1000: choose another one with --root
    /s is on nfs, where locks and shared memory do not hold: put the store on a local disk
    /s is neither empty nor a store: choose another directory
    ");
}

#[test]
fn names_that_are_none() {
    assert_eq!("12ab".parse::<BuildId>().unwrap_err().to_string(), r#""12ab" is not a build id: want 20 hex digits"#);
    assert_eq!(
        "zfs".parse::<SnapshotterChoice>().unwrap_err().to_string(),
        r#""zfs" is no way to keep layers: auto, erofs or directory is wanted"#
    );
}

#[test]
fn what_is_missing_in_use_or_not_what_it_should_be() {
    let (a, b) = (Digest::sha256("a"), Digest::sha256("b"));
    let holder =
        Holder { pid: 7, command: "rbuild build .".to_owned(), since: "2026-01-02T03:04:05Z".parse().unwrap() };
    let errors: [Box<dyn std::error::Error>; 7] = [
        Box::new(IngestError::Digest { want: a, got: b }),
        Box::new(ImageError::Ambiguous { text: "c".to_owned(), candidates: vec![a, b] }),
        Box::new(ImageError::Incomplete { id: a, what: "a layer".to_owned() }),
        Box::new(LockError::Stopped { name: LockName::blob(&a), holder: None }),
        Box::new(LockError::Stopped { name: LockName::layer(&diff_id("a")), holder: Some(holder) }),
        Box::new(CacheMountError::InUse { id: "/root/.cache".to_owned() }),
        Box::new(CacheMountError::TooMany { id: "/root/.cache".to_owned() }),
    ];
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(words.join("\n"), @r#"
    content does not match its digest: want sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb, got sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d
    c is the beginning of several image ids: ca978112ca1b, 3e23e8160039
    image ca978112ca1b needs a layer, which is not in the store
    stopped waiting for blob sha256:ca978112ca1b
    stopped waiting for layer sha256:ca978112ca1b, held by pid 7 (rbuild build .), since 2026-01-02T03:04:05Z
    cache mount "/root/.cache" is in use
    cache mount "/root/.cache" has 1000 instances in use
    "#);
}

#[test]
fn layers_that_cannot_be_had() {
    let id = SnapshotId::from_row(7);
    let errors = [
        SnapshotError::Missing { id },
        SnapshotError::UnknownKind { id, kind: "zfs".to_owned() },
        SnapshotError::Diff { id, source: DiffError::Read(denied()) },
        SnapshotError::Reread { path: "/s/layers/7".into(), source: DiffError::Read(denied()) },
        SnapshotError::NotReproducible { id, expected: diff_id("a") },
        SnapshotError::NoErofs { source: denied() },
        SnapshotError::Merge { source: IndexError::Read(denied()) },
        SnapshotError::TooManyLayers { id, layers: 600, most: 500 },
        ApplyError::from(TarError::Truncated { offset: 0 }).into(),
        ApplyError::Read(denied()).into(),
        ApplyError::BelowWhiteout { path: path() }.into(),
        ApplyError::Owner { path: path() }.into(),
        ApplyError::WrongDigest { expected: diff_id("a"), found: diff_id("b") }.into(),
    ];
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(words.join("\n"), @r#"
    there is no snapshot 7 in the store
    snapshot 7 is of the unknown kind "zfs": a newer rbuild made it
    cannot read the layer of snapshot 7
    cannot read the layer at /s/layers/7
    the layer of snapshot 7 came as sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb and cannot be written as that again: pull its image again
    layers cannot be kept as tars here: the kernel mounts no erofs from files (that needs Linux 6.12 with CONFIG_EROFS_FS_BACKED_BY_FILE, and root outside of user namespaces); --snapshotter auto does without
    cannot merge the indexes of a chain of layers
    snapshot 7 has 600 layers that are directories, and overlayfs mounts at most 500 of them: build with --snapshotter erofs, or with fewer steps
    invalid layer
    cannot read the layer
    invalid layer: /a/b lies below a whiteout
    invalid layer: /a/b belongs to user or group 4294967295
    the layer's content has digest sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d, but the image says sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb
    "#);
}

#[test]
fn layers_that_cannot_be_written_or_indexed() {
    let has = |what| IndexError::Unrepresentable { path: path(), what };
    let errors: [Box<dyn std::error::Error>; 16] = [
        Box::new(DiffError::Read(denied())),
        Box::new(DiffError::from(TarWriteError::Short { path: "/a".to_owned(), want: 2, got: 1 })),
        Box::new(DiffError::Output(denied())),
        Box::new(IndexError::BelowWhiteout { path: path() }),
        Box::new(IndexError::Place { action: "create directory", path: path(), source: denied() }),
        Box::new(has(Unrepresentable::Name)),
        Box::new(has(Unrepresentable::LinkTarget)),
        Box::new(has(Unrepresentable::Owner)),
        Box::new(has(Unrepresentable::Device)),
        Box::new(has(Unrepresentable::Xattr)),
        Box::new(has(Unrepresentable::Xattrs)),
        Box::new(has(Unrepresentable::Content)),
        Box::new(has(Unrepresentable::Sparse)),
        Box::new(IndexError::TooLarge { what: "members", limit: 1000 }),
        Box::new(IndexError::Read(denied())),
        Box::new(IndexError::Write(denied())),
    ];
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(words.join("\n"), @r#"
    cannot read the layer's files
    "/a" has 1 bytes where 2 were expected; was it changed meanwhile?
    cannot write the layer
    invalid layer: /a/b lies below a whiteout
    cannot create directory /a/b
    invalid layer: /a/b has a name of more than 255 bytes
    invalid layer: /a/b has a link target of more than 4095 bytes, or none
    invalid layer: /a/b has the owner or group 4294967295
    invalid layer: /a/b has a device number that Linux does not have
    invalid layer: /a/b has an extended attribute that is too long
    invalid layer: /a/b has too many extended attributes
    invalid layer: /a/b has content that lies beyond what an index can address
    invalid layer: /a/b has a sparse map that is too large
    the layer has more than 1000 members
    cannot read the layer
    cannot write the layer's index
    "#);
}

#[test]
fn problems_that_verify_finds() {
    let (layer, digest) = (LayerId::from_row(7), Digest::sha256("a"));
    let (want, got) = (diff_id("a"), diff_id("b"));
    let problems = [
        Problem::Database { detail: "row 5 missing from index".to_owned() },
        Problem::BlobMissing { digest },
        Problem::BlobSize { digest, want: 10, got: 9 },
        Problem::BlobContent { digest, got: Digest::sha256("b") },
        Problem::LayerMissing { layer, path: "/s/layers/7".into() },
        Problem::LayerContent { layer, want, got },
        Problem::LayerFiles { layer, diff_id: want },
        Problem::LayerIndex { layer },
        Problem::MergedIndex { snapshot: SnapshotId::from_row(9), layers: 3 },
        Problem::LayerUnreadable { layer, detail: "input/output error".to_owned() },
        Problem::ImageLayer { id: digest, want, got },
        Problem::MountMissing { id: "/root/.cache".to_owned(), path: "/s/mounts/1".into() },
    ];
    let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(words.join("\n"), @r#"
    database: row 5 missing from index
    blob sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb is missing
    blob sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb has 9 bytes instead of 10
    blob sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb now has the digest sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d
    layer 7 is missing at /s/layers/7
    layer 7 now gives sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d instead of sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb
    layer 7 no longer has the files that it came with as sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb
    the index of layer 7 is damaged
    the merged index of snapshot 9 over 3 layers is damaged
    layer 7 cannot be read: input/output error
    image ca978112ca1b names layer sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb where its snapshot has sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d
    cache mount "/root/.cache" is missing at /s/mounts/1
    "#);
}
