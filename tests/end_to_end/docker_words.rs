//! The same image in rbuild and in Docker: details, templates, lists, history and refusals are compared.

use crate::bench::Bench;
use crate::outputs::Dockerd;
use crate::peers::run;

/// What Docker keeps for itself, or counts in another way.
const OWN: [&str; 9] = [
    "Container",
    "ContainerConfig",
    "DockerVersion",
    "GraphDriver",
    "Metadata",
    "Parent",
    "RepoDigests",
    "Size",
    "VirtualSize",
];

const TEMPLATES: [&str; 22] = [
    "{{.Id}}",
    "{{.RepoTags}}",
    "{{.Config.Env}}",
    "{{index .Config.Env 0}}",
    "{{range .Config.Env}}{{println .}}{{end}}",
    "{{.Config.Cmd}} {{.Config.Entrypoint}} {{.Config.Volumes}} {{.Config.OnBuild}}",
    "{{json .Config}}",
    "{{json .Config.Labels}}",
    "{{index .Config.Labels \"x\"}}|{{index .Config.Labels \"nope\"}}",
    "{{.Config.Labels.x}}|{{.Config.Labels.nope}}",
    "{{.Config.Healthcheck}}",
    "{{.Config.Healthcheck.Test}}",
    "{{.Config.ExposedPorts}}",
    "{{range $port, $_ := .Config.ExposedPorts}}{{$port}} {{end}}",
    "{{.RootFS}}",
    "{{len .RootFS.Layers}} {{join .RepoTags \"+\"}} {{.Os}}/{{.Architecture}}{{.Variant}}",
    "{{.Config.User}} {{.Config.WorkingDir}} {{.Config.StopSignal}} {{.Config.Shell}}",
    "{{.Created}} {{.Author}} {{.Comment}}",
    "{{with .Config.Labels}}{{.z}}{{end}}{{if .Config.User}}user{{else}}root{{end}}",
    "{{.Nope}}",
    "{{.Config.Env.Nope}}",
    "{{.Id",
];

#[test]
fn the_same_image_looks_the_same() {
    let Some(bench) = Bench::with_busybox() else { return };
    let Some(daemon) = Dockerd::start(&bench) else { return };
    let dockerfile = "FROM busybox\nENV A=1 B=\"two words\"\nLABEL x=y z=\"a b\"\nEXPOSE 80 443/udp\nVOLUME /data\nWORKDIR /w\n\
                      USER app\nSTOPSIGNAL SIGQUIT\nSHELL [\"sh\", \"-c\"]\nRUN true\nHEALTHCHECK --interval=3s CMD true\n\
                      ONBUILD RUN echo hi\nCMD echo hello\n";
    let context = bench.context("ctx", [("Dockerfile", dockerfile)]);
    let output = format!("type=docker,dest={}", bench.path("app.tar").display());
    let _built = bench.rbuild(["build", "-t", "app:1", "-o", &output]).arg(&context).run().ok();
    let _loaded = bench.rbuild(["load", "-i", "app.tar"]).run().ok();
    let told = run(daemon.docker(["load", "-q", "-i"]).arg(bench.path("app.tar")));
    assert_eq!(told, bench.rbuild(["load", "-q", "-i", "app.tar"]).run().ok().stdout);

    let parsed =
        |text: &str| -> serde_json::Value { serde_json::from_str::<serde_json::Value>(text).unwrap()[0].clone() };
    let theirs = parsed(&run(&mut daemon.docker(["image", "inspect", "app:1"])));
    let ours = parsed(&bench.rbuild(["image", "inspect", "app:1"]).run().ok().stdout);
    for (key, value) in theirs.as_object().unwrap() {
        if !OWN.contains(&key.as_str()) {
            assert_eq!(&ours[key], value, "{key}");
        }
    }
    for template in TEMPLATES {
        let theirs = daemon.docker(["image", "inspect", "-f", template, "app:1"]).output().unwrap();
        let ours = bench.rbuild(["image", "inspect", "-f", template, "app:1"]).run();
        assert_eq!(Some(ours.code), theirs.status.code(), "{template}: {}", ours.stderr);
        let said = String::from_utf8(theirs.stdout).unwrap();
        assert_eq!(ours.stdout, said, "{template}");
        let said = String::from_utf8(theirs.stderr).unwrap();
        assert!(ours.stderr.contains(said.trim()), "{template}: {} is not {said}", ours.stderr);
    }

    for format in
        ["{{.Repository}} {{.Tag}} {{.ID}} {{.CreatedAt}}", "table {{.ID}}\\t{{.Repository}}", "{{.Nope}}", "{{.ID"]
    {
        let theirs = daemon.docker(["images", "--format", format, "app"]).output().unwrap();
        let ours = bench.rbuild(["images", "--format", format, "app"]).run();
        assert_eq!((Some(ours.code), ours.stdout), (theirs.status.code(), String::from_utf8(theirs.stdout).unwrap()));
        assert!(ours.stderr.contains(String::from_utf8(theirs.stderr).unwrap().trim()), "{format}: {}", ours.stderr);
    }
    let format = "{{.ID}}|{{.CreatedBy}}|{{.Comment}}|{{.CreatedAt}}";
    for more in [&["--no-trunc"][..], &[]] {
        let theirs = run(daemon.docker(["history", "--format", format]).args(more).arg("app:1"));
        assert_eq!(bench.rbuild(["history", "--format", format]).args(more).arg("app:1").run().ok().stdout, theirs);
    }
    for arguments in [
        &["rmi", "nope"][..],
        &["rmi", "-f", "nope"],
        &["rmi", "nope", "other:2"],
        &["tag", "nope", "x"],
        &["image", "inspect", "nope"],
        &["history", "nope"],
        &["images", "--filter", "dangling=x"],
        &["images", "--filter", "nope=1"],
        &["image", "prune", "-f", "--filter", "nope=1"],
    ] {
        let theirs = daemon.docker([]).args(arguments).output().unwrap();
        let ours = bench.rbuild(arguments).run();
        assert_eq!(Some(ours.code), theirs.status.code(), "{arguments:?}: {}", ours.stderr);
        assert_eq!(ours.stdout, String::from_utf8(theirs.stdout).unwrap(), "{arguments:?}");
    }
    let theirs = run(&mut daemon.docker(["rmi", "app:1"]));
    let ours = bench.rbuild(["rmi", "app:1"]).run().ok().stdout;
    assert_eq!(ours.lines().take(2).collect::<Vec<_>>(), theirs.lines().take(2).collect::<Vec<_>>());
}
