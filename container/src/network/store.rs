//! The networks of a store: what there is, and who may use it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rbuild_cache::{Hold, Lease, PathError, Store};

use super::endpoint::{EndpointRecord, EndpointRequest, HostPort, Place};
use super::error::NetworkError;
use super::grace;
use super::live::{self, Joined};
use super::presence::Presence;
use super::record::{FORMAT, Network, NetworkId, Purpose};
use crate::document::{self, AtPath, Durability, if_present};

const RECORD: &str = "network.json";
/// Kind of what a lease holds outside the store for a network that is in use; its name is the network's id.
pub const OUTSIDE_KIND: &str = "network";

/// In place of an identifier: all networks of the store, as a container may be connected to any while it runs.
const ANY: &str = "any";

/// The networks of one store.
#[derive(Clone, Debug)]
pub struct Networks {
    directory: PathBuf,
    /// Written on every interface that this store makes.
    owner: String,
}

impl Networks {
    /// The networks of `store`.
    pub fn new(store: &Store) -> Result<Self, PathError> {
        Self::below(store.layout().root())
    }

    /// The networks of the store in the directory `root`.
    pub fn below(root: &Path) -> Result<Self, PathError> {
        let metadata = fs::metadata(root).at("inspect", root)?;
        // A copy of a store is another one; a moved one is the same.
        let owner = format!("rbuild store {}:{}", metadata.dev(), metadata.ino());
        Ok(Self { directory: root.join("networks"), owner })
    }

    /// All networks with a record, by name.
    pub fn list(&self) -> Result<Vec<Network>, NetworkError> {
        let Some(entries) = if_present(fs::read_dir(&self.directory)).at("list", &self.directory)? else {
            return Ok(Vec::new());
        };
        let mut networks = Vec::new();
        for entry in entries {
            let path = entry.at("list", &self.directory)?.path();
            if path.file_name().and_then(|name| name.to_str()).and_then(NetworkId::parse).is_some() {
                networks.extend(load(&path)?);
            }
        }
        networks.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(networks)
    }

    /// The network that `text` names: its name, its identifier, or the beginning of that.
    pub fn find(&self, text: &str) -> Result<Network, NetworkError> {
        let all = self.list()?;
        if let Some(found) = all.iter().find(|network| network.name == text) {
            return Ok(found.clone());
        }
        let mut matching = all.into_iter().filter(|network| !text.is_empty() && network.id.as_str().starts_with(text));
        match (matching.next(), matching.next()) {
            (Some(found), None) => Ok(found),
            (Some(_), Some(_)) => Err(NetworkError::Ambiguous { text: text.to_owned() }),
            _ => Err(NetworkError::NotFound { name: text.to_owned() }),
        }
    }

    /// Lets a lease name the network as something to be taken down.
    pub fn hold(&self, id: &NetworkId, lease: &Lease) -> Result<(), PathError> {
        lease.hold(Hold::Outside { kind: OUTSIDE_KIND.to_owned(), name: id.to_string() })
    }

    /// Joins a network that a lease of this process holds ([`Self::hold`]), with a new namespace or one that is there.
    pub fn join_held(
        &self,
        id: &NetworkId,
        request: &EndpointRequest,
        place: Place<'_>,
    ) -> Result<Joined, NetworkError> {
        live::join(&self.directory, &self.owner, id, request, place)
    }

    /// Marks a container as connected, while the value lives: endpoints that others make for it live as long. What has to be
    /// taken down if this process dies is held by the lease before.
    pub fn presence(&self, container: &str, lease: &Lease) -> Result<Presence, NetworkError> {
        lease.hold(Hold::Outside { kind: OUTSIDE_KIND.to_owned(), name: ANY.to_owned() })?;
        // Made here at the latest, so that there is a place for it.
        drop(self.lock()?);
        Ok(Presence::take(&self.directory, container)?)
    }

    /// Whether a container is marked as connected.
    pub fn is_present(&self, container: &str) -> Result<bool, PathError> {
        Presence::is_there(&self.directory, container)
    }

    /// Ends what a container has in one network; whether it had anything.
    pub fn disconnect(&self, id: &NetworkId, container: &str) -> Result<Option<EndpointRecord>, NetworkError> {
        live::disconnect(&self.directory, &self.owner, id, container)
    }

