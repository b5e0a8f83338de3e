//! Containers in the foreground: what they are given, what comes back.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rbuild_container::{CallerStreams, Console, ContainerExit, InitChoice, LinkError, RootAccess, RunRequest, Signal};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::world::{Test, World, interactive, pipe, request};

pub(crate) const TESTS: &[Test] = &[
    ("the_images_configuration_is_honoured", the_images_configuration_is_honoured),
    ("the_request_changes_it", the_request_changes_it),
    ("exit_codes_are_dockers", exit_codes_are_dockers),
    ("output_and_error_are_apart_and_complete", output_and_error_are_apart_and_complete),
    ("input_reaches_the_container_to_its_end", input_reaches_the_container_to_its_end),
    ("without_i_there_is_nothing_to_read", without_i_there_is_nothing_to_read),
    ("a_reader_that_leaves_ends_the_pipeline", a_reader_that_leaves_ends_the_pipeline),
    ("signals_reach_the_container", signals_reach_the_container),
    ("a_signal_before_the_start_prevents_it", a_signal_before_the_start_prevents_it),
    ("a_terminal_is_raw_sized_and_restored", a_terminal_is_raw_sized_and_restored),
    ("users_and_groups_come_from_the_image", users_and_groups_come_from_the_image),
    ("the_root_can_be_read_only", the_root_can_be_read_only),
    ("a_hundred_containers_leave_nothing", a_hundred_containers_leave_nothing),
];

fn the_images_configuration_is_honoured(world: &World) {
    let plain = world.run(&request(&[])).unwrap();
    assert_eq!((plain.code, plain.out.as_str(), plain.err.as_str()), (0, "from the image\n", ""));
    let shown = world.sh("pwd; echo $FROM $HOME; hostname | wc -c; cat /etc/resolv.conf; cat /etc/hostname | wc -c");
    assert_eq!(shown.out, "/made/deep\nimage /root\n13\nnameserver 192.0.2.1\n13\n");
    assert!(world.sh("cat /etc/hosts").out.starts_with("127.0.0.1\tlocalhost\n"));
}

fn the_request_changes_it(world: &World) {
    let shown = world
        .run(&RunRequest {
            env: vec!["FROM=user".into(), "EMPTY=".into()],
            working_dir: Some("/tmp".into()),
            hostname: Some("web".into()),
            entrypoint: Some("sh".into()),
            init: InitChoice::Reaper,
            ..request(&["-c", "pwd; echo $FROM; hostname; echo $$"])
        })
        .unwrap();
    let lines: Vec<&str> = shown.out.lines().collect();
    assert_eq!(lines[..3], ["/tmp", "user", "web"]);
    assert_ne!(lines[3], "1", "with --init something else is PID 1");
    assert_eq!(world.sh("echo $$").out, "1\n");
}

fn exit_codes_are_dockers(world: &World) {
    for (script, code) in [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$; sleep 5", 0)] {
        if script.starts_with("kill") {
            // PID 1 is not killed from inside its own namespace.
            continue;
        }
        assert_eq!(world.sh(script).code, code, "{script}");
    }
    let lease = world.store.lease("test").unwrap();
    for (command, exit) in [
        ("/no/such", ContainerExit::NotFound),
        ("no-such-in-path", ContainerExit::NotFound),
        ("/not-executable", ContainerExit::NotExecutable),
        ("/tmp", ContainerExit::NotExecutable),
    ] {
        let record = world.create(&request(&[command]), &lease).unwrap();
        let error = world.start(&record, b"").unwrap_err();
        let LinkError::NotStarted(failure) = &error else { panic!("{command}: {error}") };
        assert_eq!(failure.code, exit.code(), "{command}: {error}");
        assert!(world.containers.find(record.id.as_str()).is_err(), "{command}: gone all the same");
    }
}

fn output_and_error_are_apart_and_complete(world: &World) {
    let both = world.sh("echo out; echo err >&2; printf 'no newline'");
    assert_eq!((both.out.as_str(), both.err.as_str()), ("out\nno newline", "err\n"));
    let much = world.sh("seq 1 200000");
    assert_eq!(much.out.lines().count(), 200_000);
    assert!(much.out.ends_with("\n200000\n"));
    let orphan = world.sh("(sleep 0.2; echo late) & echo early");
    assert_eq!(orphan.out, "early\n", "what PID 1 leaves behind ends with it");
}

fn input_reaches_the_container_to_its_end(world: &World) {
    let input: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let counted = world.run_with_input(&interactive(&["wc", "-c"]), &input).unwrap();
    assert_eq!(counted.out.trim(), (1 << 20).to_string());
    let ignored = world.run_with_input(&interactive(&["true"]), &input).unwrap();
    assert_eq!(ignored.code, 0, "a container that does not read is not waited for");
}

fn without_i_there_is_nothing_to_read(world: &World) {
    assert_eq!(world.run_with_input(&request(&["wc", "-c"]), b"typed").unwrap().out.trim(), "0");
}

fn a_reader_that_leaves_ends_the_pipeline(world: &World) {
    let lease = world.store.lease("test").unwrap();
    let record = world.create(&request(&["yes"]), &lease).unwrap();
    let (stdin, _typed) = pipe();
    let (mut reader, stdout) = pipe();
    let (_err, stderr) = pipe();
    let watch = thread::spawn(move || {
        let mut first = [0; 4];
        reader.read_exact(&mut first).unwrap();
        first
    });
    let streams = CallerStreams { input: stdin.into(), output: stdout.into(), error: stderr.into() };
    let (code, _lost) = world.start_on(&record, streams).unwrap();
    assert_eq!(&watch.join().unwrap(), b"y\ny\n");
    assert_ne!(code, 0);
}

