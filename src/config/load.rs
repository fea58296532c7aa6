//! Which layers there are: profile, files, environment.

use std::{collections::BTreeMap, ffi::OsString, fmt, path::PathBuf};

use secrecy::SecretString;

use super::{
    fault::{ConfigError, Fault},
    files,
    merge::{BUILT_IN, Entry, merge},
    schema::{self, Schema},
    settings::Settings,
    variables::{self, VariableLayer},
};

/// Where to look for settings. The default is what a program wants: the current directory and the
/// environment of the process.
#[derive(Clone)]
pub struct LoadOptions {
    /// Profile, as an argument gives it: `dev` or `prod`; none means `IMAGEMILL_PROFILE`, else `dev`.
    pub profile: Option<String>,
    /// Configuration file, as an argument gives it; none means `IMAGEMILL_CONFIG`, else `Config.toml`. Only
    /// the last may be missing.
    pub file: Option<PathBuf>,
    /// Where `Config.toml` and the `.env` files stand; empty means the current directory.
    pub directory: PathBuf,
    /// Environment variables.
    pub environment: BTreeMap<String, OsString>,
    /// Whether to read `.env` and `.env.<profile>`; `IMAGEMILL_IGNORE_ENV_FILES` says no too.
    pub read_env_files: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            profile: None,
            file: None,
            directory: PathBuf::new(),
            // A name that is not UTF-8 is none of ours.
            environment: std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect(),
            read_env_files: true,
        }
    }
}

/// Leaves the values of the environment out: passwords stand there.
impl fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("profile", &self.profile)
            .field("file", &self.file)
            .field("directory", &self.directory)
            .field("read_env_files", &self.read_env_files)
            .finish_non_exhaustive()
    }
}

/// The settings, and where they came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The profile: `dev` or `prod`.
    pub profile: String,
    /// Every setting, by key.
    pub entries: Vec<Entry>,
    variables: BTreeMap<String, SecretString>,
}

impl Loaded {
    /// A variable `IMAGEMILL_...` that is no setting, for instance `IMAGEMILL_PASSWORD_ADMIN`, from the
    /// environment or a `.env` file; none if it is empty.
    pub fn variable(&self, name: &str) -> Option<&SecretString> {
        self.variables.get(name)
    }
}

/// Reads all layers, weakest first: the built-in file, `Config.toml`, `.env`, `.env.<profile>`, the environment.
pub fn load(options: LoadOptions) -> Result<Loaded, ConfigError> {
    let mut faults = Vec::new();
    let schema = built_in_schema()?;
    let environment = environment(options.environment, &mut faults);
    let read_env_files = options.read_env_files && environment.get("IMAGEMILL_IGNORE_ENV_FILES").is_none();
    let mut sources = Vec::new();
    if read_env_files {
        sources.push(files::env_file(&options.directory.join(".env"), &mut faults)?);
    }
    sources.push(environment);

    // Which files count hangs on these two, so they cannot wait for the other layers.
    let (profile, origin) =
        choose(options.profile, "IMAGEMILL_PROFILE", &sources).unwrap_or_else(|| ("dev".to_owned(), BUILT_IN.to_owned()));
    if !["dev", "prod"].contains(&profile.as_str()) {
        faults.push(Fault {
            key: "profile".to_owned(),
            value: Some(profile),
            source: origin,
            reason: "must be dev or prod".to_owned(),
        });
        return Err(ConfigError::Wrong(faults));
    }
    let argument = options.file.map(|path| path.display().to_string());
    let named = choose(argument, "IMAGEMILL_CONFIG", &sources);
    if read_env_files {
        let path = options.directory.join(format!(".env.{profile}"));
        sources.insert(1, files::env_file(&path, &mut faults)?);
    }

    let mut layers = files::toml_layers(schema::BUILT_IN, BUILT_IN, &profile, &schema, &mut faults);
    let file = named.as_ref().map_or("Config.toml", |(file, _)| file);
    let path = options.directory.join(file);
    match files::read(path.clone())? {
        Some(text) if text != schema::BUILT_IN => {
            let source = path.display().to_string();
            layers.extend(files::toml_layers(&text, &source, &profile, &schema, &mut faults));
        }
        Some(_) => {}
        None => {
            if let Some((file, source)) = named {
                faults.push(Fault {
                    key: "file".to_owned(),
                    value: Some(file),
                    source,
                    reason: "there is no such file".to_owned(),
                });
            }
        }
    }
    layers.extend(variables::layers(&sources, &schema, &mut faults));
    let (settings, entries) = merge(layers, &schema, faults)?;
    Ok(Loaded { settings, profile, entries, variables: other_variables(sources) })
}

impl Settings {
    /// The settings that are built in, profile `dev`: no file, no environment.
    pub fn defaults() -> Result<Self, ConfigError> {
        let schema = built_in_schema()?;
        let mut faults = Vec::new();
        let layers = files::toml_layers(schema::BUILT_IN, BUILT_IN, "dev", &schema, &mut faults);
        Ok(merge(layers, &schema, faults)?.0)
    }
}

fn built_in_schema() -> Result<Schema, ConfigError> {
    let mut profiles = schema::profiles(schema::BUILT_IN, BUILT_IN).map_err(ConfigError::Wrong)?;
    let defaults = profiles.remove("default").unwrap_or_default();
    Ok(Schema { defaults })
}

fn environment(variables: BTreeMap<String, OsString>, faults: &mut Vec<Fault>) -> VariableLayer {
    let mut layer = VariableLayer::default();
    for (name, value) in variables {
        match value.into_string() {
            Ok(value) => {
                layer.variables.insert(name, value);
            }
            Err(_) if variables::is_setting(&name) || name.starts_with("IMAGEMILL_") => {
                faults.push(Fault { source: layer.source(&name), key: name, value: None, reason: "is not UTF-8".to_owned() });
            }
            Err(_) => {}
        }
    }
    layer
}

/// An argument, else the variable of the strongest source that has it; and where it came from.
fn choose(argument: Option<String>, name: &str, sources: &[VariableLayer]) -> Option<(String, String)> {
    if let Some(value) = argument {
        return Some((value, "argument".to_owned()));
    }
    sources.iter().rev().find_map(|source| {
        let value = source.get(name)?.to_owned();
        Some((value, source.source(name)))
    })
}

fn other_variables(sources: Vec<VariableLayer>) -> BTreeMap<String, SecretString> {
    sources
        .into_iter()
        .flat_map(|source| source.variables)
        .filter(|(name, value)| name.starts_with("IMAGEMILL_") && !variables::is_setting(name) && !value.is_empty())
        .map(|(name, value)| (name, value.into()))
        .collect()
}
