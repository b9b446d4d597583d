//! The servers that close idle connections, and how each is started with the timeout that is expected of it.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Result;

use super::{
    process::{Process, bound_to_us},
    stage::Stage,
};
use crate::files;

/// The port every server listens on, in a namespace of its own.
pub const PORT: u16 = 8080;

/// The port of a proxy that checks the server's health.
pub const CHECKING_PORT: u16 = 10_001;

/// By how much any timer may fire late, also by rstscope's table of timeouts.
const LATE: Duration = Duration::from_millis(60);

/// A server.
pub struct Server {
    /// The name of its process.
    pub process: &'static str,
    /// Its name in rstscope's table of timeouts; empty if it has no timeout of its own.
    product: &'static str,
    /// After how much idleness it closes: as configured for a quick run, and as it does by itself.
    timeout: [Duration; 2],
    /// How much later than that it may look.
    pub poll: Duration,
    /// How long after its FIN the socket is wholly closed. Until then it takes data, and resets when it closes.
    pub settles: Duration,
    start: fn(&Stage, Duration) -> Result<Process>,
}

impl Server {
    /// After how much idleness it closes.
    pub const fn timeout(&self, full: bool) -> Duration {
        if full { self.timeout[1] } else { self.timeout[0] }
    }

    /// The product that the timeout gives away, where it is the product's own.
    pub fn product(&self, full: bool) -> Option<&'static str> {
        (self.timeout(full) == self.timeout(true) && !self.product.is_empty()).then_some(self.product)
    }

    /// Whether it closed as early after so much idleness as it does on a machine that is not overloaded.
    pub fn is_on_time(&self, full: bool, idle_ms: f64) -> bool {
        idle_ms <= (self.timeout(full) + self.poll + LATE).as_secs_f64() * 1000.0
    }

    /// Starts it and waits until it listens.
    pub fn start(&self, stage: &Stage) -> Result<Process> {
        (self.start)(stage, self.timeout(stage.full))
    }
}

/// What to ask of Node.js, uvicorn or gunicorn for an answer that comes so much later: they read the path's last part.
pub fn path_for_later(time: Duration) -> String {
    format!("/later/{}", time.as_millis())
}

/// What to ask of Node.js to keep it from anything else so long.
pub fn path_to_keep_busy(time: Duration) -> String {
    format!("/busy/{}", time.as_millis())
}

const fn seconds(quick: u64, full: u64) -> [Duration; 2] {
    [Duration::from_secs(quick), Duration::from_secs(full)]
}

/// Node.js 20 announces 5 s and adds one before it closes.
pub const NODE: Server = Server {
    process: "node",
    product: "Node.js",
    timeout: seconds(6, 6),
    poll: Duration::ZERO,
    settles: Duration::ZERO,
    start: node,
};

/// uvicorn with its own timeout.
pub const UVICORN: Server = Server {
    process: "python",
    product: "uvicorn",
    timeout: seconds(5, 5),
    poll: Duration::ZERO,
    settles: Duration::ZERO,
    start: uvicorn,
};

/// uvicorn with a timeout of 2 s, for what takes many of them.
pub const UVICORN_QUICK: Server = Server {
    process: "python",
    product: "uvicorn",
    timeout: seconds(2, 5),
    poll: Duration::ZERO,
    settles: Duration::ZERO,
    start: uvicorn,
};

/// gunicorn with its own timeout, at which its threaded worker looks once a second.
pub const GUNICORN: Server = Server {
    process: "python",
    product: "gunicorn",
    timeout: seconds(2, 2),
    poll: Duration::from_secs(1),
    settles: Duration::ZERO,
    start: gunicorn,
};

/// CherryPy with its own timeout. Its server, cheroot, looks at it when more than 0.5 s have passed since the last time,
/// and wakes every 0.5 s to see: every second waking, often enough.
pub const CHERRYPY: Server = Server {
    process: "python",
    product: "CherryPy",
    timeout: seconds(10, 10),
    poll: Duration::from_secs(1),
    settles: Duration::ZERO,
    start: cherrypy,
};

/// nginx; 75 s is its own timeout.
pub const NGINX: Server = Server {
    process: "nginx",
    product: "nginx",
    timeout: seconds(3, 75),
    poll: Duration::ZERO,
    settles: Duration::ZERO,
    start: nginx,
};

