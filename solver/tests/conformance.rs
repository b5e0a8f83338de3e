//! The conformance corpus as far as it can be told without running anything: configuration and history of each image,
//! errors that planning finds, warnings of checks. The corpus lies beside the repository; without it nothing is shown,
//! which the test says.
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_image::{Digest, ImageConfig, ImageRef, Platform};
use rbuild_parser::{Diagnostic, Ignore};
use rbuild_solver::{
    ContextSource, Entitlements, Goal, NamedContext, NoCache, Plan, Resolve, ResolveError, ResolvedImage, Source,
    StageChoice, lower,
};
use serde_json::{Value, json};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The corpus's base images, as its runner makes them.
struct Bases {
    contexts: BTreeMap<String, String>,
}

/// Architecture, layers, `config`.
fn variants(name: &str) -> Vec<(&'static str, usize, Value)> {
    let plain = json!({"Env": [PATH], "Cmd": ["sh"]});
    match name {
        "base" => vec![("amd64", 2, plain)],
        "rich" => vec![(
            "amd64",
            2,
            json!({
                "User": "app", "WorkingDir": "/srv/app", "Entrypoint": ["/bin/entry", "--flag"], "Cmd": ["serve"],
                "Env": [PATH, "MODE=base", "BLANK="], "Labels": {"org.base": "rich", "tier": "base"},
                "ExposedPorts": {"8080/tcp": {}}, "Volumes": {"/vol": {}}, "StopSignal": "SIGQUIT",
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5_000_000_000_u64}
            }),
        )],
        "onbuild" => {
            let triggers = ["COPY src/ /app/", "RUN cat /app/* > /triggered", "ENV TRIGGERED=yes"];
            vec![("amd64", 1, json!({"Env": [PATH], "Cmd": ["sh"], "OnBuild": triggers}))]
        }
        "arm" => vec![("arm64", 1, json!({"Env": [PATH]}))],
        "multi" => vec![("amd64", 1, json!({"Env": [PATH]})), ("arm64", 1, json!({"Env": [PATH]}))],
        _ => vec![],
    }
}

fn base(name: &str, platform: &Platform) -> Result<ResolvedImage, String> {
    let variants = variants(name);
    let found = match variants.as_slice() {
        [] => return Err(format!("docker.io/cf/{name}:latest: not found")),
        [only] => only.clone(),
        several => {
            let fits = several.iter().find(|(architecture, ..)| *architecture == platform.architecture);
            fits.cloned().ok_or("no match for platform in manifest: not found")?
        }
    };
    let (architecture, layers, config) = found;
    let diff_ids: Vec<Digest> = (0..layers).map(|layer| Digest::sha256(format!("{name} {layer}"))).collect();
    let mut history: Vec<Value> = vec![json!({"created_by": "layer"}); layers];
    history.push(json!({"created_by": "config", "empty_layer": true}));
    let document = json!({
        "architecture": architecture, "os": "linux", "created": "2020-01-01T00:00:00Z", "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
    });
    Ok(ResolvedImage {
        reference: format!("cf/{name}:latest").parse().unwrap(),
        shown: Digest::sha256(name),
        digest: Digest::sha256(format!("{name} {architecture}")),
        config: Arc::new(ImageConfig::parse(document.to_string().as_bytes()).unwrap()),
    })
}

impl Resolve for Bases {
    fn image(&self, reference: &ImageRef, platform: &Platform) -> Result<ResolvedImage, ResolveError> {
        let missing = || format!("{}: not found", reference.canonical());
        let name = reference.repository().strip_prefix("cf/").ok_or_else(missing);
        let found = name.and_then(|name| base(name, platform));
        found.map_err(|message| ResolveError { message, help: None })
    }

    fn context(&self, name: &str, platform: &Platform) -> Result<Option<NamedContext>, ResolveError> {
        let Some(value) = self.contexts.get(name) else { return Ok(None) };
        let image = value.strip_prefix("docker-image://cf/").or_else(|| value.strip_prefix("oci-layout:"));
        Ok(Some(match image {
            Some(image) => NamedContext::Image(base(image, platform).expect("the case names a base")),
            None => NamedContext::Files(Source::Context(ContextSource { name: name.to_owned() })),
        }))
    }
}

struct Case {
    name: String,
    directory: PathBuf,
    spec: Value,
    expected: Value,
    _scratch: tempfile::TempDir,
}

impl Case {
    fn read(corpus: &Path, name: &str) -> Self {
        let json = |path: PathBuf| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
        let mut spec = json(corpus.join("cases").join(name).join("case.json"));
        if let Some(last) = spec["builds"].as_array().and_then(|builds| builds.last()).cloned() {
            for (key, value) in last.as_object().expect("a build is an object") {
                spec[key] = value.clone();
            }
        }
        let expected = json(corpus.join("expected").join(format!("{name}.json")));
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join(name);
        copy_tree(&corpus.join("cases").join(name), &directory);
        std::fs::create_dir_all(directory.join("ctx")).unwrap();
        let loose = directory.join("Dockerfile");
        if loose.exists() && spec.get("dockerfile").is_none() {
            std::fs::rename(loose, directory.join("ctx/Dockerfile")).unwrap();
        }
        Self { name: name.to_owned(), directory, spec, expected, _scratch: scratch }
    }

