//! Health checks: what they run, what becomes of their results, and where those show. Beside Docker where it is installed.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bench::Bench;
use crate::outputs::Dockerd;
use crate::peers::run;

/// Waits until something is so; fails the test when it never is.
#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn background(bench: &Bench, name: &str, options: &[&str], image: &str, script: &str) {
    let ran = bench.rbuild(["run", "-d", "--network=none", "--name", name]).args(options);
    let _ran = ran.args([image, "sh", "-c", script]).run().ok();
}

fn state(bench: &Bench, name: &str) -> Value {
    let ran = bench.rbuild(["inspect", "-f", "{{json .State}}", name]).run().ok();
    serde_json::from_str(&ran.stdout).unwrap()
}

fn health(bench: &Bench, name: &str) -> String {
    state(bench, name)["Health"]["Status"].as_str().unwrap_or("none").to_owned()
}

fn row(bench: &Bench, name: &str) -> String {
    bench.rbuild(["ps", "-a", "--filter", &format!("name=^{name}$"), "--format", "{{.Status}}"]).run().ok().stdout
}

const FAST: [&str; 2] = ["--health-interval=100ms", "--health-retries=2"];

#[test]
fn checks_run_as_the_container_and_show_everywhere() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = "FROM busybox\nUSER app\nWORKDIR /home/app\nENV WHO=image\nSHELL [\"sh\", \"-ec\"]\n\
                HEALTHCHECK --interval=100ms CMD echo $WHO $(id -un) $(pwd); test -e /tmp/ok\n";
    let context = bench.context("ctx", [("Dockerfile", text)]);
    let _built = bench.build("app", &context).ok();
    let events = bench.rbuild(["events", "--filter", "container=web"]).start_typing();
    std::thread::sleep(Duration::from_millis(500));
    background(&bench, "web", &["-e", "WHO=run", "--health-retries=2"], "app", "sleep 1000");
    assert!(row(&bench, "web").contains("(health: starting)"), "{}", row(&bench, "web"));
    until("it is unhealthy", || health(&bench, "web") == "unhealthy");
    assert!(row(&bench, "web").ends_with(" (unhealthy)\n"));
    let shown = state(&bench, "web");
    let last = shown["Health"]["Log"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((last["Output"].as_str(), last["ExitCode"].as_i64()), (Some("run app /home/app\n"), Some(1)));
    assert!(last["Start"].as_str() < last["End"].as_str(), "{last}");
    assert!(shown["Health"]["FailingStreak"].as_i64().unwrap() >= 2);
    let _ran = bench.rbuild(["exec", "web", "touch", "/tmp/ok"]).run().ok();
    until("it is healthy", || health(&bench, "web") == "healthy");
    assert!(row(&bench, "web").ends_with(" (healthy)\n"));
    until("only five results are kept", || {
        let log = state(&bench, "web")["Health"]["Log"].clone();
        let log = log.as_array().unwrap();
        log.len() == 5 && log.iter().all(|result| result["ExitCode"] == 0)
    });
    let config = bench.rbuild(["inspect", "-f", "{{json .Config.Healthcheck}}", "web"]).run().ok().stdout;
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!((config["Interval"].as_i64(), config["Retries"].as_i64()), (Some(100_000_000), Some(2)), "{config}");
    for (filter, want) in [("healthy", "web\n"), ("unhealthy", ""), ("starting", ""), ("none", "")] {
        let names = bench.rbuild(["ps", "--format", "{{.Names}}", "--filter", &format!("health={filter}")]).run().ok();
        assert_eq!(names.stdout, want, "{filter}");
    }
    let _ran = bench.rbuild(["ps", "--filter", "health=odd"]).run().fails(1).says("invalid filter 'health=odd'");

    let _ran = bench.rbuild(["stop", "-t", "0", "web"]).run().ok();
    assert!(row(&bench, "web").starts_with("Exited") && !row(&bench, "web").contains("health"), "nobody checks it");
    assert_eq!(health(&bench, "web"), "unhealthy", "as in Docker");
    let _ran = bench.rbuild(["start", "web"]).run().ok();
    assert_eq!(state(&bench, "web")["Health"]["FailingStreak"], 0);
    until("it is healthy again", || health(&bench, "web") == "healthy");
    let _ran = bench.rbuild(["rm", "-f", "web"]).run().ok();

    std::thread::sleep(Duration::from_millis(500));
    let pid = rustix::process::Pid::from_child(&events);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let told = String::from_utf8(events.wait_with_output().unwrap().stdout).unwrap();
    let at = |text: &str| told.find(text).unwrap_or_else(|| panic!("no {text:?} in\n{told}"));
    assert!(at("container exec_create: sh -ec echo $WHO") < at("container exec_start: sh -ec echo $WHO"), "{told}");
    assert!(at("container health_status: unhealthy ") < at("container health_status: healthy "), "{told}");
    assert!(at("container exec_die ") > 0 && told.contains("execID=") && told.contains("exitCode=1"), "{told}");
}

