//! `commit`: a container becomes an image, its changes the topmost layer.

use std::collections::HashMap;

use rbuild_cache::snapshot::{Content, LayerWriter, Metadata};
use rbuild_cache::view::{FileKind, Stat, View};
use rbuild_cache::{Lease, SnapshotId};
use rbuild_container::{ContainerId, ContainerMountSource, ContainerRecord, ContainerStatus, Containers};
use rbuild_image::{ContainerPath, DiffId, Digest, Empty, History, ImageConfig, ImageRef, RuntimeConfig};

use super::config_changes;
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::file_changes::{Aspect, Comparing, FileChange, compare};
use crate::image_names::{self, Known};
use crate::output::{Built, put_image};

/// What is to become an image.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// The container: name, id, or beginning of an id.
    pub container: String,
    /// The image's name.
    pub name: Option<ImageRef>,
    /// Who made it.
    pub author: Option<String>,
    /// Comment in the history.
    pub message: Option<String>,
    /// Dockerfile instructions that change the config.
    pub changes: Vec<String>,
    /// Whether a running container stands still meanwhile.
    pub pausing: Pausing,
}

/// Whether a running container stands still while its files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pausing {
    /// It does.
    WhileReading,
    /// It goes on.
    Never,
}

/// Makes an image of a container; gives its id. Volumes and other mounts are no part of it.
pub fn commit(engine: &Engine, containers: &Containers, request: &CommitRequest) -> Result<Digest, Failure> {
    let store = engine.store()?;
    let lease = store.lease("commit")?;
    let record = containers.find(&request.container)?;
    let image = store.images().by_id(&record.image.id)?;
    let base = match image_names::config(store, &record.image.id) {
        Ok(config) => config,
        // Its image was removed by force, and nothing but the files is left.
        Err(failure) => match image {
            Some(_) => return Err(failure),
            None => ImageConfig::new(&rbuild_image::Platform::host()),
        },
    };
    let now = jiff::Timestamp::now();
    let still = Still::of(containers, &record, request.pausing)?;
    let view = containers.view(&record, &lease)?;
    let parent = store.snapshots().view(record.snapshot)?;
    let snapshot = write_layer(engine, &lease, record.snapshot, (&parent, &view))?;
    still.end()?;

    let layers = store.snapshots().layers(snapshot)?;
    let mut config = base;
    let platform = config.platform();
    config.config = config_changes::apply(of_container(&config.config, &record), &request.changes, &platform)?;
    config.created = Some(now.to_string());
    if let Some(author) = &request.author {
        config.author.clone_from(author);
    }
    config.rootfs.diff_ids = known_layers(&config, &record, &layers);
    config.history.push(History {
        created: Some(now.to_string()),
        created_by: record.config.command.join(" "),
        author: request.author.clone().unwrap_or_default(),
        comment: request.message.clone().unwrap_or_default(),
        ..History::default()
    });
    let size = layers.iter().map(|layer| layer.size).sum();
    let base_layers = config.rootfs.diff_ids.len().saturating_sub(1);
    let built = Built { config, snapshot: Some(snapshot), size, base_layers };
    let id = put_image(store, &lease, &built, request.name.as_slice())?;
    let name = request.name.as_ref().map(ToString::to_string).unwrap_or_default();
    if let Some(name) = &request.name {
        Known::of(store, &id).tell_of_name(store, name);
    }
    let comment = request.message.as_deref().unwrap_or_default();
    let more = [("comment", comment), ("imageID", &id.to_string()), ("imageRef", &name)];
    containers.tell(&record, "commit", &more);
    Ok(id)
}

/// Layers of the image keep the digests that it knows them by; the new one is last.
fn known_layers(
    config: &ImageConfig,
    record: &ContainerRecord,
    layers: &[rbuild_cache::snapshot::LayerInfo],
) -> Vec<DiffId> {
    let known = &config.rootfs.diff_ids;
    let own: Vec<DiffId> = layers.iter().map(|layer| layer.diff.diff_id).collect();
    match (record.snapshot, own.split_last()) {
        (Some(_), Some((new, below))) if below.len() == known.len() => known.iter().copied().chain([*new]).collect(),
        _ => own,
    }
}

/// The config that a container runs with, as an image's.
fn of_container(image: &RuntimeConfig, record: &ContainerRecord) -> RuntimeConfig {
    let container = &record.config;
    let words = |words: &Vec<String>| (!words.is_empty()).then(|| words.clone());
    let mut volumes = image.volumes.clone();
    for mount in &container.mounts {
        if let ContainerMountSource::Volume { .. } = mount.source {
            volumes.insert(String::from_utf8_lossy(mount.target.as_bytes()).into_owned(), Empty);
        }
    }
    RuntimeConfig {
        user: container.user.clone(),
        exposed_ports: container.exposed_ports.iter().map(|port| (port.clone(), Empty)).collect(),
        env: container.env.iter().filter(|variable| variable.contains('=')).cloned().collect(),
        entrypoint: words(&container.entrypoint),
        cmd: words(&container.command),
        volumes,
        working_dir: match String::from_utf8_lossy(container.working_dir.as_bytes()).into_owned() {
            root if root == "/" && image.working_dir.is_empty() => String::new(),
            directory => directory,
        },
        labels: container.labels.clone(),
        ..image.clone()
    }
}

