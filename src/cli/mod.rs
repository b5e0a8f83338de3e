//! The command line: `clap` definitions, one file per command, and what all commands share.
//!
//! Each command is: arguments → plain request → one library call → print. `build` is the default command, so
//! `rbuild -t x .` and `rbuild build -t x .` are the same.

mod build;
mod cache;
mod completion;
mod confirm;
mod docker_types;
mod doctor;
#[cfg(test)]
mod documented_flags;
mod go_flags;
mod go_template;
mod graph;
mod help;
mod history;
mod images;
mod inspect;
mod isolation;
mod limits;
mod list_format;
mod load_save;
mod login;
mod machine_output;
mod manifest;
mod mistakes;
mod network;
mod prune_filter;
mod pull;
pub mod report;
mod run;
mod single;
mod stacking;
mod system;
pub(crate) mod table;
mod time;
mod usage;
mod verify;
mod volume;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use rbuild_executor::StackingChoice;

use crate::config::Settings;
use crate::engine::Engine;
use crate::exit_code::Exit;
use report::Failure;

/// What `--version` says: version and commit.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("RBUILD_COMMIT"), ")");

const AFTER_HELP: &str = "\
Examples:
  rbuild -t hello:0.1 .                     build the Dockerfile in this directory
  rbuild run --rm hello:0.1                 run what was built
  rbuild -o type=oci,dest=hello.tar .       write an OCI archive for other tools
  rbuild cache ls                           what is cached, how big, since when

`build` is the default command: everything that is no other command is its arguments.
A context whose name is a command's is written with a path: rbuild ./images";

