//! The live view of a build in a real terminal: what it shows at two sizes, while its window changes, and how often it draws.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::bench::Bench;

/// A terminal that a program runs in.
pub(crate) struct Terminal {
    socket: std::path::PathBuf,
}

/// As for every other command of a bench.
const LINGER: &str = "RBUILD_NETWORK_LINGER=1s";

impl Terminal {
    /// Runs `script` in a window of this size.
    pub(crate) fn start(bench: &Bench, columns: usize, rows: usize, script: &str) -> Self {
        let terminal = Self { socket: bench.path(format!("tmux-{columns}")) };
        let (x, y) = (columns.to_string(), rows.to_string());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-e", LINGER, "-x", &x, "-y", &y, script]);
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

    /// The screen and all that has left it upwards, as soon as it is as wanted.
    fn all(&self, wanted: &str, is_it: impl Fn(&[String]) -> bool) -> Vec<String> {
        self.capture(wanted, &["capture-pane", "-p", "-S", "-"], is_it)
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

    fn resize(&self, columns: usize, rows: usize) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
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

/// A build of three stages that run until the file `go` is there, and lines that stay above the frame. It begins at the lower
/// end of the window: tmux moves lines from the top of a window that becomes narrower out of reach, whatever room is below.
fn three_that_wait(bench: &Bench) -> String {
    // By octal numbers, so that the words stand in the output only.
    let octal = |text: &str| text.bytes().map(|byte| format!("\\{byte:03o}")).collect::<String>();
    let wait = |stage: &str, says: &str| {
        format!(
            "FROM one AS {stage}\nRUN --mount=type=cache,target=/count,id=count echo x >> /count/{stage}; printf '{}\\n'; \
             : {} while nobody has said that it may go on; until [ -e /count/go ]; do sleep 0.05; done\n",
            octal(says),
            bench.store().display(),
        )
    };
    let text = "FROM busybox AS one\nRUN echo first > /first\n".to_owned()
        + &wait("a", "plain words of a step that says a little more than a narrow window has room for")
        + &wait("b", "構建成功構建成功構建成功")
        + &wait("c", "e\u{301} \u{1f600} \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} done")
        + "FROM one\nCOPY --from=a /first /a\nCOPY --from=b /first /b\nCOPY --from=c /first /c\n";
    let context = bench.context("ctx", [("Dockerfile", &text)]);
    format!(
        "seq 100 130; {} --root {} build {}; echo ended with $?; sleep 100",
        env!("CARGO_BIN_EXE_rbuild"),
        bench.store().display(),
        context.display(),
    )
}

#[test]
fn a_window_that_changes_has_one_frame_and_nothing_of_old_ones() {
    let Some(bench) = Bench::with_busybox() else { return };
    let terminal = Terminal::start(&bench, 200, 30, &three_that_wait(&bench));
    terminal.screen(" => => plain words");
    let once = |lines: &[String], columns: usize| {
        let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
        let says = lines.iter().filter(|line| line.starts_with(" => => 構建")).count();
        let steps: Vec<usize> = [" => [a 1/1]", " => [b 1/1]", " => [c 1/1]"].iter().map(|step| count(step)).collect();
        let wide =
            |line: &String| line.starts_with(" => [a ") && line.ends_with('s') && line.chars().count() == columns;
        let calm = lines.iter().any(|line| line.starts_with("[+] Building") && line.contains("3 run"));
        calm && count("[+] Building") == 1 && steps == [1, 1, 1] && says == 1 && lines.iter().any(wide)
    };
    for (columns, rows) in [(200, 30), (120, 30), (40, 30), (41, 24), (160, 24), (60, 30), (40, 16), (200, 40)] {
        // Of changes that follow each other faster, tmux tells late.
        std::thread::sleep(Duration::from_millis(500));
        terminal.resize(columns, rows);
        let lines = terminal.all("one frame of the new width", |lines| once(lines, columns));
        // What stays is above the frame, each line once, however it is wrapped now.
        let kept: String = lines.iter().take_while(|line| !line.starts_with("[+]")).map(String::as_str).collect();
        assert_eq!(kept.matches("RUN echo first").count(), 1, "{lines:#?}");
    }
    crate::sharing::go(&bench, "a");
    terminal.screen("ended with 0");
    let lines = terminal.all("the end", |lines| lines.iter().any(|line| line == "ended with 0"));
    assert!(!lines.iter().any(|line| line.starts_with("[+]") || line.starts_with(" => =>")), "{lines:#?}");
    for step in ["RUN echo first", "[a 1/1]", "[b 1/1]", "[c 1/1]", "COPY --from=c"] {
        let shown = lines.iter().filter(|line| line.starts_with(" => ") && line.contains(step)).count();
        assert_eq!(shown, 1, "{step}: {lines:#?}");
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
