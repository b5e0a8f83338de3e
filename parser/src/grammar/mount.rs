//! The comma-separated fields of `--mount` and `--device`, as `go-csvvalue` reads one line of CSV.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till};
use nom::character::complete::char;
use nom::combinator::{eof, map, peek, value};
use nom::multi::fold_many0;
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};

use super::offset;

/// A line that is no CSV.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CsvError {
    #[error("EOF")]
    Empty,
    #[error("parse error on line 1, column {column}: bare \" in non-quoted-field")]
    BareQuote { column: usize },
    #[error("parse error on line 1, column {column}: extraneous or missing \" in quoted-field")]
    Quote { column: usize },
}

/// The fields of a line.
pub(crate) fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    if line.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (after, field) = match rest.starts_with('"') {
            true => quoted(rest).map_err(|_| CsvError::Quote { column: bad_quote(line, rest) })?,
            false => {
                let (after, field) = plain(rest);
                if let Some(at) = field.find('"') {
                    return Err(CsvError::BareQuote { column: offset(line, field) + at + 1 });
                }
                (after, field.to_owned())
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

fn plain(input: &str) -> (&str, &str) {
    let end = input.find(',').unwrap_or(input.len());
    (&input[end..], &input[..end])
}

/// `"…"` with `""` for a quote, up to a comma or the end.
fn quoted(input: &str) -> IResult<&str, String> {
    let part = alt((value("\"", tag("\"\"")), plain_part));
    let body = fold_many0(part, String::new, |mut text: String, part| {
        text.push_str(part);
        text
    });
    terminated(preceded(char('"'), body), (char('"'), peek(alt((map(char(','), |_| ()), map(eof, |_| ()))))))
        .parse(input)
}

fn plain_part(input: &str) -> IResult<&str, &str> {
    nom::combinator::verify(take_till(|c| c == '"'), |part: &str| !part.is_empty()).parse(input)
}

/// Where a quoted field goes wrong: at the quote that something else follows, or after the opening one.
fn bad_quote(line: &str, field: &str) -> usize {
    let start = offset(line, field) + 1;
    let mut at = start;
    while let Some(found) = line[at..].find('"') {
        let quote = at + found;
        match line[quote + 1..].strip_prefix('"') {
            Some(_) => at = quote + 2,
            None => return quote + 1,
        }
    }
    start + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_as_go_does() {
        for (line, expected) in [
            ("a,b=c", vec!["a", "b=c"]),
            ("a,", vec!["a", ""]),
            ("\"a\",", vec!["a", ""]),
            (",a", vec!["", "a"]),
            ("\"a,b\",c", vec!["a,b", "c"]),
            ("\"a\"\"b\"", vec!["a\"b"]),
            ("\"\"", vec![""]),
        ] {
            assert_eq!(fields(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn misplaced_quotes_are_found() {
        assert_eq!(fields("a\"b"), Err(CsvError::BareQuote { column: 2 }));
        assert_eq!(fields("x,\"ab"), Err(CsvError::Quote { column: 4 }));
        let words = r#"parse error on line 1, column 4: extraneous or missing " in quoted-field"#;
        assert_eq!(fields("x,\"ab").unwrap_err().to_string(), words);
        assert_eq!(fields("\"ab\"c"), Err(CsvError::Quote { column: 4 }));
        assert_eq!(fields(""), Err(CsvError::Empty));
    }
}
