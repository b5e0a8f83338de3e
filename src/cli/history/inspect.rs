//! `rbuild history inspect`.

use jiff::Timestamp;
use rbuild_cache::BuildStatus;
use rbuild_solver::MissReason;
use serde_json::{Value, json};

use super::took;
use crate::build_record::{self, BuildInfo, NameValue, RecordedStep, StepState};
use crate::cli::go_template::Template;
use crate::cli::report::{self, Failure, printable};
use crate::cli::table::{Table, size};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::timings::line;

/// Arguments of `history inspect`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InspectArgs {
    /// Build: an id or its beginning, ^0 for the newest one [default: the newest one]
    #[arg(value_name = "BUILD")]
    build: Option<String>,
    /// pretty, json, or a template of {{.Field}}s of the JSON
    #[arg(long, value_name = "FORMAT", default_value = "pretty")]
    format: String,
}

pub(super) fn execute(args: &InspectArgs, engine: &Engine) -> Result<Exit, Failure> {
    let store = engine.store()?;
    let build = build_record::find(store, args.build.as_deref().unwrap_or_default())?;
    let steps = build_record::open(store, &build)?;
    let out = match args.format.as_str() {
        "pretty" => pretty(&build, &steps, Timestamp::now()),
        "json" => format!("{}\n", serde_json::to_string_pretty(&object(&build, &steps)).map_err(Failure::from)?),
        template => {
            format!("{}\n", printable(&Template::parse(template)?.render(&object(&build, &steps))?))
        }
    };
    report::answer(&out)?;
    Ok(Exit::Success)
}

/// buildx's object, with what only rbuild knows after it. Durations are nanoseconds.
pub(super) fn object(build: &BuildInfo, steps: &[RecordedStep]) -> Value {
    let inputs = &build.inputs;
    let mut out = serde_json::Map::new();
    let mut put = |name: &str, value: Value| {
        let empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        if !empty {
            out.insert(name.to_owned(), value);
        }
    };
    put("Name", json!(inputs.name));
    put("Ref", json!(build.id));
    put("Context", json!(inputs.context));
    put("Dockerfile", json!(inputs.dockerfile));
    put("VCSRepository", json!(inputs.vcs_source));
    put("VCSRevision", json!(inputs.vcs_revision));
    put("Target", json!(inputs.target));
    put("Platform", json!(inputs.platforms));
    put("NamedContexts", json!(inputs.named_contexts));
    put("StartedAt", json!(build.started));
    put("CompletedAt", json!(build.finished));
    let nanoseconds = build.finished.map(|finished| finished.duration_since(build.started).as_nanos() as i64);
    put("Duration", json!(nanoseconds));
    put("Status", json!(status(build.status)));
    put(
        "Error",
        build.error.as_ref().map_or(Value::Null, |message| json!({ "Message": message, "Help": inputs.help })),
    );
    put("NumCompletedSteps", json!(steps.iter().filter(|step| is_complete(step.state)).count()));
    put("NumTotalSteps", json!(steps.len()));
    put("NumCachedSteps", json!(steps.iter().filter(|step| step.state == StepState::Cached).count()));
    put("BuildArgs", json!(inputs.build_args));
    put("Labels", json!(inputs.labels));
    let mut config = serde_json::Map::new();
    if let Some(network) = &inputs.network {
        config.insert("Network".to_owned(), json!(network));
    }
    if inputs.no_cache {
        config.insert("NoCache".to_owned(), json!(true));
    }
    if !inputs.no_cache_filter.is_empty() {
        config.insert("NoCacheFilter".to_owned(), json!(inputs.no_cache_filter));
    }
    put("Config", Value::Object(config));
    put("DockerfileDigest", json!(inputs.dockerfile_digest));
    put("Images", json!(inputs.images));
    put("Tags", json!(inputs.tags));
    put("Arguments", json!(build.arguments));
    put("Warnings", json!(inputs.warnings));
    put("Phases", json!(inputs.phases));
    put("Steps", Value::Array(steps.iter().map(step_object).collect()));
    Value::Object(out)
}

fn step_object(step: &RecordedStep) -> Value {
    let mut object = json!({ "name": step.name, "state": step.state });
    let fields = object.as_object_mut().expect("an object was made");
    if let Some(started) = step.started {
        fields.insert("started_at".to_owned(), json!(started));
    }
    if let Some(duration) = step.duration {
        fields.insert("duration_ns".to_owned(), json!(duration.as_nanos() as u64));
    }
    if let Some(key) = &step.key {
        fields.insert("key".to_owned(), json!(key));
    }
    if let Some(result) = step.result {
        fields.insert("result".to_owned(), json!(result));
    }
    if let Ok(Value::Object(detail)) = serde_json::to_value(&step.detail) {
        fields.extend(detail);
    }
    object
}

