//! What `--help` adds to the definitions: groups of commands and of `build`'s options, and examples of every command.
//!
//! Completions and manual pages are generated from the same, and a test holds the tables to the definitions.

use clap::Command;

/// Commands by what they are for, in the order of the help.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Build", &["build", "graph", "history", "report", "verify"]),
    ("Cache", &["cache", "builder"]),
    ("Images", &["images", "image", "tag", "rmi", "commit", "load", "save", "import", "inspect"]),
    ("Registries", &["pull", "push", "search", "manifest", "login", "logout"]),
    (
        "Containers",
        &[
            "run",
            "create",
            "start",
            "exec",
            "attach",
            "ps",
            "logs",
            "stop",
            "restart",
            "kill",
            "wait",
            "rm",
            "pause",
            "unpause",
            "rename",
            "update",
            "top",
            "stats",
            "port",
            "cp",
            "diff",
            "events",
            "export",
            "container",
            "volume",
            "network",
        ],
    ),
    ("This program", &["doctor", "info", "system", "completion", "man", "version"]),
];

/// Options of `build` by what they are about.
const BUILD_OPTIONS: [(&str, &[&str]); 5] = [
    ("What is built", &["file", "target", "build_arg", "build_context", "platform", "pull", "check", "call"]),
    ("Cache", &["no_cache", "no_cache_filter", "no_cache_step", "cache_from", "cache_to", "cache_max_age"]),
    ("Steps", &["network", "allow", "add_host", "shm_size", "ulimit", "secret", "ssh", "jobs"]),
    (
        "Result",
        &[
            "tags",
            "label",
            "output",
            "load",
            "push",
            "annotation",
            "provenance",
            "sbom",
            "attest",
            "reproducible",
            "metadata_file",
            "iidfile",
        ],
    ),
    (
        "What is shown",
        &["progress", "quiet", "log_file", "annotate", "hints", "no_hints", "show_cached_logs", "explain"],
    ),
];