/// Builds Dockerfiles and runs the images: no daemon, content-hash caching, confined steps, OCI images.
#[derive(Debug, Parser)]
#[command(name = "rbuild", version = VERSION, after_help = AFTER_HELP, disable_help_subcommand = true)]
#[command(arg_required_else_help = true, propagate_version = false)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// Options that stand before a command.
#[derive(Debug, clap::Args)]
struct GlobalArgs {
    /// Where images, layers and the cache are kept [default: /var/lib/rbuild as root, else $XDG_DATA_HOME/rbuild]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Developers' log on standard error: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<tracing::Level>,
    /// What steps and containers are confined with: auto, root, or rootless (a user namespace) [default: auto, or RBUILD_ISOLATION]
    #[arg(long, value_enum, value_name = "KIND")]
    isolation: Option<isolation::Isolation>,
    /// What layers are put over each other with: auto, overlayfs, fuse-overlayfs or copy [default: auto, or RBUILD_OVERLAY]
    #[arg(long, value_enum, value_name = "KIND")]
    overlay: Option<stacking::Overlay>,
    /// How new layers are kept: auto, erofs (as tars, never unpacked), or directory [default: auto, or RBUILD_SNAPSHOTTER]
    #[arg(long, value_name = "KIND", value_parser = ["auto", "erofs", "directory"])]
    snapshotter: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image from a Dockerfile (the default command)
    #[command(visible_alias = "b")]
    Build(Box<build::BuildArgs>),
    /// Run a command in a new container
    Run(Box<run::RunArgs>),
    /// Create a container without starting it
    Create(Box<run::CreateArgs>),
    /// Execute a command in a container that runs
    Exec(run::ExecArgs),
    /// List containers
    Ps(run::PsArgs),
    /// Remove containers
    Rm(run::RmArgs),
    /// Start stopped containers
    Start(run::StartArgs),
    /// Connect to a running container
    Attach(run::AttachArgs),
    /// Show what a container wrote
    Logs(run::LogsArgs),
    /// Stop running containers
    Stop(run::StopArgs),
    /// Stop containers and start them again
    Restart(run::RestartArgs),
    /// Send a signal to running containers
    Kill(run::KillArgs),
    /// Wait until containers have ended; print their exit codes
    Wait(run::WaitArgs),
    /// Manage containers
    #[command(subcommand)]
    Container(run::ContainerCommand),
    /// Manage volumes
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Manage networks
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// List the ports of this machine that lead to a container
    Port(run::PortArgs),
    /// Freeze all processes of containers
    Pause(run::NamesArgs),
    /// Let frozen containers go on
    Unpause(run::NamesArgs),
    /// Give a container another name
    Rename(run::RenameArgs),
    /// Change limits and policy of containers
    Update(run::UpdateArgs),
    /// List the processes of a container
    Top(run::TopArgs),
    /// Show what containers use
    Stats(run::StatsArgs),
    /// Copy files into or out of a container
    Cp(run::CopyArgs),
    /// Show what a container has changed in its image
    Diff(run::DiffArgs),
    /// Show what happens to containers
    Events(run::EventsArgs),
    /// Write a container's file system as a tar archive
    Export(run::ExportArgs),
    /// List images
    Images(images::ListArgs),
    /// Manage images
    #[command(subcommand)]
    Image(images::ImageCommand),
    /// Give an image another name
    Tag(images::TagArgs),
    /// Remove images
    Rmi(images::RemoveArgs),
    /// Make an image of a container and its changes
    Commit(images::CommitArgs),
    /// Look for images on Docker Hub, or in another registry
    Search(images::SearchArgs),
    /// Show details of containers, images and volumes as JSON
    Inspect(inspect::InspectArgs),
    /// Read images from an archive
    Load(load_save::LoadArgs),
    /// Write images to an archive
    Save(load_save::SaveArgs),
    /// Make an image from a root file system tar
    Import(load_save::ImportArgs),
    /// Fetch an image from a registry
    Pull(pull::PullArgs),
    /// Send an image to a registry
    Push(pull::PushArgs),
    /// See what registries say of images
    #[command(subcommand)]
    Manifest(manifest::ManifestCommand),
    /// Build an image again and say whether it is the same
    Verify(Box<verify::VerifyArgs>),
    /// Store a registry's credentials
    Login(login::LoginArgs),
    /// Forget a registry's credentials
    Logout(login::LogoutArgs),
    /// See and prune what builds left for later ones
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Examine this host: what works, what is degraded, what to do
    Doctor(doctor::DoctorArgs),
    /// See the builds that were done here
    #[command(subcommand)]
    History(history::HistoryCommand),
    /// Write a recorded build as a page: timeline, graph, sizes, logs
    Report(history::page::ReportArgs),
    /// Draw the steps of a build, or of a Dockerfile
    Graph(graph::GraphArgs),
    /// The cache, as Docker spells it: du and prune
    #[command(subcommand, visible_alias = "buildx")]
    Builder(cache::BuilderCommand),
    /// The process that runs a container; started by rbuild itself
    #[command(hide = true)]
    ContainerMonitor(run::MonitorArgs),
    /// The process that runs a command in a container; started by rbuild itself
    #[command(hide = true)]
    ContainerExec(run::MonitorArgs),
    /// The process that takes down what a build had of a network; started by rbuild itself
    #[command(hide = true)]
    NetworkKeeper(network::KeeperArgs),
    /// Show what this rbuild works with
    Info(system::InfoArgs),
    /// Space, events, and removing what is not needed
    #[command(subcommand)]
    System(system::SystemCommand),
    /// Write the completions of a shell: bash, zsh, fish, elvish or powershell
    Completion(completion::CompletionArgs),
    /// Write the manual pages into a directory
    Man(completion::ManArgs),
    /// Show rbuild's version
    Version(system::VersionArgs),
}

impl Command {
    /// Whether the command may start programs of images.
    fn runs_programs(&self) -> bool {
        match self {
            Self::Build(_) | Self::Verify(_) | Self::Run(_) | Self::Create(_) | Self::Start(_) => true,
            Self::System(command) => matches!(command, system::SystemCommand::StartContainers(_)),
            _ => false,
        }
    }

