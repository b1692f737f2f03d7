//! `[log]`: what is logged, and how.

use super::section::Section;

/// `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// What is left out.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// The least important lines that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Data at risk, or a person must act.
    Error,
    /// And the unexpected that was recovered from.
    Warn,
    /// And the life of the process, a line a request and a line a settlement.
    Info,
    /// And what helps to find a fault.
    Debug,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one object a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}

impl LogConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let levels = [
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
        ];
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        Self {
            level: section.choice("level", &levels, default.level),
            format: section.choice("format", &formats, default.format),
        }
    }
}
