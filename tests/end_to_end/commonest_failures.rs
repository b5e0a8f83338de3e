//! The commonest failures, each produced for real: what is said has the cause and one action, and is what the table in
//! `docs/troubleshooting.md` says of it, row by row.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::bench::{Bench, Ran};
use crate::peers::has;
use crate::registry::{Door, Registry};

/// A row of the page: what a message has of the cause, and of the action.
#[derive(Debug)]
struct Row {
    cause: String,
    action: String,
}

/// The rows of the page's table, by their names.
fn documented() -> BTreeMap<String, Row> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/troubleshooting.md")).unwrap();
    let (_, table) = page.split_once("| what happens | it says | and what to do |\n").expect("the page has the table");
    let mut rows = BTreeMap::new();
    for line in table.lines().skip(1).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", name, cause, action, ""] = cells.as_slice() else { panic!("three cells: {line}") };
        let row = Row { cause: (*cause).to_owned(), action: (*action).to_owned() };
        assert!(rows.insert((*name).to_owned(), row).is_none(), "{name} is there twice");
    }
    rows
}

/// Whether a text has the pieces between `…`, in their order; marks of code do not count.
fn reads(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.replace('`', ""), pattern.replace('`', ""));
    let mut rest = text.as_str();
    pattern.split('…').map(str::trim).all(|piece| match rest.find(piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

/// Holds what happened against the page.
struct Table {
    rows: BTreeMap<String, Row>,
    wrong: Vec<String>,
}

impl Table {
    fn new() -> Self {
        Self { rows: documented(), wrong: Vec::new() }
    }

    fn check(&mut self, name: &str, ran: &Ran) {
        assert_ne!(ran.code, 0, "{name}: it did not fail: {}", ran.stderr);
        let Some(row) = self.rows.remove(name) else {
            self.wrong.push(format!("{name}: not in the table, or twice:\n{}", ran.stderr));
            return;
        };
        // The action is what the message ends with: help, or the tip of a wrong command line.
        let action = ran.stderr.rsplit_once("= help: ").or_else(|| ran.stderr.rsplit_once("tip: "));
        let action = action.map(|(_, action)| action).unwrap_or_default();
        if !reads(&ran.stderr, &row.cause) || row.action.is_empty() || !reads(action, &row.action) {
            self.wrong.push(format!("{name}: {row:?} is not what is said:\n{}", ran.stderr));
        }
    }
}

/// Builds a Dockerfile that must fail.
fn build(bench: &Bench, dockerfile: &str, options: &[&str]) -> Ran {
    let context = bench.context("ctx", [("Dockerfile", dockerfile)]);
    bench.rbuild(["build", "--progress=plain"]).args(options).arg(context).run()
}

/// A context of typical files.
fn files(bench: &Bench) {
    let context = bench.context(
        "ctx",
        [
            (".dockerignore", "*.log\n"),
            ("build.log", "x"),
            ("package.json", "{}"),
            ("plain.sh", "#!/bin/sh\n"),
            ("windows.sh", "#!/bin/sh\r\n"),
        ],
    );
    // How a program for s390x begins: no test runs on one.
    let mut binary = b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x16".to_vec();
    binary.resize(200, 0);
    std::fs::write(context.join("other"), binary).unwrap();
    for (name, mode) in [("plain.sh", 0o644), ("windows.sh", 0o755), ("other", 0o755)] {
        std::fs::set_permissions(context.join(name), Permissions::from_mode(mode)).unwrap();
    }
}

/// A registry that answers everything with one status; gives its port.
fn refusing(status: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let _request: Vec<_> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            drop((&stream).write_all(head.as_bytes()));
        }
    });
    port
}

/// A small file system that is unmounted when the test ends, whatever happens.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "small"]).arg(at).status().unwrap();
        assert!(mounted.success());
        Self(at)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

fn steps(bench: &Bench, table: &mut Table) {
    for (name, dockerfile, options) in [
        ("a command is not there", "FROM busybox\nRUN frobnicate --now\n", &[][..]),
        ("a package manager of another distribution", "FROM busybox\nRUN apt-get update\n", &[]),
        ("sudo", "FROM busybox\nRUN sudo true\n", &[]),
        ("a file is not executable", "FROM busybox\nCOPY plain.sh /\nRUN /plain.sh\n", &[]),
        ("a script with Windows line ends", "FROM busybox\nCOPY windows.sh /\nRUN /windows.sh\n", &[]),
        ("a program for another machine", "FROM busybox\nCOPY other /\nRUN [\"/other\"]\n", &[]),
        ("another architecture is asked for", "FROM busybox\nRUN true\n", &["--platform=linux/s390x"]),
        ("the image has no shell", "FROM scratch\nRUN true\n", &[]),
        ("a list without double quotes", "FROM busybox\nRUN ['echo', 'hi']\n", &[]),
        ("memory runs out", "FROM busybox\nRUN dd if=/dev/zero of=/dev/null bs=200M count=1\n", &["--memory=20m"]),
        ("a step may not write", "FROM busybox\nUSER app\nRUN mkdir /x\n", &[]),
        ("a secret is not given", "FROM busybox\nRUN --mount=type=secret,id=key cat /run/secrets/key\n", &[]),
        ("a required secret", "FROM busybox\nRUN --mount=type=secret,id=key,required=true true\n", &[]),
        ("a name has no address, in a step", "FROM busybox\nRUN wget http://nowhere.invalid/\n", &[]),
        ("a step has no network", "FROM busybox\nRUN wget http://nowhere.invalid/\n", &["--network=none"]),
    ] {
        table.check(name, &build(bench, dockerfile, options));
    }
}

