//! Taking names and images away: what `rmi` and `image prune` do, with Docker's rules about names and containers.

use std::collections::BTreeSet;

use rbuild_cache::{ImageError, Store, StoredImage};
use rbuild_container::Containers;
use rbuild_image::{ChainId, Digest, ImageRef, chain_ids};

use super::filter::ImageFilter;
use super::{Known, explain};
use crate::cli::report::Failure;

/// How much `remove` may take away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A name, or an image that has only one.
    Careful,
    /// All names of an image, also while stopped containers use it.
    Force,
}

/// What `remove` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<ImageRef>,
    /// Images that are gone, and stacks of layers that were only theirs, topmost first.
    pub deleted: Vec<Digest>,
}

/// A container that was made from an image.
struct User {
    id: String,
    runs: bool,
}

/// Removes a name, and the image with its last name; an id removes the image with all its names.
pub fn remove(store: &Store, containers: &Containers, text: &str, removal: Removal) -> Result<Removed, Failure> {
    let images = store.images();
    let image = images.find(text, None).map_err(|error| match error {
        ImageError::NotFound { .. } => {
            let name =
                text.parse::<ImageRef>().map_or_else(|_| text.to_owned(), |name| name.tag_or_latest().to_string());
            Failure::new(format!("No such image: {name}")).with_help("`rbuild images` lists what there is")
        }
        other => explain(other),
    })?;
    let force = removal == Removal::Force;
    let id = image.record.id;
    let short = id.short();
    let users = users(containers, &id)?;
    let named = named_by(text, &image);
    let mut removed = Removed::default();
    if let Some(reference) = named {
        if is_only_name(&image)
            && !force
            && let Some(user) = users.first()
        {
            return Err(Failure::new(format!(
                "conflict: unable to remove repository reference \"{text}\" (must force) - container {} is using its \
                 referenced image {short}",
                user.id
            ))
            .with_help("remove the container with `rbuild rm`, or use rmi -f"));
        }
        let last = is_only_name(&image);
        let untagged = images.untag(&reference).map_err(explain)?;
        removed.untagged.push(reference);
        // A name may lead to an image for each platform.
        for other in untagged {
            let running = users_of(containers, &other.image, &id, &users)?;
            Known::of(store, &other.image).tell(store, "untag");
            let nameless = other.left.iter().all(|left| left.tag().is_none());
            if (nameless && (last || other.image != id)) && !running {
                delete(store, &other.image, &mut removed)?;
            }
        }
        return Ok(removed);
    }
    if !is_only_name(&image) && !force {
        return Err(Failure::new(format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        ))
        .with_help(format!("its names are {}; remove them, or all with rmi -f", names(&image))));
    }
    if let Some(user) = users.iter().find(|user| user.runs) {
        return Err(Failure::new(format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container {}",
            user.id
        ))
        .with_help("stop the container with `rbuild stop` first"));
    }
    if let (Some(user), false) = (users.first(), force) {
        return Err(Failure::new(format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container {}",
            user.id
        ))
        .with_help("remove the container with `rbuild rm`, or use rmi -f"));
    }
    delete(store, &id, &mut removed)?;
    Ok(removed)
}

/// Removes the images that `filter` takes and no container uses: those without a tag, or all.
pub fn prune(store: &Store, containers: &Containers, filter: &ImageFilter, all: bool) -> Result<Removed, Failure> {
    let mut removed = Removed::default();
    for image in store.images().list()? {
        let tagged = image.references.iter().any(|reference| reference.tag().is_some());
        if (tagged && !all) || !filter.takes(store, &image)? || !users(containers, &image.record.id)?.is_empty() {
            continue;
        }
        delete(store, &image.record.id, &mut removed)?;
    }
    Ok(removed)
}

/// Removes an image with all its names, and says which stacks of layers were only its own.
fn delete(store: &Store, id: &Digest, removed: &mut Removed) -> Result<(), Failure> {
    let images = store.images();
    let Some(image) = images.by_id(id)? else { return Ok(()) };
    let known = Known::of(store, id);
    let untagged = images.remove(id).map_err(explain)?;
    // One that was pulled has its digest for a second name, of which Docker says the same.
    untagged.iter().for_each(|_| known.tell(store, "untag"));
    known.tell_of_end(store);
    removed.untagged.extend(untagged);
    removed.deleted.push(*id);
    let mut others: BTreeSet<ChainId> = BTreeSet::new();
    for other in images.list()? {
        others.extend(chain_ids(&other.record.diff_ids));
    }
    let own = chain_ids(&image.record.diff_ids).into_iter().rev().filter(|chain| !others.contains(chain));
    removed.deleted.extend(own.map(|chain| *chain.digest()));
    Ok(())
}

/// The name that `text` is, where it is one rather than an id.
fn named_by(text: &str, image: &StoredImage) -> Option<ImageRef> {
    let typed = text.parse::<ImageRef>().ok()?.tag_or_latest();
    image.references.iter().find(|reference| reference.canonical() == typed.canonical()).cloned()
}

/// Whether an image has one name at most; a digest of the same repository is no other one.
fn is_only_name(image: &StoredImage) -> bool {
    let tags: Vec<&ImageRef> = image.references.iter().filter(|reference| reference.tag().is_some()).collect();
    let digests = image.references.iter().filter(|reference| reference.tag().is_none());
    match tags.as_slice() {
        [] => image.references.len() <= 1,
        [tag] => digests.into_iter().all(|digest| digest.name() == tag.name()),
        _ => false,
    }
}

fn names(image: &StoredImage) -> String {
    image.references.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn users(containers: &Containers, image: &Digest) -> Result<Vec<User>, Failure> {
    let user = |record: rbuild_container::ContainerRecord| User {
        id: record.id.short().to_string(),
        runs: record.state.status.is_live(),
    };
    Ok(containers.of_image(image)?.into_iter().map(user).collect())
}

/// Whether a running container uses `image`; those of `known` were asked for before.
fn users_of(containers: &Containers, image: &Digest, known: &Digest, users_known: &[User]) -> Result<bool, Failure> {
    if image == known {
        return Ok(users_known.iter().any(|user| user.runs));
    }
    Ok(users(containers, image)?.iter().any(|user| user.runs))
}
