//! A container gets another name.

use std::fs;

use rbuild_cache::{LockMode, wait_silently};

use super::{Containers, LoadError, PublishError, UpdateError};
use crate::document::{self, AtPath, Durability, if_present};
use crate::name::ContainerName;
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
        Ok(())
    }
}
