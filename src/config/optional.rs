//! Settings that may be absent: an empty text stands for none, since TOML and the environment have no null.

use std::{fmt::Display, str::FromStr};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de::Error};

/// Reads a text as a `T`; an empty one as none.
///
/// # Errors
/// What `T` says of the text, which must not repeat it.
pub(crate) fn deserialize<'de, D, T>(input: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    let text = String::deserialize(input)?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(D::Error::custom)
}

/// The same for a secret.
///
/// # Errors
/// A value that is no text.
pub(crate) fn secret<'de, D: Deserializer<'de>>(input: D) -> Result<Option<SecretString>, D::Error> {
    let text = String::deserialize(input)?;
    Ok((!text.trim().is_empty()).then(|| text.into()))
}