/// Examples, by command. Those of `container X` and `image X` are those of `X` where they have none of their own.
const EXAMPLES: [(&str, &str); 79] = [
    ("attach", "rbuild attach web                      Ctrl-P Ctrl-Q leaves it running"),
    ("builder", "rbuild builder prune --all             as docker builder prune"),
    ("builder du", "rbuild builder du"),
    ("builder prune", "rbuild builder prune --all"),
    ("cache", "rbuild cache why                       what made the last build's steps run"),
    ("cache du", "rbuild cache du"),
    ("cache inspect", "rbuild cache inspect 4f1c"),
    ("cache ls", "rbuild cache ls"),
    ("cache mounts", "rbuild cache mounts ls                 what RUN --mount=type=cache has kept"),
    ("cache mounts ls", "rbuild cache mounts ls"),
    ("cache mounts rm", "rbuild cache mounts rm /root/.npm"),
    ("cache mounts tar", "rbuild cache mounts tar /root/.npm > npm.tar"),
    ("cache mounts untar", "rbuild cache mounts untar /root/.npm < npm.tar"),
    ("cache prune", "rbuild cache prune                     what is used stays"),
    ("cache stats", "rbuild cache stats"),
    ("cache verify", "rbuild cache verify --repair           after a disk failed"),
    ("commit", "rbuild commit web web:fixed            the container and its changes as an image"),
    ("container", "rbuild container prune                 remove all that are stopped"),
    ("container inspect", "rbuild container inspect web"),
    ("container ls", "rbuild container ls --all"),
    ("container prune", "rbuild container prune --force"),
    ("cp", "rbuild cp web:/etc/hosts .             out of a container; the other way round: into it"),
    ("create", "rbuild create --name web web:1.0       rbuild start web starts it"),
    ("diff", "rbuild diff web                        A added, C changed, D deleted"),
    ("doctor", "rbuild doctor                          what works here, what does not, what to do"),
    ("events", "rbuild events                          until Ctrl-C"),
    ("export", "rbuild export web > web.tar"),
    ("history", "rbuild history logs                    the whole log of the last build"),
    ("history export", "rbuild history export -o builds.tar    the newest build, for another machine"),
    ("history inspect", "rbuild history inspect ^0              the newest build, step by step"),
    ("history logs", "rbuild history logs ^0 3               what the third step of the newest build said"),
    ("history ls", "rbuild history ls"),
    ("history open", "rbuild history open                    the report of the newest build, in a browser"),
    ("history rm", "rbuild history rm ^3"),
    ("image", "rbuild image prune                     remove images without a name"),
    ("image diff", "rbuild image diff app:1 app:2          which files differ"),
    ("image history", "rbuild image history app:1             which instruction made which layer"),
    ("image inspect", "rbuild image inspect app:1"),
    ("image ls", "rbuild image ls"),
    ("image prune", "rbuild image prune --all               those that no container uses, too"),
    ("image rm", "rbuild image rm app:1"),
    ("images", "rbuild images                          rbuild images -q prints ids only"),
    ("import", "rbuild import rootfs.tar base:1        a root file system becomes an image"),
    ("info", "rbuild info --format json"),
    ("inspect", "rbuild inspect --format '{{.Config.Env}}' app:1"),
    ("kill", "rbuild kill --signal HUP web"),
    ("load", "rbuild load -i app.tar                 a docker or OCI archive"),
    ("login", "rbuild login -u me --password-stdin registry.example < token"),
    ("logout", "rbuild logout registry.example"),
    ("logs", "rbuild logs --follow --tail 20 web"),
    ("man", "rbuild man /usr/local/share/man/man1"),
    ("manifest", "rbuild manifest inspect debian:stable"),
    ("manifest inspect", "rbuild manifest inspect debian:stable  asks the registry, fetches no layer"),
    ("network", "rbuild network create back             containers in it find each other by name"),
    ("network connect", "rbuild network connect back web"),
    ("network disconnect", "rbuild network disconnect back web"),
    ("network inspect", "rbuild network inspect back"),
    ("network ls", "rbuild network ls"),
    ("network prune", "rbuild network prune --force"),
    ("network rm", "rbuild network rm back"),
    ("pause", "rbuild pause web"),
    ("port", "rbuild port web"),
    ("ps", "rbuild ps --all                        stopped ones too"),
    ("pull", "rbuild pull debian:stable-slim"),
    ("push", "rbuild push registry.example/app:1"),
    ("rename", "rbuild rename web old-web"),
    ("restart", "rbuild restart web"),
    ("rm", "rbuild rm --force web                  also while it runs"),
    ("rmi", "rbuild rmi app:1"),
    ("save", "rbuild save -o app.tar app:1"),
    ("search", "rbuild search nginx"),
    ("start", "rbuild start --attach web"),
    ("stats", "rbuild stats --no-stream"),
    ("stop", "rbuild stop --time 30 web"),
    ("system", "rbuild system df                       what takes the room"),
    ("system df", "rbuild system df"),
    ("system events", "rbuild system events"),
    ("system info", "rbuild system info"),
    ("system prune", "rbuild system prune --force            what is used stays"),
];

/// The rest of them.
const MORE_EXAMPLES: [(&str, &str); 15] = [
    ("system service", "rbuild system service"),
    (
        "system start-containers",
        "rbuild system start-containers         when the machine starts: those with a restart policy",
    ),
    ("system stop-containers", "rbuild system stop-containers"),
    ("tag", "rbuild tag app:1 registry.example/app:1"),
    ("top", "rbuild top web"),
    ("unpause", "rbuild unpause web"),
    ("update", "rbuild update --memory 512m web"),
    ("version", "rbuild version"),
    ("volume", "rbuild volume create data              -v data:/var/lib/app keeps files of containers"),
    ("volume create", "rbuild volume create data"),
    ("volume inspect", "rbuild volume inspect data"),
    ("volume ls", "rbuild volume ls"),
    ("volume prune", "rbuild volume prune --force"),
    ("volume rm", "rbuild volume rm data"),
    ("wait", "rbuild wait web                        prints its exit code"),
];

