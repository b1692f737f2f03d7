//! A Markdown page, as far as these tests must read it.

use std::fs;
use std::path::{Path, PathBuf};

/// A page of the project.
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// A table, its cells without the space around them.
pub(crate) struct Table {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

/// A row of a table.
#[derive(Clone, Debug)]
pub(crate) struct Row(Vec<String>);

/// The project's directory.
pub(crate) fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every page of the project.
pub(crate) fn all_pages() -> Vec<Page> {
    let is_page = |path: &Path| path.extension().is_some_and(|extension| extension == "md");
    let pages: Vec<_> = files_of(&project()).into_iter().filter(|path| is_page(path)).collect();
    assert!(pages.len() > 8, "{pages:?}");
    pages.into_iter().map(Page::at).collect()
}

/// Every file below `folder` that is the project's own.
pub(crate) fn files_of(folder: &Path) -> Vec<PathBuf> {
    let is_ours = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy();
        name != "target" && name != ".git"
    };
    let entries = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().filter_entry(is_ours);
    entries.map(|entry| entry.unwrap().into_path()).filter(|path| path.is_file()).collect()
}

impl Page {
    /// The page called `name`, from the project's directory.
    pub(crate) fn read(name: &str) -> Self {
        Self::at(project().join(name))
    }

    fn at(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, text }
    }

    /// What stands under `heading`, up to the next heading of its rank.
    pub(crate) fn section(&self, heading: &str) -> String {
        let mut lines = lines_outside_code(&self.text).into_iter();
        let rank = lines
            .by_ref()
            .find_map(|(line, is_code)| heading_of(line).filter(|(_, words)| !is_code && *words == heading))
            .unwrap_or_else(|| panic!("{} has no heading {heading:?}", self.path.display()))
            .0;
        let is_inside = |(line, is_code): &(&str, bool)| {
            *is_code || heading_of(line).is_none_or(|(other, _)| rank < other)
        };
        lines.take_while(is_inside).map(|(line, _)| format!("{line}\n")).collect()
    }

    /// The first table under `heading`.
    pub(crate) fn table(&self, heading: &str) -> Table {
        let mut tables = tables_in(&self.section(heading));
        assert!(!tables.is_empty(), "{} has no table under {heading:?}", self.path.display());
        tables.remove(0)
    }

    /// All tables whose first column is called `first`.
    pub(crate) fn tables(&self, first: &str) -> Vec<Table> {
        tables_in(&self.text).into_iter().filter(|table| table.head[0] == first).collect()
    }

    /// The blocks of code in `language`.
    pub(crate) fn blocks(&self, language: &str) -> Vec<String> {
        blocks_in(&self.text, language)
    }

    /// The headings as links name them.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let lines = lines_outside_code(&self.text).into_iter();
        lines
            .filter_map(|(line, is_code)| (!is_code).then(|| heading_of(line))?)
            .map(|it| slug(it.1))
            .collect()
    }
}

impl Row {
    /// A cell as it is written.
    pub(crate) fn cell(&self, column: usize) -> &str {
        self.0.get(column).map_or("", String::as_str)
    }

    /// Everything in a cell that is written as code.
    pub(crate) fn codes(&self, column: usize) -> Vec<String> {
        codes_in(self.cell(column))
    }

    /// The first code of a cell; empty where there is none.
    pub(crate) fn code(&self, column: usize) -> String {
        self.codes(column).into_iter().next().unwrap_or_default()
    }
}

/// Everything in `text` that is written as code.
pub(crate) fn codes_in(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The blocks of code in `language`.
pub(crate) fn blocks_in(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}");
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while lines.by_ref().any(|line| line == opening) {
        blocks
            .push(lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect());
    }
    blocks
}

fn tables_in(text: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut inside = false;
    for (line, is_code) in lines_outside_code(text) {
        if is_code || !line.starts_with('|') {
            inside = false;
        } else if !inside {
            inside = true;
            tables.push(Table { head: cells_of(line), rows: Vec::new() });
        } else if let Some(table) = tables.last_mut().filter(|_| !line.starts_with("| ---")) {
            let cells = cells_of(line);
            assert_eq!(cells.len(), table.head.len(), "a row with more or fewer cells than its head: {line}");
            table.rows.push(Row(cells));
        }
    }
    tables
}

/// A bar inside a cell is written `\|`.
fn cells_of(line: &str) -> Vec<String> {
    let line = line.trim().trim_matches('|').replace("\\|", "\u{1}");
    line.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

fn lines_outside_code(text: &str) -> Vec<(&str, bool)> {
    let mut is_code = false;
    let mark = |line| {
        let is_fence = str::starts_with(line, "```");
        is_code ^= is_fence;
        (line, is_code || is_fence)
    };
    text.lines().map(mark).collect()
}

fn heading_of(line: &str) -> Option<(usize, &str)> {
    let words = line.trim_start_matches('#');
    let rank = line.len() - words.len();
    (rank > 0 && words.starts_with(' ')).then(|| (rank, words.trim()))
}

fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}