/// A running container stands still while this lives.
struct Still<'a> {
    containers: &'a Containers,
    frozen: Option<ContainerId>,
}

impl<'a> Still<'a> {
    fn of(containers: &'a Containers, record: &ContainerRecord, pausing: Pausing) -> Result<Self, Failure> {
        let freezes = pausing == Pausing::WhileReading && record.state.status == ContainerStatus::Running;
        if freezes {
            containers.pause(record).map_err(|error| {
                Failure::from(error).with_help("--pause=false takes the files as they are, while the container goes on")
            })?;
        }
        Ok(Self { containers, frozen: freezes.then(|| record.id.clone()) })
    }

    /// Lets it go on.
    fn end(mut self) -> Result<(), Failure> {
        self.go_on()
    }

    fn go_on(&mut self) -> Result<(), Failure> {
        let Some(id) = self.frozen.take() else { return Ok(()) };
        match self.containers.load(&id)? {
            // Somebody else may have let it go on, or ended it.
            Some(record) if record.state.status == ContainerStatus::Paused => Ok(self.containers.unpause(&record)?),
            _ => Ok(()),
        }
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        if let Err(failure) = self.go_on() {
            tracing::error!(failure = failure.message(), "the container stays frozen: rbuild unpause lets it go on");
        }
    }
}

/// Whether it is one of the empty places that a run makes for its own mounts: as in Docker no part of the image.
fn is_place_to_mount(path: &ContainerPath, stat: &Stat) -> bool {
    match path.as_bytes() {
        b"/dev" | b"/proc" | b"/sys" => stat.kind.is_directory(),
        b"/etc/hosts" | b"/etc/hostname" | b"/etc/resolv.conf" => stat.kind == FileKind::File && stat.size == 0,
        _ => false,
    }
}

/// Writes what differs from `parent` to `view` as a layer on top of it.
fn write_layer(
    engine: &Engine,
    lease: &Lease,
    parent: Option<SnapshotId>,
    (before, after): (&View, &View),
) -> Result<SnapshotId, Failure> {
    let active = engine.store()?.snapshots().prepare(parent, lease)?;
    let mut layer = Layer { writer: active.writer()?, view: after, names: HashMap::new(), removed: None };
    compare::<Failure>(before, after, Comparing::Identity, &mut |change| {
        if engine.cancel().is_cancelled() {
            return Err(Failure::interrupted());
        }
        layer.take(&change)
    })?;
    layer.writer.finish()?;
    drop(layer);
    Ok(active.commit(lease)?.id())
}

struct Layer<'a> {
    writer: LayerWriter,
    view: &'a View,
    /// Where a file with several names was written first, by device and inode.
    names: HashMap<(u64, u64), ContainerPath>,
    /// A directory that was removed: nothing below it needs to be.
    removed: Option<ContainerPath>,
}

impl Layer<'_> {
    fn take(&mut self, change: &FileChange) -> Result<(), Failure> {
        let path = &change.path;
        let Some(stat) = &change.after else { return self.remove(path) };
        let is_empty = |stat: &Stat| Ok::<_, Failure>(!stat.kind.is_directory() || self.view.list(path)?.is_empty());
        if change.before.is_none() && is_place_to_mount(path, stat) && is_empty(stat)? {
            return Ok(());
        }
        let metadata = Metadata { xattrs: self.view.xattrs(path)?, ..Metadata::from(stat) };
        let replaced = change.before.is_some() && change.aspects == [Aspect::Type];
        if replaced {
            self.remove(path)?;
        }
        match stat.kind {
            // Sockets are never part of a layer.
            FileKind::Socket => {}
            FileKind::Directory => {
                self.writer.make_directory(path, &metadata)?;
                self.writer.set_directory_metadata(path, &metadata)?;
            }
            FileKind::Symlink => self.writer.symlink(path, &self.view.read_link(path)?, &metadata)?,
            FileKind::File => self.file(path, stat, &metadata)?,
            kind => self.writer.node(path, kind, &metadata)?,
        }
        Ok(())
    }

    fn file(&mut self, path: &ContainerPath, stat: &Stat, metadata: &Metadata) -> Result<(), Failure> {
        if stat.links > 1 {
            if let Some(first) = self.names.get(&stat.inode) {
                return Ok(self.writer.hard_link(first, path)?);
            }
            self.names.insert(stat.inode, path.clone());
        }
        // A container that runs may still write to it: what is there now is taken, and no more than that.
        let file = self.view.open(path)?;
        let size = file.size()?;
        let mut reader = std::io::Read::take(file, size);
        Ok(self.writer.file(path, metadata, Content::Stream(&mut reader, size))?)
    }

    fn remove(&mut self, path: &ContainerPath) -> Result<(), Failure> {
        let below = |directory: &ContainerPath| {
            let directory = directory.as_bytes();
            path.as_bytes().strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
        };
        if self.removed.as_ref().is_some_and(below) {
            return Ok(());
        }
        self.writer.remove(path)?;
        self.removed = Some(path.clone());
        Ok(())
    }
}
