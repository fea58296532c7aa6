//! Environment variables, those of `.env` files too, as settings.

use std::{collections::BTreeMap, fmt::Write};

use figment::value::Value;

use super::{
    fault::Fault,
    files::unknown,
    schema::{Layer, Schema},
};

/// The names that the original service reads, and the one that everybody knows; the database's parts apart.
const ORIGINAL_NAMES: [(&str, &str); 6] = [
    ("DATABASE_URL", "database.url"),
    ("TEST_DB_MAX_CONNECTIONS", "database.max_connections"),
    ("TEST_DB_STALE_TIMEOUT", "database.stale_timeout"),
    ("TEST_IMAGE_MAX_POLLING_ATTEMPTS", "lanes.prod.max_polls"),
    ("TEST_IMAGE_POLLING_INTERVAL", "lanes.prod.poll_interval"),
    ("TEST_MAKE_API_TOKEN", "upstream.api_token"),
];

/// Any of these says that a database is configured; port and password alone do not.
const DATABASE_NAMES: [&str; 3] = ["TEST_DB_HOST", "TEST_DB_NAME", "TEST_DB_USER"];

/// The variables of one source.
#[derive(Default)]
pub(super) struct VariableLayer {
    /// The `.env` file; none means the environment of the process.
    pub(super) file: Option<String>,
    /// By name.
    pub(super) variables: BTreeMap<String, String>,
}

impl VariableLayer {
    /// A variable that is set and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name)?;
        (!value.is_empty()).then_some(value)
    }

    /// Where a variable came from, as people read it.
    pub(super) fn source(&self, name: &str) -> String {
        match &self.file {
            None => format!("environment variable {name}"),
            Some(file) => format!("{name} in {file}"),
        }
    }
}

/// Whether this name sets a setting, or means to.
pub(super) fn is_setting(name: &str) -> bool {
    key_of(name).is_some()
        || name == "TEST_DB_PORT"
        || name == "TEST_DB_PASSWORD"
        || DATABASE_NAMES.contains(&name)
        || ORIGINAL_NAMES.iter().any(|(original, _)| *original == name)
}

/// The dotted key that `IMAGEMILL_SECTION__KEY` spells. Without a double underscore it is no setting.
fn key_of(name: &str) -> Option<String> {
    let rest = name.strip_prefix("IMAGEMILL_")?;
    rest.contains("__").then(|| rest.to_lowercase().replace("__", "."))
}

/// The settings of all sources, weakest first. Within a source the database's parts give way to
/// `DATABASE_URL`, and every other name to `IMAGEMILL_SECTION__KEY`.
pub(super) fn layers(sources: &[VariableLayer], schema: &Schema, faults: &mut Vec<Fault>) -> Vec<Layer> {
    let mut layers = Vec::new();
    let database = sources.iter().rposition(|source| DATABASE_NAMES.iter().any(|name| source.get(name).is_some()));
    for (index, source) in sources.iter().enumerate() {
        if database == Some(index) {
            // A password may stand in another source than the host, so the parts are looked for in all.
            layers.extend(database_url(sources, faults));
        }
        for (name, key) in ORIGINAL_NAMES {
            if let Some(value) = source.get(name) {
                layers.push(layer(source.source(name), key, schema.read(key, value)));
            }
        }
        for (name, value) in &source.variables {
            let Some(key) = key_of(name) else { continue };
            if schema.has(&key) {
                layers.push(layer(source.source(name), &key, schema.read(&key, value)));
            } else {
                faults.push(unknown(&key, source.source(name), schema));
            }
        }
    }
    layers
}

fn layer(source: String, key: &str, value: Value) -> Layer {
    Layer { source, values: BTreeMap::from([(key.to_owned(), value)]) }
}

/// The URL that `TEST_DB_*` make together. What is not set is left to PostgreSQL's own rules; the host is
/// `localhost`. A host that begins with `/` is the directory of a Unix socket.
fn database_url(sources: &[VariableLayer], faults: &mut Vec<Fault>) -> Option<Layer> {
    let mut origins = Vec::new();
    let mut find = |name: &str| {
        let (source, value) = sources.iter().rev().find_map(|source| Some((source, source.get(name)?)))?;
        origins.push(source.source(name));
        Some((value, source.source(name)))
    };
    let host = find("TEST_DB_HOST").map_or("localhost", |(value, _)| value);
    let port = find("TEST_DB_PORT");
    let name = find("TEST_DB_NAME");
    let user = find("TEST_DB_USER");
    let password = find("TEST_DB_PASSWORD");

    let mut url = "postgres://".to_owned();
    if let Some((user, _)) = user {
        url += &encode(user);
    }
    if let Some((password, _)) = password {
        url.push(':');
        url += &encode(password);
    }
    if user.is_some() || password.is_some() {
        url.push('@');
    }
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(address) => url.extend(["[", &address.to_string(), "]"]),
        Err(_) => url += &encode(host),
    }
    if let Some((port, source)) = port {
        if !port.parse::<u16>().is_ok_and(|number| number > 0) {
            faults.push(Fault {
                key: "database.url".to_owned(),
                value: Some(port.to_owned()),
                source,
                reason: "is not a port; write a number from 1 to 65535".to_owned(),
            });
            return None;
        }
        url.push(':');
        url += port;
    }
    if let Some((name, _)) = name {
        url.push('/');
        url += &encode(name);
    }
    Some(layer(origins.join(", "), "database.url", Value::from(url)))
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
