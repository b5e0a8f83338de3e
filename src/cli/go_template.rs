//! The part of Go's templates that people give to `--format`: `{{.Name}}`, `{{.A.B}}`, `{{json .}}`, `{{json .Name}}`
//! and text around them. Anything else is refused by name.

use serde_json::Value;

use super::report::Failure;

/// A template, parsed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field { path: Vec<String>, json: bool },
}

impl Template {
    /// Parses a template.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(begin) = rest.find("{{") {
            let end = rest[begin..].find("}}").map(|end| begin + end);
            let Some(end) = end else { return Err(refused(&rest[begin..])) };
            parts.push(Part::Text(unescaped(&rest[..begin])));
            parts.push(field(rest[begin + 2..end].trim_matches('-').trim())?);
            rest = &rest[end + 2..];
        }
        parts.push(Part::Text(unescaped(rest)));
        Ok(Self(parts))
    }

    /// Fills the template from an object. A field that it lacks is refused, as Go does.
    pub(super) fn render(&self, value: &Value) -> Result<String, Failure> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field { path, json } => {
                    let mut at = value;
                    for name in path {
                        at = at.get(name).ok_or_else(|| {
                            let known: Vec<&str> = value
                                .as_object()
                                .into_iter()
                                .flat_map(|object| object.keys())
                                .map(String::as_str)
                                .collect();
                            Failure::usage(
                                format!("--format: there is no field {name:?}"),
                                format!("fields are {}", known.join(", ")),
                            )
                        })?;
                    }
                    match (json, at) {
                        (false, Value::String(text)) => out.push_str(text),
                        (false, Value::Null) => {}
                        (_, other) => out.push_str(&other.to_string()),
                    }
                }
            }
        }
        Ok(out)
    }
}

fn field(text: &str) -> Result<Part, Failure> {
    let (json, path) = match text.strip_prefix("json ") {
        Some(path) => (true, path.trim()),
        None => (false, text),
    };
    let Some(path) = path.strip_prefix('.') else { return Err(refused(text)) };
    let names: Vec<String> = path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let fine = names.iter().all(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    if fine { Ok(Part::Field { path: names, json }) } else { Err(refused(text)) }
}

fn refused(text: &str) -> Failure {
    Failure::usage(
        format!("--format: {text:?} is not served"),
        "known are json, table, and templates of {{.Field}} and {{json .Field}}",
    )
}

fn unescaped(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_filled_in_and_the_rest_is_refused() {
        let value = serde_json::json!({"Ref": "ab", "Config": {"NoCache": true}, "Tags": ["x"]});
        let render = |text: &str| Template::parse(text).and_then(|template| template.render(&value));
        assert_eq!(render("{{.Ref}}\\t{{ .Config.NoCache }}!").unwrap(), "ab\ttrue!");
        assert_eq!(render("{{json .Tags}} {{.Tags}} {{json .Ref}}").unwrap(), "[\"x\"] [\"x\"] \"ab\"");
        assert_eq!(render("{{json .Config}}").unwrap(), "{\"NoCache\":true}");
        for bad in ["{{.Nope}}", "{{range .Tags}}", "{{.Ref", "{{len .Tags}}"] {
            assert!(render(bad).is_err(), "{bad}");
        }
    }
}
