//! Commands for containers that are there: listed, looked into, changed, copied into and out of.

use crate::bench::Bench;

fn background(bench: &Bench, name: &str, options: &[&str], script: &str) {
    let ran = bench.rbuild(["run", "-d", "--network=none", "--name", name]).args(options);
    let _ran = ran.args(["busybox", "sh", "-c", script]).run().ok();
}

#[test]
fn lists_are_filtered_and_formatted() {
    let Some(bench) = Bench::with_busybox() else { return };
    background(&bench, "up", &["--label", "tier=front", "--expose=90", "--label=a.b-c=x,y=z"], "sleep 1000");
    background(&bench, "down", &["-v", "data:/data"], "exit 3");
    let _ran = bench.rbuild(["wait", "down"]).run().ok();
    let names = |args: &[&str]| -> Vec<String> {
        let ran = bench.rbuild(["ps", "--format", "{{.Names}}"]).args(args).run().ok();
        ran.stdout.lines().map(str::to_owned).collect()
    };
    assert_eq!(names(&[]), ["up"]);
    assert_eq!(names(&["-a"]), ["down", "up"]);
    for (filter, want) in [
        ("name=^up$", vec!["up"]),
        ("status=exited", vec!["down"]),
        ("exited=3", vec!["down"]),
        ("exited=0", vec![]),
        ("label=tier", vec!["up"]),
        ("label=tier=back", vec![]),
        ("ancestor=busybox", vec!["down", "up"]),
        ("volume=data", vec!["down"]),
        ("before=down", vec!["up"]),
        ("since=up", vec!["down"]),
        ("network=none", vec!["down", "up"]),
        ("expose=90", vec!["up"]),
        ("expose=80-100/tcp", vec!["up"]),
        ("expose=90/udp", vec![]),
        ("publish=90", vec![]),
        ("is-task=false", vec!["down", "up"]),
    ] {
        assert_eq!(names(&["-a", "-f", filter]), want, "{filter}");
    }
    assert_eq!(names(&["-n", "1"]), ["down"]);
    assert_eq!(names(&["-l"]), ["down"]);
    assert_eq!(names(&["-l", "-n", "2"]), ["down", "up"]);
    let labels = |format: &str| bench.rbuild(["ps", "--format", format]).run().ok().stdout;
    assert_eq!(labels("{{.Label \"tier\"}} {{.Label \"a.b-c\"}} {{.Label \"none\"}}"), "front x,y=z \n");
    assert_eq!(labels("table {{.Names}}\t{{.Label \"a.b-c\"}}"), "NAMES     b c\nup        x,y=z\n");
    assert!(!labels("json").contains("\"Label\""));
    let _ran = bench.rbuild(["ps", "-f", "colour=red"]).run().fails(1).says("invalid filter 'colour'");
    let sized = bench.rbuild(["ps", "-as"]).run().ok().stdout;
    assert!(sized.lines().next().unwrap().ends_with("SIZE") && sized.contains("(virtual "), "{sized}");
    let _ran = bench.rbuild(["rename", "down", "low"]).run().ok();
    let _ran = bench.rbuild(["rename", "low", "up"]).run().fails(1).says("already in use");
    assert_eq!(names(&["-a"]), ["low", "up"]);
    let _ran = bench.rbuild(["rm", "-f", "up", "low"]).run().ok();
}

