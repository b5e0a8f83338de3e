//! What two states of a container's record tell.

use jiff::Timestamp;

use super::executed::{begun, ended};
use super::{Event, EventKind};
use crate::exit::ContainerExit;
use crate::health::{HealthResult, HealthStatus};
use crate::record::ContainerRecord;
use crate::status::ContainerStatus;

/// What happened between `old` and `new`; `now` is for what has no time of its own in the record.
pub(crate) fn changes(old: &ContainerRecord, new: &ContainerRecord, now: Timestamp) -> Vec<Event> {
    let mut events = Vec::new();
    if old.name != new.name {
        events.push(new.event("rename", now, &[("oldName", &format!("/{}", old.name))]));
    }
    let state = &new.state;
    if state.started != old.state.started {
        events.push(new.event("start", state.started.unwrap_or(now), &[]));
    }
    if state.finished != old.state.finished {
        if state.exit.as_ref().is_some_and(ContainerExit::out_of_memory) {
            events.push(new.event("oom", state.finished.unwrap_or(now), &[]));
        }
        let code = state.exit.as_ref().map_or(0, |exit| exit.code()).to_string();
        events.push(new.event("die", state.finished.unwrap_or(now), &[("exitCode", &code)]));
    }
    match (old.state.status, state.status) {
        (ContainerStatus::Paused, ContainerStatus::Running) => events.push(new.event("unpause", now, &[])),
        (before, ContainerStatus::Paused) if before != ContainerStatus::Paused => {
            events.push(new.event("pause", now, &[]));
        }
        _ => {}
    }
    events
}

/// A check of a container that was run, and what it changed.
pub(crate) fn check(
    record: &ContainerRecord,
    result: &HealthResult,
    old: HealthStatus,
    new: HealthStatus,
) -> Vec<Event> {
    let [created, started] = begun(record, &result.exec, &record.config.health_command(), result.start);
    let mut events = vec![created, started, ended(record, &result.exec, &result.exit_code.to_string(), result.end)];
    if old != new {
        events.push(record.event(&format!("health_status: {}", new.name()), result.end, &[]));
    }
    events
}

impl ContainerRecord {
    /// Something that happened to it.
    pub(crate) fn event(&self, action: &str, time: Timestamp, more: &[(&str, &str)]) -> Event {
        let mut attributes = self.config.labels.clone();
        attributes.insert("image".to_owned(), self.image.name.clone());
        attributes.insert("name".to_owned(), self.name.to_string());
        attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Event { time, kind: EventKind::Container, action: action.to_owned(), id: self.id.to_string(), attributes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process_id::ProcessId;
    use crate::record::tests::sample;
    use crate::status::Change;

    #[test]
    fn a_life_is_told_from_its_states() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut states = vec![sample("web")];
        let mut step = |change: &dyn Fn(&mut ContainerRecord)| {
            let mut next = states.last().unwrap().clone();
            change(&mut next);
            states.push(next);
        };
        step(&|one| one.state.start(ProcessId { pid: 1, started: 1 }, at(10)).unwrap());
        step(&|one| one.state.change(Change::Pause).unwrap());
        step(&|one| one.state.change(Change::Unpause).unwrap());
        step(&|one| one.name = "other".parse().unwrap());
        step(&|one| one.state.end(ContainerExit::Code(3), at(20)).unwrap());
        step(&|_| ());
        let told: Vec<String> = states
            .windows(2)
            .flat_map(|pair| changes(&pair[0], &pair[1], at(99)))
            .map(|event| format!("{} {}", event.time.as_second(), event.action))
            .collect();
        assert_eq!(told, ["10 start", "99 pause", "99 unpause", "99 rename", "20 die"]);
        let died = changes(&states[4], &states[5], at(99)).remove(0);
        assert_eq!((died.attributes["exitCode"].as_str(), died.attributes["name"].as_str()), ("3", "other"));
    }
}
