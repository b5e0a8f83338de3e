//! A container gets another name.

use std::fs;

use rbuild_cache::{LockMode, wait_silently};

use super::{Containers, LoadError, PublishError, UpdateError};
use crate::document::{self, AtPath, Durability, if_present};
use crate::name::ContainerName;
use crate::network::{NetworkError, Networks};
use crate::record::ContainerRecord;

/// A container that kept its name.
#[derive(Debug, thiserror::Error)]
pub enum RenameError {
    /// It has that name already.
    #[error("renaming a container with the same name as its current name")]
    Same,
    /// The name is taken, or something cannot be written.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Its networks do not know it by the new name.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The record was not changed.
    #[error(transparent)]
    Update(#[from] UpdateError),
}

impl Containers {
    /// Gives a container another name. At every moment it has one of the two: the record decides which.
    pub fn rename(&self, record: &ContainerRecord, name: &ContainerName) -> Result<(), RenameError> {
        if record.name == *name {
            return Err(RenameError::Same);
        }
        let lock = |name: &ContainerName| {
            let lock = self.name_lock(name);
            self.store
                .lock(&lock, LockMode::Exclusive, &wait_silently)
                .map_err(|e| PublishError::from(LoadError::from(e)))
        };
        // Two that swap names at the same time must not wait for each other.
        let (first, second) = if record.name < *name { (&record.name, name) } else { (name, &record.name) };
        let _guards = (lock(first)?, lock(second)?);
        if let Some(owner) = self.by_name(name).map_err(PublishError::from)? {
            return Err(PublishError::NameTaken { name: name.clone(), owner: owner.id }.into());
        }
        let (old, new) = (self.name_link(&record.name), self.name_link(name));
        let link = || -> Result<(), rbuild_cache::PathError> {
            if_present(fs::remove_file(&new)).at("remove", &new)?;
            std::os::unix::fs::symlink(format!("../{}", record.id), &new).at("link", &new)?;
            if super::durability(record.config.lifetime) == Durability::Synced {
                document::sync_directory(&self.names())?;
            }
            Ok(())
        };
        link().map_err(PublishError::from)?;
        self.update(&record.id, |record| {
            record.name = name.clone();
            Ok(())
        })?;
        if_present(fs::remove_file(&old)).at("remove", &old).map_err(PublishError::from)?;
        self.rename_endpoints(record, name)
    }

    /// A running container is found by its new name in its networks.
    fn rename_endpoints(&self, before: &ContainerRecord, name: &ContainerName) -> Result<(), RenameError> {
        let Some(record) = self.load(&before.id).map_err(PublishError::from)? else { return Ok(()) };
        if record.state.network.connections.is_empty() {
            return Ok(());
        }
        let renamed = |names: &mut Vec<String>| {
            for one in names.iter_mut().filter(|one| **one == before.name.as_str()) {
                name.as_str().clone_into(one);
            }
        };
        let networks = Networks::new(self.store()).map_err(NetworkError::from)?;
        for connection in &record.state.network.connections {
            let changed = networks.rename(&connection.id, record.id.as_str(), &|endpoint| {
                renamed(&mut endpoint.names);
                if let Some(owner) = &mut endpoint.container {
                    name.as_str().clone_into(&mut owner.name);
                }
            });
            match changed {
                // Removed meanwhile.
                Ok(()) | Err(NetworkError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.update(&record.id, |record| {
            record.state.network.connections.iter_mut().for_each(|one| renamed(&mut one.names));
            Ok(())
        })?;
        Ok(())
    }
}