    /// Ends what others connected a container to while it ran.
    pub fn disconnect_all(&self, container: &str) -> Result<(), NetworkError> {
        for network in self.list()? {
            self.disconnect(&network.id, container)?;
        }
        Ok(())
    }

    /// Gives an endpoint of a container other names.
    pub fn rename(
        &self,
        id: &NetworkId,
        container: &str,
        change: &dyn Fn(&mut EndpointRecord),
    ) -> Result<(), NetworkError> {
        live::change(&self.directory, &self.owner, id, container, change)
    }

    /// Leads these ports of the host to a container's endpoint in a network, and no others; the endpoint, if it has one.
    pub(crate) fn publish_ports(
        &self,
        id: &NetworkId,
        container: &str,
        ports: &[HostPort],
    ) -> Result<Option<EndpointRecord>, NetworkError> {
        live::publish(&self.directory, &self.owner, id, container, ports)
    }

    /// Takes down what dead processes left of the network with this identifier.
    pub fn sweep(&self, id: &str) -> Result<(), NetworkError> {
        if id == ANY {
            Presence::sweep(&self.directory)?;
            let all = self.list()?;
            return all.iter().try_for_each(|network| live::sweep(&self.directory, &self.owner, &network.id));
        }
        match NetworkId::parse(id) {
            Some(id) => live::sweep(&self.directory, &self.owner, &id),
            None => Ok(()),
        }
    }

    /// Takes a network down that a container left warm, when nobody takes it up for a moment; returns then, at once if
    /// another process does so. The caller's lease holds the network ([`Self::hold`]).
    pub fn outlast(&self, id: &NetworkId, linger: Duration) -> Result<(), NetworkError> {
        grace::outlast(&self.directory, &self.owner, id, linger)
    }

    /// Endpoints of a network that are alive.
    pub fn endpoints(&self, id: &NetworkId) -> Result<Vec<EndpointRecord>, NetworkError> {
        live::endpoints(&self.directory, &self.owner, id)
    }

    /// Removes a network that a user made and nobody uses.
    pub fn remove(&self, network: &Network) -> Result<(), NetworkError> {
        if network.purpose != Purpose::User {
            return Err(NetworkError::Predefined { name: network.name.clone() });
        }
        let _lock = self.lock()?;
        live::remove(&self.directory, &self.owner, network)
    }

    /// Makes a network appear, whole, by one rename.
    pub(super) fn publish(&self, network: &Network) -> Result<(), NetworkError> {
        let place = self.directory.join(network.id.as_str());
        let hidden = self.directory.join(format!("{}.new", network.id));
        DirBuilder::new().mode(0o700).create(&hidden).at("create", &hidden)?;
        save(&hidden, network)?;
        fs::rename(&hidden, &place).at("create", &place)?;
        Ok(document::sync_directory(&self.directory)?)
    }

    /// Only one makes or removes networks at a time. Who has it clears away what others could not finish.
    pub(super) fn lock(&self) -> Result<File, PathError> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).at("create", &self.directory);
            }
            _ => {}
        }
        let file = File::open(&self.directory).at("open", &self.directory)?;
        file.lock().at("lock", &self.directory)?;
        for entry in fs::read_dir(&self.directory).at("list", &self.directory)? {
            let path = entry.at("list", &self.directory)?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                fs::remove_dir_all(&path).at("remove", &path)?;
            }
        }
        Ok(file)
    }
}

pub(super) fn load(directory: &Path) -> Result<Option<Network>, NetworkError> {
    let path = directory.join(RECORD);
    let Some(text) = if_present(fs::read(&path)).at("read", &path)? else { return Ok(None) };
    match serde_json::from_slice::<Network>(&text) {
        Ok(network) if network.format == FORMAT => Ok(Some(network)),
        _ => Err(NetworkError::Damaged { path }),
    }
}

pub(super) fn save(directory: &Path, network: &Network) -> Result<(), NetworkError> {
    let text = serde_json::to_vec_pretty(network).expect("a network is plain data");
    Ok(document::replace(&directory.join(RECORD), &text, Durability::Synced)?)
}
