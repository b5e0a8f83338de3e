//! Against Debian's `docker-registry`, with skopeo pushing and reading on the other side.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rbuild_image::credentials::{CredentialSource, Credentials, DockerConfig, Fixed, Secret};
use rbuild_image::pull::{self, pull};
use rbuild_image::push::{PushRequest, push};
use rbuild_image::registry::{
    Cause, Client, ClientCertificate, ClientOptions, HostConfig, Mirror, MirrorServes, Pushed, RetryPolicy, Silent,
    TransferState, UnfinishedBlob as _, Verify,
};
use rbuild_image::{Descriptor, Digest, ImageRef, Index, MediaType, MemoryBlobs, Platform};

use crate::memory::{MemoryStore, TestImage, Watch};
use crate::streams::making;

/// A running registry with a directory of its own; ends when dropped.
struct Registry {
    child: Child,
    host: String,
    dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// What a registry asks of its clients.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Password,
    Tls,
    MutualTls,
}

fn installed(programs: &[&str]) -> bool {
    for program in programs {
        if !Path::new("/usr/bin").join(program).exists() {
            eprintln!("SKIPPED: {program} is not installed");
            return false;
        }
    }
    true
}

impl Registry {
    fn start(mode: Mode) -> Option<Self> {
        let extra: &[&str] = match mode {
            Mode::Open => &[],
            Mode::Password => &["htpasswd"],
            Mode::Tls | Mode::MutualTls => &["openssl"],
        };
        if !installed(&["docker-registry", "skopeo"]) || !installed(extra) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut settings = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: \
             {{rootdirectory: {0}/data}}\n  delete: {{enabled: true}}\n",
            dir.path().display()
        );
        // Between choosing a port and the registry taking it somebody else may: then another is tried.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let host = format!("127.0.0.1:{port}");
            let mut text = format!("{settings}http:\n  addr: {host}\n");
            match mode {
                Mode::Open => {}
                Mode::Password => {
                    let file = dir.path().join("htpasswd");
                    let made = Command::new("htpasswd").args(["-Bbn", "u", "pass:word"]).output().unwrap();
                    fs::write(&file, made.stdout).unwrap();
                    settings.push_str(&format!("auth:\n  htpasswd: {{realm: test, path: {}}}\n", file.display()));
                    text = format!("{settings}http:\n  addr: {host}\n");
                }
                Mode::Tls | Mode::MutualTls => {
                    make_certificates(dir.path());
                    text.push_str(&format!(
                        "  tls:\n    certificate: {0}/server.crt\n    key: {0}/server.key\n",
                        dir.path().display()
                    ));
                    if mode == Mode::MutualTls {
                        text.push_str(&format!("    clientcas: [{}/ca.crt]\n", dir.path().display()));
                    }
                }
            }
            let config = dir.path().join("config.yml");
            fs::write(&config, text).unwrap();
            let mut child = Command::new("docker-registry")
                .args(["serve", config.to_str().unwrap()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let end = Instant::now() + Duration::from_secs(15);
            while Instant::now() < end && child.try_wait().unwrap().is_none() {
                if TcpStream::connect(&host).is_ok() {
                    return Some(Self { child, host, dir });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _gone = child.kill();
            let _gone = child.wait();
        }
        panic!("docker-registry does not start");
    }

    fn name(&self, rest: &str) -> ImageRef {
        format!("{}/{rest}", self.host).parse().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A certificate authority, and a server and a client certificate by it.
fn make_certificates(dir: &Path) {
    let script = r#"
        set -e; cd "$0"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test-ca \
            -keyout ca.key -out ca.crt -addext basicConstraints=critical,CA:true
        for who in server client; do
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$who -keyout $who.key -out $who.csr
            printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\n' > ext
            openssl x509 -req -in $who.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $who.crt
        done"#;
    let out = Command::new("sh").args(["-c", script]).arg(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn skopeo(arguments: &[&str]) -> String {
    let out = Command::new("skopeo").args(arguments).output().unwrap();
    assert!(out.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn client(edit: impl FnOnce(&mut ClientOptions)) -> Client {
    let mut options = ClientOptions::default();
    edit(&mut options);
    Client::new(options)
}

fn password(host: &str, password: &str) -> Arc<dyn CredentialSource> {
    let credentials = Credentials::Password { username: "u".into(), password: Secret::new(password) };
    Arc::new(Fixed { registry: host.to_owned(), credentials })
}

fn push_image(client: &Client, name: &ImageRef, image: &TestImage, watch: &Watch) -> Descriptor {
    let request = PushRequest {
        name,
        tags: &[],
        media_type: &MediaType::OciManifest,
        bytes: &image.manifest,
        mount_from: &[],
        there: &BTreeSet::new(),
    };
    push(client, &request, &image.store, watch).unwrap()
}

/// Writes an image as an OCI layout, for skopeo.
fn write_layout(dir: &Path, image: &TestImage) {
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    for digest in image.digests() {
        fs::write(dir.join("blobs/sha256").join(digest.hex()), image.store.get(&digest).unwrap()).unwrap();
    }
    let mut entry = serde_json::to_value(Descriptor::of(MediaType::OciManifest, &image.manifest)).unwrap();
    entry["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "latest"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

#[test]
fn what_skopeo_pushed_is_pulled_unchanged() {
    let Some(registry) = Registry::start(Mode::Open) else { return };
    let image = TestImage::new("skopeo", &[100_000, 3_000_000, 10, 100_000, 0, 700_000]);
    let layout = registry.path("layout");
    write_layout(&layout, &image);
    let source = format!("oci:{}:latest", layout.display());
    let target = format!("docker://{}", registry.name("team/app:1.0"));
    skopeo(&["--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false", &source, &target]);

    let client = client(|_| {});
    let name = registry.name("team/app:1.0");
    let resolved = client.resolve(&name).unwrap();
    assert_eq!((resolved.digest, resolved.size), (image.digest(), image.manifest.len() as u64));

    let store = MemoryStore::default();
    let watch = Watch::default();
    let pulled = pull(&client, &name, &Platform::host(), &store, &watch).unwrap();
    assert_eq!(pulled.manifest.1, image.manifest);
    assert_eq!(pulled.layers, image.layers);
    assert_eq!(pulled.image_config.rootfs.diff_ids.len(), 6);
    assert_eq!(store.digests(), image.digests());
    assert_eq!(watch.count(TransferState::Done), 6);
    let big = &image.layers[1];
    assert_eq!(watch.last_moving(&big.digest), Some((big.size, big.size)));

    let watch = Watch::default();
    pull(&client, &name.with_digest(image.digest()), &Platform::host(), &store, &watch).unwrap();
    assert_eq!((watch.count(TransferState::Present), watch.count(TransferState::Done)), (6, 0));

    let missing = pull(&client, &registry.name("team/app:2"), &Platform::host(), &store, &Silent).unwrap_err();
    assert!(missing.is_not_found(), "{missing:?}");
    assert!(missing.to_string().ends_with("/team/app:2"), "{missing}");
    assert!(missing.cause.to_string().contains("manifest unknown"), "{}", missing.cause);
    let absent = client.resolve(&registry.name("nobody/nothing")).unwrap_err();
    assert!(absent.is_not_found(), "{absent:?}");
}

#[test]
fn what_we_pushed_skopeo_reads() {
    let Some(registry) = Registry::start(Mode::Open) else { return };
    let image = TestImage::new("ours", &[5_000_000, 20, 0, 1_500_000]);
    let client = client(|_| {});
    let name = registry.name("ours/app:v1");
    let watch = Watch::default();
    let pushed = push_image(&client, &name, &image, &watch);
    assert_eq!(pushed.digest, image.digest());
    assert_eq!(watch.count(TransferState::Done), 5);

    let target = registry.path("read");
    let from = format!("docker://{name}");
    let to = format!("dir:{}", target.display());
    skopeo(&["--insecure-policy", "copy", "--src-tls-verify=false", &from, &to]);
    assert_eq!(fs::read(target.join("manifest.json")).unwrap(), image.manifest);
    for layer in &image.layers {
        let bytes = fs::read(target.join(layer.digest.hex())).unwrap();
        assert_eq!(Digest::sha256(&bytes), layer.digest);
    }

    // The second time nothing moves, and other tags are only names.
    let watch = Watch::default();
    let request = PushRequest {
        name: &name,
        tags: &["v2".to_owned(), "latest".to_owned()],
        media_type: &MediaType::OciManifest,
        bytes: &image.manifest,
        mount_from: &[],
        there: &BTreeSet::new(),
    };
    push(&client, &request, &image.store, &watch).unwrap();
    assert_eq!((watch.count(TransferState::Present), watch.count(TransferState::Done)), (5, 0));
    assert_eq!(client.resolve(&registry.name("ours/app")).unwrap().digest, image.digest());

    // Blobs of another repository are mounted.
    let copy = registry.name("other/copy:1");
    let mount_from = [registry.name("absent/repository"), registry.name("ours/app")];
    let request = PushRequest { name: &copy, tags: &[], mount_from: &mount_from, ..request };
    let watch = Watch::default();
    push(&client, &request, &image.store, &watch).unwrap();
    assert_eq!((watch.count(TransferState::Mounted), watch.count(TransferState::Done)), (5, 0));
}

#[test]
fn chunks_are_put_together() {
    let Some(registry) = Registry::start(Mode::Open) else { return };
    let image = TestImage::new("chunks", &[3_500_000, 1]);
    let client = client(|options| options.upload_chunk = Some(1_000_000));
    let name = registry.name("chunks:1");
    push_image(&client, &name, &image, &Watch::default());
    let store = MemoryStore::default();
    pull(&client, &name, &Platform::host(), &store, &Silent).unwrap();
    assert_eq!(store.digests(), image.digests());
}

/// The way to a registry on which each of these many connections is cut after so many bytes of requests, and no other.
fn cutting(registry: &Registry, allowances: Vec<usize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (host, far) = (listener.local_addr().unwrap().to_string(), registry.host.clone());
    std::thread::spawn(move || {
        let mut allowances = allowances.into_iter();
        for mut near in listener.incoming().map(Result::unwrap) {
            let mut left = allowances.next().unwrap_or(usize::MAX);
            let mut far = TcpStream::connect(&far).unwrap();
            let (mut from, mut to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || {
                let mut buffer = [0; 8192];
                while let Ok(read @ 1..) = near.read(&mut buffer) {
                    let passed = read.min(left);
                    left -= passed;
                    if far.write_all(&buffer[..passed]).is_err() || passed < read {
                        break;
                    }
                }
                let _cut = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
            });
        }
    });
    host
}

/// This registry forgets an upload whose connection broke, and says so: it gets the blob again.
#[test]
fn r34_uploads_to_a_real_registry_survive_connections_that_break() {
    let Some(registry) = Registry::start(Mode::Open) else { return };
    let retry = RetryPolicy { first_pause: Duration::from_millis(5), ..RetryPolicy::default() };
    for (turn, cuts) in [vec![700_000], vec![1_500_000, 300_123], vec![9_001, 2_999_000, 64_000], vec![400, 1_000_001]]
        .into_iter()
        .enumerate()
    {
        let through = cutting(&registry, cuts);
        let client = client(|options| options.retry = retry);
        for streamed in [true, false] {
            let blob = making(3_000_000 + 2 * turn + usize::from(streamed));
            let descriptor = blob.whole().unwrap();
            let name: ImageRef = format!("{through}/cut/app{turn}:1").parse().unwrap();
            if streamed {
                let sent = client.push_unfinished(&name, &Digest::sha256("tar"), &blob, &Silent).unwrap();
                assert_eq!(sent, Some(descriptor.clone()), "turn {turn}");
            } else {
                let mut memory = MemoryBlobs::default();
                memory.insert(blob.bytes.clone());
                client.push_blob(&name, &descriptor, &[], &memory, &Silent).unwrap();
            }
            let store = MemoryStore::default();
            let direct = registry.name(&format!("cut/app{turn}:1"));
            client.fetch_blob(&direct, &descriptor, &store, &Silent).unwrap();
            assert_eq!(store.digests(), [descriptor.digest]);
        }
    }
}

#[test]
fn an_index_is_pushed_and_the_platform_chosen() {
    let Some(registry) = Registry::start(Mode::Open) else { return };
    let store = MemoryStore::default();
    let mut entries = Vec::new();
    for platform in ["linux/amd64", "linux/arm64", "linux/arm/v7"] {
        let image = TestImage::new(platform, &[2000, 30_000]);
        for digest in image.digests() {
            store.put(&image.store.get(&digest).unwrap());
        }
        let mut entry = Descriptor::of(MediaType::OciManifest, &image.manifest);
        entry.platform = Some(platform.parse().unwrap());
        entries.push(entry);
    }
    let index = Index {
        schema_version: 2,
        media_type: Some(MediaType::OciIndex),
        artifact_type: None,
        manifests: entries.clone(),
        subject: None,
        annotations: BTreeMap::new(),
        extra: serde_json::Map::new(),
    }
    .to_json();
    let client = client(|_| {});
    let name = registry.name("multi:1");
    let request = PushRequest {
        name: &name,
        tags: &[],
        media_type: &MediaType::OciIndex,
        bytes: &index,
        mount_from: &[],
        there: &BTreeSet::new(),
    };
    push(&client, &request, &store, &Silent).unwrap();

    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    assert_eq!(raw.as_bytes(), index);

    let resolved = pull::resolve(&client, &name, &"linux/arm64".parse().unwrap()).unwrap();
    assert_eq!(resolved.manifest.0.digest, entries[1].digest);
    assert_eq!(resolved.descriptor().digest, Digest::sha256(&index));
    let (_, config) = pull::fetch_config(&client, &resolved).unwrap();
    assert_eq!(config.rootfs.diff_ids.len(), 2);
    let target = MemoryStore::default();
    let pulled = pull(&client, &name, &"linux/arm/v7".parse().unwrap(), &target, &Silent).unwrap();
    assert_eq!(pulled.manifest.0.digest, entries[2].digest);
    assert!(target.get(&Digest::sha256(&index)).is_some());

    let error = pull::resolve(&client, &name, &"linux/s390x".parse().unwrap()).unwrap_err();
    assert_eq!(
        error.cause.to_string(),
        "no image for platform linux/s390x; there is linux/amd64, linux/arm64, linux/arm/v7"
    );
}

#[test]
fn passwords_are_asked_for_and_given() {
    let Some(registry) = Registry::start(Mode::Password) else { return };
    let image = TestImage::new("secret", &[50_000, 2_000_000]);
    let name = registry.name("private/app:1");

    let anonymous = client(|_| {});
    let error = anonymous.resolve(&name).unwrap_err();
    assert!(matches!(*error.cause, Cause::Unauthorized { .. }), "{error:?}");
    assert!(error.cause.to_string().contains("no credentials"), "{}", error.cause);
    let wrong = client(|options| options.credentials = password(&registry.host, "hunter2"));
    let error = wrong.check_login(&registry.host).unwrap_err();
    assert!(matches!(*error.cause, Cause::Unauthorized { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2"));

    // As after `login`: the credentials come from Docker's file.
    let file = DockerConfig::new(registry.path("docker/config.json"));
    let credentials = Credentials::Password { username: "u".into(), password: Secret::new("pass:word") };
    file.login(&registry.host, &credentials).unwrap();
    let right = client(|options| options.credentials = Arc::new(file));
    right.check_login(&registry.host).unwrap();
    right.check_push(&name).unwrap();
    push_image(&right, &name, &image, &Watch::default());
    let store = MemoryStore::default();
    pull(&right, &name, &Platform::host(), &store, &Silent).unwrap();
    assert_eq!(store.digests(), image.digests());

    // skopeo reads the same file.
    let auth = registry.path("docker/config.json");
    let shown = skopeo(&[
        "inspect",
        "--raw",
        "--tls-verify=false",
        "--authfile",
        auth.to_str().unwrap(),
        &format!("docker://{name}"),
    ]);
    assert_eq!(shown.as_bytes(), image.manifest);
}

#[test]
fn certificates_decide() {
    let Some(registry) = Registry::start(Mode::Tls) else { return };
    let name = registry.name("tls/app:1");
    let image = TestImage::new("tls", &[2_000_000, 9]);
    let with = |host: HostConfig| client(|options| drop(options.hosts.insert(registry.host.clone(), host)));

    let trusting = with(HostConfig { ca_files: vec![registry.path("ca.crt")], ..HostConfig::default() });
    push_image(&trusting, &name, &image, &Watch::default());
    let store = MemoryStore::default();
    pull(&trusting, &name, &Platform::host(), &store, &Silent).unwrap();
    assert_eq!(store.digests(), image.digests());

    // Loopback without settings: found to speak TLS, and refused for its certificate.
    let error = client(|_| {}).resolve(&name).unwrap_err();
    assert!(matches!(*error.cause, Cause::Tls(rustls::Error::InvalidCertificate(_))), "{error:?}");
    with(HostConfig { verify: Verify::Nothing, ..HostConfig::default() }).resolve(&name).unwrap();
    let roots = client(|options| options.trust.file = Some(registry.path("ca.crt")));
    roots.resolve(&name).unwrap();
    let missing = with(HostConfig { ca_files: vec!["/nonexistent/ca.crt".into()], ..HostConfig::default() });
    let error = missing.resolve(&name).unwrap_err();
    assert!(error.cause.to_string().contains("/nonexistent/ca.crt"), "{error:?}");
}

#[test]
fn client_certificates_are_shown() {
    let Some(registry) = Registry::start(Mode::MutualTls) else { return };
    let with = |own: Option<ClientCertificate>| {
        client(|options| {
            let ca_files = vec![registry.path("ca.crt")];
            let host = HostConfig { ca_files, client_certificate: own, ..HostConfig::default() };
            options.hosts.insert(registry.host.clone(), host);
        })
    };
    let own = ClientCertificate { certificate: registry.path("client.crt"), key: registry.path("client.key") };
    with(Some(own.clone())).check_login(&registry.host).unwrap();
    assert!(with(None).check_login(&registry.host).is_err());
    let mixed = ClientCertificate { key: registry.path("server.key"), ..own };
    let error = with(Some(mixed)).check_login(&registry.host).unwrap_err();
    assert!(matches!(*error.cause, Cause::TlsSetup(_)), "{error:?}");
}

#[test]
fn mirrors_are_asked_first_and_the_registry_last() {
    let (Some(mirror), Some(registry)) = (Registry::start(Mode::Open), Registry::start(Mode::Open)) else { return };
    let image = TestImage::new("mirror", &[100_000, 2000]);
    let plain = client(|_| {});
    push_image(&plain, &registry.name("lib/app:1"), &image, &Watch::default());
    // The mirror has the manifest and one layer, below a prefix.
    let copy = mirror.name("cache/lib/app:1");
    for blob in [&image.config, &image.layers[0], &image.layers[1]] {
        assert_eq!(plain.push_blob(&copy, blob, &[], &image.store, &Silent).unwrap(), Pushed::Uploaded);
    }
    plain.push_manifest(&copy, &MediaType::OciManifest, &image.manifest).unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mirrors = |rest: &[String]| {
        let all = std::iter::once(format!("http://{dead}")).chain(rest.iter().cloned());
        let mirrors = all.map(|location| Mirror::at(location, MirrorServes::All)).collect();
        client(|options| {
            options.hosts.insert(registry.host.clone(), HostConfig { mirrors, ..HostConfig::default() });
        })
    };
    let store = MemoryStore::default();
    let client = mirrors(&[format!("http://{}/cache", mirror.host)]);
    pull(&client, &registry.name("lib/app:1"), &Platform::host(), &store, &Silent).unwrap();
    assert_eq!(store.digests(), image.digests());
    drop(mirror);
    let store = MemoryStore::default();
    pull(&client, &registry.name("lib/app:1"), &Platform::host(), &store, &Silent).unwrap();
    assert_eq!(store.digests(), image.digests());
}
