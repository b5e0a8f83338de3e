//! Looking in caches elsewhere: opened together when the store first has no answer, asked in the order given.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rbuild_cache::remote::{
    BringError, LocalCache, OpenCacheError, PlaceError, RegistryCache, RemoteCache, RemoteResult,
};
use rbuild_cache::{Lease, Store, Waiting};
use rbuild_image::registry::{Client, ClientOptions, RetryPolicy, Silent};
use rbuild_image::{Descriptor, Digest, ImageRef};
use rbuild_solver::{Control, Event, EventSink, NewStep, VertexId};

use super::spec::{CacheImport, LocalPick};
use crate::cli::report::Failure;
use crate::engine::Engine;
use crate::image_names;
use crate::progress::Progress;
use crate::transfer::Watch;

/// The caches that a build looks in.
pub(crate) struct Imports<'a> {
    engine: &'a Engine,
    store: &'a Store,
    lease: &'a Lease,
    progress: &'a Progress,
    wanted: &'a [CacheImport],
    opened: OnceLock<Vec<Opened>>,
    /// Further keys of what was brought, until it is recorded.
    brought: Mutex<BTreeMap<Digest, Vec<Digest>>>,
}

/// A cache that could be opened.
struct Opened {
    name: String,
    cache: RemoteCache,
    /// Keys whose results could not be had.
    lost: Mutex<BTreeSet<Digest>>,
    /// Whether the place stopped answering.
    dead: AtomicBool,
}

/// A client that gives up sooner: nobody has to have a cache.
pub(super) fn client(engine: &Engine) -> Result<Client, Failure> {
    let options = engine.client_options()?;
    let retry = RetryPolicy { attempts: 3, patience: Duration::from_secs(20), ..options.retry };
    Ok(Client::new(ClientOptions { retry, ..options }))
}

impl<'a> Imports<'a> {
    /// The caches that were named; nothing is fetched yet.
    pub(crate) fn new(
        engine: &'a Engine,
        store: &'a Store,
        lease: &'a Lease,
        progress: &'a Progress,
        wanted: &'a [CacheImport],
    ) -> Self {
        Self { engine, store, lease, progress, wanted, opened: OnceLock::new(), brought: Mutex::default() }
    }

    /// Whether a key leads to something in one of the caches.
    pub(super) fn knows(&self, key: &Digest) -> bool {
        !self.wanted.is_empty() && self.opened().iter().any(|one| one.offers(key) && one.cache.knows(key))
    }

    /// What the first cache that has it says of a key's result.
    pub(super) fn find(&self, key: &Digest) -> Option<RemoteResult> {
        // What was never looked in has no part in the build.
        self.opened.get()?.iter().filter(|one| one.offers(key)).find_map(|one| one.cache.find(key))
    }

    /// Brings the result of a key into the store.
    pub(super) fn fetch(&self, key: &Digest, vertex: VertexId, control: Control<'_>) -> Option<NewStep> {
        let advance = |item: &str, current: u64, total: Option<u64>| {
            let event = Event::Bytes { vertex: Some(vertex), item: item.to_owned(), current, total, at: control.at() };
            control.events.emit(event);
        };
        let watch = Watch::new(advance, |whom| {
            control.events.emit(Event::Waiting { vertex, reason: whom.to_owned(), at: control.at() });
        });
        let on_wait = |waiting: &Waiting<'_>| {
            watch.waits(waiting);
            match control.cancel.is_cancelled() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        for one in self.opened().iter().filter(|one| one.offers(key)) {
            let Some(result) = one.cache.find(key) else { continue };
            match one.cache.bring(&result, self.store, self.lease, &watch, &on_wait) {
                Ok(snapshot) => {
                    self.brought.lock().unwrap_or_else(PoisonError::into_inner).insert(*key, result.also);
                    let duration = result.took.unwrap_or_default();
                    return Some(NewStep { snapshot, name: String::new(), duration, usage: None });
                }
                Err(_) if control.cancel.is_cancelled() => return None,
                Err(error) => {
                    one.lose(key, &error);
                    let why = Failure::from_error(&format!("cache {}", one.name), &error);
                    self.warn(format!("{}; going on without", why.message()));
                }
            }
        }
        None
    }

