//! A lane that loses its producer, its partition, or the answer to a commit.

use super::*;

#[test]
fn a_lost_producer_does_not_become_a_second_call() {
    for with_commit in [true, false] {
        let mut world = World::new();
        world.publish("ended", "push");
        world.publish("running", "push");
        world.read();
        world.answer(0, Outcome::Done);
        world.lose_producer(with_commit);
        world.read();
        assert_eq!(world.made.len(), 2, "neither is called again");
        world.answer_all(Outcome::Done);
        world.commit();
        assert_eq!(world.log.offsets[&Stream::Events], 2);
        assert_eq!(world.log.terminal().len(), 2);
    }
}

#[test]
fn a_completion_of_an_assignment_long_gone_means_nothing() {
    let mut world = World::new();
    world.publish("1", "push");
    world.read();
    let stale = world.calls[0].clone();
    world.answer(0, status(500));
    world.commit();
    let completion =
        Completion { key: stale.key, claim: stale.claim, outcome: Some(Outcome::Done), took: Duration::ZERO };
    world.window.complete(completion, world.now, &world.plan).unwrap();
    world.commit();
    assert_eq!(world.state("1", "orders").unwrap().status, Status::Retrying { next_attempt: 1 });
}

#[test]
fn what_was_held_back_is_asked_again_after_the_producer_was_lost() {
    let mut world = World::new();
    world.window = Window::new(beginning(&world.log, Recollection::default(), 1));
    for number in 0..3 {
        world.publish(&number.to_string(), "push");
    }
    world.read();
    world.answer_all(status(400));
    world.commit();
    assert_eq!((world.log.dead.len(), world.window.calling()), (1, 0));
    world.lose_producer(false);
    world.read();
    world.answer_all(Outcome::Done);
    world.commit();
    assert_eq!(world.log.offsets[&Stream::Events], 3);
}

#[test]
fn what_a_call_came_to_is_not_taken_for_a_later_event_of_the_same_id() {
    let mut world = World::new();
    world.publish("1", "push");
    world.read();
    world.answer(0, Outcome::Done);
    // The commit takes effect, and its answer is lost with the producer.
    let commit = world.window.take_commit(false).unwrap();
    world.log.apply(&commit, world.now.wall);
    let empty = Window::new(beginning(&Log::default(), Recollection::default(), 0));
    let recollection = std::mem::replace(&mut world.window, empty).into_recollection(Some(commit));
    world.take_over(recollection);

    world.pass(8 * 86_400);
    world.publish("1", "push");
    world.read();
    assert_eq!(world.calls.len(), 1, "the second event is handled");
}

#[test]
fn a_call_that_was_not_made_settles_nothing() {
    let mut world = World::new();
    world.publish("1", "push");
    world.publish("1", "push");
    world.read();
    let call = world.calls.remove(0);
    let unmade = Completion { key: call.key, claim: call.claim, outcome: None, took: Duration::ZERO };
    world.window.complete(unmade, world.now, &world.plan).unwrap();
    assert_eq!((world.window.calling(), world.window.pending().0), (0, 0));
    world.lose_producer(false);
    world.read();
    world.answer_all(Outcome::Done);
    world.commit();
    assert_eq!(world.log.offsets[&Stream::Events], 2);
}

#[test]
fn a_state_that_is_written_again_is_not_taken_for_what_was_decided_since() {
    let mut world = World::new();
    world.publish("1", "push");
    world.read();
    world.answer(0, status(400));
    world.commit();
    // Long enough for the state of what is dead to be written again, while its replay is open.
    world.pass(3 * 86_400);
    world.replay("1", "orders", 1, false);
    world.read();
    world.window.sweep(world.now.wall, 10);
    world.answer(0, Outcome::Done);
    world.commit();
    world.crash();
    let state = world.state("1", "orders").unwrap();
    assert_eq!((state.status, state.generation), (Status::Done, 1));
}
