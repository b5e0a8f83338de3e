//! Layers that leave for a registry while later ones are still being packed, and while they are themselves.
//!
//! Only blobs go ahead: manifests and tags follow when everything they name is there.
//!
//! A layer whose digest is known is asked for before anything is sent. One that nobody has compressed yet has none: it
//! leaves in a stream while it is compressed, unless the registry is likely to have it all the same. What was compressed
//! stays in the store for the next registry, where that is wanted.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rbuild_cache::{Lease, Store};
use rbuild_image::registry::{Client, RegistryError, TransferSink, UnfinishedBlob as _};
use rbuild_image::{Descriptor, Digest, ImageRef};

use super::growing::{Followed, GrowingLayer};
use super::origins::LayerBlobs;
use super::pack::{LayerBytes, MadeBlob, Packed, PackedBytes};
use super::stage::{Outlet, Ready};
use crate::cli::report::Failure;

/// Where layers go.
pub(crate) struct Destination<'a> {
    /// The registry's client.
    pub(crate) client: &'a Client,
    /// The repository.
    pub(crate) name: &'a ImageRef,
    /// Other repositories of the same registry that may have them.
    pub(crate) elsewhere: &'a [ImageRef],
    /// What the store has, or had.
    pub(crate) stored: &'a LayerBlobs<'a>,
    /// Watches them go.
    pub(crate) watch: &'a dyn TransferSink,
    /// What becomes of layers whose digests are not known yet.
    pub(crate) unknown: Unknown,
    /// Keeps what is compressed on the way, if anybody does.
    pub(crate) keep: Option<(&'a Store, &'a Lease)>,
}

/// When layers leave that have to be compressed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// While they are.
    Streamed,
    /// When they are whole, if the registry does not have them: the same layers were likely made elsewhere, too.
    Asked,
}

/// What waits for an upload.
enum Item {
    Whole(Box<Descriptor>, PackedBytes),
    Growing(Arc<GrowingLayer>),
    /// One that was sent while it grew.
    Sent(PackedBytes),
}

/// Compressed layers up to this size are not worth a stream.
const SMALL: u64 = 1 << 20;

/// Lets `pack` make an image ready whose layers go ahead; what it gave, and which blobs are there now.
pub(crate) fn while_packing<T>(
    to: &Destination<'_>,
    pack: impl FnOnce(Ready<'_>) -> Result<T, Failure>,
) -> Result<(T, BTreeSet<Digest>), Failure> {
    let (sender, receiver) = channel::<Item>();
    let receiver = Mutex::new(receiver);
    let stop = Arc::new(AtomicBool::new(false));
    let cancel = to.client.cancel().or_flag(Arc::clone(&stop));
    let client = to.client.with_cancel(cancel);
    let there: Mutex<BTreeSet<Digest>> = Mutex::default();
    let failure: Mutex<Option<RegistryError>> = Mutex::default();
    let upload = || {
        while let Some(item) = next(&receiver) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            match send(&client, to, item) {
                Ok(Some(digest)) => drop(there.lock().unwrap_or_else(PoisonError::into_inner).insert(digest)),
                Ok(None) => {}
                Err(error) => {
                    // First the reason, then the others stop.
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    };
    let queue = Queue { sender, stop: &stop, unknown: to.unknown, sent: Mutex::default() };
    let packed = std::thread::scope(|threads| {
        for _ in 0..client.parallel() {
            threads.spawn(upload);
        }
        let packed = pack(&queue);
        if packed.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        drop(queue);
        packed
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        // An upload that was stopped because the packing failed is not the reason.
        Some(error) if packed.is_ok() || !error.is_cancelled() => Err(error.into()),
        _ => Ok((packed?, there.into_inner().unwrap_or_else(PoisonError::into_inner))),
    }
}

/// Sends one blob; its digest, once it is there.
fn send(client: &Client, to: &Destination<'_>, item: Item) -> Result<Option<Digest>, RegistryError> {
    let keep = |bytes: &PackedBytes| {
        if let Some((store, lease)) = to.keep {
            bytes.keep(store, lease);
        }
    };
    let (descriptor, bytes) = match item {
        Item::Sent(bytes) => {
            keep(&bytes);
            return Ok(None);
        }
        Item::Whole(descriptor, bytes) => (*descriptor, bytes),
        Item::Growing(layer) => {
            let followed = Followed { layer: &layer, cancel: client.cancel() };
            let streamed = match layer.whole_within(SMALL, client.cancel()) {
                // Whoever compresses says why it does not come.
                Err(_) => return Ok(None),
                Ok(Some(_)) => None,
                Ok(None) => client.push_unfinished(to.name, layer.named(), &followed, to.watch)?,
            };
            match (streamed, followed.whole()) {
                (Some(descriptor), _) => return Ok(Some(descriptor.digest)),
                (None, Ok(descriptor)) => {
                    let made = MadeBlob { path: layer.path().to_owned(), form: None };
                    (descriptor, PackedBytes::File(Arc::new(made)))
                }
                (None, Err(_)) => return Ok(None),
            }
        }
    };
    let source = LayerBytes { bytes: &bytes, stored: to.stored };
    let repositories = to.stored.repositories(&descriptor.digest);
    let unknown = repositories.iter().filter(|repository| !to.elsewhere.contains(repository));
    let elsewhere: Vec<ImageRef> = unknown.chain(to.elsewhere).cloned().collect();
    client.push_blob(to.name, &descriptor, &elsewhere, &source, to.watch)?;
    keep(&bytes);
    Ok(Some(descriptor.digest))
}

/// Hands layers to those who upload.
struct Queue<'a> {
    sender: Sender<Item>,
    stop: &'a AtomicBool,
    unknown: Unknown,
    sent: Mutex<Sent>,
}

/// What was handed over.
#[derive(Default)]
struct Sent {
    digests: BTreeSet<Digest>,
    growing: BTreeSet<PathBuf>,
}

impl Queue<'_> {
    fn put(&self, item: Item) {
        self.sender.send(item).expect("the receiver lives as long as the queue");
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlet for Queue<'_> {
    fn begun(&self, layer: &Arc<GrowingLayer>) {
        if self.unknown == Unknown::Streamed {
            self.sent().growing.insert(layer.path().to_owned());
            self.put(Item::Growing(Arc::clone(layer)));
        }
    }

    fn ready(&self, packed: &Packed) -> Result<(), Failure> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Failure::interrupted());
        }
        let descriptor = &packed.descriptor;
        let mut sent = self.sent();
        if packed.bytes.path().is_some_and(|path| sent.growing.contains(path)) {
            self.put(Item::Sent(packed.bytes.clone()));
            return Ok(());
        }
        // What registries may not hold stays where it is; what stands for two layers goes once.
        if !descriptor.media_type.is_foreign_layer() && sent.digests.insert(descriptor.digest) {
            self.put(Item::Whole(Box::new(descriptor.clone()), packed.bytes.clone()));
        }
        Ok(())
    }
}

fn next<T>(receiver: &Mutex<Receiver<T>>) -> Option<T> {
    receiver.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}
