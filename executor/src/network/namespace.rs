//! A network namespace held by a descriptor.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::netlink::Netlink;
use crate::spec::NetworkMode;
use crate::sys;

/// How often a turn is asked for.
const PAUSE: Duration = Duration::from_millis(2);

/// A network namespace. It lives as long as this, or a process in it.
#[derive(Debug)]
pub struct Namespace {
    file: OwnedFd,
}

impl Namespace {
    /// Makes a namespace whose loopback interface is up, and which has nothing else.
    pub fn new() -> io::Result<Self> {
        Self::new_with(|| Ok(())).map(|(namespace, ())| namespace)
    }

    /// Makes a namespace and does the first work in it, from the same thread.
    pub(crate) fn new_with<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<(Self, T)> {
        on_own_thread(|| {
            // The thread ends inside; nobody else is affected.
            sys::process::unshare(UnshareFlags::NEWNET)?;
            let file = File::open("/proc/thread-self/ns/net")?.into();
            sys::net::loopback_up()?;
            Ok((Self { file }, work()?))
        })?
    }

    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Ok(Self { file: File::open("/proc/thread-self/ns/net")?.into() })
    }

    /// The namespace of a process; the caller has a hold on the process, so that its number is not another's.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Ok(Self { file: File::open(format!("/proc/{pid}/ns/net"))?.into() })
    }

    /// Another hold on it.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()? })
    }

    /// Waits until nobody else who asks for a turn has one in this namespace, whatever store he works for: for whoever looks
    /// what is free and takes it. Any user of the machine can keep a turn, so nobody is waited for longer than `patience`.
    pub fn turn(&self, patience: Duration) -> io::Result<Turn> {
        // Opened anew: a lock belongs to an opening.
        let file = File::open(self.path())?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Turn(file)),
                Err(TryLockError::WouldBlock) if began.elapsed() < patience => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    tracing::debug!("somebody keeps the network namespace locked");
                    return Ok(Turn(file));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Does something inside, on a thread of its own. Sockets that it makes belong to the namespace wherever they are used.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_own_thread(|| {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        })?
    }

    /// The namespace for a sandbox to join. Valid while this value lives, for processes that may look at this one.
    pub fn mode(&self) -> NetworkMode {
        NetworkMode::Path(self.path())
    }

    /// A path that leads to the namespace while this value lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Whether interfaces that appear in the calling thread's namespace from now on have IPv6 addresses. Only for
    /// namespaces of our own.
    pub(crate) fn set_ipv6(on: bool) -> io::Result<()> {
        match fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", if on { "0" } else { "1" }) {
            // The kernel has no IPv6 anyway.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Names of the interfaces inside, loopback left out.
    pub fn interfaces(&self) -> io::Result<Vec<String>> {
        let names = self.enter(|| Netlink::open()?.links())??;
        Ok(names.into_iter().map(|link| link.name).filter(|name| name != "lo").collect())
    }
}

/// A turn at changing a namespace, until dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is the lock")] File);

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Threads have a network namespace each, so what changes it happens on one that ends afterwards.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("the thread inside the network namespace panicked"))
    })
}
