//! Several processes on one store (rules ): equal steps run once, whoever waits says for whom and takes over
//! when that one dies. Steps count their runs themselves, in a cache mount, which is no part of their keys.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::bench::Bench;

/// `RUN` with the directory that steps count in and wait for files of.
const RUN: &str = "RUN --mount=type=cache,target=/count,id=count";

/// Waits for something that happens soon; a test that waits in vain fails.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !happened() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A file that steps see below `/count`.
pub(crate) fn counted(bench: &Bench, file: &str) -> Option<PathBuf> {
    let list = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    list(bench.store().join("cache-mounts"))
        .flat_map(list)
        .map(|instance| instance.join(file))
        .find(|path| path.exists())
}

/// How often a line was written to a file below `/count`.
pub(crate) fn runs(bench: &Bench, file: &str) -> usize {
    counted(bench, file).map_or(0, |path| fs::read_to_string(path).unwrap_or_default().lines().count())
}

/// Lets steps go on that wait for `/count/go`.
pub(crate) fn go(bench: &Bench, beside: &str) {
    fs::write(counted(bench, beside).unwrap().with_file_name("go"), "").unwrap();
}

/// What a running program has said so far.
pub(crate) struct Said {
    text: Arc<Mutex<String>>,
    reader: std::thread::JoinHandle<()>,
}

impl Said {
    /// Of a program whose standard error is a pipe.
    pub(crate) fn of(child: &mut Child) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let mut stderr = child.stderr.take().unwrap();
        let to = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { text, reader }
    }

    pub(crate) fn has(&self, text: &str) -> bool {
        self.text.lock().unwrap().contains(text)
    }

    pub(crate) fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// All of it, when the program has ended.
    fn whole(self) -> String {
        self.reader.join().unwrap();
        self.text.lock().unwrap().clone()
    }
}

/// A running build whose progress can be read meanwhile.
pub(crate) struct Watched {
    pub(crate) child: Child,
    said: Said,
}

impl Watched {
    pub(crate) fn start(bench: &Bench, tag: &str, context: &std::path::Path) -> Self {
        Self::of(bench.rbuild(["build", "--progress=plain", "-t", tag]).arg(context).start())
    }

    /// One stage of a Dockerfile.
    pub(crate) fn target(bench: &Bench, stage: &str, context: &std::path::Path) -> Self {
        Self::of(bench.rbuild(["build", "--progress=plain", "--target", stage]).arg(context).start())
    }

    fn of(mut child: Child) -> Self {
        let said = Said::of(&mut child);
        Self { child, said }
    }

    pub(crate) fn says(&self, text: &str) -> bool {
        self.said.has(text)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The process that starts its sandboxes.
    pub(crate) fn spawner(&self) -> Pid {
        let name = |pid: &&str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        // Children belong to the thread that started them.
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let children = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.unwrap().path().join("children"));
        let all: String = tasks.filter_map(|task| children(task).ok()).collect();
        let mut all = all.split_whitespace();
        let pid = all.find(|pid| name(pid).trim() == "rbuild-spawner").expect("the build has a spawner");
        Pid::from_raw(pid.parse().unwrap()).unwrap()
    }

    /// Its exit code (128 and the number for a signal), and all it said.
    pub(crate) fn end(mut self) -> (i32, String) {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().unwrap();
        let said = self.said.whole();
        (status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)), said)
    }
}

/// A step that writes a line, waits until it may go on, and ends; its command line names the bench, so that the census
/// finds it when it is left behind.
pub(crate) fn waiting_step(bench: &Bench, file: &str) -> String {
    let mark = bench.store();
    format!("{RUN} : {}; echo x >> /count/{file}; while [ ! -e /count/go ]; do sleep 0.05; done", mark.display())
}

