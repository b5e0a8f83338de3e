//! Reading Dockerfiles: `./dev bench-micro parse`.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use divan::Bencher;
use divan::counter::BytesCount;
use rbuild_parser::{Ignore, Source, parse};

fn main() {
    divan::main();
}

/// What files are made of, so many stages of it.
fn dockerfile(stages: usize) -> String {
    let stage = "FROM debian:bookworm AS stage\n\
        ARG VERSION=1.2.3 DEBUG\n\
        ENV PATH=/usr/local/bin:$PATH LANG=\"C.UTF-8\"\n\
        # comments are read as well\n\
        RUN --mount=type=cache,target=/var/cache apt-get update && \\\n\
        \x20   apt-get install -y --no-install-recommends \\\n\
        \x20     ca-certificates curl\n\
        COPY --from=build --chown=app:app /src/a.txt /src/b.txt /dest/\n\
        RUN <<EOF\n\
        echo one\n\
        EOF\n\
        CMD [\"serve\", \"--config\", \"/etc/app.conf\"]\n";
    stage.repeat(stages)
}

#[divan::bench(args = [1, 10, 100, 1000])]
fn stages(bencher: Bencher<'_, '_>, stages: usize) {
    let source = Source::new("Dockerfile", dockerfile(stages));
    bencher.counter(BytesCount::new(source.text().len())).bench(|| parse(divan::black_box(&source)));
}

#[divan::bench(args = [10, 100])]
fn ignore_patterns(bencher: Bencher<'_, '_>, patterns: usize) {
    let text: String = (0..patterns).map(|at| format!("**/build-{at}/*.o\n!**/build-{at}/keep.o\n")).collect();
    let ignore = Ignore::parse(text.as_bytes()).unwrap();
    bencher.bench(|| ignore.matches(divan::black_box("src/deep/down/build-7/main.o")));
}
