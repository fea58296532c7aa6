//! The settings of a command and of the worker processes that it starts: what is configured, and what the command itself
//! decides on top. Both go to the children by their environment, never by arguments, since everybody on the machine can
//! read those.

use std::{collections::BTreeMap, ffi::OsString};

use super::report::Failure;
use crate::config::{self, LoadOptions, Loaded, Settings};

/// Variables that would take what is meant for a server on loopback elsewhere.
const PROXIES: [&str; 6] = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Where settings come from, with those of the command on top.
#[derive(Debug, Clone)]
pub struct Effective {
    options: LoadOptions,
}

impl Effective {
    /// What is configured.
    pub fn new(options: LoadOptions) -> Self {
        Self { options }
    }

    /// Nothing of what is configured: the built-in settings alone, whatever the shell, `Config.toml` and `.env` say.
    pub fn built_in() -> Self {
        let mut options = LoadOptions { file: Some("/dev/null".into()), read_env_files: false, ..LoadOptions::default() };
        options.environment.retain(|name, _| !is_ours(name));
        options.environment.insert("IMAGEMILL_IGNORE_ENV_FILES".to_owned(), "1".into());
        Self { options }
    }

    /// Decides a setting; it beats what is configured.
    pub fn set(&mut self, key: &str, value: impl Into<OsString>) {
        let name = format!("IMAGEMILL_{}", key.replace('.', "__").to_uppercase());
        self.options.environment.insert(name, value.into());
    }

    /// Nothing goes through a proxy.
    pub fn without_proxies(&mut self) {
        for name in PROXIES {
            self.options.environment.remove(name);
        }
    }

    /// The settings, as the children will read them.
    pub fn load(&self) -> Result<Loaded, Failure> {
        config::load(self.options.clone()).map_err(Failure::usage)
    }

    /// The settings alone.
    pub fn settings(&self) -> Result<Settings, Failure> {
        Ok(self.load()?.settings)
    }

    /// The whole environment of a child.
    pub fn environment(&self) -> BTreeMap<String, OsString> {
        let mut environment = self.options.environment.clone();
        // A worker makes no users.
        environment.retain(|name, _| !name.starts_with("IMAGEMILL_PASSWORD"));
        if let Some(profile) = &self.options.profile {
            environment.insert("IMAGEMILL_PROFILE".to_owned(), profile.into());
        }
        if let Some(file) = &self.options.file {
            environment.insert("IMAGEMILL_CONFIG".to_owned(), file.into());
        }
        environment
    }
}

/// Whether a variable is read by imagemill.
fn is_ours(name: &str) -> bool {
    name.starts_with("IMAGEMILL_")
        || name.starts_with("TEST_DB_")
        || name.starts_with("TEST_IMAGE_")
        || ["TEST_MAKE_API_TOKEN", "DATABASE_URL", "RUST_LOG"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_command_decides_beats_what_is_configured_for_it_and_its_children() {
        let options = LoadOptions {
            environment: [("IMAGEMILL_QUEUE__LEASE", "20s"), ("IMAGEMILL_PASSWORD_ADMIN", "a-password")]
                .map(|(name, value)| (name.to_owned(), value.into()))
                .into(),
            profile: Some("prod".to_owned()),
            read_env_files: false,
            ..LoadOptions::default()
        };
        let mut effective = Effective::new(options);
        effective.set("queue.lease", "30s");
        assert_eq!(effective.settings().unwrap().queue.lease.as_secs(), 30);
        let environment = effective.environment();
        assert_eq!(environment["IMAGEMILL_QUEUE__LEASE"], "30s");
        assert_eq!(environment["IMAGEMILL_PROFILE"], "prod");
        assert!(!environment.contains_key("IMAGEMILL_PASSWORD_ADMIN"));
    }

    #[test]
    fn built_in_means_that_nothing_else_counts() {
        let settings = Effective::built_in().settings().unwrap();
        let defaults = Settings::defaults().unwrap();
        assert!(settings.database.url.is_none() && settings.upstream.api_token.is_none());
        assert_eq!(format!("{settings:?}"), format!("{defaults:?}"));
        assert!(is_ours("DATABASE_URL") && is_ours("TEST_DB_HOST") && !is_ours("PATH"));
    }
}
