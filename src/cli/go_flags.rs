//! Flags as Docker's own reader takes them: `--rm=true` and `--rm=false` where a flag is a switch, and a flag that is given
//! twice counts as it was given last.
//!
//! The definitions stay plain switches, since help, manual pages and completions are made from them; only where a command
//! line has a switch with a value are they read in their wider form.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// The words for yes and no that Go's `strconv.ParseBool` knows.
const WORDS: [(&str, bool); 12] = [
    ("1", true),
    ("t", true),
    ("T", true),
    ("true", true),
    ("TRUE", true),
    ("True", true),
    ("0", false),
    ("f", false),
    ("F", false),
    ("false", false),
    ("FALSE", false),
    ("False", false),
];

/// The definitions with which a command line is read.
pub(super) fn reading(command: Command, arguments: &[OsString]) -> Command {
    let command = command.args_override_self(true);
    if arguments.iter().any(|argument| argument.to_str().is_some_and(sets_a_switch)) {
        switches(command)
    } else {
        command
    }
}

/// Whether an argument may be a switch with a value; what else looks so is read alike by both forms.
fn sets_a_switch(argument: &str) -> bool {
    argument.starts_with('-') && argument.rsplit_once('=').is_some_and(|(_, value)| truth(value).is_some())
}

fn truth(word: &str) -> Option<bool> {
    WORDS.iter().find(|(known, _)| *known == word).map(|(_, truth)| *truth)
}

fn switches(command: Command) -> Command {
    command.mut_args(switch).mut_subcommands(switches)
}

fn switch(arg: Arg) -> Arg {
    // One with a default of its own is on, and takes values already.
    if !matches!(arg.get_action(), ArgAction::SetTrue) || !arg.get_default_values().is_empty() {
        return arg;
    }
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("false")
        .hide_default_value(true)
        .value_name("BOOL")
        .value_parser(|word: &str| truth(word).ok_or("want true or false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(bool, bool, Option<String>, Vec<String>), clap::Error> {
        let switch = |name: &'static str, short| Arg::new(name).short(short).long(name).action(ArgAction::SetTrue);
        let run = Command::new("run")
            .args([switch("rm", 'r'), switch("tty", 't'), Arg::new("name").long("name")])
            .arg(Arg::new("rest").num_args(0..).trailing_var_arg(true));
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let command = reading(Command::new("x").subcommand(run), &words);
        let matches = command.try_get_matches_from(words)?;
        let run = matches.subcommand_matches("run").unwrap();
        let rest = run.get_many::<String>("rest").unwrap_or_default().cloned().collect();
        Ok((run.get_flag("rm"), run.get_flag("tty"), run.get_one::<String>("name").cloned(), rest))
    }

    #[test]
    fn switches_take_values_and_the_last_one_counts() {
        for (line, rm, tty) in [
            ("x run", false, false),
            ("x run --rm", true, false),
            ("x run --rm=true -t=1", true, true),
            ("x run --rm=false", false, false),
            ("x run --rm --rm", true, false),
            ("x run --rm --rm=false --tty=T", false, true),
            ("x run -rt --name=0", true, true),
        ] {
            let read = read(line).unwrap();
            assert_eq!((read.0, read.1), (rm, tty), "{line}");
        }
        assert_eq!(read("x run --name a --name b").unwrap().2.as_deref(), Some("b"));
    }

    #[test]
    fn a_switch_that_is_on_stays_on() {
        let on = Arg::new("on").long("on").action(ArgAction::SetTrue).num_args(0..=1).require_equals(true);
        let on = on.default_value("true").default_missing_value("true");
        let rm = Arg::new("rm").long("rm").action(ArgAction::SetTrue);
        for (line, want) in [("x", true), ("x --rm=false", true), ("x --rm=true --on=false", false), ("x --on", true)] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let command = reading(Command::new("x").args([on.clone(), rm.clone()]), &words);
            assert_eq!(command.try_get_matches_from(words).unwrap().get_flag("on"), want, "{line}");
        }
    }

    #[test]
    fn what_belongs_to_a_program_is_not_touched() {
        let read = read("x run --rm=true image --rm=false -t=0").unwrap();
        assert_eq!(read, (true, false, None, ["image", "--rm=false", "-t=0"].map(str::to_owned).to_vec()));
    }

    #[test]
    fn other_words_are_refused() {
        assert!(read("x run --rm=yes").is_err());
        assert!(read("x run --rm=yes --tty=true").unwrap_err().to_string().contains("want true or false"));
    }
}
