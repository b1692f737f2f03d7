//! Key material that cannot be printed.

use std::fmt;

/// Bytes that must not reach a log, an error or a metric: no `Display`, no `Serialize`, and a
/// `Debug` that shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes key material as its sender shows it; one trailing line end, as files have, does not
    /// belong to it.
    pub fn new(mut bytes: Vec<u8>) -> Self {
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        Self(bytes)
    }

    /// The bytes themselves, for the one place that computes with them.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is no key material: nothing at all, or nothing but white space and zero bytes,
    /// which a template with an empty variable leaves behind. It never verifies anything.
    pub fn is_blank(&self) -> bool {
        self.0.iter().all(|byte| byte.is_ascii_whitespace() || *byte == 0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_ignored_and_nothing_else() {
        assert_eq!(Secret::new(b"s3cret\n".to_vec()).reveal(), b"s3cret");
        assert_eq!(Secret::new(b"s3cret\r\n".to_vec()).reveal(), b"s3cret");
        assert_eq!(Secret::new(b" s3cret \n\n".to_vec()).reveal(), b" s3cret \n");
        assert!(Secret::new(b"\n".to_vec()).is_blank());
    }

    #[test]
    fn white_space_and_zero_bytes_are_no_secret() {
        for blank in ["", " ", "\t\n\n", "\0\0"] {
            assert!(Secret::new(blank.as_bytes().to_vec()).is_blank(), "{blank:?}");
        }
        assert!(!Secret::new(b" s ".to_vec()).is_blank());
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        assert_eq!(format!("{:?}", Secret::new(b"s3cret".to_vec())), "***");
    }
}
