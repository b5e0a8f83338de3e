//! `--change`: instructions of a Dockerfile that alter an image's config without a build.

use std::sync::Arc;

use rbuild_image::{Digest, ImageConfig, ImageRef, Platform, RuntimeConfig};
use rbuild_parser::{Source, parse};
use rbuild_solver::{Goal, NamedContext, Resolve, ResolveError, ResolvedImage, lower};

use crate::cli::report::Failure;

/// The name under which the changed image is its own base.
const BASE: &str = "changed";

/// What instructions make of a config: the same lowering as in a build on an image that has it.
pub(super) fn apply(base: RuntimeConfig, changes: &[String], platform: &Platform) -> Result<RuntimeConfig, Failure> {
    if changes.is_empty() {
        return Ok(base);
    }
    let help =
        "known are CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR";
    let wrong = |message: &str| Failure::usage(format!("--change: {message}"), help);
    let source = Source::new("--change", format!("FROM {BASE}\n{}\n", changes.join("\n")));
    let parsed = parse(&source);
    if let Some(error) = parsed.diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
        return Err(wrong(&error.message));
    }
    for instruction in changes {
        let keyword = instruction.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        if matches!(keyword.as_str(), "FROM" | "RUN" | "COPY" | "ADD" | "ARG" | "SHELL" | "MAINTAINER") {
            return Err(wrong(&format!("{keyword} is not a valid change command")));
        }
    }
    // A build would run the triggers; here they are data, to which ONBUILD adds.
    let mut config = ImageConfig::new(platform);
    let triggers = base.on_build.clone();
    let (path, directory) = (base.env.clone(), base.working_dir.clone());
    config.config = RuntimeConfig { on_build: Vec::new(), ..base };
    let goal = Goal { platforms: vec![platform.clone()], ..Goal::new(Platform::host()) };
    let plan = lower(&source, &parsed.value, &goal, &Itself(Arc::new(config)))
        .map_err(|found| wrong(found.first().map_or("not an instruction of a Dockerfile", |first| &first.message)))?;
    let image = plan.platforms.into_iter().next().map(|platform| platform.image);
    let mut config = image.ok_or_else(|| wrong("no instruction"))?.config.config;
    config.on_build.splice(0..0, triggers);
    // Defaults of builds, not of images: a config says only what it was told to.
    let says =
        |keyword: &str| changes.iter().any(|change| change.trim_start().to_ascii_uppercase().starts_with(keyword));
    if !says("WORKDIR") {
        config.working_dir = directory;
    }
    let has_path = |env: &[String]| env.iter().any(|word| word.starts_with("PATH="));
    if !says("ENV") {
        config.env = path;
    } else if !has_path(&path) && !changes.iter().any(|change| change.contains("PATH")) {
        config.env.retain(|word| !word.starts_with("PATH="));
    }
    Ok(config)
}

/// There is nothing outside but the image itself.
struct Itself(Arc<ImageConfig>);

impl Resolve for Itself {
    fn image(&self, reference: &ImageRef, _: &Platform) -> Result<ResolvedImage, ResolveError> {
        let digest = Digest::sha256(self.0.to_json());
        match reference.familiar_name() == BASE {
            true => {
                Ok(ResolvedImage { reference: reference.clone(), shown: digest, digest, config: Arc::clone(&self.0) })
            }
            false => Err(ResolveError { message: format!("{reference}: --change cannot name images"), help: None }),
        }
    }

    fn context(&self, _: &str, _: &Platform) -> Result<Option<NamedContext>, ResolveError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(base: RuntimeConfig, changes: &[&str]) -> Result<RuntimeConfig, Failure> {
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        apply(base, &changes, &Platform::host())
    }

    #[test]
    fn instructions_change_what_they_name_and_nothing_else() {
        let base = RuntimeConfig {
            cmd: Some(vec!["sh".into()]),
            env: vec!["A=1".into()],
            on_build: vec!["RUN old".into()],
            user: "app".into(),
            ..RuntimeConfig::default()
        };
        let config = changed(base.clone(), &["CMD [\"run\", \"it\"]", "LABEL x=y", "ONBUILD RUN new"]).unwrap();
        assert_eq!(config.cmd, Some(vec!["run".into(), "it".into()]));
        assert_eq!(config.labels.get("x").map(String::as_str), Some("y"));
        assert_eq!(config.on_build, ["RUN old", "RUN new"]);
        assert_eq!((&config.user, &config.env, config.working_dir.as_str()), (&base.user, &base.env, ""));
        assert_eq!(changed(base.clone(), &["ENV B=2"]).unwrap().env, ["A=1", "B=2"]);
        assert_eq!(changed(RuntimeConfig::default(), &["ENTRYPOINT [\"/x\"]"]).unwrap().env, [""; 0]);
        assert_eq!(changed(base.clone(), &[]).unwrap(), base);
    }

    #[test]
    fn what_would_make_a_layer_is_refused() {
        for change in ["RUN make", "COPY a b", "FROM x", "ADD a b"] {
            let error = changed(RuntimeConfig::default(), &[change]).unwrap_err();
            assert!(error.message().contains("is not a valid change command"), "{change}: {}", error.message());
        }
        assert!(changed(RuntimeConfig::default(), &["NONSENSE x"]).is_err());
    }
}
