//! Typed messages with descriptors over the sockets between engine, spawner and sandbox, and of monitors of containers.
//!
//! Every socket is `SOCK_SEQPACKET`: one message is one JSON value, whole or not at all. Large ones travel in a sealed
//! memfd beside the message (`SealedBytes`).

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// More descriptors than any message has.
const MAX_FDS: usize = 64;
/// Longer than any message.
const MAX_MESSAGE: usize = 64 * 1024;

/// A connected pair of message sockets.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message.
pub fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
        return Err(Errno::MSGSIZE.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MSGSIZE.into());
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one message; `None` when the other side is gone.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd, flags: RecvFlags) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        rustix::net::recvmsg(&socket, &mut parts, &mut control, flags | RecvFlags::CMSG_CLOEXEC)
    });
    let got = match got {
        // The other side died with a message of ours unread.
        Err(Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    if got.bytes == 0 {
        return Ok(None);
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE.into());
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok(Some((serde_json::from_slice(&buffer[..got.bytes])?, fds)))
}

/// Bytes in anonymous memory that cannot change any more.
#[derive(Debug)]
pub(crate) struct SealedBytes;

impl SealedBytes {
    /// Copies `parts`, one after the other.
    pub(crate) fn write(name: &str, parts: &[&[u8]]) -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create(name, flags)?);
        for part in parts {
            file.write_all(part)?;
        }
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        Ok(file.into())
    }

    /// Reads everything.
    pub(crate) fn read(fd: &OwnedFd) -> io::Result<Vec<u8>> {
        let file = File::from(fd.try_clone()?);
        let length = usize::try_from(file.metadata()?.len()).map_err(|_| Errno::FBIG)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptors_and_the_end_is_told() {
        let (a, b) = pair().unwrap();
        let memory = SealedBytes::write("test", &[b"ab", b"c"]).unwrap();
        send(&a, &("hello", 7), &[memory.as_fd()]).unwrap();
        drop(a);
        let (message, mut fds) = receive::<(String, u32)>(&b, RecvFlags::empty()).unwrap().unwrap();
        assert_eq!(message, ("hello".to_owned(), 7));
        assert_eq!(SealedBytes::read(&fds.pop().unwrap()).unwrap(), b"abc");
        assert!(fds.is_empty());
        assert!(receive::<u32>(&b, RecvFlags::empty()).unwrap().is_none());
    }

    #[test]
    fn sealed_bytes_cannot_be_changed() {
        let fd = SealedBytes::write("test", &[b"abc"]).unwrap();
        assert!(File::from(fd).write_all_at(b"x", 0).is_err());
    }
}
