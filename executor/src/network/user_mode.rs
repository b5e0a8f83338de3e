//! A way out of a namespace through an ordinary process: `pasta`, else `slirp4netns`. Needs no bridge, no rules and no
//! privileges on the host; its sockets are the process's own. The host's loopback addresses stay out of reach.
//!
//! The process ends with this value. After `kill -9` of the owner slirp4netns ends by itself (its life hangs on a pipe);
//! pasta's [`UserMode::process`] is to be written down by the caller, for whoever tidies up.

use std::fs::{self, File};
use std::io::{self, PipeWriter, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::namespace::Namespace;
use super::netlink::Netlink;

/// How long a program may take until the namespace has a way out.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often that is looked for.
const PAUSE: Duration = Duration::from_millis(3);
/// The address under which slirp4netns answers questions for names, with the host's servers, loopback ones included.
const SLIRP_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3));

/// A program that gives namespaces a way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Fast; addresses and routes are the host's.
    Pasta,
    /// Slower, and older systems have it.
    Slirp4netns,
}

/// Both, the better one first.
pub const PROGRAMS: [Program; 2] = [Program::Pasta, Program::Slirp4netns];
/// For root: pasta gives its privileges up, and versions until 2023 cannot open the namespaces of root's processes then.
const PROGRAMS_OF_ROOT: [Program; 2] = [Program::Slirp4netns, Program::Pasta];

/// A namespace's way out, while this lives.
#[derive(Debug)]
pub struct UserMode {
    program: Program,
    child: Child,
    /// slirp4netns ends when this is closed.
    life: Option<PipeWriter>,
}

/// Which namespaces a way out is for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The network namespace.
    pub network: &'a Namespace,
    /// The user namespace that owns it, when that is not the caller's.
    pub user: Option<&'a Path>,
}

/// Why a namespace has no way out.
#[derive(Debug, thiserror::Error)]
pub enum UserModeError {
    /// None of the programs is installed.
    #[error("neither pasta nor slirp4netns is installed: install the package passt or slirp4netns")]
    Missing,
    /// Without the device there are no interfaces that a process serves.
    #[error("{program} needs {}, which cannot be opened (load the kernel module tun, or as root: chmod 0666 {})", path.display(), path.display())]
    Tun {
        /// The program.
        program: &'static str,
        /// The device.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program cannot be started.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program gave up.
    #[error("{program} gave up: {message}")]
    Ended {
        /// The program.
        program: &'static str,
        /// What it said.
        message: String,
    },
    /// The program is up, the namespace is not connected.
    #[error("{program} did not connect the namespace within {} seconds", PATIENCE.as_secs())]
    Slow {
        /// The program.
        program: &'static str,
    },
}

impl Program {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// Where it is.
    pub fn find(self) -> Option<PathBuf> {
        let places = ["/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin", "/usr/local/sbin"];
        places.iter().map(|place| Path::new(place).join(self.name())).find(|path| path.exists())
    }

    /// The name server to use inside, if not the host's own.
    pub fn name_server(self) -> Option<IpAddr> {
        match self {
            Self::Pasta => None,
            Self::Slirp4netns => Some(SLIRP_DNS),
        }
    }