#[test]
fn details_are_dockers() {
    let Some(bench) = Bench::with_busybox() else { return };
    background(&bench, "web", &["-e", "A=b", "--restart=on-failure:4", "-v", "data:/data:ro"], "exit 7");
    let _ran = bench.rbuild(["wait", "web"]).run().ok();
    let _ran = bench.rbuild(["update", "--restart=no", "web"]).run().ok();
    let _ran = bench.rbuild(["stop", "web"]).run().ok();
    let said = |template: &str| bench.rbuild(["inspect", "-f", template, "web"]).run().ok().stdout.trim().to_owned();
    assert_eq!(said("{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}"), "exited 7 false");
    assert_eq!(said("{{.Name}} {{.Path}} {{.HostConfig.RestartPolicy.Name}}"), "/web sh no");
    assert_eq!(said("{{range .Mounts}}{{.Name}} {{.Destination}} {{.RW}}{{end}}"), "data /data false");
    assert_eq!(said("{{json .Config.Cmd}}"), "[\"sh\",\"-c\",\"exit 7\"]");
    // What the document leaves out or has as null is what Go's types say.
    assert_eq!(said("{{.HostConfig.RestartPolicy}} {{.Config.ExposedPorts}} {{.ExecIDs}}"), "{no 0} map[] []");
    assert_eq!(said("{{json .Config.Entrypoint}} {{json .HostConfig.CapAdd}} {{json .ExecIDs}}"), "null null null");
    assert_eq!(said("{{.HostConfig.CpuQuota}} {{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"), "0 0 <nil>");
    assert_eq!(said("{{.State.Health}} {{.Config.StopTimeout}} {{.Config.StopSignal}}|"), "<nil> <nil> |");
    assert_eq!(said("{{len .HostConfig.Binds}} {{len .HostConfig.CapDrop}} {{index .Config.Labels \"x\"}}|"), "1 0 |");
    assert_eq!(said("{{range .HostConfig.CapDrop}}never{{else}}none{{end}}"), "none");
    let all = bench.rbuild(["container", "inspect", "web"]).run().ok().stdout;
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    assert_eq!(all[0]["Config"]["Image"], "busybox");
    assert!(all[0]["LogPath"].as_str().unwrap().ends_with("-json.log"));
    let _ran = bench.rbuild(["inspect", "--type=image", "web"]).run().fails(1).says("no such image: web");
    let _ran = bench.rbuild(["inspect", "busybox"]).run().ok();
    assert!(bench.rbuild(["inspect", "data"]).run().ok().stdout.contains("Mountpoint"));
    let _ran = bench.rbuild(["inspect", "nothing"]).run().fails(1).says("no such object: nothing");
}

#[test]
fn a_running_container_is_frozen_measured_and_limited() {
    let Some(bench) = Bench::with_busybox() else { return };
    background(&bench, "busy", &[], "while :; do echo x; sleep 0.05; done");
    let _ran = bench.rbuild(["pause", "busy"]).run().ok();
    let _ran = bench.rbuild(["pause", "busy"]).run().fails(1).says("already paused");
    assert!(bench.rbuild(["ps"]).run().ok().stdout.contains("(Paused)"));
    let frozen = bench.rbuild(["logs", "busy"]).run().ok().stdout;
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(bench.rbuild(["logs", "busy"]).run().ok().stdout, frozen);
    let _ran = bench.rbuild(["unpause", "busy"]).run().ok();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_ne!(bench.rbuild(["logs", "busy"]).run().ok().stdout, frozen);
    let top = bench.rbuild(["top", "busy"]).run().ok().stdout;
    assert!(top.contains("PID") && top.contains("sh -c while"), "{top}");
    let _ran = bench.rbuild(["update", "--memory=64m", "busy"]).run().ok();
    let stats = bench.rbuild(["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}"]).run().ok();
    assert!(stats.stdout.starts_with("busy ") && stats.stdout.contains("/ 64MiB"), "{}", stats.stdout);
    let _ran = bench.rbuild(["pause", "busy"]).run().ok();
    let _ran = bench.rbuild(["rm", "-f", "busy"]).run().ok();
    background(&bench, "gone", &["--rm"], "sleep 1000");
    let refused = bench.rbuild(["update", "--restart=always", "gone"]).run().fails(1);
    let _ran = refused.says("restart policy cannot be updated because --rm removes container");
    let _ran = bench.rbuild(["update", "--cpus=100000", "gone"]).run().fails(1).says("range of CPUs is from 0.01 to");
    let _ran = bench.rbuild(["rm", "-f", "gone"]).run().ok();
}

