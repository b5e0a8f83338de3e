//! Other tools read what rbuild writes, and rbuild reads what they write.

use std::process::{Command, Stdio};

use crate::bench::Bench;
use crate::registry::Registry;

/// Whether a program is installed; says so where it is not, and fails where CI promised it.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .arg("-c")
        .arg(format!("command -v {program}"))
        .stdout(Stdio::null())
        .status()
        .unwrap()
        .success();
    if !found {
        assert!(std::env::var_os("RBUILD_TEST_ROOT_REQUIRED").is_none(), "{program} is not installed");
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("the peer starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An image with most kinds of entries, as archives of both formats: `app.oci`, `app.docker`.
fn archives(bench: &Bench) {
    let context = bench.context(
        "ctx",
        [(
            "Dockerfile",
            "FROM busybox\nRUN mkdir /d && echo x > /d/x && ln /d/x /d/hard && ln -s x /d/soft && mkfifo /d/fifo && chmod 4755 /bin/busybox && rm /bin/vi\n\
             RUN rm -r /d && mkdir /d && echo y > /d/y\nENV A=b\nCMD [\"cat\", \"/d/y\"]\n",
        )],
    );
    for format in ["oci", "docker"] {
        let output = format!("type={format},dest=app.{format}");
        let _built = bench.rbuild(["build", "-t", "localhost/app:1", "-o", &output]).arg(&context).run().ok();
    }
}

#[test]
fn skopeo_and_umoci_see_the_same_files_and_config() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("skopeo") || !has("umoci") {
        return;
    }
    archives(&bench);
    for kind in ["oci", "docker"] {
        let config = run(Command::new("skopeo")
            .args(["inspect", "--config"])
            .arg(format!("{kind}-archive:{}", bench.path(format!("app.{kind}")).display())));
        let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
        assert_eq!(config["config"]["Cmd"], serde_json::json!(["cat", "/d/y"]));
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
    }
    let layout = format!("oci:{}:app", bench.path("layout").display());
    run(Command::new("skopeo")
        .args(["copy", "-q"])
        .arg(format!("oci-archive:{}", bench.path("app.oci").display()))
        .arg(&layout));
    run(Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:app", bench.path("layout").display()))
        .arg(bench.path("bundle")));
    let root = bench.path("bundle/rootfs");
    let names: Vec<_> = std::fs::read_dir(root.join("d")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["y"]);
    assert!(!root.join("bin/vi").exists());
}

#[test]
fn podman_runs_what_was_built() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("podman") {
        return;
    }
    archives(&bench);
    let podman = || {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(bench.path("podman"))
            .arg("--runroot")
            .arg(bench.path("podman-run"))
            .args(["--storage-driver", "vfs"]);
        command
    };
    for kind in ["oci", "docker"] {
        let loaded = run(podman().args(["load", "-q", "-i"]).arg(bench.path(format!("app.{kind}"))));
        assert!(loaded.contains("localhost/app:1"), "{loaded}");
        let config =
            run(podman().args(["image", "inspect", "--format", "{{.Config.Cmd}} {{.Config.Env}}", "localhost/app:1"]));
        assert_eq!(config.trim(), "[cat /d/y] [PATH=/bin A=b]");
    }
}

