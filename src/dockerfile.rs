//! A Dockerfile from text to plan: what build arguments decide about reading it, and all that is wrong with it in one list.

use rbuild_parser::lint::Config;
use rbuild_parser::{Diagnostic, Dockerfile, Overrides, Parsed, Source, parse_bool, parse_with};
use rbuild_solver::{Goal, Plan, Resolve, lower, more_faults};

use crate::cli::report::Failure;
use crate::request::BuildRequest;

/// Reads a Dockerfile; `BUILDKIT_SYNTAX` and `BUILDKIT_DOCKERFILE_CHECK` go before its directives.
pub(crate) fn read(source: &Source, request: &BuildRequest) -> Result<Parsed<Dockerfile>, Failure> {
    let checks = argument(request, "BUILDKIT_DOCKERFILE_CHECK").map(Config::parse).transpose().map_err(|error| {
        Failure::new(format!("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: {error}"))
            .with_help("e.g. --build-arg BUILDKIT_DOCKERFILE_CHECK='skip=JSONArgsRecommended;error=true'")
    })?;
    let frontend = argument(request, "BUILDKIT_SYNTAX").map(str::to_owned);
    Ok(parse_with(source, Overrides { checks, frontend }))
}

/// Plans what was read, or says all that is wrong: errors as they were met, then what the checks found.
pub(crate) fn plan(
    source: &Source,
    parsed: &Parsed<Dockerfile>,
    goal: &Goal,
    outside: &dyn Resolve,
    request: &BuildRequest,
) -> Result<Plan, Vec<Diagnostic>> {
    if !parsed.has_errors() {
        return lower(source, &parsed.value, goal, outside);
    }
    let replaced = |name: &str| request.named_contexts.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let errors = parsed.diagnostics.iter().filter(|one| one.is_error()).cloned();
    if parsed.value.stages.is_empty() {
        // That there is no stage follows from what is wrong already.
        return Err(errors.collect());
    }
    Err(errors.chain(more_faults(source, &parsed.value, goal, &replaced)).collect())
}

/// Whether the result is an index of platforms: with several platforms, or where `BUILDKIT_MULTI_PLATFORM` says so.
pub(crate) fn is_multi_platform(request: &BuildRequest) -> Result<bool, Failure> {
    let several = request.platforms.len() > 1;
    match argument(request, "BUILDKIT_MULTI_PLATFORM").filter(|text| !text.is_empty()) {
        None => Ok(several),
        Some(text) => match parse_bool(text) {
            None => Err(Failure::new(format!("invalid boolean value for multi-platform: {text}"))
                .with_help("the build argument BUILDKIT_MULTI_PLATFORM is true or false")),
            Some(false) if several => {
                Err(Failure::new("conflicting config: returning multiple target platforms is not allowed")
                    .with_help("leave BUILDKIT_MULTI_PLATFORM out, or give one --platform"))
            }
            Some(on) => Ok(on),
        },
    }
}

/// What people should know of build arguments that do nothing here.
pub(crate) fn idle_arguments(request: &BuildRequest) -> Option<String> {
    let inline = argument(request, "BUILDKIT_INLINE_CACHE").and_then(parse_bool)?;
    inline.then(|| "BUILDKIT_INLINE_CACHE has no effect: cache is kept in the store, not in images".to_owned())
}

/// A build argument; of several of one name the last counts.
fn argument<'a>(request: &'a BuildRequest, name: &str) -> Option<&'a str> {
    request.build_args.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}
