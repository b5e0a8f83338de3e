//! Opens the store and wires the parts together; few methods, no logic.

use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rbuild_cache::snapshot::SnapshotterChoice;
use rbuild_cache::{HistoryLimits, Keeper, OpenOptions, Store};
use rbuild_executor::Spawner;
use rbuild_image::credentials::DockerConfig;
use rbuild_image::registry::{Cancel, Client, ClientOptions, ProxySettings, TrustRoots};
use rbuild_parser::parse_bool;
use rbuild_solver::CancelToken;

use crate::cli::report::Failure;
use crate::config::{ConfigFile, Registries, Settings, parse_age};
use crate::output::origins::LayerBlobPolicy;
use crate::progress::Mask;
use crate::reap::Reaper;

/// The parts of rbuild, each made when it is first needed.
pub struct Engine {
    settings: Settings,
    cancel: CancelToken,
    mask: Mask,
    store: OnceLock<Store>,
    spawner: Mutex<Option<Arc<Spawner>>>,
    client: OnceLock<Client>,
    config: OnceLock<ConfigFile>,
}

impl Engine {
    /// An engine that has touched nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            cancel: CancelToken::new(),
            mask: Mask::default(),
            store: OnceLock::new(),
            spawner: Mutex::new(None),
            client: OnceLock::new(),
            config: OnceLock::new(),
        }
    }

    /// What the environment and the global options say.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Asked by everything that takes long.
    pub fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    /// Values of secrets that steps were given: they are not to be shown or stored.
    pub(crate) fn mask(&self) -> &Mask {
        &self.mask
    }

    /// The store.
    pub fn store(&self) -> Result<&Store, Failure> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let mut options = OpenOptions::new(self.settings.command.clone());
        options.snapshotter = self.snapshotter()?;
        options.reaper = Some(Arc::new(Reaper::new(self.settings.root.clone())));
        let opened = Store::open(&self.settings.root, options)?;
        Ok(self.store.get_or_init(|| opened))
    }

    /// The configuration file.
    fn config(&self) -> Result<&ConfigFile, Failure> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let loaded = ConfigFile::load(self.settings.config_file.as_deref(), &self.settings.config_places)?;
        Ok(self.config.get_or_init(|| loaded))
    }

    /// Whether a build that shows this ends with hints: as asked for, as set, else where people watch.
    pub(crate) fn hints(&self, asked: Option<bool>, watched: bool) -> Result<bool, Failure> {
        let set = match self.settings.hints.as_deref().map(|text| (text, parse_bool(text))) {
            None => None,
            Some((_, Some(wanted))) => Some(wanted),
            Some((text, None)) => {
                return Err(Failure::usage(format!("RBUILD_HINTS={text}: not a yes or no"), "write 1 or 0"));
            }
        };
        Ok(asked.or(set).or(self.config()?.hints).unwrap_or(watched))
    }

    /// How new layers are kept.
    fn snapshotter(&self) -> Result<SnapshotterChoice, Failure> {
        let set = self.settings.snapshotter.as_deref();
        self.word(set, "--snapshotter or RBUILD_SNAPSHOTTER", |config| config.snapshotter)
    }

    /// What the command line or the environment says, `set` by what is named, else the configuration file.
    fn word<T>(&self, set: Option<&str>, by: &str, configured: fn(&ConfigFile) -> T) -> Result<T, Failure>
    where
        T: FromStr<Err: std::error::Error + 'static>,
    {
        match set {
            Some(text) => text.parse().map_err(|error: T::Err| Failure::from_error(by, &error)),
            None => Ok(configured(self.config()?)),
        }
    }

    /// Whether the blobs that pulled layers came as are kept.
    pub(crate) fn layer_blobs(&self) -> Result<LayerBlobPolicy, Failure> {
        self.word(self.settings.layer_blobs.as_deref(), "RBUILD_LAYER_BLOBS", |config| config.layer_blobs)
    }

    /// How long a network that nobody has stays on this host for the next container or build.
    pub(crate) fn network_linger(&self) -> Result<Duration, Failure> {
        match self.settings.network_linger.as_deref() {
            Some(text) => parse_age(text).map_err(|error| Failure::from_error("RBUILD_NETWORK_LINGER", &error)),
            None => Ok(self.config()?.network_linger),
        }
    }

    /// Whether what is stored is more than the configuration file's limits allow.
    pub(crate) fn is_short_of_room(&self) -> Result<bool, Failure> {
        Ok(self.store()?.is_above(&self.config()?.gc)?)
    }

    /// How much of the history of builds is kept.
    pub fn history_limits(&self) -> Result<HistoryLimits, Failure> {
        Ok(self.config()?.history)
    }

    /// Keeps the store below what the configuration file says, while this process adds to it.
    pub fn keep_ceiling(&self) -> Result<Keeper, Failure> {
        let gc = self.config()?.gc.clone();
        let cancel = self.cancel.clone();
        Ok(self.store()?.keep_within(gc, Arc::new(move || cancel.is_cancelled())))
    }

    /// The process that starts sandboxes; a new one where the last one died.
    pub fn spawner(&self) -> Result<Arc<Spawner>, Failure> {
        let mut spawner = self.spawner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alive) = spawner.as_ref().filter(|spawner| spawner.is_alive()) {
            return Ok(Arc::clone(alive));
        }
        let started = Spawner::start()
            .map_err(|error| Failure::from_error("cannot start the process that starts sandboxes", &error))?
            .with_stacking(self.settings.stacking.clone());
        Ok(Arc::clone(spawner.insert(Arc::new(started))))
    }

    /// The registry client.
    pub fn client(&self) -> Result<Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let client = Client::new(self.client_options()?);
        Ok(self.client.get_or_init(|| client).clone())
    }

    /// What the registry client needs to know.
    pub fn client_options(&self) -> Result<ClientOptions, Failure> {
        let settings = &self.settings;
        let registries = Registries::gather(&self.config()?.registries, &settings.host_files);
        let proxy = |name: &str| {
            let upper = settings.proxies.get(&name.to_uppercase());
            settings.proxies.get(name).or(upper).or_else(|| settings.proxies.get("all_proxy")).cloned()
        };
        let cancel = self.cancel.clone();
        let mut options = ClientOptions {
            proxy: ProxySettings {
                http: proxy("http_proxy"),
                https: proxy("https_proxy"),
                no_proxy: proxy("no_proxy").unwrap_or_default(),
            },
            trust: TrustRoots {
                file: settings.ssl_cert_file.clone(),
                directories: settings.ssl_cert_dir.iter().flat_map(std::env::split_paths).collect(),
            },
            cancel: Cancel::when(move || cancel.is_cancelled()),
            hosts: registries.hosts,
            default_mirrors: registries.default_mirrors,
            repositories: registries.repositories,
            insecure_networks: registries.insecure_networks,
            ..ClientOptions::default()
        };
        if let Some(config) = self.docker_config() {
            options.credentials = Arc::new(config);
        }
        Ok(options)
    }

    /// Docker's client configuration, where there is a place for it.
    pub fn docker_config(&self) -> Option<DockerConfig> {
        let path = self.settings.docker_config.as_ref()?.join("config.json");
        let directories = self.settings.path.iter().flat_map(std::env::split_paths);
        Some(directories.fold(DockerConfig::new(path), DockerConfig::with_helpers_in))
    }
}