    fn arguments(self, target: Target<'_>) -> Vec<String> {
        let network = target.network.path().display().to_string();
        let user = target.user.map(|path| path.display().to_string());
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match self {
            Self::Pasta => {
                // No ports are forwarded either way, and the gateway's address is not the host.
                let mut arguments = words(&[
                    "--foreground",
                    "--quiet",
                    "--config-net",
                    "--no-map-gw",
                    "-t",
                    "none",
                    "-u",
                    "none",
                    "-T",
                    "none",
                    "-U",
                    "none",
                    "--ns-ifname",
                    "eth0",
                    "--netns",
                    // Its standard input: it has given up the capabilities that our own descriptors could be seen with.
                    "/proc/self/fd/0",
                ]);
                match user {
                    Some(user) => arguments.extend(["--userns".to_owned(), user]),
                    None => arguments.push("--netns-only".to_owned()),
                }
                arguments
            }
            Self::Slirp4netns => {
                let mut arguments = words(&["--configure", "--mtu=65520", "--disable-host-loopback", "--exit-fd=0"]);
                arguments.extend(user.map(|user| format!("--userns-path={user}")));
                arguments.extend(words(&["--netns-type=path", &network, "eth0"]));
                arguments
            }
        }
    }
}

impl UserMode {
    /// Connects a namespace with the first of the programs that is installed.
    pub fn start(target: Target<'_>) -> Result<Self, UserModeError> {
        let mut last = UserModeError::Missing;
        let programs = if rustix::process::geteuid().is_root() { PROGRAMS_OF_ROOT } else { PROGRAMS };
        for program in programs {
            match Self::start_with(program, target) {
                Ok(started) => return Ok(started),
                Err(UserModeError::Missing) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects a namespace with one of the programs; returns when it is connected.
    pub fn start_with(program: Program, target: Target<'_>) -> Result<Self, UserModeError> {
        let place = program.find().ok_or(UserModeError::Missing)?;
        let name = program.name();
        let tun = Path::new("/dev/net/tun");
        if let Err(source) = File::options().read(true).write(true).open(tun) {
            return Err(UserModeError::Tun { program: name, path: tun.to_owned(), source });
        }
        let failed = |source| UserModeError::Start { program: name, source };
        let (input, life) = io::pipe().map_err(failed)?;
        let mut command = Command::new(place);
        command.args(program.arguments(target)).env_clear().stdout(Stdio::null()).stderr(Stdio::piped());
        let life = match program {
            Program::Slirp4netns => {
                command.stdin(input);
                Some(life)
            }
            Program::Pasta => {
                command.stdin(Stdio::from(target.network.as_fd().try_clone_to_owned().map_err(failed)?));
                None
            }
        };
        let child = command.spawn().map_err(failed)?;
        // From here on dropping it ends the program.
        let mut started = Self { program, child, life };
        drop(command);
        started.wait_until_connected(target.network)?;
        Ok(started)
    }

    fn wait_until_connected(&mut self, network: &Namespace) -> Result<(), UserModeError> {
        let program = self.program.name();
        let failed = |source| UserModeError::Start { program, source };
        let mut inside = network.enter(Netlink::open).and_then(|opened| opened).map_err(failed)?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.child.try_wait().map_err(failed)?.is_some() {
                let mut message = String::new();
                if let Some(error) = &mut self.child.stderr {
                    error.read_to_string(&mut message).map_err(failed)?;
                }
                let message = message.lines().last().unwrap_or("it said nothing").trim().to_owned();
                return Err(UserModeError::Ended { program, message });
            }
            if inside.routes().map_err(failed)?.iter().any(|route| route.to.is_none()) {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        Err(UserModeError::Slow { program })
    }

    /// Which program it is.
    pub fn program(&self) -> Program {
        self.program
    }

    /// Its process: number, and when it started in clock ticks since the machine did, which nobody with the same number has.
    pub fn process(&self) -> (u32, u64) {
        (self.child.id(), start_time(self.child.id()).unwrap_or(0))
    }
}

impl Drop for UserMode {
    fn drop(&mut self) {
        drop(self.life.take());
        // It may be gone already.
        drop(self.child.kill());
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, program = self.program.name(), "cannot wait for the program");
        }
    }
}

/// Ends a process that a [`UserMode`] of a dead process left, if it is still that one.
pub fn end_leftover(pid: u32, started: u64) -> io::Result<()> {
    let Some(number) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return Ok(()) };
    let handle = match rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        other => other?,
    };
    // The handle is of whoever has the number now; the start time says whether that is the one.
    if start_time(pid) != Some(started) {
        return Ok(());
    }
    match rustix::process::pidfd_send_signal(handle, rustix::process::Signal::KILL) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        other => Ok(other?),
    }
}

/// Field 22 of `/proc/PID/stat`; the second one, in parentheses, may contain anything.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_program_and_what_it_needs() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let program = "pasta";
        for (error, words) in [
            (
                UserModeError::Missing,
                "neither pasta nor slirp4netns is installed: install the package passt or slirp4netns",
            ),
            (
                UserModeError::Tun { program, path: "/dev/net/tun".into(), source: denied() },
                "pasta needs /dev/net/tun, which cannot be opened (load the kernel module tun, or as root: chmod 0666 /dev/net/tun)",
            ),
            (UserModeError::Start { program, source: denied() }, "cannot start pasta"),
            (UserModeError::Ended { program, message: "no address".into() }, "pasta gave up: no address"),
            (UserModeError::Slow { program }, "pasta did not connect the namespace within 5 seconds"),
        ] {
            assert_eq!(error.to_string(), words);
        }
    }
}