#[test]
fn files_are_copied_both_ways_and_links_lead_nowhere_else() {
    let Some(bench) = Bench::with_busybox() else { return };
    let from = bench.context("from", [("a", "one\n"), ("sub/b", "two\n")]);
    let script = "ln -s / /esc; ln -s /etc /linked; echo inside > /tmp/f; sleep 1000";
    background(&bench, "box", &["-v", "data:/data"], script);
    for state in ["running", "stopped"] {
        if state == "stopped" {
            let _ran = bench.rbuild(["stop", "-t", "0", "box"]).run().ok();
        }
        let dest = format!("box:/tmp/{state}");
        let _ran = bench.rbuild(["cp"]).arg(&from).arg(&dest).run().ok();
        let out = bench.path(format!("out-{state}"));
        let _ran = bench.rbuild(["cp", &dest]).arg(&out).run().ok();
        assert_eq!(std::fs::read_to_string(out.join("sub/b")).unwrap(), "two\n", "{state}");
        let _ran = bench.rbuild(["cp", "box:/tmp/f"]).arg(&out).run().ok();
        assert_eq!(std::fs::read_to_string(out.join("f")).unwrap(), "inside\n", "{state}");
        // Through a link of the container's own: it leads to the container's root, not to this machine's.
        let target = format!("box:/esc/tmp/via-{state}");
        let _ran = bench.rbuild(["cp"]).arg(from.join("a")).arg(&target).run().ok();
        assert!(!std::path::Path::new(&format!("/tmp/via-{state}")).exists());
        let _ran = bench.rbuild(["cp", &format!("box:/tmp/via-{state}")]).arg(&out).run().ok();
        let _ran = bench.rbuild(["cp"]).arg(from.join("a")).arg(format!("box:/data/{state}")).run().ok();
        let volume = bench.store().join("volumes/data/_data").join(state);
        assert_eq!(std::fs::read_to_string(volume).unwrap(), "one\n", "a volume is reached, too");
        let _ran = bench.rbuild(["cp", "box:/no/such", "."]).run().fails(1).says("no such file or directory");
    }
    let tar = bench.rbuild(["cp", "box:/tmp/f", "-"]).run().ok();
    assert!(tar.stdout.contains("ustar") && tar.stdout.contains("inside\n"));
    let diff = bench.rbuild(["diff", "box"]).run().ok().stdout;
    assert!(diff.contains("C /tmp\n") && diff.contains("A /tmp/f\n") && diff.contains("A /esc\n"), "{diff}");
    let _ran = bench.rbuild(["rm", "box"]).run().ok();
}

#[test]
fn files_that_are_mounted_are_copied_out_and_never_replaced() {
    let Some(bench) = Bench::with_busybox() else { return };
    let from = bench.context("from", [("conf", "of the host\n"), ("fixed", "kept\n"), ("new", "new\n")]);
    let bind = |file: &str, options: &str| format!("{}:/srv/{file}{options}", from.join(file).display());
    let (conf, fixed) = (bind("conf", ""), bind("fixed", ":ro"));
    let script = "mkdir /srv/own; echo mine > /srv/own/f; sleep 1000";
    let flags = ["-v", &conf, "-v", &fixed, "-v", "data:/srv/data", "-h", "named"];
    background(&bench, "box", &flags, script);
    let inside = |script: &str| bench.rbuild(["exec", "box", "sh", "-c", script]).run().ok().stdout;
    for state in ["running", "stopped"] {
        if state == "stopped" {
            let _ran = bench.rbuild(["stop", "-t", "0", "box"]).run().ok();
        }
        let copied = |what: &str| bench.rbuild(["cp", what, "-"]).run().ok().stdout;
        assert!(copied("box:/srv/conf").contains("of the host\n"), "{state}");
        assert!(copied("box:/etc/hostname").contains("named\n"), "{state}");
        // A directory is copied with what is mounted in it.
        let out = bench.path(format!("out-{state}"));
        let _ran = bench.rbuild(["cp", "box:/srv"]).arg(&out).run().ok();
        let read = |file: &str| std::fs::read_to_string(out.join(file)).unwrap();
        assert_eq!(
            (read("conf"), read("fixed"), read("own/f")),
            ("of the host\n".into(), "kept\n".into(), "mine\n".into())
        );
        for file in ["conf", "fixed"] {
            let to = format!("box:/srv/{file}");
            let _busy =
                bench.rbuild(["cp"]).arg(from.join("new")).arg(&to).run().fails(1).says("device or resource busy");
        }
        // Beside it there is room, and what goes into a volume through the directory above it gets there.
        let tree = bench.context("tree", [("beside", "1\n"), ("data/in", "2\n")]);
        let _ran = bench.rbuild(["cp", &format!("{}/.", tree.display()), "box:/srv"]).run().ok();
        assert!(copied("box:/srv/beside").contains("1\n"), "{state}");
        let volume = bench.store().join("volumes/data/_data/in");
        assert_eq!(std::fs::read_to_string(&volume).unwrap(), "2\n", "{state}");
        std::fs::remove_file(volume).unwrap();
        if state == "running" {
            assert_eq!(inside("cat /srv/conf /srv/fixed"), "of the host\nkept\n", "they are still mounted");
        }
    }
    assert_eq!(std::fs::read_to_string(from.join("conf")).unwrap(), "of the host\n");
    let _ran = bench.rbuild(["start", "box"]).run().ok();
    assert_eq!(inside("cat /srv/conf /srv/fixed; hostname"), "of the host\nkept\nnamed\n");
    let _ran = bench.rbuild(["rm", "-f", "box"]).run().ok();
}

