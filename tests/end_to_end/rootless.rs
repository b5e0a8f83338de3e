//! rbuild as an ordinary user: a real unprivileged process, with subordinate ids and without.
//!
//! The user exists in a private mount namespace only: there, files of the test's own stand in for `/etc/passwd`, `/etc/subuid`
//! and `/etc/subgid`, so nothing of the host is changed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bench::{Bench, Ran};
use crate::networks::Host;
use crate::overlays::kinds;

/// An id that nobody has.
const USER: u32 = 61_234;
/// Its first subordinate id.
const SUBORDINATE: u32 = 2_000_000_000;

/// Device files below its home, by name and numbers.
const DEVICES: [(&str, [&str; 2]); 2] = [("fuse", ["10", "229"]), ("tun", ["10", "200"])];

/// An ordinary user with a store of its own.
struct Person<'a> {
    bench: &'a Bench,
    home: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subordinates {
    Many,
    None,
}

impl<'a> Person<'a> {
    fn new(bench: &'a Bench, subordinates: Subordinates) -> Self {
        let home = bench.path("person");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(bench.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        let ids = match subordinates {
            Subordinates::Many => format!("person:{SUBORDINATE}:65536\n"),
            Subordinates::None => String::new(),
        };
        let passwd = format!("root:x:0:0::/root:/bin/sh\nperson:x:{USER}:{USER}::/:/bin/sh\n");
        for (name, text) in [("passwd", &passwd), ("subuid", &ids), ("subgid", &ids)] {
            fs::write(home.join(name), text).unwrap();
        }
        // The build directory may be one that others cannot enter.
        fs::copy(env!("CARGO_BIN_EXE_rbuild"), home.join("rbuild")).unwrap();
        // This user's own device files, which hosts give to everybody; some have them for root only.
        for (name, numbers) in DEVICES {
            let node = home.join(name);
            let made = Command::new("mknod").args(["-m", "666"]).arg(&node).arg("c").args(numbers).status().unwrap();
            assert!(made.success());
        }
        chown(&home, Some(USER), Some(USER)).unwrap();
        Self { bench, home }
    }

    fn store(&self) -> PathBuf {
        self.home.join("store")
    }

    fn command(&self, args: &[&str]) -> Command {
        const SCRIPT: &str = "set -e; home=$1; shift; for f in passwd subuid subgid; do mount --bind $home/$f /etc/$f; done; \
            for d in fuse net/tun; do [ ! -e /dev/$d ] || mount --bind $home/${d#net/} /dev/$d; done; \
            exec setpriv --reuid 61234 --regid 61234 --clear-groups -- \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", SCRIPT, "sh"]).arg(&self.home);
        command.arg(self.home.join("rbuild")).arg("--root").arg(self.store()).args(args);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &self.home);
        command.current_dir(&self.home).stdin(Stdio::null());
        command
    }

    fn rbuild(&self, args: &[&str]) -> Ran {
        Ran::new(self.command(args).output().unwrap())
    }

    /// Imports the bench's busybox, and builds a Dockerfile on it.
    fn build(&self, tag: &str, dockerfile: &str) -> Ran {
        let context = self.bench.context("context", [("Dockerfile", dockerfile), ("f", "content\n")]);
        self.rbuild(&["build", "--progress=plain", "--network=none", "-t", tag, context.to_str().unwrap()])
    }

    fn with_busybox(self) -> Self {
        let tar = self.bench.busybox_tar();
        let _ran = self
            .rbuild(&["import", "-c", "ENV PATH=/bin", "-c", "CMD [\"sh\"]", tar.to_str().unwrap(), "busybox"])
            .ok();
        self
    }
}

const DOCKERFILE: &str = "\
FROM busybox
RUN id -u && cat /proc/self/uid_map && mkdir -p /d/old && echo 1 > /d/old/f && chown 1000:50 /d/old/f && chmod 4755 /d/old/f
USER app
RUN id && echo mine > /tmp/mine
USER 0
RUN rm -r /d/old && mkdir /d/old && echo 2 > /d/old/g && rm /tmp/mine
COPY --chown=app:staff --chmod=0640 f /copied
RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/t --mount=type=bind,target=/b,rw \\
    echo x > /cache/x && echo x > /b/x && mknod /fifo p && ! mknod /null c 1 3
