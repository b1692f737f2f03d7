//! Rates as people give them on a command line.

use std::num::NonZeroU32;

/// Reads `50/s`: so many in a second, at least one.
pub fn parse_rate(text: &str) -> Result<NonZeroU32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    number.parse().map_err(|_| format!("{text:?} is not a rate such as 50/s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_whole_number_a_second() {
        assert_eq!(parse_rate("50/s"), Ok(NonZeroU32::new(50).unwrap()));
        assert_eq!(parse_rate("50"), parse_rate("50/s"));
        for strange in ["", "0", "-5/s", "1.5/s", "50/min", "fast"] {
            assert!(parse_rate(strange).unwrap_err().contains("50/s"), "{strange}");
        }
    }
}
