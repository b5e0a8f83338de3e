//! Parsing is linear: twice the text, about twice the time; whatever the text. An optimised build reads 10,000 lines in less than
//! ten milliseconds: `cargo test --release -p rbuild-parser --test speed -- --nocapture` asserts it and prints the figure. All
//! times are processor time.

use std::time::Duration;

use rbuild_parser::{Source, parse};
use rustix::time::{ClockId, clock_gettime};

/// A file of a given number of lines, made of what files are made of.
fn ordinary(lines: usize) -> String {
    let block = "FROM debian:bookworm AS stage\n\
        ARG VERSION=1.2.3 DEBUG\n\
        ENV PATH=/usr/local/bin:$PATH LANG=\"C.UTF-8\"\n\
        # comments are read as well\n\
        RUN --mount=type=cache,target=/var/cache apt-get update && \\\n\
        \x20   apt-get install -y --no-install-recommends \\\n\
        \x20     ca-certificates \\\n\
        \x20     curl && \\\n\
        \x20   rm -rf /var/lib/apt/lists/*\n\
        COPY --from=build --chown=app:app /src/a.txt /src/b.txt /dest/\n\
        LABEL org.opencontainers.image.title=\"a title\" maintainer='x y'\n\
        EXPOSE 80 443/tcp\n\
        WORKDIR /srv/app\n\
        RUN <<EOF\n\
        echo one\n\
        echo two\n\
        EOF\n\
        ENTRYPOINT [\"/usr/bin/app\", \"--config\", \"/etc/app.conf\"]\n\
        USER app:app\n\
        CMD [\"serve\"]\n";
    block.repeat(lines / 20)
}

/// The processor time that this thread has had; what others do on the machine hardly shows in it.
fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The processor time that reading a text takes at best.
fn time(text: &str, tries: usize) -> Duration {
    let source = Source::new("Dockerfile", text);
    let once = || {
        let start = processor_time();
        let parsed = parse(&source);
        let taken = processor_time() - start;
        drop(parsed);
        taken
    };
    (0..tries).map(|_| once()).min().unwrap_or_default()
}

#[test]
fn ten_thousand_lines_are_quick() {
    let text = ordinary(10_000);
    assert_eq!(text.lines().count(), 10_000);
    let taken = time(&text, 20);
    println!("10,000 lines: {taken:?}");
    // Unoptimised code is about twenty times as slow.
    let limit = if cfg!(debug_assertions) { 500 } else { 10 };
    assert!(taken < Duration::from_millis(limit), "{taken:?}");
}

#[test]
fn a_long_file_takes_no_longer_by_the_line() {
    let lines = if cfg!(debug_assertions) { 2_000 } else { 10_000 };
    let is_linear = || {
        let (small, large) = (time(&ordinary(lines), 5), time(&ordinary(lines * 32), 1));
        println!("{lines} lines: {small:?}, 32 times as many: {large:?}");
        large < small * 128
    };
    assert!((0..3).any(|_| is_linear()));
}

#[test]
fn time_grows_with_the_text_only() {
    for (name, unit) in [
        ("continuations", "RUN a \\\n\\\n# c\n\n b\n".to_owned()),
        ("one long instruction", " \\\n x".to_owned()),
        ("flags", "COPY --a=\"b c\\\"d\" --x x y\n".to_owned()),
        ("words", "ENV a=\"b c\\\"d\" 'e f'=g\n".to_owned()),
        ("brackets", "CMD [\"a\", [[[[[{\"b\": [\n".to_owned()),
        ("openers", "RUN <<a <<b <<c\na\nb\nc\n".to_owned()),
        ("braces", "COPY <<${a:-${b:-${c} x\n".to_owned()),
        ("nested triggers", "ONBUILD ONBUILD ONBUILD ONBUILD ONBUILD ONBUILD RUN a\n".to_owned()),
        ("comments", "# a comment\n".to_owned()),
        ("blank lines", "\n".to_owned()),
    ] {
        let text = |times: usize| format!("FROM x\nRUN {}\n", unit.repeat(times));
        let (short, long) = (text(100), text(3_200));
        // Linear is 32 times as long, quadratic 1024 times. What lies between is left to caches and busy neighbours.
        let is_linear = || {
            let (small, large) = (time(&short, 5), time(&long, 2));
            println!("{name}: {small:?} for one, {large:?} for 32 times as much");
            large < small.max(Duration::from_micros(100)) * 128
        };
        assert!((0..5).any(|_| is_linear()), "{name}");
    }
}