/// Builds with `processes` at once, each a different part of the same six stages; afterwards each stage ran once.
fn overlapping(processes: usize) {
    let Some(bench) = Bench::with_busybox() else { return };
    let children: Vec<Child> = (0..processes)
        .map(|process| {
            let mut text = String::new();
            for stage in 0..6 {
                text += &format!(
                    "FROM busybox AS s{stage}\n{RUN} echo x >> /count/s{stage}; sleep 0.2; echo {stage} > /f\n"
                );
                text += &format!("{RUN} echo x >> /count/t{stage}; cat /f > /g\n");
            }
            text += "FROM busybox\n";
            for stage in (0..6).filter(|stage| (stage + process) % 3 != 0) {
                text += &format!("COPY --from=s{stage} /g /g{stage}\n");
            }
            text += &format!("{RUN} echo x >> /count/own{process}; cat /g* > /all\n");
            let context = bench.context(&format!("ctx{process}"), [("Dockerfile", &text)]);
            bench.rbuild(["build", "-q", "-t"]).arg(format!("p{process}")).arg(context).start()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut counts = BTreeMap::new();
    for stage in 0..6 {
        counts.insert(format!("s{stage}"), runs(&bench, &format!("s{stage}")));
        counts.insert(format!("t{stage}"), runs(&bench, &format!("t{stage}")));
    }
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    for process in 0..processes {
        let parts = (0..6).filter(|stage| (stage + process) % 3 != 0).map(|stage| format!("{stage}\n"));
        assert_eq!(bench.shell(&format!("p{process}"), "cat /all"), parts.collect::<String>());
    }
}

#[test]
fn two_builds_with_common_steps_run_each_once() {
    overlapping(2);
}

#[test]
fn eight_builds_with_common_steps_run_each_once() {
    overlapping(8);
}

#[test]
fn who_waits_names_whom_it_waits_for_and_takes_over_when_that_dies() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = format!("FROM busybox\n{}\nRUN echo done > /done\n", waiting_step(&bench, "runs"));
    let context = bench.context("ctx", [("Dockerfile", &text)]);
    let first = Watched::start(&bench, "x", &context);
    wait_until("the first build runs the step", || runs(&bench, "runs") == 1);
    let second = Watched::start(&bench, "y", &context);
    let whom = format!("waiting for the same step, held by pid {} (", first.child.id());
    wait_until("the second build says whom it waits for", || second.says(&whom));
    assert!(second.says("-t x") && second.says("), since 20"), "it names the command and the time");
    first.signal(Signal::KILL);
    assert_eq!(first.end().0, 137);
    wait_until("the second build runs the step itself", || runs(&bench, "runs") == 2);
    go(&bench, "runs");
    let (code, said) = second.end();
    assert_eq!(code, 0, "{said}");
    assert_eq!(bench.shell("y", "cat /done"), "done\n");
    let _verified = bench.rbuild(["cache", "verify"]).run().ok();
}

#[test]
fn a_stopped_build_is_named_and_holds_up_nobody_else() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = format!("FROM busybox\n{}\n", waiting_step(&bench, "runs"));
    let context = bench.context("ctx", [("Dockerfile", &text)]);
    let first = Watched::start(&bench, "x", &context);
    wait_until("the first build runs the step", || runs(&bench, "runs") == 1);
    first.signal(Signal::STOP);
    let second = Watched::start(&bench, "y", &context);
    wait_until("the second build waits", || second.says(&format!("held by pid {} (", first.child.id())));
    let other = bench.context("other", [("Dockerfile", "FROM busybox\nRUN echo other > /other\n")]);
    let _other = bench.build("other", &other).ok();
    go(&bench, "runs");
    first.signal(Signal::CONT);
    for build in [first, second] {
        let (code, said) = build.end();
        assert_eq!(code, 0, "{said}");
    }
    assert_eq!(runs(&bench, "runs"), 1);
}

