//! What is executed: Docker's rules for `ENTRYPOINT`, `CMD`, `--entrypoint` and the words behind the image.
//!
//! The image's command belongs to the image's entry point: once either the user's command or the user's entry point is
//! there, it is left out. An empty `--entrypoint` takes the entry point away.

use rbuild_image::RuntimeConfig;

use crate::request::RunRequest;

/// Neither image nor user said what to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no command specified")]
pub struct NoCommand;

/// Entry point and command.
pub(super) fn merge(image: &RuntimeConfig, request: &RunRequest) -> Result<(Vec<String>, Vec<String>), NoCommand> {
    let of_image = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let (entrypoint, command) = match &request.entrypoint {
        Some(program) if program.is_empty() => (Vec::new(), request.command.clone()),
        Some(program) => (vec![program.clone()], request.command.clone()),
        None if request.command.is_empty() => (of_image(&image.entrypoint), of_image(&image.cmd)),
        None => (of_image(&image.entrypoint), request.command.clone()),
    };
    // An image may also carry `[""]`, which Docker takes for no entry point.
    let entrypoint = if entrypoint.len() == 1 && entrypoint[0].is_empty() { Vec::new() } else { entrypoint };
    if entrypoint.is_empty() && command.is_empty() { Err(NoCommand) } else { Ok((entrypoint, command)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn entry_point_and_command_merge_as_in_docker() {
        // image's entry point, image's command, --entrypoint, words behind the image, what is executed
        for (entrypoint, cmd, flag, args, want) in [
            (None, Some("sh"), None, "", Some("sh")),
            (None, Some("sh"), None, "ls -l", Some("ls -l")),
            (Some("init --"), Some("serve"), None, "", Some("init -- serve")),
            (Some("init --"), Some("serve"), None, "check", Some("init -- check")),
            (Some("init --"), None, None, "", Some("init --")),
            (Some("init --"), Some("serve"), Some("sh"), "", Some("sh")),
            (Some("init --"), Some("serve"), Some("sh"), "-c x", Some("sh -c x")),
            (Some("init --"), Some("serve"), Some(""), "ls", Some("ls")),
            (Some("init --"), Some("serve"), Some(""), "", None),
            (None, None, None, "", None),
            (None, None, None, "ls", Some("ls")),
            (None, None, Some("sh"), "", Some("sh")),
        ] {
            let image =
                RuntimeConfig { entrypoint: entrypoint.map(words), cmd: cmd.map(words), ..RuntimeConfig::default() };
            let request =
                RunRequest { entrypoint: flag.map(str::to_owned), command: words(args), ..RunRequest::default() };
            let got = merge(&image, &request).ok().map(|(mut argv, command)| {
                argv.extend(command);
                argv
            });
            assert_eq!(got, want.map(words), "{entrypoint:?} {cmd:?} {flag:?} {args:?}");
        }
    }

    #[test]
    fn an_entry_point_with_blanks_is_one_program() {
        let request = RunRequest { entrypoint: Some("/a b".into()), ..RunRequest::default() };
        assert_eq!(merge(&RuntimeConfig::default(), &request), Ok((vec!["/a b".to_owned()], Vec::new())));
    }

    #[test]
    fn an_empty_entry_point_of_the_image_is_none() {
        let image =
            RuntimeConfig { entrypoint: Some(vec![String::new()]), cmd: Some(words("sh")), ..RuntimeConfig::default() };
        assert_eq!(merge(&image, &RunRequest::default()), Ok((Vec::new(), words("sh"))));
    }
}
