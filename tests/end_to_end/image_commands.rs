//! Image commands: lists, details, history, names and removal, with Docker's words.

use crate::bench::{Bench, Ran};
use crate::web_server::WebServer;

fn lines(ran: &Ran) -> Vec<&str> {
    ran.stdout.lines().collect()
}

/// A bench with `busybox`, and `app:1` built on it.
fn with_app() -> Option<Bench> {
    let bench = Bench::with_busybox()?;
    let dockerfile = "FROM busybox\nENV A=1 B=\"two words\"\nLABEL x=y z=\"a b\"\nRUN echo hello > /hello\n\
                      EXPOSE 80\nVOLUME /data\nCMD [\"cat\", \"/hello\"]\n";
    let context = bench.context("ctx", [("Dockerfile", dockerfile)]);
    let _built = bench.build("app:1", &context).ok();
    Some(bench)
}

#[test]
fn templates_take_an_image_apart() {
    let Some(bench) = with_app() else { return };
    for (template, shown) in [
        ("{{.Config.Env}}", "[PATH=/bin A=1 B=two words]\n"),
        ("{{index .Config.Labels \"x\"}} {{.Config.Labels.z}}", "y a b\n"),
        ("{{json .Config.Cmd}}", "[\"cat\",\"/hello\"]\n"),
        ("{{range $port, $_ := .Config.ExposedPorts}}{{$port}};{{end}}", "80/tcp;\n"),
        ("{{join .RepoTags \", \"}} {{.Os}}/{{.Architecture}}", "app:1 linux/amd64\n"),
        (
            "{{len .RootFS.Layers}} {{.Config.Healthcheck}} {{.Config.Entrypoint}} {{.Config.OnBuild}}",
            "2 <nil> [] []\n",
        ),
        ("{{if gt .Size 1000}}large{{end}}", "large\n"),
        ("{{eq .ID .Id}} {{printf \"%+v\" .GraphDriver}}", "true {Data:map[] Name:overlayfs}\n"),
    ] {
        for command in [&["inspect"][..], &["image", "inspect"], &["inspect", "--type=image"]] {
            let ran = bench.rbuild(command).args(["-f", template, "app:1"]).run().ok();
            let shown = if cfg!(target_arch = "x86_64") { shown.to_owned() } else { shown.replace("amd64", "arm64") };
            assert_eq!(ran.stdout, shown, "{command:?} {template}");
        }
    }
    let ran = bench.rbuild(["inspect", "app:1", "nope"]).run().fails(1).says("nope");
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found[0]["Config"]["Volumes"], serde_json::json!({"/data": {}}));
    // As in Docker an empty template is none, and only containers have a size that is measured.
    let ran =
        bench.rbuild(["inspect", "--size", "-f", "", "app:1"]).run().ok().says("WARNING: --size ignored for image");
    assert!(ran.stdout.starts_with("[\n    {\n        \"Id\": "), "{}", ran.stdout);
    let _container = bench.rbuild(["create", "--name", "used", "app:1"]).run().ok();
    let ran = bench.rbuild(["inspect", "-f", "{{eq .ID .Id}} {{.HostConfig.NanoCPUs}}", "used"]).run().ok();
    assert_eq!(ran.stdout, "true 0\n");
    let _removed = bench.rbuild(["rm", "used"]).run().ok();
    let _wrong = bench.rbuild(["inspect", "-f", "{{.Id", "app:1"]).run().fails(64).says("unclosed action");
    let _wrong = bench.rbuild(["inspect", "-f", "{{.Nope}}", "app:1"]).run().fails(1).says("map has no entry for key");
}

