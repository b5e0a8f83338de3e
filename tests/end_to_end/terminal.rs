//! The live view of a build in a real terminal: what it shows at two sizes, and how often it draws.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::bench::Bench;

/// A terminal that a program runs in.
pub(crate) struct Terminal {
    socket: std::path::PathBuf,
}

impl Terminal {
    /// Runs `script` in a window of this size.
    pub(crate) fn start(bench: &Bench, columns: usize, rows: usize, script: &str) -> Self {
        let terminal = Self { socket: bench.path(format!("tmux-{columns}")) };
        let (x, y) = (columns.to_string(), rows.to_string());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &x, "-y", &y, script]);
        terminal
    }

    pub(crate) fn tmux(&self, args: &[&str]) -> String {
        // Cells outside ASCII are drawn in a UTF-8 terminal only.
        let mut tmux = Command::new("tmux");
        let done = tmux.arg("-u").arg("-S").arg(&self.socket).args(args).output().expect("tmux is installed");
        assert!(done.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// The screen, as soon as `seen` is on it.
    pub(crate) fn screen(&self, seen: &str) -> Vec<String> {
        self.capture(seen, &["capture-pane", "-p"], |lines| lines.iter().any(|line| line.contains(seen)))
    }

    fn capture(&self, wanted: &str, command: &[&str], is_it: impl Fn(&[String]) -> bool) -> Vec<String> {
        let began = Instant::now();
        loop {
            let lines: Vec<String> = self.tmux(command).lines().map(|line| line.trim_end().to_owned()).collect();
            if is_it(&lines) {
                return lines;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "{wanted:?} never came:\n{}", lines.join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").status();
    }
}

/// Lines from the one that begins with `first`, with times left out.
fn from<'a>(screen: &'a [String], first: &str) -> Vec<&'a str> {
    let at = screen.iter().position(|line| line.starts_with(first)).unwrap();
    let line = |line: &'a String| line.trim_end_matches(|c: char| c.is_ascii_digit() || "ms.".contains(c)).trim_end();
    screen[at..].iter().map(line).filter(|line| !line.is_empty()).collect()
}

#[test]
fn running_steps_show_their_last_lines_and_ended_ones_one_line() {
    for columns in [40, 200] {
        let Some(bench) = Bench::with_busybox() else { return };
        let text = "FROM busybox\n\
            RUN printf 'a \\033[31mred\\033[0m word\\n\\033[2Jhostile\\n\\033]0;title\\007\\033[9A\\rup\\nthe last line of the first step\\n'; sleep 3\n\
            RUN echo 構建; exit 4\n";
        let context = bench.context("ctx", [("Dockerfile", text)]);
        let script = format!(
            "{} --root {} build {}; echo ended with $?; sleep 100",
            env!("CARGO_BIN_EXE_rbuild"),
            bench.store().display(),
            context.display(),
        );
        let terminal = Terminal::start(&bench, columns, 20, &script);
        let screen = terminal.screen(" => => the last line of");
        let shown = from(&screen, "[+] Building");
        assert!(shown[1].starts_with(" => [2/3] RUN printf"), "{shown:#?}");
        assert_eq!(shown[2..5], [" => => a red word", " => => \\u{1b}[2Jhostile", " => => up"], "{shown:#?}");
        assert!(
            !terminal.tmux(&["display-message", "-p", "#{pane_title}"]).contains("title"),
            "the window keeps its title"
        );
        assert!(screen.iter().all(|line| line.chars().count() <= columns), "{screen:#?}");
        let screen = terminal.screen("ended with");
        assert!(!screen.iter().any(|line| line.contains("[+] Building")), "the frame is gone: {screen:#?}");
        assert!(screen.iter().any(|line| line.starts_with(" => ERROR [3/3] RUN")), "{screen:#?}");
        assert!(screen.iter().any(|line| line == "構建"), "{screen:#?}");
        assert!(screen.iter().any(|line| line.contains("ended with 1")), "{screen:#?}");
    }
}

#[test]
fn a_step_that_talks_without_end_is_drawn_ten_times_a_second() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = "FROM busybox\nRUN i=0; while [ $i -lt 40 ]; do seq 500; sleep 0.05; i=$((i+1)); done\n";
    let context = bench.context("ctx", [("Dockerfile", text)]);
    let calls = bench.path("calls");
    let script = format!(
        "strace -f -ttt -e trace=write -s 16 -o {} {} --root {} build --network=none {}; echo ended with $?; sleep 100",
        calls.display(),
        env!("CARGO_BIN_EXE_rbuild"),
        bench.store().display(),
        context.display(),
    );
    let terminal = Terminal::start(&bench, 80, 24, &script);
    terminal.screen("ended with 0");
    let calls = std::fs::read_to_string(calls).unwrap();
    // Each frame is one write: `PID SECONDS write(2, "\33[?2026h…`.
    let frames: Vec<f64> = calls
        .lines()
        .filter(|line| line.contains("write(2, \"\\33[?2026h"))
        .map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(frames.len() >= 5, "{} frames", frames.len());
    // The last one takes the frame away, whenever that is.
    for many in frames[..frames.len() - 1].windows(12) {
        assert!(many[11] - many[0] > 1.0, "twelve frames in {} s", many[11] - many[0]);
    }
}