#[test]
fn a_check_that_takes_too_long_is_killed_with_what_it_started() {
    let Some(bench) = Bench::with_busybox() else { return };
    let check = ["--health-cmd", "sleep 7531; true", "--health-timeout=300ms"];
    background(&bench, "slow", &[&FAST[..], &check].concat(), "busybox", "sleep 1000");
    until("it is unhealthy", || health(&bench, "slow") == "unhealthy");
    let last = state(&bench, "slow")["Health"]["Log"][0].clone();
    assert_eq!(last["ExitCode"], -1);
    assert_eq!(last["Output"], "Health check exceeded timeout (300ms)");
    // One may be running; none of those that were given up is.
    let left = bench.rbuild(["top", "slow"]).run().ok().stdout;
    assert!(left.matches("sleep 7531").count() <= 2, "{left}");
    let _ran = bench.rbuild(["rm", "-f", "slow"]).run().ok();
}

#[test]
fn output_is_limited_and_failures_to_run_are_told() {
    let Some(bench) = Bench::with_busybox() else { return };
    let check = ["--health-cmd", "yes | head -c 100000; echo err >&2"];
    background(&bench, "loud", &[&FAST[..], &check].concat(), "busybox", "sleep 1000");
    until("it is healthy", || health(&bench, "loud") == "healthy");
    let output = state(&bench, "loud")["Health"]["Log"][0]["Output"].as_str().unwrap().to_owned();
    assert_eq!(output.len(), 4096 + 3);
    assert!(output.starts_with("y\ny\n") && output.ends_with("y\n..."));

    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\nHEALTHCHECK CMD [\"/no/such\"]\n")]);
    let _built = bench.build("app", &context).ok();
    background(&bench, "lost", &FAST, "app", "sleep 1000");
    until("it is unhealthy", || health(&bench, "lost") == "unhealthy");
    let last = state(&bench, "lost")["Health"]["Log"][0].clone();
    assert_eq!(last["ExitCode"], -1);
    assert!(last["Output"].as_str().unwrap().contains("/no/such"), "{last}");
    background(&bench, "quiet", &["--no-healthcheck"], "app", "sleep 1000");
    assert_eq!((health(&bench, "quiet").as_str(), row(&bench, "quiet").contains("health")), ("none", false));
    let names = bench.rbuild(["ps", "--format", "{{.Names}}", "--filter", "health=none"]).run().ok();
    assert_eq!(names.stdout, "quiet\n");
    let _ran = bench.rbuild(["rm", "-f", "loud", "lost", "quiet"]).run().ok();
}

#[test]
fn a_frozen_container_is_not_checked() {
    let Some(bench) = Bench::with_busybox() else { return };
    let check = ["--health-cmd", "echo x >> /tmp/checks", "--health-timeout=1s"];
    background(&bench, "ice", &[&FAST[..], &check].concat(), "busybox", "sleep 1000");
    until("it is healthy", || health(&bench, "ice") == "healthy");
    let _ran = bench.rbuild(["pause", "ice"]).run().ok();
    std::thread::sleep(Duration::from_secs(2));
    let frozen = state(&bench, "ice")["Health"].clone();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(state(&bench, "ice")["Health"], frozen, "nothing was checked");
    assert_eq!(frozen["Status"], "healthy");
    let _ran = bench.rbuild(["unpause", "ice"]).run().ok();
    until("it is checked again", || state(&bench, "ice")["Health"]["Log"] != frozen["Log"]);
    assert_eq!(health(&bench, "ice"), "healthy");
    let _ran = bench.rbuild(["rm", "-f", "ice"]).run().ok();
}