#[test]
fn lists_are_filtered_and_formatted() {
    let Some(bench) = with_app() else { return };
    let _tagged = bench.rbuild(["tag", "app:1", "app:2"]).run().ok();
    let images = |arguments: &[&str]| bench.rbuild(["images"]).args(arguments).run().ok().stdout;
    for (arguments, count) in [
        (&["-q", "app"][..], 2),
        (&["-q", "app:2"], 1),
        (&["-q", "a*"], 2),
        (&["-q", "--filter", "reference=*:latest"], 1),
        (&["-q", "--filter", "label=x"], 2),
        (&["-q", "--filter", "label=x=y"], 2),
        (&["-q", "--filter", "label=x=n"], 0),
        (&["-q", "--filter", "since=busybox"], 2),
        (&["-q", "--filter", "before=app:1"], 1),
        (&["-q", "--filter", "until=1h"], 0),
        (&["-q", "--filter", "dangling=true"], 0),
        (&["-a", "-q", "--filter", "dangling=false"], 3),
        (&["-q", "--filter", ""], 3),
        (&["-q", "--filter", "reference=*/*/*"], 0),
        (&["-q", "docker.io/library/app"], 2),
    ] {
        assert_eq!(images(arguments).lines().count(), count, "{arguments:?}");
    }
    assert_eq!(images(&["--format", "{{.Repository}}:{{.Tag}}", "app"]), "app:1\napp:2\n");
    let table = images(&["--format", "table {{.ID}}\\t{{.Tag | upper}}", "app:1"]);
    assert!(table.starts_with("IMAGE ID       TAG\n") && table.ends_with("   1\n"), "{table}");
    let id = images(&["-q", "--no-trunc", "app:1"]);
    assert!(id.starts_with("sha256:") && id.len() == 72, "{id}");
    let json: serde_json::Value = serde_json::from_str(&images(&["--format", "json", "app:1"])).unwrap();
    assert_eq!((&json["Repository"], &json["Tag"], &json["Containers"]), (&"app".into(), &"1".into(), &"N/A".into()));
    let tree = images(&["--tree", "app"]);
    assert!(tree.starts_with("IMAGE") && tree.contains("app:1") && tree.contains("└─ linux/"), "{tree}");
    for (filter, message) in [("dangling=x", "invalid filter 'dangling=[x]'"), ("nope=1", "invalid filter 'nope'")] {
        let _refused = bench.rbuild(["images", "--filter", filter]).run().fails(1).says(message);
    }
    let both = ["images", "--filter", "dangling=true", "--filter", "dangling=false"];
    let _refused = bench.rbuild(both).run().fails(1).says("invalid filter 'dangling=[true false]'");
    for command in [&["images"][..], &["image", "prune", "-f"], &["container", "prune", "-f"]] {
        let _refused = bench.rbuild(command).args(["--filter", "label"]).run().fails(125).says("expected name=value");
    }
    let _refused =
        bench.rbuild(["images", "--format", "{{.Nope}}"]).run().fails(1).says("in type *formatter.imageContext");
}

#[test]
fn history_knows_lines_sizes_and_seconds() {
    let Some(bench) = with_app() else { return };
    let ran =
        bench.rbuild(["history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Line}}|{{.Size}}|{{.Took}}", "app:1"]);
    let ran = ran.run().ok();
    let rows: Vec<Vec<&str>> = ran.stdout.lines().map(|line| line.split('|').collect()).collect();
    let run = rows.iter().find(|row| row[0].starts_with("RUN")).unwrap_or_else(|| panic!("{}", ran.stdout));
    assert_eq!(run[1], "4", "{run:?}");
    assert!(run[3].ends_with('s') && run[2].ends_with('B'), "{run:?}");
    assert!(rows[0][0].starts_with("CMD") && rows[0][2] == "0B" && rows[0][1].is_empty(), "{rows:?}");
    let ran = bench.rbuild(["image", "history", "app:1"]).run().ok();
    assert!(lines(&ran)[0].starts_with("IMAGE          CREATED"), "{}", ran.stdout);
    assert!(lines(&ran)[1..].iter().skip(1).all(|line| line.starts_with("<missing>")), "{}", ran.stdout);
    let _none = bench.rbuild(["history", "nope"]).run().fails(1).says("no such image");
    let ran = bench.rbuild(["history", "-q", "--no-trunc", "app:1"]).run().ok();
    assert!(lines(&ran)[0].starts_with("sha256:"), "{}", ran.stdout);
    // Builds have their history as before.
    assert!(bench.rbuild(["history", "ls"]).run().ok().stdout.starts_with("BUILD ID"));
}