#[test]
fn images_travel_through_a_real_registry() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let name = format!("127.0.0.1:{}/team/app:1", registry.port());
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\nRUN echo pushed > /f\nRUN rm /bin/vi\n")]);
    let _built = bench.build(&name, &context).ok();
    let id = bench.rbuild(["images", "-q", "--no-trunc", &name]).run().ok().stdout;
    let _pushed = bench.rbuild(["push", &name]).run().ok();
    let seen = run(Command::new("skopeo").args(["inspect", "--tls-verify=false"]).arg(format!("docker://{name}")));
    assert!(seen.contains("\"Layers\""), "{seen}");
    let digest = serde_json::from_str::<serde_json::Value>(&seen).unwrap()["Digest"].as_str().unwrap().to_owned();

    // Another store pulls it, also by digest, and builds on it without being told to pull.
    let _gone = bench.rbuild(["rmi", "-f", &name]).run().ok();
    let _pulled = bench.rbuild(["pull", &name]).run().ok();
    assert_eq!(bench.rbuild(["images", "-q", "--no-trunc", &name]).run().ok().stdout, id);
    let other = bench.path("other-store");
    let by_digest = format!("127.0.0.1:{}/team/app@{digest}", registry.port());
    let child = bench.context("child", [("Dockerfile", &format!("FROM {by_digest}\nRUN cat /f > /g\n"))]);
    let _child = bench.rbuild_at(&other, ["build", "-t", "child"]).arg(&child).run().ok();
    let ran = bench.rbuild_at(
        &other,
        ["run", "--rm", "--network=none", "child", "sh", "-c", "cat /g; ls /bin/vi 2>/dev/null || echo gone"],
    );
    assert_eq!(ran.run().ok().stdout, "pushed\ngone\n");
    // Pushed back unchanged, it keeps its digest.
    let _back = bench.rbuild(["push", &name]).run().ok();
    let seen = run(Command::new("skopeo").args(["inspect", "--tls-verify=false"]).arg(format!("docker://{name}")));
    assert!(seen.contains(&digest), "pushing a pulled image changed it: {seen}");
}

#[test]
fn images_pushed_by_others_are_pulled() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    archives(&bench);
    let name = format!("127.0.0.1:{}/from/skopeo:2", registry.port());
    run(Command::new("skopeo")
        .args(["copy", "-q", "--dest-tls-verify=false"])
        .arg(format!("oci-archive:{}", bench.path("app.oci").display()))
        .arg(format!("docker://{name}")));
    let _pulled = bench.rbuild(["pull", &name]).run().ok();
    let ran = bench.rbuild(["run", "--rm", "--network=none", &name]).run().ok();
    assert_eq!(ran.stdout, "y\n");
}

#[test]
fn podman_and_buildah_take_what_we_push() {
    let Some(bench) = Bench::with_busybox() else { return };
    if !has("docker-registry") || !has("podman") || !has("buildah") || !has("runc") {
        return;
    }
    let registry = Registry::start(&bench.path("registry"));
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\nRUN echo pushed > /f\nCMD [\"cat\", \"/f\"]\n")]);
    // Without limits of its own podman needs no power that a container may lack.
    std::fs::write(bench.path("containers.conf"), "[containers]\ndefault_ulimits = []\n").unwrap();
    let peer = |program: &str| {
        let mut command = Command::new(program);
        let dir = bench.path(program);
        command.env("CONTAINERS_CONF", bench.path("containers.conf"));
        command.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    };
    for (tag, more) in [
        ("plain", &[][..]),
        ("attested", &["--provenance=true", "--sbom=true"]),
        ("zstd", &["-o", "type=image,compression=zstd,force-compression=true"]),
    ] {
        let name = registry.name(&format!("team/app:{tag}"));
        let ran = bench.rbuild(["build", "--push", "--iidfile=id", "-t", &name]).args(more).arg(&context).run();
        let _pushed = ran.ok();
        let id = std::fs::read_to_string(bench.path("id")).unwrap();
        let pulled = run(peer("buildah").args(["pull", "-q", "--tls-verify=false"]).arg(format!("docker://{name}")));
        assert_eq!(format!("sha256:{}", pulled.trim()), id, "{tag}");
        let ran = run(peer("podman")
            .args([
                "--cgroup-manager=cgroupfs",
                "run",
                "--rm",
                "--network=none",
                "--runtime=runc",
                "--tls-verify=false",
                "-q",
            ])
            .arg(&name));
        assert_eq!(ran, "pushed\n", "{tag}");
    }
}