fn texts(bench: &Bench, table: &mut Table) {
    for (name, dockerfile) in [
        ("a file is ignored", "FROM busybox\nCOPY build.log /\n"),
        ("a file is misspelt", "FROM busybox\nCOPY pakage.json /\n"),
        ("a file lies outside of the context", "FROM busybox\nCOPY ../x /\n"),
        ("an absolute path in COPY", "FROM busybox\nCOPY /etc/passwd /\n"),
        ("a base in capitals", "FROM Busybox\n"),
        ("a base or stage is misspelt", "FROM busybox AS tools\nFROM busybox\nCOPY --from=tolls /bin/sh /x\n"),
        ("an instruction is misspelt", "FROM busybox\nCOPPY a b\n"),
    ] {
        table.check(name, &build(bench, dockerfile, &[]));
    }
    let context = bench.context("utf16", []);
    std::fs::write(context.join("Dockerfile"), b"\xff\xfeF\0R\0O\0M\0").unwrap();
    table.check("a Dockerfile in UTF-16", &bench.rbuild(["build"]).arg(&context).run());
    let context = bench.context("named", [("Dockerfile.dev", "FROM busybox\n")]);
    table.check("the Dockerfile has another name", &bench.rbuild(["build"]).arg(&context).run());
    table.check("a flag is misspelt", &bench.rbuild(["build", "--platfrom", "linux/amd64", "."]).run());
    table.check("the context is forgotten", &bench.rbuild(["build", "-t", "app"]).run());
}

fn places(bench: &Bench, table: &mut Table) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("127.0.0.1:{}:80", taken.local_addr().unwrap().port());
    let ran = bench.rbuild(["run", "--rm", "--network=bridge", "-p", &port, "busybox", "true"]).run();
    table.check("a port is taken", &ran);
    let small = bench.path("small");
    let _small = Small::mount(&small);
    let store = small.join("store");
    let import = bench.rbuild_at(&store, ["import", "-c", "ENV PATH=/bin"]).arg(bench.path("busybox.tar"));
    let _imported = import.arg("busybox").run().ok();
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\nRUN dd if=/dev/zero of=/x bs=1M count=40\n")]);
    table.check("the disk is full", &bench.rbuild_at(&store, ["build", "--network=none"]).arg(&context).run());
    std::fs::write(context.join("large"), vec![1; 40 << 20]).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM busybox\nCOPY large /\n").unwrap();
    table.check("the disk is full, in COPY", &bench.rbuild_at(&store, ["build"]).arg(&context).run());
}

fn registries(bench: &Bench, table: &mut Table) {
    // Some of them are asked again for a while, so all are asked at once.
    let refusals = [
        ("401 from a registry", "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\""),
        ("403 from a registry", "403 Forbidden"),
        ("404 from a registry", "404 Not Found"),
        ("429 from a registry", "429 Too Many Requests"),
        ("a registry is broken", "503 Service Unavailable"),
    ];
    let ask = |number: usize, host: &str| {
        let dockerfile = format!("FROM {host}/team/app:1\n");
        let context = bench.context(&format!("asks-{number}"), [("Dockerfile", dockerfile.as_str())]);
        bench.rbuild(["build", "--progress=plain"]).arg(context).run()
    };
    let answers: Vec<(&str, Ran)> = std::thread::scope(|scope| {
        let asked: Vec<_> = refusals
            .iter()
            .enumerate()
            .map(|(number, (name, status))| {
                (*name, scope.spawn(move || ask(number, &format!("127.0.0.1:{}", refusing(status)))))
            })
            .collect();
        asked.into_iter().map(|(name, answer)| (name, answer.join().unwrap())).collect()
    });
    for (name, ran) in &answers {
        table.check(name, ran);
    }
    table.check("nothing listens", &ask(10, "127.0.0.1:1"));
    table.check("a name has no address", &ask(11, "registry.invalid"));
    if has("docker-registry") && has("openssl") && has("htpasswd") {
        let guarded = Registry::start_with(&bench.path("guarded"), Door::Guarded);
        table.check("a certificate of an unknown authority", &ask(12, guarded.name("").trim_end_matches('/')));
    } else {
        table.rows.remove("a certificate of an unknown authority");
    }
}

#[test]
fn each_says_its_cause_and_one_action_as_the_page_has_it() {
    let Some(bench) = Bench::with_busybox() else { return };
    files(&bench);
    let mut table = Table::new();
    steps(&bench, &mut table);
    texts(&bench, &mut table);
    places(&bench, &mut table);
    registries(&bench, &mut table);
    let missing: Vec<_> = table.rows.keys().map(|name| format!("{name}: in the table, and never produced")).collect();
    let wrong: Vec<_> = table.wrong.into_iter().chain(missing).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