CMD [\"ls\", \"-ln\", \"/copied\"]
";

#[test]
fn an_ordinary_user_builds_and_runs_with_all_owners() {
    let Some(bench) = Bench::new() else { return };
    let person = Person::new(&bench, Subordinates::Many).with_busybox();
    let built = person.build("rootless:1", DOCKERFILE).ok();
    assert!(
        built.stderr.contains(&format!("1 {SUBORDINATE}")) || built.stderr.contains("2000000000"),
        "{}",
        built.stderr
    );
    assert!(built.stderr.contains("uid=1000(app) gid=1000(app) groups=50(staff),1000(app)"), "{}", built.stderr);
    let listed = person.rbuild(&["run", "--rm", "--network=none", "rootless:1"]).ok().stdout;
    assert!(listed.starts_with("-rw-r-----") && listed.contains(" 1000 ") && listed.contains(" 50 "), "{listed}");
    let seen = "ls /d/old /tmp; stat -c '%F %u:%g' /fifo; cat /proc/self/status | grep -E 'Cap(Eff|Bnd|Inh)'";
    let seen = person.rbuild(&["run", "--rm", "--network=none", "rootless:1", "sh", "-c", seen]).ok().stdout;
    assert_eq!(
        seen,
        "/d/old:\ng\n\n/tmp:\nfifo 0:0\nCapInh:\t0000000000000000\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n"
    );
    // What leaves has the ids of the image, not those of the host: root reads the same.
    let archive = person.home.join("image.tar");
    let _ran = person.rbuild(&["save", "-o", archive.to_str().unwrap(), "rootless:1"]).ok();
    let _ran = bench.rbuild(["load", "-i"]).arg(&archive).run().ok();
    let owners = bench.shell("rootless:1", "stat -c '%u:%g %a' /copied /etc/passwd; ls /d/old");
    assert_eq!(owners, "1000:50 640\n0:0 644\ng\n");
}

#[test]
fn an_ordinary_users_steps_reach_the_world_and_not_the_host() {
    let Some(bench) = Bench::new() else { return };
    let installed = |program: &str| Path::new("/usr/bin").join(program).exists();
    if !Path::new("/dev/net/tun").exists() || !(installed("slirp4netns") || installed("pasta")) {
        eprintln!("SKIPPED: needs /dev/net/tun, and slirp4netns or pasta");
        return;
    }
    let person = Person::new(&bench, Subordinates::Many).with_busybox();
    let host = Host::new();
    let before = host.census();
    let on_host = |args: &[&str]| {
        let mut command = person.command(args);
        Ran::new(host.namespace.enter(|| command.output().unwrap()).unwrap())
    };
    let listen = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let private = host.namespace.enter(listen).unwrap();
    let port = private.local_addr().unwrap().port();
    // The host's loopback, by its own name and by those under which user-mode stacks may offer it.
    let reach = format!(
        "nc 203.0.113.1 80 </dev/null; for a in 127.0.0.1 10.0.2.2 10.0.2.3 203.0.113.1; do \
         nc -w 1 $a {port} </dev/null 2>/dev/null && echo reached; done | tr a-z A-Z; ls /sys/class/net | tr '\\n' ' '"
    );
    let file = format!("FROM busybox\nRUN {reach}\n");
    let context = bench.context("context", [("Dockerfile", file.as_str())]);
    let built = on_host(&["build", "--progress=plain", context.to_str().unwrap()]).ok();
    let said: String = built.stderr.lines().filter(|line| !line.contains("RUN")).collect::<Vec<_>>().join("\n");
    assert!(said.contains("you are 203.0.113.2") && !said.contains("REACHED"), "{said}");
    let ran = on_host(&["run", "--rm", "busybox", "sh", "-c", &reach]).ok();
    assert!(ran.stdout.contains("you are 203.0.113.2") && !ran.stdout.contains("REACHED"), "{}", ran.stdout);
    assert!(ran.stdout.contains("eth0"), "{}", ran.stdout);
    host.becomes(&before);
    drop(private);
}

#[test]
fn an_ordinary_users_ports_are_served_without_a_tun_device() {
    let Some(bench) = Bench::new() else { return };
    let person = Person::new(&bench, Subordinates::Many).with_busybox();
    let tun = person.home.join("tun");
    fs::remove_file(&tun).unwrap();
    fs::write(&tun, "").unwrap();
    fs::set_permissions(&tun, fs::Permissions::from_mode(0o000)).unwrap();
    let host = Host::new();
    let on_host = |args: &[&str]| {
        let mut command = person.command(args);
        Ran::new(host.namespace.enter(|| command.output().unwrap()).unwrap())
    };
    let refused = on_host(&["run", "--rm", "busybox", "true"]).fails(125);
    let sentence = refused.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(sentence.contains("/dev/net/tun") || sentence.contains("slirp4netns is installed"), "{sentence}");
    let serve = "busybox nc -ll -p 80 -e echo from inside";
    let started = on_host(&["run", "-d", "--name=web", "-p", "8080:80", "busybox", "sh", "-c", serve]).ok();
    let _said = started.says("the container's ports are served, and nothing leads out of it");
    // It listens a moment after it was started.
    let call = "for i in $(seq 100); do said=$(nc -w 5 127.0.0.1 8080 < /dev/null); [ -z \"$said\" ] || break; sleep 0.1; done; echo $said";
    let answer = on_host(&["run", "--rm", "--network=host", "busybox", "sh", "-c", call]).ok().stdout;
    assert_eq!(answer, "from inside\n");
    assert_eq!(on_host(&["port", "web"]).ok().stdout, "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n");
    let seen = on_host(&["exec", "web", "ls", "/sys/class/net"]).ok().stdout;
    assert_eq!(seen, "lo\n");
    let _gone = on_host(&["rm", "-f", "web"]).ok();
}

#[test]
fn an_ordinary_user_needs_no_overlayfs() {
    let Some(bench) = Bench::new() else { return };
    let person = Person::new(&bench, Subordinates::Many).with_busybox();
    let context = bench.context("context", [("Dockerfile", DOCKERFILE), ("f", "content\n")]);
    let context = context.to_str().unwrap();
    let mut seen = Vec::new();
    for kind in kinds() {
        let overlay = format!("--overlay={kind}");
        let args = [&overlay, "build", "--no-cache", "--progress=plain", "--network=none", "-t", kind, context];
        let _built = person.rbuild(&args).ok();
        let look = "find / -xdev | grep -vE '^/(proc|sys|dev)' | sort | xargs stat -c '%n %F %a %u:%g %s' && cat /d/old/g /copied";
        let ran = person.rbuild(&[&overlay, "run", "--rm", "--network=none", kind, "sh", "-c", look]).ok();
        seen.push((kind, ran.stdout));
    }
    assert!(
        seen.iter().all(|(_, text)| *text == seen[0].1 && text.contains("/copied regular file 640 1000:50 8")),
        "{seen:#?}"
    );
}

#[test]
fn with_a_single_id_what_can_work_works_and_it_says_so() {
    let Some(bench) = Bench::new() else { return };
    let person = Person::new(&bench, Subordinates::None).with_busybox();
    let ran = person.build("single:1", "FROM busybox\nRUN id && echo 1 > /x\nCOPY --chown=1000 f /f\n").ok();
    let _ran = ran.says("only one user id").says("uid=0(root)");
    let listed = person.rbuild(&["run", "--rm", "--network=none", "single:1", "ls", "-n", "/f"]).ok().stdout;
    assert!(listed.contains(" 0 "), "{listed}");
    let _ran = person.build("single:2", "FROM busybox\nRUN chown 1000 /etc/passwd\n").fails(1);
    let _ran = person
        .build("single:3", "FROM busybox\nUSER app\nRUN true\n")
        .fails(1)
        .says("user 1000 is not among the ids that this user may use");
}

#[test]
fn what_an_ordinary_user_may_not_do_is_said() {
    let Some(bench) = Bench::new() else { return };
    let person = Person::new(&bench, Subordinates::Many).with_busybox();
    let delegated = person.rbuild(&["run", "--rm", "--network=none", "--memory=64m", "busybox", "true"]);
    let _ran = delegated.fails(125).says("Delegate=yes");
    let _ran = person.rbuild(&["--isolation=root", "images"]).fails(1).says("--isolation root needs root");
    // Neither of the two uses the other's store.
    let other = bench.rbuild_at(&person.store(), ["images"]).run();
    assert_ne!(other.code, 0, "root used an ordinary user's store");
    fs::create_dir(bench.store()).unwrap();
    let _ran = bench.rbuild(["images"]).run().ok();
    let denied = Ran::new(
        Command::new("setpriv")
            .args(["--reuid", "61234", "--regid", "61234", "--clear-groups", "--"])
            .arg(person.home.join("rbuild"))
            .arg("--root")
            .arg(bench.store())
            .arg("images")
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .output()
            .unwrap(),
    );
    assert_ne!(denied.code, 0, "an ordinary user used root's store");
}

#[test]
fn doctor_tells_both_kinds_of_users_what_they_have() {
    let Some(bench) = Bench::new() else { return };
    let person = Person::new(&bench, Subordinates::Many);
    let check = |text: &str, name: &str| -> serde_json::Value {
        let all: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(all["version"], 1);
        all["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap().clone()
    };
    let text = person.rbuild(&["doctor", "--format=json"]).ok().stdout;
    assert_eq!(check(&text, "sandbox")["state"], "works", "{text}");
    assert_eq!(check(&text, "ids")["found"], format!("65537 ids; root in steps is user {USER} outside"));
    let text = bench.rbuild(["doctor", "--format=json"]).run().ok().stdout;
    assert_eq!(check(&text, "ids")["found"], "root, with every id");
    assert_eq!(check(&text, "sandbox")["state"], "works", "{text}");
    let broken = bench.rbuild_at(Path::new("/proc/no-such-place"), ["doctor"]).run().fails(1);
    assert!(broken.stdout.contains("BROKEN     sandbox"), "{}", broken.stdout);
}

#[test]
fn an_ordinary_users_killed_build_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    let person = Person::new(&bench, Subordinates::Many).with_busybox();
    let context = bench.context("slow", [("Dockerfile", "FROM busybox\nRUN echo started; sleep 600\n")]);
    let mut command = person.command(&["build", "--progress=plain", "--network=none", context.to_str().unwrap()]);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut story = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("started\n") || line.contains("RUN") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut story, &mut line).unwrap(), 0, "the build ended");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // The census of the bench finds processes and mounts; the next call removes what is in the store.
    let _ran = person.rbuild(&["images"]).ok();
    assert_eq!(fs::read_dir(person.store().join("leases")).unwrap().count(), 0);
}