#[test]
fn removal_follows_dockers_rules() {
    let Some(bench) = with_app() else { return };
    let rmi = |arguments: &[&str]| bench.rbuild(["rmi"]).args(arguments).run();
    let id = bench.rbuild(["images", "-q", "app:1"]).run().ok().stdout.trim().to_owned();
    let _tagged = bench.rbuild(["tag", "app:1", "app:2"]).run().ok();
    let _refused = rmi(&[&id]).fails(1).says("(must be forced) - image is referenced in multiple repositories");
    assert_eq!(rmi(&["app:2"]).ok().stdout, "Untagged: app:2\n");
    let _none = rmi(&["nope"]).fails(1).says("No such image: nope:latest");
    let forced = rmi(&["-f", "nope"]).ok().says("No such image: nope:latest");
    assert_eq!(forced.stdout, "");
    let _container = bench.rbuild(["create", "--name", "user", "app:1"]).run().ok();
    let _used = rmi(&["app:1"]).fails(1).says("unable to remove repository reference \"app:1\" (must force)");
    let _used = rmi(&[&id]).fails(1).says("(must be forced) - image is being used by stopped container");
    let kept = bench.rbuild(["image", "prune", "-a", "-f"]).run().ok().stdout;
    assert!(!kept.contains(&id), "{kept}");
    let ran = rmi(&["-f", "app:1"]).ok();
    let shown = lines(&ran);
    assert_eq!(shown[0], "Untagged: app:1");
    assert!(shown[1].starts_with(&format!("Deleted: sha256:{id}")), "{shown:?}");
    assert_eq!(shown.len(), 4, "two layers: busybox is gone by the prune: {shown:?}");
    let both = rmi(&["x", "y"]).fails(1).says("No such image: x:latest");
    let _both = both.says("No such image: y:latest");
    let _removed = bench.rbuild(["rm", "user"]).run().ok();
}

#[test]
fn prune_takes_what_has_no_name_and_gives_room_back() {
    let Some(bench) = with_app() else { return };
    let old = bench.rbuild(["images", "-q", "--no-trunc", "app:1"]).run().ok().stdout.trim().to_owned();
    let _moved = bench.rbuild(["tag", "busybox", "app:1"]).run().ok();
    let ran = bench.rbuild(["images", "-q", "--no-trunc", "--filter", "dangling=true"]).run().ok();
    assert_eq!(ran.stdout.trim(), old);
    let kept = bench.rbuild(["image", "prune", "-f", "--filter", "label!=x"]).run().ok().stdout;
    assert_eq!(kept, "Total reclaimed space: 0B\n");
    let kept = bench.rbuild(["image", "prune", "-f", "--filter", "until=24h"]).run().ok().stdout;
    assert_eq!(kept, "Total reclaimed space: 0B\n");
    let pruned = bench.rbuild(["image", "prune", "-f"]).run().ok().stdout;
    assert!(pruned.starts_with(&format!("Deleted Images:\ndeleted: {old}\n")), "{pruned}");
    assert!(pruned.contains("\n\nTotal reclaimed space: "), "{pruned}");
    let ran = bench.rbuild(["images", "-q"]).run().ok();
    assert_eq!(lines(&ran).len(), 2, "busybox and app:1 are names of one image: {}", ran.stdout);
}

