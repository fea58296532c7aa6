//! Keeping the picture: fetched without the token, bounded in size and time, its type checked, its hash taken.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use url::Url;

use super::client::{UpstreamClient, describe, read_body};
use crate::config::ResultSettings;

/// Why a picture was not kept.
#[derive(Debug, Error)]
pub enum PictureError {
    /// The answer's URL is none, or not of the web.
    #[error("the picture's address is not http or https: {0}")]
    Address(String),
    /// The download failed.
    #[error("the picture was not fetched: {0}")]
    Download(String),
    /// It is too large, or not a picture.
    #[error("what was fetched is not a picture (PNG, JPEG, WebP, GIF)")]
    Type,
    /// The disk refuses.
    #[error("the picture was not written to {path}: {source}")]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A picture that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPicture {
    /// Path below the results directory.
    pub file: String,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// A picture that was fetched, of a type that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedPicture {
    bytes: Vec<u8>,
    ending: &'static str,
}

/// Fetches a picture.
///
/// # Errors
/// See [`PictureError`].
pub async fn fetch(client: &UpstreamClient, settings: &ResultSettings, url: &str) -> Result<FetchedPicture, PictureError> {
    let address = Url::parse(url).ok().filter(|address| matches!(address.scheme(), "http" | "https"));
    let address = address.ok_or_else(|| PictureError::Address(url.chars().take(200).collect()))?;
    let _permit = client.picture_permit().await;
    let response = client.plain_get(address, settings.timeout).send().await;
    let response = response.map_err(|error| PictureError::Download(describe(&error)))?;
    let status = response.status();
    if !status.is_success() {
        return Err(PictureError::Download(format!("HTTP {status}")));
    }
    let limit = usize::try_from(settings.max_bytes).unwrap_or(usize::MAX);
    let bytes = read_body(response, limit).await.map_err(PictureError::Download)?;
    let ending = ending_of(&bytes).ok_or(PictureError::Type)?;
    Ok(FetchedPicture { bytes, ending })
}

/// Keeps a fetched picture; `stem` is its path below the directory, without ending. Repeating it is safe: the file appears
/// whole, or not at all.
///
/// # Errors
/// [`PictureError::Write`].
pub async fn keep(directory: &Path, stem: &str, picture: &FetchedPicture) -> Result<KeptPicture, PictureError> {
    let file = format!("{stem}.{}", picture.ending);
    let path = directory.join(&file);
    write(&path, &picture.bytes).await.map_err(|source| PictureError::Write { path, source })?;
    Ok(KeptPicture { file, sha256: hex::encode(Sha256::digest(&picture.bytes)) })
}

/// The type by the bytes themselves: what a server says of it proves nothing.
fn ending_of(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [0xff, 0xd8, 0xff, ..] => Some("jpg"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("webp"),
        [b'G', b'I', b'F', b'8', ..] => Some("gif"),
        _ => None,
    }
}

async fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await?;
    }
    let unfinished = path.with_extension(format!("{}.unfinished", uuid::Uuid::now_v7().simple()));
    let written = async {
        let mut file = tokio::fs::File::create(&unfinished).await?;
        file.write_all(bytes).await?;
        // On the disk before a row says so.
        file.sync_all().await?;
        tokio::fs::rename(&unfinished, path).await
    };
    let done = written.await;
    if done.is_err() {
        // What is left of it is of no use to anybody; that it was not written is what matters.
        let _ = tokio::fs::remove_file(&unfinished).await;
    }
    done
}
