//! TLS for the HTTP client: rustls with ring. Which authorities, which client certificate and whether to verify at all
//! is chosen by host; the system's certificates are read when the first TLS connection is made, not before.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use super::hosts::HostTable;
use super::location::Origin;
use super::options::{HostConfig, TrustRoots, Verify};

/// Where systems keep their bundle of certificate authorities; the first that exists is read.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
];

/// Where systems keep authorities in a file each: read besides a bundle that was named, as OpenSSL and Go do.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// TLS settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// A certificate or key file cannot be read.
    #[error("cannot read {what} {}: {reason}", path.display())]
    File {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file without any certificate.
    #[error("no certificate in {}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// No authority to trust at all.
    #[error("no certificate authorities found on this system; install ca-certificates or set SSL_CERT_FILE")]
    NoRoots,
    /// rustls does not take it.
    #[error("unusable TLS settings: {0}")]
    Refused(#[from] rustls::Error),
}

/// Wraps connections for `https` addresses in TLS.
pub(super) struct TlsConnector {
    trust: TrustRoots,
    hosts: HostTable,
    provider: Arc<CryptoProvider>,
    system: OnceLock<Arc<RootCertStore>>,
    configs: Mutex<BTreeMap<String, Arc<ClientConfig>>>,
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector").field("trust", &self.trust).field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl TlsConnector {
    /// `hosts` by authority as [`Origin::authority`] writes it.
    pub(super) fn new(trust: TrustRoots, hosts: HostTable) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self { trust, hosts, provider, system: OnceLock::new(), configs: Mutex::default() }
    }

    fn config(&self, origin: &Origin) -> Result<Arc<ClientConfig>, TlsSetupError> {
        let authority = origin.authority();
        let special = self.hosts.get(&authority);
        let key = if special.is_some() { authority } else { String::new() };
        if let Some(config) = self.configs.lock().expect("no panic while held").get(&key) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.build(special.unwrap_or(&HostConfig::default()))?);
        self.configs.lock().expect("no panic while held").insert(key, config.clone());
        Ok(config)
    }

    pub(super) fn build(&self, host: &HostConfig) -> Result<ClientConfig, TlsSetupError> {
        let builder =
            ClientConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match host.verify {
            Verify::Certificate => builder.with_root_certificates(self.roots(&host.ca_files)?),
            Verify::Nothing => {
                let verifier = TrustAnyone { provider: self.provider.clone() };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut config = match &host.client_certificate {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = certificates(&own.certificate)?;
                let key = PrivateKeyDer::from_pem_file(&own.key)
                    .map_err(|error| unreadable("the client key", &own.key, error))?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// The general authorities, and those of this host.
    fn roots(&self, own: &[PathBuf]) -> Result<Arc<RootCertStore>, TlsSetupError> {
        let system = match self.system.get() {
            Some(system) => system.clone(),
            None => {
                let loaded = Arc::new(self.load_system()?);
                self.system.get_or_init(|| loaded).clone()
            }
        };
        if own.is_empty() {
            return if system.is_empty() { Err(TlsSetupError::NoRoots) } else { Ok(system) };
        }
        let mut roots = RootCertStore::clone(&system);
        for path in own {
            let (added, _) = roots.add_parsable_certificates(certificates(path)?);
            if added == 0 {
                return Err(TlsSetupError::Empty { path: path.clone() });
            }
        }
        Ok(Arc::new(roots))
    }

    /// A file that was named stands for the system's bundle, directories that were named for its directories.
    fn load_system(&self) -> Result<RootCertStore, TlsSetupError> {
        let mut roots = RootCertStore::empty();
        let TrustRoots { file: named, directories } = &self.trust;
        match (named, SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists())) {
            (Some(file), _) => drop(roots.add_parsable_certificates(certificates(file)?)),
            // Nobody's word is needed for what is not there.
            (None, Some(bundle)) => drop(roots.add_parsable_certificates(certificates(bundle).unwrap_or_default())),
            (None, None) => {}
        }
        let usual = SYSTEM_DIRECTORIES.map(PathBuf::from);
        let (directories, optional) = match (named, directories.is_empty()) {
            (_, false) => (directories.as_slice(), false),
            (Some(_), true) => (usual.as_slice(), true),
            (None, true) => (&[][..], true),
        };
        let mut trouble = None;
        for directory in directories {
            match certificates_below(directory) {
                Ok(found) => drop(roots.add_parsable_certificates(found)),
                Err(error) => {
                    trouble.get_or_insert((directory, error));
                }
            }
        }
        match trouble {
            Some((directory, error)) if !optional && roots.is_empty() => {
                Err(unreadable("certificate directory", directory, error))
            }
            _ => Ok(roots),
        }
    }
}

/// The certificates of all files in a directory. Names that lead to others of it are passed over.
fn certificates_below(directory: &Path) -> std::io::Result<Vec<CertificateDer<'static>>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    let is_other_name = |path: &PathBuf| {
        std::fs::read_link(path).is_ok_and(|target| target.parent().is_some_and(|parent| parent.as_os_str().is_empty()))
    };
    paths.retain(|path| !is_other_name(path) && path.is_file());
    Ok(paths.iter().flat_map(|path| certificates(path).unwrap_or_default()).collect())
}

/// All certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let loaded = rustls_native_certs::load_certs_from_paths(Some(path), None);
    match loaded.errors.first() {
        Some(error) if loaded.certs.is_empty() => Err(unreadable("certificate file", path, error)),
        _ if loaded.certs.is_empty() => Err(TlsSetupError::Empty { path: path.to_owned() }),
        _ => Ok(loaded.certs),
    }
}

fn unreadable(what: &'static str, path: &Path, reason: impl fmt::Display) -> TlsSetupError {
    TlsSetupError::File { what, path: path.to_owned(), reason: reason.to_string() }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsStream>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let origin = Origin::of(details.uri).ok_or_else(|| Error::BadUri(details.uri.to_string()))?;
        let config = self.config(&origin).map_err(|error| Error::Other(Box::new(error)))?;
        let name = ServerName::try_from(origin.host).map_err(|error| Error::BadUri(error.to_string()))?;
        let mut connection = ClientConnection::new(config, name)?;
        let mut socket = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(TlsStream { stream: StreamOwned { conn: connection, sock: socket }, buffers })))
    }
}

/// A connection with TLS to its end.
pub(super) struct TlsStream {
    stream: StreamOwned<ClientConnection, TransportAdapter>,
    buffers: LazyBuffers,
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("inner", self.stream.sock.inner()).finish()
    }
}

impl Transport for TlsStream {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.get_mut().set_timeout(timeout);
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output)?;
        self.stream.flush()?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// Accepts every certificate: for hosts whose settings say so.
#[derive(Debug)]
struct TrustAnyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_which_file_or_what_to_install() {
        for (error, words) in [
            (
                TlsSetupError::File { what: "certificate", path: "/c.pem".into(), reason: "permission denied".into() },
                "cannot read certificate /c.pem: permission denied",
            ),
            (TlsSetupError::Empty { path: "/c.pem".into() }, "no certificate in /c.pem"),
            (
                TlsSetupError::NoRoots,
                "no certificate authorities found on this system; install ca-certificates or set SSL_CERT_FILE",
            ),
            (rustls::Error::DecryptError.into(), "unusable TLS settings: cannot decrypt peer's message"),
        ] {
            assert_eq!(error.to_string(), words);
        }
    }
}
