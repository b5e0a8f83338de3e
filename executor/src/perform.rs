//! The child replays a plan: it makes its own root out of detached mounts, and then starts the program.
//!
//! Runs in a process with one thread that [`crate::sys::clone::fork`] made; it never returns. What goes wrong is told to the
//! sandbox's owner over the set-up socket.

mod prepare;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rbuild_image::ContainerPath;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::net::RecvFlags;
use rustix::process::Signal;
use rustix::thread::LinkNameSpaceType;
use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::cgroup::SandboxCgroup;
use crate::channel;
use crate::init;
use crate::launch::{self, Launch};
use crate::mount_point::{Leftovers, MountPoints, Shape};
use crate::plan::{DeviceOrigin, MountStep, PlannedSource, SetupPlan, Step};
use crate::root_dir::RootDir;
use crate::rootfs::layer_mounts::LayerMounts;
use crate::rootfs::memory_file::MemoryFiles;
use crate::rootfs::source::Source;
use crate::rootfs::{self, device, mask, overlay, source};
use crate::spawn_error::SpawnError;
use crate::spec::{Durability, Init, MountSource, Rootfs};
use crate::stdio::{Slot, WindowSize};
use crate::sys;
use crate::sys::clone::Forked;
use crate::sys::mount::{Depth, set_attributes};
use crate::sys::process::Block;
use crate::sys::seccomp::Instruction;

pub(crate) use prepare::{begin, follow, prepare};
use prepare::{detach, new_proc, new_sys, sys_cgroup};

/// What a sandbox tells its owner while it is set up.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SetupMessage {
    /// What has to be removed from the root's backing directory in the end.
    Leftovers(Leftovers),
    /// The program is about to start; the terminal travels along if there is one.
    Ready,
    /// It will not start.
    Failed(SpawnError),
}

/// Everything the child needs beside the plan.
pub(crate) struct Inside<'a> {
    pub(crate) plan: &'a SetupPlan,
    pub(crate) cgroup: &'a SandboxCgroup,
    /// The compiled filter, unless unconfined.
    pub(crate) filter: Option<&'a [Instruction]>,
    /// To the owner, until the program starts.
    pub(crate) setup: OwnedFd,
    /// To the owner, for the program's status when an init of ours is PID 1.
    pub(crate) exit: OwnedFd,
    /// The process that forked this one.
    pub(crate) spawner: BorrowedFd<'a>,
    pub(crate) slots: [Slot; 3],
    /// First size of the terminal.
    pub(crate) window: Option<WindowSize>,
    pub(crate) stdio: Vec<OwnedFd>,
    pub(crate) network: Option<OwnedFd>,
    /// The IPC namespace to join.
    pub(crate) ipc: Option<OwnedFd>,
    /// The mount namespace whose `/dev/shm` is shared.
    pub(crate) mounts: Option<OwnedFd>,
    /// Mounts that the engine made.
    pub(crate) ready: Vec<OwnedFd>,
    /// Layers that the spawner has mounted.
    pub(crate) layers: LayerMounts,
}

impl<'a> Inside<'a> {
    /// Whether devices have to be kept away without the help of a cgroup.
    pub(crate) fn lacks_device_confinement(&self) -> bool {
        self.plan.cgroup.confine_devices && !self.cgroup.devices_confined
    }

    /// What the program may have: nobody makes device files where nothing confines their use.
    pub(crate) fn capabilities(&self) -> Capabilities {
        let planned = self.plan.process.capabilities;
        if self.lacks_device_confinement() { planned.difference(Capabilities::MKNOD) } else { planned }
    }

    /// What becomes the program, and the socket that is not its business.
    fn launch(self, tie: Tie<'a>) -> (Launch<'a>, OwnedFd) {
        let capabilities = self.capabilities();
        let launch = Launch {
            process: &self.plan.process,
            capabilities,
            filter: self.filter,
            setup: self.setup,
            slots: self.slots,
            stdio: self.stdio,
            tie,
        };
        (launch, self.exit)
    }
}

