//! `imagemill config`: the effective settings, each with where it came from.

use std::io::{self, Write};

use serde_json::json;

use crate::config::Loaded;

/// Writes every setting, its value and its source: as aligned text, or as one JSON object. Secrets are `***`.
pub fn config(loaded: &Loaded, json: bool, output: &mut impl Write) -> io::Result<()> {
    if json {
        let document = json!({ "profile": loaded.profile, "settings": loaded.entries });
        serde_json::to_writer_pretty(&mut *output, &document)?;
        return writeln!(output);
    }
    writeln!(output, "profile {}\n", loaded.profile)?;
    let rows: Vec<[String; 3]> = loaded
        .entries
        .iter()
        .map(|entry| {
            let value = match entry.value.as_str() {
                "" => "-".to_owned(),
                // A filter or a path may hold anything; a line must stay a line.
                value => value.replace(char::is_control, " "),
            };
            [entry.key.clone(), value, entry.source.clone()]
        })
        .collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let (key_width, value_width) = (width(0), width(1));
    for [key, value, source] in &rows {
        writeln!(output, "{key:key_width$}  {value:value_width$}  {source}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::{LoadOptions, load};

    fn printed(json: bool) -> String {
        let directory = tempfile::tempdir().unwrap();
        let loaded = load(LoadOptions {
            directory: directory.path().to_owned(),
            environment: [
                ("TEST_MAKE_API_TOKEN", "the-token"),
                ("DATABASE_URL", "postgres://me:the-password@db/name"),
                ("IMAGEMILL_QUEUE__LEASE", "20s"),
                ("IMAGEMILL_PASSWORD_ADMIN", "the-admin"),
            ]
            .map(|(name, value)| (name.to_owned(), OsString::from(value)))
            .into(),
            ..LoadOptions::default()
        })
        .unwrap();
        let mut output = Vec::new();
        config(&loaded, json, &mut output).unwrap();
        let text = String::from_utf8(output).unwrap();
        for secret in ["the-token", "the-password", "the-admin"] {
            assert!(!text.contains(secret), "{secret} in {text}");
            assert!(!format!("{loaded:?}").contains(secret), "{secret}");
        }
        text
    }

    #[test]
    fn shows_each_value_with_its_source_in_columns() {
        let text = printed(false);
        let line = |key: &str| {
            let begins = |line: &&str| line.split_whitespace().next() == Some(key);
            text.lines().find(begins).unwrap()
        };
        let column = |line: &str, word: &str| line.find(word).unwrap();
        let lease = line("queue.lease");
        assert!(lease.ends_with("environment variable IMAGEMILL_QUEUE__LEASE"));
        assert!(line("database.url").contains("***"));
        assert!(line("results.directory").contains(" - "));
        let beat = line("queue.beat");
        assert_eq!(column(lease, "20s"), column(beat, "3s"));
        assert_eq!(column(lease, "environment"), column(beat, "built in"));
        assert!(text.starts_with("profile dev\n"));
    }

    #[test]
    fn writes_the_same_as_json() {
        let document: serde_json::Value = serde_json::from_str(&printed(true)).unwrap();
        assert_eq!(document["profile"], "dev");
        let entries = document["settings"].as_array().unwrap();
        let lease = entries.iter().find(|entry| entry["key"] == "queue.lease");
        assert_eq!(
            lease,
            Some(&serde_json::json!({
                "key": "queue.lease",
                "value": "20s",
                "source": "environment variable IMAGEMILL_QUEUE__LEASE",
            }))
        );
    }
}
