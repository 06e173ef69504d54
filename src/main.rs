//! The command line: arguments, allocator, exit status. What the commands do is in the library.

use std::process::ExitCode;

use headgate::daemon::command::{self, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    headgate::platform::memory::return_at_once();
    match Command::parse(std::env::args_os()) {
        Ok(command) => command::execute(&command),
        Err(usage) => {
            eprintln!("headgate: {usage}\n{}", command::USAGE);
            ExitCode::from(2)
        }
    }
}
