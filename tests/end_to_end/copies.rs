//! `cp`: where files go is what Docker 20.10 does, and nobody inside a container leads it outside.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::bench::Bench;

/// Starts a container that waits; gives the path under which this machine sees its root.
fn start(bench: &Bench, name: &str, options: &[&str], script: &str) -> PathBuf {
    let script = format!("{script}; echo ready; exec sleep 10000");
    let run = bench.rbuild(["run", "-d", "--network=none", "--name", name]).args(options);
    let _ran = run.args(["busybox", "sh", "-c", &script]).run().ok();
    while !bench.rbuild(["logs", name]).run().ok().stdout.contains("ready") {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let pid = bench.rbuild(["inspect", "-f", "{{.State.Pid}}", name]).run().ok().stdout;
    PathBuf::from(format!("/proc/{}/root", pid.trim()))
}

/// What lies outside the container: what it has is never read, and nothing comes to it.
struct Outside {
    directory: PathBuf,
}

impl Outside {
    const SECRET: &str = "nobody reads this";

    fn make(bench: &Bench) -> Self {
        let directory = bench.path("outside");
        fs::create_dir_all(directory.join("sub")).unwrap();
        for file in ["file", "sub/file"] {
            fs::write(directory.join(file), Self::SECRET).unwrap();
        }
        Self { directory }
    }

    #[track_caller]
    fn is_untouched(&self) {
        let mut found = listing(&self.directory);
        assert_eq!(found.remove("file").as_deref(), Some(Self::SECRET));
        assert_eq!(found.remove("sub/file").as_deref(), Some(Self::SECRET));
        assert_eq!(found.into_keys().collect::<Vec<_>>(), ["sub"], "something was written outside");
    }
}

/// Swaps two names in a directory as fast as it can, as a process of the container would, while `work` is done.
fn while_swapping(directory: &Path, pairs: &[[&str; 2]], work: impl FnOnce()) {
    let open = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let directory: OwnedFd = open.unwrap();
    let ended = AtomicBool::new(false);
    /// Ends the swapping also when `work` fails.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                for [one, other] in pairs {
                    match rustix::fs::renameat_with(&directory, *one, &directory, *other, RenameFlags::EXCHANGE) {
                        // A copy puts its file in the place of one of them.
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(error) => panic!("cannot swap {one} and {other}: {error}"),
                    }
                }
            }
        });
        let _end = End(&ended);
        work();
    });
}

/// A directory in which `x` and `y` are a directory and a link, and so are `up` and `down`, and `in/deep` moves; `outside` is
/// where the links lead on this machine.
fn set_the_race(race: &Path, outside: &Path) {
    for directory in ["x", "x/sub", "down", "in", "in/deep", "in/deep/er", "out"] {
        fs::create_dir(race.join(directory)).unwrap();
    }
    for file in ["x/file", "x/sub/file", "in/deep/er/file"] {
        fs::write(race.join(file), "inside").unwrap();
    }
    symlink(outside, race.join("y")).unwrap();
    let climb = format!("../../../../../../../../../../..{}", outside.display());
    symlink(climb, race.join("up")).unwrap();
    // Out of a directory that is elsewhere by then.
    symlink(format!("../../../..{}", outside.display()), race.join("in/deep/er/back")).unwrap();
}

const SWAPPED: [[&str; 2]; 3] = [["x", "y"], ["up", "down"], ["in/deep", "out"]];

/// Copies both ways many times while somebody swaps what the paths lead through.
fn copy_in_the_race(bench: &Bench, name: &str, race: &Path, outside: &Outside) {
    let from = bench.context("from", [("planted", "planted"), ("x/planted", "planted"), ("up/planted", "planted")]);
    while_swapping(race, &SWAPPED, || {
        // Who follows paths as strings is led outside; so the race is one.
        let naive = || fs::read_to_string(race.join("x/file")).is_ok_and(|text| text == Outside::SECRET);
        assert!((0..1_000_000).any(|_| naive()), "nothing is ever swapped");
        let (mut read, mut written) = (0, 0);
        for round in 0..8 {
            for path in ["race/x/file", "race/x/", "race/x/sub/.", "race/up/file", "race/in/deep/er/back/file", "race"]
            {
                let to = bench.path(format!("got-{round}"));
                fs::create_dir(&to).unwrap();
                let ran = bench.rbuild(["cp", "-L", &format!("{name}:/{path}")]).arg(&to).run();
                read += usize::from(ran.code == 0);
                let found = listing(&to);
                assert!(!found.values().any(|text| text == Outside::SECRET), "{path}: {found:#?}");
                fs::remove_dir_all(&to).unwrap();
            }
            let stream = bench.rbuild(["cp", &format!("{name}:/race"), "-"]).run();
            assert!(!stream.stdout.contains(Outside::SECRET));
            let paths = ["race/x/new", "race/x/", "race/up/planted", "race/up", "race/in/deep/er/back/", "race/y/sub"];
            for path in paths {
                let ran = bench.rbuild(["cp"]).arg(from.join("planted")).arg(format!("{name}:/{path}")).run();
                written += usize::from(ran.code == 0);
            }
            let _tried = bench.rbuild(["cp"]).arg(from.join(".")).arg(format!("{name}:/race")).run();
        }
        assert!(read > 0 && written > 0, "{read} read, {written} written");
    });
    outside.is_untouched();
}

