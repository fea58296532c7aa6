//! The API token: from the settings, or from a file that is read again when the upstream says 401.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

use crate::config::UpstreamSettings;

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// Neither setting is there.
    #[error("no API token: set upstream.api_token_file, or IMAGEMILL_UPSTREAM__API_TOKEN (TEST_MAKE_API_TOKEN)")]
    Missing,
    /// The file cannot be read.
    #[error("upstream.api_token_file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The token as it is now.
#[derive(Debug, Clone)]
pub struct TokenSource {
    file: Option<PathBuf>,
    current: Arc<RwLock<SecretString>>,
}

impl TokenSource {
    /// The file where one is named, else the setting.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn new(settings: &UpstreamSettings) -> Result<Self, TokenError> {
        let token = match (&settings.api_token_file, &settings.api_token) {
            (Some(path), _) => read(path)?,
            (None, Some(token)) => token.clone(),
            (None, None) => return Err(TokenError::Missing),
        };
        Ok(Self { file: settings.api_token_file.clone(), current: Arc::new(RwLock::new(token)) })
    }

    /// The token.
    pub fn current(&self) -> SecretString {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again, if there is one. Returns whether the token is another one now.
    ///
    /// # Errors
    /// See [`TokenError`]; the old token stays.
    pub fn reload(&self) -> Result<bool, TokenError> {
        let Some(path) = &self.file else { return Ok(false) };
        let new = read(path)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let changed = current.expose_secret() != new.expose_secret();
        *current = new;
        Ok(changed)
    }
}

fn read(path: &PathBuf) -> Result<SecretString, TokenError> {
    let text = std::fs::read_to_string(path).map_err(|source| TokenError::File { path: path.clone(), source })?;
    Ok(SecretString::from(text.trim().to_owned()))
}
