//! Instructions, stages, contexts: what ends up in an image.

use std::os::unix::fs::PermissionsExt;

use crate::bench::Bench;

#[test]
fn a_static_program_on_scratch_is_built_and_run() {
    let Some(bench) = Bench::new() else { return };
    let context = bench
        .context("ctx", [("hello.c", "#include <stdio.h>\nint main(void){puts(\"hello from scratch\");return 7;}\n")]);
    let done = std::process::Command::new("cc")
        .args(["-static", "-o"])
        .arg(context.join("hello"))
        .arg(context.join("hello.c"))
        .status();
    assert!(done.unwrap().success());
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nADD hello /\nCMD [\"/hello\"]\n").unwrap();
    let _built = bench.rbuild(["-t", "hello:0.1"]).arg(&context).run().ok();
    let ran = bench.rbuild(["run", "--rm", "hello:0.1"]).run().fails(7);
    assert_eq!(ran.stdout, "hello from scratch\n");
}

#[test]
fn stages_give_files_to_each_other_and_unneeded_ones_never_run() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context(
        "ctx",
        [(
            "Dockerfile",
            "FROM busybox AS one\nRUN echo 1 > /one\n\
             FROM busybox AS unused\nRUN exit 1\n\
             FROM one AS two\nRUN cat /one > /two && echo 2 >> /two\n\
             FROM busybox\nCOPY --from=two /two /\nCOPY --from=0 /one /\n",
        )],
    );
    let ran = bench.build("stages", &context).ok();
    assert!(!ran.stderr.contains("exit 1"), "an unneeded stage was planned:\n{}", ran.stderr);
    assert_eq!(bench.shell("stages", "cat /one /two"), "1\n1\n2\n");
    let _target = bench.rbuild(["build", "--target=one", "-t", "first"]).arg(&context).run().ok();
    assert_eq!(bench.shell("first", "cat /one; ls /two 2>/dev/null || echo none"), "1\nnone\n");
}

#[test]
fn independent_stages_run_at_the_same_time() {
    let Some(bench) = Bench::with_busybox() else { return };
    // Each stage waits until the other has begun: one after another they would never end.
    let meet = |me: &str, other: &str| {
        format!(
            "FROM busybox AS {me}\nRUN --mount=type=cache,target=/meet,id=meet touch /meet/{me}; \
             for i in $(seq 200); do [ -e /meet/{other} ] && exit 0; sleep 0.05; done; exit 9\n"
        )
    };
    let text = format!(
        "{}{}FROM busybox\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n",
        meet("a", "b"),
        meet("b", "a")
    );
    let context = bench.context("ctx", [("Dockerfile", &text)]);
    let _ran = bench.build("met", &context).ok();
}

#[test]
fn metadata_reaches_the_image_config() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context(
        "ctx",
        [(
            "Dockerfile",
            "FROM busybox\nARG WHO=world\nENV GREETING=\"hello $WHO\" EMPTY=\nLABEL a=b\nEXPOSE 80 53/udp\nVOLUME /data\nUSER app\n\
             WORKDIR /srv\nSTOPSIGNAL SIGQUIT\nHEALTHCHECK --interval=5s CMD true\nENTRYPOINT [\"echo\"]\nCMD [\"x\"]\n",
        )],
    );
    let _built = bench.rbuild(["build", "--build-arg=WHO=there", "--label=c=d", "-t", "meta"]).arg(&context).run().ok();
    let inspected = bench.rbuild(["image", "inspect", "meta"]).run().ok().stdout;
    let document: serde_json::Value = serde_json::from_str(&inspected).expect("JSON");
    let config = &document[0]["Config"];
    assert_eq!(config["User"], "app");
    assert_eq!(config["WorkingDir"], "/srv");
    assert_eq!(config["StopSignal"], "SIGQUIT");
    assert_eq!(config["Entrypoint"], serde_json::json!(["echo"]));
    assert_eq!(config["Cmd"], serde_json::json!(["x"]));
    assert_eq!(config["Labels"], serde_json::json!({"a": "b", "c": "d"}));
    assert_eq!(config["ExposedPorts"], serde_json::json!({"53/udp": {}, "80/tcp": {}}));
    assert_eq!(config["Volumes"], serde_json::json!({"/data": {}}));
    assert_eq!(config["Env"], serde_json::json!(["PATH=/bin", "GREETING=hello there", "EMPTY="]));
    assert_eq!(config["Healthcheck"]["Interval"], 5_000_000_000_i64);
}

