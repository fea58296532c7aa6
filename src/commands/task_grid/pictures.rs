//! Where the picture of each cell is, as a page can name it: a kept file relatively, else its URL.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use url::Url;

use super::GridError;
use crate::crud::grid::GridCell;

/// The pictures of a grid.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    /// What a page writes into its `src`, by cell; none: there is no picture that it may show.
    pub(super) addresses: Vec<Option<String>>,
    /// Sources that the page may load pictures from, as its policy names them.
    pub(super) sources: BTreeSet<String>,
    /// Pictures that are files.
    pub(super) files: usize,
    /// Pictures that are named by their URL.
    pub(super) urls: usize,
}

impl Pictures {
    /// Looks for the pictures of cells; `kept` is the results directory, `directory` that of the page, which is absolute.
    pub(super) fn find(cells: &[GridCell], kept: &Path, directory: &Path) -> Result<Self, GridError> {
        let page = Url::from_directory_path(directory).ok();
        // Without the directory nothing was kept: every picture has its URL.
        let kept: Option<PathBuf> = match kept.canonicalize() {
            Ok(kept) => Some(kept),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(GridError::Place { path: kept.to_owned(), source }),
        };
        let mut pictures = Self::default();
        for cell in cells {
            let file = cell.result_file.as_deref().zip(kept.as_deref()).and_then(|(file, kept)| existing(kept, file));
            let link = file.zip(page.as_ref()).and_then(|(file, page)| page.make_relative(&Url::from_file_path(file).ok()?));
            let address = if let Some(link) = link {
                // Served by a web server the page and its pictures have one origin; opened from the disk they are files.
                pictures.sources.extend(["'self'".to_owned(), "file:".to_owned()]);
                pictures.files += 1;
                Some(link)
            } else {
                let url = cell.result.as_deref().and_then(shown);
                if let Some(url) = &url {
                    pictures.sources.insert(url.origin().ascii_serialization());
                    pictures.urls += 1;
                }
                url.map(String::from)
            };
            pictures.addresses.push(address);
        }
        Ok(pictures)
    }
}

/// A kept file that is still there. What leaves the directory is none of ours.
fn existing(kept: &Path, file: &str) -> Option<PathBuf> {
    let is_below = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    let path = kept.join(file);
    (is_below && path.is_file()).then_some(path)
}

/// A URL that a page may load and link to. What an upstream sends may be anything, `javascript:` too.
fn shown(url: &str) -> Option<Url> {
    let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    // It would stand in the page's policy.
    url.host_str().is_some_and(|host| !host.contains([';', ',', ' ', '\''])).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_web_are_shown() {
        assert!(shown("https://images.example/a b.png?x=1").is_some());
        for refused in ["javascript:alert(1)", "data:image/png;base64,AA", "file:///etc/passwd", "images.example/a.png", ""] {
            assert!(shown(refused).is_none(), "{refused}");
        }
    }

    #[test]
    fn a_file_outside_of_the_directory_is_none() {
        let directory = std::env::temp_dir();
        assert!(existing(&directory, "../etc/passwd").is_none());
        assert!(existing(&directory, "/etc/passwd").is_none());
    }
}
