//! Commands about containers that are killed in front of each of their steps: the next command takes up what they left.
//!
//! `strace` kills in front of the Nth call that names, renames or removes something, for every N until the command gets through.

use std::collections::BTreeSet;
use std::fs;

use crate::bench::Bench;

const CALLS: &str = "rename,renameat,renameat2,unlink,unlinkat,mkdir,symlink,rmdir,ftruncate,fsync,fdatasync";
/// More than any of these commands takes.
const MOST: usize = 400;

fn volumes(bench: &Bench) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(bench.store().join("volumes")) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn containers(bench: &Bench) -> Vec<String> {
    bench.rbuild(["ps", "-aq", "--no-trunc"]).run().ok().stdout.lines().map(str::to_owned).collect()
}

/// Runs a command again and again, killed in front of a later step each time; `check` looks at what is left.
#[track_caller]
fn killed_at_each_step<const N: usize>(
    bench: &Bench,
    command: [&str; N],
    mut prepare: impl FnMut(),
    mut check: impl FnMut(usize),
) {
    for step in 1..MOST {
        prepare();
        let inject = format!("inject={CALLS}:signal=KILL:when={step}");
        let ran = bench.through(["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject], command).run();
        check(step);
        if ran.code == 0 {
            assert!(step > 5, "it was never killed");
            return;
        }
    }
    panic!("{command:?} never gets through");
}

#[test]
fn a_container_whose_creation_is_killed_leaves_no_volume() {
    let Some(bench) = Bench::with_busybox() else { return };
    let check = |step: usize| {
        let made = containers(&bench);
        assert_eq!(volumes(&bench).len(), made.len(), "a volume for each container, killed at step {step}");
        for id in made {
            let _ran = bench.rbuild(["rm", "-v", &id]).run().ok();
        }
        assert!(volumes(&bench).is_empty(), "{step}: {:?}", volumes(&bench));
    };
    killed_at_each_step(&bench, ["create", "-v", "/anonymous", "busybox", "true"], || {}, check);
}

#[test]
fn a_removal_that_is_killed_is_taken_up_by_the_next_command() {
    let Some(bench) = Bench::with_busybox() else { return };
    for (command, kept) in [(["rm", "-v", "web"], 0), (["rm", "-f", "web"], 1)] {
        let prepare = || {
            let ran = bench.rbuild(["create", "--name=web", "-v", "/anonymous", "busybox", "true"]).run();
            // Killed before it had begun, the container of before is still there.
            assert!(ran.code == 0 || ran.stderr.contains("already in use"), "{}", ran.stderr);
        };
        let check = |step: usize| {
            if containers(&bench).is_empty() {
                assert_eq!(volumes(&bench).len(), kept, "{command:?} killed at step {step}");
                for name in volumes(&bench) {
                    let _ran = bench.rbuild(["volume", "rm", &name]).run().ok();
                }
            } else {
                assert_eq!(volumes(&bench).len(), 1, "{command:?} killed at step {step}");
            }
        };
        killed_at_each_step(&bench, command, prepare, check);
        assert!(containers(&bench).is_empty());
    }
}