#[test]
fn holders_that_are_killed_at_random_leave_a_build_that_ends() {
    let Some(bench) = Bench::with_busybox() else { return };
    let mut text = "FROM busybox\n".to_owned();
    for step in 0..5 {
        text +=
            &format!("{RUN} : {}; echo x >> /count/s{step}; sleep 0.15; echo {step} >> /f\n", bench.store().display());
    }
    let context = bench.context("ctx", [("Dockerfile", &text)]);
    // Not random to the clock alone: a different step runs each time.
    for victim in 0..4_u64 {
        let doomed = Watched::start(&bench, &format!("v{victim}"), &context);
        let survivor = Watched::start(&bench, &format!("w{victim}"), &context);
        wait_until("a step runs", || runs(&bench, &format!("s{victim}")) >= 1);
        std::thread::sleep(Duration::from_millis(37 * victim));
        // It may have ended.
        let _gone = kill_process(Pid::from_child(&doomed.child), Signal::KILL);
        let (code, said) = survivor.end();
        assert_eq!(code, 0, "{said}");
        let (code, said) = doomed.end();
        assert!([0, 137].contains(&code), "{code}: {said}");
        assert_eq!(bench.shell(&format!("w{victim}"), "cat /f"), "0\n1\n2\n3\n4\n");
        if victim < 3 {
            let _pruned = bench.rbuild(["cache", "prune", "--all", "--force"]).run().ok();
            let _images = bench.rbuild(["rmi", "-f", &format!("w{victim}")]).run().ok();
            let _pruned = bench.rbuild(["cache", "prune", "--all", "--force"]).run().ok();
        }
    }
    let _verified = bench.rbuild(["cache", "verify"]).run().ok();
}

#[test]
fn a_lost_spawner_fails_its_running_steps_clearly() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = format!("FROM busybox\n{}\n", waiting_step(&bench, "runs"));
    let context = bench.context("ctx", [("Dockerfile", &text)]);
    let build = Watched::start(&bench, "x", &context);
    wait_until("the step runs", || runs(&bench, "runs") == 1);
    kill_process(build.spawner(), Signal::KILL).unwrap();
    let (code, said) = build.end();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("was lost: the process that starts sandboxes was killed"), "{said}");
}

#[test]
fn a_lost_spawner_is_replaced_for_later_steps() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = format!("FROM busybox\n{}\nRUN echo later > /later\n", waiting_step(&bench, "runs"));
    let context = bench.context("ctx", [("Dockerfile", &text)]);
    let build = Watched::start(&bench, "x", &context);
    wait_until("the step runs", || runs(&bench, "runs") == 1);
    // The first step ends, and its spawner dies, before the build notices either.
    build.signal(Signal::STOP);
    let spawner = build.spawner();
    let sandbox = || fs::read_to_string(format!("/proc/{0}/task/{0}/children", spawner.as_raw_nonzero())).unwrap();
    assert_ne!(sandbox(), "");
    go(&bench, "runs");
    wait_until("the sandbox is gone", || sandbox().is_empty());
    // It tells the engine after that, and polls again; where the kernel hides what a process waits for, this takes its time.
    for _ in 0..200 {
        let waits_in = fs::read_to_string(format!("/proc/{}/wchan", spawner.as_raw_nonzero())).unwrap();
        if waits_in.contains("poll") {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_process(spawner, Signal::KILL).unwrap();
    build.signal(Signal::CONT);
    let (code, said) = build.end();
    assert_eq!(code, 0, "{said}");
    assert_eq!(bench.shell("x", "cat /later"), "later\n");
}

#[test]
fn many_short_steps_at_once_all_start() {
    let Some(bench) = Bench::with_busybox() else { return };
    let mut text = String::new();
    for stage in 0..60 {
        text += &format!("FROM busybox AS s{stage}\nRUN echo {stage} > /f\n");
    }
    text += "FROM busybox\n";
    for stage in 0..60 {
        text += &format!("COPY --from=s{stage} /f /f{stage}\n");
    }
    let context = bench.context("ctx", [("Dockerfile", &text)]);
    // Few descriptors to begin with: rbuild raises the limit as far as it may, and steps get what rbuild was given.
    let script = "ulimit -Sn 64 && exec \"$@\"";
    let _built =
        bench.through(["sh", "-c", script, "sh"], ["build", "-q", "--jobs=60", "-t", "x"]).arg(&context).run().ok();
    let limited = bench.context("limited", [("Dockerfile", "FROM busybox\nRUN ulimit -Sn > /limit\n")]);
    let _built = bench.through(["sh", "-c", script, "sh"], ["build", "-q", "-t", "y"]).arg(&limited).run().ok();
    assert_eq!(bench.shell("y", "cat /limit"), "64\n");
}
