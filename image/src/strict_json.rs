//! JSON from strangers: bounded in size and depth, no duplicate keys, nothing after the document.
//!
//! Go's decoder takes the last of duplicate keys and matches field names whatever their case, others take the first:
//! a document that could be read in two ways is refused here instead (CVE-2021-41190's class).

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// How deep objects and arrays may be nested.
pub(crate) const MAX_DEPTH: usize = 64;

/// A document that is too large, malformed, or could be read in two ways.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// More bytes than its kind may have.
    #[error("the document has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// How large it is.
        size: u64,
        /// How large it may be.
        limit: u64,
    },
    /// Not JSON, a wrong type, a duplicate key, too deep, or bytes after the end.
    #[error(transparent)]
    Malformed(#[from] serde_json::Error),
    /// A known field spelt in another case, which some readers take for the field itself.
    #[error("the field {found:?} differs from {known:?} in case only")]
    AmbiguousField {
        /// As written.
        found: String,
        /// What it could be taken for.
        known: &'static str,
    },
}

/// Parses one document of at most `limit` bytes.
pub(crate) fn parse_value(bytes: &[u8], limit: u64) -> Result<Value, JsonError> {
    if bytes.len() as u64 > limit {
        return Err(JsonError::TooLarge { size: bytes.len() as u64, limit });
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Parses one document of at most `limit` bytes into a type.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], limit: u64) -> Result<T, JsonError> {
    Ok(serde_json::from_value(parse_value(bytes, limit)?)?)
}

/// Refuses fields of `map` that equal one of `known` but for their case.
pub(crate) fn refuse_case_variants(map: &Map<String, Value>, known: &[&'static str]) -> Result<(), JsonError> {
    for found in map.keys() {
        if let Some(known) = known.iter().find(|known| found != *known && found.eq_ignore_ascii_case(known)) {
            return Err(JsonError::AmbiguousField { found: found.clone(), known });
        }
    }
    Ok(())
}

/// Reads `null` as the default: Go writes it for empty lists and maps.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH}")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(deeper)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(deeper)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("duplicate key {key:?}")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_with_two_readings_are_refused() {
        for (text, want) in [
            (r#"{"a":1,"a":2}"#, "duplicate key"),
            (r#"{"x":{"a":1,"\u0061":2}}"#, "duplicate key"),
            (r#"{} {}"#, "trailing characters"),
            ("{}\0", "trailing characters"),
            ("", "EOF"),
            ("{\"a\":1e999}", "number out of range"),
        ] {
            let error = parse_value(text.as_bytes(), 1000).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
        assert_eq!(parse_value(b" {\"b\":1,\"a\":[null]}\n", 1000).unwrap().to_string(), r#"{"b":1,"a":[null]}"#);
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse_value(nested(MAX_DEPTH).as_bytes(), 1000).is_ok());
        assert!(parse_value(nested(MAX_DEPTH + 1).as_bytes(), 1000).is_err());
        assert!(parse_value("[".repeat(1_000_000).as_bytes(), u64::MAX).is_err());
        assert!(matches!(parse_value(b"[1]", 2), Err(JsonError::TooLarge { size: 3, limit: 2 })));
    }

    #[test]
    fn known_names_in_another_case_are_refused() {
        let Value::Object(map) = parse_value(br#"{"layers":[],"Manifests":[]}"#, 100).unwrap() else { panic!() };
        assert!(refuse_case_variants(&map, &["layers"]).is_ok());
        assert!(refuse_case_variants(&map, &["layers", "manifests"]).is_err());
    }
}