/// What later steps need of earlier ones.
#[derive(Default)]
pub(crate) struct Built {
    root: Option<OwnedFd>,
    /// Mounts that the engine made, until they are used.
    ready: Vec<Option<OwnedFd>>,
    /// Mounts with ties to the host's, by their place.
    trees: BTreeMap<ContainerPath, Source>,
    /// Layers that the spawner has mounted; closed when all mounts are made.
    layers: LayerMounts,
    mount_points: Option<MountPoints>,
    pub(crate) proc: Option<OwnedFd>,
    sys: Option<OwnedFd>,
    /// `/dev` of the sandbox, whatever is mounted over it.
    pub(crate) dev: Option<OwnedFd>,
    pts: Option<OwnedFd>,
    masks: Option<mask::Masks>,
    /// Made before the root was known, and not in place yet, like `proc`, `dev` and `pts` at that time.
    shm: Option<OwnedFd>,
    mqueue: Option<OwnedFd>,
    /// `/proc` without what covers parts of it, where that was done early.
    bare_proc: Option<OwnedFd>,
    /// Whether `/sys` was made early, with all that is mounted in it and covers parts of it.
    sys_ready: bool,
    memory: MemoryFiles,
    /// Our side of the terminal, and the sandbox's.
    pub(crate) terminal: Option<(OwnedFd, OwnedFd)>,
}

/// Sets everything up, but for what was prepared, and starts the program. Never returns.
pub(crate) fn run(inside: Inside<'_>, prepared: Option<Built>) -> ! {
    let setup = inside.setup.as_fd().try_clone_to_owned();
    or_tell(setup, || set_up(inside, prepared))
}

/// Tells the owner what went wrong.
fn or_tell(setup: io::Result<OwnedFd>, become_program: impl FnOnce() -> Result<Infallible, SpawnError>) -> ! {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(become_program));
    let error = match outcome {
        Ok(Err(error)) => error,
        Ok(Ok(never)) => match never {},
        Err(_) => SpawnError::setup("set up the sandbox", io::Error::other("the set-up panicked")),
    };
    if let Ok(setup) = setup {
        // The owner may be gone; then nobody wants to know.
        drop(channel::send(&setup, &SetupMessage::Failed(error), &[]));
    }
    sys::process::exit_now(125)
}

fn set_up(mut inside: Inside<'_>, prepared: Option<Built>) -> Result<Infallible, SpawnError> {
    if prepared.is_none() {
        begin(inside.spawner, inside.cgroup, &inside.plan.namespaces)?;
    }
    let trees = trees(inside.plan)?;
    detach()?;
    join(&inside)?;
    let ready = std::mem::take(&mut inside.ready).into_iter().map(Some).collect();
    let layers = std::mem::take(&mut inside.layers);
    let mut built = Built { ready, trees, layers, ..prepared.unwrap_or_default() };
    let done = inside.plan.steps.iter().try_for_each(|step| {
        let done = perform(step, &inside, &mut built);
        report_news(&inside, &mut built).and(done)
    });
    built.layers = LayerMounts::default();
    // Told in any case: a failed set-up leaves something to remove, too.
    report_leftovers(&inside, &mut built)?;
    done?;
    start(inside, built)
}

/// Opens the mounts that are tied to the host's, while those are still in sight.
fn trees(plan: &SetupPlan) -> Result<BTreeMap<ContainerPath, Source>, SpawnError> {
    let mut trees = BTreeMap::new();
    for step in &plan.steps {
        if let Step::Mount(MountStep { target, source: PlannedSource::Spec(source), access, .. }) = step
            && let MountSource::Tree { path, manner } = source
        {
            let opened = source::tree(path, *manner, *access).map_err(|source| SpawnError::MountSource {
                target: target.clone(),
                path: path.clone(),
                source,
            })?;
            trees.insert(target.clone(), opened);
        }
    }
    Ok(trees)
}

/// With whose end a process ends.
#[derive(Clone, Copy)]
pub(crate) enum Tie<'a> {
    /// Its parent's; this descriptor becomes readable with it.
    Watched(BorrowedFd<'a>),
    /// Its parent's, which cannot end before without ending the whole sandbox.
    Parent,
}