#[test]
fn images_are_compared_file_by_file() {
    let Some(bench) = Bench::with_busybox() else { return };
    let build = |name: &str, run: &str| {
        let dockerfile = format!("FROM busybox\nRUN mkdir /d && {run}\n");
        let context = bench.context(name, [("Dockerfile", dockerfile.as_str())]);
        let _built = bench.build(name, &context).ok();
    };
    build("one", "echo a > /d/f && echo gone > /d/gone && echo x > /d/mode && ln -s a /d/link");
    build("two", "echo abc > /d/f && echo new > /d/new && echo x > /d/mode && chmod 4755 /d/mode && ln -s b /d/link");
    let shown = bench.rbuild(["image", "diff", "one", "two"]).run().ok().stdout;
    assert_eq!(
        shown,
        "C /d/f (content 2 → 4 bytes, time)\nD /d/gone\nC /d/link (target, time)\nC /d/mode (mode 0644 → 4755, time)\nA /d/new\n"
            .replace(", time", if shown.contains("time") { ", time" } else { "" }),
        "{shown}"
    );
    assert_eq!(bench.rbuild(["image", "diff", "one", "one"]).run().ok().stdout, "");
    let json = bench.rbuild(["image", "diff", "--format", "json", "one", "two"]).run().ok().stdout;
    let rows: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 5, "{json}");
    assert_eq!((&rows[0]["Path"], &rows[0]["SizeAfter"]), (&"/d/f".into(), &4.into()));
    assert_eq!((&rows[3]["ModeBefore"], &rows[3]["ModeAfter"]), (&"0644".into(), &"4755".into()));
    let paths = bench.rbuild(["image", "diff", "--format", "{{.Change}}{{.Path}}", "two", "one"]).run().ok().stdout;
    assert!(paths.contains("A/d/gone\n") && paths.contains("D/d/new\n"), "{paths}");
    let _none = bench.rbuild(["image", "diff", "one", "nope"]).run().fails(1).says("nope");
}

#[test]
fn a_container_becomes_an_image() {
    let Some(bench) = Bench::with_busybox() else { return };
    let script = "echo new > /new && mkdir -p /dir/sub && echo x > /dir/sub/f && ln /new /hard && ln -s new /soft && \
                  rm /etc/group && rm -r /home && mkdir /home && chmod 700 /root && chmod 4755 /bin/busybox && mkfifo /pipe";
    let _ran = bench
        .rbuild(["run", "--name", "work", "-e", "V=1", "--network=none", "busybox", "sh", "-c", script])
        .run()
        .ok();
    let ran = bench.rbuild([
        "commit",
        "-a",
        "Jane <j@x>",
        "-m",
        "done",
        "-c",
        "CMD [\"cat\", \"/new\"]",
        "-c",
        "LABEL a=b",
        "work",
        "made:1",
    ]);
    let id = ran.run().ok().stdout;
    assert!(id.starts_with("sha256:"), "{id}");
    let look = "cat /new /hard /soft; stat -c %h /new; ls /etc/group 2>/dev/null; ls -A /home; stat -c %a /root /bin/busybox; \
                test -p /pipe && echo pipe; cat /dir/sub/f; echo $V";
    assert_eq!(bench.shell("made:1", look), "new\nnew\nnew\n2\n700\n4755\npipe\nx\n1\n");
    assert_eq!(bench.rbuild(["run", "--rm", "--network=none", "made:1"]).run().ok().stdout, "new\n");
    let template = "{{.Author}} {{.Comment}} {{len .RootFS.Layers}} {{.Config.Labels}}";
    let shown = bench.rbuild(["inspect", "-f", template, "made:1"]).run().ok().stdout;
    assert_eq!(shown, "Jane <j@x> done 2 map[a:b]\n");
    let changes = bench.rbuild(["image", "diff", "--format", "{{.Change}} {{.Path}}", "busybox", "made:1"]).run().ok();
    for expected in ["D /etc/group", "D /home/app", "A /hard", "A /pipe", "C /root", "C /bin/busybox"] {
        assert!(changes.stdout.lines().any(|line| line == expected), "no {expected:?} in {}", changes.stdout);
    }
    for place in ["/proc", "/sys", "/dev", "/etc/hosts"] {
        assert!(!changes.stdout.lines().any(|line| line == format!("A {place}")), "{}", changes.stdout);
    }
    // It leaves and comes back as the same image, and is a base like any other.
    let _saved = bench.rbuild(["save", "-o", "made.tar", "made:1"]).run().ok();
    let other = bench.path("other");
    let _loaded = bench.rbuild_at(&other, ["load", "-i", "made.tar"]).run().ok();
    assert_eq!(bench.rbuild_at(&other, ["images", "-q", "--no-trunc"]).run().ok().stdout, id);
    let context = bench.context("on", [("Dockerfile", "FROM made:1\nRUN test -f /dir/sub/f\n")]);
    let _built = bench.build("on", &context).ok();
    let _refused = bench.rbuild(["commit", "-c", "RUN x", "work"]).run().fails(1).says("is not a valid change command");
    let _none = bench.rbuild(["commit", "nope"]).run().fails(1).says("nope");
    let _removed = bench.rbuild(["rm", "work"]).run().ok();
}

