//! The page: its parts put together, with a policy that lets it load its pictures and nothing else.

use std::collections::BTreeSet;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

use super::{GridError, document::Document};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// In this order, as one script.
const SCRIPTS: [&str; 4] =
    [include_str!("model.js"), include_str!("grid.js"), include_str!("viewer.js"), include_str!("page.js")];

/// The whole page.
pub(super) fn html(name: &str, document: &Document<'_>, sources: &BTreeSet<String>) -> Result<String, GridError> {
    let data = in_script(&serde_json::to_string(document)?);
    let script = format!("\"use strict\";\n(() => {{\n{}}})();\n", SCRIPTS.concat());
    let policy = policy(&script, sources);
    Ok(fill(|part| match part {
        "policy" => policy.clone(),
        "version" => env!("CARGO_PKG_VERSION").to_owned(),
        "title" => in_html(name),
        "style" => STYLE.to_owned(),
        "data" => data.clone(),
        "script" => script.clone(),
        _ => String::new(),
    }))
}

/// Its own script and style by their hashes, pictures from where they are, nothing else: neither requests nor frames nor forms.
fn policy(script: &str, sources: &BTreeSet<String>) -> String {
    let hash = |text: &str| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text.as_bytes())));
    let pictures = if sources.is_empty() { "'none'".to_owned() } else { sources.iter().cloned().collect::<Vec<_>>().join(" ") };
    format!(
        "default-src 'none'; script-src {}; style-src {}; img-src {pictures}; base-uri 'none'; form-action 'none'",
        hash(script),
        hash(STYLE)
    )
}

/// The template with its parts put in, each once: what stands in them is not looked at.
fn fill(part: impl Fn(&str) -> String) -> String {
    let mut pieces = TEMPLATE.split("{{");
    let mut page = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.split_once("}}") {
            Some((name, rest)) => {
                page.push_str(&part(name));
                page.push_str(rest);
            }
            None => page.push_str(piece),
        }
    }
    page
}

/// Text between tags or in an attribute.
fn in_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// JSON in a script element: nothing in it can end the element or begin a comment. These characters stand in strings only.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_people_wrote_ends_its_element() {
        let text = "</script><!-- <script> & \"quoted\" {{data}}";
        let json = in_script(&serde_json::to_string(text).expect("JSON"));
        assert!(!json.contains(['<', '>', '&']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
        assert_eq!(in_html("<b>\"&\"</b>"), "&lt;b&gt;&quot;&amp;&quot;&lt;/b&gt;");
    }

    #[test]
    fn each_part_of_the_template_is_known_and_filled_once() {
        let names: Vec<&str> = TEMPLATE.split("{{").skip(1).filter_map(|piece| piece.split("}}").next()).collect();
        assert_eq!(names, ["policy", "version", "title", "style", "data", "script"]);
        let page = fill(|name| format!("[{name}{{{{data}}}}]"));
        assert_eq!(page.matches("[data").count(), 1, "what was put in is not filled again");
    }

    #[test]
    fn the_script_does_not_end_its_own_element() {
        assert!(SCRIPTS.iter().all(|script| !script.contains("</script") && !script.contains("<!--")));
        assert!(!STYLE.contains("</style"));
    }
}
