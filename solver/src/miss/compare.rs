//! What differs between two descriptions, field by field, in the words of a Dockerfile.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_cache::StepDescription;
use rbuild_image::ContentDigest;

use super::{Change, FieldChange, MOST_TOLD, VariableSource, files};
use crate::key::{HIDDEN, unescape};
use crate::records::{Past, RecordFailure};
use crate::vertex::VertexId;

/// How many steps up the first difference is looked for.
const DEEPEST: usize = 32;

/// What a vertex was made of, on either side of a comparison.
pub(super) struct Facts<'a> {
    /// A line for each field, then notes.
    pub(super) text: &'a str,
    /// Digests of what was selected of inputs.
    pub(super) reads: &'a [(usize, ContentDigest)],
}

impl<'a> From<&'a StepDescription> for Facts<'a> {
    fn from(description: &'a StepDescription) -> Self {
        Self { text: &description.text, reads: &description.reads }
    }
}

/// A comparison, with what is needed to look further.
pub(super) struct Comparison<'a> {
    /// Knows earlier descriptions and files.
    pub(super) past: &'a dyn Past,
    /// Inputs that ran in this build, by position.
    pub(super) ran: &'a BTreeMap<usize, VertexId>,
    /// How many steps further up may be looked.
    depth: usize,
}

/// One side, taken apart.
struct Side<'a> {
    fields: BTreeMap<&'a str, &'a str>,
    /// Notes; some names come several times.
    notes: Vec<(&'a str, &'a str)>,
    reads: BTreeMap<usize, ContentDigest>,
}

impl<'a> Side<'a> {
    fn of(facts: &Facts<'a>) -> Self {
        let lines =
            facts.text.lines().filter_map(|line| line.split_once(": ").or(line.strip_suffix(':').map(|n| (n, ""))));
        let (notes, fields): (Vec<_>, Vec<_>) = lines.partition(|(name, _)| name.starts_with('~'));
        let notes = notes.into_iter().map(|(name, value)| (&name[1..], value)).collect();
        Self { fields: fields.into_iter().collect(), notes, reads: facts.reads.iter().copied().collect() }
    }

    /// The fields below a dotted prefix, by the rest of their names.
    fn below(&self, prefix: &str) -> BTreeMap<&'a str, &'a str> {
        let rest = |(name, value): (&&'a str, &&'a str)| Some((name.strip_prefix(prefix)?, *value));
        self.fields.iter().filter_map(rest).collect()
    }

    /// A list, in its order.
    fn list(&self, prefix: &str) -> Vec<String> {
        let mut values: Vec<(usize, String)> =
            self.below(prefix).iter().filter_map(|(at, value)| Some((at.parse().ok()?, unescape(value)))).collect();
        values.sort();
        values.into_iter().map(|(_, value)| value).collect()
    }

    /// What is noted of an input.
    fn input_notes(&self, input: usize) -> BTreeMap<&'a str, &'a str> {
        let prefix = format!("input.{input}.");
        self.notes.iter().filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?, *value))).collect()
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let pair = |pair: String| match pair.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (pair, String::new()),
        };
        self.list("env.").into_iter().map(pair).collect()
    }

    fn arguments(&self) -> BTreeSet<&'a str> {
        self.notes.iter().filter(|(name, _)| *name == "argument").map(|(_, value)| *value).collect()
    }

    /// Mounts as one writes them, by number.
    fn mounts(&self) -> BTreeMap<usize, String> {
        let mut mounts: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (rest, value) in self.below("mount.") {
            if let Some((number, field)) = rest.split_once('.')
                && let Ok(number) = number.parse()
                && field != "input"
            {
                mounts.entry(number).or_default().push(format!("{field}={}", unescape(value)));
            }
        }
        let line = |(number, mut fields): (usize, Vec<String>)| {
            fields.sort_by_key(|field| !field.starts_with("type="));
            (number, fields.join(","))
        };
        mounts.into_iter().map(line).collect()
    }

    /// What an input is to the step.
    fn role(&self, input: usize) -> String {
        let names_it = |(name, value): (&&'a str, &&'a str)| {
            let rest = name.strip_suffix(".input").filter(|_| value.parse() == Ok(input))?;
            if rest.starts_with("action.") {
                return Some("COPY --from".to_owned());
            }
            let target = self.fields.get(format!("{rest}.target").as_str()).map_or_else(String::new, |at| unescape(at));
            Some(format!("mount {target}"))
        };
        match input {
            0 => "parent".to_owned(),
            _ => self.fields.iter().find_map(names_it).unwrap_or_else(|| format!("input {input}")),
        }
    }
}