    /// The Dockerfile's text; some are made by the case's script.
    fn dockerfile(&self) -> Option<String> {
        let path = self.directory.join(self.spec["dockerfile"].as_str().unwrap_or("ctx/Dockerfile"));
        let run = |arguments: [&str; 2]| {
            let mut command = std::process::Command::new("sh");
            command.args(arguments).current_dir(self.directory.join("ctx"));
            command.output().is_ok_and(|output| output.status.success())
        };
        let has_script = self.directory.join("setup.sh").exists();
        if (!path.exists() || self.is_lint()) && has_script && !run(["-e", "../setup.sh"]) {
            return None;
        }
        for build in self.spec["builds"].as_array().into_iter().flatten() {
            let before = build["before"].as_str().filter(|before| before.contains("Dockerfile"));
            if before.is_some_and(|before| !run(["-ec", before])) {
                return None;
            }
        }
        String::from_utf8(std::fs::read(path).ok()?).ok()
    }

    fn texts(&self, key: &str) -> BTreeMap<String, String> {
        let pairs = self.spec[key].as_object().into_iter().flatten();
        pairs.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
    }

    fn list(&self, key: &str) -> Vec<String> {
        let list = self.spec[key].as_array().into_iter().flatten();
        list.map(|value| value.as_str().unwrap_or_default().to_owned()).collect()
    }

    fn goal(&self) -> Goal {
        let mut goal = Goal::new("linux/amd64".parse().unwrap());
        goal.target = self.spec["target"].as_str().map(str::to_owned);
        goal.build_args =
            self.texts("build_args").into_iter().map(|(k, v)| (k, v.replace("$HTTP", "http://HTTP"))).collect();
        if self.directory.join("http").is_dir() {
            goal.build_args.entry("HTTP".to_owned()).or_insert_with(|| "http://HTTP".to_owned());
        }
        goal.labels = self.texts("labels");
        let platforms = self.spec["platform"].as_str().unwrap_or_default();
        goal.platforms = platforms.split(',').filter(|p| !p.is_empty()).map(|p| p.parse().unwrap()).collect();
        let allow = self.list("allow");
        goal.entitlements = Entitlements {
            network_host: allow.iter().any(|name| name == "network.host"),
            security_insecure: allow.iter().any(|name| name == "security.insecure"),
        };
        goal.no_cache = match self.list("no_cache_filter") {
            names if !names.is_empty() => NoCache::Stages(names),
            _ if self.spec["no_cache"] == true => NoCache::Everything,
            _ => NoCache::Nothing,
        };
        if self.is_lint() && goal.target.is_none() {
            goal.stages = StageChoice::All;
        }
        let ignore = std::fs::read(self.directory.join("ctx/.dockerignore")).ok();
        goal.ignore = ignore.and_then(|bytes| Ignore::parse(&bytes).ok()).filter(|ignore| !ignore.is_empty());
        goal
    }

    fn is_lint(&self) -> bool {
        self.expected["outcome"] == "lint"
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&from, &to);
        } else if entry.file_type().unwrap().is_file() {
            std::fs::copy(from, to).unwrap();
        }
    }
}

/// What a case shows here.
enum Verdict {
    Same,
    /// Only running it can tell.
    Undecided,
    Differs(String),
}

fn judge(case: &Case) -> Verdict {
    let Some(text) = case.dockerfile() else { return Verdict::Undecided };
    let source = rbuild_parser::Source::new("Dockerfile", text);
    let parsed = rbuild_parser::parse(&source);
    let mut diagnostics = parsed.diagnostics.clone();
    let resolve = Bases { contexts: case.texts("contexts") };
    let lowered = match parsed.has_errors() {
        true => None,
        false => match lower(&source, &parsed.value, &case.goal(), &resolve) {
            Ok(plan) => {
                diagnostics.extend(plan.warnings.clone());
                Some(plan)
            }
            Err(errors) => {
                diagnostics.extend(errors);
                None
            }
        },
    };
    let verdict = parsed.value.checks.verdict(&diagnostics);
    diagnostics.extend(verdict);
    let errors: Vec<&Diagnostic> = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).collect();
    let position = |diagnostic: &Diagnostic| diagnostic.span.map_or(0, |span| source.position(span.start()).line);
    match case.expected["outcome"].as_str() {
        Some("error") => {
            let Some(first) = errors.first() else { return Verdict::Undecided };
            let expect = &case.spec["expect"];
            let pattern = regex::Regex::new(&python_pattern(expect["error"].as_str().unwrap())).unwrap();
            let line = expect["line"].as_u64();
            if !pattern.is_match(&first.message) {
                return Verdict::Differs(format!("error {:?} does not match {pattern}", first.message));
            }
            match line {
                Some(line) if line != u64::from(position(first)) => {
                    Verdict::Differs(format!("error in line {}, want {line}", position(first)))
                }
                _ => Verdict::Same,
            }
        }
        Some("lint") => {
            let key = |rule: &str, line: u64, detail: &str| format!("{rule}:{line} {detail}");
            let found: BTreeSet<String> = diagnostics
                .iter()
                .filter_map(|found| Some(key(found.rule?.name, u64::from(position(found)), &found.message)))
                .collect();
            let wanted = case.expected["warnings"].as_array().unwrap().iter().map(|warning| {
                let text = |name: &str| warning[name].as_str().unwrap();
                key(text("rule"), warning["line"].as_u64().unwrap(), text("detail"))
            });
            let wanted: BTreeSet<String> = wanted.collect();
            let (more, less): (Vec<_>, Vec<_>) =
                (found.difference(&wanted).collect(), wanted.difference(&found).collect());
            if more.is_empty() && less.is_empty() {
                Verdict::Same
            } else {
                Verdict::Differs(format!("unexpected {more:?}, missing {less:?}"))
            }
        }
        _ => match (errors.first(), lowered) {
            (Some(error), _) => Verdict::Differs(format!("line {}: {}", position(error), error.message)),
            (None, Some(plan)) => judge_images(case, &plan),
            (None, None) => Verdict::Undecided,
        },
    }
}

