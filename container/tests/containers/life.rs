//! The life of containers that are kept: names, states, stopping from elsewhere, removal.

use std::thread;
use std::time::{Duration, Instant};

use rbuild_container::{
    AnonymousVolumes, CallerStreams, ContainerStatus, CreateError, PrunedVolumes, PublishError, RemoveError,
    RemoveOptions, RunRequest, RunningContainer, Signal,
};

use crate::world::{Test, World, kept, pipe, request};

pub(crate) const TESTS: &[Test] = &[
    ("a_container_goes_through_its_states", a_container_goes_through_its_states),
    ("a_running_container_is_stopped_from_elsewhere", a_running_container_is_stopped_from_elsewhere),
    ("waiting_gives_the_exit_code", waiting_gives_the_exit_code),
    ("a_container_that_ignores_its_stop_signal_is_killed", a_container_that_ignores_its_stop_signal_is_killed),
    ("force_removes_what_runs", force_removes_what_runs),
    ("created_now_and_started_by_another_process", created_now_and_started_by_another_process),
    ("a_failed_start_is_recorded", a_failed_start_is_recorded),
    ("a_refused_container_leaves_nothing", a_refused_container_leaves_nothing),
];

const WITH_VOLUMES: RemoveOptions =
    RemoveOptions { running: RunningContainer::Refuse, volumes: AnonymousVolumes::Remove };

fn a_container_goes_through_its_states(world: &World) {
    let lease = world.store.lease("test").unwrap();
    let named = RunRequest { name: Some("stately".parse().unwrap()), ..kept(&["sh", "-c", "exit 4"]) };
    let record = world.create(&named, &lease).unwrap();
    assert_eq!(record.state.status, ContainerStatus::Created);
    let error = world.create(&named, &lease).unwrap_err();
    assert!(matches!(error, CreateError::Publish(PublishError::NameTaken { .. })), "{error}");
    assert_eq!(world.start(&record, b"").unwrap().code, 4);
    let ended = world.containers.find("stately").unwrap();
    assert_eq!((ended.state.status, ended.state.process), (ContainerStatus::Exited, None));
    assert!(ended.state.started <= ended.state.finished && ended.state.started.is_some());
    world.containers.remove(&record.id, WITH_VOLUMES, &lease).unwrap();
    assert!(world.containers.find("stately").is_err());
    world.containers.remove(&record.id, WITH_VOLUMES, &lease).unwrap();
    let error = world.start(&record, b"").unwrap_err();
    assert!(error.to_string().starts_with("no such container"), "{error}");
}

/// Runs `script` in the foreground on a thread, and `act` once it has said that it is ready.
fn while_running(world: &World, request: &RunRequest, act: impl FnOnce(&str) + Send) -> u8 {
    let lease = world.store.lease("test").unwrap();
    let record = world.create(request, &lease).unwrap();
    let (stdin, _typed) = pipe();
    let (mut reader, stdout) = pipe();
    let (_err, stderr) = pipe();
    let streams = CallerStreams { input: stdin.into(), output: stdout.into(), error: stderr.into() };
    thread::scope(|scope| {
        let acting = scope.spawn(|| {
            let mut ready = [0; 6];
            std::io::Read::read_exact(&mut reader, &mut ready).unwrap();
            act(record.id.as_str());
        });
        let (code, _lost) = world.start_on(&record, streams).unwrap();
        acting.join().unwrap();
        code
    })
}

