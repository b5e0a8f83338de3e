//! The keys that leave a container running, from Docker's client configuration (`detachKeys` in its `config.json`).

use super::{ConfigError, Settings};

impl Settings {
    /// What the configuration says, unparsed; `None` when it says nothing.
    pub fn detach_keys(&self) -> Result<Option<String>, ConfigError> {
        let Some(path) = self.docker_config.as_ref().map(|directory| directory.join("config.json")) else {
            return Ok(None);
        };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        // What else is wrong with it is for whoever needs a password from it.
        let found: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
        let keys = found.as_ref().and_then(|found| found.get("detachKeys")?.as_str());
        Ok(keys.filter(|keys| !keys.is_empty()).map(str::to_owned))
    }
}