    /// The running container that the command works inside of, as it was typed: it has to be done in that one's user namespace.
    fn works_inside(&self) -> Option<&str> {
        match self {
            Self::Exec(args) | Self::Container(run::ContainerCommand::Exec(args)) => Some(args.container()),
            _ => None,
        }
    }

    /// Whether the command needs the store, and with it the powers to read all of it.
    fn uses_store(&self) -> bool {
        !matches!(
            self,
            Self::Version(_)
                | Self::Completion(_)
                | Self::Man(_)
                | Self::Login(_)
                | Self::Logout(_)
                | Self::Manifest(_)
        )
    }
}

/// Runs the program: `arguments` include its own name.
pub fn main(arguments: Vec<OsString>) -> Exit {
    let settings = Settings::from_environment();
    let typed = with_default_command(arguments.clone());
    if let Some(failure) = added_build(&arguments, &typed).and_then(|word| mistakes::no_command(word, &settings)) {
        return report::failure(&failure, &settings);
    }
    let read = |command| {
        let matches = go_flags::reading(command, &typed).try_get_matches_from(&typed)?;
        Cli::from_arg_matches(&matches)
    };
    let single = word_of(&typed).and_then(single::command_line).and_then(|command| read(command).ok());
    let cli = match single.map_or_else(|| read(command()), Ok) {
        Ok(cli) => cli,
        Err(error) => {
            let command = word_of(&typed);
            return match mistakes::of_refusal(&error, command) {
                Some(failure) => report::failure(&failure.with_exit(usage::exit(&error, command)), &settings),
                None => usage::show(&error, command),
            };
        }
    };
    start_log(cli.global.log_level);
    let root = cli.global.root.map_or_else(|| settings.root.clone(), |root| settings.absolute(root));
    let stacking = match stacking::choose(cli.global.overlay, &settings) {
        Ok(stacking) => stacking,
        Err(failure) => return report::failure(&failure, &settings),
    };
    let snapshotter = cli.global.snapshotter.or_else(|| settings.snapshotter.clone());
    let settings = Settings { root, stacking, snapshotter, is_program: true, ..settings };
    if let Command::Build(args) = &cli.command
        && args.context().is_none()
        && let Some(failure) = mistakes::swallowed_context(&typed, &settings)
    {
        return report::failure(&failure, &settings);
    }
    match isolation::choose(cli.global.isolation, &cli.command, &settings, &arguments)
        .and_then(|()| dispatch(cli.command, &settings))
    {
        Ok(exit) => exit,
        Err(failure) => report::failure(&usage::as_dockers(failure, word_of(&typed)), &settings),
    }
}

/// The command that was typed.
fn word_of(typed: &[OsString]) -> Option<&str> {
    typed.get(first_word(typed)).and_then(|word| word.to_str())
}

/// The command line's definitions, with all that help says.
fn command() -> clap::Command {
    help::complete(Cli::command())
}