fn running(world: &World, id: &str) -> rbuild_container::ContainerRecord {
    let start = Instant::now();
    loop {
        let record = world.containers.find(id).unwrap();
        if record.state.status == ContainerStatus::Running {
            return record;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{record:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn a_running_container_is_stopped_from_elsewhere(world: &World) {
    let script = "trap 'exit 9' TERM; echo ready; while true; do sleep 0.05; done";
    let code = while_running(world, &request(&["sh", "-c", script]), |id| {
        let record = running(world, id);
        assert!(record.state.process.is_some());
        let lease = world.store.lease("other").unwrap();
        let error = world.containers.remove(&record.id, RemoveOptions::default(), &lease).unwrap_err();
        assert!(matches!(error, RemoveError::Running { .. }), "{error}");
        world.containers.stop(&record, None).unwrap();
    });
    assert_eq!(code, 9);
}

fn waiting_gives_the_exit_code(world: &World) {
    let lease = world.store.lease("test").unwrap();
    let mut waited = None;
    let code = while_running(world, &kept(&["sh", "-c", "echo ready; sleep 0.3; exit 6"]), |id| {
        let id = running(world, id).id;
        waited = Some((world.containers.wait(&id).unwrap(), id));
    });
    let (waited, id) = waited.unwrap();
    assert_eq!((code, waited), (6, Some(6)));
    assert_eq!(world.containers.wait(&id).unwrap(), Some(6), "again, at once");
    let pruned = world.containers.prune(&|_| true, &lease).unwrap();
    assert!(matches!(pruned.as_slice(), [(pruned, _)] if *pruned == id), "{pruned:?}");
    assert_eq!(world.containers.wait(&id).unwrap(), None);
    assert_eq!(world.containers.prune_volumes(PrunedVolumes::Anonymous, &|_| true, &lease).unwrap().len(), 1);
}

fn a_container_that_ignores_its_stop_signal_is_killed(world: &World) {
    let start = Instant::now();
    let asked = RunRequest {
        stop_signal: Some(Signal::USR1),
        ..request(&["sh", "-c", "trap '' USR1; echo ready; while true; do sleep 0.05; done"])
    };
    let code = while_running(world, &asked, |id| {
        let record = running(world, id);
        world.containers.stop(&record, Some(Duration::from_millis(300))).unwrap();
    });
    assert_eq!(code, 137);
    assert!(start.elapsed() >= Duration::from_millis(300) && start.elapsed() < Duration::from_secs(5));
}

fn force_removes_what_runs(world: &World) {
    let code = while_running(world, &kept(&["sh", "-c", "echo ready; sleep 60"]), |id| {
        let record = running(world, id);
        let lease = world.store.lease("other").unwrap();
        let force = RemoveOptions { running: RunningContainer::Kill, volumes: AnonymousVolumes::Remove };
        world.containers.remove(&record.id, force, &lease).unwrap();
        assert!(world.containers.find(id).is_err());
    });
    assert_eq!(code, 137);
}

fn created_now_and_started_by_another_process(world: &World) {
    let creating = world.store.lease("create").unwrap();
    let record = world.create(&request(&["echo", "later"]), &creating).unwrap();
    drop(creating);
    assert_eq!(world.start(&record, b"").unwrap().out, "later\n");
    assert!(world.containers.find(record.id.as_str()).is_err(), "--rm holds for that start");
}

fn a_failed_start_is_recorded(world: &World) {
    let lease = world.store.lease("test").unwrap();
    let record = world.create(&kept(&["/no/such"]), &lease).unwrap();
    world.start(&record, b"").unwrap_err();
    let record = world.containers.find(record.id.as_str()).unwrap();
    assert_eq!(record.state.status, ContainerStatus::Created);
    assert_eq!(record.state.exit.as_ref().map(rbuild_container::ContainerExit::code), Some(127));
    world.containers.remove(&record.id, WITH_VOLUMES, &lease).unwrap();
}

fn a_refused_container_leaves_nothing(world: &World) {
    let lease = world.store.lease("test").unwrap();
    for refused in [
        RunRequest { working_dir: Some("/bin/busybox".into()), ..request(&["true"]) },
        RunRequest { working_dir: Some("relative".into()), ..request(&["true"]) },
    ] {
        assert!(world.create(&refused, &lease).is_err());
    }
    let unknown = RunRequest { user: Some("nobody-here".into()), ..request(&["true"]) };
    assert!(world.run(&unknown).is_err());
}
