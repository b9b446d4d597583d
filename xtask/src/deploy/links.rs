//! Where alerts and dashboards send people: pages of this repository, which have to be there.

use std::path::Path;

use anyhow::Result;

use super::render::read;

/// Pages are linked to as the repository shows them.
const PAGES: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/");
/// What stands for a cause in a link: in alerts, and in cells of Grafana's tables.
const CAUSES: [&str; 2] = ["{{ $labels.cause }}", "${__value.raw}"];
/// Some cause, whose page is as good as another's: a unit test of the agent holds all of them complete.
const A_CAUSE: &str = "stale_connection_reuse";

/// Why a link leads nowhere, if it does.
pub fn refuse(workspace: &Path, link: &str) -> Result<Option<String>> {
    let Some(place) = link.strip_prefix(PAGES) else { return Ok(Some(format!("{link} is not a page of {PAGES}"))) };
    let place = CAUSES.iter().fold(place.to_owned(), |place, cause| place.replace(cause, A_CAUSE));
    let (page, heading) = place.split_once('#').unwrap_or((&place, ""));
    let file = workspace.join(page);
    if !file.is_file() {
        return Ok(Some(format!("{link}: there is no {page}")));
    }
    let is_there = heading.is_empty() || read(&file)?.lines().filter_map(anchor).any(|anchor| anchor == heading);
    Ok((!is_there).then(|| format!("{link}: {page} has no heading #{heading}")))
}

/// The anchor that a heading gets: lower case, blanks as dashes, nothing else but letters and digits.
fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').trim();
    let kept = heading.chars().filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_have_anchors() {
        assert_eq!(anchor("## `lost` lines").as_deref(), Some("lost-lines"));
        assert_eq!(anchor("# What each right is for").as_deref(), Some("what-each-right-is-for"));
        assert_eq!(anchor("text"), None);
    }

    #[test]
    fn links_lead_to_pages_and_headings() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let refused = |link: &str| refuse(workspace, &format!("{PAGES}{link}")).unwrap();
        assert_eq!(refused("docs/schema.md#lost-lines"), None);
        assert_eq!(refused("docs/causes/{{ $labels.cause }}.md"), None);
        assert!(refused("docs/nothing.md").is_some() && refused("docs/schema.md#nothing").is_some());
        assert!(refuse(workspace, "https://example.com/docs/schema.md").unwrap().is_some());
    }
}
