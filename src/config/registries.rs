//! How registries are reached: our configuration file, then what other tools of this host know already — Docker's
//! `certs.d` and `daemon.json`, containerd's `hosts.toml`, the `registries.conf` of Podman and its kin.
//!
//! A host that our file names is reached as our file says; only certificates from elsewhere are added. For others the
//! first place that says something counts. Files of other tools that cannot be read, and what they say that has no
//! meaning here (short names), are left alone: they are not ours to judge.

mod containerd;
mod containers;
mod docker;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rbuild_image::registry::{
    ClearText, ClientCertificate, HostConfig, IpNetwork, Mirror, MirrorServes, RepositoryRule, Scheme, Verify,
};

/// The most bytes of a file that are read.
const MAX_BYTES: u64 = 4 << 20;

/// Where other tools keep what they know of registries. A place that does not exist says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFiles {
    /// Directories with one directory of certificates a host.
    pub certificates: Vec<PathBuf>,
    /// Docker's `daemon.json`.
    pub docker: Vec<PathBuf>,
    /// containerd's directories with one `hosts.toml` a host.
    pub containerd: Vec<PathBuf>,
    /// `registries.conf`, and directories of such files; the first of each kind that exists.
    pub containers: Vec<PathBuf>,
}

impl HostFiles {
    /// The usual places below `root`; the user's own come first.
    pub fn below(root: &Path, user_config: Option<&Path>) -> Self {
        let places = |names: &[&str]| {
            let own = user_config.into_iter().flat_map(|user| names.iter().map(|name| user.join(name)));
            own.chain(names.iter().map(|name| root.join("etc").join(name))).collect()
        };
        Self {
            certificates: places(&["docker/certs.d", "containers/certs.d"]),
            docker: places(&["docker/daemon.json"]),
            containerd: places(&["containerd/certs.d", "docker/certs.d"]),
            containers: places(&["containers/registries.conf", "containers/registries.conf.d"]),
        }
    }
}

/// What is known of registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    /// Settings by host.
    pub hosts: BTreeMap<String, HostConfig>,
    /// Asked first for content of registries that have no settings.
    pub default_mirrors: Vec<Mirror>,
    /// Where repositories are that are not asked for at their own registry.
    pub repositories: Vec<RepositoryRule>,
    /// Networks whose registries need not prove who they are.
    pub insecure_networks: Vec<IpNetwork>,
}

impl Registries {
    /// Puts `ours` and what the files of other tools say together.
    pub fn gather(ours: &BTreeMap<String, HostConfig>, files: &HostFiles) -> Self {
        let mut all = Self::default();
        for file in &files.docker {
            all.add(read(file).and_then(|text| docker::daemon(&text)).unwrap_or_default());
        }
        for directory in &files.containerd {
            for (host, path) in entries(directory) {
                let text = read(&path.join("hosts.toml"));
                all.add(
                    text.and_then(|text| containerd::hosts(&containerd::host_name(&host), &text, &path))
                        .unwrap_or_default(),
                );
            }
        }
        for file in &files.containers {
            let drop_ins = entries(file).into_iter().filter(|(name, _)| name.ends_with(".conf")).map(|(_, path)| path);
            for path in std::iter::once(file.clone()).chain(drop_ins) {
                all.add(read(&path).and_then(|text| containers::registries(&text)).unwrap_or_default());
            }
        }
        for (name, host) in ours {
            all.hosts.insert(name.clone(), host.clone());
            // What our file says of a host counts for all that it has.
            all.repositories.retain(|rule| host_of(&rule.prefix) != name);
        }
        for directory in &files.certificates {
            for (host, path) in entries(directory) {
                let found = certificates_in(&path);
                if found.authorities.is_empty() && found.client.is_none() {
                    continue;
                }
                let host = all.hosts.entry(host).or_default();
                host.ca_files.extend(found.authorities);
                host.client_certificate = host.client_certificate.take().or(found.client);
            }
        }
        all
    }

    /// Adds what one place says; what is known already stays.
    fn add(&mut self, other: Self) {
        for (name, found) in other.hosts {
            let host = self.hosts.entry(name).or_default();
            if host.scheme == Scheme::Default {
                host.scheme = found.scheme;
            }
            if found.verify == Verify::Nothing {
                host.verify = Verify::Nothing;
            }
            if found.clear_text == ClearText::Anything {
                host.clear_text = ClearText::Anything;
            }
            host.ca_files.extend(found.ca_files);
            host.client_certificate = host.client_certificate.take().or(found.client_certificate);
            if host.headers.is_empty() {
                host.headers = found.headers;
            }
            if host.mirrors.is_empty() {
                host.mirrors = found.mirrors;
            }
            host.push = host.push.or(found.push);
        }
        self.insecure_networks.extend(other.insecure_networks);
        if self.default_mirrors.is_empty() {
            self.default_mirrors = other.default_mirrors;
        }
        for rule in other.repositories {
            if !self.repositories.iter().any(|known| known.prefix == rule.prefix) {
                self.repositories.push(rule);
            }
        }
    }

