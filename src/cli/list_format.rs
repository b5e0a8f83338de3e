//! `--format` of lists, as Docker has it: `json`, `table`, `table TEMPLATE` and `TEMPLATE`.

use serde_json::{Map, Value};

use super::go_template::{LABELS, Template};
use super::report::Failure;
use super::table::Table;

/// How a list is shown.
#[derive(Debug, PartialEq)]
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
        // In lists, unlike in `inspect`, tabs and line ends may be written as two characters.
        let text = text.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
        match text.as_str() {
            "table" | "" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => match text.strip_prefix("table") {
                Some(template) => Ok(Self::Columns(Template::parse(template.trim_matches(' '))?)),
                None => Ok(Self::Line(Template::parse(&text)?)),
            },
        }
    }
}

/// What Docker calls the rows of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    /// The type that messages name: `*formatter.imageContext`.
    pub(super) row_type: &'static str,
    /// Headings that are not the field's name in capitals.
    pub(super) headings: &'static [(&'static str, &'static str)],
}

impl Rows {
    /// Rows without a type of Docker's.
    pub(super) const PLAIN: Self = Self { row_type: "row", headings: &[] };

    fn heading(&self, name: &str) -> String {
        let own = self.headings.iter().find(|(field, _)| *field == name).map(|(_, heading)| (*heading).to_owned());
        own.unwrap_or_else(|| heading(name))
    }
}

/// Renders objects, which all have the same fields.
pub(super) fn render(
    format: &Format,
    rows: &[Map<String, Value>],
    table: impl FnOnce() -> String,
) -> Result<String, Failure> {
    render_as(format, &Rows::PLAIN, rows, table)
}

/// Renders objects, which all have the same fields, with Docker's headings and messages.
pub(super) fn render_as(
    format: &Format,
    of: &Rows,
    rows: &[Map<String, Value>],
    table: impl FnOnce() -> String,
) -> Result<String, Failure> {
    let mut out = String::new();
    match format {
        Format::Table => return Ok(table()),
        Format::Json => {
            for row in rows {
                let mut row = row.clone();
                row.shift_remove(LABELS);
                out.push_str(&serde_json::to_string(&row)?);
                out.push('\n');
            }
        }
        Format::Line(template) => {
            for row in rows {
                out.push_str(&template.render_row(row, of.row_type)?);
                out.push('\n');
            }
        }
        Format::Columns(template) => {
            let mut lines = vec![template.render_headings(&|name| of.heading(name))?];
            for row in rows {
                lines.push(template.render_row(row, of.row_type)?);
            }
            let cells = lines.iter().flat_map(|lines| lines.split('\n'));
            out =
                Table::of(cells.map(|line| line.split('\t').map(str::to_owned).collect()).collect()).docker().render();
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

    const ROWS: Rows = Rows { row_type: "*formatter.imageContext", headings: &[("ID", "IMAGE ID")] };

    fn rendered(format: &str) -> Result<String, Failure> {
        let labels = serde_json::json!({"com.example.my-tier": "front,k=v"});
        let row = serde_json::json!({"ID": "a1", "Label": labels, "LastUsed": "2 days ago", "Size": 5});
        let Value::Object(row) = row else { unreachable!("it is one") };
        render_as(&format.parse()?, &ROWS, &[row], || "own\n".to_owned())
    }

    #[test]
    fn formats_are_dockers() {
        for (format, shown) in [
            ("table", "own\n"),
            ("", "own\n"),
            ("json", "{\"ID\":\"a1\",\"LastUsed\":\"2 days ago\",\"Size\":5}\n"),
            ("{{.ID}}: {{.Size}}", "a1: 5\n"),
            ("{{.ID}}\\t{{\"a\\tb\"}}", "a1\ta\tb\n"),
            ("{{json .}}", "{\"ID\":\"a1\",\"LastUsed\":\"2 days ago\",\"Size\":5}\n"),
            ("table {{.ID}}\\t{{.LastUsed}}", "IMAGE ID   LAST USED\na1         2 days ago\n"),
            ("{{.Label \"com.example.my-tier\"}}|{{.Label \"none\"}}", "front,k=v|\n"),
            ("table {{.ID}}\\t{{.Label \"com.example.my-tier\"}}", "IMAGE ID   my tier\na1         front,k=v\n"),
            ("table {{.ID | upper}} {{json .ID}}", "IMAGE ID IMAGE ID\nA1 \"a1\"\n"),
        ] {
            assert_eq!(rendered(format).unwrap(), shown, "{format}");
        }
    }

    #[test]
    fn a_table_without_rows_has_its_heading() {
        let format: Format = "table {{.ID}}\\t{{.LastUsed}}".parse().unwrap();
        assert_eq!(render_as(&format, &ROWS, &[], String::new).unwrap(), "IMAGE ID   LAST USED\n");
    }

    #[test]
    fn what_is_wrong_is_said_as_docker_does() {
        for (format, message) in [
            ("{{.ID", "template parsing error: template: :1: unclosed action"),
            ("{{nope}}", "template parsing error: template: :1: function \"nope\" not defined"),
            (
                "{{.Nope}}",
                "template parsing error: template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type \
                 *formatter.imageContext",
            ),
            (
                "{{.ID.X}}",
                "template parsing error: template: :1:5: executing \"\" at <.ID.X>: can't evaluate field X in type \
                 string",
            ),
        ] {
            assert_eq!(rendered(format).unwrap_err().message(), message, "{format}");
        }
    }
}
