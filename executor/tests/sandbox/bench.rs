//! What a step costs. Prints medians; fails only when something is absurd, as machines differ.

use std::time::{Duration, Instant};

use rbuild_executor::{Access, MountSource, Spawner, Stdio};

use crate::world::{Test, World, mount};

pub(crate) const TESTS: &[Test] = &[("bench::a_step_costs_milliseconds", step)];

const ROUNDS: usize = 101;

fn step(world: &World) {
    let begin = Instant::now();
    drop(Spawner::start().unwrap());
    println!("starting and ending a spawner: {:?}", begin.elapsed());
    let file = || MountSource::File { content: b"127.0.0.1 localhost\n".to_vec(), mode: 0o644, uid: 0, gid: 0 };
    let run = |name: &str, shape: &dyn Fn(&mut rbuild_executor::SandboxSpec)| {
        let mut times: Vec<(Duration, Duration)> = (0..ROUNDS)
            .map(|_| {
                let upper = world.upper();
                let mut spec = upper.spec(&["/bin/true"]);
                shape(&mut spec);
                let begin = Instant::now();
                let mut process = world.spawner.spawn(&spec, Stdio::null()).unwrap();
                let started = begin.elapsed();
                assert!(process.wait().unwrap().success());
                let total = begin.elapsed();
                drop(process);
                (total, started)
            })
            .collect();
        times.sort();
        let (total, started) = times[ROUNDS / 2];
        println!("{name}: median {total:.2?} (started after {started:.2?}), best {:.2?}", times[0].0);
        total
    };
    let whole = run("RUN-shaped step over three layers, own network", &|spec| {
        spec.mounts =
            vec![mount("/etc/resolv.conf", file(), Access::ReadOnly), mount("/etc/hosts", file(), Access::ReadOnly)];
    });
    run("the same on the host's network", &|spec| {
        spec.mounts =
            vec![mount("/etc/resolv.conf", file(), Access::ReadOnly), mount("/etc/hosts", file(), Access::ReadOnly)];
        spec.network = rbuild_executor::NetworkMode::Host;
    });
    run("without mounts of the caller's, program as PID 1", &|spec| spec.init = rbuild_executor::Init::Process);
    assert!(whole < Duration::from_millis(100), "{whole:?}");
}