#[test]
fn imports_come_from_files_urls_and_standard_input() {
    let Some(bench) = Bench::new() else { return };
    let tar = bench.busybox_tar();
    let bytes = std::fs::read(&tar).unwrap();
    let _piped = bench.rbuild(["import", "-", "piped"]).input(bytes).run().ok();
    let _file = bench.rbuild(["import", "-m", "said", "-c", "ENV A=b"]).arg(&tar).arg("file:2").run().ok();
    let served = bench.path("served");
    std::fs::create_dir(&served).unwrap();
    std::fs::copy(&tar, served.join("root.tar")).unwrap();
    let server = WebServer::start(&served);
    let url = format!("{}/root.tar", server.url);
    let _fetched = bench.rbuild(["import", &url, "fetched"]).run().ok();
    let layers = |name: &str| bench.rbuild(["inspect", "-f", "{{.RootFS.Layers}}", name]).run().ok().stdout;
    assert_eq!((layers("piped"), layers("file:2")), (layers("fetched"), layers("fetched")));
    let comment = |name: &str| bench.rbuild(["inspect", "-f", "{{.Comment}}", name]).run().ok().stdout;
    assert_eq!(comment("piped"), "Imported from -\n");
    assert_eq!(comment("file:2"), "said\n");
    assert_eq!(comment("fetched"), format!("Imported from {url}\n"));
    let _none = bench.rbuild(["import", &format!("{}/none", server.url), "x"]).run().fails(1);
}

#[test]
fn a_running_container_stands_still_for_a_commit_and_goes_on() {
    let Some(bench) = Bench::with_busybox() else { return };
    let script = "echo x > /there; while true; do date > /clock; sleep 0.05; done";
    let _ran = bench.rbuild(["run", "-d", "--network=none", "--name=live", "busybox", "sh", "-c", script]).run().ok();
    for _ in 0..200 {
        if bench.rbuild(["export", "-o", "live.tar", "live"]).run().code == 0
            && std::process::Command::new("tar")
                .arg("-tf")
                .arg(bench.path("live.tar"))
                .output()
                .is_ok_and(|listed| String::from_utf8_lossy(&listed.stdout).lines().any(|name| name.ends_with("clock")))
        {
            break;
        }
    }
    let going = bench.rbuild(["commit", "--pause=false", "live", "made:going"]).run().ok();
    assert!(going.stdout.starts_with("sha256:"), "{}", going.stdout);
    assert_eq!(bench.shell("made:going", "cat /there"), "x\n");
    let ran = bench.rbuild(["commit", "live", "made:still"]).run();
    // Where control groups cannot freeze, that is said; where they can, the container runs again.
    if ran.code == 0 {
        assert_eq!(bench.shell("made:still", "cat /there"), "x\n");
    } else {
        let _said = ran.fails(1).says("--pause=false");
    }
    let running = bench.rbuild(["ps", "-q"]).run().ok().stdout;
    assert_eq!(running.lines().count(), 1, "{running}");
    let _stopped = bench.rbuild(["rm", "-f", "live"]).run().ok();
}
