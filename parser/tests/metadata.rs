//! The image config that the instructions of one stage make, computed here in the simplest way and compared with what BuildKit
//! recorded: this holds words, expansion, ports, triggers and command forms to its results on every case that can be followed
//! without running anything.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rbuild_parser::instruction::{ArgDeclaration, CommandLine, HealthcheckKind};
use rbuild_parser::{Dockerfile, Instruction, Source, Stage, Word, parse, port};
use serde_json::{Map, Value, json};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage on its way through its instructions.
#[derive(Default)]
struct Config {
    fields: Map<String, Value>,
    env: Vec<(String, String)>,
    scope: BTreeMap<String, String>,
    cmd_here: bool,
}

impl Config {
    fn from_base() -> Self {
        let mut config = Self::default();
        config.set_env("PATH", PATH);
        config.fields.insert("Cmd".to_owned(), json!(["sh"]));
        config
    }

    fn set_env(&mut self, name: &str, value: &str) {
        self.scope.insert(name.to_owned(), value.to_owned());
        match self.env.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.env.push((name.to_owned(), value.to_owned())),
        }
    }

    fn expand(&self, word: &Word) -> String {
        word.expand(&self.scope).unwrap().text
    }

    fn map(&mut self, field: &str) -> &mut Map<String, Value> {
        self.fields.entry(field).or_insert_with(|| json!({})).as_object_mut().unwrap()
    }

    fn command(&self, command: &CommandLine) -> Vec<String> {
        let shell = self.fields.get("Shell").map_or_else(
            || vec!["/bin/sh".to_owned(), "-c".to_owned()],
            |shell| serde_json::from_value(shell.clone()).unwrap(),
        );
        command.argv(&shell)
    }

    fn arg(&mut self, declaration: &ArgDeclaration, given: &Value, global: &BTreeMap<String, String>) {
        let name = &declaration.name.value;
        let value = match (&declaration.value, given.get(name).and_then(Value::as_str)) {
            (_, Some(given)) => Some(given.to_owned()),
            (Some(default), None) => Some(self.expand(default)),
            (None, None) => global.get(name).cloned(),
        };
        if let Some(value) = value {
            self.scope.insert(name.clone(), value);
        }
    }

    /// Whether the instruction can be followed here.
    fn apply(&mut self, instruction: &Instruction, given: &Value, global: &BTreeMap<String, String>) -> bool {
        match instruction {
            Instruction::Env(env) => {
                let pairs: Vec<_> =
                    env.pairs.iter().map(|pair| (self.expand(&pair.name), self.expand(&pair.value))).collect();
                pairs.iter().for_each(|(name, value)| self.set_env(name, value));
            }
            Instruction::Arg(arg) => arg.args.iter().for_each(|declaration| self.arg(declaration, given, global)),
            Instruction::Label(label) => {
                for pair in &label.pairs {
                    let (name, value) = (self.expand(&pair.name), self.expand(&pair.value));
                    self.map("Labels").insert(name, json!(value));
                }
            }
            Instruction::Expose(expose) => {
                let words: Vec<_> =
                    expose.ports.iter().flat_map(|port| port.expand_words(&self.scope).unwrap().words).collect();
                let ports = words.iter().flat_map(|word| port::parse(word).unwrap().ports);
                let ports: Vec<_> = ports.collect();
                ports.into_iter().for_each(|port| drop(self.map("ExposedPorts").insert(port, json!({}))));
            }
            Instruction::Volume(volume) => {
                let paths: Vec<_> = volume.paths.iter().map(|path| self.expand(path)).collect();
                paths.into_iter().for_each(|path| drop(self.map("Volumes").insert(path, json!({}))));
            }
            Instruction::User(user) => drop(self.fields.insert("User".to_owned(), json!(self.expand(&user.user)))),
            Instruction::StopSignal(stop) => {
                self.fields.insert("StopSignal".to_owned(), json!(self.expand(&stop.signal)));
            }
            Instruction::Workdir(workdir) => {
                let path = self.expand(&workdir.path);
                if !path.starts_with('/') {
                    return false;
                }
                self.fields.insert("WorkingDir".to_owned(), json!(path));
            }
            Instruction::Cmd(cmd) => {
                let command = self.command(&cmd.command);
                self.fields.insert("Cmd".to_owned(), json!(command));
                self.fields.insert("ArgsEscaped".to_owned(), json!(true));
                self.cmd_here = true;
            }
            Instruction::Entrypoint(entrypoint) => {
                let command = self.command(&entrypoint.command);
                self.fields.insert("Entrypoint".to_owned(), json!(command));
                if !self.cmd_here {
                    self.fields.remove("Cmd");
                }
            }
            Instruction::Shell(shell) => {
                let argv: Vec<_> = shell.argv.iter().map(|arg| arg.value.as_str()).collect();
                self.fields.insert("Shell".to_owned(), json!(argv));
            }
            Instruction::OnBuild(trigger) => {
                let triggers = self.fields.entry("OnBuild").or_insert_with(|| json!([]));
                triggers.as_array_mut().unwrap().push(json!(trigger.trigger));
            }
            Instruction::Healthcheck(check) => drop(self.fields.insert("Healthcheck".to_owned(), health(&check.check))),
            Instruction::Maintainer(author) => drop(self.fields.insert("author".to_owned(), json!(author.name.value))),
            Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) => {}
        }
        true
    }

    fn finish(mut self) -> Value {
        let env: Vec<_> = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.fields.insert("Env".to_owned(), json!(env));
        self.fields.retain(|_, value| *value != json!([]));
        Value::Object(self.fields)
    }
}

