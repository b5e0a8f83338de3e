//! `RUN --mount`: what is shared between processes and what is gone afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;

use crate::bench::{Bench, Ran};

/// Two builds of different contexts at the same time, each in a process of its own.
fn two_at_once(bench: &Bench, mount: &str, script: &str) -> [Ran; 2] {
    let of = |name: &str| {
        let dockerfile = format!("FROM busybox\nENV ME={name}\nRUN --mount=type=cache,id=c,{mount} {script}\n");
        bench.context(name, [("Dockerfile", dockerfile.as_str())])
    };
    let (a, b) = (of("a"), of("b"));
    let build = |context| bench.rbuild(["build", "--progress=plain", "--no-cache"]).arg(context).run();
    thread::scope(|scope| {
        let first = scope.spawn(|| build(&a));
        let second = build(&b);
        [first.join().unwrap(), second]
    })
}

/// Says that it is there and waits, for a while, until the other one is there as well.
const MEET: &str = "sh -c 'touch /c/$ME; for i in $(seq 100); do [ -e /c/a ] && [ -e /c/b ] && echo met && exit; sleep 0.05; done; echo alone'";

#[test]
fn a_shared_cache_is_one_for_all_processes() {
    let Some(bench) = Bench::with_busybox() else { return };
    for ran in two_at_once(&bench, "target=/c", MEET) {
        let _ran = ran.ok().says(" met");
    }
}

#[test]
fn a_private_cache_is_another_one_while_the_first_is_in_use() {
    let Some(bench) = Bench::with_busybox() else { return };
    // Each waits for the other outside, so that both are running when they look.
    let script = "sh -c 'touch /both/$ME /c/$ME; for i in $(seq 400); do [ -e /both/a ] && [ -e /both/b ] && break; sleep 0.05; done; \
                  [ -e /both/a ] && [ -e /both/b ] && echo together $(ls /c)'";
    let [a, b] = two_at_once(&bench, "target=/c,sharing=private --mount=type=cache,id=both,target=/both", script);
    let _ran = (a.ok().says(" together a\n"), b.ok().says(" together b\n"));
}

#[test]
fn a_locked_cache_is_used_by_one_process_after_the_other() {
    let Some(bench) = Bench::with_busybox() else { return };
    let script = "sh -c 'mkdir /c/busy && sleep 0.7 && rmdir /c/busy && echo one by one'";
    let ran = two_at_once(&bench, "target=/c,sharing=locked", script);
    assert!(
        ran.iter().any(|ran| ran.stderr.contains("waiting for cache mount c, held by pid")),
        "nobody waited: {ran:?}"
    );
    for ran in ran {
        let _ran = ran.ok().says(" one by one");
    }
}

#[test]
fn writes_to_bind_mounts_vanish_and_limits_hold() {
    let Some(bench) = Bench::with_busybox() else { return };
    let dockerfile = "FROM busybox AS s\nRUN mkdir /d && echo s > /d/f\nFROM busybox\n\
        RUN --mount=target=/ctx,rw --mount=type=bind,from=s,source=/d,dst=/s,readwrite=true echo w > /ctx/f && echo w > /s/f && cat /ctx/f /s/f > /seen && rm /ctx/g\n\
        RUN --mount=target=/ctx --mount=from=s,src=/d/f,destination=/one cat /ctx/f /ctx/g /one >> /seen && ! touch /ctx/x 2>/dev/null\n\
        RUN --mount=type=tmpfs,target=/t,size=1m dd if=/dev/zero of=/t/f bs=64k count=15 2>/dev/null && ! dd if=/dev/zero of=/t/g bs=64k count=15 2>/dev/null\n\
        RUN --mount=type=cache,target=/c,mode=0710,uid=12,gid=13 stat -c '%a %u %g' /c >> /seen\n\
        RUN --mount=type=cache,target=/c,mode=0710,uid=12,gid=13,ro ! touch /c/x 2>/dev/null\n\
        RUN --mount=type=cache,target=/seeded,from=s,source=/d cat /seeded/f >> /seen && echo more >> /seeded/f\n\
        RUN --mount=type=cache,target=/seeded,from=s,source=/d cat /seeded/f >> /seen\n";
    let context = bench.context("ctx", [("Dockerfile", dockerfile), ("f", "f\n"), ("g", "g\n")]);
    let _ran = bench.rbuild(["build", "-o", "out"]).arg(&context).run().ok();
    let seen = fs::read_to_string(bench.path("out/seen")).unwrap();
    assert_eq!(seen, "w\nw\nf\ng\ns\n710 12 13\ns\ns\nmore\n");
    assert_eq!(fs::read_to_string(context.join("f")).unwrap(), "f\n");
    for name in ["ctx", "s", "t", "c", "seeded"] {
        assert!(!bench.path("out").join(name).exists(), "/{name} stayed");
    }
}

