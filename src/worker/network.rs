//! Networks of `RUN` steps: namespaces with a way out, made ahead of the steps that need them.
//!
//! The first step that wants a network lets one be made while its root file system is prepared; from then on one more is
//! always ready, made on a thread of its own while steps run. A namespace is used by one step after the other, as BuildKit
//! does it: a step without privileges can change nothing in it, and its processes are gone when it goes on. One that a
//! privileged step had is thrown away. A build in which no step runs makes nothing. Their bridge goes when the build has ended,
//! and another process sees to it ([`keeper`]).
//!
//! Where this host can have no bridge the way out is a process (`pasta`, `slirp4netns`). Where that is not possible either,
//! the step fails and says why: nobody gets the host's network without asking for it.

pub(super) mod keeper;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use jiff::Timestamp;
use rbuild_cache::{Lease, Store};
use rbuild_container::{EndpointRequest, NetworkError, NetworkId, Networks, NoBridge, Purpose, Uplink, UplinkError};
use rbuild_solver::JobError;

use self::keeper::Keeper;
use super::failure::{chain, failed};
use crate::config::Settings;

const HELP: &str = "choose --network=none for the step or the build if it needs none; \
                    --network=host gives it this machine's own network, with everything that listens on it";

/// The networks of one build's steps.
pub(super) struct StepNetworks {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    settings: Settings,
    /// Opened for the first step that wants a network.
    networks: OnceLock<Networks>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    way: Option<Way>,
    /// Ready for the next step.
    idle: Vec<Uplink>,
    /// How many are being made.
    making: usize,
    /// Takes down the bridge when the build has ended.
    keeper: Kept,
    /// Why one that was made ahead failed; told to the next who wants one.
    failed: Option<UplinkError>,
}

/// Who takes down the bridge.
#[derive(Default)]
enum Kept {
    /// This process, as long as nobody else is there.
    #[default]
    Not,
    /// A process is being started for it.
    Soon,
    /// A process.
    By(Keeper),
}

/// How steps get out.
#[derive(Clone)]
enum Way {
    /// Over the bridge of this network.
    Bridge(NetworkId),
    /// Through a process, since there can be no bridge for this reason.
    Process(NoBridge),
}

/// A step's network while it runs.
pub(super) struct Lent {
    shared: Arc<Shared>,
    network: Option<Uplink>,
}

/// What becomes of a network after its step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// The next step may have it.
    Reuse,
    /// Its step may have changed it.
    Discard,
}

impl StepNetworks {
    /// Nothing is made yet.
    pub(super) fn new(store: &Store, settings: &Settings) -> Self {
        let (store, settings, networks) = (store.clone(), settings.clone(), OnceLock::new());
        Self {
            shared: Arc::new(Shared { store, settings, networks, state: Mutex::default(), changed: Condvar::new() }),
        }
    }

    /// Says that a step is about to want a network.
    pub(super) fn prepare(&self, lease: &Lease, now: Timestamp) -> Result<(), UplinkError> {
        let mut state = self.shared.lock();
        let id = match &state.way {
            Some(Way::Process(_)) => return Ok(()),
            Some(Way::Bridge(id)) => id.clone(),
            None => {
                let networks = self.shared.networks()?;
                let id = networks.of_purpose(Purpose::Build, now)?.id;
                // Before anything of it is there.
                networks.hold(&id, lease).map_err(NetworkError::from)?;
                state.way = Some(Way::Bridge(id.clone()));
                id
            }
        };
        if state.idle.is_empty() && state.making == 0 && state.failed.is_none() {
            state.making += 1;
            self.shared.make_on_thread(id);
        }
        Ok(())
    }

