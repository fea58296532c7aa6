//! What the simulator does with one submit and with the job that follows from it.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};

/// What happens to one submit, and to its job if it is accepted.
///
/// As JSON: `{"kind": "failure", "message": "no GPU"}`, or the bare name where every field has a default (`"failure"`),
/// or a bare status code (`429`). As text, for flags: the same name, code or JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Behaviour {
    /// Accepted; the job ends with one picture.
    Success,
    /// Accepted; the job ends as `FAILURE`.
    Failure {
        /// The poll answer's `err_msg`.
        #[serde(default = "failure_message")]
        message: String,
    },
    /// Accepted; the job ends as `TIMEOUT`.
    Timeout,
    /// Accepted; the job ends as `ILLEGAL_IMAGE`.
    IllegalImage,
    /// Accepted; the job ends as `DELETED`.
    Deleted,
    /// Accepted; the job ends as `SUCCESS`, first without artifacts.
    EmptySuccess {
        /// Poll answers without artifacts before the picture is there; none means that it never is.
        #[serde(default)]
        polls: Option<u64>,
    },
    /// Accepted; `MODERATION` comes before the usual `PENDING`, then a picture.
    ModerationFirst {
        /// Poll answers that say `MODERATION`.
        #[serde(default = "one")]
        polls: u64,
    },
    /// Accepted; every poll says `PENDING`.
    PendingForever,
    /// Accepted; every poll is answered with 404, as if the job had never been.
    Lost,
    /// Accepted; the first polls are answered with an error status, then the job goes on to a picture.
    PollError {
        /// Polls that fail.
        #[serde(default = "one")]
        polls: u64,
        /// Their status code.
        #[serde(default = "internal_server_error")]
        status: u16,
        /// Their `Retry-After`, in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// Accepted; the connections of the first polls are reset, then the job goes on to a picture.
    PollReset {
        /// Polls that fail.
        #[serde(default = "one")]
        polls: u64,
    },
    /// The submit is answered with this status.
    Status {
        /// The status code; a 3xx comes with a `Location`.
        status: u16,
        /// `Retry-After`, in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
        /// Whether the submit is in the ledger all the same, as a 5xx of a proxy can be; its job then ends with a picture.
        #[serde(default)]
        accepted: bool,
    },
    /// The connection is reset without an answer, and nothing was accepted.
    ResetBefore,
    /// Accepted, then the connection is reset without an answer.
    ResetAfter,
    /// Never answered, and nothing was accepted.
    HangBefore,
    /// Accepted, and never answered.
    HangAfter,
    /// Accepted, and answered with a 200 from which no id can be read.
    Unreadable {
        /// The answer's body.
        #[serde(default = "broken_json")]
        answer: String,
    },
    /// Accepted, and answered with one of the older forms: an object that holds the id.
    ObjectId {
        /// Where in the object.
        #[serde(default)]
        form: IdForm,
    },
}

/// Where the answer to a submit holds the job's id, in the older forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdForm {
    /// `{"uuid": ...}`
    #[default]
    Uuid,
    /// `{"task_uuid": ...}`
    TaskUuid,
    /// `{"id": ...}`
    Id,
    /// `{"task_id": ...}`
    TaskId,
    /// `{"data": {"uuid": ...}}`
    DataUuid,
    /// `{"data": {"task_uuid": ...}}`
    DataTaskUuid,
    /// `{"data": {"id": ...}}`
    DataId,
    /// `{"data": {"task_id": ...}}`
    DataTaskId,
}

impl IdForm {
    /// The answer in this form.
    pub(super) fn answer(self, upstream_id: &str) -> Value {
        let (key, below_data) = match self {
            Self::Uuid => ("uuid", false),
            Self::TaskUuid => ("task_uuid", false),
            Self::Id => ("id", false),
            Self::TaskId => ("task_id", false),
            Self::DataUuid => ("uuid", true),
            Self::DataTaskUuid => ("task_uuid", true),
            Self::DataId => ("id", true),
            Self::DataTaskId => ("task_id", true),
        };
        let object = Value::Object(Map::from_iter([(key.to_owned(), upstream_id.into())]));
        if below_data { Value::Object(Map::from_iter([("data".to_owned(), object)])) } else { object }
    }
}

impl Behaviour {
    /// A submit that is turned down with this status and without `Retry-After`.
    pub fn status(status: u16) -> Self {
        Self::Status { status, retry_after: None, accepted: false }
    }

    /// Whether the submit goes into the ledger.
    pub fn accepts(&self) -> bool {
        match self {
            Self::ResetBefore | Self::HangBefore => false,
            Self::Status { accepted, .. } => *accepted,
            _ => true,
        }
    }

    /// What is wrong with it, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        match self {
            Self::Status { status, .. } if !(200..=599).contains(status) => {
                Some(format!("`{status}` is not a status code from 200 to 599"))
            }
            Self::PollError { status, .. } if !(200..=599).contains(status) => {
                Some(format!("`{status}` is not a status code of a poll from 200 to 599"))
            }
            _ => None,
        }
    }
}

impl FromStr for Behaviour {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.starts_with('{') { serde_json::from_str(text) } else { serde_json::from_value(Value::String(text.to_owned())) }
    }
}

impl Serialize for Behaviour {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Behaviour {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(input)?;
        if let Value::String(text) = &value {
            value = match text.parse::<u16>() {
                Ok(status) => Value::from(status),
                Err(_) => serde_json::json!({ "kind": text }),
            };
        }
        if let Some(code) = value.as_u64() {
            let status = u16::try_from(code).map_err(|_| D::Error::custom(format!("`{code}` is not a status code")))?;
            return Ok(Self::status(status));
        }
        // With `remote = "Self"` the derived reading is this inherent function; the trait's one is the one around it.
        let behaviour = Self::deserialize(&value).map_err(D::Error::custom)?;
        // Serde does not look for unknown keys beside a variant without fields.
        let known = serde_json::to_value(&behaviour).map_err(D::Error::custom)?;
        let unknown = value.as_object().and_then(|object| object.keys().find(|key| known.get(key).is_none()));
        match unknown {
            Some(key) => Err(D::Error::custom(format!("the behaviour {} has no `{key}`", known["kind"]))),
            None => Ok(behaviour),
        }
    }
}

fn failure_message() -> String {
    "simulated failure".to_owned()
}

fn broken_json() -> String {
    "{\"uuid\": ".to_owned()
}

fn one() -> u64 {
    1
}

fn internal_server_error() -> u16 {
    500
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_codes_and_objects_are_read() {
        assert_eq!("success".parse::<Behaviour>().unwrap(), Behaviour::Success);
        assert_eq!("429".parse::<Behaviour>().unwrap(), Behaviour::status(429));
        assert_eq!(serde_json::from_str::<Behaviour>("503").unwrap(), Behaviour::status(503));
        assert_eq!(
            r#"{"kind": "status", "status": 429, "retry_after": 2}"#.parse::<Behaviour>().unwrap(),
            Behaviour::Status { status: 429, retry_after: Some(2), accepted: false }
        );
        assert!("sucess".parse::<Behaviour>().is_err());
        assert!(
            r#"{"kind": "lost", "polls": 1}"#.parse::<Behaviour>().is_err(),
            "a key that the behaviour does not have is an error"
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        for behaviour in
            [Behaviour::Lost, Behaviour::EmptySuccess { polls: Some(3) }, Behaviour::ObjectId { form: IdForm::DataTaskId }]
        {
            let text = serde_json::to_string(&behaviour).unwrap();
            assert_eq!(serde_json::from_str::<Behaviour>(&text).unwrap(), behaviour, "{text}");
        }
    }
}