fn dispatch(command: Command, settings: &Settings) -> Result<Exit, Failure> {
    if let Command::Version(args) = &command {
        return system::version(args);
    }
    match &command {
        Command::Completion(args) => return completion::complete(args),
        Command::Man(args) => return completion::manual(args, settings),
        _ => {}
    }
    let engine = Engine::new(settings.clone());
    match command {
        Command::Build(args) => match args.context().and_then(|word| mistakes::no_command(word, settings)) {
            Some(mistake) => Err(mistake),
            None => build::execute(*args, &engine),
        },
        Command::Run(args) => run::execute(*args, &engine),
        Command::Create(args) => run::create(*args, &engine),
        Command::Exec(args) => run::exec(&args, &engine),
        Command::Ps(args) => run::list(&args, &engine),
        Command::Rm(args) => run::remove(&args, &engine),
        Command::Start(args) => run::start(&args, &engine),
        Command::Attach(args) => run::attach(&args, &engine),
        Command::Logs(args) => run::logs(&args, &engine),
        Command::Stop(args) => run::stop(&args, &engine),
        Command::Restart(args) => run::restart(&args, &engine),
        Command::ContainerMonitor(args) => run::monitor(&args, &engine),
        Command::ContainerExec(args) => run::attend(&args, &engine),
        Command::NetworkKeeper(args) => network::keep(&args, &engine),
        Command::Kill(args) => run::kill(&args, &engine),
        Command::Wait(args) => run::wait(&args, &engine),
        Command::Container(command) => run::execute_container(command, &engine),
        Command::Volume(command) => volume::execute(command, &engine),
        Command::Network(command) => network::execute(command, &engine),
        Command::Port(args) => run::port(&args, &engine),
        Command::Pause(args) => run::pause(&args, &engine),
        Command::Unpause(args) => run::unpause(&args, &engine),
        Command::Rename(args) => run::rename(&args, &engine),
        Command::Update(args) => run::update(&args, &engine),
        Command::Top(args) => run::top(&args, &engine),
        Command::Stats(args) => run::stats(&args, &engine),
        Command::Cp(args) => run::copy(&args, &engine),
        Command::Diff(args) => run::diff(&args, &engine),
        Command::Events(args) => run::events(&args, &engine),
        Command::Export(args) => run::export(&args, &engine),
        Command::Images(args) => images::list(&args, &engine),
        Command::Image(command) => images::execute(command, &engine),
        Command::Tag(args) => images::tag(&args, &engine),
        Command::Rmi(args) => images::remove(&args, &engine),
        Command::Commit(args) => images::commit(&args, &engine),
        Command::Search(args) => images::search(&args, &engine),
        Command::Inspect(args) => inspect::inspect(&args, &engine),
        Command::Load(args) => load_save::load(&args, &engine),
        Command::Save(args) => load_save::save(&args, &engine),
        Command::Import(args) => load_save::import(&args, &engine),
        Command::Pull(args) => pull::pull(&args, &engine),
        Command::Push(args) => pull::push(&args, &engine),
        Command::Manifest(command) => manifest::execute(&command, &engine),
        Command::Verify(args) => verify::execute(&args, &engine),
        Command::Login(args) => login::login(&args, &engine),
        Command::Logout(args) => login::logout(&args, &engine),
        Command::Cache(command) => cache::execute(&command, &engine),
        Command::Doctor(args) => doctor::execute(&args, &engine),
        Command::History(command) => history::execute(&command, &engine),
        Command::Report(args) => history::page::execute(&args, &engine),
        Command::Graph(args) => graph::execute(&args, &engine),
        Command::Builder(command) => cache::execute_builder(&command, &engine),
        Command::Info(args) => system::info(&args, &engine),
        Command::System(command) => system::execute(&command, &engine),
        Command::Version(_) | Command::Completion(_) | Command::Man(_) => {
            unreachable!("answered before the store is opened")
        }
    }
}

/// What layers are put over each other with, as the environment says.
pub(crate) fn stacking_of(settings: &Settings) -> Result<StackingChoice, Failure> {
    stacking::choose(None, settings)
}

fn start_log(level: Option<tracing::Level>) {
    if let Some(level) = level {
        tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
    }
}

/// Where the first word behind the global options and their values is.
fn first_word(arguments: &[OsString]) -> usize {
    let mut at = 1;
    while let Some(word) = arguments.get(at).and_then(|word| word.to_str()) {
        match word {
            "--root" | "--log-level" | "--isolation" | "--overlay" | "--snapshotter" => at += 2,
            _ if ["--root=", "--log-level=", "--isolation=", "--overlay=", "--snapshotter="]
                .iter()
                .any(|option| word.starts_with(option)) =>
            {
                at += 1;
            }
            _ => break,
        }
    }
    at
}