    /// A network for a step, and one more for the next.
    pub(super) fn take(&self, lease: &Lease) -> Result<Lent, UplinkError> {
        let shared = &self.shared;
        let mut state = shared.lock();
        loop {
            if let Some(network) = state.idle.pop() {
                if let (Some(Way::Bridge(id)), true) = (state.way.clone(), state.idle.is_empty() && state.making == 0) {
                    state.making += 1;
                    shared.make_on_thread(id);
                }
                return Ok(Lent { shared: Arc::clone(shared), network: Some(network) });
            }
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            if let Some(Way::Process(why)) = state.way.clone() {
                drop(state);
                let network = shared.networks()?.through_process(&why, lease)?;
                return Ok(Lent { shared: Arc::clone(shared), network: Some(network) });
            }
            if state.making == 0 {
                return Err(UplinkError::Namespace(std::io::ErrorKind::NotFound.into()));
            }
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes everything down, on a thread of its own: nobody waits for the kernel until the build is over.
    pub(super) fn close(&self) -> Closing {
        let shared = Arc::clone(&self.shared);
        let untouched = shared.lock().way.is_none();
        let thread = (!untouched)
            .then(|| std::thread::Builder::new().name("networks-end".to_owned()).spawn(move || shared.close()).ok());
        Closing(thread.flatten())
    }
}

/// The networks of a build are being taken down; dropping this waits for it.
pub struct Closing(Option<std::thread::JoinHandle<()>>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take()
            && thread.join().is_err()
        {
            tracing::warn!("taking down the networks of the steps failed");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn networks(&self) -> Result<&Networks, NetworkError> {
        if let Some(networks) = self.networks.get() {
            return Ok(networks);
        }
        let opened = Networks::new(&self.store)?;
        Ok(self.networks.get_or_init(|| opened))
    }

    /// Makes one more; the caller has counted it.
    fn make_on_thread(self: &Arc<Self>, id: NetworkId) {
        let shared = Arc::clone(self);
        let started = std::thread::Builder::new().name("networks".to_owned()).spawn(move || {
            let networks = shared.networks().map_err(UplinkError::from);
            let made = networks.and_then(|networks| networks.over_bridge(&id, &EndpointRequest::default()));
            let mut state = shared.lock();
            state.making -= 1;
            let mut hire = false;
            match made {
                Ok(Ok(network)) => {
                    state.idle.push(network);
                    hire = matches!(state.keeper, Kept::Not);
                }
                Ok(Err(why)) => state.way = Some(Way::Process(why)),
                // Nobody may be waiting for it.
                Err(error) => state.failed = Some(error),
            }
            if hire {
                state.keeper = Kept::Soon;
            }
            drop(state);
            shared.changed.notify_all();
            if hire {
                let keeper = Keeper::start(&id, &shared.settings);
                shared.lock().keeper = keeper.map_or(Kept::Not, Kept::By);
                shared.changed.notify_all();
            }
        });
        if let Err(error) = started {
            let mut state = self.lock();
            state.making -= 1;
            state.failed = Some(UplinkError::Namespace(error));
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        while state.making > 0 || matches!(state.keeper, Kept::Soon) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (idle, keeper) = (std::mem::take(&mut state.idle), std::mem::take(&mut state.keeper));
        drop(state);
        let mut keeper = match keeper {
            Kept::By(keeper) => Some(keeper),
            _ => None,
        };
        let end = if keeper.as_mut().is_some_and(Keeper::holds) { Uplink::end_warm } else { Uplink::end };
        idle.into_iter().for_each(|network| told(end(network)));
    }
}

fn discard(network: Uplink) {
    told(network.end());
}

fn told(ended: Result<(), NetworkError>) {
    if let Err(error) = ended {
        tracing::warn!(error = chain("", &error), "a step's network is left for the next invocation");
    }
}

impl Lent {
    /// The namespace with its way out.
    pub(super) fn uplink(&self) -> &Uplink {
        self.network.as_ref().expect("it goes only when this does")
    }

    /// Gives it back. All processes of the step have ended.
    pub(super) fn give_back(mut self, after: After) {
        let Some(network) = self.network.take() else { return };
        match after {
            After::Reuse => {
                self.shared.lock().idle.push(network);
                self.shared.changed.notify_all();
            }
            After::Discard => discard(network),
        }
    }
}

impl Drop for Lent {
    /// Where the step was not even started.
    fn drop(&mut self) {
        if let Some(network) = self.network.take() {
            discard(network);
        }
    }
}

/// A step cannot have its network.
pub(super) fn refused(error: &UplinkError) -> JobError {
    failed(chain("cannot give the step a network", error)).help(HELP)
}
