//! Command lines that mean something else than they say: a mistyped command, one of Docker's that rbuild has not, an option that
//! has taken the build context as its value. Where nothing better is known, clap's own words stand.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use rbuild_image::ImageRef;

use super::report::Failure;
use crate::config::Settings;

/// Commands of Docker that rbuild has not, and what to do instead.
const ELSEWHERE: [(&[&str], &str); 10] = [
    (
        &["compose", "docker-compose", "up", "down"],
        "rbuild builds and runs single images: build each service's with `rbuild -t NAME DIR`, and give the names to `docker \
         compose` or `podman-compose`",
    ),
    (&["bake"], "bake files are not read: build each target with `rbuild -t NAME --target STAGE DIR`"),
    (
        &["swarm", "service", "stack", "node", "config", "secret"],
        "there is no Swarm; `rbuild run` starts containers here",
    ),
    (
        &["context", "daemon", "dockerd", "use"],
        "there is no daemon to choose or to start: every command does its work itself",
    ),
    (&["plugin", "extension"], "there are no plugins; networks and volumes are built in"),
    (
        &["trust", "scan", "scout", "sbom"],
        "`rbuild build --attest type=sbom` lists what an image has; other tools judge it",
    ),
    (&["install", "setup", "init"], "nothing has to be set up: `rbuild doctor` examines this host"),
    (
        &["clean", "cleanup", "gc", "prune", "purge"],
        "`rbuild system prune` removes all that is not needed; `cache`, `image`, `container`, `volume` and `network` have a `prune` \
         of their own",
    ),
    (
        &["bash", "sh", "shell", "ssh"],
        "`rbuild run -it IMAGE sh` starts one in a new container, `rbuild exec -it CONTAINER sh` in one that runs",
    ),
    (&["list", "ls"], "`rbuild images` lists images, `rbuild ps` containers, `rbuild history ls` builds"),
];

/// Commands that Docker has not, and that write JSON.
const OURS: [&str; 5] = ["cache", "doctor", "graph", "history", "report"];

/// A word in a command's place that is none, and no directory: `rbuild rnu`, `rbuild compose up`.
pub(super) fn no_command(word: &str, settings: &Settings) -> Option<Failure> {
    let plain = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') && !word.starts_with('-');
    if !plain || settings.absolute(word).exists() {
        return None;
    }
    let what = format!("{word:?} is neither a command nor a directory");
    if let Some((_, instead)) = ELSEWHERE.iter().find(|(words, _)| words.contains(&word)) {
        return Some(Failure::usage(what, *instead));
    }
    let command = super::command();
    let names = || command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(clap::Command::get_name);
    // Swapped letters are the commonest mistake, wherever they are.
    let letters = |word: &str| {
        let mut letters = word.as_bytes().to_vec();
        letters.sort_unstable();
        letters
    };
    let swapped = names().find(|name| letters(name) == letters(word)).map(str::to_owned);
    let near = swapped.or_else(|| rbuild_parser::suggestion(word, names()))?;
    Some(Failure::usage(what, format!("did you mean `rbuild {near}`?")))
}

/// What is better said of a command line that clap has refused.
pub(super) fn of_refusal(error: &clap::Error, command: Option<&str>) -> Option<Failure> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg)?;
    match error.kind() {
        ErrorKind::UnknownArgument if command == Some("build") && !argument.starts_with('-') => Some(Failure::usage(
            format!("a build has one context, and {argument:?} is one too many"),
            "every option with a value stands before it: rbuild build -t NAME -f FILE DIR; a value with spaces is quoted",
        )),
        ErrorKind::UnknownArgument
            if argument == "--json" && command.is_some_and(|command| OURS.contains(&command)) =>
        {
            Some(Failure::usage("--json is no option here", "write --format json"))
        }
        ErrorKind::TooManyValues => Some(Failure::usage(
            format!("{argument} is a switch, and {:?} is no value of it", text(ContextKind::InvalidValue)?),
            format!("write {argument}, or {argument}=false to switch it off"),
        )),
        ErrorKind::ValueValidation => {
            let value = text(ContextKind::InvalidValue)?;
            let source = std::error::Error::source(error)?.to_string();
            source.starts_with("invalid reference format").then_some(())?;
            Some(Failure::usage(
                format!("invalid value '{value}' for '{argument}': {source}"),
                of_name(value, argument)?,
            ))
        }
        _ => None,
    }
}

