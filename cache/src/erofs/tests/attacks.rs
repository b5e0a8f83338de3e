//! The layers of the attack kit, if it lies beside this checkout: each is refused, or mounts as it unpacks. Run by
//! `./dev attacks`.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use rbuild_image::layer::Decoder;

use super::layers::assert_same;
use super::*;
use crate::snapshot::directory_from_tar;

const KIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/attacks/make_layers.py");
/// Larger ones are bombs, which other tests measure.
const LARGEST: u64 = 64 << 20;

/// Every blob of the kit's images, uncompressed, with its case.
fn tars(cases: &Path) -> Vec<(String, Vec<u8>)> {
    let mut tars = Vec::new();
    for case in fs::read_dir(cases).unwrap() {
        let case = case.unwrap();
        let Ok(blobs) = fs::read_dir(case.path().join("oci/blobs/sha256")) else { continue };
        for blob in blobs {
            let mut tar = Vec::new();
            let Ok(decoder) = Decoder::new(File::open(blob.unwrap().path()).unwrap()) else { continue };
            if decoder.take(LARGEST).read_to_end(&mut tar).is_ok() && !tar.starts_with(b"{") {
                tars.push((case.file_name().into_string().unwrap(), tar));
            }
        }
    }
    tars
}

#[test]
#[ignore = "generates the attack kit's images and mounts their layers"]
fn the_attack_kits_layers_are_refused_or_mount_as_they_unpack() {
    if !Path::new(KIT).exists() || !is_root("the_attack_kits_layers_are_refused_or_mount_as_they_unpack") {
        println!("SKIPPED: no attack kit beside this checkout, or not root");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let made = Command::new("python3").arg(KIT).args(["--bomb-mb", "4", "--out"]).arg(home.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let tars = tars(home.path());
    assert!(tars.len() > 60, "{} layers", tars.len());
    let (mut same, mut refused) = (0, 0);
    for (case, tar) in tars {
        let place = tempfile::tempdir().unwrap();
        let unpacked = directory_from_tar(place.path(), &mut &tar[..]);
        match (Layer::of(&tar), unpacked) {
            (Ok(_), Ok(())) => {
                println!("{case}: compared");
                assert_same(&tar);
                same += 1;
            }
            (Err(error), Err(unpacked)) => {
                println!("{case}: {error:?}, {unpacked:?}");
                refused += 1;
            }
            // An index has no limit on the length of a path, a directory has Linux's.
            (Ok(_), Err(unpacked)) if format!("{unpacked:?}").contains("code: 36") => println!("{case}: {unpacked:?}"),
            (Ok(layer), Err(unpacked)) => panic!("{case}: {} inodes, but unpacking: {unpacked:?}", layer.info.inodes),
            // Such a layer is kept as a directory.
            (Err(IndexError::Unrepresentable { path, what }), Ok(())) => println!("{case}: {path} has {what}"),
            (Err(error), Ok(())) => panic!("{case}: it unpacks, but {error:?}"),
        }
    }
    println!("{same} the same, {refused} refused by both");
    assert!(same > 20 && refused > 10, "{same} the same, {refused} refused");
}