    /// Further keys of a result that was brought, once.
    pub(super) fn take_also(&self, key: &Digest) -> Vec<Digest> {
        self.brought.lock().unwrap_or_else(PoisonError::into_inner).remove(key).unwrap_or_default()
    }

    /// Brings a blob that a result of one of the caches names into the store.
    pub(super) fn fetch_blob(&self, blob: &Descriptor) -> Result<(), PlaceError> {
        let cancel = self.engine.cancel();
        let on_wait = |_: &Waiting<'_>| match cancel.is_cancelled() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let mut last = PlaceError::Blob(std::io::ErrorKind::NotFound.into());
        for one in self.opened.get().into_iter().flatten().filter(|one| !one.dead.load(Ordering::Relaxed)) {
            match one.cache.fetch(blob, self.store, self.lease, &Silent, &on_wait) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn opened(&self) -> &[Opened] {
        self.opened.get_or_init(|| {
            let client = match client(self.engine) {
                Ok(client) => client,
                Err(failure) => {
                    self.warn(failure.message().to_owned());
                    return Vec::new();
                }
            };
            let open = |wanted: &'a CacheImport| {
                let client = client.clone();
                move || self.open(wanted, client)
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = self.wanted.iter().map(|wanted| scope.spawn(open(wanted))).collect();
                threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
            })
        })
    }

    fn open(&self, wanted: &CacheImport, client: Client) -> Vec<Opened> {
        let mut found = Vec::new();
        let remote = match wanted {
            CacheImport::Registry(name) => {
                found.extend(self.stored(name));
                RemoteCache::open(Box::new(RegistryCache::new(client, name)))
            }
            CacheImport::Local { directory, pick: LocalPick::Tag(tag) } => {
                RemoteCache::open(Box::new(LocalCache::tagged(directory, tag)))
            }
            CacheImport::Local { directory, pick: LocalPick::Digest(digest) } => {
                RemoteCache::open(Box::new(LocalCache::with_digest(directory, *digest)))
            }
        };
        match remote {
            Ok(cache) => found.push(cache),
            // An image of the store that nobody pushed is good enough.
            Err(_) if !found.is_empty() => {}
            Err(error) => {
                self.warn(explain(wanted, &error));
                return Vec::new();
            }
        }
        self.progress.export(&format!("importing cache manifest from {wanted}"));
        let (records, answers) =
            found.iter().fold((0, 0), |(records, answers), one| (records + one.records(), answers + one.answers()));
        if answers == 0 && records > 0 {
            self.warn(format!(
                "cache {wanted}: its {records} records were made by another builder, whose keys are made of other things \
                 than rbuild's: they answer for no step"
            ));
        }
        let name = wanted.to_string();
        let (lost, dead) = (Mutex::default, || AtomicBool::new(false));
        found.into_iter().map(|cache| Opened { name: name.clone(), cache, lost: lost(), dead: dead() }).collect()
    }

    /// The cache that an image of the store carries.
    fn stored(&self, name: &ImageRef) -> Option<RemoteCache> {
        let image = self.store.images().get(&name.tag_or_latest(), None).ok().flatten()?;
        let config = image_names::config(self.store, &image.record.id).ok()?;
        RemoteCache::of_stored_image(&config).ok()
    }

    fn warn(&self, message: String) {
        self.progress.emit(Event::Warning { vertex: None, message });
    }
}

impl Opened {
    fn offers(&self, key: &Digest) -> bool {
        !self.dead.load(Ordering::Relaxed) && !self.lost.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    fn lose(&self, key: &Digest, error: &BringError) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(*key);
        // Every further step would wait for it as long as this one did.
        if matches!(error, BringError::Place(PlaceError::Registry(error)) if error.is_unreachable()) {
            self.dead.store(true, Ordering::Relaxed);
        }
    }
}

fn explain(wanted: &CacheImport, error: &OpenCacheError) -> String {
    if matches!(error, OpenCacheError::Place(place) if place.is_absent()) {
        return format!("cache {wanted}: there is none yet; going on without");
    }
    let why = Failure::from_error(&format!("cache {wanted}"), error);
    format!("{}; going on without", why.message())
}
