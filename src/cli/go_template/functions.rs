//! The functions of templates: Go's own, and those that Docker adds (`json`, `split`, `join`, `title`, `lower`,
//! `upper`, `pad`, `truncate`).

use std::cmp::Ordering;
use std::rc::Rc;

use super::node::{Operand, Term};
use super::printf;
use super::value::Value;

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Any,
    Text,
    Integer,
    List,
}

/// A function's parameters; the last kind repeats where there may be more.
struct Signature {
    name: &'static str,
    takes: &'static [Takes],
    least: usize,
    most: Option<usize>,
}

const fn exactly(name: &'static str, takes: &'static [Takes]) -> Signature {
    Signature { name, takes, least: takes.len(), most: Some(takes.len()) }
}

const fn at_least(name: &'static str, takes: &'static [Takes], least: usize) -> Signature {
    Signature { name, takes, least, most: None }
}

const FUNCTIONS: &[Signature] = &[
    at_least("and", &[Takes::Any], 1),
    at_least("or", &[Takes::Any], 1),
    exactly("not", &[Takes::Any]),
    at_least("eq", &[Takes::Any], 1),
    exactly("ne", &[Takes::Any, Takes::Any]),
    exactly("lt", &[Takes::Any, Takes::Any]),
    exactly("le", &[Takes::Any, Takes::Any]),
    exactly("gt", &[Takes::Any, Takes::Any]),
    exactly("ge", &[Takes::Any, Takes::Any]),
    at_least("index", &[Takes::Any], 1),
    at_least("slice", &[Takes::Any], 1),
    exactly("len", &[Takes::Any]),
    at_least("print", &[Takes::Any], 0),
    at_least("printf", &[Takes::Text, Takes::Any], 1),
    at_least("println", &[Takes::Any], 0),
    at_least("html", &[Takes::Any], 0),
    at_least("js", &[Takes::Any], 0),
    at_least("urlquery", &[Takes::Any], 0),
    exactly("json", &[Takes::Any]),
    exactly("split", &[Takes::Text, Takes::Text]),
    exactly("join", &[Takes::List, Takes::Text]),
    exactly("title", &[Takes::Text]),
    exactly("lower", &[Takes::Text]),
    exactly("upper", &[Takes::Text]),
    exactly("pad", &[Takes::Text, Takes::Integer, Takes::Integer]),
    exactly("truncate", &[Takes::Text, Takes::Integer]),
];

fn signature(name: &str) -> Option<&'static Signature> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

/// Whether there is such a function.
pub(super) fn exists(name: &str) -> bool {
    signature(name).is_some()
}

/// Whether a function leaves the headings of a table as they are.
pub(super) fn keeps_headings(name: &str) -> bool {
    matches!(name, "json" | "title" | "lower" | "upper" | "truncate")
}

/// Whether a function takes so many arguments.
pub(super) fn check_count(name: &str, count: usize) -> Result<(), String> {
    let Some(function) = signature(name) else { return Err(format!("{name:?} is not a defined function")) };
    let fixed = if function.most.is_some() { function.takes.len() } else { function.takes.len() - 1 };
    match function.most {
        Some(most) if count != most => Err(format!("wrong number of args for {name}: want {most} got {count}")),
        None if count < function.least.min(fixed) || (fixed == 0 && count < function.least) => {
            Err(format!("wrong number of args for {name}: want at least {} got {count}", function.least))
        }
        _ => Ok(()),
    }
}

fn takes(name: &str, position: usize) -> Takes {
    let all = signature(name).map(|function| function.takes).unwrap_or_default();
    all.get(position).or(all.last()).copied().unwrap_or(Takes::Any)
}

fn fits(takes: Takes, value: &Value) -> bool {
    match takes {
        Takes::Any => true,
        Takes::Text => matches!(value, Value::Text(_)),
        Takes::Integer => matches!(value, Value::Integer(_)),
        Takes::List => matches!(value, Value::List(_)),
    }
}

fn wanted(takes: Takes) -> &'static str {
    match takes {
        Takes::Any => "interface {}",
        Takes::Text => "string",
        Takes::Integer => "int",
        Takes::List => "[]string",
    }
}

