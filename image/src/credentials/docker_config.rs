//! Docker's client configuration, `config.json`: reading credentials from it, and the edits of `login` and `logout`.
//!
//! Order, as Docker has it: the registry's own helper (`credHelpers`), else the common one (`credsStore`), else the
//! file itself (`auths`). Edits keep everything else in the file, replace it in one step, and leave it readable by its
//! owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::helper::Helper;
use super::{CredentialError, CredentialSource, Credentials, Secret, registry_of_key, server_key};

/// Larger files are refused.
const MAX_BYTES: u64 = 4 << 20;

/// A `config.json`; it need not exist.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    path: PathBuf,
    helpers: Vec<PathBuf>,
    helper_timeout: Duration,
}

/// Where `login` put a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptIn {
    /// In the file, only encoded: whoever reads it has the password.
    File(PathBuf),
    /// With a credential helper.
    Helper(String),
}

impl DockerConfig {
    /// The file at `path`; credential helpers are found where programs are.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), helpers: Vec::new(), helper_timeout: Duration::from_secs(60) }
    }

    /// Takes credential helpers from this directory, after those named before it, and from nowhere else.
    pub fn with_helpers_in(mut self, directory: impl Into<PathBuf>) -> Self {
        self.helpers.push(directory.into());
        self
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps credentials for a registry, where the file says that they are kept.
    pub fn login(&self, registry: &str, credentials: &Credentials) -> Result<KeptIn, CredentialError> {
        let mut file = self.read()?;
        let key = server_key(registry).to_owned();
        if let Some(name) = helper_for(&file, registry) {
            self.helper(&name)?.store(&key, credentials)?;
            // Docker lists the registry without secrets, so that `logout` and others know of it.
            let auths = section(&mut file, "auths");
            auths.retain(|other, _| registry_of_key(other) != registry);
            auths.insert(key, json!({}));
            self.write(&file)?;
            return Ok(KeptIn::Helper(name));
        }
        let auths = section(&mut file, "auths");
        auths.retain(|other, _| other == &key || registry_of_key(other) != registry);
        auths.insert(key, encode(credentials));
        self.write(&file)?;
        Ok(KeptIn::File(self.path.clone()))
    }

    /// Forgets the credentials for a registry; false when there were none in the file.
    pub fn logout(&self, registry: &str) -> Result<bool, CredentialError> {
        let mut file = self.read()?;
        if let Some(name) = helper_for(&file, registry) {
            self.helper(&name)?.erase(server_key(registry))?;
        }
        let Some(Value::Object(auths)) = file.get_mut("auths") else { return Ok(false) };
        let before = auths.len();
        auths.retain(|key, _| registry_of_key(key) != registry);
        if auths.len() == before {
            return Ok(false);
        }
        self.write(&file)?;
        Ok(true)
    }

    fn helper(&self, name: &str) -> Result<Helper, CredentialError> {
        Helper::new(name, &self.helpers, self.helper_timeout)
    }

    fn error(&self, action: &'static str) -> impl Fn(io::Error) -> CredentialError {
        let path = self.path.clone();
        move |source| CredentialError::File { action, path: path.clone(), source }
    }

    fn read(&self) -> Result<Map<String, Value>, CredentialError> {
        let format = |reason: &str| CredentialError::Format { path: self.path.clone(), reason: reason.to_owned() };
        let bytes = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
            Err(error) => return Err(self.error("read")(error)),
            Ok(metadata) if !metadata.is_file() => return Err(format("it is not a file")),
            Ok(metadata) if metadata.len() > MAX_BYTES => return Err(format("it is too large")),
            Ok(_) => fs::read(&self.path).map_err(self.error("read"))?,
        };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(_) => Err(format("it does not hold an object")),
            Err(error) => Err(format(&format!("line {}, column {}: not valid JSON", error.line(), error.column()))),
        }
    }

    /// Replaces the file in one step. A symbolic link stays one: what it leads to is replaced.
    fn write(&self, content: &Map<String, Value>) -> Result<(), CredentialError> {
        let fail = self.error("write");
        let mut target = self.path.clone();
        for _ in 0..40 {
            let Ok(link) = fs::read_link(&target) else { break };
            target = target.parent().unwrap_or(Path::new("")).join(link);
        }
        let directory = target.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(&fail)?;
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        content
            .serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))
            .expect("a JSON value is always JSON");
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| fail(io::Error::other(error.to_string())))?;
        let temporary = directory.join(format!(".config.json.{}", hex::encode(random)));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, &target)?;
            File::open(directory)?.sync_all()
        })();
        written.map_err(|error| {
            // After a successful rename there is no such file any more, and that is as well.
            drop(fs::remove_file(&temporary));
            fail(error)
        })
    }
}

