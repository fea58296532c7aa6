//! What the page marks, says and has room for, as somebody chooses.

use imagemill::models::{ConstantPrompt, Prompt, TaskInput};
use serde_json::json;

use super::{browser::Browser, ended_task, written};
use crate::support::World;

/// Marked, said, and what the keyboard's reader is told.
const HERE: &str = "[document.querySelector('.cell.here')?.id, document.getElementById('here').textContent.split(',')[0],
                     document.getElementById('grid').getAttribute('aria-activedescendant')]";

fn prompts(name: &str, count: usize) -> Vec<ConstantPrompt> {
    (0..count).map(|value| Prompt::freetext(format!("{name} {value}"))).collect()
}

#[tokio::test]
async fn at_another_value_of_a_held_axis_keys_act_on_the_same_row_and_column() {
    let world = World::new().await;
    // Rows are the first axis, columns the second; the third is held. A cell is first * 6 + second * 2 + third.
    let input =
        TaskInput::new("held").variable_prompt("first", prompts("first", 4)).variable_prompt("second", prompts("second", 3));
    let task = ended_task(&world, input.ratio(["1:1", "2:3"])).await;
    let (_, page) = written(&world, task, &[]).await;
    let Some(mut browser) = Browser::start().await else { return };
    browser.show_as(1440, 900, "light").await;
    browser.open(&page).await;
    browser.evaluate("document.getElementById('grid').focus()").await;
    for key in ["ArrowDown", "ArrowRight"] {
        browser.press(key).await;
    }
    assert_eq!(browser.evaluate(HERE).await, json!(["cell-8", "cell 8", "cell-8"]));
    let hold =
        "(select => { select.value = 1; select.dispatchEvent(new Event('change')); })(document.querySelector('#rest select'))";
    browser.evaluate(hold).await;
    assert_eq!(browser.evaluate(HERE).await, json!(["cell-9", "cell 9", "cell-9"]));
    browser.evaluate("document.getElementById('grid').focus()").await;
    browser.press("4").await;
    browser.until("document.querySelector('#cell-9 .rated')?.textContent === '★ 4'").await;
    // Other axes for rows and columns: still the same cell, and so where all flow.
    browser.evaluate("document.getElementById('swap').click()").await;
    assert_eq!(browser.evaluate(HERE).await, json!(["cell-9", "cell 9", "cell-9"]));
    let flow = "(rows => { rows.value = -1; rows.dispatchEvent(new Event('change')); })(document.getElementById('axis-y'))";
    browser.evaluate(flow).await;
    assert_eq!(browser.evaluate(HERE).await, json!(["cell-9", "cell 9", "cell-9"]));
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}
