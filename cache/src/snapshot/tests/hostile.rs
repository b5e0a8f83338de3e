//! Archives made to reach outside: whatever they say, nothing outside changes, and views and mounts agree.

use std::fs;

use super::{Bench, detailed, is_root, listing, mounted_listing};

/// An archive whose names are written as they are.
fn raw_archive(entries: &[(&[u8], tar::EntryType, &[u8], u64)]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (name, kind, target, uid) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target);
        header.set_entry_type(*kind);
        header.set_size(0);
        header.set_mode(0o4777);
        header.set_uid(*uid);
        header.set_gid(0);
        header.set_cksum();
        out.append(&header, std::io::empty()).unwrap();
    }
    out.into_inner().unwrap()
}

#[test]
fn hostile_archives_stay_inside() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    if !is_root("hostile_archives_stay_inside") {
        return;
    }
    for bench in Bench::each() {
        let outside = bench.home.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("victim"), "safe").unwrap();
        let before = detailed(&outside);
        let target = outside.as_os_str().as_encoded_bytes();
        let victim = [target, b"/victim"].concat();
        let climbing = [&b"../../../../../../../../../../.."[..], target].concat();
        let climbing_file = [&climbing[..], b"/pwned"].concat();
        let cases: &[(&str, Vec<Vec<u8>>)] = &[
            ("dotdot", vec![raw_archive(&[(&climbing_file, Regular, b"", 0)])]),
            ("dotdot directory", vec![raw_archive(&[(&climbing, Directory, b"", 7)])]),
            ("link then file", vec![raw_archive(&[(b"esc", Symlink, target, 0), (b"esc/pwned", Regular, b"", 0)])]),
            (
                "relative link then file",
                vec![raw_archive(&[(b"esc", Symlink, &climbing, 0), (b"esc/pwned", Regular, b"", 0)])],
            ),
            (
                "link below, file above",
                vec![raw_archive(&[(b"esc", Symlink, target, 0)]), raw_archive(&[(b"esc/pwned", Regular, b"", 0)])],
            ),
            (
                "link replaced by file",
                vec![raw_archive(&[(b"f", Symlink, &victim, 0)]), raw_archive(&[(b"f", Regular, b"", 7)])],
            ),
            ("link replaced by directory", vec![raw_archive(&[(b"d", Symlink, target, 0), (b"d", Directory, b"", 7)])]),
            (
                "link loop as parent",
                vec![raw_archive(&[(b"a", Symlink, b"b", 0), (b"b", Symlink, b"a", 0), (b"a/x", Regular, b"", 0)])],
            ),
            ("hard link outside", vec![raw_archive(&[(b"h", Link, &victim, 0)])]),
            ("hard link through link", vec![raw_archive(&[(b"d", Symlink, target, 0), (b"h", Link, b"d/victim", 0)])]),
            ("hard link to link", vec![raw_archive(&[(b"s", Symlink, &victim, 0), (b"h", Link, b"s", 7)])]),
            ("hard link to directory", vec![raw_archive(&[(b"d", Directory, b"", 0), (b"h", Link, b"d", 0)])]),
            ("hard link to itself", vec![raw_archive(&[(b"h", Link, b"h", 0)])]),
            (
                "type flips",
                vec![raw_archive(&[
                    (b"a", Regular, b"", 0),
                    (b"a", Directory, b"", 0),
                    (b"a/b", Regular, b"", 0),
                    (b"a", Symlink, target, 0),
                    (b"a/pwned", Regular, b"", 0),
                ])],
            ),
            ("whiteout of dotdot", vec![raw_archive(&[(b"init", Regular, b"", 0), (b"sub/.wh...", Regular, b"", 0)])]),
            (
                "whiteout through link",
                vec![raw_archive(&[(b"d", Symlink, target, 0)]), raw_archive(&[(b"d/.wh.victim", Regular, b"", 0)])],
            ),
            (
                "opaque through link",
                vec![raw_archive(&[(b"d", Symlink, target, 0)]), raw_archive(&[(b"d/.wh..wh..opq", Regular, b"", 0)])],
            ),
            (
                "whiteout as directory",
                vec![raw_archive(&[(b".wh.bin", Directory, b"", 0), (b".wh.bin/x", Regular, b"", 0)])],
            ),
            ("owner that means none", vec![raw_archive(&[(b"u", Regular, b"", 0xffff_ffff)])]),
            ("root as link", vec![raw_archive(&[(b"./", Symlink, target, 0)])]),
        ];
        let mut outcomes = String::new();
        for (name, layers) in cases {
            let mut top = None;
            let mut outcome = String::from("kept inside");
            for layer in layers {
                match bench.apply(top, layer) {
                    Ok(snapshot) => {
                        assert_eq!(listing(&snapshot.view().unwrap()), mounted_listing(&bench, &snapshot), "{name}");
                        top = Some(snapshot.id());
                    }
                    Err(error) => {
                        let cause =
                            std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                        outcome = format!("{error}{cause}");
                    }
                }
            }
            outcomes.push_str(&format!("{name}: {outcome}\n"));
            assert_eq!(detailed(&outside), before, "{name}");
        }
        let outcomes = outcomes.replace(&outside.display().to_string(), "OUTSIDE");
        insta::allow_duplicates! { insta::assert_snapshot!(outcomes, @r#"
    dotdot: kept inside
    dotdot directory: kept inside
    link then file: kept inside
    relative link then file: kept inside
    link below, file above: kept inside
    link replaced by file: kept inside
    link replaced by directory: kept inside
    link loop as parent: cannot resolve /a: Too many levels of symbolic links (os error 40)
    hard link outside: cannot hard-link OUTSIDE/victim: No such file or directory (os error 2)
    hard link through link: cannot hard-link OUTSIDE/victim: No such file or directory (os error 2)
    hard link to link: kept inside
    hard link to directory: cannot hard-link /d: Is a directory (os error 21)
    hard link to itself: cannot hard-link /h: No such file or directory (os error 2)
    type flips: kept inside
    whiteout of dotdot: invalid layer: invalid whiteout ".wh..."
    whiteout through link: kept inside
    opaque through link: kept inside
    whiteout as directory: invalid layer: /.wh.bin/x lies below a whiteout
    owner that means none: invalid layer: entry "u": its uid is not acceptable
    root as link: invalid layer: entry "./" names the root, but is no directory
    "#); }
    }
}
