//! What is told of images in the store's record of events, in Docker's words.
//!
//! The names that build results get are not told: BuildKit does not either.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rbuild_cache::Store;
use rbuild_container::{Event, EventKind, EventLog};
use rbuild_image::{Digest, ImageRef};

/// What is known of an image before it goes.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    id: Digest,
    labels: BTreeMap<String, String>,
}

impl Known {
    /// An image of the store; its labels are told with it where they can be read.
    pub(crate) fn of(store: &Store, id: &Digest) -> Self {
        let config = super::config(store, id).map(|config| config.config.labels);
        Self { id: *id, labels: config.unwrap_or_default() }
    }

    /// Something happened to it.
    pub(crate) fn tell(&self, store: &Store, action: &str) {
        told(store, action, self.id.to_string(), self.id.to_string(), self.labels.clone());
    }

    /// It is no more, and neither are its labels.
    pub(crate) fn tell_of_end(&self, store: &Store) {
        told(store, "delete", self.id.to_string(), self.id.to_string(), BTreeMap::new());
    }

    /// It got a name.
    pub(crate) fn tell_of_name(&self, store: &Store, name: &ImageRef) {
        told(store, "tag", self.id.to_string(), name.to_string(), self.labels.clone());
    }
}

/// An image came from a registry or went there.
pub(crate) fn tell_of_transfer(store: &Store, action: &str, name: &ImageRef) {
    let image = store.images().get(name, None).ok().flatten();
    let labels = image.map(|image| Known::of(store, &image.record.id).labels).unwrap_or_default();
    told(store, action, name.to_string(), name.familiar_name(), labels);
}

/// Everything of a kind that nobody used went, and gave so many bytes back.
pub(crate) fn tell_of_prune(store: &Store, kind: EventKind, bytes: u64) {
    let attributes = BTreeMap::from([("reclaimed".to_owned(), bytes.to_string())]);
    append(store, Event { time: Timestamp::now(), kind, action: "prune".to_owned(), id: String::new(), attributes });
}

fn told(store: &Store, action: &str, id: String, name: String, labels: BTreeMap<String, String>) {
    let mut attributes = labels;
    attributes.insert("name".to_owned(), name);
    append(store, Event { time: Timestamp::now(), kind: EventKind::Image, action: action.to_owned(), id, attributes });
}

fn append(store: &Store, event: Event) {
    EventLog::of_store(store.layout().root()).tell(&[event]);
}
