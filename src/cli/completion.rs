//! `rbuild completion` and `rbuild man`: completions and manual pages, from the same definitions as the command line itself.

use std::path::{Path, PathBuf};

use clap::{Args as _, Command, CommandFactory};
use clap_complete::Shell;

use super::report::{self, Failure};
use super::{Cli, build};
use crate::config::Settings;
use crate::exit_code::Exit;

/// Arguments of `completion`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rbuild completion bash > /etc/bash_completion.d/rbuild
  rbuild completion zsh > \"${fpath[1]}/_rbuild\"
  rbuild completion fish > ~/.config/fish/completions/rbuild.fish")]
pub(super) struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Where the pages are written: rbuild.1 and one for each command
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Runs `rbuild completion`.
pub(super) fn complete(args: &CompletionArgs) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut offered(&with_build_arguments()), "rbuild", &mut text);
    report::answer_bytes(&text)?;
    Ok(Exit::Success)
}

/// The command line as people type it: `build` is the default command, so its options stand at the top, too.
fn with_build_arguments() -> Command {
    let command = Cli::command();
    let names: Vec<String> = command.get_arguments().map(|argument| argument.get_id().to_string()).collect();
    let taken = |argument: &clap::Arg| names.iter().any(|name| argument.get_id() == name.as_str());
    let build = build::BuildArgs::augment_args(Command::new("build"));
    let shown = build.get_opts().filter(|argument| !argument.is_hide_set() && !taken(argument));
    let shown: Vec<clap::Arg> = shown.cloned().collect();
    command.args(shown)
}

/// A command and those below it without what people do not type: the shells' generators know nothing of hidden commands.
fn offered(command: &Command) -> Command {
    let mut shown = Command::new(command.get_name().to_owned())
        .args(command.get_arguments().cloned())
        .groups(command.get_groups().cloned())
        .disable_help_flag(command.is_disable_help_flag_set())
        .disable_version_flag(command.is_disable_version_flag_set())
        .disable_help_subcommand(command.is_disable_help_subcommand_set())
        .visible_aliases(command.get_visible_aliases().map(str::to_owned).collect::<Vec<_>>())
        .subcommands(command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(offered));
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        shown = shown.version(version.to_owned());
    }
    shown
}

/// Runs `rbuild man`.
pub(super) fn manual(args: &ManArgs, settings: &Settings) -> Result<Exit, Failure> {
    let directory = settings.absolute(&args.directory);
    std::fs::create_dir_all(&directory).map_err(|error| failed(&directory, &error))?;
    let mut root = super::command();
    root.build();
    pages(&root, "rbuild", &directory)?;
    Ok(Exit::Success)
}

/// Writes the page of a command and those of its own commands; `rbuild cache ls` is in `rbuild-cache-ls.1`.
fn pages(command: &Command, name: &str, directory: &Path) -> Result<(), Failure> {
    let page = clap_mangen::Man::new(command.clone().display_name(name.to_owned()))
        .title(name)
        .source(concat!("rbuild ", env!("CARGO_PKG_VERSION")))
        .manual("rbuild");
    let mut text = Vec::new();
    let file = directory.join(format!("{name}.1"));
    page.render(&mut text).map_err(|error| failed(&file, &error))?;
    // A page that is the same whenever it is made has no date; without a word in its place the program's name would be it.
    let text = String::from_utf8_lossy(&text).replacen(" 1  \"", " 1 \"\" \"", 1);
    std::fs::write(&file, text).map_err(|error| failed(&file, &error))?;
    let mut shown = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
    shown.try_for_each(|sub| pages(sub, &format!("{name}-{}", sub.get_name()), directory))
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot write {}: {error}", path.display()))
}
