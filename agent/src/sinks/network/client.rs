//! The HTTP client of a sink: rustls with ring, own CA, client certificate, proxy, timeouts.

use std::{fs, io, path::Path, sync::Once};

use reqwest::{Certificate, Client, Identity, Proxy};

use super::settings::{Http, Tls};
use crate::settings::Wrong;

/// Makes a client.
///
/// # Errors
///
/// If a file cannot be read or is not what it should be; one sentence with the remedy.
pub fn client(http: &Http, tls: &Tls) -> Result<Client, Wrong> {
    use_ring();
    let mut builder = Client::builder()
        .user_agent(concat!("rstscope/", env!("CARGO_PKG_VERSION")))
        .timeout(http.timeout.0)
        .connect_timeout(http.connect_timeout.0)
        // An answer elsewhere would take the secret along.
        .redirect(reqwest::redirect::Policy::none());
    if let Some(proxy) = &http.proxy {
        let proxy = Proxy::all(proxy).map_err(|error| Wrong(format!("http.proxy: {error}")))?;
        builder = builder.no_proxy().proxy(proxy);
    }
    if let Some(path) = &tls.ca_file {
        let certificates = Certificate::from_pem_bundle(&read(path)?)
            .map_err(|error| Wrong(format!("tls.ca_file {}: {error}", path.display())))?;
        if certificates.is_empty() {
            return Err(Wrong(format!("tls.ca_file {}: no certificate (PEM) in it", path.display())));
        }
        builder = builder.tls_certs_only(certificates);
    }
    if let (Some(certificate), Some(key)) = (&tls.cert_file, &tls.key_file) {
        let pem = [read(key)?, read(certificate)?].join(&b'\n');
        // The error could quote the key.
        let identity = Identity::from_pem(&pem).map_err(|_| {
            Wrong(format!(
                "tls.cert_file {} and tls.key_file {}: not a certificate and its key in PEM",
                certificate.display(),
                key.display()
            ))
        })?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| {
        Wrong(format!("cannot set up TLS: {}; without certificates of the system, give tls.ca_file", reason(&error)))
    })
}

/// The process has one set of cryptography; whoever comes first chooses, and everybody here chooses the same.
fn use_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _chosen_before = rustls::crypto::ring::default_provider().install_default();
    });
}

fn read(path: &Path) -> Result<Vec<u8>, Wrong> {
    fs::read(path).map_err(|error| Wrong(format!("cannot read {}: {error}", path.display())))
}

/// Why a request failed, without the address: it stands in the configuration. What is wrong with a certificate comes with the
/// remedy.
#[must_use]
pub fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timeout".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    loop {
        if let Some(problem) = tls_error(innermost) {
            return tls_reason(problem);
        }
        match innermost.source() {
            Some(source) => innermost = source,
            None => return innermost.to_string(),
        }
    }
}

/// rustls hides behind errors of the input and output, which do not name what is in them as their source.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(outer) => tls_error(outer.get_ref()?),
        None => error.downcast_ref(),
    }
}

fn tls_reason(error: &rustls::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error};
    match error {
        Error::InvalidCertificate(Certificate::UnknownIssuer) => {
            "the server's certificate is from an authority that is not trusted; give that authority's certificate as \
             tls.ca_file"
                .to_owned()
        }
        Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "the server's certificate has expired; renew it, or set this node's clock if that is wrong".to_owned()
        }
        Error::InvalidCertificate(Certificate::NotValidYet | Certificate::NotValidYetContext { .. }) => {
            "the server's certificate is not valid yet; set this node's clock if that is wrong".to_owned()
        }
        Error::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => {
            "the server's certificate is for another name than the url's; use a name that it has in the url".to_owned()
        }
        Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::CertificateExpired
            | Alert::DecryptError
            | Alert::HandshakeFailure
            | Alert::AccessDenied,
        ) => format!(
            "the server does not take this client ({error}); it may want a certificate of its own authority, as \
             tls.cert_file and tls.key_file"
        ),
        other => format!("TLS: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(tls: &Tls) -> String {
        client(&Http::default(), tls).unwrap_err().0
    }

    #[test]
    fn a_file_that_is_missing_or_no_certificate_is_one_sentence_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let (missing, wrong) = (folder.path().join("missing"), folder.path().join("wrong"));
        fs::write(&wrong, "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n").unwrap();
        for path in [&missing, &wrong] {
            let refused = refused(&Tls { ca_file: Some(path.clone()), ..Tls::default() });
            assert!(refused.contains(path.to_str().unwrap()), "{refused}");
            let own = Tls { cert_file: Some(wrong.clone()), key_file: Some(path.clone()), ..Tls::default() };
            let refused = self::refused(&own);
            assert!(refused.contains(path.to_str().unwrap()) && !refused.contains("hunter2"), "{refused}");
        }
    }
}
