//! The process that takes down what a build had of a network, from both sides.
//!
//! The kernel takes longer to remove a bridge than a small step takes, and the next build wants it again. So the build leaves the
//! bridge whole, and a process that it started while its steps ran removes it when nobody has taken it up for a moment, as a
//! container's monitor does. The keeper's own lease names the network before the build lets go of it; if the build is killed,
//! the keeper's end of their connection says so.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use rbuild_cache::WAITING;
use rbuild_container::{NetworkId, Networks};
use rbuild_executor::begin_session;

use crate::background;
use crate::cli::report::Failure;
use crate::config::Settings;
use crate::engine::Engine;
use crate::exit_code::Exit;

/// What the keeper says when the network is its own.
const HELD: u8 = b'+';

/// A keeper that was started; when this is dropped it begins.
#[derive(Debug)]
pub(super) struct Keeper(UnixStream);

impl Keeper {
    /// Starts one; `None` where there can be none.
    pub(super) fn start(id: &NetworkId, settings: &Settings) -> Option<Self> {
        let started = UnixStream::pair().and_then(|(own, theirs)| {
            background::start("network-keeper", id.as_str(), theirs.into(), settings)?;
            Ok(Self(own))
        });
        started.inspect_err(|error| tracing::debug!(%error, "no keeper for the network of the steps")).ok()
    }

    /// Whether it holds the network; waits until it does or has ended.
    pub(super) fn holds(&mut self) -> bool {
        let mut said = [0];
        self.0.read_exact(&mut said).is_ok() && said[0] == HELD
    }
}

/// Is the keeper.
pub(crate) fn keep(id: &NetworkId, engine: &Engine) -> Result<Exit, Failure> {
    let mut build = UnixStream::from(begin_session()?);
    let store = engine.store()?;
    let networks = Networks::new(store)?;
    let lease = store.lease(WAITING)?;
    networks.hold(id, &lease)?;
    // Whoever waits for the build's end may remove the whole store then.
    let linger = engine.network_linger()?;
    // A build that is gone by now is one that has ended.
    drop(build.write_all(&[HELD]).and_then(|()| build.shutdown(Shutdown::Write)).and_then(|()| build.read(&mut [0])));
    networks.outlast(id, linger)?;
    drop(lease);
    Ok(Exit::Success)
}
