//! What the screen says to values and names that cannot be: every option of `run` and `build` that has a form of its own, and every
//! command that wants something which is not there. The words of errors are a promise: who changes them sees it here.

use crate::bench::Bench;
use crate::mistakes::said;

/// Types lines; gives what is said to each, and how it ends.
fn typed(bench: &Bench, lines: &[&str]) -> String {
    let answer = |line: &&str| {
        let ran = bench.rbuild(line.split(' ')).run();
        format!("$ rbuild {line}\n{}({})\n", said(bench, &ran), ran.code)
    };
    lines.iter().map(answer).collect()
}

fn bench() -> Option<Bench> {
    let bench = Bench::with_busybox()?;
    bench.context("app", [("Dockerfile", "FROM busybox\n")]);
    bench.context("plain", [("compose.yaml", "services: {}\n")]);
    Some(bench)
}

#[test]
fn of_the_options_of_run() {
    let Some(bench) = bench() else { return };
    let lines = [
        "run --cpus=-1 busybox",
        "run --cpus=1.2345 busybox",
        "run --restart=sometimes busybox",
        "run --restart=always:3 busybox",
        "run --restart=on-failure:x busybox",
        "run --health-interval=-1s --health-cmd=true busybox",
        "run --network=container: busybox",
        "run --network=container:nobody busybox",
        "run --ipc=container:nobody busybox",
        "run --name=a/b busybox",
        "run --security-opt=apparmor busybox",
        "run --security-opt=seccomp=nowhere.json busybox",
        "run --network=name=bridge,colour=red busybox",
        "run --network=bridge,alias busybox",
        "run --network=name=bridge,gw-priority=high busybox",
        "run --network=nowhere busybox",
        "run --volumes-from= busybox",
        "run --sysctl=net busybox",
        "run --device=vendor/class=one busybox",
        "run --device=/dev/nowhere busybox",
        "run --detach-keys=ctrl busybox",
        "run --memory-swap=1g busybox",
        "run --memory=1g --memory-swap=512m busybox",
        "run --cpuset-cpus=x busybox",
        "run --cpuset-mems=x busybox",
        "run --memory=64m --memory-reservation=128m busybox",
        "run --blkio-weight=5 busybox",
        "run --cpu-shares=1 busybox",
        "run --mac-address=xyz busybox",
        "run -p=99999:80 busybox",
        "run -p=1.2.3:80:80 busybox",
        "run -v=a:b:c:d busybox",
        "run --mount=type=bind,source=/x busybox",
        "run --mount=type=nothing,target=/x busybox",
        "run --tmpfs=relative busybox",
        "run --ulimit=nofile busybox",
        "run --add-host=nothing busybox",
        "run --gpus=all busybox",
        "run --stop-signal=SIGNOTHING busybox",
        "run --env-file=nowhere busybox",
        "run --log-driver=syslog busybox",
    ];
    insta::assert_snapshot!(typed(&bench, &lines), @r##"
    $ rbuild run --cpus=-1 busybox
    error: invalid value '-1' for '--cpus <NUMBER>': invalid number of CPUs: "-1": a positive decimal number with at most three decimals is wanted
    (125)
    $ rbuild run --cpus=1.2345 busybox
    error: invalid value '1.2345' for '--cpus <NUMBER>': invalid number of CPUs: "1.2345": a positive decimal number with at most three decimals is wanted
    (125)
    $ rbuild run --restart=sometimes busybox
    error: invalid value 'sometimes' for '--restart <POLICY>': invalid restart policy 'sometimes': it is no, always, unless-stopped or on-failure[:MAX]
    (125)
    $ rbuild run --restart=always:3 busybox
    error: invalid value 'always:3' for '--restart <POLICY>': maximum retry count cannot be used with restart policy 'always'
    (125)
    $ rbuild run --restart=on-failure:x busybox
    error: invalid value 'on-failure:x' for '--restart <POLICY>': maximum retry count must be a number: "x"
    (125)
    $ rbuild run --health-interval=-1s --health-cmd=true busybox
    error: --health-interval cannot be negative
    (125)
    $ rbuild run --network=container: busybox
    error: invalid value 'container:' for '--network <NETWORK>': invalid container format container:<name|id>
    (125)
    $ rbuild run --network=container:nobody busybox
    error: no such container: nobody
    (125)
    $ rbuild run --ipc=container:nobody busybox
    error: no such container: nobody
    (125)
    $ rbuild run --name=a/b busybox
    error: invalid value 'a/b' for '--name <NAME>': invalid container name (a/b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed
    (125)
    $ rbuild run --security-opt=apparmor busybox
    error: invalid --security-opt: "apparmor"
    (125)
    $ rbuild run --security-opt=seccomp=nowhere.json busybox
    error: --security-opt seccomp: cannot read DIR/nowhere.json: No such file or directory (os error 2)
    (125)
    $ rbuild run --network=name=bridge,colour=red busybox
    error: invalid value 'name=bridge,colour=red' for '--network <NETWORK>': --network "name=bridge,colour=red": colour is not supported: known are name, alias, ip, ip6, mac-address and gw-priority
    (125)
    $ rbuild run --network=bridge,alias busybox
    error: invalid value 'bridge,alias' for '--network <NETWORK>': invalid network name "bridge,alias": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed
    (125)
    $ rbuild run --network=name=bridge,gw-priority=high busybox
    error: invalid value 'name=bridge,gw-priority=high' for '--network <NETWORK>': invalid gw-priority "high"
    (125)
    $ rbuild run --network=nowhere busybox
    error: network nowhere not found
     = help: `rbuild network ls` lists them
    (125)
    $ rbuild run --volumes-from= busybox
    error: invalid value '' for '--volumes-from <CONTAINER>': volumes from specification cannot be an empty string
    (125)
    $ rbuild run --sysctl=net busybox
    error: invalid sysctl "net": NAME=VALUE is wanted
    (125)
    $ rbuild run --device=vendor/class=one busybox
    error: invalid value 'vendor/class=one' for '--device <DEVICE>': invalid device specification: vendor/class=one: devices are named by their paths, the Container Device Interface is not served
    (125)
    $ rbuild run --device=/dev/nowhere busybox
    error: error gathering device information while adding custom device "/dev/nowhere": No such file or directory (os error 2)
    (125)
    $ rbuild run --detach-keys=ctrl busybox
    error: invalid value 'ctrl' for '--detach-keys <KEYS>': invalid detach keys (ctrl): a comma-separated list of letters and ctrl-X, where X is a letter or one of @ [ \ ] ^ _
    (125)
    $ rbuild run --memory-swap=1g busybox
    error: --memory-swap needs --memory beside it
     = help: see the limits in --help
    (125)
    $ rbuild run --memory=1g --memory-swap=512m busybox
    error: --memory-swap counts memory and swap together and cannot be less than --memory
     = help: see the limits in --help
    (125)
    $ rbuild run --cpuset-cpus=x busybox
    error: invalid value x for cpuset cpus
     = help: see the limits in --help
    (125)
    $ rbuild run --cpuset-mems=x busybox
    error: invalid value x for cpuset mems
     = help: see the limits in --help
    (125)
    $ rbuild run --memory=64m --memory-reservation=128m busybox
    error: minimum memory limit can not be less than memory reservation limit, see usage
     = help: see the limits in --help
    (125)
    $ rbuild run --blkio-weight=5 busybox
    error: range of blkio weight is from 10 to 1000, not 5
     = help: see the limits in --help
    (125)
    $ rbuild run --cpu-shares=1 busybox
    error: --cpu-shares must be between 2 and 262144, not 1
     = help: see the limits in --help
    (125)
    $ rbuild run --mac-address=xyz busybox
    error: invalid value 'xyz' for '--mac-address <ADDRESS>': xyz is not a valid mac address
    (125)
    $ rbuild run -p=99999:80 busybox
    error: invalid value '99999:80' for '--publish <PORTS>': invalid port "99999" in "99999:80"
    (125)
    $ rbuild run -p=1.2.3:80:80 busybox
    error: invalid value '1.2.3:80:80' for '--publish <PORTS>': invalid IP address "1.2.3" in "1.2.3:80:80"
    (125)
    $ rbuild run -v=a:b:c:d busybox
    error: invalid volume specification: 'a:b:c:d'
     = help: write -v HOST-DIRECTORY-OR-VOLUME:CONTAINER-DIRECTORY[:ro]
    (125)
    $ rbuild run --mount=type=bind,source=/x busybox
    error: target is required
    (125)
    $ rbuild run --mount=type=nothing,target=/x busybox
    error: invalid value for type: nothing
    (125)
    $ rbuild run --tmpfs=relative busybox
    error: invalid mount path: 'relative': mount path must be absolute
     = help: the container's side begins with /: -v ./data:/data, or -v /data for a volume of its own
    (125)
    $ rbuild run --ulimit=nofile busybox
    error: invalid value 'nofile' for '--ulimit <NAME=SOFT[:HARD]>': invalid ulimit argument: "nofile": NAME=SOFT[:HARD] is wanted
    (125)
    $ rbuild run --add-host=nothing busybox
    error: invalid value 'nothing' for '--add-host <NAME:ADDRESS>': bad format for add-host: "nothing"
    (125)
    $ rbuild run --gpus=all busybox
    error: --gpus is not supported
     = help: use --device with the device files, and -v with the driver's libraries
    (125)
    $ rbuild run --stop-signal=SIGNOTHING busybox
    error: invalid value 'SIGNOTHING' for '--stop-signal <SIGNAL>': invalid signal: SIGNOTHING
    (125)
    $ rbuild run --env-file=nowhere busybox
    error: cannot read DIR/nowhere: No such file or directory (os error 2)
    (125)
    $ rbuild run --log-driver=syslog busybox
    error: --log-driver "syslog" is not supported: it is json-file or none
    (125)
    "##);
}

#[test]
fn of_networks_and_volumes() {
    let Some(bench) = bench() else { return };
    let lines = [
        "network create --subnet=10.0.0.0 n",
        "network create --opt=com.example=1 n",
        "network create --opt=com.docker.network.bridge.enable_icc=maybe n",
        "network create --driver=overlay n",
        "network create host",
        "network rm nowhere",
        "network connect nowhere nobody",
        "volume create a/b",
        "volume rm nowhere",
        "volume create --driver=nfs v",
    ];
    insta::assert_snapshot!(typed(&bench, &lines), @r##"
    $ rbuild network create --subnet=10.0.0.0 n
    error: invalid value '10.0.0.0' for '--subnet <SUBNET>': invalid subnet "10.0.0.0": it is an address, a slash and a length of its prefix, e.g. 10.5.0.0/16
    (125)
    $ rbuild network create --opt=com.example=1 n
    error: the driver option com.example is not supported: known are com.docker.network.bridge.name, com.docker.network.bridge.enable_icc, com.docker.network.bridge.enable_ip_masquerade, com.docker.network.bridge.host_binding_ipv4, com.docker.network.container_iface_prefix and com.docker.network.driver.mtu
    (1)
    $ rbuild network create --opt=com.docker.network.bridge.enable_icc=maybe n
    error: invalid value "maybe" of the driver option com.docker.network.bridge.enable_icc
    (1)
    $ rbuild network create --driver=overlay n
    error: --driver overlay is not supported
     = help: the driver is bridge; use `run --network host` or `none`
    (1)
    $ rbuild network create host
    error: operation is not permitted on predefined host network
    (1)
    $ rbuild network rm nowhere
    error: network nowhere not found
     = help: `rbuild network ls` lists them
    (1)
    $ rbuild network connect nowhere nobody
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild volume create a/b
    error: invalid value 'a/b' for '[VOLUME]': "a/b" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed; to mount a host directory give its absolute path or start it with ./
    (1)
    $ rbuild volume rm nowhere
    error: no such volume: nowhere
     = help: `rbuild volume ls` lists them
    (1)
    $ rbuild volume create --driver=nfs v
    error: invalid value 'nfs' for '--driver <DRIVER>'
      [possible values: local]
    (1)
    "##);
}

#[test]
fn of_containers_that_are_not_there() {
    let Some(bench) = bench() else { return };
    let lines = [
        "rename nobody somebody",
        "exec nobody true",
        "pause nobody",
        "unpause nobody",
        "kill nobody",
        "stop nobody",
        "start nobody",
        "wait nobody",
        "logs nobody",
        "attach nobody",
        "top nobody",
        "port nobody",
        "cp nobody:/x .",
        "cp . nowhere",
        "cp nobody:/a other:/b",
        "commit nobody",
        "export nobody",
        "update --restart=often nobody",
    ];
    insta::assert_snapshot!(typed(&bench, &lines), @r##"
    $ rbuild rename nobody somebody
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild exec nobody true
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild pause nobody
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild unpause nobody
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild kill nobody
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild stop nobody
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild start nobody
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild wait nobody
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild logs nobody
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild attach nobody
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild top nobody
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild port nobody
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild cp nobody:/x .
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild cp . nowhere
    error: must specify at least one container source
     = help: a container's path is CONTAINER:PATH
    (1)
    $ rbuild cp nobody:/a other:/b
    error: copying between containers is not supported
    (1)
    $ rbuild commit nobody
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild export nobody
    error: no such container: nobody
     = help: `rbuild ps -a` lists all containers, stopped ones too
    (1)
    $ rbuild update --restart=often nobody
    error: invalid value 'often' for '--restart <POLICY>': invalid restart policy 'often': it is no, always, unless-stopped or on-failure[:MAX]
    (1)
    "##);
}

#[test]
fn of_images_and_archives() {
    let Some(bench) = bench() else { return };
    let lines = [
        "inspect nothing",
        "history nothing",
        "tag nothing a",
        "tag busybox A",
        "rmi nothing",
        "save nothing -o x.tar",
        "load -i nowhere.tar",
        "load -i plain/compose.yaml",
        "import nowhere.tar x",
        "image copy store:busybox nothing:",
        "image diff busybox",
        "image diff busybox nothing",
        "manifest inspect a:b:c",
    ];
    insta::assert_snapshot!(typed(&bench, &lines), @r##"
    $ rbuild inspect nothing
    error: no such object: nothing
     = help: `rbuild ps -a`, `rbuild images`, `rbuild volume ls` and `rbuild network ls` list what there is
    (1)
    $ rbuild history nothing
    error: no such image: nothing
     = help: `rbuild images` lists what there is; `rbuild pull` fetches
    (1)
    $ rbuild tag nothing a
    error: no such image: nothing
     = help: `rbuild images` lists what there is; `rbuild pull` fetches
    (1)
    $ rbuild tag busybox A
    error: invalid value 'A' for '<TARGET>': invalid reference format: "A": repository name must be lowercase
     = help: write a
    (1)
    $ rbuild rmi nothing
    error: No such image: nothing:latest
     = help: `rbuild images` lists what there is
    (1)
    $ rbuild save nothing -o x.tar
    error: no such image: nothing
     = help: `rbuild images` lists what there is; `rbuild pull` fetches
    (1)
    $ rbuild load -i nowhere.tar
    error: cannot load DIR/nowhere.tar: No such file or directory (os error 2)
     = help: -i names an archive, as `rbuild save -o FILE IMAGE` writes one
    (1)
    $ rbuild load -i plain/compose.yaml
    error: cannot load DIR/plain/compose.yaml: not a readable image archive: the archive ends early, inside the entry at byte 0
    (1)
    $ rbuild import nowhere.tar x
    error: cannot open DIR/nowhere.tar: No such file or directory (os error 2)
    (1)
    $ rbuild image copy store:busybox nothing:
    error: invalid value 'nothing:' for '<DESTINATION>': "nothing:" names no place of an image: invalid reference format: "nothing:": a tag is at most 128 letters, digits, '_', '.', '-', and begins with none of '.', '-'
    (1)
    $ rbuild image diff busybox
    error: the following required arguments were not provided:
      <B>
    Usage: rbuild image diff <A> <B>
    (1)
    $ rbuild image diff busybox nothing
    error: no such image: nothing
     = help: `rbuild images` lists what there is; `rbuild pull` fetches
    (1)
    $ rbuild manifest inspect a:b:c
    error: invalid value 'a:b:c' for '<IMAGE>': invalid reference format: "a:b:c": names are lower-case letters and digits, joined by one '.', one or two '_', or '-'
     = help: a name has one tag, after its last colon: NAME:TAG
    (2)
    "##);
}

#[test]
fn of_caches_and_records() {
    let Some(bench) = bench() else { return };
    let lines = [
        "cache inspect zzzz",
        "cache why --build nothing",
        "cache mounts rm nothing",
        "cache prune --filter=colour=red",
        "history inspect nothing",
        "history logs nothing",
        "report nothing",
        "graph nowhere",
    ];
    insta::assert_snapshot!(typed(&bench, &lines), @r##"
    $ rbuild cache inspect zzzz
    error: no cached step is "zzzz"
     = help: see `rbuild cache ls`
    (1)
    $ rbuild cache why --build nothing
    error: unexpected argument '--build' found
      tip: to pass '--build' as a value, use '-- --build'
    Usage: rbuild cache why [OPTIONS] [[BUILD] STEP]...
    (2)
    $ rbuild cache mounts rm nothing
    error: there is no cache mount "nothing"
     = help: see `rbuild cache mounts ls`
    (1)
    $ rbuild cache prune --filter=colour=red
    error: --filter: unknown filter field "colour": there are id, parents, description, type, inuse, shared, private, mutable, immutable
     = help: e.g. --filter until=24h, --filter type=exec.cachemount, --filter 'description~=apt-get'
    (2)
    $ rbuild history inspect nothing
    error: no build is recorded as "nothing"
     = help: see `rbuild history ls`
    (1)
    $ rbuild history logs nothing
    error: no build is recorded as "nothing"
     = help: see `rbuild history ls`
    (1)
    $ rbuild report nothing
    error: no build is recorded as "nothing"
     = help: see `rbuild history ls`
    (1)
    $ rbuild graph nowhere
    error: no build is recorded as "nowhere"
     = help: see `rbuild history ls`
    (1)
    "##);
}

#[test]
fn of_values_of_a_build() {
    let Some(bench) = bench() else { return };
    let lines = [
        "build --annotate=circle app",
        "build --no-cache-step=x app",
        "build --cache-max-age=soon app",
        "build --cache-to=type=gha app",
        "build --cache-from=type=nothing app",
        "build --output=type=nothing app",
        "build --output=dest= app",
        "build --output=type=oci,compression=rar,dest=x app",
        "build --ssh=nothing=/nowhere app",
        "build --secret=id=x,src=nowhere app",
        "build --allow=everything app",
        "build --call=nothing app",
        "build --add-host=x app",
        "build --ulimit=x app",
        "build --shm-size=x app",
        "build --iidfile=nowhere/x app",
        "build --metadata-file=nowhere/x app",
        "build --network=nowhere app",
        "--root=plain/compose.yaml images",
        "--root=app images",
        "--snapshotter=zip images",
        "--isolation=vm images",
        "--log-level=loud images",
    ];
    insta::assert_snapshot!(typed(&bench, &lines), @r##"
    $ rbuild build --annotate=circle app
    error: invalid value 'circle' for '--annotate <FORGE>': "circle" is neither github nor gitlab[,dest=FILE]
    (2)
    $ rbuild build --no-cache-step=x app
    error: invalid value 'x' for '--no-cache-step <STEP>': "x" is neither a line of the Dockerfile nor STAGE:NUMBER
    (2)
    $ rbuild build --cache-max-age=soon app
    error: --cache-max-age: "soon" is not a duration, e.g. 24h or 7d
     = help: e.g. 12h or 7d
    (2)
    $ rbuild build --cache-to=type=gha app
    error: --cache-to "type=gha": type=gha is not supported; use registry, local and inline
     = help: e.g. --cache-to type=registry,ref=registry.example/app:cache,mode=max, or type=local,dest=DIR
    (2)
    $ rbuild build --cache-from=type=nothing app
    error: --cache-from "type=nothing": unknown type "nothing"; known are registry and local
     = help: e.g. --cache-from type=registry,ref=registry.example/app:cache, or type=local,src=DIR
    (2)
    $ rbuild build --output=type=nothing app
    error: --output "type=nothing": unknown type "nothing"; known are image, registry, oci, docker, tar, local and cacheonly
     = help: e.g. --output type=oci,dest=image.tar, or a directory
    (2)
    $ rbuild build --output=dest= app
    error: --output "dest=": type is missing
     = help: e.g. --output type=oci,dest=image.tar, or a directory
    (2)
    $ rbuild build --output=type=oci,compression=rar,dest=x app
    error: --output "type=oci,compression=rar,dest=x": compression=rar: want gzip, zstd or uncompressed
     = help: e.g. --output type=oci,dest=image.tar, or a directory
    (2)
    $ rbuild build --ssh=nothing=/nowhere app
    error: --ssh nothing=/nowhere: cannot use /nowhere: No such file or directory (os error 2)
    (1)
    $ rbuild build --secret=id=x,src=nowhere app
    error: --secret "id=x,src=nowhere": DIR/nowhere is not a readable file
     = help: name an existing file with src=, or a variable with env=
    (1)
    $ rbuild build --allow=everything app
    error: invalid value 'everything' for '--allow <ENTITLEMENT>'
      [possible values: network.host, security.insecure, buildx.local.delete]
    (2)
    $ rbuild build --call=nothing app
    error: --call=nothing: no such method
     = help: known are build, check, outline and targets
    (2)
    $ rbuild build --add-host=x app
    error: --add-host "x": not HOST:IP
     = help: e.g. --add-host db:10.0.0.7
    (2)
    $ rbuild build --ulimit=x app
    error: --ulimit: invalid ulimit argument: "x": NAME=SOFT[:HARD] is wanted
     = help: e.g. --ulimit nofile=1024:2048
    (2)
    $ rbuild build --shm-size=x app
    error: --shm-size: invalid size: "x": a number with an optional unit b, k, m, g, t or p is wanted
     = help: e.g. 64m or 1g
    (2)
    $ rbuild build --iidfile=nowhere/x app
    error: --iidfile nowhere/x: DIR/nowhere is no directory
     = help: make it first
    (2)
    $ rbuild build --metadata-file=nowhere/x app
    error: --metadata-file nowhere/x: DIR/nowhere is no directory
     = help: make it first
    (2)
    $ rbuild build --network=nowhere app
    error: invalid value 'nowhere' for '--network <NETWORK>'
      [possible values: default, none, host]
      tip: a similar value exists: 'none'
    (2)
    $ rbuild --root=plain/compose.yaml images
    error: cannot list DIR/plain/compose.yaml: Not a directory (os error 20)
    (1)
    $ rbuild --root=app images
    error: DIR/app is neither empty nor a store: choose another directory
    (1)
    $ rbuild --snapshotter=zip images
    error: invalid value 'zip' for '--snapshotter <KIND>'
      [possible values: auto, erofs, directory]
    (125)
    $ rbuild --isolation=vm images
    error: invalid value 'vm' for '--isolation <KIND>'
      [possible values: auto, root, rootless]
    (125)
    $ rbuild --log-level=loud images
    error: invalid value 'loud' for '--log-level <LEVEL>': error parsing level: expected one of "error", "warn", "info", "debug", "trace", or a number 1-5
    (125)
    "##);
}

#[test]
fn of_words_that_are_no_commands() {
    let Some(bench) = bench() else { return };
    let lines = ["prune", "ls", "bash", "doctor --json", "cache du --json"];
    insta::assert_snapshot!(typed(&bench, &lines), @r##"
    $ rbuild prune
    error: "prune" is neither a command nor a directory
     = help: `rbuild system prune` removes all that is not needed; `cache`, `image`, `container`, `volume` and `network` have a `prune` of their own
    (2)
    $ rbuild ls
    error: "ls" is neither a command nor a directory
     = help: `rbuild images` lists images, `rbuild ps` containers, `rbuild history ls` builds
    (2)
    $ rbuild bash
    error: "bash" is neither a command nor a directory
     = help: `rbuild run -it IMAGE sh` starts one in a new container, `rbuild exec -it CONTAINER sh` in one that runs
    (2)
    $ rbuild doctor --json
    error: --json is no option here
     = help: write --format json
    (2)
    $ rbuild cache du --json
    error: --json is no option here
     = help: write --format json
    (2)
    "##);
}