fn is_complete(state: StepState) -> bool {
    matches!(state, StepState::Cached | StepState::Done)
}

fn status(status: BuildStatus) -> &'static str {
    match status {
        BuildStatus::Running => "running",
        BuildStatus::Succeeded => "completed",
        BuildStatus::Failed => "failed",
        BuildStatus::Cancelled => "canceled",
        BuildStatus::Aborted => "aborted",
    }
}

fn pretty(build: &BuildInfo, steps: &[RecordedStep], now: Timestamp) -> String {
    let inputs = &build.inputs;
    let mut out = String::new();
    let mut section = Section::default();
    section.line("Name:", &inputs.name);
    section.line("Ref:", build.id.as_str());
    section.line("Context:", &inputs.context);
    section.line("Dockerfile:", &inputs.dockerfile);
    section.line("VCS Repository:", inputs.vcs_source.as_deref().unwrap_or_default());
    section.line("VCS Revision:", inputs.vcs_revision.as_deref().unwrap_or_default());
    section.line("Target:", inputs.target.as_deref().unwrap_or_default());
    section.line("Platforms:", &inputs.platforms.join(", "));
    section.line("Tags:", &inputs.tags.join(", "));
    section.line("Image:", &build.image.map(|image| image.to_string()).unwrap_or_default());
    section.end(&mut out);

    pairs("NAMED CONTEXT", &inputs.named_contexts, &mut out);

    section.line("Started:", &build.started.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
    let note = if build.status == BuildStatus::Running { " (running)" } else { "" };
    section.line("Duration:", &build.duration(now).map(|time| format!("{}{note}", took(time))).unwrap_or_default());
    match build.status {
        BuildStatus::Failed => section.line("Error:", build.error.as_deref().unwrap_or("unknown")),
        BuildStatus::Cancelled => section.line("Status:", "Canceled"),
        BuildStatus::Aborted => section.line("Status:", "Aborted: its process died"),
        BuildStatus::Running | BuildStatus::Succeeded => {}
    }
    let cached = steps.iter().filter(|step| step.state == StepState::Cached).count();
    let complete = steps.iter().filter(|step| is_complete(step.state)).count();
    let share = (cached * 100 + steps.len() / 2).checked_div(steps.len()).unwrap_or(0);
    section.line("Build Steps:", &format!("{complete}/{} ({share}% cached)", steps.len()));
    section.line("Phases:", &line(&inputs.phases));
    section.end(&mut out);

    section.line("Network:", inputs.network.as_deref().unwrap_or_default());
    section.line("No Cache:", if inputs.no_cache { "true" } else { "" });
    section.line("No Cache Filter:", &inputs.no_cache_filter.join(", "));
    section.end(&mut out);

    pairs("BUILD ARG", &inputs.build_args, &mut out);
    pairs("LABEL", &inputs.labels, &mut out);

    if !steps.is_empty() {
        let mut table =
            Table::new(["STEP", "STATUS", "TIME", "CPU", "MEMORY", "PIDS", "READ", "WRITTEN", "SIZE", "NAME"]);
        for step in steps {
            let detail = &step.detail;
            let processor = detail.processor_ns.map(std::time::Duration::from_nanos);
            table.row([
                detail.number.to_string(),
                state_word(step).to_owned(),
                step.duration.map(took).unwrap_or_default(),
                processor.map(took).unwrap_or_default(),
                detail.memory.map(size).unwrap_or_default(),
                detail.processes.map(|count| count.to_string()).unwrap_or_default(),
                detail.disk_read.map(size).unwrap_or_default(),
                detail.disk_written.map(size).unwrap_or_default(),
                detail.size.map(size).unwrap_or_default(),
                printable(&step.name.replace('\n', " ")),
            ]);
        }
        out.push_str(&table.render());
        out.push('\n');
    }
    for warning in &inputs.warnings {
        out.push_str(&format!("WARNING: {}\n", printable(warning)));
    }
    out.push_str(&format!("Print build logs: rbuild history logs {}\n", build.id));
    out
}

/// How a step went, and why it ran.
fn state_word(step: &RecordedStep) -> &'static str {
    match (step.state, &step.detail.miss) {
        (StepState::Cached, _) if step.detail.hit.as_deref() == Some("content") => "cached (same content)",
        (StepState::Cached, _) => "cached",
        (StepState::Done, Some(MissReason::Ignored)) => "ran (no cache)",
        (StepState::Done, _) => "ran",
        (StepState::Failed, _) => "failed",
        (StepState::Cancelled, _) => "canceled",
        (StepState::Running, _) => "running",
        (StepState::Waiting, _) => "waiting",
    }
}

