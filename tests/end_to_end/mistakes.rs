//! What the screen says to somebody new who types what is nearly right: habits from Docker, words in the wrong order, names in
//! capitals, files that are elsewhere. Every answer says what was wrong and what to type.

use crate::bench::{Bench, Ran};

/// What is said, without what clap repeats under every error, and without what differs from run to run.
pub(crate) fn said(bench: &Bench, ran: &Ran) -> String {
    let dir = bench.path("").display().to_string();
    let repeated = |line: &&str| !line.is_empty() && !line.starts_with("For more information") && *line != " |";
    let text: Vec<&str> = ran.stderr.lines().filter(repeated).collect();
    assert_ne!(ran.code, 0, "{}", ran.stderr);
    format!("{}\n", text.join("\n").replace(dir.trim_end_matches('/'), "DIR"))
}

/// Types lines; gives what is said to each.
fn typed(bench: &Bench, lines: &[&str]) -> String {
    let answer = |line: &&str| {
        let ran = bench.rbuild(line.split(' ')).run();
        format!("$ rbuild {line}\n{}", said(bench, &ran))
    };
    lines.iter().map(answer).collect()
}

fn bench() -> Option<Bench> {
    let bench = Bench::with_busybox()?;
    bench.context("app", [("Dockerfile", "FROM busybox\n"), ("sub/Dockerfile.dev", "FROM busybox\n")]);
    bench.context("dir", [("Dockerfile/x", "")]);
    bench.context("plain", [("compose.yaml", "services: {}\n")]);
    Some(bench)
}

