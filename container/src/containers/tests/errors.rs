//! What errors of commands on containers say, where no sandbox of the other tests meets them.

use std::io;

use rbuild_image::ContainerPath;

use super::super::copy::CopyError;
use super::super::{
    AttachError, CreateError, ExecError, ExportError, LiveError, RenameError, StartError, StopError, WorkingDirError,
};
use crate::id::ContainerId;
use crate::network::PortTaken;
use crate::signal::Signal;
use crate::status::ContainerStatus;

fn denied() -> io::Error {
    io::ErrorKind::PermissionDenied.into()
}

fn id() -> ContainerId {
    "a".repeat(64).parse().unwrap()
}

fn path() -> ContainerPath {
    ContainerPath::new("/a/b")
}

fn terminated() -> Signal {
    "TERM".parse().unwrap()
}

#[test]
fn creating_and_starting() {
    let taken = PortTaken::RangeInUse { address: "0.0.0.0:80".parse().unwrap(), last: 89 };
    let errors: [Box<dyn std::error::Error>; 18] = [
        Box::new(CreateError::WorkingDir { path: path(), source: WorkingDirError::NotADirectory }),
        Box::new(WorkingDirError::NotADirectory),
        Box::new(StartError::NotFound { id: id() }),
        Box::new(StartError::AlreadyRunning { id: id() }),
        Box::new(StartError::Interrupted { signal: terminated() }),
        Box::new(StartError::BindSource { path: "/nowhere".into() }),
        Box::new(StartError::Port(taken)),
        Box::new(StartError::Relay(denied())),
        Box::new(StartError::Routes(denied())),
        Box::new(StartError::HostGateway),
        Box::new(StartError::SharedNotRunning { id: id() }),
        Box::new(StartError::JoinedNotRunning { kind: "PID", id: id() }),
        Box::new(StartError::NotShareable { id: id() }),
        Box::new(StartError::Device { path: "/dev/x".into(), source: denied() }),
        Box::new(StartError::NotADevice { path: "/dev/x".into() }),
        Box::new(StartError::Streams(denied())),
        Box::new(StartError::Follow(denied())),
        Box::new(RenameError::Same),
    ];
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(words.join("\n"), @r#"
    cannot create the working directory /a/b
    it exists and is no directory
    no such container: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    container aaaaaaaaaaaa is already running
    interrupted by SIGTERM before the container ran
    bind source path does not exist: /nowhere
    cannot publish the container's ports
    cannot serve the container's ports
    cannot set the container's routes
    host-gateway: the container's network is served by a process, through which this machine is out of reach
    cannot join network of a non running container: aaaaaaaaaaaa
    cannot join PID of a non running container: aaaaaaaaaaaa
    container aaaaaaaaaaaa: non-shareable IPC (hint: use --ipc=shareable for the donor container)
    error gathering device information while adding custom device "/dev/x"
    error gathering device information while adding custom device "/dev/x": not a device node
    cannot connect the container's streams
    cannot follow the container's process
    renaming a container with the same name as its current name
    "#);
}

#[test]
fn commands_on_running_containers() {
    let errors: [Box<dyn std::error::Error>; 17] = [
        Box::new(ExecError::NotRunning { id: id() }),
        Box::new(ExecError::Paused { id: id() }),
        Box::new(ExecError::Restarting { id: id() }),
        Box::new(ExecError::WorkingDir { path: "a".to_owned() }),
        Box::new(ExecError::Interrupted { signal: terminated() }),
        Box::new(ExecError::Reach { id: id(), source: denied() }),
        Box::new(ExecError::Streams(denied())),
        Box::new(ExecError::Follow(denied())),
        Box::new(LiveError::NotRunning { id: id() }),
        Box::new(LiveError::AlreadyPaused { id: id() }),
        Box::new(LiveError::NotPaused { id: id() }),
        Box::new(LiveError::Removed { id: id() }),
        Box::new(LiveError::Groups { id: id(), source: denied() }),
        Box::new(StopError::NotRunning { id: id(), status: ContainerStatus::Created }),
        Box::new(StopError::Signal { id: id(), source: denied() }),
        Box::new(StopError::NotRecorded { id: id() }),
        Box::new(AttachError::Inside(denied())),
    ];
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(words.join("\n"), @r"
    container aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is not running
    container aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is paused, unpause the container before exec
    container aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is restarting, wait until the container is running
    the working directory 'a' is invalid, it needs to be an absolute path
    interrupted by SIGTERM before the command ran
    cannot reach the process of container aaaaaaaaaaaa
    cannot connect the command's streams
    cannot follow the command's process
    container aaaaaaaaaaaa is not running
    container aaaaaaaaaaaa is already paused
    container aaaaaaaaaaaa is not paused
    restart policy cannot be updated because --rm removes container aaaaaaaaaaaa when it ends
    cannot reach the control groups of container aaaaaaaaaaaa
    container aaaaaaaaaaaa is not running: it is created
    cannot signal container aaaaaaaaaaaa
    container aaaaaaaaaaaa was killed, but the process that runs it does not finish
    cannot change the network of the running container
    ");
}

#[test]
fn connecting_and_copying() {
    let errors: [Box<dyn std::error::Error>; 12] = [
        Box::new(AttachError::Shared),
        Box::new(AttachError::Host),
        Box::new(AttachError::Private),
        Box::new(AttachError::Process { name: "web".to_owned() }),
        Box::new(CopyError::NotFound { path: path(), id: id() }),
        Box::new(CopyError::Busy { id: id() }),
        Box::new(CopyError::File { action: "read", path: path(), source: denied() }),
        Box::new(CopyError::ReadOnly { path: path() }),
        Box::new(CopyError::Mounted { path: path() }),
        Box::new(CopyError::Open { id: id(), source: denied() }),
        Box::new(ExportError::Read { path: path(), source: denied() }),
        Box::new(ExportError::Finish(denied())),
    ];
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(words.join("\n"), @r"
    container sharing network namespace with another container or host cannot be connected to any other network
    container cannot be disconnected from host network or connected to host network
    container cannot be connected to multiple networks with one of the networks in private (none) mode
    the network of container web is served by a process: restart the container to connect it
    could not find the file /a/b in container aaaaaaaaaaaa
    container aaaaaaaaaaaa is being started: try again
    cannot read /a/b
    cannot write /a/b: it is read-only in the container
    cannot replace /a/b: it is mounted into the container (device or resource busy)
    cannot open the files of container aaaaaaaaaaaa
    cannot read /a/b of the container
    cannot finish the archive
    ");
}
