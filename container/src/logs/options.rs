//! `--log-driver` and `--log-opt`.

use serde::{Deserialize, Serialize};

use crate::quantity;

/// Where the output of a container is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// In files of JSON lines.
    #[default]
    JsonFile,
    /// Nowhere.
    None,
}

/// How the output of a container is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// Where.
    pub driver: LogDriver,
    /// How large a file may become, in bytes, before a new one is begun.
    pub max_size: Option<u64>,
    /// How many files there are.
    pub max_file: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { driver: LogDriver::JsonFile, max_size: None, max_file: 1 }
    }
}

/// A driver or an option that is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLogOption {
    /// Another driver.
    #[error("--log-driver {name:?} is not supported: it is json-file or none")]
    Driver {
        /// What was given.
        name: String,
    },
    /// Not `NAME=VALUE`.
    #[error("--log-opt {text:?} is not NAME=VALUE")]
    Format {
        /// What was given.
        text: String,
    },
    /// An option that the driver does not have.
    #[error("--log-opt {name} is not supported for the {driver} log driver")]
    Unknown {
        /// Its name.
        name: String,
        /// The driver.
        driver: &'static str,
    },
    /// A value that makes no sense.
    #[error("--log-opt {name}: invalid value {value:?}")]
    Value {
        /// Whose.
        name: String,
        /// What was given.
        value: String,
    },
}

impl LogDriver {
    /// The name, as `inspect` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::JsonFile => "json-file",
            Self::None => "none",
        }
    }
}

impl LogOptions {
    /// From what was typed.
    pub fn parse(driver: Option<&str>, options: &[String]) -> Result<Self, InvalidLogOption> {
        let driver = match driver {
            None | Some("" | "json-file") => LogDriver::JsonFile,
            Some("none") => LogDriver::None,
            Some(name) => return Err(InvalidLogOption::Driver { name: name.to_owned() }),
        };
        let mut parsed = Self { driver, ..Self::default() };
        let mut files = None;
        for text in options {
            let (name, value) =
                text.split_once('=').ok_or_else(|| InvalidLogOption::Format { text: text.to_owned() })?;
            let invalid = || InvalidLogOption::Value { name: name.to_owned(), value: value.to_owned() };
            match (driver, name) {
                (LogDriver::JsonFile, "max-size") => {
                    let size = if value == "-1" { None } else { Some(quantity::bytes(value).map_err(|_| invalid())?) };
                    if size == Some(0) {
                        return Err(invalid());
                    }
                    parsed.max_size = size;
                }
                (LogDriver::JsonFile, "max-file") => {
                    files = Some(value.parse().ok().filter(|count| *count > 0).ok_or_else(invalid)?);
                }
                // Bytes go to the file as they come: nothing is held back, in any mode.
                (LogDriver::JsonFile, "mode") if matches!(value, "blocking") => {}
                _ => return Err(InvalidLogOption::Unknown { name: name.to_owned(), driver: driver.name() }),
            }
        }
        parsed.max_file = files.unwrap_or(1);
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_dockers() {
        let parse = |driver: &str, options: &[&str]| {
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            LogOptions::parse(Some(driver), &options).map_err(|error| error.to_string())
        };
        assert_eq!(parse("", &[]), Ok(LogOptions::default()));
        let rotated = LogOptions { max_size: Some(10 << 20), max_file: 3, ..LogOptions::default() };
        assert_eq!(parse("json-file", &["max-size=10m", "max-file=3"]), Ok(rotated));
        let one = LogOptions { max_file: 3, ..LogOptions::default() };
        assert_eq!(parse("json-file", &["max-file=3"]), Ok(one), "as by Docker: only a size begins another file");
        assert_eq!(parse("none", &[]).unwrap().driver, LogDriver::None);
        for (driver, options, error) in [
            ("syslog", &[][..], "--log-driver \"syslog\" is not supported: it is json-file or none"),
            ("json-file", &["max-size=x"], "--log-opt max-size: invalid value \"x\""),
            ("json-file", &["tag=x"], "--log-opt tag is not supported for the json-file log driver"),
            ("none", &["max-size=1m"], "--log-opt max-size is not supported for the none log driver"),
            ("json-file", &["max-size"], "--log-opt \"max-size\" is not NAME=VALUE"),
        ] {
            assert_eq!(parse(driver, options).unwrap_err(), error);
        }
    }
}
