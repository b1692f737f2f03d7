//! Nothing grows too long to be read at once.
//!
//! `cargo test -p hookwell-tests --test tidy -- --nocapture sizes` prints the longest of each.

use super::source::{Facts, SHIPPED, Source, sources};

/// About the longest there is. Raise one knowingly, or cut.
const MAX_SHIPPED_FILE: usize = 480;
const MAX_SHIPPED_FUNCTION: usize = 80;
const MAX_TEST_FILE: usize = 750;
const MAX_TEST_FUNCTION: usize = 80;

type Size = (usize, String);

fn longest(facts: fn(&Source) -> Option<&Facts>) -> (Size, Size) {
    let (mut file, mut function) = (Size::default(), Size::default());
    for source in sources() {
        let Some(facts) = facts(source) else { continue };
        file = file.max((facts.lines, source.path.clone()));
        for (name, lines) in &facts.functions {
            function = function.max((*lines, format!("{}: {name}", source.path)));
        }
    }
    (file, function)
}

/// Code that users run, without the tests in it.
fn in_use(source: &Source) -> Option<&Facts> {
    SHIPPED.contains(&source.krate()).then_some(&source.shipped)
}

/// Test code, in files of its own and beside what it tests, and the measurements.
fn in_tests(source: &Source) -> Option<&Facts> {
    if source.krate() == "bench" { Some(&source.shipped) } else { Some(&source.tested) }
}

#[test]
fn sizes() {
    let ((file, in_file), (function, in_function)) = longest(in_use);
    let ((test_file, in_test_file), (test, in_test)) = longest(in_tests);
    println!("longest file in use: {file} lines, {in_file}");
    println!("longest function in use: {function} lines, {in_function}");
    println!("longest test file: {test_file} lines, {in_test_file}");
    println!("longest test function: {test} lines, {in_test}");
    assert!(file <= MAX_SHIPPED_FILE, "{in_file} has {file} lines");
    assert!(function <= MAX_SHIPPED_FUNCTION, "{in_function} has {function} lines");
    assert!(test_file <= MAX_TEST_FILE, "{in_test_file} has {test_file} lines");
    assert!(test <= MAX_TEST_FUNCTION, "{in_test} has {test} lines");
}