#[test]
fn links_that_a_running_container_swaps_lead_cp_nowhere_else() {
    let Some(bench) = Bench::with_busybox() else { return };
    let outside = Outside::make(&bench);
    let race = start(&bench, "racer", &[], "mkdir /race").join("race");
    set_the_race(&race, &outside.directory);
    copy_in_the_race(&bench, "racer", &race, &outside);
    let _ran = bench.rbuild(["rm", "-f", "racer"]).run().ok();
}

#[test]
fn links_in_a_volume_that_another_container_swaps_lead_cp_nowhere_else() {
    let Some(bench) = Bench::with_busybox() else { return };
    let outside = Outside::make(&bench);
    let race = start(&bench, "racer", &["-v", "shared:/race"], "true").join("race");
    set_the_race(&race, &outside.directory);
    let _ran = bench.rbuild(["create", "--name=still", "-v", "shared:/race", "busybox"]).run().ok();
    copy_in_the_race(&bench, "still", &race, &outside);
    let _ran = bench.rbuild(["rm", "-f", "racer", "still"]).run().ok();
}

/// Every file below a directory, by path: what it holds, a link's target with an arrow.
fn listing(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            let content = if kind.is_dir() {
                todo.push(entry.path());
                "/".to_owned()
            } else if kind.is_symlink() {
                format!("->{}", fs::read_link(entry.path()).unwrap().display())
            } else {
                fs::read_to_string(entry.path()).unwrap()
            };
            found.insert(entry.path().strip_prefix(directory).unwrap().display().to_string(), content);
        }
    }
    found
}

/// What a copy finds on both sides.
const TREE: &str = "mkdir -p dir/sub dd; printf F > f; printf a > dir/a; printf b > dir/sub/b; printf old > dd/old; \
                    printf oldf > df; ln -s f lf; ln -s dir ld; ln -s dd dl; ln -s df dlf; ln -s later dm";

/// From what (columns) to what (rows), in either direction: what is new or changed then, without what lies below it;
/// `!` is a refusal. Recorded from Docker 20.10.24.
const TABLE: &str = include_str!("copies.txt");

const SOURCES: [(&str, &[&str]); 11] = [
    ("f", &[]),
    ("f/", &[]),
    ("dir", &[]),
    ("dir/", &[]),
    ("dir/.", &[]),
    ("lf", &[]),
    ("lf", &["-L"]),
    ("ld", &[]),
    ("ld", &["-L"]),
    ("ld/", &[]),
    ("none", &[]),
];
const DESTINATIONS: [&str; 14] =
    ["dd", "dd/", "dd/.", "df", "df/", "new", "new/", "new/.", "none/new", "none/new/", "dl", "dlf", "dlf/", "dm"];

#[test]
fn files_go_where_docker_puts_them() {
    let Some(bench) = Bench::with_busybox() else { return };
    let template = bench.path("template");
    fs::create_dir(&template).unwrap();
    let made = std::process::Command::new("sh").args(["-c", TREE]).current_dir(&template).status();
    assert!(made.unwrap().success());
    let count = SOURCES.len() * DESTINATIONS.len();
    let many = format!("mkdir /t && cd /t && {TREE}; for n in $(seq 0 {}); do cp -a /t /case-$n; done", count - 1);
    let root = start(&bench, "box", &[], &many);
    let before = listing(&template);
    for inwards in [false, true] {
        let mut table = String::new();
        for (row, to) in DESTINATIONS.iter().enumerate() {
            table.push_str(to);
            for (column, (from, options)) in SOURCES.iter().enumerate() {
                let number = row * SOURCES.len() + column;
                let inside = format!("box:/case-{number}/");
                let host = bench.path(format!("host-{inwards}-{number}"));
                let copied = std::process::Command::new("cp").arg("-a").arg(&template).arg(&host).status();
                assert!(copied.unwrap().success());
                let ends = if inwards {
                    [format!("{}/{from}", host.display()), format!("{inside}{to}")]
                } else {
                    [format!("{inside}{from}"), format!("{}/{to}", host.display())]
                };
                let ran = bench.rbuild(["cp"]).args(*options).args(ends).run();
                let after = if inwards { listing(&root.join(format!("case-{number}"))) } else { listing(&host) };
                table.push_str(&format!("|{}", outcome(&ran, &before, &after)));
                fs::remove_dir_all(&host).unwrap();
            }
            table.push('\n');
        }
        let wrong: Vec<_> = table.lines().zip(TABLE.lines()).filter(|(is, want)| is != want).collect();
        assert!(table == TABLE, "inwards {inwards}, what is and what should be: {wrong:#?}\n{table}");
    }
    let _ran = bench.rbuild(["rm", "-f", "box"]).run().ok();
}

/// The outermost paths that a copy made or changed.
fn outcome(ran: &crate::bench::Ran, before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> String {
    assert!(before.keys().all(|path| after.contains_key(path)), "a copy removes nothing");
    let changed: Vec<&str> =
        after.iter().filter(|(path, text)| before.get(*path) != Some(text)).map(|(path, _)| path.as_str()).collect();
    if ran.code != 0 {
        assert_eq!((ran.code, changed.as_slice()), (1, [].as_slice()), "{}", ran.stderr);
        return "!".to_owned();
    }
    let below =
        |path: &str| changed.iter().any(|other| path.strip_prefix(other).is_some_and(|rest| rest.starts_with('/')));
    let outermost = changed.iter().filter(|path| !below(path));
    outermost.map(|path| format!("{path}={}", after[*path])).collect::<Vec<_>>().join(" ")
}
