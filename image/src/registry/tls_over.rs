//! TLS over a connection that is there already: for daemons that speak HTTP and are no registries.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::hosts::HostTable;
use super::options::{HostConfig, TrustRoots};
use super::tls::TlsConnector;

/// A connection with TLS to its end.
pub struct TlsOver<S: Read + Write>(StreamOwned<ClientConnection, S>);

impl<S: Read + Write> TlsOver<S> {
    /// Greets `host` over `stream`, with its certificate settings.
    pub fn connect(mut stream: S, host: &str, settings: &HostConfig, trust: TrustRoots) -> io::Result<Self> {
        let connector = TlsConnector::new(trust, HostTable::new(BTreeMap::new(), Vec::new()));
        let config = connector.build(settings).map_err(io::Error::other)?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Self(StreamOwned { conn: connection, sock: stream }))
    }
}

impl<S: Read + Write> Read for TlsOver<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<S: Read + Write> Write for TlsOver<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<S: Read + Write> fmt::Debug for TlsOver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsOver")
    }
}