/// The definitions with groups and examples.
pub(super) fn complete(command: Command) -> Command {
    let template =
        format!("{{about}}\n\n{{usage-heading}} {{usage}}\n\n{}Options:\n{{options}}{{after-help}}", grouped(&command));
    with_examples(command.help_template(template), "")
}

fn with_headings(build: Command) -> Command {
    BUILD_OPTIONS.iter().fold(build, |build, (heading, options)| {
        options.iter().fold(build, |build, option| build.mut_arg(*option, |arg| arg.help_heading(*heading)))
    })
}

/// The commands, a paragraph a group, in their own words.
fn grouped(command: &Command) -> String {
    let mut text = String::new();
    for (heading, names) in GROUPS {
        text.push_str(&format!("{heading}:\n"));
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about).map(ToString::to_string);
            text.push_str(&format!("  {name:<12} {}\n", about.unwrap_or_default()));
        }
        text.push('\n');
    }
    text
}

fn with_examples(command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command = names.into_iter().fold(command, |command, name| {
        let path = format!("{path} {name}").trim_start().to_owned();
        command.mut_subcommand(name, |sub| with_examples(sub, &path))
    });
    let command = if path == "build" { with_headings(command) } else { command };
    let Some(text) = example(path) else { return command };
    match command.get_after_help().map(ToString::to_string) {
        None => command.after_help(format!("Examples:\n  {text}")),
        Some(known) if known.contains("Example") => command,
        Some(known) => command.after_help(format!("{known}\n\nExamples:\n  {text}")),
    }
}

fn example(path: &str) -> Option<String> {
    let own = |path: &str| {
        EXAMPLES.iter().chain(&MORE_EXAMPLES).find(|(known, _)| *known == path).map(|(_, text)| (*text).to_owned())
    };
    own(path).or_else(|| {
        let (group, name) = path.split_once(' ')?;
        let same = matches!(group, "container" | "image").then(|| own(name)).flatten()?;
        Some(same.replacen("rbuild ", &format!("rbuild {group} "), 1))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::command;
    use super::*;

    fn visible(command: &Command) -> BTreeSet<&str> {
        command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(Command::get_name).collect()
    }

    #[test]
    fn every_command_is_in_one_group() {
        let command = command();
        let all: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let once: BTreeSet<&str> = all.iter().copied().collect();
        assert_eq!(once.len(), all.len(), "a command is in two groups");
        assert_eq!(once, visible(&command));
    }

    #[test]
    fn options_of_build_are_under_one_heading_each() {
        let all: Vec<&str> = BUILD_OPTIONS.iter().flat_map(|(_, options)| options.iter().copied()).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        let command = command();
        let build = command.find_subcommand("build").unwrap();
        for option in all {
            let arg = build.get_arguments().find(|arg| arg.get_id() == option).unwrap();
            assert!(arg.get_help_heading().is_some() && !arg.is_hide_set(), "{option}");
        }
    }

    #[test]
    fn every_command_has_an_example_that_can_be_typed() {
        fn check(command: &Command, path: &str, missing: &mut Vec<String>) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            if !help.contains("Example") {
                missing.push(path.to_owned());
            }
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                check(sub, &format!("{path} {}", sub.get_name()), missing);
            }
        }
        let mut missing = Vec::new();
        check(&command(), "rbuild", &mut missing);
        assert_eq!(missing, Vec::<String>::new());
        for (path, text) in EXAMPLES.iter().chain(&MORE_EXAMPLES) {
            // What stands behind two spaces is a remark; what a shell takes away is no argument.
            let line = text.split("  ").next().unwrap().split(['<', '>']).next().unwrap();
            let words = line.split_whitespace().map(|word| word.trim_matches('\''));
            let parsed = command().try_get_matches_from(words);
            assert!(parsed.is_ok(), "{path}: {}", parsed.unwrap_err());
        }
    }
}
