//! Secrets: a value that may be one is never repeated.

use super::{faults::refused, *};

#[test]
fn secrets_never_reach_an_error() {
    const SECRET: &str = "s3cr3t";
    for (name, text) in [
        ("DATABASE_URL", "mysql://me:s3cr3t@db/name"),
        ("DATABASE_URL", "s3cr3t"),
        ("TEST_MAKE_API_TOKEN", "s3cr3t\u{e9}"),
        ("IMAGEMILL_UPSTREAM__API_TOKN", "s3cr3t"),
        ("IMAGEMILL_LANES__PROD__BASE_URL", "https://me:s3cr3t@host"),
        ("IMAGEMILL_LANES__PROD__BASE_URL", "me:s3cr3t@host"),
    ] {
        let faults = refused(&[], &[(name, text)]);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].source.ends_with(name));
        let error = ConfigError::Wrong(faults);
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
    }
    for (name, text) in [
        ("Config.toml", "[default.upstream]\napi_token = s3cr3t\n"),
        ("Config.toml", "[default.upstream]\napi_token = \"s3cr3t\n"),
        ("Config.toml", "[default.upstream]\napi_token = [\"s3cr3t\"]\n"),
        ("Config.toml", "[default.upstream]\napi_token = { is = \"s3cr3t\" }\n"),
        ("Config.toml", "api_token = \"s3cr3t\"\n"),
        (".env", "TEST_MAKE_API_TOKEN='s3cr3t\n"),
        (".env", "TEST_MAKE_API_TOKEN s3cr3t\n"),
        (".env", "TEST_MAKE_API_TOKEN=a s3cr3t\n"),
    ] {
        let error = ConfigError::Wrong(refused(&[(name, text)], &[]));
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
}

#[test]
fn secrets_never_reach_debug_or_the_entries() {
    let (_directory, options) = options(
        &[(".env", "IMAGEMILL_PASSWORD_ADMIN=s3cr3t-1\n")],
        &[("TEST_DB_HOST", "db"), ("TEST_DB_PASSWORD", "s3cr3t-2"), ("TEST_MAKE_API_TOKEN", "s3cr3t-3")],
    );
    assert!(!format!("{options:?}").contains("s3cr3t"));
    let loaded = load(options).unwrap();
    assert!(!format!("{loaded:?}").contains("s3cr3t"), "{loaded:?}");
    for key in ["database.url", "upstream.api_token"] {
        let entry = loaded.entries.iter().find(|entry| entry.key == key);
        assert_eq!(entry.unwrap().value, "***");
    }
    // One that is not set is shown as not set.
    let unset = super::loaded(&[], &[]);
    let entry = unset.entries.iter().find(|entry| entry.key == "database.url");
    assert_eq!(entry.unwrap().value, "");
}
