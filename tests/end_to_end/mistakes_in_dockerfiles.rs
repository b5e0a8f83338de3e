//! What the screen says to somebody new whose Dockerfile is nearly one.

use crate::bench::Bench;
use crate::mistakes::said;

/// Builds Dockerfiles; gives what is said to each.
fn built(bench: &Bench, files: &[&str]) -> String {
    let answer = |text: &&str| {
        let context = bench.context("written", [("Dockerfile", *text)]);
        let ran = bench.rbuild(["build", "--progress=quiet"]).arg(context).run();
        format!("{text:?}\n{}", said(bench, &ran))
    };
    files.iter().map(answer).collect()
}

#[test]
fn of_the_text_of_a_dockerfile() {
    let Some(bench) = Bench::with_busybox() else { return };
    insta::assert_snapshot!(built(&bench, &[
        "",
        "# nothing\n",
        "RUN echo\n",
        "FROM\n",
        "FROM busybox as a b\n",
        "from: busybox\n",
        "services:\n  web: {}\n",
        "FROM busybox\napt-get install curl\n",
        "FROM busybox\nCOPY file\n",
        "FROM busybox\nCOPY --chwon=1 a b\n",
        "FROM busybox\nENV A\n",
        "FROM busybox\nEXPOSE web\n",
        "FROM busybox\nSHELL sh\n",
        "FROM busybox\nHEALTHCHECK true\n",
        "FROM busybox\nRUN <<EOF\necho\n",
        "# syntax=other/frontend\nFROM busybox\n",
    ]), @r##"
    ""
    error: the Dockerfile cannot be empty
     = help: a Dockerfile starts with FROM, for example `FROM scratch`
    "# nothing\n"
    error: file with no instructions
     --> Dockerfile:1:1
      |
    1 | # nothing
      | ^^^^^^^^^
      |
      = help: a Dockerfile starts with FROM, for example `FROM scratch`
    "RUN echo\n"
    error: no build stage in current context
     --> Dockerfile:1:1
      |
    1 | RUN echo
      | ^^^^^^^^
      |
      = help: only ARG may stand before the first FROM
    "FROM\n"
    error: FROM requires either one or three arguments
     --> Dockerfile:1:1
      |
    1 | FROM
      | ^^^^
      |
      = help: write `FROM image` or `FROM image AS name`
    "FROM busybox as a b\n"
    error: FROM requires either one or three arguments
     --> Dockerfile:1:1
      |
    1 | FROM busybox as a b
      | ^^^^
      |
      = help: write `FROM image` or `FROM image AS name`
    "from: busybox\n"
    error: unknown instruction: from: (did you mean from?)
     --> Dockerfile:1:1
      |
    1 | from: busybox
      | ^^^^^
      |
      = help: write `from`
    "services:\n  web: {}\n"
    error: unknown instruction: services:
     --> Dockerfile:1:1
      |
    1 | services:
      | ^^^^^^^^^
      |
      = help: this reads like YAML, a compose file perhaps: a Dockerfile has lines such as `FROM busybox`; -f names another file
    error: unknown instruction: web:
     --> Dockerfile:2:3
      |
    2 |   web: {}
      |   ^^^^
      |
      = help: this reads like YAML, a compose file perhaps: a Dockerfile has lines such as `FROM busybox`; -f names another file
    error: unknown instruction: services: (Dockerfile:1, and 1 more)
    "FROM busybox\napt-get install curl\n"
    error: unknown instruction: apt-get
     --> Dockerfile:2:1
      |
    2 | apt-get install curl
      | ^^^^^^^
      |
      = help: a command is written `RUN apt-get …`; an instruction that goes on in the next line ends with a backslash
    "FROM busybox\nCOPY file\n"
    error: COPY requires at least two arguments, but only one was provided. Destination could not be determined
     --> Dockerfile:2:1
      |
    2 | COPY file
      | ^^^^
      |
      = help: write `COPY source… destination`
    "FROM busybox\nCOPY --chwon=1 a b\n"
    error: unknown flag: --chwon (did you mean chown?)
     --> Dockerfile:2:6
      |
    2 | COPY --chwon=1 a b
      |      ^^^^^^^^^
      |
      = help: COPY takes --chmod, --chown, --exclude, --from, --link, --parents
    "FROM busybox\nENV A\n"
    error: ENV must have two arguments
     --> Dockerfile:2:5
      |
    2 | ENV A
      |     ^
      |
      = help: write `ENV A=value`
    "FROM busybox\nEXPOSE web\n"
    error: invalid containerPort: web
     --> Dockerfile:2:8
      |
    2 | EXPOSE web
      |        ^^^
      |
      = help: write a port or a range, for example 8080, 53/udp or 7000-7010
    "FROM busybox\nSHELL sh\n"
    error: SHELL requires the arguments to be in JSON form
     --> Dockerfile:2:7
      |
    2 | SHELL sh
      |       ^^
      |
      = help: write for example `SHELL ["/bin/bash", "-c"]`
    "FROM busybox\nHEALTHCHECK true\n"
    error: Unknown type "TRUE" in HEALTHCHECK (try CMD)
     --> Dockerfile:2:13
      |
    2 | HEALTHCHECK true
      |             ^^^^
      |
      = help: write `HEALTHCHECK CMD …` or `HEALTHCHECK NONE`
    "FROM busybox\nRUN <<EOF\necho\n"
    error: unterminated heredoc
     --> Dockerfile:2:1
      |
    2 | RUN <<EOF
      | ^^^^^^^^^
      |
      = help: the here-document ends at a line that says only `EOF`
    "# syntax=other/frontend\nFROM busybox\n"
    error: the frontend other/frontend is not supported
     --> Dockerfile:1:1
      |
    1 | # syntax=other/frontend
      | ^^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: docker/dockerfile is built in; remove the directive if the file is an ordinary Dockerfile
    "##);
    // What is only unusual builds: a byte order mark, Windows line ends, tabs, lower case.
    for fine in
        ["\u{feff}FROM busybox\n", "FROM busybox\r\nRUN echo a \\\r\n && echo b\r\n", "\tfrom busybox\n\trun true\n"]
    {
        let context = bench.context("fine", [("Dockerfile", fine)]);
        let _built = bench.rbuild(["build", "--progress=quiet"]).arg(context).run().ok();
    }
}