fn health(check: &HealthcheckKind) -> Value {
    let HealthcheckKind::Command { command, interval, timeout, start_period, start_interval, retries } = check else {
        return json!({"Test": ["NONE"]});
    };
    let test = match command {
        CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text.value.clone()],
        CommandLine::Exec(args) => {
            std::iter::once("CMD".to_owned()).chain(args.iter().map(|arg| arg.value.clone())).collect()
        }
    };
    let mut health = json!({"Test": test});
    for (name, value) in [
        ("Interval", interval),
        ("Timeout", timeout),
        ("StartPeriod", start_period),
        ("StartInterval", start_interval),
        ("Retries", retries),
    ] {
        if *value != 0 {
            health[name] = json!(value);
        }
    }
    health
}

/// The config of a file with one stage on `cf/base`.
fn config(file: &Dockerfile, stage: &Stage, given: &Value) -> Option<Value> {
    let mut globals = Config::default();
    for arg in &file.global_args {
        arg.args.iter().for_each(|declaration| globals.arg(declaration, given, &BTreeMap::new()));
    }
    if stage.image.expand(&globals.scope).ok()?.text != "cf/base" {
        return None;
    }
    let mut config = Config::from_base();
    let followed = stage.instructions.iter().all(|it| config.apply(it, given, &globals.scope));
    followed.then(|| config.finish())
}

#[test]
fn configs_are_as_recorded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
    if !root.is_dir() {
        println!("skipped: the conformance cases are not at {}", root.display());
        return;
    }
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(root.join("cases")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Ok(text) = fs::read_to_string(path.join("Dockerfile")) else { continue };
        let case: Value = serde_json::from_str(&fs::read_to_string(path.join("case.json")).unwrap()).unwrap();
        let Ok(golden) = fs::read_to_string(root.join("expected").join(format!("{name}.json"))) else { continue };
        let golden: Value = serde_json::from_str(&golden).unwrap();
        let image = &golden["images"]["linux/amd64"];
        // Automatic arguments, other bases and several builds are the solver's.
        let plain =
            ["builds", "target", "labels", "platform", "contexts", "epoch"].iter().all(|key| case.get(key).is_none());
        if image["base"] != "cf/base" || !plain || text.contains("TARGET") || text.contains("BUILDPLATFORM") {
            continue;
        }
        let parsed = parse(&Source::new("Dockerfile", text));
        let [stage] = parsed.value.stages.as_slice() else { continue };
        let Some(found) = config(&parsed.value, stage, &case["build_args"]) else { continue };
        let mut wanted = image["config"].clone();
        for field in ["architecture", "os", "variant", "created"] {
            wanted.as_object_mut().unwrap().remove(field);
        }
        assert_eq!(found, wanted, "{name}");
        seen.insert(name);
    }
    assert!(seen.len() > 150, "only {}", seen.len());
}
