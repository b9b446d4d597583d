//! The system's apt sources, in both of the formats apt knows.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::release::Distribution;

/// One place packages come from.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Source {
    pub uris: Vec<String>,
    pub suites: Vec<String>,
    pub components: Vec<String>,
    /// The file with the keys its lists are signed with, where the source names one.
    pub signed_by: Option<String>,
}

/// The distribution's own mirrors, with their keys.
#[derive(Debug)]
pub struct Mirrors {
    releases: Source,
    /// Debian keeps its security updates on a mirror of their own.
    security: Option<Source>,
    /// Everything with a `main`, for suites that are named there.
    named: Vec<Source>,
}

impl Mirrors {
    /// Finds them among the system's sources.
    pub fn of(distribution: &Distribution) -> Result<Self> {
        let sources = read_all(Path::new("/etc/apt"));
        let security = sources.iter().find(|source| is_security(source)).cloned();
        let named = sources.iter().filter(|source| has_main(source)).cloned().collect();
        let releases = choose(sources, distribution).with_context(|| {
            format!(
                "/etc/apt has no source for the component main of {}, which could provide it",
                distribution.codename
            )
        })?;
        Ok(Self { releases, security, named })
    }

    /// The mirror that has a suite, if any has: one that is named for just that, else the distribution's.
    pub fn having(&self, suite: &str) -> Result<&Source> {
        if let Some(source) = self.named.iter().find(|source| source.suites.iter().any(|named| named == suite)) {
            return Ok(source);
        }
        if suite.ends_with("-security") {
            return self.security.as_ref().context("/etc/apt has no source for security updates");
        }
        Ok(&self.releases)
    }
}

/// Where a mirror's releases may have gone when it no longer has them: Debian moves old ones to an archive, which is
/// beside the mirror's releases or on a host of its own.
pub fn archives(mirror: &Source) -> Source {
    let mut uris = Vec::new();
    for uri in mirror.uris.iter().map(|uri| uri.trim_end_matches('/')) {
        uris.extend(uri.strip_suffix("/debian").map(|base| format!("{base}/debian-archive/debian")));
        uris.extend(uri.split_once("://deb.").map(|(scheme, rest)| format!("{scheme}://archive.{rest}")));
    }
    Source { uris, ..mirror.clone() }
}

fn is_security(source: &Source) -> bool {
    source.suites.iter().any(|suite| suite.ends_with("-security")) && has_main(source)
}

fn has_main(source: &Source) -> bool {
    source.components.iter().any(|component| component == "main")
}

/// Third parties name their suites after the distribution as well, but have no `main` in a suite of just that name.
/// Should one have, the mirror whose address mentions the distribution wins.
fn choose(sources: Vec<Source>, distribution: &Distribution) -> Option<Source> {
    let mut own: Vec<Source> = sources
        .into_iter()
        .filter(|source| source.suites.contains(&distribution.codename) || source.suites.contains(&"stable".to_owned()))
        .filter(has_main)
        .collect();
    own.sort_by_key(|source| !source.uris.iter().any(|uri| uri.contains(distribution.name())));
    own.into_iter().next()
}

fn read_all(folder: &Path) -> Vec<Source> {
    let mut files = vec![folder.join("sources.list")];
    if let Ok(entries) = fs::read_dir(folder.join("sources.list.d")) {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(text.lines().filter_map(one_line)),
            Some("sources") => sources.extend(stanzas(&text)),
            _ => {}
        }
    }
    sources
}

/// `deb [signed-by=FILE] URI SUITE COMPONENT…`
fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim().strip_prefix("deb")?;
    if !line.starts_with(char::is_whitespace) {
        return None; // `deb-src`
    }
    let (options, rest) = match line.trim_start().strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => ("", line),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: options.split_whitespace().find_map(|option| option.strip_prefix("signed-by=").map(str::to_owned)),
    })
}

/// Stanzas of `Field: value`, with an empty line between two of them.
fn stanzas(text: &str) -> Vec<Source> {
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    kept.split(|line| line.trim().is_empty()).filter_map(stanza).collect()
}