impl<'a> Comparison<'a> {
    pub(super) fn new(past: &'a dyn Past, ran: &'a BTreeMap<usize, VertexId>) -> Self {
        Self { past, ran, depth: DEEPEST }
    }

    /// Everything that differs, the likeliest cause first: what the step says, then what it reads, then what it stands
    /// on.
    pub(super) fn changes(&self, before: &Facts<'_>, after: &Facts<'_>) -> Result<Vec<Change>, RecordFailure> {
        let (old, new) = (Side::of(before), Side::of(after));
        let mut changes = Vec::new();
        commands(&old, &new, &mut changes);
        variables(&old, &new, &mut changes);
        mounts(&old, &new, &mut changes);
        settings(&old, &new, &mut changes);
        let inputs = |side: &Side<'_>| -> BTreeSet<usize> {
            side.below("input.").keys().filter_map(|at| at.parse().ok()).collect()
        };
        // The parent comes last: that the others differ is rarer news.
        let (mut all, parent): (Vec<usize>, Vec<usize>) =
            inputs(&old).union(&inputs(&new)).copied().partition(|input| *input != 0);
        all.extend(parent);
        for input in all {
            let name = format!("input.{input}");
            if old.fields.get(name.as_str()) != new.fields.get(name.as_str()) {
                self.input(input, &old, &new, &mut changes)?;
            }
        }
        changes.truncate(MOST_TOLD);
        Ok(changes)
    }

    /// What ran again in this build although its definition is the same, and which of its files differ.
    pub(super) fn rerun(&self, before: &Facts<'_>, after: &Facts<'_>) -> Result<Vec<Change>, RecordFailure> {
        let (old, new) = (Side::of(before), Side::of(after));
        let mut changes = Vec::new();
        for input in self.ran.keys() {
            let is_same = old.reads.get(input).is_some_and(|read| new.reads.get(input) == Some(read));
            if !is_same {
                self.input(*input, &old, &new, &mut changes)?;
            }
        }
        Ok(changes)
    }

    fn input(
        &self,
        input: usize,
        old: &Side<'_>,
        new: &Side<'_>,
        changes: &mut Vec<Change>,
    ) -> Result<(), RecordFailure> {
        let (was, is) = (old.input_notes(input), new.input_notes(input));
        let name = |notes: &BTreeMap<&str, &str>| source_name(notes).or_else(|| notes.get("step").map(|n| unescape(n)));
        let role = new.role(input);
        let is_context = |notes: &BTreeMap<&str, &str>| notes.contains_key("context");
        if is_context(&is) && (is_context(&was) || was.is_empty()) {
            changes.push(self.files(input, old, new, context_name(&is))?);
            return Ok(());
        }
        if source_name(&is).is_some() {
            let role = if input == 0 { "base image".to_owned() } else { role };
            let fields = source_fields(&was, &is);
            changes.push(Change::Source { role, before: name(&was), after: name(&is), fields });
            return Ok(());
        }
        if let (Some(before), Some(after)) = (old.reads.get(&input), new.reads.get(&input))
            && before != after
        {
            changes.push(self.files(input, old, new, name(&is).unwrap_or(role.clone()))?);
        }
        let ran = self.ran.get(&input).copied();
        let (mut because, mut via) = (Vec::new(), Vec::new());
        if ran.is_none() {
            (because, via) = self.cause(input, old, new)?;
        }
        changes.push(Change::Input { role, before: name(&was), after: name(&is), ran, because, via });
        Ok(())
    }

    /// Why an input that did not run is another one: follows parents up to the first step that says something else.
    fn cause(&self, input: usize, old: &Side<'_>, new: &Side<'_>) -> Result<(Vec<Change>, Vec<String>), RecordFailure> {
        if self.depth == 0 {
            return Ok(Default::default());
        }
        let definition = |side: &Side<'_>| -> Option<_> {
            let value = side.fields.get(format!("input.{input}").as_str())?;
            value.strip_prefix("definition ")?.parse().ok()
        };
        let (Some(was), Some(is)) = (definition(old), definition(new)) else { return Ok(Default::default()) };
        let (Some(was), Some(is)) = (self.past.find(&was)?, self.past.find(&is)?) else {
            return Ok(Default::default());
        };
        let nothing_ran = BTreeMap::new();
        let above = Comparison { past: self.past, ran: &nothing_ran, depth: self.depth - 1 };
        let mut changes = above.changes(&Facts::from(&was), &Facts::from(&is))?;
        // Steps of which nothing differs but their parent are only passed.
        if let [Change::Input { after: Some(after), because, via, .. }] = changes.as_mut_slice()
            && !because.is_empty()
        {
            let via = std::iter::once(after.clone()).chain(std::mem::take(via)).collect();
            return Ok((std::mem::take(because), via));
        }
        Ok((changes, Vec::new()))
    }

    fn files(&self, input: usize, old: &Side<'_>, new: &Side<'_>, from: String) -> Result<Change, RecordFailure> {
        let selection = |side: &Side<'_>| {
            side.reads.get(&input).copied().or_else(|| {
                let value = side.fields.get(format!("input.{input}").as_str())?;
                value.strip_prefix("content ")?.parse().ok().map(ContentDigest::new)
            })
        };
        let listing = |side: &Side<'_>| selection(side).map_or(Ok(None), |selection| self.past.listing(&selection));
        let (files, more) = match (listing(old)?, listing(new)?) {
            (Some(before), Some(after)) => files::changes(&before, &after),
            _ => (Vec::new(), 0),
        };
        Ok(Change::Files { from, files, more })
    }
}