#[test]
fn of_the_command_line_of_a_build() {
    let Some(bench) = bench() else { return };
    insta::assert_snapshot!(typed(&bench, &[
        "build",
        "-t app",
        "build app -t",
        "build app app",
        "build -t .",
        "build --build-arg .",
        "build -f app",
        "build -f app/Dockerfile",
        "build -f Dockerfile.dev app/sub",
        "build app/Dockerfile",
        "build app/sub",
        "build dir",
        "build plain",
        "build nowhere",
        "build -f . app",
        "build -t App app",
        "build -t http://r.example/app app",
        "build -t a:b:c app",
        "build --tags x app",
        "build --platfrom linux/amd64 app",
        "build --platform amd64linux app",
        "build --target tets app",
        "build --progress=fancy app",
        "build --no-cache=yes app",
        "build --secret key app",
        "build --squash app",
        "build -o type=zip,dest=x app",
        "build --network mine app",
        "build --memory lots app",
    ]), @r##"
    $ rbuild build
    error: no build context was given
     = help: name a directory, e.g. `rbuild -t hello:0.1 .`
    $ rbuild -t app
    error: no build context was given
     = help: name a directory, e.g. `rbuild -t hello:0.1 .`
    $ rbuild build app -t
    error: a value is required for '--tag <NAME>' but none was supplied
    $ rbuild build app app
    error: a build has one context, and "app" is one too many
     = help: every option with a value stands before it: rbuild build -t NAME -f FILE DIR; a value with spaces is quoted
    $ rbuild build -t .
    error: invalid value '.' for '--tag <NAME>': invalid reference format: ".": names are lower-case letters and digits, joined by one '.', one or two '_', or '-'
     = help: --tag has taken the context as its value: rbuild -t NAME .
    $ rbuild build --build-arg .
    error: no build context was given: --build-arg has taken "." as its value
     = help: give --build-arg a value of its own: rbuild --build-arg VALUE .
    $ rbuild build -f app
    error: no build context was given: -f has taken "app" as its value
     = help: give -f a value of its own: rbuild -f VALUE app
    $ rbuild build -f app/Dockerfile
    error: no build context was given
     = help: name a directory, e.g. `rbuild -t hello:0.1 .`
    $ rbuild build -f Dockerfile.dev app/sub
    error: failed to read dockerfile: open Dockerfile.dev: no such file or directory
     = help: -f counts from the working directory: write -f DIR/app/sub/Dockerfile.dev
    $ rbuild build app/Dockerfile
    error: the build context DIR/app/Dockerfile is not a directory
     = help: name the directory with your files; -f names the Dockerfile
    $ rbuild build app/sub
    error: failed to read dockerfile: open Dockerfile: no such file or directory
     = help: DIR/app/sub has no Dockerfile, but Dockerfile.dev: name it with -f DIR/app/sub/Dockerfile.dev
    $ rbuild build dir
    error: cannot open DIR/dir/Dockerfile: Is a directory (os error 21)
     = help: rename that directory, or name the Dockerfile with -f
    $ rbuild build plain
    error: failed to read dockerfile: open Dockerfile: no such file or directory
     = help: DIR/plain has no Dockerfile; name another file with -f, or another directory
    $ rbuild build nowhere
    error: cannot read the build context DIR/nowhere: No such file or directory (os error 2)
     = help: name an existing directory, e.g. `rbuild -t hello:0.1 .`
    $ rbuild build -f . app
    error: failed to read dockerfile: . is a directory
     = help: -f names the Dockerfile itself; the directory with your files comes last: rbuild -f FILE DIR
    $ rbuild build -t App app
    error: invalid value 'App' for '--tag <NAME>': invalid reference format: "App": repository name must be lowercase
     = help: write app
    $ rbuild build -t http://r.example/app app
    error: invalid value 'http://r.example/app' for '--tag <NAME>': invalid reference format: "http://r.example/app": the registry is not a host name with an optional port
     = help: names of images have no scheme: write r.example/app
    $ rbuild build -t a:b:c app
    error: invalid value 'a:b:c' for '--tag <NAME>': invalid reference format: "a:b:c": names are lower-case letters and digits, joined by one '.', one or two '_', or '-'
     = help: a name has one tag, after its last colon: NAME:TAG
    $ rbuild build --tags x app
    error: unexpected argument '--tags' found
      tip: a similar argument exists: '--tag'
    Usage: rbuild build --tag <NAME> [CONTEXT]
    $ rbuild build --platfrom linux/amd64 app
    error: unexpected argument '--platfrom' found
      tip: a similar argument exists: '--platform'
    Usage: rbuild build --platform <PLATFORM> [CONTEXT]
    $ rbuild build --platform amd64linux app
    error: invalid value 'amd64linux' for '--platform <PLATFORM>': "amd64linux" is not a platform: want os/arch[/variant], e.g. linux/amd64 or linux/arm64/v8
    $ rbuild build --target tets app
    error: target stage "tets" could not be found
     = help: no stage of this Dockerfile has a name; give one with `FROM … AS NAME`
    $ rbuild build --progress=fancy app
    error: invalid value 'fancy' for '--progress <PROGRESS>'
      [possible values: auto, tty, plain, rawjson, quiet, none]
    $ rbuild build --no-cache=yes app
    error: --no-cache is a switch, and "yes" is no value of it
     = help: write --no-cache, or --no-cache=false to switch it off
    $ rbuild build --secret key app
    error: --secret "key": unexpected field "key"; known are id, src, env and type
     = help: e.g. --secret id=token,src=token.txt
    $ rbuild build --squash app
    error: --squash is not supported by `rbuild build`
     = help: copy the result into one layer with a last stage: FROM scratch, COPY --from=… / /
    $ rbuild build -o type=zip,dest=x app
    error: --output "type=zip,dest=x": unknown type "zip"; known are image, registry, oci, docker, tar, local and cacheonly
     = help: e.g. --output type=oci,dest=image.tar, or a directory
    $ rbuild build --network mine app
    error: invalid value 'mine' for '--network <NETWORK>'
      [possible values: default, none, host]
    $ rbuild build --memory lots app
    error: invalid value 'lots' for '--memory <BYTES>': invalid size: "lots": a number with an optional unit b, k, m, g, t or p is wanted
    "##);
}

#[test]
fn of_words_that_are_no_commands() {
    let Some(bench) = bench() else { return };
    insta::assert_snapshot!(typed(&bench, &[
        "biuld .",
        "rnu busybox",
        "compose up",
        "swarm init",
        "bake",
        "daemon",
        "help biuld",
        "cache why L99",
        "history inspect nope",
        "volume rm nope",
        "network rm nope",
        "network create",
        "login nope.invalid",
        "completion tcsh",
    ]), @r##"
    $ rbuild biuld .
    error: "biuld" is neither a command nor a directory
     = help: did you mean `rbuild build`?
    $ rbuild rnu busybox
    error: "rnu" is neither a command nor a directory
     = help: did you mean `rbuild run`?
    $ rbuild compose up
    error: "compose" is neither a command nor a directory
     = help: rbuild builds and runs single images: build each service's with `rbuild -t NAME DIR`, and give the names to `docker compose` or `podman-compose`
    $ rbuild swarm init
    error: "swarm" is neither a command nor a directory
     = help: there is no Swarm; `rbuild run` starts containers here
    $ rbuild bake
    error: "bake" is neither a command nor a directory
     = help: bake files are not read: build each target with `rbuild -t NAME --target STAGE DIR`
    $ rbuild daemon
    error: "daemon" is neither a command nor a directory
     = help: there is no daemon to choose or to start: every command does its work itself
    $ rbuild help biuld
    error: "biuld" is neither a command nor a directory
     = help: did you mean `rbuild build`?
    $ rbuild cache why L99
    error: there is no such build in the history
     = help: see `rbuild history ls`
    $ rbuild history inspect nope
    error: no build is recorded as "nope"
     = help: see `rbuild history ls`
    $ rbuild volume rm nope
    error: no such volume: nope
     = help: `rbuild volume ls` lists them
    $ rbuild network rm nope
    error: network nope not found
     = help: `rbuild network ls` lists them
    $ rbuild network create
    error: the following required arguments were not provided:
      <NETWORK>
    Usage: rbuild network create <NETWORK>
    $ rbuild login nope.invalid
    error: Username is missing, and there is no terminal to ask on
     = help: use -u NAME and --password-stdin
    $ rbuild completion tcsh
    error: invalid value 'tcsh' for '<SHELL>'
      [possible values: bash, elvish, fish, powershell, zsh]
      tip: a similar value exists: 'zsh'
    "##);
}

#[test]
fn of_containers_and_images() {
    let Some(bench) = bench() else { return };
    insta::assert_snapshot!(typed(&bench, &[
        "run",
        "run busybox nonsense",
        "run --rm busybox -it sh",
        "run -v ./data busybox",
        "run -v data busybox",
        "run -p 99999:80 busybox",
        "run --memory 1 busybox",
        "run --user nobody-here busybox",
        "run --network nope busybox",
        "run --rm --restart=always busybox",
        "run -it busybox",
        "run --gpus all busybox",
        "run Busybox",
        "logs",
        "logs nothing",
        "rm nothing",
        "stop nothing",
        "exec nothing sh",
        "exec nothing",
        "inspect nothing",
        "rmi nothing",
        "tag nothing x",
        "tag busybox BAD",
        "cp a b",
        "ps --filter foo=bar",
        "images --filter foo=bar",
        "images --format {{.ID",
        "load -i nowhere.tar",
        "load -i app/Dockerfile",
        "save nothing -o x.tar",
    ]), @r##"
    $ rbuild run
    error: the following required arguments were not provided:
      <IMAGE [COMMAND] [ARG]>...
    Usage: rbuild run <IMAGE [COMMAND] [ARG]>...
    $ rbuild run busybox nonsense
    error: nonsense: executable not found in the image
     = help: the first word behind the image is the program; flags of `run` stand before the image
    $ rbuild run --rm busybox -it sh
    error: -it: executable not found in the image
     = help: the first word behind the image is the program; flags of `run` stand before the image
    $ rbuild run -v ./data busybox
    error: invalid mount path: './data': mount path must be absolute
     = help: the container's side begins with /: -v ./data:/data, or -v /data for a volume of its own
    $ rbuild run -v data busybox
    error: invalid mount path: 'data': mount path must be absolute
     = help: the container's side begins with /: -v ./data:/data, or -v /data for a volume of its own
    $ rbuild run -p 99999:80 busybox
    error: invalid value '99999:80' for '--publish <PORTS>': invalid port "99999" in "99999:80"
    $ rbuild run --memory 1 busybox
    error: minimum memory limit allowed is 6MB
     = help: see the limits in --help
    $ rbuild run --user nobody-here busybox
    error: unable to find user nobody-here: no matching entries in passwd file
     = help: --user takes a name of the image's /etc/passwd, or a number
    $ rbuild run --network nope busybox
    error: network nope not found
     = help: `rbuild network ls` lists them
    $ rbuild run --rm --restart=always busybox
    error: conflicting options: --restart and --rm
    $ rbuild run -it busybox
    error: the input device is not a TTY
     = help: leave out -t when the input is a pipe
    $ rbuild run --gpus all busybox
    error: --gpus is not supported
     = help: use --device with the device files, and -v with the driver's libraries
    $ rbuild run Busybox
    error: invalid reference format: "Busybox": repository name must be lowercase
     = help: write busybox
    $ rbuild logs
    error: the following required arguments were not provided:
      <CONTAINER>
    Usage: rbuild logs <CONTAINER>
    $ rbuild logs nothing
    error: no such container: nothing
     = help: `rbuild ps -a` lists all containers, stopped ones too
    $ rbuild rm nothing
    error: no such container: nothing
     = help: `rbuild ps -a` lists all containers, stopped ones too
    $ rbuild stop nothing
    error: no such container: nothing
     = help: `rbuild ps -a` lists all containers, stopped ones too
    $ rbuild exec nothing sh
    error: no such container: nothing
     = help: `rbuild ps -a` lists all containers, stopped ones too
    $ rbuild exec nothing
    error: exec needs a container and a command
     = help: rbuild exec CONTAINER COMMAND [ARG...]
    $ rbuild inspect nothing
    error: no such object: nothing
     = help: `rbuild ps -a`, `rbuild images`, `rbuild volume ls` and `rbuild network ls` list what there is
    $ rbuild rmi nothing
    error: No such image: nothing:latest
     = help: `rbuild images` lists what there is
    $ rbuild tag nothing x
    error: no such image: nothing
     = help: `rbuild images` lists what there is; `rbuild pull` fetches
    $ rbuild tag busybox BAD
    error: invalid value 'BAD' for '<TARGET>': invalid reference format: "BAD": repository name must be lowercase
     = help: write bad
    $ rbuild cp a b
    error: must specify at least one container source
     = help: a container's path is CONTAINER:PATH
    $ rbuild ps --filter foo=bar
    error: invalid filter 'foo'
     = help: filters are ancestor, before, exited, expose, health, id, is-task, isolation, label, name, network, publish, since, status, volume
    $ rbuild images --filter foo=bar
    error: invalid filter 'foo'
     = help: filters are before, dangling, label, reference, since and until
    $ rbuild images --format {{.ID
    error: template parsing error: template: :1: unclosed action
    $ rbuild load -i nowhere.tar
    error: cannot load DIR/nowhere.tar: No such file or directory (os error 2)
     = help: -i names an archive, as `rbuild save -o FILE IMAGE` writes one
    $ rbuild load -i app/Dockerfile
    error: cannot load DIR/app/Dockerfile: not a readable image archive: the archive ends early, inside the entry at byte 0
    $ rbuild save nothing -o x.tar
    error: no such image: nothing
     = help: `rbuild images` lists what there is; `rbuild pull` fetches
    "##);
    // A container that runs is neither removed nor named twice; its image stays.
    let _started = bench.rbuild(["run", "-d", "--name=c1", "--network=none", "busybox", "sleep", "100"]).run().ok();
    let said = typed(&bench, &["rm c1", "run --name=c1 busybox", "exec c1", "rmi busybox", "volume rm c1"]);
    let id = bench.rbuild(["ps", "-q"]).run().ok().stdout.trim().to_owned();
    let image = bench.rbuild(["images", "-q", "busybox"]).run().ok().stdout.trim().to_owned();
    let _removed = bench.rbuild(["rm", "-f", "c1"]).run().ok();
    insta::assert_snapshot!(said.replace(&id, "CONTAINER").replace(&image, "IMAGE"), @r##"
    $ rbuild rm c1
    error: container CONTAINER (c1) is running: stop it first, or remove it with --force
    $ rbuild run --name=c1 busybox
    error: the container name "c1" is already in use by container CONTAINER: remove or rename it, or choose another name
    $ rbuild exec c1
    error: exec needs a container and a command
     = help: rbuild exec CONTAINER COMMAND [ARG...]
    $ rbuild rmi busybox
    error: conflict: unable to remove repository reference "busybox" (must force) - container CONTAINER is using its referenced image IMAGE
     = help: remove the container with `rbuild rm`, or use rmi -f
    $ rbuild volume rm c1
    error: no such volume: c1
     = help: `rbuild volume ls` lists them
    "##);
}

#[test]
fn switches_with_values_and_flags_given_twice_are_docker_s() {
    let Some(bench) = bench() else { return };
    let _built = bench
        .rbuild(["build", "-q", "--no-cache=false", "--rm=true", "--pull=0", "-t", "a", "-t", "b", "app"])
        .run()
        .ok();
    assert_eq!(bench.rbuild(["images", "-q", "a"]).run().ok().stdout.lines().count(), 1);
    let run = [
        "run",
        "--rm",
        "--rm=true",
        "-i=false",
        "--name=xx",
        "--name=yy",
        "--network=none",
        "busybox",
        "echo",
        "--rm=maybe",
    ];
    assert_eq!(bench.rbuild(run).run().ok().stdout, "--rm=maybe\n");
    let kept = bench.rbuild(["run", "--rm", "--rm=false", "--name=kept", "--network=none", "busybox", "true"]).run();
    let _kept = kept.ok();
    assert_eq!(bench.rbuild(["rm", "kept"]).run().ok().stdout, "kept\n");
    assert!(bench.rbuild(["help", "run"]).run().ok().stdout.contains("Usage: rbuild run"));
}
