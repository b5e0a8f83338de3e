//! `--call=METHOD[,format=json][,ignorestatus=true]`, as buildx reads it.

use std::str::FromStr;

use rbuild_parser::parse_bool;

use crate::cli::report::Failure;

/// What is asked, and how the answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The question.
    pub method: Method,
    /// Whether the answer is JSON.
    pub json: bool,
    /// Whether findings leave the exit code alone.
    pub ignore_status: bool,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Build checks.
    Check,
    /// What can be given to the target.
    Outline,
    /// The stages that can be built.
    Targets,
}

impl Call {
    /// `--check`.
    pub const CHECK: Self = Self { method: Method::Check, json: false, ignore_status: false };

    /// Reads a call; `build` is none.
    pub fn parse(text: &str) -> Result<Option<Self>, Failure> {
        let (mut name, mut json, mut ignore_status) = (None, false, false);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("format", "json")) => json = true,
                Some(("format", "text")) => json = false,
                Some(("format", other)) => {
                    return Err(Failure::usage(
                        format!("--call={text}: no such format: {other}"),
                        "formats are text and json",
                    ));
                }
                Some(("ignorestatus", value)) => {
                    ignore_status = parse_bool(value).ok_or_else(|| {
                        let message = format!("--call={text}: invalid ignorestatus value: {value}");
                        Failure::usage(message, "it is true or false")
                    })?;
                }
                None if name.is_none() => name = Some(field),
                _ => {
                    let help = "e.g. --call=check,format=json";
                    return Err(Failure::usage(format!("--call={text}: invalid field: {field}"), help));
                }
            }
        }
        match name.unwrap_or("build") {
            "build" | "" => Ok(None),
            name => Ok(Some(Self { method: name.parse()?, json, ignore_status })),
        }
    }
}

impl FromStr for Method {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        match text {
            "check" | "lint" => Ok(Self::Check),
            "outline" => Ok(Self::Outline),
            "targets" => Ok(Self::Targets),
            _ => {
                let near = rbuild_parser::did_you_mean(text, ["build", "check", "outline", "targets"]);
                let help = "known are build, check, outline and targets";
                Err(Failure::usage(format!("--call={text}: no such method{near}"), help))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_as_by_buildx() {
        let call = |method, json, ignore_status| Some(Call { method, json, ignore_status });
        for (text, want) in [
            ("build", None),
            ("", None),
            ("check", call(Method::Check, false, false)),
            ("lint,format=json", call(Method::Check, true, false)),
            ("format=json,outline", call(Method::Outline, true, false)),
            ("targets,format=text", call(Method::Targets, false, false)),
            ("check,ignorestatus=1", call(Method::Check, false, true)),
        ] {
            assert_eq!(Call::parse(text).unwrap(), want, "{text}");
        }
        for (text, message) in [
            ("chek", "--call=chek: no such method (did you mean check?)"),
            ("check,format=xml", "--call=check,format=xml: no such format: xml"),
            ("check,outline", "--call=check,outline: invalid field: outline"),
            ("check,colour=1", "--call=check,colour=1: invalid field: colour=1"),
            ("check,ignorestatus=2", "--call=check,ignorestatus=2: invalid ignorestatus value: 2"),
        ] {
            assert_eq!(Call::parse(text).unwrap_err().message(), message, "{text}");
        }
    }
}
