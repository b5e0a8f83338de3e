//! What mounts of containers are tied to, and what may be done in them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::Bench;

/// A mount of the host that others may follow; unmounted at the end.
struct SharedMount(PathBuf);

impl SharedMount {
    fn make(path: PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        mount(&["-t", "tmpfs", "shared-of-a-test"], &path);
        let shared = Self(path);
        mount(&["--make-shared"], &shared.0);
        shared
    }
}

impl Drop for SharedMount {
    fn drop(&mut self) {
        let _tried = Command::new("umount").arg("-R").arg(&self.0).status();
    }
}

fn mount(args: &[&str], at: &Path) {
    assert!(Command::new("mount").args(args).arg(at).status().unwrap().success(), "mount {args:?} {}", at.display());
}

#[test]
fn later_mounts_pass_in_the_direction_that_was_asked_for() {
    let Some(bench) = Bench::with_busybox() else { return };
    let shared = SharedMount::make(bench.path("shared"));
    std::fs::create_dir_all(shared.0.join("a")).unwrap();
    std::fs::create_dir_all(shared.0.join("b")).unwrap();
    let from = shared.0.display();
    let run = |name: &str, mount: &[&str]| {
        let run = bench.rbuild(["run", "-d", "--network=none", "--cap-add=SYS_ADMIN", "--name", name]).args(mount);
        let _ran = run.args(["--security-opt=apparmor=unconfined", "busybox", "sleep", "1000"]).run().ok();
    };
    run("slave", &["-v", &format!("{from}:/m:rslave")]);
    run("private", &["-v", &format!("{from}:/m")]);
    run("shared", &["--mount", &format!("type=bind,src={from},dst=/m,bind-propagation=rshared")]);
    run("single", &["--mount", &format!("type=bind,src={from},dst=/m,bind-nonrecursive,readonly")]);
    let sees = |name: &str, path: &str| bench.rbuild(["exec", name, "test", "-e", path]).run().code == 0;
    mount(&["-t", "tmpfs", "later"], &shared.0.join("a"));
    std::fs::write(shared.0.join("a/new"), "").unwrap();
    assert!(sees("slave", "/m/a/new"), "what the host mounts is seen by who follows it");
    assert!(sees("shared", "/m/a/new"));
    assert!(!sees("private", "/m/a/new"));
    let inside = |name: &str| {
        let ran = bench.rbuild(["exec", "--privileged", name, "mount", "-t", "tmpfs", "inner", "/m/b"]).run().ok();
        let _ran = bench.rbuild(["exec", name, "touch", "/m/b/inner"]).run().ok();
        drop(ran);
    };
    inside("slave");
    assert!(!shared.0.join("b/inner").exists(), "what follows does not lead");
    inside("shared");
    assert!(shared.0.join("b/inner").exists(), "what is shared is shared");
    run("late", &["--mount", &format!("type=bind,src={from},dst=/m,bind-recursive=disabled")]);
    assert!(!sees("late", "/m/a/new") && sees("late", "/m/a"), "only the mount itself");
    let _ran = bench.rbuild(["exec", "single", "touch", "/m/x"]).run().fails(1).says("Read-only file system");
    let said =
        |name: &str| bench.rbuild(["inspect", "-f", "{{range .Mounts}}{{.Propagation}}{{end}}", name]).run().ok();
    assert_eq!(said("slave").stdout + &said("private").stdout + &said("shared").stdout, "rslave\nrprivate\nrshared\n");
    let _ran = bench.rbuild(["rm", "-f", "slave", "private", "shared", "single", "late"]).run().ok();
    // What is shared with nobody cannot be passed on.
    mount(&["--make-private"], &shared.0);
    for (mode, word) in [("rslave", "a shared or slave mount"), ("rshared", "a shared mount")] {
        let ran = bench
            .rbuild(["run", "--rm", "--network=none", "-v", &format!("{from}:/m:{mode}"), "busybox", "true"])
            .run();
        let _ran = ran.fails(125).says(&format!("is mounted on {from} but it is not {word}"));
    }
}

#[test]
fn memory_is_what_its_options_say() {
    let Some(bench) = Bench::with_busybox() else { return };
    let options = |flag: &str, script: &str| {
        bench.rbuild(["run", "--rm", "--network=none", flag, "busybox", "sh", "-c", script]).run().ok().stdout
    };
    let mounted = "grep ' /t ' /proc/mounts | cut -d' ' -f4 | tr , '\\n' | grep -E '^(no(exec|suid|dev)|size=.*|uid=.*|nr_inodes=.*|r[ow])$' | xargs echo";
    for (flag, shown) in [
        ("--tmpfs=/t", "rw nosuid nodev noexec"),
        ("--tmpfs=/t:exec,size=64k", "rw nosuid nodev size=64k"),
        ("--tmpfs=/t:ro,suid,dev,uid=1000", "ro noexec uid=1000"),
        ("--tmpfs=/t:nr_inodes=100", "rw nosuid nodev noexec nr_inodes=100"),
        ("--mount=type=tmpfs,dst=/t,tmpfs-size=1m", "rw nosuid nodev noexec size=1024k"),
    ] {
        assert_eq!(options(flag, mounted), format!("{shown}\n"), "{flag}");
    }
    assert_eq!(options("--tmpfs=/t:exec", "cp /bin/busybox /t/echo && /t/echo it runs"), "it runs\n");
    let refused = bench.rbuild(["run", "--rm", "--network=none", "--tmpfs=/t:huge=always", "busybox", "true"]).run();
    let _ran = refused.fails(125).says("invalid value for tmpfs option huge: always");
}

#[test]
fn a_root_that_cannot_be_written_has_files_that_cannot() {
    let Some(bench) = Bench::with_busybox() else { return };
    let script = "for f in /etc/hosts /etc/hostname /etc/resolv.conf /new; do echo x 2>/dev/null > $f && echo $f; done; touch /dev/shm/x";
    let ran = bench.rbuild(["run", "--rm", "--network=none", "--read-only", "busybox", "sh", "-c", script]).run();
    assert_eq!(ran.ok().stdout, "");
}

#[test]
fn kernel_paths_are_bare_when_that_is_asked_for() {
    let Some(bench) = Bench::with_busybox() else { return };
    let script = "grep -c ' /proc/' /proc/mounts; grep -c ' /sys sysfs ro' /proc/mounts";
    let ran = bench.rbuild([
        "run",
        "--rm",
        "--network=none",
        "--security-opt=systempaths=unconfined",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(ran.run().ok().stdout, "0\n1\n");
}
