//! containerd's `hosts.toml`, one in a directory for each host: further hosts to ask, in the file's order, with the
//! certificates and the trust that each has.

use std::path::Path;

use rbuild_image::credentials::Secret;
use rbuild_image::registry::{Access, ClientCertificate, Mirror, MirrorServes, Scheme, Told};
use toml::{Table, Value};

use super::{Registries, host_of};

/// The directory for hosts that have none of their own.
const DEFAULT: &str = "_default";

/// The host that a directory is named by: `r.example:5000`, or `r.example_5000_` where colons cannot be.
pub(super) fn host_name(directory: &str) -> String {
    let port = directory.strip_suffix('_').and_then(|rest| rest.rsplit_once('_'));
    match port {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => format!("{host}:{port}"),
        _ => directory.to_owned(),
    }
}

/// What a `hosts.toml` says of `name`; nothing when it is not one. Relative paths count from `directory`.
pub(super) fn hosts(name: &str, text: &str, directory: &Path) -> Option<Registries> {
    let file: Table = text.parse().ok()?;
    let mut found = Registries::default();
    if let Some(Value::Table(hosts)) = file.get("host") {
        for (location, settings) in hosts {
            if let Value::Table(settings) = settings {
                mirror(&mut found, name, location, settings, directory);
            }
        }
    }
    if name == DEFAULT {
        // It says where everything is asked for, whatever its name: not how each host is reached.
        let host = found.hosts.remove(DEFAULT).unwrap_or_default();
        let told = |mirror| Mirror { told: Told::Registry, ..mirror };
        found.default_mirrors = host.mirrors.into_iter().map(told).collect();
        return Some(found);
    }
    trust(&mut found, name, &file, directory);
    headers(&mut found, name, &file);
    if let Some(push) = pushes(name, &file) {
        found.host(name).push = Some(push);
    }
    if let Some(server) = file.get("server").and_then(Value::as_str) {
        match (is_same(host_of(server), name), server.starts_with("http://")) {
            (true, true) => found.host(name).scheme = Scheme::Http,
            (true, false) => {}
            (false, _) => found.mirror(name, server, MirrorServes::All),
        }
    }
    Some(found)
}

/// Whether a host is the registry itself.
fn is_same(host: &str, name: &str) -> bool {
    host == name || (name == "docker.io" && host == "registry-1.docker.io")
}

/// Whether `capabilities` have a word, which they do where nothing is said.
fn can(settings: &Table, word: &str) -> bool {
    let able = settings.get("capabilities").and_then(Value::as_array).filter(|able| !able.is_empty());
    let is_word = |one: &Value| one.as_str().is_some_and(|one| one.eq_ignore_ascii_case(word));
    able.is_none_or(|able| able.iter().any(is_word))
}

/// Whether the registry itself may be pushed to: by its entry among the hosts, or by what the file says of its server.
fn pushes(name: &str, file: &Table) -> Option<Access> {
    let hosts = file.get("host").and_then(Value::as_table).into_iter().flatten();
    let own = hosts.filter(|(location, _)| is_same(host_of(location), name)).filter_map(|(_, host)| host.as_table());
    let server = file.get("server").and_then(Value::as_str).filter(|server| is_same(host_of(server), name));
    let entries: Vec<&Table> = own.chain(server.map(|_| file)).collect();
    match entries.iter().any(|settings| can(settings, "push")) {
        _ if entries.iter().all(|settings| !settings.contains_key("capabilities")) => None,
        true => Some(Access::Allowed),
        false => Some(Access::Blocked),
    }
}

fn mirror(found: &mut Registries, name: &str, location: &str, settings: &Table, directory: &Path) {
    let own = host_of(location);
    if own != name {
        if !can(settings, "pull") {
            return;
        }
        let serves = if can(settings, "resolve") { MirrorServes::All } else { MirrorServes::Digests };
        let whole = settings.get("override_path").and_then(Value::as_bool).unwrap_or(false);
        let api = api_path(location, whole);
        let scheme = location.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
        let mirror = Mirror { api: (api != "/v2").then_some(api), ..Mirror::at(format!("{scheme}{own}"), serves) };
        found.host(name).mirrors.push(mirror);
    }
    trust(found, own, settings, directory);
    headers(found, own, settings);
}

/// Where the API of a host is: below its path, unless that is said to be the API's own (`override_path`).
fn api_path(location: &str, whole: bool) -> String {
    let path = location.split_once("://").map_or(location, |(_, rest)| rest);
    let path = path.split_once('/').map_or("", |(_, path)| path.trim_matches('/'));
    match path {
        "" if whole => String::new(),
        "" => "/v2".to_owned(),
        path if whole || path == "v2" || path.ends_with("/v2") => format!("/{path}"),
        path => format!("/{path}/v2"),
    }
}

/// `header`: texts, or lists of them.
fn headers(found: &mut Registries, name: &str, settings: &Table) {
    for (header, value) in settings.get("header").and_then(Value::as_table).into_iter().flatten() {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let texts = values.iter().filter_map(Value::as_str);
        let host = found.host(name);
        host.headers.extend(texts.map(|text| (header.clone(), Secret::new(text))));
    }
}

