//! Containers as the crate sees them: records, names, volumes and removal, without a sandbox.

mod errors;

use super::*;
use crate::config::{ContainerMount, ContainerMountSource, VolumeOwnership};
use crate::mounts::CopyUp;
use crate::process_id::ProcessId;
use crate::record::tests::sample;
use crate::request::RunRequest;
use crate::status::Change;
use crate::volume::VolumeName;
use crate::volumes::NewVolume;
use rbuild_cache::{OpenOptions, SystemClock};
use std::collections::BTreeMap;

struct Bench {
    _home: tempfile::TempDir,
    containers: Containers,
    lease: Lease,
}

fn bench() -> Bench {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(&home.path().join("store"), OpenOptions::new("test")).unwrap();
    let lease = store.lease("test").unwrap();
    Bench { _home: home, containers: Containers::new(store, Arc::new(SystemClock)), lease }
}

impl Bench {
    fn publish(&self, record: &ContainerRecord) -> Result<(), PublishError> {
        let directory = self.lease.scratch_name("container").unwrap();
        fs::create_dir(&directory).unwrap();
        self.containers.publish(record, &directory)
    }

    fn add(&self, name: &str) -> ContainerRecord {
        let record = sample(name);
        self.publish(&record).unwrap();
        record
    }
}

#[test]
fn a_container_is_found_by_id_name_and_unique_prefix() {
    let bench = bench();
    let (web, db) = (bench.add("web"), bench.add("db-1"));
    for text in [web.id.as_str(), "web", "/web", web.id.short()] {
        assert_eq!(bench.containers.find(text).unwrap(), web, "{text}");
    }
    assert_eq!(bench.containers.find("db-1").unwrap(), db);
    for text in ["", "we", "webb", "../web", &"0".repeat(64)] {
        let error = bench.containers.find(text).unwrap_err();
        assert_eq!(error.to_string(), format!("no such container: {text}"));
    }
}

#[test]
fn a_prefix_of_several_is_ambiguous_and_a_name_beats_a_prefix() {
    let bench = bench();
    let mut records: Vec<ContainerRecord> = (0..3).map(|n| sample(&format!("c-{n}"))).collect();
    for (record, digit) in records.iter_mut().zip(["a", "b", "b"]) {
        record.id = format!("{}{}", digit.repeat(4), &record.id.as_str()[4..]).parse().unwrap();
        bench.publish(record).unwrap();
    }
    assert_eq!(bench.containers.find("aaaa").unwrap(), records[0]);
    let error = bench.containers.find("bbbb").unwrap_err();
    assert_eq!(error.to_string(), "multiple containers found with provided prefix: bbbb");
    let named = bench.add("aaaa");
    assert_eq!(bench.containers.find("aaaa").unwrap(), named);
}

#[test]
fn a_name_belongs_to_one_container_until_it_is_removed() {
    let bench = bench();
    let first = bench.add("web");
    let error = bench.publish(&sample("web")).unwrap_err();
    assert!(matches!(&error, PublishError::NameTaken { owner, .. } if *owner == first.id), "{error}");
    assert_eq!(bench.containers.list().unwrap().containers.len(), 1, "the second never appeared");
    bench.containers.withdraw(&first, &bench.lease).unwrap();
    assert!(bench.containers.find("web").is_err());
    let second = bench.add("web");
    assert_eq!(bench.containers.find("web").unwrap(), second);
    bench.containers.withdraw(&first, &bench.lease).unwrap();
    assert_eq!(bench.containers.find("web").unwrap(), second, "an old removal repeated takes nobody else's name");
}

#[test]
fn a_name_whose_container_never_appeared_is_free() {
    let bench = bench();
    let record = sample("web");
    fs::create_dir_all(bench.containers.names()).unwrap();
    std::os::unix::fs::symlink(format!("../{}", ContainerId::random()), bench.containers.name_link(&record.name))
        .unwrap();
    assert!(bench.containers.find("web").is_err());
    bench.publish(&record).unwrap();
    assert_eq!(bench.containers.find("web").unwrap(), record);
}

#[test]
fn a_running_container_whose_process_was_killed_is_set_right() {
    let bench = bench();
    let record = bench.add("web");
    let held = bench.containers.hold(&record.id).unwrap().unwrap();
    bench
        .containers
        .update(&record.id, |r| Ok(r.state.start(ProcessId { pid: 1, started: 1 }, Timestamp::UNIX_EPOCH)?))
        .unwrap();
    assert!(bench.containers.find("web").unwrap().state.status.is_live());
    drop(held);
    let lost = bench.containers.find("web").unwrap();
    assert_eq!(lost.state.exit, Some(ContainerExit::Lost));
    assert_eq!(lost.state.exit.as_ref().unwrap().code(), 255);
    assert_eq!(bench.containers.read(&record.id).unwrap().unwrap(), lost, "and it is recorded");
}

