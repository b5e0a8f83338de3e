//! What languages' package managers pinned or installed: lock files, and the metadata beside installed packages. A file
//! that is not what its name says lists nothing.

use serde_json::Value;

use super::{Package, field, maven, paragraphs};

/// Whether a path is one of the files that [`packages`] reads.
pub(super) fn is_known(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let beside = |suffix: &[u8]| path.ends_with(suffix);
    match name {
        b"package-lock.json"
        | b"npm-shrinkwrap.json"
        | b"yarn.lock"
        | b"Cargo.lock"
        | b"poetry.lock"
        | b"uv.lock"
        | b"pdm.lock"
        | b"Pipfile.lock"
        | b"pnpm-lock.yaml"
        | b"gradle.lockfile"
        | b"buildscript-gradle.lockfile"
        | b"pom.xml"
        | b"pom.properties"
        | b"go.sum"
        | b"composer.lock"
        | b"Gemfile.lock"
        | b"requirements.txt" => true,
        b"METADATA" => beside(b".dist-info/METADATA"),
        b"PKG-INFO" => beside(b".egg-info/PKG-INFO"),
        b"package.json" => is_installed(path),
        _ => false,
    }
}

/// `…/node_modules/NAME/package.json` or `…/node_modules/@SCOPE/NAME/package.json`.
fn is_installed(path: &[u8]) -> bool {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let from_end = |n: usize| parts.len().checked_sub(n).map(|at| parts[at]);
    from_end(3) == Some(b"node_modules")
        || (from_end(4) == Some(b"node_modules") && from_end(3).is_some_and(|scope| scope.starts_with(b"@")))
}

/// The packages that a file names.
pub(super) fn packages(path: &str, bytes: &[u8]) -> Vec<Package> {
    let text = String::from_utf8_lossy(bytes);
    let json = || serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let found = match path.rsplit('/').next().unwrap_or_default() {
        "package-lock.json" | "npm-shrinkwrap.json" => npm_lock(&json()),
        "package.json" => installed_npm(&json()),
        "composer.lock" => composer(&json()),
        "yarn.lock" => yarn(&text),
        "Cargo.lock" => toml_lock(&text, "cargo"),
        "poetry.lock" | "uv.lock" | "pdm.lock" => toml_lock(&text, "pypi"),
        "Pipfile.lock" => pipfile(&json()),
        "pnpm-lock.yaml" => pnpm(&text),
        "gradle.lockfile" | "buildscript-gradle.lockfile" => maven::gradle(&text),
        "pom.xml" => maven::pom(&text),
        "pom.properties" => maven::properties(&text),
        "go.sum" => go_sum(&text),
        "Gemfile.lock" => gems(&text),
        "requirements.txt" => requirements(&text),
        "METADATA" | "PKG-INFO" => python_metadata(&text),
        _ => Vec::new(),
    };
    found
        .into_iter()
        .filter(|(_, name, version, _)| !name.is_empty() && !version.is_empty())
        .map(|(kind, name, version, licence)| {
            let (namespace, name) = match name.rsplit_once('/') {
                Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
                None => (String::new(), name),
            };
            Package { namespace, licence, ..Package::new(kind, name, version, path) }
        })
        .collect()
}