impl Tie<'_> {
    /// Ends this process when its parent does. The parent may already have ended, which the kernel's signal does not tell.
    pub(crate) fn bind(self) -> Result<(), SpawnError> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|e| SpawnError::setup("tie the sandbox to its owner", e))?;
        if let Self::Watched(parent) = self {
            let mut polled = [PollFd::new(&parent, PollFlags::IN)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            if rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0) {
                return Err(SpawnError::Died);
            }
        }
        Ok(())
    }
}

/// Joins other namespaces that exist.
fn join(inside: &Inside<'_>) -> Result<(), SpawnError> {
    if let Some(network) = &inside.network {
        join_network(network).map_err(|errno| SpawnError::Network {
            path: inside.plan.network.clone().unwrap_or_default(),
            source: errno.into(),
        })?;
    }
    if let Some(ipc) = &inside.ipc {
        rustix::thread::move_into_link_name_space(ipc.as_fd(), Some(LinkNameSpaceType::InterProcessCommunication))
            .map_err(|e| SpawnError::setup("join the other container's IPC namespace", e))?;
    }
    Ok(())
}

/// Joins a network namespace.
pub(crate) fn join_network(network: &OwnedFd) -> rustix::io::Result<()> {
    rustix::thread::move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
}

fn perform(step: &Step, inside: &Inside<'_>, built: &mut Built) -> Result<(), SpawnError> {
    match step {
        Step::Root(rootfs, durability) => {
            root(rootfs, *durability, inside, built).map_err(|source| SpawnError::Rootfs { source })
        }
        Step::ReadyRoot { mount, upper } => {
            let ready = built.ready.get_mut(*mount).and_then(Option::take).ok_or_else(|| Errno::INVAL.into());
            let placed = ready.and_then(|mount| place_root(mount, upper, inside, built));
            placed.map_err(|source| SpawnError::Rootfs { source })
        }
        Step::Proc => {
            let mount = built.proc.take().map_or_else(new_proc, Ok);
            built.proc = Some(place("/proc", mount, built)?);
            Ok(())
        }
        Step::Sysctl { name, value } => {
            // The kernel may be built without it.
            let written = sysctl(built, name, value);
            written.or_else(|errno| if errno == Errno::NOENT { Ok(()) } else { Err(sysctl_refused(name, errno)) })
        }
        Step::AskedSysctl { name, value } => sysctl(built, name, value).map_err(|e| sysctl_refused(name, e)),
        Step::OomScoreAdj(score) => {
            let proc = built.proc.as_ref().expect("scores come after /proc");
            let own = format!("{}/oom_score_adj", rustix::process::getpid().as_raw_nonzero());
            write_below(proc, &own, &score.to_string()).map_err(|errno| SpawnError::Limit {
                limit: "oom-score-adj".to_owned(),
                reason: match errno {
                    Errno::ACCESS | Errno::PERM => {
                        "to lower it needs CAP_SYS_RESOURCE, which this user lacks".to_owned()
                    }
                    errno => io::Error::from(errno).to_string(),
                },
            })
        }
        Step::LoopbackUp => {
            sys::net::loopback_up().map_err(|e| SpawnError::setup("bring the loopback interface up", e))
        }
        Step::Dev { nodes, origin } => {
            let terminal = inside.plan.steps.contains(&Step::Terminal);
            let made = built.dev.take().map_or_else(|| device::dev(nodes, *origin, terminal), Ok);
            let mount = made.map_err(|source| failed_mount("/dev", source))?;
            let dev = place("/dev", Ok(mount), built)?;
            if *origin == DeviceOrigin::Host {
                device::bind_host_nodes(&dev, nodes).map_err(|source| failed_mount("/dev", source))?;
            }
            built.dev = Some(dev);
            Ok(())
        }
        Step::HostDevices(devices) => {
            let dev = built.dev.as_ref().expect("devices come after /dev");
            device::make_host_devices(dev, devices)
                .map_err(|(name, errno)| failed_mount(&format!("/dev/{name}"), errno.into()))
        }
        Step::DevPts => {
            let mount = built.pts.take().map_or_else(device::pts, Ok);
            built.pts = Some(place("/dev/pts", mount, built)?);
            Ok(())
        }
        Step::DevShm { size } => {
            let mount = built.shm.take().map_or_else(|| device::shm(*size), Ok);
            place("/dev/shm", mount, built).map(drop)
        }
        Step::SharedShm => place("/dev/shm", shared_shm(inside), built).map(drop),
        Step::DevMqueue => {
            let mount = built.mqueue.take().map_or_else(device::mqueue, Ok);
            place("/dev/mqueue", mount, built).map(drop)
        }
        Step::Terminal => terminal(inside.window, built).map_err(|e| SpawnError::setup("make the terminal", e)),
        Step::Sys(access) => {
            let mount = built.sys.take().map_or_else(|| new_sys(*access), Ok);
            built.sys = Some(place("/sys", mount, built)?);
            Ok(())
        }
        Step::HostSys => {
            built.sys = Some(place("/sys", rootfs::host_sys(), built)?);
            Ok(())
        }
        Step::SysCgroup(access) => {
            if built.sys_ready {
                return Ok(());
            }
            sys_cgroup(inside.cgroup, built, *access).map_err(|source| failed_mount("/sys/fs/cgroup", source))
        }
        Step::Mount(step) => mount(step, inside, built),
        // Done when that was prepared.
        Step::Mask(path) | Step::ReadOnlyPath(path) if built.bare_proc.is_some() && is_below(path, b"proc") => Ok(()),
        Step::Mask(path) | Step::ReadOnlyPath(path) if built.sys_ready && is_below(path, b"sys") => Ok(()),
        Step::Mask(path) => cover(built, path, Cover::Mask).map_err(|e| SpawnError::setup(&format!("mask {path}"), e)),
        Step::ReadOnlyPath(path) => {
            cover(built, path, Cover::ReadOnly).map_err(|e| SpawnError::setup(&format!("write-protect {path}"), e))
        }
        Step::RootReadOnly => {
            let root = built.root.as_ref().expect("the plan begins with the root");
            set_attributes(root.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, Depth::Single)
                .map_err(|e| SpawnError::setup("make the root read-only", e))
        }
        Step::Pivot => pivot(built).map_err(|e| SpawnError::setup("enter the root file system", e)),
        Step::Hostname(name) => {
            rustix::system::sethostname(name.as_bytes()).map_err(|e| SpawnError::setup("set the host name", e))
        }
        Step::Domainname(name) => {
            rustix::system::setdomainname(name.as_bytes()).map_err(|e| SpawnError::setup("set the domain name", e))
        }
    }
}