#[test]
fn an_ordinary_user_enters_a_container_of_its_own() {
    for subordinates in [Subordinates::Many, Subordinates::None] {
        let Some(bench) = Bench::new() else { return };
        let person = Person::new(&bench, subordinates).with_busybox();
        let script = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done";
        let mut command =
            person.command(&["run", "--rm", "--name=web", "--network=none", "busybox", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        assert_eq!(line, "up\n");
        let seen = "id -u; grep -E 'Cap(Eff|Inh)|Seccomp:' /proc/self/status; readlink /proc/self/ns/user; \
                    readlink /proc/1/ns/user; cat /proc/1/cmdline | head -c 2";
        let seen = person.rbuild(&["exec", "web", "sh", "-c", seen]).ok().stdout;
        let lines: Vec<&str> = seen.lines().collect();
        assert_eq!(
            lines[..4],
            ["0", "CapInh:\t0000000000000000", "CapEff:\t00000000a80425fb", "Seccomp:\t2"],
            "{seen}"
        );
        assert_eq!(lines[4], lines[5]);
        if subordinates == Subordinates::Many {
            let user = person.rbuild(&["exec", "-u", "app", "web", "id"]).ok().stdout;
            assert!(user.starts_with("uid=1000(app) gid=1000(app)"), "{user}");
        }
        assert_eq!(person.rbuild(&["exec", "web", "no-such-program"]).code, 127);
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
        let _ran = person.rbuild(&["exec", "web", "true"]).fails(1);
    }
}
