//! Where a monitor can be reached: a socket in its container's directory.
//!
//! The path of a socket may be 107 bytes long, and stores are anywhere; so the socket is named through a descriptor of the
//! directory.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

use crate::document::if_present;

const NAME: &str = "monitor.sock";
/// Clients that may wait to be noticed.
const WAITING: i32 = 64;

/// The monitor's end; the socket's name goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

impl Listener {
    /// Makes the socket; one that a killed monitor left is replaced.
    pub(crate) fn bind(directory: &Path) -> io::Result<Self> {
        let path = directory.join(NAME);
        if_present(fs::remove_file(&path))?;
        let socket = new_socket(SocketFlags::NONBLOCK)?;
        let held = File::open(directory)?;
        bind(&socket, &address(&held)?)?;
        listen(&socket, WAITING)?;
        Ok(Self { socket, path })
    }

    /// A client that connected, if there is one.
    pub(crate) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match accept_with(&self.socket, SocketFlags::CLOEXEC) {
            Ok(client) => Ok(Some(client)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            // The container's directory may be gone already.
            tracing::debug!(path = %self.path.display(), %error, "socket stays");
        }
    }
}

/// Connects to the monitor of the container with this directory; `None` when there is none.
pub(super) fn connect_to(directory: &Path) -> io::Result<Option<OwnedFd>> {
    use rustix::io::Errno;
    let Some(held) = if_present(File::open(directory))? else { return Ok(None) };
    let socket = new_socket(SocketFlags::empty())?;
    match connect(&socket, &address(&held)?) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn new_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags | SocketFlags::CLOEXEC, None)?)
}

fn address(directory: &File) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_however_deep_its_directory_lies() {
        let home = tempfile::tempdir().unwrap();
        let deep = home.path().join("a".repeat(200));
        assert!(connect_to(&deep).unwrap().is_none());
        fs::create_dir(&deep).unwrap();
        assert!(connect_to(&deep).unwrap().is_none());
        fs::write(deep.join(NAME), "left by a killed one").unwrap();
        let listener = Listener::bind(&deep).unwrap();
        assert!(listener.accept().unwrap().is_none());
        let _client = connect_to(&deep).unwrap().unwrap();
        assert!(listener.accept().unwrap().is_some());
        drop(listener);
        assert!(connect_to(&deep).unwrap().is_none());
        assert!(!deep.join(NAME).exists());
    }
}
