//! Events of a real console, which has to be there: a child in a group of its own listens, and is sent one.
#![cfg(windows)]

use std::io::Read;
use std::os::windows::process::CommandExt;
use std::process::{Command, Stdio};

use pelton::signal::{ConsoleEvent, SignalKind, console, signal};
use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, GenerateConsoleCtrlEvent};
use windows_sys::Win32::System::Threading::CREATE_NEW_PROCESS_GROUP;

/// What the child exits with when it has been told.
const CODE: i32 = 7;

/// Not a test of its own: what a child does.
#[test]
fn child() {
    if std::env::var_os("PELTON_TEST_CHILD").is_none() {
        return;
    }
    pelton::block_on(async {
        let mut terminate = signal(SignalKind::Terminate).unwrap();
        let mut break_key = console(ConsoleEvent::CtrlBreak).unwrap();
        println!("ready");
        terminate.recv().await.unwrap();
        break_key.recv().await.unwrap();
    });
    std::process::exit(CODE);
}

#[test]
fn an_event_of_the_console_reaches_those_who_listen_and_ends_nothing() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env("PELTON_TEST_CHILD", "1");
    command.stdout(Stdio::piped()).creation_flags(CREATE_NEW_PROCESS_GROUP);
    pelton::block_on(async {
        let mut child = pelton::process::spawn(&mut command).unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"ready") {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap();
            said.extend_from_slice(&byte);
        }
        // SAFETY: plain arguments.
        let sent = unsafe { GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, child.id()) };
        assert_ne!(sent, 0, "{}", std::io::Error::last_os_error());
        assert_eq!(child.wait().await.unwrap().code(), Some(CODE));
    });
}
