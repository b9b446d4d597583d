//! The minute of one sink: what goes wrong, one after the other, while events go on.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    agent::Home,
    disk::Disk,
    ledger::Ledger,
    netns::Netns,
    process::{PATIENCE, Process},
    rounds,
    servers::http::{Rules, Server, Trouble},
    spooled::spooled,
    traffic::Traffic,
};

/// Something between the agent and the server that can be restarted.
pub trait Between {
    fn restart(&mut self);
}

/// Who takes part.
pub struct Minute<'a, R: Rules> {
    pub name: &'static str,
    /// Events are on connections with this port; an agent sees the whole machine, and each of the trials has its own.
    pub port: u16,
    pub netns: &'a Netns,
    pub server: Server<R>,
    /// Of the sink.
    pub keys: String,
    /// Of the agent's environment.
    pub variables: Vec<(String, String)>,
    pub front: Option<Box<dyn Between>>,
}

/// One thing that goes wrong.
enum Act {
    /// The server does this for a while.
    Suffer(Trouble),
    /// The same, and the agent is killed meanwhile.
    SufferAndDie(Trouble),
    /// The server is restarted.
    RestartServer,
    /// What stands before it is restarted.
    RestartFront,
    /// The disk under the spool is full for a while.
    FillDisk,
    /// The same, while the server is busy, until the memory is full as well: lines are lost, and told.
    FillEverything,
}

fn acts() -> Vec<Act> {
    use Act::{FillDisk, FillEverything, RestartFront, RestartServer, Suffer, SufferAndDie};
    vec![
        SufferAndDie(Trouble::None),
        SufferAndDie(Trouble::Status(429, Some("1".to_owned()))),
        Suffer(Trouble::HalfAnswer),
        FillDisk,
        SufferAndDie(Trouble::status(500)),
        RestartServer,
        SufferAndDie(Trouble::Silence),
        FillEverything,
        Suffer(Trouble::Reset),
        SufferAndDie(Trouble::HalfBody),
        RestartFront,
        Suffer(Trouble::status(503)),
        SufferAndDie(Trouble::Garbage),
        Suffer(Trouble::Close),
    ]
}

/// How long the server is in one kind of trouble, and well in between.
const TROUBLE: Duration = Duration::from_secs(2);
const WELL: Duration = Duration::from_millis(500);

struct Play<'a, R: Rules> {
    agent: Option<Process>,
    // Unmounted before the folder goes in which it is.
    disk: Disk,
    home: Home,
    minute: Minute<'a, R>,
    ledger: Ledger,
}

/// Plays a minute, or several, and balances the accounts.
pub fn play<R: Rules>(minute: Minute<'_, R>) {
    let sink = format!(
        "[sinks.remote]\n{}retry = {{ first = \"50ms\", most = \"500ms\" }}\nhttp.timeout = \"1s\"\n\
         batch = {{ lines = 400, wait = \"100ms\" }}\nspool = {{ disk_bytes = \"8MiB\", memory_bytes = \"1MiB\" }}\n",
        minute.keys
    );
    let home = Home::new(minute.name, minute.port, &sink, minute.variables.clone());
    let disk = Disk::mount(&home.spools(), 12 * 1024);
    let ledger = Ledger::new(home.told());
    let mut play = Play { minute, home, disk, ledger, agent: None };
    play.start_agent();
    let traffic = Traffic::start(play.minute.netns, play.minute.port);
    for _ in 0..rounds() {
        acts().into_iter().for_each(|act| play.act(act));
    }
    let resets = traffic.stop();
    play.settle(resets);
}

impl<R: Rules> Play<'_, R> {
    fn act(&mut self, act: Act) {
        let server = &mut self.minute.server;
        match act {
            Act::Suffer(trouble) => {
                server.set_trouble(trouble);
                sleep(TROUBLE);
            }
            Act::SufferAndDie(trouble) => {
                server.set_trouble(trouble);
                sleep(TROUBLE);
                self.kill_agent();
                // Some of it stops a sink for minutes; another agent is to ask at once.
                self.minute.server.set_trouble(Trouble::None);
                self.start_agent();
            }
            // In its namespace, where its port is.
            Act::RestartServer => self.minute.netns.run(|| server.restart(Duration::from_millis(500))),
            Act::RestartFront => {
                if let Some(front) = &mut self.minute.front {
                    front.restart();
                }
            }
            Act::FillDisk => {
                self.disk.fill();
                sleep(TROUBLE);
                self.disk.free();
            }
            Act::FillEverything => {
                server.set_trouble(Trouble::status(503));
                self.disk.fill();
                self.await_loss();
                self.disk.free();
                // What waits is written before the server is well: of what is given up on its way, on a machine with much else
                // to do, an answer beyond the time-out may have come, and it is told as lost. tests/sinks looks at that.
                sleep(WELL);
                self.minute.server.set_trouble(Trouble::None);
                // A loss is told within a second or so; a kill before that would cost the word as well.
                sleep(2 * TROUBLE);
            }
        }
        self.minute.server.set_trouble(Trouble::None);
        sleep(WELL);
    }

    fn start_agent(&mut self) {
        self.agent = Some(self.home.start(self.minute.netns, &mut self.ledger.told));
    }

    fn kill_agent(&mut self) {
        // By SIGKILL.
        drop(self.agent.take());
        self.ledger.killed(Timestamp::now(), &spooled(&self.home.spools().join("remote")), &self.minute.server.ids());
    }

    /// Lets everything arrive, ends the agent and balances the accounts.
    fn settle(mut self, resets: u64) {
        let name = self.minute.name;
        let agent = self.agent.take().expect("one runs");
        self.await_arrivals();
        let said = agent.said();
        let status = agent.end();
        assert!(status.success(), "{name}: {status}: {said}");
        // A collector hands on the last lines when it is time to.
        self.await_arrivals();
        println!("{name}: {resets} resets made, {} agents started", self.ledger.told.starts());
        self.ledger.balance(name, &self.minute.server.with(|rules| rules.ids()));
        self.minute.server.with(|rules| assert_eq!(rules.broken(), Vec::<String>::new(), "{name}"));
    }

    /// Waits until more lines came than a memory of 1 MiB holds, and some beyond.
    fn await_loss(&mut self) {
        let (began, before) = (Instant::now(), self.ledger.told.lost());
        while self.ledger.told.lost() == before {
            assert!(began.elapsed() < PATIENCE, "{}: the memory does not fill up", self.minute.name);
            sleep(Duration::from_millis(100));
            self.ledger.told.read();
        }
        sleep(TROUBLE);
    }

    /// Waits until everything has arrived, or long enough.
    fn await_arrivals(&mut self) {
        let began = Instant::now();
        loop {
            self.ledger.told.read();
            let missing = self.ledger.missing(&self.minute.server.ids()).len() as u64;
            if missing <= self.ledger.told.lost() || began.elapsed() > PATIENCE {
                return;
            }
            sleep(Duration::from_millis(100));
        }
    }
}
