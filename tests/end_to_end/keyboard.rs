//! Containers at a real terminal: keys, signals, sizes, and the last line.

use crate::bench::Bench;
use crate::terminal::Terminal;

/// `rbuild` with this bench's store, for a shell in a terminal.
fn line(bench: &Bench, words: &str) -> String {
    let home = bench.path("home");
    format!("HOME={} {} --root {} {words}", home.display(), env!("CARGO_BIN_EXE_rbuild"), bench.store().display())
}

fn status(bench: &Bench, name: &str) -> String {
    bench.rbuild(["ps", "-a", "--filter", &format!("name=^{name}$"), "--format", "{{.State}}"]).run().ok().stdout
}

#[test]
fn keys_detach_by_flag_and_by_dockers_configuration() {
    let Some(bench) = Bench::with_busybox() else { return };
    std::fs::create_dir_all(bench.path("home/.docker")).unwrap();
    std::fs::write(bench.path("home/.docker/config.json"), r#"{"detachKeys": "ctrl-e,e"}"#).unwrap();
    let script = format!(
        "{}; echo first $?; {}; echo second $?; {}; echo third $?; sleep 100",
        line(&bench, "run -it --network=none --name keys --detach-keys=ctrl-x,x busybox sh"),
        line(&bench, "attach keys"),
        line(&bench, "attach --detach-keys=ctrl-p,ctrl-q keys"),
    );
    let terminal = Terminal::start(&bench, 80, 20, &script);
    let keys = |keys: &[&str]| terminal.tmux(&[&["send-keys"], keys].concat());
    terminal.screen("/ #");
    keys(&["echo on", "e", "Enter"]);
    terminal.screen("one");
    keys(&["C-x", "x"]);
    terminal.screen("first 0");
    assert_eq!(status(&bench, "keys"), "running\n");
    connected(&terminal, "first 0");
    // What is not the flag's is the configuration's, and the default is neither.
    keys(&["Enter", "echo t", "C-p", "C-q", "wo", "Enter"]);
    keys(&["C-c", "echo still", "Enter"]);
    terminal.screen("still");
    keys(&["C-e", "e"]);
    terminal.screen("second 0");
    assert_eq!(status(&bench, "keys"), "running\n");
    connected(&terminal, "second 0");
    keys(&["C-p", "C-q"]);
    terminal.screen("third 0");
    assert_eq!(status(&bench, "keys"), "running\n");
    let format =
        "{{.Action}}{{with .Actor.Attributes.height}} {{.}}{{end}}{{with .Actor.Attributes.width}} {{.}}{{end}}";
    let told = bench.rbuild(["events", "--since=1h", "--until=0s", "-f", "container=keys", "--format", format]).run();
    let told = told.ok().stdout;
    let told: Vec<&str> = told.lines().filter(|line| !line.contains("connect")).collect();
    // A terminal that was made for its client is given its size once, one that shows something already two.
    let again = ["attach", "resize 21 81", "resize 20 80", "detach"];
    assert_eq!(told, [&["create", "attach", "start", "resize 20 80", "detach"], &again[..], &again[..]].concat());
    let _ran = bench.rbuild(["rm", "-f", "keys"]).run().ok();
    std::fs::write(bench.path("home/.docker/config.json"), r#"{"detachKeys": "ctrl-1"}"#).unwrap();
    let ran = bench.rbuild(["run", "--rm", "--network=none", "busybox", "true"]).run();
    let _ran = ran.fails(125).says("invalid detach keys (ctrl-1)");
}

#[test]
fn sizes_follow_interrupts_arrive_and_the_last_line_is_whole() {
    let Some(bench) = Bench::with_busybox() else { return };
    let inside = "trap 'echo caught' INT; trap 'stty size' WINCH; stty size; while :; do read word || continue; \
                  [ \"$word\" = finish ] && break; echo \"got $word\"; done; printf 'no newline'; exit 7";
    let run = line(&bench, &format!("run --rm -it --network=none busybox sh -c '{}'", inside.replace('\'', "'\\''")));
    let script = format!("{run}; echo; echo code $?; {run}; echo \" code $?\"; sleep 100");
    let terminal = Terminal::start(&bench, 70, 20, &script);
    terminal.screen("20 70");
    terminal.tmux(&["resize-window", "-x", "90", "-y", "25"]);
    terminal.tmux(&["send-keys", "word", "Enter"]);
    terminal.screen("got word");
    terminal.screen("25 90");
    terminal.tmux(&["send-keys", "C-c"]);
    terminal.tmux(&["send-keys", "more", "Enter"]);
    terminal.screen("caught");
    terminal.tmux(&["send-keys", "finish", "Enter"]);
    terminal.screen("code 0");
    terminal.screen("no newline");
    // The terminal is as it was before: what is typed is shown again, and the exit code is the container's.
    terminal.tmux(&["send-keys", "finish", "Enter"]);
    terminal.screen("no newline code 7");
}

#[test]
fn a_suspended_client_goes_on_and_its_container_with_it() {
    let Some(bench) = Bench::with_busybox() else { return };
    let terminal = Terminal::start(&bench, 80, 20, "sh -i");
    let run = line(&bench, "run --rm -i --network=none busybox cat");
    terminal.tmux(&["send-keys", &run, "Enter"]);
    terminal.tmux(&["send-keys", "before", "Enter"]);
    // What is typed ahead of the prompt is answered behind it.
    let is = |line: &String, text: &str| line.strip_prefix("# ").unwrap_or(line) == text;
    let twice = |text: &'static str| move |lines: &Vec<String>| lines.iter().filter(|line| is(line, text)).count() == 2;
    until(&terminal, twice("before"));
    terminal.tmux(&["send-keys", "C-z"]);
    terminal.screen("Stopped");
    terminal.tmux(&["send-keys", "fg", "Enter"]);
    terminal.tmux(&["send-keys", "after", "Enter"]);
    until(&terminal, twice("after"));
    terminal.tmux(&["send-keys", "C-d"]);
    terminal.tmux(&["send-keys", "echo code $?", "Enter"]);
    terminal.screen("code 0");
}

/// Presses Enter until the shell of the container answers below a line. Before that, the keys may still be those of the
/// terminal: its own Ctrl-C would end the client that is about to connect, and its own Ctrl-Q would never reach it.
fn connected(terminal: &Terminal, below: &str) {
    until(terminal, |lines| {
        terminal.tmux(&["send-keys", "Enter"]);
        let from = lines.iter().rposition(|line| line.contains(below));
        from.is_some_and(|from| lines[from..].iter().any(|line| line.starts_with("/ #")))
    });
}

/// Waits until the screen is so.
fn until(terminal: &Terminal, is: impl Fn(&Vec<String>) -> bool) {
    let began = std::time::Instant::now();
    loop {
        let screen: Vec<String> =
            terminal.tmux(&["capture-pane", "-p"]).lines().map(|line| line.trim_end().to_owned()).collect();
        if is(&screen) {
            return;
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "never came:\n{}", screen.join("\n"));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Whether a process of this machine has these words, one after the other.
fn runs(words: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| {
        line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ").trim() == words
    })
}

#[test]
fn a_command_in_a_container_is_left_running_by_its_keys_and_ends_with_its_terminal_otherwise() {
    let Some(bench) = Bench::with_busybox() else { return };
    let ran = bench.rbuild(["run", "-d", "--name=web", "--network=none", "busybox", "sleep", "1000"]).run();
    let _ran = ran.ok();
    let long = "x".repeat(90_000);
    std::fs::write(bench.path("long.env"), format!("LONG={long}\n")).unwrap();
    let left_by_other_keys = format!(
        "exec -it --detach-keys=ctrl-x,x --env-file={} web sh -c 'echo ${{#LONG}}; exec sleep 73142'",
        bench.path("long.env").display()
    );
    let script = format!(
        "{}; echo first $?; {}; echo second $?; {}; echo third $?; {}; sleep 100",
        line(&bench, "exec -it web sh -c 'stty size; echo ready; exec sleep 73141'"),
        line(&bench, &left_by_other_keys),
        line(&bench, "exec -it web sh -c 'echo typed; read word; echo got $word; exit 5'"),
        line(&bench, "exec -it web sh -c 'echo bound; exec sleep 73143'"),
    );
    let terminal = Terminal::start(&bench, 80, 20, &script);
    let keys = |keys: &[&str]| terminal.tmux(&[&["send-keys"], keys].concat());
    terminal.screen("20 80");
    terminal.screen("ready");
    keys(&["C-p", "C-q"]);
    terminal.screen("first 0");
    terminal.screen("90000");
    keys(&["C-x", "x"]);
    terminal.screen("second 0");
    assert!(runs("sleep 73141") && runs("sleep 73142"), "they go on");
    let format = "{{.Actor.Attributes.execID}}";
    let of = |event: &str| {
        let filter = format!("event={event}");
        let told = bench.rbuild(["events", "--since=1h", "--until=0s", "-f", &filter, "--format", format]).run();
        told.ok().stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let left = of("exec_detach");
    assert!(left.len() == 2 && left[..] == of("exec_create")[..2], "{left:?}");
    assert_eq!(of("resize"), [""; 0], "a command's terminal is told of as little as by Docker");
    terminal.screen("typed");
    keys(&["C-p", "on", "Enter"]);
    terminal.screen("third 5");
    terminal.screen("bound");
    assert!(runs("sleep 73143"));
    drop(terminal);
    let start = std::time::Instant::now();
    while runs("sleep 73143") {
        assert!(start.elapsed() < std::time::Duration::from_secs(60), "it outlives its terminal");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(runs("sleep 73141"), "what was left goes on");
    let _ran = bench.rbuild(["rm", "-f", "web"]).run().ok();
    assert!(!runs("sleep 73141") && !runs("sleep 73142"), "and ends with the container");
}
