//! Alpine's packages: `/lib/apk/db/installed`, or below `/usr` where the directories are merged.

use std::io;

use rbuild_cache::view::View;

use super::{Distribution, MAX_BYTES, Package, field, paragraphs};

pub(super) fn packages(view: &View, distribution: &Distribution) -> io::Result<Vec<Package>> {
    for file in ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"] {
        if let Some(bytes) = view.read_regular(file, MAX_BYTES)? {
            return Ok(parse(&String::from_utf8_lossy(&bytes), distribution, file));
        }
    }
    Ok(Vec::new())
}

fn parse(text: &str, distribution: &Distribution, file: &str) -> Vec<Package> {
    let mut found = Vec::new();
    for paragraph in paragraphs(text) {
        let (name, version) = (field(&paragraph, "P"), field(&paragraph, "V"));
        if name.is_empty() || version.is_empty() {
            continue;
        }
        let origin = field(&paragraph, "o");
        found.push(Package {
            namespace: if distribution.id.is_empty() { "alpine".to_owned() } else { distribution.id.clone() },
            qualifiers: vec![
                ("arch", field(&paragraph, "A").to_owned()),
                ("distro", distribution.label()),
                ("upstream", if origin == name { String::new() } else { origin.to_owned() }),
            ],
            licence: field(&paragraph, "L").to_owned(),
            supplier: field(&paragraph, "m").to_owned(),
            ..Package::new("apk", name, version, file)
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_listed() {
        let text = "C:Q1x=\nP:musl-utils\nV:1.2.4-r2\nA:x86_64\nL:MIT AND BSD-2-Clause\no:musl\nm:N <n@example.org>\nF:sbin\nR:ldconfig\n\nP:musl\nV:1.2.4-r2\no:musl\n\n";
        let distribution = Distribution { id: "alpine".to_owned(), version: "3.18.4".to_owned() };
        let urls: Vec<String> = parse(text, &distribution, "f").iter().map(Package::url).collect();
        assert_eq!(
            urls,
            [
                "pkg:apk/alpine/musl-utils@1.2.4-r2?arch=x86_64&distro=alpine-3.18.4&upstream=musl",
                "pkg:apk/alpine/musl@1.2.4-r2?distro=alpine-3.18.4",
            ]
        );
    }
}