    /// The settings of a host, to be filled in.
    fn host(&mut self, name: &str) -> &mut HostConfig {
        self.hosts.entry(name.to_owned()).or_default()
    }

    /// Says that a host may do without TLS and without a certificate that can be verified.
    fn distrust(&mut self, name: &str) {
        let host = self.host(name);
        (host.scheme, host.verify, host.clear_text) = (Scheme::Either, Verify::Nothing, ClearText::Anything);
    }

    /// Adds a mirror of a host.
    fn mirror(&mut self, name: &str, location: &str, serves: MirrorServes) {
        self.host(name).mirrors.push(Mirror::at(location, serves));
    }
}

/// The host of `[scheme://]host[:port][/path]`.
fn host_of(location: &str) -> &str {
    let rest = location.split_once("://").map_or(location, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// Certificates that a directory holds, as Docker names them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Certificates {
    /// `*.crt`: authorities.
    pub(crate) authorities: Vec<PathBuf>,
    /// `NAME.cert` with `NAME.key`: what we prove ourselves with; the first by name.
    pub(crate) client: Option<ClientCertificate>,
}

/// Looks for certificates in a directory.
pub(crate) fn certificates_in(directory: &Path) -> Certificates {
    let mut found = Certificates::default();
    for (_, path) in entries(directory) {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => found.authorities.push(path),
            Some("cert") if found.client.is_none() && path.with_extension("key").exists() => {
                found.client = Some(ClientCertificate { key: path.with_extension("key"), certificate: path });
            }
            _ => {}
        }
    }
    found
}

/// A directory's entries in order of their names; none where it cannot be read.
fn entries(directory: &Path) -> Vec<(String, PathBuf)> {
    let list = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let mut entries: Vec<(String, PathBuf)> =
        list.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect();
    entries.sort();
    entries
}

/// A file's text, if it has one.
fn read(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    if metadata.len() > MAX_BYTES {
        return None;
    }
    fs::read_to_string(path).map_err(|error| tracing::info!(path = %path.display(), %error, "not read")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn what_a_host_has_is_put_together() {
        let dir = tempfile::tempdir().unwrap();
        let (root, user) = (dir.path(), dir.path().join("home/.config"));
        write(root, "etc/docker/daemon.json", r#"{"insecure-registries": ["10.0.0.0/8", "old.example:5000"]}"#);
        write(root, "etc/docker/certs.d/tls.example:5000/ca.crt", "");
        write(root, "etc/docker/certs.d/tls.example:5000/me.cert", "");
        write(root, "etc/docker/certs.d/tls.example:5000/me.key", "");
        write(root, "etc/docker/certs.d/tls.example:5000/lonely.cert", "");
        write(root, "etc/containerd/certs.d/docker.io/hosts.toml", "[host.\"https://a.example\"]\n");
        write(
            root,
            "etc/containers/registries.conf.d/10.conf",
            "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"late.example\"\n",
        );
        write(
            root,
            "home/.config/containers/registries.conf",
            "[[registry]]\nlocation = \"own.example\"\ninsecure = true\n",
        );
        write(root, "etc/containers/registries.conf", "not toml [");
        let files = HostFiles::below(root, Some(&user));
        let all = Registries::gather(&BTreeMap::new(), &files);
        assert_eq!(all.insecure_networks, ["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(all.hosts["old.example:5000"].scheme, Scheme::Either);
        assert_eq!(all.hosts["own.example"].verify, Verify::Nothing);
        let tls = &all.hosts["tls.example:5000"];
        assert_eq!(tls.ca_files, [root.join("etc/docker/certs.d/tls.example:5000/ca.crt")]);
        assert!(tls.client_certificate.as_ref().unwrap().certificate.ends_with("me.cert"));
        let mirrors: Vec<_> = all.hosts["docker.io"].mirrors.iter().map(|mirror| &mirror.location).collect();
        assert_eq!(mirrors, ["https://a.example"]);

        // Our own word stands, also where it says less.
        let ours = BTreeMap::from([
            ("old.example:5000".to_owned(), HostConfig::default()),
            ("tls.example:5000".to_owned(), HostConfig::default()),
        ]);
        let all = Registries::gather(&ours, &files);
        assert_eq!(all.hosts["old.example:5000"], HostConfig::default());
        assert_eq!(all.hosts["tls.example:5000"].ca_files.len(), 1);
    }

    #[test]
    fn a_host_with_nothing_says_nothing() {
        let files = HostFiles::below(Path::new("/nonexistent"), None);
        assert_eq!(Registries::gather(&BTreeMap::new(), &files), Registries::default());
    }
}
