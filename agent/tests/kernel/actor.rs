//! The small programs ("actors") that a test runs as processes of their own.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use crate::{
    crowd, descriptors,
    sockets::{connect_nonblocking, linger_zero},
};

/// First argument of the test binary when it plays an actor.
pub const ACTOR: &str = "--actor";

/// The descriptor that an actor is given at its start, as services are given their listener (`SD_LISTEN_FDS_START`).
const GIVEN: i32 = 3;

/// A process of the test's: does what it is told on standard input and answers each command with a line.
pub struct Actor {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Actor {
    /// Starts `role` in the calling thread's namespace, as an executable called `name`. The first of `arguments` is the
    /// cgroup it enters.
    pub fn start(name: impl AsRef<Path>, role: &str, arguments: &[&str]) -> Self {
        Self::start_given(name, role, arguments, None)
    }

    fn start_given(name: impl AsRef<Path>, role: &str, arguments: &[&str], given: Option<BorrowedFd<'_>>) -> Self {
        let (directory, program) = own_copy(name.as_ref());
        let mut command = Command::new(&program);
        command
            // The file's name may be no UTF-8, and it is among the arguments unless something else is said.
            .arg0("actor")
            .args([ACTOR, role])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(given) = given {
            descriptors::hand_down(&mut command, given, GIVEN);
        }
        let mut child = command.spawn().expect("an actor");
        let input = child.stdin.take().expect("piped");
        let output = child.stdout.take().expect("piped");
        // It runs from the inode; the name is no longer needed once it has said something.
        let mut actor = Self { child, input, output };
        assert_eq!(actor.answer(), "ready");
        std::fs::remove_dir_all(directory).expect("the copy removed");
        actor
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives a command and waits for the answer.
    pub fn tell(&mut self, command: &str) -> String {
        self.say(command);
        self.answer()
    }

    /// Gives a command.
    pub fn say(&mut self, command: &str) {
        self.input.write_all(format!("{command}\n").as_bytes()).expect("the actor listens");
    }

    /// Waits for the answer to what was [said](Self::say).
    pub fn answer(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.output.read(&mut byte).expect("the actor answers") == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).expect("UTF-8")
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.child.kill().expect("the actor can be killed");
        self.child.wait().expect("the actor has ended");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// Has one actor pass its connection to another one, which it keeps as well; `folder` is for their meeting.
pub fn hand_over(from: &mut Actor, to: &mut Actor, folder: &Path) {
    let place = folder.join("descriptor");
    to.say(&format!("take {}", place.display()));
    assert_eq!(from.tell(&format!("give {}", place.display())), "given");
    assert_eq!(to.answer(), "taken");
    std::fs::remove_file(place).expect("the place removed");
}

/// This program by another name, because the kernel names a process after the file it executed; and the folder it is in.
fn own_copy(name: &Path) -> (PathBuf, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory").keep();
    let program = directory.join(name);
    // Whatever has become of the name of this one.
    std::fs::copy("/proc/self/exe", &program).expect("a copy of this test");
    (directory, program)
}

/// What an actor has.
#[derive(Default)]
struct Stage {
    listener: Option<TcpListener>,
    connection: Option<TcpStream>,
    crowd: Vec<TcpStream>,
    /// The processes it has started.
    workers: Vec<Actor>,
}

/// Plays an actor. A `server` listens, a `worker` has got the listener of whoever started it, an `heir` the connection of
/// what this process was before it executed this, a `client` has nothing; then it obeys. A `relay` has several.
pub fn act(arguments: &[String]) {
    let role = arguments.first().map_or("", String::as_str);
    if role == "relay" {
        return crate::relay::act();
    }
    if let Some(cgroup) = arguments.get(1).filter(|cgroup| !cgroup.is_empty()) {
        crate::cgroups::enter(cgroup);
    }
    // SAFETY: whoever starts an actor in one of these two roles has put that descriptor there for it.
    let given = || unsafe { OwnedFd::from_raw_fd(GIVEN) };
    let mut stage = Stage::default();
    match role {
        "server" => stage.listener = Some(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener")),
        "worker" => stage.listener = Some(given().into()),
        "heir" => {
            stage.connection = Some(given().into());
            let own = std::env::current_exe().expect("this test's path");
            std::fs::remove_dir_all(own.parent().expect("a folder")).expect("the copy removed");
        }
        "client" => {}
        _ => panic!("unknown actor {role}"),
    }
    println!("ready");
    for command in std::io::stdin().lines() {
        let command = command.expect("commands are UTF-8");
        let (word, argument) = command.split_once(' ').unwrap_or((command.as_str(), ""));
        if let Some(answer) = stage.obey(word, argument) {
            println!("{answer}");
        }
    }
}

impl Stage {
    fn listener(&self) -> &TcpListener {
        self.listener.as_ref().expect("a listener")
    }

    fn connection(&self) -> &TcpStream {
        self.connection.as_ref().expect("a connection")
    }

    /// Does it and gives the answer, if there is to be one.
    fn obey(&mut self, word: &str, argument: &str) -> Option<String> {
        let answer = match word {
            "port" => return Some(self.listener().local_addr().expect("bound").port().to_string()),
            "accept" => {
                self.connection = Some(self.listener().accept().expect("a connection").0);
                "accepted"
            }
            "connect" => {
                self.connection = Some(TcpStream::connect(argument).expect("a connection"));
                "connected"
            }
            "queue-up" => {
                crowd::queue_up(self.listener());
                "listening"
            }
            "accept-many" => {
                let accepted = crowd::accept(self.listener(), number(argument));
                self.crowd.extend(accepted);
                "accepted"
            }
            "connect-many" => {
                let words: Vec<&str> = argument.split(' ').collect();
                let [count, port, own] = words[..] else { panic!("a number, a port and an address") };
                let (port, own) = (port.parse().expect("a port"), own.parse().expect("an address"));
                self.crowd.extend(crowd::connect_to(port, own, number(count)));
                "connected"
            }
            "reset-many" => {
                crowd::reset(&mut self.crowd, number(argument));
                "reset"
            }
            "read" => {
                self.connection().read_exact(&mut vec![0; number(argument)]).expect("data");
                "read"
            }
            // In a thread with a name of its own, as proxies and runtimes do it.
            "read-in-thread" => {
                let mut stream = self.connection().try_clone().expect("a second descriptor");
                let length = number(argument);
                std::thread::Builder::new()
                    .name("wrk:worker_0".to_owned())
                    .spawn(move || stream.read_exact(&mut vec![0; length]).expect("data"))
                    .expect("a thread")
                    .join()
                    .expect("the thread ended");
                "read"
            }
            "write" => {
                self.connection().write_all(&vec![b'w'; number(argument)]).expect("room");
                "written"
            }
            "linger0" => {
                linger_zero(self.connection());
                "set"
            }
            "shutdown" => {
                self.connection().shutdown(Shutdown::Both).expect("a shutdown");
                "shut"
            }
            "close" => {
                self.connection = None;
                "closed"
            }
            // Connects to an address, waits so many milliseconds in vain and gives up.
            "give-up" => {
                let (address, wait) = argument.split_once(' ').expect("an address and a time");
                let socket = connect_nonblocking(address.parse().expect("an address"));
                std::thread::sleep(Duration::from_millis(number(wait) as u64));
                drop(socket);
                "gave up"
            }
            "enter" => {
                crate::cgroups::enter(argument);
                "entered"
            }
            "start" => return Some(self.start_worker(argument)),
            "worker" => {
                let (index, command) = argument.split_once(' ').expect("a worker and a command");
                return Some(self.workers[number(index)].tell(command));
            }
            // The connection, to the actor that takes it there.
            "give" => {
                descriptors::give(Path::new(argument), self.connection().as_fd());
                "given"
            }
            "take" => {
                self.connection = Some(descriptors::take(Path::new(argument)).into());
                "taken"
            }
            "become" => self.become_heir(argument),
            "sleep" => {
                std::thread::sleep(Duration::from_millis(number(argument) as u64));
                return None;
            }
            "exit" => std::process::exit(argument.parse().expect("a status")),
            _ => panic!("unknown command {word}"),
        };
        Some(answer.to_owned())
    }

    /// `NAME`, or `NAME CGROUP`: a process that gets the listener. The answer is its pid.
    fn start_worker(&mut self, argument: &str) -> String {
        let (name, cgroup) = argument.split_once(' ').unwrap_or((argument, ""));
        let worker = Actor::start_given(name, "worker", &[cgroup], Some(self.listener().as_fd()));
        let pid = worker.pid().to_string();
        self.workers.push(worker);
        pid
    }

    /// Executes another program that goes on with the connection, and says that it is ready.
    fn become_heir(&self, name: &str) -> ! {
        let (_directory, program) = own_copy(Path::new(name));
        let mut command = Command::new(program);
        command.arg0("actor").args([ACTOR, "heir"]);
        descriptors::hand_down(&mut command, self.connection().as_fd(), GIVEN);
        panic!("cannot execute {name}: {}", command.exec());
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}