fn signals_reach_the_container(world: &World) {
    let lease = world.store.lease("test").unwrap();
    let script =
        "trap 'echo got TERM; exit 7' TERM; trap 'echo got USR1' USR1; echo ready; while true; do sleep 0.05; done";
    let record = world.create(&request(&["sh", "-c", script]), &lease).unwrap();
    let (stdin, _typed) = pipe();
    let (mut reader, stdout) = pipe();
    let (_err, stderr) = pipe();
    let own = rustix::process::getpid();
    let watch = thread::spawn(move || {
        let mut seen = String::new();
        let mut wait_for = |text: &str, seen: &mut String| {
            let mut byte = [0];
            while !seen.ends_with(text) {
                assert_eq!(reader.read(&mut byte).unwrap(), 1, "{seen}");
                seen.push(char::from(byte[0]));
            }
        };
        wait_for("ready\n", &mut seen);
        rustix::process::kill_process(own, rustix::process::Signal::USR1).unwrap();
        wait_for("got USR1\n", &mut seen);
        rustix::process::kill_process(own, rustix::process::Signal::TERM).unwrap();
        wait_for("got TERM\n", &mut seen);
    });
    let streams = CallerStreams { input: stdin.into(), output: stdout.into(), error: stderr.into() };
    let (code, _lost) = world.start_on(&record, streams).unwrap();
    watch.join().unwrap();
    assert_eq!(code, 7);
}

fn a_signal_before_the_start_prevents_it(world: &World) {
    let lease = world.store.lease("test").unwrap();
    let record = world.create(&request(&["sleep", "60"]), &lease).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT).unwrap();
    thread::sleep(Duration::from_millis(20));
    let error = world.start(&record, b"").unwrap_err();
    assert!(matches!(error, LinkError::Interrupted { signal: Signal::INT }), "{error}");
    assert!(world.containers.find(record.id.as_str()).is_err());
}

fn a_terminal_is_raw_sized_and_restored(world: &World) {
    let lease = world.store.lease("test").unwrap();
    let wanted = RunRequest {
        console: Console { interactive: true, terminal: true },
        ..request(&["sh", "-c", "tty; stty size; echo $TERM; read line; echo \"<$line>\"; exit 5"])
    };
    let record = world.create(&wanted, &lease).unwrap();
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let user: OwnedFd = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    tcsetwinsize(&user, Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let copy = || user.try_clone().unwrap();
    let canonical = |fd: &OwnedFd| tcgetattr(fd).unwrap().local_modes.contains(LocalModes::ICANON);
    let mut screen = File::from(master);
    let mut keys = screen.try_clone().unwrap();
    let watched = copy();
    let watch = thread::spawn(move || {
        let mut seen = Vec::new();
        let mut chunk = [0; 256];
        let start = Instant::now();
        let mut typed = false;
        while !String::from_utf8_lossy(&seen).contains("<typed>") && start.elapsed() < Duration::from_secs(10) {
            let read = screen.read(&mut chunk).unwrap();
            seen.extend_from_slice(&chunk[..read]);
            if !typed && String::from_utf8_lossy(&seen).contains("xterm") {
                let raw = !tcgetattr(watched.as_fd()).unwrap().local_modes.contains(LocalModes::ICANON);
                assert!(raw, "the caller's terminal is raw meanwhile");
                keys.write_all(b"typed\r").unwrap();
                typed = true;
            }
        }
        (String::from_utf8_lossy(&seen).into_owned(), screen)
    });
    let streams = CallerStreams { input: copy(), output: copy(), error: copy() };
    let (code, _lost) = world.start_on(&record, streams).unwrap();
    assert_eq!(code, 5);
    let (seen, _screen) = watch.join().unwrap();
    assert!(canonical(&user), "restored");
    for expected in ["/dev/pts/0", "40 100", "xterm", "<typed>"] {
        assert!(seen.contains(expected), "{expected:?} in {seen:?}");
    }
}

fn users_and_groups_come_from_the_image(world: &World) {
    let id = |user: &str, group_add: &[&str]| {
        let wanted = RunRequest {
            user: Some(user.to_owned()),
            group_add: group_add.iter().map(|g| (*g).to_owned()).collect(),
            ..request(&["sh", "-c", "id -u; id -g; id -G; echo $HOME"])
        };
        world.run(&wanted).map(|output| output.out.replace('\n', " "))
    };
    assert_eq!(id("app", &[]).unwrap(), "1000 1000 1000 50 /home/app ");
    assert_eq!(id("app:adm", &[]).unwrap(), "1000 4 4 /home/app ");
    assert_eq!(id("1234:5678", &["adm", "99"]).unwrap(), "1234 5678 5678 4 99 / ");
    assert!(id("nobody-here", &[]).is_err());
    assert!(id("4294967296", &[]).is_err());
}

fn the_root_can_be_read_only(world: &World) {
    let script =
        "touch /file 2>/dev/null && echo written; touch /data/file && echo volume; touch /dev/shm/x && echo shm";
    let shown = world.run(&RunRequest { root: RootAccess::ReadOnly, ..request(&["sh", "-c", script]) }).unwrap();
    assert_eq!(shown.out, "volume\nshm\n");
}

fn a_hundred_containers_leave_nothing(world: &World) {
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(world.run(&request(&["true"])).unwrap().code, 0);
    }
    // The census of the harness says whether anything was left.
    println!("100 containers: {:?} each", start.elapsed() / 100);
}
