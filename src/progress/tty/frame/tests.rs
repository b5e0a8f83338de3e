//! Frames as people see them, at three sizes.

use super::*;
use crate::progress::view_tests::vertex;

const SECOND: u64 = 1_000_000_000;
const WIDE: Size = Size { columns: 72, rows: 24 };
const NARROW: Size = Size { columns: 40, rows: 8 };

fn step(name: &str, since: u64, output: &str) -> Running {
    let mut step = Running::new(name.to_owned(), since * SECOND);
    step.output(output.as_bytes());
    step
}

fn busy() -> Live {
    let mut live = Live { total: 12, ended: 4, cached: 3, ..Live::default() };
    let output: String = (1..=9)
        .map(|n| format!("cc -c module_{n}.c -o module_{n}.o -O2 -Wall -Wextra -fno-strict-aliasing\n"))
        .collect();
    live.steps.insert(vertex(4), step("[build 2/4] RUN make -j8 all install", 2, &output));
    let mut pull =
        step("[base 1/2] FROM docker.io/library/debian:bookworm@sha256:0123456789abcdef0123456789abcdef", 0, "");
    for (item, current) in [("sha256:aaaa", 1_500_000), ("sha256:bbbb", 900)] {
        Transfer::advance(&mut pull.transfers, item, 0, Some(30_100_000), 0);
        Transfer::advance(&mut pull.transfers, item, current, Some(30_100_000), SECOND);
    }
    live.steps.insert(vertex(0), pull);
    let mut waiting =
        Running::new("[test 1/3] RUN --mount=type=cache,sharing=locked,target=/c true".to_owned(), 3 * SECOND);
    waiting.waiting = Some("waiting for cache mount /c held by pid 4711 since 12:30:05".to_owned());
    live.steps.insert(vertex(7), waiting);
    live
}

fn shown(live: &Live, size: Size) -> String {
    let lines = frame(live, 10 * SECOND + SECOND / 4, size);
    assert!(lines.len() < size.rows.max(4), "{} lines in {} rows", lines.len(), size.rows);
    for line in &lines {
        assert!(line.text.width() <= size.columns.max(NARROWEST), "{:?}", line.text);
    }
    lines.iter().map(|line| line.text.trim_end()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_frame_shows_what_runs_moves_and_waits() {
    insta::assert_snapshot!(shown(&busy(), WIDE), @r#"
    [+] Building 10.2s (4/12) 3 cached, 2 running, 1 waiting
     => [base 1/2] FROM docker.io/library/debian:bookworm@sha256:0123… 10.2s
     => => sha256:aaaa 1.5MB / 30.1MB 1.5MB/s
     => => sha256:bbbb 900B / 30.1MB 900B/s
     => [build 2/4] RUN make -j8 all install                            8.2s
     => => cc -c module_4.c -o module_4.o -O2 -Wall -Wextra -fno-strict-ali…
     => => cc -c module_5.c -o module_5.o -O2 -Wall -Wextra -fno-strict-ali…
     => => cc -c module_6.c -o module_6.o -O2 -Wall -Wextra -fno-strict-ali…
     => => cc -c module_7.c -o module_7.o -O2 -Wall -Wextra -fno-strict-ali…
     => => cc -c module_8.c -o module_8.o -O2 -Wall -Wextra -fno-strict-ali…
     => => cc -c module_9.c -o module_9.o -O2 -Wall -Wextra -fno-strict-ali…
     => [test 1/3] RUN --mount=type=cache,sharing=locked,target=/c true 7.2s
     => => waiting for cache mount /c held by pid 4711 since 12:30:05
"#);
}

#[test]
fn a_small_window_shows_every_step_first() {
    insta::assert_snapshot!(shown(&busy(), NARROW), @r#"
    [+] Building 10.2s (4/12) 3 cached, 2 r…
     => [base 1/2] FROM docker.io/lib… 10.2s
     => => sha256:aa… 1.5MB / 30.1MB 1.5MB/s
     => => sha256:bbbb 900B / 30.1MB 900B/s
     => [build 2/4] RUN make -j8 all i… 8.2s
     => [test 1/3] RUN --mount=type=ca… 7.2s
     => => waiting for cache mount /c held …
"#);
}

#[test]
fn more_steps_than_lines_are_counted() {
    let mut live = Live { total: 400, ..Live::default() };
    for number in 0..300 {
        live.steps.insert(vertex(number), step(&format!("[s{number} 1/1] RUN sleep 1"), 1, "out\n"));
    }
    insta::assert_snapshot!(shown(&live, Size { columns: 40, rows: 6 }), @r#"
    [+] Building 10.2s (0/400) 300 running
     => [s0 1/1] RUN sleep 1            9.2s
     => [s1 1/1] RUN sleep 1            9.2s
     => [s2 1/1] RUN sleep 1            9.2s
     => and 297 more
"#);
}

#[test]
fn a_frame_fits_any_window() {
    for columns in [0, 1, 19, 20, 39, 41, 80, 200, 1000] {
        for rows in [0, 1, 2, 3, 5, 24, 100] {
            let _fits = shown(&busy(), Size { columns, rows });
        }
    }
}

#[test]
fn wide_characters_are_counted_by_cells() {
    assert_eq!(cut("構建成功です", 7), "構建成…");
    assert_eq!(cut("構建成", 6), "構建成");
    assert_eq!(cut("e\u{301}e\u{301}e\u{301}e\u{301}", 3), "e\u{301}e\u{301}…");
}

#[test]
fn ended_steps_keep_a_line() {
    let size = Size { columns: 40, rows: 24 };
    let lines = [
        ended("[1/3] FROM busybox", "CACHED", 0, Look::Cached, size),
        ended("[2/3] RUN echo a longer command than fits", "", 125 * SECOND, Look::Step, size),
        ended("[3/3] RUN false", "ERROR", SECOND / 3, Look::Failed, size),
    ];
    let lines: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
     => CACHED [1/3] FROM busybox       0.0s
     => [2/3] RUN echo a longer comma… 2m05s
     => ERROR [3/3] RUN false           0.3s
"#);
}
