//! A client for whoever speaks HTTP, the API server and the kubelet.

use kube::{Client, Config, Error};

/// Makes a client, which has not connected yet.
///
/// Where no certificate will be looked at, no CA has to be there to judge it: a container image often has none, and the
/// client would not be made without.
pub fn client(mut config: Config) -> Result<Client, Error> {
    let is_plain = config.cluster_url.scheme_str() == Some("http");
    if (is_plain || config.accept_invalid_certs) && config.root_cert_file.is_none() {
        config.root_cert.get_or_insert_default();
    }
    Client::try_from(config)
}