/// HAProxy, which has no timeout of its own: without one it warns and waits for ever.
pub const HAPROXY: Server = Server {
    process: "haproxy",
    product: "",
    timeout: seconds(3, 3),
    poll: Duration::ZERO,
    settles: Duration::ZERO,
    start: haproxy,
};

/// Tomcat; 20 s is the timeout of the configuration it comes with. It looks once a second. Java only shuts the sending
/// side of a channel that a selector watches, and closes the socket when the selector wakes again, within a second.
pub const TOMCAT: Server = Server {
    process: "java",
    product: "Tomcat",
    timeout: seconds(3, 20),
    poll: Duration::from_secs(1),
    settles: Duration::from_secs(1),
    start: tomcat,
};

fn node(stage: &Stage, _: Duration) -> Result<Process> {
    let script = format!(
        "\
require('http').createServer((request, response) => {{
  const [, later] = request.url.split('/later/')
  const [, busy] = request.url.split('/busy/')
  for (const end = Date.now() + Number(busy ?? 0); Date.now() < end;);
  if (later) setTimeout(() => response.end('ok\\n'), later)
  else response.end('ok\\n')
}}).listen({PORT}, '127.0.0.1')
"
    );
    serve(stage, "node", bound_to_us(stage.programs.node()).arg("-e").arg(script))
}

fn uvicorn(stage: &Stage, timeout: Duration) -> Result<Process> {
    let application = "\
import asyncio
async def application(scope, receive, send):
    if scope['type'] != 'http':
        return
    _, _, later = scope['path'].partition('/later/')
    if later:
        await asyncio.sleep(int(later) / 1000)
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'3')]})
    await send({'type': 'http.response.body', 'body': b'ok\\n'})
";
    files::write_file(&stage.folder.join("server.py"), application)?;
    let mut command = python(stage);
    command.args(["-m", "uvicorn", "--host", "127.0.0.1", "--port", &PORT.to_string(), "server:application"]);
    if timeout != UVICORN.timeout(true) {
        command.args(["--timeout-keep-alive", &timeout.as_secs().to_string()]);
    }
    serve(stage, "uvicorn", &mut command)
}

fn gunicorn(stage: &Stage, _: Duration) -> Result<Process> {
    let application = "\
import time
def application(environ, start):
    _, _, later = environ['PATH_INFO'].partition('/later/')
    if later:
        time.sleep(int(later) / 1000)
    start('200 OK', [('Content-Length', '3')])
    return [b'ok\\n']
";
    files::write_file(&stage.folder.join("server.py"), application)?;
    let mut command = python(stage);
    // The default worker knows no keep-alive.
    command.args(["-m", "gunicorn", "--worker-class", "gthread", "--threads", "4"]);
    command.args(["--bind", &format!("127.0.0.1:{PORT}"), "server:application"]);
    serve(stage, "gunicorn", &mut command)
}

fn cherrypy(stage: &Stage, _: Duration) -> Result<Process> {
    let application = format!(
        "\
import cherrypy
class Root:
    @cherrypy.expose
    def index(self):
        return 'ok\\n'
cherrypy.config.update({{
    'server.socket_port': {PORT},
    'server.max_request_body_size': 1 << 20,
    'engine.autoreload.on': False,
}})
cherrypy.quickstart(Root())
"
    );
    files::write_file(&stage.folder.join("server.py"), &application)?;
    serve(stage, "cherrypy", python(stage).arg("server.py"))
}

fn nginx(stage: &Stage, timeout: Duration) -> Result<Process> {
    let rules = format!(
        "keepalive_timeout {}s;\nserver {{\nlisten 127.0.0.1:{PORT};\nlocation / {{ return 200 'ok\\n'; }}\n}}\n",
        timeout.as_secs()
    );
    nginx_with(stage, &rules, PORT)
}

/// nginx with these rules for HTTP, which listens on this port.
pub fn nginx_with(stage: &Stage, rules: &str, port: u16) -> Result<Process> {
    let folder = stage.folder.join("nginx");
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", folder.join(name).display()))
        .concat();
    let configuration = format!(
        "daemon off;\nmaster_process off;\npid {pid};\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
         {temporary}{rules}}}\n",
        pid = folder.join("pid").display(),
    );
    let file = folder.join("nginx.conf");
    files::write_file(&file, &configuration)?;
    let (program, libraries) = stage.programs.nginx()?;
    let mut command = with_libraries(&program, &libraries);
    command.arg("-p").arg(&folder).arg("-c").arg(&file).args(["-e", "stderr"]);
    Process::serve("nginx", &mut command, &stage.folder, port)
}

