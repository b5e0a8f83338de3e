//! The definitions of one command, without those of all others.
//!
//! To define every command and option takes longer than many a command. So a command line is first read with the
//! definitions of its own command alone; only where that fails, help included, it is read again with all of them, which say
//! what is wrong and what was meant.

use clap::{Args, Command, Subcommand};

use super::{
    GlobalArgs, build, cache, completion, doctor, graph, history, images, inspect, load_save, login, manifest,
};
use super::{network, pull, run, system, verify, volume};

/// The whole command line, as far as one command needs it; `None` where `word` is none.
pub(super) fn command_line(word: &str) -> Option<Command> {
    Some(GlobalArgs::augment_args(Command::new("rbuild")).subcommand(definition(word)?))
}

/// Whether `word` is a command, or another name of one.
pub(super) fn is_command(word: &str) -> bool {
    name(word).is_some()
}

macro_rules! commands {
    ($($name:literal $(| $alias:literal)* => $define:path),* $(,)?) => {
        /// The name of the command that `word` is.
        fn name(word: &str) -> Option<&'static str> {
            match word {
                $($name $(| $alias)* => Some($name),)*
                _ => None,
            }
        }

        /// The command that `word` is, with its options and what is below it.
        pub(super) fn definition(word: &str) -> Option<Command> {
            let name = name(word)?;
            let command = Command::new(name);
            Some(match name {
                $($name => $define(command)$(.alias($alias))*,)*
                _ => return None,
            })
        }
    };
}

commands! {
    "build" | "b" => build::BuildArgs::augment_args,
    "run" => run::RunArgs::augment_args,
    "create" => run::CreateArgs::augment_args,
    "exec" => run::ExecArgs::augment_args,
    "ps" => run::PsArgs::augment_args,
    "rm" => run::RmArgs::augment_args,
    "start" => run::StartArgs::augment_args,
    "attach" => run::AttachArgs::augment_args,
    "logs" => run::LogsArgs::augment_args,
    "stop" => run::StopArgs::augment_args,
    "restart" => run::RestartArgs::augment_args,
    "kill" => run::KillArgs::augment_args,
    "wait" => run::WaitArgs::augment_args,
    "container" => run::ContainerCommand::augment_subcommands,
    "volume" => volume::VolumeCommand::augment_subcommands,
    "network" => network::NetworkCommand::augment_subcommands,
    "port" => run::PortArgs::augment_args,
    "pause" => run::NamesArgs::augment_args,
    "unpause" => run::NamesArgs::augment_args,
    "rename" => run::RenameArgs::augment_args,
    "update" => run::UpdateArgs::augment_args,
    "top" => run::TopArgs::augment_args,
    "stats" => run::StatsArgs::augment_args,
    "cp" => run::CopyArgs::augment_args,
    "diff" => run::DiffArgs::augment_args,
    "events" => run::EventsArgs::augment_args,
    "export" => run::ExportArgs::augment_args,
    "images" => images::ListArgs::augment_args,
    "image" => images::ImageCommand::augment_subcommands,
    "tag" => images::TagArgs::augment_args,
    "rmi" => images::RemoveArgs::augment_args,
    "commit" => images::CommitArgs::augment_args,
    "search" => images::SearchArgs::augment_args,
    "inspect" => inspect::InspectArgs::augment_args,
    "load" => load_save::LoadArgs::augment_args,
    "save" => load_save::SaveArgs::augment_args,
    "import" => load_save::ImportArgs::augment_args,
    "pull" => pull::PullArgs::augment_args,
    "push" => pull::PushArgs::augment_args,
    "manifest" => manifest::ManifestCommand::augment_subcommands,
    "verify" => verify::VerifyArgs::augment_args,
    "login" => login::LoginArgs::augment_args,
    "logout" => login::LogoutArgs::augment_args,
    "cache" => cache::CacheCommand::augment_subcommands,
    "doctor" => doctor::DoctorArgs::augment_args,
    "history" => history::HistoryCommand::augment_subcommands,
    "report" => history::page::ReportArgs::augment_args,
    "graph" => graph::GraphArgs::augment_args,
    "builder" | "buildx" => cache::BuilderCommand::augment_subcommands,
    "container-monitor" => run::MonitorArgs::augment_args,
    "container-exec" => run::MonitorArgs::augment_args,
    "network-keeper" => network::KeeperArgs::augment_args,
    "info" => system::InfoArgs::augment_args,
    "system" => system::SystemCommand::augment_subcommands,
    "completion" => completion::CompletionArgs::augment_args,
    "man" => completion::ManArgs::augment_args,
    "version" => system::VersionArgs::augment_args,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    /// Everything that decides how words are read.
    fn described(command: &Command) -> Vec<String> {
        let mut lines: Vec<String> = command.get_arguments().map(|arg| format!("{arg:?}")).collect();
        let groups = command.get_groups().map(|group| format!("{group:?}"));
        lines.extend(groups);
        for sub in command.get_subcommands() {
            let aliases: Vec<&str> = sub.get_all_aliases().collect();
            lines.push(format!("{} {aliases:?}", sub.get_name()));
            lines.extend(described(sub));
        }
        lines
    }

    #[test]
    fn each_command_is_what_it_is_among_all() {
        let all = Cli::command();
        let globals = command_line("build").unwrap();
        let arguments = |command: &Command| command.get_arguments().map(|arg| format!("{arg:?}")).collect::<Vec<_>>();
        assert_eq!(arguments(&globals), arguments(&all));
        for command in all.get_subcommands() {
            let single = definition(command.get_name()).unwrap_or_else(|| panic!("{}", command.get_name()));
            assert_eq!(described(&single), described(command), "{}", command.get_name());
            let aliases: Vec<&str> = command.get_all_aliases().collect();
            assert_eq!(single.get_all_aliases().collect::<Vec<_>>(), aliases, "{}", command.get_name());
            assert!(aliases.iter().all(|alias| name(alias) == Some(command.get_name())));
            assert_eq!(single.is_disable_help_flag_set(), command.is_disable_help_flag_set(), "{}", command.get_name());
            assert_eq!(single.is_trailing_var_arg_set(), command.is_trailing_var_arg_set(), "{}", command.get_name());
        }
        assert!(!is_command("nonsense") && !is_command("help"));
    }
}
