//! Passwords: argon2id, stored as PHC text. Hashing takes its time on purpose, so it runs on a thread for blocking work.

use argon2::{
    Argon2,
    password_hash::{self, PasswordHasher as _, PasswordVerifier as _},
};
use rand::distr::{Alphanumeric, SampleString as _};
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

use crate::models::Fault;

/// Fewest characters of a password.
pub const MIN_CHARACTERS: usize = 8;

/// Characters of a random password: 62 letters and digits each, so about 119 bits.
const RANDOM_CHARACTERS: usize = 20;

/// Why a password could not be hashed or compared. None of them holds the password.
#[derive(Debug, Error)]
pub enum PasswordError {
    /// Not hashed.
    #[error("the password could not be hashed: {0}")]
    Hash(#[source] password_hash::Error),
    /// What is stored is no hash that can be compared with.
    #[error("the stored hash of the password cannot be used: {0}; give the user a new one")]
    Stored(#[source] password_hash::Error),
    /// The thread was lost.
    #[error("the hashing of the password ended early: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// What is wrong with a new password, if anything; `path` names it.
pub fn fault(path: &str, password: &SecretString) -> Option<Fault> {
    let characters = password.expose_secret().chars().count();
    (characters < MIN_CHARACTERS)
        .then(|| Fault { path: path.to_owned(), message: format!("must have {MIN_CHARACTERS} characters at least") })
}

/// A random password.
pub fn random() -> SecretString {
    Alphanumeric.sample_string(&mut rand::rng(), RANDOM_CHARACTERS).into()
}

/// The hash of a password, under a salt of its own, as PHC text: `$argon2id$v=19$...`. Any length; see [`fault`].
///
/// # Errors
/// See [`PasswordError`].
pub async fn hash(password: &SecretString) -> Result<String, PasswordError> {
    let password = password.clone();
    tokio::task::spawn_blocking(move || {
        let hash = Argon2::default().hash_password(password.expose_secret().as_bytes());
        hash.map(|hash| hash.to_string()).map_err(PasswordError::Hash)
    })
    .await?
}

/// Whether this is the password of this hash.
///
/// # Errors
/// See [`PasswordError`]; a wrong password is none.
pub async fn verify(password: &SecretString, hash: &str) -> Result<bool, PasswordError> {
    let (password, hash) = (password.clone(), hash.to_owned());
    tokio::task::spawn_blocking(move || {
        match Argon2::default().verify_password(password.expose_secret().as_bytes(), hash.as_str()) {
            Ok(()) => Ok(true),
            Err(password_hash::Error::PasswordInvalid) => Ok(false),
            Err(error) => Err(PasswordError::Stored(error)),
        }
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_is_argon2id_and_knows_its_password() {
        let password = SecretString::from("correct horse");
        let (first, second) = (hash(&password).await.unwrap(), hash(&password).await.unwrap());
        assert!(first.starts_with("$argon2id$v=19$"), "{first}");
        assert_ne!(first, second, "each has a salt of its own");
        assert!(verify(&password, &first).await.unwrap());
        assert!(verify(&password, &second).await.unwrap());
        assert!(!verify(&"correct hors".into(), &first).await.unwrap());
    }

    #[tokio::test]
    async fn what_is_no_hash_is_an_error_and_no_wrong_password() {
        for stored in ["", "correct horse", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA"] {
            let outcome = verify(&"correct horse".into(), stored).await;
            assert!(matches!(outcome, Err(PasswordError::Stored(_))), "{stored}: {outcome:?}");
        }
    }

    #[test]
    fn length_counts_characters_and_no_message_repeats_the_password() {
        assert_eq!(fault("password", &"ÄÖÜäöüßé".into()), None);
        let fault = fault("password", &"hunter2".into()).unwrap();
        assert_eq!(fault.to_string(), "password: must have 8 characters at least");
    }

    #[test]
    fn random_passwords_differ() {
        let passwords: std::collections::BTreeSet<String> = (0..100).map(|_| random().expose_secret().to_owned()).collect();
        assert_eq!(passwords.len(), 100);
        assert!(passwords.iter().all(|password| password.len() == RANDOM_CHARACTERS));
    }
}