impl CredentialSource for DockerConfig {
    fn get(&self, registry: &str) -> Result<Option<Credentials>, CredentialError> {
        let file = self.read()?;
        if let Some(name) = helper_for(&file, registry) {
            return self.helper(&name)?.get(server_key(registry));
        }
        let Some(Value::Object(auths)) = file.get("auths") else { return Ok(None) };
        let entry = auths
            .get(server_key(registry))
            .or_else(|| auths.iter().find(|(key, _)| registry_of_key(key) == registry).map(|(_, entry)| entry));
        let Some(entry) = entry else { return Ok(None) };
        decode(entry).map_err(|reason| CredentialError::Format {
            path: self.path.clone(),
            reason: format!("the entry for {registry}: {reason}"),
        })
    }
}

fn helper_for(file: &Map<String, Value>, registry: &str) -> Option<String> {
    let own = file
        .get("credHelpers")
        .and_then(Value::as_object)
        .and_then(|helpers| helpers.iter().find(|(key, _)| registry_of_key(key) == registry).map(|(_, name)| name));
    let name = own.or_else(|| file.get("credsStore"))?.as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn section<'a>(file: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let value = file.entry(name).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("made an object just now")
}

fn encode(credentials: &Credentials) -> Value {
    match credentials {
        Credentials::Password { username, password } => {
            json!({ "auth": STANDARD.encode(format!("{username}:{}", password.expose())) })
        }
        Credentials::Identity { username, token } => {
            json!({ "auth": STANDARD.encode(format!("{username}:")), "identitytoken": token.expose() })
        }
        Credentials::Registry { token } => json!({ "registrytoken": token.expose() }),
    }
}

