//! Known limits, each as a test that passes while the limit stands (ARCHITECTURE.md lists them).

use std::time::{Duration, Instant};

use crate::house::{House, Running, Way, run};

/// What is waited for an answer that should come at once.
const WAIT: Duration = Duration::from_secs(6);

/// One channel whose reader has stopped must not hold up another of the same connection. It does: the SSH library
/// awaits a bounded queue in the only loop of a connection.
#[test]
fn limit_a_paused_reader_stalls_the_other_channels_of_its_connection() {
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    let control = house.path("control").display().to_string();
    let shared = |master: &str| {
        let mut ssh = user.openssh("ssh", Way::Proxy);
        ssh.args(["-o", &format!("ControlPath={control}")])
            .args(["-o", &format!("ControlMaster={master}")])
            .arg(crate::house::target("web"));
        ssh
    };
    // The connection itself, without a channel; each client then opens one of its own.
    let mut master = Running::start(shared("yes").arg("-N"), b"");
    crate::house::until("the master connection", || {
        run(shared("no").args(["-O", "check"])).code == 0
    });
    assert_eq!(run(shared("no").arg("echo before")).ok(), "before\n");
    // Much more than all buffers on the way hold; nobody reads the client's output.
    let reader = Paused::start(shared("no").arg("head -c 200000000 /dev/zero"));
    let comes = || {
        let started = Instant::now();
        let mut echo = Running::start(shared("no").arg("echo second"), b"");
        while !echo.is_over() && started.elapsed() < WAIT {
            std::thread::sleep(Duration::from_millis(20));
        }
        let came = echo.stdout() == b"second\n";
        let took = started.elapsed();
        eprintln!("echo beside a paused reader: came {came}, after {took:?}");
        came
    };
    // A busy machine takes its time to fill the buffers.
    let stalls = (0..15).any(|_| {
        std::thread::sleep(Duration::from_secs(2));
        !comes()
    });
    assert!(!master.is_over());
    assert!(
        stalls,
        "the limit is gone: make this an ordinary test of `echo` beside a paused reader, and take the line out of ARCHITECTURE.md"
    );
    drop(reader);
}

/// A client whose standard output is a full pipe that nobody reads.
struct Paused(std::process::Child);

impl Paused {
    fn start(command: &mut std::process::Command) -> Self {
        let piped = command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null());
        Self(piped.spawn().unwrap())
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It may be over already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