#[test]
fn copies_have_owners_and_modes_as_asked() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context(
        "ctx",
        [
            ("Dockerfile", "FROM busybox\nCOPY --chown=app:staff --chmod=640 f /owned\nCOPY f dir/\nCOPY tree /tree\n"),
            ("f", "content\n"),
            ("tree/a/b", "deep\n"),
            ("tree/skipped.log", "no\n"),
            (".dockerignore", "**/*.log\n"),
        ],
    );
    std::fs::set_permissions(context.join("f"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let _built = bench.build("copies", &context).ok();
    let listing = bench.shell("copies", "stat -c '%n %a %u:%g' /owned /dir/f /tree/a/b; ls /tree");
    assert_eq!(listing, "/owned 640 1000:50\n/dir/f 755 0:0\n/tree/a/b 644 0:0\na\n");
}

#[test]
fn archives_are_unpacked_by_add_only() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context(
        "ctx",
        [("Dockerfile", "FROM busybox\nADD t.tar.gz /added/\nCOPY t.tar.gz /copied/\n"), ("in/x", "x\n")],
    );
    let done = std::process::Command::new("tar")
        .arg("-C")
        .arg(context.join("in"))
        .arg("-czf")
        .arg(context.join("t.tar.gz"))
        .arg("x")
        .status();
    assert!(done.unwrap().success());
    let _built = bench.build("added", &context).ok();
    assert_eq!(bench.shell("added", "ls /added /copied"), "/added:\nx\n\n/copied:\nt.tar.gz\n");
}

#[test]
fn here_documents_and_shells() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context(
        "ctx",
        [(
            "Dockerfile",
            "FROM busybox\nRUN <<EOF\necho one > /out\necho \"two $0\" >> /out\nEOF\nCOPY <<-'END' /literal\n\t$NOT expanded\nEND\n\
             SHELL [\"/bin/sh\", \"-ec\"]\nRUN echo \"a\\nb\" > /dash\nRUN [\"touch\", \"/exec\"]\n",
        )],
    );
    let _built = bench.build("here", &context).ok();
    assert_eq!(
        bench.shell("here", "cat /out /literal /dash; ls /exec"),
        "one\ntwo /bin/sh\n$NOT expanded\na\\nb\n/exec\n"
    );
}

#[test]
fn triggers_run_in_the_child() {
    let Some(bench) = Bench::with_busybox() else { return };
    let parent = bench.context(
        "parent",
        [("Dockerfile", "FROM busybox\nONBUILD COPY f /from-trigger\nONBUILD RUN cat /from-trigger > /ran\n")],
    );
    let _parent = bench.build("parent", &parent).ok();
    let child = bench.context("child", [("Dockerfile", "FROM parent\n"), ("f", "child's\n")]);
    let _child = bench.build("child", &child).ok();
    assert_eq!(bench.shell("child", "cat /ran"), "child's\n");
}

#[test]
fn a_dockerfile_or_a_tar_comes_by_standard_input() {
    let Some(bench) = Bench::with_busybox() else { return };
    let _alone = bench.rbuild(["-t", "alone", "-"]).input("FROM busybox\nRUN echo alone > /f\n").run().ok();
    assert_eq!(bench.shell("alone", "cat /f"), "alone\n");

    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\nCOPY f /f\n"), ("f", "in a tar\n")]);
    let tar = std::process::Command::new("tar").arg("-C").arg(&context).args(["-cz", "."]).output().unwrap().stdout;
    let _tar = bench.rbuild(["-t", "tarred", "-"]).input(tar).run().ok();
    assert_eq!(bench.shell("tarred", "cat /f"), "in a tar\n");

    let _file = bench.rbuild(["-t", "other", "-f", "-"]).arg(&context).input("FROM busybox\nCOPY f /g\n").run().ok();
    assert_eq!(bench.shell("other", "cat /g"), "in a tar\n");
}

#[test]
fn a_step_leaves_nothing_of_its_sandbox_in_the_layer() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context(
        "ctx",
        [("Dockerfile", "FROM busybox\nRUN cat /etc/hosts /etc/resolv.conf > /dev/null && echo x > /x\n")],
    );
    let _built = bench.rbuild(["build", "-o", "out"]).arg(&context).run().ok();
    let names: std::collections::BTreeSet<String> = std::fs::read_dir(bench.path("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.contains("x"), "{names:?}");
    for file in ["etc/hosts", "etc/resolv.conf", ".dockerenv"] {
        assert!(!bench.path("out").join(file).exists(), "{file} stayed");
    }
}
