//! Debian's packages: `status`, and the files of `status.d` that images without a package manager have.

use std::io;

use rbuild_cache::view::View;
use rbuild_image::ContainerPath;

use super::{Distribution, MAX_BYTES, Package, field, paragraphs};

const STATUS: &str = "/var/lib/dpkg/status";
const STATUS_DIRECTORY: &str = "/var/lib/dpkg/status.d";

pub(super) fn packages(view: &View, distribution: &Distribution) -> io::Result<Vec<Package>> {
    let mut files = vec![STATUS.to_owned()];
    let directory = ContainerPath::new(STATUS_DIRECTORY);
    if view.lstat(&directory)?.is_some_and(|stat| stat.kind.is_directory()) {
        for entry in view.list(&directory)? {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            if !name.ends_with(".md5sums") {
                files.push(format!("{STATUS_DIRECTORY}/{name}"));
            }
        }
    }
    let mut found = Vec::new();
    for file in files {
        if let Some(bytes) = view.read_regular(&file, MAX_BYTES)? {
            found.extend(parse(&String::from_utf8_lossy(&bytes), distribution, &file));
        }
    }
    Ok(found)
}

fn parse(text: &str, distribution: &Distribution, file: &str) -> Vec<Package> {
    let mut found = Vec::new();
    for paragraph in paragraphs(text) {
        let (name, version) = (field(&paragraph, "Package"), field(&paragraph, "Version"));
        let status = field(&paragraph, "Status");
        // Removed packages keep a line as long as their configuration is there.
        let installed = status.is_empty() || status.split(' ').next_back() == Some("installed");
        if name.is_empty() || version.is_empty() || !installed {
            continue;
        }
        // `Source: glibc (2.36-9)` where the source has another version.
        let source = field(&paragraph, "Source").split(' ').next().unwrap_or_default();
        found.push(Package {
            namespace: if distribution.id.is_empty() { "debian".to_owned() } else { distribution.id.clone() },
            qualifiers: vec![
                ("arch", field(&paragraph, "Architecture").to_owned()),
                ("distro", distribution.label()),
                ("upstream", source.to_owned()),
            ],
            supplier: field(&paragraph, "Maintainer").to_owned(),
            ..Package::new("deb", name, version, file)
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_are_listed() {
        let text = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc (2.36-9)\nVersion: 2.36-9\nMaintainer: GNU Libc Maintainers <x@example.org>\nDescription: libs\n more: text\n\n\
                    Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: half\nStatus: install ok half-installed\nVersion: 1\n";
        let distribution = Distribution { id: "debian".to_owned(), version: "12".to_owned() };
        let found = parse(text, &distribution, STATUS);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].url(), "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12&upstream=glibc");
        assert_eq!(found[0].supplier, "GNU Libc Maintainers <x@example.org>");
    }
}
