//! The values that templates see, and how Go prints them.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Map, Number, Value as Json};

use super::shape::{Presence, Shape};

/// The key of a row under which its labels are that the method `Label` looks up; it is no field of the row.
pub(in crate::cli) const LABELS: &str = "Label";

/// A value. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Nothing at all: a key that a map lacks, or a nil interface.
    Missing,
    /// A nil pointer, with the name of what it could point at.
    NilPointer(&'static str),
    /// true or false
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// Nanoseconds.
    Duration(i64),
    /// A number with a fraction.
    Float(f64),
    /// A point in time; the text is RFC 3339's, as JSON has it.
    Time(Rc<str>),
    /// Text.
    Text(Rc<str>),
    /// Several values.
    List(Rc<Vec<Self>>),
    /// A nil slice: an empty list, but `null` in JSON.
    NilList,
    /// Values by key, in the order of the keys.
    Map(Rc<Entries>),
    /// Fields that were declared.
    Struct(Rc<Fields>),
}

/// What a map holds.
#[derive(Debug, PartialEq)]
pub(super) struct Entries {
    pub(super) values: BTreeMap<String, Value>,
    /// What a key gives that is not there.
    pub(super) absent: Value,
    /// Whether there is no map at all: an empty one, but `null` in JSON.
    pub(super) nil: bool,
}

/// What a struct holds.
#[derive(Debug, PartialEq)]
pub(super) struct Fields {
    /// Go's name of the type.
    pub(super) name: &'static str,
    /// In the order of the declaration.
    pub(super) fields: Vec<DeclaredField>,
    /// What its method `Label` looks names up in, where it has that method.
    pub(super) labels: Option<BTreeMap<String, String>>,
}

/// A field of a struct.
#[derive(Debug, PartialEq)]
pub(super) struct DeclaredField {
    /// Go's name.
    pub(super) name: String,
    /// JSON's name.
    pub(super) key: String,
    pub(super) value: Value,
    /// Whether JSON leaves it out when it is empty.
    pub(super) presence: Presence,
}

impl Fields {
    /// The field of that name. Docker, too, takes JSON's: it falls back on the document as it is.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|field| field.name == name || field.key == name).map(|field| &field.value)
    }
}

impl Value {
    /// Text.
    pub(super) fn text(text: impl Into<Rc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// A JSON document without declared types: objects are maps.
    pub(super) fn from_json(json: &Json) -> Self {
        match json {
            Json::Null => Self::Missing,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => {
                number.as_i64().map_or_else(|| Self::Float(number.as_f64().unwrap_or(f64::NAN)), Self::Integer)
            }
            Json::String(text) => Self::text(text.as_str()),
            Json::Array(items) => Self::List(Rc::new(items.iter().map(Self::from_json).collect())),
            Json::Object(object) => Self::Map(Rc::new(Entries {
                values: object.iter().map(|(key, value)| (key.clone(), Self::from_json(value))).collect(),
                absent: Self::Missing,
                nil: false,
            })),
        }
    }

    /// A JSON document of a declared shape: what it lacks has the zero value, what it has besides is not seen.
    pub(super) fn shaped(json: &Json, shape: &Shape) -> Self {
        match (shape, json) {
            (Shape::Pointer(name, _), Json::Null) => Self::NilPointer(name),
            (Shape::Pointer(_, shape), _) => Self::shaped(json, shape),
            (Shape::Text, Json::String(_)) | (Shape::Integer, Json::Number(_)) | (Shape::Bool, Json::Bool(_)) => {
                Self::from_json(json)
            }
            (Shape::Time, _) => Self::Time(json.as_str().unwrap_or("0001-01-01T00:00:00Z").into()),
            (Shape::Duration, _) => Self::Duration(json.as_i64().unwrap_or(0)),
            (Shape::Text, _) => Self::text(""),
            (Shape::Integer, _) => Self::Integer(0),
            (Shape::Bool, _) => Self::Bool(false),
            (Shape::List(_), Json::Null) => Self::NilList,
            (Shape::List(shape), _) => {
                let items = json.as_array().map(Vec::as_slice).unwrap_or_default();
                Self::List(Rc::new(items.iter().map(|item| Self::shaped(item, shape)).collect()))
            }
            (Shape::Map(shape), _) => {
                let entries = json.as_object().into_iter().flatten();
                let values = entries.map(|(key, value)| (key.clone(), Self::shaped(value, shape))).collect();
                let absent = Self::shaped(&Json::Null, shape);
                Self::Map(Rc::new(Entries { values, absent, nil: json.is_null() }))
            }
            (Shape::Struct(name, declared), _) => {
                let field = |field: &super::shape::Field| DeclaredField {
                    name: field.name.to_owned(),
                    key: field.key.to_owned(),
                    value: Self::shaped(json.get(field.key).unwrap_or(&Json::Null), &field.shape),
                    presence: field.presence,
                };
                Self::Struct(Rc::new(Fields { name, fields: declared.iter().map(field).collect(), labels: None }))
            }
        }
    }

    /// A row of a list: a struct of the type that messages name. Its labels, by name, are those of the method `Label`.
    pub(super) fn row(row: &Map<String, Json>, name: &'static str) -> Self {
        let label = |(key, value): (&String, &Json)| (key.clone(), value.as_str().unwrap_or_default().to_owned());
        let labels = row.get(LABELS).and_then(Json::as_object);
        let labels = labels.map(|labels| labels.iter().map(label).collect());
        let fields = row.iter().filter(|(key, _)| *key != LABELS).map(|(key, value)| DeclaredField {
            name: key.clone(),
            key: key.clone(),
            value: Self::from_json(value),
            presence: Presence::Always,
        });
        Self::Struct(Rc::new(Fields { name, fields: fields.collect(), labels }))
    }

    /// The same for functions that tell no nil slice from an empty one.
    pub(super) fn without_nil(self) -> Self {
        if self == Self::NilList { Self::List(Rc::new(Vec::new())) } else { self }
    }

    /// Back to JSON, for the function `json`.
    pub(super) fn to_json(&self) -> Json {
        match self {
            Self::Missing | Self::NilPointer(_) | Self::NilList => Json::Null,
            Self::Map(entries) if entries.nil => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Integer(value) | Self::Duration(value) => Json::from(*value),
            Self::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => Json::from(*value as i64),
            Self::Float(value) => Number::from_f64(*value).map_or(Json::Null, Json::Number),
            Self::Text(text) | Self::Time(text) => Json::from(text.as_ref()),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Map(entries) => {
                entries.values.iter().map(|(key, value)| (key.clone(), value.to_json())).collect::<Map<_, _>>().into()
            }
            Self::Struct(fields) => fields
                .fields
                .iter()
                .filter(|field| field.presence == Presence::Always || field.value.is_true())
                .map(|field| (field.key.clone(), field.value.to_json()))
                .collect::<Map<_, _>>()
                .into(),
        }
    }

    /// Whether `if` takes it for true: what is not zero, nil or empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Missing | Self::NilPointer(_) | Self::NilList => false,
            Self::Bool(value) => *value,
            Self::Integer(value) | Self::Duration(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(entries) => !entries.values.is_empty(),
            Self::Struct(_) | Self::Time(_) => true,
        }
    }

