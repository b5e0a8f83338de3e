//! The caller's own terminal while a container has it: raw, and put back whatever happens.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rbuild_executor::WindowSize;
use rustix::termios::{OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// A terminal in raw mode: every key goes through, Ctrl-C included. Dropping it restores the mode it had.
pub(crate) struct RawTerminal {
    fd: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    /// Makes the terminal behind `fd` raw; `None` when there is none.
    pub(crate) fn enter(fd: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        if !isatty(fd) {
            return Ok(None);
        }
        let before = tcgetattr(fd)?;
        let mut raw = before.clone();
        raw.make_raw();
        let terminal = Self { fd: fd.try_clone_to_owned()?, before };
        tcsetattr(&terminal.fd, OptionalActions::Now, &raw)?;
        Ok(Some(terminal))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // What the container wrote last is out before its line discipline changes. The terminal may be gone by now.
        if let Err(error) = tcsetattr(&self.fd, OptionalActions::Drain, &self.before) {
            tracing::debug!(%error, "terminal mode not restored");
        }
    }
}

/// The size of the caller's terminal, if it is one that knows its size.
pub fn size(of: impl AsFd) -> Option<WindowSize> {
    let size = tcgetwinsize(of).ok().filter(|size| size.ws_row > 0 || size.ws_col > 0)?;
    Some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Gives the container's terminal the size of the caller's; without one it keeps its own.
pub(crate) fn copy_size(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    size(from).map_or(Ok(()), |size| set_size(to, size))
}

/// Gives a terminal a size.
pub(crate) fn set_size(to: impl AsFd, size: WindowSize) -> io::Result<()> {
    let WindowSize { rows, columns } = size;
    Ok(tcsetwinsize(to, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::termios::LocalModes;

    pub(crate) fn pseudo_terminal() -> (OwnedFd, OwnedFd) {
        use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let user = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        (master, user)
    }

    #[test]
    fn raw_mode_ends_with_its_guard() {
        let (_master, user) = pseudo_terminal();
        let canonical = |fd: &OwnedFd| tcgetattr(fd).unwrap().local_modes.contains(LocalModes::ICANON);
        assert!(canonical(&user));
        let guard = RawTerminal::enter(user.as_fd()).unwrap();
        assert!(guard.is_some() && !canonical(&user));
        drop(guard);
        assert!(canonical(&user));
        let file = tempfile::tempfile().unwrap();
        assert!(RawTerminal::enter(file.as_fd()).unwrap().is_none(), "a file is left alone");
    }

    #[test]
    fn sizes_are_copied_between_terminals_only() {
        let ((_a, from), (_b, to)) = (pseudo_terminal(), pseudo_terminal());
        tcsetwinsize(&from, Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        copy_size(&from, &to).unwrap();
        assert_eq!(tcgetwinsize(&to).unwrap().ws_col, 99);
        copy_size(tempfile::tempfile().unwrap(), &to).unwrap();
        assert_eq!(tcgetwinsize(&to).unwrap().ws_row, 33);
    }
}
