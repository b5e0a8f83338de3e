//! Layers as tars and as directories, side by side: whoever switches from one to the other loses nothing.

use crate::bench::{Bench, Call};
use crate::peers::has;
use crate::registry::Registry;

const DOCKERFILE: &str = "\
FROM busybox AS base
RUN mkdir -p /d/old && echo one > /d/old/f && chown 7:8 /d/old/f
COPY --chmod=0640 f /d/f
FROM base
RUN rm -r /d/old && echo two > /d/new
COPY --from=base /d/old /moved
WORKDIR /d
CMD [\"cat\", \"/d/new\", \"/d/f\", \"/moved/f\"]
";

/// Whether layers can be tars here; says so if not.
fn has_tars(bench: &Bench) -> bool {
    let driver = bench.rbuild(["info", "-f", "{{.Driver}}"]).run().ok().stdout;
    match driver.trim() {
        "erofs" => true,
        other => {
            eprintln!("SKIPPED: layers cannot be tars here, they are kept as {other:?}");
            false
        }
    }
}

fn by<const N: usize>(bench: &Bench, kind: &str, args: [&str; N]) -> Call {
    bench.rbuild(["--snapshotter", kind]).args(args)
}

fn id(bench: &Bench, image: &str) -> String {
    bench.rbuild(["inspect", "-f", "{{.Id}}", image]).run().ok().stdout
}

#[test]
fn switching_in_either_direction_loses_nothing() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has_tars(&bench) || !has("docker-registry") {
        return;
    }
    let context = bench.context("context", [("Dockerfile", DOCKERFILE), ("f", "content\n")]);
    let context = context.to_str().unwrap();
    let registry = Registry::start(&bench.path("registry"));
    for (at, (first, second)) in [("erofs", "directory"), ("directory", "erofs")].into_iter().enumerate() {
        let image = format!("app{at}");
        let build = ["build", "--progress=plain", "--network=none", "-t", &image, context];
        let _ran = by(&bench, first, ["cache", "prune", "--all", "--force"]).run().ok();
        let _ran = by(&bench, first, build).env("SOURCE_DATE_EPOCH", "1000000000").run().ok();
        let made = id(&bench, &image);
        let run = ["run", "--rm", "--network=none", &image];
        for kind in [first, second, first] {
            assert_eq!(by(&bench, kind, run).run().ok().stdout, "two\ncontent\none\n", "{first} then {second}");
        }
        // Everything is found again, by whatever kind it was made.
        let again = by(&bench, second, build).env("SOURCE_DATE_EPOCH", "1000000000").run().ok();
        assert_eq!(id(&bench, &image), made, "{}", again.stderr);
        let from = bench.context("from", [("Dockerfile", &format!("FROM {image}\nRUN echo more >> /d/new\n"))]);
        let more = ["build", "--progress=plain", "--network=none", "-t", "more", from.to_str().unwrap()];
        let _ran = by(&bench, second, more).run().ok();
        let cat = ["run", "--rm", "--network=none", "more", "cat", "/d/new"];
        assert_eq!(by(&bench, first, cat).run().ok().stdout, "two\nmore\n");
        // What leaves is the same, too.
        let there = registry.name(&format!("test/{image}:1"));
        let _ran = by(&bench, second, ["tag", &image, &there]).run().ok();
        let _ran = by(&bench, second, ["push", &there]).run().ok();
        let _ran = by(&bench, second, ["cache", "verify"]).run().ok();
        // Without the one, the other goes on: from the registry, and from the containers that stay.
        let _ran = by(&bench, first, ["create", "--name=stays", "--network=none", &image]).run().ok();
        let _ran = by(&bench, second, ["rmi", "-f", &image, "more"]).run().ok();
        let _ran = by(&bench, second, ["cache", "prune", "--all", "--force"]).run().ok();
        assert_eq!(by(&bench, second, ["start", "-a", "stays"]).run().ok().stdout, "two\ncontent\none\n");
        let _ran = by(&bench, first, ["rm", "stays"]).run().ok();
        let _ran = by(&bench, second, ["rmi", "-f", &there]).run().ok();
        let _ran = by(&bench, second, ["pull", &there]).run().ok();
        assert_eq!(id(&bench, &there), made);
        let pulled = ["run", "--rm", "--network=none", &there];
        assert_eq!(by(&bench, first, pulled).run().ok().stdout, "two\ncontent\none\n");
        let _ran = by(&bench, first, ["cache", "verify"]).run().ok();
        let _ran = by(&bench, first, ["rmi", "-f", &there]).run().ok();
    }
}

#[test]
fn what_layers_are_kept_as_is_told_and_why() {
    let Some(bench) = Bench::new() else { return };
    if !has_tars(&bench) {
        return;
    }
    let info = |args: &[&str]| bench.rbuild(args).arg("info").run().ok().stdout;
    let text = info(&[]);
    assert!(text.contains("Storage Driver: erofs\n Why: erofs from files can be mounted here\n"), "{text}");
    let text = info(&["--snapshotter=directory"]);
    assert!(text.contains("Storage Driver: directory\n Why: asked for\n"), "{text}");
    let checks = bench.rbuild(["--snapshotter=erofs", "doctor"]).run().ok().stdout;
    assert!(checks.contains("kept as tars, never unpacked: asked for"), "{checks}");
    // A namespace of users of its own: there the kernel refuses such mounts.
    let inside = bench.through(["unshare", "-Ur", "--"], ["info", "-f", "{{.Driver}} {{.DriverStatus}}"]).run();
    if inside.code == 0 {
        let text = inside.stdout;
        assert!(text.starts_with("directory") && text.contains("cannot be mounted here"), "{text}");
    }
}
