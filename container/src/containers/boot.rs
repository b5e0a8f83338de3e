//! The restart of the machine: which containers come up with it, and their orderly end before.
//!
//! ```text
//! containers.boot    the boot (`/proc/sys/kernel/random/boot_id`) whose containers were started
//! ```
//!
//! Nobody watches for a boot: something that the machine runs then says so ([`Containers::begin_boot`]). That it was done is
//! noted before the first is started, so that who says it twice starts nothing again that somebody has stopped meanwhile.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rbuild_cache::{LockError, LockMode, LockName, PathError, wait_silently};

use super::{Containers, StopError};
use crate::document::{self, AtPath, Durability, if_present};
use crate::network::NetworkChoice;
use crate::record::{ContainerRecord, Wanted};
use crate::status::ContainerStatus;

/// Containers that cannot be started with the machine.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Nobody else was to do it meanwhile.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The note cannot be read or written.
    #[error(transparent)]
    File(#[from] PathError),
}

/// What there is to do after a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// It was seen to.
    Known,
    /// These are to be started, in this order.
    New(Vec<ContainerRecord>),
}

impl Containers {
    /// The containers that come up with the machine, the first time that it is asked after the boot `id`; their records are
    /// as they are after the power was cut: those that ran have ended.
    pub fn begin_boot(&self, id: &str) -> Result<Boot, BootError> {
        let lock = LockName::other("boot", "containers");
        let _guard = self.store().lock(&lock, LockMode::Exclusive, &wait_silently)?;
        if self.noted_boot()?.as_deref() == Some(id) {
            return Ok(Boot::Known);
        }
        // Reading them sets right what says that it runs.
        let containers = self.list()?.containers;
        self.note_boot(id)?;
        Ok(Boot::New(in_order(containers.into_iter().filter(starts_with_machine).collect())))
    }

    /// Notes that the containers of the boot `id` need no start.
    pub fn note_boot(&self, id: &str) -> Result<(), PathError> {
        document::replace(&self.boot_path(), format!("{id}\n").as_bytes(), Durability::Synced)
    }

    fn noted_boot(&self) -> Result<Option<String>, PathError> {
        let path = self.boot_path();
        let text = if_present(fs::read_to_string(&path)).at("read", &path)?;
        Ok(text.map(|text| text.trim().to_owned()))
    }

    fn boot_path(&self) -> PathBuf {
        self.store().layout().containers().with_extension("boot")
    }

    /// Stops a container because the machine goes down: unlike one that somebody stopped, it comes up with it again.
    pub fn stop_for_now(&self, record: &ContainerRecord, grace: Option<Duration>) -> Result<(), StopError> {
        self.stop_as(record, Wanted::StoppedForNow, grace)
    }
}

fn starts_with_machine(record: &ContainerRecord) -> bool {
    let state = &record.state;
    let rests = matches!(state.status, ContainerStatus::Exited | ContainerStatus::Created);
    rests
        && state.started.is_some()
        && record.config.restart.starts_with_machine(state.wanted == Some(Wanted::Stopped), state.exit.as_ref())
}

/// The oldest first; those that share another one's network behind all others.
fn in_order(mut containers: Vec<ContainerRecord>) -> Vec<ContainerRecord> {
    containers.sort_by_key(|record| {
        (matches!(record.config.network, NetworkChoice::Container(_)), record.created, record.id.clone())
    });
    containers
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::exit::ContainerExit;
    use crate::process_id::ProcessId;
    use crate::record::tests::sample;
    use crate::restart::RestartPolicy;

    fn ended(policy: RestartPolicy, wanted: Option<Wanted>, code: u8) -> ContainerRecord {
        let mut record = sample("web");
        record.config.restart = policy;
        record.state.start(ProcessId { pid: 1, started: 1 }, Timestamp::UNIX_EPOCH).unwrap();
        record.state.end(ContainerExit::Code(code), Timestamp::UNIX_EPOCH).unwrap();
        record.state.wanted = wanted;
        record
    }

    #[test]
    fn policies_say_who_comes_up() {
        use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
        for (policy, wanted, code, starts) in [
            (No, None, 137, false),
            (Always, None, 137, true),
            (Always, Some(Wanted::Stopped), 0, true),
            (UnlessStopped, None, 137, true),
            (UnlessStopped, Some(Wanted::Stopped), 0, false),
            (UnlessStopped, Some(Wanted::StoppedForNow), 0, true),
            (OnFailure(None), None, 137, true),
            (OnFailure(None), None, 0, false),
            (OnFailure(None), Some(Wanted::StoppedForNow), 137, true),
            (OnFailure(Some(3)), Some(Wanted::Stopped), 137, false),
        ] {
            assert_eq!(starts_with_machine(&ended(policy, wanted, code)), starts, "{policy} {wanted:?} {code}");
        }
        let mut never_started = sample("new");
        never_started.config.restart = Always;
        assert!(!starts_with_machine(&never_started));
    }

    #[test]
    fn who_shares_a_network_waits_for_its_owner() {
        let (mut first, second) = (sample("sidecar"), sample("web"));
        first.config.network = NetworkChoice::Container("web".into());
        let names: Vec<_> = in_order(vec![first, second]).into_iter().map(|one| one.name.to_string()).collect();
        assert_eq!(names, ["web", "sidecar"]);
    }
}
