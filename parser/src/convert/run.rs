//! `RUN`.

use super::exec::command_line;
use super::flags::Takes;
use super::{Converter, origin};
use crate::Diagnostic;
use crate::ast::{Argument, Node};
use crate::grammar::mount::fields;
use crate::heredoc::Opener;
use crate::instruction::{CommandLine, Device, Network, Run, Script, Security};
use crate::mount::{MountFlag, parse_bool};
use crate::quote::Quoted;
use crate::suggest::did_you_mean;

impl Converter<'_> {
    pub(super) fn run(&self, node: &mut Node) -> Option<Run> {
        let declared =
            [("device", Takes::Many), ("mount", Takes::Many), ("network", Takes::One), ("security", Takes::One)];
        let mut flags = self.flags(node, &declared);
        let devices = flags.take_all("device");
        let devices =
            devices.iter().filter_map(|value| self.device(node, value).map_err(|fault| self.report(fault)).ok());
        let devices = devices.collect();
        let mount = |value: Argument| {
            MountFlag::parse(&value.text, value.span, self.escape)
                .map_err(|error| self.report(self.error(node, value.span, error.to_string())))
                .ok()
        };
        let mounts = flags.take_all("mount").into_iter().filter_map(mount).collect();
        let network = match flags.take("network") {
            None => Network::Default,
            Some(value) => match value.text.as_str() {
                "default" => Network::Default,
                "none" => Network::None,
                "host" => Network::Host,
                other => {
                    let near = did_you_mean(other, ["default", "host", "none"]);
                    let message = format!("invalid network mode {}{near}", Quoted(other));
                    self.report(self.error(node, value.span, message).with_help("use default, none or host"));
                    Network::Default
                }
            },
        };
        let security = match flags.take("security") {
            None => Security::Sandbox,
            Some(value) => match value.text.as_str() {
                "sandbox" => Security::Sandbox,
                "insecure" => Security::Insecure,
                other => {
                    let near = did_you_mean(other, ["insecure", "sandbox"]);
                    let message = format!("security {} is not valid{near}", Quoted(other));
                    self.report(self.error(node, value.span, message).with_help("use sandbox or insecure"));
                    Security::Sandbox
                }
            },
        };
        Some(Run {
            command: command_line(std::mem::take(&mut node.arguments), node.word.span),
            heredocs: std::mem::take(&mut node.heredocs),
            origin: origin(node),
            mounts,
            network,
            security,
            devices,
        })
    }

    fn device(&self, node: &Node, value: &Argument) -> Result<Device, Diagnostic> {
        let fault = |message: String| self.error(node, value.span, message);
        let fields = fields(&value.text).map_err(|error| fault(format!("failed to parse csv devices: {error}")))?;
        let mut device = Device { name: String::new(), required: false, span: value.span };
        for field in &fields {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), Some(value)),
                None => (field.to_lowercase(), None),
            };
            match (key.as_str(), value) {
                ("required", None) => device.required = true,
                ("required", Some(value)) => {
                    let required = parse_bool(value);
                    device.required = required.ok_or_else(|| fault(format!("invalid value for {key}: {value}")))?;
                }
                ("name", Some(_)) if !device.name.is_empty() => {
                    return Err(fault(format!("device name already set to {}", device.name)));
                }
                ("name", Some(value)) => device.name = value.to_owned(),
                _ if device.name.is_empty() => device.name.clone_from(field),
                (_, None) => return Err(fault(format!("invalid field '{field}' must be a key=value pair"))),
                (key, Some(_)) => {
                    let near = did_you_mean(key, ["name", "required"]);
                    return Err(fault(format!("unexpected key '{key}' in '{field}'{near}")));
                }
            }
        }
        Ok(device)
    }
}

impl Run {
    /// What is executed, here-documents put in place: a lone one is the script itself, others are given to the shell as they
    /// are written.
    pub fn script(&self) -> Script {
        let command = match &self.command {
            CommandLine::Exec(args) => return Script::Exec(args.iter().map(|arg| arg.value.clone()).collect()),
            CommandLine::Shell(text) => &text.value,
        };
        let Some(first) = self.heredocs.first() else { return Script::Shell(command.clone()) };
        if Opener::parse(command).is_some() {
            let content = first.text().into_owned();
            return match content.starts_with("#!") {
                true => Script::File { name: first.opener.name.clone(), content },
                false => Script::Shell(content),
            };
        }
        let mut full = command.clone();
        for heredoc in &self.heredocs {
            full.push('\n');
            full.push_str(&heredoc.content);
            full.push_str(&heredoc.opener.name);
        }
        Script::Shell(full)
    }

    /// The first line of a lone here-document, for display: `(apt-get update...)`.
    pub fn summary(&self) -> Option<String> {
        let CommandLine::Shell(command) = &self.command else { return None };
        let first = self.heredocs.first().filter(|_| Opener::parse(&command.value).is_some())?;
        let mut lines = first.content.trim().lines();
        let line = lines.next().unwrap_or_default();
        Some(if lines.next().is_some() { format!("{line}...") } else { line.to_owned() })
    }
}
