//! The search: every state that can be reached, breadth first, so that the first breach is met on
//! a shortest way. States themselves are kept only until they are expanded; of all others a
//! fingerprint remains, the way there, and which states lead to which: from that it is known
//! whether rest can still be reached from each of them.

use std::collections::{HashMap, VecDeque};
use std::fmt::{Debug, Write as _};
use std::hash::{BuildHasherDefault, Hasher};

/// What can be searched.
pub(super) trait Model {
    type State;
    type Action: Copy + Debug;

    fn initial(&self) -> Self::State;

    /// What may happen next.
    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;

    /// What comes of it.
    fn step(&self, state: &Self::State, action: Self::Action) -> Self::State;

    /// A number that is the same for equal states and, but for an accident, for no others.
    fn fingerprint(&self, state: &Self::State) -> u64;

    /// What is broken.
    fn breach(&self, state: &Self::State) -> Option<String>;

    /// Whether there is nothing left to do, and all is well.
    fn is_at_rest(&self, state: &Self::State) -> bool;
}

/// What a search found.
#[derive(Debug)]
pub(super) struct Found<A> {
    /// Different states.
    pub(super) states: usize,
    /// Steps between them.
    pub(super) steps: usize,
    /// The longest of all shortest ways.
    pub(super) depth: usize,
    /// The first breach, with a shortest way to it.
    pub(super) breach: Option<(String, Vec<A>)>,
}

/// Searches until all is seen, something is broken, or `limit` states are known, which is a breach
/// of its own.
pub(super) fn search<M: Model>(model: &M, limit: usize) -> Found<M::Action> {
    let mut seen = Seen::default();
    let mut queue = VecDeque::new();
    let initial = model.initial();
    seen.add(model.fingerprint(&initial), None, model.is_at_rest(&initial));
    queue.push_back((0, initial));
    while let Some((at, state)) = queue.pop_front() {
        for action in model.actions(&state) {
            let next = model.step(&state, action);
            let (number, is_new) =
                seen.reach(at, action, model.fingerprint(&next), || model.is_at_rest(&next));
            if !is_new {
                continue;
            }
            if let Some(what) = model.breach(&next) {
                return seen.found(Some((what, number)));
            }
            if limit <= seen.ways.len() {
                return seen.found(Some((format!("more than {limit} states"), number)));
            }
            queue.push_back((number, next));
        }
    }
    let stranded = seen.stranded().map(|at| ("from here nothing leads to rest".to_owned(), at));
    seen.found(stranded)
}

/// The way as text, a step a line.
pub(super) fn told<A: Debug>(way: &[A]) -> String {
    way.iter().enumerate().fold(String::new(), |mut text, (number, action)| {
        writeln!(text, "{:>3}. {action:?}", number + 1).expect("a String takes everything");
        text
    })
}

struct Seen<A> {
    numbers: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
    /// How each state was first reached, and how deep it lies.
    ways: Vec<(Option<(u32, A)>, u32)>,
    rest: Vec<bool>,
    steps: Vec<(u32, u32)>,
}

impl<A> Default for Seen<A> {
    fn default() -> Self {
        Self { numbers: HashMap::default(), ways: Vec::new(), rest: Vec::new(), steps: Vec::new() }
    }
}

impl<A: Copy> Seen<A> {
    fn add(&mut self, fingerprint: u64, way: Option<(u32, A)>, rest: bool) -> u32 {
        let number = u32::try_from(self.ways.len()).expect("fewer than four billion states");
        let depth = way.as_ref().map_or(0, |(from, _)| self.ways[*from as usize].1 + 1);
        self.numbers.insert(fingerprint, number);
        self.ways.push((way, depth));
        self.rest.push(rest);
        number
    }

    fn reach(&mut self, from: u32, by: A, fingerprint: u64, rest: impl FnOnce() -> bool) -> (u32, bool) {
        let known = self.numbers.get(&fingerprint).copied();
        let number = known.unwrap_or_else(|| self.add(fingerprint, Some((from, by)), rest()));
        self.steps.push((number, from));
        (number, known.is_none())
    }