/// Mounts the root over the host's root, in this namespace only: a place that always exists.
fn root(rootfs: &Rootfs, durability: Durability, inside: &Inside<'_>, built: &mut Built) -> io::Result<()> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (mount, backing) = match rootfs {
        Rootfs::Overlay { lowers, upper, work } => {
            let mount = overlay::mount(lowers, &built.layers, upper, work, durability, inside.plan.overlay_marks);
            (mount.map_err(|error| overlay::explain(error, upper))?, upper)
        }
        Rootfs::Directory(path) => {
            (rootfs::clone_tree(rustix::fs::open(path, directory, Mode::empty())?, false)?, path)
        }
    };
    place_root(mount, backing, inside, built)
}

/// Puts a mount over the host's root, in this namespace only.
fn place_root(mount: OwnedFd, backing: &Path, inside: &Inside<'_>, built: &mut Built) -> io::Result<()> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let backing = RootDir::open(backing)?;
    without_devices(&mount, inside)?;
    rootfs::attach(&mount, rustix::fs::open(c"/", directory, Mode::empty())?.as_fd())?;
    built.mount_points = Some(MountPoints::new(RootDir::from_fd(mount.try_clone()?), backing));
    built.root = Some(mount);
    Ok(())
}

/// Where no cgroup confines device access, device files of the image and of mounts do not work.
fn without_devices(mount: &OwnedFd, inside: &Inside<'_>) -> rustix::io::Result<()> {
    if inside.lacks_device_confinement() {
        set_attributes(mount.as_fd(), MountAttrFlags::MOUNT_ATTR_NODEV, Depth::Recursive)?;
    }
    Ok(())
}

