//! Merged indexes beside what a view of the same layers as directories shows.

use super::described::{Described, of_directory, of_index};
use super::layers::all_kinds;
use super::*;

/// The index over all `layers`, the lowest first, with the devices of the mount.
struct Stack {
    layers: Vec<Layer>,
    home: tempfile::TempDir,
    devices: Vec<PathBuf>,
}

impl Stack {
    fn of(tars: &[Vec<u8>], beneath: Beneath) -> Self {
        let layers: Vec<Layer> = tars.iter().map(|tar| Layer::of(tar).unwrap()).collect();
        Self::merged(layers, beneath)
    }

    fn merged(layers: Vec<Layer>, beneath: Beneath) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut devices = Vec::new();
        let parts: Vec<Part> = layers.iter().map(|layer| part(layer.index(), layer.devices(), &mut devices)).collect();
        let mut out = File::create_new(home.path().join("index")).unwrap();
        merge(&parts, beneath, &mut out).unwrap();
        Self { layers, home, devices }
    }

    fn read(&self) -> Described {
        let index = Index::open(File::open(self.home.path().join("index")).unwrap()).unwrap();
        of_index(&index, &self.devices)
    }

    fn mounted(&self) -> Described {
        of_directory(&Mounted::new(&self.home.path().join("index"), &self.devices).unwrap().path())
    }

    /// What overlayfs shows of the layers, each mounted by itself.
    fn overlaid(&self) -> Described {
        let mounts: Vec<Mounted> = self.layers.iter().map(Layer::mount).collect();
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        let empty = tempfile::tempdir().unwrap();
        for mount in mounts.iter().rev() {
            rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir+", mount.path()).unwrap();
        }
        rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir+", empty.path()).unwrap();
        rustix::mount::fsconfig_create(context.as_fd()).unwrap();
        let flags = MountAttrFlags::MOUNT_ATTR_RDONLY;
        let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).unwrap();
        without_opaque(of_directory(&Mounted(mount).path()))
    }
}

/// A part whose devices come behind those that are there.
fn part(index: Index, of: Vec<PathBuf>, devices: &mut Vec<PathBuf>) -> Part {
    let first = devices.len();
    devices.extend(of);
    Part { index, devices: (first..devices.len()).collect() }
}

fn without_opaque(described: Described) -> Described {
    described.into_iter().map(|(path, text)| (path, text.replace("trusted.overlay.opaque=y", ""))).collect()
}

/// Links that have lost a name still count it in a layer, not in what is merged.
fn without_counts(described: Described) -> Described {
    let count = |text: String| {
        let words: Vec<&str> = text.split(' ').filter(|word| !word.starts_with('x') || word.len() > 3).collect();
        words.join(" ")
    };
    described.into_iter().map(|(path, text)| (path, count(text))).collect()
}

fn layers() -> Vec<Vec<u8>> {
    let sparse = all_kinds();
    vec![
        archive(&[
            dir("/etc"),
            file("/etc/one", b"1"),
            file("/etc/two", b"2"),
            dir("/gone"),
            file("/gone/x", b"x"),
            dir("/opaque"),
            file("/opaque/old", b"old"),
            dir("/opaque/sub"),
            file("/opaque/sub/old", b"old"),
            file("/becomes-dir", b"f"),
            dir("/becomes-file"),
            file("/becomes-file/x", b"x"),
            file("/link-a", b"linked"),
            hard("/link-b", "/link-a"),
            hard("/link-c", "/link-a"),
            link("/sym", "etc"),
        ]),
        archive(&sparse),
        archive(&[
            dir("/etc"),
            file("/etc/.wh.one", b""),
            file("/etc/three", b"3"),
            file("/.wh.gone", b""),
            dir("/opaque"),
            file("/opaque/.wh..wh..opq", b""),
            file("/opaque/new", b"new"),
            dir("/becomes-dir"),
            file("/becomes-dir/x", b"x"),
            file("/becomes-file", b"f"),
            file("/link-b", b"own"),
        ]),
        archive(&[dir("/gone"), file("/gone/again", b"y"), file("/etc/two", b"two"), file("/.wh.never-was", b"")]),
    ]
}

#[test]
fn a_merged_index_shows_what_overlayfs_shows() {
    if !is_root("a_merged_index_shows_what_overlayfs_shows") {
        return;
    }
    let stack = Stack::of(&layers(), Beneath::Nothing);
    let merged = stack.read();
    assert_eq!(merged, stack.mounted());
    let overlaid = without_counts(stack.overlaid());
    let merged = without_counts(merged);
    for (path, text) in &overlaid {
        assert_eq!(Some(text), merged.get(path), "{path}");
    }
    assert_eq!(overlaid.len(), merged.len());
    for (path, there) in
        [("etc/one", false), ("etc/two", true), ("gone/x", false), ("gone/again", true), ("opaque/sub", false)]
    {
        assert_eq!(merged.contains_key(path), there, "{path}");
    }
    assert!(!merged.values().any(|text| text.starts_with("char 0:0") || text.contains("overlay")));
}

#[test]
fn part_of_a_chain_merges_and_still_hides_what_is_below() {
    if !is_root("part_of_a_chain_merges_and_still_hides_what_is_below") {
        return;
    }
    let tars = layers();
    let whole = Stack::of(&tars, Beneath::Nothing);
    let mut upper = Stack::of(&tars[1..], Beneath::Layers);
    // The upper part as one layer on the lowest one.
    let home = std::mem::replace(&mut upper.home, tempfile::tempdir().unwrap());
    let index = Index::open(File::open(home.path().join("index")).unwrap()).unwrap();
    let lowest = Layer::of(&tars[0]).unwrap();
    let mut out = File::create_new(home.path().join("both")).unwrap();
    let mut devices = Vec::new();
    let lowest = part(lowest.index(), lowest.devices(), &mut devices);
    let parts = [lowest, part(index, upper.devices.clone(), &mut devices)];
    merge(&parts, Beneath::Nothing, &mut out).unwrap();
    let both = Index::open(File::open(home.path().join("both")).unwrap()).unwrap();
    assert_eq!(of_index(&both, &devices), whole.read());
}

#[test]
fn many_layers_are_one_mount() {
    if !is_root("many_layers_are_one_mount") {
        return;
    }
    let tar = |n: u32| {
        let mut entries = vec![dir("/d"), file(&format!("/d/{n}"), &n.to_le_bytes()), file("/top", &n.to_le_bytes())];
        entries.extend((n > 0).then(|| file(&format!("/d/.wh.{}", n - 1), b"")));
        archive(&entries)
    };
    let stack = Stack::of(&(0..600).map(tar).collect::<Vec<_>>(), Beneath::Nothing);
    let shown = stack.mounted();
    assert_eq!(shown, stack.read());
    let names: Vec<_> = shown.keys().cloned().collect();
    assert_eq!(names, ["", "d", "d/599", "top"]);
    assert_eq!(stack.devices.len(), 600);
}