/// What to do about a name that is no image's.
fn of_name(value: &str, argument: &str) -> Option<String> {
    if value.is_empty() {
        return Some(format!("{argument} has an empty value: is a variable of your shell not set?"));
    }
    if argument.starts_with("--tag") && (value.starts_with('.') || value.starts_with('/')) {
        return Some(format!("--tag has taken the context as its value: rbuild -t NAME {value}"));
    }
    if let Some((_, rest)) = value.split_once("://") {
        return Some(format!("names of images have no scheme: write {rest}"));
    }
    let mended: String = value.trim().to_lowercase().replace(' ', "-");
    if mended != value && mended.parse::<ImageRef>().is_ok() {
        return Some(format!("write {mended}"));
    }
    (value.matches(':').count() > 1).then(|| "a name has one tag, after its last colon: NAME:TAG".to_owned())
}

/// A build without context whose last option has taken a directory as its value.
pub(super) fn swallowed_context(arguments: &[OsString], settings: &Settings) -> Option<Failure> {
    let [.., option, last] = arguments else { return None };
    let (option, last) = (option.to_str()?, last.to_str()?);
    // Any other directory's name may well have been meant as the value.
    let is_path = last.starts_with(['.', '/']) || last.ends_with('/') || matches!(option, "-f" | "--file");
    let swallowed = option.starts_with('-') && !option.contains('=') && is_path && settings.absolute(last).is_dir();
    swallowed.then(|| {
        Failure::usage(
            format!("no build context was given: {option} has taken {last:?} as its value"),
            format!("give {option} a value of its own: rbuild {option} VALUE {last}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(word: &str) -> Option<String> {
        no_command(word, &Settings::from_environment()).and_then(|found| found.help().map(str::to_owned))
    }

    #[test]
    fn a_mistyped_command_is_no_build() {
        assert_eq!(told("rnu").as_deref(), Some("did you mean `rbuild run`?"));
        assert_eq!(told("imagse").as_deref(), Some("did you mean `rbuild images`?"));
        assert_eq!(told("biuld").as_deref(), Some("did you mean `rbuild build`?"));
        assert_eq!(told("pul").as_deref(), Some("did you mean `rbuild pull`?"));
        for fine in ["frontend", "./rnu", ".", "-", "src", "-t"] {
            assert_eq!(told(fine), None, "{fine}");
        }
    }

    #[test]
    fn what_rbuild_has_not_is_no_command_of_its_own() {
        let command = super::super::command();
        for word in ELSEWHERE.iter().flat_map(|(words, _)| words.iter()) {
            assert!(command.find_subcommand(word).is_none(), "{word}");
            assert!(told(word).is_some_and(|help| !help.starts_with("did you mean")), "{word}");
        }
    }

    #[test]
    fn names_are_mended_where_that_is_sure() {
        let tag = |value: &str| of_name(value, "--tag <NAME>");
        assert_eq!(tag("App").as_deref(), Some("write app"));
        assert_eq!(tag("my app").as_deref(), Some("write my-app"));
        assert_eq!(tag("http://r.example/x").as_deref(), Some("names of images have no scheme: write r.example/x"));
        assert_eq!(tag(".").as_deref(), Some("--tag has taken the context as its value: rbuild -t NAME ."));
        assert!(tag("a:b:c").unwrap().contains("one tag"));
        assert!(tag("").unwrap().contains("not set"));
        assert_eq!(tag("app."), None);
    }
}
