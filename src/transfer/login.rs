//! `login` and `logout`: credentials in Docker's client configuration.

use std::sync::Arc;

use rbuild_image::credentials::{CredentialSource, Credentials, DockerConfig, Fixed, KeptIn, Secret};
use rbuild_image::registry::Client;

use crate::cli::report::Failure;
use crate::engine::Engine;

/// What became of the credentials that were kept for a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// There are none.
    None,
    /// The registry does not take them any more.
    Refused,
    /// It takes them.
    Accepted,
}

/// Checks credentials with their registry, then keeps them; says where.
pub fn login(engine: &Engine, registry: &str, username: &str, password: String) -> Result<KeptIn, Failure> {
    let config = config(engine)?;
    let credentials = Credentials::Password { username: username.to_owned(), password: Secret::new(password) };
    let mut options = engine.client_options()?;
    options.credentials = Arc::new(Fixed { registry: registry.to_owned(), credentials: credentials.clone() });
    Client::new(options).check_login(registry)?;
    Ok(config.login(registry, &credentials)?)
}

/// Checks the credentials that are kept for a registry.
pub fn login_again(engine: &Engine, registry: &str) -> Result<Existing, Failure> {
    if config(engine)?.get(registry)?.is_none() {
        return Ok(Existing::None);
    }
    match engine.client()?.check_login(registry) {
        Ok(()) => Ok(Existing::Accepted),
        Err(error) if error.is_unauthorized() => Ok(Existing::Refused),
        Err(error) => Err(error.into()),
    }
}

/// Forgets a registry's credentials; says whether there were any.
pub fn logout(engine: &Engine, registry: &str) -> Result<bool, Failure> {
    Ok(config(engine)?.logout(registry)?)
}

fn config(engine: &Engine) -> Result<DockerConfig, Failure> {
    engine.docker_config().ok_or_else(|| {
        Failure::new("there is no place for credentials: neither HOME nor DOCKER_CONFIG is set")
            .with_help("set DOCKER_CONFIG to a directory")
    })
}
