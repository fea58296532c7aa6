//! What is sent.

use super::*;

/// What a row of the database gives.
fn row(variable_indices: &[i32]) -> RequestCell<'_> {
    RequestCell {
        variable_indices,
        seed: 5,
        width: 888,
        height: 1184,
        use_polish: true,
        is_lumina: false,
        lumina_model_name: Some("m"),
        lumina_cfg: Some(5.5),
        lumina_step: Some(30),
    }
}

fn lumina_prompt() -> Value {
    json!({
        "type": "elementum", "name": "lumina1", "weight": 1.0, "img_url": null,
        "uuid": "b5edccfe-46a2-4a14-a8ff-f4d430343805", "value": "b5edccfe-46a2-4a14-a8ff-f4d430343805",
        "domain": "", "parent": "", "label": null, "sort_index": 0, "status": "IN_USE",
        "polymorphi_values": {}, "sub_type": null,
    })
}

#[test]
fn the_body_of_a_cell_of_the_front_end_form() {
    let task = defined(&parsed(FRONT_END_FORM));
    let plan = plan(&task, &TaskLimits::default()).unwrap();
    // Clockmaker, candlelight, 16:9
    let cell = plan.cell(11, &mut rand::rng()).unwrap();
    assert_eq!(cell.variable_indices, [1, 2, 1]);
    let body = request_body(task.prompts(), &RequestCell::from(&cell)).unwrap();
    assert_eq!(
        body,
        json!({
            "storyId": "",
            "jobType": "universal",
            "width": 1368,
            "height": 768,
            "rawPrompt": [
                { "type": "freetext", "value": "a night market, lanterns, rain on stone", "weight": 1.0 },
                {
                    "type": "oc_vtoken_adaptor",
                    "value": "6f1c8a3e-0b54-4f0e-9d0a-5f6c2f7b1a02",
                    "weight": 1.2,
                    "name": "Clockmaker",
                    "img_url": "https://images.example/clockmaker.png",
                    "uuid": "6f1c8a3e-0b54-4f0e-9d0a-5f6c2f7b1a02",
                    "domain": "",
                    "parent": "",
                    "label": null,
                    "sort_index": 0,
                    "status": "IN_USE",
                    "polymorphi_values": {},
                    "sub_type": null,
                },
                { "type": "freetext", "value": "candlelight", "weight": 0.8 },
            ],
            "seed": 1,
            "meta": { "entrance": "PICTURE,PURE" },
            "context_model_series": null,
            "negative_freetext": "",
            "advanced_translator": false,
        })
    );
}

#[test]
fn an_empty_value_leaves_its_prompt_out() {
    let task = defined(&parsed(FRONT_END_FORM));
    let prompts = expanded_prompts(task.prompts(), &[0, 0, 1]).unwrap();
    let names: Vec<&Value> = prompts.iter().map(|prompt| &prompt["type"]).collect();
    assert_eq!(names, ["freetext", "oc_vtoken_adaptor"]);
    let constant = [Prompt::freetext("").into(), Prompt::freetext("x").into()];
    let prompts = expanded_prompts(&constant, &[]).unwrap();
    assert_eq!(prompts, [json!({ "type": "freetext", "value": "x", "weight": 1.0 })]);
}

#[test]
fn the_uuid_that_is_sent_is_the_value() {
    let prompts = validate_prompts(&json!([
        { "type": "elementum", "value": "v", "uuid": "another", "name": "Ink" },
    ]));
    let expanded = expanded_prompts(&prompts.unwrap(), &[]).unwrap();
    assert_eq!(expanded[0]["uuid"], "v");
}

#[test]
fn lumina_adds_its_prompt_and_only_the_arguments_that_are_set() {
    let prompts = [Prompt::freetext("x").into()];
    let body = request_body(&prompts, &row(&[])).unwrap();
    assert_eq!(body.get("client_args"), None);
    assert_eq!(body["advanced_translator"], true);
    assert_eq!(body["rawPrompt"].as_array().unwrap().len(), 1);

    let mut lumina = RequestCell { is_lumina: true, ..row(&[]) };
    let body = request_body(&prompts, &lumina).unwrap();
    assert_eq!(body["rawPrompt"][1], lumina_prompt());
    assert_eq!(body["client_args"], json!({ "ckpt_name": "m", "cfg": 5.5, "steps": 30 }));
    lumina.lumina_model_name = Some("");
    lumina.lumina_cfg = None;
    let body = request_body(&prompts, &lumina).unwrap();
    assert_eq!(body["client_args"], json!({ "steps": 30 }));
    lumina.lumina_step = None;
    let body = request_body(&prompts, &lumina).unwrap();
    assert_eq!(body.get("client_args"), None);
}

#[test]
fn indices_that_do_not_fit_are_an_error() {
    let task = defined(&parsed(FRONT_END_FORM));
    let of = |indices: &[i32]| request_body(task.prompts(), &row(indices)).unwrap_err();
    assert_eq!(of(&[0]), ExpandError::MissingIndex { axis: 1 });
    let out = |index| ExpandError::OutOfRange { axis: 1, index, values: 3 };
    assert_eq!(of(&[0, 3, 0]), out(3));
    assert_eq!(of(&[0, -1, 0]), out(-1));
}

#[test]
fn each_cell_has_a_request_of_its_own() {
    let task = defined(&parsed(GRID_3024));
    let limits = TaskLimits::default();
    let plan = plan(&task, &limits).unwrap();
    let hashes: std::collections::BTreeSet<String> = plan
        .cells(&mut rand::rng())
        .map(|cell| RequestCell { seed: 1, ..RequestCell::from(&cell) }.hash(task.prompts()))
        .collect();
    assert_eq!(hashes.len(), 3024);
}

impl RequestCell<'_> {
    fn hash(&self, prompts: &[Prompt]) -> String {
        request_sha256(&request_body(prompts, self).unwrap())
    }
}