fn stanza(lines: &[&str]) -> Option<Source> {
    let words = |name: &str| -> Vec<String> {
        field(lines, name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let disabled = field(lines, "Enabled").is_some_and(|value| matches!(value.trim(), "no" | "false" | "0"));
    if disabled || !words("Types").contains(&"deb".to_owned()) {
        return None;
    }
    // Instead of a file's name the field can hold the keys themselves, which is left to the distribution's own file.
    let signed_by =
        field(lines, "Signed-By").map(|value| value.trim().to_owned()).filter(|value| value.starts_with('/'));
    Some(Source { uris: words("URIs"), suites: words("Suites"), components: words("Components"), signed_by })
}

/// A field's value, with the lines that continue it.
fn field(lines: &[&str], name: &str) -> Option<String> {
    let is_field = |line: &str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
    let start = lines.iter().position(|line| is_field(line))?;
    let (_, first) = lines[start].split_once(':')?;
    let continued = lines[start + 1..].iter().take_while(|line| line.starts_with(char::is_whitespace));
    Some(std::iter::once(first).chain(continued.copied()).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Types: deb\n# a comment\nURIs: http://mirror.example/debian\n\
        Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\
        \nTypes: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n\
        \nEnabled: no\nTypes: deb\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n\
        \nTypes: deb-src\nURIs: http://src.example/debian\nSuites: bookworm\nComponents: main\n";

    fn bookworm() -> Distribution {
        Distribution::parse("ID=debian\nVERSION_CODENAME=bookworm\n").unwrap()
    }

    #[test]
    fn stanzas_are_read() {
        let sources = stanzas(STANZAS);
        assert_eq!(sources.len(), 2, "{sources:?}");
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(sources[0].signed_by.as_deref(), Some("/usr/share/keyrings/debian-archive-keyring.gpg"));
    }

    #[test]
    fn keys_inside_a_stanza_are_not_a_file() {
        let text =
            "Types: deb\nURIs: u\nSuites: s\nComponents: main\nSigned-By:\n -----BEGIN PGP\n .\n abc\nTrusted: no\n";
        assert_eq!(stanzas(text)[0].signed_by, None);
    }

    #[test]
    fn continued_fields_are_read() {
        assert_eq!(stanzas("Types: deb\nURIs: u\nSuites:\n a\n b\nComponents: main\n")[0].suites, ["a", "b"]);
    }

    #[test]
    fn single_lines_are_read() {
        let line = "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib # comment";
        let source = one_line(line).unwrap();
        assert_eq!(source.uris, ["http://mirror.example/debian"]);
        assert_eq!(source.components, ["main", "contrib"]);
        assert_eq!(source.signed_by.as_deref(), Some("/k.gpg"));
        for other in ["", "# deb http://a b main", "deb-src http://a b main"] {
            assert_eq!(one_line(other), None, "{other:?}");
        }
    }

    #[test]
    fn old_releases_are_beside_the_mirror_or_on_a_host_of_their_own() {
        let source = |uri: &str| Source { uris: vec![uri.to_owned()], ..Source::default() };
        let expected = ["http://deb.example/debian-archive/debian", "http://archive.example/debian"];
        assert_eq!(archives(&source("http://deb.example/debian/")).uris, expected);
        assert_eq!(archives(&source("http://mirror.example/mirrors/apt")).uris, Vec::<String>::new());
    }

    #[test]
    fn a_suite_that_is_named_has_its_own_mirror() {
        let own = one_line("deb http://mirror.example/debian bookworm main").unwrap();
        let old = one_line("deb http://old.example/debian bullseye main").unwrap();
        let mirrors = Mirrors { releases: own.clone(), security: None, named: vec![own.clone(), old.clone()] };
        assert_eq!(mirrors.having("bullseye").unwrap(), &old);
        assert_eq!(mirrors.having("trixie").unwrap(), &own);
        assert!(mirrors.having("bookworm-security").is_err());
    }

    #[test]
    fn the_mirror_is_the_distributions_own() {
        let third_party = one_line("deb http://tools.example/apt bookworm main").unwrap();
        let updates = one_line("deb http://mirror.example/debian bookworm-updates main").unwrap();
        let own = one_line("deb http://mirror.example/debian bookworm main").unwrap();
        assert_eq!(choose(vec![third_party.clone(), updates, own.clone()], &bookworm()), Some(own));
        assert_eq!(choose(vec![third_party.clone()], &bookworm()), Some(third_party));
        assert_eq!(choose(vec![one_line("deb http://x.example noble stable").unwrap()], &bookworm()), None);
    }
}
