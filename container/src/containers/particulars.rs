//! A container's particulars at its start: namespaces of others are taken hold of, devices are looked at.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rbuild_executor::{Exceptions, IpcNamespace, NameNamespace, ProcessNamespace};
use rustix::fs::{Mode, OFlags};

use super::{Containers, StartError};
use crate::particulars::{DeviceError, IpcChoice, ProcessChoice, UtsChoice, devices};
use crate::record::ContainerRecord;

/// What the sandbox is to have beside the usual. Valid while this value lives.
pub(super) struct Prepared {
    pub(super) exceptions: Exceptions,
    _held: Vec<OwnedFd>,
}

impl Containers {
    /// Takes hold of what a container asks for.
    pub(super) fn particulars(&self, record: &ContainerRecord) -> Result<Prepared, StartError> {
        let asked = &record.config.particulars;
        let mut held = Vec::new();
        let processes = match &asked.processes {
            ProcessChoice::Private => ProcessNamespace::Own,
            ProcessChoice::Host => ProcessNamespace::Host,
            ProcessChoice::Container(name) => {
                let other = self.find(name)?;
                ProcessNamespace::Path(namespace(&other, "pid", "PID", &mut held)?)
            }
        };
        let ipc = match &asked.ipc {
            IpcChoice::Private | IpcChoice::Shareable => IpcNamespace::Own,
            IpcChoice::None => IpcNamespace::WithoutShm,
            IpcChoice::Host => IpcNamespace::Host,
            IpcChoice::Container(name) => {
                let other = self.find(name)?;
                if other.config.particulars.ipc != IpcChoice::Shareable {
                    return Err(StartError::NotShareable { id: other.id });
                }
                IpcNamespace::Of {
                    ipc: namespace(&other, "ipc", "IPC", &mut held)?,
                    mounts: namespace(&other, "mnt", "IPC", &mut held)?,
                }
            }
        };
        let devices = devices(&asked.devices).map_err(|error| match error {
            DeviceError::File { path, source } => StartError::Device { path, source },
            DeviceError::NotADevice { path } => StartError::NotADevice { path },
        })?;
        let exceptions = Exceptions {
            processes,
            ipc,
            names: match asked.uts {
                UtsChoice::Private => NameNamespace::Own,
                UtsChoice::Host => NameNamespace::Host,
            },
            domainname: asked.domainname.clone(),
            sysctls: asked.sysctls.paths(),
            oom_score_adj: asked.oom_score_adj.filter(|score| *score != 0),
            devices,
            device_rules: asked.device_rules.clone(),
        };
        Ok(Prepared { exceptions, _held: held })
    }
}

/// A path to a namespace of a container that runs, good as long as what was added to `held` is.
fn namespace(
    of: &ContainerRecord,
    file: &str,
    kind: &'static str,
    held: &mut Vec<OwnedFd>,
) -> Result<PathBuf, StartError> {
    let not_running = || StartError::JoinedNotRunning { kind, id: of.id.clone() };
    let process = of.state.process.filter(|_| of.state.status.is_live()).ok_or_else(not_running)?;
    // Held while the number is used, so that it is not another's.
    let _process = process.open().map_err(StartError::Follow)?.ok_or_else(not_running)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(format!("/proc/{}/ns/{file}", process.pid), flags, Mode::empty());
    let opened = opened.map_err(|errno| match errno {
        rustix::io::Errno::NOENT | rustix::io::Errno::SRCH => not_running(),
        errno => StartError::Follow(io::Error::from(errno)),
    })?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), opened.as_raw_fd()).into();
    held.push(opened);
    Ok(path)
}