#[test]
fn health_is_dockers() {
    let Some(bench) = Bench::with_busybox() else { return };
    let Some(daemon) = Dockerd::start(&bench) else { return };
    let tar = bench.path("busybox.tar");
    run(daemon.docker(["import", "-c", "ENV PATH=/bin", "-c", "CMD [\"sh\"]"]).arg(&tar).arg("busybox"));
    // Name, flags, what is waited for: a status and so many results.
    let cases: [(&str, &[&str], &str); 5] = [
        ("good", &["--health-cmd", "echo fine; echo bad >&2"], "healthy"),
        ("bad", &["--health-cmd", "echo no; exit 3", "--health-retries=2"], "unhealthy"),
        ("slow", &["--health-cmd", "sleep 60", "--health-timeout=500ms", "--health-retries=1"], "unhealthy"),
        ("loud", &["--health-cmd", "yes | head -c 9000"], "healthy"),
        ("user", &["-u", "app", "-w", "/tmp", "-e", "A=b", "--health-cmd", "id -u; pwd; echo $A"], "healthy"),
    ];
    let ours = |args: &[&str]| bench.rbuild([""; 0]).args(args).run().ok().stdout;
    let theirs = |args: &[&str]| run(daemon.docker([]).args(args));
    for (name, flags, _) in cases {
        let line = [&["run", "-d", "--network=none", "--name", name, "--health-interval=1s"], flags].concat();
        let line = [&line[..], &["busybox", "sleep", "1000"]].concat();
        ours(&line);
        theirs(&line);
    }
    let seen = |call: &dyn Fn(&[&str]) -> String, name: &str| -> Value {
        serde_json::from_str(&call(&["inspect", "-f", "{{json .State.Health}}", name])).unwrap()
    };
    for (name, _, want) in cases {
        for call in [&ours as &dyn Fn(&[&str]) -> String, &theirs] {
            until(&format!("{name} is {want}"), || seen(call, name)["Status"] == want);
        }
        let (ours_seen, theirs_seen) = (seen(&ours, name), seen(&theirs, name));
        let keys =
            |value: &Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(keys(&ours_seen), keys(&theirs_seen));
        let (first, their_first) = (&ours_seen["Log"][0], &theirs_seen["Log"][0]);
        assert_eq!(keys(first), keys(their_first));
        // What comes first of two streams is chance, there as here.
        let said = |check: &Value| {
            let mut lines: Vec<_> = check["Output"].as_str().unwrap().lines().map(str::to_owned).collect();
            lines.sort();
            (check["ExitCode"].clone(), lines)
        };
        assert_eq!(said(first), said(their_first), "{name}");
        let status = ["ps", "-a", "--filter", &format!("name=^{name}$"), "--format", "{{.Status}}"];
        let ending = |text: String| text.split_once('(').map(|(_, health)| health.to_owned());
        assert_eq!(ending(ours(&status)), ending(theirs(&status)), "{name}");
        let healthcheck = ["inspect", "-f", "{{json .Config.Healthcheck}}", name];
        let parse = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        assert_eq!(parse(ours(&healthcheck)), parse(theirs(&healthcheck)), "{name}");
        ours(&["rm", "-f", name]);
        theirs(&["rm", "-f", name]);
    }
    for flags in [
        &["--no-healthcheck", "--health-cmd=true"][..],
        &["--health-interval=-1s"],
        &["--health-retries=-1"],
        &["--health-cmd=true", "--health-interval=5us"],
    ] {
        let line = [&["create", "--network=none"], flags, &["busybox"]].concat();
        let refused = daemon.docker([]).args(&line).output().unwrap();
        let told = String::from_utf8_lossy(&refused.stderr);
        let ran = bench.rbuild([""; 0]).args(&line).run();
        assert_ne!((ran.code, refused.status.code()), (0, Some(0)), "{flags:?}");
        let gist = ran.stderr.lines().next().unwrap().trim_start_matches("error: ").to_owned();
        assert!(told.contains(&gist), "{flags:?}: {gist:?} is not {told:?}");
    }
}
