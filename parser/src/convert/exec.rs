//! `CMD`, `ENTRYPOINT` and `HEALTHCHECK`: commands that are kept, not run.

use super::flags::{Flags, Takes};
use super::{Converter, origin, text};
use crate::ast::{Argument, Arguments, Node};
use crate::instruction::{Cmd, CommandLine, Entrypoint, Healthcheck, HealthcheckKind, Text};
use crate::quote::Quoted;
use crate::{Span, parse_duration};

/// The shortest interval that Docker takes, in nanoseconds.
const MIN_INTERVAL: i64 = 1_000_000;

/// The command in arguments; without any it is an empty shell command.
pub(super) fn command_line(arguments: Arguments, otherwise: Span) -> CommandLine {
    let shell = match arguments {
        Arguments::Json(arguments) => return CommandLine::Exec(arguments.into_iter().map(text).collect()),
        Arguments::Plain(arguments) => arguments.into_iter().next().map(text),
        _ => None,
    };
    CommandLine::Shell(shell.unwrap_or_else(|| Text { value: String::new(), span: otherwise }))
}

impl Converter<'_> {
    pub(super) fn cmd(&self, node: &mut Node) -> Option<Cmd> {
        self.flags(node, &[]);
        Some(Cmd { command: command_line(std::mem::take(&mut node.arguments), node.word.span), origin: origin(node) })
    }

    pub(super) fn entrypoint(&self, node: &mut Node) -> Option<Entrypoint> {
        self.flags(node, &[]);
        Some(Entrypoint {
            command: command_line(std::mem::take(&mut node.arguments), node.word.span),
            origin: origin(node),
        })
    }

    pub(super) fn healthcheck(&self, node: &mut Node) -> Option<Healthcheck> {
        let Arguments::Kind(kind, command) = std::mem::take(&mut node.arguments) else {
            return self.refuse(self.error_at_keyword(node, "HEALTHCHECK requires at least one argument"));
        };
        let name = kind.text.to_uppercase();
        let is_empty = matches!(&*command, Arguments::Plain(some) | Arguments::Json(some) if some.is_empty());
        if name == "NONE" {
            if !is_empty {
                return self.refuse(self.error(node, kind.span, "HEALTHCHECK NONE takes no arguments"));
            }
            return Some(Healthcheck { origin: origin(node), check: HealthcheckKind::None });
        }
        let declared =
            ["interval", "timeout", "start-period", "start-interval", "retries"].map(|name| (name, Takes::One));
        let mut flags = self.flags(node, &declared);
        if name != "CMD" {
            let message = format!("Unknown type {} in HEALTHCHECK (try CMD)", Quoted(&name));
            let help = "write `HEALTHCHECK CMD …` or `HEALTHCHECK NONE`";
            return self.refuse(self.error(node, kind.span, message).with_help(help));
        }
        if is_empty {
            self.report(self.error(node, kind.span, "Missing command after HEALTHCHECK CMD"));
        }
        let check = HealthcheckKind::Command {
            command: command_line(*command, kind.span),
            interval: self.interval(node, &mut flags, "interval"),
            timeout: self.interval(node, &mut flags, "timeout"),
            start_period: self.interval(node, &mut flags, "start-period"),
            start_interval: self.interval(node, &mut flags, "start-interval"),
            retries: self.retries(node, flags.take_some("retries")),
        };
        Some(Healthcheck { origin: origin(node), check })
    }

    fn interval(&self, node: &Node, flags: &mut Flags, name: &'static str) -> i64 {
        let Some(value) = flags.take_some(name) else { return 0 };
        let interval = match parse_duration(&value.text).map_err(|error| error.to_string()) {
            Ok(interval) if interval != 0 && interval < MIN_INTERVAL => {
                Err(format!("Interval {} cannot be less than 1ms", Quoted(name)))
            }
            interval => interval,
        };
        interval.unwrap_or_else(|message| {
            let help = format!("a duration has a unit, for example `--{name}=30s`");
            self.report(self.error(node, value.span, message).with_help(help));
            0
        })
    }

    fn retries(&self, node: &Node, value: Option<Argument>) -> i64 {
        let Some(value) = value else { return 0 };
        let fault = |message: String| {
            self.report(self.error(node, value.span, message).with_help("write a number, for example `--retries=3`"));
            0
        };
        let quoted = Quoted(&value.text);
        let digits = value.text.strip_prefix(['+', '-']).unwrap_or(&value.text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return fault(format!("strconv.ParseInt: parsing {quoted}: invalid syntax"));
        }
        match value.text.parse::<i32>() {
            Ok(retries) if retries < 0 => fault(format!("--retries cannot be negative ({retries})")),
            Ok(retries) => i64::from(retries),
            Err(_) => fault(format!("strconv.ParseInt: parsing {quoted}: value out of range")),
        }
    }

    /// A command that must be an array.
    pub(super) fn shell(&self, node: &mut Node) -> Option<crate::instruction::Shell> {
        self.flags(node, &[]);
        let is_json = node.arguments.is_json();
        let arguments = self.at_least_one(node, "SHELL")?;
        if !is_json {
            let message = "SHELL requires the arguments to be in JSON form";
            let help = r#"write for example `SHELL ["/bin/bash", "-c"]`"#;
            return self.refuse(self.error(node, arguments[0].span, message).with_help(help));
        }
        Some(crate::instruction::Shell { origin: origin(node), argv: arguments.into_iter().map(text).collect() })
    }
}