fn haproxy(stage: &Stage, timeout: Duration) -> Result<Process> {
    let configuration = format!(
        "defaults\n  mode http\n  timeout client 60s\n  timeout http-keep-alive {}s\nfrontend incident\n  \
         bind 127.0.0.1:{PORT}\n  http-request return status 200 content-type text/plain string ok\n",
        timeout.as_secs()
    );
    haproxy_with(stage, &configuration, PORT)
}

/// HAProxy in front of the server and of one that does not answer, whose health it checks by connecting.
pub fn haproxy_checking(stage: &Stage, dead: (&str, u16)) -> Result<Process> {
    let configuration = format!(
        "defaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n  timeout connect 5s\nlisten incident\n  \
         bind 127.0.0.1:{CHECKING_PORT}\n  server checked 127.0.0.1:{PORT} check inter 200ms\n  server dead {}:{} check inter 200ms\n",
        dead.0, dead.1
    );
    haproxy_with(stage, &configuration, CHECKING_PORT)
}

/// HAProxy with this configuration, which listens on this port.
pub fn haproxy_with(stage: &Stage, configuration: &str, port: u16) -> Result<Process> {
    let file = stage.folder.join("haproxy.cfg");
    files::write_file(&file, configuration)?;
    let (program, libraries) = stage.programs.haproxy()?;
    let mut command = with_libraries(&program, &libraries);
    Process::serve("haproxy", command.arg("-db").arg("-f").arg(&file), &stage.folder, port)
}

fn tomcat(stage: &Stage, timeout: Duration) -> Result<Process> {
    let base = stage.folder.join("tomcat");
    let millis = timeout.as_millis();
    let configuration = format!(
        "<Server port='-1'><Service name='Catalina'><Connector port='{PORT}' address='127.0.0.1' \
         connectionTimeout='{millis}' keepAliveTimeout='{millis}'/><Engine name='Catalina' defaultHost='localhost'>\
         <Host name='localhost' appBase='webapps'/></Engine></Service></Server>\n"
    );
    let application = "<web-app xmlns='https://jakarta.ee/xml/ns/jakartaee' version='6.0'><servlet>\
        <servlet-name>files</servlet-name>\
        <servlet-class>org.apache.catalina.servlets.DefaultServlet</servlet-class></servlet><servlet-mapping>\
        <servlet-name>files</servlet-name><url-pattern>/</url-pattern></servlet-mapping><welcome-file-list>\
        <welcome-file>index.html</welcome-file></welcome-file-list></web-app>\n";
    files::write_file(&base.join("conf/server.xml"), &configuration)?;
    files::write_file(&base.join("webapps/ROOT/WEB-INF/web.xml"), application)?;
    files::write_file(&base.join("webapps/ROOT/index.html"), "ok\n")?;
    files::write_file(&base.join("temp/empty"), "")?;
    let home = stage.programs.tomcat()?;
    let mut command = bound_to_us(stage.programs.java());
    command
        // Quick to start and content with little.
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx192m"])
        .arg("-cp")
        .arg(format!("{0}/bin/bootstrap.jar:{0}/bin/tomcat-juli.jar", home.display()))
        .arg(format!("-Dcatalina.home={}", home.display()))
        .arg(format!("-Dcatalina.base={}", base.display()))
        .arg(format!("-Djava.io.tmpdir={}", base.join("temp").display()))
        .args(["org.apache.catalina.startup.Bootstrap", "start"]);
    serve(stage, "tomcat", &mut command)
}

fn python(stage: &Stage) -> Command {
    let mut command = bound_to_us(stage.programs.python());
    // It finds modules in the folder it runs in.
    command.current_dir(&stage.folder).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1");
    command
}

fn with_libraries(program: &Path, libraries: &str) -> Command {
    let mut command = bound_to_us(program);
    if !libraries.is_empty() {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}

fn serve(stage: &Stage, name: &str, command: &mut Command) -> Result<Process> {
    Process::serve(name, command, &stage.folder, PORT)
}