fn context_name(notes: &BTreeMap<&str, &str>) -> String {
    match notes.get("context") {
        None | Some(&"") => "build context".to_owned(),
        Some(name) => format!("context {}", unescape(name)),
    }
}

/// How people name a source.
fn source_name(notes: &BTreeMap<&str, &str>) -> Option<String> {
    let name = ["image.reference", "http.url", "git.remote"].into_iter().find_map(|name| notes.get(name))?;
    Some(unescape(name))
}

fn source_fields(before: &BTreeMap<&str, &str>, after: &BTreeMap<&str, &str>) -> Vec<FieldChange> {
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let differs = names.into_iter().filter(|name| before.get(name) != after.get(name) && *name != "op");
    let field = |name: &str| FieldChange {
        field: name.split_once('.').map_or(name, |(_, field)| field).to_owned(),
        before: before.get(name).map(|value| unescape(value)),
        after: after.get(name).map(|value| unescape(value)),
    };
    differs.map(field).collect()
}

fn commands(old: &Side<'_>, new: &Side<'_>, changes: &mut Vec<Change>) {
    let (before, after) = (old.list("argv."), new.list("argv."));
    if before == after {
        return;
    }
    let is_shell = |argv: &[String]| argv.len() >= 3 && argv[0].starts_with('/');
    if let (Some((old_text, old_shell)), Some((new_text, new_shell))) = (before.split_last(), after.split_last())
        && is_shell(&before)
        && is_shell(&after)
    {
        if old_shell != new_shell {
            changes.push(setting("SHELL", Some(old_shell.join(" ")), Some(new_shell.join(" "))));
        }
        if old_text != new_text {
            changes.push(Change::Command { before: old_text.clone(), after: new_text.clone() });
        }
        return;
    }
    changes.push(Change::Command { before: before.join(" "), after: after.join(" ") });
}

