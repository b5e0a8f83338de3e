//! Image commands: lists, details, history, names and removal, with Docker's words.

use crate::bench::{Bench, Ran};

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
    let kept = bench.rbuild(["image", "prune", "--filter", "label!=x"]).run().ok().stdout;
    assert_eq!(kept, "Total reclaimed space: 0B\n");
    let kept = bench.rbuild(["image", "prune", "--filter", "until=24h"]).run().ok().stdout;
    assert_eq!(kept, "Total reclaimed space: 0B\n");
    let pruned = bench.rbuild(["image", "prune", "-f"]).run().ok().stdout;
    assert!(pruned.starts_with(&format!("Deleted Images:\ndeleted: {old}\n")), "{pruned}");
    assert!(pruned.contains("\n\nTotal reclaimed space: "), "{pruned}");
    let ran = bench.rbuild(["images", "-q"]).run().ok();
    assert_eq!(lines(&ran).len(), 2, "busybox and app:1 are names of one image: {}", ran.stdout);
}
