//! The printers: processes of their own, each with as many sockets as its limit of open files allows.

use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use paperminder_ota::clock::Clock;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::PATIENCE;

struct Client {
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Client {
    fn start(server: &str, first: usize, count: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["client", server, &first.to_string(), &count.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { commands, answers: BufReader::new(answers).lines(), _child: child }
    }

    async fn tell(&mut self, command: &str) {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    }

    async fn answer(&mut self) -> String {
        let answer =
            timeout(PATIENCE, self.answers.next_line()).await.expect("the printers are ready in time");
        answer.unwrap().expect("the printers live")
    }
}

/// Printers that are connected, and come back when they are not.
pub struct Crowd(Vec<Client>);

/// When they received what was sent.
pub struct Received {
    /// Half of them.
    pub p50: Duration,
    /// 99 of 100.
    pub p99: Duration,
    /// All.
    pub last: Duration,
    /// Offers that came to somebody who had one.
    pub twice: usize,
}

impl Crowd {
    /// Before each of these servers, so many connect and subscribe.
    pub async fn connect(servers: &[String], each: usize) -> Self {
        let clients = servers.iter().enumerate();
        let mut crowd =
            Self(clients.map(|(index, server)| Client::start(server, index * each, each)).collect());
        crowd.answers().await;
        crowd
    }

    async fn tell(&mut self, command: &str) {
        for client in &mut self.0 {
            client.tell(command).await;
        }
    }

    async fn answers(&mut self) -> Vec<String> {
        join_all(self.0.iter_mut().map(Client::answer)).await
    }

    /// Waits until each has an offer, which `cause` causes.
    pub async fn receive(&mut self, cause: impl AsyncFnOnce()) -> Received {
        self.tell("receive").await;
        let began = Clock::system().now().timestamp_micros();
        cause().await;
        let (mut twice, mut times) = (0, Vec::new());
        for answer in self.answers().await {
            let mut numbers = answer.split(' ').map(|number| number.parse::<i64>().unwrap());
            twice += numbers.next().unwrap() as usize;
            times.extend(numbers.map(|micros| Duration::from_micros((micros - began).unsigned_abs())));
        }
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        Received { p50: at(50), p99: at(99), last: at(100), twice }
    }

    /// Each says so many things, one after the other; `{n}` counts them.
    pub async fn say(&mut self, times: usize, text: &str) {
        self.tell(&format!("say {times} {text}")).await;
        self.answers().await;
    }
}
