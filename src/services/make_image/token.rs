//! The API token: from the settings, or from a file that is read again when the upstream says 401, while a pause names the
//! token, and on SIGHUP.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::sync::watch;

use crate::config::UpstreamSettings;

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// Neither setting is there.
    #[error("no API token: set upstream.api_token_file, or IMAGEMILL_UPSTREAM__API_TOKEN (TEST_MAKE_API_TOKEN)")]
    Missing,
    /// The file cannot be read.
    #[error("upstream.api_token_file {path}: {source}; write the token into it, or name another file")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has nothing in it.
    #[error("upstream.api_token_file {path} is empty: write the token into it")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// A token, and the name by which rows and logs may know it.
#[derive(Debug)]
pub struct Token {
    secret: SecretString,
    hash: String,
}

impl Token {
    fn new(secret: SecretString) -> Self {
        let digest = Sha256::digest(secret.expose_secret().as_bytes());
        Self { secret, hash: hex::encode(&digest[..4]) }
    }

    /// The token itself, for the header alone.
    pub(super) fn secret(&self) -> &str {
        self.secret.expose_secret()
    }

    /// 8 hex digits of its SHA-256.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

/// The token as it is now.
#[derive(Debug, Clone)]
pub struct TokenSource {
    file: Option<PathBuf>,
    current: watch::Sender<Arc<Token>>,
}

impl TokenSource {
    /// The file where one is named, else the setting.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn new(settings: &UpstreamSettings) -> Result<Self, TokenError> {
        let token = match (&settings.api_token_file, &settings.api_token) {
            (Some(path), _) => read(path)?,
            (None, Some(token)) => Token::new(token.clone()),
            (None, None) => return Err(TokenError::Missing),
        };
        Ok(Self { file: settings.api_token_file.clone(), current: watch::Sender::new(Arc::new(token)) })
    }

    /// The token.
    pub fn current(&self) -> Arc<Token> {
        Arc::clone(&self.current.borrow())
    }

    /// Waits until the token is another one than this.
    pub(super) async fn replaced(&self, token: &Token) {
        // It cannot fail: who sends is here.
        let _ = self.current.subscribe().wait_for(|current| current.secret() != token.secret()).await;
    }

    /// Whether it comes from a file, so that it can become another one.
    pub fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the file again, if there is one. Returns whether the token is another one now.
    ///
    /// # Errors
    /// See [`TokenError`]; the old token stays.
    pub fn reload(&self) -> Result<bool, TokenError> {
        let Some(path) = &self.file else { return Ok(false) };
        let new = read(path)?;
        Ok(self.current.send_if_modified(|current| {
            let changed = current.secret() != new.secret();
            if changed {
                *current = Arc::new(new);
            }
            changed
        }))
    }
}

fn read(path: &Path) -> Result<Token, TokenError> {
    let text = std::fs::read_to_string(path).map_err(|source| TokenError::File { path: path.to_owned(), source })?;
    let text = text.trim();
    if text.is_empty() {
        // Somebody is writing it just now, or forgot to.
        return Err(TokenError::Empty { path: path.to_owned() });
    }
    Ok(Token::new(SecretString::from(text.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_named_by_the_beginning_of_its_hash_and_shown_nowhere() {
        let token = Token::new(SecretString::from("the-right-token"));
        // printf the-right-token | sha256sum
        assert_eq!(token.hash(), "09f7dd13");
        assert!(!format!("{token:?}").contains("right"));
    }

    #[test]
    fn an_empty_file_replaces_no_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let mut settings = crate::config::Settings::defaults().unwrap().upstream;
        settings.api_token_file = Some(path.clone());
        let source = TokenSource::new(&settings).unwrap();
        std::fs::write(&path, "\n").unwrap();
        assert!(source.reload().unwrap_err().to_string().contains("write the token into it"));
        assert_eq!(source.current().secret(), "one");
        std::fs::write(&path, "two").unwrap();
        assert!(source.reload().unwrap());
        assert!(!source.reload().unwrap());
        assert_eq!(source.current().secret(), "two");
    }
}
