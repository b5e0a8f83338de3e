//! Where the Docker daemon is, and a connection to it: `DOCKER_HOST`, else the context that Docker's client uses, else
//! the usual socket.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rbuild_image::Digest;
use rbuild_image::registry::{ClientCertificate, HostConfig, TlsOver, TrustRoots, Verify};
use serde::Deserialize;

use crate::cli::report::Failure;
use crate::config::Settings;

/// Where the daemon listens when nothing else is said.
const SOCKET: &str = "/var/run/docker.sock";
/// How long the daemon may be silent while it takes an image in.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Bytes to and from a daemon.
pub(super) trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DockerHost {
    /// A socket of this machine.
    Socket(PathBuf),
    /// A port, with or without TLS.
    Port {
        /// Name or address.
        host: String,
        /// The port.
        port: u16,
        /// The certificates, where TLS is spoken.
        tls: Option<Certificates>,
    },
}

/// How both ends prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificates {
    /// Has `ca.pem`, `cert.pem` and `key.pem`; each may be missing.
    pub(super) directory: PathBuf,
    /// Whether the daemon must prove who it is.
    pub(super) verify: Verify,
}

impl DockerHost {
    /// The daemon that settings mean.
    pub(super) fn find(settings: &Settings) -> Result<Self, Failure> {
        let config = settings.docker_config.as_deref();
        if let Some(host) = &settings.docker_host {
            let docker = &settings.docker_tls;
            let tls = (docker.wanted || docker.verify).then(|| Certificates {
                directory: docker.certificates.clone().or_else(|| config.map(Path::to_owned)).unwrap_or_default(),
                verify: if docker.verify { Verify::Certificate } else { Verify::Nothing },
            });
            return parse(host, tls, &format!("DOCKER_HOST={host}"));
        }
        let context = settings.docker_context.clone().or_else(|| current_context(config?));
        match (context.as_deref(), config) {
            (None | Some("" | "default"), _) => Ok(Self::Socket(PathBuf::from(SOCKET))),
            (Some(name), Some(config)) => of_context(name, config),
            (Some(name), None) => Err(unknown(name)),
        }
    }

    /// Connects.
    #[expect(
        clippy::disallowed_methods,
        reason = "a daemon's name is looked up as Docker's client does: by the system"
    )]
    pub(super) fn connect(&self) -> io::Result<Box<dyn Wire>> {
        match self {
            Self::Socket(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Box::new(stream))
            }
            Self::Port { host, port, tls } => {
                let mut last = io::Error::from(io::ErrorKind::NotFound);
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, CONNECT) {
                        Ok(stream) => return talk(stream, host, tls.as_ref()),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    /// How messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Port { host, port, .. } => format!("{host}:{port}"),
        }
    }
}

fn talk(stream: TcpStream, host: &str, tls: Option<&Certificates>) -> io::Result<Box<dyn Wire>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let file = |name: &str| Some(tls.directory.join(name)).filter(|path| path.exists());
    let client_certificate = match (file("cert.pem"), file("key.pem")) {
        (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
        _ => None,
    };
    let settings = HostConfig { verify: tls.verify, client_certificate, ..HostConfig::default() };
    // As Docker's client has it, an authority of its own is the only one.
    let trust = TrustRoots { file: file("ca.pem"), ..TrustRoots::default() };
    Ok(Box::new(TlsOver::connect(stream, host, &settings, trust)?))
}

/// Reads `unix://PATH` and `tcp://HOST[:PORT]`.
fn parse(host: &str, tls: Option<Certificates>, said: &str) -> Result<DockerHost, Failure> {
    let refused = |why: &str| {
        Failure::new(format!("--load: {said}: {why}"))
            .with_help("write an archive instead, and give it to that daemon: rbuild build -o type=docker,dest=- … | ssh HOST docker load")
    };
    match host.split_once("://") {
        Some(("unix", path)) => Ok(DockerHost::Socket(PathBuf::from(path))),
        Some(("tcp", rest)) => {
            let authority = rest.split('/').next().unwrap_or_default();
            let (name, port) = match authority.rsplit_once(':') {
                Some((name, port)) if !port.ends_with(']') => {
                    (name, port.parse().map_err(|_| refused("the port is not a number"))?)
                }
                _ => (authority, if tls.is_some() { 2376 } else { 2375 }),
            };
            let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
            let host = if name.is_empty() { "localhost" } else { name }.to_owned();
            Ok(DockerHost::Port { host, port, tls })
        }
        Some((scheme, _)) => Err(refused(&format!("{scheme}:// cannot be used, only unix:// and tcp://"))),
        None => Err(refused("it is neither unix://PATH nor tcp://HOST:PORT")),
    }
}

/// The context that `docker context use` chose.
fn current_context(config: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "currentContext")]
        current: Option<String>,
    }
    let text = fs::read(config.join("config.json")).ok()?;
    serde_json::from_slice::<Config>(&text).ok()?.current
}