    /// The name of its type, as far as messages need it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Missing => "<nil>",
            Self::NilPointer(name) => name,
            Self::Bool(_) => "bool",
            Self::Integer(_) => "int",
            Self::Duration(_) => "time.Duration",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Time(_) => "time.Time",
            Self::List(_) | Self::NilList => "[]interface {}",
            Self::Map(_) => "map[string]interface {}",
            Self::Struct(fields) => fields.name,
        }
    }

    /// As `%v` prints it.
    pub(super) fn print(&self) -> String {
        let mut out = String::new();
        self.print_to(&mut out, Naming::Left);
        out
    }

    /// As `%+v` prints it: with the names of fields.
    pub(super) fn print_named(&self) -> String {
        let mut out = String::new();
        self.print_to(&mut out, Naming::Said);
        out
    }

    /// As an action prints it: nothing at all is `<no value>`.
    pub(super) fn print_action(&self) -> String {
        if *self == Self::Missing { "<no value>".to_owned() } else { self.print() }
    }

    fn print_to(&self, out: &mut String, naming: Naming) {
        let spaced = |out: &mut String, values: &mut dyn Iterator<Item = (Option<&str>, &Self)>| {
            for (position, (key, value)) in values.enumerate() {
                if position > 0 {
                    out.push(' ');
                }
                if let Some(key) = key {
                    out.push_str(key);
                    out.push(':');
                }
                value.print_to(out, naming);
            }
        };
        match self {
            Self::Missing | Self::NilPointer(_) => out.push_str("<nil>"),
            Self::Bool(value) => out.push_str(&value.to_string()),
            Self::Integer(value) => out.push_str(&value.to_string()),
            Self::Duration(value) => out.push_str(&super::printf::duration(*value)),
            Self::Float(value) => out.push_str(&super::printf::shortest(*value)),
            Self::Text(text) => out.push_str(text),
            Self::Time(text) => out.push_str(&time(text)),
            Self::NilList => out.push_str("[]"),
            Self::List(items) => {
                out.push('[');
                spaced(out, &mut items.iter().map(|item| (None, item)));
                out.push(']');
            }
            Self::Map(entries) => {
                out.push_str("map[");
                spaced(out, &mut entries.values.iter().map(|(key, value)| (Some(key.as_str()), value)));
                out.push(']');
            }
            Self::Struct(fields) => {
                let named = naming == Naming::Said;
                out.push('{');
                let fields = fields.fields.iter();
                spaced(out, &mut fields.map(|field| (named.then_some(field.name.as_str()), &field.value)));
                out.push('}');
            }
        }
    }
}

/// Whether a struct is printed with the names of its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    Said,
    Left,
}

/// A time as Go prints it: `2026-01-02 15:04:05.5 +0000 UTC`.
fn time(text: &str) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string(),
        Err(_) => text.to_owned(),
    }
}
