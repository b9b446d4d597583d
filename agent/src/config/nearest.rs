//! A key that does not exist is mostly one that does, misspelt.

use crate::settings::Wrong;

/// Refuses `key` unless it is one of `known`, and names the nearest.
///
/// # Errors
///
/// If it is none of them.
pub fn refuse_unknown(key: &str, known: &[&str], place: &str) -> Result<(), Wrong> {
    if known.contains(&key) {
        return Ok(());
    }
    Err(Wrong(match nearest(key, known) {
        Some(nearest) => format!("{place} has no key `{key}`; did you mean `{nearest}`?"),
        None => format!("{place} has no key `{key}`; it has {}", known.join(", ")),
    }))
}

/// The known name that is nearest, unless it is quite another.
#[must_use]
pub fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|known| (strsim::jaro_winkler(key, known), *known));
    let (score, nearest) = scored.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (score > 0.75).then_some(nearest)
}

/// Says what serde says of a table, with the nearest name instead of all of them.
#[must_use]
pub fn explained(place: &str, message: &str) -> Wrong {
    let message = message.trim();
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return Wrong(format!("{place}: {}", message.replace('\n', ", ")));
    };
    let mut names = rest.split('`').step_by(2);
    let key = names.next().unwrap_or("");
    let known: Vec<&str> = rest.split('`').skip(2).step_by(2).collect();
    refuse_unknown(key, &known, place).err().unwrap_or_else(|| Wrong(format!("{place}: {message}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_refused_with_the_nearest() {
        assert_eq!(nearest("tenent", &["url", "tenant", "labels"]), Some("tenant"));
        assert_eq!(nearest("token", &["url", "token_file", "index"]), Some("token_file"));
        assert_eq!(nearest("zzz", &["url", "tenant"]), None);
        let refused = refuse_unknown("zzz", &["url", "tenant"], "sinks.a").unwrap_err();
        assert_eq!(refused.0, "sinks.a has no key `zzz`; it has url, tenant");
    }

    #[test]
    fn serde_s_list_of_names_becomes_one_name() {
        let message = "unknown field `tenent`, expected one of `url`, `tenant`, `labels`";
        assert_eq!(explained("sinks.a", message).0, "sinks.a has no key `tenent`; did you mean `tenant`?");
        let message = "unknown field `urll`, expected `url` or `path`";
        assert_eq!(explained("sinks.a", message).0, "sinks.a has no key `urll`; did you mean `url`?");
    }
}
