//! Which labels and annotations of a pod may appear in a line: only those on a list, since some hold secrets, and
//! every one of them is stored with every line.

use std::{collections::BTreeMap, str::FromStr};

/// A value goes into every line about its pod, so a longer one is cut. A label is never so long: Kubernetes allows 63
/// bytes (`LabelValueMaxLength`, k8s.io/apimachinery/pkg/api/validate/content). An annotation may have 256 KiB.
const MOST_VALUE_BYTES: usize = 1024;

/// The end of a value that was cut.
const CUT: char = '…';

/// A key, or the beginning of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPattern {
    text: String,
    is_beginning: bool,
}

/// Why a pattern is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// There is nothing in it.
    #[error("it is empty: give the key of a label or annotation, or its beginning and `*`")]
    Empty,
    /// Something follows a `*`.
    #[error("`*` may only be its last character, where it stands for the rest of a key")]
    StarInside,
}

impl FromStr for KeyPattern {
    type Err = PatternError;

    fn from_str(pattern: &str) -> Result<Self, PatternError> {
        let beginning = pattern.strip_suffix('*');
        let text = beginning.unwrap_or(pattern);
        if pattern.is_empty() {
            Err(PatternError::Empty)
        } else if text.contains('*') {
            Err(PatternError::StarInside)
        } else {
            Ok(Self { text: text.to_owned(), is_beginning: beginning.is_some() })
        }
    }
}

impl KeyPattern {
    fn matches(&self, key: &str) -> bool {
        if self.is_beginning { key.starts_with(&self.text) } else { key == self.text }
    }
}

/// The keys that may appear; none if it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<KeyPattern>);

impl FromIterator<KeyPattern> for AllowList {
    fn from_iter<T: IntoIterator<Item = KeyPattern>>(patterns: T) -> Self {
        Self(patterns.into_iter().collect())
    }
}

impl AllowList {
    /// Whether this key is on the list.
    #[must_use]
    pub fn allows(&self, key: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(key))
    }

    /// Takes what is on the list, a value of more than 1 KiB cut to that and ending in `…`.
    #[must_use]
    pub fn pick(&self, pairs: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
        pairs.into_iter().filter(|(key, _)| self.allows(key)).map(|(key, value)| (key, shortened(value))).collect()
    }
}

/// The list for labels and the one for annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Of `metadata.labels`.
    pub labels: AllowList,
    /// Of `metadata.annotations`.
    pub annotations: AllowList,
}

fn shortened(mut value: String) -> String {
    if value.len() > MOST_VALUE_BYTES {
        value.truncate(value.floor_char_boundary(MOST_VALUE_BYTES - CUT.len_utf8()));
        value.push(CUT);
        value.shrink_to_fit();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> AllowList {
        patterns.iter().map(|pattern| pattern.parse::<KeyPattern>().unwrap()).collect()
    }

    fn pairs(keys: &[&str]) -> Vec<(String, String)> {
        keys.iter().map(|key| ((*key).to_owned(), "x".to_owned())).collect()
    }

    #[test]
    fn an_empty_list_allows_nothing() {
        assert!(AllowList::default().pick(pairs(&["app", ""])).is_empty());
    }

    #[test]
    fn an_exact_key_allows_itself_only() {
        let picked = list(&["app", "app.kubernetes.io/version"]).pick(pairs(&[
            "app",
            "apps",
            "ap",
            "App",
            "app.kubernetes.io/version",
            "app.kubernetes.io/versions",
        ]));
        assert_eq!(picked.into_keys().collect::<Vec<_>>(), ["app", "app.kubernetes.io/version"]);
    }

    #[test]
    fn a_star_allows_what_begins_like_it() {
        let list = list(&["app.kubernetes.io/*"]);
        assert!(list.allows("app.kubernetes.io/name"));
        assert!(list.allows("app.kubernetes.io/"));
        assert!(!list.allows("app.kubernetes.io"));
        assert!(!list.allows("my.app.kubernetes.io/name"));
    }

    #[test]
    fn a_star_alone_allows_everything() {
        assert!(list(&["*"]).allows("anything/at-all"));
        assert!(list(&["*"]).allows(""));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        assert_eq!("".parse::<KeyPattern>(), Err(PatternError::Empty));
        for pattern in ["*.example.org/team", "a*b", "**"] {
            assert_eq!(pattern.parse::<KeyPattern>(), Err(PatternError::StarInside), "{pattern}");
        }
    }

    #[test]
    fn a_long_value_is_cut_between_characters_and_shows_it() {
        for character in ["x", "ß", "€", "😀"] {
            let value = character.repeat(1_000_000);
            let picked = list(&["*"]).pick([("key".to_owned(), value.clone())]);
            let cut = &picked["key"];
            assert!((1020..=1024).contains(&cut.len()), "{} bytes of {character}", cut.len());
            assert!(cut.ends_with('…') && value.starts_with(cut.trim_end_matches('…')));
        }
    }

    #[test]
    fn a_value_that_fits_stays_whole() {
        let value = "x".repeat(MOST_VALUE_BYTES);
        assert_eq!(list(&["*"]).pick([("key".to_owned(), value.clone())])["key"], value);
    }
}
