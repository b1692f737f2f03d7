//! Whatever points to a page finds it.

use std::fs;
use std::path::Path;

use super::page::{Page, all_pages, files_of, project};

/// The targets of links in `text`.
fn targets(text: &str) -> Vec<String> {
    let outside_code: String = text.split("```").step_by(2).collect();
    outside_code.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
}

#[test]
fn every_relative_link_leads_to_a_file_and_to_a_heading_of_it() {
    let mut count = 0;
    for page in all_pages() {
        let folder = page.path.parent().unwrap();
        for target in targets(&page.text).iter().filter(|target| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.path.clone() } else { folder.join(file) };
            assert!(path.exists(), "{}: {target} leads nowhere", page.path.display());
            if !anchor.is_empty() {
                let anchors = Page::read(&path.to_string_lossy()).anchors();
                assert!(
                    anchors.iter().any(|it| it == anchor),
                    "{}: no heading for {target}",
                    page.path.display()
                );
            }
            count += 1;
        }
    }
    assert!(count > 20, "only {count} links were found");
}

#[test]
fn every_page_that_the_code_names_exists() {
    let records: Vec<_> = files_of(&project().join("docs/adr"));
    let is_code = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extension == "rs" || extension == "toml" || extension == "sh")
    };
    let words = |c: char| !c.is_ascii_alphanumeric() && !"-/._".contains(c);
    for path in files_of(&project()).into_iter().filter(|path| is_code(path)) {
        let text = fs::read_to_string(&path).unwrap();
        for word in text.split(words).filter(|word| word.starts_with("docs/")) {
            let word = word.trim_end_matches('.');
            let page = project().join(word);
            let is_record = records.iter().any(|record| {
                record.starts_with(&page) || {
                    let name = record.to_string_lossy();
                    word.starts_with("docs/adr/") && name.starts_with(&format!("{}-", page.display()))
                }
            });
            assert!(page.exists() || is_record, "{} names {word}", path.display());
        }
    }
}

#[test]
fn decisions_are_numbered_without_gaps_and_all_told_in_the_same_way() {
    let files = files_of(&project().join("docs/adr"));
    assert!(files.len() >= 10, "{files:?}");
    for (number, path) in files.iter().enumerate() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.starts_with(&format!("{:04}-", number + 1)), "{name} is out of order");
        let page = Page::read(&path.to_string_lossy());
        assert!(
            page.text.starts_with(&format!("# {:04} ", number + 1)),
            "{name} has another number in its title"
        );
        for heading in ["Context", "Decision", "Consequences"] {
            assert!(!page.section(heading).trim().is_empty(), "{name} says nothing under {heading}");
        }
        assert!(page.text.lines().count() <= 70, "{name} is longer than a page");
    }
}
