//! nginx before a server: it ends TLS and wants a client certificate.

use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    feed::{self, Feed, until},
    minute::Between,
    netns::Netns,
    process::{Process, real},
    servers::{
        certificates::{Authority, Flaw},
        http::Server,
        loki::Loki,
    },
};

const PORT: u16 = 8443;

/// A running nginx, its configuration and certificates.
pub struct Front {
    folder: TempDir,
    netns: Netns,
    ca: PathBuf,
    client: (PathBuf, PathBuf),
    nginx: Option<Process>,
}

impl Front {
    /// Before the server with this address, in its namespace.
    pub fn start(netns: &Netns, server: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let (of_server, of_clients) = (Authority::new("servers"), Authority::new("clients"));
        let (certificate, key) = of_server.server(Flaw::None).write(folder.path(), "server");
        let clients = of_clients.write(folder.path(), "clients.pem");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {};\n", at(name).display()))
            .concat();
        let configuration = format!(
            "daemon off;\nmaster_process off;\npid {};\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\
             server {{\nlisten 127.0.0.1:{PORT} ssl;\nssl_certificate {};\nssl_certificate_key {};\n\
             ssl_client_certificate {};\nssl_verify_client on;\nclient_max_body_size 16m;\n\
             location / {{ proxy_pass http://{server}; proxy_read_timeout 2s; }}\n}}\n}}\n",
            at("pid").display(),
            certificate.display(),
            key.display(),
            clients.display(),
        );
        std::fs::write(at("nginx.conf"), configuration).expect("a file can be written");
        let ca = of_server.write(folder.path(), "ca.pem");
        let client = of_clients.client().write(folder.path(), "client");
        let mut front = Self { folder, netns: netns.clone(), ca, client, nginx: None };
        front.run();
        front
    }

    fn run(&mut self) {
        let file = self.folder.path().join("nginx.conf");
        let mut command = real("RSTSCOPE_NGINX");
        command.arg("-p").arg(self.folder.path()).arg("-c").arg(file).args(["-e", "stderr"]);
        let mut nginx = Process::start(&self.netns, command, &self.folder.path().join("nginx.log"));
        let netns = self.netns.clone();
        nginx.until("listening", || netns.run(|| TcpStream::connect(("127.0.0.1", PORT)).is_ok()));
        self.nginx = Some(nginx);
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{PORT}")
    }

    /// The keys of a sink that trusts it and shows a certificate.
    pub fn client_keys(&self) -> String {
        let (certificate, key) = &self.client;
        format!(
            "tls.cert_file = \"{}\"\ntls.key_file = \"{}\"\n{}",
            certificate.display(),
            key.display(),
            self.ca_key()
        )
    }

    fn ca_key(&self) -> String {
        format!("tls.ca_file = \"{}\"\n", self.ca.display())
    }
}

impl Between for Front {
    fn restart(&mut self) {
        // Killed, as by a node that runs out of memory.
        drop(self.nginx.take());
        std::thread::sleep(Duration::from_millis(500));
        self.run();
    }
}

/// nginx answers 400 to a client without a certificate, as a server does to a line that is wrong. No line is given up for it.
pub fn without_client_certificate() {
    let netns = Netns::new();
    let server = netns.run(|| Server::start(Loki::default()));
    let front = Front::start(&netns, server.address);
    let spools = tempfile::tempdir().expect("a folder");
    let configuration = |keys: String| feed::configuration("loki", &front.url(), &keys);
    let mut feed = netns.run(|| Feed::start("stranger", &configuration(front.ca_key()), spools.path()));
    let sent = feed.send(20, "x");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(
        (server.requests(), feed.account.take_losses().len()),
        (0, 0),
        "nothing gets through, nothing is given up"
    );
    feed.end(Duration::from_millis(100));
    let feed = netns.run(|| Feed::start("known", &configuration(front.client_keys()), spools.path()));
    until("delivered with a certificate", || server.ids() == sent);
    feed.end(feed::PATIENCE);
}