/// Puts `build` before arguments that name no command: after the global options and their values, a word that is a
/// command stays, anything else belongs to `build`.
fn with_default_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let at = first_word(&arguments);
    let is_command = |word: &OsStr| word.to_str().is_some_and(single::is_command);
    let word = |at: usize| arguments.get(at).and_then(|word| word.to_str());
    if word(at) == Some("help") {
        // As Docker has it: `help run` is `run --help`.
        arguments.remove(at);
        arguments.push(OsString::from("--help"));
    }
    let word = |at: usize| arguments.get(at).and_then(|word| word.to_str());
    if matches!((word(at), word(at + 1)), (Some("buildx" | "builder" | "image"), Some("build" | "b"))) {
        // Docker's other ways to say it.
        arguments.remove(at);
    }
    if arguments.get(at).is_some_and(|word| word == "history") && names_an_image(&arguments[at + 1..]) {
        arguments.insert(at, OsString::from("image"));
    }
    let alone = arguments.len() == at + 1;
    let asks = |word: &OsString| ["-h", "--help", "-V", "--version"].iter().any(|known| word == *known);
    if arguments.get(at).is_some_and(|word| !(is_command(word) || alone && asks(word))) {
        arguments.insert(at, OsString::from("build"));
    }
    arguments
}

/// The word before which `build` was put, if it was.
fn added_build<'a>(typed: &[OsString], words: &'a [OsString]) -> Option<&'a str> {
    let at = typed.iter().zip(words).position(|(typed, word)| typed != word)?;
    (words.len() > typed.len() && words[at] == "build").then(|| words.get(at + 1)?.to_str()).flatten()
}

/// Whether what follows `history` is an image, as in Docker, rather than one of the commands about builds.
fn names_an_image(rest: &[OsString]) -> bool {
    let Some(history) = single::definition("history") else { return false };
    let is_option = |word: &&OsString| word.as_encoded_bytes().starts_with(b"-");
    let first = rest.iter().enumerate().find(|(at, word)| {
        let is_value = at.checked_sub(1).is_some_and(|before| rest[before] == "--format");
        !is_option(word) && !is_value
    });
    first.is_some_and(|(_, word)| {
        !history.get_subcommands().any(|sub| word == sub.get_name() || sub.get_all_aliases().any(|a| word == a))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(line: &str) -> String {
        let words = std::iter::once("rbuild").chain(line.split_whitespace()).map(OsString::from).collect();
        let out = with_default_command(words);
        out[1..].iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn build_is_the_default_command() {
        for (typed, meant) in [
            ("-t hello:0.1 .", "build -t hello:0.1 ."),
            (".", "build ."),
            ("-", "build -"),
            ("build -t x .", "build -t x ."),
            ("--root /r -t x .", "--root /r build -t x ."),
            ("--root=/r load -i a.tar", "--root=/r load -i a.tar"),
            ("--root /r --log-level debug images", "--root /r --log-level debug images"),
            ("buildx build -t x .", "build -t x ."),
            ("--root /r image build .", "--root /r build ."),
            ("builder prune", "builder prune"),
            ("run hello", "run hello"),
            ("history ls", "history ls"),
            ("history logs app", "history logs app"),
            ("history", "history"),
            ("history --help", "history --help"),
            ("history app:1", "image history app:1"),
            ("--root /r history -q --format json app", "--root /r image history -q --format json app"),
            ("./images", "build ./images"),
            ("--version", "--version"),
            ("--help", "--help"),
            ("help", "--help"),
            ("help run", "run --help"),
            ("--root /r help cache why", "--root /r cache why --help"),
            ("", ""),
        ] {
            assert_eq!(completed(typed), meant, "{typed:?}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_command_and_option_has_help() {
        fn check(command: &clap::Command, name: &str, missing: &mut Vec<String>) {
            if command.get_about().is_none() {
                missing.push(name.to_owned());
            }
            let silent = command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_help().is_none());
            missing.extend(silent.map(|arg| format!("{name} {}", arg.get_id())));
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                check(sub, &format!("{name} {}", sub.get_name()), missing);
            }
        }
        let mut missing = Vec::new();
        check(&command(), "rbuild", &mut missing);
        assert_eq!(missing, Vec::<String>::new());
    }
}