/// Whether a parameter takes a value that an operand gave.
pub(super) fn check_kind(name: &str, position: usize, value: &Value, operand: &Operand) -> Result<(), String> {
    let takes = takes(name, position);
    if fits(takes, value) {
        return Ok(());
    }
    let wanted = wanted(takes);
    let literal =
        matches!(operand.term, Term::Dot | Term::Bool(_) | Term::Integer(..) | Term::Float(..) | Term::Text(..));
    match (&operand.term, value) {
        (Term::Nil, _) => Err(format!("cannot assign nil to {wanted}")),
        (Term::Dot, _) => Err(format!("wrong type for value; expected {wanted}; got {}", value.type_name())),
        _ if literal && takes == Takes::Integer => Err(format!("expected integer; found {operand}")),
        _ if literal => Err(format!("expected string; found {operand}")),
        (_, Value::Missing) => Err(format!("wrong type for value; expected {wanted}; got interface {{}}")),
        _ => Err(format!("wrong type for value; expected {wanted}; got {}", value.type_name())),
    }
}

/// Whether a parameter takes what the pipe brings.
pub(super) fn check_piped(name: &str, position: usize, value: &Value) -> Result<(), String> {
    let takes = takes(name, position);
    match value {
        _ if fits(takes, value) => Ok(()),
        Value::Missing => Err(format!("invalid value; expected {}", wanted(takes))),
        _ => Err(format!("wrong type for value; expected {}; got {}", wanted(takes), value.type_name())),
    }
}

/// Calls a function with arguments that were checked.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let text = |position: usize| match arguments.get(position) {
        Some(Value::Text(text)) => text.as_ref(),
        _ => "",
    };
    let number = |position: usize| match arguments.get(position) {
        Some(Value::Integer(number)) => usize::try_from(*number).unwrap_or(0),
        _ => 0,
    };
    Ok(match name {
        "not" => Value::Bool(!arguments[0].is_true()),
        "eq" => {
            if arguments.len() < 2 {
                return Err("missing argument for comparison".to_owned());
            }
            let mut equal = false;
            for other in &arguments[1..] {
                equal = equal || equals(&arguments[0], other)?;
            }
            Value::Bool(equal)
        }
        "ne" => Value::Bool(!equals(&arguments[0], &arguments[1])?),
        "lt" => Value::Bool(order(arguments)? == Ordering::Less),
        "le" => Value::Bool(order(arguments)? != Ordering::Greater),
        "gt" => Value::Bool(order(arguments)? == Ordering::Greater),
        "ge" => Value::Bool(order(arguments)? != Ordering::Less),
        "index" => index(arguments)?,
        "slice" => slice(arguments)?,
        "len" => Value::Integer(length(&arguments[0])? as i64),
        "print" => Value::text(print(arguments)),
        "println" => Value::text(arguments.iter().map(Value::print).collect::<Vec<_>>().join(" ") + "\n"),
        "printf" => Value::text(printf::format(text(0), &arguments[1..])),
        "html" => Value::text(html(&print(arguments))),
        "js" => Value::text(js(&print(arguments))),
        "urlquery" => Value::text(url_query(&print(arguments))),
        "json" => Value::text(json(&arguments[0])),
        "split" => {
            let pieces: Vec<Value> = if text(1).is_empty() {
                text(0).chars().map(|c| Value::text(c.to_string())).collect()
            } else {
                text(0).split(text(1)).map(Value::text).collect()
            };
            Value::List(Rc::new(pieces))
        }
        "join" => join(&arguments[0], text(1)),
        "title" => Value::text(title(text(0))),
        "lower" => Value::text(text(0).to_lowercase()),
        "upper" => Value::text(text(0).to_uppercase()),
        "pad" if text(0).is_empty() => Value::text(""),
        "pad" => {
            Value::text(format!("{}{}{}", " ".repeat(number(1).min(4096)), text(0), " ".repeat(number(2).min(4096))))
        }
        "truncate" => Value::text(&text(0)[..text(0).floor_char_boundary(number(1))]),
        other => return Err(format!("{other:?} is not a defined function")),
    })
}

/// JSON as Docker's `json` writes it: on one line, nothing escaped for HTML.
fn json(value: &Value) -> String {
    value.to_json().to_string()
}

/// Unlike Docker's, which wants strings, it also joins what it knows no type of.
fn join(list: &Value, separator: &str) -> Value {
    let Value::List(items) = list else { return Value::text("") };
    Value::text(items.iter().map(Value::print).collect::<Vec<_>>().join(separator))
}