#[test]
fn secrets_come_as_files_and_variables() {
    let Some(bench) = Bench::with_busybox() else { return };
    let dockerfile = "FROM busybox\n\
        RUN --mount=type=secret,id=a cat /run/secrets/a > /x && stat -c '%a %u %g' /run/secrets/a >> /x\n\
        RUN --mount=type=secret,id=a,target=/etc/deep/s,mode=0440,uid=1,gid=2 stat -c '%a %u %g' /etc/deep/s >> /x\n\
        RUN --mount=type=secret,id=b,env=B --mount=type=secret,id=a,env=A,target=/both echo \"$B $A $(cat /both)\" >> /x && ! [ -e /run/secrets/b ]\n\
        RUN --mount=type=secret,id=none ! [ -e /run/secrets/none ]\n\
        RUN ! [ -e /run/secrets ] && ! [ -e /etc/deep ]\n";
    let context = bench.context("ctx", [("Dockerfile", dockerfile)]);
    fs::write(bench.path("a"), "value a\n").unwrap();
    let secrets = ["--secret", "id=a,src=a", "--secret", "type=env,id=b,env=VARIABLE"];
    let ran = bench.rbuild(["build", "-o", "out"]).args(secrets).env("VARIABLE", "value b").arg(&context).run();
    let _ran = ran.ok();
    let seen = fs::read_to_string(bench.path("out/x")).unwrap();
    assert_eq!(seen, "value a\n400 0 0\n440 1 2\nvalue b value a\n value a\n");
}

/// A key without passphrase.
fn key(bench: &Bench, name: &str) -> String {
    let path = bench.path(name);
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&path);
    assert!(keygen.stdin(Stdio::null()).status().unwrap().success());
    path.display().to_string()
}

#[test]
fn key_files_become_an_agent_for_steps() {
    let Some(bench) = Bench::with_busybox() else { return };
    if Command::new("ssh-keygen").arg("-?").stderr(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("RBUILD_TEST_ROOT_REQUIRED").is_none(), "ssh-keygen is not installed");
        eprintln!("SKIPPED: ssh-keygen is not installed");
        return;
    }
    let (one, two) = (key(&bench, "one"), key(&bench, "two"));
    fs::set_permissions(&two, fs::Permissions::from_mode(0o644)).unwrap();
    let dockerfile = "FROM busybox\nRUN --mount=type=ssh [ -S $SSH_AUTH_SOCK ] && echo $SSH_AUTH_SOCK > /x\n\
        RUN --mount=type=ssh,id=other,target=/s,mode=0666,uid=3 stat -c '%a %u' /s >> /x\n\
        RUN --mount=type=ssh ls -l $SSH_AUTH_SOCK && ! [ -e /s ]\n";
    let context = bench.context("ctx", [("Dockerfile", dockerfile)]);
    let build = |more: &[&str]| bench.rbuild(["build", "--no-cache", "-o", "out"]).args(more).arg(&context).run();
    let keys = format!("default={one},{two}");
    let other = format!("other={one}");
    let _ran = build(&["--ssh", &keys, "--ssh", &other]).ok();
    let seen = fs::read_to_string(bench.path("out/x")).unwrap();
    assert_eq!(seen, "/run/buildkit/ssh_agent.0\n666 3\n");
    let _ran = build(&["--ssh", "default=/absent"]).fails(1).says("cannot use /absent");
    fs::write(bench.path("no-key"), "nonsense").unwrap();
    let _ran = build(&["--ssh", "default=no-key", "--ssh", &other])
        .fails(1)
        .says("no-key")
        .says("private key without passphrase");
}
