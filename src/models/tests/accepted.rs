//! What is a task, and what stays of it.

use super::*;

#[test]
fn the_least_task_has_the_defaults() {
    let task = defined(&small());
    assert_eq!(task.name(), "small");
    assert_eq!(task.settings(), &Settings::default());
    assert_eq!(task.priority(), 1);
    assert_eq!(task.lane(), None);
    assert_eq!(task.idempotency_key(), None);
    assert_eq!(task.prompts(), [Prompt::freetext("rain").into()]);
}

#[test]
fn the_front_end_form_is_a_task() {
    let task = defined(&parsed(FRONT_END_FORM));
    let settings = task.settings();
    assert_eq!(settings.seed, Setting::Constant(Some(1)));
    assert_eq!(settings.lumina_cfg, Setting::Constant(Some(5.5)));
    assert_eq!(settings.lumina_step, Setting::Constant(Some(30)));
    let plan = plan(&task, &TaskLimits::default()).unwrap();
    assert_eq!(plan.total_images, 2 * 3 * 2);
    let axes: Vec<_> =
        plan.axes.iter().map(|axis| (axis.number, axis.kind.as_str(), axis.variable_id.as_str(), axis.name.as_str())).collect();
    let expected = [(0, "prompt", "0", "character"), (1, "prompt", "1", "light"), (2, "ratio", "2", "ratio")];
    assert_eq!(axes, expected);
    assert_eq!(plan.axes[2].values, [json!("3:4"), json!("16:9")]);
    assert_eq!(plan.axes[1].values[2], json!({ "type": "freetext", "value": "candlelight", "weight": 0.8 }));
    let stored = serde_json::to_value(&plan.axes).unwrap();
    assert_eq!(serde_json::from_value::<Vec<Axis>>(stored).unwrap(), plan.axes);
}

#[test]
fn the_grid_of_3024_is_a_task() {
    let task = defined(&parsed(GRID_3024));
    let plan = plan(&task, &TaskLimits::default()).unwrap();
    assert_eq!(plan.total_images, 3024);
    let lengths: Vec<usize> = plan.axes.iter().map(|axis| axis.values.len()).collect();
    assert_eq!(lengths, [42, 24, 3]);
}

#[test]
fn what_is_stored_is_what_was_sent() {
    let sent = parsed(FRONT_END_FORM);
    let task = defined(&sent);
    assert_eq!(task.prompts_json(), sent["prompts"]);
    let settings = task.settings_json();
    for (name, setting) in settings.as_object().unwrap() {
        assert_eq!(setting, &sent[name], "{name}");
    }
    assert_eq!(settings.as_object().unwrap().len(), 8);
    assert_eq!(&validate_settings(&settings).unwrap(), task.settings());
    assert_eq!(validate_prompts(&task.prompts_json()).unwrap(), task.prompts());
    assert_eq!(serde_json::from_value::<Vec<Prompt>>(task.prompts_json()).unwrap(), task.prompts());
    assert_eq!(defined(&serde_json::to_value(&task).unwrap()), task);
}

#[test]
fn values_at_the_edges_are_accepted() {
    let mut task = small();
    task["name"] = json!("\u{e9}".repeat(255));
    task["prompts"] = json!([
        { "type": "freetext", "value": "", "weight": 0, "variable_id": null, "variable_name": "was", "variable_values": null },
        { "type": "freetext", "value": "a", "weight": 10, "is_variable": false, "img_url": null, "uuid": null, "name": null },
        { "type": "elementum", "is_variable": true, "variable_id": "0", "variable_name": "s", "value": null,
          "variable_values": [{ "type": "freetext", "value": "", "is_variable": false }, { "type": "elementum", "value": "u", "name": "n" }] },
    ]);
    task["ratio"] = json!({ "value": "1:16" });
    task["seed"] = json!({ "is_variable": true, "variable_id": "1", "variable_name": "seed", "value": 3,
        "variable_values": [null, 0, 2_147_483_647, 2_147_483_647] });
    task["lumina_cfg"] = json!({ "value": 0.1 });
    task["lumina_step"] = json!({ "value": 50, "format": null });
    task["lumina_model_name"] = json!(null);
    task["batch_size"] = json!({ "value": 16 });
    task["priority"] = json!(8);
    task["make_api_queue"] = json!("");
    task["idempotency_key"] = json!(null);
    let task = defined(&task);
    assert_eq!(task.lane(), None);
    let plan = plan(&task, &TaskLimits::default()).unwrap();
    // Two equal values stay two columns.
    assert_eq!(plan.total_images, 2 * 4 * 16);
    for lane in LANES {
        let mut task = small();
        task["make_api_queue"] = json!(lane);
        assert_eq!(defined(&task).lane(), Some(lane));
    }
}