fn variables(old: &Side<'_>, new: &Side<'_>, changes: &mut Vec<Change>) {
    let (before, after) = (old.variables(), new.variables());
    let arguments: BTreeSet<&str> = old.arguments().union(&new.arguments()).copied().collect();
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut any = false;
    for name in names {
        let (was, is) = (before.get(name), after.get(name));
        if was == is {
            continue;
        }
        any = true;
        let hidden = [was, is].into_iter().flatten().any(|value| value.starts_with(HIDDEN));
        let shown = |value: Option<&String>| value.filter(|_| !hidden).cloned();
        let is_argument = arguments.contains(name.as_str());
        let source = if is_argument { VariableSource::Argument } else { VariableSource::Environment };
        changes.push(Change::Variable { source, name: name.clone(), before: shown(was), after: shown(is), hidden });
    }
    let order = |side: &Side<'_>| side.list("env.");
    if !any && order(old) != order(new) {
        changes.push(setting("order of variables", None, None));
    }
}

fn mounts(old: &Side<'_>, new: &Side<'_>, changes: &mut Vec<Change>) {
    let (before, after) = (old.mounts(), new.mounts());
    let gone: Vec<&String> = before.values().filter(|mount| !after.values().any(|other| other == *mount)).collect();
    let come: Vec<&String> = after.values().filter(|mount| !before.values().any(|other| other == *mount)).collect();
    for at in 0..gone.len().max(come.len()) {
        let mount = |list: &[&String]| list.get(at).map(|mount| (*mount).clone());
        changes.push(Change::Mount { before: mount(&gone), after: mount(&come) });
    }
    if gone.is_empty() && come.is_empty() && before != after {
        changes.push(setting("order of mounts", None, None));
    }
}

/// Every other field.
fn settings(old: &Side<'_>, new: &Side<'_>, changes: &mut Vec<Change>) {
    let elsewhere = |name: &str| ["argv.", "env.", "mount.", "input."].iter().any(|prefix| name.starts_with(prefix));
    let names: BTreeSet<&str> = old.fields.keys().chain(new.fields.keys()).copied().collect();
    for name in names.into_iter().filter(|name| !elsewhere(name) && !name.ends_with(".input")) {
        let (before, after) = (old.fields.get(name), new.fields.get(name));
        if before != after {
            let value = |value: Option<&&str>| value.map(|value| unescape(value));
            changes.push(setting(&setting_name(name, old, new), value(before), value(after)));
        }
    }
}

fn setting(name: &str, before: Option<String>, after: Option<String>) -> Change {
    Change::Setting { name: name.to_owned(), before, after }
}

/// A field as a Dockerfile or the command line names it.
fn setting_name(field: &str, old: &Side<'_>, new: &Side<'_>) -> String {
    if let Some((number, rest)) = field.strip_prefix("action.").and_then(|rest| rest.split_once('.')) {
        let name = match rest.split('.').next().unwrap_or(rest) {
            "dest" => "destination",
            "write" => "here-document",
            "content" => "content of the here-document",
            "mkdir" => "WORKDIR",
            flag @ ("chown" | "chmod" | "exclude" | "parents" | "unpack") => return format!("--{flag}"),
            other => other,
        };
        let several = [old, new].iter().any(|side| side.fields.keys().any(|name| name.starts_with("action.1.")));
        return match (several, number.parse::<usize>()) {
            (true, Ok(number)) => format!("{name} {}", number + 1),
            _ => name.to_owned(),
        };
    }
    match field {
        "cwd" => "WORKDIR".to_owned(),
        "user" => "USER".to_owned(),
        "shm_size" => "--shm-size".to_owned(),
        "linking" => "--link".to_owned(),
        "network" | "security" => format!("--{field}"),
        "identity" => "what the server says identifies it".to_owned(),
        _ if field.starts_with("host.") => "--add-host".to_owned(),
        _ => match field.split_once('.') {
            Some(("ulimit", name)) => format!("--ulimit {name}"),
            Some(("http" | "git", name)) => name.to_owned(),
            _ => field.to_owned(),
        },
    }
}
