//! Layers that leave for a registry while later ones are still being packed.
//!
//! Only blobs go ahead: manifests and tags follow when everything they name is there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_image::registry::{Client, RegistryError, TransferSink};
use rbuild_image::{BlobSource, Descriptor, Digest, ImageRef};

use super::origins::LayerBlobs;
use super::pack::PackedBytes;
use super::stage::Ready;
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
}

/// Lets `pack` make an image ready whose layers go ahead; what it gave, and which blobs are there now.
pub(crate) fn while_packing<T>(
    to: &Destination<'_>,
    pack: impl FnOnce(Ready<'_>) -> Result<T, Failure>,
) -> Result<(T, BTreeSet<Digest>), Failure> {
    let (sender, receiver) = channel::<(Descriptor, PackedBytes)>();
    let receiver = Mutex::new(receiver);
    let stop = Arc::new(AtomicBool::new(false));
    let cancel = to.client.cancel().or_flag(Arc::clone(&stop));
    let client = to.client.with_cancel(cancel);
    let there: Mutex<BTreeSet<Digest>> = Mutex::default();
    let failure: Mutex<Option<RegistryError>> = Mutex::default();
    let upload = || {
        while let Some((layer, bytes)) = next(&receiver) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let source = Source { bytes: &bytes, stored: to.stored };
            let repositories = to.stored.repositories(&layer.digest);
            let unknown = repositories.iter().filter(|repository| !to.elsewhere.contains(repository));
            let elsewhere: Vec<ImageRef> = unknown.chain(to.elsewhere).cloned().collect();
            match client.push_blob(to.name, &layer, &elsewhere, &source, to.watch) {
                Ok(_) => drop(there.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.digest)),
                Err(error) => {
                    // First the reason, then the others stop.
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    };
    let seen: Mutex<BTreeSet<Digest>> = Mutex::default();
    let packed = std::thread::scope(|threads| {
        for _ in 0..client.parallel() {
            threads.spawn(upload);
        }
        let packed = pack(&|layer| {
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::interrupted());
            }
            // What registries may not hold stays where it is; what stands for two layers goes once.
            if !layer.descriptor.media_type.is_foreign_layer()
                && seen.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.descriptor.digest)
            {
                let item = (layer.descriptor.clone(), layer.bytes.clone());
                sender.send(item).expect("the receiver lives as long as this call");
            }
            Ok(())
        });
        if packed.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        drop(sender);
        packed
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        // An upload that was stopped because the packing failed is not the reason.
        Some(error) if packed.is_ok() || !error.is_cancelled() => Err(error.into()),
        _ => Ok((packed?, there.into_inner().unwrap_or_else(PoisonError::into_inner))),
    }
}

fn next<T>(receiver: &Mutex<Receiver<T>>) -> Option<T> {
    receiver.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// The bytes of one layer.
struct Source<'a> {
    bytes: &'a PackedBytes,
    stored: &'a dyn BlobSource,
}

impl BlobSource for Source<'_> {
    fn open(&self, digest: &Digest) -> std::io::Result<Box<dyn std::io::Read + Send>> {
        match self.bytes.open()? {
            Some(file) => Ok(Box::new(file)),
            None => self.stored.open(digest),
        }
    }

    fn size(&self, digest: &Digest) -> std::io::Result<u64> {
        self.bytes.size().map_or_else(|| self.stored.size(digest), Ok)
    }
}