    /// The first state from which no state at rest can be reached.
    fn stranded(&mut self) -> Option<u32> {
        self.steps.sort_unstable();
        let mut reaches = self.rest.clone();
        let numbers = (0_u32..).zip(&self.rest);
        let mut open: Vec<_> = numbers.filter(|(_, rest)| **rest).map(|(number, _)| number).collect();
        while let Some(number) = open.pop() {
            let first = self.steps.partition_point(|(to, _)| *to < number);
            for (_, from) in self.steps[first..].iter().take_while(|(to, _)| *to == number) {
                if !std::mem::replace(&mut reaches[*from as usize], true) {
                    open.push(*from);
                }
            }
        }
        reaches.iter().position(|reaches| !reaches).and_then(|at| u32::try_from(at).ok())
    }

    fn found(&self, breach: Option<(String, u32)>) -> Found<A> {
        let breach = breach.map(|(what, at)| {
            let mut way = Vec::new();
            let mut at = at;
            while let (Some((from, action)), _) = self.ways[at as usize] {
                way.push(action);
                at = from;
            }
            way.reverse();
            (what, way)
        });
        let depth = self.ways.iter().map(|(_, depth)| *depth).max().unwrap_or_default();
        Found { states: self.ways.len(), steps: self.steps.len(), depth: depth as usize, breach }
    }
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed");
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

/// Two counters that are counted up to `top`, in any order; `trap` is a state that cannot be left.
struct Counters {
    top: u8,
    bad: Option<(u8, u8)>,
    trap: Option<(u8, u8)>,
}

impl Model for Counters {
    type State = (u8, u8);
    type Action = char;

    fn initial(&self) -> (u8, u8) {
        (0, 0)
    }

    fn actions(&self, state: &(u8, u8)) -> Vec<char> {
        let mut actions = Vec::new();
        if self.trap != Some(*state) {
            actions.extend((state.0 < self.top).then_some('a'));
            actions.extend((state.1 < self.top).then_some('b'));
            actions.extend((*state != (0, 0)).then_some('0'));
        }
        actions
    }

    fn step(&self, state: &(u8, u8), action: char) -> (u8, u8) {
        match action {
            'a' => (state.0 + 1, state.1),
            'b' => (state.0, state.1 + 1),
            _ => (0, 0),
        }
    }

    fn fingerprint(&self, state: &(u8, u8)) -> u64 {
        u64::from(state.0) << 8 | u64::from(state.1)
    }

    fn breach(&self, state: &(u8, u8)) -> Option<String> {
        (self.bad == Some(*state)).then(|| "bad".to_owned())
    }

    fn is_at_rest(&self, state: &(u8, u8)) -> bool {
        *state == (self.top, self.top)
    }
}

#[test]
fn a_search_sees_every_state_once() {
    let found = search(&Counters { top: 9, bad: None, trap: None }, 1000);
    assert_eq!((found.states, found.depth), (100, 18));
    assert_eq!(found.steps, 2 * 9 * 10 + 99);
    assert!(found.breach.is_none());
}

#[test]
fn a_search_finds_a_breach_on_a_shortest_way() {
    let (what, way) = search(&Counters { top: 9, bad: Some((2, 3)), trap: None }, 1000).breach.unwrap();
    assert_eq!((what.as_str(), way.len()), ("bad", 5));
    assert_eq!(way.iter().filter(|action| **action == 'a').count(), 2);
}

#[test]
fn a_search_finds_where_nothing_leads_to_rest_although_steps_lead_in_circles_elsewhere() {
    let (_, way) = search(&Counters { top: 9, bad: None, trap: Some((4, 4)) }, 1000).breach.unwrap();
    assert_eq!(way.len(), 8);
}

#[test]
fn a_search_that_is_too_large_says_so() {
    assert!(search(&Counters { top: 9, bad: None, trap: None }, 50).breach.is_some());
}
