//! `[registry."HOST"]`: how a registry is reached, in the words of BuildKit's `buildkitd.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild_image::registry::{ClearText, ClientCertificate, HostConfig, Mirror, MirrorServes, Scheme, Verify};
use toml::Value;

use super::{ConfigError, Section};
use crate::config::registries::certificates_in;

const KEYS: &[&str] = &["mirrors", "http", "insecure", "ca", "keypair", "tlsconfigdir"];

impl Section<'_> {
    /// The settings of all hosts below `[registry]`.
    pub(super) fn registries(&self) -> Result<BTreeMap<String, HostConfig>, ConfigError> {
        let mut hosts = BTreeMap::new();
        for name in self.table.keys() {
            let section = self.section(name)?.ok_or_else(|| self.wrong(name, "a table is wanted"))?;
            hosts.insert(name.clone(), section.registry()?);
        }
        Ok(hosts)
    }

    fn registry(&self) -> Result<HostConfig, ConfigError> {
        self.only(KEYS)?;
        let mut host = HostConfig::default();
        let http = self.flag(&["http"])?.unwrap_or(false);
        let insecure = self.flag(&["insecure"])?.unwrap_or(false);
        host.scheme = match (http, insecure) {
            (true, _) => Scheme::Http,
            (false, true) => Scheme::Either,
            (false, false) => Scheme::Default,
        };
        if http || insecure {
            host.clear_text = ClearText::Anything;
        }
        if insecure {
            host.verify = Verify::Nothing;
        }
        let mirror = |location: String| Mirror::at(location, MirrorServes::All);
        host.mirrors = self.texts("mirrors")?.into_iter().map(mirror).collect();
        for directory in self.texts("tlsconfigdir")? {
            let found = certificates_in(&self.beside(&directory));
            host.ca_files.extend(found.authorities);
            host.client_certificate = host.client_certificate.or(found.client);
        }
        host.ca_files.extend(self.texts("ca")?.iter().map(|path| self.beside(path)));
        if let Some(pair) = self.key_pair()? {
            host.client_certificate = Some(pair);
        }
        Ok(host)
    }

    /// The first of `[[…keypair]]`.
    fn key_pair(&self) -> Result<Option<ClientCertificate>, ConfigError> {
        let wrong = || self.wrong("keypair", "one table with key and cert is wanted");
        let pairs = match self.table.get("keypair") {
            None => return Ok(None),
            Some(Value::Array(pairs)) => pairs,
            Some(_) => return Err(wrong()),
        };
        let [Value::Table(table)] = pairs.as_slice() else { return Err(wrong()) };
        let pair = Section { path: self.path, name: self.full("keypair"), table };
        pair.only(&["key", "cert"])?;
        let text = |key: &str| table.get(key).and_then(Value::as_str).map(|path| self.beside(path));
        match (text("cert"), text("key")) {
            (Some(certificate), Some(key)) => Ok(Some(ClientCertificate { certificate, key })),
            _ => Err(wrong()),
        }
    }

    /// A list of texts; one text is a list, too.
    fn texts(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        let wrong = || self.wrong(key, "a list of texts is wanted");
        match self.table.get(key) {
            None => Ok(Vec::new()),
            Some(Value::String(one)) => Ok(vec![one.clone()]),
            Some(Value::Array(values)) => {
                values.iter().map(|value| value.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    /// A path; relative ones count from the file's directory.
    fn beside(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("/")).join(path)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::ConfigFile;
    use super::*;

    fn parse(text: &str) -> Result<BTreeMap<String, HostConfig>, String> {
        let file = ConfigFile::parse(Path::new("/etc/rbuild/config.toml"), text);
        file.map(|file| file.registries).map_err(|error| error.to_string())
    }

    #[test]
    fn registries_are_written_as_for_buildkit() {
        let hosts = parse(
            r#"
            [registry."docker.io"]
            mirrors = ["https://mirror.example", "cache.example:5000/hub"]
            [registry."plain.example:5000"]
            http = true
            [registry."10.0.0.1:5000"]
            insecure = true
            [registry."tls.example"]
            ca = ["ca.pem", "/abs/ca.pem"]
            [[registry."tls.example".keypair]]
            key = "key.pem"
            cert = "cert.pem"
            "#,
        )
        .unwrap();
        let locations: Vec<_> = hosts["docker.io"].mirrors.iter().map(|mirror| mirror.location.as_str()).collect();
        assert_eq!(locations, ["https://mirror.example", "cache.example:5000/hub"]);
        assert_eq!(hosts["plain.example:5000"].scheme, Scheme::Http);
        assert_eq!(hosts["plain.example:5000"].verify, Verify::Certificate);
        let insecure = &hosts["10.0.0.1:5000"];
        assert_eq!((insecure.scheme, insecure.verify), (Scheme::Either, Verify::Nothing));
        let tls = &hosts["tls.example"];
        assert_eq!(tls.ca_files, ["/etc/rbuild/ca.pem", "/abs/ca.pem"].map(PathBuf::from));
        assert_eq!(tls.client_certificate.as_ref().unwrap().key, Path::new("/etc/rbuild/key.pem"));
    }

    #[test]
    fn slips_are_errors() {
        let error = |text: &str| parse(text).unwrap_err();
        insta::assert_snapshot!([
            error("[registry.x]\nmirror = []\n"),
            error("[registry.x]\nmirrors = [1]\n"),
            error("[registry.x]\nhttp = \"yes\"\n"),
            error("[[registry.x.keypair]]\nkey = \"k\"\n"),
            error("[registry]\nx = 1\n"),
        ].join("\n"), @r"
        /etc/rbuild/config.toml: unknown key registry.x.mirror (did you mean mirrors?)
        /etc/rbuild/config.toml: registry.x.mirrors: a list of texts is wanted
        /etc/rbuild/config.toml: registry.x.http: true or false is wanted
        /etc/rbuild/config.toml: registry.x.keypair: one table with key and cert is wanted
        /etc/rbuild/config.toml: registry.x: a table is wanted
        ");
    }
}