/// Lines of names and values, lined up. Empty values are left out.
#[derive(Default)]
struct Section {
    lines: Vec<(&'static str, String)>,
}

impl Section {
    fn line(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            self.lines.push((name, printable(&value.replace('\n', " "))));
        }
    }

    fn end(&mut self, out: &mut String) {
        let width = self.lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &self.lines {
            out.push_str(&format!("{name:width$} {value}\n"));
        }
        if !self.lines.is_empty() {
            out.push('\n');
        }
        self.lines.clear();
    }
}

fn pairs(title: &'static str, pairs: &[NameValue], out: &mut String) {
    if pairs.is_empty() {
        return;
    }
    let mut table = Table::new([title, "VALUE"]);
    for pair in pairs {
        table.row([printable(&pair.name), printable(&pair.value.replace('\n', " "))]);
    }
    out.push_str(&table.render());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::build_record::{BuildInputs, StepDetail};

    fn build() -> (BuildInfo, Vec<RecordedStep>) {
        let pair = |name: &str, value: &str| NameValue { name: name.into(), value: value.into() };
        let build = BuildInfo {
            id: "0123456789abcdef0123".parse().unwrap(),
            status: BuildStatus::Failed,
            started: Timestamp::from_second(1_700_000_000).unwrap(),
            finished: Some(Timestamp::from_second(1_700_000_065).unwrap()),
            inputs: BuildInputs {
                name: "app (test)".into(),
                context: "/src/app".into(),
                dockerfile: "Dockerfile".into(),
                target: Some("test".into()),
                platforms: vec!["linux/amd64".into()],
                build_args: vec![pair("NPM_TOKEN", "****"), pair("VERSION", "1\u{1b}[2J")],
                warnings: vec!["an old base".into()],
                ..BuildInputs::default()
            },
            arguments: Vec::new(),
            image: None,
            error: Some("exit code: 2".into()),
            steps: 2,
            cached: 1,
            completed: 1,
        };
        let step = |number: usize, name: &str, state, detail: StepDetail| RecordedStep {
            name: name.into(),
            state,
            started: None,
            duration: detail.processor_ns.map(|_| Duration::from_millis(64_200)),
            key: None,
            result: None,
            detail: StepDetail { number, ..detail },
        };
        let used = StepDetail {
            processor_ns: Some(61_000_000_000),
            memory: Some(5_000_000),
            processes: Some(12),
            disk_read: Some(0),
            disk_written: Some(2_000_000),
            exit_code: Some(2),
            ..StepDetail::default()
        };
        let steps = vec![
            step(1, "[test 1/2] FROM busybox", StepState::Cached, StepDetail::default()),
            step(2, "[test 2/2] RUN make test", StepState::Failed, used),
        ];
        (build, steps)
    }

    #[test]
    fn a_build_as_people_read_it() {
        let (build, steps) = build();
        insta::assert_snapshot!(pretty(&build, &steps, Timestamp::UNIX_EPOCH), @r"
        Name:       app (test)
        Ref:        0123456789abcdef0123
        Context:    /src/app
        Dockerfile: Dockerfile
        Target:     test
        Platforms:  linux/amd64

        Started:     2023-11-14 22:13:20 UTC
        Duration:    1m  5s
        Error:       exit code: 2
        Build Steps: 1/2 (50% cached)

        BUILD ARG   VALUE
        NPM_TOKEN   ****
        VERSION     1\u{1b}[2J

        STEP   STATUS   TIME     CPU      MEMORY   PIDS   READ   WRITTEN   SIZE   NAME
        1      cached                                                             [test 1/2] FROM busybox
        2      failed   1m  4s   1m  1s   5MB      12     0B     2MB              [test 2/2] RUN make test

        WARNING: an old base
        Print build logs: rbuild history logs 0123456789abcdef0123
        ");
    }

    #[test]
    fn a_build_as_programs_read_it() {
        let (build, steps) = build();
        let object = object(&build, &steps);
        assert_eq!(object["Status"], "failed");
        assert_eq!(object["Duration"], 65_000_000_000_u64);
        assert_eq!(object["BuildArgs"][0], json!({"Name": "NPM_TOKEN", "Value": "****"}));
        assert_eq!(object["Steps"][1]["exit_code"], 2);
        assert_eq!(object.get("Labels"), None);
    }
}