/// As `fmt.Sprint`: a space between two values neither of which is text.
fn print(values: &[Value]) -> String {
    let is_text = |value: &Value| matches!(value, Value::Text(_));
    let mut out = String::new();
    for (position, value) in values.iter().enumerate() {
        if position > 0 && !is_text(value) && !is_text(&values[position - 1]) {
            out.push(' ');
        }
        out.push_str(&value.print());
    }
    out
}

fn is_basic(value: &Value) -> bool {
    matches!(value, Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_))
}

fn equals(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Missing | Value::NilPointer(_), _) | (_, Value::Missing | Value::NilPointer(_)) => {
            Ok(!a.is_true() && !b.is_true() && !is_basic(a) && !is_basic(b))
        }
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Integer(a), Value::Integer(b)) => Ok(a == b),
        (Value::Float(a), Value::Float(b)) => Ok(a == b),
        (Value::Text(a), Value::Text(b)) => Ok(a == b),
        _ if is_basic(a) && is_basic(b) => Err("incompatible types for comparison".to_owned()),
        _ => {
            let odd = if is_basic(a) { b } else { a };
            Err(format!("non-comparable type {}: {}", odd.print(), odd.type_name()))
        }
    }
}

fn order(arguments: &[Value]) -> Result<Ordering, String> {
    match (&arguments[0], &arguments[1]) {
        (Value::Integer(a), Value::Integer(b)) => Ok(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => Ok(a.partial_cmp(b).unwrap_or(Ordering::Greater)),
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        (Value::Bool(_), Value::Bool(_)) => Err("invalid type for comparison".to_owned()),
        (a, b) if is_basic(a) && is_basic(b) => Err("incompatible types for comparison".to_owned()),
        _ => Err("invalid type for comparison".to_owned()),
    }
}

fn length(value: &Value) -> Result<usize, String> {
    match value {
        Value::Text(text) => Ok(text.len()),
        Value::List(items) => Ok(items.len()),
        Value::Map(entries) => Ok(entries.values.len()),
        Value::Missing => Err("len of nil pointer".to_owned()),
        other => Err(format!("len of type {}", other.type_name())),
    }
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    let mut value = arguments[0].clone();
    if value == Value::Missing {
        return Err("index of untyped nil".to_owned());
    }
    for key in &arguments[1..] {
        value = match &value {
            Value::List(items) => items[position(key, items.len())?].clone(),
            Value::Text(text) => Value::Integer(text.as_bytes()[position(key, text.len())?].into()),
            Value::Map(entries) => match key {
                Value::Text(key) => entries.values.get(key.as_ref()).unwrap_or(&entries.absent).clone(),
                Value::Missing => return Err("value is nil; should be of type string".to_owned()),
                other => return Err(format!("value has type {}; should be string", other.type_name())),
            },
            Value::Missing | Value::NilPointer(_) => return Err("index of nil pointer".to_owned()),
            other => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(value)
}

fn position(key: &Value, length: usize) -> Result<usize, String> {
    match key {
        Value::Integer(at) => match usize::try_from(*at) {
            Ok(position) if position < length => Ok(position),
            _ => Err(format!("index out of range: {at}")),
        },
        Value::Missing => Err("cannot index slice/array with nil".to_owned()),
        other => Err(format!("cannot index slice/array with type {}", other.type_name())),
    }
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let value = &arguments[0];
    let length = match value {
        Value::Missing => return Err("slice of untyped nil".to_owned()),
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let mut bounds = [0, length];
    if arguments.len() > 3 {
        return Err(if matches!(value, Value::Text(_)) {
            "cannot 3-index slice a string".to_owned()
        } else {
            format!("too many slice indexes: {}", arguments.len() - 1)
        });
    }
    for (bound, key) in bounds.iter_mut().zip(&arguments[1..]) {
        *bound = position(key, length + 1)?;
    }
    let [from, to] = bounds;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    Ok(match value {
        Value::Text(text) => Value::text(String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()),
        Value::List(items) => Value::List(Rc::new(items[from..to].to_vec())),
        other => other.clone(),
    })
}

/// Upper case for the first letter of each word, as `strings.Title`.
fn title(text: &str) -> String {
    let mut before = ' ';
    let mut out = String::new();
    for c in text.chars() {
        let in_word = before.is_alphanumeric() || before == '_' || (!before.is_ascii() && !before.is_whitespace());
        if in_word {
            out.push(c);
        } else {
            out.extend(c.to_uppercase());
        }
        before = c;
    }
    out
}

fn html(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

fn url_query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