/// Attaches one of the kernel's file systems.
fn place(target: &str, mount: rustix::io::Result<OwnedFd>, built: &mut Built) -> Result<OwnedFd, SpawnError> {
    let mount = mount.map_err(|errno| failed_mount(target, errno.into()))?;
    let path = ContainerPath::new(target);
    let points = built.mount_points.as_mut().expect("the plan begins with the root");
    let place = points.open_kernel(&path).map_err(|source| failed_mount(target, source))?;
    let Some(place) = place else { return Err(SpawnError::MountOverSymlink { target: path }) };
    rootfs::attach(&mount, place.as_fd()).map_err(|errno| failed_mount(target, errno.into()))?;
    Ok(mount)
}

fn failed_mount(target: &str, source: io::Error) -> SpawnError {
    SpawnError::Mount { target: ContainerPath::new(target), source }
}

/// Writes through our own, still bare procfs mount (rule S-20).
fn sysctl(built: &Built, name: &str, value: &str) -> rustix::io::Result<()> {
    let proc = built.bare_proc.as_ref().or(built.proc.as_ref()).expect("sysctls come after /proc");
    write_below(proc, &format!("sys/{name}"), value)
}

fn write_below(proc: &OwnedFd, path: &str, value: &str) -> rustix::io::Result<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(proc, path, flags, Mode::empty(), resolve)?;
    rustix::io::write(file, value.as_bytes()).map(drop)
}

fn sysctl_refused(name: &str, errno: Errno) -> SpawnError {
    SpawnError::setup(&format!("set the sysctl {}", name.replace('/', ".")), errno)
}

/// The `/dev/shm` of another sandbox, as a mount of its own. It can only be copied from inside the other's mount namespace: a
/// process of its own goes there, and hands it back.
fn shared_shm(inside: &Inside<'_>) -> rustix::io::Result<OwnedFd> {
    let other = inside.mounts.as_ref().ok_or(Errno::INVAL)?;
    let lost = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let (ours, theirs) = channel::pair().map_err(lost)?;
    match sys::clone::fork(0, None)? {
        Forked::Child => {
            let copied = copy_shm(other);
            let (errno, shm) = match &copied {
                Ok(shm) => (0, Some(shm.as_fd())),
                Err(errno) => (errno.raw_os_error(), None),
            };
            let sent = channel::send(&theirs, &errno, &shm.into_iter().collect::<Vec<_>>());
            sys::process::exit_now(sent.is_err().into())
        }
        Forked::Parent { pid, .. } => {
            drop(theirs);
            let answer = channel::receive::<i32>(&ours, RecvFlags::empty()).map_err(lost)?;
            while sys::process::wait(Some(pid), Block::Yes).is_err_and(|errno| errno == Errno::INTR) {}
            match answer {
                Some((0, mut shm)) => shm.pop().ok_or(Errno::IO),
                Some((errno, _)) => Err(Errno::from_raw_os_error(errno)),
                None => Err(Errno::IO),
            }
        }
    }
}