#[test]
fn only_one_may_run_a_container() {
    let bench = bench();
    let record = bench.add("web");
    let held = bench.containers.hold(&record.id).unwrap();
    assert!(held.is_some());
    assert!(bench.containers.hold(&record.id).unwrap().is_none());
    drop(held);
    assert!(bench.containers.hold(&record.id).unwrap().is_some());
}

#[test]
fn a_change_that_is_refused_writes_nothing() {
    let bench = bench();
    let record = bench.add("web");
    let error = bench
        .containers
        .update(&record.id, |r| {
            r.state.finished = Some(Timestamp::UNIX_EPOCH);
            Ok(r.state.change(Change::Pause)?)
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "a container that is created cannot be paused");
    assert_eq!(bench.containers.load(&record.id).unwrap(), Some(record));
    let gone = ContainerId::random();
    assert!(matches!(bench.containers.update(&gone, |_| Ok(())), Err(UpdateError::Gone { .. })));
}

#[test]
fn one_damaged_record_hides_no_other() {
    let bench = bench();
    let (old, mut new) = (bench.add("old"), sample("new"));
    new.created = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(5);
    bench.publish(&new).unwrap();
    let broken = bench.add("broken");
    fs::write(bench.containers.record_path(&broken.id), "{").unwrap();
    let listing = bench.containers.list().unwrap();
    assert_eq!(listing.containers, [new, old.clone()], "the newest first");
    assert_eq!(listing.damaged.len(), 1);
    assert!(listing.damaged[0].1.to_string().ends_with("container.json is damaged"));
    assert_eq!(bench.containers.of_image(&old.image.id).unwrap().len(), 2);
}

#[test]
fn names_stay_unique_among_racing_processes() {
    let bench = bench();
    let taken: usize = std::thread::scope(|scope| {
        let tries: Vec<_> =
            (0..8).map(|_| scope.spawn(|| usize::from(bench.publish(&sample("web")).is_ok()))).collect();
        tries.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 1);
}

#[test]
fn what_a_killed_creation_kept_is_released() {
    let bench = bench();
    let (made, killed, kept) = (ContainerId::random(), ContainerId::random(), bench.add("kept").id);
    let roots = bench.containers.store().roots();
    for id in [&made, &killed, &kept] {
        roots.set(&create::root_name(id), &[rbuild_cache::Kept::Blob(Digest::sha256("x"))]).unwrap();
    }
    roots.set("somebody/else", &[rbuild_cache::Kept::Blob(Digest::sha256("x"))]).unwrap();
    let held = bench.containers.hold(&made).unwrap();
    bench.containers.list_without_leftovers(&bench.lease).unwrap();
    let mut left: Vec<String> = roots.list().unwrap().into_keys().collect();
    left.sort();
    let mut want = vec![create::root_name(&made), create::root_name(&kept), "somebody/else".to_owned()];
    want.sort();
    assert_eq!(left, want);
    drop(held);
    bench.containers.list_without_leftovers(&bench.lease).unwrap();
    assert_eq!(roots.list().unwrap().len(), 2);
}

#[test]
fn a_container_does_not_go_while_its_record_is_changed() {
    let bench = bench();
    let record = bench.add("web");
    std::thread::scope(|scope| {
        let mut removal = None;
        let changed = bench.containers.update(&record.id, |changed| {
            removal = Some(scope.spawn(|| bench.containers.withdraw(&record, &bench.lease)));
            // Long enough for the removal to have gone ahead, did it not wait.
            std::thread::sleep(Duration::from_millis(50));
            Ok(changed.state.change(Change::BeginRemoval)?)
        });
        assert_eq!(changed.unwrap().state.status, ContainerStatus::Removing);
        removal.unwrap().join().unwrap().unwrap();
    });
    assert!(matches!(bench.containers.update(&record.id, |_| Ok(())), Err(UpdateError::Gone { .. })));
}

impl Bench {
    /// A container with one anonymous volume, ended by itself.
    fn add_with_volume(&self) -> (ContainerRecord, VolumeName) {
        let (mut record, name) = (sample("web"), VolumeName::random());
        let new = NewVolume {
            name: name.clone(),
            ownership: VolumeOwnership::Anonymous,
            labels: BTreeMap::new(),
            options: crate::volumes::VolumeOptions::default(),
            lifetime: Lifetime::Kept,
        };
        self.containers.ensure_volume(&new, None, &self.lease).unwrap();
        record.config.mounts = vec![ContainerMount {
            source: ContainerMountSource::Volume {
                name: name.clone(),
                ownership: VolumeOwnership::Anonymous,
                copy: CopyUp::Nothing,
                labels: BTreeMap::new(),
            },
            ..tmpfs_mount("/data")
        }];
        self.publish(&record).unwrap();
        (record, name)
    }
}

/// A mount, whatever its source.
fn tmpfs_mount(target: &str) -> ContainerMount {
    let request = crate::mounts::parse_tmpfs_flag(target).unwrap();
    let request = RunRequest { mounts: vec![request], ..RunRequest::default() };
    let image = rbuild_image::RuntimeConfig { cmd: Some(vec!["true".into()]), ..Default::default() };
    let id = ContainerId::random();
    let surroundings = crate::create::Surroundings {
        id: &id,
        bounding_capabilities: rbuild_executor::Capabilities::default(),
        volume_name: &mut VolumeName::random,
    };
    crate::create::merge(&image, &request, surroundings).unwrap().mounts.remove(0)
}

/// Every prefix of what a removal does, as a kill leaves it.
#[test]
fn a_removal_that_was_cut_short_is_taken_up_and_takes_the_volumes_it_was_to_take() {
    for volumes in [AnonymousVolumes::Remove, AnonymousVolumes::Keep] {
        for steps in 1..=4 {
            let bench = bench();
            let (record, name) = bench.add_with_volume();
            let containers = &bench.containers;
            let begun = containers.update(&record.id, |record| Ok(record.state.begin_removal(volumes)?)).unwrap();
            if steps > 1 {
                containers.store().roots().release(&create::root_name(&record.id)).unwrap();
            }
            if steps > 2 && volumes == AnonymousVolumes::Remove {
                containers.remove_anonymous_volumes(&begun, &bench.lease).unwrap();
            }
            if steps > 3 {
                containers.withdraw(&begun, &bench.lease).unwrap();
            }
            // Whoever is at it is left alone.
            let held = containers.hold(&record.id).unwrap();
            let listing = containers.list_without_leftovers(&bench.lease).unwrap();
            assert_eq!((listing.gone, listing.containers.len()), (0, usize::from(steps < 4)), "{volumes:?} {steps}");
            drop(held);
            let listing = containers.list_without_leftovers(&bench.lease).unwrap();
            assert_eq!((listing.gone, listing.containers.len()), (usize::from(steps < 4), 0), "{volumes:?} {steps}");
            let kept = containers.volume(&name).unwrap().is_some();
            assert_eq!(kept, volumes == AnonymousVolumes::Keep, "{steps}");
            assert!(containers.find("web").is_err());
        }
    }
}

#[test]
fn a_removal_that_has_taken_volumes_takes_the_others_however_it_is_repeated() {
    let bench = bench();
    let (record, name) = bench.add_with_volume();
    let begin = |record: &mut ContainerRecord| Ok(record.state.begin_removal(AnonymousVolumes::Remove)?);
    bench.containers.update(&record.id, begin).unwrap();
    bench.containers.remove(&record.id, RemoveOptions::default(), &bench.lease).unwrap();
    assert_eq!(bench.containers.volume(&name).unwrap(), None);
}

#[test]
fn a_volume_goes_with_its_lease_unless_its_container_appeared_or_another_has_it() {
    let bench = bench();
    let root = bench.containers.store().layout().root().to_owned();
    let (record, name) = bench.add_with_volume();
    let held = |id: &ContainerId, name: &VolumeName| match crate::volumes::hold_unborn(id, name) {
        rbuild_cache::Hold::Outside { name, .. } => name,
        other => panic!("{other:?}"),
    };
    let there = || bench.containers.volume(&name).unwrap().is_some();
    crate::remove_unborn_volume(&root, &held(&record.id, &name)).unwrap();
    assert!(there(), "its container is there");
    let never = ContainerId::random();
    crate::remove_unborn_volume(&root, &held(&never, &name)).unwrap();
    assert!(there(), "another container has it");
    bench.containers.withdraw(&record, &bench.lease).unwrap();
    for _ in 0..2 {
        crate::remove_unborn_volume(&root, &held(&never, &name)).unwrap();
        assert!(!there());
    }
    assert!(crate::remove_unborn_volume(&root, "../..").is_err());
}