/// The dialects differ in one place that the corpus uses.
fn python_pattern(pattern: &str) -> String {
    pattern.replace(r"\ ", " ")
}

fn judge_images(case: &Case, plan: &Plan) -> Verdict {
    let images = case.expected["images"].as_object().expect("an image for each platform");
    if images.len() != plan.platforms.len() {
        return Verdict::Differs(format!("{} platforms", plan.platforms.len()));
    }
    for built in &plan.platforms {
        let image = &built.image;
        let config = describe(&image.config);
        let platform = [Some(&image.config.os), Some(&image.config.architecture), image.config.variant.as_ref()];
        let platform: Vec<&str> = platform.into_iter().flatten().map(String::as_str).collect();
        let Some(expected) = images.get(&platform.join("/")) else {
            return Verdict::Differs(format!("no image for {}", platform.join("/")));
        };
        let mut wanted = expected["config"].clone();
        if image.config.created.is_none() {
            wanted.as_object_mut().unwrap().remove("created");
        }
        let mut config = config;
        if wanted.get("created").is_none() {
            config.as_object_mut().unwrap().remove("created");
        }
        if config != wanted {
            return Verdict::Differs(format!("config\n  want {wanted}\n  got  {config}"));
        }
        let entries = image.config.history[image.inherited_history..].iter();
        let history: Vec<Value> =
            entries.map(|entry| json!({"created_by": entry.created_by, "empty": entry.empty_layer})).collect();
        let wanted: Vec<Value> = expected["history"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| json!({"created_by": entry["created_by"], "empty": entry["empty"]}))
            .collect();
        if history != wanted {
            return Verdict::Differs(format!("history\n  want {}\n  got  {}", json!(wanted), json!(history)));
        }
        if Some(image.layers.len() as u64) != expected["layers"].as_u64() {
            return Verdict::Differs(format!("{} layers, want {}", image.layers.len(), expected["layers"]));
        }
        let base = image.base.as_ref().map_or("scratch".to_owned(), |base| base.reference.familiar_name());
        let wanted = expected["base"].as_str().unwrap();
        if base != wanted.split(' ').next().unwrap() {
            return Verdict::Differs(format!("base {base}, want {wanted}"));
        }
    }
    Verdict::Same
}

/// The comparable form of a configuration: nothing empty, platform and author beside the rest.
fn describe(image: &ImageConfig) -> Value {
    let mut config = serde_json::to_value(&image.config).unwrap();
    let map = config.as_object_mut().unwrap();
    map.retain(|_, value| {
        *value != json!(null)
            && *value != json!("")
            && *value != json!([])
            && *value != json!({})
            && *value != json!(false)
    });
    for (name, value) in [
        ("architecture", Some(&image.architecture)),
        ("os", Some(&image.os)),
        ("variant", image.variant.as_ref()),
        ("author", Some(&image.author)),
        ("created", image.created.as_ref()),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            map.insert(name.to_owned(), json!(value));
        }
    }
    config
}

#[test]
fn the_corpus_is_planned_as_buildkit_does() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
    let Ok(cases) = std::fs::read_dir(corpus.join("cases")) else {
        eprintln!("skipped: no conformance corpus beside the repository");
        return;
    };
    let mut names: Vec<String> = cases.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let (mut same, mut undecided, mut different) = (0, Vec::new(), Vec::new());
    for name in &names {
        let case = Case::read(&corpus, name);
        match judge(&case) {
            Verdict::Same => same += 1,
            Verdict::Undecided => undecided.push(case.name),
            Verdict::Differs(how) => different.push(format!("{}: {how}", case.name)),
        }
    }
    eprintln!("{same} of {} cases are planned the same; {} need a run: {undecided:?}", names.len(), undecided.len());
    assert!(different.is_empty(), "{} cases differ:\n{}", different.len(), different.join("\n"));
}