#[test]
fn the_system_is_described_and_tidied() {
    let Some(bench) = Bench::with_busybox() else { return };
    background(&bench, "done", &[], "true");
    let _ran = bench.rbuild(["wait", "done"]).run().ok();
    let info = bench.rbuild(["info", "-f", "{{.Containers}} {{.ContainersRunning}} {{.Images}}"]).run().ok();
    assert_eq!(info.stdout, "1 0 1\n");
    assert!(
        bench
            .rbuild(["version", "-f", "{{.Client.Version}}"])
            .run()
            .ok()
            .stdout
            .starts_with(|c: char| c.is_ascii_digit())
    );
    let df = bench.rbuild(["system", "df"]).run().ok().stdout;
    assert!(df.starts_with("TYPE") && df.contains("Local Volumes"), "{df}");
    let pruned = bench.rbuild(["system", "prune", "-f"]).run().ok().stdout;
    assert!(pruned.contains("Deleted Containers:") && pruned.contains("Total reclaimed space"), "{pruned}");
    assert_eq!(bench.rbuild(["ps", "-aq"]).run().ok().stdout, "");
}

#[test]
fn events_of_images_commands_and_volumes_are_dockers() {
    let Some(bench) = Bench::with_busybox() else { return };
    let run = |args: &[&str]| bench.rbuild(args).run().ok().stdout;
    let id = run(&["images", "-q", "--no-trunc", "busybox"]).trim().to_owned();
    let _ran = run(&["tag", "busybox", "other:1"]);
    let script = "sleep 1000";
    background(&bench, "web", &["-v", "vol:/data", "-v", "vol:/again:ro", "--label=tier=a"], script);
    let _ran = run(&["exec", "web", "sh", "-c", "exit 0"]);
    let failed = bench.rbuild(["exec", "web", "false"]).run().fails(1);
    let _ran = bench.rbuild(["exec", "web", "no-such"]).run().fails(127);
    let _ran = run(&["exec", "-d", "web", "true"]);
    let _ran = run(&["top", "web"]);
    let _ran = run(&["cp", "web:/etc/passwd", "passwd"]);
    let _ran = run(&["cp", "passwd", "web:/tmp"]);
    let _ran = run(&["export", "-o", "web.tar", "web"]);
    let made = run(&["commit", "-m", "a comment", "web", "made:1"]).trim().to_owned();
    let _ran = run(&["update", "--restart=no", "web"]);
    let _ran = run(&["stop", "-t", "0", "web"]);
    let _ran = run(&["rm", "web"]);
    let _ran = run(&["save", "-o", "both.tar", "busybox", "other:1"]);
    let _ran = run(&["rmi", "other:1"]);
    let _ran = run(&["rmi", "made:1"]);
    let _ran = run(&["load", "-i", "both.tar"]);
    let _ran = run(&["volume", "prune", "-af"]);
    drop(failed);
    let told =
        |filter: &str, format: &str| run(&["events", "--since=1h", "--until=0s", "-f", filter, "--format", format]);
    let images = told("type=image", "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}}");
    let want = [
        format!("tag {id} busybox:latest"),
        format!("import {id} {id}"),
        format!("tag {id} other:1"),
        format!("tag {made} made:1"),
        format!("save {id} {id}"),
        format!("untag {id} {id}"),
        format!("untag {made} {made}"),
        format!("delete {made} {made}"),
        format!("load {id} {id}"),
    ];
    assert_eq!(images.lines().collect::<Vec<_>>(), want);
    // All but those of images, which follow each other in another order.
    let all = told("scope=local", "{{.Type}} {{.Action}}{{with .Actor.Attributes.exitCode}} {{.}}{{end}}");
    let mut lines: Vec<&str> = all.lines().filter(|line| !line.starts_with("image")).collect();
    // The one in the background ends when it likes.
    let ended = lines.iter().rposition(|line| *line == "container exec_die 0").unwrap();
    lines.remove(ended);
    let want = "volume create\ncontainer create\nvolume mount\nvolume mount\ncontainer start\n\
                container exec_create: sh -c exit 0\ncontainer exec_start: sh -c exit 0\ncontainer exec_die 0\n\
                container exec_create: false \ncontainer exec_start: false \ncontainer exec_die 1\n\
                container exec_create: no-such \ncontainer exec_start: no-such \n\
                container exec_create: true \ncontainer exec_start: true \n\
                container top\ncontainer archive-path\ncontainer extract-to-dir\ncontainer export\n\
                container pause\ncontainer unpause\ncontainer commit\ncontainer update\n\
                container kill\ncontainer kill\ncontainer die 137\nvolume unmount\nvolume unmount\ncontainer stop\ncontainer destroy\n\
                volume destroy\nvolume prune";
    assert_eq!(lines.join("\n"), want);
    let volume = told("volume=vol", "{{.Action}} {{json .Actor.Attributes}}");
    let mounted = volume.lines().find(|line| line.starts_with("mount")).unwrap();
    assert!(
        mounted.contains(r#""destination":"/data","driver":"local","propagation":"","read/write":"true""#),
        "{volume}"
    );
    assert!(
        volume.contains(r#""destination":"/again","driver":"local","propagation":"","read/write":"false""#),
        "{volume}"
    );
    let pruned = told("event=prune", "{{.Type}} {{.Actor.Attributes.reclaimed}}");
    assert_eq!(pruned, "volume 0\n");
    assert!(told("image=other", "{{.Action}}").starts_with("tag\n"));
}

#[test]
fn events_are_told_as_they_happen() {
    let Some(bench) = Bench::with_busybox() else { return };
    let listener = bench.rbuild(["events", "--format", "{{.Action}}"]).start();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    background(&bench, "shown", &[], "exit 0");
    let _ran = bench.rbuild(["wait", "shown"]).run().ok();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let _ran = bench.rbuild(["rm", "shown"]).run().ok();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let mut listener = listener;
    listener.kill().unwrap();
    let told = String::from_utf8(listener.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(told, "create\nstart\ndie\ndestroy\n");
    // What happened is known afterwards, too.
    let recorded = |since: &str, filter: &str| {
        let args = ["events", "--since", since, "--until", "0s", "--format", "{{.Type}} {{.Action}}", "-f", filter];
        bench.rbuild(args).run().ok().stdout
    };
    assert_eq!(recorded("1h", "container=shown").replace("container ", ""), told);
    let _ran = bench.rbuild(["volume", "create", "kept"]).run().ok();
    let _ran = bench.rbuild(["volume", "rm", "kept"]).run().ok();
    assert_eq!(recorded("1h", "type=volume"), "volume create\nvolume destroy\n");
    assert_eq!(recorded("0s", "event=die"), "");
}