/// `ca`, `client` and `skip_verify`.
fn trust(found: &mut Registries, name: &str, settings: &Table, directory: &Path) {
    let path = |value: &Value| value.as_str().map(|path| directory.join(path));
    if settings.get("skip_verify").and_then(Value::as_bool) == Some(true) {
        found.distrust(name);
    }
    match settings.get("ca") {
        Some(Value::Array(files)) => found.host(name).ca_files.extend(files.iter().filter_map(path)),
        Some(file) => found.host(name).ca_files.extend(path(file)),
        None => {}
    }
    let client = match settings.get("client") {
        Some(Value::Array(pairs)) => pairs.first(),
        other => other,
    };
    let client = match client {
        // One file may hold both.
        Some(Value::String(file)) => Some((directory.join(file), directory.join(file))),
        Some(Value::Array(pair)) => match pair.as_slice() {
            [certificate, key] => path(certificate).zip(path(key)),
            _ => None,
        },
        _ => None,
    };
    if let Some((certificate, key)) = client {
        found.host(name).client_certificate = Some(ClientCertificate { certificate, key });
    }
}

#[cfg(test)]
mod tests {
    use rbuild_image::registry::Verify;

    use super::*;

    #[test]
    fn hosts_come_in_the_files_order() {
        let text = r#"
            server = "https://registry-1.docker.io"
            [host."https://z.example"]
              capabilities = ["pull", "resolve"]
              ca = "z.pem"
            [host."http://a.example:5000"]
              capabilities = ["pull"]
              skip_verify = true
            [host."https://push.example"]
              capabilities = ["push"]
            [host."https://p.example/sub"]
            [host."https://o.example/v2/hub"]
              override_path = true
              client = [["c.pem", "k.pem"]]
            [host."https://bare.example"]
              override_path = true
            [host."https://p.example/sub".header]
              x-team = "one"
              x-more = ["two", "three"]
            "#;
        let found = hosts("docker.io", text, Path::new("/d")).unwrap();
        let mirrors: Vec<_> = found.hosts["docker.io"]
            .mirrors
            .iter()
            .map(|m| (m.location.as_str(), m.api.as_deref(), m.serves))
            .collect();
        assert_eq!(
            mirrors,
            [
                ("https://z.example", None, MirrorServes::All),
                ("http://a.example:5000", None, MirrorServes::Digests),
                ("https://p.example", Some("/sub/v2"), MirrorServes::All),
                ("https://o.example", Some("/v2/hub"), MirrorServes::All),
                ("https://bare.example", Some(""), MirrorServes::All),
            ]
        );
        let headers: Vec<_> =
            found.hosts["p.example"].headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(headers, [("x-team", "one"), ("x-more", "two"), ("x-more", "three")]);
        assert_eq!(found.hosts["z.example"].ca_files, [Path::new("/d/z.pem")]);
        assert_eq!(found.hosts["a.example:5000"].verify, Verify::Nothing);
        assert_eq!(found.hosts["o.example"].client_certificate.as_ref().unwrap().key, Path::new("/d/k.pem"));
        let plain = hosts("r.example:5000", "server = \"http://r.example:5000\"\n", Path::new("/d")).unwrap();
        assert_eq!(plain.hosts["r.example:5000"].scheme, Scheme::Http);
    }

    #[test]
    fn a_registry_is_pushed_to_where_one_of_its_entries_can() {
        let (no, yes) = ("capabilities = ['pull', 'resolve']", "capabilities = ['Push']");
        let server = "server = 'https://r.example'";
        let own = "[host.'https://r.example']";
        for (text, want) in [
            ("[host.'https://m.example']\ncapabilities = ['pull']".to_owned(), None),
            (server.to_owned(), None),
            (format!("{server}\n{no}"), Some(Access::Blocked)),
            (format!("{server}\n{no}\n[host.'https://m.example']"), Some(Access::Blocked)),
            (format!("{server}\n{no}\n{own}\n{yes}"), Some(Access::Allowed)),
            (format!("{own}\n{no}"), Some(Access::Blocked)),
            (format!("{own}\ncapabilities = []"), Some(Access::Allowed)),
            (format!("{server}\n{own}\n{no}"), Some(Access::Allowed)),
            (format!("server = 'https://other.example'\n{no}"), None),
        ] {
            let found = hosts("r.example", &text, Path::new("/d")).unwrap();
            assert_eq!(found.hosts.get("r.example").and_then(|host| host.push), want, "{text}");
        }
        let hub = format!("server = 'https://registry-1.docker.io'\n{no}");
        let found = hosts("docker.io", &hub, Path::new("/d")).unwrap();
        assert_eq!(found.hosts["docker.io"].push, Some(Access::Blocked));
    }

    #[test]
    fn directories_name_hosts() {
        for (directory, host) in [
            ("docker.io", "docker.io"),
            ("r.example:5000", "r.example:5000"),
            ("r.example_5000_", "r.example:5000"),
            ("a_b_", "a_b_"),
        ] {
            assert_eq!(host_name(directory), host);
        }
    }

    #[test]
    fn the_default_is_whom_to_ask_first() {
        let text = "[host.'http://m.example:5000']\ncapabilities = ['pull', 'resolve']\nskip_verify = true\n";
        let found = hosts("_default", text, Path::new("/d")).unwrap();
        let [mirror] = found.default_mirrors.as_slice() else { panic!("{found:?}") };
        assert_eq!((mirror.location.as_str(), mirror.told), ("http://m.example:5000", Told::Registry));
        assert_eq!(found.hosts.keys().collect::<Vec<_>>(), ["m.example:5000"]);
    }
}