fn copy_shm(namespace: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(c"/", flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rootfs::clone_tree(rustix::fs::openat2(root, c"dev/shm", flags, Mode::empty(), resolve)?, false)
}

fn terminal(window: Option<WindowSize>, built: &mut Built) -> io::Result<()> {
    let pts = built.pts.as_ref().expect("the terminal comes after /dev/pts");
    let dev = built.dev.as_ref().expect("the terminal comes after /dev");
    let (ours, theirs) = device::terminal(pts, window)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let console = rustix::fs::openat(dev, c"console", flags, Mode::empty())?;
    rootfs::attach(rootfs::clone_tree(&theirs, false)?, console.as_fd())?;
    built.terminal = Some((ours, theirs));
    Ok(())
}

fn mount(step: &MountStep, inside: &Inside<'_>, built: &mut Built) -> Result<(), SpawnError> {
    let target = || step.target.clone();
    let opened = match built.trees.remove(&step.target) {
        Some(tree) => tree,
        None => {
            source::open(&step.source, step.access, inside.plan, &mut built.memory, &mut built.ready, &built.layers)
                .map_err(|(path, source)| {
                    let path = path.or_else(|| match &step.source {
                        PlannedSource::Spec(MountSource::Bind { path }) => Some(path.clone()),
                        _ => None,
                    });
                    match path {
                        Some(path) => SpawnError::MountSource { target: target(), path, source },
                        None => SpawnError::Mount { target: target(), source },
                    }
                })?
        }
    };
    without_devices(&opened.mount, inside)
        .map_err(|errno| SpawnError::Mount { target: target(), source: errno.into() })?;
    let shape = if opened.directory { Shape::Directory } else { Shape::File };
    let points = built.mount_points.as_mut().expect("the plan begins with the root");
    let place = points
        .open(&step.target, shape, step.mount_point)
        .map_err(|source| SpawnError::Mount { target: target(), source })?;
    if points.last_is_in_proc() {
        return Err(SpawnError::Mount {
            target: target(),
            source: io::Error::other("it is inside /proc, which belongs to the kernel"),
        });
    }
    rootfs::attach(opened.mount, place.as_fd())
        .map_err(|errno| SpawnError::Mount { target: target(), source: errno.into() })
}

fn is_below(path: &ContainerPath, first: &[u8]) -> bool {
    path.components().next() == Some(first)
}

enum Cover {
    Mask,
    ReadOnly,
}

/// Covers something in `/proc` or `/sys`, found from our own mounts of them.
fn cover(built: &mut Built, path: &ContainerPath, cover: Cover) -> io::Result<()> {
    let mut components = path.components();
    let base = match components.next() {
        Some(b"proc") => built.proc.as_ref(),
        Some(b"sys") => built.sys.as_ref(),
        _ => None,
    };
    let base = base.ok_or(Errno::INVAL)?;
    let rest = components.fold(ContainerPath::root(), |below, name| below.join(name));
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let target = match rustix::fs::openat2(base, rest.relative(), flags, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        other => other?,
    };
    match cover {
        Cover::ReadOnly => mask::write_protect(&target),
        Cover::Mask => {
            if built.masks.is_none() {
                built.masks = Some(mask::Masks::open()?);
            }
            built.masks.as_mut().map_or(Ok(()), |masks| masks.hide(&target))
        }
    }
}

fn pivot(built: &Built) -> io::Result<()> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::open(c"/", directory, Mode::empty())?;
    rustix::process::fchdir(built.root.as_ref().expect("the plan begins with the root"))?;
    rustix::process::pivot_root(c".", c".")?;
    // The old root now lies over the new one.
    rustix::process::fchdir(&old)?;
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")?;
    Ok(())
}

/// Tells the owner of mount points that were made just now: whoever is killed later has told.
fn report_news(inside: &Inside<'_>, built: &mut Built) -> Result<(), SpawnError> {
    let Some(news) = built.mount_points.as_mut().and_then(MountPoints::news) else { return Ok(()) };
    let sent = channel::send(&inside.setup, &SetupMessage::Leftovers(news), &[]);
    sent.map_err(|source| SpawnError::setup("remember the mount points that were made", source))
}

fn report_leftovers(inside: &Inside<'_>, built: &mut Built) -> Result<(), SpawnError> {
    let Some(points) = built.mount_points.take() else { return Ok(()) };
    let failed = |source: io::Error| SpawnError::setup("remember the mount points that were made", source);
    let leftovers = points.finish().map_err(failed)?;
    if leftovers.is_empty() {
        return Ok(());
    }
    channel::send(&inside.setup, &SetupMessage::Leftovers(leftovers), &[]).map_err(failed)
}

/// Becomes the program, or its init.
fn start(inside: Inside<'_>, built: Built) -> Result<Infallible, SpawnError> {
    if inside.plan.process.init == Init::Process {
        let spawner = Tie::Watched(inside.spawner);
        return launch::launch(inside.launch(spawner).0, built);
    }
    init::prepare()?;
    let (launch, exit) = inside.launch(Tie::Parent);
    let program = sys::clone::vfork(|| {
        let setup = launch.setup.as_fd().try_clone_to_owned();
        or_tell(setup, || {
            Tie::Parent.bind()?;
            launch::launch(launch, built)
        })
    });
    init::run(exit, program.map_err(|e| SpawnError::setup("start the program", e))?)
}