/// Where a context's daemon is. Its files are named by the digest of its name.
fn of_context(name: &str, config: &Path) -> Result<DockerHost, Failure> {
    #[derive(Deserialize)]
    struct Meta {
        #[serde(rename = "Endpoints")]
        endpoints: Endpoints,
    }
    #[derive(Deserialize)]
    struct Endpoints {
        docker: Option<Endpoint>,
    }
    #[derive(Deserialize)]
    struct Endpoint {
        #[serde(rename = "Host")]
        host: String,
        #[serde(rename = "SkipTLSVerify", default)]
        skip_verify: bool,
    }
    let id = Digest::sha256(name).hex();
    let meta = config.join("contexts/meta").join(&id).join("meta.json");
    let text = fs::read(&meta).map_err(|_| unknown(name))?;
    let meta: Meta = serde_json::from_slice(&text)
        .map_err(|error| Failure::from_error(&format!("--load: cannot read {}", meta.display()), &error))?;
    let Some(endpoint) = meta.endpoints.docker else { return Err(unknown(name)) };
    let directory = config.join("contexts/tls").join(&id).join("docker");
    let verify = if endpoint.skip_verify { Verify::Nothing } else { Verify::Certificate };
    let tls = directory.is_dir().then_some(Certificates { directory, verify });
    parse(&endpoint.host, tls, &format!("Docker's context {name} is at {}", endpoint.host))
}

fn unknown(name: &str) -> Failure {
    Failure::new(format!("--load: Docker has no context {name:?} with a daemon"))
        .with_help("`docker context ls` lists them; DOCKER_HOST names a daemon directly")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DockerTls;

    fn settings(config: &Path) -> Settings {
        let docker_tls = DockerTls { wanted: false, verify: false, certificates: None };
        let base = Settings::from_environment();
        Settings { docker_host: None, docker_context: None, docker_tls, docker_config: Some(config.to_owned()), ..base }
    }

    #[test]
    fn hosts_are_named_as_docker_names_them() {
        let home = tempfile::tempdir().unwrap();
        let base = settings(home.path());
        let at = |host: &str, verify: bool| {
            let docker_tls = DockerTls { wanted: verify, verify, certificates: Some("/certs".into()) };
            let settings = Settings { docker_host: Some(host.to_owned()), docker_tls, ..base.clone() };
            DockerHost::find(&settings).map_err(|failure| failure.message().to_owned())
        };
        let port = |host: &str, port| DockerHost::Port { host: host.to_owned(), port, tls: None };
        assert_eq!(at("unix:///x/y.sock", false), Ok(DockerHost::Socket("/x/y.sock".into())));
        assert_eq!(at("tcp://h.example", false), Ok(port("h.example", 2375)));
        assert_eq!(at("tcp://[::1]:99", false), Ok(port("::1", 99)));
        assert_eq!(at("tcp://:5", false), Ok(port("localhost", 5)));
        let Ok(DockerHost::Port { port: 2376, tls: Some(tls), .. }) = at("tcp://h.example", true) else { panic!() };
        assert_eq!((tls.directory, tls.verify), (PathBuf::from("/certs"), Verify::Certificate));
        for bad in ["ssh://u@h", "npipe:////./pipe/x", "h.example", "tcp://h:port"] {
            assert!(at(bad, false).unwrap_err().contains("DOCKER_HOST"), "{bad}");
        }
    }

    #[test]
    fn contexts_are_followed() {
        let home = tempfile::tempdir().unwrap();
        let base = settings(home.path());
        let find = |settings: &Settings| DockerHost::find(settings).map_err(|failure| failure.message().to_owned());
        assert_eq!(find(&base), Ok(DockerHost::Socket(SOCKET.into())));
        fs::write(home.path().join("config.json"), r#"{"currentContext": "mine"}"#).unwrap();
        assert!(find(&base).unwrap_err().contains("no context \"mine\""));
        let id = Digest::sha256("mine").hex();
        let meta = home.path().join("contexts/meta").join(&id);
        fs::create_dir_all(&meta).unwrap();
        let text = r#"{"Name":"mine","Endpoints":{"docker":{"Host":"unix:///run/user/1000/docker.sock"}}}"#;
        fs::write(meta.join("meta.json"), text).unwrap();
        assert_eq!(find(&base), Ok(DockerHost::Socket("/run/user/1000/docker.sock".into())));
        let default = Settings { docker_context: Some("default".to_owned()), ..base.clone() };
        assert_eq!(find(&default), Ok(DockerHost::Socket(SOCKET.into())));
        fs::write(meta.join("meta.json"), text.replace("unix:///run/user/1000/docker.sock", "ssh://host")).unwrap();
        assert!(find(&base).unwrap_err().contains("ssh://"));
    }
}