fn decode(entry: &Value) -> Result<Option<Credentials>, &'static str> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (mut username, mut password) =
        (text("username").unwrap_or_default().to_owned(), text("password").map(Secret::new));
    if let Some(auth) = text("auth") {
        let bytes = STANDARD
            .decode(auth.trim())
            .or_else(|_| STANDARD_NO_PAD.decode(auth.trim()))
            .map_err(|_| "auth is not base64")?;
        let plain = String::from_utf8(bytes).map_err(|_| "auth is not text")?;
        let (user, secret) = plain.split_once(':').ok_or("auth has no colon")?;
        // Docker writes NUL bytes behind some passwords, and takes them off again.
        let secret = secret.trim_end_matches('\0');
        user.clone_into(&mut username);
        password = (!secret.is_empty()).then(|| Secret::new(secret));
    }
    if let Some(token) = text("registrytoken") {
        return Ok(Some(Credentials::Registry { token: Secret::new(token) }));
    }
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credentials::Identity { username, token: Secret::new(token) }));
    }
    Ok(password.map(|password| Credentials::Password { username, password }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn config(text: &str) -> (tempfile::TempDir, DockerConfig) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, text).unwrap();
        let config = DockerConfig::new(path).with_helpers_in(dir.path());
        (dir, config)
    }

    fn password(username: &str, password: &str) -> Credentials {
        Credentials::Password { username: username.into(), password: Secret::new(password) }
    }

    #[test]
    fn auths_are_found_by_any_spelling() {
        let (_dir, config) = config(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnc="},"http://localhost:5000/v1":{"auth":"dTpw"},
                "nul.example":{"auth":"dTpwAAA"},"plain.example":{"username":"u","password":"p"},
                "id.example":{"auth":"dTo=","identitytoken":"it"},"reg.example":{"registrytoken":"rt"},
                "empty.example":{},"bad.example":{"auth":"***"}}}"#,
        );
        let get = |registry: &str| config.get(registry).unwrap();
        assert_eq!(get("docker.io"), Some(password("u", "p:w")));
        assert_eq!(get("localhost:5000"), Some(password("u", "p")));
        assert_eq!(get("nul.example"), Some(password("u", "p")));
        assert_eq!(get("plain.example"), Some(password("u", "p")));
        let identity = Credentials::Identity { username: "u".into(), token: Secret::new("it") };
        assert_eq!(get("id.example"), Some(identity));
        assert_eq!(get("reg.example"), Some(Credentials::Registry { token: Secret::new("rt") }));
        assert_eq!((get("empty.example"), get("localhost")), (None, None));
        let error = config.get("bad.example").unwrap_err().to_string();
        assert!(error.contains("bad.example") && error.contains("base64"), "{error}");
    }

    #[test]
    fn a_missing_or_empty_file_has_no_credentials() {
        assert_eq!(DockerConfig::new("/nonexistent/config.json").get("x").unwrap(), None);
        assert_eq!(config("").1.get("x").unwrap(), None);
        let (_dir, broken) = config("{\"auths\": hunter2");
        let error = broken.get("x").unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn login_and_logout_keep_everything_else() {
        let (dir, config) = config(r#"{"zeta":1,"auths":{"a.example":{"auth":"dTpw"}},"HttpHeaders":{"X":"y"}}"#);
        assert!(matches!(config.login("docker.io", &password("me", "s3cret")).unwrap(), KeptIn::File(_)));
        assert_eq!(config.get("docker.io").unwrap(), Some(password("me", "s3cret")));
        let text = fs::read_to_string(config.path()).unwrap();
        assert!(text.starts_with("{\n\t\"zeta\": 1,\n\t\"auths\": {\n\t\t\"a.example\""), "{text}");
        assert!(text.contains("\"X\": \"y\"") && text.contains("https://index.docker.io/v1/"), "{text}");
        assert_eq!(fs::metadata(config.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(config.logout("docker.io").unwrap());
        assert!(!config.logout("docker.io").unwrap());
        assert_eq!(config.get("a.example").unwrap(), Some(password("u", "p")));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn login_makes_the_file_and_follows_links() {
        let dir = tempfile::tempdir().unwrap();
        let fresh = DockerConfig::new(dir.path().join("new/config.json"));
        fresh.login("r.example", &password("u", "p")).unwrap();
        assert_eq!(fresh.get("r.example").unwrap(), Some(password("u", "p")));
        let link = dir.path().join("link.json");
        symlink("new/config.json", &link).unwrap();
        DockerConfig::new(&link).login("s.example", &password("v", "q")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fresh.get("s.example").unwrap(), Some(password("v", "q")));
    }

    #[test]
    fn helpers_come_before_the_file() {
        let (dir, config) =
            config(r#"{"auths":{"r.example":{"auth":"dTpw"}},"credsStore":"all","credHelpers":{"own.example":"own"}}"#);
        for name in ["all", "own"] {
            let path = dir.path().join(format!("docker-credential-{name}"));
            let script = format!(
                "#!/bin/sh\ncase $1 in get) printf '{{\"Username\":\"{name}\",\"Secret\":\"s\"}}';; *) cat >> {0}/$1;; esac\n",
                dir.path().display()
            );
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(config.get("r.example").unwrap(), Some(password("all", "s")));
        assert_eq!(config.get("own.example").unwrap(), Some(password("own", "s")));
        assert_eq!(config.login("r.example", &password("u", "p2")).unwrap(), KeptIn::Helper("all".into()));
        let text = fs::read_to_string(config.path()).unwrap();
        assert!(!text.contains("dTpw") && text.contains("\"r.example\": {}"), "{text}");
        assert!(fs::read_to_string(dir.path().join("store")).unwrap().contains("p2"));
        assert!(config.logout("r.example").unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("erase")).unwrap(), "r.example");
    }
}