/// Kind, name with namespace, version, licence.
pub(super) type Found = (&'static str, String, String, String);

fn text_of(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Versions 1 (`dependencies`, nested) and 2, 3 (`packages` by path).
fn npm_lock(lock: &Value) -> Vec<Found> {
    let mut found = Vec::new();
    if let Some(packages) = lock.get("packages").and_then(Value::as_object) {
        for (path, package) in packages.iter().filter(|(path, _)| !path.is_empty()) {
            let name = match text_of(package, "name") {
                name if name.is_empty() => path.rsplit("node_modules/").next().unwrap_or_default().to_owned(),
                name => name,
            };
            found.push(("npm", name, text_of(package, "version"), text_of(package, "license")));
        }
        return found;
    }
    let mut queue: Vec<&Value> = vec![lock];
    while let Some(level) = queue.pop() {
        for (name, package) in level.get("dependencies").and_then(Value::as_object).into_iter().flatten() {
            found.push(("npm", name.clone(), text_of(package, "version"), String::new()));
            queue.push(package);
        }
    }
    found
}

fn installed_npm(package: &Value) -> Vec<Found> {
    vec![("npm", text_of(package, "name"), text_of(package, "version"), text_of(package, "license"))]
}

fn composer(lock: &Value) -> Vec<Found> {
    let lists = ["packages", "packages-dev"].into_iter().filter_map(|key| lock.get(key)?.as_array());
    let one = |package: &Value| ("composer", text_of(package, "name"), text_of(package, "version"), String::new());
    lists.flatten().map(one).collect()
}

/// Entries begin with their names, `"@scope/name@^1", name@^1:`; `version "1.0.0"` or `version: 1.0.0` follows.
fn yarn(text: &str) -> Vec<Found> {
    let (mut found, mut name) = (Vec::new(), String::new());
    for line in text.lines() {
        if !line.starts_with([' ', '#']) && line.ends_with(':') {
            let first = line.trim_end_matches(':').split(',').next().unwrap_or_default().trim().trim_matches('"');
            let end = first.char_indices().skip(1).find(|(_, c)| *c == '@').map_or(first.len(), |(at, _)| at);
            first[..end].clone_into(&mut name);
        } else if let Some(version) = line.trim().strip_prefix("version") {
            let version = version.trim_start_matches(':').trim().trim_matches('"').to_owned();
            // `__metadata` is no package.
            if !name.starts_with("__") {
                found.push(("npm", std::mem::take(&mut name), version, String::new()));
            }
        }
    }
    found
}

/// Below `packages:` entries `/@scope/name/1.0.0_peers` (version 5), `/@scope/name@1.0.0(peers)` (6) or the same without
/// the first `/` (9).
fn pnpm(text: &str) -> Vec<Found> {
    let version = text.lines().find_map(|line| line.strip_prefix("lockfileVersion:"));
    let is_old = version.is_some_and(|version| version.trim().trim_matches(['\'', '"']).starts_with('5'));
    let inside = text.lines().skip_while(|line| *line != "packages:").skip(1);
    let entries = inside.take_while(|line| line.is_empty() || line.starts_with([' ', '#']));
    let one = |line: &str| {
        let key =
            line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?.split(": ").next()?.trim_end_matches(':');
        let key = key.trim_matches(['\'', '"']).trim_start_matches('/').split('(').next()?;
        let (name, version) = if is_old { key.rsplit_once('/')? } else { key.rsplit_once('@')? };
        let version = version.split('_').next()?;
        let fine = version.starts_with(|c: char| c.is_ascii_digit());
        fine.then(|| ("npm", name.to_owned(), version.to_owned(), String::new()))
    };
    entries.filter_map(one).collect()
}

/// Names with `"version": "==1.0"`.
fn pipfile(lock: &Value) -> Vec<Found> {
    let groups = ["default", "develop"].into_iter().filter_map(|key| lock.get(key)?.as_object());
    let one = |(name, package): (&String, &Value)| {
        let version = text_of(package, "version");
        ("pypi", name.to_lowercase(), version.trim_start_matches("==").to_owned(), String::new())
    };
    groups.flatten().map(one).collect()
}

/// `[[package]]` with `name` and `version`.
fn toml_lock(text: &str, kind: &'static str) -> Vec<Found> {
    let Ok(table) = text.parse::<toml::Table>() else { return Vec::new() };
    let packages = table.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let text = |package: &toml::Value, key: &str| {
        package.get(key).and_then(toml::Value::as_str).unwrap_or_default().to_owned()
    };
    packages.map(|package| (kind, text(package, "name"), text(package, "version"), String::new())).collect()
}

/// `module version hash`, twice for most modules.
fn go_sum(text: &str) -> Vec<Found> {
    let module = |line: &str| {
        let mut words = line.split_whitespace();
        let (module, version) = (words.next()?, words.next()?);
        (!version.ends_with("/go.mod")).then(|| ("golang", module.to_owned(), version.to_owned(), String::new()))
    };
    text.lines().filter_map(module).collect()
}

/// The `specs:` of a Bundler lock: four spaces, `name (version)`.
fn gems(text: &str) -> Vec<Found> {
    let gem = |line: &str| {
        let rest = line.strip_prefix("    ").filter(|rest| !rest.starts_with(' '))?;
        let (name, version) = rest.split_once(" (")?;
        Some(("gem", name.to_owned(), version.strip_suffix(')')?.to_owned(), String::new()))
    };
    text.lines().filter_map(gem).collect()
}

/// Only what is pinned: `name==version`.
fn requirements(text: &str) -> Vec<Found> {
    let pinned = |line: &str| {
        let line = line.split([';', '#']).next()?.trim();
        let (name, version) = line.split_once("==")?;
        let version = version.split_whitespace().next()?;
        let name = name.split('[').next()?.trim();
        (!version.contains('*')).then(|| ("pypi", name.to_lowercase(), version.to_owned(), String::new()))
    };
    text.lines().filter_map(pinned).collect()
}

fn python_metadata(text: &str) -> Vec<Found> {
    let Some(head) = paragraphs(text).next() else { return Vec::new() };
    let licence = field(&head, "License-Expression").to_owned();
    vec![("pypi", field(&head, "Name").to_lowercase(), field(&head, "Version").to_owned(), licence)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_files_name_packages() {
        let urls = |path: &str, text: &str| -> String {
            assert!(is_known(path.as_bytes()), "{path}");
            packages(path, text.as_bytes()).iter().map(Package::url).collect::<Vec<_>>().join(" ")
        };
        for (path, text, want) in [
            (
                "/a/package-lock.json",
                r#"{"packages": {"": {"name": "app", "version": "1.0.0"}, "node_modules/@s/b": {"version": "2.0.0"}, "node_modules/x/node_modules/c": {"version": "3.0.0"}}}"#,
                "pkg:npm/%40s/b@2.0.0 pkg:npm/c@3.0.0",
            ),
            (
                "/a/package-lock.json",
                r#"{"dependencies": {"a": {"version": "1.0.0", "dependencies": {"b": {"version": "2.0.0"}}}}}"#,
                "pkg:npm/a@1.0.0 pkg:npm/b@2.0.0",
            ),
            (
                "/a/node_modules/@s/b/package.json",
                r#"{"name": "@s/b", "version": "2.0.0", "license": "MIT"}"#,
                "pkg:npm/%40s/b@2.0.0",
            ),
            (
                "/a/yarn.lock",
                "# yarn lockfile v1\n\n\"@s/b@^1.0.0\", \"@s/b@^1.2.0\":\n  version \"1.2.3\"\n\nc@^1:\n  version \"1.0.0\"\n",
                "pkg:npm/%40s/b@1.2.3 pkg:npm/c@1.0.0",
            ),
            ("/a/yarn.lock", "__metadata:\n  version: 6\n\n\"c@npm:^1\":\n  version: 1.0.1\n", "pkg:npm/c@1.0.1"),
            (
                "/a/Cargo.lock",
                "version = 3\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\n",
                "pkg:cargo/serde@1.0.1",
            ),
            ("/a/poetry.lock", "[[package]]\nname = \"idna\"\nversion = \"3.4\"\n", "pkg:pypi/idna@3.4"),
            (
                "/a/go.sum",
                "golang.org/x/net v0.1.0 h1:x=\ngolang.org/x/net v0.1.0/go.mod h1:y=\n",
                "pkg:golang/golang.org/x/net@v0.1.0",
            ),
            ("/a/composer.lock", r#"{"packages": [{"name": "v/p", "version": "1.0"}]}"#, "pkg:composer/v/p@1.0"),
            ("/a/Gemfile.lock", "GEM\n  specs:\n    rack (2.0.1)\n      dep (>= 1)\n", "pkg:gem/rack@2.0.1"),
            ("/a/requirements.txt", "Flask==2.0 ; python_version > '3'\nx>=1\ny[z]==1.* \n", "pkg:pypi/flask@2.0"),
            (
                "/u/lib/Flask-2.0.dist-info/METADATA",
                "Metadata-Version: 2.1\nName: Flask\nVersion: 2.0\n\nVersion: no\n",
                "pkg:pypi/flask@2.0",
            ),
            (
                "/a/pnpm-lock.yaml",
                "lockfileVersion: '9.0'\n\nimporters:\n\n  .: {}\n\npackages:\n\n  '@s/b@1.0.0':\n    resolution: {integrity: x}\n\n  c_d@2.0.0(e@1):\n    engines: {node: '>=6'}\n\nsnapshots:\n\n  z@9.0.0: {}\n",
                "pkg:npm/%40s/b@1.0.0 pkg:npm/c_d@2.0.0",
            ),
            (
                "/a/pnpm-lock.yaml",
                "lockfileVersion: 5.4\npackages:\n\n  /@s/b/1.0.0_react@17.0.1:\n    dev: false\n  /c_d/2.0.0:\n    dev: true\n",
                "pkg:npm/%40s/b@1.0.0 pkg:npm/c_d@2.0.0",
            ),
            (
                "/a/pnpm-lock.yaml",
                "lockfileVersion: '6.0'\npackages:\n  /@s/b@1.0.0(p@2.0.0):\n    dev: false\n",
                "pkg:npm/%40s/b@1.0.0",
            ),
            (
                "/a/Pipfile.lock",
                r#"{"default": {"Flask": {"version": "==2.0"}}, "develop": {"x": {"git": "y"}}}"#,
                "pkg:pypi/flask@2.0",
            ),
            ("/a/pdm.lock", "[[package]]\nname = \"idna\"\nversion = \"3.4\"\n", "pkg:pypi/idna@3.4"),
            (
                "/a/gradle.lockfile",
                "# generated\norg.x:lib:1.0=compileClasspath\nempty=annotationProcessor\n",
                "pkg:maven/org.x/lib@1.0",
            ),
            (
                "/a/META-INF/maven/org.x/lib/pom.properties",
                "#x\nversion=1.0\ngroupId=org.x\nartifactId=lib\n",
                "pkg:maven/org.x/lib@1.0",
            ),
            ("/a/package-lock.json", "not json", ""),
        ] {
            assert_eq!(urls(path, text), want, "{path}");
        }
        for other in ["/a/package.json", "/a/METADATA", "/a/node_modules/x/lib/package.json", "/lock"] {
            assert!(!is_known(other.as_bytes()), "{other}");
        }
    }
}
