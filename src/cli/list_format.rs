//! `--format` of lists, as Docker has it: `json`, `table`, `table TEMPLATE` and `TEMPLATE`.

use serde_json::{Map, Value};

use super::go_template::Template;
use super::report::Failure;
use super::table::Table;

/// How a list is shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The command's own table.
    Table,
    /// One JSON object a line.
    Json,
    /// A row for each object, cells apart by tabs, under a heading.
    Columns(Template),
    /// A line for each object.
    Line(Template),
}

impl std::str::FromStr for Format {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        match text {
            "table" | "" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => match text.strip_prefix("table ") {
                Some(template) => Ok(Self::Columns(Template::parse(template)?)),
                None => Ok(Self::Line(Template::parse(text)?)),
            },
        }
    }
}

/// Renders objects, which all have the same fields.
pub(super) fn render(
    format: &Format,
    rows: &[Map<String, Value>],
    table: impl FnOnce() -> String,
) -> Result<String, Failure> {
    let mut out = String::new();
    match format {
        Format::Table => return Ok(table()),
        Format::Json => {
            for row in rows {
                out.push_str(&serde_json::to_string(row)?);
                out.push('\n');
            }
        }
        Format::Line(template) => {
            for row in rows {
                out.push_str(&template.render(&Value::Object(row.clone()))?);
                out.push('\n');
            }
        }
        Format::Columns(template) => {
            let Some(first) = rows.first() else { return Ok(out) };
            let headings = first.keys().map(|name| (name.clone(), Value::String(heading(name)))).collect();
            let mut cells = Vec::new();
            for row in std::iter::once(&headings).chain(rows) {
                let line = template.render(&Value::Object(row.clone()))?;
                cells.push(line.split('\t').map(str::to_owned).collect());
            }
            out = Table::of(cells).render();
        }
    }
    Ok(out)
}

/// `LastUsed` is headed `LAST USED`.
fn heading(name: &str) -> String {
    let mut out = String::new();
    let mut before = '_';
    for c in name.chars() {
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            out.push(' ');
        }
        out.push(c.to_ascii_uppercase());
        before = c;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(format: &str) -> Result<String, Failure> {
        let row = serde_json::json!({"ID": "a1", "LastUsed": "2 days ago", "Size": 5});
        let Value::Object(row) = row else { unreachable!("it is one") };
        render(&format.parse()?, &[row], || "own\n".to_owned())
    }

    #[test]
    fn formats_are_dockers() {
        for (format, shown) in [
            ("table", "own\n"),
            ("json", "{\"ID\":\"a1\",\"LastUsed\":\"2 days ago\",\"Size\":5}\n"),
            ("{{.ID}}: {{.Size}}", "a1: 5\n"),
            ("table {{.ID}}\\t{{.LastUsed}}", "ID   LAST USED\na1   2 days ago\n"),
        ] {
            assert_eq!(rendered(format).unwrap(), shown, "{format}");
        }
        for wrong in ["{{.ID", "{{.Nope}}"] {
            assert!(rendered(wrong).is_err(), "{wrong}");
        }
    }
}