#[test]
fn a_task_written_in_rust_is_the_one_in_json() {
    let task = TaskInput::new("lights")
        .prompt(Prompt::freetext("a night market").weight(1.5))
        .variable_prompt("who", [Prompt::character("c1", "Ferrywoman").img_url("u")])
        .prompt(Prompt::style("s1", "Ink"))
        .ratio(["1:1", "3:4"])
        .seed(7)
        .batch_size(2)
        .use_polish([true, false])
        .is_lumina(true)
        .lumina_model_name([Some("m"), None])
        .lumina_cfg(vec![5.5])
        .lumina_step(&[10, 20][..])
        .priority(3)
        .lane("dev")
        .idempotency_key("k");
    let variable = |name: &str, format: &str, values: Value| {
        json!({ "type": name, "is_variable": true, "variable_id": name, "variable_name": name,
            "variable_values": values, "format": format })
    };
    let constant =
        |name: &str, format: &str, value: Value| json!({ "type": name, "is_variable": false, "value": value, "format": format });
    let expected = json!({
        "name": "lights",
        "prompts": [
            { "type": "freetext", "is_variable": false, "value": "a night market", "weight": 1.5 },
            { "type": "oc_vtoken_adaptor", "is_variable": true, "variable_id": "prompt_1", "variable_name": "who",
              "variable_values": [
                { "type": "oc_vtoken_adaptor", "value": "c1", "weight": 1.0, "name": "Ferrywoman", "img_url": "u" },
              ] },
            { "type": "elementum", "is_variable": false, "value": "s1", "weight": 1.0, "name": "Ink" },
        ],
        "ratio": variable("ratio", "string", json!(["1:1", "3:4"])),
        "seed": constant("seed", "int", json!(7)),
        "batch_size": constant("batch_size", "int", json!(2)),
        "use_polish": variable("use_polish", "bool", json!([true, false])),
        "is_lumina": constant("is_lumina", "bool", json!(true)),
        "lumina_model_name": variable("lumina_model_name", "string", json!(["m", null])),
        "lumina_cfg": variable("lumina_cfg", "float", json!([5.5])),
        "lumina_step": variable("lumina_step", "int", json!([10, 20])),
        "priority": 3,
        "make_api_queue": "dev",
        "idempotency_key": "k",
    });
    assert_eq!(serde_json::to_value(&task).unwrap(), expected);
    let definition = task.validate(&TaskLimits::default()).unwrap();
    assert_eq!(definition.to_json(), expected);
    assert_eq!(definition, defined(&expected));
}

#[test]
fn the_hash_is_of_what_is_asked_for_and_not_of_how() {
    let hash = |task: &Value| input_sha256(&defined(task));
    let mut task = small();
    let first = hash(&task);
    assert_eq!(first.len(), 64);
    task["idempotency_key"] = json!("k");
    task["prompts"][0]["weight"] = json!(1);
    task["seed"] = json!({ "value": null });
    task["make_api_queue"] = json!("");
    assert_eq!(hash(&task), first);
    let changes = [
        ("name", json!("other")),
        ("priority", json!(2)),
        ("make_api_queue", json!("prod")),
        ("seed", json!({ "value": 1 })),
        ("ratio", json!({ "value": "3:4" })),
        ("lumina_cfg", json!({ "value": 1 })),
        ("batch_size", json!({ "value": 2 })),
        ("prompts", json!([{ "type": "freetext", "value": "sun" }])),
    ];
    for (key, value) in changes {
        let mut task = small();
        task[key] = value;
        assert_ne!(hash(&task), first, "{key}");
    }
}
