//! The main job: a task in, pictures out.

use crate::support::World;

#[tokio::test]
async fn a_task_goes_in_and_pictures_come_out() {
    let world = World::new().await;
    let task = world.create(24).await;
    assert_eq!(task.total_images, 24);
    world.drain().await;
    assert_eq!(world.cells().await, "completed: 24");
    assert_eq!(world.simulator.ledger().len(), 24);
    world.assert_settled().await;
}
